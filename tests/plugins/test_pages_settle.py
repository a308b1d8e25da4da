"""Settling over HTTP, and what the next night makes of it: each line billed once, whatever a person says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pages_client import Pages, pages_of
from pipeline import DEC, NOV, OCT, PATCH, POST, Pipeline, check, invoiced, one_time, recurring, wanted
from prepared import Prepared, prepare

from billing_sync.errors import ProofError
from local_stack.postgres import Postgres


@pytest.fixture(scope="module")
def prepared(postgres: Postgres, billing_template: str, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(postgres, billing_template, tmp_path_factory.mktemp("prepared"), "settle_prepared")


@pytest.fixture
def pipeline(prepared: Prepared, tmp_path: Path) -> Iterator[Pipeline]:
    made = prepared.copy(tmp_path)
    yield made
    prepared.discard(made)


@pytest.fixture
def pages(pipeline: Pipeline) -> Iterator[Pages]:
    with pages_of(pipeline.dsn) as made:
        yield made


def unsettled(pages: Pages) -> list[dict[str, Any]]:
    page = pages.get("additions/unsettled")
    assert page["total"] == len(page["additions"])
    found: list[dict[str, Any]] = page["additions"]
    return found


def settle(addition: dict[str, Any], way: str) -> dict[str, Any]:
    return {key: addition[key] for key in ("delivery_key", "state", "plan_id")} | {"way": way}


def in_conflict(pipeline: Pipeline) -> None:
    """Prolonged and invoiced between two requests: the ledger cannot know whether November is on the invoice."""
    pipeline.bill(OCT, recurring("a", OCT, 3, "4.20"))
    pipeline.night(OCT)
    pipeline.sandbox.invoice(pipeline.agreement(), through="2026-10-31")
    pipeline.bill(NOV, recurring("a", NOV, 3, "4.20"))
    pipeline.sandbox.add_fault("lost_reply", **PATCH, count=1)
    patches: list[Any] = []

    def hook(request: Any) -> None:
        patches.append(request)
        if len(patches) == 2:
            pipeline.sandbox.invoice(pipeline.agreement(), through="2026-11-30")

    with pipeline.on_request("PATCH", r"/additions/\d+$", hook), pytest.raises(ProofError):
        pipeline.night(NOV)
    pipeline.night(NOV)


def test_what_stands_on_the_invoice_is_confirmed_and_never_billed_again(pipeline: Pipeline, pages: Pages) -> None:
    in_conflict(pipeline)
    (addition,) = unsettled(pages)
    assert (addition["state"], addition["amount"], addition["currency"], len(addition["line_ids"])) == (
        "conflict", "12.60", "EUR", 1,
    )  # fmt: skip
    assert addition["ways"] == ["retry", "confirm", "anew"]
    (line_id,) = addition["line_ids"]
    assert pages.get(f"lines/{line_id}/why")["unsettled"] == [addition]

    assert pages.send("POST", "additions/settle", settle(addition, "confirm")) == {"way": "confirm", "lines": 1}

    assert unsettled(pages) == []
    assert pages.get(f"lines/{line_id}")["outcome"] == "delivered"
    pipeline.night(NOV)
    assert pipeline.held() == {}
    assert invoiced(pipeline.sandbox) == wanted(pipeline.sandbox)
    assert pipeline.value("select message from audit.log_entry where code = 'addition_confirmed'").startswith("ann has")


def test_a_line_of_the_subscription_that_waits_shows_what_it_waits_for(pipeline: Pipeline, pages: Pages) -> None:
    in_conflict(pipeline)
    pipeline.bill(DEC, recurring("a", DEC, 3, "4.20"))
    pipeline.night(DEC)
    waiting = pipeline.value("select max(line_id) from billing.held_reason where reason_code = 'addition_not_settled'")
    story = pages.get(f"lines/{waiting}/why")
    assert [one["state"] for one in story["unsettled"]] == ["conflict"]
    (reason,) = [one for one in story["line"]["held_reasons"] if one["code"] == "addition_not_settled"]
    assert reason["cure_link"] == "dashboard#unsettled"


@pytest.mark.parametrize("how", ["changed", "deleted"])
def test_our_values_stand_again_and_bill_once(pipeline: Pipeline, pages: Pages, how: str) -> None:
    pipeline.bill(OCT, one_time("a", OCT, 1, "7.00"))
    pipeline.night(OCT)
    addition_id = pipeline.the_addition()["id"]
    assert unsettled(pages) == []
    if how == "changed":
        pipeline.sandbox.change_addition(addition_id, {"quantity": 4})
    else:
        pipeline.sandbox.delete_addition(addition_id)
    with pytest.raises(ProofError):
        pipeline.night(OCT)
    (addition,) = unsettled(pages)
    assert (addition["state"], addition["ways"], addition["connectwise_addition_id"]) == (
        "delivered", ["anew"], addition_id,
    )  # fmt: skip
    assert pages.get("pauses") != []

    pages.send("POST", "additions/settle", settle(addition, "anew"))

    assert pages.get("pauses") == []
    pipeline.night(OCT)
    for again in unsettled(pages):  # deleted: delivery finds that out, then it may be made again
        pages.send("POST", "additions/settle", settle(again, "anew"))
    pipeline.night(OCT)
    assert unsettled(pages) == []
    check(pipeline.sandbox)


def test_what_is_to_be_tried_again_needs_nobody_until_it_fails_again(pipeline: Pipeline, pages: Pages) -> None:
    pipeline.bill(OCT, one_time("a", OCT, 1, "7.00"))
    run_id, _ = pipeline.plan_night(OCT)
    pipeline.sandbox.add_fault("status", **POST, params={"status": 400}, count=2)
    pipeline.finish(run_id)
    (addition,) = unsettled(pages)
    assert (addition["state"], addition["ways"], addition["amount"]) == ("refused", ["retry"], "7.00")

    pages.send("POST", "additions/settle", settle(addition, "retry"))
    assert unsettled(pages) == []
    pipeline.night(OCT)  # refused once more
    (again,) = unsettled(pages)
    pages.send("POST", "additions/settle", settle(again, "retry"))
    pipeline.night(OCT)

    assert unsettled(pages) == []
    check(pipeline.sandbox)


def test_what_was_changed_and_then_invoiced_is_confirmed_and_not_billed_again(pipeline: Pipeline, pages: Pages) -> None:
    pipeline.bill(OCT, one_time("a", OCT, 1, "7.00"))
    pipeline.night(OCT)
    addition_id = pipeline.the_addition()["id"]
    pipeline.sandbox.change_addition(addition_id, {"quantity": 4})
    with pytest.raises(ProofError):
        pipeline.night(OCT)
    assert [one["ways"] for one in unsettled(pages)] == [["anew"]]
    pipeline.sandbox.invoice(pipeline.agreement(), through="2026-10-31")
    with pytest.raises(ProofError):
        pipeline.night(OCT)
    (addition,) = unsettled(pages)
    assert (addition["is_invoiced"], addition["ways"]) == (True, ["confirm", "anew"])
    assert (addition["confirmed_amount"], addition["confirmed_line_ids"]) == ("7.00", addition["line_ids"])

    assert pages.send("POST", "additions/settle", settle(addition, "confirm"))["lines"] == 1

    _, proof = pipeline.night(OCT)
    assert (unsettled(pages), proof["delivered"], proof["difference"]) == ([], "7.00", "0.00")
    pipeline.sandbox.invoice(pipeline.agreement(), through="2026-11-30")
    invoices = pipeline.sandbox.invoices(pipeline.agreement())
    billed = [line for one in invoices for line in one["lines"] if line["additionId"] == addition_id]
    assert len(billed) == 1


@pytest.mark.parametrize("is_grouped_anew", [False, True])
def test_a_plan_from_before_does_not_write_what_is_made_anew(
    pipeline: Pipeline, pages: Pages, is_grouped_anew: bool
) -> None:
    """October is invoiced, November is doubtful, a plan waits that would prolong the Addition to December."""
    pipeline.bill(OCT, recurring("a", OCT, 3, "4.20"))
    pipeline.night(OCT)
    pipeline.sandbox.invoice(pipeline.agreement(), through="2026-10-31")
    pipeline.bill(NOV, recurring("a", NOV, 3, "4.20"))
    pipeline.night(NOV)
    pipeline.set(automated_daily_sync="off")
    pipeline.bill(DEC, recurring("a", DEC, 3, "4.20"))
    run_id, plan_id = pipeline.plan_night(DEC)
    addition_id = pipeline.the_addition()["id"]
    pipeline.sandbox.change_addition(addition_id, {"quantity": 4})
    with pytest.raises(ProofError):
        pipeline.finish(run_id)
    (addition,) = unsettled(pages)

    fingerprint = pages.get(f"plans/{plan_id}")["fingerprint"]
    pages.send("POST", f"plans/{plan_id}/approve", {"fingerprint": fingerprint})
    pages.send("POST", "additions/settle", settle(addition, "anew"))
    if is_grouped_anew:  # by another run, before the approved plan is delivered
        pipeline.plan_night(DEC)
    pipeline.deliver(plan_id)

    items = pages.get(f"plans/{plan_id}/items", action="update")["items"]
    assert [(one["connectwise_addition_id"], one["state"]) for one in items] == [(addition_id, "skipped")]
    pipeline.set(automated_daily_sync="on")
    for _ in range(2):
        pipeline.night(DEC)
    pipeline.sandbox.invoice(pipeline.agreement(), through="2026-12-31")
    assert invoiced(pipeline.sandbox) == wanted(pipeline.sandbox)


def test_what_is_wrong_again_after_it_was_settled_is_to_be_settled_again(pipeline: Pipeline, pages: Pages) -> None:
    pipeline.bill(OCT, one_time("a", OCT, 1, "7.00"))
    pipeline.bill(OCT, one_time("b", OCT, 1, "5.00"))
    pipeline.night(OCT)
    ours = [row[0] for row in pipeline.rows("select connectwise_addition_id from delivery.addition")]
    for addition_id in ours:
        pipeline.sandbox.change_addition(addition_id, {"quantity": 4})
    with pytest.raises(ProofError):
        pipeline.night(OCT)
    first, other = unsettled(pages)
    pages.send("POST", "additions/settle", settle(first, "anew"))
    assert [one["delivery_key"] for one in unsettled(pages)] == [other["delivery_key"]]
    assert pages.get("pauses") != []  # the customer's other Addition is not settled yet
    pages.send("POST", "additions/settle", settle(other, "anew"))
    assert pages.get("pauses") == []
    pipeline.night(OCT)
    pipeline.sandbox.change_addition(ours[0], {"quantity": 6})
    with pytest.raises(ProofError):
        pipeline.night(OCT)
    assert len(unsettled(pages)) == 1


def test_nothing_is_settled_that_changed_since_it_was_shown(pipeline: Pipeline, pages: Pages) -> None:
    in_conflict(pipeline)
    (addition,) = unsettled(pages)
    older = {**settle(addition, "confirm"), "plan_id": addition["plan_id"] - 1}
    status, message = pages.refused("POST", "additions/settle", older)
    assert (status, message) == (
        409, "The Addition has changed since you looked: it is in conflict now. Nothing was done.",
    )  # fmt: skip
    pages.send("POST", "additions/settle", settle(addition, "confirm"))
    for way in ("confirm", "retry", "anew"):
        assert pages.refused("POST", "additions/settle", settle(addition, way))[0] == 409
    assert pages.refused("POST", "additions/settle", {**settle(addition, "retry"), "delivery_key": "x"})[0] == 422
    assert pipeline.states() == ["delivered"]


def test_only_who_may_approve_settles_and_refuses(pipeline: Pipeline, pages: Pages) -> None:
    for path in ("additions/settle", "agreements/refuse", "agreements/allow"):
        assert pages.ask("POST", path, {}, person="bob:read,edit").status_code == 403


def test_the_web_role_settles_by_the_functions_alone(pipeline: Pipeline) -> None:
    pipeline.connection.execute("set role billing_web")
    for statement in (
        "update delivery.addition set state = 'delivered'",
        "delete from delivery.addition_line",
        "delete from delivery.new_agreement",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            pipeline.connection.execute(statement)  # type: ignore[call-overload]
    assert pipeline.value("select delivery.retry_addition('x', true)") is None
    pipeline.connection.execute("reset role")


# -- agreements that plans create --------------------------------------------------------------------------------------

BARE, COMPANY = 3, 204  # a customer, and its company


def test_an_agreement_is_refused_for_good_and_allowed_again(pipeline: Pipeline, pages: Pages) -> None:
    pipeline.remove_agreements(COMPANY)
    pipeline.set(create_agreements="on", automated_daily_sync="off")
    pipeline.bill(OCT, recurring("b", OCT, 2), customer=BARE)
    run_id, plan_id = pipeline.plan_night(OCT)
    pipeline.finish(run_id)
    (item,) = pages.get(f"plans/{plan_id}/items")["items"]
    assert (item["action"], item["state"], item["refusal"]) == ("create agreement", "pending", None)
    line_id = pipeline.value("select line_id from billing.invoice_line")
    assert pages.get(f"lines/{line_id}/why")["agreement"] == {"company_id": COMPANY, "refusal": None}

    refused = pages.send("POST", "agreements/refuse", {"company_id": COMPANY, "reason": "They pay by card"})
    assert refused == {"company_id": COMPANY, "refusal": "ann refused it: They pay by card"}
    (item,) = pages.get(f"plans/{plan_id}/items")["items"]
    assert item["refusal"] == refused["refusal"]

    pipeline.finish(pipeline.plan_night(OCT)[0])
    story = pages.get(f"lines/{line_id}/why")
    assert [one["code"] for one in story["line"]["held_reasons"]] == ["no_agreement"]
    assert story["agreement"] == refused

    assert pages.send("POST", "agreements/allow", {"company_id": COMPANY})["refusal"] is None
    status, message = pages.refused("POST", "agreements/allow", {"company_id": COMPANY})
    assert status == 422
    assert "Nothing that a person can take back" in message
    pipeline.finish(pipeline.plan_night(OCT)[0])
    assert set(pipeline.held()) == {"agreement_to_create"}
