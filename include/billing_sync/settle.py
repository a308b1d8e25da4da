"""Settling an Addition that needs a person: refused, in conflict, or not as it was delivered.

What may be written of the ledger is said in SQL (migration 0017): the review pages may write nothing else of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from psycopg.rows import dict_row

from billing_sync.db import Connection
from billing_sync.errors import ConfigurationError, StaleEditError
from billing_sync.pauses import end_pause_of_proof

Way = Literal["retry", "confirm", "anew"]
State = Literal["refused", "conflict", "delivered"]


def ways(state: str, *, is_invoiced: bool) -> tuple[Way, ...]:
    """What may be done about an Addition. is_invoiced: a cycle of what it carries without proof is on an invoice."""
    if state == "refused":
        return ("retry",)
    if state == "conflict":
        return ("retry", "confirm", "anew")
    return ("confirm", "anew") if is_invoiced else ("anew",)


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
        where %(line_id)s::bigint is null or addition.delivery_key = any(array(
            select carried.delivery_key from delivery.addition_line as carried where carried.line_id = %(line_id)s
            union
            select item.delivery_key
            from delivery.plan_item_line as planned
            join delivery.plan_item as item using (plan_item_id)
            where planned.line_id = %(line_id)s
            union
            select ledger.delivery_key
            from billing.invoice_line as line
            join billing.line_decision as decision using (line_id)
            join delivery.addition as ledger using (subscription_id, agreement_id)
            where line.line_id = %(line_id)s and decision.outcome = 'held'
        ))
        order by addition.company_name, addition.agreement_name, addition.delivery_key
        limit %(limit)s offset %(offset)s
        """,
        {"line_id": line_id, "limit": limit, "offset": offset},
    )
    found = rows.fetchall()
    total = found[0].pop("found") if found else 0
    return total, [{**row, "ways": ways(row["state"], is_invoiced=row["is_invoiced"])} for row in found]


def retry_addition(
    connection: Connection,
    delivery_key: str,
    person: str,
    *,
    anew: bool = False,
    seen: tuple[str, int] | None = None,
) -> str:
    """Let the next run try an Addition again that was refused or is in conflict. Returns the state it was in.

    What was read back as equal before is compared with ConnectWise anew before anything is written: a person's change
    that still stands makes it a conflict again.
    anew: also for a delivered Addition that the proof does not find as delivered (deleted, say). Its lines that are not
    proven are decided again, and it is created again unless ConnectWise still holds one with its marker, which is then
    brought to the values of the plan. Plans that were made before do not write it.
    The proof's pause of the customer ends once nothing else of it is to be settled.
    seen: state, and the plan that had written it last, when the person looked.
    Raises ConfigurationError for an Addition in any other state, StaleEditError if it changed since the person looked.
    """
    with _settling(connection, delivery_key, person, seen):
        (was,) = _row(
            connection.execute("select delivery.retry_addition(%s, %s, %s)", [delivery_key, anew, seen and seen[1]])
        )
        if was is None:
            raise _not_to_settle(connection, delivery_key, "that was refused or is in conflict", seen)
    return str(was)


def confirm_addition(
    connection: Connection, delivery_key: str, person: str, *, seen: tuple[str, int] | None = None
) -> int:
    """A person has seen an Addition on ConnectWise's invoice. Returns how many lines count as delivered and proven now.

    In conflict: the lines of the plan that wrote it last. Delivered, but changed by a person since: its lines of cycles
    that ConnectWise has invoiced. seen, and the proof's pause: as for retry_addition.
    Raises ConfigurationError for one that is neither, StaleEditError if it changed since the person looked.
    """
    with _settling(connection, delivery_key, person, seen):
        (line_ids,) = _row(
            connection.execute("select delivery.confirm_addition(%s, %s)", [delivery_key, seen and seen[1]])
        )
        if line_ids is None:
            raise _not_to_settle(connection, delivery_key, "in conflict", seen)
    return len(line_ids)


@contextmanager
def _settling(connection: Connection, delivery_key: str, person: str, seen: tuple[str, int] | None) -> Iterator[None]:
    with connection.transaction():
        connection.execute("select set_config('billing.user', %s, true)", [person])
        if seen is not None and _state(connection, delivery_key)[0] != seen[0]:
            raise _not_to_settle(connection, delivery_key, "", seen)
        yield
        end_pause_of_proof(connection, delivery_key, person)


def _row(cursor: Any) -> tuple[Any, ...]:
    row = cursor.fetchone()
    assert row is not None
    return tuple(row)


def _state(connection: Connection, delivery_key: str) -> tuple[str | None, bool]:
    """State, None if there is none; and whether it is delivered with lines that are not proven."""
    row = connection.execute(
        """
        select state, state = 'delivered' and exists (
            select from delivery.addition_line as carried
            where carried.delivery_key = addition.delivery_key and carried.proven_run_id is null
        )
        from delivery.addition where delivery_key = %s
        """,
        [delivery_key],
    ).fetchone()
    return row or (None, False)


def _not_to_settle(
    connection: Connection, delivery_key: str, wanted: str, seen: tuple[str, int] | None
) -> ConfigurationError | StaleEditError:
    """Why it was left as it is."""
    state, is_unproven = _state(connection, delivery_key)
    if state is not None and seen is not None:
        now = state.replace("conflict", "in conflict")
        return StaleEditError(f"The Addition has changed since you looked: it is {now} now. Nothing was done.")
    return ConfigurationError(
        f"There is no Addition {delivery_key!r} {wanted}"
        + (f": it is {state}." if state else ".")
        + (" Where it is not as it was delivered: additions retry --anew." if is_unproven else "")
        + " List them with: python -m billing_sync additions list"
    )
