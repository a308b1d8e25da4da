"""Edits of the review grid: values that a person types for one line. They win over rules, and are decided at once.

An edit carries the version of the typed values as the person saw them. A line that is delivered, being delivered, or
part of an approved plan cannot be edited any more. Every change stands in audit.change, by the triggers of
billing.override.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Final, LiteralString

from psycopg import sql

from billing_sync.db import Connection
from billing_sync.decide import MANY_LINES, Released, decide_again, deciding, try_decide_again
from billing_sync.errors import LockedError, NotFoundError, RefusedEditError, StaleEditError
from billing_sync.review import Row, read_line
from billing_sync.settings import get_setting

VALUES: Final = (
    "agreement_id", "product_id", "effective_date", "cancelled_date", "quantity", "unit_price", "invoice_description",
)  # fmt: skip
LARGEST: Final = Decimal(10**9)  # of a quantity or a unit price; money has 16 digits in the database
LARGEST_AMOUNT: Final = Decimal(10**13)
FIRST_DAY, LAST_DAY = date(2000, 1, 1), date(2099, 12, 31)

Connect = Callable[[], AbstractContextManager[Connection]]


@dataclass(frozen=True)
class Changed:
    """The line as it stands after the change, and what that did to other lines."""

    line: Row
    released: Released


def change_line(
    connection: Connection,
    line_id: int,
    *,
    version: int,
    changes: Mapping[str, Any],
    connect: Connect | None = None,
) -> Changed:
    """Type values for a line, and decide the customer's open lines again.

    changes: of VALUES, is_excluded and reason those that change; None takes a typed value back. version: of the typed
    values as the person saw them, 0 for none. Stored and decided together; for a customer with very many open lines,
    deciding goes on in the background (see decide_again).
    Raises NotFoundError, StaleEditError (current: the line as it is now), LockedError, RefusedEditError for a value
    that cannot be, and BusyError; then nothing is stored.
    """
    with deciding(connection):
        line = _line_to_edit(connection, line_id, version, changes)
        wanted = _with_changes(connection, line_id, changes)
        _check(connection, line, changes, wanted)
        _store(connection, line_id, wanted)
        is_small = _open_lines(connection, line["organization_id"]) <= MANY_LINES
        if is_small:
            released = decide_again(connection, organization_ids=[line["organization_id"]])
    if not is_small:
        released = try_decide_again(connection, organization_ids=[line["organization_id"]], connect=connect)
    return Changed(read_line(connection, line_id), released)


def hold_plans_of(connection: Connection, line_ids: Sequence[int]) -> None:
    """Until the transaction ends, no waiting plan with one of these lines can be approved (and so none delivered)."""
    connection.execute(
        """
        select from delivery.plan as plan
        where plan.state = 'proposed' and plan.plan_id in (
            select item.plan_id
            from delivery.plan_item_line as planned join delivery.plan_item as item using (plan_item_id)
            where planned.line_id = any(%s)
        )
        order by plan.plan_id
        for share
        """,
        [list(line_ids)],
    )


def _line_to_edit(connection: Connection, line_id: int, version: int, changes: Mapping[str, Any]) -> Row:
    hold_plans_of(connection, [line_id])
    line = read_line(connection, line_id)
    if line["lock"] and not (changes.keys() <= {"is_excluded", "reason"} and _is_dealt_with(connection, line)):
        raise LockedError(f"Line {line_id} cannot be changed any more: {line['lock']}.")
    if line["version"] != version:
        who, at = _last_change(connection, line_id)
        raise StaleEditError(f"{who} changed this line at {at}. Look at it again.", current=line)
    return line


def _is_dealt_with(connection: Connection, line: Row) -> bool:
    """Whether excluding says what became of it: a delivered line of an invoice that AppXite withdrew."""
    row = connection.execute(
        """
        select from billing.invoice_line as line join billing.invoice as invoice using (invoice_id)
        where line.line_id = %s and invoice.withdrawn is not null
        """,
        [line["line_id"]],
    ).fetchone()
    return line["outcome"] == "delivered" and row is not None


def _last_change(connection: Connection, line_id: int) -> tuple[str, str]:
    row = connection.execute(
        """
        select changed_by, to_char(changed_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"') from audit.change
        where table_name = 'billing.override' and row_key = %s order by change_id desc limit 1
        """,
        [str(line_id)],
    ).fetchone()
    return (row[0], row[1]) if row else ("Nobody", "any time")


def _with_changes(connection: Connection, line_id: int, changes: Mapping[str, Any]) -> Row:
    """All typed values of the line as they shall be."""
    columns = (*VALUES, "is_excluded", "reason")
    row = connection.execute(
        sql.SQL("select {} from billing.override where line_id = %s").format(
            sql.SQL(", ").join(map(sql.Identifier, columns))
        ),
        [line_id],
    ).fetchone()
    stands = dict(zip(columns, row or [None] * len(columns), strict=True))
    wanted = {**stands, **changes}
    wanted["is_excluded"] = bool(wanted["is_excluded"])
    if not wanted["is_excluded"] and changes.get("is_excluded") is not None and "reason" not in changes:
        wanted["reason"] = None  # it was the reason to exclude the line
    for name in ("invoice_description", "reason"):
        wanted[name] = (wanted[name] or "").strip() or None
    return wanted


def _store(connection: Connection, line_id: int, wanted: Row) -> None:
    """As it shall be; without any value, the line has none typed."""
    if all(wanted[name] is None for name in VALUES) and not wanted["is_excluded"]:
        connection.execute("delete from billing.override where line_id = %s", [line_id])
        return
    connection.execute(
        sql.SQL(
            """
            insert into billing.override (line_id, {columns}) values (%(line_id)s, {values})
            on conflict (line_id) do update set ({columns}) = row({excluded})
            """
        ).format(
            columns=sql.SQL(", ").join(map(sql.Identifier, wanted)),
            values=sql.SQL(", ").join(map(sql.Placeholder, wanted)),
            excluded=sql.SQL(", ").join(sql.Identifier("excluded", name) for name in wanted),
        ),
        {**wanted, "line_id": line_id},
    )


def _open_lines(connection: Connection, organization_id: str) -> int:
    row = connection.execute(
        """
        select count(*) from billing.invoice as invoice join billing.invoice_line as line using (invoice_id)
        where invoice.organization_id = %s
            and not exists (select from delivery.addition_line as carried where carried.line_id = line.line_id)
        """,
        [organization_id],
    ).fetchone()
    assert row is not None
    return int(row[0])


# -- what may be typed -------------------------------------------------------------------------------------------------


def _check(connection: Connection, line: Row, changes: Mapping[str, Any], wanted: Row) -> None:
    """Raises RefusedEditError for what cannot be; only what changes is looked at."""
    check_values(connection, changes)
    if changes.get("agreement_id") is not None and line["company_id"] is not None:
        row = connection.execute(
            "select company_id from mapping.agreement where agreement_id = %s", [changes["agreement_id"]]
        ).fetchone()
        if row and row[0] != line["company_id"]:
            raise RefusedEditError(
                f"Agreement {changes['agreement_id']} belongs to another company than {line['company_name']}."
            )
    start, end = wanted["effective_date"], wanted["cancelled_date"]
    if start and end and end < start:
        raise RefusedEditError(f"The end ({end}) lies before the start ({start}).")
    if wanted["is_excluded"] and not wanted["reason"]:
        raise RefusedEditError("Say why the line is excluded.")
    quantity = wanted["quantity"] if wanted["quantity"] is not None else line["quantity"]
    unit_price = wanted["unit_price"] if wanted["unit_price"] is not None else line["unit_price"]
    if quantity is not None and unit_price is not None and abs(quantity * unit_price) > LARGEST_AMOUNT:
        raise RefusedEditError(f"{quantity} x {unit_price} is more than an invoice can hold.")


def check_values(connection: Connection, changes: Mapping[str, Any]) -> None:
    """What can be told of new values without the line. Raises RefusedEditError."""
    for name, kind, statement in _TARGETS:
        target = changes.get(name)
        if target is not None:
            row = connection.execute(statement, [target]).fetchone()
            if row is None:
                raise RefusedEditError(f"ConnectWise has no {kind} {target}, as far as we have read it.")
            if row[0]:
                raise RefusedEditError(f"{kind.capitalize()} {target} cannot be used: it is {row[0]}.")
    for name in ("effective_date", "cancelled_date"):
        day = changes.get(name)
        if isinstance(day, date) and not FIRST_DAY <= day <= LAST_DAY:
            raise RefusedEditError(f"{day} is no date of a charge.")
    for name in ("quantity", "unit_price"):
        number = changes.get(name)
        if number is not None and abs(number) >= LARGEST:
            raise RefusedEditError(f"{number} is too large.")
    decimals = int(get_setting(connection, "unit_price_decimals"))
    unit_price = changes.get("unit_price")
    if unit_price is not None and round(unit_price, decimals) != unit_price:
        raise RefusedEditError(
            f"{unit_price} has more than the {decimals} decimals that your ConnectWise keeps of a unit price "
            "(setting unit_price_decimals)."
        )


_TARGETS: Final[tuple[tuple[str, str, LiteralString], ...]] = (
    ("agreement_id", "agreement", "select unusable from mapping.agreement where agreement_id = %s"),
    ("product_id", "product", "select unusable from mapping.product where product_id = %s"),
)


# -- what may be picked ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """Something that a person may pick. unusable: why it cannot be picked. is_candidate: the pipeline thought of it."""

    id: int
    name: str
    detail: str
    unusable: str | None
    is_candidate: bool


def agreements_for(connection: Connection, line_id: int, text: str, *, limit: int = 50) -> list[Choice]:
    """Agreements of the line's company whose name or id has the text in it; candidates first.

    Raises NotFoundError when there is no such line.
    """
    line = read_line(connection, line_id)
    rows = connection.execute(
        """
        select
            agreement.agreement_id, coalesce(agreement.name, ''),
            concat_ws(', ', agreement_type.name, billing_cycle.name, agreement.currency, 'company ' || company.name),
            coalesce(agreement.unusable, case when agreement.prorates then 'prorating' end),
            agreement.agreement_id = any(%(candidates)s::integer[]) as is_candidate
        from mapping.agreement as agreement
        left join mapping.agreement_type as agreement_type using (agreement_type_id)
        left join mapping.billing_cycle as billing_cycle on billing_cycle.billing_cycle_id = agreement.billing_cycle_id
        left join mapping.company as company on company.company_id = agreement.company_id
        where
            (
                agreement.company_id = %(company_id)s::integer
                or (%(company_id)s::integer is null and %(text)s::text <> '')
            )
            and (
                strpos(lower(agreement.name), lower(%(text)s::text)) > 0
                or agreement.agreement_id::text = %(text)s::text
            )
        order by is_candidate desc, agreement.unusable is not null, agreement.name, agreement.agreement_id
        limit %(limit)s
        """,
        {
            "company_id": line["company_id"], "candidates": line["agreement_candidates"], "text": text, "limit": limit,
        },
    ).fetchall()  # fmt: skip
    return [Choice(*row) for row in rows]


def products_for(connection: Connection, line_id: int, text: str, *, limit: int = 50) -> list[Choice]:
    """Products whose identifier, description or id has the text in it; what the offer becomes comes first.

    Raises NotFoundError when there is no such line.
    """
    row = connection.execute("select offer_id from billing.invoice_line where line_id = %s", [line_id]).fetchone()
    if row is None:
        raise NotFoundError(f"There is no line {line_id}.")
    rows = connection.execute(
        """
        select
            product.product_id, coalesce(product.identifier, ''), coalesce(product.description, ''), product.unusable,
            product.product_id in (
                select mapped.product_id from mapping.offer_mapping as mapped where mapped.offer_id = %(offer_id)s::text
            ) as is_candidate
        from mapping.product as product
        where
            strpos(lower(product.identifier), lower(%(text)s::text)) > 0
            or strpos(lower(product.description), lower(%(text)s::text)) > 0
            or product.product_id::text = %(text)s::text
        order by is_candidate desc, product.unusable is not null, product.identifier, product.product_id
        limit %(limit)s
        """,
        {"offer_id": row[0], "text": text, "limit": limit},
    ).fetchall()
    return [Choice(*row) for row in rows]
