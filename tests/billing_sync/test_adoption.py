"""Additions made by hand are taken over at the cut-over: listed with evidence, approved by a person, billed once."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pipeline import DEC, NOV, OCT, PATCH, SEP, Killed, Pipeline, one_time, recurring
from prepared import Build, Prepared

from billing_sync.adoption import (
    AdoptionCounts,
    adoptions,
    export_candidates,
    import_adoptions,
    read_adoption_file,
    release,
    scan,
)
from billing_sync.connectwise import ConnectWise
from billing_sync.deliver import Deliverer
from billing_sync.errors import ConfigurationError, ProofError
from billing_sync.plan import approve_plan
from billing_sync.plan_review import plan_detail, plan_items
from billing_sync.run import last_day_of
from billing_sync.settle import retry_addition

JAN = date(2027, 1, 1)


def by_hand(pipeline: Pipeline, name: str = "a", customer: int = 0, **values: Any) -> int:
    """An Addition that a person made in ConnectWise, without an end; returns its id."""
    body = {
        "product": {"id": pipeline.value("select product_id from mapping.offer_mapping where offer_id = 'OF-1001'")},
        "billCustomer": "Billable",
        "quantity": 3,
        "unitPrice": Decimal("4.20"),
        "effectiveDate": "2026-01-01T00:00:00Z",
        "invoiceDescription": f"Mail for the office, sub-{name}",
        **values,
    }
    if "effectiveDate" not in values:  # ConnectWise refuses a start in a cycle that is invoiced; it was made back then
        body["effectiveDate"] = "2026-09-01T00:00:00Z"
    return int(pipeline.sandbox.add_addition(pipeline.agreement(customer), body)["id"])


def through(pipeline: Pipeline, month: date) -> None:
    """Agreement invoicing of all cycles up to a month."""
    pipeline.sandbox.invoice(through=last_day_of(month).isoformat())


def invoiced_of(pipeline: Pipeline, addition_id: int) -> dict[str, Decimal]:
    """What ConnectWise invoiced of an Addition, by cycle."""
    return {
        invoice["cycleStart"]: line["amount"]
        for invoice in pipeline.sandbox.invoices()
        for line in invoice["lines"]
        if line["additionId"] == addition_id
    }


def ours_beside(pipeline: Pipeline, *adopted: int) -> dict[int, dict[str, Decimal]]:
    """What ConnectWise invoiced of Additions that we made, by id and cycle."""
    found = {one["id"] for one in pipeline.additions()} - set(adopted)
    return {one: invoiced_of(pipeline, one) for one in found}


def candidates(pipeline: Pipeline) -> pd.DataFrame:
    scan(pipeline.connection, pipeline.connectwise(read_only=True))
    return export_candidates(pipeline.connection)


def adopt(pipeline: Pipeline, chosen: dict[int, str], frame: pd.DataFrame | None = None) -> AdoptionCounts:
    """Approve Additions for subscriptions in what the export gives."""
    frame = candidates(pipeline) if frame is None else frame
    frame = frame.astype(object).fillna("")
    for addition_id, subscription_id in chosen.items():
        row = (frame["connectwise_addition_id"] == str(addition_id)) & (frame["subscription_id"] == subscription_id)
        assert row.any(), frame
        frame.loc[row, "state"] = "approved"
    return import_adoptions(pipeline.connection, pipeline.connectwise(read_only=True), frame, person="ann")


def decided(pipeline: Pipeline, month: date) -> int:
    """The first look before anything is delivered: a dry run."""
    return pipeline.finish(pipeline.plan("nightly", [month], approve=False, is_dry_run=True))[0].writes


def cut_over(pipeline: Pipeline, **values: Any) -> int:
    """September is invoiced by hand; AppXite has billed September and October; nothing of ours is delivered yet."""
    addition_id = by_hand(pipeline, **values)
    through(pipeline, SEP)
    pipeline.bill(SEP, recurring("a", SEP, 3, "4.20"))
    pipeline.bill(OCT, recurring("a", OCT, 5, "4.20"))
    assert pipeline.finish(pipeline.plan("nightly", [SEP, OCT], approve=False, is_dry_run=True))[0].writes == 0
    return addition_id


def test_taken_over_it_bills_each_cycle_once_from_the_next_plan_on(pipeline: Pipeline) -> None:
    addition_id = cut_over(pipeline)
    before = len(pipeline.sandbox.journal())
    assert adopt(pipeline, {addition_id: "sub-a"}) == AdoptionCounts(1, 0, 0)
    assert len(pipeline.sandbox.journal()) == before  # nothing is changed by the approval
    assert [one["state"] for one in adoptions(pipeline.connection)] == ["adopted, waiting"]

    run_id, plan_id = pipeline.plan_night(OCT)
    assert pipeline.rows(
        "select action, quantity_before, quantity from reporting.plan_item where plan_id = %s", plan_id
    ) == [("adoption", Decimal(3), Decimal(5))]
    total, (item,) = plan_items(pipeline.connection, plan_id, action="adoption")
    assert (total, item["quantity_before"], item["quantity"]) == (1, Decimal(3), Decimal(5))
    assert [one["action"] for one in plan_detail(pipeline.connection, plan_id)["counts"]] == ["adoption"]
    counts, proof = pipeline.finish(run_id)
    assert (counts.created, counts.updated, counts.writes) == (0, 1, 1)
    assert (proof["delivered"], proof["excluded"]) == ("21.00", "12.60")
    assert pipeline.rows("select excluded_by from billing.line_decision where outcome = 'excluded'") == [
        (f"ann: billed by hand before Addition {addition_id} was taken over",)
    ]
    record = pipeline.the_addition()
    assert (record["id"], record["quantity"], record["cancelledDate"]) == (addition_id, 5, "2026-10-31T00:00:00Z")
    assert record["effectiveDate"] == "2026-09-01T00:00:00Z"
    assert [one["state"] for one in adoptions(pipeline.connection)] == ["adopted"]
    assert pipeline.night(OCT)[0].writes == 0

    through(pipeline, OCT)
    pipeline.bill(NOV, recurring("a", NOV, 2, "4.55"))
    pipeline.night(NOV)
    through(pipeline, NOV)
    pipeline.bill(DEC, one_time("other", DEC))
    pipeline.night(DEC)
    through(pipeline, JAN)
    assert invoiced_of(pipeline, addition_id) == {
        "2026-09-01": Decimal("12.60"), "2026-10-01": Decimal("21.00"), "2026-11-01": Decimal("9.10"),
    }  # fmt: skip
    assert [sum(one.values()) for one in ours_beside(pipeline, addition_id).values()] == [Decimal("10.00")]


@pytest.mark.parametrize("carrier", ["serial_number", "description", "custom_field"])
def test_the_marker_is_added_and_nothing_else_of_the_addition_is_lost(pipeline: Pipeline, carrier: str) -> None:
    pipeline.set(marker_carrier=carrier, marker_custom_field_id="11")
    addition_id = cut_over(pipeline, customFields=[{"id": 12, "value": "Finance"}])
    adopt(pipeline, {addition_id: "sub-a"})
    assert pipeline.night(OCT)[0].updated == 1

    record = pipeline.the_addition()
    assert record["id"] == addition_id
    assert {field["id"]: field.get("value") for field in record["customFields"]}[12] == "Finance"
    assert pipeline.night(OCT)[0].writes == 0


def test_all_candidates_are_listed_with_evidence_and_nothing_is_taken_over_by_itself(pipeline: Pipeline) -> None:
    right = by_hand(pipeline, "a")
    wrong_quantity = by_hand(pipeline, "b", quantity=9)
    nameless = by_hand(pipeline, "", invoiceDescription="Mail")
    other = by_hand(pipeline, "x", product={"id": pipeline.value(
        "select product_id from mapping.offer_mapping where offer_id = 'OF-1002'"
    )})  # fmt: skip
    through(pipeline, SEP)
    pipeline.bill(SEP, recurring("a", SEP, 3, "4.20"))
    pipeline.bill(OCT, recurring("a", OCT, 3, "4.20"), recurring("b", OCT, 7, "4.20"))
    pipeline.finish(pipeline.plan("nightly", [SEP, OCT], approve=False, is_dry_run=True))

    frame = candidates(pipeline)
    of = {
        int(addition_id): rows.set_index("subscription_id")[["score", "ambiguity"]].to_dict("index")
        for addition_id, rows in frame.astype(object).fillna("").groupby("connectwise_addition_id")
    }
    assert of[right]["sub-a"]["score"] == "5"
    assert of[wrong_quantity]["sub-b"]["score"] == "4"
    assert of[nameless]["sub-a"] == {"score": "4", "ambiguity": ""}
    assert of[nameless]["sub-b"]["score"] == "3"
    assert of[other] == {"": {"score": "", "ambiguity": "no subscription fits"}}
    row = frame[(frame["connectwise_addition_id"] == str(wrong_quantity)) & (frame["subscription_id"] == "sub-b")].iloc[
        0
    ]
    assert row["evidence"] == "product, quantity is 7 in AppXite, unit price, name or id, dates"
    best = frame[(frame["connectwise_addition_id"] == str(right)) & (frame["subscription_id"] == "sub-a")].iloc[0]
    assert (best["covered_lines"], best["covered_amount"]) == ("1", "12.60")
    assert frame["state"].isna().all()
    assert pipeline.value("select count(*) from delivery.adoption") == 0


def test_an_addition_that_fits_two_subscriptions_says_so(pipeline: Pipeline) -> None:
    twin = by_hand(pipeline, "", invoiceDescription="Mail")
    pipeline.bill(SEP, recurring("a", SEP, 3, "4.20"), recurring("b", SEP, 3, "4.20"))
    decided(pipeline, SEP)
    frame = candidates(pipeline)
    rows = frame[frame["connectwise_addition_id"] == str(twin)]
    assert set(rows["ambiguity"]) == {"2 subscriptions fit as well"}


def test_a_waiting_one_changes_nothing_is_said_and_its_cycles_are_billed_by_hand(pipeline: Pipeline) -> None:
    """AppXite bills October only once ConnectWise has invoiced it; then November comes."""
    addition_id = by_hand(pipeline)
    through(pipeline, SEP)
    pipeline.bill(SEP, recurring("a", SEP, 3, "4.20"), one_time("other", SEP))
    decided(pipeline, SEP)
    adopt(pipeline, {addition_id: "sub-a"})
    counts, _ = pipeline.night(OCT)
    assert counts.updated == 0
    assert "waits for its first line. Until then it bills 12.60 in each cycle, for ever" in pipeline.warnings()
    assert adoptions(pipeline.connection)[0]["state"] == "adopted, waiting"

    through(pipeline, OCT)
    pipeline.bill(OCT, recurring("a", OCT, 4, "4.20"))  # late: it was billed by hand
    pipeline.bill(NOV, recurring("a", NOV, 5, "4.20"))
    pipeline.night(NOV)
    through(pipeline, NOV)
    pipeline.bill(DEC, one_time("more", DEC))
    pipeline.night(DEC)
    through(pipeline, JAN)
    assert invoiced_of(pipeline, addition_id) == {
        "2026-09-01": Decimal("12.60"), "2026-10-01": Decimal("12.60"), "2026-11-01": Decimal("21.00"),
    }  # fmt: skip
    assert pipeline.outcomes()["excluded"] == Decimal("12.60") + Decimal("16.80")


def test_a_line_of_a_later_cycle_waits_until_the_one_billed_by_hand_is_invoiced(pipeline: Pipeline) -> None:
    addition_id = by_hand(pipeline)
    through(pipeline, SEP)
    pipeline.bill(OCT, recurring("a", NOV, 5, "4.20"))
    decided(pipeline, OCT)
    adopt(pipeline, {addition_id: "sub-a"})
    assert pipeline.night(OCT)[0].writes == 0
    assert "bills as it was made by hand" in pipeline.held()["adopted_addition_waits"]

    through(pipeline, OCT)
    assert pipeline.night(NOV)[0].updated == 1
    assert pipeline.held() == {}
    through(pipeline, JAN)
    assert invoiced_of(pipeline, addition_id) == {
        "2026-09-01": Decimal("12.60"), "2026-10-01": Decimal("12.60"), "2026-11-01": Decimal("21.00"),
    }  # fmt: skip
    assert ours_beside(pipeline, addition_id) == {}


def test_a_plan_made_before_the_approval_creates_nothing_beside_it(pipeline: Pipeline) -> None:
    addition_id = cut_over(pipeline)
    pipeline.set(automated_daily_sync="off")
    _, older = pipeline.plan_night(OCT)
    adopt(pipeline, {addition_id: "sub-a"})
    approve_plan(pipeline.connection, older, "ann")
    counts = pipeline.deliver(older)
    assert (counts.created, counts.writes) == (0, 0)
    pipeline.set(automated_daily_sync="on")
    pipeline.night(OCT)
    assert pipeline.the_addition()["id"] == addition_id


STEPS = (
    (Deliverer, "_commit_intent"),
    (Deliverer, "_update"),
    (Deliverer, "_invoke"),
    (ConnectWise, "patch_addition"),
    (Deliverer, "_attempt"),
    (Deliverer, "_set_state"),
    (Deliverer, "_read_back"),
    (Deliverer, "_compare"),
)


def adopted_and_planned(pipeline: Pipeline) -> tuple[int, int]:
    addition_id = cut_over(pipeline)
    adopt(pipeline, {addition_id: "sub-a"})
    return pipeline.plan_night(OCT)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("owner", "name"), STEPS, ids=[name for _, name in STEPS])
def test_killed_at_any_step_the_next_try_finishes_it(
    stage: Callable[[Build], Prepared],
    pipeline_of: Callable[[Prepared], Pipeline],
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    name: str,
    when: str,
) -> None:
    prepared = stage(adopted_and_planned)
    pipeline = pipeline_of(prepared)
    addition_id = pipeline.value("select connectwise_addition_id from delivery.adoption")
    step, killed = getattr(owner, name), []

    def deadly(*arguments: Any, **options: Any) -> Any:
        done = None if when == "before" else step(*arguments, **options)
        killed.append(done)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, deadly)
        with pytest.raises(Killed):
            pipeline.deliver(prepared.plan_id)
    assert len(killed) == 1
    pipeline.finish(prepared.run_id)
    assert pipeline.states() == ["delivered"]
    assert pipeline.night(OCT)[0].writes == 0
    assert (pipeline.the_addition()["id"], pipeline.the_addition()["quantity"]) == (addition_id, 5)
    through(pipeline, JAN)
    assert invoiced_of(pipeline, addition_id) == {"2026-09-01": Decimal("12.60"), "2026-10-01": Decimal("21.00")}
    assert ours_beside(pipeline, addition_id) == {}


def test_an_answer_that_is_lost_is_asked_for_again(pipeline: Pipeline) -> None:
    addition_id = cut_over(pipeline)
    adopt(pipeline, {addition_id: "sub-a"})
    pipeline.sandbox.add_fault("lost_reply", **PATCH, count=1)
    pipeline.night(OCT)
    assert pipeline.states() == ["delivered"]
    assert pipeline.night(OCT)[0].writes == 0
    assert pipeline.the_addition()["id"] == addition_id


def test_what_a_person_changes_after_the_approval_is_a_conflict(pipeline: Pipeline) -> None:
    addition_id = cut_over(pipeline)
    adopt(pipeline, {addition_id: "sub-a"})
    pipeline.sandbox.change_addition(addition_id, {"quantity": 8})
    with pytest.raises(ProofError, match="bills, but carries no line"):
        pipeline.night(OCT)
    assert "quantity is 8 instead of 3" in pipeline.held()["changed_in_connectwise"]
    assert {one["id"]: one["quantity"] for one in pipeline.sandbox.additions(pipeline.agreement())}[addition_id] == 8

    key = pipeline.value("select delivery_key from delivery.addition")
    retry_addition(pipeline.connection, key, "ann", anew=True)  # our values shall stand
    pipeline.night(OCT)
    record = pipeline.the_addition()
    assert (record["id"], record["quantity"], record["cancelledDate"]) == (addition_id, 5, "2026-10-31T00:00:00Z")
    assert pipeline.night(OCT)[0].writes == 0


def test_after_it_was_brought_to_our_values_an_edit_is_a_conflict_as_with_any_other(pipeline: Pipeline) -> None:
    addition_id = cut_over(pipeline)
    adopt(pipeline, {addition_id: "sub-a"})
    pipeline.night(OCT)
    pipeline.sandbox.change_addition(addition_id, {"quantity": 6})
    with pytest.raises(ProofError, match=r"bills 25\.20 instead of 21\.00"):
        pipeline.night(OCT)


def test_released_before_a_plan_changed_it_it_is_as_if_nothing_was(pipeline: Pipeline) -> None:
    addition_id = cut_over(pipeline)
    adopt(pipeline, {addition_id: "sub-a"})
    pipeline.set(automated_daily_sync="off")
    _, waiting = pipeline.plan_night(OCT)
    (adopted,) = adoptions(pipeline.connection)
    assert release(pipeline.connection, adopted["adoption_id"], "ann").startswith(f"Addition {addition_id}")
    approve_plan(pipeline.connection, waiting, "ann")
    assert pipeline.deliver(waiting).writes == 0
    with pytest.raises(ConfigurationError, match="There is no Addition taken over"):
        release(pipeline.connection, adopted["adoption_id"], "ann")

    assert adopt(pipeline, {addition_id: "sub-a"}).approved == 1
    pipeline.set(automated_daily_sync="on")
    pipeline.night(OCT)
    (adopted,) = adoptions(pipeline.connection)
    with pytest.raises(ConfigurationError, match="was changed by a plan already"):
        release(pipeline.connection, adopted["adoption_id"], "ann")
    history = pipeline.rows(
        "select changed_by, after ->> 'state' from audit.change"
        " where table_name = 'delivery.adoption' order by change_id"
    )
    assert history == [("ann", "approved"), ("ann", "released"), ("ann", "approved")]


def test_importing_the_same_file_again_changes_nothing(pipeline: Pipeline, tmp_path: Path) -> None:
    addition_id = cut_over(pipeline)
    frame = candidates(pipeline)
    frame.loc[frame["connectwise_addition_id"] == str(addition_id), "state"] = "approved"
    frame.loc[frame["subscription_id"].isna(), "state"] = "ignored"
    file = tmp_path / "adoption.csv"
    frame.to_csv(file, index=False)
    counts = import_adoptions(pipeline.connection, pipeline.connectwise(), read_adoption_file(file), person="ann")
    assert (counts.approved, counts.ignored > 0) == (1, True)
    again = import_adoptions(pipeline.connection, pipeline.connectwise(), read_adoption_file(file), person="ben")
    assert (again.approved, again.ignored) == (0, 0)
    states = export_candidates(pipeline.connection).set_index("connectwise_addition_id")["state"]
    assert states[str(addition_id)] == "approved"
    assert pipeline.value("select count(*) from audit.change where changed_by = 'ben'") == 0


def refused(pipeline: Pipeline, chosen: dict[int, str], frame: pd.DataFrame | None = None) -> str:
    before = pipeline.value("select count(*) from delivery.adoption")
    with pytest.raises(ConfigurationError, match="Nothing was imported") as error:
        adopt(pipeline, chosen, frame)
    assert pipeline.value("select count(*) from delivery.adoption") == before
    assert pipeline.value("select count(*) from delivery.addition where is_adopted") == before
    return str(error.value)


def test_what_changed_since_the_scan_or_the_export_is_refused(pipeline: Pipeline) -> None:
    addition_id = cut_over(pipeline)
    frame = candidates(pipeline)
    pipeline.sandbox.change_addition(addition_id, {"quantity": 8})
    assert "changed since the scan (quantity is 8 instead of 3" in refused(pipeline, {addition_id: "sub-a"}, frame)
    candidates(pipeline)
    assert "changed since the file was exported" in refused(pipeline, {addition_id: "sub-a"}, frame)


def test_one_addition_for_one_subscription_all_or_nothing(pipeline: Pipeline) -> None:
    first, second = by_hand(pipeline), by_hand(pipeline)
    pipeline.bill(SEP, recurring("a", SEP, 3, "4.20"), recurring("b", SEP, 3, "4.20"))
    decided(pipeline, SEP)
    assert "approves the same Addition or the same subscription" in refused(pipeline, {first: "sub-a", second: "sub-a"})
    adopt(pipeline, {first: "sub-a"})
    assert f"subscription sub-a has taken over Addition {first} already" in refused(pipeline, {second: "sub-a"})
    assert f"Addition {first} is taken over for subscription sub-a already" in refused(pipeline, {first: "sub-b"})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"billCustomer": "DoNotBill"}, "it is set to DoNotBill"),
        ({"serialNumber": "axs-tests-0123456789abcdef0123456789abcdef"}, "it carries our marker already"),
        ({"cancelledDate": "2026-09-15T00:00:00Z"}, "it ends before the next invoice date"),
    ],
)
def test_what_does_not_bill_by_hand_is_refused(pipeline: Pipeline, change: dict[str, Any], words: str) -> None:
    addition_id = cut_over(pipeline)
    frame = candidates(pipeline)
    pipeline.sandbox.change_addition(addition_id, change)
    scanned = candidates(pipeline)
    assert str(addition_id) not in set(scanned["connectwise_addition_id"])
    assert words in refused(pipeline, {addition_id: "sub-a"}, frame)


def test_in_dated_mode_it_is_refused_and_said_what_to_do(pipeline: Pipeline) -> None:
    pipeline.set(recurring_mode="dated")
    addition_id = cut_over(pipeline)
    assert "end it in ConnectWise instead" in refused(pipeline, {addition_id: "sub-a"})


def test_when_the_mode_becomes_dated_while_it_waits_the_line_is_held_beside_it(pipeline: Pipeline) -> None:
    addition_id = cut_over(pipeline)
    adopt(pipeline, {addition_id: "sub-a"})
    pipeline.set(recurring_mode="dated")
    assert pipeline.night(OCT)[0].writes == 0
    assert set(pipeline.held()) == {"adopted_addition_waits"}


def test_a_subscription_that_we_bill_already_takes_nothing_over(pipeline: Pipeline) -> None:
    addition_id = by_hand(pipeline)
    pipeline.bill(SEP, recurring("a", SEP, 3, "4.20"))
    pipeline.night(SEP)
    ours = pipeline.the_addition()["id"]
    assert f"our Addition {ours} bills the subscription already" in refused(pipeline, {addition_id: "sub-a"})


def test_a_deleted_one_is_made_again_on_a_persons_word(pipeline: Pipeline) -> None:
    addition_id = cut_over(pipeline)
    adopt(pipeline, {addition_id: "sub-a"})
    pipeline.sandbox.delete_addition(addition_id)
    pipeline.night(OCT)
    assert "deleted in ConnectWise" in pipeline.held()["changed_in_connectwise"]
    retry_addition(pipeline.connection, pipeline.value("select delivery_key from delivery.addition"), "ann", anew=True)
    assert pipeline.night(OCT)[0].created == 1
    through(pipeline, JAN)
    (billed,) = ours_beside(pipeline).values()
    assert billed == {"2026-10-01": Decimal("21.00")}


def test_the_command_line(
    pipeline: Pipeline, run: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    addition_id = cut_over(pipeline)
    keys, file = pipeline.sandbox.credentials, tmp_path / "adoption.csv"
    code, words = run(pipeline.dsn, "adoption", "scan")
    assert code == 1
    assert "AIRFLOW_CONN_CONNECTWISE_API is not set" in words
    extra = {"company_id": keys.company_id, "client_id": keys.client_id}
    monkeypatch.setenv("AIRFLOW_CONN_CONNECTWISE_API", json.dumps({
        "conn_type": "http", "host": pipeline.sandbox.url, "login": keys.public_key, "password": keys.private_key,
        "extra": extra,
    }))  # fmt: skip
    assert run(pipeline.dsn, "adoption", "scan")[0] == 0
    assert run(pipeline.dsn, "adoption", "export", str(file))[0] == 0
    frame = pd.read_csv(file, dtype="str")
    frame.loc[frame["connectwise_addition_id"] == str(addition_id), "state"] = "approved"
    frame.to_csv(file, index=False)
    code, words = run(pipeline.dsn, "adoption", "import", str(file), "--as", "ann")
    assert (code, "1 Additions taken over by ann" in words) == (0, True)
    code, words = run(pipeline.dsn, "adoption", "list")
    assert "adopted, waiting" in words
    adoption_id = str(adoptions(pipeline.connection)[0]["adoption_id"])
    assert run(pipeline.dsn, "adoption", "release", adoption_id)[0] == 0
    assert run(pipeline.dsn, "adoption", "release", adoption_id)[0] == 1
