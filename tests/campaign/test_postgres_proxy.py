"""The proxy: a round trip that is cut was done, or never arrived, and the client knows neither."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from campaign.postgres_proxy import Cut, PostgresProxy


@pytest.fixture
def proxy(empty_db: str) -> Iterator[PostgresProxy]:
    with psycopg.connect(empty_db) as connection:
        connection.execute("create table note (number int)")
    with PostgresProxy(empty_db) as proxy:
        yield proxy


def write(dsn: str) -> None:
    """Round trips: 1 begin, 2 insert, 3 copy, 4 commit, 5 insert."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        with connection.transaction():
            connection.execute("insert into note values (%s)", [2])
            with connection.cursor() as cursor, cursor.copy("copy note (number) from stdin") as copy:
                copy.write_row((3,))
        connection.execute("insert into note values (%s)", [5])


def numbers(dsn: str) -> list[int]:
    with psycopg.connect(dsn) as connection:
        return [number for (number,) in connection.execute("select number from note order by 1")]


@pytest.mark.parametrize(
    ("at", "cut", "statement", "left"),
    [
        (2, Cut.AFTER, "insert into note values ($1)", []),
        (3, Cut.AFTER, "copy note (number) from stdin", []),
        (4, Cut.BEFORE, "COMMIT", []),
        (4, Cut.AFTER, "COMMIT", [2, 3]),
        (5, Cut.BEFORE, "insert into note values ($1)", [2, 3]),
        (5, Cut.AFTER, "insert into note values ($1)", [2, 3, 5]),
    ],
)
def test_a_round_trip_is_cut(
    proxy: PostgresProxy, empty_db: str, at: int, cut: Cut, statement: str, left: list[int]
) -> None:
    proxy.arm(at, cut)
    with pytest.raises(psycopg.OperationalError):
        write(proxy.through(empty_db))
    assert proxy.statement == statement
    assert numbers(empty_db) == left


def test_without_a_cut_everything_goes_through(proxy: PostgresProxy, empty_db: str) -> None:
    write(proxy.through(empty_db))
    assert numbers(empty_db) == [2, 3, 5]
    assert proxy.round_trips == 5
