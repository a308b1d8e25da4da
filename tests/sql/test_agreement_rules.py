"""Which agreement takes a line: chosen, contract, agreement rules in their order, default Agreement Type, held."""

from __future__ import annotations

from typing import Any

import pytest
from sql_world import JUNE, MAY, Customer, Line, World, monthly

from billing_sync.db import run_sql_file
from billing_sync.decide import RESOLVE_AGREEMENTS
from billing_sync.plan import approve_plan

PROJECTS = "Projects"


@pytest.fixture
def customer(world: World) -> Customer:
    """A customer with one agreement of the default type, and the Agreement Type Projects."""
    world.insert("mapping.agreement_type", agreement_type_id=2, name=PROJECTS)
    world.insert("mapping.agreement_type", agreement_type_id=3, name="Old type", is_inactive=True)
    return world.customer()


def rule(world: World, name: str, **conditions: Any) -> None:
    """The next rule."""
    position = 1 + int(world.value("select count(*) from mapping.agreement_rule"))
    world.insert("mapping.agreement_rule", agreement_rule=name, position=position, **conditions)


def decided(world: World, line: Line) -> tuple[int | None, str | None, str | None]:
    """Agreement, source and rule of a line."""
    row = world.decision(line)
    return row["agreement_id"], row["agreement_source"], row["agreement_rule"]


def test_without_rules_the_default_type_decides(world: World, customer: Customer) -> None:
    world.agreement(customer.company_id, agreement_type_id=2)
    line = monthly(MAY)
    world.invoice(customer, line)

    world.decide()

    assert decided(world, line) == (customer.agreement_id, "default_type", None)


@pytest.mark.parametrize(
    ("conditions", "agreement", "line"),
    [
        ({"agreement_type": PROJECTS}, {"agreement_type_id": 2}, {}),
        ({"agreement_name": "cloud * (eu)"}, {"name": "Cloud Services (EU)"}, {}),
        ({"agreement_name": "*100%*"}, {"name": "At 100% of list"}, {}),
        ({"currency": "USD"}, {"currency": "USD"}, {"currency": "USD"}),
        ({"currency": "line"}, {"currency": "USD"}, {"currency": "USD"}),
        ({"billing_cycle": "Quarterly"}, {"cycle": "Quarterly"}, {}),
        ({"billing_cycle": "line"}, {"cycle": "Quarterly"}, {"frequency": "Every 3 months"}),
        ({"agreement_type": PROJECTS, "charge_type": "CycleFee"}, {"agreement_type_id": 2}, {}),
        ({"agreement_type": PROJECTS, "line_kind": "recurring"}, {"agreement_type_id": 2}, {}),
        (
            {"agreement_type": PROJECTS, "line_kind": "one-time"},
            {"agreement_type_id": 2},
            {"charge_type": "OneTimeFee", "frequency": "One Time"},
        ),
        ({"agreement_type": PROJECTS, "offer_id": "offer"}, {"agreement_type_id": 2}, {}),
        ({"agreement_type": PROJECTS, "agreement_name": "B*"}, {"name": "b", "agreement_type_id": 2}, {}),
    ],
)  # fmt: skip
def test_a_rule_takes_the_one_agreement_that_it_fits(
    world: World, customer: Customer, conditions: dict[str, Any], agreement: dict[str, Any], line: dict[str, Any]
) -> None:
    other = world.agreement(customer.company_id, **agreement)
    rule(world, "the rule", **conditions)
    taken = monthly(MAY, **line)
    world.invoice(customer, taken, currency=taken.currency)

    world.decide()

    assert decided(world, taken) == (other, "rule", "the rule")
    assert world.decision(taken)["agreement_rule_version"] == 1


@pytest.mark.parametrize(
    "conditions",
    [
        {"agreement_type": PROJECTS, "charge_type": "UsageFee"},
        {"agreement_type": PROJECTS, "line_kind": "one-time"},
        {"agreement_type": PROJECTS, "offer_id": "another"},
        {"agreement_name": "P_o%"},  # wildcards of SQL are none
        {"agreement_name": "roject"},  # the whole name
        {"currency": "USD"},
        {"billing_cycle": "Yearly"},
    ],
)
def test_a_rule_that_is_not_for_the_line_or_fits_nothing_is_passed_over(
    world: World, customer: Customer, conditions: dict[str, Any]
) -> None:
    world.agreement(customer.company_id, agreement_type_id=2, name="Project work")
    world.insert("mapping.offer", offer_id="another", name="another")
    rule(world, "not this one", **conditions)
    line = monthly(MAY)
    world.invoice(customer, line)

    world.decide()

    assert decided(world, line) == (customer.agreement_id, "default_type", None)


def test_the_first_rule_that_fits_decides_and_the_order_counts(world: World, customer: Customer) -> None:
    first, second = (world.agreement(customer.company_id, agreement_type_id=2, name=name) for name in ("A", "B"))
    rule(world, "none", agreement_name="Z")
    rule(world, "first", agreement_name="A")
    rule(world, "second", agreement_name="B")
    line = monthly(MAY)
    world.invoice(customer, line)
    world.decide()
    assert decided(world, line) == (first, "rule", "first")

    world.execute("update mapping.agreement_rule set position = 4 where agreement_rule = 'first'")
    world.decide()
    assert decided(world, line) == (second, "rule", "second")


def test_several_agreements_that_a_rule_fits_are_held_with_the_candidates(world: World, customer: Customer) -> None:
    one, two = (world.agreement(customer.company_id, agreement_type_id=2, name=name) for name in ("One", "Two"))
    rule(world, "projects", agreement_type=PROJECTS)
    line = monthly(MAY)
    world.invoice(customer, line)

    world.decide()

    assert world.reasons(line) == {"ambiguous_agreement"}
    assert decided(world, line) == (None, None, "projects")
    assert world.value("select detail from billing.held_reason") == f"One ({one}), Two ({two})"

    rule(world, "better", agreement_name="two")
    world.execute("update mapping.agreement_rule set position = 0 where agreement_rule = 'better'")
    world.decide()
    assert (decided(world, line), world.outcome(line)) == ((two, "rule", "better"), "deliver")


def test_a_persons_choice_and_a_contract_come_before_rules(world: World, customer: Customer) -> None:
    by_contract, by_hand, by_rule = (world.agreement(customer.company_id, name=name) for name in "CHR")
    rule(world, "the rule", agreement_name="R")
    world.map_contract("contract", by_contract)
    lines = [monthly(MAY, subscription_id=name) for name in "abc"]
    lines[0].contract_id = lines[1].contract_id = "contract"
    world.invoice(customer, *lines)
    world.decide()
    world.override(lines[0], agreement_id=by_hand)
    world.decide()

    assert [decided(world, line) for line in lines] == [
        (by_hand, "override", None),
        (by_contract, "contract", None),
        (by_rule, "rule", "the rule"),
    ]


@pytest.mark.parametrize(
    "state",
    [
        {"agreement_status": "Inactive"},
        {"agreement_status": "Expired"},
        {"is_cancelled": True},
        {"is_gone": True},
        {"agreement_type_id": 3},
    ],
)
def test_no_rule_takes_an_agreement_that_is_not_active(world: World, customer: Customer, state: dict[str, Any]) -> None:
    world.agreement(customer.company_id, name="Preferred", **state)
    rule(world, "the rule", agreement_name="Preferred")
    line = monthly(MAY)
    world.invoice(customer, line)

    world.decide()

    assert decided(world, line) == (customer.agreement_id, "default_type", None)


def test_a_rule_helps_a_company_without_an_agreement_of_the_default_type(world: World, customer: Customer) -> None:
    world.set_agreement(customer.agreement_id, agreement_type_id=2)
    line = monthly(MAY)
    world.invoice(customer, line)
    world.decide()
    assert world.reasons(line) == {"no_agreement"}

    rule(world, "any")
    assert world.night().created == 1
    assert decided(world, line) == (customer.agreement_id, "rule", "any")


def test_an_agreement_of_another_company_is_never_a_candidate(world: World, customer: Customer) -> None:
    world.agreement(world.company(), name="Theirs")
    rule(world, "the rule", agreement_name="Theirs")
    line = monthly(MAY)
    world.invoice(customer, line)

    world.decide()

    assert decided(world, line) == (customer.agreement_id, "default_type", None)


def test_a_changed_rule_counts_for_what_is_not_delivered(world: World, customer: Customer) -> None:
    other = world.agreement(customer.company_id, agreement_type_id=2)
    line, later = monthly(MAY), monthly(JUNE)
    world.invoice(customer, line)
    world.night()
    rule(world, "projects", agreement_type=PROJECTS)
    world.invoice(customer, later)

    world.decide()

    assert decided(world, line) == (customer.agreement_id, "default_type", None)
    assert decided(world, later) == (other, "rule", "projects")


def test_of_two_agreements_with_one_mark_the_one_of_the_ledger_counts(world: World, customer: Customer) -> None:
    marker = "axs-tests-" + "0" * 32
    world.set_agreement(customer.agreement_id, marker=marker)
    double = world.agreement(customer.company_id, marker=marker)
    elsewhere = world.agreement(world.company(), marker=marker)  # a copy that was moved to another company
    line = monthly(MAY)
    world.invoice(customer, line)
    world.decide()
    assert decided(world, line) == (customer.agreement_id, "default_type", None)  # the oldest
    world.decide()
    said = world.rows("select message from audit.log_entry where code = 'agreement_doubled'")
    assert len(said) == 1
    assert f"Agreement {double} carries the mark" in said[0]["message"]
    assert world.value("select count(*) from mapping.doubled_agreement where agreement_id = %s", elsewhere) == 0

    approve_plan(world.connection, world.plan(), "ann")
    world.insert(
        "delivery.new_agreement", agreement_key="k", marker=marker, company_id=customer.company_id,
        agreement_type_id=1, state="created", agreement_id=double, payload="{}", payload_hash="", plan_id=world.plan(),
    )  # fmt: skip
    world.decide()
    assert decided(world, line) == (double, "default_type", None)
    run_sql_file(world.connection, RESOLVE_AGREEMENTS, world.run_id)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"billStartDate": "2026-04-01T00:00:00Z"}, "billing start is 2026-04-01, was 2026-01-01"),
        ({"endDate": "2026-05-15T00:00:00Z"}, "end is 2026-05-15, was None"),
        ({"endDate": "2026-05-15T23:00:00Z"}, "end is 2026-05-15T23:00:00Z, was None"),
        ({"prorateFlag": True}, "proration is True, was False"),
        ({"agreementStatus": "Cancelled"}, "status is Cancelled, was Active"),
        ({"company": {"id": 999}}, "company is 999"),
    ],
)
def test_an_agreement_that_changed_since_the_plan_gets_nothing(
    world: World, customer: Customer, changed: dict[str, Any], words: str
) -> None:
    line = monthly(MAY)
    world.invoice(customer, line)
    world.decide()
    world.connectwise.agreement_says = changed

    counts = world.deliver()

    assert (counts.created, counts.skipped) == (0, 1)
    assert words in world.value("select detail from billing.held_reason where reason_code = 'agreement_changed'")


def test_what_the_reference_data_learned_since_the_plan_is_a_change_too(world: World, customer: Customer) -> None:
    """The plan's own terms count, not what the database has heard since."""
    line = monthly(MAY)
    world.invoice(customer, line)
    world.decide()
    world.set_agreement(customer.agreement_id, currency="USD")

    counts = world.deliver()

    assert (counts.created, counts.skipped) == (0, 1)
    assert world.reasons(line) == {"agreement_changed"}
