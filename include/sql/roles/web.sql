-- Guarantees: the role with which the review pages read and write (billing_web) may read what they show, change what people
-- decide there, decide open lines again, and write nothing of the ledger but by the functions that settle an Addition or
-- forget an agreement that was refused (migration 0017). Given anew by every migrate, after the views.

-- The audit trail is written by its triggers alone, with rights of their own: the role cannot write there what did not happen.
alter function audit.record_change() security definer set search_path = pg_catalog, pg_temp;

do $$
begin
    if not exists (select from pg_roles where rolname = 'billing_web') then
        create role billing_web nologin;
    end if;
exception
    when insufficient_privilege then
        raise notice 'Role billing_web was not created, so the pages do not work: ask a database administrator to create it, then migrate again.';
    when duplicate_object or unique_violation then
        null;  -- another database of this server just made it
end
$$;

do $$
begin
    -- The pages connect as the owner and then take this role; since PostgreSQL 16 even its creator needs that said.
    if exists (select from pg_roles where rolname = 'billing_web') and not pg_has_role(current_user, 'billing_web', 'usage') then
        execute format('grant billing_web to %I', current_user);
    end if;
exception
    when insufficient_privilege then
        raise notice 'The pages cannot take role billing_web: ask a database administrator for: grant billing_web to %', current_user;
end
$$;

do $$
begin
    if not exists (select from pg_roles where rolname = 'billing_web') then
        return;
    end if;

    revoke all on all tables in schema public, staging, mapping, billing, delivery, audit, reporting from billing_web;
    grant usage on schema staging, mapping, billing, delivery, audit, reporting to billing_web;
    grant select on all tables in schema staging, mapping, billing, delivery, audit, reporting to billing_web;
    if to_regclass('public.schema_migration') is not null then  -- not where the files were run by psql
        grant select on public.schema_migration to billing_web;
    end if;
    execute format('grant temporary on database %I to billing_web', current_database());

    -- what people decide
    grant insert, update, delete on
    mapping.organization_mapping, mapping.offer_mapping, mapping.offer_variant_mapping, mapping.contract_mapping,
    mapping.company_selector, mapping.agreement_rule, mapping.agreement_refusal,
    billing.override, billing.setting, billing.charge_type, billing.charge_type_version, billing.bound_allowance
    to billing_web;
    grant insert, update, delete on billing.bulk_change, billing.bulk_change_line to billing_web;
    grant insert on delivery.pause to billing_web;
    grant update (ended_by, ended_at) on delivery.pause to billing_web;

    -- what the SQL decides again after that (a run of kind review)
    grant insert, update, delete on billing.line_decision, billing.held_reason to billing_web;
    grant insert, update on audit.run to billing_web;
    grant insert on audit.log_entry to billing_web;

    -- approving, rejecting, leaving out: never what an item delivers
    grant update (state, approved_by, approved_at, rejected_by, rejected_at, rejected_because) on delivery.plan to billing_web;
    grant update (state, is_left_out) on delivery.plan_item, delivery.plan_agreement to billing_web;

    -- settling what needs a person: only as these functions do it
    grant execute on function
    delivery.retry_addition(text, boolean, bigint), delivery.confirm_addition(text, bigint),
    delivery.forget_new_agreement(integer)
    to billing_web;
end
$$;
