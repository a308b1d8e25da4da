"""Settling what needs a person: Additions that are refused or in conflict, agreements that shall not be created."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from billing_pages.api.common import ConnectWiseId, Given, Note
from billing_pages.api.dashboard import Limit, Offset
from billing_pages.database import Database
from billing_pages.security import Approver
from billing_sync import create_agreements, settle

router = APIRouter()

Way = Literal["retry", "anew", "confirm"]


class UnsettledAddition(BaseModel):
    """An Addition that needs a person. ways: what may be done about it; plan_id goes with it, so that nothing is
    settled that changed meanwhile. amount: of the lines that depend on it.
    """

    delivery_key: str
    state: Literal["refused", "conflict", "delivered"]
    plan_id: int | None
    company_name: str | None
    agreement_id: int
    agreement_name: str | None
    connectwise_addition_id: int | None
    invoice_description: str | None
    problem: str
    since: datetime
    amount: Decimal | None
    currency: str | None
    line_ids: list[int]
    ways: list[Way]


class UnsettledPage(BaseModel):
    """A page of Additions that need a person."""

    total: int
    offset: int
    additions: list[UnsettledAddition]


class SettleRequest(Given):
    """retry: it is mended in ConnectWise, the next run compares and tries again. anew: our values shall stand. confirm:
    it was seen on ConnectWise's invoice, so its lines are delivered.
    """

    delivery_key: str = Field(min_length=1, max_length=200)
    way: Way
    plan_id: Annotated[int, Field(ge=1, le=2**63 - 1)] | None


class Settled(BaseModel):
    """What was done. lines: how many count as delivered now (confirm), else 0."""

    way: Way
    lines: int


class RefuseAgreementRequest(Given):
    """No plan shall create an agreement for the company; its lines are held."""

    company_id: ConnectWiseId
    reason: Note = Field(min_length=1)


class AllowAgreementRequest(Given):
    """Take back what keeps the company from an agreement; the next run plans it again."""

    company_id: ConnectWiseId


class AgreementRefusal(BaseModel):
    """What keeps plans from creating an agreement for a company; null: nothing that a person can take back."""

    company_id: int
    refusal: str | None


@router.get("/additions/unsettled")
def unsettled(database: Database, limit: Limit = 50, offset: Offset = 0) -> UnsettledPage:
    """Additions that need a person."""
    total, rows = settle.unsettled_additions(database, limit=limit, offset=offset)
    return UnsettledPage(total=total, offset=offset, additions=[UnsettledAddition.model_validate(row) for row in rows])


@router.post("/additions/settle")
def settle_addition(request: SettleRequest, person: Approver, database: Database) -> Settled:
    """Settle an Addition. 409: it has changed since it was shown."""
    lines = 0
    if request.way == "confirm":
        lines = settle.confirm_addition(database, request.delivery_key, person.name, seen_plan_id=request.plan_id)
    else:
        settle.retry_addition(
            database, request.delivery_key, person.name, anew=request.way == "anew", seen_plan_id=request.plan_id
        )
    return Settled(way=request.way, lines=lines)


@router.post("/agreements/refuse")
def refuse_agreement(request: RefuseAgreementRequest, person: Approver, database: Database) -> AgreementRefusal:
    """Refuse that an agreement is created for a company; counts at once, for approved plans, too."""
    create_agreements.refuse_agreement(database, request.company_id, request.reason, person.name)
    return AgreementRefusal(
        company_id=request.company_id, refusal=create_agreements.refusal_of(database, request.company_id)
    )


@router.post("/agreements/allow")
def allow_agreement(request: AllowAgreementRequest, person: Approver, database: Database) -> AgreementRefusal:
    """Take a refusal back, of a person or of ConnectWise."""
    create_agreements.allow_agreement(database, request.company_id, person.name)
    return AgreementRefusal(
        company_id=request.company_id, refusal=create_agreements.refusal_of(database, request.company_id)
    )
