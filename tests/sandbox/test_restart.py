"""State survives a restart, also a kill -9; the command line."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sandbox.server import Sandbox
from sandbox.wire import loads

from .conftest import appxite_client, connectwise_client

INCLUDE = Path(__file__).resolve().parents[2] / "include"


def serve(state: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    """Start the command line; returns the process and its base URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sandbox", "serve", "--state", str(state), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(INCLUDE)},
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    match = re.fullmatch(r"sandbox ready on (http://127\.0\.0\.1:\d+)\n", line)
    assert match is not None, process.communicate()
    assert (state / "port").read_text().strip() == match.group(1).rpartition(":")[2]
    return process, match.group(1)


def end(process: subprocess.Popen[str], how: int) -> str:
    process.send_signal(how)
    return process.communicate(timeout=10)[1]


def test_a_kill_9_loses_nothing_that_was_answered(tmp_path: Path, addition: dict[str, Any]) -> None:
    state = tmp_path / "state"
    process, url = serve(state, "--customers", "2", "--months", "1")
    client = connectwise_client(url)
    try:
        path = "/finance/agreements/1001/additions"
        made = [client.post(path, {**addition, "effectiveDate": "2026-11-01T00:00:00Z"}) for _ in range(20)]
        client.patch(f"{path}/{made[0]['id']}", ("quantity", 7))
    finally:
        end(process, signal.SIGKILL)

    process, url = serve(state, "--customers", "9", "--seed", "1")
    client = connectwise_client(url)
    try:
        kept = client.get(path, conditions='billCustomer = "DoNotBill"')
        assert [addition["id"] for addition in kept] == [addition["id"] for addition in made]
        assert kept[0]["quantity"] == 7
        journal = loads(client("GET", url + "/_sandbox/journal").content)
        assert len(journal) == 21
        assert len(appxite_client(url).get("/organizations/details/100001")) == 2
        assert client.post(path, {**addition, "effectiveDate": "2026-11-01T00:00:00Z"})["id"] > made[-1]["id"]
    finally:
        errors = end(process, signal.SIGTERM)
    assert "already holds data" in errors
    assert process.returncode == 0


def test_a_late_request_is_applied_after_a_restart(tmp_path: Path, addition: dict[str, Any]) -> None:
    with Sandbox(tmp_path, customers=2, months=1) as first:
        first.add_fault("late", method="POST", params={"delay": 0.3})
        with pytest.raises(OSError):
            connectwise_client(first.url)("POST", "/finance/agreements/1001/additions", addition)
    second = Sandbox(tmp_path)
    assert second.health()["pending"] == 1
    with second:
        second.release_late()
        assert second.writes()["pending"] == 0


def test_a_stopped_sandbox_answers_no_open_connection(tmp_path: Path) -> None:
    with Sandbox(tmp_path, customers=1, months=1) as running:
        client = connectwise_client(running.url)
        client.get("/system/info")
    with pytest.raises(OSError):
        client.get("/system/info")


def test_the_keys_are_options_and_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_PRIVATE_KEY", "from-the-environment")
    process, url = serve(tmp_path, "--customers", "1", "--months", "1", "--sas-key", "from-the-option")
    try:
        client = connectwise_client(url)
        client.get("/system/info", expect=401)
        client.session.auth = ("demo+demo-public-key", "from-the-environment")
        client.get("/system/info")
        appxite_client(url).get("/contracts/100001", sasKey="from-the-option")
    finally:
        end(process, signal.SIGTERM)


def test_mapping_files_from_the_command_line(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "sandbox",
        "mappings",
        "--state",
        str(tmp_path / "s"),
        "--out",
        str(tmp_path / "out"),
    ]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(INCLUDE)}, capture_output=True)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["offers.csv", "organizations.csv"]
    assert len((tmp_path / "out" / "organizations.csv").read_text().splitlines()) == 40


@pytest.mark.parametrize("options", [["--last-month", "2026-13"], ["--customers", "0"]])
def test_bad_options_are_refused(tmp_path: Path, options: list[str]) -> None:
    command = [sys.executable, "-m", "sandbox", "serve", "--state", str(tmp_path), *options]
    env = {**os.environ, "PYTHONPATH": str(INCLUDE)}
    assert subprocess.run(command, env=env, capture_output=True, check=False).returncode == 2
