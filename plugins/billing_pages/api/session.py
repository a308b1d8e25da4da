"""Who is looking."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal

import psycopg
from fastapi import APIRouter
from pydantic import BaseModel

from billing_pages.database import Connect
from billing_pages.errors import UnavailableError
from billing_pages.security import Permission, Reader
from billing_sync.settings import get_setting

router = APIRouter()


class Me(BaseModel):
    """Who is looking, and what they may do. environment: the setting, null while the billing database is not there."""

    name: str
    permissions: list[Literal["read", "edit", "approve", "admin"]]
    environment: str | None


@router.get("/me")
def me(person: Reader, connect: Connect) -> Me:
    """Who is looking."""
    environment = None
    # Without the billing database the pages still open: they say how to set it up.
    with suppress(UnavailableError, psycopg.OperationalError), connect() as database:
        environment = get_setting(database, "environment")
    return Me(
        name=person.name,
        permissions=[permission.value for permission in Permission if permission in person.permissions],
        environment=environment,
    )
