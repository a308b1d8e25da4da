"""Credits: which line they correct, and that no more is credited than was charged."""

from __future__ import annotations

from collections import defaultdict
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sql_world import JUNE, MAY, REQUESTER, Customer, Line, World, month_end, monthly

from billing_sync.bounds import allow
from billing_sync.db import run_sql_file
from billing_sync.decide import (
    APPLY_RULES,
    BOUND_AMOUNTS,
    BOUND_CREDITS,
    GROUP_LINES,
    HOLD_LINES,
    MAP_LINES,
    RESOLVE_AGREEMENTS,
)
from billing_sync.run import open_run


def credit(amount: int, **values: Any) -> Line:
    """A Correction for the second half of May."""
    given = {"start": MAY.replace(day=16), "end": month_end(MAY), "charge_type": "Correction", "frequency": "One Time"}
    return Line(quantity=1, unit_price=-amount, **{**given, **values})


def charged_and_credited(world: World, *refunds: Line, **charge: Any) -> tuple[Customer, Line]:
    """A charge of 20.00 for May, delivered; the credits come on the invoice of June."""
    customer, line = world.customer(), monthly(MAY, **charge)
    world.invoice(customer, line)
    world.night()
    world.invoice(customer, *refunds, day=JUNE.replace(day=3))
    world.night()
    return customer, line


def billed(world: World, customer: Customer) -> Decimal:
    """What all Additions of the customer bill, each in its cycle."""
    records = world.connectwise.additions_of.get(customer.agreement_id, {}).values()
    return sum((record["extPrice"] for record in records if record["billCustomer"] == "Billable"), Decimal(0))


def test_a_credit_within_the_charge_is_delivered_with_its_sign_and_says_what_it_corrects(world: World) -> None:
    refund = credit(8)
    customer, charge = charged_and_credited(world, refund)

    assert world.is_carried(refund)
    assert billed(world, customer) == Decimal("12.00")
    shown = world.row(
        "select corrects_line_id, corrects_subscription_id, corrects_told_by from reporting.invoice_line"
        " where line_id = %s",
        world.line_id(refund),
    )
    assert shown == {
        "corrects_line_id": world.line_id(charge), "corrects_subscription_id": "sub",
        "corrects_told_by": "charge_period",
    }  # fmt: skip


def test_a_negative_quantity_is_a_credit_too(world: World) -> None:
    refund = credit(8, charge_type="Correction")
    refund.quantity, refund.unit_price = Decimal(-1), Decimal(8)
    customer, charge = charged_and_credited(world, refund)

    assert world.decision(refund)["corrects_line_id"] == world.line_id(charge)
    assert (world.decision(refund)["quantity"], billed(world, customer)) == (-1, Decimal("12.00"))


def test_more_credit_than_charge_is_held_until_a_person_lets_it_pass(world: World) -> None:
    first, second = credit(15), credit(6)
    customer, _ = charged_and_credited(world, first, second)

    assert (world.is_carried(first), world.reasons(first)) == (True, set())
    assert world.reasons(second) == {"credit_exceeds_charge"}
    detail = world.value("select detail from billing.held_reason")
    assert detail == "credits of 21.00, charged 20.00 EUR from 2026-05-01 to 2026-05-31"
    assert billed(world, customer) == Decimal("5.00")
    allow(world.connection, f"credit_exceeds_charge/{world.line_id(second)}", "-6.00", "ann")
    world.night()
    assert world.is_carried(second)
    assert billed(world, customer) == Decimal("-1.00")


def test_by_setting_more_credit_than_charge_is_sent(world: World) -> None:
    world.setting("credits", "send")
    refund = credit(50)
    customer, _ = charged_and_credited(world, refund)

    assert world.is_carried(refund)
    assert billed(world, customer) == Decimal("-30.00")


def test_a_credit_for_a_charge_before_our_time_is_held_and_says_so(world: World) -> None:
    refund = credit(8, start=date(2026, 4, 10), end=date(2026, 4, 30))
    charged_and_credited(world, refund)

    assert world.reasons(refund) == {"credit_exceeds_charge"}
    assert world.value("select detail from billing.held_reason") == (
        "no charge for it is delivered or to be delivered, from 2026-04-10 to 2026-04-30;"
        " the customer's oldest invoice here is of 2026-05-01"
    )
    assert world.decision(refund)["corrects_told_by"] == "subscription"


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"subscription_id": "other"},
        {"start": JUNE, "end": month_end(JUNE)},
        {"subscription_id": None, "offer_id": "other"},
    ],
    ids=["subscription", "period", "offer"],
)
def test_a_charge_of_something_else_covers_no_credit(world: World, elsewhere: dict[str, Any]) -> None:
    world.offer(offer_id="other")
    refund = credit(8, **elsewhere)
    charged_and_credited(world, refund)

    assert world.reasons(refund) == {"credit_exceeds_charge"}
    assert world.decision(refund)["corrects_line_id"] is None


@pytest.mark.parametrize("offer_id", ["offer", None])
def test_a_credit_without_subscription_is_covered_by_the_charges_of_its_offer_or_of_the_customer(
    world: World, offer_id: str | None
) -> None:
    refund = credit(8, subscription_id=None, offer_id=offer_id)
    customer, charge = charged_and_credited(world, refund)
    linked = world.decision(refund)["corrects_line_id"]
    world.override(refund, product_id=world.value("select product_id from mapping.offer_mapping"))

    world.night()

    assert linked == (world.line_id(charge) if offer_id else None)
    assert billed(world, customer) == Decimal("12.00")


def test_a_discount_typed_by_hand_is_covered_by_all_that_the_customer_is_charged(world: World) -> None:
    discount, too_much = credit(8, charge_type="UserCorrection", subscription_id="cheap"), credit(13)
    too_much.charge_type = "UserCorrection"
    customer, _ = charged_and_credited(world, discount, too_much)

    assert world.is_carried(discount)
    assert world.decision(discount)["corrects_line_id"] is None
    assert world.reasons(too_much) == {"credit_exceeds_charge"}
    assert billed(world, customer) == Decimal("12.00")


def test_another_customers_charge_covers_no_credit(world: World) -> None:
    world.invoice(world.customer(), monthly(MAY))
    refund = credit(8)
    world.invoice(world.customer(), refund)

    world.night()

    assert world.reasons(refund) == {"credit_exceeds_charge"}


def test_a_credit_of_a_held_charge_waits_for_it(world: World) -> None:
    customer = world.customer()
    charge, refund = monthly(MAY, offer_id="nobody mapped it"), credit(8)
    world.invoice(customer, charge, refund, day=MAY)
    world.night()
    before = world.reasons(refund)
    world.map_offer("nobody mapped it", world.product())

    world.night()

    assert before == {"credit_exceeds_charge"}
    assert world.is_carried(charge)
    assert world.is_carried(refund)
    assert billed(world, customer) == Decimal("12.00")


def test_the_invoice_that_a_credit_refers_to_tells_which_of_two_charges_it_corrects(world: World) -> None:
    customer = world.customer()
    first, second = monthly(MAY), monthly(MAY, charge_type="PurchaseFee")
    world.invoice(customer, first)
    named = world.invoice(customer, second)
    refund, unnamed = credit(8), credit(1)
    note = world.invoice(customer, refund, day=JUNE)
    world.invoice(customer, unnamed, day=JUNE)
    world.decide()
    both = world.decision(unnamed)
    world.execute(
        "update billing.invoice set invoice_reference = %s where invoice_id = %s", f"INV-{named.invoice_id}",
        note.invoice_id,
    )  # fmt: skip

    world.decide()

    assert (both["corrects_line_id"], both["corrects_told_by"]) == (None, "subscription")
    decision = world.decision(refund)
    assert (decision["corrects_line_id"], decision["corrects_told_by"]) == (world.line_id(second), "invoice_reference")


def test_a_charge_is_told_before_an_earlier_correction_of_it(world: World) -> None:
    customer = world.customer()
    charge, more_seats, refund = monthly(MAY), credit(-5), credit(8)
    world.invoice(customer, charge)
    world.invoice(customer, more_seats, refund, day=JUNE)

    world.decide()

    assert world.decision(refund)["corrects_line_id"] == world.line_id(charge)
    assert world.decision(more_seats)["corrects_told_by"] is None


def test_what_was_taken_back_of_a_delivered_line_counts_as_credited(world: World) -> None:
    world.setting("changes_after_delivery", "next_open_cycle")
    customer, charge = charged_and_credited(world)
    charge.price(4)
    world.night()
    refund, too_much = credit(8), credit(1)
    world.invoice(customer, refund, too_much, day=JUNE.replace(day=4))

    world.night()

    assert world.is_carried(charge, revision=2)
    assert (world.reasons(refund), world.reasons(too_much)) == (set(), {"credit_exceeds_charge"})
    assert billed(world, customer) == 0


def test_excluding_one_credit_frees_the_next(world: World) -> None:
    wrong, right = credit(500), credit(8)
    charged_and_credited(world, wrong, right)
    before = world.reasons(wrong), world.reasons(right)
    world.override(wrong, is_excluded=True, reason="a typing error, corrected by hand")

    world.night()

    assert before == ({"credit_exceeds_charge"}, {"credit_exceeds_charge"})
    assert world.outcome(wrong) == "excluded"
    assert world.is_carried(right)


# -- over generated accounts ------------------------------------------------------------------------------------------


@st.composite
def account(draw: st.DrawFn) -> list[tuple[str, date, date, int]]:
    """Lines of one customer: subscription, charge period and amount in the order in which they were invoiced."""
    lines = []
    for _ in range(draw(st.integers(1, 9))):
        start = MAY + timedelta(draw(st.integers(0, 80)))
        amount = draw(st.integers(1, 40)) * draw(st.sampled_from([1, 1, -1]))
        name = draw(st.sampled_from(["a", "b"]))
        lines.append((name, start, start + timedelta(draw(st.integers(0, 25))), amount))
    return lines


def exceeding(lines: list[tuple[str, date, date, int]]) -> set[int]:
    """Which lines credit more than was charged, in Python: lines that overlap, directly or through others, together."""
    island = list(range(len(lines)))
    for _ in lines:
        for one, (name, start, end, _amount) in enumerate(lines):
            for other, (other_name, other_start, other_end, _other) in enumerate(lines):
                if name == other_name and start <= other_end and other_start <= end:
                    island[one] = island[other] = min(island[one], island[other])
    charged: dict[int, int] = defaultdict(int)
    credited: dict[int, int] = defaultdict(int)
    for number, line in enumerate(lines):
        charged[island[number]] += max(line[3], 0)
    found = set()
    for number, line in enumerate(lines):
        credited[island[number]] += max(-line[3], 0)
        if line[3] < 0 and credited[island[number]] > charged[island[number]]:
            found.add(number)
    return found


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(accounts=st.lists(account(), min_size=1, max_size=15))
def test_what_is_credited_never_exceeds_what_is_charged(world: World, accounts: list[Any]) -> None:
    with world.connection.transaction(force_rollback=True):
        run_id = open_run(
            world.connection, dag_id="tests", dag_run_id="credits", kind="nightly", billing_periods=[MAY],
            requester_id=REQUESTER,
        )  # fmt: skip
        for number, lines in enumerate(accounts, 5001):
            customer = world.customer()
            world.insert(
                "billing.invoice", invoice_id=number, billing_period=MAY, invoice_date=MAY, status="Verified",
                organization_id=customer.organization_id, currency="EUR", adds_up=True, first_run_id=run_id,
                last_run_id=run_id,
            )  # fmt: skip
            world.insert_many(
                "billing.invoice_line",
                [
                    {
                        "line_key": f"{number}/{place}", "row_id": f"{number}/{place}", "invoice_id": number,
                        "subscription_id": name, "offer_id": "offer", "charge_type": "Correction",
                        "charge_start_date": start, "charge_end_date": end, "quantity": 1, "unit_price": amount,
                        "total_price": amount, "currency": "EUR", "content_hash": "", "first_run_id": run_id,
                    }
                    for place, (name, start, end, amount) in enumerate(lines)
                ],
            )  # fmt: skip
        for step in (MAP_LINES, RESOLVE_AGREEMENTS, APPLY_RULES, HOLD_LINES, BOUND_AMOUNTS, BOUND_CREDITS, GROUP_LINES):
            run_sql_file(world.connection, step, run_id)
        held = world.rows(
            "select line_key from billing.line_decision join billing.invoice_line using (line_id)"
            " where outcome = 'held'"
        )
    expected = {f"{number}/{place}" for number, lines in enumerate(accounts, 5001) for place in exceeding(lines)}
    assert {row["line_key"] for row in held} == expected
