"""Who may write when: claims with fencing, pauses, the deadline, settle time; and customers that the proof parks."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from pipeline import NOV, OCT, PATCH, PATIENCE, POST, Pipeline, check, one_time, recurring

from billing_sync import deliver
from billing_sync.claim import hold_claim
from billing_sync.connectwise import ConnectWise
from billing_sync.db import connect
from billing_sync.deliver import Deliverer
from billing_sync.errors import (
    ConfigurationError,
    MarkerLostError,
    OvertakenError,
    PausedError,
    ProofError,
    TemporaryError,
    WriteRefusedError,
)
from billing_sync.pauses import active_pauses, end_pause, pause
from billing_sync.settle import retry_addition


def a_plan(pipeline: Pipeline) -> tuple[int, int]:
    """Two lines of customer 0, one of customer 1."""
    pipeline.bill(OCT, recurring("a", OCT, 3, "4.20"), one_time("b", OCT, 1, "7.00"))
    pipeline.bill(OCT, one_time("c", OCT, 1, "5.00"), customer=1)
    return pipeline.plan_night(OCT)


# -- claims ------------------------------------------------------------------------------------------------------------


def test_a_worker_that_was_taken_over_writes_nothing_more(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sleeps before its second write; meanwhile another one takes over and finishes."""
    monkeypatch.setattr(deliver, "LOCK_WAIT", "500ms")
    monkeypatch.setattr(deliver, "LEASE_SECONDS", 0.2)
    run_id, plan_id = a_plan(pipeline)
    frozen, thawed = threading.Event(), threading.Event()
    client = pipeline.connectwise()
    patch = client.patch_addition

    def sleepy(*given: Any, **other: Any) -> Any:
        if not frozen.is_set():
            frozen.set()
            thawed.wait(60)
        return patch(*given, **other)

    monkeypatch.setattr(client, "patch_addition", sleepy)
    raised: list[Exception] = []

    def first() -> None:
        with connect(pipeline.dsn) as connection:
            try:
                Deliverer(connection, client, plan_id).deliver_shard(1001 % 8)
            except TemporaryError as error:
                raised.append(error)

    worker = threading.Thread(target=first)
    worker.start()
    assert frozen.wait(30)
    pipeline.deliver(plan_id)  # waits out the lock, then the lease
    before = pipeline.sandbox.writes()["received"]
    thawed.set()
    worker.join(60)
    assert "another worker has taken over agreement 1001" in str(raised)
    assert pipeline.sandbox.writes()["received"] == before
    pipeline.finish(run_id)
    assert pipeline.states() == ["delivered"] * 3
    check(pipeline.sandbox)


def test_the_token_fences_the_ledger_too(pipeline: Pipeline) -> None:
    with (
        connect(pipeline.dsn) as one,
        connect(pipeline.dsn) as other,
        hold_claim(one, 1001, "one", lease_seconds=0, lock_wait="50ms") as first,
    ):
        with first.fenced():
            pass
        with hold_claim(other, 1001, "other", lease_seconds=0, lock_wait="50ms") as second:
            assert second.token > first.token
            with pytest.raises(OvertakenError), first.fenced():
                pytest.fail("the ledger may not be touched")
            with second.fenced():
                pass


def test_a_worker_that_lives_is_not_taken_over(pipeline: Pipeline) -> None:
    with connect(pipeline.dsn) as one, connect(pipeline.dsn) as other:
        with (
            hold_claim(one, 1001, "one", lease_seconds=60, lock_wait="50ms"),
            pytest.raises(TemporaryError, match="another worker is delivering it"),
            hold_claim(other, 1001, "other", lease_seconds=60, lock_wait="50ms"),
        ):
            pytest.fail("it is held")
        with hold_claim(other, 1001, "other", lease_seconds=60, lock_wait="50ms"):
            pass


def test_a_worker_frozen_within_a_transaction_does_not_block_the_agreement_for_ever(pipeline: Pipeline) -> None:
    with connect(pipeline.dsn) as one, connect(pipeline.dsn) as other:
        with hold_claim(one, 1001, "one", lease_seconds=0.3, lock_wait="1s"):
            pass
        one.execute("select pg_advisory_lock(hashtext('billing_sync.deliver'), 1001)")
        one.execute("begin")
        one.execute("select from delivery.claim where agreement_id = 1001 for share")  # and there it stays
        tries = 0
        while True:
            tries += 1
            with (
                suppress(TemporaryError),
                hold_claim(other, 1001, "other", lease_seconds=0.3, lock_wait="100ms") as second,
            ):
                assert second.token == 2
                break
            assert tries < 50
        with pytest.raises(psycopg.Error, match="idle-in-transaction"):
            one.execute("select 1")


def test_a_write_noted_down_long_ago_is_not_sent_any_more(pipeline: Pipeline) -> None:
    """Frozen between the two, it would come when the settle time has passed and others reckon with it no more."""
    client = pipeline.connectwise(limits=replace(PATIENCE, noted=0.1))
    with pytest.raises(WriteRefusedError, match="have passed since it was noted down"):
        client.create_addition(1001, {}, note=lambda: time.sleep(0.2))
    assert pipeline.sandbox.writes()["received"] == 0


# -- settled, or not -----------------------------------------------------------------------------------------------


def test_an_agreement_that_changed_waits_for_an_activation_that_may_come_late(pipeline: Pipeline) -> None:
    """Killed after it was sent: were the lines given up now, they could be billed twice."""
    pipeline.set(settle_seconds="600")
    pipeline.bill(OCT, one_time("a", OCT, 1, "7.00"))
    run_id, plan_id = pipeline.plan_night(OCT)
    pipeline.sandbox.add_fault("late", **PATCH, params={"delay": None})
    with pytest.raises(TemporaryError, match="no answer to 3 tries to activate it"):
        pipeline.deliver(plan_id)
    pipeline.sandbox.clear_faults()
    pipeline.sandbox.change_record("agreements", 1001, {"prorateFlag": True})
    with pytest.raises(TemporaryError, match="an earlier activate got no answer and may be applied until"):
        pipeline.deliver(plan_id)
    assert pipeline.states() == ["created"]
    pipeline.sandbox.release_late()
    pipeline.set(settle_seconds="0")
    pipeline.finish(run_id)
    assert pipeline.states() == ["delivered"]


# -- pauses ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", [1, 2, 4])
def test_the_stop_button_stops_before_the_next_write(pipeline: Pipeline, when: int) -> None:
    run_id, plan_id = a_plan(pipeline)
    seen = []

    def stop(_: Any) -> None:
        seen.append(1)
        if len(seen) == when:
            pause(pipeline.connection, "month-end freeze", "finance")

    with (
        pipeline.on_request("POST", "additions$", stop),
        pipeline.on_request("PATCH", "additions", stop),
        pytest.raises(PausedError, match="paused by finance: month-end freeze"),
    ):
        pipeline.deliver(plan_id)
    assert pipeline.sandbox.writes()["received"] == when
    with pytest.raises(PausedError):
        pipeline.deliver(plan_id)
    assert pipeline.sandbox.writes()["received"] == when
    assert pipeline.value("select count(*) from delivery.attempt where outcome = 'invoke'") == when
    end_pause(pipeline.connection, "finance")
    pipeline.finish(run_id)
    check(pipeline.sandbox)


def test_while_everything_is_paused_no_plan_is_approved_by_itself(pipeline: Pipeline) -> None:
    pause(pipeline.connection, "audit", "finance")
    _, plan_id = a_plan(pipeline)
    assert pipeline.value("select state from delivery.plan where plan_id = %s", plan_id) == "proposed"


def test_a_paused_customer_waits_and_the_others_do_not(pipeline: Pipeline) -> None:
    assert pause(pipeline.connection, "dispute", "finance", company_id=201)
    assert not pause(pipeline.connection, "again", "finance", company_id=201)
    a_plan(pipeline)
    pipeline.night(OCT)
    assert pipeline.outcomes() == {"delivered": Decimal("5.00"), "held": Decimal("19.60")}
    assert set(pipeline.held()) == {"customer_paused"}
    assert [one["company_id"] for one in active_pauses(pipeline.connection)] == [201]
    end_pause(pipeline.connection, "finance", company_id=201)
    pipeline.night(OCT)
    assert pipeline.outcomes() == {"delivered": Decimal("24.60")}
    check(pipeline.sandbox)


def test_a_customer_paused_after_the_plan_is_set_aside_at_delivery(pipeline: Pipeline) -> None:
    run_id, _ = a_plan(pipeline)
    pause(pipeline.connection, "dispute", "finance", company_id=201)
    pipeline.finish(run_id)
    assert pipeline.outcomes() == {"delivered": Decimal("5.00"), "held": Decimal("19.60")}
    assert len(pipeline.additions()) == 1
    end_pause(pipeline.connection, "finance", company_id=201)
    pipeline.night(OCT)
    check(pipeline.sandbox)


def test_a_pause_needs_a_reason_and_a_known_company(pipeline: Pipeline) -> None:
    with pytest.raises(ConfigurationError, match="Say why"):
        pause(pipeline.connection, " ", "finance")
    with pytest.raises(ConfigurationError, match="no company 99999"):
        pause(pipeline.connection, "x", "finance", company_id=99999)
    with pytest.raises(ConfigurationError, match="no pause of everything"):
        end_pause(pipeline.connection, "finance")


def test_after_the_deadline_nothing_of_a_plan_is_written_and_the_next_run_takes_over(pipeline: Pipeline) -> None:
    _, plan_id = a_plan(pipeline)
    pipeline.connection.execute(
        "update delivery.plan set approved_at = now() - interval '13 hours' where plan_id = %s", [plan_id]
    )
    with pytest.raises(PausedError, match="approved too long ago"):
        pipeline.deliver(plan_id)
    assert pipeline.sandbox.writes()["received"] == 0
    pipeline.night(OCT)
    assert pipeline.outcomes() == {"delivered": Decimal("24.60")}
    check(pipeline.sandbox)


# -- what ConnectWise does not keep ------------------------------------------------------------------------------------


def test_a_marker_that_is_not_kept_stops_everything_at_the_first_addition(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, plan_id = a_plan(pipeline)
    create = ConnectWise.create_addition
    monkeypatch.setattr(
        ConnectWise,
        "create_addition",
        lambda self, agreement, body, **other: create(self, agreement, {**body, "serialNumber": "X"}, **other),
    )
    with pytest.raises(MarkerLostError, match="with marker None instead of axs-tests-"):
        Deliverer(pipeline.connection, pipeline.connectwise(), plan_id).deliver_shard(1001 % 8)
    assert pipeline.sandbox.writes()["received"] == 1
    monkeypatch.undo()
    with pytest.raises(PausedError, match="Check the setting marker_carrier"):
        pipeline.deliver(plan_id)
    assert pipeline.sandbox.writes()["received"] == 1
    assert [one["billCustomer"] for one in pipeline.sandbox.additions(1001) if one["serialNumber"] == "X"] == [
        "DoNotBill"
    ]


def test_one_poisonous_line_keeps_nobody_waiting(pipeline: Pipeline) -> None:
    run_id, plan_id = a_plan(pipeline)
    poison = pipeline.value("select marker from delivery.plan_item where amount = 12.60")
    pipeline.sandbox.add_fault("status", **POST, body=poison, params={"status": 500})
    with pytest.raises(TemporaryError, match=r"1 of 1 agreements are not finished.*no answer to 3 tries to create"):
        pipeline.deliver(plan_id)
    assert sorted(pipeline.states()) == ["delivered", "delivered", "intended"]
    pipeline.sandbox.clear_faults()
    pipeline.finish(run_id)
    check(pipeline.sandbox)


def test_an_answer_nobody_thought_of_keeps_only_its_own_line_waiting(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id, plan_id = a_plan(pipeline)
    listed = ConnectWise.addition
    pages = ConnectWise.additions

    def odd(self: ConnectWise, agreement_id: int) -> Any:
        for page in pages(self, agreement_id):
            yield [{**one, "product": "?"} if one["quantity"] == 3 else one for one in page]

    monkeypatch.setattr(ConnectWise, "additions", odd)
    with pytest.raises(TemporaryError, match="AttributeError, see the log"):
        pipeline.deliver(plan_id)
    assert sorted(pipeline.states()) == ["active", "delivered", "delivered"]
    monkeypatch.undo()
    assert ConnectWise.addition is listed
    pipeline.finish(run_id)
    check(pipeline.sandbox)


# -- settle time -------------------------------------------------------------------------------------------------------


def test_an_addition_with_a_write_that_may_come_late_is_not_updated_yet(pipeline: Pipeline) -> None:
    """A late PATCH of October's values would undo November's."""
    pipeline.bill(OCT, recurring("a", OCT, 3, "4.20"))
    pipeline.sandbox.add_fault("late", **PATCH, count=1, params={"delay": None})
    pipeline.night(OCT)
    pipeline.set(settle_seconds="600")
    pipeline.bill(NOV, recurring("a", NOV, 3, "4.20"))
    pipeline.night(NOV)
    assert set(pipeline.held()) == {"addition_not_settled"}
    pipeline.sandbox.release_late()
    pipeline.set(settle_seconds="0")
    pipeline.night(NOV)
    assert pipeline.outcomes() == {"delivered": Decimal("25.20")}
    check(pipeline.sandbox)


# -- instances that refuse inert Additions -----------------------------------------------------------------------------


@pytest.fixture
def locked(pipeline: Pipeline) -> Pipeline:
    pipeline.sandbox.change_settings(refuse_do_not_bill=True)
    pipeline.set(create_mode="locked", settle_seconds="600")
    return pipeline


def test_locked_mode_delivers_where_do_not_bill_is_refused(locked: Pipeline) -> None:
    a_plan(locked)
    locked.night(OCT)
    assert locked.outcomes() == {"delivered": Decimal("24.60")}
    check(locked.sandbox)


def test_inert_mode_there_holds_every_line_with_connectwise_own_words(pipeline: Pipeline) -> None:
    pipeline.sandbox.change_settings(refuse_do_not_bill=True)
    a_plan(pipeline)
    pipeline.night(OCT)
    assert set(pipeline.held()) == {"refused_by_connectwise"}


@pytest.mark.parametrize("kind", ["lost_reply", "late"])
def test_locked_mode_waits_for_what_may_come_late_and_bills_once(locked: Pipeline, kind: str) -> None:
    run_id, plan_id = a_plan(locked)
    locked.sandbox.add_fault(kind, **POST, count=1, params={"delay": None} if kind == "late" else {})
    if kind == "late":
        with pytest.raises(TemporaryError, match="got no answer and may be applied until"):
            locked.deliver(plan_id)
        with pytest.raises(TemporaryError, match="until then nothing is decided about it"):
            locked.deliver(plan_id)
        locked.sandbox.release_late()
    locked.finish(run_id)
    assert len([one for one in locked.additions() if one["billCustomer"] == "Billable"]) == 3
    check(locked.sandbox)


def test_locked_mode_does_not_promise_what_comes_after_the_settle_time_but_finds_and_sweeps_it(
    locked: Pipeline,
) -> None:
    run_id, plan_id = a_plan(locked)
    locked.sandbox.add_fault("late", **POST, count=1, params={"delay": None})
    with pytest.raises(TemporaryError):
        locked.deliver(plan_id)
    locked.set(settle_seconds="0")
    locked.finish(run_id)
    locked.sandbox.release_late()  # two billable ones now
    with pytest.raises(ProofError, match="2 billable Additions carry the marker"):
        locked.night(OCT)
    locked.night(OCT)  # the sweep goes on though the proof has parked the customer
    assert locked.value("select count(*) from delivery.orphan where neutralised_at is null") == 0
    assert active_pauses(locked.connection) == []
    locked.night(OCT)
    assert sorted(one["extPrice"] for one in locked.additions()) == [0, 5, 7, Decimal("12.60")]


# -- parked by the proof -----------------------------------------------------------------------------------------------


def test_a_breach_parks_its_customer_until_a_proof_finds_it_mended(pipeline: Pipeline) -> None:
    a_plan(pipeline)
    pipeline.night(OCT)
    wrong = next(one for one in pipeline.additions() if one["quantity"] == 3)
    pipeline.sandbox.change_addition(wrong["id"], {"quantity": 4})
    with pytest.raises(ProofError, match=r"bills 16.80 instead of 12.60"):
        pipeline.night(OCT)
    assert [(one["company_id"], one["paused_by"]) for one in active_pauses(pipeline.connection)] == [
        (201, f"the proof of run {pipeline.value('select max(run_id) from audit.run')}")
    ]
    pipeline.bill(OCT, one_time("d", OCT, 1, "2.00"))
    pipeline.bill(OCT, one_time("e", OCT, 1, "3.00"), customer=1)
    with pytest.raises(ProofError):
        pipeline.night(OCT)
    assert set(pipeline.held()) == {"customer_paused"}
    assert len(pipeline.additions()) == 4  # the other customer's went through
    pipeline.sandbox.change_addition(wrong["id"], {"quantity": 3})
    pipeline.night(OCT)
    assert active_pauses(pipeline.connection) == []
    pipeline.night(OCT)
    check(pipeline.sandbox)


@pytest.mark.parametrize("persistent", [True, False])
def test_a_deleted_addition_is_made_anew_only_when_a_person_says_so(pipeline: Pipeline, persistent: bool) -> None:
    row = recurring("a", OCT, 3, "4.20") if persistent else one_time("a", OCT, 3, "4.20")
    pipeline.bill(OCT, row)
    pipeline.night(OCT)
    pipeline.sandbox.delete_addition(pipeline.the_addition()["id"])
    for _ in range(2):
        with pytest.raises(ProofError, match="not found in ConnectWise"):
            pipeline.night(OCT)
        assert pipeline.additions() == []
    key = pipeline.value("select delivery_key from delivery.addition")
    with pytest.raises(ConfigurationError, match="--anew"):
        retry_addition(pipeline.connection, key, "finance")
    retry_addition(pipeline.connection, key, "finance", anew=True)
    assert active_pauses(pipeline.connection) == []
    pipeline.night(OCT)
    assert pipeline.the_addition()["quantity"] == 3
    check(pipeline.sandbox)


def test_made_anew_takes_over_what_still_stands_with_its_marker(pipeline: Pipeline) -> None:
    pipeline.bill(OCT, recurring("a", OCT, 3, "4.20"))
    pipeline.night(OCT)
    pipeline.sandbox.change_addition(pipeline.the_addition()["id"], {"quantity": 4})
    with pytest.raises(ProofError):
        pipeline.night(OCT)
    retry_addition(pipeline.connection, pipeline.value("select delivery_key from delivery.addition"), "me", anew=True)
    pipeline.night(OCT)
    assert pipeline.the_addition()["quantity"] == 3
    check(pipeline.sandbox)
