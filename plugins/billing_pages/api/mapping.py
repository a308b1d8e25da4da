"""The mapping pages: what becomes which, suggestions with evidence, one organization to many companies."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from billing_pages.api.common import Change, ConnectWiseId, Given, Money, Note, Released
from billing_pages.database import Connect, Database
from billing_pages.security import Editor
from billing_sync import mapping_grid, selectors, suggestions
from billing_sync.db import Connection
from billing_sync.decide import try_decide_again
from billing_sync.errors import StaleEditError
from billing_sync.mapping_edits import VALUES, Decision, decide_mappings, lines_concerned

router = APIRouter()

MappingKindName = Literal["organizations", "offers", "contracts"]
MappingState = Literal["undecided", "approved", "excluded"]
TargetKind = Literal["companies", "products", "agreements"]


class Evidence(BaseModel):
    """One thing that speaks for a suggestion."""

    text: str
    strength: str


class Suggestion(BaseModel):
    """A target that may be the right one. score: 0 to 100. Nothing is applied by itself.

    is_only_strong: an identifier, a VAT number or exactly the name speaks for it, hardly anything for any other, and no
    other organization has it: it may be offered for approval together with others.
    """

    target_id: int
    target_name: str
    target_detail: str
    score: int
    is_only_strong: bool
    evidence: list[Evidence]
    unusable: str | None


class MappingRow(BaseModel):
    """An organization, offer (or one billing frequency of it) or contract, and what it becomes.

    source_status: gone, or AppXite's own status; target_unusable: why nothing can be billed to it.
    version: an edit carries it. held: money that waits for this entry. selectors: how many (organizations only).
    company_id: of a contract, the company that its organization is mapped to: its agreements come first.
    frequencies: billing frequencies of the offer's invoices; each may be decided, with version 0 while it has no entry.
    best: of what nobody has decided yet, or whose target became unusable, what speaks for which target most.
    """

    source_id: str
    billing_frequency: str
    source_name: str | None
    source_detail: str
    source_status: str | None
    frequencies: list[str]
    last_invoiced_on: date | None
    first_seen_at: datetime | None
    target_id: int | None
    target_name: str | None
    target_detail: str | None
    target_unusable: str | None
    state: MappingState
    recurring_mode: Literal["persistent", "dated"] | None
    note: str | None
    decided_by: str | None
    decided_at: datetime | None
    version: int
    selectors: int
    company_id: int | None
    held: list[Money]
    best: Suggestion | None


class MappingPage(BaseModel):
    """A page of a mapping grid. counts: of all rows that the other filters find, by state."""

    total: int
    offset: int
    counts: dict[MappingState, int]
    rows: list[MappingRow]


class MappingDecision(Given):
    """A decision about one entry. version: as it was shown.

    approved needs a target; undecided takes the decision back. target_id, recurring_mode and note change only if they
    are given (null: emptied).
    """

    source_id: Annotated[str, Field(min_length=1, max_length=100)]
    billing_frequency: Annotated[str, Field(max_length=100)] = ""
    version: int = Field(ge=0)
    state: MappingState
    target_id: ConnectWiseId | None = None
    recurring_mode: Literal["persistent", "dated"] | None = None
    note: Note | None = None


class MappingDecisions(Given):
    """Decisions about one or many entries; each is judged by itself."""

    items: list[MappingDecision] = Field(min_length=1, max_length=5000)


class MappingResult(BaseModel):
    """What became of one decision. conflict: somebody else changed it; row is what stands now."""

    source_id: str
    billing_frequency: str
    status: Literal["changed", "unchanged", "conflict", "refused"]
    message: str | None
    row: MappingRow | None


class MappingResults(BaseModel):
    """What became of all decisions, and of the lines that waited for them."""

    results: list[MappingResult]
    released: Released


class Target(BaseModel):
    """A company, product or agreement of ConnectWise that may be picked."""

    id: int
    name: str
    detail: str
    unusable: str | None


class Selector(BaseModel):
    """Of an organization, lines of this contract, offer or subscription go to this company."""

    kind: Literal["contract", "offer", "subscription"]
    source_id: str
    source_name: str | None
    company_id: int
    company_name: str | None
    note: str | None
    decided_by: str | None
    decided_at: datetime | None


class SelectorSource(BaseModel):
    """A contract, offer or subscription of the organization that a selector may name."""

    kind: Literal["contract", "offer", "subscription"]
    source_id: str
    name: str | None
    money: list[Money]


class Selectors(BaseModel):
    """The one-to-many editor of an organization. fingerprint: of the selectors as shown; a change carries it."""

    organization_id: str
    organization_name: str
    selectors: list[Selector]
    sources: list[SelectorSource]
    fingerprint: str


class SelectorGiven(Given):
    """One selector as a person wants it."""

    kind: Literal["contract", "offer", "subscription"]
    source_id: Annotated[str, Field(min_length=1, max_length=100)]
    company_id: ConnectWiseId
    note: Note | None = None


class SelectorsGiven(Given):
    """All selectors of the organization; those that are not named are removed."""

    fingerprint: str = Field(max_length=100)
    selectors: list[SelectorGiven] = Field(max_length=1000)


class SelectorsChanged(BaseModel):
    """The selectors as they stand now, and what that did to lines."""

    selectors: Selectors
    released: Released


# -- routes ------------------------------------------------------------------------------------------------------------

SuggestedKind = Literal["organizations", "offers"]
MappingSort = Literal[
    "source_name", "-source_name", "target_name", "-target_name", "state", "-state", "first_seen_at", "-first_seen_at",
    "last_invoiced_on", "-last_invoiced_on", "decided_at", "-decided_at", "held", "-held",
]  # fmt: skip
HistoryTable = Literal[
    "mapping.organization_mapping", "mapping.offer_mapping", "mapping.offer_variant_mapping",
    "mapping.contract_mapping", "mapping.company_selector", "mapping.agreement_rule", "mapping.agreement_refusal",
    "billing.setting", "billing.charge_type", "billing.override", "billing.bound_allowance", "delivery.pause",
]  # fmt: skip
SourceId = Annotated[str, Field(min_length=1, max_length=100)]
SearchText = Annotated[str, Field(max_length=200)]


@router.get("/mappings/{kind}")
def get_mappings(
    kind: MappingKindName,
    database: Database,
    *,
    q: SearchText = "",
    state: MappingState | None = None,
    only_held: bool = False,
    window_months: Annotated[int | None, Query(ge=1, le=120)] = None,
    sort: MappingSort = "source_name",
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> MappingPage:
    """A page of a mapping grid. window_months: only what was invoiced in the current month and so many before it."""
    search = mapping_grid.Search(q.strip(), state, only_held, _window(window_months))
    page = mapping_grid.mapping_page(database, kind, search, sort=sort, offset=offset, limit=limit)
    best = _best(database, kind, page.rows)
    rows = [_row(row, best.get(row.source_id)) for row in page.rows]
    return MappingPage(total=page.total, offset=offset, counts=dict(page.counts), rows=rows)


@router.get("/mappings/{kind}/suggestions")
def get_suggestions(
    kind: SuggestedKind, database: Database, source_id: Annotated[list[SourceId], Query(min_length=1, max_length=1000)]
) -> dict[str, list[Suggestion]]:
    """All candidates of the entries named, best first; nothing is applied by itself."""
    found = suggestions.suggest(database, kind, decided=True, source_ids=source_id)
    return {one.source_id: [_suggestion(one, candidate) for candidate in one.candidates] for one in found}


@router.post("/mappings/{kind}/decide")
def decide(
    kind: MappingKindName, given: MappingDecisions, person: Editor, database: Database, connect: Connect
) -> MappingResults:
    """Decide one entry or many, each judged by itself; lines that wait for them are decided again at once."""
    decisions = [
        Decision(
            one.source_id, one.billing_frequency, one.version, one.state,
            {name: getattr(one, name) for name in VALUES if name in one.model_fields_set},
        )
        for one in given.items
    ]  # fmt: skip
    results = decide_mappings(database, kind, decisions, person=person.name)
    changed = {result.key[0] for result in results if result.status == "changed"}
    released = _decide_again(database, lines_concerned(database, kind, changed) if changed else (), connect)
    rows = mapping_grid.mapping_rows(database, kind, {result.key for result in results})
    best = _best(database, kind, list(rows.values()))
    return MappingResults(
        results=[
            MappingResult(
                source_id=result.key[0],
                billing_frequency=result.key[1],
                status=result.status,
                message=result.message,
                row=_row(rows[result.key], best.get(result.key[0])) if result.key in rows else None,
            )
            for result in results
        ],
        released=released,
    )


@router.get("/targets/{kind}")
def get_targets(
    kind: TargetKind,
    database: Database,
    q: SearchText = "",
    company_id: ConnectWiseId | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 30,
) -> list[Target]:
    """What may be picked: by id, identifier, name or vendor SKU. Usable ones first; agreements of the company first."""
    found = mapping_grid.find_targets(database, kind, q, company_id=company_id, limit=limit)
    return [Target.model_validate(one, from_attributes=True) for one in found]


@router.get("/organizations/{organization_id}/selectors")
def get_selectors(organization_id: SourceId, database: Database) -> Selectors:
    """The one-to-many editor of an organization."""
    return _selectors(selectors.selectors_of(database, organization_id))


@router.put("/organizations/{organization_id}/selectors")
def put_selectors(
    organization_id: SourceId, given: SelectorsGiven, person: Editor, database: Database, connect: Connect
) -> SelectorsChanged:
    """Store all selectors of the organization at once; 409 when somebody changed them meanwhile."""
    wanted = [
        selectors.GivenSelector(organization_id, one.kind, one.source_id, one.company_id, one.note or None)
        for one in given.selectors
    ]
    try:
        is_changed = selectors.change_selectors(
            database, organization_id, wanted, given.fingerprint, person=person.name
        )
    except StaleEditError as stale:
        raise StaleEditError(str(stale), current=_selectors(stale.current)) from None
    released = _decide_again(database, [organization_id] if is_changed else (), connect)
    return SelectorsChanged(selectors=_selectors(selectors.selectors_of(database, organization_id)), released=released)


@router.get("/history")
def get_history(
    table: HistoryTable, key: Annotated[str, Query(min_length=1, max_length=300)], database: Database
) -> list[Change]:
    """Who changed one row, when, before and after; newest first, at most 200."""
    return [Change.model_validate(one, from_attributes=True) for one in mapping_grid.history(database, table, key)]


# -- core → models -----------------------------------------------------------------------------------------------------


def _window(months: int | None) -> date | None:
    """The first day of the month so many months before the current one."""
    if months is None:
        return None
    today = datetime.now(UTC).date()
    year, month = divmod(today.year * 12 + today.month - 1 - months, 12)
    return date(year, month + 1, 1)


def _best(database: Connection, kind: MappingKindName, rows: Sequence[mapping_grid.Row]) -> dict[str, Suggestion]:
    """The best suggestion for each of the rows that needs one, by source."""
    wanted = {row.source_id for row in rows if row.state == "undecided" or row.target_unusable}
    if kind == "contracts" or not wanted:
        return {}
    found = suggestions.suggest(database, kind, decided=True, source_ids=wanted)
    return {one.source_id: _suggestion(one, one.candidates[0]) for one in found if one.candidates}


def _suggestion(whole: suggestions.Suggestion, one: suggestions.Candidate) -> Suggestion:
    target = one.target
    others = f"already: {', '.join(whole.others_of(target))}" if whole.others_of(target) else None
    details = [target.identifier, target.status, others]
    return Suggestion(
        target_id=target.target_id,
        target_name=target.name or target.identifier or "without name",
        target_detail=" · ".join(detail for detail in details if detail),
        score=one.score,
        is_only_strong=whole.only_strong is one,
        evidence=[Evidence(text=said.text, strength=said.strength.name.lower()) for said in one.evidence],
        unusable=target.unusable,
    )


def _row(row: mapping_grid.Row, best: Suggestion | None) -> MappingRow:
    shown = best if row.state == "undecided" or row.target_unusable else None
    names = [name for name in MappingRow.model_fields if name not in ("best", "held")]
    return MappingRow(
        **{name: getattr(row, name) for name in names}, held=[Money.model_validate(one) for one in row.held], best=shown
    )


def _selectors(found: object) -> Selectors:
    return Selectors.model_validate(found, from_attributes=True)


def _decide_again(database: Connection, organization_ids: Sequence[str], connect: Connect) -> Released:
    """Lines of these organizations; of none, nothing is decided."""
    if not organization_ids:
        return Released(state="done")
    return Released.model_validate(try_decide_again(database, organization_ids=organization_ids, connect=connect))
