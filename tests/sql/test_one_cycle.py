"""A dated Addition touches exactly one open ConnectWise cycle, whatever the rule, the cycle and the dates typed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sql_world import JULY, JUNE, MAY, MONTHS, REQUESTER, World, add_months, cycle_of, month_end, monthly
from test_functions import RULES, by_rule

from billing_sync.db import run_sql_file
from billing_sync.decide import APPLY_RULES, GROUP_LINES, HOLD_LINES, MAP_LINES, RESOLVE_AGREEMENTS
from billing_sync.run import open_run

odd_days = [date(2024, 2, 29), date(2023, 2, 28), date(2024, 1, 31), date(2025, 12, 31), date(2026, 1, 1)]
days = st.one_of(st.dates(date(2023, 6, 1), date(2026, 6, 30)), st.sampled_from(odd_days))


@dataclass(frozen=True)
class Case:
    """One line, its rules, its agreement, and what a person typed."""

    cycle: str
    is_contract_year: bool
    bill_start: date
    next_invoice_date: date
    start: date
    end: date
    invoice_date: date
    start_rule: str
    end_rule: str
    is_recurring: bool
    typed_start: date | None
    typed_end: date | None

    def cycle_of(self, day: date) -> tuple[date, date]:
        months = MONTHS[self.cycle]
        assert months is not None
        return cycle_of(day, months, self.bill_start if self.is_contract_year else date(2020, 1, 1))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    cycle = draw(st.sampled_from(["Monthly", "BiMonthly", "Quarterly", "SemiAnnual", "Yearly"]))
    bill_start = draw(st.one_of(st.dates(date(2022, 1, 1), date(2024, 6, 30)), st.sampled_from(odd_days[:3])))
    is_contract_year = draw(st.booleans())
    months = MONTHS[cycle]
    assert months is not None
    some_day = add_months(bill_start, months * draw(st.integers(0, 12)))
    anchor = bill_start if is_contract_year else date(2020, 1, 1)
    # ConnectWise has it on the first day of a cycle; a person may have moved it.
    first_open = max(bill_start, cycle_of(some_day, months, anchor)[0]) + timedelta(draw(st.sampled_from([0, 0, 0, 9])))
    start = draw(days)
    end = start + timedelta(draw(st.one_of(st.integers(0, 31), st.integers(0, 400))))
    typed = st.one_of(st.none(), st.none(), st.integers(-40, 70))
    typed_start, typed_end = draw(typed), draw(typed)
    return Case(
        cycle, is_contract_year, bill_start, first_open, start, end, start + timedelta(draw(st.integers(-20, 40))),
        draw(st.sampled_from(RULES)), draw(st.sampled_from(RULES)), draw(st.booleans()),
        None if typed_start is None else start + timedelta(typed_start),
        None if typed_end is None else start + timedelta(typed_end),
    )  # fmt: skip


def expected(case: Case, late_lines: str) -> tuple[set[str], date, date]:
    """Why it is held, and the dates, in Python."""
    start = case.typed_start or by_rule(case.start_rule, case.start, case.invoice_date, case.next_invoice_date)
    end = case.typed_end or by_rule(case.end_rule, case.end, case.invoice_date, case.next_invoice_date)
    is_late = case.cycle_of(start)[0] < case.next_invoice_date and start < case.next_invoice_date
    effective = start
    if is_late:
        effective = case.next_invoice_date
    elif start < case.bill_start and case.cycle_of(start) == case.cycle_of(case.bill_start):
        effective = case.bill_start
    last_day = case.cycle_of(effective)[1]
    is_persistent = case.is_recurring and not is_late and not case.typed_start and not case.typed_end
    if is_persistent or (is_late and (case.typed_end is None or case.typed_end < effective)):
        cancelled = last_day
    elif case.typed_end:
        cancelled = case.typed_end
    else:
        cancelled = min(max(end, effective), last_day)
    reasons = set()
    if is_late and late_lines == "hold":
        reasons.add("late_line")
    if effective < case.bill_start:
        reasons.add("before_bill_start")
    if not effective <= cancelled <= last_day:
        reasons.add("typed_dates_not_usable")
    return reasons, effective, cancelled


def write(world: World, run_id: int, numbered: list[tuple[int, Case]]) -> None:
    """A customer, an agreement, a charge type, an invoice and a line for each case."""
    makers = {
        "mapping.company": lambda n, _: {"company_id": n, "name": f"C{n}", "status": "Active"},
        "mapping.agreement": lambda n, case: {
            "agreement_id": n, "agreement_type_id": 1, "company_id": n, "agreement_status": "Active", "currency": "EUR",
            "billing_cycle_id": list(MONTHS).index(case.cycle) + 1, "bill_start_date": case.bill_start,
            "invoicing_cycle": "ContractYear" if case.is_contract_year else "CalendarYear",
            "next_invoice_date": case.next_invoice_date,
        },
        "mapping.organization": lambda n, _: {"organization_id": str(n), "name": f"O{n}"},
        "mapping.organization_mapping": lambda n, _: {
            "organization_id": str(n), "company_id": n, "state": "approved", "decided_by": "ann",
        },
        "billing.charge_type": lambda n, case: {
            "charge_type": f"T{n}", "display_name": "Charge", "is_recurring": case.is_recurring,
            "charge_start_rule": case.start_rule, "charge_end_rule": case.end_rule,
        },
        "billing.invoice": lambda n, case: {
            "invoice_id": n, "billing_period": case.invoice_date.replace(day=1), "invoice_date": case.invoice_date,
            "status": "Verified", "organization_id": str(n), "currency": "EUR", "total_amount": 20, "adds_up": True,
            "first_run_id": run_id, "last_run_id": run_id,
        },
        "billing.invoice_line": lambda n, case: {
            "line_key": f"L{n}", "invoice_id": n, "subscription_id": f"s{n}", "offer_id": "offer",
            "charge_type": f"T{n}", "charge_start_date": case.start, "charge_end_date": case.end, "quantity": 2,
            "billing_frequency": f"Every {MONTHS[case.cycle]} months", "unit_price": 10, "total_price": 20,
            "currency": "EUR", "content_hash": "", "first_run_id": run_id,
        },
    }  # fmt: skip
    for table, make in makers.items():
        world.insert_many(table, [make(n, case) for n, case in numbered])
    world.insert_many(
        "billing.override",
        [
            {"line_id": line_id, "effective_date": case.typed_start, "cancelled_date": case.typed_end}
            for n, case in numbered
            if case.typed_start or case.typed_end
            for line_id in [world.value("select line_id from billing.invoice_line where line_key = %s", f"L{n}")]
        ],
    )


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=st.lists(cases(), min_size=1, max_size=40), late_lines=st.sampled_from(["next_open_cycle", "hold"]))
def test_a_dated_addition_touches_one_open_cycle(world: World, drawn: list[Case], late_lines: str) -> None:
    numbered = list(enumerate(drawn, 5001))
    with world.connection.transaction(force_rollback=True):
        world.offer(offer_id="offer")
        world.setting("late_lines", late_lines)
        run_id = open_run(
            world.connection, dag_id="tests", dag_run_id="one cycle", kind="nightly", billing_periods=[MAY],
            requester_id=REQUESTER,
        )  # fmt: skip
        write(world, run_id, numbered)
        for step in (MAP_LINES, RESOLVE_AGREEMENTS, APPLY_RULES, HOLD_LINES, GROUP_LINES):
            run_sql_file(world.connection, step, run_id)
        decided = {
            row["invoice_id"]: row
            for row in world.rows(
                """
                select line.invoice_id, decision.*, array(
                    select reason_code from billing.held_reason as reason where reason.line_id = line.line_id
                ) as reasons
                from billing.invoice_line as line join billing.line_decision as decision using (line_id)
                """
            )
        }
    for number, case in numbered:
        row = decided[number]
        assert (set(row["reasons"]), row["effective_date"], row["cancelled_date"]) == expected(case, late_lines), case
        assert (row["outcome"] == "deliver") == (not row["reasons"]), case
        if row["outcome"] == "deliver":
            touched = {case.cycle_of(row["effective_date"]), case.cycle_of(row["cancelled_date"])}
            assert touched == {(row["cycle_start"], row["cycle_end"])}, case
            assert row["effective_date"] <= row["cancelled_date"], case
            assert row["effective_date"] >= case.bill_start, case
            assert row["cycle_end"] >= case.next_invoice_date, case  # not invoiced yet
            assert row["effective_date"] >= case.next_invoice_date or row["cycle_start"] >= case.next_invoice_date, case


# -- dates that a person types ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "detail"),
    [
        (
            {"effective_date": MAY.replace(day=10), "cancelled_date": JULY},
            "from 2026-05-10 to 2026-07-01, billing cycle 2026-05-01 to 2026-05-31",
        ),
        ({"cancelled_date": JUNE}, "from 2026-05-01 to 2026-06-01, billing cycle 2026-05-01 to 2026-05-31"),
        (
            {"effective_date": MAY.replace(day=10), "cancelled_date": MAY.replace(day=9)},
            "from 2026-05-10 to 2026-05-09, billing cycle 2026-05-01 to 2026-05-31",
        ),
    ],
    ids=["three cycles", "end only", "ends before it starts"],
)
def test_typed_dates_beyond_one_cycle_are_held_and_dates_within_it_deliver(
    world: World, typed: dict[str, date], detail: str
) -> None:
    customer = world.customer()
    line = monthly(MAY, charge_type="UsageFee")
    invoice = world.invoice(customer, line)
    world.decide()
    world.override(line, **typed)

    world.night()

    assert world.reasons(line) == {"typed_dates_not_usable"}
    assert world.value("select detail from billing.held_reason") == detail
    assert world.proof(invoice)["held"] == Decimal("20.00")
    world.override(line, effective_date=MAY.replace(day=10), cancelled_date=MAY.replace(day=12))
    world.night()
    assert world.connectwise.billed(customer.agreement_id, MAY, month_end(MAY)) == Decimal("20.00")


def test_a_date_typed_in_a_closed_cycle_goes_to_the_next_open_one_or_is_held(world: World) -> None:
    customer = world.customer(next_invoice_date=JULY)
    line = monthly(JULY, charge_type="UsageFee")
    world.invoice(customer, line)
    world.decide()
    world.override(line, effective_date=MAY, cancelled_date=MAY.replace(day=3))
    world.setting("late_lines", "hold")

    world.decide()
    held = world.reasons(line)
    world.setting("late_lines", "next_open_cycle")
    world.night()

    assert held == {"late_line"}
    decision = world.decision(line)
    assert (decision["effective_date"], decision["cancelled_date"]) == (JULY, month_end(JULY))
    sources = world.value("select value_sources from reporting.invoice_line")
    assert (sources["effective_date"], sources["cancelled_date"]) == ("System Updated", "System Updated")


@pytest.mark.parametrize(
    ("missing", "typed"),
    [
        ({"start": None}, {"effective_date": MAY.replace(day=4)}),
        ({"end": None}, {"cancelled_date": MAY.replace(day=20)}),
        (
            {"start": None, "end": None},
            {"effective_date": MAY.replace(day=4), "cancelled_date": MAY.replace(day=20)},
        ),
        ({"end": date(2026, 4, 1)}, {"effective_date": MAY, "cancelled_date": MAY.replace(day=20)}),
    ],
    ids=["start", "end", "both", "ends before it starts"],
)
def test_typing_what_is_missing_releases_the_line(
    world: World, missing: dict[str, date | None], typed: dict[str, date]
) -> None:
    customer = world.customer()
    line = monthly(MAY, charge_type="UsageFee")
    for name, value in missing.items():
        setattr(line, name, value)
    world.invoice(customer, line, day=MAY)
    world.decide()
    before = world.reasons(line)
    world.override(line, **typed)

    world.night()

    assert before == {"dates_missing"}
    assert world.is_carried(line)
    decision = world.decision(line)
    assert {name: decision[name] for name in typed} == typed
    assert world.connectwise.billed(customer.agreement_id, MAY, month_end(MAY)) == Decimal("20.00")


def test_typing_only_one_of_two_missing_dates_is_not_enough(world: World) -> None:
    line = monthly(MAY, charge_type="UsageFee")
    line.start = line.end = None
    world.invoice(world.customer(), line, day=MAY)
    world.decide()
    world.override(line, effective_date=MAY)

    world.decide()

    assert world.reasons(line) == {"dates_missing"}
