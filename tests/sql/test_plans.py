"""Plans: what is in them, when a line is planned again, which plan supersedes which, and what can be approved."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from datetime import date
from decimal import Decimal

import psycopg
import pytest
from sql_world import JULY, JUNE, MAY, World, month_end, monthly

from billing_sync.db import run_sql_file
from billing_sync.decide import BOUND_ADDITIONS, MAKE_PLAN, STEPS, decide, decide_again
from billing_sync.errors import ConfigurationError
from billing_sync.plan import approve_automatically, approve_plan


def state(world: World, run_id: int) -> str:
    return str(world.value("select state from delivery.plan where plan_id = %s", world.plan(run_id)))


def test_a_plan_lists_what_will_be_sent_with_its_money(world: World) -> None:
    customer = world.customer()
    world.invoice(customer, monthly(MAY, quantity=3, unit_price=Decimal("3.50")))

    world.decide()

    (item,) = world.items()
    assert item["action"] == "create"
    assert item["amount"] == Decimal("10.50")
    assert item["shard"] == customer.agreement_id % 8
    assert item["next_invoice_date"] == MAY
    assert item["payload"] == {
        "product": {"id": world.value("select product_id from mapping.offer_mapping")},
        "billCustomer": "Billable", "quantity": 3, "lessIncluded": 0, "unitPrice": Decimal("3.5"),
        "effectiveDate": "2026-05-01T00:00:00Z", "cancelledDate": "2026-05-31T00:00:00Z",
        "invoiceDescription": "Cloud Suite - Subscription fee", "serialNumber": item["marker"],
    }  # fmt: skip


def test_the_payload_hash_seals_the_payload_as_it_is_stored(world: World) -> None:
    world.invoice(world.customer(), monthly(MAY), monthly(MAY, charge_type="UsageFee", name='Zähler\n"ü"'))

    world.decide()

    stored = world.rows("select payload::text as payload, payload_hash from delivery.plan_item")
    assert len(stored) == 2
    assert all(hashlib.sha256(row["payload"].encode()).hexdigest() == row["payload_hash"] for row in stored)
    assert not any("\\n" in row["payload"] for row in stored)


@pytest.mark.parametrize(
    ("carrier", "custom_field_id"), [("serial_number", None), ("description", None), ("custom_field", "12")]
)
def test_the_marker_stands_where_the_setting_says_and_is_read_back(
    world: World, carrier: str, custom_field_id: str | None
) -> None:
    customer = world.customer()
    world.setting("marker_carrier", carrier)
    if custom_field_id:
        world.setting("marker_custom_field_id", custom_field_id)
    for period in (MAY, JUNE):
        world.invoice(customer, monthly(period))

    counts = [world.night(MAY).writes, world.night(MAY, JUNE).writes, world.night().writes]

    assert counts == [2, 1, 0]
    marker = world.value("select marker from delivery.addition")
    stands = {
        "serial_number": lambda record: record["serialNumber"] == marker,
        "description": lambda record: record["invoiceDescription"].endswith(f" [{marker}]"),
        "custom_field": lambda record: record["customFields"] == [{"id": 12, "value": marker}],
    }[carrier]
    assert stands(world.connectwise.only(customer.agreement_id))


def test_what_already_stands_is_not_listed(world: World) -> None:
    world.invoice(world.customer(), monthly(MAY))
    world.night()

    world.decide()

    assert world.items() == []


def test_a_refused_addition_is_planned_again_only_when_it_differs(world: World) -> None:
    line = monthly(MAY)
    world.invoice(world.customer(), line)
    world.decide()
    world.connectwise.refuse = "no"
    world.deliver()
    world.decide()
    same = (world.items(), world.outcome(line), world.reasons(line))
    line.price("10.01")
    world.decide()
    changed = [item["action"] for item in world.items()]
    world.connectwise.refuse = None
    world.deliver()

    assert same == ([], "held", {"refused_by_connectwise"})
    assert changed == ["create"]
    assert world.is_carried(line)
    assert world.reasons(line) == set()


def test_a_newer_plan_supersedes_a_waiting_one_that_speaks_of_the_same_lines(world: World) -> None:
    world.invoice(world.customer(), monthly(MAY))
    older, newer = world.decide(), world.decide()

    assert (state(world, older), state(world, newer)) == ("superseded", "proposed")
    with pytest.raises(ConfigurationError, match="superseded"):
        approve_plan(world.connection, world.plan(older), "ann")


def test_plans_that_share_no_line_live_side_by_side(world: World) -> None:
    customer = world.customer()
    for period in (MAY, JUNE):
        world.invoice(customer, monthly(period, charge_type="UsageFee"))
    older, newer = world.decide("backfill", MAY), world.decide("backfill", JUNE)

    assert (state(world, older), state(world, newer)) == ("proposed", "proposed")
    for run_id in (older, newer):
        world.deliver(run_id)
    assert world.value("select count(*) from delivery.addition where state = 'delivered'") == 2


def test_a_newer_plan_leaves_an_approved_one_alone(world: World) -> None:
    world.invoice(world.customer(), monthly(MAY))
    older = world.decide()
    approve_plan(world.connection, world.plan(older), "ann")

    newer = world.decide()

    assert (state(world, older), state(world, newer)) == ("approved", "proposed")
    world.deliver(older)
    assert world.deliver(newer).created == 0


@pytest.mark.parametrize("is_approved", [False, True])
@pytest.mark.parametrize("by", ["override", "mapping", "held"])
def test_a_plan_whose_line_was_decided_anew_since_cannot_deliver_it(world: World, by: str, is_approved: bool) -> None:
    customer = world.customer()
    line = monthly(MAY)
    world.invoice(customer, line)
    older = world.decide()
    if is_approved:
        approve_plan(world.connection, world.plan(older), "ann")
    if by == "override":
        world.override(line, is_excluded=True, reason="a gift")
    elif by == "mapping":
        world.map_organization(customer.organization_id, customer.company_id, "excluded", by="bob")
    else:
        world.set_agreement(customer.agreement_id, prorates=True)
    world.decide()
    decided = world.outcome(line)

    with suppress(ConfigurationError):  # the plan may be superseded altogether
        world.deliver(older)

    assert decided == world.outcome(line) == ("held" if by == "held" else "excluded")
    assert not world.is_carried(line)
    assert world.connectwise.additions_of == {}


def test_a_dry_run_plan_can_never_be_approved_and_supersedes_nothing(world: World) -> None:
    world.invoice(world.customer(), monthly(MAY))
    earlier = world.decide(is_dry_run=True)
    real = world.decide()
    dry = world.decide(is_dry_run=True)

    assert [state(world, run_id) for run_id in (earlier, real, dry)] == ["proposed"] * 3
    assert [item["payload"] for item in world.items(dry)] == [item["payload"] for item in world.items(real)]
    with pytest.raises(ConfigurationError, match="dry run"):
        approve_plan(world.connection, world.plan(dry), "ann")
    world.setting("automated_daily_sync", "on")
    assert approve_automatically(world.connection, dry) is False
    with pytest.raises(psycopg.errors.CheckViolation):
        world.execute("update delivery.plan set state = 'approved', approved_by = 'ann' where run_id = %s", dry)
    assert approve_automatically(world.connection, real) is True


def test_nothing_is_approved_by_nobody(world: World) -> None:
    world.invoice(world.customer(), monthly(MAY))
    run_id = world.decide()

    assert approve_automatically(world.connection, run_id) is False
    with pytest.raises(psycopg.errors.CheckViolation):
        world.execute("update delivery.plan set state = 'approved' where run_id = %s", run_id)


def test_an_approved_plan_is_left_alone_when_its_run_is_run_again(world: World) -> None:
    line = monthly(MAY)
    world.invoice(world.customer(), line)
    run_id = world.decide()
    approve_plan(world.connection, world.plan(run_id), "ann")
    before = world.items(run_id)
    line.price(99)

    world.again()

    assert world.items(run_id) == before
    assert state(world, run_id) == "approved"


def test_a_proposed_plan_is_made_anew_when_its_run_is_run_again(world: World) -> None:
    line = monthly(MAY)
    world.invoice(world.customer(), line)
    run_id = world.decide()
    before = world.plan(run_id)
    line.price(99)

    world.again()

    assert world.plan(run_id) == before
    assert [item["amount"] for item in world.items(run_id)] == [Decimal("198.00")]


def test_a_prolonged_addition_is_an_update_that_keeps_where_it_began(world: World) -> None:
    customer = world.customer()
    world.invoice(customer, monthly(MAY))
    world.night()
    world.invoiced_until(customer.agreement_id, JUNE)
    world.invoice(customer, monthly(JUNE))

    world.decide()

    (item,) = world.items()
    assert item["action"] == "update"
    assert item["payload_before"]["cancelledDate"] == "2026-05-31T00:00:00Z"
    assert item["payload"] == item["payload_before"] | {"cancelledDate": "2026-06-30T00:00:00Z"}
    lines = world.rows(
        "select cycle_start, amount from delivery.plan_item_line where plan_item_id = %s", item["plan_item_id"]
    )
    assert [(line["cycle_start"], line["amount"]) for line in lines] == [(JUNE, Decimal("20.00"))]


def test_a_backfill_of_one_period_delivers_no_line_of_another(world: World) -> None:
    customer = world.customer()
    may, june = monthly(MAY), monthly(JUNE)
    world.invoice(customer, may)
    world.invoice(customer, june)
    world.decide("nightly", MAY, JUNE)

    world.decide("backfill", MAY)
    world.deliver()

    assert world.is_carried(may)
    assert not world.is_carried(june)


def test_a_backfill_of_one_period_plans_a_line_that_changed_since_the_last_night(world: World) -> None:
    customer = world.customer()
    may = monthly(MAY)
    world.invoice(customer, may)
    world.invoice(customer, monthly(JUNE))
    world.decide("nightly", MAY, JUNE)
    may.price(11)

    world.decide("backfill", MAY)

    assert [item["amount"] for item in world.items()] == [Decimal("22.00")]


def test_a_line_in_two_approved_plans_under_different_keys_is_delivered_once(world: World) -> None:
    customer = world.customer()
    may, june = monthly(MAY), monthly(JUNE)
    world.invoice(customer, may)
    world.invoice(customer, june)
    only_june = world.decide("backfill", JUNE)
    approve_plan(world.connection, world.plan(only_june), "ann")
    both = world.decide("nightly", MAY, JUNE)
    assert world.key(june) == world.key(may)

    world.deliver(only_june)
    world.deliver(both)
    world.night()

    assert world.connectwise.billed(customer.agreement_id, MAY, date(2026, 5, 31)) == Decimal("20.00")
    assert world.connectwise.billed(customer.agreement_id, JUNE, date(2026, 6, 30)) == Decimal("20.00")


def test_an_agreement_by_contract_year_without_a_billing_start_stops_nobody_else(world: World) -> None:
    odd = world.customer(invoicing_cycle="ContractYear", bill_start_date=None)
    bad, good = monthly(MAY), monthly(MAY)
    world.invoice(odd, bad)
    world.invoice(world.customer(), good)

    world.decide()

    assert (world.outcome(bad), world.outcome(good)) == ("held", "deliver")


def test_of_the_plans_that_speak_of_a_line_only_the_one_decided_last_waits(world: World) -> None:
    world.invoice(world.customer(), monthly(MAY))
    older = world.decide()
    world.decide()

    decide(world.connection, older)

    assert world.rows("select plan_id from delivery.plan where state = 'proposed'") == [{"plan_id": world.plan(older)}]


def test_a_run_that_is_run_again_after_its_plan_was_applied_makes_a_further_plan(world: World) -> None:
    customer = world.customer()
    world.invoice(customer, monthly(MAY))
    run_id = world.decide()
    world.deliver()
    applied = world.plan(run_id)
    world.invoice(customer, monthly(MAY, subscription_id="new"))

    world.again()

    assert world.plan(run_id) != applied
    assert [item["subscription_id"] for item in world.items(run_id)] == ["new"]


def test_a_run_without_lines_has_an_empty_plan(world: World) -> None:
    world.open("nightly", JULY)

    run_sql_file(world.connection, MAKE_PLAN, world.run_id)

    assert world.items() == []
    assert state(world, world.run_id) == "proposed"


@pytest.mark.parametrize("edited", [0, 1, 2])
def test_an_edit_between_grouping_and_planning_leaves_no_addition_with_a_gap(world: World, edited: int) -> None:
    """Each step is a task of its own: a person may edit a line in between. The rest must not bill that line's cycle."""
    customer = world.customer()
    lines = [monthly(month, subscription_id="S-1") for month in (MAY, JUNE, JULY)]
    for line in lines:
        world.invoice(customer, line)
    run_id = world.open("nightly", MAY, JUNE, JULY)
    for step in STEPS[: STEPS.index(BOUND_ADDITIONS) + 1]:
        run_sql_file(world.connection, step, run_id)
    assert len({world.key(line) for line in lines}) == 1

    world.override(lines[edited], unit_price=Decimal("7.00"))
    decide_again(world.connection, organization_ids=[customer.organization_id])
    for step in STEPS[STEPS.index(MAKE_PLAN) :]:
        run_sql_file(world.connection, step, run_id)

    planned = {item["delivery_key"]: len(world.rows(
        "select from delivery.plan_item_line where plan_item_id = %s", item["plan_item_id"]
    )) for item in world.items(run_id)}  # fmt: skip
    # What stands before the edited line is whole; what was founded by it, or goes on after it, waits.
    assert list(planned.values()) == ([2] if edited == 2 else [])

    world.deliver(run_id)
    world.night(MAY, JUNE, JULY)
    billed = [world.connectwise.billed(customer.agreement_id, month, month_end(month)) for month in (MAY, JUNE, JULY)]
    assert billed == [world.decision(line)["amount"] for line in lines]
    assert billed[edited] == Decimal("14.00")
    assert world.breaches() == []
