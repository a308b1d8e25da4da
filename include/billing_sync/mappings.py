"""Mappings as CSV files: export what there is, fill it in, import it; approve or exclude."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

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
    source_name: str
    target_table: str
    target_id: str
    target_name: str


KINDS = {
    "organizations": MappingKind(
        "organization_mapping", "organization", "organization_id", "name", "company", "company_id", "name"
    ),
    "offers": MappingKind("offer_mapping", "offer", "offer_id", "name", "product", "product_id", "identifier"),
    "contracts": MappingKind(
        "contract_mapping", "contract", "contract_id", "contract_number", "agreement", "agreement_id", "name"
    ),
}
MAX_ROWS = 200_000
FORMULA_BEGINS = ("=", "+", "-", "@", "\t", "\r")


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


def export_mappings(connection: Connection, kind_name: str) -> pd.DataFrame:
    """All mappings of a kind as text columns ready for CSV. The state of those that nobody has decided yet is empty."""
    kind = _kind(kind_name)
    statement = sql.SQL(
        """
        select source.{source_id}, source.{source_name}, mapped.{target_id}::text, target.{target_name},
            case when mapped.decided_by is not null then mapped.state end, mapped.note, mapped.decided_by
        from mapping.{source_table} as source
        join mapping.{table} as mapped using ({source_id})
        left join mapping.{target_table} as target using ({target_id})
        order by source.{source_name}, source.{source_id}
        """
    ).format(**{field: sql.Identifier(getattr(kind, field)) for field in kind.__dataclass_fields__})
    rows = connection.execute(statement).fetchall()
    columns = [
        kind.source_id,
        f"{kind.source_table}_name",
        kind.target_id,
        f"{kind.target_table}_name",
        "state",
        "note",
        "decided_by",
    ]
    frame = pd.DataFrame(rows, columns=columns, dtype="str")
    typed = [name for name in columns if name not in (kind.source_id, kind.target_id, "state")]
    frame[typed] = frame[typed].map(_not_a_formula, na_action="ignore")
    return frame


def _not_a_formula(text: str) -> str:
    """A name or note as a spreadsheet shows it; without the apostrophe it would calculate what a customer typed."""
    return f"'{text}" if text.startswith(FORMULA_BEGINS) else text


def _typed_text(text: str) -> str:
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


def read_mapping_file(path: Path, kind_name: str) -> pd.DataFrame:
    """Read and check a CSV file of mappings. Raises ConfigurationError that names file, line and what is expected.

    Needs the two id columns; `state` (approved or excluded) and `note` are optional, other columns are ignored.
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
    frame["note"] = frame["note"].map(_typed_text)
    problems = []
    for number, row in zip(frame.index, frame.to_dict("records"), strict=True):
        if not row[kind.source_id]:
            problems.append(f"line {number}: {kind.source_id} is empty")
        if row[kind.target_id] and not (row[kind.target_id].isdecimal() and len(row[kind.target_id]) < 10):
            problems.append(f"line {number}: {kind.target_id} {row[kind.target_id]!r} is not a ConnectWise id")
        if row["state"] not in ("", "approved", "excluded"):
            problems.append(f"line {number}: state {row['state']!r} is neither approved nor excluded")
        if row["state"] == "approved" and not row[kind.target_id]:
            problems.append(f"line {number}: approved without {kind.target_id}")
    doubled = frame.loc[frame[kind.source_id].duplicated() & (frame[kind.source_id] != ""), kind.source_id]
    problems.extend(f"{kind.source_id} {name!r} stands in it twice" for name in doubled.unique())
    if problems:
        raise ConfigurationError(f"{path}: nothing was imported. " + "; ".join(problems[:20]))
    return frame


def import_mappings(
    connection: Connection, kind_name: str, frame: pd.DataFrame, *, approve: bool, person: str
) -> ImportResult:
    """Store mappings, all or nothing.

    A row's state counts only with `approve`; without it the target is kept as a proposal, excluded and undecided, and
    nothing is billed by it. What was decided before stays as it is unless the row decides it anew.
    Raises ConfigurationError for ids that are not known.
    """
    kind = _kind(kind_name)
    names = {field: sql.Identifier(getattr(kind, field)) for field in kind.__dataclass_fields__}
    with connection.transaction():
        connection.execute("select set_config('billing.user', %s, true)", [person])
        connection.execute(
            "create temporary table given (source_id text, target_id integer, state text, note text) on commit drop"
        )
        with connection.cursor() as cursor, cursor.copy("copy given from stdin") as copy:
            for row in frame.to_dict("records"):
                target = int(row[kind.target_id]) if row[kind.target_id] else None
                copy.write_row((row[kind.source_id], target, row["state"] or None, row["note"] or None))
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
            ).format(**names, source_label=sql.Literal(kind.source_id), target_label=sql.Literal(kind.target_id))
        ).fetchall()
        if unknown:
            raise ConfigurationError(
                f"Nothing was imported: {len(unknown)} ids are not known: {', '.join(row[0] for row in unknown[:20])}. "
                "Run sync_reference_data first, or remove the rows."
            )
        connection.execute(
            sql.SQL(
                """
                insert into mapping.{table} as known ({source_id}, {target_id}, state, note, decided_by, decided_at)
                select
                    source_id, target_id,
                    case when %(approve)s then coalesce(given.state, 'excluded') else 'excluded' end,
                    note,
                    case when %(approve)s and given.state is not null then %(person)s end,
                    case when %(approve)s and given.state is not null then now() end
                from given
                on conflict ({source_id}) do update set
                    {target_id} = excluded.{target_id}, state = excluded.state, note = excluded.note,
                    decided_by = excluded.decided_by, decided_at = excluded.decided_at, version = known.version + 1
                where (known.{target_id}, known.state, known.note, known.decided_by is null)
                    is distinct from (excluded.{target_id}, excluded.state, excluded.note, excluded.decided_by is null)
                    and (excluded.decided_by is not null or known.decided_by is null)
                """
            ).format(**names),
            {"approve": approve, "person": person},
        )
    decided = frame["state"] if approve else frame["state"].where(frame["state"] == "", "")
    return ImportResult(
        rows=len(frame),
        approved=int((decided == "approved").sum()),
        excluded=int((decided == "excluded").sum()),
        undecided=int((decided == "").sum()),
    )
