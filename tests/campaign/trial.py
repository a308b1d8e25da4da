"""One trial: a copy of a world, workers that are killed, stopped or overlap, the recovery, the verdict."""

from __future__ import annotations

import json
import logging
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from pipeline import PATCH, POST, Pipeline

from billing_sync.db import connect
from billing_sync.errors import BillingSyncError, ProofError
from billing_sync.plan import plan_of_run, retry_addition, shards_to_deliver
from campaign.checker import judge
from campaign.controls import CONTROLS
from campaign.report import Config, Figures
from campaign.worlds import World

TRIES = 8
PROTOCOLS = ("ours", *CONTROLS)

# The code that a delivering task runs, apart from the HTTP client and libraries below it.
DELIVERY_FILES = ("deliver.py", "payload.py", "plan.py", "db.py", "claim.py", "pauses.py")


@dataclass(frozen=True)
class Ended:
    """How a worker ended: exit status (None: it stopped itself), traced lines, the step it was at, what it raised."""

    status: int | None
    lines: int
    step: str
    error: str


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
        return Ended(answer["status"], answer["lines"], answer["step"], answer["error"])

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

    @contextmanager
    def copy(self, world: World) -> Iterator[Pipeline]:
        """A copy of a world for one trial."""
        pipeline = world.prepared.copy(self.directory)
        try:
            yield pipeline
        finally:
            world.prepared.discard(pipeline)

    def deliver(self, pipeline: Pipeline, world: World, protocol: str, **order: Any) -> int:
        """Start a worker that delivers the world's plan."""
        files = DELIVERY_FILES if protocol == "ours" else ("controls.py",)
        return self.workers.start(
            pipeline, "deliver", protocol=protocol, plan_id=world.prepared.plan_id, files=files, **order
        )


# -- faulty answers ----------------------------------------------------------------------------------------------------

FAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "lost reply": ("lost_reply", {}),
    "lost reply, reset": ("lost_reply", {"reset": True}),
    "late": ("late", {"delay": 0.1}),
    "500 after applying": ("status_after", {"status": 500}),
    "500": ("status", {"status": 500}),
    "reset": ("reset", {}),
    "429": ("status", {"status": 429, "headers": {"Retry-After": "0"}}),
    "401": ("status", {"status": 401}),
    "400": ("status", {"status": 400}),
    "truncated": ("truncated", {}),
    "invalid JSON": ("invalid_json", {}),
}
AMBIGUOUS = ("lost_reply", "late", "status_after", "reset", "truncated", "invalid_json")


def add_faults(pipeline: Pipeline, seed: object, share: float = 0.35) -> None:
    """Spoil a share of all writes, each kind of fault alike; how late a late one is applied varies."""
    chance = random.Random(f"faults/{seed}")
    for where in (POST, PATCH):
        left = 1.0
        names = list(FAULTS)
        chance.shuffle(names)
        for name in names:
            kind, params = FAULTS[name]
            if kind == "late":
                params = {"delay": chance.uniform(0.005, 0.3)}
            # The first rule that fires wins: those that come later see only what the earlier ones left.
            each = share / len(FAULTS)
            pipeline.sandbox.add_fault(
                kind, **where, probability=each / left, seed=chance.randrange(10**9), params=params
            )
            left -= each


def writes_of(pipeline: Pipeline) -> Figures:
    """How many writes got a faulty answer."""
    writes = [one for one in pipeline.sandbox.requests(service="connectwise") if one["method"] in ("POST", "PATCH")]
    faulty = [one for one in writes if one["fault"] not in (None, "delay")]
    return Figures(
        faulty_writes=len(faulty),
        ambiguous_replies=sum(one["fault"] in AMBIGUOUS or one["status"] == 500 for one in faulty),
        late_writes=sum(one["fault"] == "late" for one in faulty),
    )


# -- recovery ----------------------------------------------------------------------------------------------------------


def finish(pipeline: Pipeline, world: World, protocol: str = "ours", *, since: float | None = None) -> Figures:
    """The world goes well again and the run goes on, as Airflow would try it; then one more night; then the verdict.

    since: when a worker was killed (time.perf_counter); the recovery time is measured from then.
    """
    pipeline.sandbox.clear_faults()
    resume = _resume if protocol == "ours" else _resume_control
    figures, problems = Figures(trials=1), []
    if error := resume(pipeline, world, protocol):
        figures.in_doubt = 1
        problems.append(f"not proven: {error}")
    elif since is not None:
        figures.recovery.append(time.perf_counter() - since)
    pipeline.sandbox.release_late()
    figures += writes_of(pipeline)
    if protocol == "ours" and not problems:
        figures.rerun_writes = _rerun(pipeline, world)
        if figures.rerun_writes:
            problems.append(f"a further run wrote {figures.rerun_writes} times")
    verdict = judge(pipeline.sandbox, world.held)
    problems += verdict.problems()
    if problems and protocol == "ours":
        figures.failures.append("; ".join(problems))
    return figures + verdict.figures()


def _resume(pipeline: Pipeline, world: World, protocol: str) -> str:
    """Try until the run is proven; what was refused or changed on the way is let go on by a person. Returns why not."""
    error: BillingSyncError | None = None
    run_id = world.prepared.run_id
    for _ in range(TRIES):
        try:
            pipeline.finish(run_id)
        except ProofError as failed:
            return str(failed)
        except BillingSyncError as failed:
            error = failed
            continue
        stuck = pipeline.rows(
            """
            select delivery_key from delivery.addition join delivery.attempt using (delivery_key)
            where state in ('refused', 'conflict') and attempt.outcome = 'fail' and problem not like '%%inactive%%'
            group by 1
            """
        )
        if not stuck:
            return ""
        for (delivery_key,) in stuck:  # a lie of the sandbox (400): a person lets it be tried again
            retry_addition(pipeline.connection, delivery_key, "tests")
        run_id = pipeline.plan_night(world.month)[0]
    return f"tried {TRIES} times; {error}"


def _resume_control(pipeline: Pipeline, world: World, protocol: str) -> str:
    error: BillingSyncError | None = None
    plan_id = world.prepared.plan_id
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


def _rerun(pipeline: Pipeline, world: World) -> int:
    """A further night over what is delivered; returns how many writes ConnectWise got."""
    since = pipeline.sandbox.health()["requests"]
    run_id, _ = pipeline.plan_night(world.month)
    assert plan_of_run(pipeline.connection, run_id)
    pipeline.finish(run_id)
    return int(pipeline.sandbox.writes(since)["received"])


# -- many trials -------------------------------------------------------------------------------------------------------

Trial = tuple[str, dict[str, Any]]  # its name, and what its function takes
_lane: Lane | None = None


def run_trials(
    config: Config, part: str, function: Callable[..., Figures], world: World, trials: Sequence[Trial]
) -> Figures:
    """Run function(lane, world, **arguments) for each trial, several at a time; figures are added up."""
    chosen = [trial for trial in trials if config.wants(trial[0])]
    if not chosen:
        return Figures()
    total, done, told = Figures(), 0, time.monotonic()
    chunks = [chosen[start : start + CHUNK] for start in range(0, len(chosen), CHUNK)]
    with ProcessPoolExecutor(
        config.workers, mp_context=get_context("spawn"), initializer=_begin, initargs=(config.directory,)
    ) as pool:
        futures = {pool.submit(_run, function, world, chunk): len(chunk) for chunk in chunks}
        for future in as_completed(futures):
            total += future.result()
            done += futures[future]
            if time.monotonic() - told > PROGRESS_EVERY or done == len(chosen):
                told = time.monotonic()
                config.say(f"{part}: {done} of {len(chosen)} trials, {total.duplicates} duplicates")
    total.failures = [
        f"{found} (again: make prove SEED={config.seed} ARGS='--part {part} --only {name!r}')"
        for name, _, found in (text.partition("\n") for text in total.failures)
    ]
    return total


CHUNK = 5
PROGRESS_EVERY = 10.0  # seconds


def _begin(directory: Path) -> None:
    global _lane
    logging.disable(logging.CRITICAL)  # thousands of warnings about faults that are meant
    _lane = Lane(directory)


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
