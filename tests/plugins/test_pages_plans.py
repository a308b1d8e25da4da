"""The page Plan over HTTP, and what follows from it: approving all or some, rejecting, delivering, proving."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pages_client import Pages, pages_of
from pipeline import NOV, OCT, Pipeline, check, one_time, recurring
from prepared import Prepared, prepare

from billing_sync.db import run_sql_file
from billing_sync.decide import MAKE_PLAN
from billing_sync.plan import approve_automatically, begin_delivery, plan_of_run, say_awaiting_approval
from billing_sync.why import line_events, why_line
from local_stack.postgres import Postgres


@pytest.fixture(scope="module")
def waiting_world(postgres: Postgres, billing_template: str, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A plan that waits: 12.60 and 3.00 for one customer, 1.00 for another."""
    prepared = prepare(postgres, billing_template, tmp_path_factory.mktemp("prepared"), "pages_prepared")
    pipeline = prepared.copy(tmp_path_factory.mktemp("waiting"))
    pipeline.set(automated_daily_sync="off")
    pipeline.bill(OCT, recurring("a", OCT, 3, "4.20"), one_time("x", OCT, 1, "3.00"))
    pipeline.bill(OCT, recurring("b", OCT, 1, "1.00"), customer=3)
    run_id, plan_id = pipeline.plan_night(OCT)
    pipeline.finish(run_id)
    return prepared.freeze(pipeline, run_id, plan_id)


@pytest.fixture
def pipeline(waiting_world: Prepared, tmp_path: Path) -> Iterator[Pipeline]:
    made = waiting_world.copy(tmp_path)
    yield made
    waiting_world.discard(made)


@pytest.fixture
def run_id(waiting_world: Prepared) -> int:
    return waiting_world.run_id


@pytest.fixture
def plan_id(waiting_world: Prepared) -> int:
    return waiting_world.plan_id


@pytest.fixture
def pages(pipeline: Pipeline) -> Iterator[Pages]:
    with pages_of(pipeline.dsn) as made:
        yield made


def items_of(pages: Pages, plan_id: int, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pages.get(f"plans/{plan_id}/items", **query)["items"]
    return found


def approve(pages: Pages, plan_id: int, **more: Any) -> dict[str, Any]:
    fingerprint = pages.get(f"plans/{plan_id}")["fingerprint"]
    given: dict[str, Any] = pages.send("POST", f"plans/{plan_id}/approve", {"fingerprint": fingerprint, **more})
    return given


def test_a_plan_is_shown_with_its_money(pages: Pages, plan_id: int, run_id: int) -> None:
    (summary,) = pages.get("plans")
    assert (summary["plan_id"], summary["state"], summary["items"], summary["kind"]) == (
        plan_id,
        "proposed",
        3,
        "nightly",
    )
    assert summary["money"] == [{"currency": "EUR", "amount": "16.60", "lines": 3}]
    assert summary["billing_periods"] == ["2026-09", "2026-10"]

    detail = pages.get(f"plans/{plan_id}")
    assert detail["counts"] == [
        {
            "action": "create",
            "state": "pending",
            "items": 3,
            "money": [{"currency": "EUR", "amount": "16.60", "lines": 3}],
        }
    ]
    assert [(one["creates"], one["amount"]) for one in detail["customers"]] in (
        [(2, "15.60"), (1, "1.00")],
        [(1, "1.00"), (2, "15.60")],
    )
    assert (detail["stale_items"], detail["kept"], detail["conflicts"], detail["held"], detail["bounds"]) == (
        0,
        0,
        0,
        [],
        [],
    )
    assert (detail["run"]["run_id"], detail["run"]["state"]) == (run_id, "awaiting_approval")
    assert pages.get("plans", before=plan_id) == []


def test_items_are_found_and_sorted(pages: Pages, pipeline: Pipeline, plan_id: int) -> None:
    dear, middle, cheap = items_of(pages, plan_id, sort="-amount")
    assert (dear["amount"], dear["quantity"], dear["unit_price"], dear["action"], dear["state"]) == (
        "12.60",
        "3",
        "4.2",
        "create",
        "pending",
    )
    assert (dear["quantity_before"], dear["problem"], dear["is_stale"], len(dear["line_ids"])) == (None, None, False, 1)
    assert [one["amount"] for one in items_of(pages, plan_id, sort="amount", limit=2, offset=1)] == ["3.00", "12.60"]
    assert items_of(pages, plan_id, q="sub-A")[0]["plan_item_id"] == dear["plan_item_id"]
    number = pipeline.value("select invoice_number from billing.invoice order by invoice_id limit 1")
    assert len(items_of(pages, plan_id, q=number)) == 2
    assert len(items_of(pages, plan_id, company_id=cheap["company_id"])) == 1
    assert items_of(pages, plan_id, action="update") == items_of(pages, plan_id, state="done") == []
    beyond = pages.get(f"plans/{plan_id}/items", offset=50)
    assert (beyond["total"], beyond["items"]) == (3, [])
    assert middle["amount"] == "3.00"


def test_what_is_not_there_is_said(pages: Pages) -> None:
    fingerprint = {"fingerprint": "x"}
    for method, path, body in (
        ("GET", "plans/99", None), ("GET", "plans/99/items", None), ("GET", "plans/99/proof", None),
        ("GET", "plans/99/export.csv", None), ("POST", "plans/99/approve", fingerprint),
        ("POST", "plans/99/selection", fingerprint), ("POST", "plans/99/reject", {"reason": "no"}),
    ):  # fmt: skip
        status, message = pages.refused(method, path, body)
        assert (status, "There is no plan 99" in message) == (404, True), path


def test_a_part_of_a_plan_is_approved_delivered_and_proven_and_the_rest_planned_again(
    pages: Pages, pipeline: Pipeline, plan_id: int, run_id: int
) -> None:
    left = items_of(pages, plan_id, q="sub-b")[0]["plan_item_id"]
    fingerprint = pages.get(f"plans/{plan_id}")["fingerprint"]
    chosen = pages.send("POST", f"plans/{plan_id}/selection", {"fingerprint": fingerprint, "leave_out": [left]})
    assert (chosen["items"], chosen["creates"], [one["amount"] for one in chosen["customers"]]) == (2, 2, ["15.60"])
    assert (chosen["money"][0]["amount"], chosen["left_out"][0]["amount"]) == ("15.60", "1.00")

    detail = approve(pages, plan_id, leave_out=[left])
    assert (detail["summary"]["state"], detail["summary"]["approved_by"]) == ("approved", "ann")
    assert {(one["state"], one["items"]) for one in detail["counts"]} == {("pending", 2), ("skipped", 1)}
    assert [one["problem"] for one in items_of(pages, plan_id, state="skipped")] == ["left out by ann"]
    assert "ann approved plan" in pages.get("logs", code="plan_approved")["entries"][0]["message"]

    assert begin_delivery(pipeline.connection, plan_id, "apply_plan", "manual__7") == run_id
    counts, proof = pipeline.finish(run_id)
    assert (counts.created, proof["delivered"], proof["awaiting_approval"], proof["difference"]) == (
        2,
        "15.60",
        "1.00",
        "0.00",
    )
    detail = pages.get(f"plans/{plan_id}")
    assert (detail["summary"]["state"], detail["run"]["state"], detail["run"]["writes"]) == ("applied", "succeeded", 4)
    assert {(one["state"], one["items"]) for one in detail["counts"]} == {("done", 2), ("skipped", 1)}

    proven = pages.get(f"plans/{plan_id}/proof")
    (total,) = proven["totals"]
    assert (total["invoices"], total["different"], total["source_total"], total["delivered"]) == (
        2,
        0,
        "16.60",
        "15.60",
    )
    assert (proven["total"], len(proven["invoices"])) == (2, 2)
    assert pages.get(f"plans/{plan_id}/proof", only_different=True)["invoices"] == []

    of_dag = pages.get("dag-run", dag_id="apply_plan", dag_run_id="manual__7")
    assert (of_dag["run"]["run_id"], of_dag["plan"]["summary"]["plan_id"]) == (run_id, plan_id)

    line_id = pipeline.value("select line_id from billing.invoice_line where subscription_id = 'sub-b'")
    told = [f"{event.who} {event.what}" for event in line_events(why_line(pipeline.connection, line_id))]
    assert f"ann plan {plan_id} approved without it: the next run plans it again" in told

    next_run, next_plan = pipeline.plan_night(OCT)
    assert [(one["subscription_id"], one["amount"]) for one in items_of(pages, next_plan)] == [("sub-b", "1.00")]
    approve(pages, next_plan)
    pipeline.finish(next_run)
    assert pipeline.outcomes() == {"delivered": Decimal("16.60")}
    check(pipeline.sandbox)


def test_a_rejected_plan_is_never_delivered_and_the_next_run_makes_another(
    pages: Pages, pipeline: Pipeline, plan_id: int, run_id: int
) -> None:
    assert pages.refused("POST", f"plans/{plan_id}/reject", {"reason": "  "})[0] == 422
    detail = pages.send("POST", f"plans/{plan_id}/reject", {"reason": "prices are wrong"})
    summary = detail["summary"]
    assert (summary["state"], summary["rejected_by"], summary["rejected_because"]) == (
        "rejected",
        "ann",
        "prices are wrong",
    )
    assert detail["run"]["state"] == "succeeded"
    trail = pipeline.rows(
        "select changed_by, after ->> 'rejected_because' from audit.change where table_name = 'delivery.plan'"
    )
    assert trail == [("ann", "prices are wrong")]
    assert pages.get("logs", levels="WARNING", code="plan_rejected")["entries"][0]["run_id"] == run_id

    line_id = pipeline.value("select line_id from billing.invoice_line where subscription_id = 'sub-b'")
    told = [f"{event.who} {event.what}" for event in line_events(why_line(pipeline.connection, line_id))]
    assert f"ann plan {plan_id} rejected: prices are wrong" in told

    status, message = pages.refused("POST", f"plans/{plan_id}/reject", {"reason": "again"})
    assert (status, message) == (409, f"ann has rejected plan {plan_id} already.")
    status, message = pages.refused("POST", f"plans/{plan_id}/approve", {"fingerprint": detail["fingerprint"]})
    assert (status, message) == (409, f"ann has rejected plan {plan_id} already.")
    assert not approve_automatically(pipeline.connection, run_id)
    assert "was rejected" in say_awaiting_approval(pipeline.connection, run_id)

    pipeline.set(automated_daily_sync="on")
    counts, proof = pipeline.night(OCT)
    assert (counts.created, proof["delivered"]) == (3, "16.60")
    check(pipeline.sandbox)


def test_the_same_run_plans_again_after_a_rejection(
    pages: Pages, pipeline: Pipeline, plan_id: int, run_id: int
) -> None:
    pages.send("POST", f"plans/{plan_id}/reject", {"reason": "again, please"})
    run_sql_file(pipeline.connection, MAKE_PLAN, run_id)
    newest = plan_of_run(pipeline.connection, run_id)
    assert (newest > plan_id, pages.get(f"plans/{newest}")["summary"]["items"]) == (True, 3)


def test_only_what_was_seen_is_approved(pages: Pages, pipeline: Pipeline, plan_id: int, run_id: int) -> None:
    seen = pages.get(f"plans/{plan_id}")["fingerprint"]
    assert pages.get(f"plans/{plan_id}")["fingerprint"] == seen
    run_sql_file(pipeline.connection, MAKE_PLAN, run_id)  # the task was cleared and ran again
    status, message = pages.refused("POST", f"plans/{plan_id}/approve", {"fingerprint": seen})
    assert (status, "look at it again" in message) == (409, True)
    current = pages.ask("POST", f"plans/{plan_id}/selection", {"fingerprint": seen}).json()["current"]
    assert (current["summary"]["state"], current["fingerprint"] != seen) == ("proposed", True)
    everything = [one["plan_item_id"] for one in items_of(pages, plan_id)]
    now = pages.get(f"plans/{plan_id}")["fingerprint"]
    status, message = pages.refused("POST", f"plans/{plan_id}/approve", {"fingerprint": now, "leave_out": everything})
    assert (status, "reject it instead" in message) == (422, True)
    assert pages.refused("POST", f"plans/{plan_id}/approve", {"fingerprint": now, "leave_out": [999]})[0] == 422
    assert pages.get(f"plans/{plan_id}")["counts"][0]["state"] == "pending"
    approve(pages, plan_id)
    status, message = pages.refused("POST", f"plans/{plan_id}/approve", {"fingerprint": now})
    assert (status, "ann has approved" in message, "pause delivery" in message) == (409, True, True)


def test_items_decided_otherwise_since_are_shown_as_stale_and_not_delivered(
    pages: Pages, pipeline: Pipeline, plan_id: int, run_id: int
) -> None:
    (item,) = items_of(pages, plan_id, q="sub-b")
    pipeline.connection.execute(
        "update billing.line_decision set delivery_key = null where line_id = any(%s)", [item["line_ids"]]
    )
    assert pages.get(f"plans/{plan_id}")["stale_items"] == 1
    assert items_of(pages, plan_id, q="sub-b")[0]["is_stale"]
    approve(pages, plan_id)
    counts, _ = pipeline.finish(run_id)
    assert (counts.created, counts.skipped) == (2, 1)
    assert "decided anew" in items_of(pages, plan_id, state="skipped")[0]["problem"]


def test_what_connectwise_refuses_is_shown_in_its_words(
    pages: Pages, pipeline: Pipeline, plan_id: int, run_id: int
) -> None:
    (item,) = items_of(pages, plan_id, q="sub-b")
    place = f"/agreements/{item['agreement_id']}/additions$"
    pipeline.sandbox.add_fault("status", method="POST", path=place, count=1, params={"status": 400})
    approve(pages, plan_id)
    pipeline.finish(run_id)
    (item,) = items_of(pages, plan_id, state="refused")
    assert (item["subscription_id"], "400" in item["problem"]) == ("sub-b", True)
    found = pages.get("attempts", subscription_id="sub-b")["attempts"]
    assert [(one["operation"], one["answer"], one["approved_by"]) for one in found] == [("create", "fail", "ann")]


def test_updates_are_shown_before_and_after(pages: Pages, pipeline: Pipeline, plan_id: int, run_id: int) -> None:
    approve(pages, plan_id)
    pipeline.finish(run_id)
    pipeline.bill(NOV, recurring("a", NOV, 4, "4.20"))
    _, next_plan = pipeline.plan_night(NOV)
    changed = [one for one in items_of(pages, next_plan) if one["action"] == "update"]
    detail = pages.get(f"plans/{next_plan}")
    assert detail["kept"] + len(changed) == 2
    for one in changed:
        assert (one["quantity_before"], one["quantity"], one["unit_price_before"]) == ("3", "4", "4.2")
        assert one["cancelled_date_before"] < one["cancelled_date"]


def test_an_agreement_to_create_is_an_item_and_may_be_left_out(pages: Pages, pipeline: Pipeline) -> None:
    company = 203
    store = pipeline.sandbox.store
    with store.transaction():
        for record in [one for one in store.records("agreement").values() if one["company"]["id"] == company]:
            for addition in list(store.additions(record["id"]).values()):
                store.delete("addition", addition)
            store.delete("agreement", record)
    pipeline.set(create_agreements="on")
    pipeline.bill(OCT, recurring("n", OCT, 1, "7.00"), customer=2)
    run_id, plan_id = pipeline.plan_night(OCT)

    (item,) = items_of(pages, plan_id, action="create agreement")
    assert (item["plan_item_id"], item["company_id"], item["amount"]) == (None, company, "7.00")
    assert item["state"] == "pending"
    detail = pages.get(f"plans/{plan_id}")
    (customer,) = [one for one in detail["customers"] if one["company_id"] == company]
    assert (customer["agreements"], customer["amount"], customer["held_amount"]) == (1, "0", "7.00")
    assert detail["held"] == [{"currency": "EUR", "amount": "7.00", "lines": 1}]
    chosen = pages.send(
        "POST", f"plans/{plan_id}/selection", {"fingerprint": detail["fingerprint"], "leave_out_agreements": [company]}
    )
    assert (chosen["agreements"], chosen["items"], chosen["money"][0]["amount"]) == (0, 3, "16.60")

    approve(pages, plan_id, leave_out_agreements=[company])
    (item,) = items_of(pages, plan_id, action="create agreement")
    assert (item["state"], item["problem"]) == ("skipped", "left out by ann")
    counts, _ = pipeline.finish(run_id)
    assert (counts.created, counts.agreements) == (3, 0)

    run_id, plan_id = pipeline.plan_night(OCT)
    approve(pages, plan_id)
    counts, _ = pipeline.finish(run_id)
    assert counts.agreements == 1
    assert [one["state"] for one in items_of(pages, plan_id)] == ["done"]
    assert [one["operation"] for one in pages.get("attempts", plan_id=plan_id)["attempts"]] == ["create_agreement"]


def test_a_plan_is_exported_without_formulas(pages: Pages, pipeline: Pipeline, plan_id: int) -> None:
    first = pages.get(f"plans/{plan_id}")["customers"][0]["company_id"]
    pipeline.connection.execute("update mapping.company set name = '=1+1' where company_id = %s", [first])
    answer = pages.ask("GET", f"plans/{plan_id}/export.csv")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/csv; charset=utf-8")
    assert f"plan-{plan_id}.csv" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))
    assert (len(rows), rows[0]["Company"], sum(Decimal(row["Amount"]) for row in rows)) == (
        3,
        "'=1+1",
        Decimal("16.60"),
    )
    book = zipfile.ZipFile(io.BytesIO(pages.ask("GET", f"plans/{plan_id}/export.xlsx").content))
    assert b"<f>" not in book.read("xl/worksheets/sheet1.xml")


def test_a_dag_run_shows_its_run_and_plan(pages: Pages, pipeline: Pipeline, plan_id: int, run_id: int) -> None:
    dag_run_id = pipeline.value("select dag_run_id from audit.run where run_id = %s", run_id)
    shown = pages.get("dag-run", dag_id="tests", dag_run_id=dag_run_id)
    assert (shown["run"]["run_id"], shown["plan"]["summary"]["plan_id"]) == (run_id, plan_id)
    assert pages.get("dag-run", dag_id="apply_plan", dag_run_id="manual__9") == {"run": None, "plan": None}
    told = pages.get("dag-run", dag_id="apply_plan", dag_run_id="manual__9", plan_id=plan_id)
    assert (told["run"]["run_id"], told["plan"]["summary"]["plan_id"]) == (run_id, plan_id)


def test_who_may_only_read_approves_nothing(pages: Pages, pipeline: Pipeline, plan_id: int) -> None:
    fingerprint = pages.get(f"plans/{plan_id}")["fingerprint"]
    for path, body in (("approve", {"fingerprint": fingerprint}), ("reject", {"reason": "no"})):
        assert pages.ask("POST", f"plans/{plan_id}/{path}", body, person="vic:read,edit").status_code == 403
    assert pipeline.value("select state from delivery.plan where plan_id = %s", plan_id) == "proposed"
