"""Bulk changes: what was previewed is what is applied, once; per line it is told what became of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from review_world import JUNE, MAY, Customer, Line, World, monthly

from billing_sync.bulk import apply_bulk, preview_bulk, read_bulk, read_bulk_lines
from billing_sync.db import Connection, connect
from billing_sync.edits import change_line
from billing_sync.errors import NotFoundError, RefusedEditError
from billing_sync.plan import approve_plan
from billing_sync.review import LineFilter

ALL = LineFilter()


@pytest.fixture
def world(billing_db: str) -> Iterator[World]:
    made = World(billing_db)
    yield made
    made.close()


@pytest.fixture
def other(billing_db: str) -> Iterator[Connection]:
    with connect(billing_db, user="bob") as connection:
        yield connection


def held_lines(world: World, lines: int = 3) -> tuple[Customer, list[Line]]:
    """A customer with two agreements that fit, and its lines."""
    customer = world.customer()
    world.agreement(customer.company_id)
    made = [monthly(MAY, subscription_id=f"s{number}") for number in range(lines)]
    world.invoice(customer, *made)
    world.decide()
    return customer, made


def statuses(world: World, bulk_id: int) -> dict[int, tuple[str, str | None]]:
    _, lines = read_bulk_lines(world.connection, bulk_id, status=None, offset=0, limit=1000)
    return {line.line_id: (line.status, line.detail) for line in lines}


def test_one_cause_fixed_for_many_lines_releases_them_all(world: World) -> None:
    customer, lines = held_lines(world)

    preview = preview_bulk(world.connection, ALL, action="set", values={"agreement_id": customer.agreement_id})
    assert (preview.chosen, preview.lines, preview.unchanged, preview.refused, preview.customers) == (3, 3, 0, [], 1)
    assert [(one.currency, one.amount, one.lines) for one in preview.money] == [("EUR", 60, 3)]
    assert [row["line_id"] for row in preview.sample] == [world.line_id(line) for line in lines]
    assert world.value("select count(*) from billing.override") == 0, "a preview changes nothing"

    result = apply_bulk(world.connection, preview.bulk_id, person="tests")

    assert (result.state, result.changed, result.conflicts, result.refused) == ("done", 3, 0, 0)
    assert result.released is not None
    assert [(one.currency, one.amount, one.lines) for one in result.released.released] == [("EUR", 60, 3)]
    assert {world.outcome(line) for line in lines} == {"deliver"}
    assert read_bulk(world.connection, preview.bulk_id) == result
    changes = world.rows("select changed_by from audit.change where table_name = 'billing.override'")
    assert [row["changed_by"] for row in changes] == ["tests"] * 3


def test_a_bulk_change_is_applied_once(world: World) -> None:
    customer, lines = held_lines(world)
    preview = preview_bulk(world.connection, ALL, action="set", values={"agreement_id": customer.agreement_id})
    first = apply_bulk(world.connection, preview.bulk_id, person="tests")
    change_line(world.connection, world.line_id(lines[0]), version=1, changes={"agreement_id": None})

    assert apply_bulk(world.connection, preview.bulk_id, person="tests") == first
    assert world.value("select count(*) from billing.override") == 2


def test_the_selection_is_frozen(world: World) -> None:
    customer, _ = held_lines(world)
    preview = preview_bulk(world.connection, ALL, action="set", values={"agreement_id": customer.agreement_id})
    world.invoice(customer, monthly(MAY, subscription_id="later"))
    world.decide()

    assert apply_bulk(world.connection, preview.bulk_id, person="tests").changed == 3


def test_a_line_that_somebody_changed_after_the_preview_stays_as_it_is(world: World, other: Connection) -> None:
    customer, lines = held_lines(world)
    change_line(world.connection, world.line_id(lines[2]), version=0, changes={"quantity": Decimal(5)})
    preview = preview_bulk(world.connection, ALL, action="set", values={"agreement_id": customer.agreement_id})
    change_line(other, world.line_id(lines[0]), version=0, changes={"quantity": Decimal(9)})
    change_line(other, world.line_id(lines[2]), version=1, changes={"quantity": None})

    result = apply_bulk(world.connection, preview.bulk_id, person="tests")

    assert (result.changed, result.conflicts) == (1, 2)
    told = statuses(world, preview.bulk_id)
    assert told[world.line_id(lines[0])][0] == "conflict"
    assert "bob changed it" in str(told[world.line_id(lines[0])][1])
    assert told[world.line_id(lines[1])] == ("changed", None)
    assert "took the typed values back" in str(told[world.line_id(lines[2])][1])
    assert world.value("select agreement_id from billing.override where line_id = %s", world.line_id(lines[0])) is None


def test_locked_lines_are_refused_in_preview_and_when_applied(world: World) -> None:
    customer = world.customer()
    delivered, waiting = monthly(MAY, subscription_id="a"), monthly(MAY, subscription_id="b")
    world.invoice(customer, delivered)
    world.night(MAY)
    world.invoice(customer, waiting)
    world.decide()

    preview = preview_bulk(world.connection, ALL, action="set", values={"quantity": Decimal(4)})
    assert (preview.chosen, preview.lines) == (2, 1)
    ((why, lines),) = preview.refused
    assert "delivered" in why
    assert lines == 1

    approve_plan(world.connection, world.plan(), "ann")
    result = apply_bulk(world.connection, preview.bulk_id, person="tests")
    assert (result.changed, result.refused) == (0, 2)
    assert world.value("select count(*) from billing.override") == 0


def test_an_agreement_of_another_company_is_refused_line_by_line(world: World) -> None:
    customer, _ = held_lines(world)
    foreign = world.customer()
    world.invoice(foreign, monthly(MAY, subscription_id="f"))
    world.decide()

    preview = preview_bulk(world.connection, ALL, action="set", values={"agreement_id": customer.agreement_id})

    assert preview.lines == 3
    assert preview.refused == [(f"agreement {customer.agreement_id} belongs to another company", 1)]


def test_charge_dates_by_rule_are_each_lines_own(world: World) -> None:
    customer = world.customer(next_invoice_date=MAY)
    may, june = monthly(MAY, subscription_id="a"), monthly(JUNE, subscription_id="b")
    world.invoice(customer, may, day=date(2026, 5, 20))
    world.invoice(customer, june, day=date(2026, 6, 20))
    world.decide()

    preview = preview_bulk(
        world.connection, ALL, action="set",
        values={"effective_date": "invoice_date", "cancelled_date": "last_day_of_charge_month"},
    )  # fmt: skip
    apply_bulk(world.connection, preview.bulk_id, person="tests")

    dates = {world.decision(line)["effective_date"]: world.decision(line)["cancelled_date"] for line in (may, june)}
    assert dates == {date(2026, 5, 20): date(2026, 5, 31), date(2026, 6, 20): date(2026, 6, 30)}


def test_a_rule_that_gives_no_date_is_refused(world: World) -> None:
    customer = world.customer()
    world.invoice(customer, Line(start=None, end=None), day=MAY)
    world.decide()

    preview = preview_bulk(world.connection, ALL, action="set", values={"effective_date": "as_invoiced"})

    assert (preview.lines, [lines for _, lines in preview.refused]) == (0, [1])


def test_lines_that_have_the_values_already_are_unchanged(world: World) -> None:
    customer, lines = held_lines(world)
    change_line(world.connection, world.line_id(lines[0]), version=0, changes={"agreement_id": customer.agreement_id})

    preview = preview_bulk(world.connection, ALL, action="set", values={"agreement_id": customer.agreement_id})

    assert (preview.lines, preview.unchanged) == (2, 1)


def test_null_takes_typed_values_back_and_leaves_no_empty_ones(world: World) -> None:
    _, lines = held_lines(world)
    for line in lines[:2]:
        change_line(world.connection, world.line_id(line), version=0, changes={"quantity": Decimal(5)})
    change_line(world.connection, world.line_id(lines[1]), version=1, changes={"unit_price": Decimal(3)})

    preview = preview_bulk(world.connection, ALL, action="set", values={"quantity": None})
    assert (preview.lines, preview.unchanged) == (2, 1)
    apply_bulk(world.connection, preview.bulk_id, person="tests")

    left = world.rows("select line_id, quantity, unit_price::numeric from billing.override")
    assert left == [{"line_id": world.line_id(lines[1]), "quantity": None, "unit_price": 3}]


def test_reset_exclude_and_include(world: World) -> None:
    _, lines = held_lines(world)
    change_line(world.connection, world.line_id(lines[0]), version=0, changes={"quantity": Decimal(5)})

    excluded = preview_bulk(world.connection, ALL, action="exclude", values={}, reason="not ours")
    assert apply_bulk(world.connection, excluded.bulk_id, person="tests").changed == 3
    assert {world.outcome(line) for line in lines} == {"excluded"}

    included = preview_bulk(world.connection, ALL, action="include", values={})
    assert apply_bulk(world.connection, included.bulk_id, person="tests").changed == 3
    assert {world.outcome(line) for line in lines} == {"held"}
    assert world.value("select count(*) from billing.override") == 1

    reset = preview_bulk(world.connection, ALL, action="reset", values={})
    assert (reset.lines, reset.unchanged) == (1, 2)
    assert apply_bulk(world.connection, reset.bulk_id, person="tests").changed == 1
    assert world.value("select count(*) from billing.override") == 0


def test_rules_are_applied_again_to_the_chosen_lines(world: World) -> None:
    customer = world.customer()
    lines = [monthly(MAY, subscription_id=f"s{number}") for number in range(2)]
    world.invoice(customer, *lines)
    world.decide()
    world.execute("update billing.charge_type set charge_end_rule = 'invoice_date' where charge_type = 'CycleFee'")

    preview = preview_bulk(
        world.connection, replace(ALL, line_ids=[world.line_id(lines[0])]), action="apply_rules", values={}
    )
    assert (preview.chosen, preview.lines) == (1, 1)
    assert apply_bulk(world.connection, preview.bulk_id, person="tests").changed == 1

    versions = [world.decision(line)["rules"]["charge_type_version"] for line in lines]
    assert versions == [2, 1]
    again = preview_bulk(world.connection, ALL, action="apply_rules", values={})
    assert (again.lines, again.unchanged) == (1, 1)


def test_an_old_preview_and_anothers_preview_are_not_applied(world: World) -> None:
    customer, _ = held_lines(world)
    preview = preview_bulk(world.connection, ALL, action="set", values={"agreement_id": customer.agreement_id})
    with pytest.raises(NotFoundError):
        apply_bulk(world.connection, preview.bulk_id, person="bob")
    with pytest.raises(NotFoundError):
        apply_bulk(world.connection, preview.bulk_id + 1, person="tests")

    world.execute("update billing.bulk_change set expires_at = now()")
    with pytest.raises(RefusedEditError, match="older than an hour"):
        apply_bulk(world.connection, preview.bulk_id, person="tests")
    assert world.value("select count(*) from billing.override") == 0


@pytest.mark.parametrize(
    ("action", "values", "words"),
    [
        ("set", {}, "what is to change"),
        ("set", {"effective_date": "some day"}, "neither a date nor"),
        ("set", {"agreement_id": 999_999}, "no agreement"),
        ("set", {"effective_date": date(2026, 5, 9), "cancelled_date": date(2026, 5, 8)}, "before the start"),
        ("exclude", {}, "why"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_frozen(
    world: World, action: Any, values: dict[str, Any], words: str
) -> None:
    with pytest.raises(RefusedEditError, match=words):
        preview_bulk(world.connection, ALL, action=action, values=values)

    assert world.value("select count(*) from billing.bulk_change") == 0


def test_lines_of_a_bulk_change_are_paged_by_status(world: World) -> None:
    customer, lines = held_lines(world)
    preview = preview_bulk(world.connection, ALL, action="set", values={"agreement_id": customer.agreement_id})

    total, page = read_bulk_lines(world.connection, preview.bulk_id, status="to change", offset=1, limit=1)

    assert (total, [line.line_id for line in page]) == (3, [world.line_id(lines[1])])
    assert read_bulk_lines(world.connection, preview.bulk_id, status="refused", offset=0, limit=9) == (0, [])
    with pytest.raises(NotFoundError):
        read_bulk_lines(world.connection, preview.bulk_id + 1, status=None, offset=0, limit=9)
