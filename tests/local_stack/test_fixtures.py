"""The fixtures of conftest.py keep their promises."""

from __future__ import annotations

import socket
import urllib.request
from typing import TYPE_CHECKING

import psycopg
import pytest

if TYPE_CHECKING:
    from local_stack.postgres import Postgres


@pytest.mark.parametrize("address", ["198.51.100.7", "203.0.113.9", "2001:db8::1"])
def test_a_socket_cannot_leave_this_machine(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as outward, pytest.raises(OSError, match="this machine only"):
        outward.connect((address, 80))


def test_a_request_by_name_is_refused_before_the_look_up() -> None:
    with pytest.raises(OSError, match=r"this machine only, not 'partner\.example'"):
        urllib.request.urlopen("http://partner.example/", timeout=5)


def test_loopback_stays_open(postgres: Postgres) -> None:
    with socket.create_connection(("localhost", postgres.port), timeout=5):
        pass


def test_an_empty_database_is_empty(empty_db: str) -> None:
    with psycopg.connect(empty_db) as connection:
        tables = connection.execute("select count(*) from pg_tables where schemaname = 'public'").fetchone()
    assert tables == (0,)


def test_airflow_metadata_knows_the_pool(airflow_db: None) -> None:
    from airflow.models.pool import Pool

    assert Pool.get_pool("connectwise_api") is not None
