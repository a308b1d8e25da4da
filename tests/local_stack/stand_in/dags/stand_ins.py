"""Stand in for the three DAGs that the demo runs."""

from datetime import UTC, datetime

from airflow.providers.postgres.hooks.postgres import PostgresHook
from airflow.sdk import dag, task
from airflow.timetables.interval import CronDataIntervalTimetable


@task(pool="connectwise_api")
def remember(dag=None, data_interval_start=None):
    period = "none" if data_interval_start is None else f"{data_interval_start:%Y-%m-%d}"
    PostgresHook("billing_db").run("insert into call values (%s)", parameters=(f"{dag.dag_id} {period}",))


@task
def count(number):
    return number


for dag_id, cron in (
    ("sync_reference_data", None),
    ("sync_verified_invoices", "0 0 * * *"),
    ("sync_billing_period", "0 0 1 * *"),
):
    schedule = CronDataIntervalTimetable(cron, timezone="UTC") if cron else None

    @dag(dag_id=dag_id, schedule=schedule, start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False)
    def stand_in():
        remember() >> count.expand(number=[1, 2])

    stand_in()
