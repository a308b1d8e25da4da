"""
### Keep the billing database small

Once a day, deletes staged extracts older than the setting `staging_retention_days`, except those of runs still
open. Invoices, decisions, the ledger of Additions, attempts, proofs and the audit trail are kept for ever.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.sdk import CronDataIntervalTimetable, dag

from billing_steps import DEFAULT_ARGS, SQL_DIR


@dag(
    dag_id="maintain_billing_db",
    dag_display_name="Maintain the billing database",
    schedule=CronDataIntervalTimetable("30 6 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    template_searchpath=SQL_DIR,
    doc_md=__doc__,
    tags=["billing", "maintenance"],
)
def maintain_billing_db() -> None:
    """Retention."""
    SQLExecuteQueryOperator(
        task_id="prune_extracts", conn_id="billing_db", sql="staging/prune_extracts.sql", do_xcom_push=False
    )


maintain_billing_db()
