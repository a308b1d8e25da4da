-- Guarantees: an agreement that would get more new Additions in this run than the bound gets none of them: all their
-- lines are held until a person lets them pass (billing.bound_allowance) or there are fewer. What prolongs an Addition
-- goes on. It runs after lines are grouped, since a new Addition may carry several lines.
-- May run again: writes only what differs. By hand: PGOPTIONS='-c billing.run_id=RUN' psql -1 -f FILE

select pg_advisory_xact_lock(hashtext('billing.decide'));

-- Lines that this file held a moment ago still know their Addition, and are counted again.
create temporary table new_addition_line on commit drop as
select decision.line_id, decision.agreement_id, decision.delivery_key
from billing.line_in_scope as scope
join billing.line_decision as decision using (line_id)
where
    decision.delivery_key is not null
    and (
        decision.outcome = 'deliver'
        or (decision.outcome = 'held' and exists (
            select from billing.held_reason as reason
            where reason.line_id = decision.line_id and reason.reason_code = 'too_many_additions'
        ))
    )
    and not exists (
        select from delivery.addition as ledger
        where ledger.delivery_key = decision.delivery_key and ledger.state <> 'refused'
    );
analyze new_addition_line;

create temporary table beyond_bound on commit drop as
select
    line.line_id,
    counted.bound_key,
    counted.figure,
    format('%s new Additions on agreement %s (%s), bound %s', to_char(counted.figure, 'FM999,999,999,990'),
        agreement.name, agreement.agreement_id, to_char(bound.additions, 'FM999,999,999,990')) as detail
from (
    select
        agreement_id,
        'too_many_additions/' || agreement_id as bound_key,
        count(distinct delivery_key)::numeric as figure
    from new_addition_line
    group by agreement_id
) as counted
cross join (select billing.bound_setting('bound_additions_per_agreement') as additions) as bound
join mapping.agreement as agreement using (agreement_id)
join new_addition_line as line using (agreement_id)
left join billing.bound_allowance as allowance on allowance.bound_key = counted.bound_key
where counted.figure > bound.additions and not billing.is_within(counted.figure, allowance.up_to);
analyze beyond_bound;

delete from billing.held_reason as known
using billing.line_in_scope as scope
where
    known.line_id = scope.line_id
    and known.reason_code = 'too_many_additions'
    and not exists (select from beyond_bound where beyond_bound.line_id = known.line_id);

merge into billing.held_reason as known
using beyond_bound on known.line_id = beyond_bound.line_id and known.reason_code = 'too_many_additions'
when matched and (known.detail, known.bound_key, known.bound_figure::numeric)
    is distinct from (beyond_bound.detail, beyond_bound.bound_key, beyond_bound.figure) then
    update set detail = beyond_bound.detail, bound_key = beyond_bound.bound_key, bound_figure = beyond_bound.figure
when not matched then insert (line_id, reason_code, detail, bound_key, bound_figure)
    values (beyond_bound.line_id, 'too_many_additions', beyond_bound.detail, beyond_bound.bound_key, beyond_bound.figure);

update billing.line_decision as known
set
    outcome = decided.outcome,
    run_id = audit.current_run_id(),
    decided_at = now()
from (
    select
        new_addition_line.line_id,
        case when beyond_bound.line_id is not null then 'held' else 'deliver' end as outcome
    from new_addition_line
    left join beyond_bound on beyond_bound.line_id = new_addition_line.line_id
) as decided
where known.line_id = decided.line_id and known.outcome <> decided.outcome;
