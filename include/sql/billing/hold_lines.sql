-- Guarantees: each line in scope is to be delivered, held with ALL reasons that apply, or excluded with who and why.
-- Nothing guesses: what is unknown is held. Reasons found later (by the plan or by ConnectWise) are decided anew here,
-- too, so a cured line is free again.
-- May run again: writes only what differs. By hand: PGOPTIONS='-c billing.run_id=RUN' psql -1 -f FILE

select pg_advisory_xact_lock(hashtext('billing.decide'));

create temporary table scope_line on commit drop as select line_id from billing.line_in_scope;
alter table scope_line add primary key (line_id);
analyze scope_line;

-- What stays billed of invoices that AppXite withdrew, unless a person has dealt with it: an invoice issued again under
-- another id must not bill it twice.
create temporary table withdrawn_line on commit drop as
select
    invoice.organization_id, invoice.invoice_number, line.line_id, line.subscription_id, line.offer_id,
    line.charge_type, line.charge_start_date, line.charge_end_date, line.total_price, line.currency
from billing.invoice as invoice
join billing.invoice_line as line using (invoice_id)
join delivery.addition_line as carried using (line_id)
left join billing.override as override using (line_id)
where invoice.withdrawn is not null and line.total_price <> 0 and override.is_excluded is not true;
analyze withdrawn_line;

-- What an Addition billed that was made by hand, before it was taken over. A date typed by a person wins.
create temporary table hand_billed_line on commit drop as
select
    line.line_id,
    format('%s: billed by hand before Addition %s was taken over', adopted.decided_by, adopted.connectwise_addition_id) as words
from scope_line
join billing.invoice_line as line using (line_id)
join billing.invoice as invoice using (invoice_id)
join billing.line_decision as decision using (line_id)
join delivery.adopted_addition as adopted
    on adopted.subscription_id = line.subscription_id and adopted.agreement_id = decision.agreement_id
left join billing.override as override using (line_id)
where
    billing.is_billed_by_hand(line.charge_start_date, decision.is_recurring, invoice.invoice_date, adopted.covered_before)
    and override.effective_date is null;
analyze hand_billed_line;

-- Differences to what was delivered (revisions) may be delivered, too, when the setting says so and all that they
-- correct is surely billed as AppXite said then. Else: why not.
create temporary table correction_line on commit drop as
select
    line.line_id,
    line.total_price = 0 as is_nothing,
    case
        when billing.text_setting('changes_after_delivery') = 'hold' then ''
        when earlier.is_unsettled then ': the Addition it corrects is in conflict or in doubt'
        when earlier.is_other then ': the Addition it corrects bills another amount, currency or company'
    end as why_held
from scope_line
join billing.invoice_line as line using (line_id)
join billing.line_decision as decision using (line_id)
cross join lateral (
    select
        bool_or(
            override.is_excluded is not true
            and (carried.line_id is null or ledger.state <> 'delivered' or carried.proven_run_id is null)
        ) as is_unsettled,
        bool_or(carried.line_id is not null and (
            carried.amount <> corrected.total_price
            or corrected.currency is distinct from line.currency
            or ledger.company_id is distinct from decision.company_id
        )) as is_other
    from billing.invoice_line as corrected
    left join billing.override as override on override.line_id = corrected.line_id
    left join delivery.addition_line as carried on carried.line_id = corrected.line_id
    left join delivery.addition as ledger on ledger.delivery_key = carried.delivery_key
    where corrected.line_key = line.line_key and corrected.revision < line.revision
) as earlier
where line.revision > 1;
analyze correction_line;

-- Invoices that a delivered line vanished from: what vanished is not taken back yet.
create temporary table shortened_invoice on commit drop as
select distinct removed.invoice_id
from (
    select distinct line.invoice_id from scope_line join billing.invoice_line as line using (line_id)
) as wanted
join billing.invoice_line as removed using (invoice_id)
where
    removed.content_hash = 'removed' and removed.total_price <> 0
    and not exists (
        select from delivery.addition_line as carried
        join delivery.addition as ledger using (delivery_key)
        where carried.line_id = removed.line_id and ledger.state = 'delivered'
    );
analyze shortened_invoice;

create temporary table found_reason on commit drop as
with setting as (
    select
        billing.text_setting('default_agreement_type') as default_agreement_type,
        billing.text_setting('late_lines') as late_lines,
        billing.text_setting('negative_additions') as negative_additions
)
select
    line.line_id,
    reason.reason_code,
    -- Made for the reasons that apply only.
    coalesce(case reason.reason_code
        when 'invoice_does_not_add_up' then case
            when invoice.problem is not null then format('the header of invoice %s: %s', invoice.invoice_number, invoice.problem)
            else (
                select
                    format('invoice %s says %s, its rows give %s', invoice.invoice_number,
                        coalesce(invoice.total_amount::text, 'nothing readable'), coalesce(sum(sibling.total_price), 0))
                    || coalesce('; ' || nullif(count(*) filter (where sibling.problem is not null), 0) || ' of its rows cannot be read', '')
                from billing.invoice_line as sibling
                where not invoice.adds_up and sibling.invoice_id = invoice.invoice_id
            )
        end
        when 'invoice_withdrawn' then format('invoice %s: %s', invoice.invoice_number, invoice.withdrawn)
        when 'delivered_on_withdrawn_invoice' then standing.lines
        when 'row_unreadable' then line.problem
        when 'changed_after_delivery' then case when line.revision > 1 then format('difference %s %s', line.total_price, line.currency) || correction.why_held
            else 'a delivered line of this invoice was removed or replaced in AppXite' end
        when 'currency_differs_from_invoice' then format('line %s, invoice %s', line.currency, invoice.currency)
        when 'organization_unmapped' then organization.name
        when 'company_unclaimed' then format('contract %s, offer %s, subscription %s', coalesce(line.contract_id, invoice.contract_id, 'none'),
            coalesce(line.offer_id, 'none'), coalesce(line.subscription_id, 'none'))
        when 'company_ambiguous' then (
            select string_agg(format('%s %s: %s (%s)', selector.kind, selector.source_id, claiming.name, claiming.company_id), ', '
                order by selector.kind, selector.source_id)
            from mapping.company_selector as selector
            join mapping.company as claiming using (company_id)
            where
                cardinality(decision.company_candidates) > 1
                and selector.organization_id = invoice.organization_id
                and (selector.kind, selector.source_id) in (
                    ('contract', coalesce(line.contract_id, invoice.contract_id)), ('offer', line.offer_id),
                    ('subscription', line.subscription_id)
                )
        )
        when 'company_not_usable' then format('company %s (%s) is %s', company.name, company.company_id, company.unusable)
        when 'offer_missing' then line.subscription_name
        when 'offer_unmapped' then format('%s (%s)', line.offer_name, line.offer_id)
        when 'product_not_usable' then format('product %s is %s', product.identifier, product.unusable)
        when 'no_agreement' then format('company %s has no active agreement of type %s', company.name, setting.default_agreement_type)
        || case when draft.company_id is not null then '; none is created: ' || coalesce(
            draft.obstacle, format('the company''s currency is %s, the line''s %s', draft.currency, line.currency)
        ) else '' end
        when 'agreement_to_create' then format('agreement %s is to be created; its lines follow with the run after', draft.name)
        when 'ambiguous_agreement' then (select string_agg(format('%s (%s)', candidate.name, candidate.agreement_id), ', ' order by candidate.agreement_id)
            from mapping.agreement as candidate where candidate.agreement_id = any(decision.agreement_candidates))
        when 'agreement_not_usable' then format('agreement %s (%s): status %s, company %s, end %s', agreement.name, agreement.agreement_id,
            agreement.agreement_status, agreement.company_id, coalesce(agreement.end_date::text, 'none'))
        when 'agreement_currency_differs' then format('agreement %s, line %s', coalesce(agreement.currency, 'without currency'), line.currency)
        when 'agreement_prorates' then format('agreement %s (%s)', agreement.name, agreement.agreement_id)
        when 'billing_cycle_unsupported' then format('agreement %s (%s): billing cycle %s, billing start ' || coalesce(agreement.bill_start_date::text, 'none'), agreement.name, agreement.agreement_id,
            coalesce(billing_cycle.name, agreement.billing_cycle_id::text, 'none'))
        when 'before_bill_start' then format('starts %s, billing starts %s', decision.effective_date, agreement.bill_start_date)
        when 'unknown_charge_type' then coalesce(line.charge_type, 'none')
        when 'dates_missing' then format('charge from %s to %s', coalesce(line.charge_start_date::text, '?'), coalesce(line.charge_end_date::text, '?'))
        when 'typed_dates_not_usable' then format('from %s to %s, billing cycle %s to %s', decision.effective_date, decision.cancelled_date,
            decision.cycle_start, decision.cycle_end)
        when 'price_not_representable' then format('%s x %s should give %s', line.quantity, line.unit_price, line.total_price)
        when 'late_line' then format('charge from %s, next invoice date %s', line.charge_start_date, agreement.next_invoice_date)
        when 'customer_paused' then format('by %s since %s: %s', pause.paused_by, to_char(pause.paused_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"'), pause.reason)
        when 'negative_amount' then decision.amount::text
    end, '') as detail
from scope_line
join billing.invoice_line as line on line.line_id = scope_line.line_id
join billing.invoice as invoice on invoice.invoice_id = line.invoice_id
join billing.line_decision as decision on decision.line_id = line.line_id
cross join setting
left join billing.charge_type as charge_type on charge_type.charge_type = line.charge_type
left join mapping.organization as organization on organization.organization_id = invoice.organization_id
left join mapping.company as company on company.company_id = decision.company_id
left join mapping.product as product on product.product_id = decision.product_id
left join mapping.agreement as agreement on agreement.agreement_id = decision.agreement_id
left join mapping.billing_cycle as billing_cycle using (billing_cycle_id)
left join mapping.organization_mapping as organization_mapping
    on organization_mapping.organization_id = invoice.organization_id
left join mapping.offer_mapping as offer_mapping on offer_mapping.offer_id = line.offer_id
left join mapping.offer_variant_mapping as variant
    on variant.offer_id = line.offer_id
    and variant.billing_frequency = line.billing_frequency
    and variant.decided_by is not null
left join billing.override as override on override.line_id = line.line_id
left join billing.agreement_draft as draft
    on draft.company_id = decision.company_id
    and decision.agreement_id is null and cardinality(decision.agreement_candidates) = 0
left join correction_line as correction on correction.line_id = line.line_id
left join shortened_invoice as shortened on shortened.invoice_id = line.invoice_id
left join lateral (
    select * from delivery.pause as active
    where active.company_id = decision.company_id and active.ended_at is null
    order by active.proof_run_id nulls first limit 1
) as pause on true
left join lateral (
    select string_agg(format('line %s of invoice %s, %s %s', standing.line_id, standing.invoice_number,
        standing.total_price, standing.currency), '; ' order by standing.line_id) as lines
    from withdrawn_line as standing
    where
        standing.organization_id = invoice.organization_id
        and standing.subscription_id is not distinct from line.subscription_id
        and (line.subscription_id is not null or standing.offer_id is not distinct from line.offer_id)
        and standing.charge_type is not distinct from line.charge_type
        and (
            standing.charge_start_date is not distinct from line.charge_start_date
            or (standing.charge_start_date <= line.charge_end_date and standing.charge_end_date >= line.charge_start_date)
        )
) as standing on invoice.withdrawn is null
cross join lateral unnest(array_remove(array[
    case when not invoice.adds_up
        then 'invoice_does_not_add_up' end,
    case when invoice.withdrawn is not null
        then 'invoice_withdrawn' end,
    case when standing.lines is not null
        then 'delivered_on_withdrawn_invoice' end,
    case when line.problem is not null or line.total_price is null or line.quantity is null or line.unit_price is null
        then 'row_unreadable' end,
    -- A delivered line that vanished may be one of the invoice's other lines by now, under another id or period: it
    -- waits until what vanished is taken back.
    case when correction.why_held is not null or (line.revision = 1 and shortened.invoice_id is not null)
        then 'changed_after_delivery' end,
    case when line.currency is distinct from invoice.currency
        then 'currency_differs_from_invoice' end,
    case when organization_mapping.state is distinct from 'approved'
        then 'organization_unmapped' end,
    case when organization_mapping.state = 'approved' and decision.company_id is null and cardinality(decision.company_candidates) = 0
        then 'company_unclaimed' end,
    case when organization_mapping.state = 'approved' and cardinality(decision.company_candidates) > 1
        then 'company_ambiguous' end,
    case when company.unusable is not null
        then 'company_not_usable' end,
    case when decision.product_id is null and line.offer_id is null
        then 'offer_missing' end,
    case when decision.product_id is null and line.offer_id is not null
        then 'offer_unmapped' end,
    case when product.unusable is not null
        then 'product_not_usable' end,
    case when decision.company_id is not null and decision.agreement_id is null and cardinality(decision.agreement_candidates) = 0
        and not (draft.company_id is not null and draft.obstacle is null and line.currency is not distinct from draft.currency)
        then 'no_agreement' end,
    -- The plan that creates it completes the detail.
    case when draft.obstacle is null and line.currency is not distinct from draft.currency and draft.company_id is not null
        then 'agreement_to_create' end,
    case when decision.agreement_id is null and cardinality(decision.agreement_candidates) > 1
        then 'ambiguous_agreement' end,
    case when agreement.agreement_id is not null and (
            agreement.agreement_status is distinct from 'Active' or agreement.is_cancelled or agreement.is_gone
            or agreement.company_id is distinct from decision.company_id
            or agreement.end_date < decision.effective_date
        )
        then 'agreement_not_usable' end,
    case when agreement.agreement_id is not null and agreement.currency is distinct from line.currency
        then 'agreement_currency_differs' end,
    case when agreement.prorates
        then 'agreement_prorates' end,
    case when agreement.agreement_id is not null and (
            billing.cycle_months(billing_cycle.billing_option) is null
            or (decision.effective_date is not null and decision.cycle_start is null)
        )
        then 'billing_cycle_unsupported' end,
    case when decision.effective_date < agreement.bill_start_date
        then 'before_bill_start' end,
    case when charge_type.charge_type is null
        then 'unknown_charge_type' end,
    case when coalesce(override.effective_date, line.charge_start_date) is null
        or coalesce(override.cancelled_date, line.charge_end_date) is null
        or (
            line.charge_end_date < line.charge_start_date
            and (override.effective_date is null or override.cancelled_date is null)
        )
        or (agreement.agreement_id is not null and charge_type.charge_type is not null and decision.effective_date is null)
        then 'dates_missing' end,
    case when decision.cancelled_date > decision.cycle_end or decision.cancelled_date < decision.effective_date
        then 'typed_dates_not_usable' end,
    case when decision.unit_price is null and line.quantity is not null and line.unit_price is not null and line.total_price is not null
        then 'price_not_representable' end,
    case when decision.is_late and setting.late_lines = 'hold'
        then 'late_line' end,
    case when pause.pause_id is not null
        then 'customer_paused' end,
    case when decision.amount < 0 and setting.negative_additions = 'hold'
        then 'negative_amount' end
], null)) as reason (reason_code)
where
    -- An excluded line needs no reasons to wait.
    not (organization_mapping.state = 'excluded' and organization_mapping.decided_by is not null)
    and not (
        decision.product_id is null
        and coalesce(variant.state, offer_mapping.state) is not distinct from 'excluded'
        and coalesce(variant.decided_by, offer_mapping.decided_by) is not null
    )
    and override.is_excluded is not true
    and not (line.total_price is not distinct from 0 and billing.text_setting('zero_amounts') = 'skip')
    and not (correction.is_nothing is true and correction.why_held is null)
    and not exists (select from hand_billed_line as billed where billed.line_id = line.line_id);
analyze found_reason;

delete from billing.held_reason as known
using scope_line
where
    known.line_id = scope_line.line_id
    and not exists (
        select from found_reason
        where found_reason.line_id = known.line_id and found_reason.reason_code = known.reason_code
    )
    -- What was found later, by grouping, plan or delivery, is judged there: until then it keeps the date it is held since.
    -- Bounds are judged for lines that are held, too.
    and (
        not exists (
            select from billing.held_reason_code as code
            where code.reason_code = known.reason_code and code.is_found_later
        )
        or (
            exists (select from found_reason where found_reason.line_id = known.line_id)
            and not exists (
                select from billing.held_reason_code as code
                where code.reason_code = known.reason_code and code.is_bound
            )
        )
    );

merge into billing.held_reason as known
using found_reason on known.line_id = found_reason.line_id and known.reason_code = found_reason.reason_code
when matched and known.detail <> found_reason.detail and known.reason_code <> 'agreement_to_create' then
    update set detail = found_reason.detail
when not matched then insert (line_id, reason_code, detail)
    values (found_reason.line_id, found_reason.reason_code, found_reason.detail);

merge into billing.line_decision as known
using (
    select
        line.line_id,
        case
            when override.is_excluded then format('%s: %s', override.decided_by, override.reason)
            when organization_mapping.state = 'excluded' and organization_mapping.decided_by is not null
                then format('%s: organization excluded%s', organization_mapping.decided_by, ', ' || organization_mapping.note)
            when variant.state = 'excluded' and decision.product_id is null
                then format('%s: offer excluded for %s%s', variant.decided_by, variant.billing_frequency, ', ' || variant.note)
            when variant.state is null and offer_mapping.state = 'excluded' and offer_mapping.decided_by is not null
                and decision.product_id is null
                then format('%s: offer excluded%s', offer_mapping.decided_by, ', ' || offer_mapping.note)
            when line.total_price = 0 and billing.text_setting('zero_amounts') = 'skip' then 'setting zero_amounts: 0.00 is not sent'
            when correction.is_nothing and correction.why_held is null
                then 'setting changes_after_delivery: no difference in money to what was delivered'
            else (select billed.words from hand_billed_line as billed where billed.line_id = line.line_id)
        end as excluded_by,
        line.line_id in (select found_reason.line_id from found_reason) as is_held
    from scope_line
    join billing.invoice_line as line on line.line_id = scope_line.line_id
    join billing.invoice as invoice on invoice.invoice_id = line.invoice_id
    join billing.line_decision as decision on decision.line_id = line.line_id
    left join billing.override as override on override.line_id = line.line_id
    left join correction_line as correction on correction.line_id = line.line_id
    left join mapping.organization_mapping as organization_mapping
        on organization_mapping.organization_id = invoice.organization_id
    left join mapping.offer_mapping as offer_mapping on offer_mapping.offer_id = line.offer_id
    left join mapping.offer_variant_mapping as variant
        on variant.offer_id = line.offer_id
        and variant.billing_frequency = line.billing_frequency
        and variant.decided_by is not null
) as decided on known.line_id = decided.line_id
when matched and ((known.outcome, known.excluded_by) is distinct from (
    case when decided.excluded_by is not null then 'excluded' when decided.is_held then 'held' else 'deliver' end,
    decided.excluded_by
) or (decided.is_held and known.delivery_key is not null)) then
    update set
        outcome = case when decided.excluded_by is not null then 'excluded' when decided.is_held then 'held' else 'deliver' end,
        excluded_by = decided.excluded_by,
        delivery_key = null,
        run_id = audit.current_run_id(),
        decided_at = now();

-- An excluded line waits for nothing.
delete from billing.held_reason as known
using scope_line, billing.line_decision as decision
where known.line_id = scope_line.line_id and decision.line_id = scope_line.line_id and decision.outcome = 'excluded';
