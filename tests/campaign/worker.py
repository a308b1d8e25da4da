"""Runs workers in forked processes that are killed or stopped at a chosen line. Used through `trial.Workers`.

Reads one JSON object a line. {"do": "start", "task": ..., ...} forks and answers {"pid"}. {"do": "wait", "pid"} waits
for the fork to end or to stop itself, and answers {"status", "lines", "step", "error"}: the exit status (negative:
killed by that signal; null: stopped), how many lines of the traced files it ran, the step it was at, what it raised.
A process of its own, because a fork of a process with threads (the sandbox) may inherit a held lock.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from pipeline import PATIENCE

import billing_sync
from billing_sync import deliver
from billing_sync.connectwise import ConnectWise
from billing_sync.db import connect
from billing_sync.errors import BillingSyncError
from billing_sync.plan import shards_to_deliver
from campaign.controls import CONTROLS
from sandbox.messages import Credentials

HERE = Path(__file__).parent
PRODUCT = Path(billing_sync.__file__).parent
LONGEST = 60  # seconds that a worker may take

Order = dict[str, Any]
Step = tuple[str, Callable[[], object]]


def deliver_steps(order: Order) -> list[Step]:
    """What the mapped tasks of a delivery do, one shard after the other."""
    keys = Credentials()
    client = ConnectWise(
        order["url"], keys.company_id, keys.public_key, keys.private_key, keys.client_id, limits=PATIENCE
    )
    made = {"ours": deliver.Deliverer, **CONTROLS}[order["protocol"]]

    def deliver_all() -> None:
        failed = None
        with connect(order["dsn"]) as connection:
            shards = shards_to_deliver(connection, order["plan_id"])
        for shard in shards[:: order.get("direction", 1)]:
            with connect(order["dsn"]) as connection:
                try:
                    made(connection, client, order["plan_id"]).deliver_shard(shard)
                except BillingSyncError as error:
                    failed = error
        if failed is not None:
            raise failed

    return [("deliver", deliver_all)]


TASKS: dict[str, Callable[[Order], list[Step]]] = {"deliver": deliver_steps}


def run(order: Order, report: Callable[..., None]) -> None:
    """The child: run the steps, counting lines; at line kill_at the process is gone, at stop_at it stops itself."""
    lines, step = 0, ""
    kill_at, stop_at = order.get("kill_at", 0), order.get("stop_at", 0)
    files = {str((HERE if name.startswith("controls") else PRODUCT) / name) for name in order["files"]}
    by_file: dict[str, int] = {}

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            lines += 1
            if lines == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if lines == stop_at:
                os.kill(os.getpid(), signal.SIGSTOP)
        return trace

    for name, value in order.get("constants", {}).items():
        setattr(deliver, name, value)
    for step, work in TASKS[order["task"]](order):
        report(step=step)
        try:
            sys.settrace(trace)
            work()
        except BillingSyncError as error:  # the task fails; Airflow tries it again
            sys.settrace(None)
            report(error=f"{type(error).__name__}: {error}")
            break
        finally:
            sys.settrace(None)
    report(lines=lines, by_file=by_file)


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
            answer = {"status": None, "lines": 0, "step": "", "error": ""}
            if not os.WIFSTOPPED(status):
                answer["status"] = os.waitstatus_to_exitcode(status)
                with os.fdopen(reports.pop(pid)) as said:
                    for line in said:
                        answer |= json.loads(line)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
