"""Settling what needs a person: Additions that are refused or in conflict, agreements that shall not be created."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from billing_pages.api.common import ConnectWiseId, Given, Note
from billing_pages.api.dashboard import Limit, Offset
from billing_pages.database import Database
from billing_pages.security import Approver
from billing_sync import create_agreements, settle
from billing_sync.settle import State, Way

router = APIRouter()


class UnsettledAddition(BaseModel):
    """An Addition that needs a person. ways: what may be done about it; state and plan_id go with it, so that nothing
    is settled that changed meanwhile.

    amount, line_ids: what waits for it; confirmed_amount, confirmed_line_ids: what counts as delivered once a person
    has seen it on ConnectWise's invoice. is_compared: a person's change of it is seen before anything is written.
    is_invoiced: a cycle that it bills without proof is on an invoice by now.
    """

    delivery_key: str
    state: State
    plan_id: int
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
    confirmed_amount: Decimal | None
    confirmed_line_ids: list[int]
    is_compared: bool
    is_invoiced: bool
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
    state: State
    plan_id: Annotated[int, Field(ge=1, le=2**63 - 1)]


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
    seen, lines = (request.state, request.plan_id), 0
    if request.way == "confirm":
        lines = settle.confirm_addition(database, request.delivery_key, person.name, seen=seen)
    else:
        settle.retry_addition(database, request.delivery_key, person.name, anew=request.way == "anew", seen=seen)
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
