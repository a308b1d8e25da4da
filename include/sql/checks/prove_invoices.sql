-- Guarantees: per invoice of the run, source = delivered + held + excluded + awaiting approval + in doubt, where
-- delivered counts only what this run re-read from ConnectWise and found equal to the cent, billable, and touching the
-- cycles of its lines and no other. A line whose cycle ConnectWise has invoiced since counts by the proof made before.
-- A customer with a breach is parked: nothing more is written for it until a later proof finds it mended, or a person
-- ends the pause. Additions of ours that are not the recorded one are noted down, for delivery to neutralise.
-- Ends with the breaches, one row each; no row: every promise held.
-- May run again: makes the run's proof anew. By hand: PGOPTIONS='-c billing.run_id=RUN' psql -1 -f FILE

create temporary table proof_invoice on commit drop as
select * from billing.invoice_to_prove;

create temporary table observed on commit drop as
select staged.*
from staging.addition as staged
join staging.extract as feed using (extract_id)
where feed.run_id = audit.current_run_id();

create temporary table carried_line on commit drop as
with span as (
    select carried.delivery_key, min(carried.cycle_start) as first_day, max(carried.cycle_end) as last_day
    from delivery.addition_line as carried
    group by carried.delivery_key
)
select
    carried.line_id,
    carried.delivery_key,
    carried.amount,
    carried.cycle_start,
    ledger.state,
    ledger.agreement_id,
    ledger.company_id,
    ledger.connectwise_addition_id,
    ledger.marker,
    carried.proven_run_id is not null and carried.cycle_end < agreement.next_invoice_date as is_invoiced_and_proven,
    coalesce(
        -- In conflict: the newest change did not go through, what stood before may still be right.
        ledger.state in ('delivered', 'conflict')
        and observed.bill_customer = 'Billable'
        and observed.marker = ledger.marker
        and observed.ext_price = carried.amount
        and billing.line_amount(observed.quantity - coalesce(observed.less_included, 0), observed.unit_price) = carried.amount
        -- One that was taken over began when it was made by hand; those cycles are invoiced.
        and observed.effective_date between case when ledger.is_adopted then '-infinity' else span.first_day end and carried.cycle_end
        and observed.cancelled_date between carried.cycle_start and span.last_day,
        false
    ) as is_verified,
    concat_ws(
        ', ',
        case when observed.addition_id is null then 'not found in ConnectWise' end,
        case when observed.bill_customer <> 'Billable' then 'set to ' || observed.bill_customer end,
        case when observed.addition_id is not null and observed.marker is distinct from ledger.marker then 'marker changed' end,
        case when observed.ext_price <> carried.amount then format('bills %s instead of %s', observed.ext_price, carried.amount) end,
        case when observed.addition_id is not null and observed.cancelled_date is null then 'has no end and bills for ever' end,
        case when observed.effective_date
            not between case when ledger.is_adopted then '-infinity' else span.first_day end and carried.cycle_end
            or observed.cancelled_date not between carried.cycle_start and span.last_day
            then format('bills from %s to %s instead of %s to %s', observed.effective_date, observed.cancelled_date, span.first_day, span.last_day) end,
        case when ledger.state not in ('delivered', 'conflict') then 'ledger says ' || ledger.state end
    ) as finding
from delivery.addition_line as carried
join delivery.addition as ledger using (delivery_key)
join span using (delivery_key)
join mapping.agreement as agreement on agreement.agreement_id = ledger.agreement_id
join billing.invoice_line as line on line.line_id = carried.line_id
join proof_invoice on proof_invoice.invoice_id = line.invoice_id
left join observed
    on observed.agreement_id = ledger.agreement_id and observed.addition_id = ledger.connectwise_addition_id;

update delivery.addition_line as carried set proven_run_id = audit.current_run_id()
from carried_line
where carried.line_id = carried_line.line_id and carried_line.is_verified and carried.proven_run_id is null;

-- The last proof before the cycle is invoiced counts: what was changed since an earlier one is not proven any more.
update delivery.addition_line as carried set proven_run_id = null
from carried_line, delivery.addition as ledger, mapping.agreement as agreement
where
    carried.line_id = carried_line.line_id
    and not carried_line.is_verified
    and carried.proven_run_id is not null
    and ledger.delivery_key = carried.delivery_key
    and agreement.agreement_id = ledger.agreement_id
    and (agreement.next_invoice_date is null or carried.cycle_end >= agreement.next_invoice_date);

delete from audit.invoice_proof where run_id = audit.current_run_id();

insert into audit.invoice_proof (run_id, invoice_id, currency, source_total, delivered, held, excluded, awaiting_approval,
    in_doubt, difference)
with line_money as (
    select
        line.invoice_id,
        coalesce(line.total_price, 0) as total,
        case when carried.line_id is not null and (carried.is_verified or carried.is_invoiced_and_proven) then carried.amount else 0 end as delivered,
        -- A person's typed price bills more or less than AppXite's; the difference is theirs, and shown as excluded.
        case when carried.line_id is not null then line.total_price - carried.amount
            when decision.outcome = 'excluded' then coalesce(line.total_price, 0) else 0 end as excluded,
        case when carried.line_id is not null and not (carried.is_verified or carried.is_invoiced_and_proven) then carried.amount else 0 end as in_doubt,
        case when carried.line_id is null and (decision.outcome = 'held' or decision.outcome is null) then coalesce(line.total_price, 0) else 0 end as held,
        case when carried.line_id is null and decision.outcome = 'deliver' then coalesce(line.total_price, 0) else 0 end as awaiting_approval
    from billing.invoice_line as line
    join proof_invoice using (invoice_id)
    left join carried_line as carried on carried.line_id = line.line_id
    left join billing.line_decision as decision on decision.line_id = line.line_id
),
per_invoice as (
    select
        invoice.invoice_id,
        invoice.currency,
        coalesce(invoice.total_amount, sum(money.total), 0) as source_total,
        coalesce(sum(money.delivered), 0) as delivered,
        coalesce(sum(money.held), 0)
            + case when invoice.adds_up then 0 else coalesce(invoice.total_amount - coalesce(sum(money.total), 0), 0) end as held,
        coalesce(sum(money.excluded), 0) as excluded,
        coalesce(sum(money.awaiting_approval), 0) as awaiting_approval,
        coalesce(sum(money.in_doubt), 0) as in_doubt
    from proof_invoice as invoice
    left join line_money as money using (invoice_id)
    group by invoice.invoice_id, invoice.currency, invoice.total_amount, invoice.adds_up
)
select
    audit.current_run_id(), invoice_id, currency, source_total, delivered, held, excluded, awaiting_approval, in_doubt,
    source_total - delivered - held - excluded - awaiting_approval - in_doubt
from per_invoice;

create temporary table breach on commit drop as
select 'difference' as code,
    format('Invoice %s: %s %s are not accounted for', invoice.invoice_number, proof.difference, proof.currency) as message,
    jsonb_build_object('invoice_id', proof.invoice_id) as subject,
    parked.company_id as parked_company_id
from audit.invoice_proof as proof
join billing.invoice as invoice using (invoice_id)
-- All companies that the invoice may go to wait: selectors may name several.
left join lateral (
    select mapped.company_id from mapping.organization_mapping as mapped
    where mapped.organization_id = invoice.organization_id and mapped.state = 'approved'
    union
    select selector.company_id from mapping.company_selector as selector
    join mapping.organization_mapping as mapped using (organization_id)
    where selector.organization_id = invoice.organization_id and mapped.state = 'approved'
) as parked on true
where proof.run_id = audit.current_run_id() and proof.difference <> 0
union all
select 'in_doubt',
    format('Line %s: Addition %s on agreement %s %s', line_id, connectwise_addition_id, agreement_id, coalesce(nullif(finding, ''), 'is not settled')),
    jsonb_build_object('line_id', line_id, 'delivery_key', delivery_key),
    -- What is under way yet is finished by the next run, which a pause would forbid.
    case when state in ('delivered', 'conflict') then company_id end
from carried_line where not is_verified and not is_invoiced_and_proven
union all
select 'bills_without_line',
    format('Agreement %s: Addition %s of ours bills, but carries no line (%s: %s)', observed.agreement_id,
        observed.addition_id, ledger.state, ledger.problem),
    jsonb_build_object('agreement_id', observed.agreement_id, 'delivery_key', ledger.delivery_key),
    ledger.company_id
from observed
join delivery.addition as ledger
    on ledger.agreement_id = observed.agreement_id
    and (
        ledger.connectwise_addition_id = observed.addition_id
        -- Given up, or made anew: the marker still tells whose it is.
        or (ledger.connectwise_addition_id is null and ledger.marker = observed.marker)
    )
where
    observed.bill_customer = 'Billable'
    and observed.ext_price is distinct from 0
    and not exists (select from delivery.addition_line as carried where carried.delivery_key = ledger.delivery_key)
    -- Taken over: it bills as it was made by hand until its first line comes.
    and not (ledger.is_adopted and ledger.state = 'delivered' and ledger.delivered_at is null)
union all
select 'bills_too_long',
    format('Agreement %s: Addition %s of ours bills until %s, its last line is of the cycle that ends %s', observed.agreement_id,
        observed.addition_id, coalesce(observed.cancelled_date::text, 'for ever'), span.last_day),
    jsonb_build_object('agreement_id', observed.agreement_id, 'delivery_key', ledger.delivery_key),
    ledger.company_id
from observed
join delivery.addition as ledger
    on ledger.agreement_id = observed.agreement_id and ledger.connectwise_addition_id = observed.addition_id
join mapping.agreement as agreement on agreement.agreement_id = ledger.agreement_id
cross join lateral (
    select max(carried.cycle_end) as last_day from delivery.addition_line as carried
    where carried.delivery_key = ledger.delivery_key
) as span
where
    observed.bill_customer = 'Billable'
    and coalesce(observed.cancelled_date, 'infinity') > span.last_day
    and coalesce(observed.cancelled_date, 'infinity') >= coalesce(agreement.next_invoice_date, '-infinity')
    -- Said already, line by line.
    and not exists (
        select from carried_line
        where carried_line.delivery_key = ledger.delivery_key
            and not carried_line.is_verified and not carried_line.is_invoiced_and_proven
    )
union all
select 'duplicate',
    format('Agreement %s: %s billable Additions carry the marker %s', observed.agreement_id, count(*), observed.marker),
    jsonb_build_object('agreement_id', observed.agreement_id, 'marker', observed.marker),
    agreement.company_id
from observed
join mapping.agreement as agreement using (agreement_id)
where observed.bill_customer = 'Billable' and observed.ext_price is distinct from 0 and observed.marker is not null
group by observed.agreement_id, observed.marker, agreement.company_id having count(*) > 1;

insert into delivery.orphan (agreement_id, connectwise_addition_id, delivery_key, neutralised_at)
select
    ledger.agreement_id, observed.addition_id, ledger.delivery_key,
    case
        when (observed.bill_customer = 'DoNotBill' or observed.ext_price = 0)
            and observed.cancelled_date = observed.effective_date then now()
    end
from observed
join delivery.addition as ledger on ledger.agreement_id = observed.agreement_id and ledger.marker = observed.marker
where ledger.connectwise_addition_id <> observed.addition_id
on conflict (agreement_id, connectwise_addition_id) do update set neutralised_at = excluded.neutralised_at;

with parked as (
    select parked_company_id as company_id, min(message) as message, count(*) as breaches from breach
    where parked_company_id is not null
    group by parked_company_id
),
said as (
    insert into delivery.pause (company_id, reason, paused_by, proof_run_id)
    select
        company_id, message || case when breaches > 1 then format(' (and %s more)', breaches - 1) else '' end,
        'the proof of run ' || audit.current_run_id(), audit.current_run_id()
    from parked
    on conflict (coalesce(company_id, 0), (proof_run_id is not null)) where ended_at is null do nothing
    returning company_id, reason
)
insert into audit.log_entry (run_id, level, code, message, subject)
select
    audit.current_run_id(), 'WARNING', 'customer_parked',
    format('Delivery to company %s is paused until this is mended: %s', company_id, reason),
    jsonb_build_object('company_id', company_id)
from said;

-- A proof's own pause ends when all that the customer has of ours was read again and found right.
with mended as (
    update delivery.pause as pause set ended_by = 'the proof of run ' || audit.current_run_id(), ended_at = now()
    where
        pause.ended_at is null
        and pause.proof_run_id is not null
        and not exists (select from breach where breach.parked_company_id = pause.company_id)
        -- What is under way yet is finished once the pause is over.
        and not exists (
            select from delivery.addition as ledger join delivery.addition_line as carried using (delivery_key)
            where ledger.company_id = pause.company_id and ledger.state in ('delivered', 'conflict')
                and carried.proven_run_id is null
        )
        -- A dry run and a run of some organizations do not look at everything.
        and exists (
            select from audit.run
            where run.run_id = audit.current_run_id() and not run.is_dry_run and cardinality(run.organization_ids) = 0
        )
    returning pause.company_id
)
insert into audit.log_entry (run_id, level, code, message, subject)
select
    audit.current_run_id(), 'INFO', 'customer_released', format('Delivery to company %s goes on: the proof finds it mended', company_id),
    jsonb_build_object('company_id', company_id)
from mended;

-- Copying an agreement in ConnectWise copies its Additions, markers included. A person did that; it is said, not undone.
insert into audit.log_entry (run_id, level, code, message, subject)
select audit.current_run_id(), 'WARNING', 'copied_addition', copied.message, copied.subject
from (
    select
        format('Agreement %s: Addition %s bills and carries the marker %s, which belongs to another agreement',
            observed.agreement_id, observed.addition_id, observed.marker) as message,
        jsonb_build_object('agreement_id', observed.agreement_id, 'addition_id', observed.addition_id) as subject
    from observed
    where
        observed.bill_customer = 'Billable'
        and observed.marker like 'axs-' || billing.text_setting('environment') || '-%'
        and not exists (
            select from delivery.addition as ledger
            where ledger.marker = observed.marker and ledger.agreement_id = observed.agreement_id
        )
) as copied
where not exists (
    select from audit.log_entry as said
    where said.run_id = audit.current_run_id() and said.code = 'copied_addition' and said.message = copied.message
);

-- Taken over, and no line yet.
insert into audit.log_entry (run_id, level, code, message, subject)
select
    audit.current_run_id(), 'WARNING', 'adopted_addition_waits',
    format('Agreement %s: Addition %s was taken over for subscription %s and waits for its first line. Until then it bills %s in each cycle%s, as it was made by hand',
        adopted.agreement_id, adopted.connectwise_addition_id, adopted.subscription_id, observed.ext_price,
        coalesce(' until ' || observed.cancelled_date, ', for ever')),
    jsonb_build_object('agreement_id', adopted.agreement_id, 'adoption_id', adopted.adoption_id)
from delivery.adopted_addition as adopted
join observed
    on observed.agreement_id = adopted.agreement_id and observed.addition_id = adopted.connectwise_addition_id
where
    adopted.is_waiting
    and not exists (select from delivery.addition_line as carried where carried.delivery_key = adopted.delivery_key)
    and not exists (
        select from audit.log_entry as said
        where said.run_id = audit.current_run_id() and said.code = 'adopted_addition_waits'
            and (said.subject ->> 'adoption_id')::bigint = adopted.adoption_id
    );

insert into audit.log_entry (run_id, level, code, message, subject)
select distinct audit.current_run_id(), 'ERROR', 'breach_' || breach.code, breach.message, breach.subject
from breach
where not exists (
    select from audit.log_entry as said
    where said.run_id = audit.current_run_id() and said.code = 'breach_' || breach.code and said.message = breach.message
);

-- Money that could not even be read is a breach, too.
select distinct code, message from breach
union all
select code, message from audit.log_entry
where
    run_id = audit.current_run_id()
    and code in ('header_unreadable', 'row_without_header')
    -- Said of what was read last: a run that is read again after the cure is judged anew.
    and logged_at >= (
        select max(feed.started_at) from staging.extract as feed
        where feed.run_id = audit.current_run_id() and feed.billing_period is not null
    )
order by code, message;
