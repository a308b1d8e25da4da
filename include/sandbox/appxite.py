"""The AppXite half: the Reporting API feeds of `appxite_reporting_api.yaml`, traps included.

* The key travels in the query (`sasKey`); a wrong one is a 401.
* An unknown requester, and a period without invoices, is a 400 with prose, not an empty 200.
* A page is a JSON array; a page shorter than pageSize is the last one. Above 1,000 pageSize is capped silently.
* Some feeds spell their names in PascalCase (setting `pascal_feeds`), and all carry fields nobody asked for.
"""

from __future__ import annotations

import contextlib
import hmac
import re
from datetime import date
from typing import Any

from sandbox.messages import Credentials, Refusal, Request, Response
from sandbox.store import Store
from sandbox.wire import Json, dumps, loads

BASE = "/api/v1/reporting"
DEFAULT_PAGE_SIZE = MAX_PAGE_SIZE = 1000

STATUS_IDS = {"New": 0, "Verified": 1, "Issued": 2, "Paid": 3, "Payment Card Error": 4, "New Corrected": 6}
"""Only 1 and 6 are published by AppXite; the others are modelled."""

ACCEPTED_STATUSES = ("Verified", "Issued", "Paid")
"""What has reached Verified, and so is to be billed."""

_ROUTE = re.compile(
    rf"{BASE}/(?P<feed>invoices/invoice-headers|invoices/invoice-rows|organizations/details|organizations|contracts"
    r"|subscriptions|offers)(?P<preview>/preview)?/(?P<requester>[^/]+)(?P<late_preview>/preview)?/?",
    re.IGNORECASE,
)

_HEADERS = """
    select body from appxite_invoices
    where visibility = ? and invoice_date between ? and ?
    order by invoice_date, invoice_id limit ? offset ?"""

# The inner select finds the page in the index alone: cross join keeps SQLite from sorting all bodies for each page.
_ROWS = """
    select body, detail from appxite_rows where line in (
        select r.line from appxite_rows r cross join appxite_invoices i on i.invoice_id = r.invoice_id
        where i.visibility = ? and i.invoice_date between ? and ?
        order by r.invoice_id, r.line limit ? offset ?)
    order by invoice_id, line"""


def problem(status: int, message: str) -> Refusal:
    return Refusal(Response(status, {"message": message}))


class AppXite:
    """Answers requests from the store. The caller holds the store's lock."""

    def __init__(self, store: Store, credentials: Credentials) -> None:
        self.store = store
        self.credentials = credentials

    def dispatch(self, request: Request) -> Response:
        try:
            return self._route(request)
        except Refusal as refusal:
            return refusal.response

    def _route(self, request: Request) -> Response:
        given = request.query.get("saskey", "")
        if not hmac.compare_digest(given.encode(), self.credentials.sas_key.encode()):
            raise problem(401, "The access key is not valid or has expired.")
        match = _ROUTE.fullmatch(request.path)
        if match is None:
            raise problem(404, "There is no such report.")
        if request.method != "GET":
            raise problem(405, "The Reporting API is read only.")
        if match["requester"] != self.credentials.requester_id:
            raise problem(400, f"Requester {match['requester']} could not be found or you have no access to it.")
        feed = match["feed"].lower()
        preview = bool(match["preview"] or match["late_preview"])
        page = self._whole(request, "page", 1)
        size = min(self._whole(request, "pagesize", DEFAULT_PAGE_SIZE), MAX_PAGE_SIZE)
        place = (size, (page - 1) * size)
        if feed.startswith("invoices/"):
            texts = self._invoices(request, feed, "preview" if preview else "published", place)
        elif preview:
            raise problem(404, "There is no such report.")
        else:
            name = "organizations" if feed.startswith("organizations") else feed
            texts = [
                row[0]
                for row in self.store.db.execute(
                    "select body from appxite_records where feed = ? order by position limit ? offset ?",
                    (name, *place),
                )
            ]
        if not texts and self.store.settings["empty_is_400" if page == 1 else "page_past_end_is_400"]:
            raise problem(400, "Nothing could be found for the requested parameters.")
        if feed.split("/")[-1] in self.store.settings["pascal_feeds"]:
            texts = [dumps(_pascal(loads(text))) for text in texts]
        return Response(200, text="[" + ",\n".join(texts) + "]")

    def _invoices(self, request: Request, feed: str, visibility: str, place: tuple[int, int]) -> list[str]:
        since = self._day(request, "invoicedatefrom", "0001-01-01")
        till = self._day(request, "invoicedatetill", "9999-12-31")
        values = (visibility, since, till)
        if feed.endswith("headers"):
            return [row[0] for row in self.store.db.execute(_HEADERS, (*values, *place))]
        expand = request.query.get("expand", "").lower()
        if expand not in ("", "alldetails", "correctiondetails"):
            raise problem(400, "expand is AllDetails or CorrectionDetails.")
        if not expand:
            return [body for body, _ in self.store.db.execute(_ROWS, (*values, *place))]
        # Vendor lines: several per row. They are joined with commas in `detail`, so the page is cut in Python.
        lines: list[Any] = []
        for body, detail in self.store.db.execute(_ROWS, (*values, -1, 0)):
            row = loads(body)
            full = expand == "alldetails" or row["chargeType"] == "Correction"
            lines.extend(loads(f"[{detail}]") if full and detail else [row])
        return [dumps(line) for line in lines[place[1] : place[1] + place[0]]]

    def _whole(self, request: Request, name: str, default: int) -> int:
        text = request.query.get(name)
        if text is None or text == "":
            return default
        if not re.fullmatch(r"\d{1,9}", text) or int(text) < 1:
            raise problem(400, f"The value '{text}' is not valid for {name}.")
        return int(text)

    def _day(self, request: Request, name: str, default: str) -> str:
        text = request.query.get(name)
        if text is None or text == "":
            return default
        with contextlib.suppress(ValueError):
            # Of all the forms that fromisoformat reads, only yyyy-MM-dd is written back the same.
            if date.fromisoformat(text).isoformat() == text:
                return text
        raise problem(400, f"The value '{text}' is not valid for {name}, expected yyyy-MM-dd.")

    # -- what the control API changes and asks ---------------------------------------------------------------

    def invoice(self, invoice_id: int) -> Json:
        """`{visibility, header, rows: [{line, row}]}`; raises KeyError."""
        db = self.store.db
        found = db.execute(
            "select visibility, body from appxite_invoices where invoice_id = ?", (invoice_id,)
        ).fetchone()
        if found is None:
            raise KeyError(f"there is no invoice {invoice_id}")
        rows = db.execute("select line, body from appxite_rows where invoice_id = ? order by line", (invoice_id,))
        return {
            "visibility": found[0],
            "header": loads(found[1]),
            "rows": [{"line": line, "row": loads(body)} for line, body in rows],
        }

    def change_invoice(self, invoice_id: int, changes: Json, visibility: str | None = None) -> Json:
        """Overwrite header fields; `status` sets statusId as well, and a changed date reaches the rows."""
        with self.store.transaction():
            stored = self.invoice(invoice_id)
            header = {**stored["header"], **changes}
            if "status" in changes and "statusId" not in changes:
                header["statusId"] = STATUS_IDS.get(changes["status"], 99)
            self.store.db.execute(
                "update appxite_invoices set invoice_date = ?, visibility = ?, body = ? where invoice_id = ?",
                (header["invoiceDate"], visibility or stored["visibility"], dumps(header), invoice_id),
            )
            if "invoiceDate" in changes:
                for entry in stored["rows"]:
                    self.change_row(entry["line"], {"invoiceDate": changes["invoiceDate"]})
            return self.invoice(invoice_id)

    def change_row(self, line: int, changes: Json) -> Json:
        """Overwrite fields of one row; a null removes the field (rowId can be absent)."""
        with self.store.transaction():
            found = self.store.db.execute("select body from appxite_rows where line = ?", (line,)).fetchone()
            if found is None:
                raise KeyError(f"there is no line {line}")
            row = {**loads(found[0]), **changes}
            row = {name: value for name, value in row.items() if value is not None or name not in changes}
            self.store.db.execute("update appxite_rows set body = ?, detail = '' where line = ?", (dumps(row), line))
            return row

    def delete_row(self, line: int) -> None:
        with self.store.transaction():
            if not self.store.db.execute("delete from appxite_rows where line = ?", (line,)).rowcount:
                raise KeyError(f"there is no line {line}")

    def delete_invoice(self, invoice_id: int) -> None:
        with self.store.transaction():
            self.invoice(invoice_id)
            self.store.db.execute("delete from appxite_rows where invoice_id = ?", (invoice_id,))
            self.store.db.execute("delete from appxite_invoices where invoice_id = ?", (invoice_id,))

    def truth(self, statuses: tuple[str, ...] = ACCEPTED_STATUSES) -> list[Json]:
        """Every published invoice of the requester in an accepted status, with its lines as they are now."""
        rows: dict[int, list[Json]] = {}
        for line, invoice_id, body in self.store.db.execute(
            "select line, invoice_id, body from appxite_rows order by line"
        ):
            rows.setdefault(invoice_id, []).append({"line": line, **loads(body)})
        result = []
        for (body,) in self.store.db.execute(
            "select body from appxite_invoices where visibility = 'published' order by invoice_id"
        ):
            header = loads(body)
            mine = header["providerOrganizationId"] == self.credentials.requester_id
            if mine and header["status"] in statuses:
                result.append({**header, "lines": rows.get(header["invoiceId"], [])})
        return result


def _pascal(record: Json) -> Json:
    return {name[:1].upper() + name[1:]: value for name, value in record.items()}
