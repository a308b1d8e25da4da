"""Processes are stopped as whole groups, and never somebody else's."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from local_stack.errors import StackError
from local_stack.processes import Processes, Record

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
WITH_CHILD = [
    sys.executable,
    "-c",
    "import subprocess, sys, time; subprocess.Popen(sys.argv[1:]); time.sleep(600)",
    *SLEEP,
]


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    ours = Processes(tmp_path)
    yield ours
    ours.stop_all()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def start(processes: Processes, command: list[str], name: str = "sleeper") -> Record:
    return processes.start(name, command, os.environ, directory=Path("/"))


def test_stop_ends_the_children_too(processes: Processes) -> None:
    record = start(processes, WITH_CHILD)
    until(lambda: len(record.members()) == 2)
    processes.stop_all()
    assert record.members() == []
    assert processes.recorded() == []


def test_children_whose_leader_was_killed_are_still_found(processes: Processes) -> None:
    record = start(processes, WITH_CHILD)
    until(lambda: len(record.members()) == 2)
    os.kill(record.pid, signal.SIGKILL)
    processes._children[0].wait(10)
    assert [one.name for one in processes.running()] == ["sleeper"]
    processes.stop_all()
    assert record.members() == []


def test_another_command_can_stop_what_this_one_started(processes: Processes, tmp_path: Path) -> None:
    record = start(processes, SLEEP)
    Processes(tmp_path).stop_all()
    until(lambda: record.members() == [])


def test_a_number_that_was_given_to_another_program_is_left_alone(tmp_path: Path) -> None:
    with psutil.Popen(SLEEP, start_new_session=True) as stranger:
        record = Record(name="ours", pid=stranger.pid, started=stranger.create_time() - 60, log="none")
        processes = Processes(tmp_path)
        processes.records.mkdir()
        (processes.records / "ours.json").write_text(json.dumps(asdict(record)))
        assert processes.running() == []
        processes.stop_all()
        assert stranger.is_running()
        stranger.kill()


def test_one_that_ended_by_itself_is_reported_with_its_last_words(processes: Processes) -> None:
    start(processes, [sys.executable, "-c", "raise SystemExit('no configuration')"], name="server")
    until(lambda: not processes.running())
    with pytest.raises(StackError, match=r"server has ended by itself[\s\S]*no configuration") as caught:
        processes.require_alive()
    assert caught.value.log == processes.logs / "server.log"


def test_a_damaged_record_is_no_obstacle(processes: Processes) -> None:
    processes.records.mkdir(parents=True)
    (processes.records / "half.json").write_text('{"name": "ha')
    assert processes.recorded() == []
    processes.stop_all()
    assert list(processes.records.iterdir()) == []
