"""Settings: Authentication, Configuration (settings, charge types), and the simulation of a change."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from billing_pages.api.common import BillingPeriod, ConnectWiseId, Given
from billing_pages.database import Database
from billing_pages.security import Admin

router = APIRouter()

ConnectionId = Literal["appxite_api", "connectwise_api", "billing_db"]
DateRule = Literal[
    "as_invoiced", "first_day_of_charge_month", "last_day_of_charge_month", "first_day_of_invoice_month",
    "last_day_of_invoice_month", "first_day_of_next_month", "last_day_of_next_month", "invoice_date",
    "next_invoice_date",
]  # fmt: skip


class ConnectionState(BaseModel):
    """An Airflow connection as far as it may be shown: never a secret, only whether it is there.

    source: where it is kept (database, environment, secrets backend) so that "edit" is offered only where it can work.
    """

    connection_id: ConnectionId
    title: str
    purpose: str
    exists: bool
    host: str | None
    missing: list[str]
    message: str | None


class ConnectionTest(BaseModel):
    """What the service answered to a test."""

    connection_id: ConnectionId
    works: bool
    message: str
    seconds: float


class Setting(BaseModel):
    """A setting with what it may be. value is text as it is typed; version: of the value as shown; a change carries it.

    kind choice: one of choices; number: lowest to highest; text, words (separated by commas), switch (on, off).
    locked: why it cannot change any more. is_simulated: a simulation can tell what a change would do.
    """

    key: str
    title: str
    group: str
    description: str
    kind: Literal["choice", "number", "bound", "text", "words", "switch"]
    choices: list[str]
    lowest: int | None
    highest: int | None
    value: str
    default: str | None
    version: str
    changed_by: str | None
    changed_at: datetime | None
    locked: str | None
    is_simulated: bool


class SettingChange(Given):
    """A new value, as text."""

    value: str = Field(max_length=1000)
    version: str = Field(max_length=100)


class ChargeType(BaseModel):
    """A charge type: how customers see it, and the rules for its dates. version counts with every change."""

    charge_type: str
    display_name: str
    is_recurring: bool
    charge_start_rule: DateRule
    charge_end_rule: DateRule
    taxable: Literal["product", "on", "off"] | None
    default_product_id: int | None
    default_product: str | None
    version: int
    changed_by: str | None
    changed_at: datetime | None
    lines_with_older_rules: int


class ChargeTypeChange(Given):
    """The charge type as it shall be. version: as it was shown; 0 for one that is not known yet."""

    version: int = Field(ge=0)
    display_name: Annotated[str, Field(min_length=1, max_length=100)]
    is_recurring: bool
    charge_start_rule: DateRule
    charge_end_rule: DateRule
    taxable: Literal["product", "on", "off"] | None = None
    default_product_id: ConnectWiseId | None = None


class SimulationRequest(Given):
    """What would these settings and charge types have changed over past periods? Writes nothing."""

    first: BillingPeriod
    last: BillingPeriod
    settings: dict[Annotated[str, Field(max_length=60)], Annotated[str, Field(max_length=1000)]] = Field(
        {}, max_length=40
    )
    charge_types: dict[Annotated[str, Field(max_length=60)], ChargeTypeChange] = Field({}, max_length=60)


class SimulatedCustomer(BaseModel):
    """A customer and currency: what would be billed, before and after."""

    organization_id: str
    organization_name: str
    currency: str
    lines: int
    changed_lines: int
    deliver_before: Decimal
    deliver_after: Decimal
    held_before: Decimal
    held_after: Decimal
    excluded_before: Decimal
    excluded_after: Decimal
    difference: Decimal
    reasons: list[str]


class SimulatedLine(BaseModel):
    """A line that would be decided otherwise."""

    line_id: int
    invoice_number: str | None
    organization_name: str
    currency: str | None
    amount_before: Decimal | None
    amount_after: Decimal | None
    change: str


class SimulationState(BaseModel):
    """A simulation; its result when it is done."""

    simulation_id: int
    state: Literal["running", "done", "failed"]
    requested_by: str
    started_at: datetime
    ended_at: datetime | None
    message: str | None
    customers: list[SimulatedCustomer]
    lines: list[SimulatedLine]
    changed_lines: int


# -- routes ------------------------------------------------------------------------------------------------------------


@router.get("/connections")
def get_connections() -> list[ConnectionState]:
    """The three connections, as far as they may be shown."""
    raise NotImplementedError


@router.post("/connections/{connection_id}/test")
def test_connection(connection_id: ConnectionId, person: Admin) -> ConnectionTest:
    """Ask the service whether it accepts the connection."""
    raise NotImplementedError


@router.get("/settings")
def get_settings(database: Database) -> list[Setting]:
    """All settings, in the order of their groups."""
    raise NotImplementedError


@router.put("/settings/{key}")
def put_setting(
    key: Annotated[str, Field(max_length=60)], given: SettingChange, person: Admin, database: Database
) -> Setting:
    """Change a setting; 409 when somebody changed it meanwhile, 423 when it cannot change any more."""
    raise NotImplementedError


@router.get("/charge-types")
def get_charge_types(database: Database) -> list[ChargeType]:
    """The charge types with their rules; those that only stand on lines have version 0."""
    raise NotImplementedError


@router.put("/charge-types/{charge_type}")
def put_charge_type(
    charge_type: Annotated[str, Field(min_length=1, max_length=60)],
    given: ChargeTypeChange,
    person: Admin,
    database: Database,
) -> ChargeType:
    """Change or define a charge type. It counts for lines loaded from now on, and for others by "apply rules again"."""
    raise NotImplementedError


@router.post("/simulations", status_code=202)
def start_simulation(given: SimulationRequest, person: Admin, database: Database) -> SimulationState:
    """Start a simulation in the background; 409 while another one runs."""
    raise NotImplementedError


@router.get("/simulations/{simulation_id}")
def get_simulation(simulation_id: Annotated[int, Field(ge=1, le=2**63 - 1)], database: Database) -> SimulationState:
    """A simulation, and its result once it is done."""
    raise NotImplementedError
