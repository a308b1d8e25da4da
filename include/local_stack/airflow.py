"""Airflow on this machine: configured by environment variables alone, three processes, LocalExecutor.

Not `airflow standalone`: it says "ready" when its server has died and leaves processes behind when it is stopped.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from local_stack.airflow_api import AirflowApi
from local_stack.console import run_quietly, say, wait_for
from local_stack.credentials import Credentials, write_private
from local_stack.errors import StackError
from local_stack.ports import LOOPBACK, require_free
from local_stack.processes import Processes
from local_stack.settings import Settings

ADMIN = "admin"
POOL = "connectwise_api"
POOL_SLOTS = 4
START_SECONDS = 180
AIRFLOW = (sys.executable, "-m", "airflow")


class Airflow:
    """The Airflow of one local stack. `connections` are Airflow's AIRFLOW_CONN_* variables."""

    def __init__(
        self,
        settings: Settings,
        credentials: Credentials,
        processes: Processes,
        *,
        metadata_url: str,
        migrated_stamp: Path,
        connections: dict[str, str],
    ) -> None:
        self.settings = settings
        self.processes = processes
        self.home = settings.state / "airflow"
        self.api = AirflowApi(settings.airflow_url, ADMIN, credentials.admin_password)
        self._credentials = credentials
        self._metadata_url = metadata_url
        self._migrated_stamp = migrated_stamp
        self._connections = connections
        self._scheduling_since = datetime.now(UTC)
        self._passwords = settings.state / "airflow-passwords.json"

    def environment(self) -> dict[str, str]:
        """What every Airflow process of this stack must have in its environment."""
        url = self.settings.airflow_url
        secret = self._credentials
        configuration = {
            "CORE__DAGS_FOLDER": str(self.settings.dags),
            "CORE__PLUGINS_FOLDER": str(self.settings.plugins),
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__EXECUTOR": "LocalExecutor",
            "CORE__PARALLELISM": "4",
            "CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
            "CORE__FERNET_KEY": secret.fernet_key,
            "CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,op:op,viewer:viewer",
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self._passwords),
            "DATABASE__SQL_ALCHEMY_CONN": self._metadata_url,
            "DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
            "API__HOST": LOOPBACK,
            "API__PORT": str(self.settings.airflow_port),
            "API__BASE_URL": url,
            "API__SECRET_KEY": secret.api_secret_key,
            "API__INSTANCE_NAME": "Billing sync (local)",
            "API_AUTH__JWT_SECRET": secret.jwt_secret,
            "WORKERS__EXECUTION_API_TIMEOUT": "60",
            "WORKERS__EXECUTION_API_RETRIES": "10",
            "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
            "DAG_PROCESSOR__REFRESH_INTERVAL": "10",
            "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "30",
            "LOGGING__BASE_LOG_FOLDER": str(self.settings.logs / "tasks"),
            "USAGE_DATA_COLLECTION__ENABLED": "False",
        }
        return {
            **self.settings.base_environment(),
            "AIRFLOW_HOME": str(self.home),
            **{f"AIRFLOW__{name}": value for name, value in configuration.items()},
            **self._connections,
        }

    def prepare(self) -> None:
        """Write what Airflow reads from files, and bring its metadata database to this version's shape."""
        self.home.mkdir(parents=True, exist_ok=True)
        secret = self._credentials
        passwords = {ADMIN: secret.admin_password, "op": secret.op_password, "viewer": secret.viewer_password}
        write_private(self._passwords, json.dumps(passwords))
        stamp = self._migrated_stamp
        if stamp.exists() and stamp.read_text() == version("apache-airflow"):
            return
        say("migrating Airflow's metadata database (the first time only) ...")
        log = self.settings.logs / "airflow-migrate.log"
        self._run("airflow db migrate", [*AIRFLOW, "db", "migrate"], log)
        stamp.write_text(version("apache-airflow"))

    def start(self) -> None:
        """Start the three processes in the order that works, and wait until each says it is healthy."""
        require_free(self.settings.airflow_port, what="Airflow", variable="AIRFLOW_PORT")
        self._start_process("api-server", "api-server")
        seconds = self._wait_for("metadatabase")
        say(f"api-server answers after {seconds:.0f} s; warming it up ...")
        self.api.warm_up()
        self.api.log_in()
        self.api.ensure_pool(POOL, POOL_SLOTS, "How many tasks may talk to ConnectWise at once")

    def start_scheduling(self) -> None:
        """Start what makes runs happen."""
        self._scheduling_since = datetime.now(UTC)
        self._start_process("dag-processor", "dag-processor")
        # Task logs are read from disk; the scheduler's own log server would listen on every address of the machine.
        self._start_process("scheduler", "scheduler", "--skip-serve-logs")
        self._wait_for("scheduler")
        seconds = self._wait_for("dag_processor")
        say(f"scheduler and dag-processor are healthy after {seconds:.0f} s")

    def wait_for_dags(self, dag_ids: set[str]) -> None:
        """Wait until the dag-processor has found these DAGs; a file that cannot be imported ends the wait."""

        def check() -> None:
            self.processes.require_alive()
            errors = self.api.import_errors(since=self._scheduling_since)
            if errors:
                raise StackError("A DAG file cannot be imported:\n" + "\n".join(errors), log=log)

        log = self._log("dag-processor")
        what = "the DAGs " + ", ".join(sorted(dag_ids))
        wait_for(what, lambda: dag_ids <= self.api.dag_ids(), seconds=START_SECONDS, check=check, log=log, every=1)

    def _start_process(self, name: str, *arguments: str) -> None:
        directory = self.settings.root
        self.processes.start(name, [*AIRFLOW, *arguments], self.environment(), directory=directory)

    def _wait_for(self, component: str) -> float:
        return wait_for(
            f"Airflow's {component}",
            lambda: self.api.health().get(component) == "healthy",
            seconds=START_SECONDS,
            check=self.processes.require_alive,
            log=self._log("api-server"),
        )

    def _run(self, name: str, command: list[str], log: Path) -> None:
        run_quietly(name, command, self.environment(), directory=self.settings.root, log=log)

    def _log(self, name: str) -> Path:
        return self.settings.logs / f"{name}.log"
