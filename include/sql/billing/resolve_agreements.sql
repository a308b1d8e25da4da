-- Guarantees: each line in scope has its agreement by the order of the design: chosen by a person, mapped contract, the
-- company's one active agreement of the default Agreement Type. Several candidates are kept as candidates; none is picked.
-- Needs billing/map_lines.sql before it.
-- May run again: writes only what differs. By hand: PGOPTIONS='-c billing.run_id=RUN' psql -1 -f FILE.

select pg_advisory_xact_lock(hashtext('billing.decide'));

merge into billing.line_decision as known
using (
    with default_agreement as (
        select agreement.company_id, array_agg(agreement.agreement_id order by agreement.agreement_id) as agreement_ids
        from mapping.agreement as agreement
        join mapping.agreement_type as agreement_type using (agreement_type_id)
        where
            agreement_type.name = billing.text_setting('default_agreement_type')
            and agreement.agreement_status = 'Active'
            and not agreement.is_cancelled
            and not agreement.is_gone
            and not agreement_type.is_inactive
            and not agreement_type.is_gone
        group by agreement.company_id
    ),
    resolved as (
        select
            line.line_id,
            override.agreement_id as chosen_agreement_id,
            contract_mapping.agreement_id as contract_agreement_id,
            coalesce(default_agreement.agreement_ids, '{}') as candidate_ids
        from billing.line_in_scope as scope
        join billing.line_decision as decision using (line_id)
        join billing.invoice_line as line using (line_id)
        join billing.invoice as invoice on invoice.invoice_id = line.invoice_id
        left join billing.override as override on override.line_id = line.line_id
        left join mapping.contract_mapping as contract_mapping
            on contract_mapping.contract_id = coalesce(line.contract_id, invoice.contract_id)
            and contract_mapping.state = 'approved'
        left join default_agreement on default_agreement.company_id = decision.company_id
    )
    select
        line_id,
        coalesce(
            chosen_agreement_id, contract_agreement_id,
            case when cardinality(candidate_ids) = 1 then candidate_ids[1] end
        ) as agreement_id,
        case
            when chosen_agreement_id is not null then 'override'
            when contract_agreement_id is not null then 'contract'
            when cardinality(candidate_ids) = 1 then 'default_type'
        end as agreement_source,
        candidate_ids as agreement_candidates
    from resolved
) as decided on known.line_id = decided.line_id
when matched and (known.agreement_id, known.agreement_source, known.agreement_candidates)
    is distinct from (decided.agreement_id, decided.agreement_source, decided.agreement_candidates) then
    update set agreement_id = decided.agreement_id, agreement_source = decided.agreement_source,
        agreement_candidates = decided.agreement_candidates, run_id = audit.current_run_id(), decided_at = now();
