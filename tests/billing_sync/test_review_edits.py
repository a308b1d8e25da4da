"""Edits of the review grid: decided at once, never lost, never delivered otherwise than a person last said."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from review_world import JUNE, MAY, World, monthly

from billing_sync import decide as decisions
from billing_sync.db import Connection, connect, run_sql_file
from billing_sync.decide import decide_again, deciding, review_state, try_decide_again
from billing_sync.edits import agreements_for, change_line, products_for
from billing_sync.errors import BusyError, LockedError, NotFoundError, RefusedEditError, StaleEditError
from billing_sync.plan import approve_plan
from billing_sync.review import read_line


@pytest.fixture
def world(billing_db: str) -> Iterator[World]:
    made = World(billing_db)
    yield made
    made.close()


@pytest.fixture
def other(billing_db: str) -> Iterator[Connection]:
    """A second person's connection."""
    with connect(billing_db, user="bob") as connection:
        yield connection


def waiting_line(world: World) -> tuple[Any, Any, int]:
    """A customer, its line that awaits approval, and the line's id."""
    customer = world.customer()
    line = monthly(MAY)
    world.invoice(customer, line)
    world.decide()
    return customer, line, world.line_id(line)


def sent(world: World) -> list[dict[str, Any]]:
    """What ConnectWise holds."""
    return [record for held in world.connectwise.additions_of.values() for record in held.values()]


# -- decided at once ---------------------------------------------------------------------------------------------------


def test_typed_values_are_what_connectwise_will_get(world: World) -> None:
    _, line, line_id = waiting_line(world)
    product_id = world.product()

    changed = change_line(
        world.connection, line_id, version=0,
        changes={
            "quantity": Decimal(4), "unit_price": Decimal("2.5"), "product_id": product_id,
            "invoice_description": "As agreed", "effective_date": date(2026, 5, 3), "cancelled_date": date(2026, 5, 20),
        },
    )  # fmt: skip

    shown = changed.line
    assert (shown["sent_quantity"], shown["sent_unit_price"], shown["sent_amount"]) == (4, Decimal("2.5"), 10)
    assert (shown["effective_date"], shown["cancelled_date"]) == (date(2026, 5, 3), date(2026, 5, 20))
    assert (shown["product_id"], shown["invoice_description"]) == (product_id, "As agreed")
    assert set(shown["value_sources"].values()) == {"User Updated", "System Updated"}
    assert (shown["version"], shown["typed"]["decided_by"]) == (1, "tests")
    assert world.decision(line)["delivery_key"] is None, "no older plan can deliver it"
    assert changed.released.state == "done"

    world.night(MAY)
    (record,) = sent(world)
    assert (record["quantity"], record["unitPrice"]) == (4, Decimal("2.5"))


def test_a_held_line_is_released_at_once_and_the_money_told(world: World) -> None:
    customer = world.customer()
    world.agreement(customer.company_id)  # a second one
    lines = [monthly(MAY, subscription_id=f"s{number}") for number in range(3)]
    world.invoice(customer, *lines)
    world.decide()
    assert world.reasons(lines[0]) == {"ambiguous_agreement"}

    changed = change_line(
        world.connection, world.line_id(lines[0]), version=0, changes={"agreement_id": customer.agreement_id}
    )

    assert changed.line["outcome"] == "awaiting approval"
    assert [(one.currency, one.amount, one.lines) for one in changed.released.released] == [("EUR", 20, 1)]
    assert changed.released.decided == 3
    assert world.reasons(lines[1]) == {"ambiguous_agreement"}


def test_a_value_that_cannot_be_billed_holds_the_line_and_says_so(world: World) -> None:
    _, _, line_id = waiting_line(world)

    changed = change_line(world.connection, line_id, version=0, changes={"cancelled_date": date(2026, 8, 1)})

    assert {reason["code"] for reason in changed.line["held_reasons"]} == {"typed_dates_not_usable"}
    assert [one.lines for one in changed.released.held] == [1]


def test_taking_the_last_typed_value_back_leaves_none_and_its_version_is_not_used_again(world: World) -> None:
    _, _, line_id = waiting_line(world)
    change_line(world.connection, line_id, version=0, changes={"quantity": Decimal(9)})

    reset = change_line(world.connection, line_id, version=1, changes={"quantity": None})
    assert (reset.line["version"], reset.line["typed"], reset.line["sent_quantity"]) == (0, None, 2)

    again = change_line(world.connection, line_id, version=0, changes={"quantity": Decimal(5)})
    assert again.line["version"] > 1


def test_only_the_given_values_change(world: World) -> None:
    _, _, line_id = waiting_line(world)
    change_line(world.connection, line_id, version=0, changes={"quantity": Decimal(9), "unit_price": Decimal(3)})

    changed = change_line(world.connection, line_id, version=1, changes={"quantity": None})

    assert changed.line["typed"]["fields"] == ["unit_price"]
    assert changed.line["sent_unit_price"] == 3


def test_an_excluded_line_needs_a_reason_and_can_be_taken_back(world: World) -> None:
    _, _, line_id = waiting_line(world)
    with pytest.raises(RefusedEditError, match="why"):
        change_line(world.connection, line_id, version=0, changes={"is_excluded": True})

    excluded = change_line(
        world.connection, line_id, version=0, changes={"is_excluded": True, "reason": "billed by hand"}
    )
    assert (excluded.line["outcome"], excluded.line["excluded_by"]) == ("excluded", "tests: billed by hand")

    included = change_line(world.connection, line_id, version=1, changes={"is_excluded": False})
    assert (included.line["outcome"], included.line["typed"]) == ("awaiting approval", None)


def test_every_change_is_in_the_audit_trail_with_its_person(world: World, other: Connection) -> None:
    _, _, line_id = waiting_line(world)
    change_line(world.connection, line_id, version=0, changes={"quantity": Decimal(9)})
    change_line(other, line_id, version=1, changes={"quantity": None})

    told = world.rows(
        "select changed_by, before ->> 'quantity' as before, after ->> 'quantity' as after from audit.change"
        " where table_name = 'billing.override' order by change_id"
    )
    assert [tuple(row.values()) for row in told] == [("tests", None, "9"), ("bob", "9", None)]


# -- two people --------------------------------------------------------------------------------------------------------


def test_the_second_of_two_people_is_told_and_changes_nothing(world: World, other: Connection) -> None:
    _, _, line_id = waiting_line(world)
    change_line(other, line_id, version=0, changes={"quantity": Decimal(7)})

    with pytest.raises(StaleEditError, match="bob changed this line") as told:
        change_line(world.connection, line_id, version=0, changes={"quantity": Decimal(8)})

    assert told.value.current == read_line(world.connection, line_id)
    assert world.value("select quantity from billing.override") == 7


def test_of_two_people_at_the_same_moment_one_wins(world: World, billing_db: str) -> None:
    _, _, line_id = waiting_line(world)
    together = threading.Barrier(2)
    said: list[str] = []

    def edit(person: str, quantity: int) -> None:
        with connect(billing_db, user=person) as own:
            together.wait()
            try:
                change_line(own, line_id, version=0, changes={"quantity": Decimal(quantity)})
                said.append("changed")
            except (StaleEditError, BusyError):
                said.append("refused")

    threads = [threading.Thread(target=edit, args=one) for one in (("ann", 3), ("bob", 4))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(said) == ["changed", "refused"]
    assert world.value("select count(*) from audit.change where table_name = 'billing.override'") == 1


def test_an_edit_does_not_wait_for_ever_for_a_run(world: World, other: Connection) -> None:
    customer, _, line_id = waiting_line(world)
    with other.transaction():
        other.execute("select pg_advisory_xact_lock(hashtext('billing.decide'))")
        with pytest.raises(BusyError):
            change_line(world.connection, line_id, version=0, changes={"quantity": Decimal(8)})
        assert try_decide_again(world.connection, organization_ids=[customer.organization_id]).state == "later"

    assert world.value("select count(*) from billing.override") == 0
    assert world.value("select count(*) from audit.run where state = 'running' and kind = 'review'") == 0


# -- locked ------------------------------------------------------------------------------------------------------------


def test_a_delivered_line_cannot_be_edited(world: World) -> None:
    _, _, line_id = waiting_line(world)
    world.deliver()

    with pytest.raises(LockedError, match="Addition"):
        change_line(world.connection, line_id, version=0, changes={"quantity": Decimal(8)})


def test_a_delivered_line_of_a_withdrawn_invoice_can_only_be_excluded(world: World) -> None:
    _, _, line_id = waiting_line(world)
    world.deliver()
    world.execute("update billing.invoice set withdrawn = 'gone from AppXite'")
    with pytest.raises(LockedError):
        change_line(world.connection, line_id, version=0, changes={"quantity": Decimal(8)})

    changed = change_line(
        world.connection, line_id, version=0, changes={"is_excluded": True, "reason": "credited in ConnectWise"}
    )

    assert (changed.line["outcome"], changed.line["typed"]["is_excluded"]) == ("delivered", True)


def test_a_line_of_an_approved_plan_cannot_be_edited_until_its_deadline_is_over(world: World) -> None:
    _, _, line_id = waiting_line(world)
    approve_plan(world.connection, world.plan(), "ann")
    with pytest.raises(LockedError, match="approved by ann"):
        change_line(world.connection, line_id, version=0, changes={"quantity": Decimal(8)})

    world.execute("update delivery.plan set approved_at = now() - interval '2 days'")
    assert change_line(world.connection, line_id, version=0, changes={"quantity": Decimal(8)}).line["version"] == 1


def test_a_line_that_is_being_delivered_cannot_be_edited(world: World) -> None:
    _, _, line_id = waiting_line(world)
    world.deliver()
    world.execute("update delivery.addition set state = 'created'")

    with pytest.raises(LockedError, match="right now"):
        change_line(world.connection, line_id, version=0, changes={"quantity": Decimal(8)})


def test_a_plan_cannot_be_approved_while_one_of_its_lines_is_edited(world: World, other: Connection) -> None:
    _, _, line_id = waiting_line(world)
    other.execute("set lock_timeout = '200ms'")
    plan_id = world.plan()
    with world.connection.transaction():
        change_line(world.connection, line_id, version=0, changes={"quantity": Decimal(8)})
        with pytest.raises(Exception, match="lock timeout"):
            approve_plan(other, plan_id, "bob")

    approve_plan(other, plan_id, "bob")
    assert world.deliver_approved(plan_id).created == 0
    assert sent(world) == []


# -- an older plan never delivers old values ---------------------------------------------------------------------------


def test_an_older_plan_does_not_deliver_a_line_that_was_edited(world: World) -> None:
    _, line, line_id = waiting_line(world)
    older = world.plan()
    change_line(world.connection, line_id, version=0, changes={"quantity": Decimal(8)})

    approve_plan(world.connection, older, "ann")
    world.deliver_approved(older)
    assert sent(world) == []

    world.night(MAY)
    (record,) = sent(world)
    assert record["quantity"] == 8
    assert world.is_carried(line)


def test_an_older_plan_does_not_deliver_values_that_a_later_run_decided_otherwise(world: World) -> None:
    """The later run was cut off before it planned: the line has its Addition again, with other values."""
    _, line, _ = waiting_line(world)
    older = world.plan()
    key = world.key(line)
    world.setting("description_template", "Now: {subscription}")
    run_id = world.open()
    for step in decisions.STEPS[: decisions.STEPS.index(decisions.MAKE_PLAN)]:
        run_sql_file(world.connection, step, run_id)
    assert (world.key(line), world.outcome(line)) == (key, "deliver")

    approve_plan(world.connection, older, "ann")
    world.deliver_approved(older)

    assert sent(world) == []


def test_a_plan_does_not_deliver_what_was_decided_before_a_person_typed(world: World) -> None:
    """Typed by SQL after the run had decided, before it planned: nothing in the audit trail is newer than the plan."""
    customer = world.customer()
    line = monthly(MAY)
    world.invoice(customer, line)
    run_id = world.open()
    at = decisions.STEPS.index(decisions.MAKE_PLAN)
    for step in decisions.STEPS[:at]:
        run_sql_file(world.connection, step, run_id)
    world.override(line, quantity=8)
    for step in decisions.STEPS[at:]:
        run_sql_file(world.connection, step, run_id)

    world.deliver()
    assert sent(world) == []
    assert world.reasons(line) == {"line_changed"}

    world.night(MAY)
    assert [record["quantity"] for record in sent(world)] == [8]


def test_lines_that_are_decided_as_before_stay_in_their_plan(world: World) -> None:
    customer = world.customer()
    lines = [monthly(MAY, subscription_id=f"s{number}") for number in range(3)]
    world.invoice(customer, *lines)
    world.decide()
    older = world.plan()
    change_line(world.connection, world.line_id(lines[0]), version=0, changes={"quantity": Decimal(8)})

    approve_plan(world.connection, older, "ann")
    assert world.deliver_approved(older).created == 2
    assert [world.is_carried(line) for line in lines] == [False, True, True]


# -- what may be typed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"agreement_id": 999_999}, "no agreement 999999"),
        ({"product_id": 999_999}, "no product 999999"),
        ({"effective_date": date(1970, 1, 1)}, "no date of a charge"),
        ({"effective_date": date(2026, 5, 9), "cancelled_date": date(2026, 5, 8)}, "before the start"),
        ({"quantity": Decimal(10**9)}, "too large"),
        ({"quantity": Decimal(10**8), "unit_price": Decimal(10**8)}, "more than an invoice can hold"),
        ({"unit_price": Decimal("1.23456")}, "4 decimals"),
    ],
)
def test_a_value_that_cannot_be_is_refused_in_words(world: World, changes: dict[str, Any], words: str) -> None:
    _, _, line_id = waiting_line(world)

    with pytest.raises(RefusedEditError, match=words):
        change_line(world.connection, line_id, version=0, changes=changes)

    assert world.value("select count(*) from billing.override") == 0


def test_an_agreement_of_another_company_and_what_is_unusable_are_refused(world: World) -> None:
    customer, _, line_id = waiting_line(world)
    foreign = world.customer()
    ended = world.agreement(customer.company_id, agreement_status="Cancelled")
    bundle = world.product(product_class="Bundle")

    for changes, words in (
        ({"agreement_id": foreign.agreement_id}, "another company"),
        ({"agreement_id": ended}, "Cancelled"),
        ({"product_id": bundle}, "a Bundle"),
    ):
        with pytest.raises(RefusedEditError, match=words):
            change_line(world.connection, line_id, version=0, changes=changes)


@pytest.mark.parametrize(
    "text", ["'; drop table billing.override; --", "100% _sure_ \\", "\u202eevil\u202c", "=1+1", "🍰" * 900, "x" * 5900]
)
def test_a_description_is_stored_as_it_was_typed_and_sent_on_one_line(world: World, text: str) -> None:
    _, _, line_id = waiting_line(world)

    changed = change_line(world.connection, line_id, version=0, changes={"invoice_description": text})

    assert world.value("select invoice_description from billing.override") == text
    assert "\n" not in changed.line["invoice_description"]
    assert "\u202e" not in changed.line["invoice_description"]


def test_a_blank_description_is_none(world: World) -> None:
    _, _, line_id = waiting_line(world)

    assert (
        change_line(world.connection, line_id, version=0, changes={"invoice_description": "  "}).line["typed"] is None
    )


def test_a_line_that_does_not_exist_cannot_be_edited(world: World) -> None:
    with pytest.raises(NotFoundError):
        change_line(world.connection, 10**12, version=0, changes={"quantity": Decimal(1)})


def test_choices_are_of_the_customer_and_say_what_cannot_be_picked(world: World) -> None:
    customer, _, line_id = waiting_line(world)
    ended = world.agreement(customer.company_id, agreement_status="Cancelled", name="Ended 100%")
    world.customer()
    bundle = world.product(product_class="Bundle", identifier="Bundle")

    agreements = agreements_for(world.connection, line_id, "")
    assert [(one.id, one.is_candidate) for one in agreements] == [(customer.agreement_id, True), (ended, False)]
    assert agreements[1].unusable == "Cancelled"
    assert [one.id for one in agreements_for(world.connection, line_id, "100%")] == [ended]
    assert [one.id for one in agreements_for(world.connection, line_id, str(ended))] == [ended]

    products = products_for(world.connection, line_id, "")
    assert products[0].is_candidate
    assert [one.unusable for one in products if one.id == bundle] == ["a Bundle"]
    assert [one.id for one in products_for(world.connection, line_id, "bundle")] == [bundle]


# -- deciding again ----------------------------------------------------------------------------------------------------


def test_deciding_again_is_no_run_of_the_pipeline(world: World) -> None:
    customer, _, _ = waiting_line(world)
    before = world.rows("select run_id from reporting.run")

    released = decide_again(world.connection, organization_ids=[customer.organization_id])

    assert world.rows("select run_id from reporting.run") == before
    run = world.row("select kind, state, proven_at from audit.run where run_id = %s", released.run_id)
    assert run == {"kind": "review", "state": "succeeded", "proven_at": None}
    assert world.value("select count(*) from delivery.plan where run_id = %s", released.run_id) == 0


def test_nothing_changes_where_nothing_changed(world: World) -> None:
    customer = world.customer()
    world.invoice(customer, *(monthly(month, subscription_id=f"s{n}") for month in (MAY, JUNE) for n in range(3)))
    world.decide()
    before = world.snapshot()

    released = decide_again(world.connection)

    assert (released.decided, released.released, released.held) == (6, [], [])
    after = world.snapshot()
    assert {name for name in before if before[name] != after[name]} == {"audit.run"}


def test_only_the_organizations_and_periods_named_are_decided(world: World) -> None:
    customers = [world.customer(), world.customer()]
    for customer in customers:
        world.invoice(customer, monthly(MAY))
        world.invoice(customer, monthly(JUNE))
    world.decide()

    assert decide_again(world.connection, organization_ids=[customers[0].organization_id]).decided == 2
    assert decide_again(world.connection, billing_periods=[JUNE]).decided == 2
    assert (
        decide_again(world.connection, organization_ids=[customers[0].organization_id], billing_periods=[JUNE]).decided
        == 1
    )


def test_what_delivery_found_holds_a_line_until_the_next_run_or_another_value(world: World) -> None:
    _, line, line_id = waiting_line(world)
    world.connectwise.refuse = "no"
    world.deliver()
    world.decide()
    assert world.reasons(line) == {"refused_by_connectwise"}

    assert decide_again(world.connection).released == []
    assert world.outcome(line) == "held"

    changed = change_line(world.connection, line_id, version=0, changes={"quantity": Decimal(3)})
    assert changed.line["outcome"] == "awaiting approval"


def test_many_lines_are_decided_in_the_background(
    world: World, billing_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer = world.customer()
    world.agreement(customer.company_id)
    world.invoice(customer, *(monthly(MAY, subscription_id=f"s{number}") for number in range(5)))
    world.decide()
    monkeypatch.setattr(decisions, "MANY_LINES", 3)
    world.execute(
        "update mapping.agreement set agreement_status = 'Cancelled' where agreement_id <> %s", customer.agreement_id
    )

    def another() -> AbstractContextManager[Connection]:
        return connect(billing_db, user="ann")

    answer = decide_again(world.connection, connect=another)
    assert answer.state == "running"
    assert answer.run_id is not None
    for thread in threading.enumerate():
        if thread.name == f"review {answer.run_id}":
            thread.join()

    done = review_state(world.connection, answer.run_id)
    assert (done.state, done.decided) == ("done", 5)
    assert [(one.currency, one.amount, one.lines) for one in done.released] == [("EUR", 100, 5)]


def test_a_background_run_whose_server_died_is_told_as_failed(world: World) -> None:
    run_id = decisions.open_run(
        world.connection, dag_id=decisions.REVIEW_DAG, dag_run_id="died", kind="review", billing_periods=[]
    )

    assert review_state(world.connection, run_id).state == "failed"
    with pytest.raises(NotFoundError):
        review_state(world.connection, run_id + 1)


def test_waiting_for_a_run_that_decides_is_not_cut_off_by_the_bound_of_a_web_request(billing_db: str) -> None:
    with connect(billing_db) as running, connect(billing_db) as waiting:
        waiting.execute("set statement_timeout = '200ms'")
        running.execute("select pg_advisory_lock(hashtext('billing.decide'))")
        later = threading.Timer(0.8, lambda: running.execute("select pg_advisory_unlock_all()"))
        later.start()
        with deciding(waiting, lock_wait="30s"):
            pass
        later.join()
        assert waiting.execute("show statement_timeout").fetchone() == ("200ms",)
