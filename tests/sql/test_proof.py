"""The proof: every way in which ConnectWise may hold something else is a breach, and no cent goes unaccounted for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from sql_world import JUNE, MAY, Customer, Invoice, Line, World, monthly

from billing_sync.plan import approve_plan


def delivered(world: World, *lines: Line, **agreement: object) -> tuple[Customer, Invoice, dict[str, Any]]:
    """A customer whose lines were delivered in one Addition, as ConnectWise holds it; not proven yet."""
    customer = world.customer(**agreement)  # type: ignore[arg-type]
    invoice = world.invoice(customer, *(lines or (monthly(MAY),)))
    world.decide()
    world.deliver()
    return customer, invoice, world.connectwise.only(customer.agreement_id)


def check_identity(world: World) -> None:
    """source = delivered + held + excluded + awaiting approval + in doubt, for every invoice of the run."""
    proofs = world.rows("select * from audit.invoice_proof where run_id = %s", world.run_id)
    assert {proof["invoice_id"] for proof in proofs} == {invoice.invoice_id for invoice in world.invoices}
    for proof in proofs:
        parts = ("delivered", "held", "excluded", "awaiting_approval", "in_doubt", "difference")
        assert proof["source_total"] == sum(proof[part] for part in parts)


BREACHES: dict[str, tuple[dict[str, Any], str]] = {
    "quantity changed": ({"quantity": 3}, "bills 30.00 instead of 20.00"),
    "price changed by a cent in all": ({"unitPrice": Decimal("10.005")}, "bills 20.01 instead of 20.00"),
    "price changed below a cent": ({"unitPrice": Decimal("10.0025")}, "bills 20.01 instead of 20.00"),
    "less included": ({"lessIncluded": 1}, "bills 10.00 instead of 20.00"),
    "do not bill": ({"billCustomer": "DoNotBill"}, "set to DoNotBill"),
    "no charge": ({"billCustomer": "NoCharge"}, "set to NoCharge"),
    "no end": ({"cancelledDate": None}, "has no end"),
    "ends in a later cycle": ({"cancelledDate": "2026-06-01T00:00:00Z"}, "to 2026-06-01 instead of"),
    "ends before the cycle": ({"cancelledDate": "2026-04-30T00:00:00Z"}, "to 2026-04-30 instead of"),
    "begins in an earlier cycle": ({"effectiveDate": "2026-04-30T00:00:00Z"}, "bills from 2026-04-30"),
    "begins in a later cycle": ({"effectiveDate": "2026-06-01T00:00:00Z"}, "bills from 2026-06-01"),
    "marker changed": ({"serialNumber": "SN-1"}, "marker changed"),
    "marker removed": ({"serialNumber": None}, "marker changed"),
}


@pytest.mark.parametrize(("edit", "words"), BREACHES.values(), ids=BREACHES)
def test_what_a_person_changed_in_an_open_cycle_is_a_breach_and_in_doubt(
    world: World, edit: dict[str, Any], words: str
) -> None:
    customer, invoice, record = delivered(world)
    world.connectwise.edit(customer.agreement_id, record["id"], **edit)

    (message,) = [breach["message"] for breach in world.breaches() if breach["code"] == "in_doubt"]

    assert words in message
    assert world.proof(invoice)["in_doubt"] == Decimal("20.00")
    assert world.proof(invoice)["delivered"] == 0
    check_identity(world)
    assert world.value("select count(*) from audit.log_entry where code = 'breach_in_doubt' and level = 'ERROR'") == 1


def test_an_end_within_the_same_cycle_changes_no_money_and_is_no_breach(world: World) -> None:
    customer, _, record = delivered(world)
    world.connectwise.edit(
        customer.agreement_id, record["id"], effectiveDate="2026-05-09T00:00:00Z", cancelledDate="2026-05-10T00:00:00Z"
    )

    assert world.prove() == []


def test_a_missing_addition_is_a_breach(world: World) -> None:
    customer, invoice, _ = delivered(world)
    world.connectwise.additions_of[customer.agreement_id].clear()

    (breach,) = world.breaches()

    assert breach["code"] == "in_doubt"
    assert "not found in ConnectWise" in breach["message"]
    assert world.proof(invoice)["in_doubt"] == Decimal("20.00")


def test_an_addition_of_two_cycles_that_is_cut_to_one_leaves_the_other_in_doubt(world: World) -> None:
    customer = world.customer()
    invoices = [world.invoice(customer, monthly(period)) for period in (MAY, JUNE)]
    world.decide()
    world.deliver()
    record = world.connectwise.only(customer.agreement_id)
    world.connectwise.edit(customer.agreement_id, record["id"], cancelledDate="2026-05-31T00:00:00Z")

    assert world.prove() == ["in_doubt"]
    assert [world.proof(invoice)["in_doubt"] for invoice in invoices] == [0, Decimal("20.00")]


@pytest.mark.parametrize("bill", ["Billable", "DoNotBill"])
def test_a_second_addition_with_the_marker_is_a_breach_when_it_bills(world: World, bill: str) -> None:
    customer, invoice, record = delivered(world)
    copy = {**record, "id": 1, "billCustomer": bill}
    world.connectwise.additions_of[customer.agreement_id][1] = copy

    assert world.prove() == (["duplicate"] if bill == "Billable" else [])
    assert world.proof(invoice)["delivered"] == Decimal("20.00")


def test_a_copy_on_another_agreement_is_said_and_not_a_breach(world: World) -> None:
    _, _, record = delivered(world)
    other, _, _ = delivered(world, monthly(MAY, subscription_id="other"))
    world.connectwise.additions_of[other.agreement_id][1] = {**record, "id": 1}

    assert world.prove() == []
    assert world.value("select level from audit.log_entry where code = 'copied_addition'") == "WARNING"


@pytest.mark.parametrize("state", ["intended", "created", "active", "updating", "refused"])
def test_a_carried_line_whose_addition_is_not_settled_is_a_breach(world: World, state: str) -> None:
    _, invoice, _ = delivered(world)
    world.execute("update delivery.addition set state = %s", state)

    (breach,) = world.breaches()

    assert breach["code"] == "in_doubt"
    assert f"ledger says {state}" in breach["message"]
    assert world.proof(invoice)["in_doubt"] == Decimal("20.00")
    check_identity(world)


def test_a_cycle_that_is_invoiced_counts_by_the_proof_made_before(world: World) -> None:
    customer, invoice, record = delivered(world)
    assert world.prove() == []
    world.invoiced_until(customer.agreement_id, JUNE)
    world.connectwise.edit(customer.agreement_id, record["id"], quantity=9)
    world.decide()

    assert world.prove() == []
    assert world.proof(invoice)["delivered"] == Decimal("20.00")


def test_a_cycle_that_was_invoiced_before_any_proof_of_it_is_a_breach_when_it_differs(world: World) -> None:
    customer, _, record = delivered(world)
    world.invoiced_until(customer.agreement_id, JUNE)
    world.connectwise.edit(customer.agreement_id, record["id"], quantity=9)

    assert world.prove() == ["in_doubt"]


def test_a_change_in_the_cycle_that_holds_the_next_invoice_date_is_a_breach(world: World) -> None:
    customer, _, record = delivered(
        world, monthly(MAY, charge_type="UsageFee", subscription_id="s"), next_invoice_date=date(2026, 5, 15)
    )
    assert world.prove() == []
    world.connectwise.edit(customer.agreement_id, record["id"], quantity=9)

    assert world.prove() == ["in_doubt"]


def test_a_line_that_changed_between_approval_and_delivery_is_not_silently_billed_at_its_old_price(
    world: World,
) -> None:
    line = monthly(MAY)
    invoice = world.invoice(world.customer(), line)
    first = world.decide()
    approve_plan(world.connection, world.plan(first), "ann")
    line.price(15)
    world.decide()
    world.deliver(first)
    world.decide()

    breaches = world.prove()

    proof = world.proof(invoice)
    assert proof["excluded"] == 0
    assert breaches or proof["delivered"] + proof["held"] + proof["awaiting_approval"] == Decimal("30.00")


@pytest.mark.parametrize("copied", [False, True])
def test_a_breach_is_said_once_per_run(world: World, copied: bool) -> None:
    customer, _, record = delivered(world)
    if copied:
        world.connectwise.additions_of[customer.agreement_id][1] = {
            **record, "id": 1, "serialNumber": "axs-tests-" + "0" * 32
        }  # fmt: skip
    else:
        world.connectwise.edit(customer.agreement_id, record["id"], quantity=3)
    world.prove()
    world.prove()

    assert world.value("select count(*) from audit.log_entry where code in ('copied_addition', 'breach_in_doubt')") == 1


def test_each_outcome_has_its_place_in_the_sum(world: World) -> None:
    customer = world.customer()
    names = ("delivered", "held", "excluded", "waits")
    lines = {name: monthly(MAY, subscription_id=name, unit_price=price) for price, name in enumerate(names, 1)}
    lines["held"].charge_type = "Mystery"
    lines["waits"].charge_type = "Puzzle"
    invoice = world.invoice(customer, *lines.values())
    world.decide()
    world.override(lines["excluded"], is_excluded=True, reason="a gift")
    world.night()
    world.insert("billing.charge_type", charge_type="Puzzle", display_name="Puzzle", is_recurring=False)
    world.decide()

    assert world.prove() == []
    assert world.proof(invoice) == {
        "source_total": 20, "delivered": 2, "held": 4, "excluded": 6, "awaiting_approval": 8, "in_doubt": 0,
        "difference": 0,
    }  # fmt: skip
    check_identity(world)


def header_misstates(world: World, invoice: Invoice) -> None:
    world.execute(
        "update billing.invoice set total_amount = total_amount + 0.01 where invoice_id = %s", invoice.invoice_id
    )


def line_lost(world: World, invoice: Invoice) -> None:
    world.execute("delete from delivery.plan_item_line")
    world.execute("delete from delivery.addition_line")
    world.execute("delete from billing.invoice_line where invoice_id = %s", invoice.invoice_id)


@pytest.mark.parametrize("harm", [header_misstates, line_lost])
def test_money_that_is_not_accounted_for_is_a_breach(world: World, harm: Callable[[World, Invoice], None]) -> None:
    _, invoice, _ = delivered(world)
    harm(world, invoice)

    assert "difference" in [breach["code"] for breach in world.breaches()]
    assert world.proof(invoice)["difference"] != 0
    check_identity(world)


def test_an_older_invoice_is_proven_when_the_plan_touches_it(world: World) -> None:
    customer = world.customer()
    old = world.invoice(customer, monthly(MAY, charge_type="Mystery"))
    world.night()
    world.insert("billing.charge_type", charge_type="Mystery", display_name="Mystery", is_recurring=False)

    world.night(JUNE)

    assert world.proof(old)["delivered"] == Decimal("20.00")


def test_proving_again_gives_the_same_proof(world: World) -> None:
    delivered(world)
    world.prove()
    before = world.snapshot(with_versions=False, without=["proven_at"])["audit.invoice_proof"]

    world.prove()

    assert world.snapshot(with_versions=False, without=["proven_at"])["audit.invoice_proof"] == before
