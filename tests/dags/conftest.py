"""Our DAGs against a sandbox and a billing database, run by Airflow in this process (`dag.test()`)."""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from billing_sync import http

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun

    from sandbox.server import Sandbox

DEFAULTS: dict[str, Any] = {"billing_periods": None, "organization_ids": None, "dry_run": False}
ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="session")
def dag_bag(airflow_db: None) -> Any:
    """All DAGs of this project, loaded as Airflow loads them."""
    from airflow.dag_processing.dagbag import BundleDagBag

    return BundleDagBag(ROOT / "dags", bundle_path=ROOT / "dags", bundle_name="dags-folder")


def connection_variables(dsn: str, sandbox: Sandbox) -> dict[str, str]:
    """The three connections as Airflow's environment variables."""
    database = conninfo_to_dict(dsn)
    keys = sandbox.credentials
    return {
        "AIRFLOW_CONN_BILLING_DB": json.dumps(
            {
                "conn_type": "postgres",
                "host": database["host"],
                "port": int(str(database["port"])),
                "login": database["user"],
                "password": database["password"],
                "schema": database["dbname"],
            }
        ),
        "AIRFLOW_CONN_APPXITE_API": json.dumps(
            {
                "conn_type": "http",
                "host": sandbox.url,
                "password": keys.sas_key,
                "extra": {"requester_id": keys.requester_id},
            }
        ),
        "AIRFLOW_CONN_CONNECTWISE_API": json.dumps(
            {
                "conn_type": "http",
                "host": sandbox.url,
                "login": keys.public_key,
                "password": keys.private_key,
                "extra": {"company_id": keys.company_id, "client_id": keys.client_id, "api_version": "2025.8"},
            }
        ),
    }


@pytest.fixture
def connections(billing_db: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The three connections in the environment, all of them right."""
    variables = connection_variables(billing_db, sandbox)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    sandbox.change_settings(requests_per_minute=1_000_000)
    # Waiting for a service that stays away is tested with the client; here it would only take time.
    monkeypatch.setattr(http, "Limits", functools.partial(http.Limits, attempts=2, first_wait=0.01))
    return variables


@pytest.fixture
def without_idle_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """`dag.test()` sleeps for a second whenever nothing can run, at each level to which a failure is passed on."""
    sleep = time.sleep

    def sleep_less(seconds: float) -> None:
        is_idle = sys._getframe(1).f_globals["__name__"] == "airflow.sdk.definitions.dag"
        sleep(0.01 if is_idle else seconds)

    monkeypatch.setattr(time, "sleep", sleep_less)


@pytest.fixture
def run_dag(dag_bag: Any, connections: dict[str, str], without_idle_seconds: None) -> Callable[..., DagRun]:
    """Run a DAG to its end, as Airflow does it, and return its run; a failed task waits for no retry."""
    started = datetime(2026, 11, 21, tzinfo=UTC)
    number = 0

    def run(dag_id: str, **params: Any) -> DagRun:
        nonlocal number
        number += 1
        dag = dag_bag.dags[dag_id]
        for task in dag.tasks:
            task.retries = 1
            task.retry_delay = timedelta(seconds=0)
            task.max_retry_delay = timedelta(seconds=0)
        # `dag.test()` leaves the params of one run in the DAG object for the next; a real run begins with the defaults.
        defaults = {name: DEFAULTS[name] for name in dag.params if name in DEFAULTS}
        return dag.test(logical_date=started + timedelta(minutes=number), run_conf={**defaults, **params})

    return run
