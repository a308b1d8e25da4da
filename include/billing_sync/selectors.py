"""Selectors as a CSV file: which lines of one organization go to which of its companies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from billing_sync.db import Connection
from billing_sync.errors import ConfigurationError
from billing_sync.mappings import is_target_id, read_csv, text_frame, typed_text

SELECTORS = "selectors"
KEY = ("organization_id", "kind", "source_id")
SELECTOR_KINDS = ("contract", "offer", "subscription")

# What AppXite has named, as a feed or on an invoice, and whose it is where that is known.
KNOWN_SOURCES = """
    select 'contract' as kind, contract_id as source_id, organization_id from mapping.contract
    union
    select 'contract', coalesce(line.contract_id, invoice.contract_id), invoice.organization_id
    from billing.invoice_line as line join billing.invoice as invoice using (invoice_id)
    union
    select 'offer', offer_id, null from mapping.offer
    union
    select 'subscription', subscription_id, organization_id from mapping.subscription
    union
    select 'subscription', line.subscription_id, invoice.organization_id
    from billing.invoice_line as line join billing.invoice as invoice using (invoice_id)
    """


@dataclass(frozen=True)
class SelectorImport:
    """What an import of selectors did: rows read, selectors added or changed, and removed."""

    rows: int
    stored: int
    removed: int


def export_selectors(connection: Connection) -> pd.DataFrame:
    """All selectors as text columns ready for CSV."""
    return text_frame(
        connection,
        """
        select selector.organization_id, organization.name as organization_name, selector.kind, selector.source_id,
            coalesce(contract.contract_number, offer.name, subscription.name) as source_name,
            selector.company_id::text, company.name as company_name,
            coalesce(company.unusable, company.status) as company_status, selector.note, selector.decided_by
        from mapping.company_selector as selector
        join mapping.organization as organization using (organization_id)
        join mapping.company as company using (company_id)
        left join mapping.contract as contract
            on selector.kind = 'contract' and contract.contract_id = selector.source_id
        left join mapping.offer as offer on selector.kind = 'offer' and offer.offer_id = selector.source_id
        left join mapping.subscription as subscription
            on selector.kind = 'subscription' and subscription.subscription_id = selector.source_id
        order by organization.name, selector.organization_id, selector.kind, selector.source_id
        """,
        {},
    )


def read_selector_file(path: Path) -> pd.DataFrame:
    """Read and check a CSV file of selectors. Raises ConfigurationError that names file, line and what is expected.

    Needs organization_id, kind, source_id and company_id (empty: the selector is removed); `note` is optional.
    """
    frame = read_csv(path)
    missing = [column for column in (*KEY, "company_id") if column not in frame.columns]
    if missing:
        raise ConfigurationError(
            f"{path} lacks the column {' and '.join(missing)}. It has: {', '.join(frame.columns)}."
        )
    frame = frame.assign(**{name: frame[name].str.strip() for name in (*KEY, "company_id")})
    frame["source_id"] = frame["source_id"].map(typed_text)
    frame["note"] = frame["note"].str.strip().map(typed_text) if "note" in frame else ""
    problems = []
    for number, row in zip(frame.index, frame.to_dict("records"), strict=True):
        if not row["organization_id"] or not row["source_id"]:
            problems.append(f"line {number}: organization_id or source_id is empty")
        if row["kind"] not in SELECTOR_KINDS:
            problems.append(f"line {number}: kind {row['kind']!r} is none of {', '.join(SELECTOR_KINDS)}")
        if row["company_id"] and not is_target_id(row["company_id"]):
            problems.append(f"line {number}: company_id {row['company_id']!r} is not a ConnectWise id")
    doubled = frame.loc[frame[list(KEY)].duplicated()]
    problems.extend(
        f"line {number}: {row['kind']} {row['source_id']} of organization {row['organization_id']} stands in it twice"
        for number, row in zip(doubled.index, doubled.to_dict("records"), strict=True)
    )
    if problems:
        raise ConfigurationError(f"{path}: nothing was imported. " + "; ".join(problems[:20]))
    return frame


def import_selectors(connection: Connection, frame: pd.DataFrame, *, person: str) -> SelectorImport:
    """Store selectors, all or nothing; a row without company_id removes its selector, and what the file does not name
    stays. They count from the next run on.

    Raises ConfigurationError for ids that are not known, and for companies that cannot be billed.
    """
    with connection.transaction():
        connection.execute("select set_config('billing.user', %s, true)", [person])
        connection.execute(
            """
            create temporary table given (
                line integer, organization_id text, kind text, source_id text, company_id integer, note text
            ) on commit drop
            """
        )
        with connection.cursor() as cursor, cursor.copy("copy given from stdin") as copy:
            for line, row in zip(frame.index, frame.to_dict("records"), strict=True):
                company = int(row["company_id"]) if row["company_id"] else None
                copy.write_row((line, *(row[name] for name in KEY), company, row["note"] or None))
        _refuse_what_is_wrong(connection)
        removed = connection.execute(
            """
            delete from mapping.company_selector as known
            using given
            where
                given.company_id is null
                and (known.organization_id, known.kind, known.source_id)
                = (given.organization_id, given.kind, given.source_id)
            """
        ).rowcount
        stored = connection.execute(
            """
            insert into mapping.company_selector as known (organization_id, kind, source_id, company_id, note)
            select organization_id, kind, source_id, company_id, note from given where company_id is not null
            on conflict (organization_id, kind, source_id) do update set
                company_id = excluded.company_id, note = excluded.note, decided_by = excluded.decided_by,
                decided_at = excluded.decided_at, version = known.version + 1
            where (known.company_id, known.note) is distinct from (excluded.company_id, excluded.note)
            """
        ).rowcount
    return SelectorImport(rows=len(frame), stored=stored, removed=removed)


def _refuse_what_is_wrong(connection: Connection) -> None:
    problems = connection.execute(
        f"""
        with known_source as (
            select * from ({KNOWN_SOURCES}) as every
            where (every.kind, every.source_id) in (select named.kind, named.source_id from given as named)
        )
        select line, problem
        from given
        left join mapping.company as company using (company_id)
        cross join lateral (values
            (
                not exists (
                    select from mapping.organization as known where known.organization_id = given.organization_id
                ),
                format('organization %s is not known', given.organization_id)
            ),
            (
                given.company_id is not null and company.company_id is null,
                format('company %s is not known', given.company_id)
            ),
            (
                given.company_id is not null
                and not exists (
                    select from known_source
                    where known_source.kind = given.kind and known_source.source_id = given.source_id
                ),
                format('%s %s is not known', given.kind, given.source_id)
            ),
            (
                given.company_id is not null
                and exists (
                    select from known_source
                    where known_source.kind = given.kind and known_source.source_id = given.source_id
                        and known_source.organization_id is not null
                )
                and not exists (
                    select from known_source
                    where known_source.kind = given.kind and known_source.source_id = given.source_id
                        and coalesce(known_source.organization_id, given.organization_id) = given.organization_id
                ),
                format('%s %s belongs to another organization', given.kind, given.source_id)
            ),
            (
                company.unusable is not null
                and not exists (
                    select from mapping.company_selector as kept
                    where (kept.organization_id, kept.kind, kept.source_id, kept.company_id)
                        = (given.organization_id, given.kind, given.source_id, given.company_id)
                ),
                format('company %s (%s) is %s: choose another, or mend it in ConnectWise and run sync_reference_data',
                    company.name, company.company_id, company.unusable)
            )
        ) as found (applies, problem)
        where found.applies
        order by line
        """  # noqa: S608
    ).fetchall()
    if problems:
        told = "; ".join(f"line {line}: {problem}" for line, problem in problems[:20])
        raise ConfigurationError(f"Nothing was imported. {told}")
