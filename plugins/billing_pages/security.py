"""Who may do what on the pages: Airflow tells who somebody is, this file what they may do. Nothing is open by default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from fastapi import Depends, HTTPException
from fastapi.params import Depends as Dependency


class Permission(StrEnum):
    """read: see everything. edit: lines and mappings. approve: plans, pauses, bounds. admin: settings, connections."""

    READ = "read"
    EDIT = "edit"
    APPROVE = "approve"
    ADMIN = "admin"


@dataclass(frozen=True)
class Person:
    """Who is logged in to Airflow, and what they may do here."""

    name: str
    permissions: frozenset[Permission]


async def current_person() -> Person:
    """Who is asking; 401 without a session. `app.py` puts Airflow's answer in its place."""
    raise HTTPException(401, "Not logged in.")


def needs(permission: Permission) -> Dependency:
    """A dependency that lets only those pass who have the permission (403), and gives the person."""

    def check(person: Annotated[Person, Depends(current_person)]) -> Person:
        if permission not in person.permissions:
            raise HTTPException(403, f"You may not do this: it needs the permission {permission.value}.")
        return person

    check.__name__ = f"needs_{permission.value}"
    depends: Callable[..., Any] = Depends
    result: Dependency = depends(check)
    return result


Reader = Annotated[Person, needs(Permission.READ)]
Editor = Annotated[Person, needs(Permission.EDIT)]
Approver = Annotated[Person, needs(Permission.APPROVE)]
Admin = Annotated[Person, needs(Permission.ADMIN)]
