"""
### AppXite's verified invoices become ConnectWise Additions

Every night at 00:00 UTC, for the current and the previous calendar month, or more (setting *lookback_months*).
`sync_billing_period` is the same flow for one month at a time, for `airflow backfill create` over past months.

**What happens.** Invoices that reached *Verified* are extracted from AppXite and staged whole; organizations,
offers and contracts are mapped; date and price rules applied. Every doubtful line is **held** with all its reasons;
the rest becomes a **plan**. What is beyond a **bound** is parked for a person. The plan is approved by itself when
*Automated Daily Sync* is on and no bound parks it, else it waits.
Delivery makes each Addition exactly once; the **proof** re-reads ConnectWise and accounts for every cent, or the
run turns red.

**By hand.** Trigger with `billing_periods`, `organization_ids`, or `dry_run` (decides and plans; cannot write).

**Again.** Any task may be cleared; state is in the billing database. A run over unchanged invoices writes nothing.

**When it is red.** The failed task's last line says what is wrong and what to do. `select * from reporting.run`,
`reporting.held_line` and `audit.log_entry` hold the rest; see docs/runbook.md.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import CronDataIntervalTimetable, Param, chain, dag

from billing_steps import (
    DEFAULT_ARGS,
    SQL_DIR,
    approve_plan,
    await_approval,
    branch_lines,
    check_source,
    close_run,
    deliver_shard,
    extract_appxite_reference,
    extract_connectwise_reference,
    extract_invoices,
    list_periods,
    list_shards,
    open_run,
    preflight,
    prove,
    review_held_lines,
    sql_step,
)
from billing_timetable import MonthlyOnDemand

PARAMS = {
    "billing_periods": Param(
        None,
        type=["null", "array"],
        items={"type": "string", "pattern": r"^20\d\d-(0[1-9]|1[0-2])$"},
        maxItems=24,
        title="Billing periods",
        description="Calendar months of the invoice date, one per line, e.g. 2026-05. Empty: the DAG's own choice.",
    ),
    "organization_ids": Param(
        None,
        type=["null", "array"],
        items={"type": "string", "minLength": 1, "maxLength": 100},
        maxItems=1000,
        title="Organizations",
        description="AppXite organization ids, one per line, to look at only these customers. Empty: all.",
    ),
    "dry_run": Param(
        default=False,
        type="boolean",
        title="Dry run",
        description="Extract, decide and make a plan that can never be applied. Nothing is written to ConnectWise.",
    ),
}


def billing_flow(period_rule: str) -> None:
    """Observe, decide, plan, approve, apply, prove."""
    run_id = open_run(period_rule)
    closed = close_run(run_id)

    # Observe
    extracted = [
        extract_appxite_reference(run_id),
        extract_connectwise_reference(run_id),
        extract_invoices.partial(billing_run_id=run_id).expand(period=list_periods(run_id)),
    ]
    refresh_reference = sql_step(
        "refresh_reference", "mapping/refresh_reference.sql", "Names, states and dates of today."
    )
    refresh_offers = sql_step("refresh_offers", "mapping/refresh_offers.sql", "New offers begin excluded.")
    load_invoices = sql_step("load_invoices", "billing/load_invoices.sql", "Accepted invoices and their lines.")
    load_costs = sql_step("load_costs", "billing/load_costs.sql", "What the seller was invoiced, if it is asked for.")
    checked = check_source(run_id)

    # Decide
    map_lines = sql_step("map_lines", "billing/map_lines.sql", "Company and product of each line.")
    resolve_agreements = sql_step("resolve_agreements", "billing/resolve_agreements.sql", "Agreement of each line.")
    apply_rules = sql_step("apply_rules", "billing/apply_rules.sql", "Dates, price and description, to the cent.")
    hold_lines = sql_step("hold_lines", "billing/hold_lines.sql", "Deliver, hold with all reasons, or exclude.")
    bound_agreements = sql_step(
        "bound_agreements", "billing/bound_agreements.sql", "Too many agreements to create are parked."
    )
    bound_amounts = sql_step("bound_amounts", "billing/bound_amounts.sql", "Unusual amounts are parked for a person.")
    bound_credits = sql_step("bound_credits", "billing/bound_credits.sql", "More credit than charge is parked.")
    group_lines = sql_step("group_lines", "billing/group_lines.sql", "Which Addition carries which lines.")
    bound_additions = sql_step(
        "bound_additions", "billing/bound_additions.sql", "Too many new Additions of one agreement are parked."
    )
    branch = branch_lines(run_id)
    review = review_held_lines(run_id)

    # Plan, approve, apply, prove
    make_plan = sql_step("make_plan", "plan/make_plan.sql", "Every Addition to create or to update, sealed.")
    bound_plan = sql_step("bound_plan", "plan/bound_plan.sql", "A plan whose input looks wrong is parked.")
    approved = approve_plan(run_id)
    waiting = await_approval(run_id)
    shards = list_shards(run_id)
    delivered = deliver_shard.partial(billing_run_id=run_id).expand(shard=shards)
    proven = prove(run_id)

    chain(preflight(), run_id, extracted, refresh_reference, refresh_offers, load_invoices, load_costs, checked)
    chain(
        checked,
        map_lines,
        resolve_agreements,
        apply_rules,
        hold_lines,
        bound_agreements,
        bound_amounts,
        bound_credits,
        group_lines,
        bound_additions,
        branch,
    )
    chain(branch, [review, make_plan])
    chain(make_plan, bound_plan, approved, [waiting, shards])
    chain([review, waiting, delivered], proven, closed)
    closed.as_teardown()


@dag(
    dag_id="sync_verified_invoices",
    dag_display_name="Sync verified invoices",
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=12),
    default_args=DEFAULT_ARGS,
    template_searchpath=SQL_DIR,
    params=PARAMS,
    doc_md=__doc__,
    tags=["billing", "nightly"],
)
def sync_verified_invoices() -> None:
    """Every night: the current and the previous calendar month, or more (setting lookback_months)."""
    billing_flow("lookback")


@dag(
    dag_id="sync_billing_period",
    dag_display_name="Sync one billing period",
    schedule=MonthlyOnDemand(),
    start_date=datetime(2020, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=12),
    default_args=DEFAULT_ARGS,
    template_searchpath=SQL_DIR,
    params=PARAMS,
    doc_md=__doc__,
    tags=["billing", "backfill"],
    is_paused_upon_creation=True,
)
def sync_billing_period() -> None:
    """One calendar month: for `airflow backfill create` over past months, and by hand."""
    billing_flow("interval")


sync_verified_invoices()
sync_billing_period()
