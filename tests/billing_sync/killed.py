"""Delivers a plan in a forked process that is killed at a chosen line of deliver.py, for test_deliver.py.

Reads one JSON object a line: {"dsn", "url", "plan_id", "shards", "kill_at"}; answers {"status", "lines"}: the exit
status of the fork (negative: killed by that signal) and how many lines of deliver.py it ran.
A process of its own, because a fork of a process with threads (pytest and its sandbox) may inherit a held lock.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from types import FrameType
from typing import Any

from billing_sync import deliver
from billing_sync.connectwise import ConnectWise
from billing_sync.db import connect
from billing_sync.errors import TemporaryError
from billing_sync.http import Limits
from sandbox.messages import Credentials

DELIVER_PY = deliver.__file__


def run(order: dict[str, Any], report: int) -> None:
    """The child: deliver the shards, counting lines; at line kill_at the process is gone."""
    lines, kill_at = 0, order["kill_at"]

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if frame.f_code.co_filename != DELIVER_PY:
            return None
        if event == "line":
            lines += 1
            if lines == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    if order.get("spoil"):  # the negative control: billable at once, and nothing is looked up before a retry
        deliver.inert = dict  # type: ignore[assignment]
        deliver.Deliverer._adopt = lambda *_: False  # type: ignore[assignment,method-assign]
    keys = Credentials()
    limits = Limits(connect=5.0, read=5.0, first_wait=0.0, sleep=lambda _: None)
    client = ConnectWise(
        order["url"], keys.company_id, keys.public_key, keys.private_key, keys.client_id, limits=limits
    )
    for shard in order["shards"]:
        with connect(order["dsn"]) as connection:
            deliverer = deliver.Deliverer(connection, client, order["plan_id"])
            sys.settrace(trace)
            try:
                deliverer.deliver_shard(shard)
            except TemporaryError:
                pass  # as in Airflow: tried again, by the run after this
            finally:
                sys.settrace(None)
    os.write(report, str(lines).encode())


def main() -> None:
    """Fork for each order, one after the other."""
    for text in sys.stdin:
        order = json.loads(text)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                run(order, writing)
            except BaseException:  # noqa: BLE001  (nothing of the parent may go on in the child)
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        os.close(writing)
        _, status = os.waitpid(child, 0)
        counted = os.read(reading, 20).decode()
        os.close(reading)
        print(json.dumps({"status": os.waitstatus_to_exitcode(status), "lines": int(counted or 0)}), flush=True)


if __name__ == "__main__":
    main()
