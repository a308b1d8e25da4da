-- Guarantees: the current state of both systems' reference data, and the mappings between them.
-- Names change on both sides; ids are the keys. What has gone is marked, never deleted: past decisions refer to it.

create table mapping.organization (
    organization_id text primary key,
    name text not null,
    erp_id text,
    status text,
    vat_number text,
    country text,
    is_gone boolean not null default false,
    first_seen_at timestamptz not null default now()
);
comment on table mapping.organization is 'AppXite organizations. is_gone: the last whole extract no longer named it.';

create table mapping.offer (
    offer_id text primary key,
    name text,
    last_invoiced_on date,
    first_seen_at timestamptz not null default now()
);
comment on table mapping.offer is 'Offers that appeared on an invoice of the seller; AppXite has no feed of its own for them here.';

create table mapping.contract (
    contract_id text primary key,
    contract_number text,
    organization_id text,
    contract_type text,
    currency text,
    billing_cycle_day integer,
    is_gone boolean not null default false,
    first_seen_at timestamptz not null default now()
);
comment on table mapping.contract is 'AppXite invoice contracts.';

create table mapping.subscription (
    subscription_id text primary key,
    organization_id text,
    contract_id text,
    offer_id text,
    name text,
    status text,
    quantity billing.decimal_number,
    billing_frequency text,
    start_date date,
    end_date date,
    is_gone boolean not null default false
);
comment on table mapping.subscription is 'AppXite subscriptions: what each customer is running.';

create table mapping.company (
    company_id integer primary key,
    identifier text,
    name text,
    status text,
    is_deleted boolean not null default false,
    is_gone boolean not null default false,
    tax_identifier text,
    currency text,
    default_contact_id integer,
    unusable text generated always as (
        case
            when is_deleted then 'deleted' when is_gone then 'gone'
            when status ilike 'inactive%' or status ilike 'not-active%' then status
        end
    ) stored
);
comment on table mapping.company is 'ConnectWise companies.';
comment on column mapping.company.unusable is 'Why its lines are held: deleted, gone, or the status that says inactive. Null: usable.';

create table mapping.product (
    product_id integer primary key,
    identifier text,
    description text,
    vendor_sku text,
    product_class text,
    is_inactive boolean not null default false,
    is_gone boolean not null default false,
    unusable text generated always as (
        case when is_gone then 'gone' when is_inactive then 'inactive' when product_class = 'Bundle' then 'a Bundle' end
    ) stored
);
comment on table mapping.product is 'ConnectWise catalog items. Class Bundle cannot be an Addition.';
comment on column mapping.product.unusable is 'Why it cannot be an Addition: gone, inactive, or a Bundle. Null: usable.';

create table mapping.agreement_type (
    agreement_type_id integer primary key,
    name text,
    is_inactive boolean not null default false,
    billing_cycle_id integer,
    invoicing_cycle text,
    is_gone boolean not null default false
);
comment on table mapping.agreement_type is 'ConnectWise agreement types. Cycles: what a new agreement of the type takes from it.';

create table mapping.billing_cycle (
    billing_cycle_id integer primary key,
    name text,
    billing_option text
);
comment on table mapping.billing_cycle is 'ConnectWise billing cycles.';

create table mapping.agreement (
    agreement_id integer primary key,
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
    is_gone boolean not null default false,
    unusable text generated always as (
        case
            when is_gone then 'gone' when is_cancelled then 'cancelled'
            when agreement_status is distinct from 'Active' then coalesce(agreement_status, 'without status')
        end
    ) stored
);
create index on mapping.agreement (company_id, agreement_type_id);
comment on table mapping.agreement is 'ConnectWise agreements as of the last extract; looked at again before anything is written.';
comment on column mapping.agreement.unusable is 'Why nothing can be billed on it: gone, cancelled, or its status. Null: active.';
comment on column mapping.agreement.marker is 'Our marker, from its internal notes: a plan created it, or somebody copied one that a plan created.';
comment on column mapping.agreement.next_invoice_date is 'Cycles that begin before this date are already invoiced.';

create table mapping.organization_mapping (
    organization_id text primary key references mapping.organization,
    company_id integer references mapping.company,
    state text not null default 'excluded' check (state in ('excluded', 'approved')),
    note text,
    decided_by text,
    decided_at timestamptz,
    version integer not null default 1,
    check (state = 'excluded' or company_id is not null)
);
comment on table mapping.organization_mapping is 'Organization to company. Every new organization begins excluded and undecided: its lines are held, not lost.';
comment on column mapping.organization_mapping.decided_by is 'Null: nobody has looked yet (lines are held). Set and excluded: a person excluded it (lines are excluded).';

create table mapping.offer_mapping (
    offer_id text primary key references mapping.offer,
    product_id integer references mapping.product,
    state text not null default 'excluded' check (state in ('excluded', 'approved')),
    recurring_mode text check (recurring_mode in ('persistent', 'dated')),
    note text,
    decided_by text,
    decided_at timestamptz,
    version integer not null default 1,
    check (state = 'excluded' or product_id is not null)
);
comment on table mapping.offer_mapping is 'Offer to product. Several offers may become one product.';
comment on column mapping.offer_mapping.recurring_mode is 'For recurring lines of the offer; null: as the setting recurring_mode says.';

create table mapping.contract_mapping (
    contract_id text primary key references mapping.contract,
    agreement_id integer references mapping.agreement,
    state text not null default 'excluded' check (state in ('excluded', 'approved')),
    note text,
    decided_by text,
    decided_at timestamptz,
    version integer not null default 1,
    check (state = 'excluded' or agreement_id is not null)
);
comment on table mapping.contract_mapping is 'Contract to agreement. Optional: without an approved entry the default Agreement Type decides.';

create trigger history after insert or update or delete on mapping.organization_mapping
    for each row execute function audit.record_change('organization_id');
create trigger history after insert or update or delete on mapping.offer_mapping
    for each row execute function audit.record_change('offer_id');
create trigger history after insert or update or delete on mapping.contract_mapping
    for each row execute function audit.record_change('contract_id');
