"""Bounds park instead of pay: what waits because of one, and letting it pass. The bounds themselves are SQL
(billing/bound_amounts.sql, billing/bound_additions.sql, plan/bound_plan.sql); why they are as they are: docs/bounds.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from billing_sync.db import Connection
from billing_sync.errors import ConfigurationError, SourceDataError


@dataclass(frozen=True)
class Parked:
    """What a bound parks: lines, or (plan_id set) a whole plan.

    figure: what is beyond the bound; an amount, or a number of Additions, invoices or lines. reason: the bound.
    """

    bound_key: str
    figure: Decimal
    detail: str
    lines: int | None = None
    money_at_risk: Decimal | None = None
    currency: str | None = None
    plan_id: int | None = None
    reason: str = ""
    organization_name: str | None = None


# Bounds of a plan; those of lines have their titles in billing.held_reason_code.
PLAN_BOUNDS = {
    "no_invoices": "AppXite gave no invoice at all",
    "few_invoices": "AppXite gave far fewer invoices than the month before",
    "invoices_missing": "Invoices that were accepted before are missing",
    "lines_removed": "AppXite removed lines from accepted invoices",
}


def parked_now(connection: Connection) -> list[Parked]:
    """What bounds park at this moment: lines, the most money first; then plans, by the newest that says so."""
    lines = connection.execute(
        """
        select bound_key, figure::numeric, detail, line_count, money_at_risk, currency, reason,
            organization_name
        from reporting.parked_by_bound
        order by abs(money_at_risk) desc, bound_key
        """
    ).fetchall()
    plans = connection.execute(
        """
        select distinct on (bound_key) bound_key, figure::numeric, detail, plan_id, reason_code
        from delivery.plan_bound join delivery.plan using (plan_id)
        where plan.state = 'proposed' and not plan.is_dry_run
        order by bound_key, plan_id desc
        """
    ).fetchall()
    return [
        *(
            Parked(key, figure, detail, count, money, currency, reason=reason, organization_name=organization)
            for key, figure, detail, count, money, currency, reason, organization in lines
        ),
        *(
            Parked(key, figure, detail, plan_id=plan_id, reason=PLAN_BOUNDS[code])
            for key, figure, detail, plan_id, code in plans
        ),
    ]


def allowed(connection: Connection) -> list[tuple[str, Decimal, str, str, str]]:
    """(bound_key, up_to, by whom, when, note) of everything that people let pass."""
    rows = connection.execute(
        """
        select bound_key, up_to::numeric, allowed_by, to_char(allowed_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI'),
            coalesce(note, '')
        from billing.bound_allowance order by allowed_at desc, bound_key
        """
    ).fetchall()
    return [(key, up_to, person, when, note) for key, up_to, person, when, note in rows]


def allow(connection: Connection, bound_key: str, up_to: str, person: str, note: str | None = None) -> Decimal:
    """Let what a bound parks pass, up to the figure that the person saw; the next run plans it.

    up_to: the figure as `parked_now` shows it, e.g. "1204" or "-60000.00". Returns it as stored.
    Raises ConfigurationError when nothing is parked under this key, or its figure is another one by now.
    """
    with connection.transaction():
        figures = [parked.figure for parked in parked_now(connection) if parked.bound_key == bound_key]
        if not figures:
            raise ConfigurationError(f"Nothing is parked as {bound_key!r} any more.")
        if bound_key == "lines_removed":
            raise ConfigurationError(
                "Removed lines are no matter of a figure: look at them in the log (line_removed_in_appxite), "
                "then approve the plan that waits."
            )
        figure = max(figures, key=abs)
        if figure != _figure(up_to):
            raise ConfigurationError(f"{bound_key} is at {figure}, not at {up_to}: look at it again.")
        connection.execute("select set_config('billing.user', %s, true)", [person])
        connection.execute(
            """
            insert into billing.bound_allowance (bound_key, up_to, note) values (%s, %s, %s)
            on conflict (bound_key) do update set up_to = excluded.up_to, note = excluded.note,
                allowed_by = audit.current_person(), allowed_at = now()
            """,
            [bound_key, figure, note],
        )
    return figure


def withdraw(connection: Connection, bound_key: str, person: str) -> None:
    """Take back what was let pass; what is not delivered yet is parked again.

    Raises ConfigurationError when nothing was let pass under this key.
    """
    with connection.transaction():
        connection.execute("select set_config('billing.user', %s, true)", [person])
        deleted = connection.execute("delete from billing.bound_allowance where bound_key = %s", [bound_key])
        if not deleted.rowcount:
            raise ConfigurationError(
                f"Nothing was let pass as {bound_key!r}. List them with: python -m billing_sync bounds list"
            )


def is_parked(connection: Connection, plan_id: int) -> bool:
    """Whether a bound keeps a plan from being approved by itself; why stands in delivery.plan_bound.

    Raises SourceDataError when AppXite gave no invoice at all: that is an alarm, not a night without work.
    """
    parked = dict(
        connection.execute(
            "select reason_code, detail from delivery.plan_bound where plan_id = %s", [plan_id]
        ).fetchall()
    )
    if "no_invoices" in parked:
        raise SourceDataError(
            f"{parked['no_invoices']} If there truly is none: python -m billing_sync bounds list, then bounds allow, "
            "or approve the plan."
        )
    return bool(parked)


def why_parked(connection: Connection, plan_id: int) -> str:
    """The bounds that park a plan, as a sentence to add to a message; empty when none does."""
    row = connection.execute(
        "select string_agg(detail, '; ' order by bound_key) from delivery.plan_bound where plan_id = %s", [plan_id]
    ).fetchone()
    return f" It is parked: {row[0]}." if row and row[0] else ""


def _figure(text: str) -> Decimal | None:
    try:
        figure = Decimal(text.replace(",", ""))
    except InvalidOperation:
        return None
    return figure if figure.is_finite() else None  # a NaN cannot be compared
