"""What can happen between a worker and the billing database: lost acknowledgements, restarts, several runs at once."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipeline import NOV, OCT, Pipeline

from billing_sync.db import connect
from billing_sync.errors import BillingSyncError
from campaign.answers import LIES, count_faulty, mix_faults
from campaign.checker import judge
from campaign.postgres_proxy import Cut, PostgresProxy
from campaign.report import Config, Figures, part
from campaign.tasks import Tasks
from campaign.trial import Lane, Trial, begin, neutralise, run_trials, writes_of
from campaign.worlds import World, world_of
from local_stack.ports import free_port
from local_stack.postgres import Postgres, stop_server


def settled(pipeline: Pipeline, world: World) -> Figures:
    """The verdict over a pipeline whose runs should be over: whether a further night writes, or is not proven."""
    figures, problems = Figures(trials=1, reruns=1), []
    try:
        problems += neutralise(pipeline, lambda: pipeline.night(world.month))
        figures.rerun_writes = writes_of(pipeline, lambda: pipeline.night(world.month))
    except BillingSyncError as error:
        figures.in_doubt = 1
        problems.append(f"not proven: {error}")
    if figures.rerun_writes:
        problems.append(f"a further run wrote {figures.rerun_writes} times")
    verdict = judge(pipeline.sandbox, world.held)
    problems += verdict.problems()
    if verdict.orphans_neutralised < verdict.orphans:
        problems.append(f"{verdict.orphans - verdict.orphans_neutralised} orphans are not neutralised")
    if problems:
        figures.failures.append("; ".join(problems))
    return figures + verdict.figures()


# -- lost acknowledgements ---------------------------------------------------------------------------------------------

Work = Callable[[Tasks, World], str]
QUICK_CUTS = 5


def stage(tasks: Tasks, world: World) -> str:
    """From the opened run to its end."""
    return tasks.run("nightly", [OCT, NOV], f"run_{world.prepared.run_id}")


def deliver(tasks: Tasks, world: World) -> str:
    """From the approved plan to the end of its run."""
    return tasks.deliver_and_prove(world.prepared.run_id)


def round_trips_of_staging(lane: Lane, world: World) -> Figures:
    """How many there are until the plan is approved, when nothing goes wrong."""
    with lane.copy(world) as pipeline, PostgresProxy(pipeline.dsn) as proxy:
        tasks = Tasks(pipeline, proxy.through(pipeline.dsn))
        run_id = tasks.open("nightly", [OCT, NOV], f"run_{world.prepared.run_id}")
        tasks.stage_and_decide(run_id, [OCT, NOV])
        tasks.approve(run_id)
        return Figures(points={"database round trips, staging": proxy.round_trips})


def round_trips_of_delivery(lane: Lane, world: World) -> Figures:
    """How many there are from the approved plan to the end, when nothing goes wrong."""
    with lane.copy(world) as pipeline, PostgresProxy(pipeline.dsn) as proxy:
        deliver(Tasks(pipeline, proxy.through(pipeline.dsn)), world)
        return Figures(points={"database round trips, delivery": proxy.round_trips})


def cut_connection(lane: Lane, world: World, *, work: Work, at: int, cut: Cut) -> Figures:
    """Cut the worker's connection at one round trip; its tasks are tried again; judge."""
    with lane.copy(world) as pipeline, PostgresProxy(pipeline.dsn) as proxy:
        tasks = Tasks(pipeline, proxy.through(pipeline.dsn))
        proxy.arm(at, cut)
        began = time.perf_counter()
        state = work(tasks, world)
        took = time.perf_counter() - began
        figures = settled(pipeline, world)
        figures.recovery = [took]
        if cut is Cut.AFTER:
            figures.lost_commits = 1
            figures.covered = {f"database round trips, {'staging' if work is stage else 'delivery'}": 1}
        if state != "succeeded":
            figures.failures.append(f"the run is {state} after {proxy.statement!r} was cut: {tasks.failures}")
        if not tasks.failures:
            figures.failures.append("nothing was cut")
        return figures


@part("acknowledgements")
def lost_acknowledgements(config: Config) -> Figures:
    """The database does what it was asked and the worker never hears of it, at every round trip; then a new try."""
    total = Figures()
    for world, work, count, cuts in (
        # Staging touches nothing but the database: what never arrives is what comes after the one whose reply is lost.
        (world_of(config, "everything_to_stage"), stage, round_trips_of_staging, (Cut.AFTER,)),
        (world_of(config, "everything"), deliver, round_trips_of_delivery, (Cut.AFTER, Cut.BEFORE)),
    ):
        counted = run_trials(replace(config, only=""), "acknowledgements", count, world, [("count", {})])
        (round_trips,) = counted.points.values()
        moments: Sequence[int] = range(1, round_trips + 1)
        if config.quick:
            moments = random.Random(config.seed).sample(moments, k=QUICK_CUTS)
        trials: list[Trial] = [
            (f"{work.__name__}/{at}/{cut.name}", {"work": work, "at": at, "cut": cut}) for cut in cuts for at in moments
        ]
        total += counted + run_trials(config, "acknowledgements", cut_connection, world, trials)
    return total


# -- restarts ----------------------------------------------------------------------------------------------------------

RANDOM_RESTARTS, QUICK_RESTARTS = 24, 3


class CrashingServer:
    """A PostgreSQL of its own that can be made to die; it comes back at once, on the same port."""

    def __init__(self, home: Path) -> None:
        self.postgres = Postgres(home, password="campaign", port=free_port(), durable=False)
        self._coming_back = threading.Thread(target=self.postgres.start)
        self._guard = threading.Lock()

    def __enter__(self) -> Self:
        self._coming_back.start()
        self.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wait()
        self.postgres.stop()

    def wait(self) -> None:
        """Until it is there."""
        self._coming_back.join()

    def crash(self) -> None:
        """Returns when the server is gone."""
        with self._guard:
            self.wait()
            assert stop_server(self.postgres.data, as_in_a_crash=True), "the server did not come back"
            self._coming_back = threading.Thread(target=self.postgres.start)
            self._coming_back.start()


@contextmanager
def on_requests(pipeline: Pipeline, act: Callable[[int], None]) -> Iterator[None]:
    """Calls `act` with the number of each request (1, 2, ...) when it comes in, before the sandbox looks at it."""
    answer, guard, seen = pipeline.sandbox.answer, threading.Lock(), 0

    def hooked(request: Any) -> Any:
        nonlocal seen
        with guard:
            seen += 1
            number = seen
        act(number)
        return answer(request)

    pipeline.sandbox.answer = hooked  # type: ignore[method-assign]
    try:
        yield
    finally:
        del pipeline.sandbox.answer


def restart(lane: Lane, world: World, *, server: CrashingServer, moments: Sequence[int]) -> Figures:
    """The database dies when the chosen requests to ConnectWise arrive; the tasks are tried again; judge."""
    crashes = []

    def crash(number: int) -> None:
        if number in moments:
            server.crash()
            crashes.append(number)

    with lane.copy(world) as pipeline:
        try:
            # In a copied database a sequence may hand out numbers that no log entry reserved, until a checkpoint.
            pipeline.connection.execute("checkpoint")
            pipeline.sandbox.add_fault("delay", service="connectwise", probability=0.3, params={"seconds": 0.05})
            tasks = Tasks(pipeline, pipeline.dsn, tries=20, wait=0.2, shards_at_once=4)
            began = time.perf_counter()
            with on_requests(pipeline, crash):
                state = tasks.deliver_and_prove(world.prepared.run_id)
            took = time.perf_counter() - began
            pipeline.sandbox.clear_faults()
        finally:
            server.wait()
        pipeline.connection = connect(pipeline.dsn, user="tests")  # the old one died with the server
        figures = settled(pipeline, world)
        figures.restarts, figures.recovery = len(crashes), [took] * bool(crashes)
        if state != "succeeded":
            figures.failures.append(f"the run is {state}: {tasks.failures}")
        return figures


@part("restarts")
def restarts(config: Config) -> Figures:
    """The database dies without a word (an immediate stop) while workers deliver, at every request to ConnectWise."""
    with CrashingServer(config.directory / "crashing") as server:
        # One server, and its owner is this process: one trial after the other.
        directory = config.directory / "restarts"
        here = ThreadPoolExecutor(1, initializer=begin, initargs=(directory,))
        its = replace(config, postgres=server.postgres, directory=directory, workers=0, worlds={}, pools={0: here})
        world = world_of(its, "everything")
        requests = requests_of_a_delivery(its, world)
        moments = {str(at): [at] for at in range(1, requests + 1)}
        for number in range(RANDOM_RESTARTS):
            chance = random.Random(f"{config.seed}/{number}")
            moments[f"random/{number}"] = chance.sample(range(1, 2 * requests), k=3)
        names = random.Random(config.seed).sample([*moments], k=QUICK_RESTARTS) if config.quick else [*moments]
        trials: list[Trial] = [(name, {"server": server, "moments": moments[name]}) for name in names]
        try:
            return run_trials(its, "restarts", restart, world, trials)
        finally:
            its.close()


def requests_of_a_delivery(config: Config, world: World) -> int:
    """How many ConnectWise gets from the approved plan to the end of the run."""
    pipeline = world.prepared.copy(config.directory)
    try:
        since = pipeline.sandbox.health()["requests"]
        deliver(Tasks(pipeline, pipeline.dsn), world)
        return len(pipeline.sandbox.requests(since, service="connectwise"))
    finally:
        world.prepared.discard(pipeline)


# -- several runs of one period at once --------------------------------------------------------------------------------

AT_ONCE = {"nightly": [OCT, NOV], "manual": [NOV], "backfill": [NOV]}
SEEDS_AT_ONCE, QUICK_SEEDS = 60, 3


def at_once(lane: Lane, world: World, *, seed: str, faults: bool) -> Figures:
    """Three runs that begin a moment apart; those that failed run again; judge."""
    chance = random.Random(seed)
    with lane.copy(world) as pipeline:
        pipeline.sandbox.add_fault("delay", probability=0.3, seed=chance.randrange(10**9), params={"seconds": 0.02})
        if faults:
            mix_faults(pipeline, seed, 0.2, without=LIES)
        orders: list[dict[str, Any]] = [
            {"kind": kind, "periods": [f"{month}" for month in months], "dag_run_id": f"at_once_{kind}", "files": ()}
            for kind, months in AT_ONCE.items()
        ]
        pids = [
            lane.workers.start(pipeline, "run", **order, delay=chance.uniform(0, 0.4), wait=0.1) for order in orders
        ]
        ended = [lane.workers.wait(pid) for pid in pids]
        pipeline.sandbox.clear_faults()
        pipeline.sandbox.release_late()
        figures = Figures(runs_at_once=len(orders), overlaps=int(writing_runs(pipeline) > 1))
        for order, end in zip(orders, ended, strict=True):
            if end.status:
                figures.failures.append(f"{order['kind']}: {end.error}")
            elif end.error:  # failed, with a clear temporary error: Airflow's user clears the tasks
                again = lane.workers.wait(lane.workers.start(pipeline, "run", **order))
                if again.status or again.error:
                    figures.failures.append(f"{order['kind']} run again: {again.error}, after {end.error}")
        return figures + count_faulty(pipeline, lane.since) + settled(pipeline, world)


def writing_runs(pipeline: Pipeline) -> int:
    """How many of the plans sent a write."""
    return int(pipeline.value("select count(distinct plan_id) from delivery.attempt"))


@part("runs_at_once")
def runs_at_once(config: Config) -> Figures:
    """A nightly, a manual and a backfill run of one period, each a process, from extract to proof at the same time."""
    trials: list[Trial] = [
        (str(number), {"seed": f"{config.seed}/{number}", "faults": bool(number % 2)})
        for number in range(QUICK_SEEDS if config.quick else SEEDS_AT_ONCE)
    ]
    return run_trials(config, "runs_at_once", at_once, world_of(config, "everything_to_stage"), trials)
