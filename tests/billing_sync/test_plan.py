"""Approving: what may be delivered, by whose word, and what people are told about it."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from pipeline import NOV, OCT, Pipeline, check, recurring
from prepared import Build, Prepared

from billing_sync.db import connect, run_sql_file
from billing_sync.decide import GROUP_LINES, MAKE_PLAN, STEPS
from billing_sync.errors import (
    ConfigurationError,
    NotFoundError,
    PausedError,
    RefusedEditError,
    StaleEditError,
    TemporaryError,
)
from billing_sync.plan import (
    approve_automatically,
    approve_plan,
    plan_of_run,
    reject_plan,
    run_of_plan,
    say_awaiting_approval,
    shards_to_deliver,
)
from billing_sync.run import finish_run
from billing_sync.settle import retry_addition

MakePipeline = Callable[[Prepared], Pipeline]


def waiting_plan(pipeline: Pipeline) -> tuple[int, int]:
    """A plan that waits for a person: 12.60 for one customer, 1.00 for another."""
    pipeline.set(automated_daily_sync="off")
    pipeline.bill(OCT, recurring("a", OCT, 3, "4.20"))
    pipeline.bill(OCT, recurring("b", OCT, 1, "1.00"), customer=3)
    return pipeline.plan_night(OCT)


@pytest.fixture
def waiting(stage: Callable[[Build], Prepared], pipeline_of: MakePipeline) -> tuple[Pipeline, int, int]:
    prepared = stage(waiting_plan)
    return pipeline_of(prepared), prepared.run_id, prepared.plan_id


def state_of(pipeline: Pipeline, plan_id: int) -> tuple[str, str | None]:
    return pipeline.rows("select state, approved_by from delivery.plan where plan_id = %s", plan_id)[0]  # type: ignore[return-value]


def test_a_plan_waits_until_a_person_approves_it(waiting: tuple[Pipeline, int, int]) -> None:
    pipeline, run_id, plan_id = waiting
    assert not approve_automatically(pipeline.connection, run_id)
    counts, proof = pipeline.finish(run_id)
    assert (counts.writes, proof["awaiting_approval"]) == (0, "13.60")
    assert state_of(pipeline, plan_id) == ("proposed", None)
    assert finish_run(pipeline.connection, run_id) == "awaiting_approval"

    approve_plan(pipeline.connection, plan_id, "Anna")
    approve_plan(pipeline.connection, plan_id, "Bert")  # the first word counts
    assert state_of(pipeline, plan_id) == ("approved", "Anna")
    assert approve_automatically(pipeline.connection, run_id)
    assert run_of_plan(pipeline.connection, plan_id) == run_id
    assert shards_to_deliver(pipeline.connection, plan_id) == [1, 7]
    pipeline.finish(run_id)
    assert state_of(pipeline, plan_id) == ("applied", "Anna")
    assert shards_to_deliver(pipeline.connection, plan_id) == []
    approve_plan(pipeline.connection, plan_id, "Anna")
    assert run_of_plan(pipeline.connection, plan_id) == run_id
    check(pipeline.sandbox)


def test_automatic_approval_says_so(pipeline: Pipeline) -> None:
    pipeline.bill(OCT, recurring("a", OCT))
    run_id, plan_id = pipeline.plan_night(OCT)
    assert state_of(pipeline, plan_id) == ("approved", "Automated Daily Sync")
    assert approve_automatically(pipeline.connection, run_id)


def test_a_dry_run_is_never_applied(pipeline: Pipeline) -> None:
    pipeline.bill(OCT, recurring("a", OCT))
    run_id = pipeline.plan("nightly", [OCT], is_dry_run=True)
    plan_id = plan_of_run(pipeline.connection, run_id)
    assert not approve_automatically(pipeline.connection, run_id)
    with pytest.raises(ConfigurationError, match=f"Plan {plan_id} is of a dry run and can never be applied"):
        approve_plan(pipeline.connection, plan_id, "Anna")
    with pytest.raises(ConfigurationError, match="is proposed, not approved"):
        run_of_plan(pipeline.connection, plan_id)
    assert "Dry run: plan" in say_awaiting_approval(pipeline.connection, run_id)
    counts, _ = pipeline.finish(run_id)
    assert (counts.writes, pipeline.sandbox.writes()["received"]) == (0, 0)
    # And the client of a dry run could not write if anything tried to.
    with pytest.raises(ConfigurationError, match="not written, since this is a dry run"):
        pipeline.connectwise(read_only=True).create_addition(1001, {})


def test_a_superseded_plan_is_refused(waiting: tuple[Pipeline, int, int]) -> None:
    pipeline, _, older = waiting
    _, newer = pipeline.plan_night(OCT)
    assert state_of(pipeline, older)[0] == "superseded"
    for refuse in (
        lambda: approve_plan(pipeline.connection, older, "Anna"),
        lambda: run_of_plan(pipeline.connection, older),
    ):
        with pytest.raises(ConfigurationError, match=f"Plan {older} is superseded"):
            refuse()
    approve_plan(pipeline.connection, newer, "Anna")


def test_a_plan_that_is_superseded_at_the_moment_of_its_automatic_approval_gives_way(
    waiting: tuple[Pipeline, int, int],
) -> None:
    pipeline, run_id, plan_id = waiting
    pipeline.set(automated_daily_sync="on")
    with connect(pipeline.dsn) as other, ThreadPoolExecutor(1) as pool:
        with other.transaction():
            other.execute("update delivery.plan set state = 'superseded' where plan_id = %s", [plan_id])
            approved = pool.submit(approve_automatically, pipeline.connection, run_id)
            pid = pipeline.connection.info.backend_pid
            waits = "select exists (select from pg_locks where pid = %s and not granted)"
            until = time.monotonic() + 10
            while other.execute(waits, [pid]).fetchone() != (True,):
                assert time.monotonic() < until
                time.sleep(0.01)
        assert approved.result(10) is False
    assert state_of(pipeline, plan_id) == ("superseded", None)
    assert f"Plan {plan_id} gave way to another run's plan" in say_awaiting_approval(pipeline.connection, run_id)


def test_what_is_made_anew_at_this_moment_is_not_approved_unseen(waiting: tuple[Pipeline, int, int]) -> None:
    pipeline, run_id, plan_id = waiting
    (seen,) = pipeline.rows("select delivery.plan_fingerprint(%s)", plan_id)[0]
    with connect(pipeline.dsn) as person:
        person.execute("set lock_timeout = '100ms'")
        with pipeline.connection.transaction():
            run_sql_file(pipeline.connection, MAKE_PLAN, run_id)
            with pytest.raises(psycopg.errors.LockNotAvailable):
                approve_plan(person, plan_id, "Anna", fingerprint=seen)
        with pytest.raises(StaleEditError, match="was made anew since you looked at it"):
            approve_plan(person, plan_id, "Anna", fingerprint=seen)
    assert state_of(pipeline, plan_id) == ("proposed", None)


def test_what_is_approved_at_this_moment_is_not_made_anew(waiting: tuple[Pipeline, int, int]) -> None:
    pipeline, run_id, plan_id = waiting
    items = pipeline.rows("select plan_item_id from delivery.plan_item order by 1")
    with connect(pipeline.dsn) as person:
        pipeline.connection.execute("set lock_timeout = '100ms'")
        with person.transaction():
            approve_plan(person, plan_id, "Anna")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                run_sql_file(pipeline.connection, MAKE_PLAN, run_id)
        run_sql_file(pipeline.connection, MAKE_PLAN, run_id)
    assert state_of(pipeline, plan_id) == ("approved", "Anna")
    assert pipeline.rows("select plan_item_id from delivery.plan_item order by 1") == items


def test_a_plan_approved_in_part_has_its_deadline_too(waiting: tuple[Pipeline, int, int]) -> None:
    pipeline, run_id, plan_id = waiting
    item, key = pipeline.rows("select plan_item_id, delivery_key from delivery.plan_item order by 1 limit 1")[0]
    approve_plan(pipeline.connection, plan_id, "Anna", leave_out=[item])
    pipeline.connection.execute("update delivery.plan set approved_at = now() - interval '13 hours'")
    with pytest.raises(PausedError, match="was approved too long ago"):
        pipeline.deliver(plan_id)
    run_sql_file(pipeline.connection, MAKE_PLAN, run_id)
    assert state_of(pipeline, plan_id)[0] == "superseded"
    newest = plan_of_run(pipeline.connection, run_id)
    assert pipeline.rows("select delivery_key from delivery.plan_item where plan_id = %s", newest) == [(key,)]


@pytest.mark.parametrize("reason", ["", "  "])
def test_a_rejection_needs_a_reason_and_a_plan_that_waits(waiting: tuple[Pipeline, int, int], reason: str) -> None:
    pipeline, _, plan_id = waiting
    with pytest.raises(RefusedEditError, match="Say why"):
        reject_plan(pipeline.connection, plan_id, "Anna", reason)
    with pytest.raises(NotFoundError, match="There is no plan 99"):
        reject_plan(pipeline.connection, 99, "Anna", "why")
    dry = plan_of_run(pipeline.connection, pipeline.plan("nightly", [OCT], is_dry_run=True))
    with pytest.raises(RefusedEditError, match="is of a dry run"):
        reject_plan(pipeline.connection, dry, "Anna", "why")
    approve_plan(pipeline.connection, plan_id, "Anna")
    with pytest.raises(StaleEditError, match=f"Anna has approved plan {plan_id} already. To stop its delivery"):
        reject_plan(pipeline.connection, plan_id, "Bert", "why")


def test_a_line_that_another_run_is_deciding_is_left_to_that_run(pipeline: Pipeline) -> None:
    pipeline.bill(OCT, recurring("a", OCT, 3))
    pipeline.night(OCT)
    pipeline.bill(NOV, recurring("a", NOV, 3))
    first, second = pipeline.open("nightly", [OCT, NOV]), pipeline.open("manual", [NOV])
    pipeline.extract(first)
    pipeline.extract(second)
    until_plan = STEPS.index(MAKE_PLAN)
    # The Addition is just being written when the first run groups, and no more when the second one decides.
    pipeline.connection.execute("update delivery.addition set state = 'active'")
    for step in STEPS[:until_plan]:
        run_sql_file(pipeline.connection, step, first)
    pipeline.connection.execute("update delivery.addition set state = 'delivered'")
    for step in STEPS[: STEPS.index(GROUP_LINES)]:
        run_sql_file(pipeline.connection, step, second)

    run_sql_file(pipeline.connection, MAKE_PLAN, first)
    plan_id = plan_of_run(pipeline.connection, first)
    assert pipeline.rows("select delivery_key from delivery.plan_item where plan_id = %s", plan_id) == []
    for step in STEPS[STEPS.index(GROUP_LINES) :]:
        run_sql_file(pipeline.connection, step, second)
    for run_id in (first, second):
        approve_automatically(pipeline.connection, run_id)
        pipeline.finish(run_id)
    check(pipeline.sandbox)


def test_a_dry_run_supersedes_nothing(waiting: tuple[Pipeline, int, int]) -> None:
    pipeline, _, plan_id = waiting
    pipeline.plan("nightly", [OCT], is_dry_run=True)
    approve_plan(pipeline.connection, plan_id, "Anna")


def test_a_rejected_plan_is_refused(waiting: tuple[Pipeline, int, int]) -> None:
    pipeline, run_id, plan_id = waiting
    reject_plan(pipeline.connection, plan_id, "Anna", "prices are wrong")
    with pytest.raises(ConfigurationError, match=f"Plan {plan_id} is rejected: approve the newest plan instead"):
        approve_plan(pipeline.connection, plan_id, "Anna")
    assert not approve_automatically(pipeline.connection, run_id)


@pytest.mark.parametrize("ask", [lambda c: approve_plan(c, 99, "Anna"), lambda c: run_of_plan(c, 99)])
def test_an_unknown_plan_is_said(pipeline: Pipeline, ask: Callable[..., object]) -> None:
    with pytest.raises(
        (ConfigurationError, NotFoundError),
        match=r"There is no plan 99\. List them with: python -m billing_sync plan list",
    ):
        ask(pipeline.connection)


def test_a_run_without_a_plan_says_so(pipeline: Pipeline) -> None:
    with pytest.raises(ConfigurationError, match="Run 77 has made no plan: run it again from its start"):
        plan_of_run(pipeline.connection, 77)


def test_what_waits_is_said_with_its_money(waiting: tuple[Pipeline, int, int]) -> None:
    pipeline, run_id, plan_id = waiting
    message = say_awaiting_approval(pipeline.connection, run_id)
    assert f"Plan {plan_id} waits for approval: 2 Additions worth 13.60." in message
    assert f"python -m billing_sync plan approve {plan_id}" in message
    assert message in pipeline.warnings("INFO")


def test_an_empty_plan_has_nothing_to_say(pipeline: Pipeline) -> None:
    run_id, plan_id = pipeline.plan_night(OCT)
    assert say_awaiting_approval(pipeline.connection, run_id) == f"Plan {plan_id} has nothing to write."


def test_a_plan_that_is_not_finished_stays_approved_and_its_run_failed(pipeline: Pipeline) -> None:
    pipeline.bill(OCT, recurring("a", OCT))
    run_id, plan_id = pipeline.plan_night(OCT)
    pipeline.sandbox.add_fault("status", method="GET", path=r"/agreements/\d+$", params={"status": 500})
    with pytest.raises(TemporaryError):
        pipeline.deliver(plan_id)
    assert finish_run(pipeline.connection, run_id, is_failed=True) == "failed"
    assert state_of(pipeline, plan_id)[0] == "approved"
    pipeline.sandbox.clear_faults()
    pipeline.finish(run_id)
    assert state_of(pipeline, plan_id)[0] == "applied"


def test_what_an_earlier_run_left_open_has_its_shard_delivered(pipeline: Pipeline) -> None:
    pipeline.bill(OCT, recurring("a", OCT))
    _, plan_id = pipeline.plan_night(OCT)
    pipeline.sandbox.add_fault("status", method="PATCH", params={"status": 500})
    with pytest.raises(TemporaryError):
        pipeline.deliver(plan_id)
    pipeline.sandbox.clear_faults()
    _, empty = pipeline.plan_night(NOV)
    assert shards_to_deliver(pipeline.connection, empty) == [1]


@pytest.mark.parametrize("key", ["nothing", None])
def test_only_refused_additions_and_conflicts_are_tried_again(pipeline: Pipeline, key: str | None) -> None:
    pipeline.bill(OCT, recurring("a", OCT))
    pipeline.night(OCT)
    key = key or pipeline.value("select delivery_key from delivery.addition")
    with pytest.raises(ConfigurationError, match=f"There is no Addition '{key}' that was refused or is in conflict"):
        retry_addition(pipeline.connection, str(key), "Anna")
    assert pipeline.states() == ["delivered"]
