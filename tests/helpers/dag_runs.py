"""What tests of the DAGs share: the administrator's part, and looking at what came of a run."""

from __future__ import annotations

import csv
import io
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pandas as pd

from billing_sync.db import connect
from billing_sync.mappings import import_mappings
from billing_sync.settings import set_setting

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun

    from sandbox.server import Sandbox


def administrator(dsn: str, sandbox: Sandbox, **settings: str) -> None:
    """What a person decides once: mappings approved, Agreement Type chosen, Automated Daily Sync on."""
    wanted = {
        "environment": "tests",
        "default_agreement_type": "Cloud Subscriptions",
        "automated_daily_sync": "on",
        "requests_per_minute": "100000",
        **settings,
    }
    with connect(dsn, user="tests") as connection:
        for kind in ("organizations", "offers"):
            rows = list(csv.DictReader(io.StringIO(sandbox.mapping_csv(kind))))
            import_mappings(connection, kind, pd.DataFrame(rows).assign(note=""), approve=True, person="tests")
        for key, value in wanted.items():
            set_setting(connection, key, value)


def query(dsn: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Rows of a query."""
    with connect(dsn) as connection:
        return connection.execute(statement, values).fetchall()


def states(dag_run: DagRun) -> dict[str, str]:
    """Task states of a run by task id (the worst of mapped ones)."""
    found: dict[str, str] = {}
    for instance in dag_run.get_task_instances():
        if found.get(instance.task_id) != "failed":
            found[instance.task_id] = str(instance.state)
    return found


def invoiced_by_company(sandbox: Sandbox) -> dict[int, Decimal]:
    """What agreement invoicing billed of our Additions, by ConnectWise company id."""
    sums: dict[int, Decimal] = {}
    for invoice in sandbox.invoice(through="2026-12-01"):
        for line in invoice["lines"]:
            if str(line["marker"] or "").startswith("axs-tests-"):
                company_id = int(invoice["company"]["id"])
                sums[company_id] = sums.get(company_id, Decimal(0)) + Decimal(line["amount"])
    return sums
