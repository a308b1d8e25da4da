"""Rules of the charge types: names on the customer's invoice, recurring or not, and the date rules.

As a CSV file, and one by one as a page edits them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import pandas as pd
from psycopg.errors import CheckViolation
from psycopg.rows import class_row

from billing_sync.db import Connection
from billing_sync.errors import ConfigurationError, RefusedEditError, StaleEditError
from billing_sync.mappings import is_target_id, read_csv
from billing_sync.run import log_entry

DATE_RULES = (
    "as_invoiced",
    "first_day_of_charge_month",
    "last_day_of_charge_month",
    "first_day_of_invoice_month",
    "last_day_of_invoice_month",
    "first_day_of_next_month",
    "last_day_of_next_month",
    "invoice_date",
    "next_invoice_date",
)
PRODUCT = "default_product_id"
COLUMNS = ("charge_type", "display_name", "is_recurring", "charge_start_rule", "charge_end_rule")
TAXABLE = ("", "product", "on", "off")  # "": as the setting taxable says
MORE_COLUMNS = (PRODUCT, "taxable")  # a file without such a column leaves them as they are
MOST_TOLD = 20  # ids of lines in a message
YES_NO = {"true": True, "yes": True, "false": False, "no": False}


def export_rules(connection: Connection) -> pd.DataFrame:
    """The rules of all charge types, as text columns ready for CSV."""
    rows = connection.execute(
        """
        select charge_type, display_name, case when is_recurring then 'yes' else 'no' end, charge_start_rule,
            charge_end_rule, default_product_id::text, taxable
        from billing.charge_type order by charge_type
        """
    ).fetchall()
    return pd.DataFrame(rows, columns=[*COLUMNS, *MORE_COLUMNS], dtype="str")


def read_rules_file(path: Path) -> pd.DataFrame:
    """Read and check a CSV file of rules. Raises ConfigurationError that names file, line and what is expected."""
    return check_rules(read_csv(path), str(path))


def check_rules(frame: pd.DataFrame, what: str) -> pd.DataFrame:
    """The frame with its columns of text trimmed. Raises ConfigurationError that names what was given and the line."""
    missing = [column for column in COLUMNS if column not in frame.columns]
    if missing:
        raise ConfigurationError(f"{what} lacks the column {', '.join(missing)}. It has: {', '.join(frame.columns)}.")
    frame = frame.assign(
        **{column: frame[column].str.strip() for column in (*COLUMNS, *MORE_COLUMNS) if column in frame}
    )
    problems = []
    for number, row in enumerate(frame.to_dict("records"), start=2):
        if not row["charge_type"] or not row["display_name"]:
            problems.append(f"line {number}: charge_type or display_name is empty")
        if row["is_recurring"].lower() not in YES_NO:
            problems.append(f"line {number}: is_recurring {row['is_recurring']!r} is neither yes nor no")
        if row.get("taxable", "") not in TAXABLE:
            problems.append(f"line {number}: taxable {row['taxable']!r} is none of product, on, off, and not empty")
        problems.extend(
            f"line {number}: {column} {row[column]!r} is none of {', '.join(DATE_RULES)}"
            for column in ("charge_start_rule", "charge_end_rule")
            if row[column] not in DATE_RULES
        )
        if row.get(PRODUCT) and not is_target_id(row[PRODUCT]):
            problems.append(f"line {number}: {PRODUCT} {row[PRODUCT]!r} is not a ConnectWise id")
    doubled = frame.loc[frame["charge_type"].duplicated(), "charge_type"]
    problems.extend(f"charge type {name!r} stands in it twice" for name in doubled.unique())
    if problems:
        raise ConfigurationError(f"{what}: nothing was imported. " + "; ".join(problems[:20]))
    return frame


def import_rules(connection: Connection, frame: pd.DataFrame, *, person: str) -> int:
    """Store rules, all or nothing; charge types that the frame does not name stay as they are.

    A change makes a new version, which counts for lines loaded from then on; see `apply_rules_again` for others.
    Returns how many charge types changed.
    """
    changed: set[str] = set()
    try:
        with connection.transaction():
            connection.execute("select set_config('billing.user', %s, true)", [person])
            for row in frame.to_dict("records"):
                done = connection.execute(
                    """
                    insert into billing.charge_type as known
                        (charge_type, display_name, is_recurring, charge_start_rule, charge_end_rule, taxable)
                    values (%(charge_type)s, %(display_name)s, %(is_recurring)s, %(charge_start_rule)s,
                        %(charge_end_rule)s, nullif(%(taxable)s, ''))
                    on conflict (charge_type) do update set
                        display_name = excluded.display_name, is_recurring = excluded.is_recurring,
                        charge_start_rule = excluded.charge_start_rule, charge_end_rule = excluded.charge_end_rule,
                        taxable = case when %(has_taxable)s then excluded.taxable else known.taxable end
                    where (known.display_name, known.is_recurring, known.charge_start_rule, known.charge_end_rule)
                        is distinct from (excluded.display_name, excluded.is_recurring, excluded.charge_start_rule,
                            excluded.charge_end_rule)
                        or (%(has_taxable)s and known.taxable is distinct from excluded.taxable)
                    """,
                    {
                        **{column: row[column] for column in COLUMNS},
                        "taxable": row.get("taxable", ""),
                        "has_taxable": "taxable" in frame,
                        "is_recurring": YES_NO[str(row["is_recurring"]).lower()],
                    },
                )
                changed.update([row["charge_type"]] * done.rowcount)
            if PRODUCT in frame:
                changed.update(_set_default_products(connection, frame))
    except CheckViolation as error:
        raise ConfigurationError(f"Nothing was imported: {error.diag.message_primary}") from None
    return len(changed)


def _set_default_products(connection: Connection, frame: pd.DataFrame) -> list[str]:
    """Lines of these charge types that have no offer become these products. Returns the charge types that changed."""
    given = [(row["charge_type"], int(row[PRODUCT]) if row[PRODUCT] else None) for row in frame.to_dict("records")]
    unusable = connection.execute(
        """
        select given.product_id, coalesce(product.unusable, 'not known')
        from unnest(%s::text[], %s::integer[]) as given (charge_type, product_id)
        left join mapping.product as product using (product_id)
        left join billing.charge_type as known using (charge_type)
        where
            given.product_id is not null
            and (product.product_id is null or product.unusable is not null)
            and known.default_product_id is distinct from given.product_id
        """,
        [[name for name, _ in given], [product for _, product in given]],
    ).fetchall()
    if unusable:
        told = "; ".join(f"product {product} is {why}" for product, why in unusable[:20])
        raise ConfigurationError(
            f"Nothing was imported: {told}. Choose another product: mappings targets products lists them."
        )
    done = connection.execute(
        """
        update billing.charge_type as known set default_product_id = given.product_id
        from unnest(%s::text[], %s::integer[]) as given (charge_type, product_id)
        where known.charge_type = given.charge_type and known.default_product_id is distinct from given.product_id
        returning known.charge_type
        """,
        [[name for name, _ in given], [product for _, product in given]],
    ).fetchall()
    return [row[0] for row in done]


def apply_rules_again(
    connection: Connection,
    *,
    person: str,
    period: date | None = None,
    organization_id: str | None = None,
    line_ids: Sequence[int] = (),
) -> int:
    """Give undelivered lines the current version of their charge type's rules; the next run decides them by it.

    The lines are those of the billing period (its first day), of the organization and of these ids: all that is given
    counts at once. A plan that waits does not deliver the lines that changed. Delivered lines stay as they are.
    Returns how many lines changed. Raises ConfigurationError when nothing is given, or a line is not known.
    """
    if period is None and organization_id is None and not line_ids:
        raise ConfigurationError("Say which lines: a billing period, an organization or line ids.")
    with connection.transaction():
        connection.execute("select set_config('billing.user', %s, true)", [person])
        connection.execute("select pg_advisory_xact_lock(hashtext('billing.decide'))")
        known = connection.execute(
            "select line_id from billing.invoice_line where line_id = any(%s)", [list(line_ids)]
        ).fetchall()
        unknown = sorted(set(line_ids) - {line_id for (line_id,) in known})
        if unknown:
            raise ConfigurationError(f"There is no line {', '.join(map(str, unknown))}.")
        changed = connection.execute(
            """
            update billing.line_decision as known
            set charge_type_version_id = newest.charge_type_version_id, delivery_key = null
            from billing.invoice_line as line
            join billing.invoice as invoice using (invoice_id)
            join billing.charge_type as charge_type using (charge_type)
            join billing.charge_type_version as newest using (charge_type, version)
            where
                known.line_id = line.line_id
                and known.charge_type_version_id <> newest.charge_type_version_id
                and not exists (select from delivery.addition_line as carried where carried.line_id = line.line_id)
                and (%(period)s::date is null or invoice.billing_period = %(period)s::date)
                and (%(organization_id)s::text is null or invoice.organization_id = %(organization_id)s::text)
                and (cardinality(%(line_ids)s::bigint[]) = 0 or line.line_id = any(%(line_ids)s::bigint[]))
            """,
            {"period": period, "organization_id": organization_id, "line_ids": list(line_ids)},
        ).rowcount
        chosen = [
            words
            for words in (
                f"period {period:%Y-%m}" if period else "",
                f"organization {organization_id}" if organization_id else "",
                f"lines {', '.join(map(str, line_ids))}" if 0 < len(line_ids) <= MOST_TOLD else "",
                f"{len(line_ids)} lines" if len(line_ids) > MOST_TOLD else "",
            )
            if words
        ]
        message = f"{person} applied rules again to {', '.join(chosen)}: {changed} lines changed"
        log_entry(connection, None, "INFO", "rules_applied_again", message, lines=changed, by=person)
    return changed


# -- the page Configuration --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChargeTypeRules:
    """What a charge type shall be. taxable None: as the setting taxable says."""

    display_name: str
    is_recurring: bool
    charge_start_rule: str
    charge_end_rule: str
    taxable: str | None
    default_product_id: int | None


@dataclass(frozen=True)
class ChargeTypeState(ChargeTypeRules):
    """A charge type as it stands. version 0: it stands on lines, and nobody has said yet what it means.

    lines_with_older_rules: undelivered lines that an earlier version of its rules decides about; of an unknown one, the
    lines that wait for it.
    """

    charge_type: str
    default_product: str | None
    version: int
    changed_by: str | None
    changed_at: datetime | None
    lines_with_older_rules: int


def charge_type_states(connection: Connection, charge_type: str | None = None) -> list[ChargeTypeState]:
    """All charge types, those that are not known last; or the one named, as it would begin if it is not known."""
    with connection.cursor(row_factory=class_row(ChargeTypeState)) as cursor:
        cursor.execute(
            """
            with open_line as (
                select line.charge_type, decision.charge_type_version_id
                from billing.invoice_line as line
                left join billing.line_decision as decision using (line_id)
                where line.charge_type is not null
                    and (%(charge_type)s::text is null or line.charge_type = %(charge_type)s::text)
                    and not exists (
                        select from delivery.addition_line as carried where carried.line_id = line.line_id
                    )
            ),
            counted as (
                select charge_type, charge_type_version_id, count(*) as lines
                from open_line group by charge_type, charge_type_version_id
            ),
            known as (
                select charge_type.charge_type, charge_type.display_name, charge_type.is_recurring,
                    charge_type.charge_start_rule, charge_type.charge_end_rule, charge_type.taxable,
                    charge_type.default_product_id, charge_type.version,
                    case when kept.valid_from > brought.at then kept.decided_by end as changed_by,
                    case when kept.valid_from > brought.at then kept.valid_from end as changed_at, (
                        select coalesce(sum(counted.lines), 0)::integer from counted
                        where counted.charge_type = charge_type.charge_type
                            and counted.charge_type_version_id <> kept.charge_type_version_id
                    ) as lines_with_older_rules
                from billing.charge_type as charge_type
                left join billing.charge_type_version as kept using (charge_type, version)
                -- What the migrations brought, nobody changed.
                cross join (select min(valid_from) as at from billing.charge_type_version) as brought
            ),
            unknown as (
                select charge_type, sum(lines)::integer as lines from counted
                where charge_type not in (select charge_type.charge_type from billing.charge_type as charge_type)
                group by charge_type
                union
                select %(charge_type)s::text, 0
                where %(charge_type)s::text is not null
                    and not exists (select from billing.charge_type where charge_type = %(charge_type)s::text)
                    and not exists (select from counted where charge_type = %(charge_type)s::text)
            )
            select * from (
                select known.charge_type, known.display_name, known.is_recurring, known.charge_start_rule,
                    known.charge_end_rule, known.taxable, known.default_product_id,
                    product.identifier as default_product, known.version, known.changed_by, known.changed_at,
                    known.lines_with_older_rules
                from known left join mapping.product as product on product.product_id = known.default_product_id
                where %(charge_type)s::text is null or known.charge_type = %(charge_type)s::text
                union all
                select charge_type, charge_type, false, 'as_invoiced', 'as_invoiced', null, null, null, 0, null, null,
                    lines
                from unknown
            ) as every
            order by version = 0, charge_type
            """,
            {"charge_type": charge_type},
        )
        return cursor.fetchall()


def change_charge_type(
    connection: Connection, charge_type: str, wanted: ChargeTypeRules, version: int, *, person: str
) -> ChargeTypeState:
    """Store a charge type as a person wants it who saw `version` (0: it was not known); gives how it stands then.

    Raises RefusedEditError for what does not fit, and StaleEditError with the ChargeTypeState when somebody else
    changed it meanwhile.
    """
    with connection.transaction():
        # Also for one that is not there yet.
        connection.execute("select pg_advisory_xact_lock(hashtext('billing.charge_type'), hashtext(%s))", [charge_type])
        (now,) = charge_type_states(connection, charge_type)
        if now.version != version:
            raise StaleEditError(
                f"{now.changed_by or 'Somebody'} changed the charge type {charge_type} meanwhile: look at it, and "
                "change it again if you still want to.",
                current=now,
            )
        try:
            import_rules(connection, rules_frame({charge_type: wanted}), person=person)
        except ConfigurationError as error:
            raise RefusedEditError(str(error).replace("Nothing was imported", "Nothing was stored")) from None
        (now,) = charge_type_states(connection, charge_type)
    return now


def organizations_waiting(connection: Connection, charge_type: str) -> list[str]:
    """The organizations that have open lines of a charge type."""
    rows = connection.execute(
        """
        select distinct invoice.organization_id
        from billing.invoice as invoice join billing.invoice_line as line using (invoice_id)
        where line.charge_type = %s
            and not exists (select from delivery.addition_line as carried where carried.line_id = line.line_id)
        """,
        [charge_type],
    ).fetchall()
    return [organization_id for (organization_id,) in rows]


def rules_frame(wanted: Mapping[str, ChargeTypeRules]) -> pd.DataFrame:
    """Rules by charge type as the columns of a CSV file, checked. Raises ConfigurationError."""
    rows = [
        (
            name, one.display_name, "yes" if one.is_recurring else "no", one.charge_start_rule, one.charge_end_rule,
            str(one.default_product_id or ""), one.taxable or "",
        )
        for name, one in wanted.items()
    ]  # fmt: skip
    return check_rules(pd.DataFrame(rows, columns=[*COLUMNS, *MORE_COLUMNS], dtype="str"), "The charge types")
