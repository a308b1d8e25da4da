-- Guarantees: the run has one open plan: every Addition to create or to update, sealed by the hash of what will be sent.
-- What already stands as it should is not listed. An Addition that ConnectWise refused is planned again only when it
-- differs from what was refused. And every agreement to create; its lines follow with the next run. Older plans still
-- waiting that speak of the same lines are superseded.
-- May run again: a proposed plan of the run is made anew; an approved one is left alone until it is applied, and then
-- followed by a new one.
-- By hand: PGOPTIONS='-c billing.run_id=RUN' psql -1 -f FILE

select pg_advisory_xact_lock(hashtext('billing.decide'));

-- A plan whose deadline is over is written no more (delivery_deadline_hours); what it began stands in the ledger.
update delivery.plan set state = 'superseded'
where
    run_id = audit.current_run_id() and state = 'approved'
    and approved_at + billing.text_setting('delivery_deadline_hours')::integer * interval '1 hour' < now();

insert into delivery.plan (run_id, is_dry_run)
select run_id, is_dry_run from audit.run where run_id = audit.current_run_id()
on conflict (run_id) where state in ('proposed', 'approved') do nothing;

-- Locked: a person who approves it at this moment approves what they saw, or is told that it changed.
create temporary table this_plan on commit drop as
select plan_id from delivery.plan where run_id = audit.current_run_id() and state = 'proposed'
for update;

delete from delivery.plan_item where plan_id in (select plan_id from this_plan);
delete from delivery.plan_agreement where plan_id in (select plan_id from this_plan);

-- Parked by a bound: a run that decides at the same time frees the line until it has judged the bound anew. Its whole
-- Addition is left to that run.
create temporary table parked_addition on commit drop as
select distinct decision.delivery_key
from billing.line_in_scope as scope
join billing.line_decision as decision using (line_id)
join billing.held_reason as reason using (line_id)
join billing.held_reason_code as code using (reason_code)
where code.is_bound and decision.delivery_key is not null
union
-- An edit took a line off its Addition after lines were grouped: what is left would bill that line's cycle, too, or bear
-- its key. Whole again is the group that the next run makes.
select placed.delivery_key
from (
    select
        decision.delivery_key,
        decision.cycle_start = coalesce(
            lag(decision.cycle_end) over (partition by decision.delivery_key order by decision.cycle_start) + 1,
            carried.last_cycle_end + 1,
            case
                when ledger.is_adopted or decision.delivery_key
                    = billing.text_setting('environment') || '/' || line.line_key || '/' || line.revision
                    then decision.cycle_start
            end
        ) as follows
    from billing.line_in_scope as scope
    join billing.line_decision as decision using (line_id)
    join billing.invoice_line as line on line.line_id = scope.line_id
    left join delivery.addition as ledger
        on ledger.delivery_key = decision.delivery_key and (ledger.state <> 'refused' or ledger.is_adopted)
    left join lateral (
        select max(done.cycle_end) as last_cycle_end
        from delivery.addition_line as done
        where done.delivery_key = ledger.delivery_key
    ) as carried on true
    where decision.outcome = 'deliver' and decision.is_persistent and decision.delivery_key is not null
) as placed
where placed.follows is not true;

create temporary table wanted on commit drop as
-- Only lines of this run: a line of another period may have been given the same Addition by an earlier run.
with desired as (
    select
        decision.delivery_key,
        delivery.marker_for(decision.delivery_key) as marker,
        decision.agreement_id,
        decision.company_id,
        decision.product_id,
        line.subscription_id,
        coalesce(bool_or(decision.is_persistent), false) as is_persistent,
        decision.quantity,
        decision.unit_price,
        decision.invoice_description,
        decision.taxable_flag,
        decision.unit_cost,
        min(decision.effective_date) as effective_date,
        max(decision.cancelled_date) as cancelled_date,
        sum(decision.amount) as amount
    from billing.line_in_scope as scope
    join billing.line_decision as decision on decision.line_id = scope.line_id
    join billing.invoice_line as line on line.line_id = scope.line_id
    -- A line that another run is deciding at this moment has no Addition yet: that run plans it.
    where
        decision.outcome = 'deliver'
        and decision.delivery_key is not null
        and not exists (
            select from parked_addition as parked where parked.delivery_key = decision.delivery_key
        )
    group by
        decision.delivery_key, decision.agreement_id, decision.company_id, decision.product_id, line.subscription_id,
        decision.quantity, decision.unit_price, decision.invoice_description, decision.taxable_flag, decision.unit_cost
),
complete as (
    select
        desired.*,
        ledger.state as ledger_state,
        ledger.payload as ledger_payload,
        ledger.payload_hash as ledger_hash,
        case when ledger.state = 'delivered' then 'update' else 'create' end as action,
        case when ledger.state = 'delivered' then ledger.payload || (fresh.payload - 'effectiveDate') else fresh.payload end
            as payload
    from desired
    cross join lateral (
        select delivery.payload_for(
            desired.product_id, desired.quantity, desired.unit_price, desired.effective_date, desired.cancelled_date,
            desired.invoice_description, desired.marker, desired.taxable_flag, desired.unit_cost
        ) as payload
    ) as fresh
    left join delivery.addition as ledger using (delivery_key)
    where ledger.state is null or ledger.state in ('delivered', 'refused')
)
select complete.*, encode(sha256(convert_to(payload::text, 'UTF8')), 'hex') as payload_hash
from complete;

insert into billing.held_reason (line_id, reason_code, detail)
select decision.line_id, 'refused_by_connectwise', coalesce(ledger.problem, '')
from wanted
join delivery.addition as ledger using (delivery_key)
join billing.line_decision as decision using (delivery_key)
where wanted.ledger_state = 'refused' and wanted.payload_hash = wanted.ledger_hash and decision.outcome = 'deliver'
on conflict (line_id, reason_code) do update set detail = excluded.detail;

update billing.line_decision as known
set outcome = 'held', run_id = audit.current_run_id(), decided_at = now()
from wanted
where
    known.delivery_key = wanted.delivery_key
    and known.outcome = 'deliver'
    and wanted.ledger_state = 'refused'
    and wanted.payload_hash = wanted.ledger_hash;

delete from wanted where ledger_state = 'refused' and payload_hash = ledger_hash;

insert into delivery.plan_item (plan_id, delivery_key, action, agreement_id, company_id, subscription_id, is_persistent,
    marker, payload, payload_hash, payload_before, next_invoice_date, agreement_terms, amount, shard)
select
    this_plan.plan_id, wanted.delivery_key, wanted.action, wanted.agreement_id, wanted.company_id,
    wanted.subscription_id, wanted.is_persistent, wanted.marker, wanted.payload, wanted.payload_hash,
    case when wanted.action = 'update' then wanted.ledger_payload end, agreement.next_invoice_date,
    jsonb_build_object(
        'currency', agreement.currency, 'billing_cycle_id', agreement.billing_cycle_id,
        'bill_start_date', agreement.bill_start_date, 'end_date', agreement.end_date
    ),
    wanted.amount, delivery.shard_of(wanted.agreement_id)
from wanted
join mapping.agreement as agreement using (agreement_id)
cross join this_plan
order by wanted.agreement_id, wanted.delivery_key;

insert into delivery.plan_item_line (plan_item_id, line_id, content_hash, cycle_start, cycle_end, amount)
select
    item.plan_item_id, decision.line_id, line.content_hash, decision.cycle_start, decision.cycle_end, decision.amount
from delivery.plan_item as item
join this_plan using (plan_id)
join billing.line_decision as decision using (delivery_key)
join billing.line_in_scope as scope on scope.line_id = decision.line_id
join billing.invoice_line as line on line.line_id = decision.line_id
where decision.outcome = 'deliver';

-- Reasons found later that no longer hold: the line is planned again.
delete from billing.held_reason as known
using billing.line_in_scope as scope, billing.line_decision as decision, billing.held_reason_code as code
where
    known.line_id = scope.line_id
    and decision.line_id = scope.line_id
    and decision.outcome = 'deliver'
    and code.reason_code = known.reason_code
    and code.is_found_later
    and not code.is_bound;

-- Agreements to create, for lines that wait for nothing else. What is under way already is not planned again.
create temporary table new_agreement on commit drop as
with waiting as (
    select
        decision.company_id,
        count(*) as line_count,
        sum(line.total_price) as amount,
        -- Its first cycle holds the earliest charge. A start that lies a year and more back is a slip.
        date_trunc('month', greatest(
            min(line.charge_start_date), min(invoice.billing_period) - interval '12 months'
        ))::date as first_month
    from billing.line_in_scope as scope
    join billing.line_decision as decision using (line_id)
    join billing.invoice_line as line using (line_id)
    join billing.invoice as invoice on invoice.invoice_id = line.invoice_id
    where
        decision.outcome = 'held'
        and (
            select array_agg(reason.reason_code) from billing.held_reason as reason
            where reason.line_id = scope.line_id
        ) = array['agreement_to_create']
    group by decision.company_id
),
described as (
    select
        draft.*,
        waiting.line_count,
        waiting.amount,
        delivery.marker_for(draft.agreement_key) as marker,
        to_char(
            billing.cycle_start(waiting.first_month, draft.cycle_months, draft.invoicing_cycle, waiting.first_month),
            'YYYY-MM-DD"T00:00:00Z"'
        ) as first_day
    from waiting
    join billing.agreement_draft as draft using (company_id)
    where
        draft.obstacle is null
        and not exists (
            select from delivery.new_agreement as ledger where ledger.agreement_key = draft.agreement_key
        )
)
select
    described.*,
    jsonb_build_object(
        'name', described.name,
        'type', jsonb_build_object('id', described.agreement_type_id),
        'company', jsonb_build_object('id', described.company_id),
        'contact', jsonb_build_object('id', described.default_contact_id),
        'startDate', described.first_day,
        'noEndingDateFlag', true,
        'billStartDate', described.first_day,
        'billingCycle', jsonb_build_object('id', described.billing_cycle_id),
        'invoicingCycle', described.invoicing_cycle,
        'prorateFlag', false,
        'internalNotes', 'Created by the billing sync, which finds it by this mark: ' || described.marker
    ) as payload
from described;

insert into delivery.plan_agreement (plan_id, agreement_key, company_id, agreement_type_id, marker, payload, payload_hash,
    currency, line_count, amount)
select
    this_plan.plan_id, wanted.agreement_key, wanted.company_id, wanted.agreement_type_id, wanted.marker, wanted.payload,
    encode(sha256(convert_to(wanted.payload::text, 'UTF8')), 'hex'), wanted.currency, wanted.line_count, wanted.amount
from new_agreement as wanted cross join this_plan
order by wanted.company_id;

update billing.held_reason as known
set detail = told.detail
from billing.line_in_scope as scope
join billing.line_decision as decision using (line_id)
join (
    select
        wanted.company_id,
        format('agreement %s is created by plan %s; its lines follow with the next run', wanted.name, this_plan.plan_id)
            as detail
    from new_agreement as wanted cross join this_plan
) as told on told.company_id = decision.company_id
where known.line_id = scope.line_id and known.reason_code = 'agreement_to_create' and known.detail <> told.detail;

update delivery.plan as older set state = 'superseded'
where
    older.state = 'proposed'
    and not older.is_dry_run
    and older.plan_id not in (select plan_id from this_plan)
    and not (select is_dry_run from audit.run where run_id = audit.current_run_id())
    and exists (
        select from delivery.plan_item as older_item
        join delivery.plan_item_line as older_line using (plan_item_id)
        join delivery.plan_item_line as newer_line using (line_id)
        join delivery.plan_item as newer_item on newer_item.plan_item_id = newer_line.plan_item_id
        join this_plan on this_plan.plan_id = newer_item.plan_id
        where older_item.plan_id = older.plan_id
        union all
        select from delivery.plan_agreement as older_agreement
        join delivery.plan_agreement as newer_agreement using (agreement_key)
        join this_plan on this_plan.plan_id = newer_agreement.plan_id
        where older_agreement.plan_id = older.plan_id
    );
