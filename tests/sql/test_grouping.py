"""Which Addition carries a line, and that ConnectWise then bills every line exactly once, whatever the agreement."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import date, timedelta
from decimal import Decimal

import pytest
from sql_world import (
    JULY,
    JUNE,
    MAY,
    MONTHS,
    Customer,
    Line,
    World,
    add_months,
    cycle_of,
    month_end,
    monthly,
    rounded,
)

AUGUST = date(2026, 8, 1)


def three_months(world: World, *, invoiced: bool = False, **changes: object) -> tuple[Customer, list[Line]]:
    """A subscription's lines of May, June and July, one night each; changes are of the June line.

    invoiced: ConnectWise invoices each cycle before the next month's line arrives.
    """
    customer = world.customer()
    lines = []
    for period in (MAY, JUNE, JULY):
        line = monthly(period, **(changes if period == JUNE else {}))
        lines.append(line)
        world.invoice(customer, line)
        if invoiced:
            world.invoiced_until(customer.agreement_id, period)
        world.night()
    return customer, lines


def spans(world: World, customer: Customer) -> list[tuple[str, str, Decimal]]:
    """First day, last day and price of each billable Addition."""
    records = world.connectwise.additions_of.get(customer.agreement_id, {}).values()
    return sorted(
        (record["effectiveDate"][:10], record["cancelledDate"][:10], record["extPrice"])
        for record in records
        if record["billCustomer"] == "Billable"
    )


# -- persistent Additions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("invoiced", [False, True])
def test_equal_values_in_following_months_share_one_addition(world: World, invoiced: bool) -> None:
    customer, lines = three_months(world, invoiced=invoiced)

    assert len({world.key(line) for line in lines}) == 1
    assert spans(world, customer) == [("2026-05-01", "2026-07-31", Decimal("20.00"))]


def test_equal_months_decided_together_share_one_addition(world: World) -> None:
    customer = world.customer()
    lines = [monthly(period) for period in (MAY, JUNE, JULY)]
    for line in lines:
        world.invoice(customer, line)

    assert world.night().created == 1
    assert spans(world, customer) == [("2026-05-01", "2026-07-31", Decimal("20.00"))]


def test_changed_values_start_a_new_addition_while_the_earlier_cycle_is_open(world: World) -> None:
    customer, lines = three_months(world, unit_price=12)

    assert len({world.key(line) for line in lines}) == 3
    assert spans(world, customer) == [
        ("2026-05-01", "2026-05-31", Decimal("20.00")), ("2026-06-01", "2026-06-30", Decimal("24.00")),
        ("2026-07-01", "2026-07-31", Decimal("20.00")),
    ]  # fmt: skip


def test_changed_values_update_the_addition_in_place_once_its_cycles_are_invoiced(world: World) -> None:
    customer = world.customer()
    may, june = monthly(MAY), monthly(JUNE, quantity=5)
    world.invoice(customer, may)
    world.night()
    world.invoiced_until(customer.agreement_id, JUNE)
    world.invoice(customer, june)

    counts = world.night()

    assert (counts.created, counts.updated) == (0, 1)
    assert world.key(may) == world.key(june)
    assert spans(world, customer) == [("2026-05-01", "2026-06-30", Decimal("50.00"))]


def test_another_product_starts_a_new_addition_even_after_invoicing(world: World) -> None:
    customer = world.customer()
    may, june = monthly(MAY), monthly(JUNE)
    world.invoice(customer, may)
    world.night()
    world.invoiced_until(customer.agreement_id, JUNE)
    world.map_offer("offer", world.product())
    world.invoice(customer, june)

    world.night()

    assert world.key(may) != world.key(june)


@pytest.mark.parametrize("is_one_night", [False, True])
def test_a_gap_of_a_month_starts_a_new_addition(world: World, is_one_night: bool) -> None:
    customer = world.customer()
    may, july = monthly(MAY), monthly(JULY)
    world.invoice(customer, may)
    if not is_one_night:
        world.night()
    world.invoice(customer, july)
    world.night()

    assert world.key(may) != world.key(july)
    assert spans(world, customer) == [
        ("2026-05-01", "2026-05-31", Decimal("20.00")), ("2026-07-01", "2026-07-31", Decimal("20.00"))
    ]  # fmt: skip


def test_an_addition_ends_with_the_last_cycle_that_a_line_paid_for(world: World) -> None:
    customer, _ = three_months(world)

    assert world.connectwise.billed(customer.agreement_id, AUGUST, date(2026, 8, 31)) == 0


def test_a_second_recurring_line_of_a_cycle_gets_a_dated_addition_of_its_own(world: World) -> None:
    customer = world.customer()
    first, second = monthly(MAY), monthly(MAY, charge_type="PurchaseFee", unit_price=3)
    world.invoice(customer, first, second)

    world.night()

    assert [world.decision(line)["is_persistent"] for line in (first, second)] == [True, False]
    assert world.connectwise.billed(customer.agreement_id, MAY, month_end(MAY)) == Decimal("26.00")


def test_a_second_recurring_line_that_arrives_later_is_dated_too(world: World) -> None:
    customer = world.customer()
    world.invoice(customer, monthly(MAY))
    world.night()
    second = monthly(MAY)
    world.invoice(customer, second)

    world.night()

    assert world.decision(second)["is_persistent"] is False
    assert world.connectwise.billed(customer.agreement_id, MAY, month_end(MAY)) == Decimal("40.00")


def test_the_charge_period_stands_in_the_description_of_a_second_line_of_a_cycle(world: World) -> None:
    first, second = monthly(MAY), monthly(MAY, charge_type="PurchaseFee")
    world.invoice(world.customer(), first, second)

    world.decide()

    assert "2026-05-01 to 2026-05-31" in world.decision(second)["invoice_description"]


def test_two_subscriptions_of_one_offer_never_share(world: World) -> None:
    customer = world.customer()
    lines = [monthly(period, subscription_id=name) for name in ("one", "two") for period in (MAY, JUNE)]
    for line in lines:
        world.invoice(customer, line)

    world.night()

    assert world.key(lines[0]) == world.key(lines[1]) != world.key(lines[2]) == world.key(lines[3])
    assert world.connectwise.billed(customer.agreement_id, JUNE, month_end(JUNE)) == Decimal("40.00")


def test_one_subscription_on_two_agreements_never_shares(world: World) -> None:
    customer = world.customer()
    other = world.agreement(customer.company_id, agreement_type_id=None)
    world.map_contract("contract", other)
    may, june = monthly(MAY), monthly(JUNE, contract_id="contract")
    world.invoice(customer, may)
    world.invoice(customer, june)

    world.night()

    assert world.key(may) != world.key(june)
    assert world.decision(june)["agreement_id"] == other


def test_in_dated_mode_every_recurring_line_has_its_own_addition_with_its_period(world: World) -> None:
    world.setting("recurring_mode", "dated")
    customer, lines = three_months(world)

    assert len({world.key(line) for line in lines}) == 3
    assert not any(world.decision(line)["is_persistent"] for line in lines)
    assert "2026-06-01 to 2026-06-30" in world.decision(lines[1])["invoice_description"]
    assert len(spans(world, customer)) == 3


def test_a_month_that_arrives_after_the_following_one_gets_an_addition_of_its_own(world: World) -> None:
    customer = world.customer()
    may, june, july = (monthly(period) for period in (MAY, JUNE, JULY))
    for line in (june, may, july):
        world.invoice(customer, line)
        world.night()

    assert world.key(june) == world.key(july) != world.key(may)
    assert [
        world.connectwise.billed(customer.agreement_id, period, month_end(period)) for period in (MAY, JUNE, JULY)
    ] == [20] * 3


# -- cycles other than the line's -------------------------------------------------------------------------------------


def test_a_yearly_line_on_a_monthly_agreement_is_dated_and_touches_one_cycle(world: World) -> None:
    customer = world.customer()
    line = Line(start=date(2026, 5, 10), end=date(2027, 5, 9), frequency="Every 12 months", unit_price=120)
    world.invoice(customer, line)

    world.night()

    decision = world.decision(line)
    assert decision["is_persistent"] is False
    assert (decision["effective_date"], decision["cancelled_date"]) == (date(2026, 5, 10), date(2026, 5, 31))
    assert "2026-05-10 to 2027-05-09" in decision["invoice_description"]
    assert spans(world, customer) == [("2026-05-10", "2026-05-31", Decimal("240.00"))]


def test_quarterly_lines_on_a_quarterly_agreement_share_one_addition(world: World) -> None:
    customer = world.customer("Quarterly", next_invoice_date=date(2026, 4, 1))
    lines = [
        Line(start=start, end=month_end(add_months(start, 2)), frequency="Every 3 months")
        for start in (date(2026, 4, 1), date(2026, 7, 1))
    ]
    for line in lines:
        world.invoice(customer, line)

    world.night()

    assert world.key(lines[0]) == world.key(lines[1])
    assert spans(world, customer) == [("2026-04-01", "2026-09-30", Decimal("20.00"))]


def test_monthly_lines_on_a_quarterly_agreement_are_dated_within_its_cycle(world: World) -> None:
    customer = world.customer("Quarterly", next_invoice_date=date(2026, 4, 1))
    lines = [monthly(period) for period in (date(2026, 4, 1), MAY, JUNE)]
    for line in lines:
        world.invoice(customer, line)

    world.night()

    assert len({world.key(line) for line in lines}) == 3
    assert world.connectwise.billed(customer.agreement_id, date(2026, 4, 1), date(2026, 6, 30)) == Decimal("60.00")


def test_a_contract_cycle_from_the_tenth_is_followed(world: World) -> None:
    customer = world.customer(
        invoicing_cycle="ContractYear", bill_start_date=date(2026, 1, 10), next_invoice_date=date(2026, 5, 10)
    )
    lines = [
        Line(start=start, end=add_months(start, 1) - timedelta(days=1))
        for start in (date(2026, 5, 10), date(2026, 6, 10))
    ]
    for line in lines:
        world.invoice(customer, line)

    world.night()

    assert world.key(lines[0]) == world.key(lines[1])
    assert spans(world, customer) == [("2026-05-10", "2026-07-09", Decimal("20.00"))]


def test_a_charge_that_begins_before_the_billing_start_of_its_cycle_moves_to_it(world: World) -> None:
    customer = world.customer(bill_start_date=date(2026, 5, 12))
    line = monthly(MAY, charge_type="UsageFee")
    world.invoice(customer, line)

    world.night()

    assert world.decision(line)["effective_date"] == date(2026, 5, 12)
    assert world.decision(line)["rules"]["moved_to_bill_start"] is True


# -- late lines -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("charge_type", ["CycleFee", "UsageFee"])
def test_a_late_line_goes_to_the_next_open_cycle_and_says_so(world: World, charge_type: str) -> None:
    customer = world.customer(next_invoice_date=JULY)
    line = monthly(MAY, charge_type=charge_type)
    world.invoice(customer, line)

    world.night()

    decision = world.decision(line)
    assert (decision["is_late"], decision["is_persistent"]) == (True, False)
    assert decision["rules"]["moved_to_open_cycle"] is True
    assert "2026-05-01 to 2026-05-31" in decision["invoice_description"]
    assert spans(world, customer) == [("2026-07-01", "2026-07-31", Decimal("20.00"))]


def test_a_late_line_does_not_stop_the_on_time_line_of_the_same_cycle(world: World) -> None:
    customer = world.customer(next_invoice_date=JUNE)
    late, on_time = monthly(MAY), monthly(JUNE)
    world.invoice(customer, late)
    world.invoice(customer, on_time)

    world.night()

    assert [world.decision(line)["is_persistent"] for line in (late, on_time)] == [False, True]
    assert world.connectwise.billed(customer.agreement_id, JUNE, month_end(JUNE)) == Decimal("40.00")


# -- what ConnectWise then bills, over generated customers ------------------------------------------------------------


def some_agreement(chance: random.Random) -> tuple[str, dict[str, object]]:
    cycle = chance.choice(["Monthly", "Monthly", "BiMonthly", "Quarterly", "SemiAnnual", "Yearly"])
    bill_start = date(2025, chance.randint(1, 12), chance.choice([1, 1, 10, 28]))
    if chance.random() < 0.3:
        bill_start = month_end(bill_start)
    invoicing = chance.choice(["CalendarYear", "ContractYear"])
    values: dict[str, object] = {"invoicing_cycle": invoicing, "bill_start_date": bill_start}
    anchor = bill_start if invoicing == "ContractYear" else date(2026, 1, 1)
    first_open = cycle_of(chance.choice([date(2026, 4, 15), MAY, JUNE]), MONTHS[cycle] or 1, anchor)[0]
    values["next_invoice_date"] = first_open
    return cycle, values


def some_line(chance: random.Random, period: date, subscriptions: list[str]) -> Line:
    months = chance.choice([1, 1, 1, 3, 12])
    start = period if chance.random() < 0.6 else period.replace(day=chance.randint(1, 28))
    if chance.random() < 0.15:
        start = add_months(start, chance.choice([-2, -1, 1]))
    end = add_months(start, months) - timedelta(days=1) if chance.random() < 0.8 else start
    quantity = Decimal(chance.choice(["1", "2", "2", "7", "-1", "0.333", "1234.5678"]))
    price = Decimal(chance.choice(["10", "10", "3.3333", "0.0007", "19.99", "-4.25"]))
    line = Line(
        subscription_id=chance.choice(subscriptions), start=start, end=end, quantity=quantity, unit_price=price,
        charge_type=chance.choice(["CycleFee", "CycleFee", "CycleFee", "PurchaseFee", "UsageFee", "Correction"]),
        frequency=f"Every {months} months",
    )  # fmt: skip
    if chance.random() < 0.1:  # the source rounds its own way
        assert line.total is not None
        line.total += Decimal("0.01")
    return line


@pytest.mark.parametrize("seed", [1, 20261122])
def test_connectwise_bills_each_line_once_in_its_own_cycle_whatever_the_agreement(world: World, seed: int) -> None:
    """Three nights over random customers; cycles are invoiced in between, and all bills add up to the lines."""
    chance = random.Random(seed)
    world.setting("bound_customer_factor", "off")  # nothing is usual about totals drawn by lot
    world.setting("credits", "send")  # and nothing is charged for the credits among them
    customers: list[tuple[Customer, int, date, dict[str, object]]] = []
    with world.connection.transaction():
        for _ in range(40):
            cycle, values = some_agreement(chance)
            anchor = values["bill_start_date"] if values["invoicing_cycle"] == "ContractYear" else date(2020, 1, 1)
            customers.append((world.customer(cycle, **values), MONTHS[cycle] or 1, anchor, values))  # type: ignore[arg-type]
    billed: dict[tuple[int, date], Decimal] = {}
    owed: dict[int, Decimal] = defaultdict(Decimal)
    for period in (MAY, JUNE, JULY):
        for customer, _, _, _ in customers:
            lines = [some_line(chance, period, [f"{customer.agreement_id} a", f"{customer.agreement_id} b"])
                     for _ in range(chance.randint(0, 3))]  # fmt: skip
            if lines:
                world.invoice(customer, *lines, day=period)
                owed[customer.agreement_id] += sum((line.total or Decimal(0) for line in lines), Decimal(0))
        world.decide()
        check_plan(world, customers)
        world.deliver()
        assert world.prove() == []
        for customer, months, anchor, _ in customers:  # ConnectWise invoices some of the cycles
            if chance.random() < 0.6:
                invoice_cycle(world, customer, months, anchor, billed)
    for customer, months, anchor, _ in customers:
        for _ in range(26):
            invoice_cycle(world, customer, months, anchor, billed)

    held = world.value("select count(*) from billing.line_decision where outcome <> 'deliver'")
    assert held == 0, world.rows("select reason_code, detail from billing.held_reason limit 5")
    for customer, _, _, _ in customers:
        bills = {
            start: money for (agreement_id, start), money in billed.items() if agreement_id == customer.agreement_id
        }
        assert sum(bills.values(), Decimal(0)) == owed[customer.agreement_id], (seed, customer, bills)


def invoice_cycle(
    world: World, customer: Customer, months: int, anchor: date, billed: dict[tuple[int, date], Decimal]
) -> None:
    next_date = world.value(
        "select next_invoice_date from mapping.agreement where agreement_id = %s", customer.agreement_id
    )
    start, end = cycle_of(next_date, months, anchor)
    assert (customer.agreement_id, start) not in billed
    billed[customer.agreement_id, start] = world.connectwise.billed(customer.agreement_id, start, end)
    world.invoiced_until(customer.agreement_id, end + timedelta(days=1))


def check_plan(world: World, customers: list[tuple[Customer, int, date, dict[str, object]]]) -> None:
    """Each planned Addition touches exactly the cycles of its lines (those carried before, too), for their money."""
    by_agreement = {customer.agreement_id: (months, anchor) for customer, months, anchor, _ in customers}
    for item in world.items():
        months, anchor = by_agreement[item["agreement_id"]]
        lines = world.rows(
            """
            select cycle_start, cycle_end, amount, true as is_new from delivery.plan_item_line where plan_item_id = %s
            union all
            select cycle_start, cycle_end, amount, false from delivery.addition_line where delivery_key = %s
            """,
            item["plan_item_id"], item["delivery_key"],
        )  # fmt: skip
        first, last = (date.fromisoformat(item["payload"][name][:10]) for name in ("effectiveDate", "cancelledDate"))
        touched, day = [], first
        while day <= last:
            touched.append(cycle_of(day, months, anchor))
            day = touched[-1][1] + timedelta(days=1)
        assert touched == sorted((line["cycle_start"], line["cycle_end"]) for line in lines), item
        bill = rounded(Decimal(item["payload"]["quantity"]) * Decimal(item["payload"]["unitPrice"]))
        assert all(line["amount"] == bill for line in lines if line["is_new"]), item
        assert item["amount"] == sum(line["amount"] for line in lines if line["is_new"])
