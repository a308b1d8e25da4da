"""Bounds on the whole path: what is parked writes nothing and stands in the proof, the rest is billed to the cent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from pipeline import NOV, OCT, SEP, Pipeline, check, invoiced, one_time, recurring

from billing_sync import bounds
from billing_sync.db import run_sql_file
from billing_sync.decide import BOUND_AMOUNTS, GROUP_LINES, MAKE_PLAN, STEPS
from billing_sync.errors import ConfigurationError, SourceDataError
from billing_sync.plan import approve_automatically, approve_plan
from billing_sync.run import nightly_periods
from local_stack.postgres import Postgres
from sandbox.server import Sandbox

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def parked(pipeline: Pipeline) -> Pipeline:
    """October is delivered. In November customer 0 has 9,010.00 instead of 30.00; the others are as ever."""
    for customer in range(3):
        pipeline.bill(OCT, recurring("a", OCT, 3, "10.00"), customer=customer)
    pipeline.night(OCT)
    pipeline.bill(NOV, recurring("a", NOV, 900, "10.00"), one_time("b", NOV), customer=0)
    pipeline.bill(NOV, recurring("a", NOV, 3, "10.00"), one_time("c", NOV, 1, "0.99"), customer=1)
    pipeline.bill(NOV, recurring("a", NOV, 4, "10.00"), customer=2)
    return pipeline


def test_one_customer_is_parked_and_the_others_are_billed_to_the_cent(parked: Pipeline) -> None:
    counts, proof = parked.night(NOV)

    assert counts.writes > 0
    assert (proof["source"], proof["delivered"], proof["held"]) == ("9170.99", "160.99", "9010.00")
    assert {Decimal(proof[name]) for name in ("awaiting_approval", "difference")} == {0}
    assert set(parked.held()) == {"customer_total_unusual"}
    assert parked.held()["customer_total_unusual"].endswith(": 9,010.00 EUR in 2026-11, usual 30.00, bound 3 x usual")
    assert parked.value("select state from audit.run order by run_id desc limit 1") == "succeeded"
    counts, again = parked.night(NOV)
    assert (counts.writes, again) == (0, proof)
    assert invoiced(parked.sandbox) == {201: Decimal("30.00"), 202: Decimal("60.99"), 203: Decimal("70.00")}


@pytest.mark.parametrize("freed_before", [GROUP_LINES, MAKE_PLAN])
def test_a_bound_is_not_passed_by_two_runs_of_one_period(pipeline: Pipeline, freed_before: str) -> None:
    """A night decides anew what is held, and another run plans before the night has judged the bound again."""
    pipeline.bill(OCT, one_time("a", OCT, 1, "60000.00"))
    pipeline.night(OCT)
    night, backfill = pipeline.open("nightly", [OCT]), pipeline.open("backfill", [OCT])
    for run_id in (night, backfill):
        pipeline.extract(run_id)
    at = STEPS.index(freed_before)
    for step in STEPS[:at]:
        run_sql_file(pipeline.connection, step, backfill)
    for step in STEPS[: STEPS.index(BOUND_AMOUNTS)]:
        run_sql_file(pipeline.connection, step, night)
    for step in STEPS[at:]:
        run_sql_file(pipeline.connection, step, backfill)
    assert approve_automatically(pipeline.connection, backfill)
    assert pipeline.finish(backfill)[0].writes == 0
    for step in STEPS[STEPS.index(BOUND_AMOUNTS) :]:
        run_sql_file(pipeline.connection, step, night)

    assert pipeline.additions() == []
    assert set(pipeline.held()) == {"amount_above_bound"}
    (one,) = bounds.parked_now(pipeline.connection)
    bounds.allow(pipeline.connection, one.bound_key, "60000.00", "Anna")
    assert pipeline.night(OCT)[1]["delivered"] == "60000.00"


def test_letting_it_pass_delivers_exactly_that(parked: Pipeline) -> None:
    parked.night(NOV)
    (one,) = bounds.parked_now(parked.connection)
    bounds.allow(parked.connection, one.bound_key, "9010.00", "Anna")
    before = parked.additions(parked.agreement(1))

    counts, proof = parked.night(NOV)

    assert counts.created == 2
    assert (proof["delivered"], Decimal(proof["held"]), Decimal(proof["difference"])) == ("9170.99", 0, 0)
    assert parked.additions(parked.agreement(1)) == before
    assert parked.night(NOV)[0].writes == 0
    check(parked.sandbox)


def test_too_many_additions_of_one_agreement_wait_and_the_others_are_billed(pipeline: Pipeline) -> None:
    pipeline.set(bound_additions_per_agreement="2")
    pipeline.bill(OCT, *(one_time(f"x{number}", OCT, 1, "1.01") for number in range(3)), customer=0)
    pipeline.bill(OCT, *(one_time(f"y{number}", OCT, 1, "1.01") for number in range(2)), customer=1)
    counts, proof = pipeline.night(OCT)
    assert (counts.created, proof["delivered"], proof["held"]) == (2, "2.02", "3.03")
    key = f"too_many_additions/{pipeline.agreement(0)}"
    bounds.allow(pipeline.connection, key, "3", "Anna")

    counts, proof = pipeline.night(OCT)

    assert (counts.created, proof["delivered"], Decimal(proof["held"])) == (3, "5.05", 0)
    check(pipeline.sandbox)


def test_a_night_without_any_invoice_is_red_and_a_person_can_still_approve_it(pipeline: Pipeline) -> None:
    for number in range(2):
        pipeline.bill(OCT, recurring(f"a{number}", OCT))
    pipeline.night(OCT)
    open_line = pipeline.bill(OCT, one_time("late", OCT))
    for invoice in pipeline.sandbox.appxite_invoices():
        if invoice["invoiceId"] != open_line:
            pipeline.sandbox.delete_appxite_invoice(invoice["invoiceId"])
    with_one_left = pipeline.plan("nightly", [OCT, NOV])
    assert not pipeline.warnings("ERROR")
    pipeline.finish(with_one_left)
    pipeline.sandbox.delete_appxite_invoice(open_line)
    run_id = pipeline.plan("nightly", nightly_periods(NOV), approve=False)
    with pytest.raises(SourceDataError, match=r"no invoice at all in 2026-10, 2026-11, though it gave 3 before"):
        bounds.is_parked(pipeline.connection, plan_id := pipeline.value("select max(plan_id) from delivery.plan"))
    assert "plan_parked_no_invoices: Plan" in pipeline.warnings("ERROR")
    assert "plan_parked_invoices_missing: Plan" in pipeline.warnings("ERROR")
    approve_plan(pipeline.connection, plan_id, "Anna")
    assert pipeline.finish(run_id)[0].writes == 0
    assert pipeline.value("select state from audit.run where run_id = %s", run_id) == "succeeded"


def test_removed_lines_park_the_whole_plan_until_a_person_approves_it(pipeline: Pipeline) -> None:
    pipeline.set(bound_removed_lines="1", automated_daily_sync="off")
    whole = pipeline.bill(OCT, *(one_time(f"x{number}", OCT) for number in range(3)))
    pipeline.plan_night(OCT)
    pipeline.sandbox.delete_appxite_invoice(whole)
    pipeline.bill(OCT, one_time("x0", OCT), invoiceId=whole)
    pipeline.bill(OCT, one_time("y", OCT), customer=1)
    pipeline.set(automated_daily_sync="on")

    run_id, plan_id = pipeline.plan_night(OCT)
    counts, proof = pipeline.finish(run_id)

    assert (counts.writes, proof["awaiting_approval"], proof["difference"]) == (0, "20.00", "0.00")
    assert pipeline.value("select state from audit.run where run_id = %s", run_id) == "awaiting_approval"
    assert "AppXite removed 2 lines (20.00)" in pipeline.warnings("ERROR")
    approve_plan(pipeline.connection, plan_id, "Anna")
    assert pipeline.finish(run_id)[1]["delivered"] == "20.00"
    pipeline.bill(OCT, one_time("z", OCT), customer=2)
    assert pipeline.night(OCT)[1]["delivered"] == "30.00"
    check(pipeline.sandbox)


# -- the command line --------------------------------------------------------------------------------------------------


def test_bounds_from_the_command_line(parked: Pipeline, run: Run) -> None:
    parked.night(NOV)
    key = parked.value("select max(bound_key) from billing.held_reason")
    code, text = run(parked.dsn, "bounds", "list")
    assert code == 0
    assert f"│ {key} │ 9010.00 │ 2 │ 9010.00 EUR │" in text
    assert "usual 30.00, bound 3 x usual" in text
    code, text = run(parked.dsn, "bounds", "allow", key, "--up-to", "9000", "--as", "Anna")
    assert (code, text) == (
        1,
        f"Error: {key} is at 9010.00, not at 9000: look at it again. "
        "List them with: python -m billing_sync bounds list ",
    )
    code, text = run(parked.dsn, "bounds", "allow", key, "--up-to", "9,010.00", "--as", "Anna", "--note", "new site")
    assert (code, text) == (0, f"{key} passes up to 9010.00, by Anna; the next run plans it ")
    code, text = run(parked.dsn, "bounds", "list")
    assert f"│ {key} │ 9010.00 │ Anna │" in text
    assert "new site" in text
    assert parked.value("select changed_by from audit.change where row_key = %s", key) == "Anna"
    code, text = run(parked.dsn, "bounds", "withdraw", key, "--as", "Bert")
    assert (code, text) == (0, f"{key} is parked again by the next run, as far as it is not delivered ")
    code, text = run(parked.dsn, "bounds", "withdraw", key)
    assert (code, "Nothing was let pass" in text) == (1, True)


def test_a_credit_is_let_pass_from_the_command_line(pipeline: Pipeline, run: Run) -> None:
    pipeline.set(credits="send")
    pipeline.bill(OCT, one_time("credit", OCT, 1, "-50000.01", chargeType="Correction"))
    pipeline.night(OCT)
    (one,) = bounds.parked_now(pipeline.connection)
    code, text = run(pipeline.dsn, "bounds", "allow", one.bound_key, "--up-to", "-50000.01", "--as", "Anna")
    assert (code, "passes up to -50000.01" in text) == (0, True)
    assert pipeline.night(OCT)[1]["delivered"] == "-50000.01"


def test_a_parked_plan_says_why_on_the_command_line(pipeline: Pipeline, run: Run) -> None:
    pipeline.bill(SEP, recurring("a", SEP))
    pipeline.night(SEP)
    pipeline.bill(NOV, recurring("a", NOV))
    run_id = pipeline.plan("nightly", [OCT, NOV])
    plan_id = pipeline.value("select max(plan_id) from delivery.plan")
    why = "2026-10 is over and has 0 invoices, the month before had 1: less than 50 %"
    assert pipeline.value("select state from delivery.plan where plan_id = %s", plan_id) == "proposed"
    code, text = run(pipeline.dsn, "plan", "list")
    assert (code, "has 0 invoices, the month before" in text) == (0, True)
    code, text = run(pipeline.dsn, "bounds", "list")
    assert f"│ few_invoices/2026-10 │ 1 │ plan {plan_id} │ │ {why} │" in text
    assert run(pipeline.dsn, "bounds", "allow", "few_invoices/2026-10", "--up-to", "1")[0] == 0
    pipeline.finish(run_id)
    assert pipeline.night(NOV)[1]["delivered"] == "10.00"
    check(pipeline.sandbox)


# -- what people see first ---------------------------------------------------------------------------------------------


@pytest.fixture
def demo(postgres: Postgres, billing_template: str, tmp_path: Path) -> Iterator[Pipeline]:
    """The sandbox as `make demo` starts it: all customers, three months."""
    with Sandbox(tmp_path / "demo") as sandbox:
        pipeline = Pipeline(postgres.create_database("billing_demo", template=billing_template), sandbox)
        pipeline.set_up()
        yield pipeline
        pipeline.close()
    postgres.drop_database("billing_demo")


def test_the_demo_trips_no_bound_but_for_credits_of_charges_before_its_time(demo: Pipeline) -> None:
    """As the demo runs them: a month by backfill, then a night over the two that follow. Nothing is delivered here."""
    for kind, periods in (("backfill", [SEP]), ("nightly", [OCT, NOV])):
        demo.plan(kind, periods, approve=False)
        parked = bounds.parked_now(demo.connection)
        assert [one for one in parked if "the customer's oldest invoice here is of 2026-09" not in one.detail] == []
    assert {
        month for (month,) in demo.rows(
            "select billing_period from reporting.held_line where reason_code = 'credit_exceeds_charge'"
        )
    } == {SEP}  # fmt: skip
    assert demo.value("select count(*) from delivery.plan_item") > 1000
    with pytest.raises(ConfigurationError, match="Nothing is parked as"):
        bounds.allow(demo.connection, "no_invoices", "1", "Anna")
