-- Guarantees: every organization and offer that a staged invoice of the seller names is known, with a mapping row,
-- excluded until somebody approves it. Offers have no feed of their own: those that appeared on invoices are the list.
-- The log that people read says which offers are new or renamed, and which approved ones have a new billing frequency.
-- May run again: writes only what differs. By hand: PGOPTIONS='-c billing.run_id=RUN' psql -1 -f FILE

-- Two runs at once would both find something new, and the second would stumble over the first one's row.
select pg_advisory_xact_lock(hashtext('mapping.refresh'));

create temporary table reference_before on commit drop as select * from mapping.reference;
create temporary table frequency_before on commit drop as select offer_id, billing_frequency from mapping.offer_frequency;

create temporary table seller_header on commit drop as
select header.*
from staging.invoice_header as header
join staging.extract as feed using (extract_id)
join audit.run as run on run.run_id = feed.run_id
where
    feed.run_id = audit.current_run_id()
    and header.invoice_id is not null
    and header.provider_organization_id = run.requester_id;

insert into mapping.organization (organization_id, name)
select distinct on (consumer_organization_id) consumer_organization_id, coalesce(consumer_name, consumer_organization_id)
from seller_header
where consumer_organization_id is not null
on conflict do nothing;

insert into mapping.organization_mapping (organization_id)
select organization_id from mapping.organization as known
where not exists (select from mapping.organization_mapping as mapped where mapped.organization_id = known.organization_id);

merge into mapping.offer as known
using (
    select distinct on (staged.offer_id) staged.offer_id, staged.offer_name, header.invoice_date
    from staging.invoice_row as staged
    join staging.extract as feed using (extract_id)
    join seller_header as header on header.invoice_id = staged.invoice_id
    where feed.run_id = audit.current_run_id() and staged.offer_id is not null
    order by staged.offer_id asc, header.invoice_date desc nulls last, staged.offer_name asc
) as seen on known.offer_id = seen.offer_id
when matched and (known.last_invoiced_on is null or seen.invoice_date > known.last_invoiced_on) then
    update set name = seen.offer_name, last_invoiced_on = seen.invoice_date
when not matched then
    insert (offer_id, name, last_invoiced_on) values (seen.offer_id, seen.offer_name, seen.invoice_date);

merge into mapping.offer_frequency as known
using (
    select staged.offer_id, staged.billing_frequency, max(header.invoice_date) as last_invoiced_on
    from staging.invoice_row as staged
    join staging.extract as feed using (extract_id)
    join seller_header as header on header.invoice_id = staged.invoice_id
    where feed.run_id = audit.current_run_id() and staged.offer_id is not null and staged.billing_frequency is not null
    group by staged.offer_id, staged.billing_frequency
) as seen on known.offer_id = seen.offer_id and known.billing_frequency = seen.billing_frequency
when matched and (known.last_invoiced_on is null or seen.last_invoiced_on > known.last_invoiced_on) then
    update set last_invoiced_on = seen.last_invoiced_on
when not matched then
    insert (offer_id, billing_frequency, last_invoiced_on)
    values (seen.offer_id, seen.billing_frequency, seen.last_invoiced_on);

insert into mapping.offer_mapping (offer_id)
select offer_id from mapping.offer as known
where not exists (select from mapping.offer_mapping as mapped where mapped.offer_id = known.offer_id);

select mapping.log_reference_changes();

-- Monthly and yearly of one offer may be two products: who approved it may not have known of the other.
insert into audit.log_entry (run_id, level, code, message, subject)
select
    audit.current_run_id(), 'WARNING', 'offer_frequency_new',
    format('%s invoiced with another billing frequency for the first time, and %s the same product: %s',
        case when count(*) = 1 then '1 approved offer is' else format('%s approved offers are', count(*)) end,
        case when count(*) = 1 then 'becomes' else 'become' end,
        mapping.some_of(array_agg(
            format('%s (%s) %s', offer.name, offer.offer_id, seen.billing_frequency)
            order by offer.name, offer.offer_id, seen.billing_frequency
        ))),
    jsonb_build_object('count', count(*))
from mapping.offer_frequency as seen
join mapping.offer as offer on offer.offer_id = seen.offer_id
join mapping.offer_mapping as mapped on mapped.offer_id = seen.offer_id and mapped.state = 'approved'
where
    exists (select from frequency_before as other where other.offer_id = seen.offer_id)
    and (seen.offer_id, seen.billing_frequency) not in (
        select known.offer_id, known.billing_frequency from frequency_before as known
    )
    and not exists (
        select from mapping.offer_variant_mapping as variant
        where variant.offer_id = seen.offer_id and variant.billing_frequency = seen.billing_frequency
            and variant.decided_by is not null
    )
having count(*) > 0;
