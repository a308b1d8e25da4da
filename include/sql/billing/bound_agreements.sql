-- Guarantees: when this run would create more agreements than the bound, none is created: the lines that wait for one
-- are parked until a person lets them pass (billing.bound_allowance) or there are fewer. Everything else goes on.
-- May run again: writes only what differs. By hand: PGOPTIONS='-c billing.run_id=RUN' psql -1 -f FILE

select pg_advisory_xact_lock(hashtext('billing.decide'));

create temporary table beyond_bound on commit drop as
with waiting as (
    -- Lines that wait for an agreement and nothing else, but this bound.
    select decision.company_id, scope.line_id
    from billing.line_in_scope as scope
    join billing.line_decision as decision using (line_id)
    join billing.held_reason as reason on reason.line_id = scope.line_id and reason.reason_code = 'agreement_to_create'
    where
        not exists (
            select from billing.held_reason as other
            where
                other.line_id = scope.line_id
                and other.reason_code not in ('agreement_to_create', 'too_many_agreements')
        )
        -- One under way is not created by this run.
        and not exists (
            select from delivery.new_agreement as ledger
            where ledger.company_id = decision.company_id and ledger.state = 'intended'
        )
),
counted as (
    select count(distinct company_id)::numeric as figure from waiting
)
select
    waiting.line_id,
    'too_many_agreements' as bound_key,
    counted.figure,
    format('%s agreements would be created, bound %s', counted.figure, bound.agreements) as detail
from waiting
cross join counted
cross join (select billing.bound_setting('bound_new_agreements') as agreements) as bound
left join billing.bound_allowance as allowance on allowance.bound_key = 'too_many_agreements'
where counted.figure > bound.agreements and not billing.is_within(counted.figure, allowance.up_to);
analyze beyond_bound;

delete from billing.held_reason as known
using billing.line_in_scope as scope
where
    known.line_id = scope.line_id
    and known.reason_code = 'too_many_agreements'
    and not exists (select from beyond_bound where beyond_bound.line_id = known.line_id);

merge into billing.held_reason as known
using beyond_bound on known.line_id = beyond_bound.line_id and known.reason_code = 'too_many_agreements'
when matched and (known.detail, known.bound_figure::numeric) is distinct from (beyond_bound.detail, beyond_bound.figure) then
    update set detail = beyond_bound.detail, bound_figure = beyond_bound.figure
when not matched then insert (line_id, reason_code, detail, bound_key, bound_figure)
    values (beyond_bound.line_id, 'too_many_agreements', beyond_bound.detail, beyond_bound.bound_key, beyond_bound.figure);
