"""The mapping pages: what becomes which, suggestions with evidence, one organization to many companies."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from billing_pages.api.common import Change, ConnectWiseId, Given, Money, Note, Released
from billing_pages.database import Database
from billing_pages.security import Editor

router = APIRouter()

MappingKindName = Literal["organizations", "offers", "contracts"]
MappingState = Literal["undecided", "approved", "excluded"]
TargetKind = Literal["companies", "products", "agreements"]


class Evidence(BaseModel):
    """One thing that speaks for a suggestion."""

    text: str
    strength: str


class Suggestion(BaseModel):
    """A target that may be the right one. score: 0 to 100. Nothing is applied by itself."""

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

    approved needs a target, excluded keeps what is given; undecided takes the decision back.
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
    "mapping.contract_mapping", "mapping.company_selector", "mapping.agreement_rule", "billing.setting",
    "billing.charge_type", "billing.override", "billing.bound_allowance", "delivery.pause",
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
    """A page of a mapping grid. window_months: only offers invoiced in the last so many months."""
    raise NotImplementedError


@router.get("/mappings/{kind}/suggestions")
def get_suggestions(
    kind: SuggestedKind, database: Database, source_id: Annotated[list[SourceId], Query(min_length=1, max_length=1000)]
) -> dict[str, list[Suggestion]]:
    """All candidates of the entries named, best first; nothing is applied by itself."""
    raise NotImplementedError


@router.post("/mappings/{kind}/decide")
def decide_mappings(
    kind: MappingKindName, given: MappingDecisions, person: Editor, database: Database
) -> MappingResults:
    """Decide one entry or many, each judged by itself; lines that wait for them are decided again at once."""
    raise NotImplementedError


@router.get("/targets/{kind}")
def get_targets(
    kind: TargetKind,
    database: Database,
    q: SearchText = "",
    company_id: ConnectWiseId | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 30,
) -> list[Target]:
    """What may be picked: by id, identifier, name or vendor SKU. Usable ones first; agreements of the company first."""
    raise NotImplementedError


@router.get("/organizations/{organization_id}/selectors")
def get_selectors(organization_id: SourceId, database: Database) -> Selectors:
    """The one-to-many editor of an organization."""
    raise NotImplementedError


@router.put("/organizations/{organization_id}/selectors")
def put_selectors(
    organization_id: SourceId, given: SelectorsGiven, person: Editor, database: Database
) -> SelectorsChanged:
    """Store all selectors of the organization at once; 409 when somebody changed them meanwhile."""
    raise NotImplementedError


@router.get("/history")
def get_history(
    table: HistoryTable, key: Annotated[str, Query(min_length=1, max_length=300)], database: Database
) -> list[Change]:
    """Who changed one row, when, before and after; newest first, at most 200."""
    raise NotImplementedError
