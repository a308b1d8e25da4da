"""Airflow connection → the billing database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import psycopg
from airflow.providers.postgres.hooks.postgres import PostgresHook

from billing_hooks.connections import fields, look_up, tested
from billing_sync.db import prepare
from billing_sync.errors import ConfigurationError, TemporaryError

if TYPE_CHECKING:
    from billing_sync.db import Connection


class BillingDbHook(PostgresHook):
    """Connection of type postgres to the billing database (not Airflow's own)."""

    default_conn_name = "billing_db"
    hook_name = "Billing database"
    needed: ClassVar = {"host": "server of the billing database"}

    def __init__(self, postgres_conn_id: str = default_conn_name, **options: Any) -> None:
        super().__init__(postgres_conn_id=postgres_conn_id, **options)

    def get_conn(self, *, user: str | None = None) -> Connection:
        """A psycopg 3 connection, prepared as `billing_sync.db` wants it.

        user: the person on whose behalf changes are made.
        Raises ConfigurationError (no such connection, a missing field, the server refuses the login or knows no such
        database) and TemporaryError (no answer).
        """
        conn_id = self.get_conn_id()
        fields(look_up(self.get_connection, conn_id), conn_id, self.needed)
        problem: ConfigurationError | TemporaryError
        try:
            connection = super().get_conn()
        except psycopg.OperationalError as error:
            problem = _explained(error, conn_id)
        else:
            if not isinstance(connection, psycopg.Connection):
                raise ConfigurationError(
                    "The postgres provider uses psycopg 2 here; SQLAlchemy 2 and psycopg 3 are needed."
                )
            prepare(connection, user=user)
            return connection
        raise problem  # outside of the handler: libpq's text may hold the whole connection string

    def check(self) -> str:
        """Connect and compare the migrations. Returns a short text for people; raises as get_conn does, and
        ConfigurationError for missing migrations."""
        from billing_sync.migrate import pending

        conn_id = self.get_conn_id()
        with self.get_conn() as connection:
            missing = pending(connection)
        if missing:
            raise ConfigurationError(
                f"The database of connection {conn_id} lacks {len(missing)} migrations ({', '.join(missing[:3])}"
                f"{', …' if len(missing) > 3 else ''}). Run: python -m billing_sync migrate"
            )
        return f"The billing database of connection {conn_id} answers; its migrations are up to date."

    def test_connection(self) -> tuple[bool, str]:  # type: ignore[override]  # the provider's has no annotation
        """(works, a text without secrets)."""
        return tested(self.check)


def _explained(error: psycopg.OperationalError, conn_id: str) -> ConfigurationError | TemporaryError:
    text = str(error)
    if "password authentication failed" in text or "no password supplied" in text:
        return ConfigurationError(f"The server of connection {conn_id} refuses its login or password.")
    if "does not exist" in text:
        return ConfigurationError(
            f"The server of connection {conn_id} knows no such database or login. Check schema (the database's name) "
            "and login."
        )
    return TemporaryError(f"The server of connection {conn_id} does not answer ({type(error).__name__}).")
