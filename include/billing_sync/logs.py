"""System Logs and the delivery ledger as people search them. Entries are kept for ever; the page shows 30 days."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import sql
from psycopg.rows import dict_row

from billing_sync.db import Connection

Row = dict[str, Any]
DAYS_SHOWN = 30


def _rows(connection: Connection, statement: sql.Composed, values: Mapping[str, Any]) -> list[Row]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement, values).fetchall()


def log_entries(
    connection: Connection,
    *,
    levels: Sequence[str] = (),
    text: str = "",
    run_id: int | None = None,
    code: str | None = None,
    for_ever: bool = False,
    before: int | None = None,
    after: int | None = None,
    limit: int = 100,
) -> tuple[list[Row], int | None]:
    """Log entries, newest first, and the `before` of the next older page (None: there is none).

    text: stands in the message, the code or the subject. for_ever: also those older than 30 days.
    before, after: older or newer than this log_entry_id. With after, the oldest of the newer ones come, so that
    who looks again and again misses none.
    """
    conditions: list[sql.Composable] = [sql.SQL("true")]
    if levels:
        conditions.append(sql.SQL("entry.level = any(%(levels)s)"))
    if text:
        conditions.append(
            sql.SQL(
                """
                strpos(
                    lower(concat_ws(chr(10), entry.message, entry.code, entry.subject::text)), lower(%(text)s)
                ) > 0
                """
            )
        )
    if run_id is not None:
        conditions.append(sql.SQL("entry.run_id = %(run_id)s"))
    if code:
        conditions.append(sql.SQL("entry.code = %(code)s"))
    if not for_ever:
        conditions.append(sql.SQL("entry.logged_at > now() - {} * interval '1 day'").format(sql.Literal(DAYS_SHOWN)))
    if before is not None:
        conditions.append(sql.SQL("entry.log_entry_id < %(before)s"))
    if after is not None:
        conditions.append(sql.SQL("entry.log_entry_id > %(after)s"))
    statement = sql.SQL(
        """
        select entry.log_entry_id, entry.logged_at, entry.level, entry.code, entry.message, entry.run_id, run.dag_id,
            run.dag_run_id, entry.subject
        from audit.log_entry as entry left join audit.run as run using (run_id)
        where {conditions} order by entry.log_entry_id {direction} limit %(limit)s
        """
    ).format(
        conditions=sql.SQL(" and ").join(conditions),
        direction=sql.SQL("asc" if after is not None else "desc"),
    )
    found = _rows(
        connection,
        statement,
        {
            "levels": list(levels), "text": text, "run_id": run_id, "code": code, "before": before, "after": after,
            "limit": limit + 1,
        },
    )  # fmt: skip
    entries = found[:limit]
    if after is not None:
        return entries[::-1], None
    return entries, entries[-1]["log_entry_id"] if len(found) > limit else None


def log_tiles(connection: Connection) -> Row:
    """Of the last 30 days: {total, errors, warnings, last_update}."""
    (figures,) = _rows(
        connection,
        sql.SQL(
            """
            select count(*) as total, count(*) filter (where level = 'ERROR') as errors,
                count(*) filter (where level = 'WARNING') as warnings, max(logged_at) as last_update
            from audit.log_entry where logged_at > now() - {} * interval '1 day'
            """
        ).format(sql.Literal(DAYS_SHOWN)),
        {},
    )
    return figures


def attempts(
    connection: Connection,
    *,
    delivery_key: str | None = None,
    addition_id: int | None = None,
    subscription_id: str | None = None,
    invoice_number: str | None = None,
    plan_id: int | None = None,
    before: int | None = None,
    limit: int = 100,
) -> tuple[list[Row], int | None]:
    """Writes to ConnectWise, newest first, each with its answer; and the `before` of the next older page.

    delivery_key: of the Addition, or its marker. addition_id: of ConnectWise. What is given counts at once.
    """
    conditions: list[sql.Composable] = [sql.SQL("sent.outcome = 'invoke'")]
    if delivery_key:
        conditions.append(
            sql.SQL(
                """
                sent.delivery_key in (
                    select %(delivery_key)s
                    union select delivery_key from delivery.addition where marker = %(delivery_key)s
                    union select agreement_key from delivery.new_agreement where marker = %(delivery_key)s
                )
                """
            )
        )
    if addition_id is not None:
        conditions.append(
            sql.SQL(
                """
                sent.delivery_key in (
                    select delivery_key from delivery.addition where connectwise_addition_id = %(addition_id)s
                    union
                    select delivery_key from delivery.attempt where connectwise_addition_id = %(addition_id)s
                )
                """
            )
        )
    if subscription_id:
        conditions.append(
            sql.SQL(
                """
                sent.delivery_key in (
                    select delivery_key from delivery.addition where subscription_id = %(subscription_id)s
                )
                """
            )
        )
    if invoice_number:
        conditions.append(
            sql.SQL(
                """
                sent.delivery_key in (
                    select item.delivery_key
                    from billing.invoice as invoice
                    join billing.invoice_line as line using (invoice_id)
                    join delivery.plan_item_line as planned using (line_id)
                    join delivery.plan_item as item using (plan_item_id)
                    where invoice.invoice_number = %(invoice_number)s
                )
                """
            )
        )
    if plan_id is not None:
        conditions.append(sql.SQL("sent.plan_id = %(plan_id)s"))
    if before is not None:
        conditions.append(sql.SQL("sent.attempt_id < %(before)s"))
    statement = sql.SQL(
        """
        select
            sent.attempt_id, sent.attempted_at, answer.attempted_at as answered_at, sent.operation,
            coalesce(answer.outcome, 'none yet') as answer, coalesce(answer.detail, '') as detail, sent.delivery_key,
            coalesce(answer.connectwise_addition_id, sent.connectwise_addition_id) as connectwise_addition_id,
            coalesce(ledger.agreement_id, created.agreement_id) as agreement_id,
            coalesce(agreement.name, created.payload ->> 'name') as agreement_name,
            coalesce(ledger.company_id, created.company_id) as company_id, company.name as company_name,
            ledger.subscription_id,
            (
                select coalesce(array_agg(distinct invoice.invoice_number), '{{}}')
                from delivery.plan_item as item
                join delivery.plan_item_line as planned using (plan_item_id)
                join billing.invoice_line as line using (line_id)
                join billing.invoice as invoice using (invoice_id)
                where item.plan_id = sent.plan_id and item.delivery_key = sent.delivery_key
                    and invoice.invoice_number is not null
            ) as invoice_numbers,
            sent.plan_id, plan.run_id, plan.approved_by, sent.worker
        from (
            select sent.* from delivery.attempt as sent
            where {conditions} order by sent.attempt_id desc limit %(limit)s
        ) as sent
        left join lateral (
            select * from delivery.attempt as known
            where known.invoke_id = sent.attempt_id order by known.attempt_id desc limit 1
        ) as answer on true
        left join delivery.addition as ledger on ledger.delivery_key = sent.delivery_key
        left join delivery.new_agreement as created on created.agreement_key = sent.delivery_key
        left join mapping.agreement as agreement
            on agreement.agreement_id = coalesce(ledger.agreement_id, created.agreement_id)
        left join mapping.company as company
            on company.company_id = coalesce(ledger.company_id, created.company_id)
        left join delivery.plan as plan on plan.plan_id = sent.plan_id
        order by sent.attempt_id desc
        """
    ).format(conditions=sql.SQL(" and ").join(conditions))
    found = _rows(
        connection,
        statement,
        {
            "delivery_key": delivery_key, "addition_id": addition_id, "subscription_id": subscription_id,
            "invoice_number": invoice_number, "plan_id": plan_id, "before": before, "limit": limit + 1,
        },
    )  # fmt: skip
    page = found[:limit]
    return page, page[-1]["attempt_id"] if len(found) > limit else None
