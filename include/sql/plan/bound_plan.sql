-- Guarantees: a proposed plan whose input looks wrong is parked, with the reasons: it is not approved by itself, but
-- waits for a person. Zero input is an alarm, never clean. Ends with the reasons, one row each.
-- May run again: judges the run's proposed plan anew, and says nothing twice. By hand: PGOPTIONS='-c billing.run_id=RUN' psql -1 -f FILE

create temporary table this_plan on commit drop as
select plan_id from delivery.plan where run_id = audit.current_run_id() and state = 'proposed';

-- Periods whose headers this run read whole, and the seller's invoices among them. One that is still to be verified is
-- there: it is only not billed yet.
create temporary table read_invoice on commit drop as
select
    feed.billing_period,
    header.invoice_id,
    header.status in ('New', 'New Corrected') or header.status in (
        select jsonb_array_elements_text(setting.value) from billing.setting
        where setting.setting_key = 'accepted_statuses'
    ) as is_expected
from staging.extract as feed
join audit.run as run on run.run_id = feed.run_id
left join staging.invoice_header as header
    on header.extract_id = feed.extract_id and header.provider_organization_id = run.requester_id
where feed.run_id = audit.current_run_id() and feed.feed = 'invoice_headers';

create temporary table parked on commit drop as
with setting as (
    select
        billing.bound_setting('bound_fewer_invoices_percent') as fewer_invoices_percent,
        billing.bound_setting('bound_removed_lines') as removed_lines,
        -- Less than half of three invoices says nothing; none of three does.
        10 as enough_for_a_percentage
),
-- 1. What was read of each period, what is known of it, and of the month before it.
period as (
    select
        read_period.billing_period,
        read_period.invoices,
        to_char(read_period.billing_period, 'YYYY-MM') as name,
        (
            select count(*) from billing.invoice as earlier
            where
                earlier.billing_period = (read_period.billing_period - interval '1 month')::date
                and earlier.withdrawn is null
        ) as invoices_before,
        known.invoices as invoices_known,
        known.missing as invoices_missing,
        -- Over: the run, or the invoices known, have a later month. The month under way fills up day by day.
        exists (select from read_invoice as later where later.billing_period > read_period.billing_period)
        or exists (
            select from billing.invoice as later where later.billing_period > read_period.billing_period
        ) as is_over
    from (
        select billing_period, count(distinct invoice_id) filter (where is_expected) as invoices
        from read_invoice group by billing_period
    ) as read_period
    cross join lateral (
        select
            count(*) as invoices,
            count(*) filter (where not exists (
                select from read_invoice as seen where seen.invoice_id = invoice.invoice_id
            )) as missing
        from billing.invoice as invoice
        where invoice.billing_period = read_period.billing_period
    ) as known
),
found as (
    select
        'no_invoices' as bound_key,
        'no_invoices' as reason_code,
        (select count(*) from billing.invoice) as figure,
        format('AppXite gave no invoice at all in %s, though it gave %s before. Look at the requester id of the connection appxite_api, and at AppXite.',
            (select string_agg(period.name, ', ' order by period.name) from period), (select count(*) from billing.invoice)) as detail
    from setting
    join audit.run as run on run.run_id = audit.current_run_id() and run.kind = 'nightly'
    where
        setting.fewer_invoices_percent is not null
        and exists (select from billing.invoice)
        and exists (select from period)
        and not exists (select from period where period.invoices > 0)
    union all
    select
        'few_invoices/' || period.name,
        'few_invoices',
        period.invoices_before - period.invoices,
        format('%s is over and has %s invoices, the month before had %s: less than %s %%', period.name, period.invoices,
            period.invoices_before, setting.fewer_invoices_percent)
    from period cross join setting
    where
        period.is_over
        and period.invoices * 100 < setting.fewer_invoices_percent * period.invoices_before
        and (period.invoices = 0 or period.invoices_before >= setting.enough_for_a_percentage)
    union all
    select
        'invoices_missing/' || period.name,
        'invoices_missing',
        period.invoices_missing,
        format('%s of %s invoices of %s that were accepted before are not in AppXite''s answer any more: less than %s %% are left',
            period.invoices_missing, period.invoices_known, period.name, setting.fewer_invoices_percent)
    from period cross join setting
    where
        (period.invoices_known - period.invoices_missing) * 100 < setting.fewer_invoices_percent * period.invoices_known
        and (period.invoices_missing = period.invoices_known or period.invoices_known >= setting.enough_for_a_percentage)
    union all
    -- 2. Removed lines count until a person, or a plan within the bound, approved what came after: a second night finds
    -- nothing left to remove.
    select
        'lines_removed',
        'lines_removed',
        removed.lines,
        format('AppXite removed %s lines (%s) from accepted invoices since the last approved plan, bound %s', removed.lines,
            removed.amount, setting.removed_lines)
    from setting
    cross join lateral (
        select count(*) as lines, sum((entry.subject ->> 'amount')::numeric) as amount
        from audit.log_entry as entry
        where
            entry.code = 'line_removed_in_appxite'
            and not exists (
                select from delivery.plan as approved
                where
                    approved.state in ('approved', 'applied')
                    and (approved.run_id = entry.run_id or approved.created_at > entry.logged_at)
            )
    ) as removed
    where removed.lines > setting.removed_lines
)
select this_plan.plan_id, found.bound_key, found.reason_code, found.figure::numeric as figure, found.detail
from found
cross join this_plan
left join billing.bound_allowance as allowance on allowance.bound_key = found.bound_key
where found.reason_code = 'lines_removed' or not billing.is_within(found.figure, allowance.up_to);

delete from delivery.plan_bound as known
using this_plan
where
    known.plan_id = this_plan.plan_id
    and not exists (select from parked where parked.bound_key = known.bound_key);

merge into delivery.plan_bound as known
using parked on known.plan_id = parked.plan_id and known.bound_key = parked.bound_key
when matched and (known.figure::numeric, known.detail) is distinct from (parked.figure, parked.detail) then
    update set figure = parked.figure, detail = parked.detail
when not matched then insert (plan_id, bound_key, reason_code, figure, detail)
    values (parked.plan_id, parked.bound_key, parked.reason_code, parked.figure, parked.detail);

insert into audit.log_entry (run_id, level, code, message, subject)
select
    audit.current_run_id(), 'ERROR', 'plan_parked_' || parked.reason_code,
    format('Plan %s is parked: %s', parked.plan_id, parked.detail),
    jsonb_build_object('plan_id', parked.plan_id, 'bound_key', parked.bound_key, 'figure', parked.figure::text)
from parked
where not exists (
    select from audit.log_entry as said
    where
        said.run_id = audit.current_run_id()
        and said.code = 'plan_parked_' || parked.reason_code
        and said.message = format('Plan %s is parked: %s', parked.plan_id, parked.detail)
);

-- An older plan that is parked and has nothing to write waits for nothing any more: this one says how things are now.
update delivery.plan as older set state = 'superseded'
from this_plan
where
    older.plan_id < this_plan.plan_id
    and older.state = 'proposed'
    and not older.is_dry_run
    and not (select is_dry_run from audit.run where run_id = audit.current_run_id())
    and exists (select from delivery.plan_bound as bound where bound.plan_id = older.plan_id)
    and not exists (select from delivery.plan_item as item where item.plan_id = older.plan_id)
    and not exists (select from delivery.plan_agreement as new where new.plan_id = older.plan_id);

select parked.bound_key, parked.reason_code, parked.figure, parked.detail from parked order by parked.bound_key;
