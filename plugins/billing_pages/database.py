"""The billing database of a request: connected as the web role, changes made on behalf of who asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Annotated

from fastapi import Depends

from billing_pages.security import Reader
from billing_sync.db import Connection


def open_database(person: Reader) -> Iterator[Connection]:
    """A connection in autocommit mode, for this request only."""
    from billing_hooks.billing_db import BillingDbHook

    connection = BillingDbHook().get_conn(user=person.name)
    try:
        yield connection
    finally:
        connection.close()


Database = Annotated[Connection, Depends(open_database)]


def open_another(person: Reader) -> Callable[[], AbstractContextManager[Connection]]:
    """Opens further connections on behalf of the person, for what goes on after the request."""

    @contextmanager
    def another() -> Iterator[Connection]:
        yield from open_database(person)

    return another


Connect = Annotated[Callable[[], AbstractContextManager[Connection]], Depends(open_another)]
