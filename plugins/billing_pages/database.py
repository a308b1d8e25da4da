"""The billing database of a request: connected as the web role, changes made on behalf of who asks."""

from __future__ import annotations

from collections.abc import Iterator
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
