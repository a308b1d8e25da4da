"""taxableFlag and unitCost: left to the product unless a setting says otherwise, and never guessed."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from sql_world import JUNE, MAY, REQUESTER, Customer, Invoice, Line, World, month_end, monthly


def sent(world: World, line: Line) -> dict[str, Any]:
    """Of the payload that carries the line: what belongs to tax and cost."""
    payload = world.value("select payload from delivery.plan_item where delivery_key = %s", world.key(line))
    return {name: payload[name] for name in ("taxableFlag", "unitCost") if name in payload}


# -- tax --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "of_charge_type", "expected"),
    [
        ("product", None, {}),
        ("on", None, {"taxableFlag": True}),
        ("off", None, {"taxableFlag": False}),
        ("on", "off", {"taxableFlag": False}),
        ("off", "product", {}),
        ("product", "on", {"taxableFlag": True}),
    ],
)
def test_the_taxable_flag_is_the_charge_types_else_the_settings(
    world: World, setting: str, of_charge_type: str | None, expected: dict[str, bool]
) -> None:
    world.setting("taxable", setting)
    world.update("billing.charge_type", "charge_type", "UsageFee", taxable=of_charge_type)
    customer, line = world.customer(), monthly(MAY, charge_type="UsageFee")
    world.invoice(customer, line)

    world.night()

    assert sent(world, line) == expected
    assert world.connectwise.only(customer.agreement_id).get("taxableFlag") == expected.get("taxableFlag")


@pytest.mark.parametrize(
    ("before", "after", "is_invoiced", "is_same"),
    [
        ("on", "off", True, True),
        ("product", "on", True, True),
        ("on", "off", False, False),  # it would change what the open cycle is taxed
        ("product", "on", False, False),
        ("on", "product", True, False),  # what was sent once cannot be left to the product again
        ("on", "on", False, True),
    ],
)
def test_a_change_of_the_taxable_flag_never_changes_an_open_cycle(
    world: World, before: str, after: str, is_invoiced: bool, is_same: bool
) -> None:
    customer, may, june = world.customer(), monthly(MAY), monthly(JUNE)
    world.setting("taxable", before)
    world.invoice(customer, may)
    world.night()
    if is_invoiced:
        world.invoiced_until(customer.agreement_id, JUNE)
    world.setting("taxable", after)
    world.invoice(customer, june)

    world.night()

    assert (world.key(may) == world.key(june)) is is_same
    wanted = {"on": True, "off": False, "product": None}[after]
    assert [
        record.get("taxableFlag")
        for record in world.connectwise.additions_of[customer.agreement_id].values()
        if record["cancelledDate"][:10] == "2026-06-30"
    ] == [wanted]
    for month in (MAY, JUNE):
        assert world.connectwise.billed(customer.agreement_id, month, month_end(month)) == Decimal("20.00")


@pytest.mark.parametrize(("field", "stored"), [("taxableFlag", False), ("unitCost", Decimal("8.10"))])
def test_a_field_that_connectwise_stores_differently_is_found_in_the_echo(
    world: World, field: str, stored: object
) -> None:
    world.setting("taxable", "on")
    world.setting("unit_cost", "incoming_invoice")
    customer, line = world.customer(), monthly(MAY)
    world.invoice(customer, line)
    incoming(world, line)
    world.decide()
    world.connectwise.stores = {field: stored}

    world.deliver()

    assert world.reasons(line) == {"echo_differs"}
    assert f"{field} is {stored} instead of" in world.value("select detail from billing.held_reason")
    assert world.connectwise.billed(customer.agreement_id, MAY, month_end(MAY)) == 0


# -- cost -------------------------------------------------------------------------------------------------------------


def incoming(world: World, line: Line, unit_price: object = "8.20", **values: Any) -> Invoice:
    """What the vendor invoices the seller for the same thing."""
    cost = replace(line, row_id="", unit_price=Decimal(str(unit_price)), **{"total": None, **values})
    return world.invoice(REQUESTER, cost, provider="vendor", day=MAY.replace(day=4))


def with_cost(world: World, line: Line | None = None, **values: Any) -> tuple[Customer, Line]:
    world.setting("unit_cost", "incoming_invoice")
    customer, line = world.customer(), line or monthly(MAY)
    world.invoice(customer, line, day=MAY)
    incoming(world, line, **values)
    return customer, line


def test_the_cost_of_the_incoming_invoice_is_sent_per_unit(world: World) -> None:
    customer, line = with_cost(world)

    world.night()

    assert sent(world, line) == {"unitCost": Decimal("8.2")}
    assert world.connectwise.only(customer.agreement_id)["unitCost"] == Decimal("8.2")
    assert world.value("select unit_cost from reporting.invoice_line") == Decimal("8.2")
    assert world.value("select count(*) from billing.invoice") == 1  # it is never billed


def test_off_by_default_nothing_is_sent_and_nothing_is_kept(world: World) -> None:
    _, line = with_cost(world)
    world.setting("unit_cost", "off")

    world.night()

    assert sent(world, line) == {}
    assert world.value("select count(*) from billing.cost_line") == 0


@pytest.mark.parametrize(
    "differs",
    [
        {"subscription_id": "other"},
        {"charge_type": "PurchaseFee"},
        {"start": MAY.replace(day=2)},
        {"end": MAY.replace(day=30)},
        {"currency": "USD"},
        {"quantity": 3},
        {"problem": "price: 'x' is no number"},
        {"total": Decimal("16.41"), "quantity": 2_000_000, "unit_price": "0.0000082"},
    ],
    ids=[
        "subscription",
        "charge type",
        "start",
        "end",
        "currency",
        "quantity",
        "unreadable",
        "no price gives the total",
    ],
)
def test_a_cost_that_is_not_surely_the_lines_is_left_out(world: World, differs: dict[str, Any]) -> None:
    line = monthly(MAY, quantity=differs["quantity"]) if "total" in differs else monthly(MAY)
    if "total" in differs:
        world.setting("bound_amount_per_line", "off")
    with_cost(world, line, **differs)

    world.night()

    assert world.is_carried(line)
    assert sent(world, line) == {}


@pytest.mark.parametrize("twice", ["incoming", "outgoing"])
def test_two_lines_for_the_same_thing_are_ambiguous(world: World, twice: str) -> None:
    customer, line = with_cost(world)
    if twice == "incoming":
        incoming(world, line)
    else:
        world.invoice(customer, replace(line, row_id=""), day=MAY)

    world.night()

    assert sent(world, line) == {}


@pytest.mark.parametrize(
    ("header", "is_known"),
    [({}, True), ({"status": "New"}, False), ({"total": Decimal("99.00")}, False), ({"problem": "x"}, False)],
    ids=["good", "not verified", "does not add up", "unreadable"],
)
def test_only_a_verified_incoming_invoice_that_adds_up_tells_a_cost(
    world: World, header: dict[str, Any], is_known: bool
) -> None:
    _, line = with_cost(world)
    for name, value in header.items():
        setattr(world.invoices[-1], name, value)

    world.decide()

    assert bool(sent(world, line)) is is_known


def test_an_incoming_invoice_that_is_gone_or_changed_is_followed(world: World) -> None:
    _, line = with_cost(world)
    world.decide()
    (cost,) = world.invoices[-1].lines
    cost.price("7.00")
    world.decide()
    changed = world.decision(line)["unit_cost"]
    world.invoices.pop()

    world.decide()

    assert (changed, world.decision(line)["unit_cost"]) == (Decimal("7.00"), None)
    assert world.value("select count(*) from billing.cost_line") == 0


def test_the_cost_is_exact_to_the_cent_with_as_few_decimals_as_give_it(world: World) -> None:
    line = monthly(MAY, quantity=3)
    with_cost(world, line, unit_price="3.33333333", total=Decimal("10.00"))

    world.decide()

    assert sent(world, line) == {"unitCost": Decimal("3.333")}


def test_billed_as_one_unit_it_costs_all_of_it(world: World) -> None:
    line = monthly(MAY, quantity=1_000_000, unit_price=Decimal("0.00000012"), total=Decimal("0.12"))
    with_cost(world, line, unit_price="0.0000001", total=Decimal("0.10"))

    world.decide()

    assert world.decision(line)["rules"]["billed_as_one_unit"] is True
    assert sent(world, line) == {"unitCost": Decimal("0.1")}


@pytest.mark.parametrize("is_invoiced", [True, False])
def test_a_month_of_unknown_cost_never_takes_over_the_cost_of_the_month_before(world: World, is_invoiced: bool) -> None:
    customer, may = with_cost(world)
    june = monthly(JUNE)
    world.night()
    if is_invoiced:
        world.invoiced_until(customer.agreement_id, JUNE)
    world.invoice(customer, june)

    world.night()

    assert world.key(may) != world.key(june)
    assert sent(world, june) == {}


def test_a_changed_cost_changes_the_addition_in_place_once_its_cycles_are_invoiced(world: World) -> None:
    customer, may = with_cost(world)
    june = monthly(JUNE)
    world.night()
    world.invoiced_until(customer.agreement_id, JUNE)
    world.invoice(customer, june)
    incoming(world, june, "8.50")

    counts = world.night()

    assert (counts.created, counts.updated) == (0, 1)
    assert world.key(may) == world.key(june)
    assert world.connectwise.only(customer.agreement_id)["unitCost"] == Decimal("8.5")
