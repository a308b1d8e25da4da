"""Selectors: which lines of one organization go to which of its companies; as a CSV file, and as a page edits them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Literal

import pandas as pd
from psycopg.rows import class_row

from billing_sync.db import Connection
from billing_sync.decide import Sum
from billing_sync.errors import ConfigurationError, NotFoundError, RefusedEditError, StaleEditError
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
    given = [
        GivenSelector(
            row["organization_id"],
            row["kind"],
            row["source_id"],
            int(row["company_id"] or 0) or None,
            row["note"] or None,
        )
        for row in frame.to_dict("records")
    ]
    with connection.transaction():
        connection.execute("select set_config('billing.user', %s, true)", [person])
        _copy_given(connection, zip(frame.index, given, strict=True))
        problems = _problems(connection)
        if problems:
            told = "; ".join(f"line {line}: {problem}" for line, problem in problems[:20])
            raise ConfigurationError(f"Nothing was imported. {told}")
        stored, removed = _store_given(connection)
    return SelectorImport(rows=len(frame), stored=stored, removed=removed)


@dataclass(frozen=True)
class GivenSelector:
    """A selector to store, or (company_id None) to remove."""

    organization_id: str
    kind: str
    source_id: str
    company_id: int | None
    note: str | None


def _copy_given(connection: Connection, given: Iterable[tuple[Hashable, GivenSelector]]) -> None:
    connection.execute(
        """
        create temporary table given (
            line integer, organization_id text, kind text, source_id text, company_id integer, note text
        ) on commit drop
        """
    )
    with connection.cursor() as cursor, cursor.copy("copy given from stdin") as copy:
        for line, row in given:
            copy.write_row((line, *astuple(row)))


def _store_given(connection: Connection) -> tuple[int, int]:
    """How many selectors were added or changed, and how many removed."""
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
    return stored, removed


def _problems(connection: Connection) -> list[tuple[int, str]]:
    """What is wrong with what is given: number of the line, and the problem."""
    return connection.execute(
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


# -- the one-to-many editor --------------------------------------------------------------------------------------------

SOURCES_AT_MOST = 3000
Kind = Literal["contract", "offer", "subscription"]


@dataclass(frozen=True)
class Selector:
    """Of an organization, lines of this contract, offer or subscription go to this company."""

    kind: Kind
    source_id: str
    source_name: str | None
    company_id: int
    company_name: str | None
    note: str | None
    decided_by: str
    decided_at: datetime


@dataclass(frozen=True)
class Source:
    """What a selector may name, with the money of its lines, most first."""

    kind: Kind
    source_id: str
    name: str | None
    money: Sequence[Sum]


@dataclass(frozen=True)
class SelectorSet:
    """The selectors of an organization, and what further ones may name. fingerprint: of the selectors as they stand."""

    organization_id: str
    organization_name: str
    selectors: Sequence[Selector]
    sources: Sequence[Source]
    fingerprint: str


def selectors_of(connection: Connection, organization_id: str) -> SelectorSet:
    """The selectors of an organization. Raises NotFoundError for one that is not known."""
    row = connection.execute(
        """
        select organization.name, (
            select md5(coalesce(string_agg(
                concat_ws('|', quote_literal(kind), quote_literal(source_id), version, decided_at), ','
                order by kind, source_id
            ), ''))
            from mapping.company_selector as selector where selector.organization_id = organization.organization_id
        )
        from mapping.organization as organization where organization.organization_id = %s
        """,
        [organization_id],
    ).fetchone()
    if row is None:
        raise NotFoundError(f"There is no organization {organization_id}. If it is new in AppXite: Sync Organizations.")
    name, fingerprint = row
    with connection.cursor(row_factory=class_row(Selector)) as cursor:
        cursor.execute(
            """
            select selector.kind, selector.source_id,
                coalesce(contract.contract_number, offer.name, subscription.name) as source_name, selector.company_id,
                company.name as company_name, selector.note, selector.decided_by, selector.decided_at
            from mapping.company_selector as selector
            join mapping.company as company using (company_id)
            left join mapping.contract as contract
                on selector.kind = 'contract' and contract.contract_id = selector.source_id
            left join mapping.offer as offer on selector.kind = 'offer' and offer.offer_id = selector.source_id
            left join mapping.subscription as subscription
                on selector.kind = 'subscription' and subscription.subscription_id = selector.source_id
            where selector.organization_id = %s
            order by selector.kind, source_name, selector.source_id
            """,
            [organization_id],
        )
        selectors = cursor.fetchall()
    return SelectorSet(organization_id, name, selectors, _sources_of(connection, organization_id), fingerprint)


def _sources_of(connection: Connection, organization_id: str) -> list[Source]:
    rows = connection.execute(
        """
        with own as (
            select coalesce(line.contract_id, invoice.contract_id) as contract_id, line.offer_id, line.offer_name,
                line.subscription_id, line.subscription_name, line.currency, line.total_price
            from billing.invoice as invoice join billing.invoice_line as line using (invoice_id)
            where invoice.organization_id = %(organization_id)s
        ),
        found as (
            select named.kind, named.source_id, max(named.name) as name, own.currency,
                coalesce(sum(own.total_price), 0) as amount, count(own.total_price) as lines
            from own
            cross join lateral (values
                ('contract', own.contract_id, null), ('offer', own.offer_id, own.offer_name),
                ('subscription', own.subscription_id, own.subscription_name)
            ) as named (kind, source_id, name)
            where named.source_id is not null
            group by named.kind, named.source_id, own.currency
            union all
            select 'contract', contract_id, contract_number, null, null, null from mapping.contract
            where organization_id = %(organization_id)s and not is_gone
        ),
        ordered as (
            select *, max(name) over same as any_name, sum(abs(amount)) over same as weight from found
            window same as (partition by kind, source_id)
        )
        select ordered.kind, ordered.source_id, coalesce(contract.contract_number, ordered.any_name), ordered.currency,
            ordered.amount, ordered.lines
        from ordered
        left join mapping.contract as contract
            on ordered.kind = 'contract' and contract.contract_id = ordered.source_id
        order by ordered.kind, ordered.weight desc nulls last, ordered.source_id, ordered.currency nulls last
        limit %(at_most)s
        """,
        {"organization_id": organization_id, "at_most": SOURCES_AT_MOST},
    ).fetchall()
    return [
        Source(
            kind,
            source_id,
            name,
            [Sum(*money) for *_, currency, amount, lines in own if currency for money in [(currency, amount, lines)]],
        )
        for (kind, source_id, name), own in groupby(rows, key=lambda row: row[:3])
    ]


def change_selectors(
    connection: Connection, organization_id: str, wanted: Sequence[GivenSelector], fingerprint: str, *, person: str
) -> bool:
    """Store all selectors of an organization at once; those that are not wanted are removed. Whether anything changed.

    Lines are not decided again here. Raises NotFoundError; StaleEditError with the SelectorSet when the fingerprint is
    not that of what stands; RefusedEditError for ids that are not known or not its own, and unusable companies.
    """
    keys = [(one.kind, one.source_id) for one in wanted]
    twice = sorted({f"{kind} {source_id}" for kind, source_id in keys if keys.count((kind, source_id)) > 1})
    if twice:
        raise RefusedEditError(f"More than one selector names {', '.join(twice[:20])}: leave one.")
    with connection.transaction():
        connection.execute("select set_config('billing.user', %s, true)", [person])
        connection.execute(
            "select from mapping.organization_mapping where organization_id = %s for update", [organization_id]
        )
        now = selectors_of(connection, organization_id)
        if now.fingerprint != fingerprint:
            raise StaleEditError(
                f"Somebody changed the selectors of {now.organization_name} meanwhile: look at them, and change them "
                "again if you still want to.",
                current=now,
            )
        removed = [
            GivenSelector(organization_id, one.kind, one.source_id, None, None)
            for one in now.selectors
            if (one.kind, one.source_id) not in set(keys)
        ]
        _copy_given(connection, enumerate([*wanted, *removed]))
        problems = _problems(connection)
        if problems:
            raise RefusedEditError(f"Nothing was stored: {'; '.join(problem for _, problem in problems[:20])}.")
        return any(_store_given(connection))
