"""Settings: Authentication, Configuration (settings, charge types), and the simulation of a change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends
from psycopg.conninfo import make_conninfo
from pydantic import BaseModel, Field

from billing_pages.api.common import BillingPeriod, ConnectWiseId, Given, Released
from billing_pages.database import Connect, Database
from billing_pages.errors import UnavailableError
from billing_pages.security import Admin
from billing_sync import settings, simulation_jobs
from billing_sync.cures import CURE_LINKS, cure_link
from billing_sync.db import Connection
from billing_sync.decide import try_decide_again
from billing_sync.errors import BillingSyncError, StaleEditError
from billing_sync.rules import (
    ChargeTypeRules,
    ChargeTypeState,
    change_charge_type,
    charge_type_states,
    organizations_waiting,
)
from billing_sync.run import parse_billing_period
from billing_sync.simulate import NOT_SIMULATED

router = APIRouter()
Shown = TypeVar("Shown", bound=BaseModel)

ConnectionId = Literal["appxite_api", "connectwise_api", "billing_db"]
DateRule = Literal[
    "as_invoiced", "first_day_of_charge_month", "last_day_of_charge_month", "first_day_of_invoice_month",
    "last_day_of_invoice_month", "first_day_of_next_month", "last_day_of_next_month", "invoice_date",
    "next_invoice_date",
]  # fmt: skip


class ConnectionState(BaseModel):
    """An Airflow connection as far as it may be shown: never a secret, only whether it is there.

    source: where Airflow keeps it, so that "edit" is offered only where it can work (database). missing: in words.
    """

    connection_id: ConnectionId
    title: str
    purpose: str
    exists: bool
    source: Literal["environment", "database", "secrets backend"] | None
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

    kind choice: one of choices; number: lowest to highest; bound: the same, or off; text (choices: those that are known
    in ConnectWise), words (separated by commas), switch (on, off). An empty value: not set.
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
    """A charge type: how customers see it, and the rules for its dates. version counts with every change.

    released: what a change did to lines that were decided again at once: those of a charge type that was not known, and
    those that a default product is for. All others keep their rules until "apply rules again".
    """

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
    released: Released | None = None


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
    """A simulation; its result when it is done.

    message: how far it is; when it failed: why, and what to do. lines: at most 2,000 of changed_lines.
    """

    simulation_id: int
    state: Literal["running", "done", "failed"]
    requested_by: str
    started_at: datetime
    ended_at: datetime | None
    message: str | None
    customers: list[SimulatedCustomer]
    lines: list[SimulatedLine]
    changed_lines: int


class HeldReasonWord(BaseModel):
    """A reason that can hold a line: its cause in words, its cure, and the page that cures it (null: none of ours)."""

    code: str
    title: str
    cure: str
    cure_link: str | None


class Dictionary(BaseModel):
    """Words that the database knows: every held reason, in the order of the pipeline."""

    held_reasons: list[HeldReasonWord]


# -- routes ------------------------------------------------------------------------------------------------------------

CONNECTIONS: dict[ConnectionId, tuple[str, str]] = {
    "appxite_api": ("AppXite", "Reads organizations, subscriptions and invoices from AppXite's Reporting API."),
    "connectwise_api": ("ConnectWise PSA", "Reads companies, products and agreements, and writes Additions."),
    "billing_db": ("Billing database", "Keeps invoices, mappings, settings, plans and the ledger."),
}


@router.get("/connections")
def get_connections() -> list[ConnectionState]:
    """The three connections, as far as they may be shown."""
    from billing_hooks.connection_states import connection_state

    return [
        ConnectionState(title=title, purpose=purpose, **asdict(connection_state(connection_id)))
        for connection_id, (title, purpose) in CONNECTIONS.items()
    ]


@router.post("/connections/{connection_id}/test")
def test_connection(connection_id: ConnectionId, person: Admin) -> ConnectionTest:  # noqa: ARG001
    """Ask the service whether it accepts the connection."""
    from billing_hooks.connection_states import ask_service

    return ConnectionTest(connection_id=connection_id, **asdict(ask_service(connection_id)))


@router.get("/dictionary")
def get_dictionary(database: Database) -> Dictionary:
    """Every held reason with its cause and cure."""
    rows = database.execute("select reason_code, title, cure from billing.held_reason_code").fetchall()
    order = {code: number for number, code in enumerate(CURE_LINKS)}
    rows.sort(key=lambda row: order.get(row[0], len(order)))
    return Dictionary(
        held_reasons=[
            HeldReasonWord(code=code, title=title, cure=cure, cure_link=cure_link(code)) for code, title, cure in rows
        ]
    )


@router.get("/settings")
def get_settings(database: Database) -> list[Setting]:
    """All settings, in the order of their groups."""
    types = _agreement_types(database)
    return [_setting(one, types) for one in settings.setting_states(database)]


@router.put("/settings/{key}")
def put_setting(
    key: Annotated[str, Field(max_length=60)],
    given: SettingChange,
    person: Admin,  # noqa: ARG001  (the database knows who it is)
    database: Database,
) -> Setting:
    """Change a setting; 409 when somebody changed it meanwhile, 423 when it cannot change any more."""
    types = _agreement_types(database)
    return _or_stale(
        lambda: settings.change_setting(database, key, given.value, given.version),
        lambda found: _setting(found, types),
    )


@router.get("/charge-types")
def get_charge_types(database: Database) -> list[ChargeType]:
    """The charge types with their rules; those that only stand on lines have version 0."""
    return [_charge_type(one) for one in charge_type_states(database)]


@router.put("/charge-types/{charge_type}")
def put_charge_type(
    charge_type: Annotated[str, Field(min_length=1, max_length=60)],
    given: ChargeTypeChange,
    person: Admin,
    database: Database,
    connect: Connect,
) -> ChargeType:
    """Change or define a charge type. It counts for lines loaded from now on, and for others by "apply rules again"."""
    (before,) = charge_type_states(database, charge_type)
    changed = _or_stale(
        lambda: change_charge_type(database, charge_type, _rules(given), given.version, person=person.name),
        _charge_type,
    )
    if given.version == 0 or before.default_product_id != changed.default_product_id:
        organization_ids = organizations_waiting(database, charge_type)
        if organization_ids:
            changed.released = Released.model_validate(
                try_decide_again(database, organization_ids=organization_ids, connect=connect)
            )
    return changed


def owner_address() -> str:
    """The address of the billing database with the login of connection billing_db, its owner: a simulation creates a
    database, which the role of the pages may not."""
    from billing_hooks.billing_db import BillingDbHook

    try:
        with BillingDbHook().get_conn() as connection:
            info = connection.info
            return make_conninfo(info.dsn, password=info.password) if info.password else info.dsn
    except BillingSyncError as error:
        raise UnavailableError(str(error)) from None


OwnerAddress = Annotated[str, Depends(owner_address)]


@router.post("/simulations", status_code=202)
def start_simulation(
    given: SimulationRequest, person: Admin, database: Database, owner: OwnerAddress
) -> SimulationState:
    """Start a simulation in the background; 409 with the one that runs while another one does."""
    request = simulation_jobs.Request(
        parse_billing_period(given.first),
        parse_billing_period(given.last),
        given.settings,
        {name: _rules(one) for name, one in given.charge_types.items()},
    )
    return _or_stale(
        lambda: simulation_jobs.simulation_job(
            database, simulation_jobs.start_simulation(owner, request, person=person.name)
        ),
        _simulation,
    )


@router.get("/simulations/{simulation_id}")
def get_simulation(simulation_id: Annotated[int, Field(ge=1, le=2**63 - 1)], database: Database) -> SimulationState:
    """A simulation, and its result once it is done."""
    return _simulation(simulation_jobs.simulation_job(database, simulation_id))


# -- core → models -----------------------------------------------------------------------------------------------------


def _agreement_types(database: Connection) -> list[str]:
    """Names that ConnectWise has exactly once among its active agreement types: what the default may be."""
    rows = database.execute(
        """
        select name from mapping.agreement_type where not is_gone and not is_inactive and name is not null
        group by name having count(*) = 1 order by name
        """
    ).fetchall()
    return [name for (name,) in rows]


def _setting(one: settings.SettingState, agreement_types: list[str]) -> Setting:
    takes = one.definition.takes
    return Setting(
        key=one.key,
        title=one.definition.title,
        group=one.definition.group,
        description=one.description,
        kind=takes.kind,
        choices=agreement_types if one.key == "default_agreement_type" else list(takes.choices),
        lowest=takes.lowest,
        highest=takes.highest,
        value=one.value,
        default=one.default,
        version=one.version,
        changed_by=one.changed_by,
        changed_at=one.changed_at,
        locked=one.locked,
        is_simulated=one.key not in NOT_SIMULATED,
    )


def _charge_type(one: ChargeTypeState) -> ChargeType:
    return ChargeType.model_validate(one, from_attributes=True)


def _rules(given: ChargeTypeChange) -> ChargeTypeRules:
    return ChargeTypeRules(**given.model_dump(exclude={"version"}))


def _simulation(job: simulation_jobs.Job) -> SimulationState:
    result = job.result or {"customers": [], "lines": [], "changed_lines": 0}
    return SimulationState.model_validate({**asdict(job), **result})


def _or_stale(change: Callable[[], Any], shown: Callable[[Any], Shown]) -> Shown:
    """What the change gives, as it is shown; a conflict carries what stands now in the same form."""
    try:
        return shown(change())
    except StaleEditError as stale:
        raise StaleEditError(str(stale), current=shown(stale.current) if stale.current else None) from None
