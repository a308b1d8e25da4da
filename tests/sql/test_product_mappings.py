"""Which product a line becomes: by offer, by offer and billing frequency, by its charge type when it has no offer."""

from __future__ import annotations

from decimal import Decimal

import pytest
from sql_world import MAY, World, monthly

from billing_sync.plan import approve_plan

YEARLY = "Every 12 months"


def variant(world: World, offer_id: str, frequency: str, product_id: int | None, **values: object) -> None:
    row = {"state": "approved", "decided_by": "ann", **values}
    world.insert(
        "mapping.offer_variant_mapping", offer_id=offer_id, billing_frequency=frequency, product_id=product_id, **row
    )


def test_monthly_and_yearly_of_one_offer_become_two_products(world: World) -> None:
    customer = world.customer()
    general = world.value("select product_id from mapping.offer_mapping where offer_id = 'offer'")
    yearly_product = world.product()
    monthly_line = monthly(MAY)
    yearly_line = monthly(MAY, subscription_id="yearly", frequency=YEARLY)
    variant(world, "offer", YEARLY, yearly_product)
    world.invoice(customer, monthly_line, yearly_line)

    world.night()

    assert world.decision(monthly_line)["product_id"] == general
    assert world.decision(yearly_line)["product_id"] == yearly_product
    assert world.is_carried(monthly_line)
    assert world.is_carried(yearly_line)


def test_a_variant_alone_delivers_its_lines_and_the_others_stay_held(world: World) -> None:
    customer = world.customer()
    monthly_line = monthly(MAY, offer_id="new")
    yearly_line = monthly(MAY, offer_id="new", subscription_id="yearly", frequency=YEARLY)
    world.invoice(customer, monthly_line, yearly_line)
    world.decide()
    variant(world, "new", YEARLY, world.product())

    world.night()

    assert world.reasons(monthly_line) == {"offer_unmapped"}
    assert world.is_carried(yearly_line)


def test_an_excluded_variant_excludes_its_lines_only_and_says_by_whom(world: World) -> None:
    customer = world.customer()
    monthly_line = monthly(MAY)
    yearly_line = monthly(MAY, subscription_id="yearly", frequency=YEARLY)
    variant(world, "offer", YEARLY, None, state="excluded", decided_by="bob", note="billed by hand")
    world.invoice(customer, monthly_line, yearly_line)

    world.night()

    assert world.is_carried(monthly_line)
    assert world.outcome(yearly_line) == "excluded"
    assert world.decision(yearly_line)["excluded_by"] == f"bob: offer excluded for {YEARLY}, billed by hand"
    assert world.reasons(yearly_line) == set()


def test_an_approved_variant_delivers_of_an_offer_that_is_excluded_otherwise(world: World) -> None:
    customer = world.customer()
    world.map_offer("offer", None, "excluded", by="bob")
    monthly_line = monthly(MAY)
    yearly_line = monthly(MAY, subscription_id="yearly", frequency=YEARLY)
    variant(world, "offer", YEARLY, world.product())
    world.invoice(customer, monthly_line, yearly_line)

    world.night()

    assert world.outcome(monthly_line) == "excluded"
    assert world.is_carried(yearly_line)


def test_an_undecided_variant_counts_for_nothing(world: World) -> None:
    customer = world.customer()
    line = monthly(MAY, frequency=YEARLY)
    variant(world, "offer", YEARLY, world.product(), state="excluded", decided_by=None)
    world.invoice(customer, line)

    world.night()

    general = world.value("select product_id from mapping.offer_mapping where offer_id = 'offer'")
    assert world.decision(line)["product_id"] == general


def test_the_recurring_mode_of_a_variant_wins_over_the_offers_and_the_setting(world: World) -> None:
    customer = world.customer()
    product_id = world.product()
    frequency = "Every 1 month"
    by_setting = monthly(MAY, subscription_id="a")
    by_variant = monthly(MAY, subscription_id="b", offer_id="b")
    world.offer(offer_id="b")
    world.update("mapping.offer_mapping", "offer_id", "b", recurring_mode="persistent")
    variant(world, "b", frequency, product_id, recurring_mode="dated")
    world.invoice(customer, by_setting, by_variant)

    world.decide()

    assert world.decision(by_setting)["can_be_persistent"]
    assert not world.decision(by_variant)["can_be_persistent"]


def test_a_default_product_delivers_custom_charges_without_offer(world: World) -> None:
    world.setting("credits", "send")
    customer = world.customer()
    custom = monthly(MAY, offer_id=None, subscription_id=None, charge_type="UserCorrection", unit_price=3)
    invoice = world.invoice(customer, custom)
    world.decide()
    held = world.reasons(custom)
    product_id = world.product()
    world.update("billing.charge_type", "charge_type", "UserCorrection", default_product_id=product_id)

    world.night()

    assert held == {"offer_missing"}
    assert world.decision(custom)["product_id"] == product_id
    assert world.proof(invoice)["delivered"] == Decimal("6.00")


def test_a_default_product_is_for_lines_without_an_offer_only(world: World) -> None:
    customer = world.customer()
    line = monthly(MAY, offer_id="new", charge_type="UserCorrection")
    world.update("billing.charge_type", "charge_type", "UserCorrection", default_product_id=world.product())
    world.invoice(customer, line)

    world.decide()

    assert world.reasons(line) == {"offer_unmapped"}


def test_a_default_product_that_cannot_be_used_holds_its_lines(world: World) -> None:
    customer = world.customer()
    line = monthly(MAY, offer_id=None, charge_type="UserCorrection")
    product_id = world.product(product_class="Bundle")
    world.update("billing.charge_type", "charge_type", "UserCorrection", default_product_id=product_id)
    world.invoice(customer, line)

    world.decide()

    assert world.reasons(line) == {"product_not_usable"}


def test_the_frequencies_an_offer_was_invoiced_with_are_kept_with_their_newest_date(world: World) -> None:
    customer = world.customer()
    world.invoice(customer, monthly(MAY), day=MAY)
    world.invoice(customer, monthly(MAY, subscription_id="b"), day=MAY.replace(day=9))
    world.invoice(customer, monthly(MAY, subscription_id="c", frequency=YEARLY), day=MAY.replace(day=4))

    world.decide()

    seen = world.rows("select * from mapping.offer_frequency order by billing_frequency")
    assert [(row["billing_frequency"], row["last_invoiced_on"]) for row in seen] == [
        ("Every 1 month", MAY.replace(day=9)), (YEARLY, MAY.replace(day=4)),
    ]  # fmt: skip


@pytest.mark.parametrize("what", ["variant", "default product"])
def test_what_changed_after_the_plan_keeps_its_line_back_until_the_next_run(world: World, what: str) -> None:
    customer = world.customer()
    offer_id = "offer" if what == "variant" else None
    first, second = world.product(), world.product()
    line = monthly(MAY, offer_id=offer_id, charge_type="UserCorrection")
    world.invoice(customer, line)
    world.update("billing.charge_type", "charge_type", "UserCorrection", default_product_id=first)
    world.decide()
    plan_id = world.plan()
    approve_plan(world.connection, plan_id, "ann")
    if what == "variant":
        variant(world, "offer", "Every 1 month", second)
    else:
        world.update("billing.charge_type", "charge_type", "UserCorrection", default_product_id=second)

    counts = world.deliver_approved(plan_id)

    assert counts.writes == 0
    assert world.reasons(line) == {"line_changed"}
    world.night()
    assert world.connectwise.only(customer.agreement_id)["product"] == {"id": second}


def test_another_charge_types_default_product_keeps_nothing_back(world: World) -> None:
    line = monthly(MAY)
    world.invoice(world.customer(), line)
    world.decide()
    plan_id = world.plan()
    approve_plan(world.connection, plan_id, "ann")
    world.update("billing.charge_type", "charge_type", "CycleFee", default_product_id=world.product())

    counts = world.deliver_approved(plan_id)

    assert counts.writes > 0
    assert world.is_carried(line)


def test_an_approved_offer_that_gets_another_frequency_is_warned_of_once(world: World) -> None:
    customer = world.customer()
    world.offer(offer_id="apart")
    variant(world, "apart", YEARLY, world.product())
    for offer_id in ("offer", "apart"):
        world.invoice(customer, monthly(MAY, offer_id=offer_id, subscription_id=f"monthly {offer_id}"))
    world.night()
    for offer_id in ("offer", "apart", "new"):
        world.invoice(customer, monthly(MAY, offer_id=offer_id, subscription_id=f"y {offer_id}", frequency=YEARLY))

    world.night()
    world.night()

    told = world.rows("select level, message from audit.log_entry where code = 'offer_frequency_new'")
    assert [(row["level"], row["message"]) for row in told] == [(
        "WARNING", "1 approved offer is invoiced with another billing frequency for the first time, "
        f"and becomes the same product: offer (offer) {YEARLY}",
    )]  # fmt: skip
