-- Guarantees: the schemas, the run ledger, settings and the audit trail exist.
-- Runs once, in one transaction, by `python -m billing_sync migrate`.

create schema staging;
create schema mapping;
create schema billing;
create schema delivery;
create schema audit;

comment on schema staging is 'What AppXite and ConnectWise answered, whole or not at all, one extract per feed, period and run. Pruned by maintain_billing_db.';
comment on schema mapping is 'Organizations, offers and contracts of AppXite; companies, products and agreements of ConnectWise; and which becomes which.';
comment on schema billing is 'Invoices and lines as accepted, what was decided about each line, settings and rules.';
comment on schema delivery is 'Plans, and what was written to ConnectWise: one row per delivery key, every attempt kept.';
comment on schema audit is 'Runs, proofs, log entries and changes by people. Append-only; kept for ever.';

-- Money never accepts NaN or Infinity, and never rounds silently on the way in: min_scale() looks at the digits that count.
create domain billing.amount as numeric
    check (value <> 'NaN' and abs(value) < 1e16 and min_scale(value) <= 2);
comment on domain billing.amount is 'Money in the invoice currency, at most 2 decimals. NaN, Infinity and more decimals are refused.';
create domain billing.decimal_number as numeric
    check (value <> 'NaN' and abs(value) < 1e16 and min_scale(value) <= 12);
comment on domain billing.decimal_number is 'A quantity or a unit price, at most 12 decimals. NaN and Infinity are refused.';
create domain billing.billing_period as date check (extract(day from value) = 1);
comment on domain billing.billing_period is 'Calendar month of the invoice date, as its first day.';

create table audit.run (
    run_id bigint generated always as identity primary key,
    dag_id text not null,
    dag_run_id text not null,
    kind text not null check (kind in ('nightly', 'manual', 'backfill', 'reference')),
    billing_periods billing.billing_period[] not null,
    organization_ids text[] not null default '{}',
    is_dry_run boolean not null default false,
    requester_id text,
    state text not null default 'running'
        check (state in ('running', 'succeeded', 'awaiting_approval', 'failed')),
    started_at timestamptz not null default now(),
    proven_at timestamptz,
    ended_at timestamptz,
    unique (dag_id, dag_run_id)
);
comment on table audit.run is 'One row per pipeline run. A task that is cleared and run again finds its row by (dag_id, dag_run_id).';
comment on column audit.run.kind is 'nightly decides over every open line; manual and backfill only over the billing_periods (and organization_ids) named.';
comment on column audit.run.billing_periods is 'Periods whose invoices are extracted.';
comment on column audit.run.organization_ids is 'Empty: all organizations.';
comment on column audit.run.requester_id is 'The seller''s organization id; invoices of other providers are vendor cost and never billed.';

comment on column audit.run.proven_at is 'When the proof of the run held; null: not proven.';

create function audit.current_run_id() returns bigint language plpgsql stable as $$
begin
    return current_setting('billing.run_id')::bigint;
exception when others then
    raise exception 'No run chosen: set billing.run_id first, e.g. PGOPTIONS="-c billing.run_id=1" psql -f FILE'
        using errcode = 'invalid_parameter_value';
end
$$;
comment on function audit.current_run_id() is 'The run that the SQL files of this session work for (session setting billing.run_id).';

create table audit.log_entry (
    log_entry_id bigint generated always as identity primary key,
    run_id bigint references audit.run,
    level text not null check (level in ('INFO', 'WARNING', 'ERROR')),
    code text not null,
    message text not null,
    subject jsonb not null default '{}',
    logged_at timestamptz not null default clock_timestamp()
);
create index on audit.log_entry (run_id);
create index on audit.log_entry (logged_at);
comment on table audit.log_entry is 'What the pipeline has to say to people. The System Logs page shows the last 30 days; rows are kept for ever.';

create table audit.change (
    change_id bigint generated always as identity primary key,
    table_name text not null,
    row_key text not null,
    changed_by text not null,
    changed_at timestamptz not null default clock_timestamp(),
    before jsonb,
    after jsonb
);
create index on audit.change (table_name, row_key);
comment on table audit.change is 'Every change of a setting, rule, mapping or override: who, when, before, after. Filled by triggers.';

create function audit.current_person() returns text language sql stable as $$
    select coalesce(nullif(current_setting('billing.user', true), ''), session_user::text)
$$;
comment on function audit.current_person() is 'Who acts: the session setting billing.user, else the database user.';

create function audit.record_change() returns trigger language plpgsql as $$
declare
    key_column text := tg_argv[0];
    before_row jsonb := case when tg_op <> 'INSERT' then to_jsonb(old) end;
    after_row jsonb := case when tg_op <> 'DELETE' then to_jsonb(new) end;
begin
    if before_row is distinct from after_row then
        insert into audit.change (table_name, row_key, changed_by, before, after)
        values (
            tg_table_schema || '.' || tg_table_name,
            coalesce(after_row, before_row) ->> key_column,
            audit.current_person(),
            before_row,
            after_row
        );
    end if;
    return null;
end
$$;
comment on function audit.record_change() is 'Trigger: writes audit.change. Argument: the column that names the row.';

create function audit.refuse_change() returns trigger language plpgsql as $$
begin
    raise exception '% is append-only: % refused', tg_table_schema || '.' || tg_table_name, tg_op;
end
$$;
comment on function audit.refuse_change() is 'Trigger: makes a table append-only.';
create trigger append_only before update or delete on audit.change
    for each row execute function audit.refuse_change();
create trigger append_only before update or delete on audit.log_entry
    for each row execute function audit.refuse_change();
create trigger never_emptied before truncate on audit.change
    for each statement execute function audit.refuse_change();
create trigger never_emptied before truncate on audit.log_entry
    for each statement execute function audit.refuse_change();

create table billing.setting (
    setting_key text primary key,
    value jsonb,
    description text not null
);
comment on table billing.setting is 'What an administrator configures, one row per setting; types and allowed values are checked by include/billing_sync/settings.py.';
create trigger history after insert or update or delete on billing.setting
    for each row execute function audit.record_change('setting_key');

insert into billing.setting (setting_key, value, description) values
('environment', '"production"', 'Stands in every delivery key and marker, so that staging and production never adopt each other''s Additions. At most 12 lower-case letters and digits.'),
('accepted_statuses', '["Verified", "Issued", "Paid"]', 'Invoice statuses that are billed: reached Verified. Verified moves on to Issued or Paid at any time.'),
('default_agreement_type', null, 'Name of the ConnectWise Agreement Type whose active agreement takes the lines of a company. Nothing runs without it.'),
('create_agreements', 'false', 'On: a company without any agreement of the default Agreement Type gets one, as part of a plan. Off: its lines are held as no_agreement.'),
('new_agreement_name', '"{type} {company}"', 'Name of an agreement that a plan creates; {type} and {company} stand for the names of both. Cut to 100 characters.'),
('automated_daily_sync', 'false', 'On: a plan is approved by itself and delivered. Off: it waits for a person.'),
('recurring_mode', '"persistent"', 'persistent: one Addition per subscription, prolonged each month. dated: one Addition per line.'),
('unit_price_decimals', '4', 'How many decimals of a unit price ConnectWise keeps (2 to 6).'),
('price_fallback', '"one_unit"', 'When no unit price with those decimals gives the line''s total. one_unit: bill 1 x total, with quantity and price in the description. hold: the line waits.'),
('negative_additions', '"send"', 'send: credits become negative Additions. hold: they wait for a person.'),
('zero_amounts', '"send"', 'send: lines of 0.00 become Additions. skip: they are excluded by rule.'),
('late_lines', '"next_open_cycle"', 'next_open_cycle: a charge in a cycle already invoiced is billed in the next open one. hold: it waits for a person.'),
('changes_after_delivery', '"hold"', 'hold: what AppXite changes after it was delivered waits for a person. next_open_cycle: the difference is delivered as a dated Addition, in the line''s own cycle or the next open one.'),
('lookback_months', '2', 'How many calendar months of invoice dates a nightly run reads, its own included (2 to 12). Invoices that become Verified later than that are not seen by it.'),
('marker_carrier', '"serial_number"', 'Where our marker stands on an Addition: serial_number, description or custom_field.'),
('marker_custom_field_id', null, 'Id of the custom field on Additions, when marker_carrier is custom_field.'),
('create_mode', '"inert"', 'inert: an Addition is created as Do Not Bill and then activated, so a duplicate never bills. locked: for a ConnectWise that refuses that; see docs/delivery.md for what it does not promise.'),
('settle_seconds', '600', 'How late a request whose answer was lost may still be applied, as far as we reckon with it.'),
('delivery_deadline_hours', '12', 'How long after its approval a plan may be written. Later it is made anew.'),
('requests_per_minute', '600', 'Budget of requests to ConnectWise, shared by all workers. ConnectWise allows about 1,000.'),
('staging_retention_days', '14', 'How long extracts stay in schema staging.');
