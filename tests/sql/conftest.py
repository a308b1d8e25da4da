"""Fixtures of the SQL tests: a world of customers on a database of its own, and one shared database for functions."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the helper module beside the tests

from sql_world import World  # noqa: E402

if TYPE_CHECKING:
    from billing_sync.db import Connection
    from local_stack.postgres import Postgres


@pytest.fixture
def world(billing_db: str) -> Iterator[World]:
    """An empty world: settings are made, nobody is mapped, nothing is invoiced."""
    made = World(billing_db)
    yield made
    made.close()


@pytest.fixture(scope="session")
def functions(postgres: Postgres, billing_template: str) -> Iterator[Connection]:
    """A connection to a migrated database that tests of pure functions share: they write nothing."""
    from billing_sync.db import connect

    with connect(postgres.create_database("billing_functions", template=billing_template)) as connection:
        yield connection
    postgres.drop_database("billing_functions")
