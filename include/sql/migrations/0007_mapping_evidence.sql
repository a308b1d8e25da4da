-- Guarantees: one organization may become several companies by visible selectors; an offer may become another product
-- per billing frequency; what the nightly refresh changed in both systems' reference data can be told.
-- Runs once, in one transaction, by `python -m billing_sync migrate`.

create table mapping.company_selector (
    organization_id text not null references mapping.organization,
    kind text not null check (kind in ('contract', 'offer', 'subscription')),
    source_id text not null check (source_id <> ''),
    company_id integer not null references mapping.company,
    note text,
    decided_by text not null default audit.current_person(),
    decided_at timestamptz not null default now(),
    version integer not null default 1,
    primary key (organization_id, kind, source_id)
);
comment on table mapping.company_selector is 'Of this organization, lines of this contract, offer or subscription go to this company. An organization with selectors is decided by them alone: a line that none claims, or that several claim for different companies, is held.';
create trigger history after insert or update or delete on mapping.company_selector
    for each row execute function audit.record_change('organization_id');

create table mapping.offer_frequency (
    offer_id text not null references mapping.offer,
    billing_frequency text not null,
    last_invoiced_on date,
    primary key (offer_id, billing_frequency)
);
comment on table mapping.offer_frequency is 'Which billing frequencies an offer was invoiced with: "Every 1 months", "Every 12 months", "One Time".';

create table mapping.offer_variant_mapping (
    offer_id text not null references mapping.offer,
    billing_frequency text not null check (billing_frequency <> ''),
    product_id integer references mapping.product,
    state text not null default 'excluded' check (state in ('excluded', 'approved')),
    recurring_mode text check (recurring_mode in ('persistent', 'dated')),
    note text,
    decided_by text,
    decided_at timestamptz,
    version integer not null default 1,
    primary key (offer_id, billing_frequency),
    check (state = 'excluded' or product_id is not null)
);
comment on table mapping.offer_variant_mapping is 'An offer''s product for one billing frequency. Once decided it wins over the offer''s own entry (mapping.offer_mapping); undecided it counts for nothing.';
comment on column mapping.offer_variant_mapping.recurring_mode is 'For recurring lines of this variant; null: as the offer''s own entry, else the setting says.';
create trigger history after insert or update or delete on mapping.offer_variant_mapping
    for each row execute function audit.record_change('offer_id');
