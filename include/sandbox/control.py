"""The control API: what a test or a demo asks of the sandbox beside the two services.

Each method of `Control` is one route under `/_sandbox/` (table ROUTES at the end) and can be called from Python on
a `Sandbox`. Nothing here needs keys; the server listens on the loopback interface unless told otherwise.
Changes "as a person" skip the rules of the API, as the ConnectWise client does, and are journalled `by: person`.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sandbox import fields as models
from sandbox.appxite import ACCEPTED_STATUSES, AppXite
from sandbox.connectwise import ConnectWise
from sandbox.faults import Faults
from sandbox.invoicing import invoice_agreement, invoice_through
from sandbox.messages import Refusal, Request, Response
from sandbox.store import DEFAULT_SETTINGS, Store, marker_of
from sandbox.wire import Json, loads, parse_date

_JOURNAL_NAMES = (
    *("seq", "at", "by", "operation", "agreement_id", "addition_id", "record_id", "marker", "request_seq"),
    *("before", "after"),
)
_JOURNAL = """
    select seq, at, by, operation, agreement_id, addition_id, record_id, marker, request_seq, before, after
    from journal
    where seq > ?1 and (?2 is null or agreement_id = ?2) and (?3 is null or addition_id = ?3)
      and (?4 is null or marker = ?4) and (?5 is null or operation = ?5) and (?6 is null or by = ?6)
    order by seq limit ?7"""
_REQUEST_NAMES = ("seq", "at", "service", "method", "path", "status", "fault", "outcome")
_REQUESTS = "select seq, at, service, method, path, status, fault, outcome from requests where seq > ? order by seq"
_WRITES = """
    select method, outcome from requests
    where service = 'connectwise' and method in ('POST', 'PUT', 'PATCH', 'DELETE') and seq > ?"""
_KINDS = {"agreements": "agreement", "companies": "company", "catalog": "product"}


class Control:
    """The control API as Python methods. Amounts are Decimal, dates are ISO text, as in JSON."""

    store: Store
    appxite: AppXite
    connectwise: ConnectWise
    fault_rules: Faults

    # -- state of the sandbox -----------------------------------------------------------------------------------

    def health(self) -> Json:
        with self.store.lock:
            return {
                "status": "ok",
                "parameters": self.store.get("parameters"),
                "invoices": self._number("select count(*) from appxite_invoices"),
                "rows": self._number("select count(*) from appxite_rows"),
                "agreements": len(self.store.records("agreement")),
                "additions": len(self.store.records("addition")),
                "journal": self._number("select coalesce(max(seq), 0) from journal"),
                "requests": self._number("select coalesce(max(seq), 0) from requests"),
                "pending": self._number("select count(*) from late"),
            }

    def _number(self, sql: str, *values: Any) -> int:
        return int(self.store.db.execute(sql, values).fetchone()[0])

    def settings(self) -> Json:
        with self.store.lock:
            return dict(self.store.settings)

    def change_settings(self, **changes: Any) -> Json:
        """Change switches (`store.DEFAULT_SETTINGS`); the minute of the request limit starts anew."""
        unknown = set(changes) - set(DEFAULT_SETTINGS)
        if unknown:
            raise ValueError(f"unknown setting: {', '.join(sorted(unknown))}")
        with self.store.lock:
            self.connectwise.forget_recent()
            return dict(self.store.change_settings(changes))

    # -- faults -------------------------------------------------------------------------------------------------

    def add_fault(self, kind: str, **rule: Any) -> Json:
        """Add a rule (see `faults`); returns it with its id."""
        with self.store.lock:
            return self.fault_rules.add(kind=kind, **rule).describe()

    def faults(self) -> list[Json]:
        with self.store.lock:
            return [rule.describe() for rule in self.fault_rules.rules]

    def clear_faults(self, rule_id: int | None = None) -> None:
        with self.store.lock:
            self.fault_rules.clear(rule_id)

    def late(self) -> list[Json]:
        """Requests that were accepted and are still to be applied. `due` is null until released."""
        with self.store.lock:
            rows = self.store.db.execute("select id, due, request_seq, method, path from late order by id")
            return [dict(zip(("id", "due", "requestSeq", "method", "path"), row, strict=True)) for row in rows]

    def release_late(self) -> list[Json]:
        """Apply every pending late request now. Returns `[{id, status}]`."""
        raise NotImplementedError  # by the server, which knows how to apply one

    # -- journal and request log --------------------------------------------------------------------------------

    def journal(
        self,
        since: int = 0,
        limit: int = 100000,
        agreement_id: int | None = None,
        addition_id: int | None = None,
        marker: str | None = None,
        operation: str | None = None,
        by: str | None = None,
    ) -> list[Json]:
        """Applied changes with a sequence number above `since`, oldest first.

        Shape: `{seq, at, by, operation, agreement_id, addition_id, record_id, marker, request_seq, before, after}`;
        `at` is UTC, `before` and `after` are whole records or null.
        """
        filters = (since, agreement_id, addition_id, marker, operation, by, limit)
        with self.store.lock:
            rows = self.store.db.execute(_JOURNAL, filters).fetchall()
        entries = [dict(zip(_JOURNAL_NAMES, row, strict=True)) for row in rows]
        for entry in entries:
            for name in ("before", "after"):
                entry[name] = None if entry[name] is None else loads(entry[name])
        return entries

    def writes(self, since: int = 0) -> Json:
        """How many ConnectWise writes came in after request `since`, and what became of them.

        received = applied + refused + not_applied + pending. A write that changed nothing counts as applied, but
        only changes are in the journal (`changes`: those by the API, late ones included).
        """
        with self.store.lock:
            received = self.store.db.execute(_WRITES, (since,)).fetchall()
            changes = self._number(
                "select count(*) from journal where by in ('api', 'late') and request_seq > ?", since
            )
        names = ("applied", "refused", "not_applied", "pending")
        return {
            "received": len(received),
            **{name: sum(outcome == name for _, outcome in received) for name in names},
            "changes": changes,
            "methods": dict(Counter(method for method, _ in received)),
        }

    def requests(
        self,
        since: int = 0,
        service: str | None = None,
        method: str | None = None,
        path: str | None = None,
        outcome: str | None = None,
        limit: int = 100000,
    ) -> list[Json]:
        """The request log: `{seq, at, service, method, path, status, fault, outcome}`; `path` filters by regex.

        Paths are without query, and no header is kept: neither log holds a key.
        """
        with self.store.lock:
            rows = self.store.db.execute(_REQUESTS, (since,)).fetchall()
        entries = [dict(zip(_REQUEST_NAMES, row, strict=True)) for row in rows]
        wanted = {"service": service, "method": method, "outcome": outcome}
        return [
            entry
            for entry in entries
            if all(value is None or entry[name] == value for name, value in wanted.items())
            and (path is None or re.search(path, entry["path"]))
        ][:limit]

    # -- ConnectWise, as a person -------------------------------------------------------------------------------

    def invoice(self, agreement_id: int | None = None, through: str | None = None) -> list[Json]:
        """Run agreement invoicing: the next cycle of one agreement, or with `through` (a date) every cycle that
        starts on or before it, of one agreement or of all active ones. Returns the invoices with their lines."""
        with self.store.transaction():
            if agreement_id is not None and through is None:
                made = invoice_agreement(self.store, agreement_id)
                return [] if made is None else [made]
            day = parse_date(through or self.store.settings["today"])
            return invoice_through(self.store, day, agreement_id)

    def invoices(self, agreement_id: int | None = None) -> list[Json]:
        """What agreement invoicing produced, lines included."""
        with self.store.lock:
            invoices = self.store.records("invoice").values()
            return [one for one in invoices if agreement_id in (None, one["agreement"]["id"])]

    def copy_agreement(self, agreement_id: int, name: str | None = None) -> Json:
        with self.store.lock:
            return self.connectwise.copy_agreement(agreement_id, name)

    def agreements(self) -> list[Json]:
        with self.store.lock:
            return list(self.store.records("agreement").values())

    def additions(self, agreement_id: int | None = None, marker: str | None = None) -> list[Json]:
        """All Additions (of an agreement, with a marker) as they are now, each with its `marker`."""
        with self.store.lock:
            known = self.store.records("addition") if agreement_id is None else self.store.additions(agreement_id)
            marked = [{**addition, "marker": marker_of(addition)} for addition in known.values()]
        return [addition for addition in marked if marker in (None, addition["marker"])]

    def add_addition(self, agreement_id: int, body: Json) -> Json:
        with self.store.transaction():
            return self.connectwise.create_addition(self._record("agreement", agreement_id), body, "person")

    def change_addition(self, addition_id: int, changes: Json) -> Json:
        """Overwrite fields of an Addition; a null resets one."""
        with self.store.transaction():
            before = self._record("addition", addition_id)
            cleaned = self.connectwise.clean("Addition", changes, models.ADDITION)
            unset = {models.ADDITION[name.lower()].name for name, value in changes.items() if value is None}
            wanted = {name: value for name, value in before.items() if name not in unset} | cleaned
            agreement = self._record("agreement", before["agreementId"])
            return self.connectwise.update_addition(agreement, before, wanted, "person")

    def delete_addition(self, addition_id: int) -> None:
        with self.store.transaction():
            self.connectwise.delete_addition(self._record("addition", addition_id), "person")

    def change_record(self, resource: str, record_id: int, changes: Json) -> Json:
        """Overwrite fields of one of `agreements`, `companies` or `catalog` (a product)."""
        kind = _KINDS[resource]
        with self.store.transaction():
            before = self._record(kind, record_id)
            if kind == "agreement":
                cleaned = self.connectwise.clean("Agreement", changes, models.AGREEMENT)
                return self.connectwise.update_agreement(before, {**before, **cleaned}, "person")
            model = models.COMPANY if kind == "company" else models.PRODUCT
            cleaned = self.connectwise.clean(kind.capitalize(), changes, model)
            return self.connectwise.store_change(kind, before, {**before, **cleaned}, "person")

    def _record(self, kind: str, record_id: int) -> Json:
        try:
            return self.store.records(kind)[record_id]
        except KeyError:
            raise KeyError(f"there is no {kind} {record_id}") from None

    # -- AppXite ------------------------------------------------------------------------------------------------

    def appxite_invoices(self) -> list[Json]:
        """Every header with its `visibility` (published, preview or hidden), newest last."""
        sql = "select visibility, body from appxite_invoices order by invoice_date, invoice_id"
        with self.store.lock:
            return [{**loads(body), "visibility": shown} for shown, body in self.store.db.execute(sql)]

    def appxite_invoice(self, invoice_id: int) -> Json:
        """`{visibility, header, rows: [{line, row}]}`; `line` is how the control API addresses a row."""
        with self.store.lock:
            return self.appxite.invoice(invoice_id)

    def add_appxite_invoice(self, header: Json, rows: list[Json], visibility: str = "published") -> Json:
        """Add or replace (re-issue) an invoice, whole: header and rows."""
        with self.store.transaction():
            self.store.db.execute("delete from appxite_rows where invoice_id = ?", (header["invoiceId"],))
            self.store.add_invoice(header, [(row, []) for row in rows], visibility)
            return self.appxite.invoice(header["invoiceId"])

    def change_appxite_invoice(self, invoice_id: int, changes: Json) -> Json:
        """Overwrite header fields; a new `status` brings its statusId along."""
        with self.store.lock:
            return self.appxite.change_invoice(invoice_id, changes)

    def show_appxite_invoice(self, invoice_id: int, visibility: str = "published") -> Json:
        """Publish an invoice, or hide it (`hidden`, `preview`) until it is published later."""
        with self.store.lock:
            return self.appxite.change_invoice(invoice_id, {}, visibility)

    def delete_appxite_invoice(self, invoice_id: int) -> None:
        with self.store.lock:
            self.appxite.delete_invoice(invoice_id)

    def add_appxite_row(self, invoice_id: int, row: Json) -> Json:
        """Add a row as it is; the total of the header stays what it was. Returns `{line, row}`."""
        with self.store.transaction():
            self.appxite.invoice(invoice_id)
            return {"line": self.store.add_row(invoice_id, row, []), "row": row}

    def change_appxite_row(self, line: int, changes: Json) -> Json:
        with self.store.lock:
            return {"line": line, "row": self.appxite.change_row(line, changes)}

    def delete_appxite_row(self, line: int) -> None:
        with self.store.lock:
            self.appxite.delete_row(line)

    # -- what a checker needs -----------------------------------------------------------------------------------

    def truth(self, statuses: str | None = None) -> list[Json]:
        """What the requester is to be paid: its published invoices in an accepted status (or in one of `statuses`,
        separated by commas), each a header with its `lines`; a line is a row with its `line` number."""
        with self.store.lock:
            return self.appxite.truth(tuple(statuses.split(",")) if statuses else ACCEPTED_STATUSES)

    def anomalies(self) -> list[Json]:
        """What the data set planted: `{kind, organizationId, ...}`."""
        with self.store.lock:
            return list(self.store.get("anomalies", []))

    def mapping_csv(self, name: str) -> str:
        """The mapping file `organizations` or `offers` as an administrator would prepare it."""
        with self.store.lock:
            rows = self.store.get("mappings")[name]
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()


# -- HTTP -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Route:
    """What to call for a method and a path: groups of the path and the query become arguments by their name, a
    JSON body becomes the argument `body`, or with `body="*"` each of its fields becomes one."""

    method: str
    path: str
    call: Callable[..., Any]
    body: str = ""

    def arguments(self, match: re.Match[str], request: Request) -> Json:
        given = {**match.groupdict(), **request.query}
        arguments: Json = {name: int(text) if name in _NUMBERS else text for name, text in given.items()}
        value = loads(request.body) if request.body else {}
        if not isinstance(value, dict):
            raise TypeError("the body is a JSON object")
        if self.body == "*":
            arguments |= value
        elif self.body:
            arguments[self.body] = value
        return arguments


_NUMBERS = frozenset({"since", "limit", "agreement_id", "addition_id", "record_id", "invoice_id", "rule_id", "line"})
_AGREEMENT = r"/connectwise/agreements/(?P<agreement_id>\d+)"
_ADDITION = r"/connectwise/additions/(?P<addition_id>\d+)"
_RECORD = r"/connectwise/(?P<resource>agreements|companies|catalog)/(?P<record_id>\d+)"
_INVOICE = r"/appxite/invoices/(?P<invoice_id>\d+)"
_ROW = r"/appxite/rows/(?P<line>\d+)"

ROUTES = [
    Route("GET", "/health", Control.health),
    Route("GET", "/settings", Control.settings),
    Route("PATCH", "/settings", Control.change_settings, body="*"),
    Route("GET", "/faults", Control.faults),
    Route("POST", "/faults", Control.add_fault, body="*"),
    Route("DELETE", "/faults", Control.clear_faults),
    Route("DELETE", r"/faults/(?P<rule_id>\d+)", Control.clear_faults),
    Route("GET", "/late", Control.late),
    # By name, because the server overrides it.
    Route("POST", "/late/release", lambda control: control.release_late()),
    Route("GET", "/journal", Control.journal),
    Route("GET", "/journal/writes", Control.writes),
    Route("GET", "/requests", Control.requests),
    Route("POST", "/invoicing", Control.invoice, body="*"),
    Route("GET", "/invoices", Control.invoices),
    Route("GET", "/connectwise/agreements", Control.agreements),
    Route("POST", _AGREEMENT + "/copy", Control.copy_agreement, body="*"),
    Route("POST", _AGREEMENT + "/additions", Control.add_addition, body="body"),
    Route("GET", "/connectwise/additions", Control.additions),
    Route("PATCH", _ADDITION, Control.change_addition, body="changes"),
    Route("DELETE", _ADDITION, Control.delete_addition),
    Route("PATCH", _RECORD, Control.change_record, body="changes"),
    Route("GET", "/appxite/invoices", Control.appxite_invoices),
    Route("POST", "/appxite/invoices", Control.add_appxite_invoice, body="*"),
    Route("GET", _INVOICE, Control.appxite_invoice),
    Route("PATCH", _INVOICE, Control.change_appxite_invoice, body="changes"),
    Route("DELETE", _INVOICE, Control.delete_appxite_invoice),
    Route("POST", _INVOICE + "/show", Control.show_appxite_invoice, body="*"),
    Route("POST", _INVOICE + "/rows", Control.add_appxite_row, body="row"),
    Route("PATCH", _ROW, Control.change_appxite_row, body="changes"),
    Route("DELETE", _ROW, Control.delete_appxite_row),
    Route("GET", "/truth", Control.truth),
    Route("GET", "/anomalies", Control.anomalies),
    Route("GET", r"/mappings/(?P<name>organizations|offers)\.csv", Control.mapping_csv),
]


def dispatch(control: Control, request: Request) -> Response:
    """Answer a request below /_sandbox: 200 with JSON (CSV for a mapping), 204 for nothing, 400, 404 or 405."""
    path = request.path[len("/_sandbox") :].rstrip("/")
    found = [(route, match) for route in ROUTES if (match := re.fullmatch(route.path, path))]
    if not found:
        return Response(404, {"message": f"There is no {request.path}."})
    for route, match in found:
        if route.method == request.method:
            return _call(control, route, match, request)
    return Response(405, {"message": f"{request.method} is not allowed here."})


def _call(control: Control, route: Route, match: re.Match[str], request: Request) -> Response:
    try:
        result = route.call(control, **route.arguments(match, request))
    except Refusal as refusal:
        return refusal.response
    except KeyError as problem:
        return Response(404, {"message": str(problem.args[0])})
    except (TypeError, ValueError) as problem:  # BadJson and CannotInvoice are ValueErrors
        return Response(400, {"message": str(problem)})
    if result is None:
        return Response(204)
    if isinstance(result, str):
        return Response(200, text=result, headers={"Content-Type": "text/csv; charset=utf-8"})
    return Response(200, result)
