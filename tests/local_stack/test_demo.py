"""How a demo is interrupted, stopped and refused: real PostgreSQL and Airflow, stand-ins for the pipeline and the
sandbox. The demo itself is in tests/e2e."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from local_stack.demo import oldest_month
from local_stack.ports import free_port, is_free
from local_stack.postgres import Postgres

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = Path(__file__).parent / "stand_in"


class Checkout:
    """A copy of the project in which only `local_stack` is real."""

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copytree(STAND_IN, root, ignore=shutil.ignore_patterns("__pycache__"))
        package = root / "include" / "local_stack"
        shutil.copytree(ROOT / "include" / "local_stack", package, ignore=shutil.ignore_patterns("__pycache__"))
        self.ports = {name: free_port() for name in ("AIRFLOW_PORT", "POSTGRES_PORT", "SANDBOX_PORT")}
        ports = {name: str(port) for name, port in self.ports.items()}
        self.environment = {**os.environ, **ports, "PYTHONPATH": str(root / "include")}

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "local_stack", *arguments],
            cwd=self.root,
            env={**self.environment, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, **more: str) -> tuple[int, str]:
        with self.start(*arguments, **more) as command:
            output = command.communicate(timeout=400)[0]
        return command.returncode, output

    def left_over(self) -> list[str]:
        """What still runs from this checkout."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            try:
                if Path(process.cwd()).is_relative_to(self.root):
                    found.append(" ".join(process.info["cmdline"]))
            except (psutil.Error, OSError):
                continue
        return found + [name for name, port in self.ports.items() if not is_free(port)]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return Checkout(tmp_path_factory.mktemp("demo") / "checkout")


@pytest.mark.parametrize(
    ("last_month", "months", "oldest"),
    [("2026-11", 3, "2026-09"), ("2026-01", 3, "2025-11"), ("2026-12", 1, "2026-12"), ("2026-03", 15, "2025-01")],
)
def test_the_oldest_month_is_counted_back_over_new_year(last_month: str, months: int, oldest: str) -> None:
    assert oldest_month(last_month, months).strftime("%Y-%m-%d %H:%M %Z") == f"{oldest}-01 00:00 UTC"


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_a_failing_step_ends_the_demo_with_the_log_to_read(checkout: Checkout) -> None:
    code, output = checkout.run("demo", "--stay=0", STAND_IN_FAILS="migrate")

    assert code == 1
    assert "billing_sync migrate failed (exit 1)" in output
    assert str(checkout.root / ".local" / "logs" / "billing_sync.log") in output
    assert checkout.left_over() == []


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_a_killed_demo_is_cleared_away_by_stop(checkout: Checkout) -> None:
    with checkout.start("demo", "--stay=1") as demo:
        wait_until(lambda: not is_free(checkout.ports["AIRFLOW_PORT"]))
        code, output = checkout.run("demo", "--stay=0")
        assert code == 1
        assert "still running in another terminal" in output
        demo.send_signal(signal.SIGKILL)
        demo.wait(30)
    assert checkout.left_over() != []

    code, output = checkout.run("stop")

    assert code == 0, output
    assert checkout.left_over() == []


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_stop_ends_an_open_demo_in_the_middle(checkout: Checkout) -> None:
    with checkout.start("demo", "--stay=1") as demo:
        wait_until(lambda: not is_free(checkout.ports["AIRFLOW_PORT"]))
        code, output = checkout.run("stop")
        demo.wait(60)
    assert code == 0, output
    assert demo.returncode == 130
    assert checkout.left_over() == []


def test_a_taken_port_is_named_with_the_variable_that_changes_it(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path / "checkout")
    with Postgres(tmp_path / "other", password="x", durable=False) as other:
        code, output = checkout.run("demo", "--stay=0", POSTGRES_PORT=str(other.port))
    assert code == 1
    assert f"Port {other.port} of 127.0.0.1, wanted for PostgreSQL, is in use" in output
    assert "POSTGRES_PORT=" in output


def wait_until(true: object, seconds: float = 90) -> None:
    assert callable(true)
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
