"""Who may do what on the pages, and what a request must look like. Nothing is open by default.

Airflow tells who somebody is (`people.py`); every route declares the permission it needs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, HTTPException, Request
from fastapi.params import Depends as Dependency

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
REQUEST_HEADER = "X-Billing-Request"


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


WhoIsAsking = Callable[[Request], Awaitable[Person]]
"""Tells who a request comes from. Raises HTTPException 401 without a valid session."""


def current_person(request: Request) -> Person:
    """Who is asking, as the guard found out before anything of the request was read (guard.py)."""
    person = getattr(request.state, "person", None)
    if not isinstance(person, Person):
        raise HTTPException(401, "Not logged in.")
    return person


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


def refusal_of_write(request: Request, own_address: str) -> str | None:
    """Why a request that changes something is refused as forged by another site; None if it is not.

    own_address: how users reach Airflow ([api] base_url); a proxy may have changed the header Host. Airflow itself
    rests on SameSite=Lax alone, which other ports and sub-domains of the same site pass.
    """
    headers = request.headers
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return "A change must be sent as application/json."
    if headers.get(REQUEST_HEADER) != "1":
        return f"A change must carry the header {REQUEST_HEADER}: 1."
    if headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return "A change must come from these pages, not from another site."
    origin = headers.get("origin")
    if origin is None:
        # No browser leaves it out; a program shows by its token that it is no browser lured by another site.
        is_program = headers.get("authorization", "").lower().startswith("bearer ")
        return None if is_program else "A change must carry the header Origin."
    own = {headers.get("host", ""), urlsplit(own_address).netloc} - {""}
    if urlsplit(origin).netloc not in own:
        return "A change must come from these pages, not from another site."
    return None
