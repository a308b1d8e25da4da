-- Guarantees: each line in scope has its agreement by the order of the design: chosen by a person, mapped contract,
-- agreement rules, the company's one active agreement of the default Agreement Type, which is the last rule. The first
-- rule that fits any agreement decides. Several candidates are kept as candidates; none is picked.
-- Needs billing/map_lines.sql before it.
-- May run again: writes only what differs. By hand: PGOPTIONS='-c billing.run_id=RUN' psql -1 -f FILE.

select pg_advisory_xact_lock(hashtext('billing.decide'));

create temporary table line_to_resolve on commit drop as
select
    line.line_id,
    override.agreement_id as chosen_agreement_id,
    contract_mapping.agreement_id as contract_agreement_id,
    decision.company_id,
    line.charge_type,
    charge_type.is_recurring,
    line.offer_id,
    line.currency,
    billing.frequency_months(line.billing_frequency) as frequency_months,
    -- Lines alike in these are resolved once.
    jsonb_build_array(
        decision.company_id, line.charge_type, line.offer_id, line.currency,
        billing.frequency_months(line.billing_frequency)
    )::text as likeness
from billing.line_in_scope as scope
join billing.line_decision as decision using (line_id)
join billing.invoice_line as line using (line_id)
join billing.invoice as invoice on invoice.invoice_id = line.invoice_id
left join billing.charge_type as charge_type on charge_type.charge_type = line.charge_type
left join billing.override as override on override.line_id = line.line_id
left join mapping.contract_mapping as contract_mapping
    on contract_mapping.contract_id = coalesce(line.contract_id, invoice.contract_id)
    and contract_mapping.state = 'approved';
analyze line_to_resolve;

create temporary table resolved_line on commit drop as
with usable_agreement as (
    select
        agreement.agreement_id, agreement.company_id, agreement.name, agreement.currency,
        agreement_type.name as agreement_type, billing_cycle.billing_option
    from mapping.agreement as agreement
    left join mapping.agreement_type as agreement_type using (agreement_type_id)
    left join mapping.billing_cycle as billing_cycle on billing_cycle.billing_cycle_id = agreement.billing_cycle_id
    where
        agreement.unusable is null
        and agreement_type.is_inactive is not true
        and agreement_type.is_gone is not true
        and not exists (
            select from mapping.doubled_agreement as doubled where doubled.agreement_id = agreement.agreement_id
        )
),
rule as (
    select
        position::bigint as position, agreement_rule, version, charge_type, line_kind, offer_id, agreement_type,
        agreement_name, currency, billing_cycle
    from mapping.agreement_rule
    union all
    select null, null, null, null, null, null, billing.text_setting('default_agreement_type'), null, null, null
    where billing.text_setting('default_agreement_type') is not null
),
kind_of_line as (
    select distinct likeness, company_id, charge_type, is_recurring, offer_id, currency, frequency_months
    from line_to_resolve
),
fitting as (
    select
        kind.likeness,
        rule.position,
        rule.agreement_rule,
        rule.version,
        array_agg(agreement.agreement_id order by agreement.agreement_id) as agreement_ids
    from kind_of_line as kind
    join usable_agreement as agreement on agreement.company_id = kind.company_id
    join rule on
        (rule.charge_type is null or rule.charge_type = kind.charge_type)
        and (rule.line_kind is null or (rule.line_kind = 'recurring') = kind.is_recurring)
        and (rule.offer_id is null or rule.offer_id = kind.offer_id)
        and (rule.agreement_type is null or rule.agreement_type = agreement.agreement_type)
        and (rule.agreement_name is null or agreement.name ilike mapping.like_pattern(rule.agreement_name))
        and (
            rule.currency is null
            or case rule.currency when 'line' then kind.currency else rule.currency end = agreement.currency
        )
        and (
            rule.billing_cycle is null
            or case rule.billing_cycle
                when 'line' then kind.frequency_months = billing.cycle_months(agreement.billing_option)
                else rule.billing_cycle = agreement.billing_option
            end
        )
    group by kind.likeness, rule.position, rule.agreement_rule, rule.version
),
deciding as (
    select distinct on (likeness) likeness, agreement_rule, version, agreement_ids
    from fitting
    order by likeness asc, position asc nulls last
)
select
    line.line_id,
    line.chosen_agreement_id,
    line.contract_agreement_id,
    deciding.agreement_rule,
    deciding.version,
    coalesce(deciding.agreement_ids, '{}') as candidate_ids,
    coalesce(line.chosen_agreement_id, line.contract_agreement_id) is not null as is_named
from line_to_resolve as line
left join deciding using (likeness);

merge into billing.line_decision as known
using (
    select
        line_id,
        coalesce(
            chosen_agreement_id, contract_agreement_id,
            case when cardinality(candidate_ids) = 1 then candidate_ids[1] end
        ) as agreement_id,
        case
            when chosen_agreement_id is not null then 'override'
            when contract_agreement_id is not null then 'contract'
            when cardinality(candidate_ids) = 1 and agreement_rule is not null then 'rule'
            when cardinality(candidate_ids) = 1 then 'default_type'
        end as agreement_source,
        candidate_ids as agreement_candidates,
        case when not is_named then agreement_rule end as agreement_rule,
        case when not is_named then version end as agreement_rule_version
    from resolved_line
) as decided on known.line_id = decided.line_id
when matched and (known.agreement_id, known.agreement_source, known.agreement_candidates, known.agreement_rule,
        known.agreement_rule_version)
    is distinct from (decided.agreement_id, decided.agreement_source, decided.agreement_candidates, decided.agreement_rule,
        decided.agreement_rule_version) then
    update set agreement_id = decided.agreement_id, agreement_source = decided.agreement_source,
        agreement_candidates = decided.agreement_candidates, agreement_rule = decided.agreement_rule,
        agreement_rule_version = decided.agreement_rule_version, run_id = audit.current_run_id(), decided_at = now();

-- Said once per agreement, not every night.
insert into audit.log_entry (run_id, level, code, message, subject)
select
    audit.current_run_id(), 'WARNING', 'agreement_doubled',
    format('Agreement %s carries the mark of agreement %s, which takes the lines. It bills nothing of ours: end it in ConnectWise, or clear the mark in its internal notes.',
        doubled.agreement_id, doubled.kept_agreement_id),
    jsonb_build_object('agreement_id', doubled.agreement_id, 'kept_agreement_id', doubled.kept_agreement_id)
from mapping.doubled_agreement as doubled
where not exists (
    select from audit.log_entry as said
    where said.code = 'agreement_doubled' and said.subject ->> 'agreement_id' = doubled.agreement_id::text
);
