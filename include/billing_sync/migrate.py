"""Migrations of the billing database: numbered SQL files, each applied once.

Why a runner of our own: docs/decisions/0002-migrations.md.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from billing_sync.db import SQL_DIR, Connection, connect
from billing_sync.errors import ConfigurationError

log = logging.getLogger(__name__)

MIGRATIONS_DIR = SQL_DIR / "migrations"
VIEWS_DIR = SQL_DIR / "reporting"
ROLES_DIR = SQL_DIR / "roles"

_LEDGER = """
create table if not exists public.schema_migration (
    name text primary key,
    checksum text not null,
    applied_at timestamptz not null default now()
);
comment on table public.schema_migration is 'Migrations applied to this database.';
"""


def _checksum(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _applied(connection: Connection) -> dict[str, str]:
    exists = connection.execute("select to_regclass('public.schema_migration') is not null").fetchone()
    if not exists or not exists[0]:
        return {}
    return dict(connection.execute("select name, checksum from public.schema_migration").fetchall())


def pending(connection: Connection) -> list[str]:
    """Names of the migrations that this database still lacks, in order."""
    applied = _applied(connection)
    return [file.name for file in sorted(MIGRATIONS_DIR.glob("*.sql")) if file.name not in applied]


def migrate(dsn: str) -> list[str]:
    """Bring a database to the newest schema, in one transaction; safe to run by several at once.

    Returns the names of the migrations applied. Raises ConfigurationError when an applied file was changed since.
    """
    with connect(dsn) as connection, connection.transaction():
        # Freed with the connection: a killed migration leaves no lock behind.
        connection.execute("select pg_advisory_xact_lock(hashtext('billing_sync.migrate'))")
        connection.execute(_LEDGER)
        applied = _applied(connection)
        new = []
        for file in sorted(MIGRATIONS_DIR.glob("*.sql")):
            checksum = _checksum(file)
            if file.name not in applied:
                log.info("applying %s", file.name)
                connection.execute(file.read_text(encoding="utf-8"))
                connection.execute(
                    "insert into public.schema_migration (name, checksum) values (%s, %s)", [file.name, checksum]
                )
                new.append(file.name)
            elif applied[file.name] != checksum:
                raise ConfigurationError(
                    f"{file.name} was changed after it was applied to this database. "
                    "Put the file back as it was and write a new migration instead."
                )
        # Views hold no data: they are made anew, so that a change of a view needs no migration. Rights follow them.
        for file in [*sorted(VIEWS_DIR.glob("*.sql")), *sorted(ROLES_DIR.glob("*.sql"))]:
            connection.execute(file.read_text(encoding="utf-8"))
    return new
