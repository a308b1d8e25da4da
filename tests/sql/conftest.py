"""Fixtures of the SQL tests: a world of customers in a clean database, and one database for functions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from psycopg.pq import TransactionStatus

sys.path.insert(0, str(Path(__file__).parent))  # the helper module beside the tests

from sql_world import SCHEMAS, World

if TYPE_CHECKING:
    from billing_sync.db import Connection
    from local_stack.postgres import Postgres

SEEDED = ("billing.setting", "billing.charge_type_version", "billing.charge_type", "billing.held_reason_code")


@pytest.fixture(scope="session")
def cleaned_db(postgres: Postgres, billing_template: str) -> Iterator[str]:
    """A migrated database that keeps aside what migrations put into its tables, and empties itself."""
    from billing_sync.db import connect

    dsn = postgres.create_database("billing_cleaned", template=billing_template)
    with connect(dsn) as connection:
        tables = connection.execute(
            "select format('%%I.%%I', schemaname, tablename) from pg_tables where schemaname = any(%s)",
            [[schema for schema in SCHEMAS if schema != "public"]],
        ).fetchall()
        statements = [f"delete from {table};" for (table,) in tables]
        connection.execute("create schema seed")
        for table in SEEDED:
            seed = f"seed.{table.split('.')[1]}"
            connection.execute(f"create table {seed} as table {table}")
            statements.append(f"insert into {table} select * from {seed};")
        connection.execute(
            f"""
            create function seed.clean() returns void language plpgsql
            set session_replication_role = replica -- no triggers, no foreign keys
            as $$ begin {" ".join(statements)} end $$
            """
        )
    yield dsn
    postgres.drop_database("billing_cleaned")


@pytest.fixture(scope="session")
def sessions(cleaned_db: str) -> Iterator[Callable[[], Connection]]:
    """Gives the connection that worlds share, as good as new: its caches stay warm, which is an eighth of the time."""
    from billing_sync.db import connect, prepare

    known: list[Connection] = []

    def give() -> Connection:
        if not known or known[0].closed or known[0].info.transaction_status != TransactionStatus.IDLE:
            for connection in known:
                connection.close()
            known[:] = [connect(cleaned_db)]
        # As `discard all`, but for the plans.
        for statement in (
            "close all", "set session authorization default", "reset all", "unlisten *",
            "select pg_advisory_unlock_all()", "discard temp", "discard sequences",
        ):  # fmt: skip
            known[0].execute(statement)
        prepare(known[0], user="tests")
        return known[0]

    yield give
    for connection in known:
        connection.close()


@pytest.fixture
def world(cleaned_db: str, sessions: Callable[[], Connection]) -> Iterator[World]:
    """A world in a database as migrations leave it: settings are made, nobody is mapped, nothing is invoiced.

    The database is emptied afterwards, which takes 4 ms where a new one takes 200.
    """
    yield World(cleaned_db, sessions())
    sessions().execute("select seed.clean()")


@pytest.fixture(scope="session")
def functions(postgres: Postgres, billing_template: str) -> Iterator[Connection]:
    """A connection to a migrated database that tests of pure functions share: they write nothing."""
    from billing_sync.db import connect

    with connect(postgres.create_database("billing_functions", template=billing_template)) as connection:
        yield connection
    postgres.drop_database("billing_functions")
