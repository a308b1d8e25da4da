-- Guarantees: whatever is wrong with what AppXite gave is said in audit.log_entry, once per run: unreadable headers,
-- rows without a header, invoices that do not add up or were withdrawn, statuses not billed or still to come, periods without any invoice.
-- Ends with these findings, one row each. Lines concerned are held by billing/hold_lines.sql; the rest goes on.
-- May run again: says nothing twice. By hand: PGOPTIONS='-c billing.run_id=RUN' psql -1 -f FILE

create temporary table finding on commit drop as
with run_header as (
    select header.*, feed.billing_period
    from staging.invoice_header as header
    join staging.extract as feed using (extract_id)
    where feed.run_id = audit.current_run_id()
),
run_row as (
    select staged.* from staging.invoice_row as staged
    join staging.extract as feed using (extract_id)
    where feed.run_id = audit.current_run_id()
)
select
    'ERROR' as level,
    'header_unreadable' as code,
    format('Invoice header %s cannot be read: %s', coalesce(header.invoice_number, header.invoice_id::text, '(no number)'),
        coalesce(header.problem, 'organization, date, currency or provider is missing')) as message,
    jsonb_build_object('invoice_id', header.invoice_id, 'position', header.position) as subject
from run_header as header
where
    (header.provider_organization_id is null
        or header.provider_organization_id = (select run.requester_id from audit.run where run.run_id = audit.current_run_id()))
    and (
        header.invoice_id is null or header.status is null or header.provider_organization_id is null
        or header.consumer_organization_id is null or header.invoice_date is null or header.currency is null
    )
union all
select
    'ERROR', 'row_without_header',
    format('%s rows of invoice %s have no header in their period%s', count(*),
        coalesce(run_row.invoice_number, run_row.invoice_id::text, '(none)'), ': ' || min(run_row.problem)),
    jsonb_build_object('invoice_id', run_row.invoice_id)
from run_row
where not exists (select from run_header as header where header.invoice_id = run_row.invoice_id)
group by run_row.invoice_id, run_row.invoice_number
union all
select
    'WARNING', 'status_not_billed',
    format('%s invoices (%s %s) are in status %s, which is neither billed nor still to be verified', count(*),
        sum(header.total_amount), header.currency, header.status),
    jsonb_build_object('status', header.status)
from run_header as header
where
    header.provider_organization_id = (select run.requester_id from audit.run where run.run_id = audit.current_run_id())
    and header.status not in ('New', 'New Corrected')
    and header.status not in (
        select jsonb_array_elements_text(setting.value) from billing.setting
        where setting.setting_key = 'accepted_statuses'
    )
group by header.status, header.currency
union all
select
    'WARNING', 'invoice_does_not_add_up',
    case
        when invoice.problem is not null then format('Invoice %s of %s: its header cannot be read (%s); all its lines wait',
            invoice.invoice_number, organization.name, invoice.problem)
        else format('Invoice %s of %s: its rows do not give its total of %s %s%s; all its lines wait', invoice.invoice_number,
            organization.name, coalesce(invoice.total_amount::text, '(unreadable)'), invoice.currency,
            (
                select ', and ' || nullif(count(*), 0) || ' of them cannot be read' from billing.invoice_line as line
                where line.invoice_id = invoice.invoice_id and line.problem is not null
            ))
    end,
    jsonb_build_object('invoice_id', invoice.invoice_id)
from billing.invoice as invoice
join mapping.organization as organization using (organization_id)
where not invoice.adds_up and invoice.invoice_id in (select header.invoice_id from run_header as header)
union all
select
    'WARNING', 'invoice_withdrawn',
    format('Invoice %s of %s: %s. Its open lines wait%s', invoice.invoice_number, organization.name, invoice.withdrawn,
        (
            select
                format('; %s %s of it are delivered, and stay: credit them by hand if they are not owed',
                    sum(carried.amount), invoice.currency)
            from billing.invoice_line as line
            join delivery.addition_line as carried using (line_id)
            where line.invoice_id = invoice.invoice_id
            having sum(carried.amount) <> 0
        )),
    jsonb_build_object('invoice_id', invoice.invoice_id)
from billing.invoice as invoice
join mapping.organization as organization using (organization_id)
join audit.run as run on run.run_id = audit.current_run_id()
where
    invoice.withdrawn is not null
    and invoice.billing_period = any(run.billing_periods)
    and (cardinality(run.organization_ids) = 0 or invoice.organization_id = any(run.organization_ids))
union all
select
    'WARNING', 'not_verified_yet',
    format('%s invoices of %s (%s %s) are still %s. From next month on the nightly run does not read that month any more: raise lookback_months, or run the month by hand once they are Verified',
        count(*), to_char(header.billing_period, 'YYYY-MM'), sum(header.total_amount), header.currency, header.status),
    jsonb_build_object('billing_period', header.billing_period, 'status', header.status)
from run_header as header
join audit.run as run on run.run_id = audit.current_run_id()
where
    run.kind = 'nightly'
    and header.billing_period = (select min(wanted.period) from unnest(run.billing_periods) as wanted (period))
    and header.provider_organization_id = run.requester_id
    and header.status in ('New', 'New Corrected')
group by header.billing_period, header.status, header.currency
union all
select
    'WARNING', 'period_without_invoices',
    format('AppXite has no invoice in %s. If that is unexpected, look at the requester id and at AppXite.', to_char(wanted.period, 'YYYY-MM')),
    jsonb_build_object('billing_period', wanted.period)
from audit.run
cross join unnest(run.billing_periods) as wanted (period)
where
    run.run_id = audit.current_run_id()
    and not exists (
        select from run_header as header
        where header.billing_period = wanted.period and header.provider_organization_id = run.requester_id
    );

insert into audit.log_entry (run_id, level, code, message, subject)
select audit.current_run_id(), level, code, message, subject
from finding
where not exists (
    select from audit.log_entry as said
    where
        said.run_id = audit.current_run_id()
        and said.code = finding.code
        and said.message = finding.message
        and said.logged_at >= (
            select max(feed.started_at) from staging.extract as feed
            where feed.run_id = audit.current_run_id() and feed.billing_period is not null
        )
);

select level, code, message from finding order by level, code, message;
