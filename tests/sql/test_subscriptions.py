"""reporting.subscription: what each customer runs, which Addition bills it, and what is amiss."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from sql_world import JUNE, MAY, Customer, Line, World, monthly


@pytest.fixture
def customer(world: World) -> Customer:
    return world.customer()


def subscribe(world: World, customer: Customer, subscription_id: str = "sub", **values: Any) -> None:
    """A subscription as AppXite lists it."""
    row = {
        "subscription_id": subscription_id, "organization_id": customer.organization_id, "offer_id": "offer",
        "name": "Cloud Suite", "status": "Active", "quantity": 2, "start_date": MAY, **values,
    }  # fmt: skip
    world.insert("mapping.subscription", **row)


def only(world: World) -> dict[str, Any]:
    return world.row("select * from reporting.subscription")


def amiss(world: World) -> str | None:
    found: str | None = only(world)["amiss"]
    return found


def test_a_subscription_shows_what_bills_it(world: World, customer: Customer) -> None:
    subscribe(world, customer)
    world.invoice(customer, monthly(MAY))
    world.night()

    row = only(world)

    addition = world.connectwise.only(customer.agreement_id)
    assert (row["company_id"], row["agreement_id"]) == (customer.company_id, customer.agreement_id)
    assert row["addition_ids"] == [addition["id"]]
    assert (row["quantity"], row["line_quantity"], row["unit_price"], row["currency"]) == (2, 2, Decimal(10), "EUR")
    assert (row["state"], row["since"], row["paid_until"]) == ("Active", MAY, date(2026, 5, 31))
    assert (row["product"], row["offer_id"], row["next_open_cycle"]) == (
        world.value("select identifier from mapping.product"), "offer", MAY,
    )  # fmt: skip
    assert row["amiss"] is None


def test_an_active_one_whose_line_is_held_says_why(world: World, customer: Customer) -> None:
    subscribe(world, customer)
    world.invoice(customer, monthly(MAY))
    world.night()
    world.set_agreement(customer.agreement_id, prorates=True)
    world.invoice(customer, monthly(JUNE))
    world.night()

    row = only(world)

    assert row["amiss"] == (
        "active without an Addition now: The agreement prorates, so ConnectWise would prorate the amount again"
    )
    assert (row["addition_ids"], row["paid_until"]) == (None, date(2026, 5, 31))


def test_an_active_one_that_is_on_no_invoice_any_more_is_seen(world: World, customer: Customer) -> None:
    subscribe(world, customer)
    world.invoice(customer, monthly(MAY))
    world.night()
    world.invoice(customer, monthly(JUNE, subscription_id=None, name="Something else"))
    world.night()

    assert amiss(world) == "active without an Addition now: no line on an invoice of 2026-06"


def test_one_whose_line_waits_in_a_plan_says_so(world: World, customer: Customer) -> None:
    subscribe(world, customer)
    world.invoice(customer, monthly(MAY))
    world.decide()

    assert amiss(world) == "active without an Addition now: its line awaits approval"


def test_one_that_begins_after_the_newest_invoice_is_not_missed_yet(world: World, customer: Customer) -> None:
    world.invoice(customer, monthly(MAY, subscription_id=None))
    subscribe(world, customer, start_date=date(2026, 5, 20))
    world.night()

    assert amiss(world) is None
    world.invoice(customer, monthly(JUNE, subscription_id=None))
    world.night()
    assert amiss(world) == "active without an Addition now: no line on an invoice of 2026-06"


def test_usage_of_last_month_on_this_months_invoice_is_billed_now(world: World, customer: Customer) -> None:
    subscribe(world, customer)
    usage = Line(charge_type="UsageFee", start=MAY, end=date(2026, 5, 31), frequency="One Time")
    world.invoice(customer, usage, day=JUNE)
    world.night()

    assert amiss(world) is None


def test_a_year_paid_in_one_line_is_paid_all_year(world: World, customer: Customer) -> None:
    subscribe(world, customer)
    world.invoice(customer, Line(start=MAY, end=date(2027, 4, 30), frequency="Every 12 months"))
    world.invoice(customer, monthly(JUNE, subscription_id=None))
    world.night()

    assert (only(world)["paid_until"], amiss(world)) == (date(2027, 4, 30), None)


def test_what_a_person_excluded_is_not_missed(world: World, customer: Customer) -> None:
    subscribe(world, customer)
    line = monthly(MAY)
    world.invoice(customer, line)
    world.decide()
    world.override(line, is_excluded=True, reason="free")
    world.decide()

    assert amiss(world) is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"status": "Cancelled"}, "billed by an Addition, though in AppXite it is Cancelled"),
        (
            {"status": "Suspended", "end_date": date(2026, 4, 30)},
            "billed by an Addition, though in AppXite it is Suspended",
        ),
        ({"is_gone": True}, "billed by an Addition, though in AppXite it is not listed"),
        ({"status": "Cancelled", "end_date": date(2026, 5, 20)}, None),  # paid to the end of its cycle
    ],
)
def test_an_addition_without_an_active_subscription_is_seen(
    world: World, customer: Customer, values: dict[str, Any], words: str | None
) -> None:
    subscribe(world, customer, **values)
    world.invoice(customer, monthly(MAY))
    world.night()

    assert amiss(world) == words


def test_one_that_appxite_does_not_list_is_known_from_its_lines(world: World, customer: Customer) -> None:
    world.invoice(customer, monthly(MAY))
    world.night()

    row = only(world)

    assert (row["subscription_id"], row["subscription_name"], row["state"]) == ("sub", "Cloud Suite", "not listed")
    assert (row["organization_id"], row["since"]) == (customer.organization_id, MAY)
    assert row["amiss"] == "billed by an Addition, though in AppXite it is not listed"


def test_another_quantity_than_on_the_last_line_is_seen(world: World, customer: Customer) -> None:
    subscribe(world, customer, quantity=5)
    world.invoice(customer, monthly(MAY))
    correction = Line(charge_type="Correction", quantity=5, unit_price=1, frequency="One Time")
    world.invoice(customer, correction)
    world.night()

    assert amiss(world) == "quantity 5 in AppXite, 2 on its last line"
    world.execute("update mapping.subscription set quantity = 2")
    assert amiss(world) is None


def test_one_row_per_subscription_and_every_line_of_it(world: World, customer: Customer) -> None:
    for name in ("a", "b", "never"):
        subscribe(world, customer, name)
    world.invoice(customer, monthly(MAY, subscription_id="a"), monthly(MAY, subscription_id="b", quantity=7))
    world.invoice(customer, Line(subscription_id="a", charge_type="OneTimeFee", frequency="One Time"))
    world.night()

    rows = {row["subscription_id"]: row for row in world.rows("select * from reporting.subscription")}

    assert set(rows) == {"a", "b", "never"}
    assert len(rows["a"]["addition_ids"]) == 2
    assert rows["b"]["amiss"] == "quantity 2 in AppXite, 7 on its last line"
    assert rows["never"]["amiss"] == "active without an Addition now: no line on an invoice of 2026-05"
    assert rows["never"]["company_id"] == customer.company_id
