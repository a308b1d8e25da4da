"""The billing database: connections, and the SQL files that hold every decision."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import set_json_dumps, set_json_loads

SQL_DIR = Path(__file__).resolve().parent.parent / "sql"

Connection = psycopg.Connection[Any]


class _DecimalEncoder(json.JSONEncoder):
    def default(self, o: object) -> object:
        if isinstance(o, Decimal):  # jsonb holds money as text here; payloads are built in SQL and never pass this way
            return str(o)
        return super().default(o)


def connect(dsn: str, *, user: str | None = None) -> Connection:
    """Open a connection in autocommit mode (transactions are always explicit); numbers in jsonb arrive as Decimal.

    user: the person on whose behalf changes are made; stands in audit.change.
    """
    connection: Connection = psycopg.connect(dsn, autocommit=True)
    prepare(connection, user=user)
    return connection


def prepare(connection: Connection, *, user: str | None = None) -> None:
    """Make a connection that somebody else opened (an Airflow hook) behave like one of ours."""
    # Without it, a select would silently open a transaction, and `with connection.transaction()` would not commit.
    connection.autocommit = True
    set_json_loads(functools.partial(json.loads, parse_float=Decimal), connection)
    set_json_dumps(functools.partial(json.dumps, cls=_DecimalEncoder, allow_nan=False), connection)
    if user is not None:
        connection.execute("select set_config('billing.user', %s, false)", [user])


@contextmanager
def at_ease(connection: Connection) -> Iterator[None]:
    """A transaction with memory for the hash tables of 100,000 lines, and without compiling, which takes longer."""
    with connection.transaction():
        connection.execute("select set_config('work_mem', '64MB', true), set_config('jit', 'off', true)")
        yield


def read_rows(connection: Connection, statement: str | sql.Composed, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a statement over very many lines, as dictionaries."""
    with at_ease(connection), connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement, values).fetchall()


@contextmanager
def working_for(connection: Connection, run_id: int) -> Iterator[None]:
    """A transaction in which audit.current_run_id(), and so each view of "the current run", means this run."""
    with connection.transaction():
        connection.execute("select set_config('billing.run_id', %s, true)", [str(run_id)])
        yield


def run_sql_file(connection: Connection, name: str, run_id: int) -> list[dict[str, Any]]:
    """Run one file of include/sql for a run, in one transaction.

    name: path below include/sql, e.g. "billing/load_invoices.sql".
    Returns the rows of the file's last statement, if it gives any, as dictionaries.
    """
    text = (SQL_DIR / name).read_text(encoding="utf-8")
    with working_for(connection, run_id), connection.cursor() as cursor:
        cursor.execute(text)
        while cursor.nextset():
            pass
        if cursor.description is None:
            return []
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
