"""Who is looking."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from billing_pages.security import Reader

router = APIRouter()


class Me(BaseModel):
    """Who is looking, and what they may do. environment: the setting, null while the billing database is not there."""

    name: str
    permissions: list[Literal["read", "edit", "approve", "admin"]]
    environment: str | None


@router.get("/me")
def me(person: Reader) -> Me:
    """Who is looking."""
    raise NotImplementedError
