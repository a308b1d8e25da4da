"""Pauses: the stop button, for everything or for one customer. Each write looks at them before it is sent."""

from __future__ import annotations

from typing import Any

from billing_sync.claim import paused
from billing_sync.db import Connection
from billing_sync.errors import ConfigurationError


def pause(connection: Connection, reason: str, person: str, company_id: int | None = None) -> bool:
    """Pause delivery to one company, or all of it (None). False if that is paused already.

    Raises ConfigurationError for a company that is not known, or without a reason.
    """
    if not reason.strip():
        raise ConfigurationError("Say why: --reason")
    if company_id is not None:
        known = connection.execute("select from mapping.company where company_id = %s", [company_id]).fetchone()
        if known is None:
            raise ConfigurationError(
                f"There is no company {company_id}. Its id stands in ConnectWise and in mapping.company."
            )
    row = connection.execute(
        """
        insert into delivery.pause (company_id, reason, paused_by) values (%s, %s, %s)
        on conflict (coalesce(company_id, 0), (proof_run_id is not null)) where ended_at is null do nothing
        returning pause_id
        """,
        [company_id, reason.strip()[:1000], person],
    ).fetchone()
    return row is not None


def end_pause(connection: Connection, person: str, company_id: int | None = None) -> list[str]:
    """End a pause, and that of a proof if there is one; returns by whom and why each was set.

    Raises ConfigurationError if there is none.
    """
    rows = connection.execute(
        """
        update delivery.pause set ended_by = %s, ended_at = now()
        where ended_at is null and company_id is not distinct from %s
        returning paused_by || ': ' || reason
        """,
        [person, company_id],
    ).fetchall()
    if not rows:
        whom = "everything" if company_id is None else f"company {company_id}"
        raise ConfigurationError(f"There is no pause of {whom}, or somebody has ended it already.")
    return [str(row[0]) for row in rows]


def end_pause_of_proof(connection: Connection, delivery_key: str, person: str) -> None:
    """A person has dealt with an Addition: once nothing else of its customer is to be settled, it is parked no longer.

    A further breach parks it again.
    """
    connection.execute(
        """
        update delivery.pause as pause set ended_by = %s, ended_at = now()
        from delivery.addition as addition
        where addition.delivery_key = %s and pause.company_id = addition.company_id
            and pause.proof_run_id is not null and pause.ended_at is null
            and not exists (
                select from reporting.unsettled_addition as other where other.company_id = pause.company_id
            )
        """,
        [person, delivery_key],
    )


def active_pauses(connection: Connection) -> list[dict[str, Any]]:
    """company_id (None: everything), company_name, reason, paused_by, paused_at; of all pauses that last."""
    rows = connection.execute(
        """
        select pause.company_id, company.name, pause.reason, pause.paused_by, pause.paused_at
        from delivery.pause left join mapping.company using (company_id)
        where pause.ended_at is null order by pause.company_id nulls first
        """
    )
    names = ("company_id", "company_name", "reason", "paused_by", "paused_at")
    return [dict(zip(names, row, strict=True)) for row in rows.fetchall()]


def require_no_pause(connection: Connection) -> None:
    """Raises PausedError if everything is paused."""
    row = connection.execute(
        "select paused_by || ': ' || reason from delivery.pause where ended_at is null and company_id is null"
    ).fetchone()
    if row is not None:
        raise paused(str(row[0]), None)
