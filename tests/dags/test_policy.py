"""What must hold for each of our DAGs, whatever it does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
EXPECTED = {
    "sync_verified_invoices",
    "sync_billing_period",
    "sync_reference_data",
    "apply_plan",
    "maintain_billing_db",
}
TAGS = {"billing", "nightly", "backfill", "on demand", "maintenance"}


def test_dags_import_without_error_and_are_the_expected_ones(dag_bag: Any) -> None:
    assert dag_bag.import_errors == {}
    assert set(dag_bag.dags) == EXPECTED


@pytest.mark.parametrize("dag_id", sorted(EXPECTED))
def test_policy(dag_bag: Any, dag_id: str) -> None:
    dag = dag_bag.dags[dag_id]
    assert len(dag.doc_md or "") > 200
    assert "billing" in dag.tags
    assert set(dag.tags) <= TAGS
    assert dag.catchup is False
    assert dag.max_active_runs == 1
    for task in dag.tasks:
        assert task.owner == "billing", task.task_id
        assert task.retries >= 1, task.task_id
        assert task.retry_policy is not None, task.task_id
        assert task.retry_exponential_backoff, task.task_id
        if task.task_id in ("deliver_shard", "prove", "extract_connectwise_reference"):
            assert task.pool == "connectwise_api"


def test_nightly_runs_at_midnight_utc_over_the_day_before(dag_bag: Any) -> None:
    from airflow.sdk import CronDataIntervalTimetable

    timetable = dag_bag.dags["sync_verified_invoices"].timetable
    assert isinstance(timetable, CronDataIntervalTimetable)
    assert timetable.expression == "0 0 * * *"
    assert str(timetable.timezone) == "UTC"


def test_every_param_has_a_title_and_says_what_it_does(dag_bag: Any) -> None:
    for dag in dag_bag.dags.values():
        for name in dag.params:
            param = dag.params.get_param(name)
            assert param.schema.get("title"), (dag.dag_id, name)
            assert param.description, (dag.dag_id, name)


@pytest.mark.parametrize("bad", [["2026-13"], ["2026-1"], "2026-05", ["2026-05-01"]])
def test_bad_billing_periods_are_refused_before_a_run(dag_bag: Any, bad: Any) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    with pytest.raises(ParamValidationError):
        dag_bag.dags["sync_verified_invoices"].params.get_param("billing_periods").resolve(bad)


def test_parsing_reads_no_connection_no_variable_and_no_database() -> None:
    code = """
import sys
from pathlib import Path
import airflow.sdk
from airflow.sdk import Connection, Variable
import socket

def refuse(*_args, **_options):
    raise SystemExit("read while parsing")

Connection.get = Variable.get = refuse
socket.socket.connect = refuse
sys.path.append("dags")
import importlib
for file in sorted(Path("dags").glob("*.py")):
    importlib.import_module(file.stem)
print("parsed")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.strip().endswith("parsed"), done.stdout + done.stderr


def test_one_period_is_never_scheduled_but_a_backfill_makes_one_run_per_month(dag_bag: Any) -> None:
    from datetime import UTC, datetime

    from airflow.serialization.serialized_objects import DagSerialization
    from airflow.timetables.base import TimeRestriction

    dag = DagSerialization.from_dict(DagSerialization.to_dict(dag_bag.dags["sync_billing_period"]))
    started = datetime(2020, 1, 1, tzinfo=UTC)
    restriction = TimeRestriction(earliest=started, latest=None, catchup=False)
    assert dag.timetable.next_dagrun_info(last_automated_data_interval=None, restriction=restriction) is None

    months = dag.iter_dagrun_infos_between(datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 9, 1, tzinfo=UTC))
    assert [(f"{info.data_interval.start:%Y-%m-%d}", f"{info.data_interval.end:%Y-%m-%d}") for info in months] == [
        ("2026-07-01", "2026-08-01"),
        ("2026-08-01", "2026-09-01"),
        ("2026-09-01", "2026-10-01"),
    ]
