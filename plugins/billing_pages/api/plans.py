"""Plan: what the next sync will do, per customer with money, before → after; approve, reject; result and proof."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from billing_pages.api.common import BillingPeriod, Given, Money, Note
from billing_pages.api.dashboard import Run

router = APIRouter()

PlanState = Literal["proposed", "approved", "applied", "rejected", "superseded"]
PlanAction = Literal["create", "update", "adoption", "create agreement"]
ItemState = Literal["pending", "done", "refused", "conflict", "skipped"]


class PlanSummary(BaseModel):
    """A plan in a list."""

    plan_id: int
    run_id: int
    dag_id: str
    dag_run_id: str
    kind: str
    billing_periods: list[BillingPeriod]
    state: PlanState
    is_dry_run: bool
    created_at: datetime
    approved_by: str | None
    approved_at: datetime | None
    items: int
    money: list[Money]
    parked_because: str | None


class PlanCount(BaseModel):
    """Items of a plan by action and state."""

    action: PlanAction
    state: ItemState
    items: int
    money: list[Money]


class PlanCustomer(BaseModel):
    """A customer's part of a plan in one currency."""

    company_id: int
    company_name: str
    currency: str
    creates: int
    updates: int
    agreements: int
    amount: Decimal
    held_lines: int
    held_amount: Decimal


class PlanDetail(BaseModel):
    """A plan as a person approves it. fingerprint: of all its items; the approval carries it.

    stale_items: items whose lines were edited or decided otherwise since; they will not be delivered by this plan.
    kept: Additions of these customers that already stand as they should.
    """

    summary: PlanSummary
    fingerprint: str
    counts: list[PlanCount]
    customers: list[PlanCustomer]
    bounds: list[str]
    stale_items: int
    kept: int
    held: list[Money]
    conflicts: int
    run: Run


class PlanItem(BaseModel):
    """One thing that the plan does, before and after. plan_item_id is null for an agreement to create."""

    plan_item_id: int | None
    action: PlanAction
    state: ItemState
    is_stale: bool
    company_id: int
    company_name: str
    agreement_id: int | None
    agreement_name: str
    subscription_id: str | None
    product: str | None
    description: str | None
    connectwise_addition_id: int | None
    quantity_before: Decimal | None
    quantity: Decimal | None
    unit_price_before: Decimal | None
    unit_price: Decimal | None
    effective_date: date | None
    cancelled_date_before: date | None
    cancelled_date: date | None
    amount: Decimal
    currency: str
    line_ids: list[int]
    problem: str | None


class PlanItemPage(BaseModel):
    """A page of a plan's items."""

    total: int
    offset: int
    items: list[PlanItem]


class ApproveRequest(Given):
    """Approve the plan as it was shown. leave_out: items that shall not be delivered by it; the next run plans them."""

    fingerprint: str = Field(max_length=100)
    leave_out: list[Annotated[int, Field(ge=1)]] = Field([], max_length=50_000)


class RejectRequest(Given):
    """The plan shall not be delivered. The next run makes another one."""

    reason: Note = Field(min_length=1)


class InvoiceProof(BaseModel):
    """One invoice of the newest proof: source = delivered + held + excluded + awaiting approval + in doubt."""

    invoice_id: int
    invoice_number: str | None
    organization_name: str
    currency: str
    source_total: Decimal
    delivered: Decimal
    held: Decimal
    excluded: Decimal
    awaiting_approval: Decimal
    in_doubt: Decimal
    difference: Decimal


class ProofPage(BaseModel):
    """Proof of a run, per invoice. totals: per currency over all of them."""

    run_id: int
    proven_at: datetime | None
    total: int
    totals: list[InvoiceProof]
    invoices: list[InvoiceProof]


class RunOfDag(BaseModel):
    """What stands on the tab of a DAG run: the run (null: it has made none), and its plan."""

    run: Run | None
    plan: PlanDetail | None
