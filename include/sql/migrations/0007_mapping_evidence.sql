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

create view mapping.reference as
select 'organization' as kind, organization_id as reference_id, name, case when is_gone then 'gone' end as unusable
from mapping.organization
union all
select 'offer', offer_id, name, null from mapping.offer
union all
select 'contract', contract_id, contract_number, case when is_gone then 'gone' end from mapping.contract
union all
select 'company', company_id::text, name, unusable from mapping.company
union all
select 'product', product_id::text, identifier, unusable from mapping.product
union all
select 'agreement', agreement_id::text, name, unusable from mapping.agreement;
comment on view mapping.reference is 'What can be mapped, of both systems, with its name and why nothing can be billed to it now.';

create view mapping.approved_target as
select 'company' as kind, company_id::text as reference_id, 'organization' as source_kind, organization_id as source_id
from mapping.organization_mapping where state = 'approved'
union
select 'company', company_id::text, 'organization', organization_id from mapping.company_selector
union
select 'product', product_id::text, 'offer', offer_id from mapping.offer_mapping where state = 'approved'
union
select 'product', product_id::text, 'offer', offer_id from mapping.offer_variant_mapping where state = 'approved'
union
select 'product', default_product_id::text, 'charge type', charge_type from billing.charge_type
where default_product_id is not null
union
select 'agreement', agreement_id::text, 'contract', contract_id from mapping.contract_mapping where state = 'approved';
comment on view mapping.approved_target is 'Which company, product or agreement people approved, and for whom.';

create function mapping.log_reference_changes() returns void language plpgsql as $$
begin
    create temporary table reference_change on commit drop as
    select
        now_known.kind,
        now_known.reference_id,
        case
            when before.reference_id is null then 'new'
            when now_known.unusable is distinct from before.unusable and now_known.unusable is null then 'usable again'
            when now_known.unusable is distinct from before.unusable then 'unusable'
            else 'renamed'
        end as change,
        coalesce(now_known.name, 'without name') || ' (' || now_known.reference_id || ')' || case
            when before.reference_id is null then coalesce(', ' || now_known.unusable, '')
            when now_known.unusable is distinct from before.unusable
                then format(': %s, was %s', coalesce(now_known.unusable, 'usable'), coalesce(before.unusable, 'usable'))
            else format(', was %s', coalesce(before.name, 'without name'))
        end as words
    from mapping.reference as now_known
    left join reference_before as before using (kind, reference_id)
    where
        before.reference_id is null
        or now_known.unusable is distinct from before.unusable
        or now_known.name is distinct from before.name;

    insert into audit.log_entry (run_id, level, code, message, subject)
    select
        audit.current_run_id(), 'INFO', 'reference_changed',
        format('%s: %s %s: %s', initcap(kind), count(*), change, mapping.some_of(array_agg(words order by words))),
        jsonb_build_object('kind', kind, 'change', change, 'count', count(*))
    from reference_change
    group by kind, change
    order by kind, change;

    insert into audit.log_entry (run_id, level, code, message, subject)
    select
        audit.current_run_id(), 'WARNING', 'mapped_target_changed',
        format('%s of approved mappings: %s %s: %s', initcap(told.kind), count(*), told.change,
            mapping.some_of(array_agg(told.words || told.mapped_from order by told.words))),
        jsonb_build_object('kind', told.kind, 'change', told.change, 'count', count(*))
    from (
        select
            changed.kind, changed.change, changed.words,
            format(', mapped from %s', mapping.some_of(
                array_agg(coalesce(source.name, target.source_id) order by coalesce(source.name, target.source_id))
            )) as mapped_from
        from reference_change as changed
        join mapping.approved_target as target using (kind, reference_id)
        left join mapping.reference as source
            on source.kind = target.source_kind and source.reference_id = target.source_id
        where changed.change in ('unusable', 'renamed')
        group by changed.kind, changed.reference_id, changed.change, changed.words
    ) as told
    group by told.kind, told.change
    order by told.kind, told.change;

    drop table reference_before, reference_change;
end
$$;
comment on function mapping.log_reference_changes() is 'Writes what differs between mapping.reference and the temporary table reference_before into the log that people read: one entry per kind and change, and a warning where an approved mapping points at something that is unusable or renamed now.';

create function mapping.some_of(names text[]) returns text language sql immutable as $$
    select array_to_string(names[1:10], '; ') || case when cardinality(names) > 10
        then format('; and %s more', cardinality(names) - 10) else '' end
$$;
comment on function mapping.some_of(text[]) is 'The first ten of a list, and how many more there are.';
