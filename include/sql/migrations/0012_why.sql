-- Guarantees: why a line or an Addition is as it is can be told later (sql/reporting/why.sql): what the source said
-- before, and what held a line until when, stay in audit.change, and what the story needs is found by an index.
-- Runs once, in one transaction, by `python -m billing_sync migrate`.

-- AppXite changes a line before it is delivered, or takes it away; an invoice goes on from Verified to Paid. Only what
-- changes is recorded: as first loaded, it stands in the row itself.
create trigger history after update or delete on billing.invoice_line
    for each row execute function audit.record_change('line_id');
create trigger history after update or delete on billing.invoice
    for each row execute function audit.record_change('invoice_id');

create function audit.record_release() returns trigger language plpgsql as $$
begin
    insert into audit.change (table_name, row_key, changed_by, before)
    select tg_table_schema || '.' || tg_table_name, released.line_id::text, audit.current_person(), to_jsonb(released)
    from released;
    return null;
end
$$;
comment on function audit.record_release() is 'Trigger: what held a line, and until when, as one statement for many lines.';
create trigger history after delete on billing.held_reason
    referencing old table as released
    for each statement execute function audit.record_release();

comment on table audit.change is 'Every change of a setting, rule, mapping or override; of an invoice or a line that AppXite changed; and held reasons that ended: who, when, before, after. Filled by triggers.';

create index on billing.invoice (invoice_number);
create index on delivery.addition (connectwise_addition_id);
create index on delivery.plan_item (delivery_key);
create index on audit.log_entry ((subject ->> 'line_key')) where subject ->> 'line_key' is not null;
create index on audit.log_entry ((subject ->> 'invoice_id')) where subject ->> 'invoice_id' is not null;
create index on audit.log_entry ((subject ->> 'delivery_key')) where subject ->> 'delivery_key' is not null;
