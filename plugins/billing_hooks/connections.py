"""What all hooks need: a connection with clear errors, its address, and its secrets out of every log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from billing_sync.errors import BillingSyncError, ConfigurationError
from billing_sync.http import Limits
from billing_sync.secrets import spellings

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import Connection


# A person waits for the answer to a button.
TEST_LIMITS = Limits(connect=5, read=10, whole=15, attempts=1)


def look_up(get_connection: Callable[[str], Any], conn_id: str) -> Connection:
    """The Airflow connection. Raises ConfigurationError if there is none of that id."""
    try:
        return get_connection(conn_id)  # type: ignore[no-any-return]
    except AirflowNotFoundException:
        pass
    raise ConfigurationError(
        f"Connection {conn_id} does not exist. Create it under Admin > Connections, "
        f"or set the environment variable AIRFLOW_CONN_{conn_id.upper()} (docs/connections.md)."
    )


def fields(connection: Connection, conn_id: str, names: dict[str, str]) -> dict[str, str]:
    """The values of some fields of a connection.

    names: field → what it holds, in words. A field that Connection does not have by itself is an extra.
    Raises ConfigurationError that names every field that is missing.
    """
    found, missing = found_and_missing(connection, names)
    if missing:
        raise ConfigurationError(f"Connection {conn_id} lacks {', '.join(missing)}. Fill it in (docs/connections.md).")
    return found


def found_and_missing(connection: Connection, names: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """The values of some fields (see `fields`), and in words those that are missing."""
    try:
        extra = connection.extra_dejson
    except ValueError:
        extra = {}
    found, missing = {}, []
    for name, words in names.items():
        value = getattr(connection, name) if name in ("host", "login", "password", "schema") else extra.get(name)
        found[name] = str(value).strip() if value is not None else ""
        if not found[name]:
            where = name if name in ("host", "login", "password") else f"extra {name}"
            missing.append(f"{where} ({words})")
    return found, missing


def base_url(connection: Connection) -> str:
    """Address of an http connection, whose host may or may not carry a scheme and a port. Without a scheme: https,
    since the keys travel with every request. Raises ConfigurationError for a host that is no address."""
    host = (connection.host or "").strip().rstrip("/")
    url = host if "://" in host else f"{connection.schema or 'https'}://{host}"
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigurationError(
            f"The host of connection {connection.conn_id} is no address. Write it as https://server."
        ) from None
    if connection.port and ":" not in parts.netloc.rpartition("]")[2]:
        url = parts._replace(netloc=f"{parts.netloc}:{connection.port}").geturl()
    return url


def verification(connection: Connection) -> bool | str:
    """How TLS certificates are checked: extra `verify` may name a CA bundle. Checking cannot be switched off."""
    given = connection.extra_dejson.get("verify")
    return given if isinstance(given, str) and given else True


def hide(*secrets: str) -> None:
    """Mask secrets in Airflow's logs, in every spelling they may take there: URL-quoted, Base64 and so on.

    Airflow masks a connection's password as it is, and neither its Base64 nor its URL-quoted form.
    """
    for secret in secrets:
        for spelling in sorted(spellings(secret)):
            mask_secret(spelling)


def tested(check: Callable[[], str]) -> tuple[bool, str]:
    """What Airflow's button Test wants. Errors of billing_sync hold no secrets; of others only the type is told."""
    try:
        return True, check()
    except BillingSyncError as error:
        return False, str(error)
    except Exception as error:  # noqa: BLE001  (its text might quote a URL, and with it a key)
        return False, f"The test failed with {type(error).__name__}."
