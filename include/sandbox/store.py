"""The state directory: one SQLite file with both services, the journal and the request log.

Every change commits before the reply is sent, so a `kill -9` loses nothing that a client was told.
ConnectWise records are few and are read by condition, so they are kept parsed in memory and written through.
AppXite rows are many and are only listed, so they stay in SQLite as the JSON text that goes on the wire.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sandbox.wire import Json, dumps, loads

SCHEMA = """
create table if not exists meta (name text primary key, value text not null);
create table if not exists appxite_records (
    feed text not null, position integer not null, id text not null, body text not null,
    primary key (feed, position));
create table if not exists appxite_invoices (
    invoice_id integer primary key, invoice_date text not null,
    visibility text not null check (visibility in ('published', 'preview', 'hidden')),
    body text not null);
create index if not exists appxite_invoices_by_date on appxite_invoices (visibility, invoice_date, invoice_id);
create table if not exists appxite_rows (
    line integer primary key autoincrement, invoice_id integer not null, body text not null, detail text not null);
create index if not exists appxite_rows_by_invoice on appxite_rows (invoice_id, line);
create table if not exists connectwise_records (
    kind text not null, id integer not null, body text not null, primary key (kind, id));
create table if not exists journal (
    seq integer primary key autoincrement, at text not null, by text not null, operation text not null,
    agreement_id integer, addition_id integer, record_id integer, marker text, request_seq integer,
    before text, after text);
create index if not exists journal_by_agreement on journal (agreement_id, seq);
create table if not exists requests (
    seq integer primary key autoincrement, at text not null, service text not null, method text not null,
    path text not null, status integer, fault text, outcome text not null);
create table if not exists late (
    id integer primary key autoincrement, due text, request_seq integer not null, method text not null,
    path text not null, query text not null, body text not null);
"""

DEFAULT_SETTINGS: Json = {
    # What ConnectWise answers to bad keys: 401, and on its cloud sometimes 404.
    "bad_keys_status": 401,
    # ConnectWise requests in 60 seconds before it answers 429.
    "requests_per_minute": 1000,
    # AppXite: a first page without anything is a 400 with prose; a page past the end is an empty array.
    "empty_is_400": True,
    "page_past_end_is_400": False,
    # AppXite feeds (last word of the path) whose names come in PascalCase.
    "pascal_feeds": ["contracts"],
    # An unset date of ConnectWise: "mixed" (absent from even ids, "" on odd ones), "absent" or "empty".
    "unset_dates": "mixed",
    # Not known until a real instance answers, hence switches:
    "unit_price_decimals": None,  # how many decimals of unitPrice are kept; None keeps all
    "allow_inactive_products": False,
    "allow_ended_agreements": False,  # a new Addition on a cancelled or expired agreement
    "revalidate_effective_date": False,  # refuse a PATCH whose unchanged effectiveDate has been invoiced since
    "refuse_do_not_bill": False,  # Additions may not be created, nor made, Do Not Bill
    # The day by which agreements and Additions count as over (the data set never asks the wall clock).
    "today": "2026-12-01",
}

# A marker at the end of a description: a token in square brackets.
_DESCRIPTION_MARKER = re.compile(r"\[([^\[\]\s]{4,})\]\s*$")


def utc_now() -> str:
    """Now, as `2026-05-01T12:00:00.123456Z`: fixed width, so that text order is time order."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def marker_of(addition: Json | None) -> str | None:
    """What identifies an Addition to a synchronisation: the custom field, else serialNumber, else the token
    in brackets that ends the invoice description."""
    if not addition:
        return None
    for field in addition.get("customFields") or []:
        if field.get("caption") == "Sync Key" and field.get("value"):
            return str(field["value"])
    if addition.get("serialNumber"):
        return str(addition["serialNumber"])
    match = _DESCRIPTION_MARKER.search(addition.get("invoiceDescription") or "")
    return match.group(1) if match else None


class Store:
    """All state. Hold `lock` (a re-entrant lock) around every use; `transaction()` does so."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.lock = threading.RLock()
        self.db = sqlite3.connect(directory / "sandbox.sqlite", check_same_thread=False, isolation_level=None)
        self.db.execute("pragma journal_mode = wal")
        # normal: a commit survives the death of the process (what the tests do), not a power cut.
        self.db.execute("pragma synchronous = normal")
        self.db.executescript(SCHEMA)
        self._depth = 0
        self._records: dict[str, dict[int, Json]] = {}
        self._additions: dict[int, dict[int, Json]] = {}
        self._settings: Json | None = None
        self._load()

    def _load(self) -> None:
        self._records, self._additions, self._settings = {}, {}, None
        for kind, record_id, body in self.db.execute(
            "select kind, id, body from connectwise_records order by kind, id"
        ):
            self._remember(kind, record_id, loads(body))

    def _remember(self, kind: str, record_id: int, record: Json) -> None:
        self._records.setdefault(kind, {})[record_id] = record
        if kind == "addition":
            self._additions.setdefault(record["agreementId"], {})[record_id] = record

    def close(self) -> None:
        with self.lock:
            self.db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, and the memory follows the file: nested uses join the outer one."""
        with self.lock:
            if self._depth:
                yield
                return
            self._depth = 1
            self.db.execute("begin immediate")
            try:
                yield
            except BaseException:
                self.db.execute("rollback")
                self._load()
                raise
            else:
                self.db.execute("commit")
            finally:
                self._depth = 0

    # -- small values ---------------------------------------------------------------------------------------

    def get(self, name: str, default: Any = None) -> Any:
        """A named value (JSON) or the default."""
        with self.lock:
            row = self.db.execute("select value from meta where name = ?", (name,)).fetchone()
        return default if row is None else loads(row[0])

    def put(self, name: str, value: Any) -> None:
        with self.transaction():
            self.db.execute("insert or replace into meta values (?, ?)", (name, dumps(value)))

    @property
    def settings(self) -> Json:
        """The switches of both services: DEFAULT_SETTINGS and what was changed."""
        with self.lock:
            if self._settings is None:
                self._settings = {**DEFAULT_SETTINGS, **self.get("settings", {})}
            return self._settings

    def change_settings(self, changes: Json) -> Json:
        with self.transaction():
            self._settings = {**self.settings, **changes}
            self.put("settings", self._settings)
            return self._settings

    # -- AppXite --------------------------------------------------------------------------------------------

    def add_appxite_records(self, feed: str, key: str, records: Iterable[Json]) -> None:
        with self.transaction():
            start = self.db.execute(
                "select coalesce(max(position), 0) from appxite_records where feed = ?", (feed,)
            ).fetchone()[0]
            self.db.executemany(
                "insert into appxite_records values (?, ?, ?, ?)",
                ((feed, start + n, str(record[key]), dumps(record)) for n, record in enumerate(records, 1)),
            )

    def add_invoice(self, header: Json, rows: Iterable[tuple[Json, list[Json]]], visibility: str) -> list[int]:
        """Store an invoice; each row comes with its unaggregated vendor lines. Returns the line numbers."""
        with self.transaction():
            self.db.execute(
                "insert or replace into appxite_invoices values (?, ?, ?, ?)",
                (header["invoiceId"], header["invoiceDate"], visibility, dumps(header)),
            )
            return [self.add_row(header["invoiceId"], row, detail) for row, detail in rows]

    def add_row(self, invoice_id: int, row: Json, detail: list[Json]) -> int:
        with self.transaction():
            text = ",".join(dumps(line) for line in detail)
            cursor = self.db.execute(
                "insert into appxite_rows (invoice_id, body, detail) values (?, ?, ?)",
                (invoice_id, dumps(row), text),
            )
            return int(cursor.lastrowid or 0)

    # -- ConnectWise ----------------------------------------------------------------------------------------

    def records(self, kind: str) -> dict[int, Json]:
        """All records of a kind by id, ascending. Never change one in place: `save` a new one."""
        return self._records.setdefault(kind, {})

    def additions(self, agreement_id: int) -> dict[int, Json]:
        return self._additions.setdefault(agreement_id, {})

    def next_id(self, kind: str, first: int) -> int:
        """A fresh id. Ids are never used again, also not after a delete."""
        with self.transaction():
            used = max(self.get(f"last_id_{kind}", 0), max(self.records(kind), default=first - 1))
            self.put(f"last_id_{kind}", used + 1)
            return int(used) + 1

    def save(self, kind: str, record: Json) -> None:
        with self.transaction():
            self.db.execute(
                "insert or replace into connectwise_records values (?, ?, ?)",
                (kind, record["id"], dumps(record)),
            )
            self._remember(kind, record["id"], record)

    def delete(self, kind: str, record: Json) -> None:
        with self.transaction():
            self.db.execute("delete from connectwise_records where kind = ? and id = ?", (kind, record["id"]))
            self._records[kind].pop(record["id"], None)
            if kind == "addition":
                self._additions[record["agreementId"]].pop(record["id"], None)

    # -- journal and request log ----------------------------------------------------------------------------

    def journal(
        self,
        by: str,
        operation: str,
        before: Json | None,
        after: Json | None,
        request_seq: int | None = None,
    ) -> int:
        """Append one applied change. `by` is api, late, person or invoicing. Returns its sequence number."""
        record = after or before or {}
        is_addition = operation.startswith("addition.")
        agreement_id = record.get("agreementId") if is_addition else None
        if operation.startswith("agreement."):
            agreement_id = record.get("id")
        elif operation.startswith("invoice."):
            agreement_id = (record.get("agreement") or {}).get("id")
        with self.transaction():
            cursor = self.db.execute(
                "insert into journal (at, by, operation, agreement_id, addition_id, record_id, marker, request_seq,"
                " before, after) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    utc_now(),
                    by,
                    operation,
                    agreement_id,
                    record.get("id") if is_addition else None,
                    record.get("id"),
                    marker_of(record) if is_addition else None,
                    request_seq,
                    None if before is None else dumps(before),
                    None if after is None else dumps(after),
                ),
            )
            return int(cursor.lastrowid or 0)

    def log_request(self, service: str, method: str, path: str) -> int:
        """Write down that a request came in (no query, no headers: both carry keys). Returns its number."""
        with self.lock:
            cursor = self.db.execute(
                "insert into requests (at, service, method, path, outcome) values (?, ?, ?, ?, 'received')",
                (utc_now(), service, method, path),
            )
            return int(cursor.lastrowid or 0)

    def finish_request(self, seq: int, status: int | None, fault: str | None, outcome: str) -> None:
        """Outcome: answered, applied (a write that took effect), refused, pending (late) or lost (reset)."""
        with self.lock:
            self.db.execute(
                "update requests set status = ?, fault = ?, outcome = ? where seq = ?",
                (status, fault, outcome, seq),
            )
