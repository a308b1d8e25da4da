"""Bulk changes of the review grid: what many lines become at once, previewed first, then applied at most once.

The preview freezes the selection, each line with the version of its typed values, and what a date rule gives for it.
Applying takes exactly these lines: one that somebody else changed meanwhile stays as it is (conflict), one that is
delivered by now is refused. All of it is set-based.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final, Literal, LiteralString

from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from billing_sync.db import Connection
from billing_sync.decide import Released, Sum, deciding, review_state, stored_sums, try_decide_again
from billing_sync.edits import VALUES, Connect, check_values
from billing_sync.errors import NotFoundError, RefusedEditError
from billing_sync.review import LineFilter, Row, find_line_ids, read_lines
from billing_sync.rules import DATE_RULES, apply_rules_again

Action = Literal["set", "reset", "exclude", "include", "apply_rules"]
DATES: Final = ("effective_date", "cancelled_date")
SAMPLE = 20
MOST_LINES = 200_000


@dataclass(frozen=True)
class Preview:
    """What a bulk change would do. chosen: lines found; lines: to be changed, with their money and customers."""

    bulk_id: int
    chosen: int
    lines: int
    unchanged: int
    refused: list[tuple[str, int]]
    customers: int
    money: list[Sum]
    sample: list[Row]
    expires_at: datetime


@dataclass(frozen=True)
class Result:
    """What a bulk change did. state running: its lines are being decided again."""

    bulk_id: int
    state: Literal["previewed", "running", "done", "failed"]
    changed: int
    unchanged: int
    conflicts: int
    refused: int
    released: Released | None
    message: str | None


@dataclass(frozen=True)
class BulkLine:
    """A line of a bulk change, and what became of it."""

    line_id: int
    organization_name: str
    invoice_number: str | None
    subscription_name: str | None
    status: str
    detail: str | None


# -- preview -----------------------------------------------------------------------------------------------------------


def preview_bulk(
    connection: Connection, wanted: LineFilter, *, action: Action, values: Mapping[str, Any], reason: str | None = None
) -> Preview:
    """Freeze the lines that the filter finds, and say what the change would do to them.

    values: for set, of VALUES those that change: None takes typed values back; a date may be the name of a date rule.
    Raises RefusedEditError for values that cannot be, no reason to exclude, and more than MOST_LINES lines.
    """
    given = _checked(connection, action, values, reason)
    with connection.transaction():
        connection.execute(
            "delete from billing.bulk_change where applied_at is null and expires_at < now() - interval '1 day'"
        )
        line_ids = find_line_ids(connection, wanted)
        if len(line_ids) > MOST_LINES:
            raise RefusedEditError(f"{len(line_ids)} lines are too many at once: choose {MOST_LINES} at most.")
        row = connection.execute(
            "insert into billing.bulk_change (action, new_values) values (%s, %s) returning bulk_id, expires_at",
            [action, Jsonb(given)],
        ).fetchone()
        assert row is not None
        bulk_id, expires_at = row
        connection.execute(_FREEZE, {"bulk_id": bulk_id, "line_ids": line_ids})
        connection.execute(sql.SQL(_JUDGE).format(is_same=sql.SQL(_IS_SAME[action])), {"bulk_id": bulk_id})
    counts = _counts(connection, bulk_id)
    money = connection.execute(_MONEY, [bulk_id]).fetchall()
    customers = connection.execute(_CUSTOMERS, [bulk_id]).fetchone()
    sample = connection.execute(
        "select line_id from billing.bulk_change_line where bulk_id = %s and status = 'to change' order by 1 limit %s",
        [bulk_id, SAMPLE],
    ).fetchall()
    refused = connection.execute(
        """
        select detail, count(*) from billing.bulk_change_line
        where bulk_id = %s and status = 'refused' group by 1 order by 2 desc, 1 limit 50
        """,
        [bulk_id],
    ).fetchall()
    assert customers is not None
    return Preview(
        bulk_id,
        chosen=sum(counts.values()),
        lines=counts.get("to change", 0),
        unchanged=counts.get("unchanged", 0),
        refused=[(str(why), int(lines)) for why, lines in refused],
        customers=int(customers[0]),
        money=[Sum(*one) for one in money],
        sample=read_lines(connection, [line_id for (line_id,) in sample]),
        expires_at=expires_at,
    )


def _checked(connection: Connection, action: Action, values: Mapping[str, Any], reason: str | None) -> Row:
    """The new values as they are kept."""
    if action == "exclude":
        if not reason:
            raise RefusedEditError("Say why the lines are excluded.")
        return {"is_excluded": True, "reason": reason}
    if action != "set":
        return {}
    if not values:
        raise RefusedEditError("Say what is to change.")
    for name in DATES:
        rule = values.get(name)
        if isinstance(rule, str) and rule not in DATE_RULES:
            raise RefusedEditError(f"{rule!r} is neither a date nor one of {', '.join(DATE_RULES)}.")
    check_values(connection, values)
    start, end = (values.get(name) for name in DATES)
    if isinstance(start, date) and isinstance(end, date) and end < start:
        raise RefusedEditError(f"The end ({end}) lies before the start ({start}).")
    kept = {name: _kept(values[name]) for name in VALUES if name in values}
    if "invoice_description" in kept:
        kept["invoice_description"] = (kept["invoice_description"] or "").strip() or None
    return {**kept, **({"reason": reason} if reason else {})}


def _kept(value: Any) -> Any:
    return str(value) if isinstance(value, (Decimal, date)) else value


# Locked lines are told by their lock, before anything else is looked at. A date rule gives each line its own date.
_FREEZE: Final[LiteralString] = """
    insert into billing.bulk_change_line (bulk_id, line_id, version, effective_date, cancelled_date, status, detail)
    select
        bulk.bulk_id,
        line.line_id,
        coalesce(override.version, 0),
        case
            when start_rule.name ~ '^[0-9]' then start_rule.name::date
            else billing.apply_date_rule(start_rule.name, line.charge_start_date, invoice.invoice_date,
                agreement.next_invoice_date)
        end,
        case
            when end_rule.name ~ '^[0-9]' then end_rule.name::date
            else billing.apply_date_rule(end_rule.name, line.charge_end_date, invoice.invoice_date,
                agreement.next_invoice_date)
        end,
        case when locked.why is null then 'to change' else 'refused' end,
        locked.why
    from billing.bulk_change as bulk
    cross join (select bulk.new_values ->> 'effective_date' from billing.bulk_change as bulk
        where bulk.bulk_id = %(bulk_id)s) as start_rule (name)
    cross join (select bulk.new_values ->> 'cancelled_date' from billing.bulk_change as bulk
        where bulk.bulk_id = %(bulk_id)s) as end_rule (name)
    join billing.invoice_line as line on line.line_id = any(%(line_ids)s::bigint[])
    join billing.invoice as invoice on invoice.invoice_id = line.invoice_id
    left join billing.line_decision as decision on decision.line_id = line.line_id
    left join mapping.agreement as agreement
        on agreement.agreement_id = coalesce((bulk.new_values ->> 'agreement_id')::integer, decision.agreement_id)
    left join billing.override as override on override.line_id = line.line_id
    left join (
        select line_id, min(why) as why from delivery.locked_line group by line_id
    ) as locked on locked.line_id = line.line_id
    where bulk.bulk_id = %(bulk_id)s
"""

_JUDGE: Final[LiteralString] = """
    update billing.bulk_change_line as chosen
    set
        status = case
            when judged.why is not null then 'refused' when judged.is_same then 'unchanged' else 'to change'
        end,
        detail = judged.why
    from (
        select
            frozen.line_id,
            case
                when agreement.company_id <> decision.company_id
                    then format('agreement %%s belongs to another company', agreement.agreement_id)
                when jsonb_typeof(bulk.new_values -> 'effective_date') = 'string' and after.effective_date is null
                    then 'the rule gives no start: the charge or its agreement has no such date'
                when jsonb_typeof(bulk.new_values -> 'cancelled_date') = 'string' and after.cancelled_date is null
                    then 'the rule gives no end: the charge or its agreement has no such date'
                when after.cancelled_date < after.effective_date then 'the end would lie before the start'
                when abs(coalesce(after.quantity, line.quantity) * coalesce(after.unit_price, line.unit_price)) > 1e13
                    then 'the amount is more than an invoice can hold'
            end as why,
            {is_same} as is_same
        from billing.bulk_change_line as frozen
        join billing.bulk_change as bulk using (bulk_id)
        join billing.invoice_line as line on line.line_id = frozen.line_id
        left join billing.line_decision as decision on decision.line_id = frozen.line_id
        left join billing.override as override on override.line_id = frozen.line_id
        cross join lateral (
            select
                case when bulk.new_values ? 'agreement_id' then (bulk.new_values ->> 'agreement_id')::integer
                    else override.agreement_id end as agreement_id,
                case when bulk.new_values ? 'product_id' then (bulk.new_values ->> 'product_id')::integer
                    else override.product_id end as product_id,
                case when bulk.new_values ? 'effective_date' then frozen.effective_date
                    else override.effective_date end as effective_date,
                case when bulk.new_values ? 'cancelled_date' then frozen.cancelled_date
                    else override.cancelled_date end as cancelled_date,
                case when bulk.new_values ? 'quantity' then (bulk.new_values ->> 'quantity')::numeric
                    else override.quantity::numeric end as quantity,
                case when bulk.new_values ? 'unit_price' then (bulk.new_values ->> 'unit_price')::numeric
                    else override.unit_price::numeric end as unit_price,
                case when bulk.new_values ? 'invoice_description' then bulk.new_values ->> 'invoice_description'
                    else override.invoice_description end as invoice_description
        ) as after
        left join mapping.agreement as agreement
            on bulk.new_values ? 'agreement_id' and agreement.agreement_id = after.agreement_id
        where frozen.bulk_id = %(bulk_id)s and frozen.status = 'to change'
    ) as judged
    where chosen.bulk_id = %(bulk_id)s and chosen.line_id = judged.line_id
"""

# Whether the line has it already.
_IS_SAME: Final[dict[str, LiteralString]] = {
    "set": """
        (override.agreement_id, override.product_id, override.effective_date, override.cancelled_date,
            override.quantity::numeric, override.unit_price::numeric, override.invoice_description)
        is not distinct from (after.agreement_id, after.product_id, after.effective_date, after.cancelled_date,
            after.quantity, after.unit_price, after.invoice_description)
    """,
    "reset": "override.line_id is null",
    "exclude": """
        override.is_excluded is true and override.reason is not distinct from bulk.new_values ->> 'reason'
    """,
    "include": "override.is_excluded is not true",
    "apply_rules": """
        not exists (
            select from billing.charge_type as charge_type
            join billing.charge_type_version as newest using (charge_type, version)
            where
                charge_type.charge_type = line.charge_type
                and newest.charge_type_version_id <> decision.charge_type_version_id
        )
    """,
}

_MONEY: Final[LiteralString] = """
    select coalesce(line.currency, ''), coalesce(sum(line.total_price), 0), count(*)
    from billing.bulk_change_line as chosen join billing.invoice_line as line using (line_id)
    where chosen.bulk_id = %s and chosen.status = 'to change'
    group by 1 order by 1
"""
_CUSTOMERS: Final[LiteralString] = """
    select count(distinct invoice.organization_id)
    from billing.bulk_change_line as chosen
    join billing.invoice_line as line using (line_id)
    join billing.invoice as invoice on invoice.invoice_id = line.invoice_id
    where chosen.bulk_id = %s and chosen.status = 'to change'
"""


# -- apply -------------------------------------------------------------------------------------------------------------


def apply_bulk(connection: Connection, bulk_id: int, *, person: str, connect: Connect | None = None) -> Result:
    """Carry out a previewed change, and decide the open lines of its customers again (see decide_again).

    Applied before, it answers what became of it then. Raises NotFoundError when the person has previewed no such
    change, RefusedEditError when its preview has expired, and BusyError when a run is deciding right now.
    """
    with deciding(connection):
        row = connection.execute(
            """
            update billing.bulk_change set applied_at = now()
            where bulk_id = %s and requested_by = %s and applied_at is null and expires_at > now()
            returning action
            """,
            [bulk_id, person],
        ).fetchone()
        if row is None:
            return _applied_before(connection, bulk_id, person)
        # The bound of a web request is not meant for 50,000 lines.
        connection.execute("set local statement_timeout = '5min'")
        connection.execute(_HOLD_PLANS, {"bulk_id": bulk_id})
        connection.execute(_LOOK_AGAIN, {"bulk_id": bulk_id})
        _store(connection, bulk_id, row[0], person)
        connection.execute(
            "update billing.bulk_change_line set status = 'changed' where bulk_id = %s and status = 'to change'",
            [bulk_id],
        )
    organizations = connection.execute(_ORGANIZATIONS, [bulk_id]).fetchall()
    if organizations:
        released = try_decide_again(
            connection, organization_ids=[organization_id for (organization_id,) in organizations], connect=connect
        )
    else:
        released = Released("done")
    connection.execute(
        "update billing.bulk_change set run_id = %s, released = %s where bulk_id = %s",
        [released.run_id, Jsonb(asdict(released)), bulk_id],
    )
    return read_bulk(connection, bulk_id)


def _applied_before(connection: Connection, bulk_id: int, person: str) -> Result:
    row = connection.execute(
        "select applied_at is null from billing.bulk_change where bulk_id = %s and requested_by = %s",
        [bulk_id, person],
    ).fetchone()
    if row is None:
        raise NotFoundError(f"You have previewed no bulk change {bulk_id}.")
    if row[0]:
        raise RefusedEditError(
            "The preview is older than an hour. Look at what the change would do now, then apply that."
        )
    return read_bulk(connection, bulk_id)


def _store(connection: Connection, bulk_id: int, action: Action, person: str) -> None:
    if action == "apply_rules":
        rows = connection.execute(
            "select line_id from billing.bulk_change_line where bulk_id = %s and status = 'to change'", [bulk_id]
        ).fetchall()
        if rows:
            apply_rules_again(connection, person=person, line_ids=[line_id for (line_id,) in rows])
    elif action == "reset":
        connection.execute(_RESET, {"bulk_id": bulk_id})
    elif action == "include":
        connection.execute(_INCLUDE, {"bulk_id": bulk_id})
        connection.execute(_FORGET_EMPTY, {"bulk_id": bulk_id})
    else:
        connection.execute(_SET, {"bulk_id": bulk_id})
        connection.execute(_FORGET_EMPTY, {"bulk_id": bulk_id})


# No waiting plan with one of these lines can be approved until the change is stored.
_HOLD_PLANS: Final[LiteralString] = """
    select from delivery.plan as plan
    where plan.state = 'proposed' and plan.plan_id in (
        select item.plan_id
        from billing.bulk_change_line as chosen
        join delivery.plan_item_line as planned using (line_id)
        join delivery.plan_item as item using (plan_item_id)
        where chosen.bulk_id = %(bulk_id)s
    )
    order by plan.plan_id
    for share
"""

_LOOK_AGAIN: Final[LiteralString] = """
    update billing.bulk_change_line as chosen
    set status = looked_at.status, detail = looked_at.detail
    from (
        select
            frozen.line_id,
            case when locked.why is not null then 'refused' else 'conflict' end as status,
            coalesce(locked.why, case
                when override.line_id is null then 'somebody took the typed values back meanwhile'
                else format('%%s changed it at %%s', override.decided_by,
                    to_char(override.decided_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"'))
            end) as detail
        from billing.bulk_change_line as frozen
        left join billing.override as override on override.line_id = frozen.line_id
        left join (
            select line_id, min(why) as why from delivery.locked_line group by line_id
        ) as locked on locked.line_id = frozen.line_id
        where
            frozen.bulk_id = %(bulk_id)s and frozen.status = 'to change'
            and (locked.why is not null or coalesce(override.version, 0) <> frozen.version)
    ) as looked_at
    where chosen.bulk_id = %(bulk_id)s and chosen.line_id = looked_at.line_id
"""

_SET: Final[LiteralString] = """
    insert into billing.override as known (line_id, agreement_id, product_id, effective_date, cancelled_date, quantity,
        unit_price, invoice_description, is_excluded, reason)
    select
        chosen.line_id, (bulk.new_values ->> 'agreement_id')::integer, (bulk.new_values ->> 'product_id')::integer,
        chosen.effective_date, chosen.cancelled_date, (bulk.new_values ->> 'quantity')::numeric,
        (bulk.new_values ->> 'unit_price')::numeric, bulk.new_values ->> 'invoice_description',
        coalesce((bulk.new_values ->> 'is_excluded')::boolean, false), bulk.new_values ->> 'reason'
    from billing.bulk_change as bulk join billing.bulk_change_line as chosen using (bulk_id)
    where bulk.bulk_id = %(bulk_id)s and chosen.status = 'to change'
    order by chosen.line_id
    on conflict (line_id) do update set
        (agreement_id, product_id, effective_date, cancelled_date, quantity, unit_price, invoice_description,
            is_excluded, reason)
        = (
            select
                case when bulk.new_values ? 'agreement_id' then excluded.agreement_id else known.agreement_id end,
                case when bulk.new_values ? 'product_id' then excluded.product_id else known.product_id end,
                case when bulk.new_values ? 'effective_date' then excluded.effective_date else known.effective_date end,
                case when bulk.new_values ? 'cancelled_date' then excluded.cancelled_date else known.cancelled_date end,
                case when bulk.new_values ? 'quantity' then excluded.quantity else known.quantity end,
                case when bulk.new_values ? 'unit_price' then excluded.unit_price else known.unit_price end,
                case when bulk.new_values ? 'invoice_description' then excluded.invoice_description
                    else known.invoice_description end,
                case when bulk.new_values ? 'is_excluded' then excluded.is_excluded else known.is_excluded end,
                case when bulk.new_values ? 'reason' then excluded.reason else known.reason end
            from billing.bulk_change as bulk where bulk.bulk_id = %(bulk_id)s
        )
"""

_RESET: Final[LiteralString] = """
    delete from billing.override as known
    using billing.bulk_change_line as chosen
    where chosen.bulk_id = %(bulk_id)s and chosen.status = 'to change' and known.line_id = chosen.line_id
"""

_INCLUDE: Final[LiteralString] = """
    update billing.override as known set is_excluded = false, reason = null
    from billing.bulk_change_line as chosen
    where chosen.bulk_id = %(bulk_id)s and chosen.status = 'to change' and known.line_id = chosen.line_id
"""

_FORGET_EMPTY: Final[LiteralString] = """
    delete from billing.override as known
    using billing.bulk_change_line as chosen
    where
        chosen.bulk_id = %(bulk_id)s and chosen.status = 'to change' and known.line_id = chosen.line_id
        and not known.is_excluded
        and num_nonnulls(known.agreement_id, known.product_id, known.effective_date, known.cancelled_date,
            known.quantity, known.unit_price, known.invoice_description) = 0
"""

_ORGANIZATIONS: Final[LiteralString] = """
    select distinct invoice.organization_id
    from billing.bulk_change_line as chosen
    join billing.invoice_line as line using (line_id)
    join billing.invoice as invoice on invoice.invoice_id = line.invoice_id
    where chosen.bulk_id = %s and chosen.status = 'changed'
"""


# -- what became of it -------------------------------------------------------------------------------------------------


def read_bulk(connection: Connection, bulk_id: int) -> Result:
    """What became of a bulk change. Raises NotFoundError."""
    row = connection.execute(
        "select applied_at, run_id, released from billing.bulk_change where bulk_id = %s", [bulk_id]
    ).fetchone()
    if row is None:
        raise NotFoundError(f"There is no bulk change {bulk_id}.")
    applied_at, run_id, told = row
    counts = _counts(connection, bulk_id)
    released = _released(connection, run_id, told)
    state, message = _state(applied_at, released)
    return Result(
        bulk_id,
        state,
        changed=counts.get("changed", 0),
        unchanged=counts.get("unchanged", 0),
        conflicts=counts.get("conflict", 0),
        refused=counts.get("refused", 0),
        released=released,
        message=message,
    )


def _released(connection: Connection, run_id: int | None, told: Mapping[str, Any] | None) -> Released | None:
    if told is None:
        return None
    if told["state"] == "running" and run_id is not None:
        return review_state(connection, run_id)

    return Released(told["state"], run_id, told["decided"], stored_sums(told["released"]), stored_sums(told["held"]))


def _state(
    applied_at: datetime | None, released: Released | None
) -> tuple[Literal["previewed", "running", "done", "failed"], str | None]:
    if applied_at is None:
        return "previewed", None
    if released is None or released.state == "failed":
        return "failed", "The values are stored, but deciding by them broke off. The next run decides by them."
    if released.state == "later":
        return "done", "The values are stored. A run was just deciding: the next one decides by them."
    return ("running", None) if released.state == "running" else ("done", None)


def read_bulk_lines(
    connection: Connection, bulk_id: int, *, status: str | None, offset: int, limit: int
) -> tuple[int, list[BulkLine]]:
    """How many lines of a bulk change have the status (None: any), and a page of them. Raises NotFoundError."""
    counts = _counts(connection, bulk_id)
    if (
        not counts
        and not connection.execute("select from billing.bulk_change where bulk_id = %s", [bulk_id]).fetchone()
    ):
        raise NotFoundError(f"There is no bulk change {bulk_id}.")
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            """
            select chosen.line_id, organization.name as organization_name, invoice.invoice_number,
                line.subscription_name, chosen.status, chosen.detail
            from billing.bulk_change_line as chosen
            join billing.invoice_line as line using (line_id)
            join billing.invoice as invoice on invoice.invoice_id = line.invoice_id
            join mapping.organization as organization on organization.organization_id = invoice.organization_id
            where chosen.bulk_id = %(bulk_id)s
                and (%(status)s::text is null or chosen.status = %(status)s::text)
            order by chosen.line_id offset %(offset)s limit %(limit)s
            """,
            {"bulk_id": bulk_id, "status": status, "offset": offset, "limit": limit},
        ).fetchall()
    total = sum(counts.values()) if status is None else counts.get(status, 0)
    return total, [BulkLine(**row) for row in rows]


def _counts(connection: Connection, bulk_id: int) -> dict[str, int]:
    rows: Sequence[tuple[str, int]] = connection.execute(
        "select status, count(*) from billing.bulk_change_line where bulk_id = %s group by 1", [bulk_id]
    ).fetchall()
    return dict(rows)
