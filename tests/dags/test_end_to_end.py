"""The whole DAG, twice: every cent is accounted for, and the second night writes nothing."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from dag_runs import administrator, invoiced_by_company, query, states

from billing_sync.db import connect
from billing_sync.plan import approve_plan
from billing_sync.plan_review import run_of_dag
from billing_sync.report import delivered_by_company

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun

    from sandbox.server import Sandbox

RunDag = Callable[..., "DagRun"]


def test_two_nights_and_a_backfill_account_for_every_cent(run_dag: RunDag, billing_db: str, sandbox: Sandbox) -> None:
    assert run_dag("sync_reference_data").state == "success"
    administrator(billing_db, sandbox)

    assert run_dag("sync_billing_period", billing_periods=["2026-09"]).state == "success"
    assert run_dag("sync_verified_invoices").state == "success"
    writes = sandbox.writes()["received"]
    assert writes > 1000

    second = run_dag("sync_verified_invoices")
    assert second.state == "success"
    assert states(second)["deliver_shard"] == "skipped"
    assert sandbox.writes()["received"] == writes

    outcomes = dict(query(billing_db, "select outcome, count(*) from reporting.invoice_line group by 1"))
    assert set(outcomes) == {"delivered", "held", "excluded"}
    # The source's own truth, which the pipeline never sees: each accepted invoice to the cent.
    truth = {invoice["invoiceId"]: Decimal(str(invoice["totalAmount"])) for invoice in sandbox.truth()}
    proven = dict(query(billing_db, "select invoice_id, delivered + held + excluded from reporting.invoice_proof"))
    assert proven == truth
    assert query(billing_db, "select count(*) from audit.invoice_proof where difference <> 0 or in_doubt <> 0") == [
        (0,)
    ]

    with connect(billing_db) as connection:
        delivered = delivered_by_company(connection)
    assert invoiced_by_company(sandbox) == delivered
    assert sum(delivered.values()) == query(billing_db, "select sum(delivered) from reporting.invoice_proof")[0][0]


def test_dry_run_plans_but_writes_nothing_and_can_never_be_applied(
    run_dag: RunDag, billing_db: str, sandbox: Sandbox
) -> None:
    run_dag("sync_reference_data")
    administrator(billing_db, sandbox)
    run = run_dag("sync_verified_invoices", billing_periods=["2026-10"], dry_run=True)
    assert run.state == "success"
    assert states(run)["await_approval"] == "success"
    assert sandbox.writes()["received"] == 0
    [(plan_id, items)] = query(
        billing_db, "select plan_id, count(*) from delivery.plan join delivery.plan_item using (plan_id) group by 1"
    )
    assert items > 100
    with connect(billing_db) as connection, pytest.raises(Exception, match="dry run"):
        approve_plan(connection, plan_id, "somebody")


def busiest_organization(sandbox: Sandbox) -> str:
    """The mapped organization with the most lines."""
    mapped = csv.DictReader(io.StringIO(sandbox.mapping_csv("organizations")))
    approved = {row["organization_id"] for row in mapped if row["state"] == "approved"}
    counts: Counter[str] = Counter()
    for invoice in sandbox.truth():
        if invoice["consumerOrganizationId"] in approved:
            counts[invoice["consumerOrganizationId"]] += len(invoice["lines"])
    return counts.most_common(1)[0][0]


def test_without_automated_daily_sync_the_plan_waits_and_apply_plan_delivers_it(
    run_dag: RunDag, billing_db: str, sandbox: Sandbox
) -> None:
    run_dag("sync_reference_data")
    administrator(billing_db, sandbox, automated_daily_sync="off")
    organization = busiest_organization(sandbox)
    run = run_dag("sync_verified_invoices", billing_periods=["2026-10"], organization_ids=[organization])
    assert run.state == "success"
    assert sandbox.writes()["received"] == 0
    [(run_id, state)] = query(billing_db, "select run_id, state from audit.run where kind = 'manual'")
    assert state == "awaiting_approval"
    [(plan_id,)] = query(billing_db, "select plan_id from delivery.plan where run_id = %s", run_id)

    refused = run_dag("apply_plan", plan_id=plan_id)
    assert refused.state == "failed"
    assert sandbox.writes()["received"] == 0

    with connect(billing_db) as connection:
        approve_plan(connection, plan_id, "finance")
    applied = run_dag("apply_plan", plan_id=plan_id)
    assert applied.state == "success"
    with connect(billing_db) as connection:  # the tab of the DAG run
        assert run_of_dag(connection, "apply_plan", applied.run_id)["run"]["run_id"] == run_id
    assert sandbox.writes()["received"] > 0
    assert query(billing_db, "select state from audit.run where run_id = %s", run_id) == [("succeeded",)]
    assert query(
        billing_db, "select distinct organization_id from reporting.invoice_line where outcome = 'delivered'"
    ) == [(organization,)]
