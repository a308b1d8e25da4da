-- Guarantees: bounds that park instead of pay have their settings, held reasons, and a place for what people let pass.
-- Runs once, in one transaction, by `python -m billing_sync migrate`.

insert into billing.setting (setting_key, value, description) values
('bound_additions_per_agreement', '300', 'More new Additions of one agreement in one run than this are held: too_many_additions. off: no bound.'),
('bound_new_agreements', '20', 'When a run would create more agreements than this, none of them is created: too_many_agreements. off: no bound.'),
('bound_amount_per_line', '50000', 'A line that bills or credits more than this, in its own currency, is held: amount_above_bound. off: no bound.'),
('bound_customer_factor', '3', 'A customer''s total of a billing period above this many times its usual is held: customer_total_unusual. Usual: the average of its three latest earlier periods. off: no bound.'),
('bound_customer_minimum', '5000', 'customer_total_unusual needs a total that lies above the usual by more than this, too, in the invoice currency.'),
('bound_fewer_invoices_percent', '50', 'A plan waits when AppXite gives less than this percentage of the invoices that were to be expected. off: no bound, not even for a night without any invoice.'),
('bound_removed_lines', '50', 'A plan waits when AppXite removed more lines than this from accepted invoices since the last approved plan. off: no bound.');

alter table billing.held_reason_code add column is_bound boolean not null default false;
comment on column billing.held_reason_code.is_bound is 'A bound: the line is parked until a person lets it pass (billing.bound_allowance) or the figure is back within the bound.';

insert into billing.held_reason_code (reason_code, title, cure, is_found_later, is_bound) values
('too_many_additions', 'The agreement would get more new Additions in one run than the bound', 'Look at its lines. If they are right: python -m billing_sync bounds list, then bounds allow KEY --up-to FIGURE. Or set bound_additions_per_agreement.', true, true),
('too_many_agreements', 'The run would create more agreements than the bound', 'Look at them: python -m billing_sync agreements list. If they are right: bounds list, then bounds allow KEY --up-to FIGURE. Or set bound_new_agreements.', true, true),
('amount_above_bound', 'The line''s amount is above the bound', 'Compare it in AppXite. If it is right: python -m billing_sync bounds list, then bounds allow KEY --up-to FIGURE. Or set bound_amount_per_line.', true, true),
('customer_total_unusual', 'The customer''s total of the billing period is far above its usual', 'Compare its invoices in AppXite. If they are right: python -m billing_sync bounds list, then bounds allow KEY --up-to FIGURE. Or exclude what is wrong; the rest is free then.', true, true);

alter table billing.held_reason add column bound_key text, add column bound_figure billing.amount;
comment on column billing.held_reason.bound_key is 'What a bound parks, as a person lets it pass: reason code and agreement, line, or organization, billing period and currency.';
comment on column billing.held_reason.bound_figure is 'The figure that is beyond the bound. Negative for credits.';
create index on billing.held_reason (bound_key) where bound_key is not null;

create table billing.bound_allowance (
    bound_key text primary key,
    up_to billing.amount not null,
    note text,
    allowed_by text not null default audit.current_person(),
    allowed_at timestamptz not null default now()
);
comment on table billing.bound_allowance is 'What a person let pass a bound, and up to which figure: what they saw. A larger one parks again.';
create trigger history after insert or update or delete on billing.bound_allowance
    for each row execute function audit.record_change('bound_key');

create function billing.is_within(figure numeric, up_to numeric) returns boolean language sql immutable as $$
    select coalesce(sign(figure) = sign(up_to) and abs(figure) <= abs(up_to), false)
$$;
comment on function billing.is_within(numeric, numeric) is 'Whether a figure is within what was allowed. A charge allows no credit.';

create function billing.bound_setting(setting_name text) returns numeric language sql stable as $$
    select nullif(billing.text_setting(setting_name)::numeric, 0)
$$;
comment on function billing.bound_setting(text) is 'A bound as a number; null when it is off (0).';

create table delivery.plan_bound (
    plan_id bigint not null references delivery.plan,
    bound_key text not null,
    reason_code text not null check (reason_code in ('no_invoices', 'few_invoices', 'invoices_missing', 'lines_removed')),
    figure billing.amount not null,
    detail text not null,
    primary key (plan_id, bound_key)
);
comment on table delivery.plan_bound is 'Why a plan is parked: it is not approved by itself. Made anew with the plan (plan/bound_plan.sql).';
comment on column delivery.plan_bound.figure is 'How many invoices or lines are missing.';
