"""Dashboard: set-up state, the money of a period, held money with its age, runs, the stop button."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from billing_pages.api.common import BillingPeriod, ConnectWiseId, Given, Money, Note, OutcomeMoney

router = APIRouter()


class Me(BaseModel):
    """Who is looking, and what they may do."""

    name: str
    permissions: list[Literal["read", "edit", "approve", "admin"]]
    environment: str | None


class SetupStep(BaseModel):
    """One step of the set-up. state todo: do it next; warning: works, but look at it. link: page of this UI."""

    key: str
    title: str
    state: Literal["done", "todo", "warning"]
    detail: str
    link: str | None


class Setup(BaseModel):
    """The checklist; is_ready: nothing is left to do before the first sync."""

    is_ready: bool
    steps: list[SetupStep]
    automated_daily_sync: bool
    automated_daily_sync_version: str


class Period(BaseModel):
    """A loaded billing period and its money by outcome."""

    billing_period: BillingPeriod
    invoices: int
    outcomes: list[OutcomeMoney]


class CustomerMoney(BaseModel):
    """A customer's money in a period and currency, by outcome."""

    organization_id: str
    organization_name: str
    company_id: int | None
    currency: str
    total: Decimal
    delivered: Decimal
    held: Decimal
    excluded: Decimal
    awaiting_approval: Decimal
    in_doubt: Decimal


class HeldCause(BaseModel):
    """A reason with what it holds. A line with several reasons counts under each."""

    code: str
    title: str
    cure: str
    cure_link: str | None
    money: list[Money]
    oldest: datetime
    days: int


class HeldAge(BaseModel):
    """Held money by how long it is held: 0-7, 8-30, 31-90, over 90 days; each line once."""

    bucket: Literal["0-7", "8-30", "31-90", "90+"]
    money: list[Money]


class Held(BaseModel):
    """Money at risk."""

    total: list[Money]
    causes: list[HeldCause]
    ages: list[HeldAge]


class Run(BaseModel):
    """A run of the pipeline. progress: share of its tasks that ended, 0 to 100, while it runs (null: not known)."""

    run_id: int
    dag_id: str
    dag_run_id: str
    kind: str
    billing_periods: list[BillingPeriod]
    is_dry_run: bool
    state: str
    started_at: datetime
    ended_at: datetime | None
    proven_at: datetime | None
    plan_id: int | None
    plan_state: str | None
    approved_by: str | None
    planned_additions: int
    planned_amount: list[Money]
    parked_because: str | None
    writes: int
    errors: int
    warnings: int


class Pause(BaseModel):
    """Delivery is paused: to one customer, or (company_id null) all of it."""

    company_id: int | None
    company_name: str | None
    reason: str
    paused_by: str
    paused_at: datetime


class PauseRequest(Given):
    """Stop delivery to a customer, or (company_id null) all of it."""

    company_id: ConnectWiseId | None = None
    reason: Note = Field(min_length=1)


class EndPauseRequest(Given):
    """Go on with delivery."""

    company_id: ConnectWiseId | None = None


class Parked(BaseModel):
    """What a bound parks; letting it pass names the figure that the person saw."""

    bound_key: str
    reason: str
    figure: Decimal
    detail: str
    lines: int | None
    money_at_risk: Decimal | None
    currency: str | None
    plan_id: int | None


class AllowRequest(Given):
    """Let what a bound parks pass, up to the figure that was shown."""

    bound_key: str = Field(max_length=300)
    up_to: str = Field(max_length=40)
    note: Note | None = None


class Subscription(BaseModel):
    """What a customer runs, and what is amiss with it."""

    subscription_id: str
    subscription_name: str | None
    organization_id: str | None
    organization_name: str | None
    company_name: str | None
    agreement_id: int | None
    agreement_name: str | None
    addition_ids: list[int]
    quantity: Decimal | None
    unit_price: Decimal | None
    currency: str | None
    state: str
    since: date | None
    paid_until: date | None
    amiss: str | None
