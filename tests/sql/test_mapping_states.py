"""What a mapping's state does to lines: undecided is held, excluded by a person is excluded, approved is delivered."""

from __future__ import annotations

from decimal import Decimal

import pytest
from sql_world import MAY, World, monthly


def test_a_new_organization_and_a_new_offer_begin_excluded_and_undecided_and_hold_their_lines(world: World) -> None:
    line = monthly(MAY, offer_id="new offer")
    invoice = world.invoice("new organization", line)

    world.decide()

    for kind, key in (("organization", "new organization"), ("offer", "new offer")):
        mapped = world.row(f"select * from mapping.{kind}_mapping where {kind}_id = %s", key)
        assert (mapped["state"], mapped["decided_by"], mapped["version"]) == ("excluded", None, 1)
    assert world.outcome(line) == "held"
    assert world.reasons(line) == {"organization_unmapped", "offer_unmapped"}
    assert world.prove() == []
    assert world.proof(invoice)["held"] == Decimal("20.00")


@pytest.mark.parametrize("kind", ["organization", "offer"])
def test_excluded_by_a_person_is_excluded_with_who_and_not_held(world: World, kind: str) -> None:
    customer = world.customer()
    line = monthly(MAY)
    invoice = world.invoice(customer, line)
    if kind == "organization":
        world.map_organization(customer.organization_id, customer.company_id, "excluded", by="bob")
    else:
        world.map_offer("offer", None, "excluded", by="bob")
    world.update(f"mapping.{kind}_mapping", "decided_by", "bob", note="billed elsewhere")

    world.decide()

    assert world.outcome(line) == "excluded"
    assert world.decision(line)["excluded_by"] == f"bob: {kind} excluded, billed elsewhere"
    assert world.reasons(line) == set()
    assert world.items() == []
    assert world.prove() == []
    assert world.proof(invoice)["excluded"] == Decimal("20.00")


def test_a_product_chosen_for_the_line_wins_over_an_excluded_offer(world: World) -> None:
    line = monthly(MAY)
    world.invoice(world.customer(), line)
    world.map_offer("offer", None, "excluded", by="bob")
    world.decide()
    excluded = world.outcome(line)
    chosen = world.product()
    world.override(line, product_id=chosen)

    world.night()

    assert excluded == "excluded"
    assert world.is_carried(line)
    assert world.decision(line)["product_id"] == chosen


def test_approving_both_mappings_delivers_every_line_that_waited_for_them(world: World) -> None:
    customer = world.customer()
    lines = [monthly(MAY, offer_id="new offer", subscription_id=f"sub {number}") for number in range(3)]
    for line in lines:
        world.invoice(customer, line)
    world.map_organization(customer.organization_id, None, "excluded", by=None)
    world.night()
    held = [world.outcome(line) for line in lines]
    world.map_organization(customer.organization_id, customer.company_id)
    world.map_offer("new offer", world.product())

    world.night()

    assert held == ["held"] * 3
    assert all(world.is_carried(line) for line in lines)


def test_taking_an_approval_back_frees_nothing_that_is_delivered(world: World) -> None:
    customer = world.customer()
    line = monthly(MAY)
    world.invoice(customer, line)
    world.night()
    world.map_organization(customer.organization_id, customer.company_id, "excluded", by="bob")

    counts = world.night()

    assert counts.writes == 0
    assert world.is_carried(line)
    assert world.outcome(line) == "deliver"


def test_an_approved_mapping_needs_a_target(world: World) -> None:
    organization = world.organization()

    with pytest.raises(Exception, match="check constraint"):
        world.map_organization(organization, None, "approved")


def test_a_line_excluded_by_a_person_says_who_and_why(world: World) -> None:
    line = monthly(MAY, charge_type="Mystery")
    world.invoice(world.customer(), line)
    world.decide()
    world.override(line, is_excluded=True, reason="a gift")

    world.decide()

    assert world.outcome(line) == "excluded"
    assert world.decision(line)["excluded_by"] == "ann: a gift"
    assert world.reasons(line) == set()


def test_lines_of_nothing_are_excluded_by_the_setting_only(world: World) -> None:
    line = monthly(MAY, unit_price=0)
    world.invoice(world.customer(), line)
    world.decide()
    sent = world.outcome(line)
    world.setting("zero_amounts", "skip")

    world.decide()

    assert sent == "deliver"
    assert world.outcome(line) == "excluded"
    assert "zero_amounts" in world.decision(line)["excluded_by"]


def test_values_typed_by_a_person_win_over_rules_and_are_named(world: World) -> None:
    product = world.product()
    line = monthly(MAY, charge_type="UsageFee")
    invoice = world.invoice(world.customer(), line)
    world.decide()
    typed = {
        "product_id": product,
        "effective_date": MAY.replace(day=9),
        "cancelled_date": MAY.replace(day=11),
        "quantity": Decimal(3),
        "unit_price": Decimal("7.25"),
        "invoice_description": "As agreed by telephone",
    }
    world.override(line, **typed)

    world.night()

    decision = world.decision(line)
    assert {name: decision[name] for name in typed} == typed
    assert decision["amount"] == Decimal("21.75")
    assert decision["rules"]["user_updated"] == [
        "effective_date", "cancelled_date", "quantity", "unit_price", "invoice_description", "product"
    ]  # fmt: skip
    assert "charge_start_rule" not in decision["rules"]
    assert world.proof(invoice) | {} == {
        "source_total": Decimal("20.00"), "delivered": Decimal("21.75"), "excluded": Decimal("-1.75"),
        "held": 0, "awaiting_approval": 0, "in_doubt": 0, "difference": 0,
    }  # fmt: skip


def test_a_cancelled_date_typed_for_a_recurring_line_wins(world: World) -> None:
    line = monthly(MAY)
    world.invoice(world.customer(), line)
    world.decide()
    world.override(line, cancelled_date=MAY.replace(day=20))

    world.decide()

    assert world.decision(line)["cancelled_date"] == MAY.replace(day=20)


def test_date_rules_of_a_charge_type_are_applied_and_stamped_on_the_line(world: World) -> None:
    line = monthly(MAY, charge_type="UsageFee")
    world.invoice(world.customer(), line, day=MAY.replace(day=20))
    world.update(
        "billing.charge_type", "charge_type", "UsageFee",
        charge_start_rule="invoice_date", charge_end_rule="last_day_of_invoice_month",
    )  # fmt: skip

    world.decide()

    decision = world.decision(line)
    assert (decision["effective_date"], decision["cancelled_date"]) == (MAY.replace(day=20), MAY.replace(day=31))
    assert decision["rules"] == {
        "charge_type_version": 2, "charge_start_rule": "invoice_date", "charge_end_rule": "last_day_of_invoice_month"
    }  # fmt: skip


def test_a_rule_never_changes_a_delivered_line(world: World) -> None:
    line = monthly(MAY, charge_type="UsageFee")
    world.invoice(world.customer(), line)
    world.night()
    before = world.decision(line)
    world.update("billing.charge_type", "charge_type", "UsageFee", charge_start_rule="last_day_of_charge_month")

    counts = world.night()

    assert counts.writes == 0
    assert world.decision(line) == before
