-- Guarantees: each credit knows what it corrects, where that can be told. A credit beyond what was charged for the same
-- thing and time is held until a person lets it pass (billing.bound_allowance), or the charge is there. Other lines go on.
-- The same thing is the subscription; without one, the offer within the organization; without either, and for what the
-- seller types by hand (UserCorrection: discounts, goodwill), all that the organization is charged.
-- The same time: charge periods that overlap, directly or through others. Charged is what is delivered or is to be
-- delivered: so it runs after every other reason to hold a line is known, and before lines are grouped, so that no
-- Addition is founded by a held line.
-- May run again: writes only what differs. By hand: PGOPTIONS='-c billing.run_id=RUN' psql -1 -f FILE

select pg_advisory_xact_lock(hashtext('billing.decide'));

-- A difference after delivery (a further revision) is never more than what was delivered: it is not judged, but counts
-- once it is delivered or to be delivered.
create temporary table open_credit on commit drop as
select
    line.line_id, line.subscription_id, line.offer_id, line.currency, invoice.organization_id, invoice.invoice_reference,
    thing.subscription_id as account_subscription_id,
    thing.offer_id as account_offer_id,
    concat_ws(
        '/', invoice.organization_id, line.currency,
        coalesce('subscription ' || thing.subscription_id, 'offer ' || thing.offer_id, 'all')
    ) as account
from billing.line_in_scope as scope
join billing.invoice_line as line using (line_id)
join billing.invoice as invoice on invoice.invoice_id = line.invoice_id
join billing.line_decision as decision on decision.line_id = line.line_id
cross join lateral (
    select
        case when line.charge_type = 'UserCorrection' then null else line.subscription_id end as subscription_id,
        case
            when line.charge_type = 'UserCorrection' or line.subscription_id is not null then null
            else line.offer_id
        end as offer_id
) as thing
where line.revision = 1 and coalesce(decision.amount, line.total_price) < 0 and decision.outcome <> 'excluded';
alter table open_credit add primary key (line_id);
analyze open_credit;

-- 1. What was charged and credited of the same thing.
create temporary table account_line on commit drop as
select
    account.account,
    line.line_id,
    line.revision,
    line.subscription_id,
    line.offer_id,
    line.charge_type,
    invoice.invoice_number,
    invoice.invoice_date,
    money.amount,
    carried.line_id is not null as is_delivered,
    case
        when line.revision > 1 then carried.line_id is not null or decision.outcome = 'deliver'
        when money.amount > 0 then
            carried.line_id is not null
            or decision.outcome = 'deliver'
            -- Its agreement comes with this plan, and its credits wait for it as well.
            or (decision.outcome = 'held' and not exists (
                select from billing.held_reason as reason
                where reason.line_id = line.line_id and reason.reason_code <> 'agreement_to_create'
            ))
        else carried.line_id is not null or (decision.outcome <> 'excluded' and invoice.withdrawn is null)
    end as counts,
    carried.line_id is not null or invoice.withdrawn is null as stands,
    coalesce(line.charge_start_date, line.charge_end_date, invoice.invoice_date) as first_day,
    greatest(line.charge_end_date, coalesce(line.charge_start_date, line.charge_end_date, invoice.invoice_date)) as last_day
from (
    select distinct
        organization_id, currency, account, account_subscription_id as subscription_id, account_offer_id as offer_id
    from open_credit
) as account
join billing.invoice as invoice on invoice.organization_id = account.organization_id
join billing.invoice_line as line
    on line.invoice_id = invoice.invoice_id
    and line.currency = account.currency
    and (account.subscription_id is null or line.subscription_id = account.subscription_id)
    and (account.offer_id is null or line.offer_id = account.offer_id)
join billing.line_decision as decision on decision.line_id = line.line_id
left join delivery.addition_line as carried on carried.line_id = line.line_id
cross join lateral (
    select coalesce(carried.amount, decision.amount, line.total_price)::numeric as amount
) as money
where money.amount <> 0;
create index on account_line (account);
analyze account_line;

-- 2. What each credit corrects: the one charge of its subscription and offer in its time; of several, the one on the
-- invoice that it refers to, and rather a charge than another correction. Else it is known to be of its subscription.
create temporary table credit_link on commit drop as
with candidate as (
    select
        credit.line_id,
        charge.line_id as charge_line_id,
        coalesce(credit.invoice_reference = charge.invoice_number, false) as is_referred_to,
        rank() over (
            partition by credit.line_id
            order by
                case when credit.invoice_reference = charge.invoice_number then 1 else 2 end,
                case when charge.charge_type in ('Correction', 'UserCorrection') then 2 else 1 end
        ) as place
    from open_credit as credit
    join account_line as own on own.account = credit.account and own.line_id = credit.line_id
    join account_line as charge
        on charge.account = credit.account
        and charge.amount > 0
        and charge.revision = 1
        and charge.stands
        and charge.offer_id is not distinct from credit.offer_id
        and (credit.subscription_id is null or charge.subscription_id = credit.subscription_id)
        and (
            (charge.first_day <= own.last_day and charge.last_day >= own.first_day)
            or charge.invoice_number = credit.invoice_reference
        )
    where credit.subscription_id is not null or credit.offer_id is not null
),
told as (
    select line_id, min(charge_line_id) as charge_line_id, bool_and(is_referred_to) as is_referred_to
    from candidate
    where place = 1
    group by line_id
    having count(*) = 1
)
select
    credit.line_id,
    told.charge_line_id as corrects_line_id,
    credit.subscription_id as corrects_subscription_id,
    case
        when told.is_referred_to then 'invoice_reference'
        when told.line_id is not null then 'charge_period'
        when credit.subscription_id is not null then 'subscription'
    end as corrects_told_by
from open_credit as credit
left join told using (line_id);

update billing.line_decision as known
set
    corrects_line_id = linked.corrects_line_id,
    corrects_subscription_id = linked.corrects_subscription_id,
    corrects_told_by = linked.corrects_told_by,
    run_id = audit.current_run_id(),
    decided_at = now()
from billing.line_in_scope as scope
left join credit_link as linked using (line_id)
where
    known.line_id = scope.line_id
    and (known.corrects_line_id, known.corrects_subscription_id, known.corrects_told_by)
    is distinct from (linked.corrects_line_id, linked.corrects_subscription_id, linked.corrects_told_by);

-- 3. More credit than charge. In the order in which they were invoiced, what is delivered first: the credits that still
-- fit are free, those after them wait.
create temporary table beyond_charge on commit drop as
with marked as (
    select
        account_line.*,
        coalesce(first_day > max(last_day) over (
            partition by account order by first_day, last_day, line_id rows between unbounded preceding and 1 preceding
        ), true) as begins
    from account_line
    where counts
),
islands as (
    select
        marked.*,
        sum(begins::integer) over (partition by account order by first_day, last_day, line_id) as island
    from marked
),
summed as (
    select
        islands.*,
        coalesce(sum(amount) filter (where amount > 0) over (partition by account, island), 0) as charged,
        -sum(amount) filter (where amount < 0) over (
            partition by account, island order by is_delivered desc, invoice_date asc, line_id asc
        ) as credited,
        min(first_day) over (partition by account, island) as island_start,
        max(last_day) over (partition by account, island) as island_end
    from islands
)
select
    summed.line_id,
    key.bound_key,
    summed.amount as figure,
    case
        when summed.charged > 0 then format('credits of %s, charged %s %s from %s to %s', summed.credited, summed.charged,
            credit.currency, summed.island_start, summed.island_end)
        else format('no charge for it is delivered or to be delivered, from %s to %s%s', summed.first_day, summed.last_day,
            '; the customer''s oldest invoice here is of ' || oldest.invoice_date)
    end as detail
from summed
join open_credit as credit on credit.account = summed.account and credit.line_id = summed.line_id
cross join lateral (select 'credit_exceeds_charge/' || summed.line_id as bound_key) as key
left join billing.bound_allowance as allowance on allowance.bound_key = key.bound_key
left join lateral (
    select min(invoice.invoice_date) as invoice_date
    from billing.invoice as invoice
    where invoice.organization_id = credit.organization_id
) as oldest on date_trunc('month', oldest.invoice_date) > summed.first_day
where
    billing.text_setting('credits') = 'hold'
    and summed.credited > summed.charged
    and not billing.is_within(summed.amount, allowance.up_to);
analyze beyond_charge;

create temporary table covered_credit on commit drop as
select known.line_id
from billing.held_reason as known
join billing.line_in_scope as scope using (line_id)
where
    known.reason_code = 'credit_exceeds_charge'
    and not exists (select from beyond_charge where beyond_charge.line_id = known.line_id);

delete from billing.held_reason as known
using covered_credit
where known.line_id = covered_credit.line_id and known.reason_code = 'credit_exceeds_charge';

merge into billing.held_reason as known
using beyond_charge on known.line_id = beyond_charge.line_id and known.reason_code = 'credit_exceeds_charge'
when matched and (known.detail, known.bound_key, known.bound_figure::numeric)
    is distinct from (beyond_charge.detail, beyond_charge.bound_key, beyond_charge.figure) then
    update set detail = beyond_charge.detail, bound_key = beyond_charge.bound_key, bound_figure = beyond_charge.figure
when not matched then insert (line_id, reason_code, detail, bound_key, bound_figure)
    values (beyond_charge.line_id, 'credit_exceeds_charge', beyond_charge.detail, beyond_charge.bound_key, beyond_charge.figure);

update billing.line_decision as known
set outcome = 'held', delivery_key = null, run_id = audit.current_run_id(), decided_at = now()
where known.outcome = 'deliver' and known.line_id in (select beyond_charge.line_id from beyond_charge);

-- Free again when nothing else holds it that was found before this file.
update billing.line_decision as known
set outcome = 'deliver', run_id = audit.current_run_id(), decided_at = now()
where
    known.outcome = 'held'
    and known.line_id in (select covered_credit.line_id from covered_credit)
    and not exists (
        select from billing.held_reason as remaining
        join billing.held_reason_code as code using (reason_code)
        where
            remaining.line_id = known.line_id
            and (not code.is_found_later or remaining.reason_code in ('amount_above_bound', 'customer_total_unusual'))
    );
