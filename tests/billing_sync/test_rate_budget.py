"""One budget of requests for all workers, on a real PostgreSQL."""

from __future__ import annotations

import threading
import time

import psycopg
import pytest

from billing_sync.db import connect
from billing_sync.errors import RateLimitedError, TemporaryError
from billing_sync.rate_budget import DatabaseLimiter


@pytest.fixture
def make(billing_db):
    limiters = []

    def limiter(per_minute: int, **options) -> DatabaseLimiter:
        limiters.append(DatabaseLimiter(lambda: connect(billing_db), "connectwise_api", per_minute, **options))
        return limiters[-1]

    yield limiter
    for one in limiters:
        one.close()


def test_workers_share_the_budget(make):
    slept: list[float] = []
    workers = [make(60, burst=5, sleep=slept.append) for _ in range(4)]
    threads = [threading.Thread(target=lambda w=w: [w.acquire() for _ in range(10)]) for w in workers]
    [one.start() for one in threads]
    [one.join(30) for one in threads]
    # 40 requests: 5 at once, then one every 60/55 seconds.
    assert len(slept) == 35
    assert max(slept) == pytest.approx(35 * 60 / 55, abs=1.5)


def test_no_minute_sees_more_than_the_setting(make):
    """Simulated time: requests start where their waits put them."""
    starts: list[float] = []
    begin = time.monotonic()
    limiter = make(120, burst=20, longest_wait=1000, sleep=lambda seconds: starts.append(time.monotonic() + seconds))
    for _ in range(400):
        before = len(starts)
        limiter.acquire()
        if len(starts) == before:
            starts.append(time.monotonic())
    starts.sort()
    busiest = max(sum(1 for other in starts if start <= other < start + 60) for start in starts)
    assert 100 <= busiest <= 121
    assert time.monotonic() - begin < 30


def test_it_really_waits(make):
    limiter = make(600, burst=1)
    start = time.monotonic()
    for _ in range(6):
        limiter.acquire()
    assert 0.4 <= time.monotonic() - start < 3


def test_a_pause_holds_everybody_back(make):
    slept: list[float] = []
    one, two = make(6000, sleep=slept.append), make(6000, sleep=slept.append)
    one.acquire()
    one.pause(30)
    two.acquire()
    assert slept == [pytest.approx(30, abs=1)]


def test_a_turn_too_far_away_is_refused_and_not_taken(make):
    slept: list[float] = []
    limiter = make(600, burst=1, longest_wait=5, sleep=slept.append)
    limiter.pause(60)
    for _ in range(3):
        with pytest.raises(RateLimitedError, match="connectwise_api is used up"):
            limiter.acquire()
    assert slept == []
    patient = make(600, burst=1, longest_wait=100, sleep=slept.append)
    patient.acquire()
    assert slept == [pytest.approx(60, abs=2)]


def test_a_cut_connection_is_opened_again(make, billing_db):
    limiter = make(6000)
    limiter.acquire()
    with psycopg.connect(billing_db) as other:
        other.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()"
            " and datname = current_database()"
        )
    limiter.acquire()


def test_a_database_that_is_away_is_temporary():
    def connect_nowhere():
        return psycopg.connect("host=127.0.0.1 port=1 connect_timeout=1")

    with pytest.raises(TemporaryError, match="budget of connectwise_api"):
        DatabaseLimiter(connect_nowhere, "connectwise_api", 600).acquire()


def test_a_request_costs_little(make):
    limiter = make(100_000, burst=50_000)
    limiter.acquire()
    start = time.monotonic()
    for _ in range(200):
        limiter.acquire()
    assert (time.monotonic() - start) / 200 < 0.02


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(ValueError, match="requests_per_minute is 0"):
        DatabaseLimiter(lambda: None, "x", 0)
