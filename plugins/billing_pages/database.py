"""The billing database of a request: connected as the web role, changes made on behalf of who asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Annotated

import psycopg
from fastapi import Depends, Request

from billing_pages.errors import UnavailableError
from billing_pages.security import SAFE_METHODS, Reader
from billing_sync.db import Connection
from billing_sync.errors import BillingSyncError

ROLE = "billing_web"
SESSION = {"statement_timeout": "30s", "lock_timeout": "3s", "application_name": "billing pages"}
MIGRATE = "Run: python -m billing_sync migrate"

_up_to_date: set[str] = set()  # databases whose migrations were complete when this process first asked


def open_database(request: Request, person: Reader) -> Iterator[Connection]:
    """A connection in autocommit mode, for this request only; one that changes nothing if the request may not.

    Raises UnavailableError.
    """
    connection = connect(person.name, read_only=request.method in SAFE_METHODS)
    try:
        yield connection
    finally:
        connection.close()


Database = Annotated[Connection, Depends(open_database)]


def open_another(request: Request, person: Reader) -> Callable[[], AbstractContextManager[Connection]]:
    """Opens further connections on behalf of the person, for what goes on after the request."""

    @contextmanager
    def another() -> Iterator[Connection]:
        yield from open_database(request, person)

    return another


Connect = Annotated[Callable[[], AbstractContextManager[Connection]], Depends(open_another)]


def connect(user: str, *, read_only: bool = False) -> Connection:
    """A connection that may do what the pages need and no more (include/sql/roles/web.sql).

    Over the Airflow connection billing_web if there is one, whose login may then be a member of the web role only;
    else over billing_db. Raises UnavailableError that says what to do.
    """
    from billing_hooks.billing_db import BillingDbHook

    try:
        connection = BillingDbHook(_connection_id()).get_conn(user=user)
    except BillingSyncError as error:
        raise UnavailableError(str(error)) from None
    try:
        _become_web_role(connection)
        settings = {**SESSION, "default_transaction_read_only": "on" if read_only else "off"}
        connection.execute(
            "select " + ", ".join(["set_config(%s, %s, false)"] * len(settings)),
            [word for setting in settings.items() for word in setting],
        )
    except BaseException:
        connection.close()
        raise
    return connection


def _connection_id() -> str:
    from airflow.sdk.exceptions import AirflowNotFoundException

    from billing_hooks.billing_db import BillingDbHook

    try:
        BillingDbHook.get_connection("billing_web")
    except AirflowNotFoundException:
        return "billing_db"
    return "billing_web"


def _become_web_role(connection: Connection) -> None:
    from billing_sync.migrate import pending

    name = f"{connection.info.host}:{connection.info.port}/{connection.info.dbname}"
    if name not in _up_to_date:
        missing = pending(connection)
        if missing:
            raise UnavailableError(f"The billing database lacks {len(missing)} migrations. {MIGRATE}")
        _up_to_date.add(name)
    try:
        connection.execute(f"set role {ROLE}")
    except (psycopg.errors.InvalidParameterValue, psycopg.errors.UndefinedObject):
        raise UnavailableError(
            f"The billing database has no role {ROLE}, with which alone the pages read and write. {MIGRATE} as an "
            "owner that may create roles (docs/connections.md)."
        ) from None
    except psycopg.errors.InsufficientPrivilege:
        raise UnavailableError(
            f"The login of connection {_connection_id()} is not a member of role {ROLE} (docs/connections.md)."
        ) from None
