-- Guarantees: every invoice of the seller in an accepted status, and every line of it, stands in billing.*; a line
-- changed in AppXite before delivery is changed here; one changed after delivery gets a revision of quantity 1 or -1
-- times the difference (what becomes of it: billing/hold_lines.sql). Lines of an invoice that does not add up are only added, never changed or removed. An invoice
-- that AppXite does not list as accepted any more is marked as withdrawn, with the reason, and keeps its lines.
-- Needs mapping/refresh_offers.sql before it. May run again: writes only what differs. By hand: PGOPTIONS='-c billing.run_id=RUN' psql -1 -f FILE; reads this run's whole extracts.

-- Two runs of one period wait for each other here; both end with the same rows.
select pg_advisory_xact_lock(hashtext('billing.decide'));

create temporary table accepted_header on commit drop as
-- An invoice whose date moved to another month between two reads is in both: what was read last counts.
select distinct on (header.invoice_id)
    header.*,
    feed.billing_period
from staging.invoice_header as header
join staging.extract as feed using (extract_id)
join audit.run as run on run.run_id = feed.run_id
where
    feed.run_id = audit.current_run_id()
    and header.invoice_id is not null
    and header.provider_organization_id = run.requester_id
    and header.status in (
        select jsonb_array_elements_text(setting.value) from billing.setting
        where setting.setting_key = 'accepted_statuses'
    )
    and (cardinality(run.organization_ids) = 0 or header.consumer_organization_id = any(run.organization_ids))
    -- An older run that is run again does not bring back what a newer one has read since.
    and not exists (
        select from staging.extract as newer
        join audit.run as newer_run on newer_run.run_id = newer.run_id
        where
            newer.feed = feed.feed
            and newer.billing_period = feed.billing_period
            and newer.extract_id > feed.extract_id
            and newer_run.kind <> 'reference'
            and not newer_run.is_dry_run
            and cardinality(newer_run.organization_ids) = 0
    )
order by header.invoice_id asc, feed.extract_id desc, header.position desc;

create temporary table staged_line on commit drop as
select
    staged.*,
    case
        when staged.row_id is not null then format('%s/row/%s', staged.invoice_id, staged.row_id)
        else format(
            '%s/%s/%s/%s/%s/%s', staged.invoice_id, coalesce(staged.subscription_id, '-'),
            coalesce(staged.charge_start_date::text, '-'), coalesce(staged.charge_end_date::text, '-'),
            coalesce(staged.charge_type, '-'),
            row_number() over (
                partition by staged.invoice_id, staged.row_id, staged.subscription_id, staged.charge_start_date,
                    staged.charge_end_date, staged.charge_type
                order by staged.total_price, staged.quantity, staged.unit_price, staged.position
            )
        )
    end as line_key,
    md5(jsonb_build_array(
        staged.subscription_id, staged.offer_id, staged.charge_type, staged.charge_start_date,
        staged.charge_end_date, staged.billing_frequency, trim_scale(staged.quantity), trim_scale(staged.unit_price),
        trim_scale(staged.total_price), staged.currency, staged.contract_id, staged.problem
    )::text) as content_hash
from staging.invoice_row as staged
join staging.extract as feed using (extract_id)
join accepted_header as header
    on header.invoice_id = staged.invoice_id and header.billing_period = feed.billing_period
where feed.run_id = audit.current_run_id();

create temporary table header_check on commit drop as
select
    header.invoice_id,
    coalesce(
        header.problem is null
        and header.total_amount is not null
        and header.total_amount = coalesce(rows.total, 0)
        and not coalesce(rows.has_problem, false),
        false
    ) as adds_up,
    rows.total as rows_total
from accepted_header as header
left join (
    select invoice_id, sum(total_price) as total, bool_or(problem is not null or total_price is null) as has_problem
    from staged_line
    group by invoice_id
) as rows using (invoice_id);

merge into billing.invoice as known
using (
    select header.*, header_check.adds_up, header_check.rows_total
    from accepted_header as header join header_check using (invoice_id)
    where header.consumer_organization_id is not null and header.invoice_date is not null and header.currency is not null
) as seen on known.invoice_id = seen.invoice_id
when matched and (known.status, known.total_amount::numeric, known.adds_up, known.problem, known.currency, known.organization_id, known.withdrawn)
    is distinct from (seen.status, seen.total_amount::numeric, seen.adds_up, seen.problem, seen.currency, seen.consumer_organization_id, null) then
    update set withdrawn = null, status = seen.status, total_amount = seen.total_amount, currency = seen.currency,
        organization_id = seen.consumer_organization_id, adds_up = seen.adds_up, problem = seen.problem,
        last_run_id = audit.current_run_id()
when not matched then
    insert (invoice_id, invoice_number, billing_period, invoice_date, status, organization_id, contract_id, currency,
        total_amount, invoice_source, invoice_reference, adds_up, problem, first_run_id, last_run_id)
    values (seen.invoice_id, seen.invoice_number, date_trunc('month', seen.invoice_date)::date, seen.invoice_date, seen.status,
        seen.consumer_organization_id, seen.contract_id, seen.currency, seen.total_amount, seen.invoice_source,
        seen.invoice_reference, seen.adds_up, seen.problem, audit.current_run_id(), audit.current_run_id());

-- Invoices of a period that was read whole, and which are not among the accepted ones any more.
update billing.invoice as known set withdrawn = gone.reason, last_run_id = audit.current_run_id()
from (
    select
        invoice.invoice_id,
        coalesce((
            select case
                when header.status is null then 'its header cannot be read: ' || header.problem
                else 'its status is ' || header.status
            end
            from staging.invoice_header as header
            where header.extract_id = feed.extract_id and header.invoice_id = invoice.invoice_id
            order by header.position desc limit 1
        ), format('AppXite does not list it in %s any more', to_char(feed.billing_period, 'YYYY-MM'))) as reason
    from billing.invoice as invoice
    join staging.extract as feed on feed.feed = 'invoice_headers' and feed.billing_period = invoice.billing_period
    join audit.run as run on run.run_id = feed.run_id
    where
        feed.run_id = audit.current_run_id()
        and (cardinality(run.organization_ids) = 0 or invoice.organization_id = any(run.organization_ids))
        and not exists (select from accepted_header as header where header.invoice_id = invoice.invoice_id)
        -- Read by a newer run that loads them: that one knows better.
        and not exists (
            select from staging.extract as newer
            join audit.run as newer_run on newer_run.run_id = newer.run_id
            where
                newer.feed = feed.feed
                and newer.billing_period = feed.billing_period
                and newer.extract_id > feed.extract_id
                and newer_run.kind <> 'reference'
                and not newer_run.is_dry_run
                and cardinality(newer_run.organization_ids) = 0
        )
) as gone
where known.invoice_id = gone.invoice_id and known.withdrawn is distinct from gone.reason;

-- New lines.
insert into billing.invoice_line (line_key, invoice_id, row_id, contract_id, subscription_id, subscription_name, offer_id,
    offer_name, charge_type, charge_start_date, charge_end_date, billing_frequency, quantity, unit_price, total_price,
    currency, problem, content_hash, first_run_id)
select
    staged.line_key, staged.invoice_id, staged.row_id, staged.contract_id, staged.subscription_id,
    staged.subscription_name, staged.offer_id, staged.offer_name, staged.charge_type, staged.charge_start_date,
    staged.charge_end_date, staged.billing_frequency, staged.quantity, staged.unit_price, staged.total_price,
    staged.currency, staged.problem, staged.content_hash, audit.current_run_id()
from staged_line as staged
join billing.invoice as invoice using (invoice_id)
where not exists (select from billing.invoice_line as known where known.line_key = staged.line_key)
order by staged.extract_id, staged.position;

-- Lines that AppXite changed, of invoices that add up. Not carried by an Addition yet: take the new values.
update billing.invoice_line as known set
    subscription_id = staged.subscription_id, subscription_name = staged.subscription_name, offer_id = staged.offer_id,
    offer_name = staged.offer_name, charge_type = staged.charge_type, charge_start_date = staged.charge_start_date,
    charge_end_date = staged.charge_end_date, billing_frequency = staged.billing_frequency,
    quantity = staged.quantity, unit_price = staged.unit_price, total_price = staged.total_price,
    currency = staged.currency, contract_id = staged.contract_id, problem = staged.problem,
    content_hash = staged.content_hash
from staged_line as staged
join header_check using (invoice_id)
where
    header_check.adds_up
    and known.line_key = staged.line_key
    and known.revision = 1
    and known.content_hash <> staged.content_hash
    and not exists (select from delivery.addition_line as carried where carried.line_id = known.line_id)
    and not exists (select from billing.invoice_line as later where later.line_key = known.line_key and later.revision > 1);

-- A difference that nobody has dealt with yet is made anew from what AppXite says now; taken back, it is gone.
delete from billing.invoice_line as pending
using header_check
where
    header_check.invoice_id = pending.invoice_id
    and header_check.adds_up
    and pending.revision > 1
    and coalesce(
        (select staged.content_hash from staged_line as staged where staged.line_key = pending.line_key), 'removed'
    ) <> (
        select newest.content_hash from billing.invoice_line as newest
        where newest.line_key = pending.line_key order by newest.revision desc limit 1
    )
    and not exists (select from delivery.addition_line as carried where carried.line_id = pending.line_id)
    and not exists (select from billing.override as override where override.line_id = pending.line_id);

-- Carried already: a revision that holds the difference. The newest revision's hash tells what was last seen.
with changed as (
insert into billing.invoice_line (line_key, revision, invoice_id, row_id, contract_id, subscription_id, subscription_name,
    offer_id, offer_name, charge_type, charge_start_date, charge_end_date, billing_frequency, quantity, unit_price,
    total_price, currency, problem, content_hash, first_run_id)
select
    staged.line_key, latest.revision + 1, staged.invoice_id, staged.row_id, staged.contract_id, staged.subscription_id,
    staged.subscription_name, staged.offer_id, staged.offer_name, staged.charge_type, staged.charge_start_date,
    staged.charge_end_date, staged.billing_frequency, case when staged.total_price < so_far.total then -1 else 1 end,
    abs(staged.total_price - so_far.total), staged.total_price - so_far.total, staged.currency, staged.problem, staged.content_hash, audit.current_run_id()
from staged_line as staged
join header_check using (invoice_id)
join lateral (
    select known.revision, known.content_hash from billing.invoice_line as known
    where known.line_key = staged.line_key order by known.revision desc limit 1
) as latest on latest.content_hash <> staged.content_hash
join lateral (
    select sum(known.total_price) as total from billing.invoice_line as known where known.line_key = staged.line_key
) as so_far on true
where header_check.adds_up
returning line_key, invoice_id, currency, total_price
)

insert into audit.log_entry (run_id, level, code, message, subject)
select
    audit.current_run_id(), 'WARNING', 'line_changed_in_appxite',
    format('Line %s was delivered with %s %s, and AppXite says %s now', changed.line_key, so_far.total, changed.currency,
        so_far.total + changed.total_price),
    jsonb_build_object('line_key', changed.line_key, 'invoice_id', changed.invoice_id, 'amount', changed.total_price::text)
from changed
-- As it was before this statement: without the new revision.
cross join lateral (
    select sum(known.total_price) as total from billing.invoice_line as known where known.line_key = changed.line_key
) as so_far;

-- Lines that AppXite removed. Not carried: removed here, too. Carried: a revision that takes the amount back.
create temporary table vanished_line on commit drop as
select known.line_key, known.invoice_id, max(known.revision) as revision, sum(known.total_price) as total
from billing.invoice_line as known
join header_check using (invoice_id)
where
    header_check.adds_up
    and not exists (select from staged_line as staged where staged.line_key = known.line_key)
group by known.line_key, known.invoice_id
having sum(known.total_price) <> 0 or bool_and(not exists (
    select from delivery.addition_line as carried where carried.line_id = known.line_id
));

insert into audit.log_entry (run_id, level, code, message, subject)
select
    audit.current_run_id(), 'WARNING', 'line_removed_in_appxite',
    format('Line %s (%s) is no longer on its invoice', line_key, total),
    jsonb_build_object('line_key', line_key, 'invoice_id', invoice_id, 'amount', total::text)
from vanished_line;

insert into billing.invoice_line (line_key, revision, invoice_id, row_id, contract_id, subscription_id, subscription_name,
    offer_id, offer_name, charge_type, charge_start_date, charge_end_date, billing_frequency, quantity, unit_price,
    total_price, currency, content_hash, first_run_id)
select
    first.line_key, vanished.revision + 1, first.invoice_id, first.row_id, first.contract_id, first.subscription_id,
    first.subscription_name, first.offer_id, first.offer_name, first.charge_type, first.charge_start_date,
    first.charge_end_date, first.billing_frequency, case when vanished.total > 0 then -1 else 1 end, abs(vanished.total),
    -vanished.total, first.currency, 'removed', audit.current_run_id()
from vanished_line as vanished
join billing.invoice_line as first on first.line_key = vanished.line_key and first.revision = 1
where exists (
    select from billing.invoice_line as known join delivery.addition_line as carried using (line_id)
    where known.line_key = vanished.line_key
);

delete from billing.invoice_line as known
using vanished_line as vanished
where
    known.line_key = vanished.line_key
    and not exists (
        select from billing.invoice_line as other join delivery.addition_line as carried using (line_id)
        where other.line_key = vanished.line_key
    );
