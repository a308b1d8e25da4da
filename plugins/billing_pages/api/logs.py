"""System Logs: the last 30 days, live; the ledger behind it is kept for ever and can be searched."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

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
