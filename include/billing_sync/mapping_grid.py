"""Mappings as a person sees them: a page of the grid with the money that waits for each entry, and targets to pick."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from psycopg import sql
from psycopg.rows import class_row

from billing_sync.db import Connection
from billing_sync.decide import Sum

State = Literal["undecided", "approved", "excluded"]
Key = tuple[str, str]  # source_id, billing_frequency ("" but for the variants of an offer)
STATES: tuple[State, ...] = ("undecided", "approved", "excluded")

# Every kind gives the same columns.
_ENTRIES = {
    "organizations": """
        select source.organization_id as source_id, '' as billing_frequency, source.name as source_name,
            concat_ws(' · ', 'erpId ' || source.erp_id, 'VAT ' || source.vat_number, source.country) as source_detail,
            case when source.is_gone then 'gone' else source.status end as source_status,
            (
                select max(invoice.invoice_date) from billing.invoice as invoice
                where invoice.organization_id = source.organization_id
            ) as last_invoiced_on,
            source.first_seen_at, mapped.company_id as target_id, target.name as target_name,
            concat_ws(' · ', target.identifier, target.status, target.currency) as target_detail,
            target.unusable as target_unusable, mapped.state, null::text as recurring_mode, mapped.note,
            mapped.decided_by, mapped.decided_at, mapped.version
        from mapping.organization as source
        join mapping.organization_mapping as mapped using (organization_id)
        left join mapping.company as target using (company_id)
        """,
    "offers": """
        select source.offer_id as source_id, entry.billing_frequency, source.name as source_name,
            entry.billing_frequency as source_detail, null::text as source_status, source.last_invoiced_on,
            source.first_seen_at, entry.product_id as target_id, target.identifier as target_name,
            concat_ws(' · ', target.description, target.vendor_sku, target.product_class) as target_detail,
            target.unusable as target_unusable, entry.state, entry.recurring_mode, entry.note, entry.decided_by,
            entry.decided_at, entry.version
        from mapping.offer as source
        join (
            select offer_id, '' as billing_frequency, product_id, recurring_mode, state, note, decided_by, decided_at,
                version
            from mapping.offer_mapping
            union all
            select offer_id, billing_frequency, product_id, recurring_mode, state, note, decided_by, decided_at, version
            from mapping.offer_variant_mapping
        ) as entry using (offer_id)
        left join mapping.product as target using (product_id)
        """,
    "contracts": """
        select source.contract_id as source_id, '' as billing_frequency, source.contract_number as source_name,
            concat_ws(' · ', organization.name, source.contract_type, source.currency) as source_detail,
            case when source.is_gone then 'gone' end as source_status, null::date as last_invoiced_on,
            source.first_seen_at, mapped.agreement_id as target_id, target.name as target_name,
            concat_ws(' · ', company.name, agreement_type.name, target.currency, billing_cycle.name) as target_detail,
            target.unusable as target_unusable, mapped.state, null::text as recurring_mode, mapped.note,
            mapped.decided_by, mapped.decided_at, mapped.version
        from mapping.contract as source
        join mapping.contract_mapping as mapped using (contract_id)
        left join mapping.organization as organization using (organization_id)
        left join mapping.agreement as target using (agreement_id)
        left join mapping.company as company using (company_id)
        left join mapping.agreement_type as agreement_type using (agreement_type_id)
        left join mapping.billing_cycle as billing_cycle on billing_cycle.billing_cycle_id = target.billing_cycle_id
        """,
}


@dataclass(frozen=True)
class _Waiting:
    """Held lines that another decision about an entry may free: their reasons, and which entry each waits for."""

    codes: tuple[str, ...]
    source_id: str
    billing_frequency: str = "''"
    joined: str = ""


_HELD = {
    "organizations": _Waiting(
        ("organization_unmapped", "company_unclaimed", "company_ambiguous", "company_not_usable"),
        "invoice.organization_id",
    ),
    # Lines of a decided variant wait for it; all others for the offer's own entry. A product chosen for the line wins.
    "offers": _Waiting(
        ("offer_unmapped", "product_not_usable"),
        "case when override.product_id is null then line.offer_id end",
        "coalesce(variant.billing_frequency, '')",
        """
        left join billing.override as override on override.line_id = line.line_id
        left join mapping.offer_variant_mapping as variant
            on variant.offer_id = line.offer_id and variant.billing_frequency = line.billing_frequency
            and variant.decided_by is not null
        """,
    ),
    "contracts": _Waiting(
        (
            "no_agreement", "ambiguous_agreement", "agreement_not_usable", "agreement_currency_differs",
            "agreement_prorates", "billing_cycle_unsupported", "before_bill_start",
        ),
        "coalesce(line.contract_id, invoice.contract_id)",
    ),
}  # fmt: skip

_SORTED_BY = {
    "source_name": "lower(entry.source_name)",
    "target_name": "lower(entry.target_name)",
    "state": "case when entry.decided_by is null then 0 when entry.state = 'approved' then 1 else 2 end",
    "first_seen_at": "entry.first_seen_at",
    "last_invoiced_on": "entry.last_invoiced_on",
    "decided_at": "entry.decided_at",
    "held": "held.amount",
}


@dataclass
class Row:
    """An entry of a mapping as it stands. held: money of lines that wait for it; frequencies: an offer was invoiced
    with, on its own entry only; selectors: how many an organization has; company_id: of a contract, the company that
    its organization is mapped to."""

    source_id: str
    billing_frequency: str
    source_name: str | None
    source_detail: str
    source_status: str | None
    last_invoiced_on: date | None
    first_seen_at: datetime | None
    target_id: int | None
    target_name: str | None
    target_detail: str | None
    target_unusable: str | None
    state: State
    recurring_mode: Literal["persistent", "dated"] | None
    note: str | None
    decided_by: str | None
    decided_at: datetime | None
    version: int
    frequencies: Sequence[str] = ()
    selectors: int = 0
    company_id: int | None = None
    held: Sequence[Sum] = ()

    @property
    def key(self) -> Key:
        """What names it."""
        return self.source_id, self.billing_frequency


@dataclass(frozen=True)
class Search:
    """Which entries. text: stands in a name, id, detail or note; since: offers invoiced on that day or later."""

    text: str = ""
    state: State | None = None
    only_held: bool = False
    since: date | None = None


@dataclass(frozen=True)
class Page:
    """A page of entries. total: how many are found; counts: of what all but the state finds, by state."""

    total: int
    counts: Mapping[State, int]
    rows: Sequence[Row]


def mapping_page(
    connection: Connection, kind_name: str, search: Search, *, sort: str = "source_name", offset: int = 0,
    limit: int = 100,
) -> Page:  # fmt: skip
    """A page of the entries of a kind (a name of `mappings.KINDS`). sort: a key of `_SORTED_BY`, "-" before it for
    descending; entries without a value come last."""
    held = _held(connection, kind_name) if search.only_held or sort.lstrip("-") == "held" else {}
    found = sql.SQL(
        """
        from ({entries}) as entry
        left join unnest(%(held_ids)s::text[], %(held_frequencies)s::text[], %(held_amounts)s::numeric[])
            as held (source_id, billing_frequency, amount) using (source_id, billing_frequency)
        where
            (
                %(text)s = ''
                or concat_ws(' ', entry.source_id, entry.source_name, entry.source_detail, entry.target_id,
                    entry.target_name, entry.target_detail, entry.note) ilike %(pattern)s
            )
            and (%(since)s::date is null or entry.last_invoiced_on >= %(since)s::date)
            and (not %(only_held)s or held.amount is not null)
        """
    ).format(entries=sql.SQL(_ENTRIES[kind_name]))
    values = {
        "text": search.text, "pattern": f"%{_escaped(search.text)}%", "since": search.since, "state": search.state,
        "only_held": search.only_held, "offset": offset, "limit": limit,
        "held_ids": [source_id for source_id, _ in held],
        "held_frequencies": [frequency for _, frequency in held],
        "held_amounts": [sum(abs(one.amount) for one in sums) for sums in held.values()],
    }  # fmt: skip
    counted = connection.execute(
        sql.SQL(
            "select case when entry.decided_by is null then 'undecided' else entry.state end, count(*) {} group by 1"
        )
        .format(found),
        values,
    ).fetchall()  # fmt: skip
    counts: dict[State, int] = dict.fromkeys(STATES, 0) | dict(counted)
    rows = _read_rows(
        connection,
        sql.SQL(
            """
            {found} and (
                %(state)s::text is null
                or case when entry.decided_by is null then 'undecided' else entry.state end = %(state)s::text
            )
            order by {by} {direction} nulls last, lower(entry.source_name), entry.source_id, entry.billing_frequency
            offset %(offset)s limit %(limit)s
            """
        ).format(
            found=found,
            by=sql.SQL(_SORTED_BY[sort.lstrip("-")]),
            direction=sql.SQL("desc" if sort.startswith("-") else "asc"),
        ),
        values,
    )
    _complete(connection, kind_name, rows)
    return Page(counts[search.state] if search.state else sum(counts.values()), counts, rows)


def mapping_rows(
    connection: Connection, kind_name: str, keys: Collection[Key], *, with_money: bool = True
) -> dict[Key, Row]:
    """The entries of these keys, as they stand. A billing frequency of an offer that has no entry yet is there as it
    would be: undecided, version 0. with_money: tell the money that waits for each, too."""
    offers_too = {(source_id, "") for source_id, _ in keys} if kind_name == "offers" else set()
    wanted = sorted({*keys, *offers_too})
    rows = _read_rows(
        connection,
        sql.SQL(
            """
            from ({entries}) as entry
            where (entry.source_id, entry.billing_frequency) in (
                select * from unnest(%(ids)s::text[], %(frequencies)s::text[])
            )
            """
        ).format(entries=sql.SQL(_ENTRIES[kind_name])),
        {"ids": [source_id for source_id, _ in wanted], "frequencies": [frequency for _, frequency in wanted]},
    )
    _complete(connection, kind_name, rows, with_money=with_money)
    found = {row.key: row for row in rows}
    for source_id, frequency in keys:
        offer = found.get((source_id, ""))
        if frequency and (source_id, frequency) not in found and offer and frequency in offer.frequencies:
            found[source_id, frequency] = Row(
                source_id, frequency, offer.source_name, frequency, None, offer.last_invoiced_on, offer.first_seen_at,
                None, None, None, None, "undecided", None, None, None, None, 0,
            )  # fmt: skip
    return {key: found[key] for key in keys if key in found}


def _read_rows(connection: Connection, found: sql.Composable, values: dict[str, Any]) -> list[Row]:
    with connection.cursor(row_factory=class_row(Row)) as cursor:
        cursor.execute(
            sql.SQL(
                """
                select entry.source_id, entry.billing_frequency, entry.source_name, entry.source_detail,
                    entry.source_status, entry.last_invoiced_on, entry.first_seen_at, entry.target_id,
                    entry.target_name, nullif(entry.target_detail, '') as target_detail, entry.target_unusable,
                    case when entry.decided_by is null then 'undecided' else entry.state end as state,
                    entry.recurring_mode, entry.note, entry.decided_by, entry.decided_at, entry.version
                {}
                """
            ).format(found),
            values,
        )
        return cursor.fetchall()


def _complete(connection: Connection, kind_name: str, rows: Sequence[Row], *, with_money: bool = True) -> None:
    """Money that waits, billing frequencies, selectors, companies of contracts: for the rows of a page only."""
    ids = sorted({row.source_id for row in rows})
    if not ids:
        return
    held = _held(connection, kind_name, ids) if with_money else {}
    frequencies, selectors, companies = {}, {}, {}
    if kind_name == "offers":
        frequencies = dict(
            connection.execute(
                "select offer_id, array_agg(billing_frequency order by billing_frequency) from mapping.offer_frequency"
                " where offer_id = any(%s) group by offer_id",
                [ids],
            ).fetchall()
        )
    if kind_name == "organizations":
        selectors = dict(
            connection.execute(
                "select organization_id, count(*) from mapping.company_selector"
                " where organization_id = any(%s) group by organization_id",
                [ids],
            ).fetchall()
        )
    if kind_name == "contracts":
        companies = dict(
            connection.execute(
                "select contract.contract_id, mapped.company_id from mapping.contract as contract"
                " join mapping.organization_mapping as mapped using (organization_id)"
                " where contract.contract_id = any(%s) and mapped.state = 'approved'",
                [ids],
            ).fetchall()
        )
    for row in rows:
        row.company_id = companies.get(row.source_id)
        row.held = held.get(row.key, ())
        row.selectors = selectors.get(row.source_id, 0)
        row.frequencies = frequencies.get(row.source_id, ()) if not row.billing_frequency else ()


def _held(connection: Connection, kind_name: str, source_ids: list[str] | None = None) -> dict[Key, list[Sum]]:
    """Money of the lines that wait for each entry, each line once; of these sources, or of all."""
    waiting = _HELD[kind_name]
    rows = connection.execute(
        sql.SQL(
            """
            select {source_id}, {billing_frequency}, coalesce(line.currency, '?'), coalesce(sum(line.total_price), 0),
                count(*)
            from billing.line_decision as decision
            join billing.invoice_line as line using (line_id)
            join billing.invoice as invoice using (invoice_id)
            {joined}
            where
                decision.outcome = 'held'
                and exists (
                    select from billing.held_reason as reason
                    where reason.line_id = line.line_id and reason.reason_code = any(%(codes)s)
                )
                and not exists (select from delivery.addition_line as carried where carried.line_id = line.line_id)
                and (%(source_ids)s::text[] is null or {source_id} = any(%(source_ids)s::text[]))
            group by 1, 2, 3
            order by 1, 2, 3
            """
        ).format(
            source_id=sql.SQL(waiting.source_id),
            billing_frequency=sql.SQL(waiting.billing_frequency),
            joined=sql.SQL(waiting.joined),
        ),
        {"codes": list(waiting.codes), "source_ids": source_ids},
    ).fetchall()
    found: dict[Key, list[Sum]] = defaultdict(list)
    for source_id, frequency, currency, amount, lines in rows:
        if source_id is not None:
            found[source_id, frequency].append(Sum(currency, amount, lines))
    return found


def _escaped(text: str) -> str:
    """A text as LIKE takes it literally."""
    return text.replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_")


# -- targets -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """A company, product or agreement of ConnectWise. unusable: why nothing can be billed to it."""

    id: int
    name: str
    detail: str
    unusable: str | None


_TARGETS = {
    "companies": """
        select company_id as id, coalesce(name, identifier, 'without name') as name, identifier,
            concat_ws(' · ', identifier, status, tax_identifier, currency) as detail, unusable, company_id
        from mapping.company
        """,
    "products": """
        select product_id as id, coalesce(identifier, 'without name') as name, vendor_sku as identifier,
            concat_ws(' · ', description, vendor_sku, product_class) as detail, unusable, null::integer as company_id
        from mapping.product
        """,
    "agreements": """
        select agreement.agreement_id as id, coalesce(agreement.name, 'without name') as name, company.identifier,
            concat_ws(' · ', company.name, agreement_type.name, agreement.currency, billing_cycle.name) as detail,
            agreement.unusable, agreement.company_id
        from mapping.agreement as agreement
        left join mapping.company as company using (company_id)
        left join mapping.agreement_type as agreement_type using (agreement_type_id)
        left join mapping.billing_cycle as billing_cycle on billing_cycle.billing_cycle_id = agreement.billing_cycle_id
        """,
}


def find_targets(
    connection: Connection, kind_name: str, text: str = "", *, company_id: int | None = None, limit: int = 30
) -> list[Target]:
    """What may be picked: every word of the text stands in its id, name or detail.

    Those of the company first, then usable ones, then what the text names exactly or begins with.
    """
    words = text.split()
    with connection.cursor(row_factory=class_row(Target)) as cursor:
        cursor.execute(
            sql.SQL(
                """
                select target.id, target.name, target.detail, target.unusable
                from ({targets}) as target
                where (
                    select coalesce(bool_and(concat_ws(' ', target.id, target.name, target.detail) ilike word), true)
                    from unnest(%(words)s::text[]) as named (word)
                )
                order by
                    %(company_id)s::integer is not null and target.company_id is distinct from %(company_id)s::integer,
                    target.unusable is not null,
                    (
                        target.id::text = %(text)s or lower(target.identifier) = lower(%(text)s)
                        or lower(target.name) = lower(%(text)s)
                    ) is not true,
                    (target.name ilike %(begins)s or target.identifier ilike %(begins)s) is not true,
                    lower(target.name), target.id
                limit %(limit)s
                """
            ).format(targets=sql.SQL(_TARGETS[kind_name])),
            {
                "words": [f"%{_escaped(word)}%" for word in words], "text": text.strip(),
                "begins": f"{_escaped(text.strip())}%", "company_id": company_id, "limit": limit,
            },
        )  # fmt: skip
        return cursor.fetchall()


# -- history -----------------------------------------------------------------------------------------------------------

HISTORY_AT_MOST = 200


@dataclass(frozen=True)
class Change:
    """One entry of the audit trail."""

    changed_by: str
    changed_at: datetime
    before: dict[str, object] | None
    after: dict[str, object] | None


def history(connection: Connection, table: str, key: str) -> list[Change]:
    """Who changed the row of a table (`mapping.offer_mapping`) and when, newest first, at most `HISTORY_AT_MOST`.

    key: as its trigger names it: the id; of a variant and of a selector the offer's and the organization's.
    """
    with connection.cursor(row_factory=class_row(Change)) as cursor:
        cursor.execute(
            "select changed_by, changed_at, before, after from audit.change where table_name = %s and row_key = %s"
            " order by change_id desc limit %s",
            [table, key, HISTORY_AT_MOST],
        )
        return cursor.fetchall()
