"""A run as the DAG sync_verified_invoices makes it: task by task, each on a new connection, each tried again.

Needs an address of the billing database and of the sandbox only, so that it also works in a process of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, TypeVar

from pipeline import PATIENCE

from billing_sync.appxite import AppXite
from billing_sync.connectwise import ConnectWise
from billing_sync.db import Connection, connect, run_sql_file
from billing_sync.decide import STEPS
from billing_sync.deliver import Deliverer
from billing_sync.errors import PermanentError
from billing_sync.extract import extract_appxite_reference, extract_connectwise_reference, extract_invoices
from billing_sync.plan import approve_automatically, plan_of_run, shards_to_deliver
from billing_sync.prove import prove
from billing_sync.run import finish_run, open_run
from sandbox.messages import Credentials

T = TypeVar("T")


@dataclass
class Tasks:
    """Runs tasks as Airflow does. failures: every try that failed, "task: error"."""

    dsn: str
    url: str
    tries: int = 4
    wait: float = 0.0
    failures: list[str] = field(default_factory=list)
    keys: Credentials = field(default_factory=Credentials)

    def appxite(self) -> AppXite:
        return AppXite(self.url, self.keys.requester_id, self.keys.sas_key, limits=PATIENCE)

    def connectwise(self, *, read_only: bool = False) -> ConnectWise:
        return ConnectWise(
            self.url, self.keys.company_id, self.keys.public_key, self.keys.private_key, self.keys.client_id,
            read_only=read_only, limits=PATIENCE,
        )  # fmt: skip

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

    # -- the run -------------------------------------------------------------------------------------------------

    def stage_and_decide(self, kind: Any, periods: Sequence[date], dag_run_id: str) -> int:
        """Open the run, stage both sides, decide, plan, and approve the plan. Returns the run's id."""
        run_id = self.task(
            "open_run",
            lambda connection: open_run(
                connection,
                dag_id="tests",
                dag_run_id=dag_run_id,
                kind=kind,
                billing_periods=periods,
                requester_id=self.keys.requester_id,
            ),
        )
        self.task(
            "extract_appxite", lambda connection: extract_appxite_reference(connection, self.appxite(), run_id)
        )
        self.task(
            "extract_connectwise",
            lambda connection: extract_connectwise_reference(connection, self.connectwise(read_only=True), run_id),
        )
        for period in periods:
            self.task(
                f"extract_invoices {period:%Y-%m}",
                lambda connection, period=period: extract_invoices(connection, self.appxite(), run_id, period),  # type: ignore[misc]
            )
        for step in STEPS:
            self.task(step, lambda connection, step=step: run_sql_file(connection, step, run_id))  # type: ignore[misc]
        self.task("approve_plan", lambda connection: approve_automatically(connection, run_id))
        return run_id

    def deliver_and_prove(self, run_id: int) -> str:
        """Deliver the run's plan shard by shard, prove, close the run. Returns its state.

        As in Airflow, a shard that fails does not stop the others, and closes the run as failed, unproven.
        """
        failed: Exception | None = None
        plan_id = self.task("list_shards", lambda connection: plan_of_run(connection, run_id))
        shards = self.task("list_shards", lambda connection: shards_to_deliver(connection, plan_id))
        for shard in shards:
            try:
                self.task(
                    f"deliver_shard {shard}",
                    lambda connection, shard=shard: Deliverer(connection, self.connectwise(), plan_id).deliver_shard(shard),  # type: ignore[misc]  # noqa: E501
                )
            except Exception as error:  # noqa: BLE001
                failed = error
        try:
            if failed is None:
                self.task("prove", lambda connection: prove(connection, self.connectwise(read_only=True), run_id))
        except Exception as error:  # noqa: BLE001
            failed = error
        return self.task("close_run", lambda connection: finish_run(connection, run_id, is_failed=failed is not None))

    def run(self, kind: Any, periods: Sequence[date], dag_run_id: str) -> str:
        """A whole run; returns its state."""
        return self.deliver_and_prove(self.stage_and_decide(kind, periods, dag_run_id))
