"""The review grid (Mapping, Invoices): lines with what ConnectWise will get, edits, bulk changes, export, and why."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Literal, get_args

from fastapi import APIRouter, Depends, HTTPException, Path, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field, ValidationError

from billing_pages.api.common import (
    BillingPeriod,
    ConnectWiseId,
    Given,
    LineId,
    Money,
    Note,
    Outcome,
    OutcomeMoney,
    Released,
)
from billing_pages.database import Database
from billing_pages.security import Editor

router = APIRouter()

ValueSource = Literal["User Updated", "System Updated", "as invoiced"]
EditableField = Literal[
    "agreement_id", "product_id", "effective_date", "cancelled_date", "quantity", "unit_price", "invoice_description"
]
SortColumn = Literal[
    "line_id", "organization_name", "company_name", "invoice_number", "invoice_date", "subscription_name", "offer_name",
    "charge_type", "charge_start_date", "charge_end_date", "quantity", "unit_price", "total_price", "outcome",
    "agreement_name", "product", "effective_date", "cancelled_date", "sent_quantity", "sent_unit_price", "sent_amount",
    "held_since",
]  # fmt: skip


class LineFilter(Given):
    """Which lines. Everything that is given counts at once; of a list, any of its entries."""

    periods: list[BillingPeriod] = Field([], max_length=24)
    outcomes: list[Outcome] = Field([], max_length=5)
    reason_codes: list[Annotated[str, Field(max_length=60)]] = Field([], max_length=60)
    organization_ids: list[Annotated[str, Field(max_length=100)]] = Field([], max_length=1000)
    invoice_number: Annotated[str, Field(max_length=100)] | None = None
    charge_types: list[Annotated[str, Field(max_length=60)]] = Field([], max_length=60)
    agreement_id: ConnectWiseId | None = None
    subscription_id: Annotated[str, Field(max_length=100)] | None = None
    offer_id: Annotated[str, Field(max_length=100)] | None = None
    text: Annotated[str, Field(max_length=200)] | None = Field(
        None, description="stands somewhere in customer, company, invoice, subscription, offer or description"
    )
    user_updated: bool | None = None
    min_total: Decimal | None = Field(None, max_digits=18)
    max_total: Decimal | None = Field(None, max_digits=18)
    currencies: list[Annotated[str, Field(max_length=10)]] = Field([], max_length=50)
    line_ids: list[LineId] = Field([], max_length=50_000)


class HeldReason(BaseModel):
    """One of the reasons that hold a line. cure_link: page of this UI where it is cured, with its filter."""

    code: str
    title: str
    detail: str
    cure: str
    cure_link: str | None
    held_since: datetime
    bound_key: str | None = None
    bound_figure: Decimal | None = None


class Typed(BaseModel):
    """What a person typed for the line, and when."""

    version: int
    decided_by: str
    decided_at: datetime
    fields: list[EditableField]
    is_excluded: bool
    reason: str | None


class Line(BaseModel):
    """A line of the grid: source values beside what ConnectWise will get (or has got).

    version: of the typed values, 0 when there are none; an edit carries it.
    lock: why the line cannot be edited now (delivered, being delivered, in an approved plan), or null.
    """

    line_id: int
    revision: int
    billing_period: BillingPeriod
    organization_id: str
    organization_name: str
    invoice_number: str | None
    invoice_date: date
    invoice_status: str
    subscription_id: str | None
    subscription_name: str | None
    offer_id: str | None
    offer_name: str | None
    charge_type: str | None
    charge_type_name: str | None
    charge_start_date: date | None
    charge_end_date: date | None
    billing_frequency: str | None
    quantity: Decimal | None
    unit_price: Decimal | None
    total_price: Decimal | None
    currency: str | None
    outcome: Outcome
    excluded_by: str | None
    company_id: int | None
    company_name: str | None
    product_id: int | None
    product: str | None
    agreement_id: int | None
    agreement_name: str | None
    agreement_candidates: list[int]
    effective_date: date | None
    cancelled_date: date | None
    cycle_start: date | None
    cycle_end: date | None
    sent_quantity: Decimal | None
    sent_unit_price: Decimal | None
    sent_amount: Decimal | None
    invoice_description: str | None
    connectwise_addition_id: int | None
    value_sources: dict[str, ValueSource]
    rules_version: int | None
    held_reasons: list[HeldReason]
    held_since: datetime | None
    typed: Typed | None
    version: int
    lock: str | None


class LinePage(BaseModel):
    """A page of lines. total: how many lines the filter finds."""

    total: int
    offset: int
    lines: list[Line]


class LineTotals(BaseModel):
    """What the whole filter finds, in money; and the filter's choices with their counts."""

    outcomes: list[OutcomeMoney]
    reasons: list[ReasonMoney]
    charge_types: list[str]
    currencies: list[str]


class ReasonMoney(Money):
    """A held reason among the lines found. A line with two reasons counts under each."""

    code: str
    title: str


class LineChange(Given):
    """New values for one line. Only fields that are given change; null takes the typed value back (system value).

    version: of the line as the person saw it. is_excluded needs a reason.
    """

    version: int = Field(ge=0)
    agreement_id: ConnectWiseId | None = None
    product_id: ConnectWiseId | None = None
    effective_date: date | None = None
    cancelled_date: date | None = None
    quantity: Decimal | None = Field(None, max_digits=28, decimal_places=12)
    unit_price: Decimal | None = Field(None, max_digits=28, decimal_places=12)
    invoice_description: Annotated[str, Field(max_length=5900)] | None = None
    is_excluded: bool | None = None
    reason: Note | None = None


class LineChanged(BaseModel):
    """The line after the change was decided, and what that did to other lines of the customer."""

    line: Line
    released: Released


class BulkValues(Given):
    """What a bulk change does. action set: the fields that are given; null takes typed values back.

    reset: all typed values are taken back. apply_rules: the charge type's rules of today. Days of a date field may be
    relative: a date, or a rule name as in Settings, Configuration (first_day_of_charge_month ...).
    """

    action: Literal["set", "reset", "exclude", "include", "apply_rules"]
    agreement_id: ConnectWiseId | None = None
    product_id: ConnectWiseId | None = None
    effective_date: date | Annotated[str, Field(max_length=40)] | None = None
    cancelled_date: date | Annotated[str, Field(max_length=40)] | None = None
    quantity: Decimal | None = Field(None, max_digits=28, decimal_places=12)
    unit_price: Decimal | None = Field(None, max_digits=28, decimal_places=12)
    invoice_description: Annotated[str, Field(max_length=5900)] | None = None
    reason: Note | None = None


class BulkRequest(Given):
    """Which lines (the filter, or the filter's line_ids), and what is to change."""

    filter: LineFilter
    values: BulkValues


class BulkRefusal(BaseModel):
    """Why some of the chosen lines cannot change."""

    why: str
    lines: int


class BulkPreview(BaseModel):
    """What a bulk change would do. The selection is frozen under bulk_id: lines that come later are not in it.

    lines: to be changed; money: their totals; customers: how many; sample: some of them, as they are now.
    """

    bulk_id: int
    chosen: int
    lines: int
    unchanged: int
    refused: list[BulkRefusal]
    customers: int
    money: list[Money]
    sample: list[Line]
    expires_at: datetime


class BulkResult(BaseModel):
    """What a bulk change did. state running: it goes on in the background; ask again.

    conflicts: lines that somebody else changed after the preview; they stay as they are.
    """

    bulk_id: int
    state: Literal["previewed", "running", "done", "failed"]
    changed: int
    unchanged: int
    conflicts: int
    refused: int
    released: Released | None
    message: str | None


BulkStatus = Literal["to change", "changed", "unchanged", "conflict", "refused"]


class BulkLine(BaseModel):
    """What became of one line of a bulk change."""

    line_id: int
    organization_name: str
    invoice_number: str | None
    subscription_name: str | None
    status: BulkStatus
    detail: str | None


class BulkLinePage(BaseModel):
    """Lines of a bulk change."""

    total: int
    lines: list[BulkLine]


class Choice(BaseModel):
    """Something that a person may pick. unusable: why it cannot be picked."""

    id: int
    name: str
    detail: str
    unusable: str | None = None
    is_candidate: bool = False


class StoryEvent(BaseModel):
    """One thing that happened to the line, in order of time."""

    at: datetime
    kind: str
    text: str


class StoryEntry(BaseModel):
    """A mapping, rule, typed value or setting that took part."""

    role: str
    name: str
    value: str
    version: int | None
    person: str | None
    at: datetime | None
    is_default: bool
    is_same_now: bool
    value_now: str | None


class StoryField(BaseModel):
    """A field as it was sent, and as ConnectWise held it when it was last read back."""

    name: str
    sent: str | None
    held: str | None


class Story(BaseModel):
    """Why the line is as it is: the whole story, in words for a person in a dispute."""

    line: Line
    decision: str
    entries: list[StoryEntry]
    events: list[StoryEvent]
    connectwise: list[StoryField]
    proof: str | None
    changed_since: list[str]


# -- what requests share -----------------------------------------------------------------------------------------------


def given_filter(
    filter: Annotated[  # noqa: A002 -- the name of the query parameter
        str, Query(max_length=100_000, description="a LineFilter as JSON; without it: all lines")
    ] = "{}",
) -> LineFilter:
    """The filter of a GET. 422 when it is none."""
    try:
        return LineFilter.model_validate_json(filter)
    except ValidationError as error:
        raise HTTPException(422, f"The filter cannot be read: {error.errors()[0]['msg']}") from None


GivenFilter = Annotated[LineFilter, Depends(given_filter)]
Sort = Annotated[
    str,
    Query(
        pattern=rf"^-?({'|'.join(get_args(SortColumn))})$", description="a column, or -column for the other way round"
    ),
]
Columns = Annotated[str | None, Query(max_length=2000, description="names of columns, separated by commas")]
BulkId = Annotated[int, Path(ge=1, le=2**63 - 1)]
RunId = Annotated[int, Path(ge=1, le=2**63 - 1)]
Offset = Annotated[int, Query(ge=0, le=10_000_000)]
Limit = Annotated[int, Query(ge=1, le=1000)]
Search = Annotated[str, Query(max_length=200)]


# -- the grid ----------------------------------------------------------------------------------------------------------


@router.get("/lines")
def list_lines(
    database: Database, chosen: GivenFilter, sort: Sort = "line_id", offset: Offset = 0, limit: Limit = 100
) -> LinePage:
    """A page of the lines that the filter finds."""
    raise NotImplementedError


@router.get("/lines/totals")
def line_totals(database: Database, chosen: GivenFilter) -> LineTotals:
    """The money of all lines that the filter finds."""
    raise NotImplementedError


@router.get("/lines/export.csv")
def export_csv(
    database: Database, chosen: GivenFilter, sort: Sort = "line_id", columns: Columns = None
) -> StreamingResponse:
    """The lines that the filter finds, as CSV (UTF-8). columns: names separated by commas; without it: all."""
    raise NotImplementedError


@router.get("/lines/export.xlsx")
def export_xlsx(
    database: Database, chosen: GivenFilter, sort: Sort = "line_id", columns: Columns = None
) -> StreamingResponse:
    """The lines that the filter finds, as an Excel workbook."""
    raise NotImplementedError


@router.get("/lines/{line_id}")
def get_line(database: Database, line_id: LineId) -> Line:
    """One line."""
    raise NotImplementedError


@router.patch("/lines/{line_id}")
def change_line(database: Database, editor: Editor, line_id: LineId, change: LineChange) -> LineChanged:
    """Type values for a line; it is decided again at once. 409: somebody else was quicker; 423: the line is locked."""
    raise NotImplementedError


@router.get("/lines/{line_id}/agreements")
def agreements_of_line(database: Database, line_id: LineId, q: Search = "") -> list[Choice]:
    """Agreements of the line's company, those first that fit."""
    raise NotImplementedError


@router.get("/lines/{line_id}/products")
def products_of_line(database: Database, line_id: LineId, q: Search = "") -> list[Choice]:
    """Products that the line may become."""
    raise NotImplementedError


@router.get("/lines/{line_id}/why")
def why(database: Database, line_id: LineId) -> Story:
    """The whole story of a line."""
    raise NotImplementedError


# -- bulk changes ------------------------------------------------------------------------------------------------------


@router.post("/bulk/preview")
def preview_bulk(database: Database, editor: Editor, request: BulkRequest) -> BulkPreview:
    """What a bulk change would do; its selection is frozen for an hour."""
    raise NotImplementedError


@router.post("/bulk/{bulk_id}/apply")
def apply_bulk(database: Database, editor: Editor, bulk_id: BulkId) -> BulkResult:
    """Carry out a previewed bulk change, at most once."""
    raise NotImplementedError


@router.get("/bulk/{bulk_id}")
def get_bulk(database: Database, bulk_id: BulkId) -> BulkResult:
    """What became of a bulk change."""
    raise NotImplementedError


@router.get("/bulk/{bulk_id}/lines")
def list_bulk_lines(
    database: Database, bulk_id: BulkId, status: BulkStatus | None = None, offset: Offset = 0, limit: Limit = 100
) -> BulkLinePage:
    """What became of each line of a bulk change."""
    raise NotImplementedError


@router.get("/decisions/{run_id}")
def get_decision(database: Database, run_id: RunId) -> Released:
    """How far deciding again in the background has come."""
    raise NotImplementedError
