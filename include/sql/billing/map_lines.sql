-- Guarantees: each line in scope has its company and product by approved mappings; a product chosen by a person wins.
-- Where the organization has selectors they alone decide: the companies that claim a line are kept as candidates, and
-- none is picked unless it is the only one. A decided entry for the line's billing frequency wins over the offer's own.
-- A line without an offer has the default product of its charge type.
-- May run again: writes only what differs. By hand: PGOPTIONS='-c billing.run_id=RUN' psql -1 -f FILE.

select pg_advisory_xact_lock(hashtext('billing.decide'));

merge into billing.line_decision as known
using (
    with with_selectors as (
        select organization_id from mapping.company_selector group by organization_id
    ),
    claimed as (
        select
            scope.line_id,
            array_agg(distinct selector.company_id order by selector.company_id) as company_ids
        from with_selectors
        join billing.invoice as invoice on invoice.organization_id = with_selectors.organization_id
        join billing.line_in_scope as scope on scope.invoice_id = invoice.invoice_id
        join billing.invoice_line as line on line.line_id = scope.line_id
        cross join lateral (values
            ('contract', coalesce(line.contract_id, invoice.contract_id)),
            ('offer', line.offer_id),
            ('subscription', line.subscription_id)
        ) as named (kind, source_id)
        join mapping.company_selector as selector
            on selector.organization_id = invoice.organization_id
            and selector.kind = named.kind
            and selector.source_id = named.source_id
        group by scope.line_id
    )
    select
        line.line_id,
        case
            when organization_mapping.state = 'approved' and with_selectors.organization_id is null
                then organization_mapping.company_id
            when organization_mapping.state = 'approved' and cardinality(claimed.company_ids) = 1
                then claimed.company_ids[1]
        end as company_id,
        coalesce(claimed.company_ids, '{}') as company_candidates,
        coalesce(
            override.product_id,
            case
                when line.offer_id is null then charge_type.default_product_id
                when variant.state is not null then case when variant.state = 'approved' then variant.product_id end
                when offer_mapping.state = 'approved' then offer_mapping.product_id
            end
        ) as product_id
    from billing.line_in_scope as scope
    join billing.invoice_line as line using (line_id)
    join billing.invoice as invoice on invoice.invoice_id = line.invoice_id
    left join billing.override as override on override.line_id = line.line_id
    left join billing.charge_type as charge_type on charge_type.charge_type = line.charge_type
    left join mapping.organization_mapping as organization_mapping
        on organization_mapping.organization_id = invoice.organization_id
    left join with_selectors on with_selectors.organization_id = invoice.organization_id
    left join claimed on claimed.line_id = line.line_id
    left join mapping.offer_mapping as offer_mapping on offer_mapping.offer_id = line.offer_id
    left join mapping.offer_variant_mapping as variant
        on variant.offer_id = line.offer_id
        and variant.billing_frequency = line.billing_frequency
        and variant.decided_by is not null
) as decided on known.line_id = decided.line_id
when matched and (known.company_id, known.company_candidates, known.product_id)
    is distinct from (decided.company_id, decided.company_candidates, decided.product_id) then
    update set company_id = decided.company_id, company_candidates = decided.company_candidates,
        product_id = decided.product_id, run_id = audit.current_run_id(), decided_at = now()
when not matched then
    insert (line_id, company_id, company_candidates, product_id, run_id)
    values (decided.line_id, decided.company_id, decided.company_candidates, decided.product_id, audit.current_run_id());
