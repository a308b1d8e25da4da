"""System Logs: the last 30 days, live; the ledger behind it is kept for ever and can be searched."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel

from billing_pages.api.common import ConnectWiseId
from billing_pages.api.dashboard import Before, Limit
from billing_pages.database import Database
from billing_sync.logs import attempts as search_attempts
from billing_sync.logs import log_entries
from billing_sync.logs import log_tiles as tiles

router = APIRouter()

Level = Literal["INFO", "WARNING", "ERROR"]


class LogEntry(BaseModel):
    """One thing that the pipeline had to say."""

    log_entry_id: int
    logged_at: datetime
    level: Level
    code: str
    message: str
    run_id: int | None
    dag_id: str | None
    dag_run_id: str | None
    subject: dict[str, object]


class LogPage(BaseModel):
    """Entries, newest first. next_before: pass it as `before` for older ones; null: there are none."""

    entries: list[LogEntry]
    next_before: int | None


class LogTiles(BaseModel):
    """Of the last 30 days."""

    total: int
    errors: int
    warnings: int
    last_update: datetime | None


class Attempt(BaseModel):
    """One write to ConnectWise: who sent what when, and the answer.

    answer: ok, fail (certainly not applied), unknown (the answer was lost), or none yet. detail: ConnectWise's words.
    delivery_key: of the Addition; of an agreement that is created: its agreement key.
    """

    attempt_id: int
    attempted_at: datetime
    answered_at: datetime | None
    operation: Literal["create", "activate", "update", "neutralise", "deactivate", "create_agreement"]
    answer: Literal["ok", "fail", "unknown", "none yet"]
    detail: str
    delivery_key: str
    connectwise_addition_id: int | None
    agreement_id: int | None
    agreement_name: str | None
    company_id: int | None
    company_name: str | None
    subscription_id: str | None
    invoice_numbers: list[str]
    plan_id: int | None
    run_id: int | None
    approved_by: str | None
    worker: str


class AttemptPage(BaseModel):
    """Writes, newest first. next_before: pass it as `before` for older ones; null: there are none."""

    attempts: list[Attempt]
    next_before: int | None


Text = Annotated[str | None, Query(max_length=300)]


@router.get("/logs")
def logs(
    *,
    database: Database,
    levels: Annotated[list[Level] | None, Query(max_length=3)] = None,
    q: Text = None,
    run_id: Before = None,
    code: Text = None,
    ledger: bool = False,
    before: Before = None,
    after: Before = None,
    limit: Limit = 100,
) -> LogPage:
    """Log entries, newest first: of the last 30 days, or (ledger) all there are.

    before: older than this log_entry_id. after: newer than it, for a page that looks again and again.
    """
    entries, next_before = log_entries(
        database, levels=levels or (), text=(q or "").strip(), run_id=run_id, code=code, for_ever=ledger,
        before=before, after=after, limit=limit,
    )  # fmt: skip
    return LogPage(entries=[LogEntry.model_validate(entry) for entry in entries], next_before=next_before)


@router.get("/logs/tiles")
def log_tiles(database: Database) -> LogTiles:
    """Figures of the last 30 days."""
    return LogTiles.model_validate(tiles(database))


@router.get("/attempts")
def attempts(
    database: Database,
    delivery_key: Text = None,
    addition_id: ConnectWiseId | None = None,
    subscription_id: Text = None,
    invoice_number: Text = None,
    plan_id: Before = None,
    before: Before = None,
    limit: Limit = 100,
) -> AttemptPage:
    """The delivery ledger: every write to ConnectWise, newest first. before: older than this attempt_id."""
    found, next_before = search_attempts(
        database, delivery_key=delivery_key, addition_id=addition_id, subscription_id=subscription_id,
        invoice_number=invoice_number, plan_id=plan_id, before=before, limit=limit,
    )  # fmt: skip
    return AttemptPage(attempts=[Attempt.model_validate(one) for one in found], next_before=next_before)
