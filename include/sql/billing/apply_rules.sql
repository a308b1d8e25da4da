-- Guarantees: each line in scope has dates that touch exactly one open ConnectWise cycle, a unit price that gives
-- AppXite's total to the cent, and a description; with the rules and typed values that gave them (System Updated, User
-- Updated). Rules are those of the version that the line was loaded with. A value that cannot be decided stays null and
-- is held by the next step; so are typed dates that touch another cycle, which stay as they were typed.
-- May run again: writes only what differs. By hand: PGOPTIONS='-c billing.run_id=RUN' psql -1 -f FILE

select pg_advisory_xact_lock(hashtext('billing.decide'));

merge into billing.line_decision as known
using (
    with setting as (
        select
            billing.text_setting('unit_price_decimals')::integer as unit_price_decimals,
            billing.text_setting('recurring_mode') as recurring_mode,
            billing.text_setting('price_fallback') as price_fallback,
            billing.text_setting('taxable') as taxable,
            billing.text_setting('unit_cost') as unit_cost
    ),
    template as (
        select
            period.is_shown as has_period,
            price.is_shown as has_quantity_and_price,
            billing.description_template(
                billing.text_setting('description_template'), period.is_shown, price.is_shown
            ) as words
        from (values (true), (false)) as period (is_shown)
        cross join (values (true), (false)) as price (is_shown)
    ),
    -- 1. The charge's own dates by rule or by hand, and the cycle of its agreement that holds the start.
    dated as materialized (
        select
            line.*,
            invoice.invoice_date,
            agreement.agreement_id,
            agreement.next_invoice_date,
            agreement.bill_start_date,
            agreement.invoicing_cycle,
            billing.cycle_months(billing_cycle.billing_option) as cycle_months,
            coalesce(charge_type.is_recurring, false) as is_recurring,
            charge_type.display_name,
            charge_type.charge_type_version_id,
            charge_type.version as charge_type_version,
            charge_type.charge_start_rule,
            charge_type.charge_end_rule,
            coalesce(override.effective_date, billing.apply_date_rule(
                charge_type.charge_start_rule, line.charge_start_date, invoice.invoice_date, agreement.next_invoice_date
            )) as start_date,
            coalesce(override.cancelled_date, billing.apply_date_rule(
                charge_type.charge_end_rule, line.charge_end_date, invoice.invoice_date, agreement.next_invoice_date
            )) as end_date,
            override.version as override_version,
            override.effective_date as typed_effective_date,
            override.cancelled_date as typed_cancelled_date,
            override.quantity as typed_quantity,
            override.unit_price as typed_unit_price,
            nullif(billing.clean_text(override.invoice_description), '') as typed_description,
            coalesce(decision.agreement_source = 'override', false) as has_typed_agreement,
            override.product_id is not null as has_typed_product,
            setting.unit_price_decimals,
            coalesce(variant.recurring_mode, offer_mapping.recurring_mode, setting.recurring_mode) as recurring_mode,
            setting.price_fallback,
            setting.unit_cost as unit_cost_setting,
            case coalesce(charge_type.taxable, setting.taxable) when 'on' then true when 'off' then false end as taxable_flag
        from billing.line_in_scope as scope
        join billing.invoice_line as line on line.line_id = scope.line_id
        join billing.invoice as invoice on invoice.invoice_id = line.invoice_id
        join billing.line_decision as decision on decision.line_id = line.line_id
        cross join setting
        -- The version that the line is stamped with; without one, or with another charge type by now, the current one.
        left join billing.charge_type_version as stamped
            on stamped.charge_type_version_id = decision.charge_type_version_id
            and stamped.charge_type = line.charge_type
        left join billing.charge_type as current_type on current_type.charge_type = line.charge_type
        left join billing.charge_type_version as charge_type
            on charge_type.charge_type = line.charge_type
            and charge_type.version = coalesce(stamped.version, current_type.version)
        left join mapping.agreement as agreement on agreement.agreement_id = decision.agreement_id
        left join mapping.billing_cycle as billing_cycle using (billing_cycle_id)
        left join mapping.offer_mapping as offer_mapping
            on offer_mapping.offer_id = line.offer_id and offer_mapping.state = 'approved'
        left join mapping.offer_variant_mapping as variant
            on variant.offer_id = line.offer_id
            and variant.billing_frequency = line.billing_frequency
            and variant.state = 'approved'
        left join billing.override as override on override.line_id = line.line_id
    ),
    -- 2. A cycle already invoiced is closed: the line moves to the start of the next open one. A start before the
    -- agreement's billing start moves to it when both lie in one cycle, where it changes no money.
    placed as (
        select
            dated.*,
            coalesce(start_date < next_invoice_date
                and billing.cycle_start(start_date, cycle_months, invoicing_cycle, bill_start_date) < next_invoice_date,
                false) as is_late
        from dated
    ),
    moved as materialized (
        select
            placed.*,
            case
                when is_late then next_invoice_date
                when start_date < bill_start_date
                    and billing.cycle_start(bill_start_date, cycle_months, invoicing_cycle, bill_start_date)
                    = billing.cycle_start(start_date, cycle_months, invoicing_cycle, bill_start_date)
                    then bill_start_date
                else start_date
            end as effective_date
        from placed
    ),
    in_cycle as materialized (
        select
            moved.*,
            billing.cycle_start(effective_date, cycle_months, invoicing_cycle, bill_start_date) as cycle_start,
            billing.cycle_end(effective_date, cycle_months, invoicing_cycle, bill_start_date) as cycle_end
        from moved
    ),
    -- 3. Quantity and price: to the cent. Metered usage often has no unit price short enough: then 1 x total.
    priced as materialized (
        select
            in_cycle.*,
            coalesce(typed_quantity, quantity) as wanted_quantity,
            coalesce(
                typed_unit_price,
                billing.unit_price_for(coalesce(typed_quantity, quantity), unit_price, total_price, unit_price_decimals)
            ) as wanted_unit_price,
            -- One line of a subscription and cycle goes on a persistent Addition; any other gets its own.
            coalesce(
                is_recurring and revision = 1 and not is_late and recurring_mode = 'persistent' and subscription_id is not null
                and billing.frequency_months(billing_frequency) = cycle_months
                and typed_effective_date is null and typed_cancelled_date is null
                and not exists (
                    select from delivery.persistent_cycle as taken
                    where
                        taken.subscription_id = in_cycle.subscription_id
                        and taken.agreement_id = in_cycle.agreement_id
                        and taken.cycle_start = in_cycle.cycle_start
                ),
                false
            ) as may_be_persistent
        from in_cycle
    ),
    sent as (
        select
            priced.*,
            may_be_persistent and row_number() over (
                partition by subscription_id, agreement_id, cycle_start, may_be_persistent order by line_id
            ) = 1 as can_be_persistent,
            wanted_unit_price is null and price_fallback = 'one_unit' and quantity is not null
                and unit_price is not null and total_price is not null and typed_quantity is null as is_one_unit
        from priced
    ),
    final as materialized (
        select
            sent.*,
            case when sent.is_one_unit then 1 else sent.wanted_quantity end as sent_quantity,
            case when sent.is_one_unit then sent.total_price else sent.wanted_unit_price end as sent_unit_price,
            -- Only what one incoming line says about this line alone, for the same quantity and in its currency.
            case when sent.is_one_unit then cost.total_price else billing.unit_price_for(
                cost.quantity, cost.unit_price, cost.total_price, sent.unit_price_decimals
            ) end as unit_cost
        from sent
        left join lateral (
            select
                min(incoming.quantity) as quantity,
                min(incoming.unit_price) as unit_price,
                min(incoming.total_price) as total_price
            from billing.cost_line as incoming
            where
                sent.unit_cost_setting = 'incoming_invoice'
                and incoming.subscription_id = sent.subscription_id
                and incoming.charge_type = sent.charge_type
                and incoming.charge_start_date = sent.charge_start_date
                and incoming.charge_end_date = sent.charge_end_date
                and not exists (
                    select from billing.invoice_line as twin
                    join billing.invoice as twin_invoice using (invoice_id)
                    where
                        twin.subscription_id = sent.subscription_id
                        and twin.charge_type = sent.charge_type
                        and twin.charge_start_date = sent.charge_start_date
                        and twin.charge_end_date = sent.charge_end_date
                        and twin.line_id <> sent.line_id
                        and twin_invoice.withdrawn is null
                )
            having count(*) = 1 and bool_and(incoming.quantity = sent.quantity and incoming.currency = sent.currency)
        ) as cost on true
    ),
    worded as materialized (
        select
            final.*,
            coalesce(
                nullif(billing.clean_text(subscription_name), ''), nullif(billing.clean_text(offer_name), ''),
                'Cloud services'
            ) as subscription_words,
            -- A persistent Addition bills every cycle: the cycle on ConnectWise's invoice is its period.
            case when not can_be_persistent and charge_start_date is not null then
                case when revision > 1 then 'correction of ' else '' end
                || charge_start_date::text || ' to ' || coalesce(charge_end_date::text, charge_start_date::text)
            end as period_words,
            case when sent_unit_price <> unit_price then
                trim_scale(quantity)::text || ' x ' || trim_scale(unit_price)::text
            end as price_words
        from final
    ),
    phrased as (
        select worded.*, template.words as template_words
        from worded
        join template
            on template.has_period = (worded.period_words is not null)
            and template.has_quantity_and_price = (worded.price_words is not null)
    )
    select
        line_id,
        charge_type_version_id,
        is_recurring,
        is_late,
        can_be_persistent,
        cycle_start,
        cycle_end,
        effective_date,
        -- An end in a later cycle would bill again there; an end before the start, never. What a person typed is not
        -- corrected: typed so, the line is held.
        case
            when can_be_persistent or (is_late and coalesce(typed_cancelled_date < effective_date, true)) then cycle_end
            when typed_cancelled_date is not null then typed_cancelled_date
            else least(greatest(end_date, effective_date), cycle_end)
        end as cancelled_date,
        sent_quantity as quantity,
        sent_unit_price as unit_price,
        billing.line_amount(sent_quantity, sent_unit_price) as amount,
        taxable_flag,
        unit_cost,
        -- ConnectWise takes 6000 characters, our marker included.
        billing.shorten(coalesce(
            typed_description,
            -- Values cannot hold a placeholder: their braces are hidden while the template is filled.
            nullif(billing.clean_text(replace(
                replace(replace(replace(replace(
                    template_words,
                    '{subscription}', replace(subscription_words, '{', chr(1))),
                    '{charge_type}', replace(coalesce(display_name, ''), '{', chr(1))),
                    '{period}', coalesce(period_words, '')),
                    '{quantity_and_price}', coalesce(price_words, '')),
                chr(1), '{'
            )), ''),
            subscription_words
        ), 5940) as invoice_description,
        jsonb_strip_nulls(jsonb_build_object(
            'charge_type_version', charge_type_version,
            'charge_start_rule', case when typed_effective_date is null then charge_start_rule end,
            'charge_end_rule', case when typed_cancelled_date is null then charge_end_rule end,
            'moved_to_open_cycle', case when is_late then true end,
            'moved_to_bill_start', case when not is_late and effective_date <> start_date then true end,
            'billed_as_one_unit', case when is_one_unit then true end,
            'override_version', override_version,
            'user_updated', case when override_version is not null then to_jsonb(array_remove(array[
                case when typed_effective_date = effective_date then 'effective_date' end,
                case when typed_cancelled_date >= effective_date or (typed_cancelled_date < effective_date and not is_late) then 'cancelled_date' end,
                case when typed_quantity is not null then 'quantity' end,
                case when typed_unit_price is not null then 'unit_price' end,
                case when typed_description is not null then 'invoice_description' end,
                case when has_typed_agreement then 'agreement' end,
                case when has_typed_product then 'product' end
            ], null)) end
        )) as rules
    from phrased
) as decided on known.line_id = decided.line_id
when matched and (known.charge_type_version_id, known.is_recurring, known.is_late, known.can_be_persistent,
        known.cycle_start, known.cycle_end, known.effective_date, known.cancelled_date, known.quantity::numeric,
        known.unit_price::numeric, known.amount::numeric, known.taxable_flag, known.unit_cost::numeric,
        known.invoice_description, known.rules)
    is distinct from (decided.charge_type_version_id, decided.is_recurring, decided.is_late, decided.can_be_persistent,
        decided.cycle_start, decided.cycle_end, decided.effective_date, decided.cancelled_date,
        decided.quantity::numeric, decided.unit_price::numeric, decided.amount::numeric, decided.taxable_flag,
        decided.unit_cost::numeric, decided.invoice_description, decided.rules) then
    update set charge_type_version_id = decided.charge_type_version_id, is_recurring = decided.is_recurring,
        is_late = decided.is_late, can_be_persistent = decided.can_be_persistent, cycle_start = decided.cycle_start,
        cycle_end = decided.cycle_end, effective_date = decided.effective_date, cancelled_date = decided.cancelled_date,
        quantity = decided.quantity, unit_price = decided.unit_price, amount = decided.amount,
        taxable_flag = decided.taxable_flag, unit_cost = decided.unit_cost,
        invoice_description = decided.invoice_description, rules = decided.rules, run_id = audit.current_run_id(),
        decided_at = now();
