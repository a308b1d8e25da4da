"""Dashboard: set-up state, the money of a period, held money with its age, runs, the stop button."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

import psycopg
from fastapi import APIRouter, Query
from pydantic import BaseModel, Field, computed_field

from billing_pages.api.common import BillingPeriod, ConnectWiseId, Given, Money, Note, OutcomeMoney
from billing_pages.database import Connect, Database
from billing_pages.errors import UnavailableError
from billing_pages.security import Admin, Approver
from billing_sync import bounds, dashboard
from billing_sync import pauses as pausing
from billing_sync.cures import cure_link
from billing_sync.db import Connection
from billing_sync.errors import StaleEditError
from billing_sync.run import parse_billing_period
from billing_sync.settings import change_setting, setting_states

router = APIRouter()


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


class SyncSwitch(Given):
    """Automated Daily Sync, on or off. version: automated_daily_sync_version as it was shown."""

    on: bool
    version: str = Field(max_length=100)


class Period(BaseModel):
    """A loaded billing period and its money by outcome."""

    billing_period: BillingPeriod
    invoices: int
    outcomes: list[OutcomeMoney]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def total(self) -> list[Money]:
        """All outcomes added up, per currency."""
        currencies = dict.fromkeys(sum_.currency for sum_ in self.outcomes)
        return [
            Money(
                currency=currency,
                amount=sum((each.amount for each in self.outcomes if each.currency == currency), Decimal(0)),
                lines=sum(each.lines for each in self.outcomes if each.currency == currency),
            )
            for currency in currencies
        ]


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


class CustomerMoneyPage(BaseModel):
    """A page of customers. total: how many rows (customer and currency) the period has."""

    total: int
    offset: int
    customers: list[CustomerMoney]


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
    """A run of the pipeline. Progress while it runs, and the next run, are Airflow's to tell."""

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
    """What a bound parks; letting it pass names the figure that the person saw.

    organization_name: whose lines it parks; null for a whole plan.
    """

    bound_key: str
    reason: str
    organization_name: str | None
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


class SubscriptionPage(BaseModel):
    """A page of subscriptions. total: how many the filter finds."""

    total: int
    offset: int
    subscriptions: list[Subscription]


AFTER_READY = ("first_run", "daily_sync")  # what comes once everything is ready
SWITCH = "automated_daily_sync"
BUCKETS: tuple[Literal["0-7", "8-30", "31-90", "90+"], ...] = ("0-7", "8-30", "31-90", "90+")
CONNECTIONS = {
    "billing_db": "Connection to the billing database",
    "appxite_api": "Connection to AppXite",
    "connectwise_api": "Connection to ConnectWise",
}
Limit = Annotated[int, Query(ge=1, le=1000)]
Offset = Annotated[int, Query(ge=0, le=10_000_000)]
Before = Annotated[int | None, Query(ge=1, le=2**63 - 1)]
CustomerSort = Literal[
    "organization_name", "-organization_name", "currency", "-currency", "total", "-total", "delivered", "-delivered",
    "held", "-held", "excluded", "-excluded", "awaiting_approval", "-awaiting_approval", "in_doubt", "-in_doubt",
]  # fmt: skip


def _connections() -> list[SetupStep]:
    """Whether the three connections exist and are complete. Asks no service."""
    from billing_hooks.connection_states import connection_state

    steps = []
    for connection_id, title in CONNECTIONS.items():
        state = connection_state(connection_id)
        if state.message:
            detail = state.message
        elif state.missing:
            detail = f"It lacks {', '.join(state.missing)}."
        else:
            detail = f"To {state.host}." if state.host else "It is there."
        is_done = state.exists and not state.missing and not state.message
        steps.append(
            SetupStep(
                key=connection_id,
                title=title,
                state="done" if is_done else "todo",
                detail=detail,
                link=f"settings/authentication?connection={connection_id}",
            )
        )
    return steps


def _setup(connections: list[SetupStep], database: Connection) -> Setup:
    """The whole checklist. The pages open no database whose migrations are not up to date."""
    steps = [
        *connections,
        SetupStep(key="migrations", title="Billing database", state="done", detail="Up to date.", link=None),
        *(SetupStep.model_validate(step) for step in dashboard.setup_steps(database)),
    ]
    (switch,) = setting_states(database, [SWITCH])
    return Setup(
        is_ready=all(step.state != "todo" for step in steps if step.key not in AFTER_READY),
        steps=steps,
        automated_daily_sync=switch.value == "on",
        automated_daily_sync_version=switch.version,
    )


@router.get("/setup")
def setup(connect: Connect) -> Setup:
    """What is set up, and what to do next. Asks no service."""
    steps = _connections()
    try:
        with connect() as database:
            return _setup(steps, database)
    except (UnavailableError, psycopg.OperationalError) as error:
        words = str(error) if isinstance(error, UnavailableError) else "The billing database does not answer."
        steps.append(SetupStep(key="migrations", title="Billing database", state="todo", detail=words, link=None))
        return Setup(is_ready=False, steps=steps, automated_daily_sync=False, automated_daily_sync_version="")


@router.put("/automated-daily-sync")
def switch_automated_daily_sync(switch: SyncSwitch, _: Admin, database: Database) -> Setup:
    """Turn Automated Daily Sync on or off."""
    change_setting(database, SWITCH, "on" if switch.on else "off", switch.version)
    return _setup(_connections(), database)


@router.get("/periods")
def periods(database: Database) -> list[Period]:
    """The newest 24 billing periods with their money by outcome, newest first."""
    return [Period.model_validate(row) for row in dashboard.money_by_period(database)]


@router.get("/money")
def money(
    database: Database,
    period: BillingPeriod,
    sort: CustomerSort = "-total",
    limit: Limit = 50,
    offset: Offset = 0,
) -> CustomerMoneyPage:
    """A billing period's money by customer and currency."""
    total, rows = dashboard.money_by_customer(
        database, parse_billing_period(period), sort=sort, limit=limit, offset=offset
    )
    return CustomerMoneyPage(total=total, offset=offset, customers=[CustomerMoney.model_validate(row) for row in rows])


@router.get("/held")
def held(database: Database, period: BillingPeriod | None = None) -> Held:
    """Held money, by cause and by age; of one billing period, or of all."""
    of = parse_billing_period(period) if period is not None else None
    by_age: dict[str, list[dict[str, Any]]] = {}
    total: dict[str, Money] = {}
    for row in dashboard.held_by_age(database, of):
        by_age.setdefault(row["bucket"], []).append(row)
        known = total.get(row["currency"], Money(currency=row["currency"], amount=Decimal(0), lines=0))
        total[row["currency"]] = Money(
            currency=row["currency"], amount=known.amount + row["amount"], lines=known.lines + row["lines"]
        )
    return Held(
        total=list(total.values()),
        causes=[
            HeldCause.model_validate({**cause, "cure_link": cure_link(cause["code"])})
            for cause in dashboard.held_by_cause(database, of)
        ],
        ages=[HeldAge.model_validate({"bucket": bucket, "money": by_age.get(bucket, [])}) for bucket in BUCKETS],
    )


@router.get("/runs")
def runs(database: Database, limit: Limit = 20, before: Before = None) -> list[Run]:
    """Runs, newest first. before: older ones than this run_id."""
    return [Run.model_validate(row) for row in dashboard.runs(database, before=before, limit=limit)]


@router.get("/pauses")
def pauses(database: Database) -> list[Pause]:
    """All pauses that last."""
    return [Pause.model_validate(row) for row in pausing.active_pauses(database)]


@router.post("/pauses")
def set_pause(pause: PauseRequest, person: Approver, database: Database) -> list[Pause]:
    """Pause delivery."""
    if not pausing.pause(database, pause.reason, person.name, pause.company_id):
        raise StaleEditError("It is paused already: see by whom and why.", current=pauses(database))
    return pauses(database)


@router.post("/pauses/end")
def end_pause(pause: EndPauseRequest, person: Approver, database: Database) -> list[Pause]:
    """End a pause."""
    pausing.end_pause(database, person.name, pause.company_id)
    return pauses(database)


@router.get("/parked")
def parked(database: Database) -> list[Parked]:
    """What bounds park now."""
    return [Parked.model_validate(one, from_attributes=True) for one in bounds.parked_now(database)]


@router.post("/parked/allow")
def allow(allowed: AllowRequest, person: Approver, database: Database) -> list[Parked]:
    """Let what a bound parks pass; the next run plans it."""
    bounds.allow(database, allowed.bound_key, allowed.up_to, person.name, allowed.note)
    return parked(database)


@router.get("/subscriptions")
def subscriptions(
    *,
    database: Database,
    amiss: bool = False,
    q: Annotated[str, Query(max_length=200)] = "",
    limit: Limit = 50,
    offset: Offset = 0,
) -> SubscriptionPage:
    """What customers run. amiss: only where something is amiss."""
    total, rows = dashboard.subscriptions(database, only_amiss=amiss, text=q.strip(), limit=limit, offset=offset)
    return SubscriptionPage(
        total=total, offset=offset, subscriptions=[Subscription.model_validate(row) for row in rows]
    )
