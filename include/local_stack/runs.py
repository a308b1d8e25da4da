"""Following a DAG run: one line per change of a task, and a useful message when it fails."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from local_stack.airflow_api import AirflowApi, Json
from local_stack.console import say
from local_stack.errors import StackError

RUN_SECONDS = 900
FINISHED = ("success", "failed")
QUIET_STATES = ("None", "scheduled", "queued", "removed")
FAILED_STATES = ("failed", "upstream_failed")


def task_lines(instances: list[Json]) -> dict[str, str]:
    """Task → what to say about it; the instances of a mapped task are counted together."""
    states: dict[str, Counter[str]] = {}
    for instance in instances:
        states.setdefault(instance["task_id"], Counter())[str(instance["state"])] += 1
    lines = {}
    for task, counts in states.items():
        if counts.total() == 1:
            state = next(iter(counts))
            if state not in QUIET_STATES:
                lines[task] = state
        else:
            lines[task] = ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))
    return lines


def follow(
    api: AirflowApi,
    dag_id: str,
    run_id: str,
    *,
    check: Callable[[], None],
    task_logs: Path,
    seconds: float = RUN_SECONDS,
) -> None:
    """Wait for the run's end, telling each change; raise when it did not succeed."""
    began = time.monotonic()
    told: dict[str, str] = {}
    retries_told: set[tuple[str, int, int]] = set()
    last_word = began
    while True:
        check()
        state = api.run(dag_id, run_id)["state"]
        instances = api.task_instances(dag_id, run_id)
        now = time.monotonic()
        for task, line in task_lines(instances).items():
            if told.get(task) != line:
                told[task] = line
                last_word = now
                say(f"{now - began:5.0f} s  {task:<40} {line}")
        for reason in failed_tries(instances, dag_id, run_id, task_logs, retries_told):
            say(f"{now - began:5.0f} s  {reason}")
        if state in FINISHED:
            break
        if now - began > seconds:
            raise StackError(f"{dag_id} {run_id} was still {state} after {seconds:.0f} seconds", log=task_logs)
        if now - last_word >= 15:
            last_word = now
            say(f"{now - began:5.0f} s  the run is {state} ...")
        time.sleep(1)
    if state != "success":
        raise failure(dag_id, run_id, instances, task_logs)
    say(f"{now - began:5.0f} s  {dag_id} {run_id}: success")


def failed_tries(
    instances: list[Json], dag_id: str, run_id: str, task_logs: Path, told: set[tuple[str, int, int]]
) -> Iterator[str]:
    """Why tasks are waiting for another try, each try told once."""
    for instance in instances:
        one_try = (instance["task_id"], instance["map_index"], instance["try_number"])
        if instance["state"] == "up_for_retry" and one_try not in told:
            told.add(one_try)
            log = newest_log(task_logs, dag_id, run_id, instance)
            yield f"try {instance['try_number']} of {instance['task_id']} failed: {last_errors(log, 1) if log else ''}"


def failure(dag_id: str, run_id: str, instances: list[Json], task_logs: Path) -> StackError:
    """What went wrong in a failed run: the tasks, and the last error of the first one's log."""
    failed = [instance for instance in instances if instance["state"] in FAILED_STATES]
    names = ", ".join(f"{instance['task_id']} ({instance['state']})" for instance in failed) or "no single task"
    message = f"{dag_id} {run_id} failed: {names}"
    for instance in failed:
        log = newest_log(task_logs, dag_id, run_id, instance)
        if log is not None:
            return StackError(f"{message}\n{last_errors(log)}", log=log)
    return StackError(message, log=task_logs)


def newest_log(task_logs: Path, dag_id: str, run_id: str, instance: Json) -> Path | None:
    """The log of the task's last try."""
    folder = task_logs / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={instance['task_id']}"
    if instance.get("map_index", -1) >= 0:
        folder /= f"map_index={instance['map_index']}"
    return max(folder.glob("attempt=*.log"), key=lambda path: path.stat().st_mtime, default=None)


def last_errors(log: Path, number: int = 3) -> str:
    """The last error lines of a task log, which holds one JSON object a line."""
    found = []
    for line in log.read_text(errors="replace").splitlines():
        try:
            entry: Any = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("level") in ("error", "critical"):
            details = entry.get("error_detail") or [{}]
            reason = " ".join(f"{d.get('exc_type')}: {d.get('exc_value')}" for d in details if d)
            found.append(f"  {entry.get('event', '')} {reason}".rstrip())
    return "\n".join(found[-number:])
