-- Guarantees: a line beyond the bound per line, and each line of a customer whose total of a billing period is far
-- above its usual, is held until a person lets it pass (billing.bound_allowance) or the figure is back within the
-- bound. Other customers' lines go on. It runs before lines are grouped, so that no Addition is founded by a held line.
-- May run again: writes only what differs. By hand: PGOPTIONS='-c billing.run_id=RUN' psql -1 -f FILE

select pg_advisory_xact_lock(hashtext('billing.decide'));

create temporary table open_line on commit drop as
select scope.line_id, invoice.invoice_id, invoice.organization_id, invoice.billing_period, invoice.currency
from billing.line_in_scope as scope
join billing.invoice as invoice using (invoice_id);
alter table open_line add primary key (line_id);
analyze open_line;

-- 1. All periods of the customers concerned, oldest first. What a person excluded does not count as billed.
create temporary table period_total on commit drop as
with customer as (
    select organization_id, currency from open_line group by organization_id, currency
),
summed as (
    select
        customer.organization_id,
        customer.currency,
        invoice.billing_period::date as billing_period,
        coalesce(sum(line.total_price) filter (where decision.outcome is distinct from 'excluded'), 0) as total,
        sum(line.total_price) filter (where invoice.adds_up) as invoiced,
        bool_or(carried.line_id is null and decision.outcome is distinct from 'excluded') as is_open,
        row_number() over (
            partition by customer.organization_id, customer.currency order by invoice.billing_period
        ) as number
    from customer
    join billing.invoice as invoice
        on invoice.organization_id = customer.organization_id
        and invoice.currency = customer.currency
        and invoice.withdrawn is null
    join billing.invoice_line as line on line.invoice_id = invoice.invoice_id
    left join billing.line_decision as decision on decision.line_id = line.line_id
    left join delivery.addition_line as carried on carried.line_id = line.line_id
    group by customer.organization_id, customer.currency, invoice.billing_period
)
select
    summed.*,
    key.bound_key,
    billing.is_within(summed.total, allowance.up_to) as is_allowed
from summed
cross join lateral (
    select format('customer_total_unusual/%s/%s/%s', summed.organization_id,
        to_char(summed.billing_period, 'YYYY-MM'), summed.currency) as bound_key
) as key
left join billing.bound_allowance as allowance on allowance.bound_key = key.bound_key;
alter table period_total add primary key (organization_id, currency, number);
analyze period_total;

-- 2. Each period is compared with the three latest before it. One that is parked itself is nobody's usual: two wrong
-- months in a row would vouch for each other.
create temporary table customer_total on commit drop as
with recursive setting as (
    select
        billing.bound_setting('bound_customer_factor') as factor,
        billing.text_setting('bound_customer_minimum')::numeric as minimum
),
judged as (
    select
        organization_id, currency, billing_period, total, bound_key, number,
        null::numeric as usual,
        false as is_unusual,
        case when invoiced is null then '{}' else array[abs(invoiced)] end as latest
    from period_total
    where number = 1
    union all
    select
        period.organization_id, period.currency, period.billing_period, period.total, period.bound_key, period.number,
        usual.average,
        verdict.is_unusual,
        case when verdict.is_unusual or period.invoiced is null then before.latest
            else (abs(period.invoiced) || before.latest)[1:3] end
    from judged as before
    join period_total as period
        on period.organization_id = before.organization_id
        and period.currency = before.currency
        and period.number = before.number + 1
    cross join setting
    cross join lateral (
        select round(avg(one.total), 2) as average from unnest(before.latest) as one (total)
    ) as usual
    cross join lateral (
        select coalesce(
            period.is_open
            and not period.is_allowed
            and abs(period.total) > setting.factor * usual.average
            and abs(period.total) - usual.average > setting.minimum,
            false
        ) as is_unusual
    ) as verdict
)
select judged.organization_id, judged.currency, judged.billing_period, judged.bound_key, judged.total, judged.usual,
    setting.factor
from judged cross join setting
where judged.is_unusual;

create temporary table beyond_bound on commit drop as
select
    line.line_id,
    'amount_above_bound' as reason_code,
    key.bound_key,
    key.figure,
    format('%s %s, bound %s', to_char(key.figure, 'FM999,999,999,999,990.00'), line.currency,
        to_char(bound.amount, 'FM999,999,999,999,990')) as detail
from open_line
join billing.invoice_line as line on line.line_id = open_line.line_id
join billing.line_decision as decision on decision.line_id = open_line.line_id
cross join (select billing.bound_setting('bound_amount_per_line') as amount) as bound
cross join lateral (
    select
        'amount_above_bound/' || line.line_id as bound_key,
        coalesce(decision.amount, line.total_price)::numeric as figure
) as key
left join billing.bound_allowance as allowance on allowance.bound_key = key.bound_key
where
    decision.outcome <> 'excluded'
    and abs(key.figure) > bound.amount
    and not billing.is_within(key.figure, allowance.up_to)
union all
select
    open_line.line_id,
    'customer_total_unusual',
    unusual.bound_key,
    unusual.total,
    format('%s: %s %s in %s, usual %s, bound %s x usual', organization.name,
        to_char(unusual.total, 'FM999,999,999,999,990.00'), unusual.currency, to_char(unusual.billing_period, 'YYYY-MM'),
        to_char(unusual.usual, 'FM999,999,999,999,990.00'), unusual.factor)
from open_line
join billing.line_decision as decision using (line_id)
join customer_total as unusual using (organization_id, billing_period, currency)
join mapping.organization as organization using (organization_id)
where decision.outcome <> 'excluded';
analyze beyond_bound;

create temporary table released_line on commit drop as
select known.line_id, known.reason_code
from billing.held_reason as known
join open_line using (line_id)
where
    known.reason_code in ('amount_above_bound', 'customer_total_unusual')
    and not exists (
        select from beyond_bound
        where beyond_bound.line_id = known.line_id and beyond_bound.reason_code = known.reason_code
    );

delete from billing.held_reason as known
using released_line
where known.line_id = released_line.line_id and known.reason_code = released_line.reason_code;

merge into billing.held_reason as known
using beyond_bound on known.line_id = beyond_bound.line_id and known.reason_code = beyond_bound.reason_code
when matched and (known.detail, known.bound_key, known.bound_figure::numeric)
    is distinct from (beyond_bound.detail, beyond_bound.bound_key, beyond_bound.figure) then
    update set detail = beyond_bound.detail, bound_key = beyond_bound.bound_key, bound_figure = beyond_bound.figure
when not matched then insert (line_id, reason_code, detail, bound_key, bound_figure)
    values (beyond_bound.line_id, beyond_bound.reason_code, beyond_bound.detail, beyond_bound.bound_key, beyond_bound.figure);

update billing.line_decision as known
set outcome = 'held', delivery_key = null, run_id = audit.current_run_id(), decided_at = now()
where known.outcome = 'deliver' and known.line_id in (select beyond_bound.line_id from beyond_bound);

-- Free again when nothing else holds it that hold_lines or this file found.
update billing.line_decision as known
set outcome = 'deliver', run_id = audit.current_run_id(), decided_at = now()
where
    known.outcome = 'held'
    and known.line_id in (select released_line.line_id from released_line)
    and not exists (
        select from billing.held_reason as remaining
        join billing.held_reason_code as code using (reason_code)
        where
            remaining.line_id = known.line_id
            and (not code.is_found_later or remaining.reason_code in ('amount_above_bound', 'customer_total_unusual'))
    );
