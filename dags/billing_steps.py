"""The tasks that the DAGs of this folder are made of. Each one is thin: the work is in include/billing_sync and
include/sql, the connections in plugins/billing_hooks. No DAG is defined here (dags/.airflowignore).

Every task may be cleared and run again: its state is in the billing database, and XCom carries ids and counts only.
"""

from __future__ import annotations

import logging
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule, get_current_context, task

log = logging.getLogger(__name__)

SQL_DIR = str(Path(__file__).resolve().parent.parent / "include" / "sql")
POOL = "connectwise_api"
OWNER = "billing"

DEFAULT_ARGS: dict[str, Any] = {
    "owner": OWNER,
    "retries": 3,
    "retry_delay": timedelta(seconds=30),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=15),
    "retry_policy": ExceptionRetryPolicy(
        rules=[
            RetryRule(
                exception="billing_sync.errors.PermanentError",
                action=RetryAction.FAIL,
                reason="running again changes nothing until a person acts",
            )
        ]
    ),
}


def sql_step(task_id: str, sql_file: str, doc: str) -> SQLExecuteQueryOperator:
    """A task that runs one file of include/sql for the run, in one transaction."""
    return SQLExecuteQueryOperator(
        task_id=task_id,
        task_display_name=task_id.replace("_", " ").capitalize(),
        conn_id="billing_db",
        sql=["select set_config('billing.run_id', '{{ ti.xcom_pull(task_ids=\"open_run\") }}', false)", sql_file],
        autocommit=False,
        split_statements=False,
        show_return_value_in_logs=False,
        do_xcom_push=False,
        doc_md=doc,
    )


# -- beginning and end of a run -------------------------------------------------------------------------------


@task(task_display_name="Preflight")
def preflight() -> None:
    """Check the three connections, the migrations and the settings before anything is read or written."""
    from billing_hooks.preflight import preflight as check

    for line in check():
        log.info(line)


def _open(kind: Any, billing_periods: list[date], *, requires_invoices: bool = True) -> int:
    from billing_hooks.appxite import AppXiteHook
    from billing_hooks.billing_db import BillingDbHook
    from billing_sync.run import open_run as open_

    context = get_current_context()
    params = context["params"]
    with BillingDbHook().get_conn() as connection:
        run_id = open_(
            connection,
            dag_id=context["dag"].dag_id,
            dag_run_id=context["run_id"],
            kind=kind,
            billing_periods=billing_periods,
            organization_ids=params.get("organization_ids") or [],
            is_dry_run=bool(params.get("dry_run", False)),
            requester_id=AppXiteHook().get_client().requester_id if requires_invoices else None,
        )
    log.info(
        "run %s (%s%s), billing periods %s, organizations %s",
        run_id,
        kind,
        ", dry run: nothing is written to ConnectWise" if params.get("dry_run") else "",
        ", ".join(f"{period:%Y-%m}" for period in billing_periods) or "none",
        ", ".join(params.get("organization_ids") or []) or "all",
    )
    return run_id


def _day_of_run(context: Any) -> date:
    """The day that a run is about: the start of its data interval; the day it was asked for if it has none."""
    moment: datetime = context.get("data_interval_start") or context["dag_run"].run_after
    return moment.date()


@task(task_display_name="Open a run")
def open_run(period_rule: str) -> int:
    """Write the run into audit.run and return its run_id.

    period_rule: the billing periods if params name none: `lookback` (setting lookback_months) or `interval` (a month).
    """
    from billing_hooks.billing_db import BillingDbHook
    from billing_sync.run import nightly_periods, parse_billing_period, period_of
    from billing_sync.settings import get_setting

    context = get_current_context()
    named = [parse_billing_period(text) for text in context["params"].get("billing_periods") or []]
    if named:
        kind = "backfill" if context["dag_run"].run_type == "backfill" else "manual"
        return _open(kind, sorted(set(named)))
    day = _day_of_run(context)
    if period_rule == "lookback":
        narrowed = bool(context["params"].get("organization_ids"))
        with BillingDbHook().get_conn() as connection:
            months = get_setting(connection, "lookback_months")
        return _open("manual" if narrowed else "nightly", nightly_periods(day, months))
    has_interval = context.get("data_interval_start") is not None
    period = period_of(day) if has_interval else nightly_periods(day)[0]
    return _open("backfill" if context["dag_run"].run_type == "backfill" else "manual", [period])


@task(task_id="open_run", task_display_name="Open a run")
def open_reference_run() -> int:
    """Write the run into audit.run; its periods are the window whose invoices name the offers to map."""
    from billing_sync.run import nightly_periods

    context = get_current_context()
    months = context["params"]["offer_window_months"]
    return _open("reference", nightly_periods(_day_of_run(context), months))


@task(task_display_name="Find the plan's run")
def reopen_run_of_plan() -> int:
    """The run that made the plan of the params; refused unless the plan is approved."""
    from billing_hooks.billing_db import BillingDbHook
    from billing_sync.plan import begin_delivery

    context = get_current_context()
    with BillingDbHook().get_conn() as connection:
        return begin_delivery(connection, int(context["params"]["plan_id"]), context["dag"].dag_id, context["run_id"])


@task(task_display_name="Close the run", trigger_rule="all_done", retries=3)
def close_run(billing_run_id: int | None) -> str:
    """Write how the run ended: succeeded, awaiting approval, or failed; always runs."""
    from billing_hooks.billing_db import BillingDbHook
    from billing_sync.run import finish_run

    if billing_run_id is None:
        return "never opened"
    context = get_current_context()
    states = context["ti"].get_task_states(context["dag"].dag_id, run_ids=[context["run_id"]])[context["run_id"]]
    is_failed = any(str(state) in ("failed", "upstream_failed") for state in states.values())
    with BillingDbHook().get_conn() as connection:
        state = finish_run(connection, billing_run_id, is_failed=is_failed)
    log.info("run %s: %s", billing_run_id, state)
    return state


def _say(connection: Any, billing_run_id: int, counts: Any) -> None:
    """Log what was staged; records left out or mended also go into the log that people read."""
    from billing_sync.run import log_entry

    log.info("staged: %s", counts.rows)
    for warning in counts.warnings:
        log_entry(connection, billing_run_id, "WARNING", "reference_record", warning)


# -- observe --------------------------------------------------------------------------------------------------


@task(task_display_name="Extract from AppXite")
def extract_appxite_reference(billing_run_id: int) -> None:
    """Stage organizations, contracts and subscriptions."""
    from billing_hooks.appxite import AppXiteHook
    from billing_hooks.billing_db import BillingDbHook
    from billing_sync.extract import extract_appxite_reference as extract

    with BillingDbHook().get_conn() as connection:
        _say(connection, billing_run_id, extract(connection, AppXiteHook().get_client(), billing_run_id))


@task(task_display_name="Extract from ConnectWise", pool=POOL)
def extract_connectwise_reference(billing_run_id: int) -> None:
    """Stage companies, products, agreement types, billing cycles and agreements."""
    from billing_hooks.billing_db import BillingDbHook
    from billing_hooks.connectwise import ConnectWiseHook
    from billing_sync.extract import extract_connectwise_reference as extract

    with BillingDbHook().get_conn() as connection:
        _say(
            connection,
            billing_run_id,
            extract(connection, ConnectWiseHook().get_client(read_only=True), billing_run_id),
        )


@task(task_display_name="Billing periods")
def list_periods(billing_run_id: int) -> list[str]:
    """The billing periods whose invoices are to be extracted, as YYYY-MM."""
    from billing_hooks.billing_db import BillingDbHook

    with BillingDbHook().get_conn() as connection:
        row = connection.execute(
            "select billing_periods::date[] from audit.run where run_id = %s", [billing_run_id]
        ).fetchone()
    assert row is not None
    return [f"{period:%Y-%m}" for period in row[0]]


@task(task_display_name="Extract invoices", map_index_template="{{ billing_period }}")
def extract_invoices(billing_run_id: int, period: str) -> None:
    """Stage the invoice headers and rows of one billing period, whole or not at all."""
    from billing_hooks.appxite import AppXiteHook
    from billing_hooks.billing_db import BillingDbHook
    from billing_sync.extract import extract_invoices as extract
    from billing_sync.run import parse_billing_period

    get_current_context()["billing_period"] = period  # type: ignore[typeddict-unknown-key]
    with BillingDbHook().get_conn() as connection:
        log.info("%s", extract(connection, AppXiteHook().get_client(), billing_run_id, parse_billing_period(period)))


@task(task_display_name="Check the source")
def check_source(billing_run_id: int) -> int:
    """Say what is wrong with what AppXite gave; the lines concerned are held. Returns the number of findings."""
    from billing_hooks.billing_db import BillingDbHook
    from billing_sync.db import run_sql_file
    from billing_sync.decide import CHECK_SOURCE

    with BillingDbHook().get_conn() as connection:
        findings = run_sql_file(connection, CHECK_SOURCE, billing_run_id)
    for finding in findings:
        log.warning("%s %s: %s", finding["level"], finding["code"], finding["message"])
    return len(findings)


# -- branch, plan, approve ------------------------------------------------------------------------------------


@task.branch(task_display_name="Held or deliverable?")
def branch_lines(billing_run_id: int) -> list[str]:
    """Send held lines to review and the rest into a plan; a plan is made even if it is empty."""
    from billing_hooks.billing_db import BillingDbHook
    from billing_sync.decide import count_outcomes

    with BillingDbHook().get_conn() as connection:
        outcomes = count_outcomes(connection, billing_run_id)
    log.info("lines of this run by outcome: %s", outcomes)
    return ["review_held_lines", "make_plan"] if outcomes.get("held") else ["make_plan"]


@task(task_display_name="Held lines to review")
def review_held_lines(billing_run_id: int) -> int:
    """Say which lines wait for a person and why, with the money at risk. Returns the number of reasons."""
    from billing_hooks.billing_db import BillingDbHook
    from billing_sync.decide import say_held_lines

    with BillingDbHook().get_conn() as connection:
        return say_held_lines(connection, billing_run_id)


@task.branch(task_display_name="Approved?")
def approve_plan(billing_run_id: int) -> str:
    """Approve the plan if Automated Daily Sync is on and this is no dry run; else it waits for a person."""
    from billing_hooks.billing_db import BillingDbHook
    from billing_sync.plan import approve_automatically

    with BillingDbHook().get_conn() as connection:
        is_approved = approve_automatically(connection, billing_run_id)
    return "list_shards" if is_approved else "await_approval"


@task(task_display_name="Wait for approval")
def await_approval(billing_run_id: int) -> None:
    """Leave the plan for a person: `python -m billing_sync plan approve`, then the DAG apply_plan."""
    from billing_hooks.billing_db import BillingDbHook
    from billing_sync.plan import say_awaiting_approval

    with BillingDbHook().get_conn() as connection:
        log.info(say_awaiting_approval(connection, billing_run_id))


# -- apply, prove ---------------------------------------------------------------------------------------------


@task(task_display_name="Shards of agreements")
def list_shards(billing_run_id: int) -> list[int]:
    """The shards of agreements that have something to deliver or to resume."""
    from billing_hooks.billing_db import BillingDbHook
    from billing_sync.plan import plan_of_run, shards_to_deliver

    with BillingDbHook().get_conn() as connection:
        return shards_to_deliver(connection, plan_of_run(connection, billing_run_id))


@task(
    task_display_name="Deliver",
    pool=POOL,
    retries=5,
    execution_timeout=timedelta(hours=4),
    map_index_template="shard {{ shard_number }}",
)
def deliver_shard(billing_run_id: int, shard: int) -> dict[str, int]:
    """Deliver one shard of the approved plan: create inert, record the winner, activate, read back."""
    from billing_hooks.billing_db import BillingDbHook
    from billing_hooks.connectwise import ConnectWiseHook
    from billing_sync.deliver import Deliverer
    from billing_sync.plan import plan_of_run
    from billing_sync.process import die_with_parent

    die_with_parent()
    get_current_context()["shard_number"] = shard  # type: ignore[typeddict-unknown-key]
    with BillingDbHook().get_conn() as connection:
        plan_id = plan_of_run(connection, billing_run_id)
        counts = Deliverer(connection, ConnectWiseHook().get_client(), plan_id).deliver_shard(shard)
    return counts.as_dict()


@task(
    task_display_name="Prove",
    pool=POOL,
    retries=2,
    trigger_rule="none_failed",
    execution_timeout=timedelta(hours=4),
)
def prove(billing_run_id: int) -> dict[str, str]:
    """Read ConnectWise back and account for every cent of every invoice; red if anything is amiss."""
    from billing_hooks.billing_db import BillingDbHook
    from billing_hooks.connectwise import ConnectWiseHook
    from billing_sync.prove import prove as prove_run

    with BillingDbHook().get_conn() as connection:
        return prove_run(connection, ConnectWiseHook().get_client(read_only=True), billing_run_id)
