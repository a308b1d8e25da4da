-- Guarantees: what a person may do about an Addition that needs one, or about an agreement that is not created, is said
-- once, as functions; the review pages may call them and write nothing else of the ledger.
-- Runs once, in one transaction, by `python -m billing_sync migrate`.

create index on delivery.addition (delivery_key) where state = 'conflict' or (state = 'refused' and payload_hash <> '');
create index on audit.invoice_proof (invoice_id, proven_at);

alter table delivery.addition add column settled_at timestamptz;
comment on column delivery.addition.settled_at is 'When a person last said what shall become of it. A plan that was made before does not write it.';

create function delivery.retry_addition(asked_key text, anew boolean, seen_plan_id bigint default null) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    ledger delivery.addition;
begin
    select * into ledger from delivery.addition where delivery_key = asked_key for update;
    if not found or (seen_plan_id is not null and ledger.plan_id is distinct from seen_plan_id) then
        return null;
    end if;
    if ledger.state not in ('refused', 'conflict') and not (anew and ledger.state = 'delivered' and exists (
        select from delivery.addition_line as carried
        where carried.delivery_key = asked_key and carried.proven_run_id is null
    )) then
        return null;
    end if;
    if anew then
        delete from delivery.addition_line where delivery_key = asked_key and proven_run_id is null;
        -- What was decided before counts no more: older plans leave these lines alone, and the next run decides them.
        update billing.line_decision as decision set delivery_key = null
        where
            decision.delivery_key = asked_key
            and not exists (select from delivery.addition_line as carried where carried.line_id = decision.line_id);
    end if;
    update delivery.addition set
        -- Never read back as equal: planned anew, whatever its payload; the ConnectWise id stays its own.
        state = case
            -- It billed proven lines: their key stays with it, and what is billed next joins it.
            when anew and connectwise_addition_id is not null and exists (
                select from delivery.addition_line as carried where carried.delivery_key = asked_key
            ) then 'delivered'
            when applied_payload is not null and not anew then 'delivered'
            else 'refused'
        end,
        payload_hash = '',
        payload = coalesce(applied_payload, payload),
        -- Without it, an update compares with nothing: our values stand.
        applied_payload = case when not anew then applied_payload end,
        settled_at = clock_timestamp()
    where delivery_key = asked_key;
    insert into audit.log_entry (run_id, level, code, message, subject) values (
        null, 'INFO', 'addition_retried',
        format('%s lets %s be %s', audit.current_person(), asked_key, case when anew then 'made anew' else 'tried again' end),
        jsonb_build_object('delivery_key', asked_key, 'was', ledger.state, 'problem', ledger.problem)
    );
    return ledger.state;
end
$$;
comment on function delivery.retry_addition(text, boolean, bigint) is
'Lets the next run try an Addition again that was refused or is in conflict; anew: our values shall stand, also for one that the proof does not find as delivered. Returns the state it was in; null: there is nothing to try again, or another plan than the one that was seen wrote it last.';

create function delivery.confirm_addition(asked_key text, seen_plan_id bigint default null) returns bigint[]
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    ledger delivery.addition;
    confirmed bigint [];
begin
    select * into ledger from delivery.addition where delivery_key = asked_key for update;
    if not found or ledger.state not in ('conflict', 'delivered')
        or (seen_plan_id is not null and ledger.plan_id is distinct from seen_plan_id) then
        return null;
    end if;
    if ledger.state = 'delivered' then
        -- A person changed it before its cycle was invoiced: what the invoice has cannot be mended any more.
        with invoiced as (
            update delivery.addition_line as carried set proven_run_id = plan.run_id
            from delivery.plan as plan, mapping.agreement as agreement
            where
                carried.delivery_key = asked_key and carried.proven_run_id is null
                and plan.plan_id = carried.plan_id
                and agreement.agreement_id = ledger.agreement_id
                and carried.cycle_end < agreement.next_invoice_date
            returning carried.line_id
        )
        select array_agg(line_id order by line_id) into confirmed from invoiced;
        if confirmed is null then
            return null;
        end if;
        update delivery.addition set settled_at = clock_timestamp() where delivery_key = asked_key;
    else
        with inserted as (
            insert into delivery.addition_line
            (line_id, delivery_key, plan_id, cycle_start, cycle_end, amount, proven_run_id)
            select
                line.line_id, item.delivery_key, item.plan_id, line.cycle_start, line.cycle_end, line.amount, plan.run_id
            from delivery.plan_item as item
            join delivery.plan as plan using (plan_id)
            join delivery.plan_item_line as line using (plan_item_id)
            where
                item.plan_id = ledger.plan_id and item.delivery_key = asked_key
                and not exists (select from delivery.addition_line as carried where carried.line_id = line.line_id)
            returning line_id
        )
        select coalesce(array_agg(line_id order by line_id), '{}') into confirmed from inserted;
        update delivery.addition
        set state = 'delivered', applied_payload = payload, delivered_at = now(), problem = null,
            settled_at = clock_timestamp()
        where delivery_key = asked_key;
        delete from billing.held_reason where line_id = any(confirmed);
        update billing.line_decision set outcome = 'deliver' where line_id = any(confirmed);
    end if;
    insert into audit.log_entry (run_id, level, code, message, subject) values (
        null, 'INFO', 'addition_confirmed',
        format('%s has seen %s on ConnectWise''s invoice: %s lines are delivered',
            audit.current_person(), asked_key, cardinality(confirmed)),
        jsonb_build_object('delivery_key', asked_key, 'was', ledger.state, 'problem', ledger.problem)
    );
    return confirmed;
end
$$;
comment on function delivery.confirm_addition(text, bigint) is
'A person has seen an Addition on ConnectWise''s invoice. In conflict: the lines of the plan that wrote it last are delivered, and proven. Delivered, and changed by a person since: its lines of cycles that are invoiced count as proven. Returns the lines; null: there is nothing to confirm, or another plan than the one that was seen wrote it last.';

create function delivery.forget_new_agreement(asked_company_id integer) returns setof text
language sql security definer set search_path = pg_catalog, pg_temp as $$
    delete from delivery.new_agreement as ledger
    where company_id = asked_company_id and (state = 'refused' or (state = 'created' and exists (
        select from mapping.agreement as gone where gone.agreement_id = ledger.agreement_id and gone.is_gone
    )))
    returning state || ': ' || coalesce(problem, 'agreement ' || agreement_id || ' is gone')
$$;
comment on function delivery.forget_new_agreement(integer) is
'Lets an agreement be created again that ConnectWise refused, or that is gone. Returns what it was.';

revoke execute on function
delivery.retry_addition(text, boolean, bigint), delivery.confirm_addition(text, bigint),
delivery.forget_new_agreement(integer)
from public;

update billing.held_reason_code as known set cure = told.cure
from (
    values
    ('addition_not_settled', 'Look at the Addition in ConnectWise, and at the invoices; then settle it (Dashboard, Additions to settle).'),
    ('refused_by_connectwise', 'See the detail. It is tried again when anything about the line changes. As it is: settle it (Dashboard, Additions to settle).'),
    ('invoiced_meanwhile', 'Look whether ConnectWise''s invoice has the line, and say so (Dashboard, Additions to settle).'),
    ('echo_differs', 'Compare the Addition in ConnectWise: it was set to Do Not Bill, or back to what it was. Then settle it (Dashboard, Additions to settle).'),
    ('changed_in_connectwise', 'Nothing is overwritten. Put the Addition back in ConnectWise, or let our values stand (Dashboard, Additions to settle). Or bill the line by hand and exclude it here.'),
    ('no_agreement', 'Choose an agreement for the lines, map their contract (Mapping, Contracts), or create an agreement in ConnectWise. What a person or ConnectWise refused is taken back where the line says why.'),
    ('agreement_to_create', 'Right: approve the plan that creates it; the lines follow with the next run. Wrong: leave it out there, or refuse it for good (Plan).'),
    ('too_many_additions', 'Look at the agreement''s lines. If they are right, let them pass (Dashboard, Parked by bounds). Or set bound_additions_per_agreement (Settings, Configuration).'),
    ('too_many_agreements', 'Look at them (Plan). If they are right, let them pass (Dashboard, Parked by bounds). Or set bound_new_agreements (Settings, Configuration).'),
    ('amount_above_bound', 'Compare it in AppXite. If it is right, let it pass (Dashboard, Parked by bounds). Or set bound_amount_per_line (Settings, Configuration).'),
    ('customer_total_unusual', 'Compare the customer''s invoices in AppXite. If they are right, let them pass (Dashboard, Parked by bounds). Or exclude what is wrong; the rest is free then.'),
    ('credit_exceeds_charge', 'Compare the charges of the period. If the credit is right, let it pass (Dashboard, Parked by bounds). Else exclude it, or set credits to send (Settings, Configuration).')
) as told (reason_code, cure)
where known.reason_code = told.reason_code;
