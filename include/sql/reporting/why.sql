-- Guarantees: for each line and each Addition one call tells its whole story, as jsonb: source, what decided, decision,
-- plan, attempts, ConnectWise's answer and proof, corrections. What decided is told as it was valid THEN (audit.change),
-- beside what it is now. Read only; typed and printed by billing_sync/why.py. Made anew by every migrate.

create function reporting.with_names(value jsonb) returns jsonb language sql stable as $$
    select value || jsonb_strip_nulls(jsonb_build_object(
        'company', (select company.name from mapping.company as company where company.company_id = (value ->> 'company_id')::integer),
        'product', (select product.identifier from mapping.product as product where product.product_id = (value ->> 'product_id')::integer),
        'agreement', (select agreement.name from mapping.agreement as agreement where agreement.agreement_id = (value ->> 'agreement_id')::integer),
        'default_product', (select product.identifier from mapping.product as product where product.product_id = (value ->> 'default_product_id')::integer)
    ))
$$;
comment on function reporting.with_names(jsonb) is 'An entry with the names that the ids in it have today.';

create function reporting.entry_as_of(
    role text, table_name text, row_key text, part jsonb, as_of timestamptz, decided jsonb
) returns jsonb language sql stable as $$
    with entry as (
        select change_id, changed_by, changed_at, before, after from audit.change
        where
            change.table_name = entry_as_of.table_name
            and change.row_key = entry_as_of.row_key
            and (part is null or coalesce(change.after, change.before) @> part)
    ),
    -- Of what was there by then: the newest that gives what was decided (a change made while the run was under way may
    -- have come too late for it), else the newest.
    was as (
        select * from entry
        where changed_at <= as_of
        order by (after is not null and after @> decided) desc nulls last, change_id desc
        limit 1
    ),
    latest as (
        select * from entry order by change_id desc limit 1
    ),
    -- Older than its history: what the first change replaced was valid then.
    known as (
        select was.after as value, was.changed_by, was.changed_at, was.before is null as is_first from was
        union all
        select first.before, null, null, true
        from (select before from entry order by change_id limit 1) as first
        where not exists (select from was)
    ),
    next as (
        select entry.changed_by, entry.changed_at from entry
        where entry.change_id > coalesce((select was.change_id from was), 0)
        order by entry.change_id limit 1
    )
    select jsonb_build_object(
        'role', role,
        'table_name', table_name,
        'row_key', row_key,
        'part', part,
        'version', (known.value ->> 'version')::integer,
        'person', coalesce(
            known.value ->> 'decided_by', known.value ->> 'allowed_by', known.value ->> 'refused_by', known.changed_by
        ),
        'at', coalesce(known.changed_at, (known.value ->> 'decided_at')::timestamptz),
        'is_first', known.is_first,
        'value', reporting.with_names(known.value),
        'value_now', reporting.with_names(latest.after),
        'is_same_now', known.value is not distinct from latest.after,
        'changed_by', case when known.value is distinct from latest.after then next.changed_by end,
        'changed_at', case when known.value is distinct from latest.after then next.changed_at end
    )
    from known
    cross join latest
    left join next on true
    where known.value is not null
$$;
comment on function reporting.entry_as_of(text, text, text, jsonb, timestamptz, jsonb) is
'A setting, rule, mapping or typed value as it was valid at a moment, with version, person and time, and what it is now. part: what tells rows of one key apart. decided: what a decision took from it. Null: there was none.';

create function reporting.why_delivery(asked_key text) returns jsonb
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select jsonb_build_object(
        'delivery_key', asked_key,
        'addition', (
            select to_jsonb(ledger) || jsonb_build_object(
                'agreement_name', agreement.name,
                'company_name', company.name,
                'proven_run_id', proof.run_id,
                'proven_at', proof.proven_at
            )
            from delivery.addition as ledger
            left join mapping.agreement as agreement on agreement.agreement_id = ledger.agreement_id
            left join mapping.company as company on company.company_id = ledger.company_id
            left join lateral (
                select invoice_proof.run_id, invoice_proof.proven_at from delivery.addition_line as carried
                join billing.invoice_line as line using (line_id)
                join audit.invoice_proof as invoice_proof
                    on invoice_proof.run_id = carried.proven_run_id and invoice_proof.invoice_id = line.invoice_id
                where carried.delivery_key = asked_key
                order by invoice_proof.run_id desc limit 1
            ) as proof on true
            where ledger.delivery_key = asked_key
        ),
        'lines', (
            select coalesce(jsonb_agg(jsonb_build_object(
                'line_id', line.line_id,
                'revision', line.revision,
                'invoice_number', invoice.invoice_number,
                'billing_period', invoice.billing_period,
                'charge_type', line.charge_type,
                'total_price', line.total_price,
                'currency', line.currency,
                'plan_id', carried.plan_id,
                'cycle_start', carried.cycle_start,
                'cycle_end', carried.cycle_end,
                'amount', carried.amount,
                'proven_run_id', carried.proven_run_id,
                'proven_at', proof.proven_at
            ) order by carried.cycle_start, line.line_id), '[]')
            from delivery.addition_line as carried
            join billing.invoice_line as line using (line_id)
            join billing.invoice as invoice using (invoice_id)
            left join audit.invoice_proof as proof
                on proof.run_id = carried.proven_run_id and proof.invoice_id = line.invoice_id
            where carried.delivery_key = asked_key
        ),
        'plans', (
            select coalesce(jsonb_agg(jsonb_build_object(
                'plan_id', plan.plan_id,
                'run_id', plan.run_id,
                'run_kind', run.kind,
                'plan_state', plan.state,
                'is_dry_run', plan.is_dry_run,
                'created_at', plan.created_at,
                'approved_by', plan.approved_by,
                'approved_at', plan.approved_at,
                'rejected_by', plan.rejected_by,
                'rejected_at', plan.rejected_at,
                'rejected_because', plan.rejected_because,
                'parked_because', (
                    select string_agg(bound.detail, '; ' order by bound.bound_key) from delivery.plan_bound as bound
                    where bound.plan_id = plan.plan_id
                ),
                'plan_item_id', item.plan_item_id,
                'action', item.action,
                'item_state', item.state,
                'is_left_out', item.is_left_out,
                'amount', item.amount,
                'payload', item.payload,
                'payload_before', item.payload_before,
                'payload_hash', item.payload_hash,
                'next_invoice_date', item.next_invoice_date,
                'line_ids', (
                    select coalesce(jsonb_agg(planned.line_id order by planned.line_id), '[]')
                    from delivery.plan_item_line as planned
                    where planned.plan_item_id = item.plan_item_id
                )
            ) order by plan.plan_id), '[]')
            from delivery.plan_item as item
            join delivery.plan as plan using (plan_id)
            join audit.run as run using (run_id)
            where item.delivery_key = asked_key
        ),
        'attempts', (
            select coalesce(jsonb_agg(to_jsonb(attempt) order by attempt.attempt_id), '[]')
            from delivery.attempt as attempt
            where attempt.delivery_key = asked_key
        ),
        'orphans', (
            select coalesce(jsonb_agg(to_jsonb(orphan) order by orphan.found_at), '[]')
            from delivery.orphan as orphan
            where orphan.delivery_key = asked_key
        ),
        'log', (
            select coalesce(jsonb_agg(to_jsonb(entry) order by entry.log_entry_id), '[]')
            from audit.log_entry as entry
            where entry.subject ->> 'delivery_key' = asked_key
        )
    )
$$;
comment on function reporting.why_delivery(text) is
'Plans, attempts, ConnectWise''s answer and proof of the Addition of a delivery key, whether it was delivered or only planned.';

create function reporting.why_line(asked_line bigint) returns jsonb
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    with told as (
        select
            line.*,
            to_jsonb(line) as line_values,
            to_jsonb(invoice) as invoice_values,
            to_jsonb(decision) as decision_values,
            invoice.organization_id,
            invoice.invoice_number,
            invoice.billing_period,
            coalesce(line.contract_id, invoice.contract_id) as asked_contract,
            decision.company_id,
            decision.product_id,
            decision.agreement_id,
            decision.agreement_source,
            decision.agreement_rule,
            decision.unit_cost,
            decision.agreement_rule_version,
            decision.rules,
            decision.is_recurring,
            decision.is_late,
            decision.unit_price as sent_unit_price,
            decision.run_id as decision_run_id,
            decision.decided_at,
            carried.delivery_key as carried_key,
            carried.plan_id as carried_plan_id,
            coalesce(carried.delivery_key, decision.delivery_key, (
                select item.delivery_key from delivery.plan_item_line as planned
                join delivery.plan_item as item using (plan_item_id)
                where planned.line_id = line.line_id
                order by item.plan_item_id desc limit 1
            )) as asked_key,
            plan.approved_by,
            -- A delivered line was decided at the latest when its plan was made; an open one is decided until now.
            coalesce(plan.created_at, decision.decided_at, now()) as as_of
        from billing.invoice_line as line
        join billing.invoice as invoice using (invoice_id)
        left join billing.line_decision as decision on decision.line_id = line.line_id
        left join delivery.addition_line as carried on carried.line_id = line.line_id
        left join delivery.plan as plan on plan.plan_id = carried.plan_id
        where line.line_id = asked_line
    ),
    -- What held the line: the reasons that last, and those that ended.
    held as (
        select reason.reason_code, reason.detail, reason.held_since, null::timestamptz as held_until, reason.bound_key
        from billing.held_reason as reason
        where reason.line_id = asked_line
        union all
        select
            change.before ->> 'reason_code', change.before ->> 'detail',
            (change.before ->> 'held_since')::timestamptz, change.changed_at, change.before ->> 'bound_key'
        from audit.change
        where change.table_name = 'billing.held_reason' and change.row_key = asked_line::text and change.before is not null
    ),
    -- Every entry that took part, by role; who adds a kind of mapping or rule adds it here. The last column: what the
    -- decision took from it.
    entry as (
        select entry.* from told cross join lateral (values
            (1, 'organization', 'mapping.organization_mapping', told.organization_id, null,
                case when told.company_id is not null
                    then jsonb_build_object('state', 'approved', 'company_id', told.company_id) end),
            (2, 'selector', 'mapping.company_selector', told.organization_id,
                jsonb_build_object('kind', 'contract', 'source_id', told.asked_contract),
                jsonb_build_object('company_id', told.company_id)),
            (2, 'selector', 'mapping.company_selector', told.organization_id,
                jsonb_build_object('kind', 'offer', 'source_id', told.offer_id),
                jsonb_build_object('company_id', told.company_id)),
            (2, 'selector', 'mapping.company_selector', told.organization_id,
                jsonb_build_object('kind', 'subscription', 'source_id', told.subscription_id),
                jsonb_build_object('company_id', told.company_id)),
            (3, 'offer', 'mapping.offer_mapping', told.offer_id, null,
                case when told.product_id is not null
                    then jsonb_build_object('state', 'approved', 'product_id', told.product_id) end),
            (3, 'offer variant', 'mapping.offer_variant_mapping', told.offer_id,
                jsonb_build_object('billing_frequency', told.billing_frequency),
                case when told.product_id is not null
                    then jsonb_build_object('state', 'approved', 'product_id', told.product_id) end),
            (4, 'contract', 'mapping.contract_mapping', told.asked_contract, null,
                case when told.agreement_source = 'contract'
                    then jsonb_build_object('state', 'approved', 'agreement_id', told.agreement_id) end),
            (4, 'agreement rule', 'mapping.agreement_rule', told.agreement_rule, null,
                jsonb_build_object('version', told.agreement_rule_version)),
            (4, 'agreement refusal', 'mapping.agreement_refusal',
                case when told.agreement_id is null then told.company_id::text end, null, null),
            (5, 'rule', 'billing.charge_type', told.charge_type, null,
                jsonb_build_object('version', told.rules -> 'charge_type_version')),
            (6, 'override', 'billing.override', told.line_id::text, null,
                jsonb_build_object('version', told.rules -> 'override_version'))
        ) as entry (position, role, table_name, row_key, part, decided)
        union all
        select 7, 'allowance', 'billing.bound_allowance', held.bound_key, null, null
        from held where held.bound_key is not null group by held.bound_key
        union all
        select 7, 'adoption', 'delivery.adoption', adoption.adoption_id::text, null, null
        from told
        join delivery.adoption as adoption
            on adoption.agreement_id = told.agreement_id and adoption.subscription_id = told.subscription_id
        union all
        select 8, 'setting', 'billing.setting', setting.setting_key, null, null
        from told cross join lateral (values
            ('accepted_statuses', true),
            ('default_agreement_type', told.agreement_source is null or told.agreement_source = 'default_type'),
            ('create_agreements', told.company_id is not null and told.agreement_id is null),
            ('recurring_mode', told.is_recurring),
            ('unit_price_decimals', told.sent_unit_price is distinct from told.unit_price),
            ('price_fallback', told.sent_unit_price is distinct from told.unit_price),
            ('late_lines', told.is_late),
            ('negative_additions', told.total_price < 0),
            ('credits', told.total_price < 0),
            ('taxable', true),
            ('unit_cost', told.unit_cost is not null),
            ('description_template', true),
            ('zero_amounts', told.total_price = 0),
            ('automated_daily_sync', told.approved_by = 'Automated Daily Sync'),
            ('bound_amount_per_line', exists (select from held where held.reason_code = 'amount_above_bound')),
            ('bound_customer_factor', exists (select from held where held.reason_code = 'customer_total_unusual')),
            ('bound_customer_minimum', exists (select from held where held.reason_code = 'customer_total_unusual')),
            ('bound_new_agreements', exists (select from held where held.reason_code = 'too_many_agreements')),
            ('bound_additions_per_agreement', exists (select from held where held.reason_code = 'too_many_additions'))
        ) as setting (setting_key, matters)
        where setting.matters
    )
    select jsonb_build_object(
        'line', told.line_values,
        'invoice', told.invoice_values || jsonb_build_object(
            'organization_name', organization.name, 'first_run_started_at', first_run.started_at
        ),
        'names', jsonb_build_object(
            'company', (select format('%s (%s)', company.name, company.company_id) from mapping.company as company where company.company_id = told.company_id),
            'product', (select format('%s (%s)', product.identifier, product.product_id) from mapping.product as product where product.product_id = told.product_id),
            'agreement', (select format('%s (%s)', agreement.name, agreement.agreement_id) from mapping.agreement as agreement where agreement.agreement_id = told.agreement_id)
        ),
        'as_of', told.as_of,
        'staged', (
            select jsonb_build_object(
                'extract_id', feed.extract_id, 'run_id', feed.run_id, 'read_at', feed.ended_at,
                'header_status', (
                    select header.status from staging.extract as headers
                    join staging.invoice_header as header using (extract_id)
                    where headers.run_id = feed.run_id and headers.feed = 'invoice_headers'
                        and headers.billing_period = feed.billing_period and header.invoice_id = told.invoice_id
                    order by header.position desc limit 1
                ),
                'row', to_jsonb(staged) - 'raw', 'raw', staged.raw
            )
            from staging.extract as feed
            join staging.invoice_row as staged using (extract_id)
            where
                feed.feed = 'invoice_rows'
                and feed.billing_period = told.billing_period
                and staged.invoice_id = told.invoice_id
                and case
                    when told.row_id is not null then staged.row_id = told.row_id
                    else staged.row_id is null
                        and (staged.subscription_id, staged.charge_type, staged.charge_start_date, staged.charge_end_date)
                        is not distinct from (told.subscription_id, told.charge_type, told.charge_start_date, told.charge_end_date)
                end
            order by feed.extract_id desc, (staged.total_price is not distinct from told.total_price) desc, staged.position
            limit 1
        ),
        'entries', (
            select coalesce(jsonb_agg(found.entry order by entry.position, entry.row_key), '[]')
            from entry
            cross join lateral (
                select reporting.entry_as_of(
                    entry.role, entry.table_name, entry.row_key, entry.part, told.as_of, entry.decided
                ) as entry
            ) as found
            where found.entry is not null
        ),
        'decision', told.decision_values || jsonb_build_object(
            'run_kind', decision_run.kind, 'run_started_at', decision_run.started_at
        ),
        'outcome', (select reported.outcome from reporting.invoice_line as reported where reported.line_id = asked_line),
        'held', (
            select coalesce(jsonb_agg(jsonb_build_object(
                'reason_code', held.reason_code, 'title', code.title, 'detail', held.detail, 'cure', code.cure,
                'held_since', held.held_since, 'held_until', held.held_until
            ) order by held.held_since, held.reason_code), '[]')
            from held left join billing.held_reason_code as code using (reason_code)
        ),
        -- The agreement itself may be one that a plan created.
        'new_agreement', (
            select to_jsonb(ledger) || jsonb_build_object(
                'approved_by', plan.approved_by, 'approved_at', plan.approved_at,
                'attempts', (
                    select coalesce(jsonb_agg(to_jsonb(attempt) order by attempt.attempt_id), '[]')
                    from delivery.attempt as attempt
                    where attempt.delivery_key = ledger.agreement_key
                )
            )
            from delivery.new_agreement as ledger
            join delivery.plan as plan using (plan_id)
            where
                ledger.company_id = told.company_id
                and (told.agreement_id is null or ledger.agreement_id = told.agreement_id)
            order by ledger.intended_at desc limit 1
        ),
        'delivery', case when told.asked_key is not null then reporting.why_delivery(told.asked_key) end,
        'is_carried', told.carried_key is not null,
        'carried_plan_id', told.carried_plan_id,
        'proof', (
            select to_jsonb(proof) || jsonb_build_object('invoice_number', told.invoice_number)
            from audit.invoice_proof as proof
            where proof.invoice_id = told.invoice_id
            order by proof.run_id desc limit 1
        ),
        -- What AppXite changed: before delivery in the line itself, after it as further revisions.
        'source_changes', (
            select coalesce(jsonb_agg(jsonb_build_object(
                'table_name', change.table_name, 'changed_at', change.changed_at, 'before', change.before, 'after', change.after
            ) order by change.change_id), '[]')
            from audit.change
            where (change.table_name, change.row_key) in (
                ('billing.invoice_line', asked_line::text), ('billing.invoice', told.invoice_id::text)
            )
        ),
        'revisions', (
            select coalesce(jsonb_agg(jsonb_build_object(
                'line_id', other.line_id, 'revision', other.revision, 'total_price', other.total_price,
                'currency', other.currency, 'loaded_at', other.loaded_at, 'is_removal', other.content_hash = 'removed',
                'outcome', (select reported.outcome from reporting.invoice_line as reported where reported.line_id = other.line_id)
            ) order by other.revision), '[]')
            from billing.invoice_line as other
            where other.line_key = told.line_key
        ),
        'log', (
            select coalesce(jsonb_agg(to_jsonb(entry) order by entry.log_entry_id), '[]')
            from (
                select of_line.* from audit.log_entry as of_line
                where of_line.subject ->> 'line_key' = told.line_key
                union
                select of_invoice.* from audit.log_entry as of_invoice
                where of_invoice.subject ->> 'invoice_id' = told.invoice_id::text
            ) as entry
        )
    )
    from told
    left join mapping.organization as organization on organization.organization_id = told.organization_id
    left join audit.run as first_run on first_run.run_id = told.first_run_id
    left join audit.run as decision_run on decision_run.run_id = told.decision_run_id
$$;
comment on function reporting.why_line(bigint) is
'Everything that explains a line: source, entries that decided with version, person and time as valid then, decision, plan, attempts, answer, proof, corrections. Null: there is no such line. docs/why-and-simulate.md';

create function reporting.why_addition(asked_key text) returns jsonb
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select reporting.why_delivery(asked_key)
    where exists (select from delivery.addition as ledger where ledger.delivery_key = asked_key)
        or exists (select from delivery.plan_item as item where item.delivery_key = asked_key)
$$;
comment on function reporting.why_addition(text) is
'Everything that explains an Addition, by its delivery key. Each of its lines is explained by reporting.why_line. Null: there is none.';

create function reporting.why_addition(asked_agreement integer, asked_addition integer) returns jsonb
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select reporting.why_delivery(ledger.delivery_key) from delivery.addition as ledger
    where ledger.agreement_id = asked_agreement and ledger.connectwise_addition_id = asked_addition
$$;
comment on function reporting.why_addition(integer, integer) is
'The same by agreement and Addition id, as ConnectWise shows them. Null: that Addition is not ours.';
