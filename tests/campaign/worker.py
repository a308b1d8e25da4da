"""Runs workers in forked processes that are killed or stopped at a chosen line. Used through `trial.Workers`.

Reads one JSON object a line. {"do": "start", "task": ..., ...} forks and answers {"pid"}. {"do": "wait", "pid"} waits
for the fork to end or to stop itself, and answers {"status", "lines", "step", "error"}: the exit status (negative:
killed by that signal; null: stopped), how many lines of the traced files it ran, the step it was at, what it raised.
A process of its own, because a fork of a process with threads (the sandbox) may inherit a held lock.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import psycopg
from pipeline import Pipeline

import billing_sync
from billing_sync import deliver
from billing_sync.db import connect
from billing_sync.errors import BillingSyncError
from billing_sync.plan import shards_to_deliver
from campaign.controls import CONTROLS
from campaign.steps import Step, prove_steps, stage_steps
from campaign.tasks import run_steps
from sandbox.messages import Credentials

HERE = Path(__file__).parent
PRODUCT = Path(billing_sync.__file__).parent
LONGEST = 60  # seconds that a worker may take

Order = dict[str, Any]


def deliver_steps(pipeline: Pipeline, order: Order) -> list[Step]:
    """What the mapped tasks of a delivery do, one shard after the other."""
    made = {"ours": deliver.Deliverer, **CONTROLS}[order["protocol"]]

    def deliver_all() -> None:
        failed = None
        for shard in shards_to_deliver(pipeline.connection, order["plan_id"])[:: order.get("direction", 1)]:
            with connect(pipeline.dsn) as connection:
                try:
                    made(connection, pipeline.connectwise(), order["plan_id"]).deliver_shard(shard)
                except (BillingSyncError, psycopg.Error) as error:
                    failed = error
        if failed is not None:
            raise failed

    return [("deliver", deliver_all)]


TASKS: dict[str, Callable[[Pipeline, Order], list[Step]]] = {
    "deliver": deliver_steps,
    "stage": lambda pipeline, order: stage_steps(pipeline, order["run_id"]),
    "prove": lambda pipeline, order: prove_steps(pipeline, order["run_id"]),
    "run": run_steps,
}


@dataclass
class Elsewhere:
    """What a worker knows of the sandbox: where it is, and its keys."""

    url: str
    credentials: Credentials = field(default_factory=Credentials)


class Tracer:
    """Counts executed lines of files and functions; at line kill_at the process is gone, at stop_at it stops itself.

    With wants_marks, `marks` are the numbers of all lines; of those of the files `once`, only the first and the last
    time that a step runs each.
    """

    def __init__(self, order: Order) -> None:
        self._once = {str(PRODUCT / name) for name in order.get("once", ())}
        self._all: list[int] = []
        self._first_and_last: dict[tuple[str, str, int], list[int]] = {}
        self.lines = 0
        self.step = ""
        self.trace = self._tracer(order)

    def _tracer(self, order: Order) -> Callable[[FrameType, str, Any], Any]:
        """For sys.settrace. It runs for each line and each call: hence short."""
        files = {str((HERE if name == "controls.py" else PRODUCT) / name) for name in order["files"]}
        functions = {(str(PRODUCT / name), function) for name, function in order.get("functions", ())}
        fatal = {order.get("kill_at"): signal.SIGKILL, order.get("stop_at"): signal.SIGSTOP}
        wants_marks = order.get("wants_marks", False)

        def on_line(frame: FrameType, event: str, _: Any) -> Any:
            if event == "line":
                self.lines += 1
                if self.lines in fatal:
                    os.kill(os.getpid(), fatal[self.lines])
                if wants_marks:
                    self._mark(frame)
            return on_line

        def on_call(frame: FrameType, *_: Any) -> Any:
            code = frame.f_code
            is_meant = code.co_filename in files or (code.co_filename, code.co_name) in functions
            return on_line if is_meant else None

        return on_call

    def _mark(self, frame: FrameType) -> None:
        name = frame.f_code.co_filename
        if name in self._once:
            self._first_and_last.setdefault((self.step, name, frame.f_lineno), [self.lines])[1:] = [self.lines]
        else:
            self._all.append(self.lines)

    @property
    def marks(self) -> list[int]:
        """See the class."""
        return sorted({*self._all, *(line for place in self._first_and_last.values() for line in place)})


def run(order: Order, report: Callable[..., object]) -> None:
    """The child: run the steps of a task until one fails."""
    tracer = Tracer(order)
    for name, value in order.get("constants", {}).items():
        setattr(deliver, name, value)
    pipeline = Pipeline(order["dsn"], Elsewhere(order["url"]))  # type: ignore[arg-type]
    for tracer.step, work in TASKS[order["task"]](pipeline, order):
        report(step=tracer.step)
        try:
            sys.settrace(tracer.trace)
            work()
        except (BillingSyncError, psycopg.Error) as error:  # the task fails; Airflow tries it again
            sys.settrace(None)
            report(error=f"{type(error).__name__}: {error}")
            break
        finally:
            sys.settrace(None)
    report(lines=tracer.lines, marks=tracer.marks)


def start(order: Order) -> tuple[int, int]:
    """Fork; returns the child's pid and where it reports."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    status = 1
    try:
        signal.alarm(LONGEST)
        run(order, lambda **said: os.write(writing, json.dumps(said).encode() + b"\n"))
        status = 0
    except BaseException:  # noqa: BLE001  (nothing of the parent may go on in the child)
        os.write(writing, json.dumps({"error": traceback.format_exc()}).encode() + b"\n")
    finally:
        os._exit(status)


def main() -> None:
    """Obey until the input ends."""
    logging.disable(logging.CRITICAL)  # thousands of warnings about faults that are meant
    reports: dict[int, int] = {}
    for text in sys.stdin:
        order = json.loads(text)
        if order["do"] == "start":
            pid, reading = start(order)
            reports[pid] = reading
            answer: Order = {"pid": pid}
        else:
            pid = order["pid"]
            _, status = os.waitpid(pid, os.WUNTRACED)
            answer = {"status": None, "lines": 0, "step": "", "error": "", "marks": []}
            if not os.WIFSTOPPED(status):
                answer["status"] = os.waitstatus_to_exitcode(status)
                with os.fdopen(reports.pop(pid)) as said:
                    for line in said:
                        answer |= json.loads(line)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
