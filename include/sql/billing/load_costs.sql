-- Guarantees: what others invoiced to the seller for a subscription stands in billing.cost_line, while the setting
-- unit_cost asks for it. Only invoices in an accepted status whose rows can all be read and add up; one that is read
-- again takes the place of what was known of it, and one that is gone from its period is gone here. Never billed.
-- May run again: writes only what differs. By hand: PGOPTIONS='-c billing.run_id=RUN' psql -1 -f FILE; reads this run's whole extracts.

select pg_advisory_xact_lock(hashtext('billing.decide'));

create temporary table incoming_line on commit drop as
with header as (
    select distinct on (header.invoice_id)
        header.invoice_id, header.total_amount, header.currency, feed.billing_period
    from staging.invoice_header as header
    join staging.extract as feed using (extract_id)
    join audit.run as run on run.run_id = feed.run_id
    where
        billing.text_setting('unit_cost') = 'incoming_invoice'
        and feed.run_id = audit.current_run_id()
        and header.consumer_organization_id = run.requester_id
        and header.provider_organization_id is distinct from run.requester_id
        and header.problem is null
        and header.invoice_id is not null
        and header.status in (
            select jsonb_array_elements_text(setting.value) from billing.setting
            where setting.setting_key = 'accepted_statuses'
        )
    order by header.invoice_id asc, feed.extract_id desc, header.position desc
),
row as (
    select
        staged.*,
        header.billing_period,
        row_number() over (partition by header.invoice_id order by staged.position) as number,
        sum(staged.total_price) over invoice = header.total_amount
            and bool_and(staged.problem is null and staged.total_price is not null) over invoice as adds_up
    from header
    join staging.extract as feed
        on feed.run_id = audit.current_run_id()
        and feed.feed = 'invoice_rows'
        and feed.billing_period = header.billing_period
    join staging.invoice_row as staged on staged.extract_id = feed.extract_id and staged.invoice_id = header.invoice_id
    window invoice as (partition by header.invoice_id)
)
select
    invoice_id,
    number::integer as position,
    billing_period,
    subscription_id,
    charge_type,
    charge_start_date,
    charge_end_date,
    quantity,
    unit_price,
    total_price,
    currency
from row
where
    adds_up and subscription_id is not null and charge_type is not null and charge_start_date is not null
    and charge_end_date is not null and quantity is not null and unit_price is not null and currency is not null;

delete from billing.cost_line as known
using staging.extract as feed
where
    feed.run_id = audit.current_run_id()
    and feed.feed = 'invoice_rows'
    and (
        feed.billing_period = known.billing_period
        or exists (select from incoming_line where incoming_line.invoice_id = known.invoice_id)
    )
    and billing.text_setting('unit_cost') = 'incoming_invoice'
    and not exists (
        select from incoming_line where (incoming_line.invoice_id, incoming_line.position) = (known.invoice_id, known.position)
    );

merge into billing.cost_line as known
using incoming_line as seen on known.invoice_id = seen.invoice_id and known.position = seen.position
when matched and (known.billing_period, known.subscription_id, known.charge_type, known.charge_start_date, known.charge_end_date,
        known.quantity::numeric, known.unit_price::numeric, known.total_price::numeric, known.currency)
    is distinct from (seen.billing_period, seen.subscription_id, seen.charge_type, seen.charge_start_date, seen.charge_end_date,
        seen.quantity::numeric, seen.unit_price::numeric, seen.total_price::numeric, seen.currency) then
    update set billing_period = seen.billing_period, subscription_id = seen.subscription_id,
        charge_type = seen.charge_type, charge_start_date = seen.charge_start_date,
        charge_end_date = seen.charge_end_date, quantity = seen.quantity, unit_price = seen.unit_price,
        total_price = seen.total_price, currency = seen.currency, run_id = audit.current_run_id()
when not matched then
    insert (invoice_id, position, billing_period, subscription_id, charge_type, charge_start_date, charge_end_date,
        quantity, unit_price, total_price, currency, run_id)
    values (seen.invoice_id, seen.position, seen.billing_period, seen.subscription_id, seen.charge_type,
        seen.charge_start_date, seen.charge_end_date, seen.quantity, seen.unit_price, seen.total_price, seen.currency,
        audit.current_run_id());
