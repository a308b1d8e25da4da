-- Guarantees: a billing database with lines of a large seller: :lines lines in the billing period 2026-05, all open, and
-- as many in 2026-04, delivered. 1,000 organizations, and about 20 reasons to be held.
-- Needs an empty, migrated database. Placeholders: {lines}.

insert into audit.run (dag_id, dag_run_id, kind, billing_periods, requester_id, state, proven_at)
values ('bench', 'loaded', 'nightly', array['2026-04-01', '2026-05-01']::date[]::billing.billing_period[], 'seller',
    'succeeded', now());

update billing.setting set value = '"Cloud Subscriptions"' where setting_key = 'default_agreement_type';
update billing.setting set value = '"bench"' where setting_key = 'environment';
update billing.setting set value = '"hold"' where setting_key in ('price_fallback', 'late_lines');

insert into mapping.agreement_type (agreement_type_id, name) values (1, 'Cloud Subscriptions');
insert into mapping.billing_cycle (billing_cycle_id, name, billing_option) values
(1, 'Monthly', 'Monthly'), (2, 'Yearly', 'Yearly'), (3, 'Weekly', 'Weekly');

create temporary table word on commit drop as
select number, ('{{Bakery,Harbour,Atelier,Logistics,Consulting,Orchard,Printing,Clinic,Foundry,Garage,Marina,Notary,Studio,Brewery,Optics}}'::text[])[1 + number % 15] as trade,
    ('{{Alder,Birch,Cedar,Dogwood,Elm,Fir,Ginkgo,Hazel,Ivy,Juniper,Kapok,Larch,Maple,Nettle,Oak,Pine,Quince,Rowan,Spruce,Teak,Ulmus,Vine,Willow,Yew,Zelkova}}'::text[])[1 + number / 15 % 25] as tree
from generate_series(1, 1000) as numbers (number);

insert into mapping.company (company_id, identifier, name, status, currency)
select number, 'C' || number, format('%s %s %s Ltd', tree, trade, number), case when number % 97 = 0 then 'Inactive' else 'Active' end, 'EUR'
from word;

-- Some companies have two agreements, some none, some one that cannot be used.
insert into mapping.agreement (agreement_id, name, agreement_type_id, company_id, agreement_status, billing_cycle_id,
    invoicing_cycle, currency, prorates, start_date, bill_start_date, next_invoice_date)
select
    number, format('Cloud %s', number), 1, number, case when number % 89 = 0 then 'Cancelled' else 'Active' end,
    case when number % 83 = 0 then 3 else 1 end, 'CalendarYear', case when number % 79 = 0 then 'USD' else 'EUR' end,
    number % 73 = 0, '2026-01-01', case when number % 71 = 0 then '2026-07-01'::date else '2026-01-01' end,
    case when number % 67 = 0 then '2026-06-01'::date else '2026-05-01' end
from word where number % 20 <> 0;
insert into mapping.agreement (agreement_id, name, agreement_type_id, company_id, agreement_status, billing_cycle_id,
    invoicing_cycle, currency, start_date, bill_start_date, next_invoice_date)
select 1000 + number, format('Cloud again %s', number), 1, number, 'Active', 1, 'CalendarYear', 'EUR', '2026-01-01', '2026-01-01', '2026-05-01'
from word where number % 19 = 0;

insert into mapping.product (product_id, identifier, description, product_class, is_inactive)
select number, 'P-' || number, format('Cloud product %s', number), 'Service', number % 50 = 0
from generate_series(1, 300) as numbers (number);
insert into mapping.offer (offer_id, name, last_invoiced_on)
select 'offer-' || number, format('Offer %s %s', number, ('{{Standard,Premium,Business,Enterprise}}'::text[])[1 + number % 4]), '2026-05-31'
from generate_series(1, 300) as numbers (number);
insert into mapping.offer_mapping (offer_id, product_id, state, decided_by, decided_at)
select 'offer-' || number, number, 'approved', 'ann', now() from generate_series(1, 300) as numbers (number)
where number % 12 <> 0;

insert into mapping.organization (organization_id, name)
select format('%s', 100000 + number), format('%s %s %s', tree, trade, number) from word;
insert into mapping.organization_mapping (organization_id, company_id, state, decided_by, decided_at)
select
    format('%s', 100000 + number), number, case when number % 53 = 0 then 'excluded' else 'approved' end, 'ann', now()
from word where number % 25 <> 0;
insert into delivery.pause (company_id, reason, paused_by)
select number, 'disputed', 'ann' from word where number % 101 = 0;

-- Four invoices per organization and month.
insert into billing.invoice (invoice_id, invoice_number, billing_period, invoice_date, status, organization_id, currency,
    total_amount, adds_up, withdrawn, first_run_id, last_run_id)
select
    month.number * 1000000 + organization.number * 4 + part.number,
    format('2026-%s-%s', month.number, organization.number * 4 + part.number), month.first_day, month.last_day, 'Verified',
    format('%s', 100000 + organization.number), 'EUR', 0, month.number = 4 or organization.number % 61 <> 0,
    case when month.number = 5 and organization.number % 191 = 0 then 'gone from AppXite' end, 1, 1
from (values (4, '2026-04-01'::date, '2026-04-30'::date), (5, '2026-05-01', '2026-05-31')) as month (number, first_day, last_day)
cross join word as organization
cross join generate_series(0, 3) as part (number);

insert into billing.invoice_line (line_key, invoice_id, row_id, subscription_id, subscription_name, offer_id, offer_name,
    charge_type, charge_start_date, charge_end_date, billing_frequency, quantity, unit_price, total_price, currency,
    problem, content_hash, first_run_id)
select
    format('%s/row/%s', invoice.invoice_id, line.number), invoice.invoice_id, line.number::text,
    'sub-' || line.number, format('%s for %s', offer.name, organization.name),
    case when line.number % 211 <> 0 then offer.offer_id end, offer.name,
    case when line.number % 199 = 0 then 'Mystery' when line.number % 9 = 0 then 'UsageFee' else 'CycleFee' end,
    case when line.number % 197 <> 0 then invoice.billing_period end, invoice.invoice_date, 'Every 1 month',
    price.quantity, price.unit_price,
    case when line.number % 193 = 0 then null else round(price.quantity * price.unit_price, 2)
        + case when line.number % 181 = 0 and price.quantity > 1 then 0.01 else 0 end end,
    case when line.number % 223 = 0 then 'SEK' else 'EUR' end,
    case when line.number % 193 = 0 then 'total_price: cannot be read' end, md5(line.number::text), 1
from billing.invoice as invoice
join mapping.organization as organization using (organization_id)
cross join lateral (select (invoice.invoice_id % 1000000)::integer as number) as own
cross join lateral (
    select own.number + 4000 * step as number from generate_series(0, {lines} / 4000 - 1) as steps (step)
) as line
join mapping.offer as offer on offer.offer_id = 'offer-' || (1 + line.number % 300)
cross join lateral (
    select
        (1 + line.number * 7 % 40)::numeric as quantity,
        (case when line.number % 173 = 0 then -1 else 1 end
            * round(1 + line.number * 31 % 9000 / 100.0, 2) * case when line.number % 20011 = 0 then 9000 else 1 end) as unit_price
) as price
order by invoice.invoice_id, line.number;

update billing.invoice as invoice set total_amount = (
    select coalesce(sum(line.total_price), 0) from billing.invoice_line as line where line.invoice_id = invoice.invoice_id
);

insert into delivery.plan (run_id, state, approved_by, approved_at) values (1, 'applied', 'ann', now());
create temporary table delivered on commit drop as
select
    line.*, invoice.billing_period, invoice.invoice_date, mapped.company_id, agreement.agreement_id,
    'bench/' || line.line_key || '/1' as delivery_key
from billing.invoice_line as line
join billing.invoice as invoice using (invoice_id)
join mapping.organization_mapping as mapped using (organization_id)
join mapping.agreement as agreement on agreement.agreement_id = mapped.company_id
where invoice.billing_period = '2026-04-01' and mapped.state = 'approved' and line.total_price > 0;
insert into billing.line_decision (line_id, outcome, company_id, product_id, agreement_id, agreement_source, cycle_start,
    cycle_end, effective_date, cancelled_date, quantity, unit_price, amount, invoice_description, delivery_key, run_id)
select
    line_id, 'deliver', company_id, 1, agreement_id, 'default_type', billing_period, invoice_date, billing_period,
    invoice_date, quantity, unit_price, total_price, subscription_name, delivery_key, 1
from delivered;
insert into delivery.addition (delivery_key, marker, agreement_id, company_id, subscription_id, is_persistent, state,
    connectwise_addition_id, payload, payload_hash, applied_payload, plan_id, delivered_at)
select
    told.delivery_key, told.marker, told.agreement_id, told.company_id, told.subscription_id, false, 'delivered',
    told.line_id, told.payload, '', told.payload, 1, now()
from (
    select
        delivered.*, delivery.marker_for(delivered.delivery_key) as marker,
        jsonb_build_object('product', jsonb_build_object('id', 1), 'quantity', quantity, 'unitPrice', unit_price) as payload
    from delivered
) as told;
insert into delivery.addition_line (line_id, delivery_key, plan_id, cycle_start, cycle_end, amount, proven_run_id)
select line_id, delivery_key, 1, billing_period, invoice_date, total_price, 1 from delivered;

insert into audit.run (dag_id, dag_run_id, kind, billing_periods, requester_id)
values ('bench', 'decided', 'manual', array['2026-05-01']::date[]::billing.billing_period[], 'seller');
