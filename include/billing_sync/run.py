"""Runs: opening, closing, and which billing periods a run is about."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any, Literal

from psycopg.types.json import Jsonb

from billing_sync.db import Connection
from billing_sync.errors import ConfigurationError

RunKind = Literal["nightly", "manual", "backfill", "reference", "review"]


def parse_billing_period(text: str) -> date:
    """`2026-05` as the first day of that month. Raises ConfigurationError for anything else."""
    if not re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])", text):
        raise ConfigurationError(f"{text!r} is not a billing period. Write the month as YYYY-MM, e.g. 2026-05.")
    return date(int(text[:4]), int(text[5:]), 1)


def period_of(day: date) -> date:
    """The billing period (its first day) that a day lies in."""
    return day.replace(day=1)


def last_day_of(period: date) -> date:
    """The last day of a billing period."""
    return period_of(period + timedelta(days=31)) - timedelta(days=1)


def nightly_periods(day: date, months: int = 2) -> list[date]:
    """The calendar months a nightly run reads, oldest first: the day's own and those before (lookback_months)."""
    periods = [period_of(day)]
    while len(periods) < months:
        periods.append(period_of(periods[-1] - timedelta(days=1)))
    return sorted(periods)


def open_run(
    connection: Connection,
    *,
    dag_id: str,
    dag_run_id: str,
    kind: RunKind,
    billing_periods: Sequence[date],
    organization_ids: Sequence[str] = (),
    is_dry_run: bool = False,
    requester_id: str | None = None,
) -> int:
    """Open a run, or open it again when its task is run again; returns its run_id.

    Runs that never ended (their DAG run was cut off by its time-out, say) are closed as failed.
    """
    with connection.transaction():
        abandoned = connection.execute(
            """
            update audit.run set state = 'failed', ended_at = now()
            where state = 'running' and started_at < now() - interval '7 days' and (dag_id, dag_run_id) <> (%s, %s)
            returning run_id
            """,
            [dag_id, dag_run_id],
        ).fetchall()
        for (abandoned_id,) in abandoned:
            log_entry(connection, abandoned_id, "WARNING", "run_abandoned", f"Run {abandoned_id} never ended; closed.")
        row = connection.execute(
            """
            insert into audit.run
                (dag_id, dag_run_id, kind, billing_periods, organization_ids, is_dry_run, requester_id)
            values (%s, %s, %s, %s::date[]::billing.billing_period[], %s, %s, %s)
            on conflict (dag_id, dag_run_id) do update set
                kind = excluded.kind, billing_periods = excluded.billing_periods,
                organization_ids = excluded.organization_ids, is_dry_run = excluded.is_dry_run,
                requester_id = excluded.requester_id, state = 'running', started_at = now(), ended_at = null,
                proven_at = null
            returning run_id
            """,
            [dag_id, dag_run_id, kind, list(billing_periods), list(organization_ids), is_dry_run, requester_id],
        ).fetchone()
    assert row is not None
    return int(row[0])


def finish_run(connection: Connection, run_id: int, *, is_failed: bool = False) -> str:
    """Write how a run ended, and that its plan is applied when nothing of it is left; returns the run's state.

    is_failed: a task of it failed. Else succeeded, once it is proven (kinds reference and review need no proof), or
    awaiting_approval, if its plan waits for a person (an empty one only if a bound parks it).
    """
    with connection.transaction():
        connection.execute(
            """
            update delivery.plan as plan set state = 'applied'
            where
                plan.run_id = %s and plan.state = 'approved'
                and not exists (
                    select from delivery.plan_item as item where item.plan_id = plan.plan_id and item.state = 'pending'
                    union all
                    select from delivery.plan_agreement as new
                    where new.plan_id = plan.plan_id and new.state = 'pending'
                )
            """,
            [run_id],
        )
        row = connection.execute(
            """
            update audit.run set
                state = case
                    when %(is_failed)s then 'failed'
                    when kind in ('reference', 'review') then 'succeeded'
                    when proven_at is null or exists (
                        select from delivery.plan as plan where plan.run_id = run.run_id and plan.state = 'approved'
                    ) then 'failed'
                    when exists (
                        select from delivery.plan as plan
                        where
                            plan.run_id = run.run_id and plan.state = 'proposed' and not plan.is_dry_run
                            and (
                                exists (select from delivery.plan_item as item where item.plan_id = plan.plan_id)
                                or exists (
                                    select from delivery.plan_agreement as new where new.plan_id = plan.plan_id
                                )
                                or exists (select from delivery.plan_bound as bound where bound.plan_id = plan.plan_id)
                            )
                    ) then 'awaiting_approval'
                    else 'succeeded'
                end,
                ended_at = now()
            where run_id = %(run_id)s
            returning state
            """,
            {"run_id": run_id, "is_failed": is_failed},
        ).fetchone()
    assert row is not None
    return str(row[0])


def reopen_run(connection: Connection, run_id: int) -> None:
    """A run goes on (its approved plan is delivered): it is running again, and not proven yet."""
    connection.execute(
        "update audit.run set state = 'running', ended_at = null, proven_at = null where run_id = %s", [run_id]
    )


def log_entry(connection: Connection, run_id: int | None, level: str, code: str, message: str, **subject: Any) -> None:
    """Add an entry to the log that people read (System Logs)."""
    with connection.transaction():
        connection.execute(
            "insert into audit.log_entry (run_id, level, code, message, subject) values (%s, %s, %s, %s, %s)",
            [run_id, level, code, message, Jsonb(subject)],
        )
