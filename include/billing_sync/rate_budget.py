"""One budget of requests for all workers on all machines, kept in the billing database.

pyrate-limiter 4.5 has a PostgreSQL bucket, but it makes its own table outside our migrations, keeps a row per request,
locks the whole table without waiting (a busy worker is refused, not queued) and needs a pool and a thread; hence this.

The algorithm is GCRA (a leaky bucket as a clock): a row holds the moment at which the budget will be used up. A
request moves it on by one interval, in one statement, and learns how long it has to wait. The row lock is the queue.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import psycopg

from billing_sync.errors import RateLimitedError, TemporaryError

log = logging.getLogger(__name__)


class Limiter(Protocol):
    """What a client asks before each request."""

    def acquire(self) -> None:
        """Return when a request may be sent. Raises RateLimitedError when that is too far away."""

    def pause(self, seconds: float) -> None:
        """The service said 429: nobody sends anything for so long."""


class Unlimited:
    """No budget: for tests and for services without one."""

    def acquire(self) -> None:
        return

    def pause(self, seconds: float) -> None:  # noqa: ARG002  (the protocol's name)
        return


class DatabaseLimiter:
    """The budget of one connection, shared through `delivery.rate_budget`.

    connect            opens a connection to the billing database; one is kept, in autocommit mode, so that waiting
                       for the budget never holds anybody's transaction open
    name               whose budget, e.g. `connectwise_api`
    requests_per_minute  the setting of that name; above it, requests wait
    burst              how many requests may go out at once after a quiet time; part of the budget, not on top: it is
                       taken off the minute's rate, so no minute ever sees more than requests_per_minute
    longest_wait       seconds a request waits at most before RateLimitedError is raised instead
    """

    def __init__(
        self,
        connect: Callable[[], psycopg.Connection[Any]],
        name: str,
        requests_per_minute: int,
        *,
        burst: int | None = None,
        longest_wait: float = 300.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if requests_per_minute < 1:
            raise ValueError(f"requests_per_minute is {requests_per_minute}, expected at least 1")
        self._connect = connect
        self._name = name
        self._burst = max(1, min(burst if burst is not None else 10, requests_per_minute // 2 or 1))
        # In any 60 seconds at most 60 / interval + burst requests start, so this interval keeps the promise.
        self._interval = 60.0 / max(1, requests_per_minute - self._burst)
        self._longest_wait = longest_wait
        self._sleep = sleep
        self._lock = threading.Lock()
        self._connection: psycopg.Connection[Any] | None = None

    def acquire(self) -> None:
        """Take one request out of the budget and wait for its turn.

        Raises RateLimitedError (nothing taken) when the turn is further away than longest_wait, TemporaryError when
        the billing database cannot be reached.
        """
        row = self._execute(
            """
            insert into delivery.rate_budget as budget (connection_id, spent_until)
            values (%(name)s, clock_timestamp() + %(interval)s * interval '1 second')
            on conflict (connection_id) do update
                set spent_until = greatest(budget.spent_until, clock_timestamp()) + %(interval)s * interval '1 second'
                where budget.spent_until <= clock_timestamp() + (%(slack)s + %(longest)s) * interval '1 second'
            returning extract(epoch from spent_until - clock_timestamp())::float8 - %(interval)s - %(slack)s
            """,
            {"longest": self._longest_wait},
        )
        if row is None:
            message = f"The request budget of {self._name} is used up for more than {self._longest_wait:.0f} seconds."
            raise RateLimitedError(message, retry_after=int(self._longest_wait))
        wait: float = row[0]
        if wait > 0:
            if wait > 10:
                log.info("Waiting %.0f seconds for the request budget of %s", wait, self._name)
            self._sleep(wait)

    def pause(self, seconds: float) -> None:
        """Move the budget of all workers on: the service wants `seconds` of silence."""
        self._execute(
            """
            insert into delivery.rate_budget as budget (connection_id, spent_until)
            values (%(name)s, clock_timestamp() + (%(seconds)s + %(slack)s) * interval '1 second')
            on conflict (connection_id) do update
                set spent_until = greatest(budget.spent_until, excluded.spent_until)
            returning 1
            """,
            {"seconds": seconds},
        )

    def _execute(self, statement: str, extra: dict[str, float]) -> tuple[Any, ...] | None:
        slack = self._interval * (self._burst - 1)
        values = {"name": self._name, "interval": self._interval, "slack": slack, **extra}
        with self._lock:
            for fresh in (False, True):  # a connection that idled may have been cut: once more on a new one
                failure = ""
                try:
                    if self._connection is None or self._connection.closed:
                        self._connection = self._connect()
                        self._connection.autocommit = True
                        # Losing the last instant of a budget in a crash is harmless; a flush per request is not free.
                        self._connection.execute("set synchronous_commit = off")
                    return self._connection.execute(statement, values).fetchone()
                except psycopg.OperationalError as error:
                    failure = type(error).__name__
                    if self._connection is not None:
                        self._connection.close()
                        self._connection = None
                if fresh:
                    break
        raise TemporaryError(f"The request budget of {self._name} in the billing database cannot be read ({failure}).")

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
