"""Who Airflow says somebody is, and what that lets them do here. The only file that asks Airflow's auth managers.

Simple     by role: viewer reads; user edits, too; op approves, too; admin may do everything
FAB        the permissions can_read, can_edit, can_approve and can_admin on "ConnectWise billing", which administrators
           give to roles under Security > List Roles; `python -m billing_pages.fab_permissions` makes them
others     the names listed in Airflow's configuration, section [connectwise_billing], options read, edit, approve and
           admin, separated by commas; nobody else
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import HTTPException, Request
from fastapi.concurrency import run_in_threadpool

from billing_pages.security import Permission, Person

if TYPE_CHECKING:
    from airflow.api_fastapi.auth.managers.base_auth_manager import BaseAuthManager

FAB_RESOURCE = "ConnectWise billing"
CONFIG_SECTION = "connectwise_billing"
SIMPLE_ROLES: dict[str, frozenset[Permission]] = {
    "viewer": frozenset({Permission.READ}),
    "user": frozenset({Permission.READ, Permission.EDIT}),
    "op": frozenset({Permission.READ, Permission.EDIT, Permission.APPROVE}),
    "admin": frozenset(Permission),
}


async def person_of_airflow(request: Request) -> Person:
    """Who is logged in, by session cookie or bearer token. Raises HTTPException 401."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.core_api.security import bearer_scheme, get_user

    try:
        user = await get_user(request, None, await bearer_scheme(request))
    except HTTPException:  # 403 for a token that is none, which is no more of a session than no token
        raise HTTPException(401, "Not logged in, or the session has ended.") from None
    permissions = await run_in_threadpool(permissions_of, user, get_auth_manager())
    return Person(user.get_name(), permissions)


def permissions_of(user: Any, auth_manager: BaseAuthManager[Any]) -> frozenset[Permission]:
    """What an Airflow user may do on the pages."""
    kind = f"{type(auth_manager).__module__}.{type(auth_manager).__name__}"
    if kind == "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager":
        return SIMPLE_ROLES.get((user.role or "").lower(), frozenset())
    if kind == "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager":
        return frozenset(
            permission
            for permission in Permission
            if auth_manager.is_authorized_custom_view(
                method=f"can_{permission.value}",  # type: ignore[arg-type]  # FAB takes its own actions, too
                resource_name=FAB_RESOURCE,
                user=user,
            )
        )
    return _configured_permissions(user.get_name())


def _configured_permissions(name: str) -> frozenset[Permission]:
    from airflow.configuration import conf

    listed = {p: conf.get(CONFIG_SECTION, p.value, fallback="") or "" for p in Permission}
    return frozenset(p for p, names in listed.items() if name in {one.strip() for one in names.split(",")} - {""})


def login_address(next_address: str) -> str:
    """Where to log in to Airflow; afterwards it leads back to next_address."""
    from airflow.api_fastapi.app import get_auth_manager

    return get_auth_manager().get_url_login(next_url=next_address)


def own_address() -> str:
    """How users reach Airflow, as configured; empty if it is not."""
    from airflow.configuration import conf

    return str(conf.get("api", "base_url", fallback="") or "")
