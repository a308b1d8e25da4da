-- Guarantees: plans, the ledger of Additions (one row per delivery key), every attempt, and the proof.

create table delivery.plan (
    plan_id bigint generated always as identity primary key,
    run_id bigint not null references audit.run,
    state text not null default 'proposed'
        check (state in ('proposed', 'approved', 'applied', 'rejected', 'superseded')),
    is_dry_run boolean not null default false,
    approved_by text,
    approved_at timestamptz,
    created_at timestamptz not null default now(),
    check (state not in ('approved', 'applied') or not is_dry_run),
    check (state not in ('approved', 'applied') or approved_by is not null)
);
comment on table delivery.plan is 'What a run wants to write to ConnectWise. Nothing is written before it is approved; a dry run''s plan never can be.';
comment on column delivery.plan.run_id is 'A run that is run again after its plan was applied makes a further one.';
comment on column delivery.plan.state is 'superseded: a later run decided again before this plan was approved.';

create unique index on delivery.plan (run_id) where state in ('proposed', 'approved');

create function delivery.shard_of(agreement_id integer) returns integer language sql immutable as $$
    select agreement_id % 8
$$;
comment on function delivery.shard_of(integer) is 'Agreements are delivered in 8 shards, side by side.';

create table delivery.plan_item (
    plan_item_id bigint generated always as identity primary key,
    plan_id bigint not null references delivery.plan,
    delivery_key text not null,
    action text not null check (action in ('create', 'update')),
    agreement_id integer not null references mapping.agreement,
    company_id integer not null references mapping.company,
    subscription_id text,
    is_persistent boolean not null,
    marker text not null,
    payload jsonb not null,
    payload_hash text not null,
    payload_before jsonb,
    next_invoice_date date,
    agreement_terms jsonb not null,
    amount billing.amount not null,
    shard integer not null,
    state text not null default 'pending' check (state in ('pending', 'done', 'refused', 'conflict', 'skipped')),
    unique (plan_id, delivery_key)
);
create index on delivery.plan_item (plan_id, shard);
comment on table delivery.plan_item is 'One Addition to create or to update. Unchanged Additions are not listed.';
comment on column delivery.plan_item.payload is 'Exactly what will stand in ConnectWise, in its field names; payload_hash seals it.';
comment on column delivery.plan_item.next_invoice_date is 'Of the agreement when the plan was made; if it moved, the item is skipped and decided again.';
comment on column delivery.plan_item.agreement_terms is 'What else of the agreement the plan rests on (currency, billing cycle, billing start, end): compared with ConnectWise right before delivery.';
comment on column delivery.plan_item.amount is 'Money of the lines that this item newly delivers.';

create table delivery.plan_item_line (
    plan_item_id bigint not null references delivery.plan_item on delete cascade,
    line_id bigint not null references billing.invoice_line on delete cascade,
    content_hash text not null,
    cycle_start date not null,
    cycle_end date not null,
    amount billing.amount not null,
    primary key (plan_item_id, line_id)
);
create index on delivery.plan_item_line (line_id);
comment on table delivery.plan_item_line is 'The lines that a plan item newly delivers. A line that AppXite removes leaves its waiting plans, too; what is left is not delivered by them.';
comment on column delivery.plan_item_line.content_hash is 'Of the line when the plan was made; a line that AppXite changed since is not delivered by it.';

create table delivery.addition (
    delivery_key text primary key,
    marker text not null unique,
    agreement_id integer not null references mapping.agreement,
    company_id integer not null references mapping.company,
    subscription_id text,
    is_persistent boolean not null,
    is_adopted boolean not null default false,
    state text not null
        check (state in ('intended', 'created', 'active', 'delivered', 'updating', 'refused', 'conflict')),
    connectwise_addition_id integer,
    payload jsonb not null,
    payload_hash text not null,
    applied_payload jsonb,
    problem text,
    plan_id bigint references delivery.plan,
    intended_at timestamptz not null default now(),
    delivered_at timestamptz,
    unique (agreement_id, connectwise_addition_id)
);
create index on delivery.addition (subscription_id, agreement_id);
create index on delivery.addition (agreement_id);
comment on table delivery.addition is 'The ledger: one row per delivery key, committed before anything is sent.';
comment on column delivery.addition.state is 'intended: nothing known to exist. created: stands inert. active: set to bill, not read back. delivered: read back and equal. updating: a change is under way. refused: ConnectWise said no. conflict: ConnectWise holds something else.';
comment on column delivery.addition.is_adopted is 'Made by hand, and taken over (delivery.adoption).';
comment on column delivery.addition.plan_id is 'The plan that wrote it last. Null: taken over, and not changed by a plan yet.';
comment on column delivery.addition.applied_payload is 'What was last read back as equal: a person''s change in ConnectWise is seen against it.';

create table delivery.addition_line (
    line_id bigint primary key references billing.invoice_line,
    delivery_key text not null references delivery.addition,
    plan_id bigint not null references delivery.plan,
    cycle_start date not null,
    cycle_end date not null,
    amount billing.amount not null,
    proven_run_id bigint references audit.run,
    unique (delivery_key, cycle_start)
);
create index on delivery.addition_line (line_id) where proven_run_id is null;
comment on table delivery.addition_line is 'Which Addition carries a line, and in which ConnectWise cycle. A line stands here once or not at all.';
comment on column delivery.addition_line.amount is 'What ConnectWise bills for the line in that cycle.';
comment on column delivery.addition_line.proven_run_id is 'The run whose proof read it back from ConnectWise; taken back by a later proof that finds it changed before its cycle is invoiced. Counts from then on.';

create table delivery.attempt (
    attempt_id bigint generated always as identity primary key,
    delivery_key text not null,
    plan_id bigint,
    operation text not null check (operation in
        ('create', 'activate', 'update', 'neutralise', 'deactivate', 'create_agreement')),
    outcome text not null check (outcome in ('invoke', 'ok', 'fail', 'unknown')),
    connectwise_addition_id integer,
    detail text not null default '',
    worker text not null,
    claim_token bigint,
    invoke_id bigint references delivery.attempt,
    attempted_at timestamptz not null default clock_timestamp()
);
create index on delivery.attempt (delivery_key);
create index on delivery.attempt (plan_id);
create index on delivery.attempt (invoke_id);
create index on delivery.attempt (attempted_at) where outcome = 'invoke';
comment on table delivery.attempt is 'Append-only: invoke before each write is sent, then ok, fail (certainly not applied) or unknown.';
comment on column delivery.attempt.delivery_key is 'Of the Addition; of an agreement that is created: its agreement key.';
comment on column delivery.attempt.invoke_id is 'Of an ok, fail or unknown: the invoke that it answers.';
comment on column delivery.attempt.claim_token is 'The claim under which it was sent: two workers of one agreement have different ones.';
create trigger append_only before update or delete on delivery.attempt
    for each row execute function audit.refuse_change();
create trigger never_emptied before truncate on delivery.attempt
    for each statement execute function audit.refuse_change();

create table delivery.claim (
    agreement_id integer primary key references mapping.agreement,
    token bigint not null,
    worker text not null,
    renewed_at timestamptz not null
);
comment on table delivery.claim is 'Who delivers an agreement now. A worker whose token is no longer the current one (it was frozen, and another took over) writes nothing any more.';
comment on column delivery.claim.token is 'Fencing token: grows with each taking.';
comment on column delivery.claim.renewed_at is 'Set before each write. A claim that is not renewed for the length of a lease can be taken over, even if its worker still lives.';

create table delivery.pause (
    pause_id bigint generated always as identity primary key,
    company_id integer references mapping.company,
    reason text not null check (reason <> ''),
    paused_by text not null,
    paused_at timestamptz not null default now(),
    proof_run_id bigint references audit.run,
    ended_by text,
    ended_at timestamptz,
    check ((ended_by is null) = (ended_at is null))
);
-- A person's pause and a proof's may stand side by side: the end of one is not the end of the other.
create unique index on delivery.pause (coalesce(company_id, 0), (proof_run_id is not null)) where ended_at is null;
create trigger history after insert or update or delete on delivery.pause
    for each row execute function audit.record_change('pause_id');
comment on table delivery.pause is 'Nothing is written to ConnectWise while a pause lasts. It is looked at before each single write.';
comment on column delivery.pause.company_id is 'Null: everything is paused.';
comment on column delivery.pause.proof_run_id is 'The run whose proof found a breach and parked the customer; a later proof that finds it mended ends the pause. Null: a person, or delivery itself.';

create table delivery.orphan (
    agreement_id integer not null references mapping.agreement,
    connectwise_addition_id integer not null,
    delivery_key text not null references delivery.addition,
    found_at timestamptz not null default now(),
    neutralised_at timestamptz,
    primary key (agreement_id, connectwise_addition_id)
);
comment on table delivery.orphan is 'Additions that carry our marker without being the recorded one: a create whose answer was lost. They never bill; neutralised, they end on the day they begin.';

create table audit.invoice_proof (
    run_id bigint not null references audit.run,
    invoice_id bigint not null references billing.invoice,
    currency text not null,
    source_total billing.amount not null,
    delivered billing.amount not null,
    held billing.amount not null,
    excluded billing.amount not null,
    awaiting_approval billing.amount not null,
    in_doubt billing.amount not null,
    difference billing.amount not null,
    proven_at timestamptz not null default now(),
    primary key (run_id, invoice_id)
);
comment on table audit.invoice_proof is 'Per run and invoice: source = delivered + held + excluded + awaiting approval + in doubt, delivered as re-read from ConnectWise.';
comment on column audit.invoice_proof.held is 'Held lines, and the gap between the header''s total and its rows when an invoice does not add up.';
comment on column audit.invoice_proof.difference is 'Anything but 0.00 is a breach: the run turns red.';

create function delivery.marker_for(delivery_key text) returns text language sql stable as $$
    select 'axs-' || billing.text_setting('environment') || '-'
        || left(encode(sha256(convert_to(delivery_key, 'UTF8')), 'hex'), 32)
$$;
comment on function delivery.marker_for(text) is 'The delivery key as ConnectWise stores it: at most 49 characters of letters, digits and dashes.';

create function delivery.payload_for(
    product_id integer, quantity numeric, unit_price numeric, effective_date date, cancelled_date date,
    invoice_description text, marker text, taxable_flag boolean, unit_cost numeric
) returns jsonb language sql stable as $$
    select jsonb_build_object(
        'product', jsonb_build_object('id', product_id),
        'billCustomer', 'Billable',
        'quantity', trim_scale(quantity),
        'lessIncluded', 0,
        'unitPrice', trim_scale(unit_price),
        'effectiveDate', to_char(effective_date, 'YYYY-MM-DD"T00:00:00Z"'),
        'cancelledDate', to_char(cancelled_date, 'YYYY-MM-DD"T00:00:00Z"'),
        'invoiceDescription', invoice_description || case carrier when 'description' then ' [' || marker || ']' else '' end
    ) || case carrier
        when 'serial_number' then jsonb_build_object('serialNumber', marker)
        when 'custom_field' then jsonb_build_object('customFields', jsonb_build_array(jsonb_build_object(
            'id', billing.text_setting('marker_custom_field_id')::integer, 'value', marker
        )))
        else '{}'
    end
    -- What is not known is left out: the product decides.
    || jsonb_strip_nulls(jsonb_build_object('taxableFlag', taxable_flag, 'unitCost', trim_scale(unit_cost)))
    from (select billing.text_setting('marker_carrier') as carrier) as setting
$$;
comment on function delivery.payload_for(integer, numeric, numeric, date, date, text, text, boolean, numeric) is
'The Addition as ConnectWise shall hold it, in its field names.';

create view billing.line_in_scope as
select line.line_id, line.invoice_id
from billing.invoice_line as line
join billing.invoice as invoice using (invoice_id)
join audit.run as run on run.run_id = audit.current_run_id()
where
    (run.kind = 'nightly' or invoice.billing_period = any(run.billing_periods))
    and (cardinality(run.organization_ids) = 0 or invoice.organization_id = any(run.organization_ids))
    and not exists (select from delivery.addition_line as carried where carried.line_id = line.line_id);
comment on view billing.line_in_scope is
'The lines that the current run decides about: not carried by an Addition yet, of its periods and organizations. A nightly run decides about all open lines, so that one cured cause releases every line of it.';

create view delivery.unanswered_write as
select
    invoke.*,
    invoke.attempted_at + billing.text_setting('settle_seconds')::integer * interval '1 second' as may_come_until
from delivery.attempt as invoke
where
    invoke.outcome = 'invoke'
    and not exists (
        select from delivery.attempt as answer
        where answer.invoke_id = invoke.attempt_id and answer.outcome in ('ok', 'fail')
    );
comment on view delivery.unanswered_write is
'Writes that were sent without ever getting an answer: they may have been applied, or be applied yet.';

create view billing.invoice_to_prove as
select invoice.*
from billing.invoice as invoice
join audit.run as run on run.run_id = audit.current_run_id()
where
    (cardinality(run.organization_ids) = 0 or invoice.organization_id = any(run.organization_ids))
    and (
        invoice.billing_period = any(run.billing_periods)
        or invoice.invoice_id in (
            select line.invoice_id
            from delivery.plan as plan
            join delivery.plan_item as item using (plan_id)
            join delivery.plan_item_line as item_line using (plan_item_id)
            join billing.invoice_line as line using (line_id)
            where plan.run_id = run.run_id
        )
        or invoice.invoice_id in (
            select line.invoice_id
            from delivery.unanswered_write as late
            join delivery.addition_line as carried using (delivery_key)
            join billing.invoice_line as line using (line_id)
            where late.attempted_at > now() - interval '3 days'
        )
        or invoice.invoice_id in (
            select line.invoice_id
            from delivery.addition_line as carried
            join delivery.addition as ledger using (delivery_key)
            join delivery.plan as plan on plan.plan_id = carried.plan_id
            join audit.run as other on other.run_id = plan.run_id
            join billing.invoice_line as line on line.line_id = carried.line_id
            where
                carried.proven_run_id is null
                -- What another run is delivering just now is for that run to prove.
                and (other.state <> 'running' or other.run_id = run.run_id or ledger.state in ('delivered', 'conflict'))
        )
    );
comment on view billing.invoice_to_prove is
'The invoices that the current run accounts for: of its periods and organizations, those whose lines its plan touches; and wherever something may be amiss: lines delivered and not proven, and Additions with a write that got no answer of late.';

create view delivery.persistent_cycle as
select addition.subscription_id, addition.agreement_id, carried.cycle_start
from delivery.addition as addition
join delivery.addition_line as carried using (delivery_key)
where addition.is_persistent;
comment on view delivery.persistent_cycle is
'The cycles of a subscription and agreement that a persistent Addition carries: a further line of such a cycle gets its own.';
