"""Simulations that a person starts on a page: they run in a thread, and table audit.simulation tells how far they are.

Any process can tell about them. One whose process died is told as failed: its heartbeat stands still.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from billing_sync.db import Connection, connect
from billing_sync.errors import BillingSyncError, NotFoundError, RefusedEditError, StaleEditError
from billing_sync.rules import ChargeTypeRules, rules_frame
from billing_sync.run import period_of
from billing_sync.simulate import Changes, Simulation, check_changes, simulate

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 3
DEAD_AFTER = "1 minute"
LINES_AT_MOST = 2000
MONTHS_AT_MOST = 24
DIED = (
    "The process that simulated ended before it was done (a restart of Airflow, say). Start the simulation again; it "
    "removes what the last one left behind."
)


@dataclass(frozen=True)
class Request:
    """What would these settings (as text) and charge types have changed in the periods from first to last?"""

    first: date
    last: date
    settings: Mapping[str, str] = field(default_factory=dict)
    charge_types: Mapping[str, ChargeTypeRules] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """A simulation as it stands. result, once it is done: `customers` and `lines` as in _result, `changed_lines`."""

    simulation_id: int
    state: str
    requested_by: str
    started_at: datetime
    ended_at: datetime | None
    message: str | None
    result: dict[str, Any] | None


def start_simulation(dsn: str, request: Request, *, person: str) -> int:
    """Start a simulation in a thread of this process; gives its id at once.

    dsn: of a login that may create databases. Raises RefusedEditError for what cannot be simulated, and StaleEditError
    with the Job that runs while another one does.
    """
    changes = _changes(request)
    with connect(dsn, user=person) as connection, connection.transaction():
        connection.execute(
            "update audit.simulation set state = 'failed', ended_at = now(), message = %s"
            " where state = 'running' and heartbeat_at < now() - %s::interval",
            [DIED, DEAD_AFTER],
        )
        row = connection.execute(
            """
            insert into audit.simulation (requested_by, request, message) values (%s, %s, 'starting')
            on conflict ((true)) where state = 'running' do nothing
            returning simulation_id
            """,
            [person, Jsonb(_told(request))],
        ).fetchone()
        if row is None:
            running = connection.execute(
                "select simulation_id from audit.simulation where state = 'running'"
            ).fetchone()
            job = simulation_job(connection, running[0]) if running else None
            raise StaleEditError(
                f"A simulation that {job.requested_by if job else 'somebody'} started is running, and one runs at a "
                "time: wait until it is done.",
                current=job,
            )
    simulation_id = int(row[0])
    _Runner(dsn, simulation_id, request, changes).start()
    return simulation_id


def simulation_job(connection: Connection, simulation_id: int) -> Job:
    """A simulation as it stands. Raises NotFoundError."""
    row = connection.execute(
        """
        select simulation_id, case when is_dead then 'failed' else state end, requested_by, started_at,
            case when is_dead then heartbeat_at else ended_at end,
            case when is_dead then %(died)s else message end, result
        from audit.simulation
        cross join lateral (
            select state = 'running' and heartbeat_at < now() - %(dead_after)s::interval as is_dead
        ) as heart
        where simulation_id = %(simulation_id)s
        """,
        {"simulation_id": simulation_id, "died": DIED, "dead_after": DEAD_AFTER},
    ).fetchone()
    if row is None:
        raise NotFoundError(f"There is no simulation {simulation_id}.")
    return Job(*row)


# -- running -----------------------------------------------------------------------------------------------------------


class _Runner:
    """Two threads: one simulates, the other says every few seconds that it lives and how far it is."""

    def __init__(self, dsn: str, simulation_id: int, request: Request, changes: Changes) -> None:
        self.dsn, self.simulation_id, self.request, self.changes = dsn, simulation_id, request, changes
        self.progress = "starting"
        self.found: Simulation | None = None
        self.problem = ""

    def start(self) -> None:
        # Daemons: a process that shall end does not wait for a simulation.
        threading.Thread(target=self._watch, name=f"simulation {self.simulation_id}", daemon=True).start()

    def _watch(self) -> None:
        worker = threading.Thread(target=self._simulate, name=f"simulation {self.simulation_id} works", daemon=True)
        try:
            with connect(self.dsn) as connection:
                worker.start()
                while worker.is_alive():
                    worker.join(HEARTBEAT_SECONDS)
                    self._beat(connection)
                self._end(connection)
        except psycopg.Error:
            log.exception("simulation %s cannot tell how far it is", self.simulation_id)

    def _simulate(self) -> None:
        try:
            self.found = simulate(self.dsn, self.request.first, self.request.last, self.changes, say=self._say)
        except BillingSyncError as error:
            self.problem = str(error)
        except Exception as error:
            log.exception("simulation %s broke off", self.simulation_id)
            self.problem = f"It broke off with {type(error).__name__}; the log of the API server says more. Try again."

    def _say(self, progress: str) -> None:
        self.progress = progress

    def _beat(self, connection: Connection) -> None:
        connection.execute(
            "update audit.simulation set heartbeat_at = now(), message = %s"
            " where simulation_id = %s and state = 'running'",
            [self.progress, self.simulation_id],
        )

    def _end(self, connection: Connection) -> None:
        result = None if self.found is None else Jsonb(_result(self.found))
        connection.execute(
            "update audit.simulation set state = %s, ended_at = now(), message = %s, result = %s"
            " where simulation_id = %s and state = 'running'",
            ["failed" if result is None else "done", self.problem or None, result, self.simulation_id],
        )


# -- request and result as JSON ----------------------------------------------------------------------------------------


def _changes(request: Request) -> Changes:
    if not request.settings and not request.charge_types:
        raise RefusedEditError("Nothing is changed: name a setting or a charge type that shall be otherwise.")
    first, last = period_of(request.first), period_of(request.last)
    if first > last:
        raise RefusedEditError(f"The periods end ({last:%Y-%m}) before they begin ({first:%Y-%m}).")
    months = (last.year - first.year) * 12 + last.month - first.month + 1
    if months > MONTHS_AT_MOST:
        raise RefusedEditError(f"{months} billing periods are too many at once: at most {MONTHS_AT_MOST}.")
    try:
        changes = Changes(
            settings=request.settings, rules=rules_frame(request.charge_types) if request.charge_types else None
        )
        check_changes(changes)
    except BillingSyncError as error:
        raise RefusedEditError(str(error).replace(": nothing was imported.", ":")) from None
    return changes


def _told(request: Request) -> dict[str, Any]:
    return {
        "first": f"{request.first:%Y-%m}",
        "last": f"{request.last:%Y-%m}",
        "settings": dict(request.settings),
        "charge_types": {name: asdict(rules) for name, rules in request.charge_types.items()},
    }


def _result(found: Simulation) -> dict[str, Any]:
    return {
        "customers": [
            {
                "organization_id": one.organization_id, "organization_name": one.organization_name,
                "currency": one.currency, "lines": one.lines, "changed_lines": one.changed_lines,
                "deliver_before": one.before.deliver, "deliver_after": one.after.deliver,
                "held_before": one.before.held, "held_after": one.after.held,
                "excluded_before": one.before.excluded, "excluded_after": one.after.excluded,
                "difference": one.difference, "reasons": one.reasons,
            }
            for one in found.customers
        ],
        "lines": [
            {
                "line_id": one.line_id, "invoice_number": one.invoice_number,
                "organization_name": one.organization_name, "currency": one.currency,
                "amount_before": one.amount_before, "amount_after": one.amount_after, "change": one.change,
            }
            for one in found.lines[:LINES_AT_MOST]
        ],
        "changed_lines": len(found.lines),
    }  # fmt: skip
