"""`why` and `simulate` as people type them, after a night over real HTTP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pipeline import OCT, Pipeline, one_time, recurring
from prepared import Build, Prepared

Run = Callable[..., tuple[int, str]]


def a_night(pipeline: Pipeline) -> tuple[int, int]:
    """12.60 and 0.00 delivered, 2.00 held."""
    pipeline.bill(
        OCT, recurring("a", OCT, 3, "4.20"), one_time("b", OCT, 1, "2.00", chargeType="TransferFee"),
        one_time("c", OCT, 1, "0.00"),
    )  # fmt: skip
    run_id, plan_id = pipeline.plan_night(OCT)
    pipeline.finish(run_id)
    return run_id, plan_id


@pytest.fixture
def delivered(stage: Callable[[Build], Prepared], pipeline_of: Callable[[Prepared], Pipeline]) -> Pipeline:
    return pipeline_of(stage(a_night))


def test_why_tells_the_line_the_invoice_and_the_addition(delivered: Pipeline, run: Run) -> None:
    line_id, number, addition = delivered.rows(
        "select line_id, invoice_number, connectwise_addition_id from reporting.invoice_line where delivered_amount > 0"
    )[0]

    code, line = run(delivered.dsn, "why", "--line", str(line_id))
    assert code == 0
    for words in (
        "ConnectWise did it",
        "Automated Daily Sync",
        "read again from ConnectWise",
        "(UTC)",
        "3 x 4.2 = 12.60",
    ):
        assert words in line
    code, invoice = run(delivered.dsn, "why", "--invoice", number)
    assert code == 0
    assert "unknown_charge_type" in invoice
    code, told = run(delivered.dsn, "why", "--addition", str(addition))
    assert code == 0
    assert "Lines that it carries" in told


def test_why_needs_one_thing_to_explain(delivered: Pipeline, run: Run) -> None:
    assert run(delivered.dsn, "why") == (1, "Error: Name one of --line, --invoice and --addition. ")
    assert run(delivered.dsn, "why", "--line", "1", "--invoice", "x")[0] == 1
    code, text = run(delivered.dsn, "why", "--line", "987654")
    assert (code, text.startswith("Error: There is no line 987654.")) == (1, True)


def test_simulate_tells_the_difference_and_writes_nothing(delivered: Pipeline, run: Run, tmp_path: Path) -> None:
    rules = tmp_path / "rules.csv"
    run(delivered.dsn, "rules", "export", str(rules))
    rules.write_text(rules.read_text() + "TransferFee,Transfer,no,as_invoiced,as_invoiced,\n")
    before = delivered.value("select count(*) from audit.change")

    code, text = run(
        delivered.dsn, "simulate", "--from", "2026-10", "--to", "2026-10", "--set", "zero_amounts=skip",
        "--rules", str(rules), "--csv", str(tmp_path / "lines.csv"),
    )  # fmt: skip

    assert code == 0
    assert "12.60 → 14.60" in text
    assert "+2.00" in text
    assert "Nothing was written to the billing database." in text
    assert len((tmp_path / "lines.csv").read_text().splitlines()) == 4
    assert delivered.value("select count(*) from audit.change") == before


def test_simulate_says_what_it_cannot_read(delivered: Pipeline, run: Run) -> None:
    code, text = run(delivered.dsn, "simulate", "--from", "2026-10", "--to", "2026-10", "--set", "zero_amounts")
    assert (code, text) == (1, "Error: --set zero_amounts lacks a value. Write --set KEY=VALUE. ")
    assert run(delivered.dsn, "simulate", "--from", "October", "--to", "2026-10")[0] == 1
