"""A run as the DAG sync_verified_invoices makes it: task by task, each on a new connection, each tried again.

steps.py runs the same steps one by one on one connection; here a lost connection is survived.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from typing import Any, TypeVar

from pipeline import Pipeline

from billing_sync.db import Connection, connect, run_sql_file
from billing_sync.decide import STEPS
from billing_sync.deliver import Deliverer
from billing_sync.errors import PermanentError, TemporaryError
from billing_sync.extract import extract_appxite_reference, extract_connectwise_reference, extract_invoices
from billing_sync.plan import approve_automatically, plan_of_run, run_of_plan, shards_to_deliver
from billing_sync.prove import prove
from billing_sync.run import finish_run, open_run, reopen_run
from campaign.steps import Step

T = TypeVar("T")

CLEAR = ("TemporaryError", "RateLimitedError", "OvertakenError", "InDoubtError", "ProofError", "SourceDataError")


@dataclass
class Tasks:
    """Runs tasks as Airflow does.

    pipeline   whose ConnectWise and AppXite; also one that knows only where the sandbox is (worker.py)
    dsn        of the billing database, by way of a proxy perhaps
    wait       seconds between two tries
    failures   every try that failed, "task: error"
    """

    pipeline: Pipeline
    dsn: str
    tries: int = 4
    wait: float = 0.0
    shards_at_once: int = 1
    failures: list[str] = field(default_factory=list)

    def task(self, name: str, work: Callable[[Connection], T]) -> T:
        """Do some work on a connection of its own; tried again like a task of the DAG (`DEFAULT_ARGS`)."""
        for left in reversed(range(self.tries)):
            try:
                with connect(self.dsn) as connection:
                    return work(connection)
            except Exception as error:
                self.failures.append(f"{name}: {type(error).__name__}: {error}")
                if not left or isinstance(error, PermanentError):
                    raise
            time.sleep(self.wait)
        raise AssertionError("unreachable")

    def unclear(self) -> list[str]:
        """The failures that do not say what to do: an error of a library, of the database, of ours."""
        return [failure for failure in self.failures if failure.split(": ")[1] not in CLEAR]

    # -- the run -------------------------------------------------------------------------------------------------

    def run(self, kind: Any, periods: Sequence[date], dag_run_id: str, *, is_dry_run: bool = False) -> str:
        """A whole run; returns its state."""
        run_id = self.open(kind, periods, dag_run_id, is_dry_run=is_dry_run)
        try:
            self.stage_and_decide(run_id, periods)
            is_approved = self.approve(run_id)
        except Exception:  # noqa: BLE001  (said in failures)
            return self.close(run_id, is_failed=True)
        return self.deliver_and_prove(run_id) if is_approved else self.prove_and_close(run_id)

    def apply(self, plan_id: int) -> str:
        """What the DAG apply_plan does: deliver a plan that a person approved; returns the state of its run."""

        def reopen(connection: Connection) -> int:
            run_id = run_of_plan(connection, plan_id)
            reopen_run(connection, run_id)
            return run_id

        return self.deliver_and_prove(self.task("reopen_run", reopen))

    def open(self, kind: Any, periods: Sequence[date], dag_run_id: str, *, is_dry_run: bool = False) -> int:
        """Open a run, or open it again; returns its id."""
        return self.task(
            "open_run",
            lambda connection: open_run(
                connection,
                dag_id="tests",
                dag_run_id=dag_run_id,
                kind=kind,
                billing_periods=periods,
                is_dry_run=is_dry_run,
                requester_id=self.pipeline.sandbox.credentials.requester_id,
            ),
        )

    def stage_and_decide(self, run_id: int, periods: Sequence[date]) -> None:
        """Stage both sides, decide and plan."""
        self.task(
            "extract_appxite", lambda connection: extract_appxite_reference(connection, self.pipeline.appxite(), run_id)
        )
        self.task(
            "extract_connectwise",
            lambda connection: extract_connectwise_reference(
                connection, self.pipeline.connectwise(read_only=True), run_id
            ),
        )
        for period in periods:
            self.task(
                f"extract_invoices {period:%Y-%m}",
                lambda connection, period=period: extract_invoices(connection, self.pipeline.appxite(), run_id, period),  # type: ignore[misc]
            )
        for step in STEPS:
            self.task(step, lambda connection, step=step: run_sql_file(connection, step, run_id))  # type: ignore[misc]

    def approve(self, run_id: int) -> bool:
        """Approve the run's plan if the settings do; returns whether it is approved."""
        return self.task("approve_plan", lambda connection: approve_automatically(connection, run_id))

    def deliver_and_prove(self, run_id: int) -> str:
        """Deliver the run's approved plan shard by shard, prove, close the run. Returns its state.

        As in Airflow, a shard that fails does not stop the others, and closes the run as failed, unproven.
        """
        plan_id = self.task("plan_of_run", lambda connection: plan_of_run(connection, run_id))
        shards = self.task("list_shards", lambda connection: shards_to_deliver(connection, plan_id))
        with ThreadPoolExecutor(self.shards_at_once) as pool:
            delivered = list(pool.map(lambda shard: self._deliver(plan_id, shard), shards))
        return self.prove_and_close(run_id) if all(delivered) else self.close(run_id, is_failed=True)

    def _deliver(self, plan_id: int, shard: int) -> bool:
        """Whether it went through."""
        try:
            self.task(
                f"deliver_shard {shard}",
                lambda connection: Deliverer(connection, self.pipeline.connectwise(), plan_id).deliver_shard(shard),
            )
        except Exception:  # noqa: BLE001  (said in failures)
            return False
        return True

    def prove_and_close(self, run_id: int) -> str:
        """The end of every run; returns its state."""
        try:
            self.task("prove", lambda connection: prove(connection, self.pipeline.connectwise(read_only=True), run_id))
        except Exception:  # noqa: BLE001  (said in failures)
            return self.close(run_id, is_failed=True)
        return self.close(run_id)

    def close(self, run_id: int, *, is_failed: bool = False) -> str:
        return self.task("close_run", lambda connection: finish_run(connection, run_id, is_failed=is_failed))


def run_steps(pipeline: Pipeline, order: dict[str, Any]) -> list[Step]:
    """For worker.py: a whole run. order: kind, periods, dag_run_id; is_dry_run, tries, wait, delay.

    Raises TemporaryError when the run failed as it may, and RuntimeError when an error was no clear one.
    """

    def run() -> None:
        time.sleep(order.get("delay", 0))
        tasks = Tasks(pipeline, pipeline.dsn, tries=order.get("tries", 4), wait=order.get("wait", 0))
        periods = [date.fromisoformat(period) for period in order["periods"]]
        state = tasks.run(order["kind"], periods, order["dag_run_id"], is_dry_run=order.get("is_dry_run", False))
        unclear = tasks.unclear()
        if unclear:
            raise RuntimeError(f"the run is {state}; {unclear}")
        if state == "failed":
            raise TemporaryError(tasks.failures[-1])

    return [("run", run)]
