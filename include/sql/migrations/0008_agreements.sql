-- Guarantees: agreement rules, and the agreements that plans create: what a person refused, what is planned, the ledger.
-- Runs once, in one transaction, by `python -m billing_sync migrate`.

create table mapping.agreement_rule (
    agreement_rule text primary key check (agreement_rule <> ''),
    position integer not null unique deferrable initially deferred,
    charge_type text references billing.charge_type,
    line_kind text check (line_kind in ('recurring', 'one-time')),
    offer_id text references mapping.offer,
    agreement_type text,
    agreement_name text,
    currency text check (currency ~ '^([A-Z]{3}|line)$'),
    billing_cycle text
        check (billing_cycle in ('Monthly', 'BiMonthly', 'Quarterly', 'SemiAnnual', 'Yearly', 'line')),
    version integer not null default 1
);
comment on table mapping.agreement_rule is 'Which of a company''s active agreements takes a line. The first rule, by position, that is for the line and fits any of them decides. The default Agreement Type is the last rule.';
comment on column mapping.agreement_rule.charge_type is 'With line_kind and offer_id: which lines the rule is for; null: any.';
comment on column mapping.agreement_rule.agreement_name is 'A pattern in which * stands for anything; upper and lower case are alike.';
comment on column mapping.agreement_rule.currency is 'A code, or line: the line''s own.';
comment on column mapping.agreement_rule.billing_cycle is 'A billing option of ConnectWise, or line: the one that is the line''s frequency.';
comment on column mapping.agreement_rule.version is 'Grows when a condition changes, not when the rule moves; every change stands in audit.change.';
create trigger history after insert or update or delete on mapping.agreement_rule
    for each row execute function audit.record_change('agreement_rule');

create function mapping.like_pattern(pattern text) returns text language sql immutable as $$
    select replace(replace(replace(replace(pattern, '\', '\\'), '%', '\%'), '_', '\_'), '*', '%')
$$;
comment on function mapping.like_pattern(text) is 'A name pattern with * for anything, as LIKE writes it.';

create table mapping.agreement_refusal (
    company_id integer primary key references mapping.company,
    reason text not null check (reason <> ''),
    refused_by text not null default audit.current_person(),
    refused_at timestamptz not null default now()
);
comment on table mapping.agreement_refusal is 'Companies for which a person refused that a plan creates an agreement.';
create trigger history after insert or update or delete on mapping.agreement_refusal
    for each row execute function audit.record_change('company_id');

create table delivery.plan_agreement (
    plan_id bigint not null references delivery.plan,
    agreement_key text not null,
    company_id integer not null references mapping.company,
    agreement_type_id integer not null references mapping.agreement_type,
    marker text not null,
    payload jsonb not null,
    payload_hash text not null,
    currency text not null,
    line_count integer not null,
    amount billing.amount not null,
    state text not null default 'pending' check (state in ('pending', 'done', 'refused', 'skipped')),
    primary key (plan_id, agreement_key)
);
create index on delivery.plan_agreement (company_id);
comment on table delivery.plan_agreement is 'An agreement that a plan creates, for a company that has none of the default Agreement Type. Its lines follow with the next run.';
comment on column delivery.plan_agreement.payload is 'What is sent, in ConnectWise''s field names; payload_hash seals it. ConnectWise takes the rest from the type and the company.';
comment on column delivery.plan_agreement.currency is 'Of the lines and of the company, whose currency ConnectWise gives a new agreement.';
comment on column delivery.plan_agreement.amount is 'Money of the lines that wait for it.';
comment on column delivery.plan_agreement.state is 'done: begun, see delivery.new_agreement. skipped: not wanted any more when its turn came.';

create table delivery.new_agreement (
    agreement_key text primary key,
    marker text not null unique,
    company_id integer not null references mapping.company,
    agreement_type_id integer not null references mapping.agreement_type,
    state text not null check (state in ('intended', 'created', 'refused')),
    agreement_id integer references mapping.agreement,
    payload jsonb not null,
    payload_hash text not null,
    problem text,
    plan_id bigint not null references delivery.plan,
    intended_at timestamptz not null default now(),
    created_at timestamptz,
    check ((state = 'created') = (agreement_id is not null))
);
create index on delivery.new_agreement (company_id);
comment on table delivery.new_agreement is 'The ledger of agreements that we create: one row per company and Agreement Type, committed before anything is sent.';
comment on column delivery.new_agreement.state is 'intended: nothing known to exist. created: found in ConnectWise. refused: ConnectWise said no; a person lets it be tried again.';

create view mapping.doubled_agreement as
select found.agreement_id, found.kept_agreement_id
from (
    select
        agreement.agreement_id,
        -- The one that the ledger knows; where it knows none of them, the oldest.
        coalesce(
            max(ledger.agreement_id) over same_marker,
            min(agreement.agreement_id) over same_marker
        ) as kept_agreement_id
    from mapping.agreement as agreement
    left join delivery.new_agreement as ledger
        on ledger.marker = agreement.marker and ledger.agreement_id = agreement.agreement_id
    where agreement.marker is not null and agreement.unusable is null
    window same_marker as (partition by agreement.marker, agreement.company_id, agreement.agreement_type_id)
) as found
where found.agreement_id <> found.kept_agreement_id;
comment on view mapping.doubled_agreement is 'Active agreements that carry the marker of another one of the same company and type: a create that was applied late, or a copy by hand. No rule takes them.';

create function delivery.agreement_key(company_id integer, agreement_type_id integer) returns text
language sql immutable as $$ select 'agreement/' || company_id || '/' || agreement_type_id $$;
comment on function delivery.agreement_key(integer, integer) is 'Key of an agreement that we create; its marker is delivery.marker_for of it.';

create view billing.agreement_draft as
select
    company.company_id,
    default_type.agreement_type_id,
    delivery.agreement_key(company.company_id, default_type.agreement_type_id) as agreement_key,
    left(trim(regexp_replace(
        replace(
            replace(billing.text_setting('new_agreement_name'), '{type}', setting.type_name),
            '{company}', coalesce(company.name, company.identifier, company.company_id::text)
        ),
        '[[:cntrl:]]+', ' ', 'g'
    )), 100) as name,
    default_type.billing_cycle_id,
    billing.cycle_months(billing_cycle.billing_option) as cycle_months,
    default_type.invoicing_cycle,
    company.currency,
    company.default_contact_id,
    case
        when default_type.agreement_type_id is null then format('there is no active Agreement Type %s', setting.type_name)
        when ledger.state = 'created' then format('agreement %s, which was created for it, is not usable any more',
            ledger.agreement_id)
        when other.agreements is not null then format('it has %s', other.agreements)
        when refusal.company_id is not null then format('%s refused it: %s', refusal.refused_by, refusal.reason)
        when ledger.state = 'refused' then format('ConnectWise refused it: %s', ledger.problem)
        when company.default_contact_id is null then 'the company has no default contact'
        when company.currency is null then 'the company has no currency'
        when billing.cycle_months(billing_cycle.billing_option) is null or default_type.invoicing_cycle is null
            then format('Agreement Type %s has no billing cycle that can be used', setting.type_name)
    end as obstacle
from mapping.company as company
cross join (
    select billing.text_setting('default_agreement_type') as type_name
    where billing.text_setting('create_agreements') = 'true'
) as setting
left join lateral (
    select * from mapping.agreement_type as named
    where named.name = setting.type_name and not named.is_inactive and not named.is_gone
    order by named.agreement_type_id limit 1
) as default_type on true
left join mapping.billing_cycle as billing_cycle on billing_cycle.billing_cycle_id = default_type.billing_cycle_id
left join mapping.agreement_refusal as refusal on refusal.company_id = company.company_id
left join delivery.new_agreement as ledger
    on ledger.agreement_key = delivery.agreement_key(company.company_id, default_type.agreement_type_id)
left join lateral (
    select string_agg(
        format('%s (%s): %s', agreement.name, agreement.agreement_id, coalesce(agreement.unusable, 'active')), ', '
        order by agreement.agreement_id
    ) as agreements
    from mapping.agreement as agreement
    where
        agreement.company_id = company.company_id
        and agreement.agreement_type_id = default_type.agreement_type_id
        and not agreement.is_gone
) as other on true
where setting.type_name is not null;
comment on view billing.agreement_draft is 'What a plan would create for a company that has no agreement; no rows while create_agreements is off.';
comment on column billing.agreement_draft.obstacle is 'Why none is created, whatever the lines; null: nothing is in the way. An agreement of the type in whatever state is in the way.';
