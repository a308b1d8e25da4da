-- Guarantees: edits on the pages are decided at once by runs of kind review; bulk changes freeze their selection; cures
-- name the page where a cause is cured; the review grid finds its lines by an index.
-- Runs once, in one transaction, by `python -m billing_sync migrate`.

-- Runs of the pages ---------------------------------------------------------------------------------------------------

alter table audit.run drop constraint run_kind_check;
alter table audit.run add constraint run_kind_check
    check (kind in ('nightly', 'manual', 'backfill', 'reference', 'review'));
comment on column audit.run.kind is 'nightly decides over every open line; manual and backfill only over the billing_periods (and organization_ids) named; reference over none; review is no run of the pipeline, but decides open lines again after a change on the pages, without loading, planning or proving anything.';
comment on column audit.run.billing_periods is 'Periods whose invoices are extracted. Of kind review: whose lines are decided; empty: all.';

-- Two branches, so that a few organizations are found by an index.
create or replace view billing.line_in_scope as
select line.line_id, line.invoice_id
from audit.run as run
join billing.invoice as invoice on invoice.organization_id = any(run.organization_ids)
join billing.invoice_line as line on line.invoice_id = invoice.invoice_id
where
    run.run_id = audit.current_run_id()
    and cardinality(run.organization_ids) > 0
    and (
        run.kind = 'nightly'
        or (run.kind = 'review' and cardinality(run.billing_periods) = 0)
        or invoice.billing_period = any(run.billing_periods)
    )
    and not exists (select from delivery.addition_line as carried where carried.line_id = line.line_id)
union all
select line.line_id, line.invoice_id
from audit.run as run
join billing.invoice as invoice on
    run.kind = 'nightly'
    or (run.kind = 'review' and cardinality(run.billing_periods) = 0)
    or invoice.billing_period = any(run.billing_periods)
join billing.invoice_line as line on line.invoice_id = invoice.invoice_id
where
    run.run_id = audit.current_run_id()
    and cardinality(run.organization_ids) = 0
    and not exists (select from delivery.addition_line as carried where carried.line_id = line.line_id);

-- Cures in the words of the pages --------------------------------------------------------------------------------------

update billing.held_reason_code as known set cure = told.cure
from (values
    ('invoice_withdrawn', 'Look at the invoice in AppXite. Listed as Verified again, its lines are free by themselves; else exclude them.'),
    ('changed_after_delivery', 'The amount is the difference. Bill it by hand in ConnectWise and exclude it here, or correct the invoice in AppXite; or set changes_after_delivery to next_open_cycle (Settings, Configuration). Then see the detail for what stands against it.'),
    ('organization_unmapped', 'Approve a company for the organization (Mapping, Organizations), or exclude it.'),
    ('company_unclaimed', 'Say which company its contract, offer or subscription belongs to (Mapping, Organizations, more companies).'),
    ('company_ambiguous', 'See the detail. Change the selectors so that one company is left (Mapping, Organizations, more companies).'),
    ('company_not_usable', 'Choose another company for the organization (Mapping, Organizations), or restore it in ConnectWise.'),
    ('offer_missing', 'Choose a product for the line, or a default product for its charge type (Settings, Configuration).'),
    ('offer_unmapped', 'Approve a product for the offer (Mapping, Products), or exclude it.'),
    ('product_not_usable', 'Choose another product for the offer (Mapping, Products), or make it active in ConnectWise.'),
    ('no_agreement', 'Choose an agreement for the lines, map their contract (Mapping, Contracts), or create an agreement in ConnectWise.'),
    ('ambiguous_agreement', 'Choose one of the candidates for the lines, or for their contract (Mapping, Contracts). An agreement rule can tell them apart once and for all (docs/mappings-and-rules.md).'),
    ('agreement_to_create', 'Right: approve the plan that creates it (Plan); the lines follow with the next run. Wrong: leave it out there, or refuse it for good: python -m billing_sync agreements refuse COMPANY --reason WHY.'),
    ('agreement_not_usable', 'Choose another agreement for the lines, or correct it in ConnectWise.'),
    ('agreement_currency_differs', 'Choose an agreement in the lines'' currency.'),
    ('agreement_prorates', 'Choose another agreement for the lines, or switch proration off in ConnectWise.'),
    ('billing_cycle_unsupported', 'Choose an agreement that is billed monthly, every two months, quarterly, half-yearly or yearly.'),
    ('before_bill_start', 'Choose another agreement or a later date for the lines, or correct the agreement''s billing start in ConnectWise.'),
    ('unknown_charge_type', 'Say what it means: add it to the charge types (Settings, Configuration).'),
    ('price_not_representable', 'Type quantity and unit price for the line, or allow more decimals if your ConnectWise keeps them (Settings, Configuration).'),
    ('late_line', 'Choose a date in an open cycle for the line, or set late_lines to next_open_cycle (Settings, Configuration).'),
    ('customer_paused', 'See the detail for who paused it and why. When that is mended, end the pause (Dashboard).'),
    ('negative_amount', 'Set negative_additions to send (Settings, Configuration), or bill it by hand in ConnectWise and exclude it here.'),
    ('refused_by_connectwise', 'See the detail. It is tried again when anything about the line changes. As it is, after: python -m billing_sync additions retry KEY.'),
    ('changed_in_connectwise', 'Nothing is overwritten. Bill the line by hand and exclude it here; or put the Addition back in ConnectWise, then: python -m billing_sync additions retry KEY. If our values shall stand: additions retry KEY --anew.'),
    ('too_many_additions', 'Look at the agreement''s lines. If they are right, let them pass (Dashboard, parked). Or set bound_additions_per_agreement (Settings, Configuration).'),
    ('too_many_agreements', 'Look at them (Plan). If they are right, let them pass (Dashboard, parked). Or set bound_new_agreements (Settings, Configuration).'),
    ('amount_above_bound', 'Compare it in AppXite. If it is right, let it pass (Dashboard, parked). Or set bound_amount_per_line (Settings, Configuration).'),
    ('customer_total_unusual', 'Compare the customer''s invoices in AppXite. If they are right, let them pass (Dashboard, parked). Or exclude what is wrong; the rest is free then.'),
    ('credit_exceeds_charge', 'Compare the charges of the period. If the credit is right, let it pass (Dashboard, parked). Else exclude it, or set credits to send (Settings, Configuration).')
) as told (reason_code, cure)
where known.reason_code = told.reason_code;

-- Lines that cannot be edited any more ---------------------------------------------------------------------------------

create view delivery.locked_line as
select
    carried.line_id,
    case
        when ledger.state = 'delivered' then format('delivered: Addition %s on agreement %s bills it',
            ledger.connectwise_addition_id, ledger.agreement_id)
        when ledger.state = 'conflict' then format('Addition %s on agreement %s carries it and is in conflict: settle that first',
            coalesce(ledger.connectwise_addition_id::text, '(not known yet)'), ledger.agreement_id)
        else format('plan %s is delivering it right now', carried.plan_id)
    end as why
from delivery.addition_line as carried
join delivery.addition as ledger using (delivery_key)
union all
select planned.line_id, format('plan %s, approved by %s, is about to deliver it', plan.plan_id, plan.approved_by)
from delivery.plan as plan
join delivery.plan_item as item using (plan_id)
join delivery.plan_item_line as planned using (plan_item_id)
where
    plan.state = 'approved' and item.state = 'pending'
    -- Later, the plan is not written any more.
    and plan.approved_at + billing.text_setting('delivery_deadline_hours')::integer * interval '1 hour' > now();
comment on view delivery.locked_line is 'Lines whose values nobody can change any more: delivered, being delivered, or about to be by an approved plan. A line may stand here twice.';

-- The end of a held reason is recorded on behalf of whoever decides, who needs no right on the audit trail.
alter function audit.record_release() security definer set search_path = pg_catalog, pg_temp;

-- Bulk changes ---------------------------------------------------------------------------------------------------------

create table billing.bulk_change (
    bulk_id bigint generated always as identity primary key,
    action text not null check (action in ('set', 'reset', 'exclude', 'include', 'apply_rules')),
    new_values jsonb not null,
    requested_by text not null default audit.current_person(),
    requested_at timestamptz not null default now(),
    expires_at timestamptz not null default now() + interval '1 hour',
    applied_at timestamptz,
    run_id bigint references audit.run,
    released jsonb
);
comment on table billing.bulk_change is 'A change of many lines on the pages: previewed, and applied at most once. What it changed stands in audit.change.';
comment on column billing.bulk_change.new_values is 'The fields that change; a date may be the name of a date rule. Empty but for the action set.';
comment on column billing.bulk_change.run_id is 'The run that decided its lines again.';
comment on column billing.bulk_change.released is 'What that run released and holds, in money, when it was decided with the change.';

create table billing.bulk_change_line (
    bulk_id bigint not null references billing.bulk_change on delete cascade,
    line_id bigint not null references billing.invoice_line on delete cascade,
    version integer not null,
    effective_date date,
    cancelled_date date,
    status text not null check (status in ('to change', 'changed', 'unchanged', 'conflict', 'refused')),
    detail text,
    primary key (bulk_id, line_id)
);
create index on billing.bulk_change_line (line_id);
comment on table billing.bulk_change_line is 'The lines that a bulk change chose when it was previewed, and what became of each.';
comment on column billing.bulk_change_line.version is 'Of the typed values as they were previewed; 0: none.';
comment on column billing.bulk_change_line.effective_date is 'What a date rule gave for this line.';

-- Versions of typed values, quick for many lines at once ---------------------------------------------------------------

create or replace function billing.count_override_version() returns trigger language plpgsql set enable_seqscan = off as $$
begin
    if tg_op = 'UPDATE' then
        new.version := old.version;
        if to_jsonb(new) - '{version,decided_by,decided_at}'::text[] = to_jsonb(old) - '{version,decided_by,decided_at}'::text[] then
            return new;
        end if;
        if new.decided_by = old.decided_by then
            new.decided_by := audit.current_person();
        end if;
        new.decided_at := now();
        -- No other version is newer than that of the row itself.
        new.version := old.version + 1;
        return new;
    end if;
    -- An override that was deleted and made again goes on counting: a version never means two things. Planned when the
    -- audit trail is short, the look at it would else read all of it for each of 50,000 lines.
    select coalesce(max((coalesce(change.after, change.before) ->> 'version')::integer), 0) + 1 into new.version
    from audit.change
    where change.table_name = 'billing.override' and change.row_key = new.line_id::text;
    return new;
end
$$;
