"""Ways in which a customer could be billed twice, or not at all, with every number looking right."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from sql_world import JULY, JUNE, MAY, Line, World, month_end, monthly

from billing_sync.db import run_sql_file
from billing_sync.decide import STEPS


def billed(world: World, agreement_id: int, month: date) -> Decimal:
    return Decimal(world.connectwise.billed(agreement_id, month, month_end(month)))


@pytest.mark.parametrize("change", [{"row_id": "other-id"}, {"row_id": None, "end": date(2026, 6, 1)}])
def test_a_line_that_comes_back_under_another_key_is_not_billed_again(world: World, change: dict[str, Any]) -> None:
    customer = world.customer()
    first = monthly(MAY) if change["row_id"] else monthly(MAY, row_id=None)
    invoice = world.invoice(customer, first)
    world.night(MAY)
    invoice.lines = [replace(first, **change)]

    world.night(MAY)

    assert billed(world, customer.agreement_id, MAY) == Decimal("20.00")
    assert world.proof(invoice)["delivered"] == Decimal("20.00")
    assert {row["reason_code"] for row in world.rows("select reason_code from billing.held_reason")} == {
        "changed_after_delivery"
    }


def test_a_proof_that_turned_red_stays_red_when_connectwise_has_invoiced(world: World) -> None:
    customer = world.customer()
    world.invoice(customer, monthly(MAY))
    world.night(MAY)
    addition = world.connectwise.only(customer.agreement_id)
    world.connectwise.edit(customer.agreement_id, addition["id"], billCustomer="DoNotBill")
    world.decide("nightly", MAY)
    world.deliver()
    assert world.prove() != []

    world.invoiced_until(customer.agreement_id, JUNE)
    world.decide("nightly", MAY)
    world.deliver()

    assert world.prove() != []


@pytest.mark.parametrize("quantities", [(2, 2), (2, 3)])
def test_two_lines_of_one_cycle_never_share_an_addition(world: World, quantities: tuple[int, int]) -> None:
    """A run for one month ranks its line while a nightly run is between ranking and grouping."""
    customer = world.customer()
    in_advance, in_time = (monthly(JUNE, quantity=quantity) for quantity in quantities)
    world.invoice(customer, in_advance, day=date(2026, 5, 25))
    world.invoice(customer, in_time, day=date(2026, 6, 2))
    nightly = world.open("nightly", MAY, JUNE)
    grouping = STEPS.index("billing/group_lines.sql")
    for step in STEPS[:grouping]:
        run_sql_file(world.connection, step, nightly)
    manual = world.open("manual", JUNE)
    for step in STEPS[:grouping]:
        run_sql_file(world.connection, step, manual)
    for step in STEPS[grouping:]:
        run_sql_file(world.connection, step, nightly)
    world.run_id = nightly
    world.deliver()

    assert world.prove() == []
    assert billed(world, customer.agreement_id, JUNE) == Decimal(10 * sum(quantities))


def test_two_waiting_plans_of_one_cycle_do_not_stop_the_nights_after(world: World) -> None:
    customer = world.customer()
    world.invoice(customer, monthly(JUNE), day=date(2026, 5, 25))
    world.invoice(customer, monthly(JUNE), day=date(2026, 6, 2))
    older, newer = world.decide("backfill", MAY), world.decide("backfill", JUNE)
    world.deliver(older)
    world.deliver(newer)
    world.invoice(customer, monthly(JULY), day=JULY)

    world.night(JUNE, JULY)

    assert billed(world, customer.agreement_id, JUNE) == Decimal("40.00")
    assert billed(world, customer.agreement_id, JULY) == Decimal("20.00")


def test_an_addition_that_a_person_prolonged_after_its_cycle_was_invoiced_is_a_breach(world: World) -> None:
    customer = world.customer()
    world.invoice(customer, monthly(MAY))
    world.night(MAY)
    world.invoiced_until(customer.agreement_id, JUNE)
    addition = world.connectwise.only(customer.agreement_id)
    world.connectwise.edit(customer.agreement_id, addition["id"], cancelledDate="2027-12-31T00:00:00Z")
    world.decide("nightly", MAY)
    world.deliver()

    assert "bills_too_long" in [breach["code"] for breach in world.breaches()]


def change_mapping(world: World, customer: Any, line: Line) -> None:
    world.map_organization(customer.organization_id, None, "excluded")


def type_a_price(world: World, customer: Any, line: Line) -> None:
    world.execute(
        "insert into billing.override (line_id, unit_price, quantity) select line_id, 1, 1 from billing.invoice_line"
    )


@pytest.mark.parametrize("decide_anew", [change_mapping, type_a_price])
def test_what_a_person_decided_after_the_plan_is_not_overrun_by_it(world: World, decide_anew: Any) -> None:
    customer = world.customer()
    line = monthly(MAY)
    world.invoice(customer, line)
    world.decide("nightly", MAY)
    decide_anew(world, customer, line)

    world.deliver()

    assert world.connectwise.additions_of.get(customer.agreement_id, {}) == {}


def test_a_dry_run_for_one_customer_does_not_empty_a_nightly_run_beside_it(world: World) -> None:
    customer, other = world.customer(), world.customer()
    world.invoice(customer, monthly(MAY))
    world.invoice(other, monthly(MAY, subscription_id="other"))
    nightly = world.open("nightly", MAY)
    world.open("manual", MAY, organization_ids=[customer.organization_id], is_dry_run=True)
    for step in STEPS:
        run_sql_file(world.connection, step, nightly)

    assert world.value("select count(*) from billing.invoice") == 2


@pytest.mark.parametrize(
    ("change", "is_held"),
    [
        ({}, True),
        ({"unit_price": 11, "quantity": 3, "total": Decimal("33.00")}, True),
        ({"start": date(2026, 5, 31), "end": date(2026, 6, 29)}, True),
        ({"offer_id": "other"}, True),
        ({"start": JUNE, "end": date(2026, 6, 30)}, False),
        ({"charge_type": "Correction"}, False),
        ({"subscription_id": "other"}, False),
        ({"subscription_id": None}, False),
    ],
)
def test_a_charge_that_is_delivered_on_a_withdrawn_invoice_waits(
    world: World, change: dict[str, Any], is_held: bool
) -> None:
    customer = world.customer()
    world.offer(offer_id="other")
    line, neighbour = monthly(MAY), monthly(MAY)
    withdrawn = world.invoice(customer, line)
    world.night(MAY)
    world.invoices.remove(withdrawn)
    again = replace(line, row_id="", **change)
    world.invoice(customer, again, day=MAY)
    world.invoice(world.customer(), neighbour)
    world.night(MAY)

    assert world.reasons(again) == ({"delivered_on_withdrawn_invoice"} if is_held else set())
    assert world.is_carried(again) is not is_held
    assert world.is_carried(neighbour)
    world.invoices.append(withdrawn)  # AppXite wants both
    world.night(MAY)
    assert world.reasons(again) == set()
    assert world.is_carried(again)


@pytest.mark.parametrize(("offer_id", "is_held"), [("offer", True), ("other", False)])
def test_without_a_subscription_the_offer_tells_what_is_delivered_on_a_withdrawn_invoice(
    world: World, offer_id: str, is_held: bool
) -> None:
    customer = world.customer()
    world.offer(offer_id="other")
    line = monthly(MAY, subscription_id=None)
    withdrawn = world.invoice(customer, line)
    world.night(MAY)
    world.invoices.remove(withdrawn)
    again = monthly(MAY, subscription_id=None, offer_id=offer_id)
    world.invoice(customer, again)
    world.night(MAY)

    assert world.reasons(again) == ({"delivered_on_withdrawn_invoice"} if is_held else set())
