"""`make demo` with nothing stood in: a real scheduler runs the real DAGs; then what it left behind is searched."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from local_stack.ports import free_port, is_free
from local_stack.postgres import Postgres
from sandbox.messages import Credentials

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 480

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(SECONDS + 60)]


@dataclass
class Demo:
    """A demo that has ended."""

    code: int
    output: str
    state: Path

    def query(self, database: str, statement: str) -> list[tuple[Any, ...]]:
        """Rows from a database of the demo, whose server is started for it."""
        (home,) = self.state.glob("postgres-*")
        password = json.loads((self.state / "secrets.json").read_text())["postgres_password"]
        with Postgres(home, password=password) as server, psycopg.connect(server.dsn(database)) as connection:
            return connection.execute(statement).fetchall()  # type: ignore[call-overload,no-any-return]


def run_demo(state: Path, ports: dict[str, int]) -> Demo:
    """Run the demo to its end and see that it leaves nothing running."""
    numbers = {name: str(port) for name, port in ports.items()}
    done = subprocess.run(
        [sys.executable, "-m", "local_stack", "demo", "--stay=0"],
        cwd=ROOT,
        env={**os.environ, **numbers, "LOCAL_STATE": str(state)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert [name for name, port in ports.items() if not is_free(port)] == []
    return Demo(done.returncode, done.stdout + done.stderr, state)


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    return {name: free_port() for name in ("AIRFLOW_PORT", "POSTGRES_PORT", "SANDBOX_PORT")}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, ports: dict[str, int]) -> Demo:
    return run_demo(tmp_path_factory.mktemp("demo") / ".local", ports)


def test_the_demo_ends_proven(demo: Demo) -> None:
    assert demo.code == 0, demo.output[-4000:]
    assert "Difference 0.00: every cent of every accepted invoice is accounted for." in demo.output
    assert "customer by customer, to the cent" in demo.output


def test_the_scheduler_made_the_nightly_run_and_the_backfill(demo: Demo) -> None:
    runs = demo.query("airflow", "select dag_id, run_type, state from dag_run order by dag_id, run_type")
    assert ("sync_verified_invoices", "scheduled", "success") in runs
    assert ("sync_billing_period", "backfill", "success") in runs
    assert {state for _, _, state in runs} == {"success"}
    assert demo.query("airflow", "select filename, stacktrace from import_error") == []


def test_the_second_night_wrote_nothing(demo: Demo) -> None:
    runs = demo.query("billing", "select state, writes from reporting.run where kind = 'nightly' order by run_id")
    assert [state for state, _ in runs] == ["succeeded", "succeeded"]
    assert runs[0][1] > 500
    assert runs[1][1] == 0


def test_no_secret_is_left_behind(demo: Demo) -> None:
    """Logs, XCom, rendered templates, both databases and the sandbox's state, searched for each secret."""
    keys = json.loads((demo.state / "secrets.json").read_text())
    defaults = Credentials()
    sas_key = keys.get("sas_key", defaults.sas_key)
    private_key = keys.get("private_key", defaults.private_key)
    public_key = keys.get("public_key", defaults.public_key)
    company = keys.get("company_id", defaults.company_id)
    basic = base64.b64encode(f"{company}+{public_key}:{private_key}".encode()).decode()
    secrets = [sas_key, private_key, basic]

    files = [path for path in demo.state.rglob("*") if path.is_file() and path.name != "secrets.json"]
    assert len(files) > 100
    found = [
        (str(path.relative_to(demo.state)), secret[:4])
        for path in files
        for secret in secrets
        if secret.encode() in path.read_bytes()
    ]
    assert found == []
    assert not any(secret in demo.output for secret in secrets)
