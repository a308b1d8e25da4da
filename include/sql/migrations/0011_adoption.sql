-- Guarantees: Additions made by hand before the cut-over can be listed with evidence, and taken over by a person's word.
-- Runs once, in one transaction, by `python -m billing_sync migrate`.

insert into billing.held_reason_code (reason_code, title, cure, is_found_later) values
('adopted_addition_waits', 'The subscription''s Addition that was made by hand still bills as it was made', 'See the detail. If the Addition ends or is invoiced for the cycle before, nothing: the next run decides again. If it cannot carry the line: python -m billing_sync adoption release ID, then end it in ConnectWise.', true);

create table delivery.adoption (
    adoption_id bigint generated always as identity primary key,
    agreement_id integer not null references mapping.agreement,
    connectwise_addition_id integer not null,
    subscription_id text,
    state text not null check (state in ('approved', 'ignored', 'released')),
    covered_before date,
    observed jsonb,
    evidence text,
    covered_lines bigint,
    covered_amount billing.amount,
    delivery_key text,
    note text,
    decided_by text not null default audit.current_person(),
    decided_at timestamptz not null default now(),
    unique (agreement_id, connectwise_addition_id),
    check (
        state <> 'approved'
        or (subscription_id is not null and observed is not null and delivery_key is not null and covered_before is not null)
    )
);
create unique index on delivery.adoption (agreement_id, subscription_id) where state = 'approved';
create trigger history after insert or update or delete on delivery.adoption
    for each row execute function audit.record_change('adoption_id');
comment on table delivery.adoption is 'What a person decided about Additions made by hand: taken over for a subscription (approved), left alone (ignored), or given back before anything was changed (released).';
comment on column delivery.adoption.covered_before is 'The agreement''s next invoice date at approval: the cycles before it were billed by hand. See delivery.adopted_addition for cycles billed by hand since.';
comment on column delivery.adoption.observed is 'The Addition as it was in ConnectWise, in its field names; what our marker replaces included.';
comment on column delivery.adoption.covered_lines is 'How many undelivered lines, worth covered_amount, the person was shown as billed by hand.';

create function billing.is_billed_by_hand(
    charge_start_date date, is_recurring boolean, invoice_date date, covered_before date
) returns boolean language sql immutable as $$
    select coalesce(charge_start_date < covered_before and (is_recurring or invoice_date < covered_before), false)
$$;
comment on function billing.is_billed_by_hand(date, boolean, date, date) is
'Whether a charge of a subscription whose Addition was made by hand lies before the day from which we bill it. A usage or correction that AppXite invoices afterwards is not billed by hand.';

create view delivery.hand_made_addition as
select
    staged.agreement_id,
    staged.addition_id as connectwise_addition_id,
    agreement.name as agreement_name,
    agreement.company_id,
    agreement.next_invoice_date,
    billing.cycle_months(cycle.billing_option) as cycle_months,
    billing.cycle_end(
        agreement.next_invoice_date, billing.cycle_months(cycle.billing_option), agreement.invoicing_cycle,
        agreement.bill_start_date
    ) as current_cycle_end,
    staged.product_id,
    staged.quantity,
    staged.unit_price,
    staged.ext_price,
    staged.effective_date,
    staged.cancelled_date,
    staged.serial_number,
    staged.invoice_description,
    jsonb_build_object(
        'product', jsonb_build_object('id', staged.product_id),
        'billCustomer', staged.bill_customer,
        'quantity', trim_scale(staged.quantity),
        'lessIncluded', trim_scale(coalesce(staged.less_included, 0)),
        'unitPrice', trim_scale(staged.unit_price),
        'effectiveDate', to_char(staged.effective_date, 'YYYY-MM-DD"T00:00:00Z"'),
        'cancelledDate', to_char(staged.cancelled_date, 'YYYY-MM-DD"T00:00:00Z"'),
        'serialNumber', coalesce(staged.serial_number, ''),
        'invoiceDescription', coalesce(staged.invoice_description, '')
    ) as observed,
    -- In words, why it cannot be taken over for any subscription.
    case
        when staged.marker is not null then 'it carries our marker already'
        when coalesce(staged.bill_customer <> 'Billable', true) then 'it is set to ' || coalesce(staged.bill_customer, 'nothing')
        when staged.quantity is null or staged.unit_price is null or staged.product_id is null or staged.effective_date is null
            then 'a value of it cannot be read'
        when staged.cancelled_date < agreement.next_invoice_date then 'it ends before the next invoice date'
        when agreement.next_invoice_date is null or cycle.billing_option is null then 'its agreement has no billing cycle'
        when staged.effective_date > billing.cycle_end(
            agreement.next_invoice_date, billing.cycle_months(cycle.billing_option), agreement.invoicing_cycle,
            agreement.bill_start_date
        ) then 'it begins after the cycle to be invoiced next'
    end as refused_because
from staging.addition as staged
join mapping.agreement as agreement using (agreement_id)
left join mapping.billing_cycle as cycle using (billing_cycle_id)
where staged.extract_id = (
    select max(feed.extract_id) from staging.extract as feed where feed.feed = 'hand_made_additions'
);
comment on view delivery.hand_made_addition is
'The Additions of the newest `adoption scan`, ours included, with the reason why one cannot be taken over.';

create view delivery.billed_subscription as
select distinct on (decision.agreement_id, line.subscription_id)
    decision.agreement_id,
    line.subscription_id,
    line.subscription_name,
    decision.product_id,
    decision.quantity::numeric as quantity,
    decision.unit_price::numeric as unit_price,
    line.billing_frequency,
    coalesce(variant.recurring_mode, offer_mapping.recurring_mode, billing.text_setting('recurring_mode')) as recurring_mode
from billing.line_decision as decision
join billing.invoice_line as line using (line_id)
join billing.invoice as invoice using (invoice_id)
left join mapping.offer_mapping as offer_mapping
    on offer_mapping.offer_id = line.offer_id and offer_mapping.state = 'approved'
left join mapping.offer_variant_mapping as variant
    on variant.offer_id = line.offer_id and variant.billing_frequency = line.billing_frequency and variant.state = 'approved'
where
    decision.agreement_id is not null and line.subscription_id is not null and decision.is_recurring
    and line.revision = 1 and invoice.withdrawn is null
order by decision.agreement_id asc, line.subscription_id asc, line.charge_start_date desc nulls last, line.line_id desc;
comment on view delivery.billed_subscription is
'Each subscription of an agreement, with the values of its newest recurring line.';

create view delivery.adoption_candidate as
select
    made.agreement_id,
    made.connectwise_addition_id,
    billed.subscription_id,
    billed.subscription_name,
    evidence.same_product,
    evidence.same_product::integer + evidence.same_quantity::integer + evidence.same_price::integer
        + evidence.names_it::integer + evidence.covers_cycle::integer as score,
    concat_ws(
        ', ',
        case when evidence.same_product then 'product' else 'OTHER PRODUCT' end,
        case when evidence.same_quantity then 'quantity' else format('quantity is %s in AppXite', trim_scale(billed.quantity)) end,
        case when evidence.same_price then 'unit price' else format('unit price is %s in AppXite', trim_scale(billed.unit_price)) end,
        case when evidence.names_it then 'name or id' end,
        case when evidence.covers_cycle then 'dates' else 'does not bill the whole next cycle' end
    ) as evidence,
    covered.lines as covered_lines,
    covered.amount as covered_amount,
    case
        when made.refused_because is not null then made.refused_because
        when not evidence.same_product then 'its product is not the one that the subscription''s offer is mapped to'
        when billed.recurring_mode <> 'persistent'
            then 'the subscription is billed by dated Additions (recurring_mode): end it in ConnectWise instead'
        when not coalesce(billing.frequency_months(billed.billing_frequency) = made.cycle_months, false)
            then format('the subscription is charged "%s", which is not the agreement''s billing cycle: end it in ConnectWise instead',
                billed.billing_frequency)
        when ours.connectwise_addition_id is not null
            then format('our Addition %s bills the subscription already: end the one made by hand in ConnectWise',
                ours.connectwise_addition_id)
    end as refused_because
from delivery.hand_made_addition as made
join delivery.billed_subscription as billed using (agreement_id)
cross join lateral (
    select
        coalesce(billed.product_id = made.product_id, false) as same_product,
        coalesce(billed.quantity = made.quantity, false) as same_quantity,
        coalesce(billed.unit_price = made.unit_price, false) as same_price,
        coalesce(
            strpos(lower(concat_ws(' ', made.serial_number, made.invoice_description)), lower(billed.subscription_id)) > 0
            or (
                length(billed.subscription_name) > 3
                and strpos(lower(concat_ws(' ', made.serial_number, made.invoice_description)), lower(billed.subscription_name)) > 0
            ),
            false
        ) as names_it,
        coalesce(
            made.effective_date <= made.next_invoice_date
            and coalesce(made.cancelled_date, 'infinity') >= made.current_cycle_end,
            false
        ) as covers_cycle
) as evidence
cross join lateral (
    select count(*) as lines, coalesce(sum(line.total_price), 0) as amount
    from billing.invoice_line as line
    join billing.invoice as invoice using (invoice_id)
    join billing.line_decision as decision using (line_id)
    left join billing.override as override using (line_id)
    where
        line.subscription_id = billed.subscription_id
        and decision.agreement_id = billed.agreement_id
        and billing.is_billed_by_hand(line.charge_start_date, decision.is_recurring, invoice.invoice_date, made.next_invoice_date)
        and override.effective_date is null and override.is_excluded is not true
        and not exists (select from delivery.addition_line as carried where carried.line_id = line.line_id)
) as covered
left join lateral (
    select ledger.connectwise_addition_id
    from delivery.addition as ledger
    join delivery.addition_line as carried using (delivery_key)
    join billing.invoice_line as line on line.line_id = carried.line_id
    join billing.line_decision as decision on decision.line_id = line.line_id
    where
        ledger.agreement_id = billed.agreement_id
        and line.subscription_id = billed.subscription_id
        and decision.is_recurring
        and ledger.connectwise_addition_id is distinct from made.connectwise_addition_id
        and carried.cycle_end >= made.next_invoice_date - 1
    limit 1
) as ours on true
where evidence.same_product or evidence.names_it;
comment on view delivery.adoption_candidate is
'Every subscription that an Addition made by hand may stand for, with the evidence. score: one point each for product, quantity, unit price, name or id, dates. Never applied by itself.';

create view delivery.adopted_addition as
select
    adoption.adoption_id,
    adoption.agreement_id,
    adoption.subscription_id,
    adoption.connectwise_addition_id,
    adoption.delivery_key,
    adoption.decided_by,
    ledger.delivered_at is null as is_waiting,
    -- What ConnectWise invoiced while it waited was billed by hand, too.
    greatest(
        adoption.covered_before,
        coalesce(carried.first_cycle_start, case when ledger.state = 'delivered' then agreement.next_invoice_date end)
    ) as covered_before
from delivery.adoption as adoption
join delivery.addition as ledger using (delivery_key)
join mapping.agreement as agreement on agreement.agreement_id = adoption.agreement_id
cross join lateral (
    select min(line.cycle_start) as first_cycle_start from delivery.addition_line as line
    where line.delivery_key = adoption.delivery_key
) as carried
where adoption.state = 'approved';
comment on view delivery.adopted_addition is
'Additions taken over. is_waiting: no plan of ours has changed it yet, so it bills as it was made by hand.';
