"""Agreements to create, up to the plan: when one is planned, what it says, what is in the way, and the bound."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from sql_world import JUNE, MAY, Line, World, monthly

from billing_sync import bounds
from billing_sync.create_agreements import allow_agreement, refuse_agreement
from billing_sync.errors import ConfigurationError
from billing_sync.plan import approve_automatically, approve_plan, say_awaiting_approval, shards_to_deliver


@pytest.fixture(autouse=True)
def allowed(world: World) -> None:
    """Agreements may be created; the default type bills monthly."""
    world.setting("create_agreements", "on")
    world.update("mapping.agreement_type", "agreement_type_id", 1, billing_cycle_id=1, invoicing_cycle="CalendarYear")
    world.offer(offer_id="offer")


def newcomer(world: World, **company: Any) -> tuple[str, int]:
    """An organization and its company, which has no agreement."""
    company_id = world.company(**{"default_contact_id": 77, **company})
    return world.organization(company_id), company_id


def billed(world: World, *lines: Line, **company: Any) -> int:
    """A newcomer with an invoice; the company."""
    organization_id, company_id = newcomer(world, **company)
    world.invoice(organization_id, *lines)
    return company_id


def planned(world: World) -> list[dict[str, Any]]:
    """What the newest plan creates."""
    return world.rows("select * from delivery.plan_agreement where plan_id = %s order by company_id", world.plan())


def detail(world: World, line: Line) -> str:
    return str(world.value("select detail from billing.held_reason where line_id = %s", world.line_id(line)))


def test_a_company_without_agreement_gets_one_planned_and_its_lines_say_so(world: World) -> None:
    lines = [monthly(JUNE), monthly(MAY)]
    company_id = billed(world, *lines, name="Acme\nLtd")

    world.decide()

    (agreement,) = planned(world)
    assert agreement["payload"] == {
        "name": "Cloud Subscriptions Acme Ltd",
        "type": {"id": 1},
        "company": {"id": company_id},
        "contact": {"id": 77},
        "startDate": "2026-05-01T00:00:00Z",
        "billStartDate": "2026-05-01T00:00:00Z",
        "noEndingDateFlag": True,
        "billingCycle": {"id": 1},
        "invoicingCycle": "CalendarYear",
        "prorateFlag": False,
        "internalNotes": f"Created by the billing sync, which finds it by this mark: {agreement['marker']}",
    }
    assert (agreement["line_count"], agreement["amount"], agreement["currency"]) == (2, Decimal("40.00"), "EUR")
    words = (
        f"agreement Cloud Subscriptions Acme Ltd is created by plan {world.plan()}; its lines follow with the next run"
    )
    assert [(world.reasons(line), detail(world, line)) for line in lines] == [({"agreement_to_create"}, words)] * 2
    assert approve_automatically(world.connection, world.run_id) is False
    assert "0 Additions worth 0.00 and 1 new agreements" in say_awaiting_approval(world.connection, world.run_id)
    assert shards_to_deliver(world.connection, world.plan()) == [company_id % 8]


def test_the_name_follows_its_template_and_has_room(world: World) -> None:
    world.setting("new_agreement_name", "{company} via AppXite, {type}")
    billed(world, monthly(MAY), name="A" * 95)

    world.decide()

    name = planned(world)[0]["payload"]["name"]
    assert (len(name), name[:99]) == (100, "A" * 95 + " via")
    for wrong in ("", "{organization}", "a{b", "x" * 101):
        with pytest.raises(ConfigurationError):
            world.setting("new_agreement_name", wrong)


@pytest.mark.parametrize(
    ("cycle", "invoicing_cycle", "start", "expected"),
    [
        (1, "CalendarYear", date(2026, 5, 17), "2026-05-01"),
        (3, "CalendarYear", date(2026, 5, 17), "2026-04-01"),
        (5, "ContractYear", date(2026, 5, 17), "2026-05-01"),
        (1, "CalendarYear", date(1999, 1, 1), "2025-05-01"),  # a slip: a year before the invoice is enough
    ],
)
def test_it_bills_from_the_cycle_of_the_earliest_charge(
    world: World, cycle: int, invoicing_cycle: str, start: date, expected: str
) -> None:
    world.update(
        "mapping.agreement_type", "agreement_type_id", 1, billing_cycle_id=cycle, invoicing_cycle=invoicing_cycle
    )
    organization_id, _ = newcomer(world)
    world.invoice(organization_id, Line(start=start, end=date(2026, 5, 31)), day=MAY)

    world.decide()

    assert planned(world)[0]["payload"]["billStartDate"][:10] == expected


@pytest.mark.parametrize(
    ("line", "company", "words"),
    [
        ({}, {"default_contact_id": None}, "the company has no default contact"),
        ({"currency": "USD"}, {}, "the company's currency is EUR, the line's USD"),
        ({}, {"currency": None}, "the company has no currency"),
    ],
)
def test_what_is_in_the_way_is_said(world: World, line: dict[str, Any], company: dict[str, Any], words: str) -> None:
    held = monthly(MAY, **line)
    organization_id, _ = newcomer(world, **company)
    world.invoice(organization_id, held, currency=held.currency)

    world.decide()

    assert (world.reasons(held), planned(world)) == ({"no_agreement"}, [])
    assert detail(world, held).endswith(f"; none is created: {words}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"billing_cycle_id": None}, "has no billing cycle that can be used"),
        ({"billing_cycle_id": 6}, "has no billing cycle that can be used"),  # weekly
        ({"invoicing_cycle": None}, "has no billing cycle that can be used"),
        ({"is_inactive": True}, "there is no active Agreement Type Cloud Subscriptions"),
        ({"is_gone": True}, "there is no active Agreement Type Cloud Subscriptions"),
    ],
)
def test_a_type_that_cannot_be_used_creates_nothing(world: World, change: dict[str, Any], words: str) -> None:
    world.update("mapping.agreement_type", "agreement_type_id", 1, **change)
    line = monthly(MAY)
    billed(world, line)

    world.decide()

    assert (world.reasons(line), planned(world)) == ({"no_agreement"}, [])
    assert words in detail(world, line)


@pytest.mark.parametrize(
    "state", [{"agreement_status": "Inactive"}, {"agreement_status": "Expired"}, {"is_cancelled": True}]
)
def test_nothing_is_created_beside_an_agreement_of_the_type(world: World, state: dict[str, Any]) -> None:
    line = monthly(MAY)
    agreement_id = world.agreement(billed(world, line), name="Old one", **state)

    world.decide()

    assert (world.reasons(line), planned(world)) == ({"no_agreement"}, [])
    assert f"none is created: it has Old one ({agreement_id})" in detail(world, line)


def test_an_agreement_of_another_type_is_not_in_the_way(world: World) -> None:
    world.insert("mapping.agreement_type", agreement_type_id=2, name="Managed")
    world.agreement(billed(world, monthly(MAY)), agreement_type_id=2)

    world.decide()

    assert len(planned(world)) == 1


def test_lines_that_wait_for_something_else_too_create_nothing(world: World) -> None:
    line = monthly(MAY, offer_id=None)
    billed(world, line)

    world.decide()

    assert world.reasons(line) == {"offer_missing", "agreement_to_create"}
    assert planned(world) == []


def test_a_person_refuses_it_and_takes_it_back(world: World) -> None:
    line = monthly(MAY)
    company_id = billed(world, line)
    refuse_agreement(world.connection, company_id, "Pays by card", "ann")
    world.decide()
    assert (world.reasons(line), planned(world)) == ({"no_agreement"}, [])
    assert "none is created: ann refused it: Pays by card" in detail(world, line)

    assert allow_agreement(world.connection, company_id, "bob") == "refused by ann: Pays by card"
    world.decide()
    assert (world.reasons(line), len(planned(world))) == ({"agreement_to_create"}, 1)
    history = world.rows(
        "select changed_by, before ->> 'reason' as was from audit.change where table_name = 'mapping.agreement_refusal'"
        " order by change_id"
    )
    assert [tuple(row.values()) for row in history] == [("ann", None), ("bob", "Pays by card")]


def test_refusals_of_what_nobody_knows_are_refused(world: World) -> None:
    with pytest.raises(ConfigurationError, match="no company 999"):
        refuse_agreement(world.connection, 999, "x", "ann")
    with pytest.raises(ConfigurationError, match="--reason"):
        refuse_agreement(world.connection, world.company(), " ", "ann")
    with pytest.raises(ConfigurationError, match="Nothing that a person can take back"):
        allow_agreement(world.connection, 999, "ann")


def test_one_more_than_the_bound_parks_all_of_them_and_nothing_else(world: World) -> None:
    world.setting("bound_new_agreements", "2")
    lines = [monthly(MAY) for _ in range(3)]
    for line in lines:
        billed(world, line)
    other = monthly(MAY)
    world.invoice(world.customer(), other)
    world.decide()

    assert [world.reasons(line) for line in lines] == [{"agreement_to_create", "too_many_agreements"}] * 3
    assert (planned(world), world.outcome(other)) == ([], "deliver")
    (parked,) = bounds.parked_now(world.connection)
    assert (parked.bound_key, parked.figure, parked.lines) == ("too_many_agreements", 3, 3)
    assert parked.detail == "3 agreements would be created, bound 2"

    bounds.allow(world.connection, "too_many_agreements", "3", "ann")
    world.decide()
    assert [world.reasons(line) for line in lines] == [{"agreement_to_create"}] * 3
    assert len(planned(world)) == 3


@pytest.mark.parametrize("bound", ["3", "off"])
def test_within_the_bound_all_are_planned(world: World, bound: str) -> None:
    world.setting("bound_new_agreements", bound)
    for _ in range(3):
        billed(world, monthly(MAY))

    world.decide()

    assert len(planned(world)) == 3


def test_a_parked_line_is_free_when_the_agreement_is_there(world: World) -> None:
    world.setting("bound_new_agreements", "1")
    lines = [monthly(MAY) for _ in range(2)]
    companies = [billed(world, line) for line in lines]
    world.decide()
    for company_id in companies:
        world.agreement(company_id)

    assert world.night().created == 2
    assert [world.reasons(line) for line in lines] == [set(), set()]


def test_a_newer_plan_for_the_same_company_supersedes_the_older(world: World) -> None:
    billed(world, monthly(MAY))
    first = world.decide()
    older = world.plan(first)
    world.decide()
    assert world.value("select state from delivery.plan where plan_id = %s", older) == "superseded"
    with pytest.raises(ConfigurationError, match="superseded"):
        approve_plan(world.connection, older, "ann")


def test_what_is_under_way_is_not_planned_again(world: World) -> None:
    line = monthly(MAY)
    billed(world, line)
    world.decide()
    older = world.plan()
    approve_plan(world.connection, older, "ann")
    world.execute(
        "insert into delivery.new_agreement (agreement_key, marker, company_id, agreement_type_id, state, payload,"
        " payload_hash, plan_id) select agreement_key, marker, company_id, agreement_type_id, 'intended', payload,"
        " payload_hash, plan_id from delivery.plan_agreement"
    )
    world.decide()

    assert planned(world) == []
    assert f"is created by plan {older}" in detail(world, line)
    assert approve_automatically(world.connection, world.run_id) is True  # it only resumes what was approved
