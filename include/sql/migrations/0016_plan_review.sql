-- Guarantees: a person may reject a plan or leave parts of it out; what an outcome is, and when a plan item is stale,
-- is said once.
-- Runs once, in one transaction, by `python -m billing_sync migrate`.

alter table delivery.plan
    add column rejected_by text,
    add column rejected_at timestamptz,
    add column rejected_because text,
    add check ((state = 'rejected') = (rejected_by is not null)),
    add check ((rejected_by is null) = (rejected_at is null) and (rejected_by is null) = (rejected_because is null));
comment on column delivery.plan.rejected_because is 'Why a person rejected it. Its lines stay open: the next run makes another plan.';
create trigger history after update of state on delivery.plan
    for each row when (new.state in ('approved', 'rejected') and new.state <> old.state)
    execute function audit.record_change('plan_id');

alter table delivery.plan_item add column is_left_out boolean not null default false;
comment on column delivery.plan_item.is_left_out is 'Skipped by the person who approved the rest of the plan. Its lines stay open: the next run plans them.';
alter table delivery.plan_agreement add column is_left_out boolean not null default false;
comment on column delivery.plan_agreement.is_left_out is 'Skipped by the person who approved the rest of the plan; the next run plans it again.';

create function delivery.is_settled(ledger_state text) returns boolean language sql immutable as $$
    select ledger_state in ('delivered', 'conflict')
$$;
comment on function delivery.is_settled(text) is 'Whether what an Addition carries is delivered: read back as sent, or found different later. Else it is under way.';

-- Not a text in dollars: analysts, whose views call it, do not see schema delivery.
create function billing.line_outcome(ledger_state text, decision_outcome text) returns text language sql immutable
return case
    when delivery.is_settled(ledger_state) then 'delivered'
    when ledger_state is not null then 'in doubt'
    when decision_outcome = 'excluded' then 'excluded'
    when decision_outcome = 'deliver' then 'awaiting approval'
    else 'held'
end;
comment on function billing.line_outcome(text, text) is
'What became of a line. ledger_state: of the Addition that carries it, null when none does; decision_outcome: of its decision.';

-- Sums over 100,000 lines read these indexes alone.
drop index billing.invoice_line_invoice_id_idx;
create index on billing.invoice_line (invoice_id) include (line_id, currency, total_price);
create index on billing.line_decision (line_id) include (outcome);
create index on delivery.addition (delivery_key) where not delivery.is_settled(state);

create view billing.line_money as
select
    line.line_id,
    line.invoice_id,
    line.currency,
    line.total_price,
    -- Hardly any Addition is under way: the others need no look.
    billing.line_outcome(
        case when carried.line_id is not null then coalesce(under_way.state, 'delivered') end, decision.outcome
    ) as outcome
from billing.invoice_line as line
left join delivery.addition_line as carried using (line_id)
left join billing.line_decision as decision using (line_id)
left join (
    select begun.line_id, ledger.state
    from delivery.addition as ledger
    join delivery.addition_line as begun using (delivery_key)
    where not delivery.is_settled(ledger.state)
) as under_way using (line_id);
comment on view billing.line_money is 'The money of each line, by what became of it: for sums over many lines.';

create function delivery.plan_fingerprint(of_plan_id bigint) returns text language sql stable as $$
    select encode(sha256(convert_to(coalesce(string_agg(sealed.item, chr(10) order by sealed.item collate "C"), ''), 'UTF8')), 'hex')
    from (
        select format('%s %s %s', plan_item_id, payload_hash, amount::numeric) as item
        from delivery.plan_item where plan_id = of_plan_id
        union all
        select format('%s %s %s', agreement_key, payload_hash, amount::numeric)
        from delivery.plan_agreement where plan_id = of_plan_id
    ) as sealed
$$;
comment on function delivery.plan_fingerprint(bigint) is 'Of all that a plan does: a plan that was made anew has another one, so that a person approves what they saw.';

create view delivery.stale_item as
select item.plan_item_id, item.plan_id, now_decided.has_left
from delivery.plan_item as item
cross join lateral (
    select
        bool_or(
            (decision.outcome, decision.delivery_key) is distinct from ('deliver', item.delivery_key)
            or exists (
                select from billing.held_reason as reason
                join billing.held_reason_code as code using (reason_code)
                where reason.line_id = line.line_id and code.is_bound
            )
        ) as has_left,
        bool_or(
            (
                decision.company_id, decision.agreement_id, decision.product_id, decision.quantity::numeric,
                decision.unit_price::numeric, decision.taxable_flag, decision.unit_cost::numeric
            ) is distinct from (
                item.company_id, item.agreement_id, (item.payload -> 'product' ->> 'id')::integer,
                (item.payload ->> 'quantity')::numeric, (item.payload ->> 'unitPrice')::numeric,
                (item.payload ->> 'taxableFlag')::boolean, (item.payload ->> 'unitCost')::numeric
            )
            or item.payload ->> 'invoiceDescription' not in (
                decision.invoice_description, decision.invoice_description || ' [' || item.marker || ']'
            )
        ) as has_other_values,
        min(decision.effective_date) as effective_date,
        max(decision.cancelled_date) as cancelled_date,
        sum(line.amount) as amount
    from delivery.plan_item_line as line
    left join billing.line_decision as decision using (line_id)
    where line.plan_item_id = item.plan_item_id
) as now_decided
where
    now_decided.has_left
    or now_decided.has_other_values
    or (
        -- Where AppXite took a line away meanwhile, the dates tell nothing.
        now_decided.amount = item.amount
        and (
            now_decided.cancelled_date <> left(item.payload ->> 'cancelledDate', 10)::date
            or (item.action = 'create' and now_decided.effective_date <> left(item.payload ->> 'effectiveDate', 10)::date)
        )
    );
comment on view delivery.stale_item is
'Plan items with a line that was held, excluded, put on another Addition or given other values after the plan was made: they are not delivered.';

create index on delivery.addition (delivery_key) where is_adopted;
create view delivery.adopting_item as
select item.plan_item_id, item.plan_id
from delivery.addition as ledger
join delivery.plan_item as item using (delivery_key)
where ledger.is_adopted and item.action = 'update' and strpos(item.payload_before::text, item.marker) = 0;
comment on view delivery.adopting_item is 'Plan items that take over an Addition made by hand: it has not carried our marker before.';

-- Lists of runs and plans.
create index on delivery.plan_item (plan_id, agreement_id) include (amount);
create view delivery.plan_money as
select item.plan_id, coalesce(agreement.currency, '') as currency, count(*) as items, sum(item.amount) as amount
from delivery.plan_item as item
join mapping.agreement as agreement using (agreement_id)
group by item.plan_id, coalesce(agreement.currency, '');
comment on view delivery.plan_money is 'What each plan writes, per currency. Agreements to create are not in it.';
create index on delivery.attempt (plan_id) where outcome = 'invoke';
comment on column delivery.stale_item.has_left is 'A line of it was held, excluded or put on another Addition; else it only has other values.';

create index on delivery.attempt (connectwise_addition_id) where connectwise_addition_id is not null;
drop index audit.log_entry_run_id_idx;
create index on audit.log_entry (run_id, level);
create index on audit.log_entry ((subject ->> 'dag_run_id')) where subject ->> 'dag_run_id' is not null;
