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
    case
        when carried.line_id is not null and ledger.state in ('delivered', 'conflict') then 'delivered'
        when carried.line_id is not null then 'in doubt'
        when decision.outcome = 'excluded' then 'excluded'
        when decision.outcome = 'deliver' then 'awaiting approval'
        else 'held'
    end as outcome,
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
    ) as held_reasons
from billing.invoice_line as line
join billing.invoice as invoice using (invoice_id)
join mapping.organization as organization using (organization_id)
left join billing.line_decision as decision on decision.line_id = line.line_id
left join delivery.addition_line as carried on carried.line_id = line.line_id
left join delivery.addition as ledger on ledger.delivery_key = carried.delivery_key
left join mapping.company as company on company.company_id = coalesce(ledger.company_id, decision.company_id);
comment on view reporting.invoice_line is 'Every line of every accepted invoice and what became of it.';
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
    min(reason.held_since) as parked_since
from reporting.invoice_line as line
join billing.held_reason as reason using (line_id)
join billing.held_reason_code as code using (reason_code)
where line.outcome = 'held' and code.is_bound
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
) as planned;
comment on view reporting.run is 'Runs with their newest plan, number of writes, errors and warnings.';

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
