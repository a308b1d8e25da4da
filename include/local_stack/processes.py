"""Long-running processes: started in a session of their own, recorded on disk, stopped as a whole group.

A record outlives the command that wrote it, so `make stop` works after a crash. Before anything is signalled the
recorded process group is checked to be ours still: a number may belong to another program by now.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from local_stack.errors import StackError, tail

SAME_START_SECONDS = 2.0
STOP_SECONDS = 20.0


@dataclass(frozen=True)
class Record:
    """A started process; it leads a session and a process group of the same number."""

    name: str
    pid: int
    started: float
    log: str

    def members(self) -> list[psutil.Process]:
        """The living processes of the group, none when the number was given to another program meanwhile."""
        with suppress(psutil.NoSuchProcess):
            leader = psutil.Process(self.pid)
            if abs(leader.create_time() - self.started) > SAME_START_SECONDS:
                return []
        return [process for process in psutil.process_iter() if self._has(process)]

    def _has(self, process: psutil.Process) -> bool:
        with suppress(OSError, psutil.Error):
            in_group = os.getpgid(process.pid) == self.pid and os.getsid(process.pid) == self.pid
            started_later = process.create_time() >= self.started - SAME_START_SECONDS
            return in_group and started_later and process.status() != psutil.STATUS_ZOMBIE
        return False

    def leader_is_alive(self) -> bool:
        return any(process.pid == self.pid for process in self.members())


class Processes:
    """The processes of one state directory."""

    def __init__(self, state: Path) -> None:
        self.records = state / "run"
        self.logs = state / "logs"
        self._children: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str], *, directory: Path) -> Record:
        """Start a process that goes on after this command; its output goes to logs/<name>.log."""
        self.records.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{name}.log"
        with log.open("wb") as output:
            child = subprocess.Popen(
                list(command),
                cwd=directory,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._children.append(child)  # kept, so that a dead child can be reaped and is seen as dead
        try:
            started = psutil.Process(child.pid).create_time()
        except psutil.NoSuchProcess:
            started = time.time()
        record = Record(name=name, pid=child.pid, started=started, log=str(log))
        (self.records / f"{name}.json").write_text(json.dumps(asdict(record)))
        return record

    def recorded(self) -> list[Record]:
        """Every recorded process, the latest started first."""
        records = []
        for path in self.records.glob("*.json"):
            with suppress(ValueError, TypeError, OSError):
                records.append(Record(**json.loads(path.read_text())))
        return sorted(records, key=lambda record: record.started, reverse=True)

    def running(self) -> list[Record]:
        return [record for record in self.recorded() if record.members()]

    def stop_all(self, report: Callable[[str], None] = lambda _: None) -> None:
        """Stop every recorded process: politely, all at once, then by force what is left."""
        running = self.running()
        for record in running:
            report(record.name)
            _signal_group(record, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while any(record.members() for record in running) and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.1)
        for record in running:
            if record.members():
                _signal_group(record, signal.SIGKILL)
        self._reap()
        for path in self.records.glob("*.json"):
            path.unlink(missing_ok=True)

    def require_alive(self) -> None:
        """Raise for the first recorded process that has ended by itself."""
        self._reap()
        for record in self.recorded():
            if not record.leader_is_alive():
                log = Path(record.log)
                raise StackError(f"{record.name} has ended by itself. Its last lines:\n{tail(log)}", log=log)

    def _reap(self) -> None:
        for child in self._children:
            child.poll()


def _signal_group(record: Record, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(record.pid, number)
