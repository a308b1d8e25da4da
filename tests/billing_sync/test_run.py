"""Runs: which months they are about, how they open again, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline import OCT, SEP, Pipeline, recurring

from billing_sync.errors import ConfigurationError, ProofError
from billing_sync.run import (
    finish_run,
    last_day_of,
    log_entry,
    nightly_periods,
    open_run,
    parse_billing_period,
    period_of,
    reopen_run,
)


@pytest.mark.parametrize(
    "text", ["2026-13", "2026-00", "2026-1", "26-01", "2026-01-01", "", "May", "2026-05 ", "1999-01"]
)
def test_anything_but_a_month_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="Write the month as YYYY-MM"):
        parse_billing_period(text)


@given(st.dates(date(2000, 1, 1), date(2099, 12, 31)))
def test_months_by_arithmetic(day: date) -> None:
    period = period_of(day)
    assert parse_billing_period(f"{day:%Y-%m}") == period
    assert period <= day <= last_day_of(period)
    assert (last_day_of(period) + timedelta(days=1)).day == 1
    before, current = nightly_periods(day)
    assert current == period
    assert last_day_of(before) + timedelta(days=1) == current
    longest = nightly_periods(day, 12)
    assert (len(longest), longest[-2:]) == (12, [before, current])
    assert all(last_day_of(one) + timedelta(days=1) == next_one for one, next_one in pairwise(longest))
    assert nightly_periods(day, 1) == [current]


def test_a_run_that_is_opened_again_is_the_same_run(pipeline: Pipeline) -> None:
    def open_it(*periods: date, dag_run_id: str = "one") -> int:
        return open_run(
            pipeline.connection, dag_id="dag", dag_run_id=dag_run_id, kind="manual", billing_periods=periods,
            organization_ids=["110001"], requester_id="R",
        )  # fmt: skip

    first = open_it(SEP)
    pipeline.connection.execute("update audit.run set proven_at = now() where run_id = %s", [first])
    assert finish_run(pipeline.connection, first) == "succeeded"
    assert open_it(SEP, OCT) == first
    assert pipeline.rows(
        "select state, proven_at, ended_at, billing_periods::date[], organization_ids from audit.run where run_id = %s",
        first,
    ) == [("running", None, None, [SEP, OCT], ["110001"])]
    assert open_it(SEP, dag_run_id="two") != first


def test_a_run_that_was_cut_off_is_closed_by_the_next_one(pipeline: Pipeline) -> None:
    cut_off, long_running = pipeline.open("nightly", [SEP]), pipeline.open("backfill", [SEP])
    pipeline.connection.execute(
        "update audit.run set started_at = now() - interval '8 days' where run_id = %s", [cut_off]
    )
    pipeline.open("nightly", [OCT])
    states = dict(pipeline.rows("select run_id, state from audit.run where ended_at is not null or run_id > 1"))
    assert states[cut_off] == "failed"
    assert states[long_running] == "running"
    assert f"run_abandoned: Run {cut_off} never ended" in pipeline.warnings()


def test_how_a_run_ends(pipeline: Pipeline) -> None:
    reference = pipeline.open("reference", [])
    assert finish_run(pipeline.connection, reference) == "succeeded"
    assert finish_run(pipeline.connection, reference, is_failed=True) == "failed"
    pipeline.bill(OCT, recurring("a", OCT))
    run_id, _ = pipeline.plan_night(OCT)
    assert finish_run(pipeline.connection, run_id) == "failed"  # not proven
    pipeline.finish(run_id)
    assert pipeline.rows("select state, ended_at is not null from audit.run where run_id = %s", run_id) == [
        ("succeeded", True)
    ]
    reopen_run(pipeline.connection, run_id)
    assert pipeline.rows("select state, proven_at from audit.run where run_id = %s", run_id) == [("running", None)]
    pipeline.sandbox.change_addition(pipeline.the_addition()["id"], {"quantity": 9})
    with pytest.raises(ProofError):
        pipeline.finish(run_id)
    assert finish_run(pipeline.connection, run_id) == "failed"


def test_a_dry_run_succeeds_when_proven(pipeline: Pipeline) -> None:
    pipeline.bill(OCT, recurring("a", OCT))
    run_id = pipeline.plan("nightly", [OCT], is_dry_run=True)
    pipeline.finish(run_id)
    assert pipeline.value("select state from audit.run where run_id = %s", run_id) == "succeeded"


def test_the_log_keeps_what_it_was_told(pipeline: Pipeline) -> None:
    log_entry(pipeline.connection, None, "WARNING", "code", "words [not markup] %s", amount="1.00", ids=[1, 2])
    assert pipeline.rows("select level, code, message, subject from audit.log_entry order by 1 desc limit 1") == [
        ("WARNING", "code", "words [not markup] %s", {"amount": "1.00", "ids": [1, 2]})
    ]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl is Linux's")
def test_a_deliverer_dies_with_its_supervisor(tmp_path: Path) -> None:
    """A killed supervisor leaves no writer behind."""
    child = (
        "from billing_sync.process import die_with_parent; import time;"
        "die_with_parent(); print('up', flush=True); time.sleep(60)"
    )
    parent = (
        f"import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', {child!r}]);"
        "print(child.pid, flush=True); child.wait()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "include")},
    ) as supervisor:  # fmt: skip
        assert supervisor.stdout is not None
        pid = int(supervisor.stdout.readline())
        assert supervisor.stdout.readline() == "up\n"
        supervisor.kill()
        supervisor.wait(10)
        for _ in range(100):
            if not Path(f"/proc/{pid}").exists() or "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
                return
            time.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
        pytest.fail("the child outlived its parent")
