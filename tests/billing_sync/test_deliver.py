"""Each Addition exactly once, on a real database and over real HTTP: the protocol, its faults, its crashes."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from pipeline import (
    LIST,
    NOV,
    OCT,
    PATCH,
    POST,
    READ,
    Killed,
    Pipeline,
    body,
    check,
    invoiced,
    one_time,
    recurring,
)
from prepared import Build, Prepared

from billing_sync import claim, deliver
from billing_sync.claim import hold_claim
from billing_sync.db import connect
from billing_sync.deliver import Deliverer, DeliveryCounts
from billing_sync.errors import AuthenticationError, BillingSyncError, ConfigurationError, ProofError, TemporaryError
from billing_sync.payload import line_amount
from billing_sync.plan import shards_to_deliver
from billing_sync.prove import prove
from billing_sync.settle import confirm_addition, retry_addition

MakePipeline = Callable[[Prepared], Pipeline]


def journal(pipeline: Pipeline) -> list[tuple[str, str, str]]:
    """What was applied to our Additions: (operation, by, billCustomer after)."""
    return [
        (entry["operation"].removeprefix("addition."), entry["by"], (entry["after"] or {}).get("billCustomer", ""))
        for entry in pipeline.sandbox.journal()
        if entry["operation"].startswith("addition.") and str(entry["marker"]).startswith("axs-")
    ]


def requests_of(pipeline: Pipeline, method: str, path: str = "", since: int = 0) -> int:
    """How many requests the sandbox's ConnectWise half got."""
    return len(pipeline.sandbox.requests(since, service="connectwise", method=method, path=path or None))


# -- where several tests begin -----------------------------------------------------------------------------------------


def a_line(pipeline: Pipeline) -> tuple[int, int]:
    """A recurring line of October, planned and approved."""
    pipeline.bill(OCT, recurring("a", OCT, 3, "4.20"))
    return pipeline.plan_night(OCT)


def an_update(pipeline: Pipeline) -> tuple[int, int]:
    """The same one, delivered and invoiced; its line of November, with more seats, planned and approved."""
    a_line(pipeline)
    pipeline.finish(1 + pipeline.value("select min(run_id) from audit.run"))
    pipeline.sandbox.invoice(pipeline.agreement(), through="2026-10-31")
    pipeline.bill(NOV, recurring("a", NOV, 5, "4.20"))
    return pipeline.plan_night(NOV)


def four_items(pipeline: Pipeline) -> tuple[int, int]:
    """Two agreements with an update, a prolongation, a one-time and a recurring creation, planned and approved."""
    pipeline.bill(OCT, recurring("a", OCT, 2), recurring("b", OCT, 3))
    pipeline.night(OCT)
    pipeline.sandbox.invoice(pipeline.agreement(), through="2026-10-31")
    pipeline.bill(NOV, recurring("a", NOV, 5), recurring("b", NOV, 3), one_time("c", date(2026, 11, 4), 1, "7.77"))
    pipeline.bill(NOV, recurring("d", NOV, 1, "3.10"), customer=2)
    return pipeline.plan_night(NOV)


@dataclass
class Planned:
    """A pipeline with a plan that is approved and not delivered yet."""

    pipeline: Pipeline
    run_id: int
    plan_id: int

    def finish(self) -> tuple[DeliveryCounts, dict[str, str]]:
        return self.pipeline.finish(self.run_id)


@pytest.fixture
def begin(stage: Callable[[Build], Prepared], pipeline_of: MakePipeline) -> Callable[[Build], Planned]:
    """A copy of its own of one of the beginnings."""

    def make(build: Build) -> Planned:
        prepared = stage(build)
        return Planned(pipeline_of(prepared), prepared.run_id, prepared.plan_id)

    return make


Begin = Callable[[Build], Planned]


def crash(monkeypatch: pytest.MonkeyPatch, pipeline: Pipeline, method: str, plan_id: int) -> None:
    """Deliver a plan; the process ends where a method of Deliverer would begin."""

    def end(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Deliverer, method, end)
        with pytest.raises(Killed):
            pipeline.deliver(plan_id)


# -- the life of an Addition -------------------------------------------------------------------------------------------


def test_an_addition_is_created_inert_then_activated_then_read_back(pipeline: Pipeline) -> None:
    pipeline.bill(OCT, recurring("a", OCT, 3, "4.20"))
    counts, proof = pipeline.night(OCT)

    assert journal(pipeline) == [("create", "api", "DoNotBill"), ("update", "api", "Billable")]
    addition = pipeline.the_addition()
    assert (addition["quantity"], addition["unitPrice"], addition["extPrice"]) == (3, Decimal("4.2"), Decimal("12.60"))
    assert (addition["effectiveDate"], addition["cancelledDate"]) == ("2026-10-01T00:00:00Z", "2026-10-31T00:00:00Z")
    assert counts == DeliveryCounts(created=1, writes=2)
    assert counts.as_dict()["created"] == 1
    assert (proof["source"], proof["delivered"]) == ("12.60", "12.60")
    assert pipeline.attempts() == ["create invoke", "create ok", "activate invoke", "activate ok"]
    assert pipeline.rows(
        "select state, connectwise_addition_id, applied_payload = payload, delivered_at is not null"
        " from delivery.addition"
    ) == [("delivered", addition["id"], True, True)]
    assert pipeline.rows("select amount, cycle_start, cycle_end from delivery.addition_line") == [
        (Decimal("12.60"), OCT, date(2026, 10, 31))
    ]
    assert pipeline.rows("select state from delivery.plan_item") == [("done",)]
    assert pipeline.value("select state from delivery.plan") == "applied"
    # The last thing that happens is that it is read again.
    delivered_by = [one["method"] for one in pipeline.sandbox.requests(service="connectwise", path="/additions")]
    assert delivered_by == ["GET", "POST", "PATCH", "GET", "GET"]  # the last one by the proof
    check(pipeline.sandbox)


def test_the_intent_is_committed_before_the_first_request(pipeline: Pipeline) -> None:
    pipeline.bill(OCT, recurring("a", OCT), recurring("b", OCT, 2))
    seen = []

    def look(request: Any) -> None:
        with psycopg.connect(pipeline.dsn) as other:
            seen.append(
                other.execute(
                    """
                    select addition.state, addition.payload -> 'quantity' = to_jsonb(%s::numeric),
                        (select count(*) from delivery.addition_line as carried
                            where carried.delivery_key = addition.delivery_key),
                        array(select outcome from delivery.attempt where attempt.delivery_key = addition.delivery_key)
                    from delivery.addition where marker = %s
                    """,
                    [body(request)["quantity"], body(request)["serialNumber"]],
                ).fetchone()
            )

    with pipeline.on_request("POST", "/additions$", look):
        pipeline.night(OCT)
    assert seen == [("intended", True, 1, ["invoke"])] * 2
    check(pipeline.sandbox)


def test_nothing_is_sent_for_a_plan_that_is_not_approved(pipeline: Pipeline) -> None:
    pipeline.set(automated_daily_sync="off")
    pipeline.bill(OCT, recurring("a", OCT))
    _, plan_id = pipeline.plan_night(OCT)
    since = pipeline.sandbox.health()["requests"]
    for unapproved, state in ((plan_id, "proposed"), (plan_id + 1, "unknown")):
        with pytest.raises(ConfigurationError, match=f"{unapproved} is {state}: approve it"):
            Deliverer(pipeline.connection, pipeline.connectwise(), unapproved).deliver_shard(1)
    assert pipeline.sandbox.requests(since) == []


def test_running_again_writes_nothing(pipeline: Pipeline) -> None:
    pipeline.bill(OCT, recurring("a", OCT), one_time("b", date(2026, 10, 7), 2, "3.33"))
    pipeline.bill(OCT, recurring("c", OCT, 5, "1.10"), customer=2)
    first, _ = pipeline.night(OCT)
    since, changes = pipeline.sandbox.health()["requests"], pipeline.sandbox.health()["journal"]
    second, proof = pipeline.night(OCT)
    third, _ = pipeline.night(NOV)
    assert first.writes == 6
    assert second == third == DeliveryCounts()
    assert pipeline.sandbox.writes(since)["received"] == 0
    assert pipeline.sandbox.journal(since=changes) == []
    assert (proof["delivered"], proof["difference"]) == (proof["source"], "0.00")
    # The same task once more, as Airflow does after clearing it.
    assert pipeline.deliver(pipeline.value("select min(plan_id) from delivery.plan")) == DeliveryCounts()
    check(pipeline.sandbox)


@pytest.mark.parametrize("carrier", ["serial_number", "description", "custom_field"])
def test_the_marker_in_each_place_works_end_to_end(pipeline: Pipeline, carrier: str) -> None:
    if carrier == "custom_field":
        pipeline.set(marker_custom_field_id="11")
    pipeline.set(marker_carrier=carrier)
    pipeline.bill(OCT, recurring("a", OCT, 2, "5.00"))
    pipeline.sandbox.add_fault("lost_reply", **POST, count=1)  # the look-up by marker finds it
    pipeline.night(OCT)
    addition = pipeline.the_addition()
    assert requests_of(pipeline, "POST") == 1
    fields = {
        "serial_number": addition["serialNumber"],
        "description": addition["invoiceDescription"].rpartition("[")[2].rstrip("]"),
        "custom_field": next(field.get("value") for field in addition["customFields"] if field["id"] == 11),
    }
    assert [name for name, value in fields.items() if str(value).startswith("axs-tests-")] == [carrier]
    assert fields[carrier] == pipeline.value("select marker from delivery.addition")

    # Next month it is prolonged, an orphan is recognised, and the proof knows it.
    pipeline.bill(NOV, recurring("a", NOV, 2, "5.00"), recurring("b", NOV, 1, "0.50"))
    pipeline.sandbox.add_fault("late", **POST, count=1, params={"delay": None})
    pipeline.night(NOV)
    pipeline.sandbox.release_late()
    pipeline.bill(NOV, one_time("c", date(2026, 11, 20)), day=20)
    counts, _ = pipeline.night(NOV)
    assert counts.neutralised == 1
    assert (
        pipeline.sandbox.additions(addition["agreementId"], addition["marker"])[0]["cancelledDate"][:10] == "2026-11-30"
    )
    check(pipeline.sandbox)


def test_a_custom_field_without_its_id_fails_before_the_first_write(pipeline: Pipeline) -> None:
    pipeline.set(marker_carrier="custom_field")
    pipeline.bill(OCT, recurring("a", OCT))
    with pytest.raises(ConfigurationError, match="marker_custom_field_id"):
        pipeline.night(OCT)
    assert pipeline.sandbox.writes()["received"] == 0
    pipeline.set(marker_custom_field_id="11")
    pipeline.night(OCT)
    check(pipeline.sandbox)


def test_the_echo_is_rounded_as_the_database_rounds(pipeline: Pipeline) -> None:
    """One rounding rule, also for numbers with more digits than Python's decimals keep by default."""
    chance = random.Random(7)

    def number(digits: int, places: int) -> Decimal:
        return chance.choice([1, -1]) * Decimal(chance.randrange(10**digits)).scaleb(-chance.randrange(places + 1))

    pairs = [(number(chance.randrange(1, 16), 12), number(chance.randrange(1, 10), 6)) for _ in range(2000)]
    # A product of 29 digits, a hair below half a cent: with 28 digits it would become half a cent, and be rounded up.
    hair = 4_999_999_999_999_999
    quantity = hair * pow(999_999, -1, 10**18) % 10**18 + 10**5 * 10**18
    pairs.append((Decimal(quantity).scaleb(-12), Decimal("0.999999")))
    found = pipeline.rows(
        "select billing.line_amount(quantity, price)"
        " from unnest(%s::numeric[], %s::numeric[]) as pair (quantity, price)",
        [quantity for quantity, _ in pairs],
        [price for _, price in pairs],
    )
    assert [line_amount(*pair) for pair in pairs] == [row[0] for row in found]


# -- resuming ----------------------------------------------------------------------------------------------------------

RESUMES: dict[str, tuple[str, str]] = {  # where the process ended -> the state that the next run finds
    "_create": ("intended", ""),
    "_record_winner": ("intended", "create ok"),
    "_activate": ("created", "create ok"),
    "_read_back": ("active", "activate ok"),
}


@pytest.mark.parametrize("ended_at", RESUMES)
def test_a_later_run_resumes_from_each_state(begin: Begin, monkeypatch: pytest.MonkeyPatch, ended_at: str) -> None:
    world = begin(a_line)
    pipeline, (state, last_attempt) = world.pipeline, RESUMES[ended_at]
    crash(monkeypatch, pipeline, ended_at, world.plan_id)
    assert pipeline.states() == [state]
    assert (pipeline.attempts() or [""])[-1] == last_attempt
    assert pipeline.outcomes() == {"in doubt": Decimal("12.60")}

    counts, proof = pipeline.night(OCT)  # another plan: it has no item for the line, and resumes all the same
    assert pipeline.states() == ["delivered"]
    assert requests_of(pipeline, "POST") == 1
    assert proof["delivered"] == "12.60"
    assert counts.writes == {"_create": 2, "_record_winner": 1, "_activate": 1, "_read_back": 0}[ended_at]
    check(pipeline.sandbox)


@pytest.mark.parametrize("fault", ["before the PATCH", "replies lost", "after the PATCH"])
def test_a_later_run_resumes_an_update(begin: Begin, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    world = begin(an_update)
    pipeline = world.pipeline
    if fault == "replies lost":
        pipeline.sandbox.add_fault("lost_reply", **PATCH, count=deliver.PATCH_TRIES)
        with pytest.raises(TemporaryError, match="no answer to 3 tries to update it"):
            pipeline.deliver(world.plan_id)
    else:
        crash(monkeypatch, pipeline, "_update" if fault == "before the PATCH" else "_read_back", world.plan_id)
    assert pipeline.states() == ["active" if fault == "after the PATCH" else "updating"]
    counts, proof = pipeline.night(NOV)
    assert counts.writes == (0 if fault == "after the PATCH" else 1)
    assert proof["delivered"] == "33.60"  # October was proven before it was invoiced
    assert pipeline.the_addition()["quantity"] == 5
    check(pipeline.sandbox)


@pytest.mark.parametrize("ended_at", ["_create", "_record_winner", "_activate"])
def test_what_was_left_open_is_not_activated_in_a_cycle_that_was_invoiced_meanwhile(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, ended_at: str
) -> None:
    """Billable from then on, it would never be billed: its only cycle has gone. The line moves to the next open one."""
    world = begin(a_line)
    pipeline = world.pipeline
    crash(monkeypatch, pipeline, ended_at, world.plan_id)
    pipeline.sandbox.invoice(pipeline.agreement(), through="2026-10-31")
    counts, proof = pipeline.night(OCT)
    assert (counts.skipped, counts.writes, proof["held"]) == (1, 0, "12.60")
    assert pipeline.held() == {"agreement_changed": "next invoice date is 2026-11-01, was 2026-09-01"}
    assert pipeline.rows("select state from delivery.plan_item") == [("skipped",)]
    pipeline.night(OCT)
    assert pipeline.outcomes() == {"delivered": Decimal("12.60")}
    assert pipeline.the_addition()["effectiveDate"] == "2026-11-01T00:00:00Z"
    check(pipeline.sandbox)


def test_what_was_left_open_and_invoiced_meanwhile_is_for_a_person_to_look_at(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It bills; whether it did when ConnectWise invoiced cannot be told."""
    world = begin(a_line)
    pipeline = world.pipeline
    since = pipeline.sandbox.health()["requests"]
    crash(monkeypatch, pipeline, "_set_state", world.plan_id)  # activated, and not noted down
    assert pipeline.states() == ["created"]
    pipeline.sandbox.invoice(pipeline.agreement(), through="2026-10-31")
    with pytest.raises(ProofError, match="carries no line"):
        pipeline.night(OCT)
    assert pipeline.sandbox.writes(since)["received"] == 2
    assert pipeline.states() == ["conflict"]
    assert set(pipeline.held()) == {"invoiced_meanwhile"}
    confirm_addition(pipeline.connection, pipeline.value("select delivery_key from delivery.addition"), "ann")
    pipeline.night(OCT)
    check(pipeline.sandbox)


def test_what_was_left_open_goes_on_when_the_agreement_is_active_again(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = begin(a_line)
    pipeline = world.pipeline
    crash(monkeypatch, pipeline, "_activate", world.plan_id)
    pipeline.sandbox.change_record("agreements", pipeline.agreement(), {"cancelledFlag": True})
    counts, _ = pipeline.night(OCT)
    assert (counts.writes, counts.skipped) == (0, 1)
    pipeline.sandbox.change_record("agreements", pipeline.agreement(), {"cancelledFlag": False})
    pipeline.night(OCT)
    assert pipeline.outcomes() == {"delivered": Decimal("12.60")}
    assert requests_of(pipeline, "POST") == 1
    check(pipeline.sandbox)


def test_what_was_left_open_and_deleted_meanwhile_is_a_conflict(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    world = begin(a_line)
    pipeline = world.pipeline
    crash(monkeypatch, pipeline, "_activate", world.plan_id)
    pipeline.sandbox.invoice(pipeline.agreement(), through="2026-10-31")
    pipeline.sandbox.delete_addition(pipeline.the_addition()["id"])
    pipeline.night(OCT)
    assert pipeline.held() == {"changed_in_connectwise": "the Addition was deleted in ConnectWise"}
    assert pipeline.states() == ["conflict"]


@pytest.mark.parametrize("meanwhile", ["invoiced", "applied and invoiced", "changed and invoiced"])
def test_an_update_left_open_does_not_prolong_into_a_cycle_that_was_invoiced_meanwhile(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    world = begin(an_update)
    pipeline = world.pipeline
    crash(monkeypatch, pipeline, "_set_state" if "applied" in meanwhile else "_update", world.plan_id)
    assert pipeline.states() == ["updating"]
    if "changed" in meanwhile:
        pipeline.sandbox.change_addition(pipeline.the_addition()["id"], {"quantity": 9})
    pipeline.sandbox.invoice(pipeline.agreement(), through="2026-11-30")
    counts, _ = pipeline.night(NOV)
    assert counts.writes == 0
    if "changed" in meanwhile:
        assert pipeline.held() == {
            "changed_in_connectwise": "quantity is 9 instead of 3; extPrice is 37.80 instead of 12.60"
        }
        return
    if "applied" in meanwhile:
        assert set(pipeline.held()) == {"invoiced_meanwhile"}
        confirm_addition(pipeline.connection, pipeline.value("select delivery_key from delivery.addition"), "ann")
    pipeline.night(NOV)
    assert pipeline.outcomes() == {"delivered": Decimal("33.60")}
    check(pipeline.sandbox)


# -- faults ------------------------------------------------------------------------------------------------------------

APPLIED = {  # kind and parameters of a fault whose write took effect all the same
    "lost_reply": {},
    "status_after_500": {"status": 500},
    "status_after_409": {"status": 409},
    "truncated": {},
    "invalid_json": {},
}
NOT_APPLIED = {"status_500": {"status": 500}, "status_409": {"status": 409}, "reset": {}}
HARMLESS = {"slow_body": {"seconds": 0.1}, "delay": {"seconds": 0.05}}


def fault(pipeline: Pipeline, name: str, where: dict[str, str], params: dict[str, Any], count: int | None = 1) -> None:
    pipeline.sandbox.add_fault(name.rstrip("0123456789").rstrip("_"), **where, count=count, params=params)


@pytest.mark.parametrize("name", [*APPLIED, *NOT_APPLIED, *HARMLESS])
def test_a_faulty_post_makes_one_addition(begin: Begin, name: str) -> None:
    world = begin(a_line)
    pipeline = world.pipeline
    fault(pipeline, name, POST, {**APPLIED, **NOT_APPLIED, **HARMLESS}[name])
    counts, proof = world.finish()
    assert requests_of(pipeline, "POST") == (2 if name in NOT_APPLIED else 1)
    assert pipeline.attempts() == [
        "create invoke", *([] if name in HARMLESS else ["create unknown"]),
        *(["create invoke"] if name in NOT_APPLIED else []), *([] if name in APPLIED else ["create ok"]),
        "activate invoke", "activate ok",
    ]  # fmt: skip
    assert pipeline.states() == ["delivered"]
    assert counts.in_doubt == 0
    assert (proof["delivered"], proof["held"]) == ("12.60", "0")
    check(pipeline.sandbox)


@pytest.mark.parametrize("name", ["lost_reply", "status_after_500", "status_500", "reset"])
def test_when_every_answer_to_a_post_is_lost_the_next_run_finishes(begin: Begin, name: str) -> None:
    world = begin(a_line)
    pipeline = world.pipeline
    fault(pipeline, name, POST, {**APPLIED, **NOT_APPLIED}[name], count=None)
    if name in APPLIED:  # the look-up after the first answer that was lost finds it
        world.finish()
    else:
        with pytest.raises(
            TemporaryError, match=r"1 of 1 agreements are not finished.*no answer to 3 tries to create it"
        ):
            pipeline.deliver(world.plan_id)
        assert pipeline.states() == ["intended"]
        with pytest.raises(ProofError, match="ledger says intended"):
            prove(pipeline.connection, pipeline.connectwise(read_only=True), world.run_id)
        assert pipeline.outcomes() == {"in doubt": Decimal("12.60")}
    pipeline.sandbox.clear_faults()
    _, proof = pipeline.night(OCT)
    assert proof["delivered"] == "12.60"
    check(pipeline.sandbox)


@pytest.mark.parametrize("moment", ["between look-up and second POST", "before the run ends", "after the run"])
def test_a_post_applied_late_is_inert_and_neutralised(begin: Begin, moment: str) -> None:
    world = begin(a_line)
    pipeline = world.pipeline
    pipeline.sandbox.add_fault("late", **POST, count=1, params={"delay": None})
    release = {
        "between look-up and second POST": ("POST", "/additions$"),
        "before the run ends": ("PATCH", r"/additions/\d+$"),
    }.get(moment)
    act = contextlib.nullcontext()
    if release:
        act = pipeline.on_request(*release, lambda _: pipeline.sandbox.release_late())  # type: ignore[assignment]
    with act:
        world.finish()
    pipeline.sandbox.release_late()
    assert requests_of(pipeline, "POST") == 2
    twins = pipeline.additions()
    assert sorted(one["billCustomer"] for one in twins) == ["Billable", "DoNotBill"]

    pipeline.bill(OCT, one_time("next", date(2026, 10, 20)), day=20)  # whoever comes to the agreement next
    counts, _ = pipeline.night(OCT)
    duplicate = next(one for one in pipeline.additions() if one["billCustomer"] == "DoNotBill")
    assert duplicate["cancelledDate"] == duplicate["effectiveDate"]
    assert counts.neutralised == (0 if release else 1)
    again, _ = pipeline.night(OCT)
    assert again.writes == 0
    check(pipeline.sandbox)


@pytest.mark.parametrize(
    ("build", "name"),
    [
        *((a_line, name) for name in (*APPLIED, *NOT_APPLIED, *HARMLESS, "late")),
        *((an_update, name) for name in ("lost_reply", "status_after_500", "status_500", "late")),
    ],
)
def test_a_faulty_patch_is_repeated(begin: Begin, build: Build, name: str) -> None:
    world = begin(build)
    pipeline = world.pipeline
    fault(pipeline, name, PATCH, {**APPLIED, **NOT_APPLIED, **HARMLESS, "late": {"delay": None}}[name])
    since = pipeline.sandbox.health()["requests"]
    _, proof = world.finish()
    assert requests_of(pipeline, "PATCH", since=since) == (1 if name in HARMLESS else 2)
    pipeline.sandbox.release_late()
    assert pipeline.states() == ["delivered"]
    assert len(pipeline.additions()) == 1
    assert proof["delivered"] == proof["source"]
    check(pipeline.sandbox)


@pytest.mark.parametrize("where", ["list", "record", "agreement"])
@pytest.mark.parametrize("name", ["status_500", "reset", "truncated"])
def test_a_faulty_read_is_repeated_and_an_outage_resumed(begin: Begin, name: str, where: str) -> None:
    path = {"list": LIST, "record": READ, "agreement": {"method": "GET", "path": r"/agreements/\d+$"}}[where]
    world = begin(a_line)
    pipeline = world.pipeline
    if where == "record":  # a single Addition is asked for when the list does not show it
        pipeline.sandbox.add_fault("stale", **LIST, skip=1, count=1, params={"age": 3600})
    params = {**APPLIED, **NOT_APPLIED, **HARMLESS}[name]
    fault(pipeline, name, path, params)
    if name == "status_500":  # then it stays away
        fault(pipeline, name, path, params, count=None)
        with pytest.raises(TemporaryError, match="the service answered 500"):
            pipeline.deliver(world.plan_id)
        assert pipeline.states() == {"agreement": [], "list": ["intended"], "record": ["active"]}[where]
        pipeline.sandbox.clear_faults()
    world.finish()
    assert pipeline.states() == ["delivered"]
    assert len(pipeline.additions()) == 1
    check(pipeline.sandbox)


def test_a_stale_list_hides_nothing_that_was_just_written(begin: Begin) -> None:
    world = begin(a_line)
    pipeline = world.pipeline
    pipeline.sandbox.add_fault("stale", **LIST, params={"age": 3600})
    pipeline.deliver(world.plan_id)
    assert pipeline.states() == ["delivered"]
    pipeline.sandbox.clear_faults()
    world.finish()
    check(pipeline.sandbox)


def test_a_stale_list_in_the_look_up_costs_an_inert_orphan_at_worst(begin: Begin) -> None:
    world = begin(a_line)
    pipeline = world.pipeline
    pipeline.sandbox.add_fault("lost_reply", **POST, count=1)
    pipeline.sandbox.add_fault("stale", **LIST, params={"age": 3600, "hide_only": True}, skip=1, count=1)
    pipeline.deliver(world.plan_id)
    assert requests_of(pipeline, "POST") == 2
    assert pipeline.states() == ["delivered"]
    assert sorted(one["billCustomer"] for one in pipeline.additions()) == ["Billable", "DoNotBill"]
    world.finish()
    check(pipeline.sandbox)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("where", [POST, PATCH], ids=["POST", "PATCH"])
def test_refused_keys_end_the_work_at_once(pipeline: Pipeline, status: int, where: dict[str, str]) -> None:
    for customer in range(3):
        pipeline.bill(OCT, *(recurring(f"{customer}-{n}", OCT) for n in range(4)), customer=customer)
    _, plan_id = pipeline.plan_night(OCT)
    since = pipeline.sandbox.health()["requests"]
    pipeline.sandbox.add_fault("status", **where, params={"status": status})
    for shard in shards_to_deliver(pipeline.connection, plan_id):
        with pytest.raises(AuthenticationError, match=str(status)):
            Deliverer(pipeline.connection, pipeline.connectwise(), plan_id).deliver_shard(shard)
    # One refused write for each of three workers, no line held for it.
    assert requests_of(pipeline, "POST", since=since) == 3
    assert requests_of(pipeline, "PATCH", since=since) == (3 if where is PATCH else 0)
    assert pipeline.held() == {}
    assert "refused" not in pipeline.states()
    pipeline.sandbox.clear_faults()
    _, proof = pipeline.night(OCT)
    assert proof["delivered"] == "120.00"
    check(pipeline.sandbox)


def test_wrong_keys_are_recognised_even_where_they_answer_404(begin: Begin) -> None:
    world = begin(a_line)
    pipeline = world.pipeline
    for status in (401, 404):
        pipeline.sandbox.change_settings(bad_keys_status=status)
        with pytest.raises(AuthenticationError, match=str(status)):
            Deliverer(pipeline.connection, pipeline.connectwise(private_key="wrong"), world.plan_id).deliver_shard(1)
    assert pipeline.sandbox.writes()["received"] == 0
    assert pipeline.held() == {}


@pytest.mark.parametrize("where", [POST, PATCH], ids=["POST", "PATCH"])
def test_a_write_that_came_too_early_is_sent_again(pipeline: Pipeline, where: dict[str, str]) -> None:
    """429 is certainly not applied; the client makes the shared budget wait as long as ConnectWise asked."""
    pipeline.bill(OCT, *(recurring(f"{n}", OCT) for n in range(3)))
    run_id, plan_id = pipeline.plan_night(OCT)
    pipeline.sandbox.add_fault("status", **where, count=1, params={"status": 429})
    pipeline.deliver(plan_id)
    assert pipeline.sandbox.writes()["received"] == 7
    assert requests_of(pipeline, "POST") == (4 if where is POST else 3)
    assert pipeline.held() == {}
    _, proof = pipeline.finish(run_id)
    assert proof["delivered"] == "30.00"
    check(pipeline.sandbox)


def test_the_true_request_limit_is_survived(pipeline: Pipeline) -> None:
    pipeline.bill(OCT, *(recurring(f"{n}", OCT) for n in range(6)))
    run_id, plan_id = pipeline.plan_night(OCT)
    pipeline.sandbox.change_settings(requests_per_minute=7)
    with pytest.raises(TemporaryError, match="429"):
        pipeline.deliver(plan_id)
    pipeline.sandbox.change_settings(requests_per_minute=1000)
    pipeline.finish(run_id)
    assert len(pipeline.additions()) == 6
    check(pipeline.sandbox)


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [POST, PATCH], ids=["POST", "PATCH"])
def test_one_refused_line_is_held_and_everything_else_goes_on(pipeline: Pipeline, where: dict[str, str]) -> None:
    pipeline.bill(OCT, recurring("good", OCT, 2), recurring("bad", OCT, 7), recurring("fine", OCT, 3))
    pipeline.bill(OCT, recurring("other", OCT, 4), customer=2)
    refusal = {"status": 400, "body": {
        "code": "InvalidObject", "message": "Addition object is invalid",
        "errors": [{"code": "Invalid", "message": "seven is too many", "resource": "Addition", "field": "quantity"}],
    }}  # fmt: skip
    seven = r'"quantity": ?7\b' if where is POST else r'"quantity", "value": ?7\b|"value": ?7\b'
    pipeline.sandbox.add_fault("status", **where, body=seven, params=refusal)
    counts, proof = pipeline.night(OCT)
    assert (counts.created, counts.refused) == ((3, 1) if where is POST else (4, 1))
    assert pipeline.held() == {
        "refused_by_connectwise": pipeline.value("select problem from delivery.addition where state = 'refused'")
    }
    assert "quantity: seven is too many" in pipeline.held()["refused_by_connectwise"]
    assert (proof["delivered"], proof["held"]) == ("90.00", "70.00")
    assert [one["quantity"] for one in pipeline.additions() if one["billCustomer"] == "Billable"] == [2, 3, 4]
    assert "400" in pipeline.value("select detail from delivery.attempt where outcome = 'fail'")

    # The same thing is not tried again; something else is.
    again, _ = pipeline.night(OCT)
    assert again.writes == 0
    assert list(pipeline.held()) == ["refused_by_connectwise"]
    pipeline.connection.execute(
        "insert into billing.override (line_id, quantity, unit_price) select line_id, 14, 5 from reporting.held_line"
    )
    pipeline.night(OCT)
    assert pipeline.held() == {}
    check(pipeline.sandbox)


def switch_product(pipeline: Pipeline, *, inactive: bool) -> None:
    pipeline.sandbox.change_record("catalog", 501, {"inactiveFlag": inactive})


def test_a_refused_product_that_is_mapped_anew_is_delivered(begin: Begin) -> None:
    world = begin(a_line)
    pipeline = world.pipeline
    switch_product(pipeline, inactive=True)
    counts, proof = world.finish()
    assert counts.refused == 1
    assert proof["held"] == "12.60"
    assert "The product is inactive" in pipeline.held()["refused_by_connectwise"]
    pipeline.night(OCT)
    assert list(pipeline.held()) == ["product_not_usable"]
    pipeline.connection.execute("update mapping.offer_mapping set product_id = 502 where offer_id = 'OF-1001'")
    pipeline.night(OCT)
    assert pipeline.the_addition()["product"]["id"] == 502
    check(pipeline.sandbox)


def test_a_refused_product_that_is_made_active_again_is_delivered_on_request(begin: Begin) -> None:
    world = begin(a_line)
    pipeline = world.pipeline
    switch_product(pipeline, inactive=True)
    world.finish()
    switch_product(pipeline, inactive=False)
    counts, _ = pipeline.night(OCT)  # nothing about the Addition changed: it is not tried for nothing every night
    assert (counts.writes, list(pipeline.held())) == (0, ["refused_by_connectwise"])
    assert retry_addition(pipeline.connection, pipeline.value("select delivery_key from delivery.addition"), "me") == (
        "refused"
    )
    pipeline.night(OCT)
    assert pipeline.outcomes() == {"delivered": Decimal("12.60")}
    check(pipeline.sandbox)


@pytest.mark.parametrize("changes_payload", [True, False])
def test_a_line_refused_at_activation_can_go_to_another_agreement(begin: Begin, changes_payload: bool) -> None:
    """What stands inert on the first agreement is not the Addition any more."""
    world = begin(a_line)
    pipeline = world.pipeline
    pipeline.sandbox.add_fault("status", **PATCH, params={"status": 400})
    world.finish()
    assert pipeline.states() == ["refused"]
    pipeline.sandbox.clear_faults()
    managed = next(
        one["id"] for one in pipeline.sandbox.agreements()
        if one["company"]["id"] == 201 and one["type"]["name"] == "Managed Services"
    )  # fmt: skip
    pipeline.connection.execute(
        "update mapping.contract_mapping set agreement_id = %s, state = 'approved', decided_by = 'me'"
        " where contract_id = 'CT-30001'",
        [managed],
    )
    if not changes_payload:  # the payload does not name the agreement
        retry_addition(pipeline.connection, pipeline.value("select delivery_key from delivery.addition"), "me")
    if changes_payload:
        pipeline.connection.execute(
            "insert into billing.override (line_id, invoice_description)"
            " select line_id, 'new' from billing.invoice_line"
        )
    pipeline.night(OCT)
    assert pipeline.outcomes() == {"delivered": Decimal("12.60")}
    assert [one["billCustomer"] for one in pipeline.additions(managed)] == ["Billable"]
    assert [one["billCustomer"] for one in pipeline.additions(pipeline.agreement())] == ["DoNotBill"]
    check(pipeline.sandbox)


# -- the world changes between plan and delivery -----------------------------------------------------------------------


def test_invoicing_between_plan_and_delivery_moves_the_line_to_the_next_cycle(pipeline: Pipeline) -> None:
    pipeline.bill(OCT, recurring("a", OCT, 3, "4.20"))
    pipeline.bill(OCT, recurring("b", OCT), customer=2)
    run_id, _ = pipeline.plan_night(OCT)
    pipeline.sandbox.invoice(pipeline.agreement(), through="2026-10-31")
    counts, proof = pipeline.finish(run_id)
    assert (counts.skipped, counts.created) == (1, 1)
    assert pipeline.held() == {"agreement_changed": "next invoice date is 2026-11-01, was 2026-09-01"}
    assert (proof["delivered"], proof["held"]) == ("10.00", "12.60")
    assert sorted(pipeline.rows("select state from delivery.plan_item")) == [("done",), ("skipped",)]
    assert pipeline.additions(pipeline.agreement()) == []

    pipeline.night(OCT)
    assert pipeline.additions(pipeline.agreement())[0]["effectiveDate"] == "2026-11-01T00:00:00Z"
    check(pipeline.sandbox)


@pytest.mark.parametrize(
    ("change", "said", "back", "reason"),
    [
        ({"cancelledFlag": True}, "status is Cancelled, was Active", {"cancelledFlag": False}, "no_agreement"),
        ({"company": {"id": 202}}, "company is 202, was 201", {"company": {"id": 201}}, "no_agreement"),
        ({"prorateFlag": True}, "proration is True, was False", {"prorateFlag": False}, "agreement_prorates"),
        (
            {"currency": {"id": 2}}, "currency is USD, was EUR", {"currency": {"id": 1}}, "agreement_currency_differs"
        ),
        (
            {"billingCycle": {"id": 4}, "nextInvoiceDate": "2026-09-01T00:00:00Z"}, "billing cycle is 4, was 1",
            {"billingCycle": {"id": 1}, "nextInvoiceDate": "2026-09-01T00:00:00Z"}, None,
        ),
        (
            {"endDate": "2026-09-30T00:00:00Z", "noEndingDateFlag": False}, "status is Expired",
            {"noEndingDateFlag": True, "endDate": ""}, "no_agreement",
        ),
    ],
)  # fmt: skip
def test_a_changed_agreement_is_not_written_to(
    begin: Begin, change: dict[str, Any], said: str, back: dict[str, Any], reason: str | None
) -> None:
    world = begin(a_line)
    pipeline = world.pipeline
    pipeline.sandbox.change_record("agreements", pipeline.agreement(), change)
    counts, proof = world.finish()
    assert (counts.skipped, counts.writes) == (1, 0)
    assert list(pipeline.held()) == ["agreement_changed"]
    assert said in pipeline.held()["agreement_changed"]
    assert proof["held"] == "12.60"
    if reason:
        pipeline.night(OCT)
        assert reason in pipeline.held()
    pipeline.sandbox.change_record("agreements", 1001, back)
    pipeline.night(OCT)
    assert pipeline.held() == {}
    check(pipeline.sandbox)


def test_an_agreement_that_is_gone_is_said(begin: Begin) -> None:
    world = begin(a_line)
    pipeline = world.pipeline
    with pipeline.sandbox.store.transaction():
        pipeline.sandbox.store.delete("agreement", pipeline.sandbox.store.records("agreement")[1001])
    counts, _ = world.finish()
    assert counts.writes == 0
    assert pipeline.held() == {"agreement_changed": "the agreement no longer exists"}


def test_a_payload_changed_after_approval_is_refused(pipeline: Pipeline) -> None:
    pipeline.bill(OCT, recurring("a", OCT, 3, "4.20"))
    pipeline.bill(OCT, recurring("b", OCT), customer=2)
    _, plan_id = pipeline.plan_night(OCT)
    pipeline.connection.execute(
        "update delivery.plan_item set payload = payload || '{\"unitPrice\": 0.01}' where agreement_id = 1001"
    )
    with pytest.raises(BillingSyncError, match="is not what was approved: its payload changed"):
        pipeline.deliver(plan_id)
    assert pipeline.additions(1001) == []
    assert pipeline.value("select count(*) from delivery.addition where agreement_id = 1001") == 0
    assert len(pipeline.additions()) == 1  # the other customer's


def test_two_approved_plans_that_carry_the_same_line_deliver_it_once(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the first plan October and November share an Addition; by the second, November has its own."""
    pipeline.bill(OCT, recurring("a", OCT, 2))
    pipeline.bill(NOV, recurring("a", NOV, 2), recurring("b", NOV, 1))
    both, _ = pipeline.plan_night(NOV)
    exclude(pipeline, "charge_start_date = '2026-10-01'")
    alone, _ = pipeline.plan_night(NOV)
    pipeline.connection.execute("delete from billing.override")
    with monkeypatch.context() as patch:  # as if both had looked at the same moment: then the ledger's key decides
        patch.setattr(Deliverer, "_decided_otherwise", lambda *_: None)
        patch.setattr(Deliverer, "_lines_changed_since_plan", lambda *_: "")
        pipeline.finish(both)
        counts, _ = pipeline.finish(alone)
    assert (counts.skipped, counts.writes) == (2, 0)
    pipeline.night(NOV)
    assert pipeline.outcomes() == {"delivered": Decimal("50.00")}
    check(pipeline.sandbox)


def test_of_two_approved_plans_the_older_one_gives_way(pipeline: Pipeline) -> None:
    pipeline.bill(OCT, recurring("a", OCT, 2))
    pipeline.bill(NOV, recurring("a", NOV, 2), recurring("b", NOV, 1))
    both, _ = pipeline.plan_night(NOV)
    exclude(pipeline, "charge_start_date = '2026-10-01'")
    alone, _ = pipeline.plan_night(NOV)
    assert pipeline.finish(both)[0].created == 1
    assert pipeline.finish(alone)[0].created == 1
    pipeline.connection.execute("delete from billing.override")
    pipeline.night(NOV)
    assert pipeline.outcomes() == {"delivered": Decimal("50.00")}
    check(pipeline.sandbox)


def exclude(pipeline: Pipeline, which: str) -> None:
    """A person excludes lines."""
    pipeline.connection.execute(
        "insert into billing.override (line_id, is_excluded, reason)"
        f" select line_id, true, 'billed by hand' from billing.invoice_line where {which}"  # type: ignore[arg-type]
    )


def test_a_line_excluded_after_its_plan_was_approved_is_not_delivered(begin: Begin) -> None:
    world = begin(a_line)
    pipeline = world.pipeline
    exclude(pipeline, "true")
    pipeline.plan_night(OCT)
    counts, proof = world.finish()
    assert (counts.skipped, counts.writes) == (1, 0)
    assert (proof["delivered"], proof["excluded"]) == ("0", "12.60")


# -- updating ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("invoice", [True, False])
@pytest.mark.parametrize(("quantity", "price"), [(2, "10.00"), (5, "10.00"), (2, "11.25")])
def test_the_next_month_updates_the_persistent_addition(
    pipeline: Pipeline, quantity: int, price: str, invoice: bool
) -> None:
    pipeline.bill(OCT, recurring("a", OCT, 2))
    pipeline.night(OCT)
    if invoice:
        pipeline.sandbox.invoice(pipeline.agreement(), through="2026-10-31")
    pipeline.bill(NOV, recurring("a", NOV, quantity, price))
    first = pipeline.the_addition()
    counts, proof = pipeline.night(NOV)
    changes_values = (quantity, price) != (2, "10.00")
    if changes_values and not invoice:  # October is not billed yet: its values must stay until it is
        assert (counts.created, counts.updated) == (1, 0)
    else:
        assert (counts.created, counts.updated, counts.writes) == (0, 1, 1)
        now = pipeline.the_addition()
        assert (now["id"], now["quantity"]) == (first["id"], quantity)
        assert (now["effectiveDate"], now["cancelledDate"]) == ("2026-10-01T00:00:00Z", "2026-11-30T00:00:00Z")
        assert pipeline.value("select count(*) from delivery.addition_line") == 2
    assert proof["difference"] == "0.00"
    check(pipeline.sandbox)


def test_an_end_that_a_person_removed_is_a_breach_until_it_is_put_back(begin: Begin) -> None:
    world = begin(an_update)
    pipeline = world.pipeline
    pipeline.sandbox.change_addition(pipeline.the_addition()["id"], {"cancelledDate": None})
    with pytest.raises(ProofError, match="bills until for ever"):
        world.finish()
    assert "cancelledDate is missing" in pipeline.held()["changed_in_connectwise"]
    with pytest.raises(ProofError, match="bills until for ever"):
        pipeline.night(NOV)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"unitPrice": Decimal("12.00")}, "unitPrice is 12.00 instead of 4.2"),
        ({"quantity": 9}, "quantity is 9 instead of 3"),
        ({"billCustomer": "DoNotBill"}, "billCustomer is DoNotBill instead of Billable"),
        ({"invoiceDescription": "Agreed by phone"}, "invoiceDescription is Agreed by phone"),
        ({"serialNumber": "S-1"}, "marker is missing"),
    ],
)
def test_what_a_person_changed_is_reported_and_not_overwritten(begin: Begin, change: dict[str, Any], said: str) -> None:
    world = begin(an_update)
    pipeline = world.pipeline
    before = pipeline.sandbox.change_addition(pipeline.the_addition()["id"], change)
    seq = pipeline.sandbox.health()["journal"]
    counts, _ = world.finish()
    assert (counts.conflicts, counts.writes) == (1, 0)
    assert pipeline.states() == ["conflict"]
    assert said in pipeline.held()["changed_in_connectwise"]
    assert pipeline.rows("select state from delivery.plan_item order by plan_item_id") == [("done",), ("conflict",)]
    again, _ = pipeline.night(NOV)
    assert again.writes == 0
    assert said in pipeline.held()["addition_not_settled"]
    assert pipeline.sandbox.journal(since=seq) == []
    assert (
        next(one for one in pipeline.sandbox.additions(1001) if one["id"] == before["id"])["quantity"]
        == before["quantity"]
    )
    assert pipeline.outcomes() == {"delivered": Decimal("12.60"), "held": Decimal("21.00")}


def test_a_person_who_typed_the_same_values_made_no_conflict(begin: Begin) -> None:
    world = begin(an_update)
    pipeline = world.pipeline
    pipeline.sandbox.change_addition(
        pipeline.the_addition()["id"], {"quantity": 5, "cancelledDate": "2026-11-30T00:00:00Z"}
    )
    counts, proof = world.finish()
    assert counts.conflicts == 0
    assert proof["delivered"] == "33.60"
    check(pipeline.sandbox)


def test_what_a_person_deleted_is_not_made_again(begin: Begin) -> None:
    world = begin(an_update)
    pipeline = world.pipeline
    pipeline.sandbox.delete_addition(pipeline.the_addition()["id"])
    counts, _ = world.finish()
    assert (counts.conflicts, counts.writes) == (1, 0)
    assert pipeline.held()["changed_in_connectwise"] == "the Addition was deleted in ConnectWise"
    assert pipeline.night(NOV)[0].writes == 0
    assert pipeline.additions() == []
    assert "addition_not_settled" in pipeline.held()


def test_a_refused_update_leaves_what_stood_before(begin: Begin) -> None:
    world = begin(an_update)
    pipeline = world.pipeline
    pipeline.sandbox.add_fault("status", **PATCH, params={"status": 400, "body": {"message": "no change today"}})
    counts, proof = world.finish()
    assert counts.conflicts == 1
    assert "no change today" in pipeline.held()["refused_by_connectwise"]
    assert pipeline.the_addition()["quantity"] == 3
    assert (proof["delivered"], proof["held"]) == ("12.60", "21.00")
    assert invoiced(pipeline.sandbox) == {201: Decimal("12.60")}


# -- settled by a person, tried again ----------------------------------------------------------------------------------


def the_key(pipeline: Pipeline) -> str:
    return str(pipeline.value("select delivery_key from delivery.addition"))


def test_a_conflict_that_a_person_settled_goes_on(begin: Begin) -> None:
    world = begin(an_update)
    pipeline = world.pipeline
    addition_id = pipeline.the_addition()["id"]
    pipeline.sandbox.change_addition(addition_id, {"quantity": 9})
    world.finish()
    assert retry_addition(pipeline.connection, the_key(pipeline), "me") == "conflict"
    counts, _ = pipeline.night(NOV)  # it still stands: nothing is overwritten
    assert (counts.conflicts, counts.writes) == (1, 0)
    assert pipeline.the_addition()["quantity"] == 9

    pipeline.sandbox.change_addition(addition_id, {"quantity": 3})
    retry_addition(pipeline.connection, the_key(pipeline), "me")
    counts, proof = pipeline.night(NOV)
    assert (counts.updated, proof["delivered"]) == (1, "33.60")
    assert pipeline.held() == {}
    assert "me lets" in pipeline.warnings("INFO")
    check(pipeline.sandbox)


def test_an_echo_that_agrees_after_all_is_activated_again(pipeline: Pipeline) -> None:
    pipeline.sandbox.change_settings(unit_price_decimals=2)
    pipeline.bill(OCT, recurring("a", OCT, 100, "5.2456"))
    pipeline.night(OCT)
    assert pipeline.states() == ["conflict"]
    pipeline.sandbox.change_settings(unit_price_decimals=None)
    retry_addition(pipeline.connection, the_key(pipeline), "me")
    pipeline.night(OCT)
    assert requests_of(pipeline, "POST") == 1
    check(pipeline.sandbox)


# -- the echo ----------------------------------------------------------------------------------------------------------


def test_an_echo_that_differs_is_set_back_to_do_not_bill_and_held(pipeline: Pipeline) -> None:
    pipeline.sandbox.change_settings(unit_price_decimals=2)
    pipeline.bill(OCT, recurring("a", OCT, 100, "5.2456"), recurring("b", OCT, 1, "2.00"))
    counts, proof = pipeline.night(OCT)
    assert (counts.created, counts.conflicts) == (2, 1)
    assert pipeline.held()["echo_differs"] == (
        "unitPrice is 5.25 instead of 5.2456; extPrice is 525.00 instead of 524.56"
    )
    assert (proof["delivered"], proof["held"]) == ("2.00", "524.56")
    assert sorted((one["billCustomer"], one["extPrice"]) for one in pipeline.additions()) == [
        ("Billable", Decimal("2.00")),
        ("DoNotBill", Decimal("525.00")),
    ]
    assert invoiced(pipeline.sandbox) == {201: Decimal("2.00")}


def test_an_updated_echo_that_differs_is_taken_back_to_what_stood_before(pipeline: Pipeline) -> None:
    pipeline.bill(OCT, recurring("a", OCT, 2))
    pipeline.night(OCT)
    pipeline.sandbox.invoice(pipeline.agreement(), through="2026-10-31")
    pipeline.bill(NOV, recurring("a", NOV, 100, "5.2456"))
    before = pipeline.the_addition()
    pipeline.sandbox.change_settings(unit_price_decimals=2)
    counts, proof = pipeline.night(NOV)
    assert counts.conflicts == 1
    assert "unitPrice is 5.25 instead of 5.2456" in pipeline.held()["echo_differs"]
    after = pipeline.the_addition()
    assert {**after, "_info": {}} == {**before, "_info": {}}
    assert (proof["delivered"], proof["held"]) == ("20.00", "524.56")
    assert invoiced(pipeline.sandbox) == {201: Decimal("20.00")}


def test_a_person_between_activation_and_reading_back_is_noticed(begin: Begin) -> None:
    world = begin(a_line)
    pipeline = world.pipeline
    done = []

    def change(_: Any) -> None:
        if pipeline.additions() and not done:
            done.append(pipeline.sandbox.change_addition(pipeline.the_addition()["id"], {"quantity": 4}))

    with pipeline.on_request("GET", "/additions$", change):
        counts, proof = world.finish()
    assert counts.conflicts == 1
    assert proof["held"] == "12.60"
    assert pipeline.the_addition()["billCustomer"] == "DoNotBill"


# -- copies ------------------------------------------------------------------------------------------------------------


def test_a_copied_agreement_is_left_alone_and_said(pipeline: Pipeline) -> None:
    pipeline.bill(OCT, recurring("a", OCT, 3, "4.20"))
    pipeline.night(OCT)
    copy = pipeline.sandbox.copy_agreement(pipeline.agreement())
    twin = pipeline.additions(copy["id"])[0]
    seq = pipeline.sandbox.health()["journal"]
    _, proof = pipeline.night(OCT)
    assert proof["delivered"] == "12.60"
    assert pipeline.sandbox.journal(since=seq) == []
    assert (
        f"copied_addition: Agreement {copy['id']}: Addition {twin['id']} bills and carries the marker {twin['marker']},"
        " which belongs to another agreement"
    ) in pipeline.warnings()
    # Nor does a line in flight take the copy's Addition for its own.
    pipeline.sandbox.change_record("agreements", copy["id"], {"cancelledFlag": True})
    pipeline.bill(NOV, recurring("a", NOV, 3, "4.20"))
    pipeline.night(NOV)
    assert pipeline.additions(copy["id"])[0]["cancelledDate"] == twin["cancelledDate"]
    assert pipeline.additions(pipeline.agreement())[0]["cancelledDate"] == "2026-11-30T00:00:00Z"


# -- two workers at once -----------------------------------------------------------------------------------------------


def deliver_twice(pipeline: Pipeline, plan_id: int, shards: list[int]) -> list[str]:
    """Two workers with connections of their own deliver the same shards at the same time; returns what they raised."""
    barrier, raised = threading.Barrier(2), []

    def work() -> None:
        with connect(pipeline.dsn) as connection:
            deliverer = Deliverer(connection, pipeline.connectwise(), plan_id)
            barrier.wait(10)
            for shard in shards:
                try:
                    deliverer.deliver_shard(shard)
                except TemporaryError:
                    pass
                except Exception as error:  # noqa: BLE001
                    raised.append(repr(error))

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    return raised


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("has_lock", [True, False])
def test_two_workers_on_one_plan_never_bill_twice(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, has_lock: bool, seed: int
) -> None:
    if not has_lock:
        monkeypatch.setattr(claim, "_lock", lambda *_: True)  # each takes the other's claim away
    pipeline.bill(OCT, *(recurring(f"a{n}", OCT, n + 1) for n in range(4)))
    pipeline.bill(OCT, *(one_time(f"b{n}", date(2026, 10, n + 1), n + 1) for n in range(3)), customer=2)
    _, plan_id = pipeline.plan_night(OCT)
    for number, (kind, where) in enumerate((("delay", POST), ("delay", PATCH), ("delay", LIST))):
        pipeline.sandbox.add_fault(
            kind, **where, probability=0.5, seed=10 * seed + number, params={"seconds": 0.01 * (seed + 1)}
        )
    if seed % 2:
        pipeline.sandbox.add_fault("lost_reply", **POST, probability=0.3, seed=seed)
    shards = shards_to_deliver(pipeline.connection, plan_id)
    raised = deliver_twice(pipeline, plan_id, shards)
    assert all("another worker has taken over" in str(error) for error in raised)
    assert raised == [] or not has_lock
    pipeline.sandbox.clear_faults()
    if has_lock and not seed % 2:
        assert requests_of(pipeline, "POST") == 7
    pipeline.deliver(plan_id)
    pipeline.night(OCT)
    assert pipeline.states() == ["delivered"] * 7
    assert set(pipeline.rows("select state from delivery.plan_item")) == {("done",)}
    check(pipeline.sandbox)


def test_a_worker_that_waits_too_long_for_another_gives_up_for_now(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliver, "LOCK_WAIT", "100ms")
    world = begin(a_line)
    pipeline = world.pipeline
    with (
        connect(pipeline.dsn) as other,
        hold_claim(other, 1001, "other", lease_seconds=60, lock_wait="1s"),
        pytest.raises(TemporaryError, match="agreement 1001: another worker is delivering it"),
    ):
        pipeline.deliver(world.plan_id)
    assert pipeline.sandbox.writes()["received"] == 0
    world.finish()
    check(pipeline.sandbox)
