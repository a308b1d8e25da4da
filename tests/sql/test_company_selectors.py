"""One organization, several companies: a visible selector says which lines go where, and nothing is guessed."""

from __future__ import annotations

from decimal import Decimal

import pytest
from sql_world import MAY, Customer, World, monthly

from billing_sync.plan import approve_plan, shards_to_deliver


def second_company(world: World) -> Customer:
    """Another company with an agreement, to which no organization is mapped."""
    company_id = world.company()
    return Customer("", company_id, world.agreement(company_id))


def select(world: World, customer: Customer, kind: str, source_id: str, to: Customer) -> None:
    world.insert(
        "mapping.company_selector", organization_id=customer.organization_id, kind=kind, source_id=source_id,
        company_id=to.company_id, decided_by="ann",
    )  # fmt: skip


def detail(world: World, reason: str) -> str:
    return str(world.value("select detail from billing.held_reason where reason_code = %s", reason))


@pytest.mark.parametrize("kind", ["contract", "offer", "subscription"])
def test_a_selector_of_each_kind_decides_the_company(world: World, kind: str) -> None:
    first = world.customer()
    second = second_company(world)
    world.offer(offer_id="other")
    here = monthly(MAY, contract_id="c1", offer_id="offer", subscription_id="s1")
    there = monthly(MAY, contract_id="c2", offer_id="other", subscription_id="s2")
    world.invoice(first, here, there)
    sources = {"contract": ("c1", "c2"), "offer": ("offer", "other"), "subscription": ("s1", "s2")}[kind]
    select(world, first, kind, sources[0], first)
    select(world, first, kind, sources[1], second)

    world.night()

    assert world.decision(here)["agreement_id"] == first.agreement_id
    assert world.decision(there)["agreement_id"] == second.agreement_id
    assert world.connectwise.only(first.agreement_id)["extPrice"] == Decimal("20.00")
    assert world.connectwise.only(second.agreement_id)["extPrice"] == Decimal("20.00")


def test_the_invoices_contract_counts_for_rows_without_one(world: World) -> None:
    first, second = world.customer(), second_company(world)
    line = monthly(MAY)
    world.invoice(first, line, contract_id="c9")
    select(world, first, "contract", "c9", second)

    world.decide()

    assert world.decision(line)["company_id"] == second.company_id


def test_a_line_that_no_selector_claims_is_held_until_one_does(world: World) -> None:
    first, second = world.customer(), second_company(world)
    line = monthly(MAY, contract_id="c1")
    invoice = world.invoice(first, line)
    select(world, first, "subscription", "another", second)

    world.decide()

    assert world.reasons(line) == {"company_unclaimed"}
    assert detail(world, "company_unclaimed") == "contract c1, offer offer, subscription sub"
    assert world.prove() == []
    assert world.proof(invoice)["held"] == Decimal("20.00")
    select(world, first, "subscription", "sub", second)
    world.night()
    assert world.is_carried(line)
    assert world.proof(invoice)["delivered"] == Decimal("20.00")


def test_a_line_claimed_for_two_companies_is_held_and_says_by_which_selectors(world: World) -> None:
    first, second = world.customer(), second_company(world)
    line = monthly(MAY)
    invoice = world.invoice(first, line)
    select(world, first, "offer", "offer", first)
    select(world, first, "subscription", "sub", second)

    world.decide()

    assert world.reasons(line) == {"company_ambiguous"}
    assert world.decision(line)["company_candidates"] == sorted([first.company_id, second.company_id])
    assert detail(world, "company_ambiguous") == (
        f"offer offer: Company {first.company_id} ({first.company_id}), "
        f"subscription sub: Company {second.company_id} ({second.company_id})"
    )
    assert world.prove() == []
    assert world.proof(invoice)["held"] == Decimal("20.00")
    world.execute("delete from mapping.company_selector where kind = 'offer'")
    world.night()
    assert world.decision(line)["company_id"] == second.company_id
    assert world.is_carried(line)


def test_two_selectors_that_agree_are_no_doubt(world: World) -> None:
    first, second = world.customer(), second_company(world)
    line = monthly(MAY)
    world.invoice(first, line)
    select(world, first, "offer", "offer", second)
    select(world, first, "subscription", "sub", second)

    world.night()

    assert world.decision(line)["company_id"] == second.company_id
    assert world.is_carried(line)


def test_selectors_of_one_organization_do_not_touch_another(world: World) -> None:
    first, other, second = world.customer(), world.customer(), second_company(world)
    line, others = monthly(MAY), monthly(MAY)
    world.invoice(first, line)
    world.invoice(other, others)
    select(world, first, "offer", "offer", second)

    world.night()

    assert world.decision(others)["company_id"] == other.company_id
    assert world.decision(line)["company_id"] == second.company_id


@pytest.mark.parametrize(("by", "outcome"), [("bob", "excluded"), (None, "held")])
def test_selectors_do_not_replace_the_approval_of_the_organization(world: World, by: str | None, outcome: str) -> None:
    first = world.customer()
    line = monthly(MAY)
    world.invoice(first, line)
    select(world, first, "offer", "offer", first)
    world.map_organization(first.organization_id, first.company_id, "excluded", by=by)

    world.decide()

    assert world.outcome(line) == outcome
    assert world.reasons(line) == (set() if by else {"organization_unmapped"})
    assert world.items() == []


def test_a_selector_that_changed_after_the_plan_keeps_its_line_back_until_the_next_run(world: World) -> None:
    first, second = world.customer(), second_company(world)
    line, other_subscription = monthly(MAY), monthly(MAY, subscription_id="other")
    world.invoice(first, line, other_subscription)
    for subscription in ("sub", "other"):
        select(world, first, "subscription", subscription, first)
    world.decide()
    plan_id = world.plan()
    approve_plan(world.connection, plan_id, "ann")
    world.update("mapping.company_selector", "source_id", "sub", company_id=second.company_id, version=2)
    assert shards_to_deliver(world.connection, plan_id) != []

    counts = world.deliver_approved(plan_id)

    assert counts.writes == 0
    assert world.reasons(line) == {"line_changed"}
    world.night()
    assert world.connectwise.only(second.agreement_id)["extPrice"] == Decimal("20.00")
    assert world.connectwise.only(first.agreement_id)["extPrice"] == Decimal("20.00")


def test_an_invoice_that_is_not_accounted_for_pauses_each_company_it_goes_to_and_is_said_once(world: World) -> None:
    first, second = world.customer(), second_company(world)
    here, there = monthly(MAY, subscription_id="s1"), monthly(MAY, subscription_id="s2")
    world.invoice(first, here, there)
    select(world, first, "subscription", "s1", first)
    select(world, first, "subscription", "s2", second)
    world.night()
    world.execute("update billing.invoice set total_amount = total_amount + 1")
    world.execute("update audit.run set state = 'running'")

    breaches = world.breaches()

    assert [breach["code"] for breach in breaches] == ["difference"]
    paused = world.rows("select company_id from delivery.pause where ended_at is null order by 1")
    assert [row["company_id"] for row in paused] == sorted([first.company_id, second.company_id])
    assert world.value("select count(*) from audit.log_entry where code = 'breach_difference'") == 1


def test_a_subscription_that_no_selector_claims_is_not_shown_at_the_organizations_own_company(world: World) -> None:
    first, second = world.customer(), second_company(world)
    for subscription_id in ("claimed", "unclaimed", "without a line"):
        world.insert(
            "mapping.subscription", subscription_id=subscription_id, organization_id=first.organization_id,
            offer_id="offer", status="Active",
        )  # fmt: skip
    world.invoice(first, monthly(MAY, subscription_id="claimed"), monthly(MAY, subscription_id="unclaimed"))
    shown = "select subscription_id, company_id from reporting.subscription order by 1"
    before = world.rows(shown)
    select(world, first, "subscription", "claimed", second)

    world.night()

    assert {row["company_id"] for row in before} == {first.company_id}
    assert {row["subscription_id"]: row["company_id"] for row in world.rows(shown)} == {
        "claimed": second.company_id, "unclaimed": None, "without a line": None,
    }  # fmt: skip
