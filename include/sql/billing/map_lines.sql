-- Guarantees: each line in scope has its company and product by approved mappings; a product chosen by a person wins.
-- May run again: writes only what differs. By hand: PGOPTIONS='-c billing.run_id=RUN' psql -1 -f FILE.

select pg_advisory_xact_lock(hashtext('billing.decide'));

merge into billing.line_decision as known
using (
    select
        line.line_id,
        organization_mapping.company_id,
        coalesce(override.product_id, offer_mapping.product_id) as product_id
    from billing.line_in_scope as scope
    join billing.invoice_line as line using (line_id)
    join billing.invoice as invoice on invoice.invoice_id = line.invoice_id
    left join billing.override as override on override.line_id = line.line_id
    left join mapping.organization_mapping as organization_mapping
        on organization_mapping.organization_id = invoice.organization_id
        and organization_mapping.state = 'approved'
    left join mapping.offer_mapping as offer_mapping
        on offer_mapping.offer_id = line.offer_id and offer_mapping.state = 'approved'
) as decided on known.line_id = decided.line_id
when matched and (known.company_id, known.product_id) is distinct from (decided.company_id, decided.product_id) then
    update set company_id = decided.company_id, product_id = decided.product_id,
        run_id = audit.current_run_id(), decided_at = now()
when not matched then
    insert (line_id, company_id, product_id, run_id)
    values (decided.line_id, decided.company_id, decided.product_id, audit.current_run_id());
