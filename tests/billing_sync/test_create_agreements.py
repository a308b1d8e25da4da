"""Agreements that plans create, over real HTTP: one per company, whatever happens to requests, processes and plans."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from pipeline import NOV, OCT, Killed, Pipeline, check, one_time, recurring
from prepared import Build, Prepared

from billing_sync import create_agreements
from billing_sync.connectwise import ConnectWise
from billing_sync.create_agreements import AgreementCreator, allow_agreement, refuse_agreement
from billing_sync.db import connect
from billing_sync.deliver import Deliverer, DeliveryCounts
from billing_sync.errors import AuthenticationError, InDoubtError, MarkerLostError, PausedError, TemporaryError
from billing_sync.pauses import end_pause, pause
from billing_sync.plan import approve_plan, plan_of_run, shards_to_deliver

POST = {"service": "connectwise", "method": "POST", "path": r"/finance/agreements$"}
LOOK = {"service": "connectwise", "method": "GET", "path": r"/finance/agreements$"}
BARE = 3  # the customer whose company has no agreement
COMPANY = 201 + BARE
TYPE = "Cloud Subscriptions"

MakePipeline = Callable[[Prepared], Pipeline]


def without_agreement(pipeline: Pipeline) -> None:
    """The company of one customer has no agreement at all."""
    pipeline.remove_agreements(COMPANY)
    pipeline.set(create_agreements="on")


def two_customers(pipeline: Pipeline) -> tuple[int, int]:
    """One customer that has an agreement, one that needs one; planned and approved."""
    without_agreement(pipeline)
    pipeline.bill(OCT, recurring("a", OCT, 3, "4.20"))
    pipeline.bill(OCT, recurring("b", OCT, 2), one_time("c", OCT.replace(day=9), 1, "7.77"), customer=BARE)
    return pipeline.plan_night(OCT)


@pytest.fixture
def planned(stage: Callable[[Build], Prepared], pipeline_of: MakePipeline) -> tuple[Pipeline, int, int]:
    """A pipeline of this test's own, its run and its approved plan."""
    prepared = stage(two_customers)
    return pipeline_of(prepared), prepared.run_id, prepared.plan_id


Planned = tuple[Pipeline, int, int]


def agreements(pipeline: Pipeline) -> list[dict[str, Any]]:
    """The company's agreements in ConnectWise."""
    return [record for record in pipeline.sandbox.agreements() if record["company"]["id"] == COMPANY]


def used(pipeline: Pipeline) -> set[int]:
    """Which of the company's agreements ever held an Addition of ours."""
    ids = {record["id"] for record in agreements(pipeline)}
    return {entry["agreement_id"] for entry in pipeline.sandbox.journal() if entry["addition_id"]} & ids


def posts(pipeline: Pipeline) -> int:
    """How many agreements were asked for."""
    return len(pipeline.sandbox.requests(0, service="connectwise", method="POST", path=r"/finance/agreements$"))


def ledger(pipeline: Pipeline) -> list[tuple[Any, ...]]:
    return pipeline.rows("select state, agreement_id from delivery.new_agreement")


def billed_once(pipeline: Pipeline) -> None:
    """Every line once, to the cent, on one agreement of the company; judged by the sandbox alone."""
    assert len(used(pipeline)) == 1
    check(pipeline.sandbox)


# -- the ordinary way --------------------------------------------------------------------------------------------------


def test_a_plan_creates_the_agreement_and_the_next_run_bills_its_lines(planned: Planned) -> None:
    pipeline, run_id, plan_id = planned
    details = {row[0] for row in pipeline.rows("select detail from reporting.held_line")}
    name = pipeline.value("select agreement_name from reporting.new_agreement")
    assert details == {f"agreement {name} is created by plan {plan_id}; its lines follow with the next run"}
    assert agreements(pipeline) == []

    counts, proof = pipeline.finish(run_id)

    (made,) = agreements(pipeline)
    assert (counts.created, counts.agreements, counts.writes) == (1, 1, 3)
    assert (made["type"]["name"], made["name"], made["prorateFlag"]) == (TYPE, name, False)
    assert (made["contact"]["id"], made["billingCycle"]["name"]) == (10000 + COMPANY, "Monthly")
    assert made["billStartDate"] == made["nextInvoiceDate"] == "2026-10-01T00:00:00Z"
    assert ledger(pipeline) == [("created", made["id"])]
    assert (proof["delivered"], proof["held"]) == ("12.60", "27.77")
    assert pipeline.value("select state from audit.run where run_id = %s", run_id) == "succeeded"

    counts, proof = pipeline.night(OCT)

    assert (counts.created, counts.agreements, proof["delivered"], proof["held"]) == (2, 0, "40.37", "0")
    assert posts(pipeline) == 1
    assert pipeline.night(OCT)[0] == DeliveryCounts()
    assert "agreement_" not in pipeline.warnings()
    billed_once(pipeline)


def test_a_dry_run_shows_it_and_writes_nothing(pipeline: Pipeline) -> None:
    without_agreement(pipeline)
    pipeline.bill(OCT, recurring("b", OCT, 2), customer=BARE)

    run_id = pipeline.plan("nightly", [OCT], is_dry_run=True)

    assert pipeline.rows("select company_id, line_count, amount, state from reporting.new_agreement") == [
        (COMPANY, 1, Decimal("20.00"), "dry run")
    ]
    assert pipeline.value("select state from delivery.plan where run_id = %s", run_id) == "proposed"
    assert agreements(pipeline) == []


def test_without_the_setting_none_is_created(pipeline: Pipeline) -> None:
    without_agreement(pipeline)
    pipeline.set(create_agreements="off")
    pipeline.bill(OCT, recurring("b", OCT, 2), customer=BARE)

    counts, _ = pipeline.night(OCT)

    assert counts == DeliveryCounts()
    assert set(pipeline.held()) == {"no_agreement"}


def test_a_plan_with_nothing_but_an_agreement_waits_for_a_person(pipeline: Pipeline) -> None:
    without_agreement(pipeline)
    pipeline.set(automated_daily_sync="off")
    pipeline.bill(OCT, recurring("b", OCT, 2), customer=BARE)
    run_id, plan_id = pipeline.plan_night(OCT)
    pipeline.finish(run_id)
    assert pipeline.value("select state from audit.run where run_id = %s", run_id) == "awaiting_approval"
    assert agreements(pipeline) == []

    approve_plan(pipeline.connection, plan_id, "ann")
    assert pipeline.deliver(plan_id).agreements == 1


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"agreementStatus": "Inactive"}, "Inactive"),
        ({"agreementStatus": "Expired", "endDate": "2026-08-31T00:00:00Z", "noEndingDateFlag": False}, "Expired"),
        ({"agreementStatus": "Cancelled", "cancelledFlag": True}, "cancelled"),
    ],
)
def test_none_is_created_beside_one_of_the_type_in_whatever_state(
    pipeline: Pipeline, changed: dict[str, Any], words: str
) -> None:
    pipeline.set(create_agreements="on")
    pipeline.bill(OCT, recurring("b", OCT, 2), customer=BARE)
    store = pipeline.sandbox.store
    record = store.records("agreement")[pipeline.agreement(BARE)]
    with store.transaction():
        store.save("agreement", {**record, **changed})

    pipeline.night(OCT)

    held = pipeline.held()
    assert set(held) == {"no_agreement"}
    assert f"none is created: it has {record['name']} ({record['id']}): {words}" in held["no_agreement"]
    assert posts(pipeline) == 0


# -- a person says no --------------------------------------------------------------------------------------------------


def test_a_refused_company_gets_none_even_from_a_plan_that_is_approved(planned: Planned) -> None:
    pipeline, run_id, _ = planned
    refuse_agreement(pipeline.connection, COMPANY, "They pay by card", "ann")

    counts, _ = pipeline.finish(run_id)

    assert (counts.agreements, agreements(pipeline), ledger(pipeline)) == (0, [], [])
    assert pipeline.rows("select state from delivery.plan_agreement") == [("skipped",)]
    pipeline.night(OCT)
    assert "none is created: ann refused it: They pay by card" in pipeline.held()["no_agreement"]

    allow_agreement(pipeline.connection, COMPANY, "bob")
    assert pipeline.night(OCT)[0].agreements == 1
    pipeline.night(OCT)
    billed_once(pipeline)


def test_an_agreement_that_a_person_made_meanwhile_is_used_instead(planned: Planned) -> None:
    pipeline, run_id, _ = planned
    store = pipeline.sandbox.store
    type_ = next(one for one in store.records("agreementType").values() if one["name"] == TYPE)
    theirs = pipeline.sandbox.connectwise.create_agreement(
        {
            "name": "By hand", "type": {"id": type_["id"]}, "company": {"id": COMPANY},
            "contact": {"id": 1}, "billStartDate": "2026-10-01T00:00:00Z",
        },
        "person",
    )  # fmt: skip

    pipeline.finish(run_id)

    assert posts(pipeline) == 0
    assert pipeline.night(OCT)[0].created == 2
    assert used(pipeline) == {theirs["id"]}
    billed_once(pipeline)


def test_during_a_pause_of_the_company_none_is_created(planned: Planned) -> None:
    pipeline, run_id, _ = planned
    pause(pipeline.connection, "dispute", "ann", COMPANY)

    counts, _ = pipeline.finish(run_id)

    assert (counts.created, counts.agreements, posts(pipeline)) == (1, 0, 0)
    end_pause(pipeline.connection, "ann", COMPANY)
    assert pipeline.night(OCT)[0].agreements == 1
    pipeline.night(OCT)
    billed_once(pipeline)


def freeze(pipeline: Pipeline) -> None:
    """Somebody pauses everything."""
    with connect(pipeline.dsn) as connection:
        pause(connection, "freeze", "ann")


def test_a_pause_of_everything_and_the_deadline_stop_it_before_the_post(planned: Planned) -> None:
    pipeline, _, plan_id = planned
    with (
        pipeline.on_request("GET", r"/finance/agreements$", lambda _: freeze(pipeline)),
        pytest.raises(PausedError, match="freeze"),
    ):
        AgreementCreator(pipeline.connection, pipeline.connectwise(), plan_id, "test").create(COMPANY)
    end_pause(pipeline.connection, "ann")
    pipeline.connection.execute("update delivery.plan set approved_at = now() - interval '13 hours'")
    with pytest.raises(PausedError, match="approved too long ago"):
        AgreementCreator(pipeline.connection, pipeline.connectwise(), plan_id, "test").create(COMPANY)
    assert posts(pipeline) == 0

    pipeline.night(OCT)
    pipeline.night(OCT)
    billed_once(pipeline)


# -- what ConnectWise answers ------------------------------------------------------------------------------------------


def test_a_refusal_is_said_and_not_repeated_before_a_person_lets_it_be(planned: Planned) -> None:
    pipeline, run_id, _ = planned
    pipeline.sandbox.add_fault("status", **POST, params={"status": 400, "body": {"message": "A site is required."}})

    pipeline.finish(run_id)
    pipeline.night(OCT)

    assert posts(pipeline) == 1
    assert "A site is required." in pipeline.held()["no_agreement"]
    pipeline.sandbox.clear_faults()
    assert pipeline.night(OCT)[0].agreements == 0
    assert "A site is required" in allow_agreement(pipeline.connection, COMPANY, "ann")
    assert pipeline.night(OCT)[0].agreements == 1
    pipeline.night(OCT)
    billed_once(pipeline)


def test_a_missing_right_is_named(planned: Planned) -> None:
    pipeline, _, plan_id = planned
    pipeline.sandbox.add_fault("status", **POST, params={"status": 403})

    with pytest.raises(AuthenticationError, match="right to add agreements"):
        pipeline.deliver(plan_id)
    assert ledger(pipeline) == [("intended", None)]


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("lost_reply", {}),
        ("lost_reply", {"reset": True}),
        ("status_after", {"status": 500}),
        ("status_after", {"status": 503}),
        ("truncated", {}),
        ("invalid_json", {}),
        ("status", {"status": 500}),
        ("status", {"status": 429}),
        ("reset", {}),
        ("late", {"delay": None}),
    ],
)
def test_whatever_becomes_of_the_answer_one_is_used(planned: Planned, kind: str, params: dict[str, Any]) -> None:
    pipeline, run_id, plan_id = planned
    pipeline.set(settle_seconds="600")
    pipeline.sandbox.add_fault(kind, **POST, count=1, params=params)

    is_unknown = not (kind == "status" and params["status"] == 429)
    found_at_once = kind in ("lost_reply", "status_after", "truncated", "invalid_json")
    if found_at_once:
        pipeline.deliver(plan_id)
    else:
        with pytest.raises(TemporaryError, match="may be applied until" if is_unknown else "refused"):
            pipeline.deliver(plan_id)
        assert posts(pipeline) == 1
    if kind == "late":
        pipeline.sandbox.release_late()
    elif is_unknown and not found_at_once:
        with pytest.raises(TemporaryError):  # not before it cannot come any more
            pipeline.deliver(plan_id)
        assert posts(pipeline) == 1
        pipeline.set(settle_seconds="0")
    pipeline.finish(run_id)
    pipeline.night(OCT)

    assert len(agreements(pipeline)) == 1
    assert ledger(pipeline) == [("created", agreements(pipeline)[0]["id"])]
    assert posts(pipeline) == (1 if found_at_once or kind == "late" else 2)
    billed_once(pipeline)


def test_one_that_comes_later_than_settle_seconds_is_not_used_and_said(planned: Planned) -> None:
    pipeline, run_id, _ = planned
    pipeline.sandbox.add_fault("late", **POST, count=1, params={"delay": None})
    pipeline.finish(run_id)
    pipeline.sandbox.release_late()
    first, second = agreements(pipeline)

    pipeline.night(OCT)
    pipeline.night(OCT)

    assert ledger(pipeline) == [("created", first["id"])]
    assert used(pipeline) == {first["id"]}
    said = [line for line in pipeline.warnings().splitlines() if line.startswith("agreement_doubled")]
    assert len(said) == 1
    assert f"Agreement {second['id']} carries the mark of agreement {first['id']}" in said[0]
    billed_once(pipeline)


def test_of_two_that_are_found_the_oldest_is_taken(planned: Planned) -> None:
    """The list was stale, so a second one was made: both stand when it is looked for again."""
    pipeline, run_id, _ = planned
    pipeline.sandbox.add_fault("lost_reply", **POST, count=1)
    pipeline.sandbox.add_fault("stale", **LOOK, skip=0, count=2, params={"age": 3600})

    pipeline.finish(run_id)

    first, second = agreements(pipeline)
    assert ledger(pipeline) == [("created", min(first["id"], second["id"]))]
    assert "is a double of" in pipeline.warnings()
    pipeline.night(OCT)
    billed_once(pipeline)


def test_a_copy_that_a_person_made_is_not_taken_for_it(planned: Planned) -> None:
    pipeline, run_id, _ = planned
    pipeline.finish(run_id)
    made = agreements(pipeline)[0]
    pipeline.sandbox.copy_agreement(made["id"])

    assert pipeline.night(OCT)[0].created == 2
    assert used(pipeline) == {made["id"]}


def test_where_the_mark_is_not_kept_nothing_more_is_created(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, _, plan_id = planned
    create = ConnectWise.create_agreement

    def forgetful(self: ConnectWise, body: dict[str, Any], **other: Any) -> Any:
        return create(self, {name: value for name, value in body.items() if name != "internalNotes"}, **other)

    monkeypatch.setattr(ConnectWise, "create_agreement", forgetful)
    with pytest.raises(MarkerLostError, match="without the mark"):
        pipeline.deliver(plan_id)
    assert "without the mark" in pipeline.value("select reason from delivery.pause where ended_at is null")
    assert ledger(pipeline) == [("created", agreements(pipeline)[0]["id"])]


def test_what_connectwise_stored_otherwise_is_said_and_the_lines_are_checked_against_it(
    planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, run_id, _ = planned
    create = ConnectWise.create_agreement
    monkeypatch.setattr(
        ConnectWise,
        "create_agreement",
        lambda self, body, **other: create(self, {**body, "prorateFlag": True}, **other),
    )

    pipeline.finish(run_id)
    assert "prorateFlag is True, was sent as False" in pipeline.warnings()
    assert pipeline.night(OCT)[0].created == 0
    assert set(pipeline.held()) == {"agreement_prorates"}


def test_what_was_deleted_in_connectwise_is_not_made_again_by_itself(planned: Planned) -> None:
    pipeline, run_id, _ = planned
    pipeline.finish(run_id)
    store = pipeline.sandbox.store
    with store.transaction():
        store.delete("agreement", agreements(pipeline)[0])

    pipeline.night(OCT)
    assert posts(pipeline) == 1
    assert "is not usable any more" in pipeline.held()["no_agreement"]

    allow_agreement(pipeline.connection, COMPANY, "ann")
    assert pipeline.night(OCT)[0].agreements == 1
    pipeline.night(OCT)
    billed_once(pipeline)


# -- crashes and company -----------------------------------------------------------------------------------------------


def lines_of_creation(pipeline: Pipeline, plan_id: int, kill_at: int = 0) -> int:
    """Deliver the plan; the process ends at the n-th line that create_agreements.py executes. Returns how many."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        if frame.f_code.co_filename != create_agreements.__file__:
            return None
        if event == "line":
            count += 1
            if count == kill_at:
                raise Killed
        return trace

    shards = shards_to_deliver(pipeline.connection, plan_id)
    connection = connect(pipeline.dsn)
    sys.settrace(trace)
    try:
        for shard in shards:
            Deliverer(connection, pipeline.connectwise(), plan_id).deliver_shard(shard)
    except Killed:
        pass
    finally:
        sys.settrace(None)
        connection.close()  # its locks end with it, whatever the code would have done on its way out
    return count


@pytest.mark.parametrize("fault", ["", "lost_reply"])
def test_a_worker_that_ends_at_any_line_leaves_one_agreement(
    stage: Callable[[Build], Prepared], pipeline_of: MakePipeline, tmp_path: Path, fault: str
) -> None:
    """A few lines; all of them with KILL_EVERY=1 in the environment and --timeout 0 (20 minutes)."""
    prepared = stage(two_customers)
    lines = lines_of_creation(pipeline_of(prepared), prepared.plan_id)
    assert lines > 40
    every = int(os.environ.get("KILL_EVERY", lines // 6))
    for kill_at in range(every if fault else every // 2 + 1, lines + 1, every):
        pipeline = prepared.copy(tmp_path)
        if fault:
            pipeline.sandbox.add_fault(fault, **POST, count=1)
        lines_of_creation(pipeline, prepared.plan_id, kill_at)
        pipeline.finish(prepared.run_id)
        pipeline.night(OCT)
        assert len(agreements(pipeline)) == 1, kill_at
        assert ledger(pipeline) == [("created", agreements(pipeline)[0]["id"])], kill_at
        assert pipeline.states() == ["delivered"] * 3, kill_at
        billed_once(pipeline)
        prepared.discard(pipeline)


@pytest.mark.parametrize("is_lost", [False, True])
def test_two_workers_at_once_create_one(planned: Planned, is_lost: bool) -> None:
    pipeline, run_id, plan_id = planned
    pipeline.sandbox.add_fault("delay", **POST, params={"seconds": 0.3})
    if is_lost:
        pipeline.sandbox.add_fault("lost_reply", **POST, count=1)
    barrier, raised = threading.Barrier(2), []

    def work() -> None:
        with connect(pipeline.dsn) as connection:
            barrier.wait(10)
            try:
                AgreementCreator(connection, pipeline.connectwise(), plan_id, "test").create(COMPANY)
            except InDoubtError:
                pass
            except Exception as error:  # noqa: BLE001
                raised.append(repr(error))

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)

    assert raised == []
    assert len(agreements(pipeline)) == posts(pipeline) == 1
    pipeline.finish(run_id)
    pipeline.night(OCT)
    billed_once(pipeline)


def test_of_two_approved_plans_one_creates_it(planned: Planned) -> None:
    pipeline, run_id, plan_id = planned
    other_run = pipeline.plan("nightly", [OCT], approve=False)
    other = plan_of_run(pipeline.connection, other_run)
    assert pipeline.value("select count(*) from delivery.plan_agreement where plan_id = %s", other) == 1
    approve_plan(pipeline.connection, other, "ann")

    pipeline.deliver(other)
    pipeline.deliver(plan_id)

    assert posts(pipeline) == len(agreements(pipeline)) == 1
    pipeline.finish(run_id)
    pipeline.night(NOV)
    billed_once(pipeline)
