"""A real Airflow that runs two tries of one task at the same time, as Airflow does when a supervisor is lost.

The supervisor is the process that forked the task: it heartbeats for it. While a `deliver_shard` task writes, its
supervisor is killed, or frozen, or frozen together with its task. The scheduler misses the heartbeats and starts the
next try; what was frozen wakes up beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import psutil
from pipeline import NOV, PATCH, POST, Pipeline, recurring
from real_airflow import RealAirflow, connections_to, real_airflow

from billing_sync.db import connect
from billing_sync.migrate import migrate
from campaign.checker import judge
from campaign.report import Config, Figures, part
from sandbox.server import Sandbox

if TYPE_CHECKING:
    from local_stack.airflow_api import Json

DAG, PERIOD = "sync_verified_invoices", "2026-11"
CUSTOMERS = 13
WRITE_SECONDS = 1.0  # how long the sandbox takes for a write
SILENT_SECONDS = 3.0  # a worker without an attempt for so long is not at work
WRITES_BESIDE = 4  # that each of two tries sends while the other one is at work
SCENARIO_SECONDS, RUN_SECONDS = 120.0, 300.0
DIES_WITHIN = 5.0  # seconds, of a task whose supervisor was killed

OPTIONS = {
    "scheduler": {
        "task_instance_heartbeat_timeout": 10,
        "task_instance_heartbeat_timeout_detection_interval": 1,
        "use_job_schedule": False,
    },
    "workers": {"min_heartbeat_interval": 1},
}
# Airflow's own place for a deployment's policies. A lease is shorter here, or the takeover would take two minutes.
LOCAL_SETTINGS = """
from datetime import timedelta
from billing_sync import deliver

deliver.LEASE_SECONDS, deliver.LOCK_WAIT = 5.0, "1s"

def task_policy(task):
    task.retries = 20
    task.retry_delay = task.max_retry_delay = timedelta(seconds=1)
"""


@dataclass
class Attempt:
    """A row of delivery.attempt."""

    worker: str
    outcome: str
    at: datetime

    @property
    def process(self) -> int:
        return int(self.worker.rpartition(":")[2])


@dataclass
class Shard:
    """A shard of the plan, as seen in the billing database from outside."""

    dsn: str
    number: int

    def attempts(self) -> list[Attempt]:
        """Oldest first."""
        with connect(self.dsn) as connection:
            rows = connection.execute(
                """
                select attempt.worker, attempt.outcome, attempt.attempted_at
                from delivery.attempt join delivery.addition using (delivery_key)
                where delivery.shard_of(addition.agreement_id) = %s
                order by attempt.attempt_id
                """,
                [self.number],
            )
            return [Attempt(*row) for row in rows]

    def writes_of(self, worker: str) -> int:
        """Writes that a worker has sent."""
        return sum(one.outcome == "invoke" and one.worker == worker for one in self.attempts())

    def writes_of_others(self, worker: str) -> int:
        """Writes that all other workers have sent."""
        return sum(one.outcome == "invoke" and one.worker != worker for one in self.attempts())


@dataclass
class Seen:
    """What a scenario saw. worker: the first try."""

    shard: Shard
    worker: str = ""
    stops: int = 0
    kills: int = 0
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


# -- processes ---------------------------------------------------------------------------------------------------------


def is_alive(process: psutil.Process) -> bool:
    """Whether it can still do something; a zombie cannot."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    return False


def seconds_until(ready: Callable[[], bool], what: str, *, limit: float = SCENARIO_SECONDS) -> float:
    """Wait; returns how long it took."""
    began = time.monotonic()
    while not ready():
        if time.monotonic() - began > limit:
            raise TimeoutError(f"{what}: not within {limit:.0f} seconds")
        time.sleep(0.1)
    return time.monotonic() - began


@contextmanager
def frozen(*processes: psutil.Process) -> Iterator[None]:
    """SIGSTOP; whatever happens, they wake up at the end."""
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()


def at_work(shard: Shard) -> tuple[Seen, psutil.Process, psutil.Process]:
    """The shard's worker once it has begun to write: what is seen of it, its process and its supervisor."""
    seconds_until(lambda: len(shard.attempts()) > 2, f"the delivery of shard {shard.number}", limit=RUN_SECONDS)
    newest = shard.attempts()[-1]
    task = psutil.Process(newest.process)
    supervisor = task.parent()
    if supervisor is None or "LocalExecutor" not in " ".join(supervisor.cmdline()):
        raise RuntimeError(f"{supervisor} is not a worker of the LocalExecutor")
    return Seen(shard, newest.worker), task, supervisor


# -- the scenarios -----------------------------------------------------------------------------------------------------


def supervisor_killed(shard: Shard) -> Seen:
    """SIGKILL of the supervisor: the task dies with it, and the next try resumes."""
    seen, task, supervisor = at_work(shard)
    supervisor.kill()
    lived_on = seconds_until(lambda: not is_alive(task), "the task of a killed supervisor ends")
    taken_over = seconds_until(lambda: shard.writes_of_others(seen.worker) > 0, "the next try writes")
    seen.kills = 1
    seen.notes.append(f"its task lived on for {lived_on:.2f} s; the next try wrote {taken_over:.0f} s after that")
    if lived_on > DIES_WITHIN:
        seen.failures.append(f"the task lived on for {lived_on:.1f} s after its supervisor was killed")
    return seen


def supervisor_frozen(shard: Shard) -> Seen:
    """SIGSTOP of the supervisor: its task goes on beside the next try, until the woken supervisor ends it."""
    seen, task, supervisor = at_work(shard)
    with frozen(supervisor):
        taken_over = seconds_until(lambda: shard.writes_of_others(seen.worker) > 0, "the next try writes")
        first, others = shard.writes_of(seen.worker), shard.writes_of_others(seen.worker)
        seconds_until(
            lambda: (
                shard.writes_of(seen.worker) >= first + WRITES_BESIDE
                and shard.writes_of_others(seen.worker) >= others + WRITES_BESIDE
            ),
            "both tries write",
        )
    ended = seconds_until(lambda: not is_alive(task), "the woken supervisor ends its task")
    seen.stops = 1
    seen.notes.append(f"the next try wrote after {taken_over:.0f} s; woken, it ended its task within {ended:.1f} s")
    return seen


def both_frozen(shard: Shard) -> Seen:
    """SIGSTOP of supervisor and task: the next try takes over the agreement, then both wake up."""
    seen, task, supervisor = at_work(shard)
    with frozen(supervisor):
        with frozen(task):
            first = shard.writes_of(seen.worker)
            taken_over = seconds_until(
                lambda: shard.writes_of_others(seen.worker) >= WRITES_BESIDE, "the next try writes"
            )
        # The task a little before its supervisor, which ends it as soon as it wakes.
        seconds_until(lambda: shard.writes_of(seen.worker) >= first + WRITES_BESIDE, "the woken try writes again")
    ended = seconds_until(lambda: not is_alive(task), "the woken supervisor ends its task")
    seen.stops = 1
    seen.notes.append(f"taken over after {taken_over:.0f} s; once both were awake, the task ended within {ended:.1f} s")
    return seen


# The customers whose agreements each scenario is about (they share a shard), and how many lines each is billed.
SCENARIOS: dict[str, tuple[Callable[[Shard], Seen], dict[int, int]]] = {
    "supervisor killed": (supervisor_killed, {3: 10}),
    "supervisor frozen": (supervisor_frozen, {2: 40, 6: 40}),
    "supervisor and task frozen": (both_frozen, {5: 40, 10: 40}),
}


def play(act: Callable[[Shard], Seen], shard: Shard) -> Seen:
    """A scenario; what did not come about is a failure of the campaign."""
    try:
        return act(shard)
    except (TimeoutError, psutil.Error) as error:
        return Seen(shard, failures=[f"{type(error).__name__}: {error}"])


# -- how long both were at work ----------------------------------------------------------------------------------------


def spans(attempts: Sequence[Attempt]) -> list[tuple[datetime, datetime]]:
    """When a worker was at work: from attempt to attempt, as long as they follow each other."""
    found: list[tuple[datetime, datetime]] = []
    for one in attempts:
        if found and one.at - found[-1][1] <= timedelta(seconds=SILENT_SECONDS):
            found[-1] = (found[-1][0], one.at)
        else:
            found.append((one.at, one.at))
    return found


def overlaps(shard: Shard, worker: str) -> list[tuple[datetime, datetime]]:
    """When this worker was at work and another one, too."""
    attempts = shard.attempts()
    mine = spans([one for one in attempts if one.worker == worker])
    theirs = spans([one for one in attempts if one.worker != worker])
    both = [(max(a[0], b[0]), min(a[1], b[1])) for a in mine for b in theirs]
    return [(begin, end) for begin, end in both if begin < end]


def weigh(seen: Seen, sandbox: Sandbox) -> float:
    """Seconds of overlap; notes what each side wrote then, by our attempts and by the sandbox's own request log."""
    times = overlaps(seen.shard, seen.worker)
    seconds = sum((end - begin).total_seconds() for begin, end in times)
    invoked = [one for one in seen.shard.attempts() if one.outcome == "invoke"]
    during = [one.worker == seen.worker for one in invoked if any(begin <= one.at <= end for begin, end in times)]
    came = sum(
        begin <= datetime.fromisoformat(request["at"]) <= end
        for request in sandbox.requests(service="connectwise")
        for begin, end in times
        if request["method"] != "GET"
    )
    if times:
        seen.notes.append(
            f"both tries at work for {seconds:.1f} s: the first sent {sum(during)} writes then, the next "
            f"{len(during) - sum(during)} (of all {came} that ConnectWise got)"
        )
        if came < len(during):
            seen.failures.append(f"{len(during)} writes noted down during the overlap, {came} came in")
    elif seen.stops:
        seen.failures.append("the two tries did not overlap")
    return seconds


# -- the part ----------------------------------------------------------------------------------------------------------


def prepare(dsn: str, sandbox: Sandbox) -> dict[str, Shard]:
    """Mappings, settings and invoices; returns the shard that each scenario is about."""
    sandbox.change_settings(requests_per_minute=1_000_000)
    pipeline = Pipeline(dsn, sandbox)
    pipeline.set_up(requests_per_minute="100000")
    for invoice in sandbox.appxite_invoices():
        sandbox.delete_appxite_invoice(invoice["invoiceId"])
    shards = {}
    for name, (_, customers) in SCENARIOS.items():
        for customer, lines in customers.items():
            rows = [recurring(f"{customer}-{n}", NOV, n + 1, "1.25") for n in range(lines)]
            pipeline.bill(NOV, *rows, customer=customer)
        numbers = {pipeline.value("select delivery.shard_of(%s)", pipeline.agreement(one)) for one in customers}
        assert len(numbers) == 1, (name, numbers)
        shards[name] = Shard(dsn, numbers.pop())
    pipeline.close()
    for write in (POST, PATCH):
        sandbox.add_fault("delay", service="connectwise", **write, params={"seconds": WRITE_SECONDS})
    return shards


def run_to_the_end(running: RealAirflow, run_id: str, figures: Figures) -> None:
    """Follow the run; what failed is cleared, as a person would do it, once."""
    state = running.follow(DAG, run_id, seconds=RUN_SECONDS)
    if state != "success":
        failed: list[Json] = [one for one in running.api.task_instances(DAG, run_id) if one["state"] == "failed"]
        figures.notes.append(f"cleared by hand: {', '.join(sorted({one['task_id'] for one in failed}))}")
        body = {"dag_run_id": run_id, "only_failed": True, "include_downstream": True, "dry_run": False}
        running.api.call("POST", f"/dags/{DAG}/clearTaskInstances", body=body)
        state = running.follow(DAG, run_id, seconds=RUN_SECONDS)
    if state != "success":
        figures.in_doubt += 1
        figures.failures.append(f"the run ended as {state}")


@part("airflow")
def airflow(config: Config) -> Figures:
    """A real Airflow whose supervisors are killed or frozen while their tasks write, so that two tries run at once."""
    if config.quick:
        return Figures(notes=["left out here: it takes minutes"])
    figures = Figures(trials=len(SCENARIOS))
    dsn = config.postgres.create_database("campaign_airflow")
    migrate(dsn)
    with Sandbox(config.directory / "airflow-sandbox", customers=CUSTOMERS) as sandbox:
        shards = prepare(dsn, sandbox)
        with real_airflow(
            config.directory / "airflow",
            config.postgres,
            connections_to(dsn, sandbox),
            options=OPTIONS,
            local_settings=LOCAL_SETTINGS,
        ) as running:
            run_id = running.trigger(DAG, {"billing_periods": [PERIOD]})
            with ThreadPoolExecutor() as threads:
                plays = {name: threads.submit(play, act, shards[name]) for name, (act, _) in SCENARIOS.items()}
            sandbox.clear_faults()  # the rest need not be slow
            run_to_the_end(running, run_id, figures)
            written = sandbox.writes()["received"]
            again = running.trigger(DAG, {"billing_periods": [PERIOD]})
            run_to_the_end(running, again, figures)
            figures.rerun_writes = sandbox.writes()["received"] - written
        for name, ended in plays.items():
            seen = ended.result()
            figures.kills += seen.kills
            figures.stops += seen.stops
            figures.overlap_seconds += weigh(seen, sandbox)
            figures.notes += [f"{name}: {note}" for note in seen.notes]
            figures.failures += [f"airflow, {name}: {failure}" for failure in seen.failures]
        verdict = judge(sandbox)
    config.postgres.drop_database("campaign_airflow")
    return figures + verdict.figures()
