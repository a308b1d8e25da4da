"""The whole path in plain Python: what the DAGs do, without Airflow, for tests that need a delivered database."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pandas as pd

from billing_sync.appxite import AppXite
from billing_sync.connectwise import ConnectWise
from billing_sync.db import Connection, connect
from billing_sync.decide import decide
from billing_sync.deliver import Deliverer, DeliveryCounts
from billing_sync.extract import extract_appxite_reference, extract_connectwise_reference, extract_invoices
from billing_sync.mappings import KINDS, import_mappings
from billing_sync.plan import approve_automatically, finish_plan, plan_of_run, shards_to_deliver
from billing_sync.prove import prove
from billing_sync.run import finish_run, nightly_periods, open_run
from billing_sync.settings import set_setting

if TYPE_CHECKING:
    from sandbox.server import Sandbox


@dataclass
class Pipeline:
    """A billing database and a sandbox, and the steps of a run between them."""

    dsn: str
    sandbox: Sandbox
    runs: int = 0
    connection: Connection = field(init=False)

    def __post_init__(self) -> None:
        self.connection = connect(self.dsn, user="tests")

    def appxite(self) -> AppXite:
        """A client of the sandbox's AppXite half."""
        keys = self.sandbox.credentials
        return AppXite(self.sandbox.url, keys.requester_id, keys.sas_key)

    def connectwise(self, *, read_only: bool = False) -> ConnectWise:
        """A client of the sandbox's ConnectWise half."""
        keys = self.sandbox.credentials
        return ConnectWise(
            self.sandbox.url, keys.company_id, keys.public_key, keys.private_key, keys.client_id, read_only=read_only
        )

    def extract(self, run_id: int, periods: list[date]) -> None:
        """Stage both sides."""
        appxite = self.appxite()
        extract_appxite_reference(self.connection, appxite, run_id)
        extract_connectwise_reference(self.connection, self.connectwise(), run_id)
        for period in periods:
            extract_invoices(self.connection, appxite, run_id, period)

    def set_up(self, **settings: str) -> None:
        """What an administrator does once: reference data, mappings, settings."""
        periods = [date(2026, 9, 1), date(2026, 10, 1), date(2026, 11, 1)]
        run_id = self.open("reference", [])
        self.extract(run_id, [])
        decide(self.connection, run_id)
        del periods
        for kind in ("organizations", "offers"):
            self.import_mappings(kind)
        wanted = {
            "default_agreement_type": "Cloud Subscriptions", "automated_daily_sync": "on", "environment": "tests", **settings
        }  # fmt: skip
        for key, value in wanted.items():
            set_setting(self.connection, key, value)

    def import_mappings(self, kind: str) -> None:
        """Approve the sandbox's mapping file, as far as its ids are known already."""
        rows = list(csv.DictReader(io.StringIO(self.sandbox.mapping_csv(kind))))
        frame = pd.DataFrame(rows).assign(note="")
        import_mappings(self.connection, kind, frame, approve=True, person="tests")
        assert KINDS[kind]

    def open(self, kind: Any, periods: list[date], **options: Any) -> int:
        """Open a run."""
        self.runs += 1
        return open_run(
            self.connection,
            dag_id="tests",
            dag_run_id=f"run_{self.runs}",
            kind=kind,
            billing_periods=periods,
            requester_id=self.sandbox.credentials.requester_id,
            **options,
        )

    def deliver(self, plan_id: int) -> DeliveryCounts:
        """Deliver every shard of a plan."""
        total = DeliveryCounts()
        for shard in shards_to_deliver(self.connection, plan_id):
            with connect(self.dsn) as connection:
                total += Deliverer(connection, self.connectwise(), plan_id).deliver_shard(shard)
        finish_plan(self.connection, plan_id)
        return total

    def run(self, kind: Any, periods: list[date], **options: Any) -> tuple[int, DeliveryCounts, dict[str, str]]:
        """One run from opening to closing; returns its id, what was delivered, and the proof's money."""
        run_id = self.open(kind, periods, **options)
        self.extract(run_id, periods)
        decide(self.connection, run_id)
        counts = DeliveryCounts()
        if approve_automatically(self.connection, run_id):
            counts = self.deliver(plan_of_run(self.connection, run_id))
        proof = prove(self.connection, self.connectwise(read_only=True), run_id)
        finish_run(self.connection, run_id)
        return run_id, counts, proof

    def night(self, day: date) -> tuple[int, DeliveryCounts, dict[str, str]]:
        """A nightly run for a day."""
        return self.run("nightly", nightly_periods(day))

    def value(self, statement: str, *values: Any) -> Any:
        """The first column of the first row."""
        row = self.connection.execute(statement, values).fetchone()
        return row[0] if row else None

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """All rows."""
        found = self.connection.execute(statement, values).fetchall()
        return found

    def invoiced_by_company(self) -> dict[int, Decimal]:
        """What ConnectWise invoiced of our Additions, by company id, after the sandbox's agreement invoicing."""
        raise NotImplementedError
