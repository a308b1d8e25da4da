"""The command line as people use it, and the report's last word."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from pipeline import OCT, PATCH, Pipeline, invoiced, one_time, recurring
from prepared import Build, Prepared
from rich.console import Console

from billing_sync.errors import ProofError
from billing_sync.report import delivered_by_company, print_report

Run = Callable[..., tuple[int, str]]


def delivered_line(pipeline: Pipeline) -> tuple[int, int]:
    """Money of each kind: delivered 12.60 and 5.00, held 2.00."""
    pipeline.bill(OCT, recurring("a", OCT, 3, "4.20"), one_time("b", OCT, 1, "2.00", chargeType="TransferFee"))
    pipeline.bill(OCT, recurring("c", OCT, 1, "5.00"), customer=2)
    run_id, plan_id = pipeline.plan_night(OCT)
    pipeline.finish(run_id)
    return run_id, plan_id


@pytest.fixture
def delivered(stage: Callable[[Build], Prepared], pipeline_of: Callable[[Prepared], Pipeline]) -> Pipeline:
    return pipeline_of(stage(delivered_line))


def printed(pipeline: Pipeline) -> tuple[bool, str]:
    text = io.StringIO()
    is_proven = print_report(pipeline.connection, Console(file=text, width=200))
    return is_proven, re.sub(r"\s+", " ", text.getvalue())


# -- the report --------------------------------------------------------------------------------------------------------


def test_the_report_says_where_the_money_is(delivered: Pipeline, run: Run) -> None:
    is_proven, text = printed(delivered)
    assert is_proven
    assert "2026-10 │ EUR │ 2 │ 3 │ 17.60 │ 2.00 │ 0.00 │ 0.00 │ 19.60" in text
    assert "unknown_charge_type │ 1 │ EUR │ 2.00" in text
    assert "EUR │ 2 │ 19.60 │ 17.60 │ 2.00 │ 0.00 │ 0.00 │ 0.00 │ 0.00" in text
    assert "Difference 0.00: every cent of every accepted invoice is accounted for." in text
    assert run(delivered.dsn, "report")[0] == 0
    assert delivered_by_company(delivered.connection) == invoiced(delivered.sandbox)


def test_the_report_ends_with_an_error_when_the_proof_fails(delivered: Pipeline, run: Run) -> None:
    delivered.sandbox.change_addition(delivered.additions(1001)[0]["id"], {"quantity": 4})
    with pytest.raises(ProofError):
        delivered.night(OCT)
    code, text = run(delivered.dsn, "report")
    assert code == 1
    assert "NOT proven: " in text
    assert "audit.log_entry where level = 'ERROR'" in text


def test_the_report_knows_breaches_that_are_of_no_invoice(delivered: Pipeline, run: Run) -> None:
    addition = delivered.additions(1001)[0]
    twin = {name: addition[name] for name in ("product", "quantity", "unitPrice", "serialNumber", "billCustomer")}
    second = delivered.sandbox.add_addition(1001, twin)
    with pytest.raises(ProofError, match="2 billable Additions"):
        delivered.night(OCT)
    code, text = run(delivered.dsn, "report")
    assert code == 1
    assert "The proof of the newest run failed." in text
    delivered.sandbox.delete_addition(second["id"])
    delivered.night(OCT)
    assert run(delivered.dsn, "report")[0] == 0


def test_money_that_is_not_proven_yet_is_said(pipeline: Pipeline, run: Run) -> None:
    assert run(pipeline.dsn, "report")[0] == 1  # nothing at all is no proof
    pipeline.bill(OCT, recurring("a", OCT))
    pipeline.plan_night(OCT)
    code, text = run(pipeline.dsn, "report")
    assert code == 1
    assert "NOT proven: 1 invoices have no proof yet." in text
    assert delivered_by_company(pipeline.connection) == {}


# -- the command line --------------------------------------------------------------------------------------------------


def test_settings_from_the_command_line(pipeline: Pipeline, run: Run) -> None:
    assert run(pipeline.dsn, "settings", "set", "zero_amounts", "skip", "--as", "Anna") == (0, 'zero_amounts = "skip" ')
    assert pipeline.value(
        "select changed_by from audit.change where row_key = 'zero_amounts' order by change_id desc limit 1"
    ) == "Anna"  # fmt: skip
    code, text = run(pipeline.dsn, "settings", "list")
    assert code == 0
    assert '"skip"' in text
    assert "(not set)" in text
    code, text = run(pipeline.dsn, "settings", "set", "colour", "red")
    assert (code, text.startswith("Error: There is no setting 'colour'. Known settings: ")) == (1, True)
    code, text = run(pipeline.dsn, "settings", "set", "unit_price_decimals", "9")
    assert (code, text) == (
        1,
        "Error: Setting unit_price_decimals cannot be '9': it takes a whole number from 2 to 6. ",
    )


def test_mappings_from_the_command_line(pipeline: Pipeline, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "organizations.csv"
    code, text = run(pipeline.dsn, "mappings", "export", "organizations", str(path))
    assert (code, text.startswith("4 organizations written to ")) == (0, True)
    code, text = run(pipeline.dsn, "mappings", "import", "organizations", str(path), "--approve", "--as", "Anna")
    assert (code, text) == (0, "organizations: 4 rows, 4 approved, 0 excluded by Anna, 0 left undecided ")
    path.write_text("organization_id,company_id,state\n110001,201,approved\n110008,x,perhaps\n")
    code, text = run(pipeline.dsn, "mappings", "import", "organizations", str(path), "--approve")
    assert code == 1
    assert "line 3: company_id 'x' is not a ConnectWise id; line 3: state 'perhaps' is neither" in text
    path.write_text("organization_id,company_id\n110001,77\n")
    code, text = run(pipeline.dsn, "mappings", "import", "organizations", str(path))
    assert code == 1
    assert "Nothing was imported: 1 ids are not known: company_id 77." in text
    for action in ("export", "import"):
        code, text = run(pipeline.dsn, "mappings", action, "people", str(path))
        assert (code, "There are no mappings of 'people'" in text) == (1, True)


@pytest.mark.parametrize("state", ["[red]", "[/x]"])
def test_an_error_shows_brackets_as_they_are(pipeline: Pipeline, run: Run, tmp_path: Path, state: str) -> None:
    path = tmp_path / "m.csv"
    path.write_text(f"organization_id,company_id,state\n110001,201,{state}\n")
    code, text = run(pipeline.dsn, "mappings", "import", "organizations", str(path))
    assert (code, f"state '{state}' is neither" in text) == (1, True)


def test_plans_from_the_command_line(pipeline: Pipeline, run: Run) -> None:
    pipeline.set(automated_daily_sync="off")
    pipeline.bill(OCT, recurring("a", OCT, 3, "4.20"))
    _, plan_id = pipeline.plan_night(OCT)
    _, dry = pipeline.plan("nightly", [OCT], is_dry_run=True), plan_id + 1
    code, text = run(pipeline.dsn, "plan", "list")
    assert code == 0
    assert "proposed (dry run)" in text
    assert "│ proposed │ 1 │ 12.60 │" in text
    code, text = run(pipeline.dsn, "plan", "approve", str(dry))
    assert (code, f"Error: Plan {dry} is of a dry run and can never be applied." in text) == (1, True)
    code, text = run(pipeline.dsn, "plan", "approve", "99")
    assert (code, "Error: There is no plan 99." in text) == (1, True)
    code, text = run(pipeline.dsn, "plan", "approve", str(plan_id), "--as", "Anna")
    assert (code, f"plan {plan_id} is approved by Anna. Deliver it: trigger the DAG apply_plan" in text) == (0, True)
    code, _ = run(pipeline.dsn, "plan", "approve", "first")
    assert code == 2  # typer's own


def test_a_part_of_a_plan_from_the_command_line(pipeline: Pipeline, run: Run) -> None:
    pipeline.set(automated_daily_sync="off")
    pipeline.bill(OCT, recurring("a", OCT, 3, "4.20"), recurring("b", OCT))
    _, plan_id = pipeline.plan_night(OCT)
    first, second = (row[0] for row in pipeline.rows("select plan_item_id from delivery.plan_item order by 1"))
    code, text = run(
        pipeline.dsn, "plan", "approve", str(plan_id), "--leave-out", str(first), "--leave-out", str(second)
    )
    assert (code, f"Error: Everything of plan {plan_id} is left out: reject it instead." in text) == (1, True)
    code, text = run(pipeline.dsn, "plan", "approve", str(plan_id), "--leave-out", str(first), "--as", "Anna")
    assert (code, f"plan {plan_id} is approved by Anna." in text) == (0, True)
    assert pipeline.rows("select state, is_left_out from delivery.plan_item order by plan_item_id") == [
        ("skipped", True), ("pending", False),
    ]  # fmt: skip
    assert pipeline.value("select changed_by from audit.change where table_name = 'delivery.plan'") == "Anna"


def test_a_plan_is_rejected_from_the_command_line(pipeline: Pipeline, run: Run) -> None:
    pipeline.set(automated_daily_sync="off")
    pipeline.bill(OCT, recurring("a", OCT))
    _, plan_id = pipeline.plan_night(OCT)
    assert run(pipeline.dsn, "plan", "reject", str(plan_id))[0] == 2  # a reason is needed
    code, text = run(pipeline.dsn, "plan", "reject", str(plan_id), "--reason", "prices are wrong", "--as", "Anna")
    assert (code, f"plan {plan_id} is rejected by Anna; the next run makes another one" in text) == (0, True)
    assert "Anna rejected plan" in pipeline.warnings()


def test_additions_that_need_a_person(pipeline: Pipeline, run: Run) -> None:
    pipeline.sandbox.add_fault("status", **PATCH, params={"status": 400, "body": {"message": "not today"}})
    pipeline.bill(OCT, recurring("a", OCT, 3, "4.20"))
    pipeline.night(OCT)
    key = pipeline.value("select delivery_key from delivery.addition")
    code, text = run(pipeline.dsn, "additions", "list")
    assert (code, key in text, "refused" in text) == (0, True, True)
    code, text = run(pipeline.dsn, "additions", "retry", key, "--as", "Anna")
    assert (code, text) == (0, f"{key} was refused; the next run tries again ")
    code, text = run(pipeline.dsn, "additions", "retry", "nothing")
    assert (code, "There is no Addition 'nothing' that was refused" in text) == (1, True)
    assert "Anna lets" in pipeline.warnings("INFO")


@pytest.mark.parametrize(
    "arguments", [("report",), ("migrate",), ("settings", "list"), ("plan", "list"), ("plan", "approve", "1")]
)
def test_a_database_that_is_not_named_or_does_not_answer_is_said(
    run: Run, closed_port: int, arguments: tuple[str, ...]
) -> None:
    code, text = run(None, *arguments)
    assert code == 1
    assert text.startswith(
        "Error: BILLING_DB_DSN is not set. It is the address of the billing database, e.g. postgresql:"
    )
    code, text = run(f"postgresql://me:hush@127.0.0.1:{closed_port}/billing", *arguments)
    assert code == 1
    assert text.startswith("Error: the billing database does not answer: ")
    assert "hush" not in text


@pytest.mark.parametrize("arguments", [("report",), ("settings", "list"), ("plan", "approve", "1")])
def test_a_database_that_is_not_migrated_is_said(empty_db: str, run: Run, arguments: tuple[str, ...]) -> None:
    code, text = run(empty_db, *arguments)
    assert (code, text) == (1, "Error: The billing database is not migrated: run python -m billing_sync migrate ")


def test_migrate_then_everything_is_there(empty_db: str, run: Run) -> None:
    code, text = run(empty_db, "migrate")
    assert (code, text.startswith("applied 0001_")) == (0, True)
    assert run(empty_db, "migrate") == (0, "the billing database is up to date ")
    assert run(empty_db, "settings", "list")[0] == 0
    with psycopg.connect(empty_db) as connection:
        assert connection.execute("select count(*) from public.schema_migration").fetchone() != (0,)


def test_as_a_program_it_ends_with_one_readable_line() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "billing_sync", "plan", "list"],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "include"), "BILLING_DB_DSN": ""},
    )  # fmt: skip
    assert ended.returncode == 1
    assert (ended.stdout + ended.stderr).startswith("Error: BILLING_DB_DSN is not set.")
    assert "Traceback" not in ended.stdout + ended.stderr
