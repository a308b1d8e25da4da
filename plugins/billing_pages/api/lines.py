"""Mapping › Invoices, the review grid: lines with what ConnectWise will get, edits, bulk changes, export, and why."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

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
    outcomes: list[Outcome] = []
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
    relative: a date, or a rule name as in Settings › Configuration (first_day_of_charge_month ...).
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


class BulkLine(BaseModel):
    """What became of one line of a bulk change."""

    line_id: int
    organization_name: str
    invoice_number: str | None
    subscription_name: str | None
    status: Literal["to change", "changed", "unchanged", "conflict", "refused"]
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
