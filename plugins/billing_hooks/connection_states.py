"""What may be shown of the three connections, and their tests: never a secret, nor how long one is."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import SplitResult, urlsplit

from billing_hooks.appxite import AppXiteHook
from billing_hooks.billing_db import BillingDbHook
from billing_hooks.connections import base_url, found_and_missing, look_up
from billing_hooks.connectwise import ConnectWiseHook
from billing_sync.errors import BillingSyncError
from billing_sync.secrets import HIDDEN, Scrubber, basic_token

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Connection

HOOKS = {hook.default_conn_name: hook for hook in (AppXiteHook, ConnectWiseHook, BillingDbHook)}
ANSWER_WITHIN = 30.0  # seconds
# Extras that are no secrets; of any other nobody knows.
SHOWN_EXTRAS = ("requester_id", "company_id", "api_version", "verify")

Source = Literal["environment", "database", "secrets backend"]


@dataclass(frozen=True)
class ConnectionState:
    """A connection as far as it may be shown. missing: its fields that are empty, in words.

    source: where Airflow keeps it. Only what is in Airflow's database can be edited in Airflow's form.
    """

    connection_id: str
    exists: bool
    source: Source | None = None
    host: str | None = None
    missing: Sequence[str] = ()
    message: str | None = None


@dataclass(frozen=True)
class Answer:
    """What the service answered to a test."""

    works: bool
    message: str
    seconds: float


def connection_state(conn_id: str) -> ConnectionState:
    """The state of a connection (a key of `HOOKS`). Asks Airflow, and no service."""
    hook = HOOKS[conn_id]
    try:
        connection = look_up(hook.get_connection, conn_id)
    except BillingSyncError as error:
        return ConnectionState(conn_id, exists=False, message=str(error))
    except Exception as error:  # noqa: BLE001  (of a secrets backend; its text may hold anything)
        message = (
            f"Airflow cannot read it ({type(error).__name__}). Look at where it is kept: Admin > Connections, the "
            "environment variable or the secrets backend."
        )
        return ConnectionState(conn_id, exists=False, message=message)
    _, missing = found_and_missing(connection, hook.needed)
    unreadable = None if _has_readable_extra(connection) else "Its field Extra is not JSON. Write it anew."
    return ConnectionState(
        conn_id,
        exists=True,
        source=_source_of(conn_id),
        host=shown_host(connection),
        missing=missing,
        message=unreadable,
    )


def ask_service(conn_id: str, *, at_most: float = ANSWER_WITHIN) -> Answer:
    """Ask the service whether it takes the connection; at most so many seconds."""
    answers: list[tuple[bool, str]] = []
    began = time.monotonic()
    # A thread that can be left behind: neither DNS nor a silent server can be told how long to take.
    asking = threading.Thread(target=lambda: answers.append(_ask(conn_id)), name=f"test of {conn_id}", daemon=True)
    asking.start()
    asking.join(at_most)
    works, message = answers[0] if answers else (
        False, f"No answer within {at_most:.0f} seconds. Check the address, and that a firewall lets Airflow through."
    )  # fmt: skip
    return Answer(works, message, round(time.monotonic() - began, 1))


def _ask(conn_id: str) -> tuple[bool, str]:
    hook = HOOKS[conn_id]()
    try:
        works, message = hook.test_connection()
        scrub = Scrubber(secrets_of(look_up(hook.get_connection, conn_id)))
    except BillingSyncError as error:
        return False, str(error)
    except Exception as error:  # noqa: BLE001  (its text may hold anything)
        return False, f"The test failed with {type(error).__name__}."
    return works, scrub(message)


def secrets_of(connection: Connection) -> list[str]:
    """Everything of a connection that must not be shown, as it is and as it travels."""
    try:
        extra = connection.extra_dejson
    except ValueError:
        extra = {}
    login, password = connection.login or "", connection.password or ""
    hidden = [str(value) for name, value in extra.items() if name not in SHOWN_EXTRAS and value is not None]
    users = [login, f"{extra.get('company_id', '')}+{login}"]
    parts = urlsplit_or_none(connection.host or "")
    in_host = [text for text in ((parts.username, parts.password) if parts else ()) if text]
    return [password, *hidden, *in_host, *(basic_token(user, password) for user in users if password)]


def shown_host(connection: Connection) -> str | None:
    """Where a connection leads: scheme, server and port, for a database its name, too. None when that cannot be told
    from what else stands in the field: some people type keys into it."""
    given = (connection.host or "").strip()
    if not given:
        return None
    is_database = connection.conn_type == "postgres"
    try:
        url = f"postgres://{given}" if is_database and "://" not in given else base_url(connection)
    except BillingSyncError:
        return None
    parts = urlsplit_or_none(url)
    if parts is None or not parts.hostname or ("@" in given and "@" not in parts.netloc):
        return None
    server = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = parts.port or (connection.port if is_database else None)
    address = f"{server}:{port}" if port else server
    shown = f"{address}/{connection.schema}" if is_database and connection.schema else address
    shown = shown if is_database else f"{parts.scheme}://{shown}"
    return None if HIDDEN in Scrubber(secrets_of(connection))(shown) else shown


def urlsplit_or_none(url: str) -> SplitResult | None:
    """The parts of a URL, or None when it is none; its port can be read."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  (read, and judged, only when asked for)
    except ValueError:
        return None
    return parts


def _has_readable_extra(connection: Connection) -> bool:
    if not connection.extra:
        return True
    try:
        return isinstance(json.loads(connection.extra), dict)
    except ValueError:
        return False


def _source_of(conn_id: str) -> Source | None:
    """Which of Airflow's places gives the connection first; None when that cannot be told."""
    from airflow.sdk.execution_time.supervisor import ensure_secrets_backend_loaded

    kept: dict[str, Source] = {"EnvironmentVariablesBackend": "environment", "MetastoreBackend": "database"}
    for backend in ensure_secrets_backend_loaded():
        try:
            if backend.get_connection(conn_id=conn_id):
                return kept.get(type(backend).__name__, "secrets backend")
        except Exception:  # noqa: BLE001, S112  (as Airflow does: the next one is asked)
            continue
    return None
