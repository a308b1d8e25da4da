"""Loads the feeds of both services into schema staging, whole or not at all.

One feed is one transaction: its rows arrive by COPY, page by page, while the next page is fetched, and its row of
staging.extract is committed with them. So the presence of that row means that the feed is whole, memory holds two
pages at a time, and a task that is cleared and run again replaces what it loaded (run, source, feed, period).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, TypeVar

import psycopg
from psycopg import sql

from billing_sync import records
from billing_sync.appxite import AppXite
from billing_sync.connectwise import ConnectWise
from billing_sync.db import Connection
from billing_sync.errors import TemporaryError
from billing_sync.records import Shape, problem_text, raw_json

log = logging.getLogger(__name__)

PROGRESS_EVERY = 10  # pages
_LOCK_TIMEOUT = "60s"

Page = list[dict[str, Any]]
T = TypeVar("T")


@dataclass(frozen=True)
class ExtractCounts:
    """What extract_invoices staged for one period. problems: headers and rows that could not be read in full."""

    headers: int
    rows: int
    pages: int
    problems: int


@dataclass(frozen=True)
class ReferenceCounts:
    """What was staged: rows per feed, and warnings for people about records left out or mended."""

    rows: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


# -- invoices --------------------------------------------------------------------------------------------------------


def extract_invoices(conn: Connection, appxite: AppXite, run_id: int, period: date) -> ExtractCounts:
    """Stage all invoice headers and rows whose invoice date lies in a calendar month.

    period: any day of the month. Both feeds are one transaction, since one without the other is of no use.
    Raises TemporaryError when AppXite changed while it was read (nothing is staged), and what AppXite's client raises.
    """
    first = period.replace(day=1)
    last = (first + timedelta(days=31)).replace(day=1) - timedelta(days=1)
    with conn.transaction():
        with _extract(conn, run_id, "appxite", "invoice_headers", first) as headers:
            headers.load_invoices(
                "invoice_header", records.INVOICE_HEADER, appxite.invoice_headers(first, last), ("invoice_id",)
            )
        with _extract(conn, run_id, "appxite", "invoice_rows", first) as rows:
            rows.load_invoices(
                "invoice_row", records.INVOICE_ROW, appxite.invoice_rows(first, last), ("invoice_id", "row_id")
            )
    return ExtractCounts(headers.rows, rows.rows, headers.pages + rows.pages, headers.problems + rows.problems)


# -- reference data --------------------------------------------------------------------------------------------------


def extract_appxite_reference(conn: Connection, appxite: AppXite, run_id: int) -> ReferenceCounts:
    """Stage organizations, contracts and subscriptions. Each feed is a transaction of its own."""
    result = ReferenceCounts()
    for feed, table, shape, pages in (
        ("organizations", "organization", records.ORGANIZATION, appxite.organizations),
        ("contracts", "contract", records.CONTRACT, appxite.contracts),
        ("subscriptions", "subscription", records.SUBSCRIPTION, appxite.subscriptions),
    ):
        _reference(conn, run_id, "appxite", feed, table, shape, pages(), result)
    return result


def extract_connectwise_reference(conn: Connection, connectwise: ConnectWise, run_id: int) -> ReferenceCounts:
    """Stage companies, products, agreement types, billing cycles and agreements, each in a transaction of its own."""
    result = ReferenceCounts()
    for feed, table, shape, pages in (
        ("companies", "company", records.COMPANY, connectwise.companies),
        ("products", "product", records.PRODUCT, connectwise.products),
        ("agreement_types", "agreement_type", records.AGREEMENT_TYPE, connectwise.agreement_types),
        ("billing_cycles", "billing_cycle", records.BILLING_CYCLE, connectwise.billing_cycles),
        ("agreements", "agreement", records.AGREEMENT, connectwise.agreements),
    ):
        _reference(conn, run_id, "connectwise", feed, table, shape, pages(), result)
    return result


def _reference(
    conn: Connection,
    run_id: int,
    source: str,
    feed: str,
    table: str,
    shape: Shape,
    pages: Iterator[Page],
    result: ReferenceCounts,
) -> None:
    with conn.transaction(), _extract(conn, run_id, source, feed) as extract:
        extract.load_reference(table, shape, pages, result.warnings)
    result.rows[feed] = extract.rows


# -- Additions -------------------------------------------------------------------------------------------------------


def extract_additions(
    conn: Connection,
    connectwise: ConnectWise,
    run_id: int,
    agreement_ids: Iterable[int],
    marker_of: Callable[[dict[str, Any]], str | None],
    *,
    append: bool = True,
    feed: str = "additions",
    connections: int = 4,
) -> ReferenceCounts:
    """Stage the Additions of these agreements.

    marker_of     our marker on an Addition, or None (the setting marker_carrier decides)
    append        True: what this run staged of other agreements stays, so that shards may be read side by side;
                  False: only these agreements' Additions remain in the feed
    feed          name in staging.extract; one per shard ("additions/3") keeps shards apart, one for all works as well
    connections   agreements listed at the same time

    What this run staged before of the same agreements is replaced. Unreadable values of an Addition are null, with a
    warning: leaving it out would look as if it did not exist.
    """
    ids = sorted(set(agreement_ids))
    warnings: list[str] = []
    shape, rows, pages = records.ADDITION, 0, 0

    def read(agreement_id: int) -> tuple[int, list[Page]]:
        return agreement_id, list(connectwise.additions(agreement_id))

    with conn.transaction():
        # Filled while ConnectWise is read; the feed's own row is locked only for the moment in which it is taken over.
        conn.execute("drop table if exists pg_temp.loaded_addition")
        columns = sql.SQL(", ").join(map(sql.Identifier, shape.columns))
        conn.execute(
            sql.SQL(
                "create temp table loaded_addition on commit drop as select {} from staging.addition with no data"
            ).format(columns)
        )
        statement = sql.SQL("copy loaded_addition ({}) from stdin").format(columns)
        with conn.cursor() as cursor, cursor.copy(statement) as copy:
            for number, (agreement_id, listed) in enumerate(_side_by_side(read, ids, connections), 1):
                pages += max(1, len(listed))
                for row in _addition_rows(shape, agreement_id, listed, marker_of, warnings):
                    copy.write_row(row)
                    rows += 1
                if number % (10 * PROGRESS_EVERY) == 0:
                    log.info("Additions: %d of %d agreements, %d rows so far", number, len(ids), rows)
        _lock(conn, run_id, "connectwise", feed, None)
        if not append:
            conn.execute(
                "delete from staging.extract where run_id = %s and source = 'connectwise' and feed = %s", (run_id, feed)
            )
        conn.execute(
            """
            delete from staging.addition as addition using staging.extract as extract
            where extract.extract_id = addition.extract_id and extract.run_id = %s
                and extract.source = 'connectwise' and addition.agreement_id = any(%s)
            """,
            (run_id, ids),
        )
        found = conn.execute(
            """
            insert into staging.extract as extract (run_id, source, feed, page_count, row_count, ended_at)
            values (%s, 'connectwise', %s, %s, 0, clock_timestamp())
            on conflict (run_id, source, feed, billing_period) do update
                set page_count = extract.page_count + excluded.page_count, ended_at = clock_timestamp()
            returning extract_id
            """,
            (run_id, feed, pages),
        ).fetchone()
        assert found is not None
        conn.execute(
            sql.SQL("insert into staging.addition (extract_id, {0}) select %s, {0} from loaded_addition").format(
                columns
            ),
            (found[0],),
        )
        conn.execute(
            """
            update staging.extract set row_count = (select count(*) from staging.addition where extract_id = %(id)s)
            where extract_id = %(id)s
            """,
            {"id": found[0]},
        )
    log.info("Additions: %d rows of %d agreements", rows, len(ids))
    return ReferenceCounts({feed: rows}, warnings)


def _addition_rows(
    shape: Shape,
    agreement_id: int,
    listed: list[Page],
    marker_of: Callable[[dict[str, Any]], str | None],
    warnings: list[str],
) -> Iterator[tuple[Any, ...]]:
    place = shape.columns.index("addition_id")
    seen: set[int] = set()
    for page in listed:
        # The list stands for the agreement: agreementId of a record may be absent.
        marked = [{**record, "agreementId": agreement_id, "marker": marker_of(record)} for record in page]
        for row, problems in shape.rows(marked):
            addition_id = row[place]
            if addition_id is None:
                warnings.append(f"An Addition of agreement {agreement_id} has no readable id and was left out.")
                continue
            if addition_id in seen:
                raise TemporaryError(
                    f"ConnectWise, Additions of agreement {agreement_id}: {addition_id} came twice; the list changed "
                    "while being read; run again."
                )
            seen.add(addition_id)
            if problems:
                warnings.append(f"Addition {addition_id} of agreement {agreement_id}: {problem_text(problems)}")
            yield row


# -- one feed --------------------------------------------------------------------------------------------------------


class _Extract:
    """A row of staging.extract under construction."""

    def __init__(self, conn: Connection, extract_id: int, source: str, words: str) -> None:
        self._conn = conn
        self._extract_id = extract_id
        self._service = "AppXite" if source == "appxite" else "ConnectWise"
        self._words = words
        self.rows = 0
        self.pages = 0
        self.problems = 0

    def load_invoices(self, table: str, shape: Shape, pages: Iterator[Page], key: tuple[str, ...]) -> None:
        """COPY all rows with their problems and raw JSON, then make sure that no row came twice."""

        def rows() -> Iterator[tuple[Any, ...]]:
            for page in self._read(pages):
                for record, (values, problems) in zip(page, shape.rows(page), strict=True):
                    raw, unstorable = raw_json(record)
                    found = problem_text([*problems, *unstorable])
                    self.rows += 1
                    self.problems += found is not None
                    yield (self._extract_id, self.rows, *values, found, raw)

        self._copy(table, ("extract_id", "position", *shape.columns, "problem", "raw"), rows())
        self._refuse_repeated(table, key)

    def load_reference(self, table: str, shape: Shape, pages: Iterator[Page], warnings: list[str]) -> None:
        """COPY all records that can be read. The first column is the id; a record without one is left out."""
        seen: set[Any] = set()

        def rows() -> Iterator[tuple[Any, ...]]:
            for page in self._read(pages):
                for values, problems in shape.rows(page):
                    if problems:
                        left_out = not all(problem.mended for problem in problems)
                        done = "left out" if left_out else "mended"
                        name = values[0] if values[0] is not None else "without a readable id"
                        warnings.append(
                            f"{self._service}, {self._words}: record {name} was {done}: {problem_text(problems)}"
                        )
                        self.problems += 1
                        if left_out:
                            continue
                    if values[0] in seen:
                        raise self._changed(f"{values[0]} came twice")
                    seen.add(values[0])
                    self.rows += 1
                    yield (self._extract_id, *values)

        self._copy(table, ("extract_id", *shape.columns), rows())

    def _read(self, pages: Iterator[Page]) -> Iterator[Page]:
        for page in _ahead(pages):
            self.pages += 1
            yield page
            if self.pages % PROGRESS_EVERY == 0:
                log.info("%s, %s: %d pages, %d rows so far", self._service, self._words, self.pages, self.rows)

    def _copy(self, table: str, columns: tuple[str, ...], rows: Iterator[tuple[Any, ...]]) -> None:
        statement = sql.SQL("copy staging.{} ({}) from stdin").format(
            sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
        )
        with closing(rows), self._conn.cursor() as cursor, cursor.copy(statement) as copy:  # type: ignore[type-var]
            for row in rows:
                copy.write_row(row)

    def _refuse_repeated(self, table: str, key: tuple[str, ...]) -> None:
        """A row that came on two pages means that another one may have come on none."""
        columns = sql.SQL(", ").join(map(sql.Identifier, key))
        statement = sql.SQL(
            "select {columns} from staging.{table} where extract_id = %s and num_nulls({columns}) = 0"
            " group by {columns} having count(*) > 1 order by {columns} limit 3"
        ).format(columns=columns, table=sql.Identifier(table))
        repeated = self._conn.execute(statement, (self._extract_id,)).fetchall()
        if repeated:
            named = ", ".join("/".join(map(str, found)) for found in repeated)
            raise self._changed(f"{' and '.join(key)} {named} came twice")

    def _changed(self, why: str) -> TemporaryError:
        return TemporaryError(
            f"{self._service}, {self._words}: {why}; the feed changed while being read; run again. Nothing was staged."
        )

    def finish(self) -> None:
        self._conn.execute(
            "update staging.extract set page_count = %s, row_count = %s, ended_at = clock_timestamp()"
            " where extract_id = %s",
            (self.pages, self.rows, self._extract_id),
        )
        held = f", {self.problems} of them with problems" if self.problems else ""
        log.info("%s, %s: whole, %d pages, %d rows%s", self._service, self._words, self.pages, self.rows, held)


@contextmanager
def _extract(conn: Connection, run_id: int, source: str, feed: str, period: date | None = None) -> Iterator[_Extract]:
    """Replace what this run staged of the feed; the caller holds the transaction."""
    _lock(conn, run_id, source, feed, period)
    key = (run_id, source, feed, period)
    conn.execute(
        "delete from staging.extract where run_id = %s and source = %s and feed = %s"
        " and billing_period is not distinct from %s",
        key,
    )
    found = conn.execute(
        "insert into staging.extract (run_id, source, feed, billing_period) values (%s, %s, %s, %s)"
        " returning extract_id",
        key,
    ).fetchone()
    assert found is not None
    words = feed.replace("_", " ") + (f" of {period:%Y-%m}" if period else "")
    extract = _Extract(conn, found[0], source, words)
    yield extract
    extract.finish()


def _lock(conn: Connection, run_id: int, source: str, feed: str, period: date | None) -> None:
    """Let two tries of one task load one after the other: the second replaces the first.

    Airflow can run two tries at once (docs/runbook.md). Raises TemporaryError if the other one does not end.
    """
    name = f"staging.extract/{run_id}/{source}/{feed}/{period}"
    blocked = False
    try:
        with conn.transaction():
            conn.execute("select set_config('lock_timeout', %s, true)", (_LOCK_TIMEOUT,))
            conn.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", (name,))
            conn.execute("select set_config('lock_timeout', '0', true)")
    except psycopg.errors.LockNotAvailable:
        blocked = True
    if blocked:
        raise TemporaryError(f"Another try of this task is loading {feed} of run {run_id}; run again later.")


# -- reading ahead ---------------------------------------------------------------------------------------------------

_END: Any = object()


def _ahead(pages: Iterator[T]) -> Iterator[T]:
    """The same pages; while the caller works on one, the next is fetched."""
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="next-page")
    try:
        coming: Future[T] = pool.submit(next, pages, _END)
        while (page := coming.result()) is not _END:
            coming = pool.submit(next, pages, _END)
            yield page
    finally:
        # Not waited for: after an error nobody wants the page that is still on its way.
        pool.shutdown(wait=False, cancel_futures=True)


def _side_by_side(read: Callable[[int], T], ids: list[int], connections: int) -> Iterator[T]:
    """read(id) for each id, in order, some at the same time; at most twice as many wait to be taken."""
    pool = ThreadPoolExecutor(max_workers=max(1, connections), thread_name_prefix="additions")
    waiting: deque[Future[T]] = deque()
    try:
        for one in ids:
            waiting.append(pool.submit(read, one))
            if len(waiting) >= 2 * max(1, connections):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
