"""The review grid's reading: lines with what ConnectWise will get, filtered, sorted and paged in the database.

Ids are found, counted and sorted first, over base tables; everything else is looked up for one page only. So a page of
100,000 lines costs what the filter and the sort need, and no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Final, LiteralString

from psycopg import sql
from psycopg.rows import dict_row

from billing_sync.cures import cure_link
from billing_sync.db import Connection, at_ease
from billing_sync.errors import NotFoundError

Row = dict[str, Any]


@dataclass(frozen=True)
class LineFilter:
    """Which lines. Everything that is given counts at once; of a list, any of its entries. Empty: all lines.

    text: stands somewhere in customer, company, invoice, subscription, offer or description; as it is, no wildcards.
    """

    periods: Sequence[date] = ()
    outcomes: Sequence[str] = ()
    reason_codes: Sequence[str] = ()
    bound_key: str | None = None
    organization_ids: Sequence[str] = ()
    invoice_number: str | None = None
    charge_types: Sequence[str] = ()
    agreement_id: int | None = None
    subscription_id: str | None = None
    offer_id: str | None = None
    text: str | None = None
    user_updated: bool | None = None
    min_total: Decimal | None = None
    max_total: Decimal | None = None
    currencies: Sequence[str] = ()
    line_ids: Sequence[int] = ()


# Tables that neither filter nor sort needs are left out by PostgreSQL itself: each is joined by its key.
_FROM: Final[LiteralString] = """
    from billing.invoice_line as line
    join billing.invoice as invoice on invoice.invoice_id = line.invoice_id
    left join mapping.organization as organization on organization.organization_id = invoice.organization_id
    left join billing.line_decision as decision on decision.line_id = line.line_id
    left join delivery.addition_line as carried on carried.line_id = line.line_id
    left join delivery.addition as ledger on ledger.delivery_key = carried.delivery_key
    left join mapping.company as company on company.company_id = coalesce(ledger.company_id, decision.company_id)
    left join mapping.agreement as agreement
        on agreement.agreement_id = coalesce(ledger.agreement_id, decision.agreement_id)
    left join mapping.product as product on product.product_id = decision.product_id
    left join billing.override as override on override.line_id = line.line_id
    left join (
        select line_id, min(held_since) as held_since from billing.held_reason group by line_id
    ) as held on held.line_id = line.line_id
"""
_OUTCOME: Final[LiteralString] = "billing.line_outcome(ledger.state, decision.outcome)"

# By the parts of a LineFilter that are given.
_CONDITIONS: Final[dict[str, LiteralString]] = {
    "periods": "invoice.billing_period = any(%(periods)s::date[])",
    "outcomes": f"{_OUTCOME} = any(%(outcomes)s::text[])",
    "reason_codes": f"""
        {_OUTCOME} = 'held' and exists (
            select from billing.held_reason as reason
            where reason.line_id = line.line_id and reason.reason_code = any(%(reason_codes)s::text[])
        )
    """,
    "bound_key": f"""
        {_OUTCOME} = 'held' and exists (
            select from billing.held_reason as reason
            where reason.line_id = line.line_id and reason.bound_key = %(bound_key)s::text
        )
    """,
    "organization_ids": "invoice.organization_id = any(%(organization_ids)s::text[])",
    "invoice_number": "invoice.invoice_number = %(invoice_number)s::text",
    "charge_types": "line.charge_type = any(%(charge_types)s::text[])",
    "agreement_id": "coalesce(ledger.agreement_id, decision.agreement_id) = %(agreement_id)s::integer",
    "subscription_id": "line.subscription_id = %(subscription_id)s::text",
    "offer_id": "line.offer_id = %(offer_id)s::text",
    # What many lines share is searched once, in the small tables.
    "text": """
        (
            invoice.organization_id = any(array(
                select known.organization_id from mapping.organization as known
                where strpos(lower(known.name), lower(%(text)s::text)) > 0 or known.organization_id = %(text)s::text
            ))
            or coalesce(ledger.company_id, decision.company_id) = any(array(
                select known.company_id from mapping.company as known
                where strpos(lower(known.name), lower(%(text)s::text)) > 0
            ))
            or strpos(lower(invoice.invoice_number), lower(%(text)s::text)) > 0
            or strpos(lower(line.subscription_name), lower(%(text)s::text)) > 0
            or strpos(lower(line.subscription_id), lower(%(text)s::text)) > 0
            or strpos(lower(line.offer_name), lower(%(text)s::text)) > 0
            or strpos(lower(line.offer_id), lower(%(text)s::text)) > 0
            or strpos(lower(decision.invoice_description), lower(%(text)s::text)) > 0
        )
    """,
    "user_updated": "(override.line_id is not null) = %(user_updated)s::boolean",
    "min_total": "line.total_price::numeric >= %(min_total)s::numeric",
    "max_total": "line.total_price::numeric <= %(max_total)s::numeric",
    "currencies": "line.currency = any(%(currencies)s::text[])",
    "line_ids": "line.line_id = any(%(line_ids)s::bigint[])",
}

SORT_COLUMNS: Final[dict[str, LiteralString]] = {
    "line_id": "line.line_id",
    "organization_name": "organization.name",
    "company_name": "company.name",
    "invoice_number": "invoice.invoice_number",
    "invoice_date": "invoice.invoice_date",
    "subscription_name": "line.subscription_name",
    "offer_name": "line.offer_name",
    "charge_type": "line.charge_type",
    "charge_start_date": "line.charge_start_date",
    "charge_end_date": "line.charge_end_date",
    "quantity": "line.quantity::numeric",
    "unit_price": "line.unit_price::numeric",
    "total_price": "line.total_price::numeric",
    "outcome": _OUTCOME,
    "agreement_name": "agreement.name",
    "product": "product.identifier",
    "effective_date": "decision.effective_date",
    "cancelled_date": "decision.cancelled_date",
    "sent_quantity": "decision.quantity::numeric",
    "sent_unit_price": "decision.unit_price::numeric",
    "sent_amount": "coalesce(carried.amount, decision.amount)::numeric",
    "held_since": "held.held_since",
}

_DETAIL: Final[LiteralString] = """
    select
        line.line_id, line.revision, to_char(reported.billing_period, 'YYYY-MM') as billing_period,
        reported.organization_id, reported.organization_name, reported.invoice_number, reported.invoice_date,
        reported.invoice_status, line.subscription_id, line.subscription_name, line.offer_id, line.offer_name,
        line.charge_type, charge_type.display_name as charge_type_name, line.charge_start_date, line.charge_end_date,
        line.billing_frequency, trim_scale(line.quantity) as quantity, trim_scale(line.unit_price) as unit_price,
        round(line.total_price, 2) as total_price, line.currency, reported.outcome, reported.excluded_by,
        reported.company_id, reported.company_name, decision.product_id, product.identifier as product,
        agreement.agreement_id, agreement.name as agreement_name,
        coalesce(decision.agreement_candidates, '{}') as agreement_candidates,
        decision.effective_date, decision.cancelled_date, reported.cycle_start, reported.cycle_end,
        trim_scale(decision.quantity) as sent_quantity, trim_scale(decision.unit_price) as sent_unit_price,
        round(coalesce(carried.amount, decision.amount), 2) as sent_amount, decision.invoice_description,
        reported.connectwise_addition_id, reported.value_sources, reported.charge_type_version as rules_version,
        held.reasons as held_reasons, held.since as held_since,
        override.version as typed_version, override.decided_by, override.decided_at, override.is_excluded,
        override.reason,
        array_remove(array[
            case when override.agreement_id is not null then 'agreement_id' end,
            case when override.product_id is not null then 'product_id' end,
            case when override.effective_date is not null then 'effective_date' end,
            case when override.cancelled_date is not null then 'cancelled_date' end,
            case when override.quantity is not null then 'quantity' end,
            case when override.unit_price is not null then 'unit_price' end,
            case when override.invoice_description is not null then 'invoice_description' end
        ], null) as typed_fields,
        (select min(locked.why) from delivery.locked_line as locked where locked.line_id = line.line_id) as lock
    from reporting.invoice_line as reported
    join billing.invoice_line as line on line.line_id = reported.line_id
    left join billing.line_decision as decision on decision.line_id = line.line_id
    left join delivery.addition_line as carried on carried.line_id = line.line_id
    left join delivery.addition as ledger on ledger.delivery_key = carried.delivery_key
    left join mapping.agreement as agreement
        on agreement.agreement_id = coalesce(ledger.agreement_id, decision.agreement_id)
    left join mapping.product as product on product.product_id = decision.product_id
    left join billing.charge_type as charge_type on charge_type.charge_type = line.charge_type
    left join billing.override as override on override.line_id = line.line_id
    left join lateral (
        select
            min(reason.held_since) as since,
            jsonb_agg(jsonb_build_object(
                'code', reason.reason_code, 'title', code.title, 'detail', reason.detail, 'cure', code.cure,
                'held_since', reason.held_since, 'bound_key', reason.bound_key, 'bound_figure', reason.bound_figure
            ) order by reason.held_since, reason.reason_code) as reasons
        from billing.held_reason as reason join billing.held_reason_code as code using (reason_code)
        where reason.line_id = line.line_id and reported.outcome = 'held'
    ) as held on true
    where reported.line_id = any(%(line_ids)s::bigint[])
"""


@dataclass(frozen=True)
class Page:
    """A page of lines. total: how many lines the filter finds. Rows have the names of the grid's columns."""

    total: int
    rows: list[Row]


def read_page(connection: Connection, wanted: LineFilter, *, sort: str, offset: int, limit: int) -> Page:
    """A page of the lines that the filter finds, in a stable order.

    sort: a name of SORT_COLUMNS; with - before it, the other way round. Empty values come last.
    """
    with at_ease(connection):
        found = connection.execute(
            sql.SQL(
                """
            with found as materialized (select line.line_id, {column} as sorted_by {found})
            select
                (select count(*) from found),
                array(
                    select line_id from found order by sorted_by {direction} nulls last, line_id
                    offset %(offset)s limit %(limit)s
                )
            """
            ).format(found=_found(wanted), **_sorting(sort)),
            {**_values(wanted), "offset": offset, "limit": limit},
        ).fetchone()
    assert found is not None
    total, line_ids = found
    return Page(int(total), read_lines(connection, line_ids))


def find_line_ids(connection: Connection, wanted: LineFilter, *, sort: str = "line_id") -> list[int]:
    """The ids of all lines that the filter finds, in order."""
    with at_ease(connection):
        rows = connection.execute(
            sql.SQL("select line.line_id {found} order by {column} {direction} nulls last, line.line_id").format(
                found=_found(wanted), **_sorting(sort)
            ),
            _values(wanted),
        ).fetchall()
    return [int(line_id) for (line_id,) in rows]


def read_lines(connection: Connection, line_ids: Sequence[int]) -> list[Row]:
    """These lines, in this order; those that do not exist are left out."""
    if not line_ids:
        return []
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = {row["line_id"]: row for row in cursor.execute(_DETAIL, {"line_ids": list(line_ids)}).fetchall()}
    return [_told(rows[line_id]) for line_id in line_ids if line_id in rows]


def read_line(connection: Connection, line_id: int) -> Row:
    """One line. Raises NotFoundError when there is none of that id."""
    rows = read_lines(connection, [line_id])
    if not rows:
        raise NotFoundError(f"There is no line {line_id}.")
    return rows[0]


def read_totals(connection: Connection, wanted: LineFilter) -> Row:
    """The money of all lines that the filter finds: by outcome, by held reason, and what else they can be filtered by.

    A dictionary of outcomes, reasons (a line with two reasons counts under each), charge_types and currencies.
    """
    with at_ease(connection), connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(
            sql.SQL(
                """
                with found as materialized (
                    select line.line_id, line.total_price::numeric as total_price, line.currency, line.charge_type,
                        {outcome} as outcome
                    {found}
                )
                select
                    (
                        select coalesce(jsonb_agg(summed order by summed.outcome, summed.currency), '[]') from (
                            select outcome, coalesce(currency, '') as currency,
                                coalesce(sum(total_price), 0)::text as amount, count(*) as lines
                            from found group by 1, 2
                        ) as summed
                    ) as outcomes,
                    (
                        select coalesce(
                            jsonb_agg(summed order by summed.lines desc, summed.code, summed.currency), '[]'
                        )
                        from (
                            select reason.reason_code as code, code.title, coalesce(found.currency, '') as currency,
                                coalesce(sum(found.total_price), 0)::text as amount, count(*) as lines
                            from found
                            join billing.held_reason as reason using (line_id)
                            join billing.held_reason_code as code using (reason_code)
                            where found.outcome = 'held'
                            group by 1, 2, 3
                        ) as summed
                    ) as reasons,
                    array(
                        select distinct charge_type from found where charge_type is not null order by 1
                    ) as charge_types,
                    array(select distinct currency from found where currency is not null order by 1) as currencies
                """
            ).format(found=_found(wanted), outcome=sql.SQL(_OUTCOME)),
            _values(wanted),
        ).fetchone()
    assert row is not None
    return row


def read_all(connection: Connection, wanted: LineFilter, *, sort: str, at_once: int = 2000) -> Iterator[Row]:
    """All lines that the filter finds, in order, as of one moment; so many in memory at once."""
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read")
        line_ids = find_line_ids(connection, wanted, sort=sort)
        for start in range(0, len(line_ids), at_once):
            yield from read_lines(connection, line_ids[start : start + at_once])


def _found(wanted: LineFilter) -> sql.Composed:
    conditions = [sql.SQL(words) for name, words in _CONDITIONS.items() if _is_given(getattr(wanted, name))]
    where = sql.SQL(" where {}").format(sql.SQL(" and ").join(conditions)) if conditions else sql.SQL("")
    return sql.SQL(_FROM) + where


def _is_given(value: object) -> bool:
    return value is not None and value != () and value != []


def _values(wanted: LineFilter) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value, (list, tuple)) else value
        for name in _CONDITIONS
        if _is_given(value := getattr(wanted, name))
    }


def _sorting(sort: str) -> dict[str, sql.SQL]:
    name = sort.removeprefix("-")
    return {
        "column": sql.SQL(SORT_COLUMNS[name]),
        "direction": sql.SQL("desc" if sort.startswith("-") else "asc"),
    }


def _told(row: Row) -> Row:
    """A row as the grid shows it: reasons with their links, typed values by themselves."""
    reasons = row["held_reasons"] or []
    typed_version = row.pop("typed_version")
    typed = {name: row.pop(name) for name in ("decided_by", "decided_at", "is_excluded", "reason")}
    fields = row.pop("typed_fields")
    return {
        **row,
        "held_reasons": [{**reason, "cure_link": cure_link(reason["code"], row)} for reason in reasons],
        "typed": None if typed_version is None else {"version": typed_version, "fields": fields, **typed},
        "version": typed_version or 0,
    }
