"""Credentials, settings, ports, the installer's reading of the lock, and what is said about a run."""

from __future__ import annotations

import json
import re
import stat
import subprocess
from pathlib import Path

import pytest

from local_stack.credentials import load_credentials
from local_stack.errors import StackError
from local_stack.install import main, requirement_block, stamp_text
from local_stack.ports import require_free
from local_stack.postgres import Postgres
from local_stack.runs import failed_tries, failure, task_lines
from local_stack.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def test_credentials_are_made_once_and_readable_by_their_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    first = load_credentials(file)
    assert load_credentials(file) == first
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(first.jwt_secret) >= 64
    assert first.admin_password not in repr(first)


def test_a_credential_that_an_older_version_did_not_have_is_added(tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    first = load_credentials(file)
    stored = json.loads(file.read_text())
    del stored["sas_key"]
    file.write_text(json.dumps(stored))
    second = load_credentials(file)
    assert second.postgres_password == first.postgres_password
    assert second.sas_key != first.sas_key


def test_damaged_credentials_say_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "secrets.json"
    file.write_text("{")
    with pytest.raises(StackError, match="make clean"):
        load_credentials(file)


@pytest.mark.parametrize("text", ["80", "70000", "http", "-1"])
def test_an_impossible_port_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_PORT", text)
    with pytest.raises(StackError, match="AIRFLOW_PORT"):
        Settings()


def test_an_empty_port_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_PORT", "")
    assert Settings().airflow_port == 8080


def test_the_callers_airflow_is_kept_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "Another")
    monkeypatch.setenv("PGHOST", "elsewhere.example")
    environment = Settings().base_environment()
    assert not {"AIRFLOW__CORE__EXECUTOR", "PGHOST"} & environment.keys()


def test_a_taken_port_is_refused(postgres: Postgres) -> None:
    with pytest.raises(StackError, match="make demo X_PORT="):
        require_free(postgres.port, what="X", variable="X_PORT")


def test_the_lock_gives_uv_with_its_hashes() -> None:
    block = requirement_block((ROOT / "requirements-dev.lock").read_text(), "uv")
    lines = block.splitlines()
    assert re.match(r"uv==\d", lines[0])
    assert all(line.startswith("    ") for line in lines[1:])
    assert "--hash=sha256:" in block


def test_an_environment_that_is_up_to_date_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    (tmp_path / ".installed").write_text(stamp_text(ROOT / "requirements-dev.lock"))
    main([str(tmp_path)])
    assert capsys.readouterr().out == ""


def test_make_refuses_an_old_python_in_words(tmp_path: Path) -> None:
    old = tmp_path / "python2"
    old.write_text('#!/bin/sh\necho "Python 3.11 or newer is needed" >&2\nexit 1\n')
    old.chmod(0o755)
    answer = subprocess.run(
        ["make", "install", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"], cwd=ROOT, capture_output=True, text=True
    )
    assert answer.returncode != 0
    assert "3.11 or newer" in answer.stderr
    assert not (tmp_path / "venv").exists()


def test_make_lists_its_targets() -> None:
    answer = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("demo", "test", "check", "stop", "clean", "lock"):
        assert re.search(rf"^  make {target} +\S", answer.stdout, flags=re.MULTILINE)


def instance(task: str, state: str | None, map_index: int = -1) -> dict[str, object]:
    return {"task_id": task, "state": state, "map_index": map_index}


def test_mapped_tasks_are_counted_and_waiting_ones_are_not_told() -> None:
    instances = [
        instance("extract", "success"),
        instance("deliver", "success", 0),
        instance("deliver", "running", 1),
        instance("deliver", "success", 2),
        instance("prove", None),
        instance("close", "scheduled"),
    ]
    assert task_lines(instances) == {"extract": "success", "deliver": "1 running, 2 success"}


def test_a_try_that_failed_is_told_once_with_its_reason(tmp_path: Path) -> None:
    folder = tmp_path / "dag_id=d" / "run_id=r" / "task_id=load"
    folder.mkdir(parents=True)
    (folder / "attempt=1.log").write_text('{"level": "error", "event": "Task failed: no answer"}\n')
    told: set[tuple[str, int, int]] = set()
    waiting = [{**instance("load", "up_for_retry"), "try_number": 1}]
    assert [*failed_tries(waiting, "d", "r", tmp_path, told)] == ["try 1 of load failed:   Task failed: no answer"]
    assert [*failed_tries(waiting, "d", "r", tmp_path, told)] == []


def test_a_failed_run_names_its_tasks_the_reason_and_the_log(tmp_path: Path) -> None:
    folder = tmp_path / "dag_id=d" / "run_id=r" / "task_id=load" / "map_index=3"
    folder.mkdir(parents=True)
    entry = {"level": "error", "event": "Task failed", "error_detail": [{"exc_type": "HeldError", "exc_value": "why"}]}
    (folder / "attempt=2.log").write_text("not json\n" + json.dumps(entry) + "\n")
    error = failure("d", "r", [instance("load", "failed", 3), instance("prove", "upstream_failed")], tmp_path)
    assert "load (failed), prove (upstream_failed)" in str(error)
    assert "HeldError: why" in str(error)
    assert error.log == folder / "attempt=2.log"
