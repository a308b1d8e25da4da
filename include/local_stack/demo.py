"""`make demo`: from nothing to finished nights against the sandbox, the way a team would go live.

Every step is the real thing: a real PostgreSQL, a real Airflow with its scheduler, the pipeline's own command line for
what an administrator decides. A step that fails ends the demo with a message and the log to read; what was started is
stopped.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from types import FrameType
from typing import Any

from local_stack.console import console, say, step, wait_for
from local_stack.errors import StackError
from local_stack.runs import follow
from local_stack.sandbox import MONTHS
from local_stack.stack import Stack

REFERENCE_DAG = "sync_reference_data"
NIGHTLY_DAG = "sync_verified_invoices"
PERIOD_DAG = "sync_billing_period"
DAGS = frozenset({REFERENCE_DAG, NIGHTLY_DAG, PERIOD_DAG})
AGREEMENT_TYPE = "Cloud Subscriptions"
ENVIRONMENT = "demo"
REQUESTS_PER_MINUTE = 20_000
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):
    """Somebody asked the demo to end."""


def run_demo(stack: Stack, *, stay: bool, then: Callable[[Stack], None] | None = None) -> None:
    """The whole demo; returns when everything was proven and, with `stay`, somebody ended it.

    then: what else is done while everything is up.
    """
    for number in ENDING_SIGNALS:
        signal.signal(number, _interrupt)
    with stack.held():
        try:
            _start(stack)
            _nights(stack)
            _show_addresses(stack)
            if then is not None:
                then(stack)
            if stay:
                _stay_open(stack)
        except Interrupted:
            say("ending the demo ...")
            raise
        finally:
            _ignore_signals()
            stack.stop()


def _ignore_signals() -> None:
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    _ignore_signals()  # a second Ctrl-C must not leave half of it running
    raise Interrupted(signal.Signals(number).name)


def _start(stack: Stack) -> None:
    if stack.processes.running():
        say("an earlier demo was not ended properly; stopping what it left")
        stack.stop()
    began = time.monotonic()
    step("PostgreSQL")
    stack.start_postgres()
    say(f"version {stack.postgres.binaries.major_version()} on port {stack.postgres.port}")
    step("The billing database")
    stack.billing_sync("migrate")
    step("The sandbox: AppXite and ConnectWise, both made up")
    stack.sandbox.start()
    say(f"{stack.sandbox.url}, invoices of {MONTHS} months up to {stack.last_month}")
    step("Airflow")
    stack.airflow.prepare()
    stack.airflow.start()
    # An earlier demo left the nightly DAG switched on; it is switched on again when everything is prepared.
    for dag_id in DAGS & stack.airflow.api.dag_ids():
        stack.airflow.api.set_paused(dag_id, paused=True)
        stack.airflow.api.end_unfinished(dag_id)
    stack.airflow.start_scheduling()
    stack.airflow.wait_for_dags(set(DAGS))
    say(f"all is up after {time.monotonic() - began:.0f} s")


def _nights(stack: Stack) -> None:
    api = stack.airflow.api
    step("Reference data: organizations, companies, agreements, products")
    api.set_paused(REFERENCE_DAG, paused=False)
    _follow(stack, REFERENCE_DAG, api.trigger(REFERENCE_DAG))

    step("What an administrator decides once: mappings and settings")
    _administrator(stack)

    month = oldest_month(stack.last_month, MONTHS)
    step(f"Backfill of {month:%Y-%m}")
    _backfill(stack, month)

    step("The night: the daily DAG is switched on, and the scheduler makes its run")
    _follow(stack, NIGHTLY_DAG, _first_night(stack))

    step("A second night over the same invoices")
    _follow(stack, NIGHTLY_DAG, api.trigger(NIGHTLY_DAG))

    step("The result")
    stack.billing_sync("report")
    prove_invoiced(stack)


def _administrator(stack: Stack) -> None:
    folder = stack.settings.state / "mappings"
    stack.sandbox.write_mappings(folder)
    for kind in ("organizations", "offers"):
        stack.billing_sync("mappings", "import", kind, str(folder / f"{kind}.csv"), "--approve")
    stack.billing_sync("settings", "set", "environment", ENVIRONMENT)
    stack.billing_sync("settings", "set", "default_agreement_type", AGREEMENT_TYPE)
    say("a real ConnectWise allows about 1,000 requests a minute; the sandbox is told to allow more")
    stack.sandbox.allow_requests(REQUESTS_PER_MINUTE)
    stack.billing_sync("settings", "set", "requests_per_minute", str(REQUESTS_PER_MINUTE))
    stack.billing_sync("settings", "set", "automated_daily_sync", "on")


def _backfill(stack: Stack, month: datetime) -> None:
    api = stack.airflow.api
    api.set_paused(PERIOD_DAG, paused=False)
    backfill_id = api.backfill(PERIOD_DAG, month)
    run = _newest_run(stack, PERIOD_DAG, lambda run: _starts_at(run, month))
    say(f"backfill {backfill_id}: {run}")
    _follow(stack, PERIOD_DAG, run)


def _first_night(stack: Stack) -> str:
    """Switch the daily DAG on and find the run that the scheduler makes of it; a night that has been is followed again.

    A run of this night that failed in an earlier demo is cleared, which is what a person would do.
    """
    api = stack.airflow.api
    nights = [run for run in api.runs(NIGHTLY_DAG) if run["run_type"] == "scheduled"]
    due = api.next_run_after(NIGHTLY_DAG)
    api.set_paused(NIGHTLY_DAG, paused=False)
    if not nights or (due is not None and due <= datetime.now(UTC)):
        known = {run["dag_run_id"] for run in nights}
        return _newest_run(
            stack, NIGHTLY_DAG, lambda run: run["run_type"] == "scheduled" and run["dag_run_id"] not in known
        )
    night = max(nights, key=lambda run: run["run_after"])
    if night["state"] == "failed":
        api.clear(NIGHTLY_DAG, night["dag_run_id"])
    return str(night["dag_run_id"])


def prove_invoiced(stack: Stack) -> None:
    """Let the sandbox's ConnectWise invoice its agreements, and compare per customer with what was delivered.

    Raises StackError when a customer's money differs by a cent.
    """
    from billing_sync.db import connect
    from billing_sync.report import delivered_by_company

    step("ConnectWise invoices its agreements, as finance would at the month's end")
    with connect(stack.billing_dsn) as connection:
        delivered = delivered_by_company(connection)
        newest = connection.execute("select max(cycle_start)::text from delivery.addition_line").fetchone()
    if newest is None or newest[0] is None:
        raise StackError("Nothing was delivered, so there is nothing that ConnectWise could invoice.")
    stack.sandbox.invoice_agreements(newest[0])
    invoiced: dict[int, Decimal] = {}
    for invoice in stack.sandbox.invoices():
        for line in invoice["lines"]:
            if str(line["marker"] or "").startswith(f"axs-{ENVIRONMENT}-"):
                company = int(invoice["company"]["id"])
                invoiced[company] = invoiced.get(company, Decimal(0)) + Decimal(line["amount"])
    differing = {
        company: (delivered.get(company, Decimal(0)), invoiced.get(company, Decimal(0)))
        for company in sorted({*delivered, *invoiced})
        if delivered.get(company, Decimal(0)) != invoiced.get(company, Decimal(0))
    }
    if differing:
        shown = "; ".join(
            f"company {key}: {ours} delivered, {theirs} invoiced" for key, (ours, theirs) in differing.items()
        )
        raise StackError(f"ConnectWise invoiced something else than AppXite's lines: {shown}")
    total = sum(invoiced.values(), Decimal(0))
    say(f"{len(invoiced)} customers, {total:,.2f} invoiced: what was delivered, customer by customer, to the cent")


def oldest_month(last_month: str, months: int) -> datetime:
    """The first instant of the oldest of `months` months that end with `last_month`."""
    year, month = (int(part) for part in last_month.split("-"))
    index = year * 12 + (month - 1) - (months - 1)
    return datetime(index // 12, index % 12 + 1, 1, tzinfo=UTC)


def _starts_at(run: dict[str, Any], moment: datetime) -> bool:
    start = run.get("data_interval_start")
    return run["run_type"] == "backfill" and start is not None and datetime.fromisoformat(start) == moment


def _newest_run(stack: Stack, dag_id: str, wanted: Callable[[dict[str, Any]], bool]) -> str:
    """The id of the newest run that is wanted; the scheduler needs a moment to make it."""
    found: list[dict[str, Any]] = []

    def look() -> bool:
        found[:] = [run for run in stack.airflow.api.runs(dag_id) if wanted(run)]
        return bool(found)

    log = stack.settings.logs / "scheduler.log"
    wait_for(f"a run of {dag_id}", look, seconds=120, check=stack.processes.require_alive, log=log, every=1)
    return str(max(found, key=lambda run: run["run_after"])["dag_run_id"])


def _follow(stack: Stack, dag_id: str, run_id: str) -> None:
    task_logs = stack.settings.logs / "tasks"
    follow(stack.airflow.api, dag_id, run_id, check=stack.processes.require_alive, task_logs=task_logs)


def _show_addresses(stack: Stack) -> None:
    step("Have a look")
    secret = stack.credentials
    say(f"Airflow     {stack.settings.airflow_url}")
    for user, password in (
        ("admin", secret.admin_password),
        ("op", secret.op_password),
        ("viewer", secret.viewer_password),
    ):
        say(f"            user {user:<6}  password {password}")
    say(f"Sandbox     {stack.sandbox.url}")
    say(f"PostgreSQL  psql {stack.billing_dsn}")
    say(f"Logs        {stack.settings.logs}")


def _stay_open(stack: Stack) -> None:
    console.print("\n   Everything stays up. [bold]Ctrl-C[/bold] (or `make stop` elsewhere) ends it.")
    while True:
        try:
            time.sleep(2)
            stack.processes.require_alive()
        except Interrupted:
            say("ending the demo ...")
            return
