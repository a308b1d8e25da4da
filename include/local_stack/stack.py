"""All parts of the local stack put together, and the one lock that keeps two of them apart."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

from local_stack.airflow import Airflow
from local_stack.console import run_openly, say, wait_for
from local_stack.credentials import load_credentials
from local_stack.errors import StackError
from local_stack.ports import require_free
from local_stack.postgres import Postgres, find_binaries, stop_server
from local_stack.processes import Processes
from local_stack.sandbox import SandboxProcess
from local_stack.settings import AIRFLOW_DATABASE, BILLING_DATABASE, Settings


def _lock_file(settings: Settings) -> Path:
    return settings.state / "demo.lock"


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def end_demo(settings: Settings) -> None:
    """Ask a demo that is open in another terminal to end, and wait until it has."""
    if not _lock_file(settings).exists():
        return
    with _lock_file(settings).open("r+") as lock:
        if _try_lock(lock):
            return
        pid = int(lock.read() or 0)  # whoever holds the lock wrote its own number
        if pid <= 0:
            return
        say("ending the demo in the other terminal ...")
        os.kill(pid, signal.SIGTERM)
        wait_for("its end", lambda: _try_lock(lock), seconds=90)


def stop_everything(settings: Settings) -> None:
    """Stop every process and every PostgreSQL of a state directory, whoever started it."""
    Processes(settings.state).stop_all(report=lambda name: say(f"stopping {name}"))
    for data in sorted(settings.state.glob("postgres-*/data")):
        if stop_server(data):
            say("stopped postgres")


class Stack:
    """PostgreSQL, the sandbox and Airflow of one state directory."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.settings.logs.mkdir(parents=True, exist_ok=True)
        self.credentials = load_credentials(self.settings.state / "secrets.json")
        self.processes = Processes(self.settings.state)
        binaries = find_binaries()
        self.postgres = Postgres(
            self.settings.state / f"postgres-{binaries.major_version()}",
            password=self.credentials.postgres_password,
            port=self.settings.postgres_port,
            binaries=binaries,
        )
        self.last_month = self._remembered_last_month()
        self.sandbox = SandboxProcess(self.settings, self.credentials, self.processes, last_month=self.last_month)
        self.airflow = Airflow(
            self.settings,
            self.credentials,
            self.processes,
            metadata_url=self.postgres.sqlalchemy_url(AIRFLOW_DATABASE),
            migrated_stamp=self.postgres.home / "airflow-migrated",
            connections={"AIRFLOW_CONN_BILLING_DB": self._billing_connection(), **self.sandbox.connections()},
        )

    @property
    def billing_dsn(self) -> str:
        return self.postgres.dsn(BILLING_DATABASE)

    def start_postgres(self) -> None:
        if not self.postgres.is_running():
            require_free(self.settings.postgres_port, what="PostgreSQL", variable="POSTGRES_PORT")
        self.postgres.start()
        self.postgres.create_database(AIRFLOW_DATABASE)
        self.postgres.create_database(BILLING_DATABASE)

    def billing_sync(self, *arguments: str) -> None:
        """Run the pipeline's command line as an administrator would, openly."""
        environment = {**self.settings.base_environment(), "BILLING_DB_DSN": self.billing_dsn}
        command: Sequence[str] = [sys.executable, "-m", "billing_sync", *arguments]
        log = self.settings.logs / "billing_sync.log"
        run_openly(f"billing_sync {arguments[0]}", command, environment, directory=self.settings.root, log=log)

    def stop(self) -> None:
        """Stop everything of this stack that runs, whoever started it."""
        stop_everything(self.settings)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Refuse a second `make demo` on the same state while one is open."""
        with _lock_file(self.settings).open("a+") as lock:
            if not _try_lock(lock):
                raise StackError("The demo is still running in another terminal. Press Ctrl-C there, or run: make stop")
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield

    def _billing_connection(self) -> str:
        return json.dumps(
            {
                "conn_type": "postgres",
                "host": "127.0.0.1",
                "port": self.postgres.port,
                "login": "postgres",
                "password": self.credentials.postgres_password,
                "schema": BILLING_DATABASE,
            }
        )

    def _remembered_last_month(self) -> str:
        """The sandbox's newest month: last night's, chosen once, so that a later demo goes on in the same world."""
        file: Path = self.settings.state / "last-month"
        if not file.exists():
            file.write_text((datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m"))
        return file.read_text().strip()
