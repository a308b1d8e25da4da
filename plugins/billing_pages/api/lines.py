"""The review grid (Mapping, Invoices): lines with what ConnectWise will get, edits, bulk changes, export, and why."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from itertools import chain
from typing import Annotated, Literal, get_args

from fastapi import APIRouter, Depends, HTTPException, Path, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from billing_pages.api.common import (
    BillingPeriod,
    ConnectWiseId,
    ExactDecimal,
    Given,
    LineId,
    Money,
    Note,
    Outcome,
    OutcomeMoney,
    Released,
)
from billing_pages.api.settle import AgreementRefusal, UnsettledAddition
from billing_pages.database import Connect, Database
from billing_pages.security import Editor
from billing_sync import bulk, create_agreements, edits, review, settle, why
from billing_sync.db import Connection
from billing_sync.decide import review_state
from billing_sync.errors import StaleEditError
from billing_sync.export import Cell, csv_chunks, xlsx_chunks
from billing_sync.export import Money as Amount
from billing_sync.run import parse_billing_period

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
    bound_key: Annotated[str, Field(max_length=300)] | None = Field(None, description="parked by this bound")
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
    min_total: ExactDecimal | None = Field(None, max_digits=18)
    max_total: ExactDecimal | None = Field(None, max_digits=18)
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
    quantity: ExactDecimal | None = Field(None, max_digits=28, decimal_places=12)
    unit_price: ExactDecimal | None = Field(None, max_digits=28, decimal_places=12)
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
    quantity: ExactDecimal | None = Field(None, max_digits=28, decimal_places=12)
    unit_price: ExactDecimal | None = Field(None, max_digits=28, decimal_places=12)
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

    model_config = ConfigDict(from_attributes=True)

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

    model_config = ConfigDict(from_attributes=True)

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

    model_config = ConfigDict(from_attributes=True)

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
    """Why the line is as it is: the whole story, in words for a person in a dispute.

    unsettled: the Additions that it waits for, or that carry it, and that need a person. agreement: a plan would create
    one for its company, or would if that was not refused.
    """

    line: Line
    decision: str
    entries: list[StoryEntry]
    events: list[StoryEvent]
    connectwise: list[StoryField]
    proof: str | None
    changed_since: list[str]
    unsettled: list[UnsettledAddition]
    agreement: AgreementRefusal | None


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
    page = review.read_page(database, _wanted(chosen), sort=sort, offset=offset, limit=limit)
    return LinePage(total=page.total, offset=offset, lines=_lines(page.rows))


@router.get("/lines/totals")
def line_totals(database: Database, chosen: GivenFilter) -> LineTotals:
    """The money of all lines that the filter finds."""
    return LineTotals.model_validate(review.read_totals(database, _wanted(chosen)))


@router.get("/lines/export.csv", response_class=StreamingResponse)
def export_csv(
    database: Database, chosen: GivenFilter, sort: Sort = "line_id", columns: Columns = None
) -> StreamingResponse:
    """The lines that the filter finds, as CSV (UTF-8). columns: names separated by commas; without it: all."""
    names = _columns(columns)
    pieces = csv_chunks(names, _cells(database, chosen, sort, names))
    return _download(pieces, chosen, "csv", "text/csv; charset=utf-8")


@router.get("/lines/export.xlsx", response_class=StreamingResponse)
def export_xlsx(
    database: Database, chosen: GivenFilter, sort: Sort = "line_id", columns: Columns = None
) -> StreamingResponse:
    """The lines that the filter finds, as an Excel workbook."""
    names = _columns(columns)
    pieces = xlsx_chunks("Lines", names, _cells(database, chosen, sort, names))
    return _download(pieces, chosen, "xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet")


@router.get("/lines/{line_id}")
def get_line(database: Database, line_id: LineId) -> Line:
    """One line."""
    return Line.model_validate(review.read_line(database, line_id))


@router.patch("/lines/{line_id}")
def change_line(
    database: Database, connect: Connect, _editor: Editor, line_id: LineId, change: LineChange
) -> LineChanged:
    """Type values for a line; it is decided again at once. 409: somebody else was quicker; 423: the line is locked."""
    given = change.model_dump(exclude_unset=True, exclude={"version"})
    try:
        changed = edits.change_line(database, line_id, version=change.version, changes=given, connect=connect)
    except StaleEditError as error:
        error.current = Line.model_validate(error.current)
        raise
    return LineChanged(
        line=Line.model_validate(changed.line),
        released=Released.model_validate(changed.released),
    )


@router.get("/lines/{line_id}/agreements")
def agreements_of_line(database: Database, line_id: LineId, q: Search = "") -> list[Choice]:
    """Agreements of the line's company, those first that fit."""
    return [Choice.model_validate(one) for one in edits.agreements_for(database, line_id, q)]


@router.get("/lines/{line_id}/products")
def products_of_line(database: Database, line_id: LineId, q: Search = "") -> list[Choice]:
    """Products that the line may become."""
    return [Choice.model_validate(one) for one in edits.products_for(database, line_id, q)]


@router.get("/lines/{line_id}/why")
def explain_line(database: Database, line_id: LineId) -> Story:
    """The whole story of a line."""
    line = review.read_line(database, line_id)
    return _story(database, line, why.why_line(database, line_id))


# -- bulk changes ------------------------------------------------------------------------------------------------------


@router.post("/bulk/preview")
def preview_bulk(database: Database, _editor: Editor, request: BulkRequest) -> BulkPreview:
    """What a bulk change would do; its selection is frozen for an hour."""
    given = request.values.model_dump(exclude_unset=True, exclude={"action", "reason"})
    preview = bulk.preview_bulk(
        database, _wanted(request.filter), action=request.values.action, values=given, reason=request.values.reason
    )
    return BulkPreview(
        bulk_id=preview.bulk_id,
        chosen=preview.chosen,
        lines=preview.lines,
        unchanged=preview.unchanged,
        refused=[BulkRefusal(why=why, lines=lines) for why, lines in preview.refused],
        customers=preview.customers,
        money=[Money.model_validate(one) for one in preview.money],
        sample=_lines(preview.sample),
        expires_at=preview.expires_at,
    )


@router.post("/bulk/{bulk_id}/apply")
def apply_bulk(database: Database, connect: Connect, editor: Editor, bulk_id: BulkId) -> BulkResult:
    """Carry out a previewed bulk change, at most once."""
    return BulkResult.model_validate(bulk.apply_bulk(database, bulk_id, person=editor.name, connect=connect))


@router.get("/bulk/{bulk_id}")
def get_bulk(database: Database, bulk_id: BulkId) -> BulkResult:
    """What became of a bulk change."""
    return BulkResult.model_validate(bulk.read_bulk(database, bulk_id))


@router.get("/bulk/{bulk_id}/lines")
def list_bulk_lines(
    database: Database, bulk_id: BulkId, status: BulkStatus | None = None, offset: Offset = 0, limit: Limit = 100
) -> BulkLinePage:
    """What became of each line of a bulk change."""
    total, lines = bulk.read_bulk_lines(database, bulk_id, status=status, offset=offset, limit=limit)
    return BulkLinePage(total=total, lines=[BulkLine.model_validate(one) for one in lines])


@router.get("/decisions/{run_id}")
def get_decision(database: Database, run_id: RunId) -> Released:
    """How far deciding again in the background has come."""
    return Released.model_validate(review_state(database, run_id))


# -- from one form into the other --------------------------------------------------------------------------------------


def _wanted(chosen: LineFilter) -> review.LineFilter:
    return review.LineFilter(
        **{**chosen.model_dump(exclude={"periods"}), "periods": [parse_billing_period(one) for one in chosen.periods]}
    )


def _lines(rows: list[review.Row]) -> list[Line]:
    return [Line.model_validate(row) for row in rows]


EXPORT_COLUMNS = (
    "line_id", "billing_period", "organization_id", "organization_name", "company_id", "company_name",
    "invoice_number", "invoice_date", "invoice_status", "subscription_id", "subscription_name", "offer_id",
    "offer_name", "charge_type", "charge_type_name", "charge_start_date", "charge_end_date", "billing_frequency",
    "quantity", "unit_price", "total_price", "currency", "outcome", "held_reasons", "held_details", "held_since",
    "excluded_by", "agreement_id", "agreement_name", "product_id", "product", "effective_date", "cancelled_date",
    "sent_quantity", "sent_unit_price", "sent_amount", "invoice_description", "connectwise_addition_id",
    "user_updated", "decided_by", "decided_at",
)  # fmt: skip
AMOUNTS = ("total_price", "sent_amount")
MOST_PERIODS_NAMED = 3  # in the name of a file


def _columns(given: str | None) -> list[str]:
    """The columns to export, in the order that was asked for. 422 for one that is not known."""
    names = [name.strip() for name in given.split(",")] if given else list(EXPORT_COLUMNS)
    unknown = sorted(set(names) - set(EXPORT_COLUMNS))
    if unknown:
        raise HTTPException(422, f"There is no column {', '.join(unknown)}. There are: {', '.join(EXPORT_COLUMNS)}.")
    return names


def _cells(database: Connection, chosen: LineFilter, sort: str, names: list[str]) -> Iterator[list[Cell]]:
    for row in review.read_all(database, _wanted(chosen), sort=sort):
        yield [_cell(row, name) for name in names]


def _cell(row: review.Row, name: str) -> Cell:
    match name:
        case "held_reasons":
            return "; ".join(reason["title"] for reason in row["held_reasons"])
        case "held_details":
            return "; ".join(reason["detail"] for reason in row["held_reasons"])
        case "user_updated":
            return ", ".join(row["typed"]["fields"]) if row["typed"] else ""
        case "decided_by" | "decided_at":
            typed: Cell = row["typed"][name] if row["typed"] else None
            return typed
    value: Cell = row[name]
    return Amount(value) if name in AMOUNTS and isinstance(value, Decimal) else value


def _download(pieces: Iterator[bytes], chosen: LineFilter, ending: str, media_type: str) -> StreamingResponse:
    name = "-".join(["lines", *(chosen.periods if len(chosen.periods) <= MOST_PERIODS_NAMED else ["several"])])
    # The first piece is made before the answer begins: what goes wrong until then is still told as an error.
    first = next(pieces, b"")
    return StreamingResponse(
        chain([first], pieces),
        media_type=media_type,
        headers={"Content-Disposition": f'attachment; filename="{name}.{ending}"'},
    )


def _story(database: Connection, line: review.Row, story: why.LineStory) -> Story:
    decision = why.decision_words(story) if story.decision else "Not decided yet."
    if story.outcome == "excluded" and story.decision:
        decision = f"excluded by {story.decision['excluded_by']}"
    return Story(
        line=Line.model_validate(line),
        decision=decision,
        entries=[_entry(entry) for entry in story.entries],
        events=[StoryEvent(at=event.at, kind=event.who, text=event.what) for event in why.line_events(story)],
        connectwise=_connectwise(story),
        proof=why.proof_words(story.proof) if story.proof else None,
        changed_since=[
            f"{why.ROLES.get(entry.role, entry.role)} {entry.row_key}: "
            + (why.describe(entry.value_now, entry.row_key) if entry.value_now else "taken away")
            for entry in story.changed_since
        ],
        unsettled=[
            UnsettledAddition.model_validate(one)
            for one in settle.unsettled_additions(database, line_id=line["line_id"])[1]
        ],
        agreement=_new_agreement(database, line),
    )


def _new_agreement(database: Connection, line: review.Row) -> AgreementRefusal | None:
    codes = {reason["code"] for reason in line["held_reasons"]}
    if line["company_id"] is None or not codes & {"no_agreement", "agreement_to_create"}:
        return None
    refusal = create_agreements.refusal_of(database, line["company_id"])
    if refusal is None and "agreement_to_create" not in codes:
        return None
    return AgreementRefusal(company_id=line["company_id"], refusal=refusal)


def _entry(entry: why.Entry) -> StoryEntry:
    return StoryEntry(
        role=why.ROLES.get(entry.role, entry.role),
        name=entry.row_key,
        value=why.describe(entry.value, entry.row_key),
        version=entry.version,
        person=entry.person,
        at=entry.at,
        is_default=entry.is_default,
        is_same_now=entry.is_same_now,
        value_now=why.describe(entry.value_now, entry.row_key) if entry.value_now else None,
    )


def _connectwise(story: why.LineStory) -> list[StoryField]:
    """Field by field what was sent and what ConnectWise held, when it was last read back as equal."""
    ledger = story.delivery.addition if story.delivery and story.is_carried else None
    if ledger is None:
        return []
    sent, held = ledger["payload"], ledger["applied_payload"] or {}
    return [
        StoryField(name=name, sent=why.shown(sent.get(name)), held=why.shown(held.get(name)))
        for name in dict.fromkeys((*sent, *held))
    ]
