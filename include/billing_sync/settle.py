"""Settling an Addition that needs a person: refused, in conflict, or not as it was delivered.

What may be written of the ledger is said in SQL (migration 0017): the review pages may write nothing else of it.
"""

from __future__ import annotations

from typing import Any, Literal

from psycopg.rows import dict_row

from billing_sync.db import Connection
from billing_sync.errors import ConfigurationError, StaleEditError
from billing_sync.pauses import end_pause_of_proof
from billing_sync.run import log_entry

Way = Literal["retry", "anew", "confirm"]
# By state: what may be done about it.
WAYS: dict[str, tuple[Way, ...]] = {
    "refused": ("retry",),
    "conflict": ("retry", "confirm", "anew"),
    "delivered": ("anew",),
}
LIST_THEM = "List them with: python -m billing_sync additions list"


def unsettled_additions(
    connection: Connection, *, limit: int = 1000, offset: int = 0, line_id: int | None = None
) -> tuple[int, list[dict[str, Any]]]:
    """How many Additions need a person, and a page of them: rows of reporting.unsettled_addition with `ways`.

    line_id: only what this line waits for: its own Addition, and those of its subscription on its agreement.
    """
    rows = connection.cursor(row_factory=dict_row).execute(
        """
        select addition.*, count(*) over () as found
        from reporting.unsettled_addition as addition
        where %(line_id)s::bigint is null or %(line_id)s = any(addition.line_ids) or exists (
            select from billing.invoice_line as line
            join billing.line_decision as decision using (line_id)
            where line.line_id = %(line_id)s and line.subscription_id = addition.subscription_id
                and decision.agreement_id = addition.agreement_id and decision.outcome = 'held'
        )
        order by addition.company_name, addition.agreement_name, addition.delivery_key
        limit %(limit)s offset %(offset)s
        """,
        {"line_id": line_id, "limit": limit, "offset": offset},
    )
    found = rows.fetchall()
    return (found[0]["found"] if found else 0), [{**row, "ways": WAYS[row["state"]]} for row in found]


def retry_addition(
    connection: Connection,
    delivery_key: str,
    person: str,
    *,
    anew: bool = False,
    seen_plan_id: int | None = None,
) -> str:
    """Let the next run try an Addition again that was refused or is in conflict. Returns the state it was in.

    What was delivered before is compared with ConnectWise anew before anything is written: a person's change that still
    stands makes it a conflict again.
    anew: also for a delivered Addition that the proof does not find as delivered (deleted, say). Its lines that are not
    proven are decided again, and it is created again unless ConnectWise still holds one with its marker, which is then
    brought to the values of the plan. A pause by which a proof parked the customer ends.
    seen_plan_id: the plan that had written it last when the person looked.
    Raises ConfigurationError for an Addition in any other state, StaleEditError if it changed since the person looked.
    """
    with connection.transaction():
        problem = _problem_of(connection, delivery_key)
        (was,) = _row(
            connection.execute("select delivery.retry_addition(%s, %s, %s)", [delivery_key, anew, seen_plan_id])
        )
        if was is None:
            raise _not_to_settle(connection, delivery_key, "was refused or is in conflict", seen_plan_id)
        end_pause_of_proof(connection, delivery_key, person)
        log_entry(
            connection, None, "INFO", "addition_retried",
            f"{person} lets {delivery_key} be {'made anew' if anew else 'tried again'}",
            delivery_key=delivery_key, was=was, problem=problem,
        )  # fmt: skip
    return str(was)


def confirm_addition(connection: Connection, delivery_key: str, person: str, *, seen_plan_id: int | None = None) -> int:
    """A person has seen an Addition in conflict on ConnectWise's invoice: its plan's lines are delivered, and proven.

    Returns how many lines. A pause by which a proof parked the customer ends. seen_plan_id: as for retry_addition.
    Raises ConfigurationError for one that is not in conflict, StaleEditError if it changed since the person looked.
    """
    with connection.transaction():
        (line_ids,) = _row(connection.execute("select delivery.confirm_addition(%s, %s)", [delivery_key, seen_plan_id]))
        if line_ids is None:
            raise _not_to_settle(connection, delivery_key, "in conflict", seen_plan_id)
        end_pause_of_proof(connection, delivery_key, person)
        message = f"{person} has seen {delivery_key} on ConnectWise's invoice: {len(line_ids)} lines are delivered"
        log_entry(connection, None, "INFO", "addition_confirmed", message, delivery_key=delivery_key)
    return len(line_ids)


def _row(cursor: Any) -> tuple[Any, ...]:
    row = cursor.fetchone()
    assert row is not None
    return tuple(row)


def _problem_of(connection: Connection, delivery_key: str) -> str | None:
    row = connection.execute("select problem from delivery.addition where delivery_key = %s", [delivery_key]).fetchone()
    return row[0] if row else None


def _not_to_settle(
    connection: Connection, delivery_key: str, wanted: str, seen_plan_id: int | None
) -> ConfigurationError | StaleEditError:
    """Why the functions left it as it is."""
    row = connection.execute(
        """
        select state, exists (
            select from delivery.addition_line as carried
            where carried.delivery_key = addition.delivery_key and carried.proven_run_id is null
        )
        from delivery.addition where delivery_key = %s
        """,
        [delivery_key],
    ).fetchone()
    if row is not None and seen_plan_id is not None:
        return StaleEditError(
            f"The Addition has changed since you looked: it is {row[0].replace('conflict', 'in conflict')} now. "
            "Nothing was done."
        )
    is_unproven = row is not None and row[0] == "delivered" and row[1]
    return ConfigurationError(
        f"There is no Addition {delivery_key!r} {'that ' if wanted.startswith('was') else ''}{wanted}"
        + (f": it is {row[0]}." if row else ".")
        + (" Where it is not as it was delivered: --anew." if is_unproven else "")
        + f" {LIST_THEM}"
    )
