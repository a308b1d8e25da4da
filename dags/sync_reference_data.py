"""
### Organizations, companies, agreements and products, on demand

Refreshes both systems' reference data, and lists the offers that appeared on the seller's invoices in a chosen
window, so that they can be mapped. Reads only: nothing is decided and nothing is written to ConnectWise. Run it
once before the first mappings are made, and whenever something new should appear in the mapping files or pages
before the night.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import Param, chain, dag

from billing_steps import (
    DEFAULT_ARGS,
    SQL_DIR,
    close_run,
    extract_appxite_reference,
    extract_connectwise_reference,
    extract_invoices,
    list_periods,
    open_reference_run,
    sql_step,
)


@dag(
    dag_id="sync_reference_data",
    dag_display_name="Sync reference data",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    template_searchpath=SQL_DIR,
    params={
        "offer_window_months": Param(
            3,
            type="integer",
            minimum=1,
            maximum=15,
            title="Offer window (months)",
            description="Offers on invoices of so many months, the current one included, are listed for mapping.",
        )
    },
    doc_md=__doc__,
    tags=["billing", "on demand"],
)
def sync_reference_data() -> None:
    """Stage both sides and refresh schema mapping."""
    run_id = open_reference_run()
    closed = close_run(run_id)
    extracted = [
        extract_appxite_reference(run_id),
        extract_connectwise_reference(run_id),
        extract_invoices.partial(billing_run_id=run_id).expand(period=list_periods(run_id)),
    ]
    chain(
        extracted,
        sql_step("refresh_reference", "mapping/refresh_reference.sql", "Names, states and dates of today."),
        sql_step("refresh_offers", "mapping/refresh_offers.sql", "New offers begin excluded."),
        closed,
    )
    closed.as_teardown()


sync_reference_data()
