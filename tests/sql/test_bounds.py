"""Bounds park instead of pay: what is beyond one waits, with figures; the rest is billed; a person lets it pass."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest
from sql_world import JULY, JUNE, MAY, Customer, Invoice, Line, World, add_months, month_end, monthly

from billing_sync import bounds
from billing_sync.db import run_sql_file
from billing_sync.decide import BOUND_ADDITIONS, BOUND_AMOUNTS, BOUND_PLAN, GROUP_LINES, MAKE_PLAN, STEPS
from billing_sync.errors import ConfigurationError, SourceDataError
from billing_sync.plan import approve_automatically, approve_plan, say_awaiting_approval
from billing_sync.run import finish_run

AUGUST = date(2026, 8, 1)


@pytest.fixture(autouse=True)
def small_minimum(world: World) -> None:
    """Less than the default, so that a line is still far from its own bound."""
    world.setting("bound_customer_minimum", "1000")
    world.setting("credits", "send")  # that a credit needs a charge is looked at in test_credits.py


def one_time(day: date = MAY, **values: object) -> Line:
    """A line that gets an Addition of its own."""
    return Line(start=day, end=day, charge_type="OneTimeFee", frequency="One Time", **values)  # type: ignore[arg-type]


def allow(world: World, key: str, up_to: str, note: str | None = None) -> None:
    bounds.allow(world.connection, key, up_to, "ann", note)


def detail(world: World, line: Line, code: str) -> str:
    return str(
        world.value(
            "select detail from billing.held_reason where line_id = %s and reason_code = %s", world.line_id(line), code
        )
    )


def billed(world: World, customer: Customer, month: date) -> Decimal:
    return Decimal(world.connectwise.billed(customer.agreement_id, month, month_end(month)))


# -- new Additions of an agreement -------------------------------------------------------------------------------------


@pytest.fixture
def busy(world: World) -> tuple[World, Customer, list[Line]]:
    """A customer with 4 new Additions where 3 are the bound, and a neighbour with 1."""
    world.setting("bound_additions_per_agreement", "3")
    customer, neighbour = world.customer(), world.customer()
    lines = [one_time() for _ in range(4)]
    world.invoice(customer, *lines)
    world.invoice(neighbour, one_time())
    return world, customer, lines


def test_too_many_new_additions_of_an_agreement_park_all_of_them_and_nothing_else(
    busy: tuple[World, Customer, list[Line]],
) -> None:
    world, customer, lines = busy
    counts = world.night()

    assert counts.created == 1
    assert [world.reasons(line) for line in lines] == [{"too_many_additions"}] * 4
    agreement = f"Agreement {customer.agreement_id} ({customer.agreement_id})"
    assert detail(world, lines[0], "too_many_additions") == f"4 new Additions on agreement {agreement}, bound 3"
    assert world.proof(world.invoices[0])["held"] == Decimal("80.00")
    assert world.proof(world.invoices[1])["delivered"] == Decimal("20.00")
    assert world.night().writes == 0


def test_as_many_as_the_bound_are_billed(world: World) -> None:
    world.setting("bound_additions_per_agreement", "3")
    world.invoice(world.customer(), *(one_time() for _ in range(3)))

    assert world.night().created == 3


def test_the_bound_can_be_off(busy: tuple[World, Customer, list[Line]]) -> None:
    world, _, _ = busy
    world.setting("bound_additions_per_agreement", "off")

    assert world.night().created == 5


def test_lines_that_share_a_new_addition_count_once(world: World) -> None:
    world.setting("bound_additions_per_agreement", "1")
    customer = world.customer()
    for month in (MAY, JUNE, JULY):
        world.invoice(customer, monthly(month))

    assert world.night().created == 1
    assert billed(world, customer, JULY) == Decimal("20.00")


def test_what_prolongs_an_addition_goes_on(world: World) -> None:
    world.setting("bound_additions_per_agreement", "1")
    customer = world.customer()
    world.invoice(customer, monthly(MAY))
    world.night()
    prolonged, new = monthly(JUNE), [one_time(JUNE) for _ in range(2)]
    world.invoice(customer, prolonged, *new)

    counts = world.night()

    assert (counts.created, counts.updated) == (0, 1)
    assert world.is_carried(prolonged)
    assert {world.outcome(line) for line in new} == {"held"}
    assert billed(world, customer, JUNE) == Decimal("20.00")


def test_letting_pass_delivers_exactly_that_and_a_larger_figure_parks_again(
    busy: tuple[World, Customer, list[Line]],
) -> None:
    world, customer, lines = busy
    world.night()
    key = f"too_many_additions/{customer.agreement_id}"
    (parked,) = bounds.parked_now(world.connection)
    assert (parked.bound_key, parked.figure, parked.lines, parked.money_at_risk) == (key, 4, 4, Decimal("80.00"))
    allow(world, key, "4", "a new project")

    assert world.night().created == 4
    assert all(world.is_carried(line) for line in lines)
    assert bounds.parked_now(world.connection) == []

    again = [one_time(JUNE) for _ in range(4)]
    world.invoice(customer, *again)
    assert world.night().created == 4
    more = [one_time(JULY) for _ in range(5)]
    world.invoice(customer, *more)
    assert world.night().created == 0
    assert {world.outcome(line) for line in more} == {"held"}


def test_what_was_let_pass_can_be_taken_back(busy: tuple[World, Customer, list[Line]]) -> None:
    world, customer, lines = busy
    world.night()
    key = f"too_many_additions/{customer.agreement_id}"
    allow(world, key, "4")
    bounds.withdraw(world.connection, key, "bert")

    assert world.night().created == 0
    assert world.outcome(lines[0]) == "held"
    changes = world.rows(
        "select changed_by, before ->> 'up_to' as before, after ->> 'up_to' as after from audit.change"
        " where table_name = 'billing.bound_allowance' and row_key = %s order by change_id",
        key,
    )
    assert [tuple(change.values()) for change in changes] == [("ann", None, "4"), ("bert", "4", None)]
    with pytest.raises(ConfigurationError, match=f"Nothing was let pass as '{key}'"):
        bounds.withdraw(world.connection, key, "bert")


def test_letting_pass_counts_in_the_same_run_when_its_steps_run_again(
    busy: tuple[World, Customer, list[Line]],
) -> None:
    world, customer, lines = busy
    run_id = world.decide()
    allow(world, f"too_many_additions/{customer.agreement_id}", "4")
    for step in (BOUND_ADDITIONS, MAKE_PLAN):
        run_sql_file(world.connection, step, run_id)

    assert {world.outcome(line) for line in lines} == {"deliver"}
    assert len(world.items()) == 5
    assert world.value("select count(*) from billing.held_reason") == 0


def test_a_parked_line_that_is_then_held_for_something_else_is_no_longer_counted(
    busy: tuple[World, Customer, list[Line]],
) -> None:
    world, _, lines = busy
    world.night()
    lines[0].charge_type = "Mystery"

    assert world.night().created == 3
    assert world.reasons(lines[0]) == {"unknown_charge_type"}


def test_a_parked_line_that_is_then_excluded_has_no_reasons_left(busy: tuple[World, Customer, list[Line]]) -> None:
    world, _, lines = busy
    world.night()
    world.override(lines[0], is_excluded=True, reason="billed by hand")

    assert world.night().created == 3
    assert (world.outcome(lines[0]), world.reasons(lines[0])) == ("excluded", set())


def interleave(world: World, other: int, run_id: int, first: str, then: str) -> None:
    """A run up to the step `first`; another one up to `then`; the rest of the first."""
    for steps, by in (
        (STEPS[: STEPS.index(first)], run_id),
        (STEPS[: STEPS.index(then)], other),
        (STEPS[STEPS.index(first) :], run_id),
    ):
        for step in steps:
            run_sql_file(world.connection, step, by)


def test_too_many_additions_are_not_planned_while_another_run_counts_them_again(
    busy: tuple[World, Customer, list[Line]],
) -> None:
    world, _, lines = busy
    world.decide()
    other, run_id = world.open(), world.open()
    interleave(world, other, run_id, MAKE_PLAN, BOUND_ADDITIONS)

    assert len(world.items(run_id)) == 1  # the neighbour's
    for step in STEPS[STEPS.index(BOUND_ADDITIONS) :]:
        run_sql_file(world.connection, step, other)
    assert [(world.outcome(line), world.reasons(line)) for line in lines] == [("held", {"too_many_additions"})] * 4


def test_a_run_that_dies_before_it_judged_the_bounds_frees_nothing_for_ever(world: World) -> None:
    world.setting("bound_amount_per_line", "100")
    line = one_time(quantity=1, unit_price=200)
    world.invoice(world.customer(), line)
    world.decide()
    died = world.open()
    for step in STEPS[: STEPS.index(BOUND_AMOUNTS)]:
        run_sql_file(world.connection, step, died)
    assert (world.outcome(line), world.reasons(line)) == ("deliver", {"amount_above_bound"})

    world.night()
    assert (world.outcome(line), world.reasons(line)) == ("held", {"amount_above_bound"})
    for step in STEPS[: STEPS.index(BOUND_AMOUNTS)]:
        run_sql_file(world.connection, step, died)
    world.setting("bound_amount_per_line", "off")
    world.night()
    assert (world.is_carried(line), world.reasons(line)) == (True, set())


def test_a_parked_line_founds_no_addition_while_another_run_judges_it_again(world: World) -> None:
    world.setting("bound_amount_per_line", "100")
    customer = world.customer()
    may, june = (monthly(month, quantity=1, unit_price=200) for month in (MAY, JUNE))
    world.invoice(customer, may)
    world.invoice(customer, june)
    world.decide()
    allow(world, f"amount_above_bound/{world.line_id(june)}", "200.00")
    other, run_id = world.open(), world.open()
    interleave(world, other, run_id, GROUP_LINES, BOUND_AMOUNTS)

    (item,) = world.items(run_id)
    assert item["delivery_key"].endswith(f"/{june.row_id}/1")


def test_lines_refused_before_are_counted_again_when_they_changed(world: World) -> None:
    customer = world.customer()
    lines = [one_time() for _ in range(4)]
    world.invoice(customer, *lines)
    world.connectwise.refuse = "no"
    world.decide()
    world.deliver()
    world.connectwise.refuse = None
    world.setting("bound_additions_per_agreement", "3")
    for line in lines:
        line.price(11)
    world.decide()

    assert {"too_many_additions"} <= world.reasons(lines[0])
    assert world.items() == []


# -- amount of a line --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amount", "is_held"),
    [("1000.00", False), ("1000.01", True), ("-1000.00", False), ("-1000.01", True), ("0.00", False)],
)
def test_a_line_above_the_bound_is_parked_charge_or_credit(world: World, amount: str, is_held: bool) -> None:
    world.setting("bound_amount_per_line", "1000")
    line, small = one_time(quantity=1, unit_price=Decimal(amount)), one_time()
    invoice = world.invoice(world.customer(), line, small)
    world.night()

    assert world.reasons(line) == ({"amount_above_bound"} if is_held else set())
    assert world.is_carried(line) is not is_held
    assert world.is_carried(small)
    assert world.proof(invoice)["held"] == (Decimal(amount) if is_held else 0)
    if is_held:
        assert detail(world, line, "amount_above_bound") == f"{Decimal(amount):,} EUR, bound 1,000"


def test_by_default_50_000_is_the_bound_and_it_can_be_off(world: World) -> None:
    line = one_time(quantity=1, unit_price=Decimal("50000.01"))
    world.invoice(world.customer(), line)
    world.night()
    assert world.reasons(line) == {"amount_above_bound"}
    world.setting("bound_amount_per_line", "off")

    assert world.night().created == 1


def test_a_typed_price_is_what_the_bound_looks_at(world: World) -> None:
    world.setting("bound_amount_per_line", "1000")
    line = one_time(quantity=1, unit_price=10)
    world.invoice(world.customer(), line)
    world.decide()
    world.override(line, unit_price=1001, reason="agreed")
    world.decide()

    assert world.reasons(line) == {"amount_above_bound"}


@pytest.mark.parametrize(("price", "passes"), [("1999.00", True), ("2000.01", False), ("-2000.00", False)])
def test_a_line_passes_up_to_what_was_seen(world: World, price: str, passes: bool) -> None:
    world.setting("bound_amount_per_line", "1000")
    line = one_time(quantity=1, unit_price=Decimal("2000.00"))
    world.invoice(world.customer(), line)
    world.night()
    allow(world, f"amount_above_bound/{world.line_id(line)}", "2000.00")
    line.price(price)
    world.night()

    assert world.is_carried(line) is passes


def test_a_parked_line_founds_no_addition_and_its_neighbours_in_time_are_billed_right(world: World) -> None:
    """May, June and July would share one Addition; June and July pass, May waits: they must not go under May's key."""
    world.setting("bound_amount_per_line", "1000")
    customer = world.customer()
    may, june, july = (monthly(month, quantity=1, unit_price=2000) for month in (MAY, JUNE, JULY))
    for line in (may, june, july):
        world.invoice(customer, line)
    world.night()
    for line in (june, july):
        allow(world, f"amount_above_bound/{world.line_id(line)}", "2000.00")

    assert world.night().created == 1
    assert world.key(june) == world.key(july) == f"tests/{world.decision(june)['delivery_key'].split('/', 1)[1]}"
    assert [billed(world, customer, month) for month in (MAY, JUNE, JULY)] == [0, 2000, 2000]

    allow(world, f"amount_above_bound/{world.line_id(may)}", "2000.00")
    assert world.night().created == 1
    assert world.key(may) != world.key(june)
    assert [billed(world, customer, month) for month in (MAY, JUNE, JULY)] == [2000, 2000, 2000]
    assert world.night().writes == 0


def test_a_line_parked_in_the_middle_splits_its_addition_and_joins_later(world: World) -> None:
    world.setting("bound_amount_per_line", "1000")
    customer = world.customer()
    may, june, july = (monthly(month, quantity=1, unit_price=2000) for month in (MAY, JUNE, JULY))
    for line in (may, june, july):
        world.invoice(customer, line)
    world.night()
    for line in (may, july):
        allow(world, f"amount_above_bound/{world.line_id(line)}", "2000.00")
    assert world.night().created == 2
    assert [billed(world, customer, month) for month in (MAY, JUNE, JULY)] == [2000, 0, 2000]
    allow(world, f"amount_above_bound/{world.line_id(june)}", "2000.00")
    world.night()

    assert [billed(world, customer, month) for month in (MAY, JUNE, JULY)] == [2000, 2000, 2000]


def test_a_line_shows_its_bound_beside_other_reasons_and_keeps_its_age(world: World) -> None:
    world.setting("bound_amount_per_line", "1000")
    line = one_time(quantity=1, unit_price=2000, offer_id="unmapped")
    world.invoice(world.customer(), line)
    world.night()
    assert world.reasons(line) == {"amount_above_bound", "offer_unmapped"}
    world.execute("update billing.held_reason set held_since = '2026-01-01'")
    world.night()
    world.map_offer("unmapped", world.product())
    world.night()

    assert world.reasons(line) == {"amount_above_bound"}
    assert f"{world.value('select min(held_since)::date from billing.held_reason')}" == "2026-01-01"
    assert world.outcome(line) == "held"


def test_a_line_let_pass_in_the_same_run_is_grouped_and_planned(world: World) -> None:
    world.setting("bound_amount_per_line", "1000")
    line = one_time(quantity=1, unit_price=2000)
    world.invoice(world.customer(), line)
    run_id = world.decide()
    allow(world, f"amount_above_bound/{world.line_id(line)}", "2000")
    for step in (BOUND_AMOUNTS, GROUP_LINES, BOUND_ADDITIONS, MAKE_PLAN):
        run_sql_file(world.connection, step, run_id)

    assert [item["amount"] for item in world.items()] == [Decimal("2000.00")]
    assert world.reasons(line) == set()


def test_an_approved_plan_does_not_deliver_what_a_later_run_parked(world: World) -> None:
    line, small = one_time(quantity=1, unit_price=2000), one_time()
    world.invoice(world.customer(), line)
    world.invoice(world.customer(), small)
    older = world.decide()
    approve_plan(world.connection, world.plan(older), "ann")
    world.setting("bound_amount_per_line", "1000")
    world.decide()
    world.deliver(older)

    assert world.is_carried(small)
    assert not world.is_carried(line)


# -- total of a customer -----------------------------------------------------------------------------------------------


def bill(world: World, customer: Customer, month: date, total: str, **values: object) -> Line:
    line = one_time(month, quantity=1, unit_price=Decimal(total))
    world.invoice(customer, line, **values)  # type: ignore[arg-type]
    return line


@pytest.mark.parametrize(
    ("before", "total", "is_held"),
    [
        (["1000"], "3000.00", False),
        (["1000"], "3000.01", True),
        (["1000"], "-3000.01", True),  # a credit as large
        (["1000"], "-2999.99", False),
        (["100"], "1100.00", False),  # 11 times, but by no more than 1,000
        (["100"], "1100.01", True),
        (["1000", "2000", "3000"], "6000.00", False),  # the average is 2,000
        (["1000", "2000", "3000"], "6000.01", True),
        (["9000", "1000", "1000", "1000"], "3000.01", True),  # only the three latest count
        (["-1000"], "3000.01", True),  # a month of credits is a usual, too
        (["5000"], "1.00", False),  # less is no error
        ([], "1000000.00", False),  # nothing to compare with; the bound per line is off here
    ],
)
def test_a_total_far_above_the_usual_is_parked(world: World, before: list[str], total: str, is_held: bool) -> None:
    world.setting("bound_amount_per_line", "off")
    customer, neighbour = world.customer(), world.customer()
    months = [add_months(date(2026, 6, 1), number) for number in range(len(before) + 1)]
    for month, amount in zip(months, before, strict=False):
        bill(world, customer, month, amount)
    if before:
        world.setting("bound_customer_factor", "off")
        world.night()
        world.setting("bound_customer_factor", "3")
    line, other = bill(world, customer, months[-1], total), bill(world, neighbour, months[-1], "7.00")
    world.night()

    assert world.reasons(line) == ({"customer_total_unusual"} if is_held else set())
    assert world.is_carried(other)
    if is_held:
        assert f"{Decimal(total):,} EUR in {months[-1]:%Y-%m}, usual " in detail(world, line, "customer_total_unusual")


def test_by_default_three_times_the_usual_and_5_000_are_the_bound(world: World) -> None:
    seeded = "select value from seed.setting where setting_key = 'bound_customer_minimum'"
    world.setting("bound_customer_minimum", str(world.value(seeded)))
    small, large = world.customer(), world.customer()
    for customer, usual in ((small, "100.00"), (large, "4000.00")):
        bill(world, customer, MAY, usual)
    world.night()
    passes = [bill(world, small, JUNE, "5100.00"), bill(world, large, JUNE, "12000.00")]
    world.night()
    assert all(world.is_carried(line) for line in passes)
    parked = [bill(world, small, JUNE, "0.01"), bill(world, large, JUNE, "0.01")]
    world.night()
    assert [world.reasons(line) for line in parked] == [{"customer_total_unusual"}] * 2


def test_all_lines_of_the_period_and_currency_wait_and_no_others(world: World) -> None:
    customer = world.customer()
    earlier = bill(world, customer, MAY, "100.00")
    world.night()
    lines = [bill(world, customer, JUNE, "2000.00"), bill(world, customer, JUNE, "10.00")]
    dollars = one_time(JUNE, quantity=1, unit_price=5000, currency="USD")
    world.invoice(customer, dollars, currency="USD")
    late = bill(world, customer, MAY, "20.00")
    world.night()

    assert [world.reasons(line) for line in lines] == [{"customer_total_unusual"}] * 2
    assert world.reasons(dollars) == {"agreement_currency_differs"}
    assert world.is_carried(earlier)
    assert world.is_carried(late)
    (parked,) = bounds.parked_now(world.connection)
    assert parked.bound_key == f"customer_total_unusual/{customer.organization_id}/2026-06/EUR"
    assert (parked.figure, parked.lines, parked.money_at_risk) == (Decimal("2010.00"), 2, Decimal("2010.00"))


def test_a_customer_is_let_pass_up_to_what_was_seen(world: World) -> None:
    customer = world.customer()
    bill(world, customer, MAY, "100.00")
    world.night()
    line = bill(world, customer, JUNE, "2000.00")
    world.night()
    allow(world, f"customer_total_unusual/{customer.organization_id}/2026-06/EUR", "2000.00")
    world.night()
    assert world.is_carried(line)

    more = bill(world, customer, JUNE, "0.01")
    world.night()
    assert world.reasons(more) == {"customer_total_unusual"}
    next_month = bill(world, customer, JULY, "2000.00")  # what was let pass is part of the usual now
    world.night()
    assert world.reasons(next_month) == {"customer_total_unusual"}
    allow(world, f"customer_total_unusual/{customer.organization_id}/2026-06/EUR", "2000.01")
    world.night()
    assert world.is_carried(more)
    assert world.is_carried(next_month)


def test_excluding_what_is_wrong_frees_the_rest(world: World) -> None:
    customer = world.customer()
    bill(world, customer, MAY, "100.00")
    world.night()
    wrong, right = bill(world, customer, JUNE, "9000.00"), bill(world, customer, JUNE, "110.00")
    world.night()
    world.override(wrong, is_excluded=True, reason="a mistake of AppXite")
    world.night()

    assert world.is_carried(right)
    assert world.outcome(wrong) == "excluded"


def test_two_wrong_months_do_not_vouch_for_each_other(world: World) -> None:
    world.setting("bound_amount_per_line", "off")
    customer = world.customer()
    bill(world, customer, MAY, "100.00")
    world.night()
    june, july = bill(world, customer, JUNE, "900000.00"), bill(world, customer, JULY, "900000.00")
    world.night()
    august = bill(world, customer, AUGUST, "900000.00")
    world.night()

    assert [world.reasons(line) for line in (june, july, august)] == [{"customer_total_unusual"}] * 3


def test_a_backfill_of_an_earlier_month_does_not_look_at_later_ones(world: World) -> None:
    customer = world.customer()
    july = bill(world, customer, JULY, "100.00")
    world.decide("backfill", JULY)
    world.deliver()
    june = bill(world, customer, JUNE, "9000.00")
    world.decide("backfill", JUNE)
    world.deliver()
    assert world.is_carried(july)
    assert world.is_carried(june)
    may = bill(world, customer, MAY, "10.00")
    world.decide("backfill", MAY)
    world.deliver()
    assert world.is_carried(may)


def test_an_invoice_that_does_not_add_up_is_nobodys_usual(world: World) -> None:
    customer = world.customer()
    world.invoice(customer, one_time(MAY, quantity=1, unit_price=1), total=Decimal("5000.00"))
    world.night()
    line = bill(world, customer, JUNE, "5000.00")
    world.night()

    assert world.is_carried(line)


@pytest.mark.parametrize("was_delivered", [True, False])
def test_a_withdrawn_invoice_counts_neither_for_the_total_nor_for_the_usual(world: World, was_delivered: bool) -> None:
    customer = world.customer()
    bill(world, customer, MAY, "100.00")
    wrong = bill(world, customer, MAY, "9000.00")
    world.decide("nightly", MAY)
    if was_delivered:
        world.deliver()
    world.invoices[:] = [one for one in world.invoices if one.lines != [wrong]]
    bill(world, customer, MAY, "20.00")
    june = bill(world, customer, JUNE, "2000.00")
    world.decide("nightly", MAY, JUNE)

    assert world.reasons(june) == {"customer_total_unusual"}
    assert "2,000.00 EUR in 2026-06, usual 120.00," in detail(world, june, "customer_total_unusual")
    wrong = bill(world, customer, JUNE, "500.00")
    world.decide("nightly", MAY, JUNE)
    world.invoices[:] = [one for one in world.invoices if one.lines != [wrong]]
    world.decide("nightly", MAY, JUNE)
    assert "2,000.00 EUR in 2026-06" in detail(world, june, "customer_total_unusual")


def oracle(
    months: dict[date, Decimal], waits: set[date], factor: int, minimum: int, allowed: dict[date, Decimal]
) -> set[date]:
    """The months that are parked: months not yet delivered whose size is unusual beside their latest three before."""
    parked: set[date] = set()
    latest: list[Decimal] = []
    for month in sorted(months):
        total = months[month]
        usual = sum(latest[-3:], Decimal(0)) / len(latest[-3:]) if latest else None
        up_to = allowed.get(month)
        is_allowed = up_to is not None and abs(total) <= abs(up_to) and (total > 0) == (up_to > 0)
        if (
            month in waits
            and usual is not None
            and not is_allowed
            and abs(total) > factor * usual
            and abs(total) - usual > minimum
        ):
            parked.add(month)
        else:
            latest.append(abs(total))
    return parked


@pytest.mark.parametrize("seed", [1, 2, 20261122])
def test_generated_customers_are_parked_as_the_rule_says_in_whatever_order_their_months_come(
    world: World, seed: int
) -> None:
    chance = random.Random(seed)
    world.setting("bound_amount_per_line", "off")
    world.setting("bound_customer_factor", str(factor := chance.choice([2, 3])))
    world.setting("bound_customer_minimum", str(minimum := chance.choice([0, 500])))
    customers = [world.customer() for _ in range(6)]
    months = [add_months(MAY, number) for number in range(7)]
    known: dict[Customer, dict[date, Decimal]] = {customer: {} for customer in customers}
    waits: dict[Customer, set[date]] = {customer: set() for customer in customers}
    allowed: dict[Customer, dict[date, Decimal]] = {customer: {} for customer in customers}
    lines: dict[tuple[Customer, date], Line] = {}
    order = chance.sample(months, len(months))
    verdicts = []
    for month in order:
        for customer in customers:
            if chance.random() < 0.15:
                continue
            size = chance.choice([0, 40, 400, 1300, 4100, 90_000]) + chance.randrange(100) / 100
            total = Decimal(str(round(size * chance.choice([1, 1, 1, -1]), 2)))
            lines[customer, month] = bill(world, customer, month, str(total))
            known[customer][month] = total
            waits[customer].add(month)
        kind = chance.choice(["nightly", "backfill"])
        world.decide(kind, month)  # type: ignore[arg-type]
        judged = {
            customer: oracle(known[customer], waits[customer], factor, minimum, allowed[customer])
            for customer in customers
        }
        for customer in customers:
            in_scope = waits[customer] if kind == "nightly" else waits[customer] & {month}
            for one in sorted(in_scope):
                is_parked = "customer_total_unusual" in world.reasons(lines[customer, one])
                assert is_parked == (one in judged[customer]), (seed, customer, one, known[customer])
                verdicts.append(is_parked)
        world.deliver()
        for customer in customers:
            in_scope = waits[customer] if kind == "nightly" else waits[customer] & {month}
            waits[customer] -= in_scope - judged[customer]
            for one in sorted(in_scope & judged[customer]):
                if chance.random() < 0.3:
                    total = known[customer][one]
                    allow(world, f"customer_total_unusual/{customer.organization_id}/{one:%Y-%m}/EUR", str(total))
                    allowed[customer][one] = total
    assert world.prove() == []
    assert min(verdicts.count(True), verdicts.count(False)) > 3, "the cases are not worth their name"


# -- the whole plan ----------------------------------------------------------------------------------------------------


def invoices(world: World, month: date, count: int, customer: Customer | None = None) -> list[Invoice]:
    customer = customer or world.customer()
    return [world.invoice(customer, one_time(month)) for _ in range(count)]


def automatic(world: World, run_id: int) -> bool:
    world.setting("automated_daily_sync", "on")
    return approve_automatically(world.connection, run_id)


def parked_plan(world: World, run_id: int | None = None) -> dict[str, str]:
    """Reason codes and details of what parks the run's plan."""
    rows = world.rows("select reason_code, detail from delivery.plan_bound where plan_id = %s", world.plan(run_id))
    return {row["reason_code"]: row["detail"] for row in rows}


def test_a_night_without_any_invoice_after_nights_with_some_is_an_alarm(world: World) -> None:
    invoices(world, MAY, 2)
    world.night(MAY)
    run_id = world.decide("nightly", JUNE, JULY)

    assert parked_plan(world)["no_invoices"].startswith("AppXite gave no invoice at all in 2026-06, 2026-07")
    with pytest.raises(
        SourceDataError, match=r"AppXite gave no invoice at all in 2026-06, 2026-07, though .* 2 before"
    ):
        automatic(world, run_id)
    assert world.value(
        "select message from audit.log_entry where level = 'ERROR' and code = 'plan_parked_no_invoices'"
    ).startswith(f"Plan {world.plan()} is parked: AppXite gave no invoice at all")
    world.prove()
    world.execute("update audit.run set proven_at = now() where run_id = %s", run_id)
    assert finish_run(world.connection, run_id) == "awaiting_approval"
    assert f"{world.plan()} has nothing to write. It is parked: 2026-06" in say_awaiting_approval(
        world.connection, run_id
    )

    world.decide("nightly", JUNE, JULY)  # the next night says it anew, and the plan before it gives way
    assert world.value("select state from delivery.plan where run_id = %s", run_id) == "superseded"
    assert {one.plan_id for one in bounds.parked_now(world.connection)} == {world.plan()}
    allow(world, "no_invoices", "2", "we moved to another platform")
    run_id = world.decide("nightly", JULY, AUGUST)
    assert "no_invoices" not in parked_plan(world)
    assert automatic(world, run_id)


def test_the_first_night_of_all_may_be_empty(world: World) -> None:
    run_id = world.decide("nightly", MAY, JUNE)

    assert parked_plan(world) == {}
    assert automatic(world, run_id)


def test_a_run_by_hand_over_a_month_without_invoices_is_no_alarm(world: World) -> None:
    invoices(world, JULY, 2)
    world.night(JULY)
    run_id = world.decide("manual", MAY)

    assert automatic(world, run_id)


@pytest.mark.parametrize(
    ("before", "now", "is_parked"),
    [(12, 5, True), (12, 6, False), (1, 0, True), (0, 0, False), (9, 1, False), (10, 4, True), (10, 5, False)],
)
def test_a_month_that_is_over_with_far_fewer_invoices_than_the_one_before_parks_the_plan(
    world: World, before: int, now: int, is_parked: bool
) -> None:
    customer = world.customer()
    invoices(world, MAY, before, customer)
    world.night(MAY)
    invoices(world, JUNE, now, customer)
    invoices(world, JULY, 1, customer)
    run_id = world.decide("nightly", JUNE, JULY)

    expected = f"2026-06 is over and has {now} invoices, the month before had {before}: less than 50 %"
    assert parked_plan(world) == ({"few_invoices": expected} if is_parked else {})
    assert automatic(world, run_id) is not is_parked


def test_withdrawn_invoices_of_the_month_before_do_not_count(world: World) -> None:
    customer = world.customer()
    gone = invoices(world, MAY, 10, customer)
    invoices(world, MAY, 10, customer)
    world.night(MAY)
    world.invoices[:] = [one for one in world.invoices if one not in gone]
    world.night(MAY)
    invoices(world, JUNE, 6, customer)
    invoices(world, JULY, 1, customer)
    run_id = world.decide("nightly", JUNE, JULY)

    assert parked_plan(world) == {}
    assert automatic(world, run_id)


def test_the_month_under_way_fills_up_day_by_day(world: World) -> None:
    customer = world.customer()
    invoices(world, MAY, 12, customer)
    run_id = world.decide("nightly", MAY, JUNE)

    assert automatic(world, run_id)


def test_invoices_still_to_be_verified_are_there(world: World) -> None:
    customer = world.customer()
    invoices(world, MAY, 12, customer)
    world.night(MAY)
    for invoice in invoices(world, JUNE, 8, customer):
        invoice.status = "New"
    run_id = world.decide("nightly", JUNE, JULY)
    assert automatic(world, run_id)

    for invoice in world.invoices:
        invoice.status = invoice.status.replace("New", "Draft")
    run_id = world.decide("nightly", JUNE, JULY)
    assert set(parked_plan(world)) == {"few_invoices", "no_invoices"}


def test_a_backfilled_month_is_over_when_later_invoices_are_known(world: World) -> None:
    customer = world.customer()
    invoices(world, JULY, 12, customer)
    invoices(world, MAY, 12, customer)
    world.night(MAY, JULY)
    run_id = world.decide("backfill", JUNE)

    assert set(parked_plan(world)) == {"few_invoices"}
    assert not automatic(world, run_id)
    key, figure = "few_invoices/2026-06", "12"
    assert [(one.bound_key, str(one.figure), one.plan_id) for one in bounds.parked_now(world.connection)] == [
        (key, figure, world.plan())
    ]
    allow(world, key, figure)
    assert automatic(world, world.decide("backfill", JUNE))


def test_the_percentage_can_be_another_one_and_off(world: World) -> None:
    customer = world.customer()
    invoices(world, MAY, 20, customer)
    world.night(MAY)
    invoices(world, JUNE, 5, customer)
    world.decide("nightly", JUNE, JULY)
    assert set(parked_plan(world)) == {"few_invoices"}
    world.setting("bound_fewer_invoices_percent", "25")
    world.decide("nightly", JUNE, JULY)
    assert parked_plan(world) == {}
    world.setting("bound_fewer_invoices_percent", "off")
    world.invoices.clear()
    assert automatic(world, world.decide("nightly", JUNE, JULY))


@pytest.mark.parametrize(("kept", "is_parked"), [(5, True), (6, False), (0, True)])
def test_invoices_that_were_accepted_and_are_gone_park_the_plan(world: World, kept: int, is_parked: bool) -> None:
    customer = world.customer()
    invoices(world, MAY, 12, customer)
    invoices(world, JUNE, 1, customer)
    world.decide("nightly", MAY, JUNE)
    world.invoices[:] = world.invoices[12 - kept :]
    world.decide("nightly", MAY, JUNE)

    expected = (
        f"{12 - kept} of 12 invoices of 2026-05 that were accepted before are not in AppXite's answer any more:"
        " less than 50 % are left"
    )
    assert parked_plan(world).get("invoices_missing") == (expected if is_parked else None)


def test_many_removed_lines_park_every_plan_until_one_is_approved(world: World) -> None:
    world.setting("bound_removed_lines", "2")
    customer = world.customer()
    lines = [one_time() for _ in range(5)]
    invoice = world.invoice(customer, *lines)
    world.decide()
    invoice.lines = lines[:2]
    first = world.decide()
    expected = {
        "lines_removed": "AppXite removed 3 lines (60.00) from accepted invoices since the last approved plan, bound 2"
    }
    assert parked_plan(world) == expected
    assert not automatic(world, first)

    second = world.decide()  # nothing is left to remove
    assert parked_plan(world) == expected
    assert not automatic(world, second)
    with pytest.raises(ConfigurationError, match="then approve the plan that waits"):
        allow(world, "lines_removed", "3")

    world.deliver()  # a person approves
    third = world.decide()
    assert parked_plan(world) == {}
    assert automatic(world, third)


def test_lines_removed_while_a_run_was_repeated_are_approved_with_its_plan(world: World) -> None:
    world.setting("bound_removed_lines", "2")
    customer = world.customer()
    lines = [one_time() for _ in range(4)]
    invoice = world.invoice(customer, *lines)
    world.decide()
    invoice.lines = lines[:1]
    world.again()  # the plan was made before the lines were removed
    assert set(parked_plan(world)) == {"lines_removed"}
    world.deliver()
    world.decide()

    assert parked_plan(world) == {}


def test_removed_lines_within_the_bound_do_not_add_up_over_approved_plans(world: World) -> None:
    world.setting("bound_removed_lines", "2")
    customer = world.customer()
    lines = [one_time() for _ in range(6)]
    invoice = world.invoice(customer, *lines)
    world.night()
    for left in (4, 2):
        invoice.lines = lines[:left]
        run_id = world.decide()
        assert parked_plan(world) == {}
        assert automatic(world, run_id)
        world.deliver()
    world.setting("bound_removed_lines", "off")
    invoice.lines = []
    world.decide()
    assert parked_plan(world) == {}


def test_a_run_that_is_decided_again_after_the_cure_is_free(world: World) -> None:
    customer = world.customer()
    invoices(world, MAY, 1, customer)
    world.night(MAY)
    run_id = world.decide("nightly", JUNE, JULY)
    assert set(parked_plan(world)) == {"few_invoices", "no_invoices"}
    invoices(world, JUNE, 1, customer)
    world.again()
    run_sql_file(world.connection, BOUND_PLAN, run_id)

    assert parked_plan(world) == {}
    assert automatic(world, run_id)


def test_a_dry_run_says_it_and_waits_as_ever(world: World) -> None:
    invoices(world, MAY, 1)
    world.night(MAY)
    run_id = world.decide("nightly", JUNE, JULY, is_dry_run=True)

    assert not automatic(world, run_id)
    assert "It is parked: " in say_awaiting_approval(world.connection, run_id)
    said = "select exists (select from audit.log_entry where level = 'ERROR' and code = 'plan_parked_no_invoices')"
    assert world.value(said)


# -- letting pass ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("up_to", ["5", "3", "-4", "four", "NaN", ""])
def test_only_the_figure_that_stands_now_is_let_pass(busy: tuple[World, Customer, list[Line]], up_to: str) -> None:
    world, customer, _ = busy
    world.night()
    with pytest.raises(ConfigurationError, match=r"too_many_additions/\d+ is at 4, not at .*: look at it again"):
        allow(world, f"too_many_additions/{customer.agreement_id}", up_to)
    with pytest.raises(ConfigurationError, match=r"Nothing is parked as 'x' any more\."):
        allow(world, "x", "4")
    assert bounds.allowed(world.connection) == []


@pytest.mark.parametrize(
    ("figure", "up_to", "is_within"),
    [
        ("1", "1", True),
        ("1.01", "1", False),
        ("-1", "1", False),
        ("-1", "-1", True),
        ("-1.01", "-1", False),
        ("0", "0", True),
    ],
)
def test_within(world: World, figure: str, up_to: str, is_within: bool) -> None:
    assert world.value("select billing.is_within(%s, %s)", Decimal(figure), Decimal(up_to)) is is_within
    assert world.value("select billing.is_within(%s, null)", Decimal(figure)) is False


def test_lines_of_a_copy_of_a_parked_one_wait_as_well(world: World) -> None:
    """What was let pass is the line, not whatever looks like it."""
    world.setting("bound_amount_per_line", "1000")
    customer = world.customer()
    line = one_time(quantity=1, unit_price=2000)
    invoice = world.invoice(customer, line)
    world.night()
    allow(world, f"amount_above_bound/{world.line_id(line)}", "2000")
    invoice.lines.append(copy := replace(line, row_id="copy"))
    world.night()

    assert world.is_carried(line)
    assert world.reasons(copy) == {"amount_above_bound"}
