"""A real Airflow for tests: api-server, dag-processor, scheduler and its LocalExecutor, as `make demo` starts them.

The sandbox and the billing database are the caller's. The test chooses Airflow's options and policies in the two files
that Airflow itself reads from its home: airflow.cfg and config/airflow_local_settings.py. The DAGs stay as they are.
"""

from __future__ import annotations

import configparser
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg.conninfo import conninfo_to_dict

from local_stack.airflow import Airflow
from local_stack.credentials import load_credentials
from local_stack.ports import free_port
from local_stack.processes import Processes
from local_stack.settings import Settings

if TYPE_CHECKING:
    from local_stack.airflow_api import AirflowApi, Json
    from local_stack.postgres import Postgres
    from sandbox.server import Sandbox

FINISHED = ("success", "failed")
DAGS = {"sync_verified_invoices", "sync_reference_data", "sync_billing_period", "apply_plan", "maintain_billing_db"}


def connections_to(dsn: str, sandbox: Sandbox) -> dict[str, Json]:
    """The three connections, by id, in the shape of Airflow's REST API."""
    database = conninfo_to_dict(dsn)
    keys = sandbox.credentials
    return {
        "billing_db": {
            "conn_type": "postgres",
            "host": database["host"],
            "port": int(str(database["port"])),
            "login": database["user"],
            "password": database["password"],
            "schema": database["dbname"],
        },
        "appxite_api": {
            "conn_type": "http",
            "host": sandbox.url,
            "password": keys.sas_key,
            "extra": json.dumps({"requester_id": keys.requester_id}),
        },
        "connectwise_api": {
            "conn_type": "http",
            "host": sandbox.url,
            "login": keys.public_key,
            "password": keys.private_key,
            "extra": json.dumps({"company_id": keys.company_id, "client_id": keys.client_id}),
        },
    }


@dataclass
class RealAirflow:
    """An Airflow that runs, with its connections in its own metadata database."""

    state: Path
    airflow: Airflow
    processes: Processes
    metadata_dsn: str

    @property
    def api(self) -> AirflowApi:
        return self.airflow.api

    @property
    def logs(self) -> Path:
        return self.airflow.settings.logs

    def trigger(self, dag_id: str, conf: Json | None = None) -> str:
        """Unpause the DAG and start a run; returns its id."""
        self.api.set_paused(dag_id, paused=False)
        return self.api.trigger(dag_id, conf)

    def follow(
        self, dag_id: str, run_id: str, act: Callable[[list[Json]], None] = lambda _: None, *, seconds: float
    ) -> str:
        """Wait for the end of a run and return its state; `act` gets the task instances each time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.processes.require_alive()
            state = str(self.api.run(dag_id, run_id)["state"])
            act(self.api.task_instances(dag_id, run_id))
            if state in FINISHED:
                return state
            time.sleep(0.5)
        raise AssertionError(f"{dag_id} {run_id} is still {state} after {seconds:.0f} s")

    def task_log(self, dag_id: str, run_id: str, task_id: str) -> str:
        """The logs of all tries of a task, one after the other."""
        folder = self.logs / "tasks" / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={task_id}"
        return "\n".join(path.read_text(errors="replace") for path in sorted(folder.rglob("attempt=*.log")))


@contextmanager
def real_airflow(
    state: Path,
    postgres: Postgres,
    connections: Mapping[str, Json],
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    local_settings: str = "",
) -> Iterator[RealAirflow]:
    """Start an Airflow below `state` and stop it again.

    connections     by id, as of `connections_to`
    options         airflow.cfg, by section
    local_settings  text of airflow_local_settings.py, where policies stand
    """
    settings = Settings(state=state, airflow_port=free_port())
    processes = Processes(state)
    database = f"airflow_{uuid.uuid4().hex[:12]}"
    metadata_dsn = postgres.create_database(database)
    airflow = Airflow(
        settings,
        load_credentials(state / "secrets.json"),
        processes,
        metadata_url=postgres.sqlalchemy_url(database),
        migrated_stamp=state / "airflow-migrated",
        connections={},
    )
    (airflow.home / "config").mkdir(parents=True)
    (airflow.home / "config" / "airflow_local_settings.py").write_text(local_settings)
    configuration = configparser.ConfigParser(interpolation=None)
    configuration.read_dict({section: dict(values) for section, values in (options or {}).items()})
    with (airflow.home / "airflow.cfg").open("w") as file:
        configuration.write(file)
    try:
        airflow.prepare()
        airflow.start()
        for conn_id, connection in connections.items():
            airflow.api.call("POST", "/connections", body={"connection_id": conn_id, **connection})
        airflow.start_scheduling()
        airflow.wait_for_dags(DAGS)
        yield RealAirflow(state, airflow, processes, metadata_dsn)
    finally:
        processes.stop_all()
        postgres.drop_database(database)
