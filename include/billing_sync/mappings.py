"""Mappings as CSV files: export what there is, fill it in, import it; approve or exclude.

suggestions.py proposes targets with evidence; selectors.py splits an organization over several companies.
"""

from __future__ import annotations

import csv
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
from psycopg import sql

from billing_sync.db import Connection
from billing_sync.errors import ConfigurationError


@dataclass(frozen=True)
class MappingKind:
    """One kind of mapping: which table, which key of AppXite becomes which id of ConnectWise."""

    table: str
    source_table: str
    source_id: str
    target_table: str
    target_id: str
    target_name: str


KINDS = {
    "organizations": MappingKind(
        "organization_mapping", "organization", "organization_id", "company", "company_id", "name"
    ),
    "offers": MappingKind("offer_mapping", "offer", "offer_id", "product", "product_id", "identifier"),
    "contracts": MappingKind("contract_mapping", "contract", "contract_id", "agreement", "agreement_id", "name"),
}
VARIANT_TABLE = "offer_variant_mapping"
MAX_ROWS = 200_000
NEVER_TYPED = {"state", *(name for kind in KINDS.values() for name in (kind.source_id, kind.target_id))}
FORMULA_BEGINS = ("=", "+", "-", "@", "\t", "\r")

# The state of those that nobody has decided yet is empty.
EXPORTS = {
    "organizations": """
        select source.organization_id, source.name as organization_name, source.erp_id, source.vat_number,
            case when source.is_gone then 'gone' else source.status end as organization_status,
            mapped.company_id::text, target.name as company_name, target.identifier as company_identifier,
            coalesce(target.unusable, target.status) as company_status,
            case when mapped.decided_by is not null then mapped.state end as state, mapped.note, mapped.decided_by
        from mapping.organization as source
        join mapping.organization_mapping as mapped using (organization_id)
        left join mapping.company as target using (company_id)
        order by source.name, source.organization_id
        """,
    "offers": """
        select source.offer_id, source.name as offer_name, entry.billing_frequency, entry.product_id::text,
            target.identifier as product_identifier, target.description as product_description,
            coalesce(target.unusable, target.product_class) as product_status, entry.recurring_mode,
            case when entry.decided_by is not null then entry.state end as state, entry.note, entry.decided_by,
            seen.frequencies, source.last_invoiced_on::text
        from mapping.offer as source
        join (
            select offer_id, '' as billing_frequency, product_id, recurring_mode, state, note, decided_by
            from mapping.offer_mapping
            union all
            select offer_id, billing_frequency, product_id, recurring_mode, state, note, decided_by
            from mapping.offer_variant_mapping
        ) as entry using (offer_id)
        left join mapping.product as target using (product_id)
        left join (
            select offer_id, string_agg(billing_frequency, '; ' order by billing_frequency) as frequencies
            from mapping.offer_frequency
            where last_invoiced_on >= coalesce(%(since)s, '-infinity'::date)
            group by offer_id
        ) as seen using (offer_id)
        where %(since)s::date is null or source.last_invoiced_on >= %(since)s
        order by source.name, source.offer_id, entry.billing_frequency
        """,
    "contracts": """
        select source.contract_id, source.contract_number as contract_name, source.organization_id,
            organization.name as organization_name, case when source.is_gone then 'gone' end as contract_status,
            mapped.agreement_id::text, target.name as agreement_name, company.name as agreement_company_name,
            coalesce(target.unusable, target.agreement_status) as agreement_status,
            case when mapped.decided_by is not null then mapped.state end as state, mapped.note, mapped.decided_by
        from mapping.contract as source
        join mapping.contract_mapping as mapped using (contract_id)
        left join mapping.organization as organization using (organization_id)
        left join mapping.agreement as target using (agreement_id)
        left join mapping.company as company using (company_id)
        order by source.contract_number, source.contract_id
        """,
}

# What a person may pick from; status says why something cannot be picked.
TARGETS = {
    "companies": """
        select company_id::text, identifier, name, coalesce(unusable, status) as status, tax_identifier, currency
        from mapping.company order by name, company_id
        """,
    "products": """
        select product_id::text, identifier, description, vendor_sku, product_class,
            coalesce(unusable, 'usable') as status
        from mapping.product order by identifier, product_id
        """,
    "agreements": """
        select agreement.agreement_id::text, agreement.name, company.company_id::text, company.name as company_name,
            agreement_type.name as agreement_type, coalesce(agreement.unusable, agreement.agreement_status) as status,
            agreement.currency, billing_cycle.name as billing_cycle, agreement.next_invoice_date::text
        from mapping.agreement as agreement
        left join mapping.company as company using (company_id)
        left join mapping.agreement_type as agreement_type using (agreement_type_id)
        left join mapping.billing_cycle as billing_cycle on billing_cycle.billing_cycle_id = agreement.billing_cycle_id
        order by company.name, agreement.name, agreement.agreement_id
        """,
}


@dataclass(frozen=True)
class ImportResult:
    """What an import did: rows read, approved, excluded by the person, and left undecided."""

    rows: int
    approved: int
    excluded: int
    undecided: int


def _kind(name: str) -> MappingKind:
    if name not in KINDS:
        raise ConfigurationError(f"There are no mappings of {name!r}. Known: {', '.join(KINDS)}.")
    return KINDS[name]


def _has_variants(kind: MappingKind) -> bool:
    """Offers may have an entry per billing frequency beside their own."""
    return kind.table == "offer_mapping"


def export_mappings(connection: Connection, kind_name: str, *, since: date | None = None) -> pd.DataFrame:
    """All mappings of a kind as text columns ready for CSV. The state of those that nobody has decided yet is empty.

    since: only offers on an invoice of that day or later; their billing frequencies since then.
    Raises ConfigurationError for an unknown kind, and for `since` with anything but offers.
    """
    _kind(kind_name)
    if since and kind_name != "offers":
        raise ConfigurationError(f"Only offers are listed by when they were invoiced; {kind_name} are not.")
    return text_frame(connection, EXPORTS[kind_name], {"since": since})


def export_targets(connection: Connection, targets: str) -> pd.DataFrame:
    """Everything of ConnectWise that a mapping may point at (companies, products or agreements), as text columns."""
    if targets not in TARGETS:
        raise ConfigurationError(f"There are no targets {targets!r}. Known: {', '.join(TARGETS)}.")
    return text_frame(connection, TARGETS[targets], {})


def text_frame(connection: Connection, statement: str, values: dict[str, date | None]) -> pd.DataFrame:
    """The rows of a query of text columns, safe for a spreadsheet: what people typed never becomes a formula."""
    with connection.cursor() as cursor:
        cursor.execute(statement.encode(), values)
        columns = [column.name for column in cursor.description or []]
        frame = pd.DataFrame(cursor.fetchall(), columns=columns, dtype="str")
    return not_formulas(frame)


def not_formulas(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with an apostrophe before what a spreadsheet would calculate; ids and states stay as they are."""
    typed = [name for name in frame.columns if name not in NEVER_TYPED]
    frame[typed] = frame[typed].map(_not_a_formula, na_action="ignore").astype("str")
    return frame


def _not_a_formula(text: str) -> str:
    """A name or note as a spreadsheet shows it; without the apostrophe it would calculate what a customer typed."""
    return f"'{text}" if text.startswith(FORMULA_BEGINS) else text


def typed_text(text: str) -> str:
    """The text of a cell as it was before `not_formulas`."""
    return text[1:] if text.startswith("'") and text[1:].startswith(FORMULA_BEGINS) else text


def read_csv(path: Path) -> pd.DataFrame:
    """A CSV file as text columns, without empty lines; the index tells in which line of the file a row ends.

    Raises ConfigurationError for a file that cannot be read or is too large.
    """
    rows: dict[int, list[str]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            for row in reader:
                if any(row):
                    rows[reader.line_num] = [*row, *[""] * (len(header) - len(row))]
                if len(rows) > MAX_ROWS:
                    break
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(f"{path} cannot be read as CSV: {error}") from None
    if len(rows) > MAX_ROWS:
        raise ConfigurationError(f"{path} has more than {MAX_ROWS:,} rows: split it.")
    if not header or len(set(header)) < len(header):
        raise ConfigurationError(f"{path} cannot be read as CSV: its first line must name each column once.")
    wide = [line for line, row in rows.items() if any(row[len(header) :])]
    if wide:
        raise ConfigurationError(f"{path}: nothing was imported. Line {wide[0]} has more cells than the first line.")
    cells = [row[: len(header)] for row in rows.values()]
    return pd.DataFrame(cells, index=list(rows), columns=header, dtype="str")


def is_target_id(text: str) -> bool:
    """Whether a cell may be an id of ConnectWise."""
    return text.isdecimal() and len(text) < 10


def read_mapping_file(path: Path, kind_name: str) -> pd.DataFrame:
    """Read and check a CSV file of mappings. Raises ConfigurationError that names file, line and what is expected.

    Needs the two id columns; `state` (approved or excluded) and `note` are optional, and of offers `billing_frequency`
    and `recurring_mode`. Other columns are ignored. Of a file of suggestions only the rows with a state are taken.
    """
    kind = _kind(kind_name)
    frame = read_csv(path)
    missing = [column for column in (kind.source_id, kind.target_id) if column not in frame.columns]
    if missing:
        raise ConfigurationError(
            f"{path} lacks the column {' and '.join(missing)}. It has: {', '.join(frame.columns)}."
        )
    texts = {name: frame[name].str.strip() if name in frame else "" for name in ("state", "note")}
    ids = {name: frame[name].str.strip() for name in (kind.source_id, kind.target_id)}
    frame = frame.assign(**texts, **ids)
    frame["note"] = frame["note"].map(typed_text)
    for name in ("billing_frequency", "recurring_mode"):
        if name in frame:
            frame[name] = frame[name].str.strip()
    if "evidence" in frame:
        frame = frame.loc[frame["state"] != ""]
    problems = [
        f"line {number}: {problem}"
        for number, row in zip(frame.index, frame.to_dict("records"), strict=True)
        for problem in _row_problems(kind, row)
    ]
    keys = (
        [kind.source_id, "billing_frequency"]
        if _has_variants(kind) and "billing_frequency" in frame
        else [kind.source_id]
    )
    doubled = frame.loc[frame[keys].duplicated() & (frame[kind.source_id] != ""), kind.source_id]
    problems.extend(f"{kind.source_id} {name!r} stands in it twice" for name in doubled.unique())
    if problems:
        raise ConfigurationError(f"{path}: nothing was imported. " + "; ".join(problems[:20]))
    return frame


def _row_problems(kind: MappingKind, row: dict[Hashable, Any]) -> list[str]:
    target = row[kind.target_id]
    found = []
    if not row[kind.source_id]:
        found.append(f"{kind.source_id} is empty")
    if target and not is_target_id(target):
        found.append(f"{kind.target_id} {target!r} is not a ConnectWise id")
    if row["state"] not in ("", "approved", "excluded"):
        found.append(f"state {row['state']!r} is neither approved nor excluded")
    if row["state"] == "approved" and not target:
        found.append(f"approved without {kind.target_id}")
    if _has_variants(kind) and row.get("recurring_mode", "") not in ("", "persistent", "dated"):
        found.append(f"recurring_mode {row['recurring_mode']!r} is neither persistent nor dated nor empty")
    return found


def import_mappings(
    connection: Connection, kind_name: str, frame: pd.DataFrame, *, approve: bool, person: str
) -> ImportResult:
    """Store mappings, all or nothing.

    A row's state counts only with `approve`; without it the target is kept as a proposal, excluded and undecided, and
    nothing is billed by it. What was decided before stays as it is unless the row decides it anew.
    Raises ConfigurationError for ids that are not known, and for approvals of what cannot be billed.
    """
    kind = _kind(kind_name)
    with connection.transaction():
        connection.execute("select set_config('billing.user', %s, true)", [person])
        _copy_given(connection, kind, frame)
        _refuse_unknown(connection, kind)
        if approve:
            _refuse_unusable(connection, kind)
        names = ["recurring_mode"] if _has_variants(kind) and "recurring_mode" in frame else []
        store_given(connection, kind, names, approve=approve, person=person)
    decided = frame["state"] if approve else frame["state"].where(frame["state"] == "", "")
    return ImportResult(
        rows=len(frame),
        approved=int((decided == "approved").sum()),
        excluded=int((decided == "excluded").sum()),
        undecided=int((decided == "").sum()),
    )


def _copy_given(connection: Connection, kind: MappingKind, frame: pd.DataFrame) -> None:
    rows = []
    for line, row in zip(frame.index, frame.to_dict("records"), strict=True):
        target = int(row[kind.target_id]) if row[kind.target_id] else None
        frequency = row.get("billing_frequency", "") if _has_variants(kind) else ""
        rows.append(
            (
                line, row[kind.source_id], frequency, target, row["state"] or None, row.get("recurring_mode") or None,
                row["note"] or None,
            )
        )  # fmt: skip
    copy_given(connection, rows)


def copy_given(connection: Connection, rows: Iterable[tuple[Any, ...]]) -> None:
    """What `store_given` stores, in a temporary table of the transaction: line, source id, billing frequency (or ""),
    target id, state (None: undecided), recurring mode and note of each entry."""
    connection.execute(
        """
        create temporary table given (
            line integer, source_id text, billing_frequency text, target_id integer, state text, recurring_mode text,
            note text
        ) on commit drop
        """
    )
    with connection.cursor() as cursor, cursor.copy("copy given from stdin") as copy:
        for row in rows:
            copy.write_row(row)


def _names(kind: MappingKind) -> dict[str, sql.Identifier]:
    return {field: sql.Identifier(getattr(kind, field)) for field in kind.__dataclass_fields__}


def _refuse_unknown(connection: Connection, kind: MappingKind) -> None:
    unknown = connection.execute(
        sql.SQL(
            """
            select {source_label} || ' ' || given.source_id from given
            where not exists (select from mapping.{source_table} as known where known.{source_id} = given.source_id)
            union all
            select {target_label} || ' ' || given.target_id from given
            where given.target_id is not null
                and not exists (
                    select from mapping.{target_table} as known where known.{target_id} = given.target_id
                )
            """
        ).format(**_names(kind), source_label=sql.Literal(kind.source_id), target_label=sql.Literal(kind.target_id))
    ).fetchall()
    if unknown:
        raise ConfigurationError(
            f"Nothing was imported: {len(unknown)} ids are not known: {', '.join(row[0] for row in unknown[:20])}. "
            "Run sync_reference_data first, or remove the rows."
        )
    # A frequency with a typing error would never meet a line.
    strange = connection.execute(
        """
        with known as (
            select billing_frequency from mapping.offer_frequency
            union
            select billing_frequency from mapping.subscription where billing_frequency is not null
        )
        select
            format('line %s: %s', line, billing_frequency),
            (select string_agg(known.billing_frequency, ', ' order by known.billing_frequency) from known)
        from given
        where billing_frequency <> '' and billing_frequency not in (select known.billing_frequency from known)
        order by line
        """
    ).fetchall()
    if strange:
        raise ConfigurationError(
            f"Nothing was imported: no invoice or subscription has the billing frequency of "
            f"{', '.join(row[0] for row in strange[:20])}. Known: {strange[0][1] or 'none yet'}."
        )


def _refuse_unusable(connection: Connection, kind: MappingKind) -> None:
    """A row that leaves an approval as it is may stay in the file: its lines are held, no other row waits for it."""
    decided = sql.SQL(
        "select {source_id} as source_id, '' as billing_frequency, {target_id} as target_id from mapping.{table}"
        " where state = 'approved'"
    ).format(**_names(kind))
    if _has_variants(kind):
        decided += sql.SQL(
            " union all select offer_id, billing_frequency, product_id from mapping.offer_variant_mapping"
            " where state = 'approved'"
        )
    refused = connection.execute(
        sql.SQL(
            """
            select given.line, target.{target_name}, given.target_id, target.unusable
            from given
            join mapping.{target_table} as target on target.{target_id} = given.target_id
            where
                given.state = 'approved'
                and target.unusable is not null
                and (given.source_id, given.billing_frequency, given.target_id) not in (
                    select decided.source_id, decided.billing_frequency, decided.target_id from ({decided}) as decided
                )
            order by given.line
            """
        ).format(**_names(kind), decided=decided)
    ).fetchall()
    if refused:
        told = "; ".join(
            f"line {line}: {kind.target_table} {name} ({target}) is {why}" for line, name, target, why in refused[:20]
        )
        raise ConfigurationError(
            f"Nothing was imported: nothing can be billed to {len(refused)} of the {kind.target_table} ids approved. "
            f"{told}. Choose another {kind.target_table} (mappings targets lists them), or mend it in ConnectWise and "
            "run sync_reference_data."
        )


def store_given(
    connection: Connection, kind: MappingKind, more: list[str], *, approve: bool, person: str, take_back: bool = False
) -> None:
    """Store what `copy_given` has, each change with a new version.

    more: further columns that are given. approve: states count; else everything is a proposal, and leaves what is
    decided as it is. take_back: what has no state is undecided again.
    """
    keys = {kind.table: [kind.source_id]}
    if _has_variants(kind):
        keys[VARIANT_TABLE] = [kind.source_id, "billing_frequency"]
    for table, key in keys.items():
        _store(connection, kind, table, key, more, approve=approve, person=person, take_back=take_back)


def _store(
    connection: Connection,
    kind: MappingKind,
    table: str,
    key: list[str],
    more: list[str],
    *,
    approve: bool,
    person: str,
    take_back: bool,
) -> None:
    values = [kind.target_id, "state", "note", *more]
    given = {kind.source_id: "source_id", kind.target_id: "target_id"}
    comma = sql.SQL(", ")

    def columns(names: list[str], *table_name: str) -> sql.Composed:
        return comma.join(sql.Identifier(*table_name, name) for name in names)

    connection.execute(
        sql.SQL(
            """
            insert into mapping.{table} as known ({key}, {values}, decided_by, decided_at)
            select {given_key}, {given_values},
                case when %(approve)s and given.state is not null then %(person)s end,
                case when %(approve)s and given.state is not null then now() end
            from given where (given.billing_frequency <> '') = %(of_variants)s
            on conflict ({key}) do update set
                {assignments},
                decided_by = excluded.decided_by, decided_at = excluded.decided_at, version = known.version + 1
            where ({known_values}, known.decided_by is null)
                is distinct from ({excluded_values}, excluded.decided_by is null)
                and (excluded.decided_by is not null or known.decided_by is null or %(take_back)s)
            """
        ).format(
            table=sql.Identifier(table),
            key=columns(key),
            values=columns(values),
            given_key=columns([given.get(name, name) for name in key], "given"),
            given_values=comma.join(
                sql.SQL("case when %(approve)s then coalesce(given.state, 'excluded') else 'excluded' end")
                if name == "state"
                else sql.Identifier("given", given.get(name, name))
                for name in values
            ),
            assignments=comma.join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in values),
            known_values=columns(values, "known"),
            excluded_values=columns(values, "excluded"),
        ),
        {"approve": approve, "person": person, "of_variants": table == VARIANT_TABLE, "take_back": take_back},
    )
