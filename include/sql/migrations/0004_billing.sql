-- Guarantees: accepted invoices and their lines, rules, overrides, and what was decided about each line.

create table billing.invoice (
    invoice_id bigint primary key,
    invoice_number text,
    billing_period billing.billing_period not null,
    invoice_date date not null,
    status text not null,
    organization_id text not null references mapping.organization,
    contract_id text,
    currency text not null,
    total_amount billing.amount,
    invoice_source text,
    invoice_reference text,
    adds_up boolean not null,
    problem text,
    withdrawn text,
    first_run_id bigint not null references audit.run,
    last_run_id bigint not null references audit.run
);
create index on billing.invoice (billing_period, organization_id);
comment on table billing.invoice is 'Invoices of the seller that have reached Verified. Vendor invoices and unfinished ones never come here.';
comment on column billing.invoice.total_amount is 'As in the header. Null when the header''s total could not be read.';
comment on column billing.invoice.adds_up is 'The rows'' totals equal the header''s total and every row could be read.';
comment on column billing.invoice.withdrawn is 'Why the invoice is no longer one to bill: gone from AppXite, or in another status. Null while AppXite lists it as accepted. Its open lines are held.';
comment on column billing.invoice.last_run_id is 'The last run in which anything of the invoice changed.';

create table billing.charge_type (
    charge_type text primary key,
    display_name text not null check (display_name <> ''),
    is_recurring boolean not null,
    charge_start_rule text not null default 'as_invoiced',
    charge_end_rule text not null default 'as_invoiced',
    default_product_id integer references mapping.product,
    taxable text check (taxable in ('product', 'on', 'off')),
    version integer not null default 1,
    check (charge_start_rule in (
        'as_invoiced', 'first_day_of_charge_month', 'last_day_of_charge_month', 'first_day_of_invoice_month',
        'last_day_of_invoice_month', 'first_day_of_next_month', 'last_day_of_next_month', 'invoice_date',
        'next_invoice_date'
    )),
    check (charge_end_rule in (
        'as_invoiced', 'first_day_of_charge_month', 'last_day_of_charge_month', 'first_day_of_invoice_month',
        'last_day_of_invoice_month', 'first_day_of_next_month', 'last_day_of_next_month', 'invoice_date',
        'next_invoice_date'
    ))
);
comment on table billing.charge_type is 'Charge types we know, how they are named on the customer''s invoice, and the rules for their dates. Others are held.';
comment on column billing.charge_type.default_product_id is 'For lines without an offer, as custom charges often are. Null: they are held.';
comment on column billing.charge_type.charge_start_rule is 'Gives the Addition''s effectiveDate; "charge month" is the month of the charge''s own start (or end), "next month" the one after the invoice date.';
comment on column billing.charge_type.taxable is 'Of its Additions; null: as the setting taxable says.';
create trigger history after insert or update or delete on billing.charge_type
    for each row execute function audit.record_change('charge_type');
insert into billing.charge_type (charge_type, display_name, is_recurring) values
('PurchaseFee', 'Purchase', true),
('CycleFee', 'Subscription fee', true),
('Correction', 'Correction', false),
('UsageFee', 'Usage', false),
('OneTimeFee', 'One-time fee', false),
('ItemFee', 'Item', false),
('UserCorrection', 'Custom charge', false);

create table billing.invoice_line (
    line_id bigint generated always as identity primary key,
    line_key text not null,
    revision integer not null default 1 check (revision > 0),
    invoice_id bigint not null references billing.invoice,
    row_id text,
    contract_id text,
    subscription_id text,
    subscription_name text,
    offer_id text references mapping.offer,
    offer_name text,
    charge_type text,
    charge_start_date date,
    charge_end_date date,
    billing_frequency text,
    quantity billing.decimal_number,
    unit_price billing.decimal_number,
    total_price billing.amount,
    currency text,
    problem text,
    content_hash text not null,
    first_run_id bigint not null references audit.run,
    loaded_at timestamptz not null default now(),
    unique (line_key, revision)
);
create index on billing.invoice_line (invoice_id);
create index on billing.invoice_line (subscription_id);
comment on table billing.invoice_line is 'Lines of accepted invoices. Revision 1 is the line as first seen; a change after delivery adds a revision that holds the difference.';
comment on column billing.invoice_line.line_key is 'AppXite''s row id within the invoice; without one, the invoice, subscription, charge period, charge type and an ordinal.';
comment on column billing.invoice_line.total_price is 'Money of this revision. The sum over revisions is what AppXite invoices. Null when it could not be read.';
comment on column billing.invoice_line.content_hash is 'Of the source''s values that matter for billing; tells whether AppXite changed the line.';

create table billing.override (
    line_id bigint primary key references billing.invoice_line on delete cascade,
    agreement_id integer references mapping.agreement,
    product_id integer references mapping.product,
    effective_date date,
    cancelled_date date,
    quantity billing.decimal_number,
    unit_price billing.decimal_number,
    invoice_description text,
    is_excluded boolean not null default false,
    reason text,
    version integer not null default 1,
    decided_by text not null default audit.current_person(),
    decided_at timestamptz not null default now(),
    check (not is_excluded or reason is not null)
);
comment on table billing.override is 'Values typed by a person for one line (User Updated). They win over rules; null leaves the rule''s value.';
create trigger history after insert or update or delete on billing.override
    for each row execute function audit.record_change('line_id');

create table billing.held_reason_code (
    reason_code text primary key,
    title text not null,
    cure text not null,
    is_found_later boolean not null default false
);
comment on column billing.held_reason_code.is_found_later is 'Found by grouping, plan or delivery, after billing/hold_lines.sql.';
comment on table billing.held_reason_code is 'Why a line can be held, in plain words, and what to do about it.';
insert into billing.held_reason_code (reason_code, title, cure) values
('invoice_does_not_add_up', 'The invoice''s rows do not add up to its total', 'Compare the invoice in AppXite; the next run reads it again. All its lines wait.'),
('invoice_withdrawn', 'AppXite no longer lists the invoice as one to bill', 'Look at the invoice in AppXite. Listed as Verified again, its lines are free by themselves; else exclude them.'),
('delivered_on_withdrawn_invoice', 'The charge is delivered already, by an invoice that AppXite withdrew', 'See the detail for the delivered line. If it stands for this one: exclude this one. If it is credited in ConnectWise: exclude the delivered line, with that as the reason; this one is free then.'),
('row_unreadable', 'The row holds a value that cannot be read', 'See the detail for field and value; have it corrected in AppXite.'),
('changed_after_delivery', 'AppXite changed the line after it was delivered', 'The amount is the difference. Bill it by hand in ConnectWise and exclude it here, or correct the invoice in AppXite; or set changes_after_delivery to next_open_cycle. Then see the detail for what stands against it.'),
('currency_differs_from_invoice', 'The line''s currency is not its invoice''s', 'Correct the invoice in AppXite.'),
('organization_unmapped', 'The organization has no approved company', 'Approve a mapping of the organization to a company, or exclude it.'),
('company_unclaimed', 'The organization has selectors for its companies, and none claims the line', 'Add a selector for its contract, offer or subscription: python -m billing_sync mappings import selectors FILE.'),
('company_ambiguous', 'Selectors claim the line for more than one company', 'See the detail. Change the selectors so that one company is left: python -m billing_sync mappings import selectors FILE.'),
('company_not_usable', 'The company is deleted, inactive or gone in ConnectWise', 'Map the organization to another company or restore it.'),
('offer_missing', 'The line has no offer', 'Give its charge type a default product (rules import), or choose a product for the line.'),
('offer_unmapped', 'The offer has no approved product', 'Approve a mapping of the offer to a product, or exclude it.'),
('product_not_usable', 'The product is inactive, a Bundle, or gone in ConnectWise', 'Map the offer to another product or make it active.'),
('no_agreement', 'The company has no active agreement of the default Agreement Type', 'Create one in ConnectWise, map the contract, or choose an agreement for the line.'),
('ambiguous_agreement', 'Several active agreements of the company fit', 'Map the contract to one of the candidates, choose one for the line, or make an agreement rule that tells them apart.'),
('agreement_to_create', 'The company has no agreement yet: a plan creates it', 'Look at it: python -m billing_sync agreements list. Right: approve the plan; the lines follow with the next run. Wrong: agreements refuse COMPANY --reason WHY.'),
('agreement_not_usable', 'The agreement is not active, has ended, or belongs to another company', 'Choose another agreement or correct it in ConnectWise.'),
('agreement_currency_differs', 'The agreement''s currency is not the line''s', 'Choose an agreement in the line''s currency.'),
('agreement_prorates', 'The agreement prorates, so ConnectWise would prorate the amount again', 'Switch proration off on the agreement or choose another one.'),
('billing_cycle_unsupported', 'The agreement''s billing cycle cannot be used', 'Choose an agreement billed monthly, quarterly, half-yearly or yearly.'),
('before_bill_start', 'The charge lies before the agreement''s billing start', 'Correct the agreement''s billing start or choose another agreement.'),
('unknown_charge_type', 'The charge type is not known', 'Tell us what it means: add it to the charge types.'),
('dates_missing', 'The charge period is missing or ends before it starts', 'Type the dates for the line.'),
('price_not_representable', 'No unit price with the configured decimals gives the line''s total', 'Allow more decimals if your ConnectWise keeps them, or type quantity and unit price.'),
('late_line', 'The charge lies in a cycle that ConnectWise has already invoiced', 'Choose a date in an open cycle, or set late_lines to next_open_cycle.'),
('customer_paused', 'Delivery to the customer is paused', 'See the detail for who paused it and why. When that is mended: python -m billing_sync pauses end --company ID.'),
('negative_amount', 'A credit, and negative Additions are set to be held', 'Set negative_additions to send, or bill it by hand and exclude it.'),
('addition_not_settled', 'The subscription''s Addition is in conflict or in doubt', 'Look at the Addition in ConnectWise, and at the invoices. If an invoice has the line: python -m billing_sync additions confirm KEY. Else mend the Addition, then: additions retry KEY.'),
('refused_by_connectwise', 'ConnectWise refused the Addition', 'See the detail. It is tried again when anything about it changes, or after: python -m billing_sync additions retry KEY.'),
('agreement_changed', 'The agreement changed in ConnectWise between plan and delivery', 'Nothing: the next run decides again.'),
('invoiced_meanwhile', 'ConnectWise invoiced the agreement while the Addition was being delivered', 'Look at the invoice in ConnectWise. If it has the line: python -m billing_sync additions confirm KEY. If not: additions retry KEY.'),
('line_changed', 'The line changed after its plan was approved', 'Nothing: the next run decides again.'),
('echo_differs', 'ConnectWise stored something else than was sent', 'Compare the Addition in ConnectWise (it was set to Do Not Bill, or back to what it was), then: python -m billing_sync additions retry KEY.'),
('changed_in_connectwise', 'Somebody changed or deleted the Addition in ConnectWise', 'Nothing is overwritten. Put the Addition back in ConnectWise, then: python -m billing_sync additions retry KEY. If our values shall stand: additions retry KEY --anew. Or bill the line by hand and exclude it.');

update billing.held_reason_code set is_found_later = true
where reason_code in (
    'addition_not_settled', 'refused_by_connectwise', 'agreement_changed', 'line_changed', 'invoiced_meanwhile',
    'echo_differs', 'changed_in_connectwise'
);

create table billing.line_decision (
    line_id bigint primary key references billing.invoice_line on delete cascade,
    outcome text check (outcome in ('deliver', 'held', 'excluded')),
    excluded_by text,
    company_id integer references mapping.company,
    company_candidates integer[] not null default '{}',
    product_id integer references mapping.product,
    agreement_id integer references mapping.agreement,
    agreement_source text check (agreement_source in ('override', 'contract', 'rule', 'default_type')),
    agreement_candidates integer[] not null default '{}',
    agreement_rule text,
    agreement_rule_version integer,
    is_recurring boolean,
    is_late boolean,
    can_be_persistent boolean,
    is_persistent boolean,
    cycle_start date,
    cycle_end date,
    effective_date date,
    cancelled_date date,
    quantity billing.decimal_number,
    unit_price billing.decimal_number,
    amount billing.amount,
    invoice_description text,
    rules jsonb not null default '{}',
    delivery_key text,
    run_id bigint not null references audit.run,
    decided_at timestamptz not null default now()
);
create index on billing.line_decision (delivery_key);
create index on billing.line_decision (outcome);
comment on table billing.line_decision is 'What was decided about each line that is not delivered yet; frozen once it is.';
comment on column billing.line_decision.excluded_by is 'Who or what excluded the line: a person and their reason, or the setting.';
comment on column billing.line_decision.company_candidates is 'The companies whose selectors claim the line (mapping.company_selector). Without exactly one it is held; empty for organizations without selectors.';
comment on column billing.line_decision.agreement_rule is 'The agreement rule (mapping.agreement_rule) that decided, also if it found several; null: another source, or the default Agreement Type.';
comment on column billing.line_decision.agreement_rule_version is 'Its version then; what that said stands in audit.change.';
comment on column billing.line_decision.rules is 'Which rules and versions gave the dates, and which values a person typed: System Updated / User Updated.';
comment on column billing.line_decision.amount is 'What ConnectWise will bill: round(quantity x unit_price, 2).';
comment on column billing.line_decision.delivery_key is 'The Addition that carries the line. Lines of one subscription in following cycles with equal values share one.';

create table billing.held_reason (
    line_id bigint not null references billing.invoice_line on delete cascade,
    reason_code text not null references billing.held_reason_code,
    detail text not null default '',
    held_since timestamptz not null default now(),
    primary key (line_id, reason_code)
);
create index on billing.held_reason (reason_code);
comment on table billing.held_reason is 'All reasons why a line is held, at once. A reason that no longer applies is removed by the next decision.';

create function billing.text_setting(setting_name text) returns text language sql stable as $$
    select value #>> '{}' from billing.setting where setting_key = setting_name
$$;
comment on function billing.text_setting(text) is 'A setting as text; null when not set.';

-- The one rounding rule: PostgreSQL rounds numeric half away from zero, Python uses ROUND_HALF_UP.
create function billing.line_amount(quantity numeric, unit_price numeric) returns numeric
language sql immutable as $$ select round(quantity * unit_price, 2) $$;
comment on function billing.line_amount(numeric, numeric) is 'What ConnectWise bills for a line: rounded to 2 decimals after multiplying, half away from zero.';

create function billing.unit_price_for(quantity numeric, unit_price numeric, total numeric, decimals integer)
returns numeric language plpgsql immutable as $$
declare
    candidate numeric;
begin
    if min_scale(unit_price) <= decimals and billing.line_amount(quantity, unit_price) = total then
        return unit_price;
    end if;
    if quantity = 0 then
        return case when total = 0 then round(unit_price, decimals) end;
    end if;
    for places in 2..decimals loop
        candidate := round(total / quantity, places);
        if billing.line_amount(quantity, candidate) = total then
            return candidate;
        end if;
    end loop;
    return null;
end
$$;
comment on function billing.unit_price_for(numeric, numeric, numeric, integer) is
'AppXite''s unit price when it reproduces the total; else the shortest one that does, within the decimals; else null.';

create function billing.cycle_months(billing_option text) returns integer language sql immutable as $$
    select case billing_option
        when 'Monthly' then 1 when 'BiMonthly' then 2 when 'Quarterly' then 3 when 'SemiAnnual' then 6
        when 'Yearly' then 12
    end
$$;
comment on function billing.cycle_months(text) is 'Months of a ConnectWise billing cycle; null for weekly and non-recurring ones.';

create function billing.cycle_start(on_date date, months integer, invoicing_cycle text, bill_start date)
returns date language plpgsql immutable as $$
declare
    -- Calendar cycles count from January; contract cycles from the billing start. Always from the anchor, so that
    -- month ends do not drift (31 January, 28 February, 31 March).
    anchor date := case when invoicing_cycle = 'ContractYear' then bill_start else date_trunc('year', on_date)::date end;
    steps integer;
begin
    if on_date is null or months is null or anchor is null then
        return null;
    end if;
    steps := floor(
        ((extract(year from on_date) - extract(year from anchor)) * 12
        + extract(month from on_date) - extract(month from anchor)) / months
    );
    if (anchor + make_interval(months => steps * months))::date > on_date then
        steps := steps - 1;
    end if;
    return (anchor + make_interval(months => steps * months))::date;
end
$$;
comment on function billing.cycle_start(date, integer, text, date) is 'First day of the ConnectWise cycle that holds a date.';

create function billing.cycle_end(on_date date, months integer, invoicing_cycle text, bill_start date)
returns date language sql immutable as $$
    -- The day before the start of the cycle that holds a day surely past this cycle's end.
    select billing.cycle_start(
        (billing.cycle_start(on_date, months, invoicing_cycle, bill_start) + make_interval(months => months, days => 5))::date,
        months, invoicing_cycle, bill_start
    ) - 1
$$;
comment on function billing.cycle_end(date, integer, text, date) is 'Last day (inclusive) of the ConnectWise cycle that holds a date.';

create function billing.frequency_months(billing_frequency text) returns integer language sql immutable as $$
    select (regexp_match(billing_frequency, '^\s*every\s+(\d{1,3})\s+months?\s*$', 'i'))[1]::integer
$$;
comment on function billing.frequency_months(text) is 'AppXite''s "Every 3 months" as 3; null for anything else.';

create function billing.apply_date_rule(rule text, charge_date date, invoice_date date, next_invoice_date date)
returns date language sql immutable as $$
    select case rule
        when 'as_invoiced' then charge_date
        when 'first_day_of_charge_month' then date_trunc('month', charge_date)::date
        when 'last_day_of_charge_month' then (date_trunc('month', charge_date) + interval '1 month')::date - 1
        when 'first_day_of_invoice_month' then date_trunc('month', invoice_date)::date
        when 'last_day_of_invoice_month' then (date_trunc('month', invoice_date) + interval '1 month')::date - 1
        when 'first_day_of_next_month' then (date_trunc('month', invoice_date) + interval '1 month')::date
        when 'last_day_of_next_month' then (date_trunc('month', invoice_date) + interval '2 months')::date - 1
        when 'invoice_date' then invoice_date
        when 'next_invoice_date' then next_invoice_date
    end
$$;
comment on function billing.apply_date_rule(text, date, date, date) is 'A charge-start or charge-end rule applied to the charge''s own date.';
