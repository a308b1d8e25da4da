"""`python -m billing_pages.fab_permissions`: make the pages' permissions known to FAB, the auth manager with users and
roles, so that administrators find them under Security > List Roles.

The first time, the built-in roles get what the simple auth manager gives them: Viewer reads, User edits, too, Op
approves, too, Admin may do everything. A permission that is there already stays with whom an administrator gave it to.
"""

from __future__ import annotations

from typing import Any

from billing_pages.people import FAB_RESOURCE, SIMPLE_ROLES
from billing_pages.security import Permission


def make_permissions(security: Any) -> list[str]:
    """Make those that are missing. security: FAB's security manager. Returns what was done, for people."""
    done = []
    for permission in Permission:
        action = f"can_{permission.value}"
        if security.get_permission(action, FAB_RESOURCE) is not None:
            continue
        made = security.create_permission(action, FAB_RESOURCE)
        roles = [name.capitalize() for name, permissions in SIMPLE_ROLES.items() if permission in permissions]
        for name in roles:
            role = security.find_role(name)
            if role is not None:
                security.add_permission_to_role(role, made)
        done.append(f"{action} on {FAB_RESOURCE}: {', '.join(roles)}")
    return done


def main() -> None:
    from airflow.providers.fab.auth_manager.cli_commands.utils import (
        get_application_builder,
    )

    with get_application_builder() as builder:
        for line in make_permissions(builder.sm) or ["The permissions of the pages are there already."]:
            print(line)


if __name__ == "__main__":
    main()
