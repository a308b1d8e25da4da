-- Guarantees: the views that analysts may rely on, and a read-only role for them. Made anew by every migrate.

drop schema if exists reporting cascade;
create schema reporting;
comment on schema reporting is 'Stable views for analysts. Money in the invoice currency; times in UTC.';

create view reporting.invoice_line as
select
    invoice.billing_period,
    invoice.invoice_id,
    invoice.invoice_number,
    invoice.invoice_date,
    invoice.status as invoice_status,
    invoice.organization_id,
    organization.name as organization_name,
    company.company_id,
    company.name as company_name,
    line.line_id,
    line.line_key,
    line.revision,
    line.subscription_id,
    line.subscription_name,
    line.offer_id,
    line.offer_name,
    line.charge_type,
    line.charge_start_date,
    line.charge_end_date,
    line.quantity,
    line.unit_price,
    line.total_price,
    line.currency,
    billing.line_outcome(ledger.state, decision.outcome) as outcome,
    coalesce(carried.amount, 0) as delivered_amount,
    ledger.agreement_id as delivered_agreement_id,
    ledger.connectwise_addition_id,
    coalesce(carried.cycle_start, decision.cycle_start) as cycle_start,
    coalesce(carried.cycle_end, decision.cycle_end) as cycle_end,
    decision.effective_date,
    decision.cancelled_date,
    decision.quantity as sent_quantity,
    decision.unit_price as sent_unit_price,
    decision.invoice_description,
    decision.rules,
    decision.excluded_by,
    (
        select array_agg(reason.reason_code order by reason.reason_code) from billing.held_reason as reason
        where reason.line_id = line.line_id and carried.line_id is null
    ) as held_reasons,
    jsonb_strip_nulls(jsonb_build_object(
        'effective_date', case
            when decision.rules -> 'user_updated' ? 'effective_date' then 'User Updated'
            when decision.effective_date = line.charge_start_date and decision.rules ->> 'charge_start_rule' = 'as_invoiced' then 'as invoiced'
            when decision.effective_date is not null then 'System Updated'
        end,
        'cancelled_date', case
            when decision.rules -> 'user_updated' ? 'cancelled_date' then 'User Updated'
            when decision.cancelled_date = line.charge_end_date and decision.rules ->> 'charge_end_rule' = 'as_invoiced' then 'as invoiced'
            when decision.cancelled_date is not null then 'System Updated'
        end,
        'quantity', case
            when decision.rules -> 'user_updated' ? 'quantity' then 'User Updated'
            when decision.quantity::numeric = line.quantity::numeric then 'as invoiced'
            when decision.quantity is not null then 'System Updated'
        end,
        'unit_price', case
            when decision.rules -> 'user_updated' ? 'unit_price' then 'User Updated'
            when decision.unit_price::numeric = line.unit_price::numeric then 'as invoiced'
            when decision.unit_price is not null then 'System Updated'
        end,
        'invoice_description', case
            when decision.rules -> 'user_updated' ? 'invoice_description' then 'User Updated'
            when decision.invoice_description is not null then 'System Updated'
        end,
        'agreement', case
            when decision.agreement_source = 'override' then 'User Updated'
            when decision.agreement_id is not null then 'System Updated'
        end,
        'product', case
            when decision.rules -> 'user_updated' ? 'product' then 'User Updated'
            when decision.product_id is not null then 'System Updated'
        end
    )) as value_sources,
    charge_type_version.version as charge_type_version,
    charge_type_version.valid_from as rules_valid_from,
    decision.taxable_flag,
    decision.unit_cost,
    decision.corrects_line_id,
    decision.corrects_subscription_id,
    decision.corrects_told_by
from billing.invoice_line as line
join billing.invoice as invoice using (invoice_id)
join mapping.organization as organization using (organization_id)
left join billing.line_decision as decision on decision.line_id = line.line_id
left join delivery.addition_line as carried on carried.line_id = line.line_id
left join delivery.addition as ledger on ledger.delivery_key = carried.delivery_key
left join mapping.company as company on company.company_id = coalesce(ledger.company_id, decision.company_id)
left join billing.charge_type_version as charge_type_version
    on charge_type_version.charge_type_version_id = decision.charge_type_version_id;
comment on view reporting.invoice_line is 'Every line of every accepted invoice and what became of it.';
comment on column reporting.invoice_line.value_sources is 'Per value: User Updated (a person typed it), System Updated (a rule, mapping or setting gave it) or as invoiced. A value that is not decided is not in it.';
comment on column reporting.invoice_line.charge_type_version is 'The version of the charge type''s rules that the line was loaded with: billing.charge_type_version.';
comment on column reporting.invoice_line.corrects_line_id is 'Of a credit: the line that it takes back, if it can be told; corrects_told_by says how.';
comment on column reporting.invoice_line.outcome is 'delivered, held, excluded, awaiting approval or in doubt.';

create view reporting.money_by_customer as
select
    billing_period,
    organization_id,
    organization_name,
    currency,
    outcome,
    count(*) as line_count,
    sum(total_price) as amount
from reporting.invoice_line
group by billing_period, organization_id, organization_name, currency, outcome;
comment on view reporting.money_by_customer is 'Money by customer, billing period and outcome.';

create view reporting.held_line as
select
    line.billing_period,
    line.organization_name,
    line.invoice_number,
    line.line_id,
    line.subscription_name,
    line.charge_type,
    line.total_price as money_at_risk,
    line.currency,
    reason.reason_code,
    code.title as reason,
    reason.detail,
    code.cure,
    reason.held_since,
    extract(day from now() - reason.held_since)::integer as days_held
from reporting.invoice_line as line
join billing.held_reason as reason on reason.line_id = line.line_id
join billing.held_reason_code as code using (reason_code)
where line.outcome = 'held';
comment on view reporting.held_line is 'Held lines, one row per line and reason, with the cure. A line with two reasons stands here twice: sum money over distinct lines.';

create view reporting.parked_by_bound as
select
    reason.bound_key,
    code.title as reason,
    reason.detail,
    reason.bound_figure as figure,
    line.currency,
    count(*) as line_count,
    sum(line.total_price) as money_at_risk,
    min(reason.held_since) as parked_since,
    string_agg(distinct organization.name, ', ' order by organization.name) as organization_name
from billing.held_reason as reason
join billing.held_reason_code as code using (reason_code)
join billing.line_money as line using (line_id)
join billing.invoice as invoice using (invoice_id)
left join mapping.organization as organization using (organization_id)
where line.outcome = 'held' and code.is_bound and reason.bound_key is not null
group by reason.bound_key, code.title, reason.detail, reason.bound_figure, line.currency;
comment on view reporting.parked_by_bound is 'What bounds park until a person lets it pass: by key, with the figure, its lines and their money.';

create view reporting.held_by_reason as
select
    reason_code,
    reason,
    currency,
    count(*) as line_count,
    sum(money_at_risk) as money_at_risk,
    min(held_since) as oldest
from reporting.held_line
group by reason_code, reason, currency;
comment on view reporting.held_by_reason is 'Held lines by reason, with money at risk. Lines with several reasons count under each.';

create view reporting.invoice_proof as
select distinct on (proof.invoice_id)
    invoice.billing_period,
    invoice.invoice_number,
    organization.name as organization_name,
    proof.*
from audit.invoice_proof as proof
join billing.invoice as invoice using (invoice_id)
join mapping.organization as organization using (organization_id)
order by proof.invoice_id asc, proof.run_id desc;
comment on view reporting.invoice_proof is 'The newest proof of each invoice: source = delivered + held + excluded + awaiting approval + in doubt.';

create view reporting.addition as
select
    ledger.delivery_key,
    ledger.marker,
    ledger.agreement_id,
    agreement.name as agreement_name,
    ledger.company_id,
    company.name as company_name,
    ledger.subscription_id,
    ledger.is_persistent,
    ledger.state,
    ledger.connectwise_addition_id,
    (ledger.payload ->> 'quantity')::numeric as quantity,
    (ledger.payload ->> 'unitPrice')::numeric as unit_price,
    left(ledger.payload ->> 'effectiveDate', 10)::date as effective_date,
    left(ledger.payload ->> 'cancelledDate', 10)::date as cancelled_date,
    ledger.payload ->> 'invoiceDescription' as invoice_description,
    ledger.problem,
    ledger.delivered_at,
    (select count(*) from delivery.addition_line as carried where carried.delivery_key = ledger.delivery_key) as line_count,
    (select sum(carried.amount) from delivery.addition_line as carried where carried.delivery_key = ledger.delivery_key) as amount
from delivery.addition as ledger
left join mapping.agreement as agreement on agreement.agreement_id = ledger.agreement_id
left join mapping.company as company on company.company_id = ledger.company_id;
comment on view reporting.addition is 'The Additions that we made in ConnectWise, and the money of the lines they carry.';

create view reporting.unsettled_addition as
select
    ledger.delivery_key,
    ledger.state,
    ledger.plan_id,
    ledger.company_id,
    company.name as company_name,
    ledger.agreement_id,
    agreement.name as agreement_name,
    agreement.currency,
    ledger.connectwise_addition_id,
    ledger.subscription_id,
    ledger.payload ->> 'invoiceDescription' as invoice_description,
    coalesce(ledger.problem, 'The proof does not find it as it was delivered; the log of its run says what differs.') as problem,
    greatest(ledger.delivered_at, ledger.intended_at) as since,
    ledger.applied_payload is not null as is_compared,
    coalesce(touched.is_invoiced, false) as is_invoiced,
    touched.amount,
    coalesce(touched.line_ids, '{}') as line_ids,
    touched.confirmed_amount,
    coalesce(touched.confirmed_line_ids, '{}') as confirmed_line_ids
from (
    select delivery_key from delivery.addition
    -- Without a hash, the next run tries it again: a person said so, or only its agreement had changed.
    where state = 'conflict' or (state = 'refused' and payload_hash <> '')
    union
    -- A proof has looked at it since it was delivered, or settled.
    select carried.delivery_key
    from delivery.addition_line as carried
    join delivery.addition as delivered using (delivery_key)
    join billing.invoice_line as line using (line_id)
    where carried.proven_run_id is null and delivered.state = 'delivered' and exists (
        select from audit.invoice_proof as proof
        where
            proof.invoice_id = line.invoice_id
            and proof.proven_at > greatest(delivered.delivered_at, delivered.settled_at)
    )
) as unsettled
join delivery.addition as ledger using (delivery_key)
left join mapping.agreement as agreement on agreement.agreement_id = ledger.agreement_id
left join mapping.company as company on company.company_id = ledger.company_id
left join lateral (
    select
        sum(either.amount) filter (where not either.is_excluded) as amount,
        array_agg(either.line_id order by either.line_id) filter (where not either.is_excluded) as line_ids,
        sum(either.amount) filter (where either.is_confirmed) as confirmed_amount,
        array_agg(either.line_id order by either.line_id) filter (where either.is_confirmed) as confirmed_line_ids,
        bool_or(either.is_invoiced) as is_invoiced
    from (
        -- What its newest plan wanted to deliver; another Addition may carry it meanwhile.
        select
            planned.line_id, planned.amount,
            coalesce(decision.outcome = 'excluded', false) as is_excluded,
            ledger.state = 'conflict' as is_confirmed,
            false as is_invoiced
        from delivery.plan_item as item
        join delivery.plan_item_line as planned using (plan_item_id)
        left join billing.line_decision as decision using (line_id)
        where
            item.plan_id = ledger.plan_id and item.delivery_key = ledger.delivery_key
            and not exists (select from delivery.addition_line as carried where carried.line_id = planned.line_id)
        union all
        -- What it carries without proof.
        select
            carried.line_id, carried.amount,
            false,
            ledger.state = 'delivered' and coalesce(carried.cycle_end < agreement.next_invoice_date, false),
            coalesce(carried.cycle_end < agreement.next_invoice_date, false)
        from delivery.addition_line as carried
        where carried.delivery_key = ledger.delivery_key and carried.proven_run_id is null
    ) as either
) as touched on true
-- Refused and wanted no more: nothing waits for it.
where ledger.state <> 'refused' or touched.line_ids is not null;
comment on view reporting.unsettled_addition is
'Additions that need a person: refused or in conflict, or not as they were delivered by a later proof; with the money and the lines that wait for it (line_ids), and those that count as delivered when a person has seen it on an invoice (confirmed_line_ids). is_invoiced: ConnectWise has invoiced a cycle of what it carries without proof.';

create view reporting.new_agreement as
select
    planned.company_id,
    company.name as company_name,
    planned.payload ->> 'name' as agreement_name,
    agreement_type.name as agreement_type,
    billing_cycle.name as billing_cycle,
    planned.currency,
    left(planned.payload ->> 'billStartDate', 10)::date as bill_start_date,
    planned.line_count,
    planned.amount,
    planned.plan_id,
    plan.state as plan_state,
    case
        when ledger.state = 'created' then 'created'
        when ledger.state = 'refused' then 'refused by ConnectWise'
        when refusal.company_id is not null then 'refused by ' || refusal.refused_by
        when ledger.state = 'intended' then 'under way'
        when planned.state = 'skipped' then 'skipped'
        when plan.is_dry_run then 'dry run'
        when plan.state in ('superseded', 'rejected') then plan.state
        else 'planned'
    end as state,
    ledger.agreement_id,
    coalesce(ledger.problem, refusal.reason) as problem
from (
    select distinct on (known.company_id) known.* from delivery.plan_agreement as known
    order by known.company_id asc, known.plan_id desc
) as planned
join delivery.plan as plan using (plan_id)
join mapping.company as company on company.company_id = planned.company_id
join mapping.agreement_type as agreement_type on agreement_type.agreement_type_id = planned.agreement_type_id
left join mapping.billing_cycle as billing_cycle
    on billing_cycle.billing_cycle_id = (planned.payload -> 'billingCycle' ->> 'id')::integer
left join delivery.new_agreement as ledger on ledger.agreement_key = planned.agreement_key
left join mapping.agreement_refusal as refusal on refusal.company_id = planned.company_id;
comment on view reporting.new_agreement is 'Agreements that plans create, by company: as its newest plan has it, with the money that waits for it.';

create view reporting.subscription as
-- A customer is looked at as of its newest invoice: months by data, not by the clock.
with newest_invoice as (
    select organization_id, max(invoice_date) as invoice_date, max(billing_period::date) as billing_period
    from billing.invoice where withdrawn is null group by organization_id
),
line as (
    select
        line.line_id, line.subscription_id, line.subscription_name, line.offer_id, line.offer_name, line.quantity,
        line.unit_price, line.currency, line.charge_start_date, line.charge_end_date, line.revision,
        invoice.organization_id, invoice.billing_period, invoice.withdrawn is not null as is_withdrawn,
        coalesce(charge_type.is_recurring, false) as is_recurring,
        decision.outcome, decision.company_id, decision.product_id, decision.agreement_id,
        carried.delivery_key, carried.cycle_start, carried.cycle_end
    from billing.invoice_line as line
    join billing.invoice as invoice using (invoice_id)
    left join billing.charge_type as charge_type on charge_type.charge_type = line.charge_type
    left join billing.line_decision as decision on decision.line_id = line.line_id
    left join delivery.addition_line as carried on carried.line_id = line.line_id
    where line.subscription_id is not null
),
newest_line as (
    select distinct on (subscription_id) * from line
    order by subscription_id asc, is_withdrawn asc, is_recurring desc, charge_start_date desc nulls last, line_id desc
),
known as (
    select
        coalesce(subscription.subscription_id, newest_line.subscription_id) as subscription_id,
        coalesce(subscription.name, newest_line.subscription_name) as subscription_name,
        coalesce(subscription.organization_id, newest_line.organization_id) as organization_id,
        coalesce(subscription.offer_id, newest_line.offer_id) as offer_id,
        newest_line.offer_name,
        newest_line.company_id,
        newest_line.product_id,
        newest_line.agreement_id,
        subscription.quantity,
        case when newest_line.is_recurring then newest_line.quantity end as line_quantity,
        newest_line.unit_price,
        newest_line.currency,
        case
            when subscription.subscription_id is null or subscription.is_gone then 'not listed'
            else coalesce(subscription.status, 'unknown')
        end as state,
        subscription.start_date,
        subscription.end_date
    from mapping.subscription as subscription
    full join newest_line on newest_line.subscription_id = subscription.subscription_id
),
summed as (
    select
        known.subscription_id,
        lower(known.state) = 'active' as is_active,
        looked_at.day,
        looked_at.billing_period,
        min(line.charge_start_date) as first_charge_date,
        max(coalesce(line.charge_end_date, line.cycle_end)) filter (where line.delivery_key is not null) as paid_until,
        coalesce(bool_or(
            line.billing_period = looked_at.billing_period
            and (line.delivery_key is not null or line.outcome = 'excluded')
        ), false) as is_settled_this_period,
        coalesce(bool_or(
            line.is_recurring and line.cycle_end >= looked_at.day
            and line.cycle_start > coalesce(known.end_date, '-infinity')
        ), false) as is_billed_now,
        array_agg(distinct line.delivery_key) filter (
            where line.delivery_key is not null
            and (line.cycle_end >= looked_at.day or line.billing_period = looked_at.billing_period)
        ) as delivery_keys,
        array_agg(line.line_id) filter (
            where line.delivery_key is null and line.outcome is distinct from 'excluded' and not line.is_withdrawn
        ) as open_line_ids,
        bool_or(line.delivery_key is null and line.outcome = 'deliver') as awaits_approval
    from known
    left join newest_invoice on newest_invoice.organization_id = known.organization_id
    cross join lateral (
        select
            coalesce(newest_invoice.invoice_date, (select max(newest.invoice_date) from newest_invoice as newest)) as day,
            coalesce(newest_invoice.billing_period, (select max(newest.billing_period) from newest_invoice as newest))
                as billing_period
    ) as looked_at
    left join line on line.subscription_id = known.subscription_id
    group by known.subscription_id, known.state, looked_at.day, looked_at.billing_period
)
select
    known.subscription_id,
    known.subscription_name,
    known.organization_id,
    organization.name as organization_name,
    company.company_id,
    company.name as company_name,
    known.offer_id,
    coalesce(known.offer_name, offer.name) as offer_name,
    product.product_id,
    product.identifier as product,
    agreement.agreement_id,
    agreement.name as agreement_name,
    (
        select array_agg(ledger.connectwise_addition_id order by ledger.connectwise_addition_id)
        from delivery.addition as ledger
        where ledger.delivery_key = any(summed.delivery_keys) and ledger.connectwise_addition_id is not null
    ) as addition_ids,
    summed.delivery_keys,
    known.quantity,
    known.line_quantity,
    known.unit_price,
    known.currency,
    known.state,
    coalesce(known.start_date, summed.first_charge_date) as since,
    known.end_date,
    summed.paid_until,
    agreement.next_invoice_date as next_open_cycle,
    nullif(concat_ws(
        '; ',
        case when summed.is_active and coalesce(known.start_date <= summed.day, true)
            and coalesce(summed.paid_until < summed.day, true) and not summed.is_settled_this_period then
            'active without an Addition now: ' || coalesce(
                (
                    select string_agg(distinct code.title, ', ')
                    from billing.held_reason as reason join billing.held_reason_code as code using (reason_code)
                    where reason.line_id = any(summed.open_line_ids)
                ),
                case when summed.awaits_approval then 'its line awaits approval' end,
                'no line on an invoice of ' || to_char(summed.billing_period, 'YYYY-MM'),
                'never invoiced'
            ) end,
        case when not summed.is_active and summed.is_billed_now then
            format('billed by an Addition, though in AppXite it is %s', known.state) end,
        case when summed.is_active and known.quantity <> known.line_quantity then
            format('quantity %s in AppXite, %s on its last line', trim_scale(known.quantity),
                trim_scale(known.line_quantity)) end
    ), '') as amiss
from known
join summed on summed.subscription_id = known.subscription_id
left join mapping.organization as organization on organization.organization_id = known.organization_id
left join mapping.company as company on company.company_id = coalesce(known.company_id, (
    select max(mapped.company_id) from mapping.organization_mapping as mapped
    where mapped.organization_id = known.organization_id and mapped.state = 'approved'
        -- Where selectors decide, only a line tells the company.
        and not exists (
            select from mapping.company_selector as selector where selector.organization_id = known.organization_id
        )
    having count(*) = 1
))
left join mapping.offer as offer on offer.offer_id = known.offer_id
left join mapping.product as product on product.product_id = known.product_id
left join mapping.agreement as agreement on agreement.agreement_id = known.agreement_id;
comment on view reporting.subscription is 'What each customer runs: subscriptions of AppXite, and those known only from lines, with agreement, Additions, and what is amiss.';
comment on column reporting.subscription.addition_ids is 'Of ConnectWise: the Additions that carry it as of the customer''s newest invoice; null: none.';
comment on column reporting.subscription.quantity is 'As AppXite lists the subscription; line_quantity: of its newest recurring line.';
comment on column reporting.subscription.paid_until is 'End of the last charge that an Addition carries.';
comment on column reporting.subscription.next_open_cycle is 'The agreement''s next invoice date: cycles from there on are not invoiced yet.';
comment on column reporting.subscription.amiss is 'As of the customer''s newest invoice: active without an Addition (and why), billed without being active, or another quantity. Null: nothing.';
create view reporting.adoption as
select
    adoption.adoption_id,
    adoption.agreement_id,
    agreement.name as agreement_name,
    adoption.connectwise_addition_id,
    adoption.subscription_id,
    case
        when adoption.state <> 'approved' then adoption.state
        when ledger.state <> 'delivered' then ledger.state
        when ledger.delivered_at is not null then 'adopted'
        else 'adopted, waiting'
    end as state,
    (adoption.observed ->> 'quantity')::numeric as quantity_before,
    (adoption.observed ->> 'unitPrice')::numeric as unit_price_before,
    adoption.evidence,
    adopted.covered_before,
    adoption.covered_lines,
    adoption.covered_amount,
    ledger.problem,
    adoption.delivery_key,
    adoption.decided_by,
    adoption.decided_at,
    adoption.note
from delivery.adoption as adoption
left join mapping.agreement as agreement on agreement.agreement_id = adoption.agreement_id
left join delivery.addition as ledger on ledger.delivery_key = adoption.delivery_key and adoption.state = 'approved'
left join delivery.adopted_addition as adopted on adopted.adoption_id = adoption.adoption_id;
comment on view reporting.adoption is 'Additions made by hand: taken over, ignored or released, by whom; what they were, and what they covered.';
comment on column reporting.adoption.state is 'adopted, waiting: nothing is changed in ConnectWise before a line of the subscription comes. adopted: brought to AppXite''s values.';

create view reporting.plan_item as
select
    item.plan_item_id,
    item.plan_id,
    case
        when exists (
            select from delivery.adopting_item as adopting where adopting.plan_item_id = item.plan_item_id
        ) then 'adoption'
        else item.action
    end as action,
    item.state,
    item.delivery_key,
    item.agreement_id,
    agreement.name as agreement_name,
    item.company_id,
    item.subscription_id,
    ledger.connectwise_addition_id,
    (item.payload_before ->> 'quantity')::numeric as quantity_before,
    (item.payload_before ->> 'unitPrice')::numeric as unit_price_before,
    left(item.payload_before ->> 'cancelledDate', 10)::date as cancelled_date_before,
    (item.payload ->> 'quantity')::numeric as quantity,
    (item.payload ->> 'unitPrice')::numeric as unit_price,
    left(item.payload ->> 'effectiveDate', 10)::date as effective_date,
    left(item.payload ->> 'cancelledDate', 10)::date as cancelled_date,
    item.payload ->> 'invoiceDescription' as invoice_description,
    item.amount
from delivery.plan_item as item
left join delivery.addition as ledger on ledger.delivery_key = item.delivery_key
left join mapping.agreement as agreement on agreement.agreement_id = item.agreement_id;
comment on view reporting.plan_item is 'What each plan creates and updates, before and after. action is create, update or adoption: the update that takes over an Addition made by hand.';

create view reporting.cycle_without_line as
-- Recurring lines whose frequency is the agreement's cycle: each cycle should have one.
with expected_line as (
    select
        line.line_id,
        line.subscription_id,
        line.subscription_name,
        coalesce(ledger.agreement_id, decision.agreement_id) as agreement_id,
        line.charge_start_date,
        decision.outcome,
        carried.cycle_start as billed_cycle_start
    from billing.invoice_line as line
    join billing.line_decision as decision using (line_id)
    left join delivery.addition_line as carried using (line_id)
    left join delivery.addition as ledger on ledger.delivery_key = carried.delivery_key
    where decision.is_recurring and line.revision = 1 and line.subscription_id is not null
),
served as (
    select
        expected.subscription_id,
        expected.agreement_id,
        max(expected.subscription_name) as subscription_name,
        agreement.name as agreement_name,
        agreement.company_id,
        agreement.next_invoice_date,
        agreement.invoicing_cycle,
        agreement.bill_start_date,
        billing.cycle_months(cycle.billing_option) as months,
        min(expected.billed_cycle_start) as first_cycle,
        case
            when coalesce(bool_or(subscription.status = 'Active' and not subscription.is_gone), false)
                then agreement.next_invoice_date - 1
            else max(expected.billed_cycle_start)
        end as last_day
    from expected_line as expected
    join billing.invoice_line as line using (line_id)
    join mapping.agreement as agreement on agreement.agreement_id = expected.agreement_id
    join mapping.billing_cycle as cycle using (billing_cycle_id)
    left join mapping.subscription as subscription on subscription.subscription_id = expected.subscription_id
    where
        expected.billed_cycle_start is not null
        and billing.frequency_months(line.billing_frequency) = billing.cycle_months(cycle.billing_option)
    group by
        expected.subscription_id, expected.agreement_id, agreement.name, agreement.company_id, agreement.next_invoice_date,
        agreement.invoicing_cycle, agreement.bill_start_date, cycle.billing_option
),
invoiced_cycle as (
    select
        served.*,
        counted.cycle_start,
        -- Not billing.cycle_end: it calls a function of a schema that analysts do not see.
        billing.cycle_start(
            (counted.cycle_start + make_interval(months => served.months, days => 5))::date,
            served.months, served.invoicing_cycle, served.bill_start_date
        ) - 1 as cycle_end
    from served
    cross join lateral (
        -- Five days into each cycle, so that month ends do not drift.
        select billing.cycle_start(
            (served.first_cycle + make_interval(months => steps.number * served.months, days => 5))::date,
            served.months, served.invoicing_cycle, served.bill_start_date
        ) as cycle_start
        from generate_series(
            0, greatest(0, (least(served.last_day, served.next_invoice_date) - served.first_cycle) / (28 * served.months))
        ) as steps (number)
    ) as counted
    where counted.cycle_start <= served.last_day and counted.cycle_start < served.next_invoice_date
)
select distinct
    cycle.company_id,
    cycle.agreement_id,
    cycle.agreement_name,
    cycle.subscription_id,
    cycle.subscription_name,
    cycle.cycle_start,
    cycle.cycle_end,
    case
        when charged.is_billed then 'billed in another cycle'
        when charged.is_held then 'held'
        when charged.waits then 'waits for approval'
        when charged.is_excluded then 'excluded'
        when not exists (
            select from audit.run
            where
                run.kind <> 'reference' and not run.is_dry_run and run.proven_at is not null
                and cardinality(run.organization_ids) = 0
                and date_trunc('month', cycle.cycle_start)::date = any(run.billing_periods::date[])
        ) then 'not loaded'
        else 'not billed by AppXite'
    end as why,
    charged.line_ids
from invoiced_cycle as cycle
cross join lateral (
    select
        bool_or(line.billed_cycle_start is not null) as is_billed,
        bool_or(line.billed_cycle_start is null and line.outcome = 'held') as is_held,
        bool_or(line.billed_cycle_start is null and line.outcome = 'deliver') as waits,
        bool_or(line.billed_cycle_start is null and line.outcome = 'excluded') as is_excluded,
        array_agg(line.line_id order by line.line_id) as line_ids
    from expected_line as line
    where
        line.subscription_id = cycle.subscription_id
        and (line.agreement_id = cycle.agreement_id or line.agreement_id is null)
        and line.charge_start_date between cycle.cycle_start and cycle.cycle_end
) as charged
where not exists (
    select from expected_line as line
    where
        line.subscription_id = cycle.subscription_id and line.agreement_id = cycle.agreement_id
        and line.billed_cycle_start = cycle.cycle_start
);
comment on view reporting.cycle_without_line is 'Cycles that ConnectWise invoiced without a recurring line of ours, for subscriptions that had one before and after, or are active; and why.';
comment on column reporting.cycle_without_line.why is 'held, excluded, waits for approval, not billed by AppXite, not loaded (no proven run read that month), or billed in another cycle (the charge came late, and was billed then).';

create view reporting.run as
select
    run.run_id,
    run.dag_id,
    run.dag_run_id,
    run.kind,
    run.billing_periods::date[] as billing_periods,
    run.is_dry_run,
    run.state,
    run.started_at,
    run.proven_at,
    run.ended_at,
    plan.plan_id,
    plan.state as plan_state,
    plan.approved_by,
    planned.planned_additions,
    planned.planned_amount,
    (select count(*) from delivery.plan_agreement as new where new.plan_id = plan.plan_id) as planned_agreements,
    (
        select string_agg(bound.detail, '; ' order by bound.bound_key) from delivery.plan_bound as bound
        where bound.plan_id = plan.plan_id
    ) as parked_because,
    (
        select count(*) from delivery.attempt join delivery.plan as any_plan using (plan_id)
        where any_plan.run_id = run.run_id and attempt.outcome = 'invoke'
    ) as writes,
    (select count(*) from audit.log_entry as entry where entry.run_id = run.run_id and entry.level = 'ERROR') as errors,
    (select count(*) from audit.log_entry as entry where entry.run_id = run.run_id and entry.level = 'WARNING') as warnings
from audit.run as run
left join lateral (
    select newest.* from delivery.plan as newest where newest.run_id = run.run_id order by newest.plan_id desc limit 1
) as plan on true
cross join lateral (
    select count(*) as planned_additions, coalesce(sum(item.amount), 0) as planned_amount
    from delivery.plan_item as item where item.plan_id = plan.plan_id
) as planned
where run.kind <> 'review';
comment on view reporting.run is 'Runs of the pipeline with their newest plan, number of writes, errors and warnings.';

create view reporting.log_entry as
select log_entry_id, run_id, level, code, message, subject, logged_at
from audit.log_entry;
comment on view reporting.log_entry is 'What the pipeline had to say to people, for ever.';

do $$
begin
    if not exists (select from pg_roles where rolname = 'billing_analyst') then
        create role billing_analyst nologin;
    end if;
exception
    when insufficient_privilege then
        raise notice 'Role billing_analyst was not created: ask a database administrator to create it, then migrate again.';
    when duplicate_object or unique_violation then
        null;  -- another database of this server just made it
end
$$;

do $$
begin
    if exists (select from pg_roles where rolname = 'billing_analyst') then
        grant usage on schema reporting to billing_analyst;
        grant select on all tables in schema reporting to billing_analyst;
    end if;
end
$$;
