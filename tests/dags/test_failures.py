"""What is wrong ends the run with its own clear error: nothing half-staged, nothing written to ConnectWise."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from dag_runs import administrator, query, states

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun

    from sandbox.server import Sandbox

RunDag = Callable[..., "DagRun"]


@pytest.fixture
def ready(run_dag: RunDag, billing_db: str, sandbox: Sandbox) -> RunDag:
    """A set-up that would succeed."""
    assert run_dag("sync_reference_data").state == "success"
    administrator(billing_db, sandbox)
    return run_dag


def break_connection(variables: dict[str, str], name: str, **changes: Any) -> str:
    """The variable of a connection with changed fields."""
    return json.dumps({**json.loads(variables[name]), **changes})


def staged(dsn: str) -> int:
    """Rows of invoices in staging of runs other than the reference run."""
    return int(
        query(
            dsn,
            """
            select count(*) from staging.extract join audit.run using (run_id)
            where kind <> 'reference' and feed like 'invoice%%'
            """,
        )[0][0]
    )


@pytest.mark.parametrize(
    ("variable", "changes", "named"),
    [
        ("AIRFLOW_CONN_APPXITE_API", {"password": "wrong-key"}, "appxite_api"),
        ("AIRFLOW_CONN_CONNECTWISE_API", {"password": "wrong-key"}, "connectwise_api"),
        ("AIRFLOW_CONN_CONNECTWISE_API", {"host": "http://127.0.0.1:9"}, "connectwise_api"),
        ("AIRFLOW_CONN_APPXITE_API", {"host": "http://127.0.0.1:9"}, "appxite_api"),
        ("AIRFLOW_CONN_BILLING_DB", {"password": "wrong-key"}, "billing_db"),
    ],
    ids=["AppXite key", "ConnectWise key", "ConnectWise unreachable", "AppXite unreachable", "database password"],
)
def test_a_bad_connection_is_named_before_anything_happens(
    run_dag: RunDag,
    variable: str,
    changes: dict[str, Any],
    named: str,
    connections: dict[str, str],
    billing_db: str,
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(variable, break_connection(connections, variable, **changes))
    run = run_dag("sync_verified_invoices")
    assert run.state == "failed"
    assert states(run)["preflight"] == "failed"
    said = "".join(capfd.readouterr())
    assert f"connection {named}" in said
    assert "wrong-key" not in said
    assert staged(billing_db) == 0
    assert sandbox.writes()["received"] == 0


def test_a_missing_default_agreement_type_is_said_before_anything_happens(
    ready: RunDag, billing_db: str, sandbox: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    query(
        billing_db, "update billing.setting set value = null where setting_key = 'default_agreement_type' returning 1"
    )
    run = ready("sync_verified_invoices")
    assert run.state == "failed"
    assert "default_agreement_type" in "".join(capfd.readouterr())
    assert staged(billing_db) == 0
    assert sandbox.writes()["received"] == 0


def test_half_a_page_of_json_leaves_nothing_half_staged(
    ready: RunDag, billing_db: str, sandbox: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    sandbox.add_fault("truncated", service="appxite", path=".*/invoice-rows/.*")
    run = ready("sync_verified_invoices", billing_periods=["2026-10"])
    assert run.state == "failed"
    assert states(run)["extract_invoices"] == "failed"
    assert "AppXite, " in "".join(capfd.readouterr())
    assert staged(billing_db) == 0
    assert sandbox.writes()["received"] == 0
    assert query(billing_db, "select state from audit.run where kind = 'manual'") == [("failed",)]

    sandbox.clear_faults()
    assert ready("sync_verified_invoices", billing_periods=["2026-10"]).state == "success"


def test_a_night_without_any_invoice_is_red_and_delivers_nothing(
    ready: RunDag, billing_db: str, sandbox: Sandbox
) -> None:
    administrator(billing_db, sandbox, automated_daily_sync="off")
    assert ready("sync_verified_invoices").state == "success"
    for invoice in sandbox.appxite_invoices():
        sandbox.delete_appxite_invoice(invoice["invoiceId"])
    administrator(billing_db, sandbox, automated_daily_sync="on")

    run = ready("sync_verified_invoices")

    assert run.state == "failed"
    assert states(run)["approve_plan"] == "failed"
    assert sandbox.writes()["received"] == 0
    assert query(
        billing_db,
        "select run.state, plan.state, bound.reason_code from audit.run join delivery.plan using (run_id)"
        " join delivery.plan_bound as bound using (plan_id) order by run_id desc, bound.reason_code limit 1",
    ) == [("failed", "proposed", "invoices_missing")]
    assert query(billing_db, "select count(*) from audit.log_entry where code = 'plan_parked_no_invoices'") == [(1,)]
