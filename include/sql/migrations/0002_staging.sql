-- Guarantees: one table per feed of AppXite and ConnectWise. A row of staging.extract is committed together with
-- all rows of its feed, so its presence means the feed is whole.

create table staging.extract (
    extract_id bigint generated always as identity primary key,
    run_id bigint not null references audit.run,
    source text not null check (source in ('appxite', 'connectwise')),
    feed text not null,
    billing_period billing.billing_period,
    page_count integer not null default 0,
    row_count bigint not null default 0,
    started_at timestamptz not null default clock_timestamp(),
    ended_at timestamptz,
    unique nulls not distinct (run_id, source, feed, billing_period)
);
comment on table staging.extract is 'One feed read whole, all pages, in one transaction. No row: it was not read, or not to its end.';
comment on column staging.extract.billing_period is 'For feeds read per calendar month of the invoice date; null otherwise.';

create table staging.invoice_header (
    extract_id bigint not null references staging.extract on delete cascade,
    position bigint not null,
    invoice_id bigint,
    invoice_number text,
    status_id integer,
    status text,
    invoice_date date,
    due_date date,
    provider_organization_id text,
    consumer_organization_id text,
    consumer_name text,
    contract_id text,
    currency text,
    total_amount billing.amount,
    invoice_source text,
    invoice_frequency text,
    invoice_reference text,
    problem text,
    raw jsonb not null,
    primary key (extract_id, position)
);
create index on staging.invoice_header (extract_id, invoice_id);
comment on table staging.invoice_header is 'AppXite invoice headers, all statuses and providers, as answered.';
comment on column staging.invoice_header.position is 'Ordinal in the feed, from 1.';
comment on column staging.invoice_header.problem is 'Why the row could not be read (field, value, what was expected). Typed columns that could be read are filled.';
comment on column staging.invoice_header.raw is 'The object as answered. Code points that PostgreSQL cannot store are replaced by U+FFFD, and named in problem.';

create table staging.invoice_row (
    extract_id bigint not null references staging.extract on delete cascade,
    position bigint not null,
    row_id text,
    invoice_id bigint,
    invoice_number text,
    invoice_date date,
    provider_organization_id text,
    consumer_organization_id text,
    contract_id text,
    subscription_id text,
    subscription_name text,
    offer_id text,
    offer_name text,
    charge_type text,
    vendor_charge_type text,
    charge_start_date date,
    charge_end_date date,
    billing_frequency text,
    quantity billing.decimal_number,
    unit_price billing.decimal_number,
    total_price billing.amount,
    currency text,
    custom_charge_details text,
    problem text,
    raw jsonb not null,
    primary key (extract_id, position)
);
create index on staging.invoice_row (extract_id, invoice_id);
comment on table staging.invoice_row is 'AppXite invoice rows, aggregated per subscription, as answered. An unreadable row stays here with its problem and is held.';
comment on column staging.invoice_row.charge_end_date is 'Inclusive.';
comment on column staging.invoice_row.total_price is 'May differ from quantity x unit price by AppXite''s rounding; this is the amount that counts.';

create table staging.organization (
    extract_id bigint not null references staging.extract on delete cascade,
    organization_id text not null,
    name text not null,
    erp_id text,
    status text,
    vat_number text,
    country text,
    primary key (extract_id, organization_id)
);
comment on table staging.organization is 'AppXite organizations below the requester.';

create table staging.contract (
    extract_id bigint not null references staging.extract on delete cascade,
    contract_id text not null,
    contract_number text,
    contract_reference_number text,
    consumer_organization_id text,
    contract_type text,
    currency text,
    billing_cycle_day integer,
    primary key (extract_id, contract_id)
);
comment on table staging.contract is 'AppXite invoice contracts (seller to customer). Not one-to-one with agreements.';

create table staging.subscription (
    extract_id bigint not null references staging.extract on delete cascade,
    subscription_id text not null,
    organization_id text,
    contract_id text,
    offer_id text,
    name text,
    status text,
    quantity billing.decimal_number,
    billing_frequency text,
    start_date date,
    end_date date,
    primary key (extract_id, subscription_id)
);
comment on table staging.subscription is 'AppXite subscriptions: what each customer is running.';

create table staging.company (
    extract_id bigint not null references staging.extract on delete cascade,
    company_id integer not null,
    identifier text,
    name text,
    status text,
    is_deleted boolean not null default false,
    tax_identifier text,
    currency text,
    default_contact_id integer,
    primary key (extract_id, company_id)
);
comment on table staging.company is 'ConnectWise companies. status is the name of the company status.';

create table staging.product (
    extract_id bigint not null references staging.extract on delete cascade,
    product_id integer not null,
    identifier text,
    description text,
    vendor_sku text,
    product_class text,
    is_inactive boolean not null default false,
    primary key (extract_id, product_id)
);
comment on table staging.product is 'ConnectWise catalog items.';

create table staging.agreement_type (
    extract_id bigint not null references staging.extract on delete cascade,
    agreement_type_id integer not null,
    name text,
    is_inactive boolean not null default false,
    billing_cycle_id integer,
    invoicing_cycle text,
    primary key (extract_id, agreement_type_id)
);
comment on table staging.agreement_type is 'ConnectWise agreement types.';

create table staging.billing_cycle (
    extract_id bigint not null references staging.extract on delete cascade,
    billing_cycle_id integer not null,
    name text,
    billing_option text,
    primary key (extract_id, billing_cycle_id)
);
comment on table staging.billing_cycle is 'ConnectWise billing cycles. billing_option is ConnectWise''s billingOptions: Monthly, Quarterly, ...';

create table staging.agreement (
    extract_id bigint not null references staging.extract on delete cascade,
    agreement_id integer not null,
    name text,
    agreement_type_id integer,
    company_id integer,
    agreement_status text,
    is_cancelled boolean not null default false,
    billing_cycle_id integer,
    invoicing_cycle text,
    currency text,
    prorates boolean not null default false,
    start_date date,
    end_date date,
    bill_start_date date,
    next_invoice_date date,
    marker text,
    primary key (extract_id, agreement_id)
);
comment on table staging.agreement is 'ConnectWise agreements. currency is the currency code; prorates is prorateFlag; dates as of midnight UTC.';

create table staging.addition (
    extract_id bigint not null references staging.extract on delete cascade,
    agreement_id integer not null,
    addition_id integer not null,
    product_id integer,
    bill_customer text,
    quantity numeric,
    less_included numeric,
    unit_price numeric,
    ext_price numeric,
    effective_date date,
    cancelled_date date,
    serial_number text,
    invoice_description text,
    marker text,
    primary key (extract_id, agreement_id, addition_id)
);
create index on staging.addition (extract_id, marker);
comment on table staging.addition is 'ConnectWise Additions of the agreements that a run touches, re-read for the proof.';
comment on column staging.addition.marker is 'Our marker, read from where the setting marker_carrier says; null on Additions that are not ours.';
