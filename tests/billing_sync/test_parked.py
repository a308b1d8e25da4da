"""Customers that a proof parked, Additions made anew, what was begun and not finished: all get out, none twice."""

from __future__ import annotations

from typing import Any

import pytest
from pipeline import DEC, NOV, OCT, PATCH, Pipeline, check, invoiced, one_time, recurring, wanted

from billing_sync.decide import decide
from billing_sync.errors import BillingSyncError, PausedError, ProofError
from billing_sync.pauses import active_pauses, end_pause, pause
from billing_sync.plan import approve_automatically, approve_plan
from billing_sync.prove import prove
from billing_sync.settle import retry_addition


def parked(pipeline: Pipeline) -> list[int]:
    return [one["company_id"] for one in active_pauses(pipeline.connection)]


def the_key(pipeline: Pipeline) -> str:
    key: str = pipeline.value("select delivery_key from delivery.addition")
    return key


def left_created(pipeline: Pipeline, plan_id: int) -> None:
    """Deliver while no PATCH is answered: the Additions stay inert."""
    pipeline.sandbox.add_fault("status", **PATCH, params={"status": 500})
    with pytest.raises(BillingSyncError):
        pipeline.deliver(plan_id)
    pipeline.sandbox.clear_faults()


@pytest.mark.parametrize("how", ["changed", "deleted"])
def test_made_anew_in_its_second_month_it_bills_each_month_once(pipeline: Pipeline, how: str) -> None:
    pipeline.bill(OCT, recurring("a", OCT, 3, "4.20"))
    pipeline.night(OCT)
    pipeline.sandbox.invoice(pipeline.agreement(), through="2026-10-31")
    pipeline.bill(NOV, recurring("a", NOV, 3, "4.20"))
    pipeline.night(NOV)
    addition_id = pipeline.the_addition()["id"]
    if how == "changed":
        pipeline.sandbox.change_addition(addition_id, {"quantity": 4})
    else:
        pipeline.sandbox.delete_addition(addition_id)
    with pytest.raises(ProofError):
        pipeline.night(NOV)
    retry_addition(pipeline.connection, the_key(pipeline), "ann", anew=True)
    if how == "deleted":  # delivery finds that out; then it may be made again
        pipeline.night(NOV)
        assert "deleted in ConnectWise" in pipeline.held()["changed_in_connectwise"]
        retry_addition(pipeline.connection, the_key(pipeline), "ann", anew=True)
    for _ in range(2):
        pipeline.night(NOV)
    assert invoiced(pipeline.sandbox) == wanted(pipeline.sandbox)


def test_made_anew_it_is_seen_by_the_proof_until_it_is_delivered(pipeline: Pipeline) -> None:
    pipeline.bill(OCT, recurring("a", OCT, 3, "4.20"))
    pipeline.night(OCT)
    pipeline.sandbox.change_addition(pipeline.the_addition()["id"], {"quantity": 4})
    with pytest.raises(ProofError):
        pipeline.night(OCT)
    retry_addition(pipeline.connection, the_key(pipeline), "ann", anew=True)
    with pytest.raises(ProofError, match="of ours bills, but carries no line"):
        prove(pipeline.connection, pipeline.connectwise(read_only=True), pipeline.open("manual", [OCT]))


def test_a_proof_of_another_month_releases_nobody_and_forgets_nothing(pipeline: Pipeline) -> None:
    pipeline.bill(OCT, one_time("a", OCT, 1, "7.00"))
    pipeline.night(NOV)
    pipeline.sandbox.delete_addition(pipeline.the_addition()["id"])
    with pytest.raises(ProofError):
        pipeline.night(NOV)
    pipeline.bill(NOV, one_time("n", NOV, 1, "2.00"))
    for again in (lambda: pipeline.finish(pipeline.plan("manual", [NOV])), lambda: pipeline.night(DEC)):
        with pytest.raises(ProofError, match="not found in ConnectWise"):
            again()
        assert parked(pipeline) == [201]
    retry_addition(pipeline.connection, the_key(pipeline), "ann", anew=True)
    for _ in range(2):
        pipeline.night(DEC)
    assert parked(pipeline) == []
    check(pipeline.sandbox)


def test_a_persons_pause_stays_when_the_proofs_own_ends(pipeline: Pipeline) -> None:
    pipeline.bill(OCT, one_time("a", OCT, 1, "7.00"))
    pipeline.night(OCT)
    addition_id = pipeline.the_addition()["id"]
    pipeline.sandbox.change_addition(addition_id, {"quantity": 4})
    with pytest.raises(ProofError):
        pipeline.night(OCT)
    assert pause(pipeline.connection, "dispute", "finance", company_id=201)
    pipeline.sandbox.change_addition(addition_id, {"quantity": 1})
    pipeline.bill(OCT, one_time("b", OCT, 1, "9.00"))
    for _ in range(2):
        pipeline.night(OCT)
    assert [one["paused_by"] for one in active_pauses(pipeline.connection)] == ["finance"]
    assert len(pipeline.additions()) == 1
    assert end_pause(pipeline.connection, "finance", company_id=201) == ["finance: dispute"]
    pipeline.night(OCT)
    check(pipeline.sandbox)


def test_what_was_begun_is_finished_although_automated_daily_sync_is_off(pipeline: Pipeline) -> None:
    pipeline.set(automated_daily_sync="off")
    pipeline.bill(OCT, one_time("a", OCT, 1, "7.00"))
    _, plan_id = pipeline.plan_night(OCT)
    approve_plan(pipeline.connection, plan_id, "ann")
    left_created(pipeline, plan_id)
    pipeline.connection.execute("update delivery.plan set approved_at = now() - interval '13 hours'")
    with pytest.raises(PausedError, match="approved too long ago"):
        pipeline.deliver(plan_id)
    run_id, _ = pipeline.plan_night(OCT)
    assert approve_automatically(pipeline.connection, run_id)
    pipeline.finish(run_id)
    assert pipeline.states() == ["delivered"]
    pipeline.bill(OCT, one_time("b", OCT, 1, "9.00"))
    run_id, _ = pipeline.plan_night(OCT)
    assert not approve_automatically(pipeline.connection, run_id)


def test_a_run_whose_plan_is_too_old_makes_a_new_one(pipeline: Pipeline) -> None:
    pipeline.bill(OCT, one_time("a", OCT, 1, "7.00"))
    run_id, plan_id = pipeline.plan_night(OCT)
    pipeline.connection.execute("update delivery.plan set approved_at = now() - interval '13 hours'")
    decide(pipeline.connection, run_id)
    approve_automatically(pipeline.connection, run_id)
    assert pipeline.value("select state from delivery.plan where plan_id = %s", plan_id) == "superseded"
    pipeline.finish(run_id)
    check(pipeline.sandbox)


def test_the_proof_that_finds_it_mended_ends_the_pause_even_of_its_own_run(pipeline: Pipeline) -> None:
    pipeline.bill(OCT, one_time("a", OCT, 1, "7.00"))
    pipeline.night(OCT)
    addition_id = pipeline.the_addition()["id"]
    pipeline.sandbox.change_addition(addition_id, {"quantity": 4})
    run_id, _ = pipeline.plan_night(OCT)
    with pytest.raises(ProofError):
        pipeline.finish(run_id)
    assert parked(pipeline) == [201]
    pipeline.sandbox.change_addition(addition_id, {"quantity": 1})
    prove(pipeline.connection, pipeline.connectwise(read_only=True), run_id)
    assert parked(pipeline) == []


def test_a_parked_customer_with_something_under_way_gets_free(pipeline: Pipeline) -> None:
    pipeline.bill(OCT, one_time("a", OCT, 1, "7.00"))
    pipeline.night(OCT)
    addition_id = pipeline.the_addition()["id"]
    pipeline.bill(OCT, one_time("b", OCT, 1, "9.00"))
    run_id, plan_id = pipeline.plan_night(OCT)
    left_created(pipeline, plan_id)
    pipeline.sandbox.change_addition(addition_id, {"quantity": 4})
    with pytest.raises(ProofError):
        prove(pipeline.connection, pipeline.connectwise(read_only=True), run_id)
    assert parked(pipeline) == [201]
    pipeline.sandbox.change_addition(addition_id, {"quantity": 1})
    with pytest.raises(ProofError, match="ledger says created"):
        pipeline.night(OCT)
    assert parked(pipeline) == []
    pipeline.night(OCT)
    check(pipeline.sandbox)


def test_a_customer_paused_while_it_is_written_leaves_the_run_to_the_others(pipeline: Pipeline) -> None:
    pipeline.bill(OCT, one_time("a", OCT, 1, "7.00"), one_time("b", OCT, 1, "9.00"))
    _, plan_id = pipeline.plan_night(OCT)

    def stop(_: Any) -> None:
        pause(pipeline.connection, "dispute", "finance", company_id=201)

    with pipeline.on_request("POST", "additions$", stop):
        pipeline.deliver(plan_id)
    assert pipeline.sandbox.writes()["received"] == 1
    assert sorted(pipeline.states()) == ["created", "refused"]
    assert set(pipeline.held()) == {"customer_paused"}
    end_pause(pipeline.connection, "finance", company_id=201)
    pipeline.night(OCT)
    check(pipeline.sandbox)
