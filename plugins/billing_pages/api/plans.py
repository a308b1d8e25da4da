"""Plan: what the next sync will do, per customer with money, before → after; approve, reject; result and proof."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from billing_pages.api.common import BillingPeriod, ConnectWiseId, Given, Money, Note
from billing_pages.api.dashboard import Before, Limit, Offset, Run
from billing_pages.database import Database
from billing_pages.security import Approver
from billing_sync import plan_review
from billing_sync.db import Connection
from billing_sync.errors import StaleEditError
from billing_sync.export import csv_chunks, xlsx_chunks
from billing_sync.plan import approve_plan, reject_plan

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
    rejected_by: str | None
    rejected_at: datetime | None
    rejected_because: str | None
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


class PlanBound(BaseModel):
    """A bound that parks the plan. bound_key and figure: what api/parked/allow takes."""

    bound_key: str
    title: str
    figure: Decimal
    detail: str


class PlanDetail(BaseModel):
    """A plan as a person approves it. fingerprint: of all its items; the approval carries it.

    stale_items: items whose lines were edited or decided otherwise since; they will not be delivered by this plan.
    kept: Additions of these customers that already stand as they should; conflicts: those that somebody changed in
    ConnectWise. held: of the lines of the plan's run, as they stand now. counts: items move from pending to done while
    the plan is delivered.
    """

    summary: PlanSummary
    fingerprint: str
    counts: list[PlanCount]
    customers: list[PlanCustomer]
    bounds: list[PlanBound]
    stale_items: int
    kept: int
    held: list[Money]
    conflicts: int
    run: Run


class PlanItem(BaseModel):
    """One thing that the plan does, before and after. plan_item_id is null for an agreement to create: its company_id
    tells it apart (ApproveRequest.leave_out_agreements). refusal: by whom and why it is refused for good.
    """

    plan_item_id: int | None
    delivery_key: str
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
    refusal: str | None


class PlanItemPage(BaseModel):
    """A page of a plan's items."""

    total: int
    offset: int
    items: list[PlanItem]


class ApproveRequest(Given):
    """Approve the plan as it was shown. leave_out: items that shall not be delivered by it; the next run plans them.

    leave_out_agreements: companies whose agreement shall not be created by it.
    """

    fingerprint: str = Field(max_length=100)
    leave_out: list[Annotated[int, Field(ge=1, le=2**63 - 1)]] = Field([], max_length=50_000)
    leave_out_agreements: list[ConnectWiseId] = Field([], max_length=5000)


class SelectedCustomer(BaseModel):
    """A customer's part of what would be approved, in one currency."""

    company_id: int
    company_name: str
    items: int
    currency: str
    amount: Decimal


class PlanSelection(BaseModel):
    """What would be approved, and what would be left out; money per currency."""

    items: int
    creates: int
    updates: int
    agreements: int
    money: list[Money]
    left_out: list[Money]
    customers: list[SelectedCustomer]


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


class ProofTotal(BaseModel):
    """All invoices of a proof in one currency. different: how many of them have a difference."""

    currency: str
    invoices: int
    different: int
    source_total: Decimal
    delivered: Decimal
    held: Decimal
    excluded: Decimal
    awaiting_approval: Decimal
    in_doubt: Decimal
    difference: Decimal


class ProofPage(BaseModel):
    """Proof of a run, per invoice. total: how many invoices the filter finds; totals: over all of them."""

    run_id: int
    proven_at: datetime | None
    total: int
    offset: int
    totals: list[ProofTotal]
    invoices: list[InvoiceProof]


class RunOfDag(BaseModel):
    """What stands on the tab of a DAG run: the run (null: it has made none), and its plan."""

    run: Run | None
    plan: PlanDetail | None


XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


def _file(pieces: Iterator[bytes], media_type: str, name: str) -> StreamingResponse:
    return StreamingResponse(
        pieces, media_type=media_type, headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )


PlanId = Annotated[int, Path(ge=1, le=2**63 - 1)]
ItemSort = Literal[
    "plan_item_id", "-plan_item_id", "company_name", "-company_name", "agreement_name", "-agreement_name",
    "product", "-product", "action", "-action", "state", "-state", "amount", "-amount", "effective_date",
    "-effective_date",
]  # fmt: skip


@router.get("/plans")
def plans(database: Database, limit: Limit = 20, before: Before = None) -> list[PlanSummary]:
    """Plans, newest first. before: older ones than this plan_id."""
    return [PlanSummary.model_validate(row) for row in plan_review.plans(database, before=before, limit=limit)]


@router.get("/plans/{plan_id}")
def plan(plan_id: PlanId, database: Database) -> PlanDetail:
    """A plan as a person approves it."""
    return PlanDetail.model_validate(plan_review.plan_detail(database, plan_id))


@router.get("/plans/{plan_id}/items")
def plan_items(
    plan_id: PlanId,
    database: Database,
    q: Annotated[str, Query(max_length=200)] = "",
    company_id: ConnectWiseId | None = None,
    action: PlanAction | None = None,
    state: ItemState | None = None,
    sort: ItemSort = "company_name",
    limit: Limit = 50,
    offset: Offset = 0,
) -> PlanItemPage:
    """What the plan does, thing by thing."""
    total, items = plan_review.plan_items(
        database, plan_id, text=q.strip(), company_id=company_id, action=action, state=state, sort=sort, limit=limit,
        offset=offset,
    )  # fmt: skip
    return PlanItemPage(total=total, offset=offset, items=[PlanItem.model_validate(item) for item in items])


@contextmanager
def _as_it_stands(plan_id: int, database: Connection) -> Iterator[None]:
    """Who is told that the plan changed meanwhile (409) is shown how it stands now."""
    try:
        yield
    except StaleEditError as error:
        raise StaleEditError(str(error), current=plan(plan_id, database)) from None


@router.post("/plans/{plan_id}/selection")
def selection(plan_id: PlanId, approval: ApproveRequest, _: Approver, database: Database) -> PlanSelection:
    """What an approval would comprise, for its confirmation; changes nothing. 409 as for the approval itself."""
    with _as_it_stands(plan_id, database):
        chosen = plan_review.selection(
            database, plan_id, fingerprint=approval.fingerprint, leave_out=approval.leave_out,
            leave_out_agreements=approval.leave_out_agreements,
        )  # fmt: skip
    return PlanSelection.model_validate(chosen)


@router.post("/plans/{plan_id}/approve")
def approve(plan_id: PlanId, approval: ApproveRequest, person: Approver, database: Database) -> PlanDetail:
    """Approve the plan, or a part of it; then trigger the DAG apply_plan."""
    with _as_it_stands(plan_id, database):
        approve_plan(
            database, plan_id, person.name, fingerprint=approval.fingerprint, leave_out=approval.leave_out,
            leave_out_agreements=approval.leave_out_agreements,
        )  # fmt: skip
    return plan(plan_id, database)


@router.post("/plans/{plan_id}/reject")
def reject(plan_id: PlanId, rejection: RejectRequest, person: Approver, database: Database) -> PlanDetail:
    """Reject the plan; the next run makes another one."""
    with _as_it_stands(plan_id, database):
        reject_plan(database, plan_id, person.name, rejection.reason)
    return plan(plan_id, database)


@router.get("/plans/{plan_id}/proof")
def proof(
    *,
    plan_id: PlanId,
    database: Database,
    only_different: bool = False,
    limit: Limit = 50,
    offset: Offset = 0,
) -> ProofPage:
    """The proof of the plan's run, invoice by invoice."""
    found = plan_review.plan_proof(database, plan_id, only_different=only_different, limit=limit, offset=offset)
    return ProofPage.model_validate({**found, "offset": offset})


@router.get("/plans/{plan_id}/export.csv", response_class=StreamingResponse)
def export_csv(plan_id: PlanId, database: Database) -> StreamingResponse:
    """All items of the plan as CSV."""
    rows = plan_review.exported_items(database, plan_id)
    return _file(csv_chunks([*plan_review.EXPORTED], rows), "text/csv; charset=utf-8", f"plan-{plan_id}.csv")


@router.get("/plans/{plan_id}/export.xlsx", response_class=StreamingResponse)
def export_xlsx(plan_id: PlanId, database: Database) -> StreamingResponse:
    """All items of the plan as XLSX."""
    rows = plan_review.exported_items(database, plan_id)
    return _file(xlsx_chunks(f"Plan {plan_id}", [*plan_review.EXPORTED], rows), XLSX, f"plan-{plan_id}.xlsx")


@router.get("/dag-run")
def dag_run(
    database: Database,
    dag_id: Annotated[str, Query(min_length=1, max_length=250)],
    dag_run_id: Annotated[str, Query(min_length=1, max_length=250)],
    plan_id: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
) -> RunOfDag:
    """The run of a DAG run, and its plan. plan_id: of a DAG run of apply_plan, the plan that it applies."""
    return RunOfDag.model_validate(plan_review.run_of_dag(database, dag_id, dag_run_id, plan_id))
