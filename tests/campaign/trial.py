"""One trial: a copy of a world, workers that are killed, stopped or overlap, the recovery, the verdict."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psycopg
from pipeline import Pipeline

from billing_sync.db import connect
from billing_sync.errors import BillingSyncError, ProofError
from billing_sync.pauses import active_pauses, end_pause
from billing_sync.plan import shards_to_deliver
from billing_sync.process import die_with_parent
from billing_sync.settle import retry_addition
from campaign.answers import count_faulty
from campaign.checker import judge, orphans_of
from campaign.controls import CONTROLS
from campaign.report import Config, Figures
from campaign.worlds import World

TRIES = 8
PAUSE = 0.05  # seconds between them
PROTOCOLS = ("ours", *CONTROLS)

# The code that a delivering task runs; of the HTTP client what writes, without the libraries below it.
DELIVERY_FILES = ("deliver.py", "payload.py", "plan.py", "db.py", "claim.py", "pauses.py")
DELIVERY_FUNCTIONS = (
    ("connectwise.py", "create_addition"),
    ("connectwise.py", "patch_addition"),
    ("connectwise.py", "_write"),
    ("http.py", "send"),
)


@dataclass(frozen=True)
class Ended:
    """How a worker ended: exit status (None: it stopped itself), traced lines, the step it was at, what it raised."""

    status: int | None
    lines: int
    step: str
    error: str
    marks: list[int]


class Workers:
    """The process that forks workers (worker.py)."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "campaign.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # The same order of sets in each: line k is the same line.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "0"},
        )

    def start(self, pipeline: Pipeline, task: str, **order: Any) -> int:
        """Start a worker on a pipeline; returns its pid."""
        given = {"dsn": pipeline.dsn, "url": pipeline.sandbox.url, **order}
        return int(self._ask(do="start", task=task, **given)["pid"])

    def wait(self, pid: int) -> Ended:
        """Until it ends or stops itself."""
        answer = self._ask(do="wait", pid=pid)
        return Ended(answer["status"], answer["lines"], answer["step"], answer["error"], answer["marks"])

    def _ask(self, **order: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


@dataclass
class Lane:
    """One process of the campaign: runs one trial after the other."""

    directory: Path
    workers: Workers = field(default_factory=Workers)
    since: int = 0  # requests of the sandbox before the trial

    @contextmanager
    def copy(self, world: World) -> Iterator[Pipeline]:
        """A copy of a world for one trial."""
        pipeline = world.prepared.copy(self.directory)
        self.since = pipeline.sandbox.health()["requests"]
        try:
            yield pipeline
        finally:
            world.prepared.discard(pipeline)

    def deliver(self, pipeline: Pipeline, world: World, protocol: str, **order: Any) -> int:
        """Start a worker that delivers the world's plan."""
        traced: dict[str, Any] = {"files": ["controls.py"]}
        if protocol == "ours":
            traced = {"files": DELIVERY_FILES, "functions": DELIVERY_FUNCTIONS}
        return self.workers.start(
            pipeline, "deliver", protocol=protocol, plan_id=world.prepared.plan_id, **traced, **order
        )


# -- recovery ----------------------------------------------------------------------------------------------------------


def finish(
    lane: Lane,
    pipeline: Pipeline,
    world: World,
    protocol: str = "ours",
    *,
    killed_at: float | None = None,
    with_night: bool = True,
) -> Figures:
    """The world goes well again and the run goes on, as Airflow would try it; it is run again; then the verdict.

    killed_at   when a worker was killed (time.perf_counter); the recovery time is measured from then
    with_night  after the plan was delivered once more, also a whole further night
    """
    pipeline.sandbox.clear_faults()
    resume = _resume if protocol == "ours" else _resume_control
    figures, problems = Figures(trials=1), []
    if error := resume(pipeline, world, protocol):
        figures.in_doubt = 1
        problems.append(f"not proven: {error}")
    elif killed_at is not None:
        figures.recovery.append(time.perf_counter() - killed_at)
    figures += count_faulty(pipeline, lane.since)
    pipeline.sandbox.release_late()
    if protocol == "ours" and not problems:
        problems += neutralise(pipeline, lambda: pipeline.night(world.month))
        figures.rerun_writes = writes_of(pipeline, lambda: pipeline.deliver(world.prepared.plan_id))
        if with_night:
            figures.reruns = 1
            figures.rerun_writes += writes_of(pipeline, lambda: pipeline.night(world.month))
        if figures.rerun_writes:
            problems.append(f"running again wrote {figures.rerun_writes} times")
    verdict = judge(pipeline.sandbox, world.held)
    problems += verdict.problems()
    if verdict.orphans_neutralised < verdict.orphans:
        problems.append(f"{verdict.orphans - verdict.orphans_neutralised} orphans are not neutralised")
    if problems and protocol == "ours":
        figures.failures.append("; ".join(problems))
    return figures + verdict.figures()


def _resume(pipeline: Pipeline, world: World, protocol: str) -> str:
    """Try until the run is proven; what was refused or changed on the way is let go on by a person. Returns why not."""
    error: Exception | None = None
    run_id = world.prepared.run_id
    for _ in range(TRIES):
        try:
            pipeline.finish(run_id)
            error = None
        except ProofError as failed:
            error = failed
        except (BillingSyncError, psycopg.Error) as failed:
            error = failed
            time.sleep(PAUSE)
            continue
        if not _person_acts(pipeline):
            return str(error or "")
        run_id = pipeline.plan_night(world.month)[0]
    return f"tried {TRIES} times; {error}"


def _person_acts(pipeline: Pipeline) -> bool:
    """What a lie of the sandbox (400) set aside is let go on; whether there was anything."""
    stuck = pipeline.rows(
        """
        select delivery_key from delivery.addition
        where state in ('refused', 'conflict') and payload_hash <> '' and problem not like '%%inactive%%'
        """
    )
    for (delivery_key,) in stuck:
        retry_addition(pipeline.connection, delivery_key, "tests")
    if stuck:
        for pause in active_pauses(pipeline.connection):
            end_pause(pipeline.connection, "tests", pause["company_id"])
    return bool(stuck)


def neutralise(pipeline: Pipeline, night: Callable[[], object]) -> list[str]:
    """Orphans that came, or became known, after the delivery: the next nights neutralise them, and write nothing else.

    The proof of one night may find an orphan that the next one neutralises. Returns what is wrong.
    """
    problems = []
    for _ in range(2):
        orphans, neutralised = orphans_of(pipeline.sandbox)
        if orphans == neutralised:
            break
        writes = writes_of(pipeline, night)
        if writes > orphans - neutralised:
            problems.append(f"{writes} writes to neutralise {orphans - neutralised} orphans")
    return problems


def _resume_control(pipeline: Pipeline, world: World, protocol: str) -> str:
    error: Exception | None = None
    plan_id = world.prepared.plan_id
    # A person lets be tried again what ConnectWise refused.
    pipeline.connection.execute("update delivery.plan_item set state = 'pending' where state = 'refused'")
    for _ in range(TRIES):
        error = None
        for shard in shards_to_deliver(pipeline.connection, plan_id):
            with connect(pipeline.dsn) as connection:
                try:
                    CONTROLS[protocol](connection, pipeline.connectwise(), plan_id).deliver_shard(shard)
                except BillingSyncError as failed:
                    error = failed
        if error is None:
            return ""
    return str(error)


def writes_of(pipeline: Pipeline, work: Callable[[], object]) -> int:
    """How many writes ConnectWise got from some work."""
    since = pipeline.sandbox.health()["requests"]
    work()
    return int(pipeline.sandbox.writes(since)["received"])


# -- many trials -------------------------------------------------------------------------------------------------------

Trial = tuple[str, dict[str, Any]]  # its name, and what its function takes
_lane: Lane | None = None


def run_trials(
    config: Config, part: str, function: Callable[..., Figures], world: World, trials: Sequence[Trial]
) -> Figures:
    """Run function(lane, world, **arguments) for each trial, several at a time; figures are added up.

    With config.workers 0 in this process, one by one: for trials that share something with it.
    """
    chosen = [trial for trial in trials if config.wants(trial[0])]
    if not chosen:
        return Figures()
    total, done, told = Figures(), 0, time.monotonic()
    chunks = [chosen[start : start + CHUNK] for start in range(0, len(chosen), CHUNK)]
    if config.workers not in config.pools:
        config.pools[config.workers] = _executor(config)
    pool = config.pools[config.workers]
    futures = {pool.submit(_run, function, world, chunk): len(chunk) for chunk in chunks}
    for future in as_completed(futures):
        total += future.result()
        done += futures[future]
        if time.monotonic() - told > PROGRESS_EVERY or done == len(chosen):
            told = time.monotonic()
            config.say(
                f"{part}: {done} of {len(chosen)} trials, {total.duplicates} duplicates, {len(total.failures)} failures"
            )
    total.failures = [
        f"{found} (again: make prove SEED={config.seed} ARGS=\"--part {part} --only '{name}'\")"
        for name, _, found in (text.partition("\n") for text in total.failures)
    ]
    return total


CHUNK = 5
PROGRESS_EVERY = 10.0  # seconds


def _executor(config: Config) -> Executor:
    if not config.workers:
        return ThreadPoolExecutor(1, initializer=begin, initargs=(config.directory,))
    return ProcessPoolExecutor(
        config.workers, mp_context=get_context("spawn"), initializer=_begin_apart, initargs=(config.directory,)
    )


def begin(directory: Path) -> None:
    """Before the first trial of a process (or thread) that runs them."""
    global _lane
    _lane = Lane(directory)


def _begin_apart(directory: Path) -> None:
    die_with_parent()
    logging.disable(logging.CRITICAL)  # thousands of warnings about faults that are meant
    begin(directory)


def _run(function: Callable[..., Figures], world: World, trials: Sequence[Trial]) -> Figures:
    assert _lane is not None
    total = Figures()
    for name, arguments in trials:
        try:
            figures = function(_lane, world, **arguments)
        except Exception as error:  # noqa: BLE001  (one trial's end is not the campaign's)
            figures = Figures(trials=1, failures=[f"{type(error).__name__}: {error}"])
        figures.failures = [f"{name}\n{failure}" for failure in figures.failures]
        total += figures
    return total
