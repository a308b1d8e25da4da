-- Guarantees: each line to be delivered knows the Addition that carries it. Recurring lines of one subscription in
-- following cycles with equal values share one (a persistent Addition); its end is the end of the last cycle that an
-- invoice line paid for, so nothing is ever billed without a line. A second recurring line of a cycle, a line whose
-- frequency is not the agreement's cycle, and one-time lines get an Addition of their own.
-- May run again: writes only what differs. By hand: PGOPTIONS='-c billing.run_id=RUN' psql -1 -f FILE

select pg_advisory_xact_lock(hashtext('billing.decide'));

create temporary table line_group on commit drop as
with deliverable as (
    select
        line.line_id,
        line.line_key,
        line.revision,
        line.subscription_id,
        decision.agreement_id,
        decision.product_id,
        decision.quantity,
        decision.unit_price,
        decision.invoice_description,
        decision.taxable_flag,
        decision.unit_cost,
        decision.cycle_start,
        decision.cycle_end,
        agreement.next_invoice_date,
        -- Ranked again over what is seen here: another run may have ranked among other lines.
        decision.can_be_persistent
        and not exists (
            select from delivery.persistent_cycle as taken
            where
                taken.subscription_id = line.subscription_id
                and taken.agreement_id = decision.agreement_id
                and taken.cycle_start = decision.cycle_start
        )
        and row_number() over (
            partition by line.subscription_id, decision.agreement_id, decision.cycle_start, decision.can_be_persistent
            order by line.line_id
        ) = 1 as is_persistent
    from billing.line_in_scope as scope
    join billing.invoice_line as line on line.line_id = scope.line_id
    join billing.line_decision as decision on decision.line_id = line.line_id
    join mapping.agreement as agreement on agreement.agreement_id = decision.agreement_id
    where
        decision.outcome = 'deliver'
        -- Another run is about to judge its amount (billing/bound_amounts.sql): it founds no Addition before that.
        and not exists (
            select from billing.held_reason as reason
            where
                reason.line_id = line.line_id
                and reason.reason_code in ('amount_above_bound', 'customer_total_unusual', 'credit_exceeds_charge')
        )
),
marked as (
    select
        deliverable.*,
        coalesce(
            lag(cycle_end) over subscription + 1 <> cycle_start
            or (product_id, quantity::numeric, unit_price::numeric, invoice_description, taxable_flag, unit_cost::numeric)
            is distinct from (
                lag(product_id) over subscription, lag(quantity::numeric) over subscription,
                lag(unit_price::numeric) over subscription, lag(invoice_description) over subscription,
                lag(taxable_flag) over subscription, lag(unit_cost::numeric) over subscription
            ),
            true
        ) as starts_group
    from deliverable
    where is_persistent
    window subscription as (partition by subscription_id, agreement_id order by cycle_start)
),
numbered as (
    select
        marked.*,
        sum(starts_group::integer) over (partition by subscription_id, agreement_id order by cycle_start) as group_number
    from marked
),
founded as (
    select
        numbered.*,
        first_value(line_key) over line_group as founding_line_key,
        first_value(revision) over line_group as founding_revision,
        first_value(cycle_start) over line_group as group_start
    from numbered
    window line_group as (partition by subscription_id, agreement_id, group_number order by cycle_start)
),
-- The Addition that ends right before the group begins is prolonged if its values are the same, or may be changed
-- because every cycle it billed is already invoiced and was proven while it still had those values. One that was taken
-- over has no line yet: it is changed in the cycle to be invoiced next, which it would bill as it was made by hand.
ledger as (
    select distinct on (addition.subscription_id, addition.agreement_id, carried.last_cycle_end)
        addition.*,
        carried.last_cycle_end,
        carried.is_proven
    from delivery.addition as addition
    cross join lateral (
        select max(line.cycle_end) as last_cycle_end, bool_and(line.proven_run_id is not null) as is_proven
        from delivery.addition_line as line
        where line.delivery_key = addition.delivery_key
    ) as carried
    where addition.is_persistent and (addition.state <> 'refused' or addition.is_adopted)
    order by addition.subscription_id, addition.agreement_id, carried.last_cycle_end, addition.delivery_key
)
select
    founded.line_id,
    coalesce(
        ledger.delivery_key,
        billing.text_setting('environment') || '/' || founded.founding_line_key || '/' || founded.founding_revision
    ) as delivery_key,
    true as is_persistent
from founded
left join ledger
    on ledger.subscription_id = founded.subscription_id
    and ledger.agreement_id = founded.agreement_id
    and (
        ledger.last_cycle_end + 1 = founded.group_start
        or (ledger.is_adopted and ledger.last_cycle_end is null and founded.group_start <= founded.next_invoice_date)
    )
    and (ledger.payload -> 'product' ->> 'id')::integer = founded.product_id
    -- What was sent once cannot be left to the product again.
    and (not ledger.payload ? 'taxableFlag' or founded.taxable_flag is not null)
    and (not ledger.payload ? 'unitCost' or founded.unit_cost is not null)
    and (
        ledger.last_cycle_end is null
        or (ledger.last_cycle_end < founded.next_invoice_date and ledger.is_proven)
        or (
            (ledger.payload ->> 'quantity')::numeric = founded.quantity
            and (ledger.payload ->> 'unitPrice')::numeric = founded.unit_price
            and (ledger.payload ->> 'taxableFlag')::boolean is not distinct from founded.taxable_flag
            and (ledger.payload ->> 'unitCost')::numeric is not distinct from founded.unit_cost::numeric
            and ledger.payload ->> 'invoiceDescription' = founded.invoice_description
                || case when billing.text_setting('marker_carrier') = 'description' then ' [' || ledger.marker || ']' else '' end
        )
    )
union all
select
    line_id,
    billing.text_setting('environment') || '/' || line_key || '/' || revision,
    false
from deliverable
where not is_persistent;

-- The carrying Addition is in conflict or in doubt: the line waits until that is settled. A line that was written to an
-- Addition in conflict may stand on ConnectWise's invoice: it waits whichever Addition would carry it by now, and the
-- lines that would share that one wait with it.
create temporary table waiting_line on commit drop as
with unsettled as (
    select addition.delivery_key as waiting_key, addition.*
    from delivery.addition as addition
    where addition.state not in ('delivered', 'refused')
    union all
    select line_group.delivery_key, addition.*
    from delivery.addition as addition
    join delivery.plan_item as item
        on item.plan_id = addition.plan_id and item.delivery_key = addition.delivery_key
    join delivery.plan_item_line as written using (plan_item_id)
    join line_group on line_group.line_id = written.line_id
    where addition.state = 'conflict'
)
select distinct on (line_group.line_id)
    line_group.line_id, unsettled.connectwise_addition_id, unsettled.state, unsettled.problem
from line_group
join unsettled on unsettled.waiting_key = line_group.delivery_key
order by line_group.line_id, unsettled.delivery_key;

-- An Addition that was taken over bills without an end until its first plan is delivered: no other one bills the
-- subscription beside it.
create temporary table beside_adopted_line on commit drop as
select
    line_group.line_id,
    format('Addition %s on agreement %s, taken over by %s, bills as it was made by hand', adopted.connectwise_addition_id,
        adopted.agreement_id, adopted.decided_by) as detail
from line_group
join billing.invoice_line as line using (line_id)
join billing.line_decision as decision using (line_id)
join delivery.adopted_addition as adopted
    on adopted.subscription_id = line.subscription_id and adopted.agreement_id = decision.agreement_id
where adopted.is_waiting and decision.is_recurring and line.revision = 1 and line_group.delivery_key <> adopted.delivery_key;

insert into billing.held_reason (line_id, reason_code, detail)
select line_id, 'adopted_addition_waits', detail from beside_adopted_line
on conflict (line_id, reason_code) do update set detail = excluded.detail;

insert into billing.held_reason (line_id, reason_code, detail)
select
    line_id, 'addition_not_settled',
    format('Addition %s is %s%s', coalesce(connectwise_addition_id::text, '(not known yet)'), state, ': ' || problem)
from waiting_line
on conflict (line_id, reason_code) do update set detail = excluded.detail;

update billing.line_decision as known
set outcome = 'held', delivery_key = null, run_id = audit.current_run_id(), decided_at = now()
from (select line_id from waiting_line union select line_id from beside_adopted_line) as waiting
where known.line_id = waiting.line_id;

merge into billing.line_decision as known
using line_group on known.line_id = line_group.line_id
when matched and known.outcome = 'deliver'
    and (known.delivery_key, known.is_persistent) is distinct from (line_group.delivery_key, line_group.is_persistent) then
    update set delivery_key = line_group.delivery_key, is_persistent = line_group.is_persistent,
        run_id = audit.current_run_id(), decided_at = now();
