"""The ConnectWise PSA half: companies, agreements, Additions, catalog, invoices, custom fields.

Follows the public REST API, traps included:

* PATCH takes an array of `{op, path, value}` with bare field names. Objects and customFields are replaced whole,
  a path with a `/` answers 200 and changes nothing, and the whole stored record is validated again.
* Duplicates are accepted. There is no idempotency key, no ETag, no list across agreements.
* A date that is not set is absent from records with an even id and "" on those with an odd one (`unset_dates`).
* A 400 about a record has the shape `{code, message, errors}`; any other one `{error, message}`.

What a real instance has not yet answered is a setting (`store.DEFAULT_SETTINGS`).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import time
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import quote, urlencode

from sandbox import fields as models
from sandbox.conditions import BadCondition, order, parse, value_at
from sandbox.fields import Field
from sandbox.invoicing import CannotInvoice, agreement_cycle, touching_days
from sandbox.messages import Credentials, Refusal, Request, Response
from sandbox.store import Store
from sandbox.wire import (
    EXACT,
    BadJson,
    Json,
    line_amount,
    loads,
    number,
    parse_date,
    round_half_up,
    timestamp,
)

BASE = "/v4_6_release/apis/3.0"
VERSION = "2025.8"
DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE = 25, 1000
FIRST_ADDITION_ID, FIRST_AGREEMENT_ID = 30001, 1001
WINDOW_SECONDS = 60

# Resources that are only read: path below BASE -> kind in the store, its model.
READ_ONLY: dict[str, tuple[str, Mapping[str, Field]]] = {
    "/company/companies": ("company", models.COMPANY),
    "/finance/agreements/types": ("agreementType", models.AGREEMENT_TYPE),
    "/finance/billingCycles": ("billingCycle", models.BILLING_CYCLE),
    "/finance/currencies": ("currency", models.CURRENCY),
    "/finance/invoices": ("invoice", models.INVOICE),
    "/procurement/catalog": ("product", models.PRODUCT),
    "/system/userDefinedFields": ("userDefinedField", models.USER_DEFINED_FIELD),
}
_READ_ONLY = {path.lower(): entry for path, entry in READ_ONLY.items()}


def error(status: int, message: str, **headers: str) -> Refusal:
    """The error shape of everything that is not about a record's fields."""
    return Refusal(Response(status, {"error": "ConnectWiseAPI", "message": message}, dict(headers)))


def not_found(what: str) -> Refusal:
    return Refusal(Response(404, {"code": "NotFound", "message": f"{what} was not found.", "errors": []}))


def invalid(resource: str, *problems: tuple[str, str]) -> Refusal:
    """The validation shape; a problem is (field, message)."""
    errors = [
        {"code": "InvalidField", "message": message, "resource": resource, "field": field}
        for field, message in problems
    ]
    body = {"code": "InvalidObject", "message": f"{resource} object is invalid", "errors": errors}
    return Refusal(Response(400, body))


class ConnectWise:
    """Answers requests from the store. The caller holds the store's lock."""

    def __init__(self, store: Store, credentials: Credentials) -> None:
        self.store = store
        self.credentials = credentials
        self._recent: deque[float] = deque()

    # -- who may ask ----------------------------------------------------------------------------------------

    def authorize(self, request: Request) -> None:
        """Raise the Refusal for a request with bad keys, without clientId, over the limit or of a bad version."""
        if request.path.lower().startswith("/login/"):
            return
        self._limit()
        settings = self.store.settings
        if not self._keys_match(request.headers.get("authorization", "")):
            message = "The company or the keys are not valid."
            status = settings["bad_keys_status"]
            raise Refusal(Response(status, {"code": "Unauthorized", "message": message, "errors": []}))
        given = request.headers.get("clientid") or request.query.get("clientid")
        if given is None or given.lower() != self.credentials.client_id.lower():
            raise Refusal(
                Response(403, {"code": "Forbidden", "message": "A valid clientId is required.", "errors": []})
            )
        self._version(request)

    def _keys_match(self, header: str) -> bool:
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            given = base64.b64decode(token.strip(), validate=True)
        except (binascii.Error, ValueError):
            return False
        keys = self.credentials
        return hmac.compare_digest(given, f"{keys.company_id}+{keys.public_key}:{keys.private_key}".encode())

    def _limit(self) -> None:
        now, limit = time.monotonic(), self.store.settings["requests_per_minute"]
        while self._recent and now - self._recent[0] >= WINDOW_SECONDS:
            self._recent.popleft()
        if len(self._recent) >= limit:
            wait = int(WINDOW_SECONDS - (now - self._recent[0])) + 1 if self._recent else WINDOW_SECONDS
            raise error(429, f"More than {limit} requests in a minute.", **{"Retry-After": str(wait)})
        self._recent.append(now)

    def forget_recent(self) -> None:
        """Start the minute of the request limit anew."""
        self._recent.clear()

    def _version(self, request: Request) -> str | None:
        """The version pinned in Accept, or None for plain JSON."""
        accept = request.headers.get("accept", "")
        if "vnd.connectwise.com" not in accept:
            return None
        match = re.search(r"version=(\d{4})\.(\d{1,2})\b", accept)
        if match is None:
            if "version" in accept:
                raise error(400, "The version in the Accept header is not valid.")
            return VERSION
        asked = (int(match.group(1)), int(match.group(2)))
        if asked > tuple(int(part) for part in VERSION.split(".")):
            raise error(400, f"Version {match.group(1)}.{match.group(2)} is newer than {VERSION}.")
        return f"{asked[0]}.{asked[1]}"

    # -- routing --------------------------------------------------------------------------------------------

    def dispatch(self, request: Request) -> Response:
        """Answer an authorized request; a write and its journal entry are one transaction."""
        try:
            with self.store.transaction():
                response = self._route(request)
        except Refusal as refusal:
            response = refusal.response
        return self.finish(request, response)

    def finish(self, request: Request, response: Response) -> Response:
        """Add the headers that every answer carries."""
        try:
            version = self._version(request)
        except Refusal:
            version = None
        kind = f"application/vnd.connectwise.com+json; version={version}" if version else "application/json"
        response.headers.setdefault("Content-Type", f"{kind}; charset=utf-8")
        response.headers.setdefault("api-current-version", VERSION)
        return response

    def _route(self, request: Request) -> Response:
        path = request.path.rstrip("/")
        match = re.fullmatch(r"/login/companyinfo/([^/]+)", path, re.IGNORECASE)
        if match:
            return self._company_info(request, match.group(1))
        if not path.lower().startswith(BASE.lower() + "/"):
            raise not_found("The resource")
        path = path[len(BASE) :].lower()
        if path == "/system/info":
            self._only(request, "GET")
            return Response(
                200,
                {
                    "version": "v2025.8.1",
                    "isCloud": True,
                    "serverTimeZone": "UTC",
                    "licenseBits": [],
                    "cloudRegion": "EU",
                    "maxWorkFlowRecordsAllowed": 100,
                },
            )
        match = re.fullmatch(r"/finance/agreements/(\d+)/additions(?:/(\d+|count))?", path)
        if match:
            return self._additions(request, int(match.group(1)), match.group(2))
        match = re.fullmatch(r"/finance/agreements(?:/(\d+|count))?", path)
        if match:
            return self._agreements(request, match.group(1))
        match = re.fullmatch(r"(/[a-z]+/[a-z]+(?:/types)?)(?:/(\d+|count))?", path)
        if match and match.group(1) in _READ_ONLY:
            kind, model = _READ_ONLY[match.group(1)]
            self._only(request, "GET")
            return self._read(request, self.store.records(kind), model, match.group(2), kind)
        raise not_found("The resource")

    def _only(self, request: Request, *methods: str) -> None:
        if request.method not in methods:
            raise error(405, f"{request.method} is not allowed here.", Allow=", ".join(methods))

    def _company_info(self, request: Request, company: str) -> Response:
        self._only(request, "GET")
        if company.lower() != self.credentials.company_id.lower():
            return Response(200, None)
        return Response(
            200,
            {
                "CompanyName": "Demo Service Provider",
                "Codebase": "v4_6_release/",
                "VersionCode": "v2025.8",
                "VersionNumber": "v4.6.2025.8",
                "CompanyID": self.credentials.company_id,
                "IsCloud": True,
                "SiteUrl": request.base_url.partition("://")[2],
                "AllowedOrigins": None,
            },
        )

    # -- reading --------------------------------------------------------------------------------------------

    def _read(
        self,
        request: Request,
        records: dict[int, Json],
        model: Mapping[str, Field],
        which: str | None,
        kind: str,
    ) -> Response:
        """A list, a count or one record, by what stands after the resource's path."""
        if which not in (None, "count"):
            found = records.get(int(which or 0))
            if found is None:
                raise not_found(f"{kind.capitalize()} {which}")
            return Response(200, self._pick(self._shown(kind, found), request.query.get("fields"), model))
        try:
            accept = parse(request.query.get("conditions", ""), model)
            accept_field = parse(request.query.get("customfieldconditions", ""), _CUSTOM_FIELD)
        except BadCondition as problem:
            raise error(400, f"conditions: {problem}") from None
        matching = [record for record in records.values() if accept(record)]
        if request.query.get("customfieldconditions"):
            matching = [r for r in matching if any(accept_field(field) for field in r.get("customFields") or [])]
        if which == "count":
            return Response(200, {"count": len(matching)})
        return self._page(request, matching, model, kind)

    def _page(self, request: Request, records: list[Json], model: Mapping[str, Field], kind: str) -> Response:
        size = min(self._whole(request, "pagesize", DEFAULT_PAGE_SIZE), MAX_PAGE_SIZE)
        forward = request.headers.get("pagination-type", "").lower() == "forward-only"
        ordering = request.query.get("orderby", "")
        links: dict[str, Json] = {}
        if forward:
            if ordering:
                raise error(400, "orderBy cannot be used with forward-only pagination.")
            after = self._whole(request, "pageid", 0, least=0)
            rest = [record for record in records if record["id"] > after]
            page, more = rest[:size], len(rest) > size
            if more:
                links["next"] = {"pageId": page[-1]["id"]}
        else:
            try:
                records = order(records, ordering, model)
            except BadCondition as problem:
                raise error(400, f"orderBy: {problem}") from None
            number_ = self._whole(request, "page", 1)
            page = records[(number_ - 1) * size : number_ * size]
            last = max(1, -(-len(records) // size))
            if number_ < last:
                links["next"] = {"page": number_ + 1}
                links["last"] = {"page": last}
            if number_ > 1:
                links["prev"] = {"page": number_ - 1}
                links["first"] = {"page": 1}
        wanted = request.query.get("fields")
        response = Response(200, [self._pick(self._shown(kind, record), wanted, model) for record in page])
        if links:
            kept = {k: v for k, v in request.query.items() if k not in ("page", "pageid", "clientid")}
            url = request.base_url + quote(request.path)
            response.headers["Link"] = ", ".join(
                f'<{url}?{urlencode({**kept, **place})}>; rel="{rel}"' for rel, place in links.items()
            )
        return response

    def _whole(self, request: Request, name: str, default: int, least: int = 1) -> int:
        text = request.query.get(name)
        if text is None or text == "":
            return default
        if not re.fullmatch(r"\d{1,9}", text) or int(text) < least:
            raise error(400, f"{name} is not valid.")
        return int(text)

    def _pick(self, record: Json, wanted: str | None, model: Mapping[str, Field]) -> Json:
        """Only the wanted fields (`id,company/id`), in the record's own spelling."""
        if not wanted:
            return record
        picked: Json = {}
        for path in filter(None, (part.strip() for part in wanted.split(","))):
            if path.split("/")[0].lower() not in model:
                raise error(400, f"fields: unknown field {path}")
            value, source, target = value_at(record, path), record, picked
            if value is None:
                continue
            *parents, leaf = path.split("/")
            for parent in parents:
                name = _spelling(source, parent)
                source, target = source[name], target.setdefault(name, {})
            target[_spelling(source, leaf)] = value
        return picked

    def _shown(self, kind: str, record: Json) -> Json:
        """A stored record as it goes on the wire."""
        shown = dict(record)
        if kind == "invoice":  # the cycle and the lines belong to the control API
            for name in ("cycleStart", "cycleEnd", "lines"):
                shown.pop(name, None)
        unset = self.store.settings["unset_dates"]
        if unset == "absent" or (unset == "mixed" and record["id"] % 2 == 0):
            for name in ("effectiveDate", "cancelledDate", "endDate", "dateCancelled", "nextInvoiceDate"):
                if shown.get(name) == "":
                    del shown[name]
        return shown

    # -- Additions ------------------------------------------------------------------------------------------

    def _additions(self, request: Request, agreement_id: int, which: str | None) -> Response:
        agreement = self.store.records("agreement").get(agreement_id)
        if agreement is None:
            raise not_found(f"Agreement {agreement_id}")
        if which is None:
            self._only(request, "GET", "POST")
            if request.method == "POST":
                record = self.create_addition(agreement, _object(request.body), request.by, request.seq)
                return Response(201, self._shown("addition", record), applied=True)
        elif which == "count":
            self._only(request, "GET")
        if request.method == "GET":
            records = self._additions_as_of(request, agreement_id)
            return self._read(request, records, models.ADDITION, which, "addition")
        self._only(request, "GET", "PATCH", "PUT", "DELETE")
        before = self.store.additions(agreement_id).get(int(which or 0))
        if before is None:
            raise not_found(f"Addition {which}")
        if request.method == "DELETE":
            self.delete_addition(before, request.by, request.seq)
            return Response(204, applied=True)
        if request.method == "PUT":
            wanted = {"id": before["id"], **self.clean("Addition", _object(request.body), models.ADDITION)}
        else:
            wanted = self._patched("Addition", before, request.body, models.ADDITION, models.COMPUTED_ADDITION)
        after = self.update_addition(agreement, before, wanted, request.by, request.seq)
        return Response(200, self._shown("addition", after), applied=True)

    def _additions_as_of(self, request: Request, agreement_id: int) -> dict[int, Json]:
        """The additions now, or (a stale read) with the journal undone back to `as_of`."""
        additions = self.store.additions(agreement_id)
        if request.as_of is None:
            return additions
        additions = dict(additions)
        rows = self.store.db.execute(
            "select addition_id, before from journal where agreement_id = ? and at > ? and operation like 'addition.%'"
            " order by seq desc",
            (agreement_id, request.as_of),
        )
        for addition_id, before in rows.fetchall():
            if before is None:
                additions.pop(addition_id, None)
            elif not request.hide_only:
                additions[addition_id] = loads(before)
        return dict(sorted(additions.items()))

    def create_addition(self, agreement: Json, body: Json, by: str, seq: int | None = None) -> Json:
        """Validate and store a new Addition; raises Refusal."""
        wanted = self.clean("Addition", body, models.ADDITION)
        record = self._addition(agreement, wanted, None, forced=by == "person")
        record["id"] = self.store.next_id("addition", FIRST_ADDITION_ID)
        record["sequenceNumber"] = Decimal(len(self.store.additions(agreement["id"])) + 1)
        self._stamp(record, by, None)
        self.store.save("addition", record)
        self.store.journal(by, "addition.create", None, record, seq)
        return record

    def update_addition(self, agreement: Json, before: Json, wanted: Json, by: str, seq: int | None = None) -> Json:
        """Validate and store a changed Addition; what changes nothing is not journalled."""
        after = self._addition(agreement, wanted, before, forced=by == "person")
        return self.store_change("addition", before, after, by, seq)

    def delete_addition(self, before: Json, by: str, seq: int | None = None) -> None:
        self.store.delete("addition", before)
        self.store.journal(by, "addition.delete", before, None, seq)

    def store_change(self, kind: str, before: Json, after: Json, by: str, seq: int | None = None) -> Json:
        """Save and journal a changed record; what changes nothing is neither."""
        if {**after, "_info": None} == {**before, "_info": None}:
            return before
        self._stamp(after, by, before)
        self.store.save(kind, after)
        self.store.journal(by, f"{kind}.update", before, after, seq)
        return after

    def _stamp(self, record: Json, by: str, before: Json | None) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        who = "finance.user" if by == "person" else "api.member"
        entered = (before or {}).get("_info") or {"dateEntered": now, "enteredBy": who}
        record["_info"] = {**entered, "lastUpdated": now, "updatedBy": who}

    def computed_addition(self, agreement: Json, wanted: Json) -> Json:
        """The whole record of an Addition with these values, unsaved, without id and without the API's rules."""
        return self._addition(agreement, wanted, None, forced=True)

    def _addition(self, agreement: Json, wanted: Json, before: Json | None, *, forced: bool) -> Json:
        """The whole record from the wanted values: defaults, computed fields, rules. `forced` skips the rules,
        since a person can do in the ConnectWise client what the API refuses."""
        problems: list[tuple[str, str]] = []
        product = self.store.records("product").get((wanted.get("product") or {}).get("id") or 0)
        if product is None:
            raise invalid("Addition", ("product", "An existing product is required."))
        if wanted.get("billCustomer") is None:
            problems.append(("billCustomer", "billCustomer is required."))
        quantity: Decimal = wanted.get("quantity", Decimal(1))
        included: Decimal = wanted.get("lessIncluded", Decimal(0))
        price = self._priced(number(wanted.get("unitPrice", product["price"])))
        cost = self._priced(number(wanted.get("unitCost", product["cost"])))
        billed = EXACT.subtract(quantity, included)
        ext_price, ext_cost = line_amount(billed, price), line_amount(billed, cost)
        record: Json = {
            "id": (before or {}).get("id"),
            "product": {"id": product["id"], "identifier": product["identifier"]},
            "quantity": quantity,
            "lessIncluded": included,
            "unitPrice": price,
            "unitCost": cost,
            "billCustomer": wanted.get("billCustomer"),
            "effectiveDate": wanted.get("effectiveDate", ""),
            "cancelledDate": wanted.get("cancelledDate", ""),
            "taxableFlag": wanted.get("taxableFlag", product["taxableFlag"]),
            "serialNumber": wanted.get("serialNumber", ""),
            "invoiceDescription": wanted.get("invoiceDescription", product["customerDescription"]),
            "purchaseItemFlag": wanted.get("purchaseItemFlag", False),
            "specialOrderFlag": wanted.get("specialOrderFlag", False),
            "agreementId": agreement["id"],
            "description": product["description"],
            "billedQuantity": billed,
            "uom": product["unitOfMeasure"]["name"],
            "extPrice": ext_price,
            "extCost": ext_cost,
            "sequenceNumber": (before or {}).get("sequenceNumber"),
            "margin": ext_price - ext_cost,
            "prorateCurrentPeriodFlag": wanted.get("prorateCurrentPeriodFlag", False),
            "agreementStatus": agreement["agreementStatus"],
            "customFields": self._custom_fields(wanted.get("customFields") or [], problems),
            "_info": (before or {}).get("_info", {}),
        }
        if wanted.get("invoiceGrouping"):
            record["invoiceGrouping"] = wanted["invoiceGrouping"]
        if wanted.get("opportunity"):
            record["opportunity"] = wanted["opportunity"]
        record |= self._prorated(agreement, record)
        cancelled = record["cancelledDate"]
        over = bool(cancelled) and parse_date(cancelled) < parse_date(self.store.settings["today"])
        record["additionStatus"] = "Cancelled" if over else "Active"
        if not forced:
            self._addition_rules(agreement, record, before, product, problems)
        if problems:
            raise invalid("Addition", *problems)
        return record

    def _priced(self, price: Decimal) -> Decimal:
        decimals = self.store.settings["unit_price_decimals"]
        if decimals is None or -int(price.as_tuple().exponent) <= decimals:
            return price
        return round_half_up(price, Decimal(1).scaleb(-int(decimals)))

    def _prorated(self, agreement: Json, record: Json) -> Json:
        """The prorate fields: the share of one unit that the first cycle bills, zero without proration."""
        price = cost = Decimal("0.00")
        if agreement.get("prorateFlag") and record["effectiveDate"]:
            try:
                cycle = agreement_cycle(self.store, agreement, parse_date(record["effectiveDate"]))
            except CannotInvoice:
                pass
            else:
                days = Decimal(touching_days(record, cycle))
                if days < cycle.days:
                    price, cost = (
                        round_half_up(EXACT.divide(EXACT.multiply(amount, days), Decimal(cycle.days)))
                        for amount in (record["unitPrice"], record["unitCost"])
                    )
        return {
            "prorateCost": cost,
            "proratePrice": price,
            "extendedProrateCost": line_amount(record["billedQuantity"], cost),
            "extendedProratePrice": line_amount(record["billedQuantity"], price),
        }

    def _custom_fields(self, given: list[Any], problems: list[tuple[str, str]]) -> list[Json]:
        """Every defined custom field of an Addition, with the given values; one that is not given is empty."""
        definitions = self.store.records("userDefinedField")
        values: dict[int, Any] = {}
        for entry in given:
            if not isinstance(entry, dict) or entry.get("id") not in definitions:
                problems.append(("customFields", "An entry needs the id of an existing custom field."))
            elif entry.get("value") is not None and not isinstance(entry["value"], str):
                problems.append(("customFields", f"{definitions[entry['id']]['caption']} takes a text."))
            elif entry.get("value"):
                values[entry["id"]] = _one_line(entry["value"])
        result = []
        for definition in definitions.values():
            field = {
                "id": definition["id"],
                "caption": definition["caption"],
                "type": definition["fieldTypeIdentifier"],
                "entryMethod": definition["entryTypeIdentifier"],
                "numberOfDecimals": 0,
            }
            if definition["id"] in values:
                field["value"] = values[definition["id"]]
            result.append(field)
        return result

    def _addition_rules(
        self,
        agreement: Json,
        record: Json,
        before: Json | None,
        product: Json,
        problems: list[tuple[str, str]],
    ) -> None:
        settings = self.store.settings
        if product.get("productClass") == "Bundle":
            problems.append(("product", "A bundle cannot be an addition."))
        if product.get("inactiveFlag") and not settings["allow_inactive_products"]:
            problems.append(("product", "The product is inactive."))
        if before is None and agreement["agreementStatus"] != "Active" and not settings["allow_ended_agreements"]:
            problems.append(("agreementId", f"The agreement is {agreement['agreementStatus'].lower()}."))
        if settings["refuse_do_not_bill"] and record["billCustomer"] == "DoNotBill":
            problems.append(("billCustomer", "Do Not Bill is not allowed on this agreement."))
        effective, cancelled = record["effectiveDate"], record["cancelledDate"]
        if effective and cancelled and parse_date(cancelled) < parse_date(effective):
            problems.append(("cancelledDate", "The cancelled date is before the effective date."))
        if not effective:
            return
        if parse_date(effective) < parse_date(agreement["billStartDate"]):
            problems.append(("effectiveDate", "The effective date is before the bill start date of the agreement."))
        # An unchanged date of an Addition that is already being billed cannot become wrong by billing it.
        moved = before is None or before["effectiveDate"] != effective or settings["revalidate_effective_date"]
        invoiced = parse_date(effective) < parse_date(agreement["nextInvoiceDate"])
        if moved and invoiced and not agreement.get("prorateFlag"):
            message = "This period is already invoiced: update the start date to on or after the Next Invoice Date."
            problems.append(("effectiveDate", message))

    # -- Agreements -----------------------------------------------------------------------------------------

    def _agreements(self, request: Request, which: str | None) -> Response:
        if which is None and request.method == "POST":
            record = self.create_agreement(_object(request.body), request.by, request.seq)
            return Response(201, self._shown("agreement", record), applied=True)
        if which not in (None, "count") and request.method == "PATCH":
            before = self.store.records("agreement").get(int(which or 0))
            if before is None:
                raise not_found(f"Agreement {which}")
            wanted = self._patched("Agreement", before, request.body, models.AGREEMENT, models.COMPUTED_AGREEMENT)
            after = self.update_agreement(before, wanted, request.by, request.seq)
            return Response(200, self._shown("agreement", after), applied=True)
        if request.method == "DELETE":
            raise Refusal(Response(403, {"code": "Forbidden", "message": "The role lacks the right.", "errors": []}))
        self._only(request, "GET", "POST" if which is None else "PATCH")
        return self._read(request, self._agreements_as_of(request), models.AGREEMENT, which, "agreement")

    def _agreements_as_of(self, request: Request) -> dict[int, Json]:
        """The agreements now, or (a stale read) without those created after `as_of`."""
        agreements = self.store.records("agreement")
        if request.as_of is None:
            return agreements
        rows = self.store.db.execute(
            "select agreement_id from journal where at > ? and operation = 'agreement.create'", (request.as_of,)
        )
        later = {row[0] for row in rows.fetchall()}
        return {id_: agreement for id_, agreement in agreements.items() if id_ not in later}

    def create_agreement(self, body: Json, by: str, seq: int | None = None) -> Json:
        """A new agreement takes what the body does not say from its type and its company."""
        wanted = self.clean("Agreement", body, models.AGREEMENT)
        kind = self.store.records("agreementType").get((wanted.get("type") or {}).get("id") or 0, {})
        company = self.store.records("company").get((wanted.get("company") or {}).get("id") or 0, {})
        start = wanted.get("startDate") or timestamp(parse_date(self.store.settings["today"]))
        bill_start = wanted.get("billStartDate") or start
        inherited = (
            "applicationUnits",
            "billingCycle",
            "invoicingCycle",
            "prorateFlag",
            "billTime",
            "billExpenses",
        )
        record: Json = {
            "id": None,
            **{name: kind[name] for name in (*inherited, "billProducts", "billingTerms") if name in kind},
            "currency": company.get("currency"),
            "noEndingDateFlag": not wanted.get("endDate"),
            "cancelledFlag": False,
            "billAmount": Decimal("0.00"),
            "endDate": "",
            "periodType": "Current",
            **{name: value for name, value in wanted.items() if name not in models.COMPUTED_AGREEMENT},
            "startDate": start,
            "billStartDate": bill_start,
            "nextInvoiceDate": wanted.get("nextInvoiceDate") or bill_start,
        }
        record = self._agreement(record)
        record["id"] = self.store.next_id("agreement", FIRST_AGREEMENT_ID)
        self._stamp(record, by, None)
        self.store.save("agreement", record)
        self.store.journal(by, "agreement.create", None, record, seq)
        return record

    def update_agreement(self, before: Json, wanted: Json, by: str, seq: int | None = None) -> Json:
        after = self._agreement({**wanted, "id": before["id"]}, forced=by == "person")
        after = self.store_change("agreement", before, after, by, seq)
        if after["agreementStatus"] != before["agreementStatus"]:
            for addition in list(self.store.additions(after["id"]).values()):
                self.store.save("addition", {**addition, "agreementStatus": after["agreementStatus"]})
        return after

    def _agreement(self, record: Json, *, forced: bool = False) -> Json:
        """The record with its references spelled out and its status; `forced` as for an Addition."""
        problems = []
        if not record.get("name"):
            problems.append(("name", "name is required."))
        references = (("type", "agreementType"), ("company", "company"), ("billingCycle", "billingCycle"))
        record = dict(record)
        for name, kind in references:
            found = self.store.records(kind).get((record.get(name) or {}).get("id") or 0)
            if found is None:
                problems.append((name, f"An existing {name} is required."))
                continue
            record[name] = {"id": found["id"], "name": found["name"]}
            if kind == "company":
                record[name] = {"id": found["id"], "identifier": found["identifier"], "name": found["name"]}
                if found.get("deletedFlag"):
                    problems.append((name, "The company is deleted."))
        currency = self.store.records("currency").get((record.get("currency") or {}).get("id") or 0)
        if currency is not None:
            record["currency"] = currency_reference(currency)
        if not (record.get("contact") or {}).get("id"):
            problems.append(("contact", "A contact is required."))
        dates = ("startDate", "billStartDate")
        problems += [(name, f"{name} is required.") for name in dates if not record.get(name)]
        if problems and not forced:
            raise invalid("Agreement", *problems)
        return {**record, "agreementStatus": self._agreement_status(record)}

    def _agreement_status(self, record: Json) -> str:
        if record.get("cancelledFlag"):
            return "Cancelled"
        end = record.get("endDate") and not record.get("noEndingDateFlag") and parse_date(record["endDate"])
        return "Expired" if end and end < parse_date(self.store.settings["today"]) else "Active"

    def copy_agreement(self, agreement_id: int, name: str | None = None, by: str = "person") -> Json:
        """What the copy button does: a new agreement with copies of all Additions, markers included."""
        original = self.store.records("agreement").get(agreement_id)
        if original is None:
            raise not_found(f"Agreement {agreement_id}")
        with self.store.transaction():
            copy = {**original, "id": self.store.next_id("agreement", FIRST_AGREEMENT_ID)}
            copy["name"] = name or f"Copy of {original['name']}"[:100]
            self._stamp(copy, by, None)
            self.store.save("agreement", copy)
            self.store.journal(by, "agreement.create", None, copy)
            for addition in list(self.store.additions(agreement_id).values()):
                twin = {
                    **addition,
                    "id": self.store.next_id("addition", FIRST_ADDITION_ID),
                    "agreementId": copy["id"],
                }
                self._stamp(twin, by, None)
                self.store.save("addition", twin)
                self.store.journal(by, "addition.copy", None, twin)
        return copy

    # -- what a client sends --------------------------------------------------------------------------------

    def clean(self, resource: str, body: Json, model: Mapping[str, Field]) -> Json:
        """The known fields of a body in their own types; unknown names are ignored, null means not given."""
        cleaned: Json = {}
        problems = []
        for name, value in body.items():
            field = model.get(name.lower())
            if field is None or value is None:
                continue
            try:
                cleaned[field.name] = _typed(field, value)
            except ValueError as problem:
                problems.append((field.name, str(problem)))
        if problems:
            raise invalid(resource, *problems)
        return cleaned

    def _patched(
        self,
        resource: str,
        before: Json,
        body: bytes,
        model: Mapping[str, Field],
        computed: Iterable[str],
    ) -> Json:
        """The stored record with the operations carried out, not yet validated as a whole."""
        operations = _json(body)
        if not isinstance(operations, list) or not all(isinstance(one, dict) for one in operations):
            raise error(400, "The body of a PATCH is an array of operations.")
        patched = dict(before)
        for operation in operations:
            kind, path = str(operation.get("op")).lower(), operation.get("path")
            if kind not in ("add", "replace", "remove") or not isinstance(path, str) or not path:
                raise error(400, "An operation needs op (add, replace or remove) and path.")
            if "/" in path:
                continue  # the false 200: a sub-path is accepted and changes nothing
            field = model.get(path.lower())
            if field is None:
                raise invalid(resource, (path, f"There is no field {path}."))
            if field.name in computed:
                continue
            patched.pop(field.name, None)
            if kind != "remove" and operation.get("value") is not None:
                patched |= self.clean(resource, {field.name: operation["value"]}, model)
        return patched


def currency_reference(currency: Json) -> Json:
    """A currency as other records refer to it."""
    return {
        "id": currency["id"],
        "symbol": currency["symbol"],
        "currencyCode": currency["currencyCode"]["name"],
        "numberOfDecimals": currency["numberOfDecimals"],
        "currencyIdentifier": currency["currencyIdentifier"],
        "name": currency["name"],
    }


_CUSTOM_FIELD = {name: Field(name, "text") for name in ("id", "caption", "type", "value")}


def _spelling(record: Json, name: str) -> str:
    return next((key for key in record if key.lower() == name.lower()), name)


def _one_line(text: str) -> str:
    """ConnectWise keeps no line breaks: each becomes a space."""
    return re.sub(r"\r\n|\r|\n", " ", text)


def _json(body: bytes) -> Any:
    try:
        return loads(body)
    except BadJson as problem:
        raise error(400, f"The body is not valid JSON: {problem}") from None


def _object(body: bytes) -> Json:
    value = _json(body)
    if not isinstance(value, dict):
        raise error(400, "The body is not a JSON object.")
    return value


def _typed(field: Field, value: Any) -> Any:
    """The value in the field's type; raises ValueError with a message for the client."""
    if field.type == "number":
        try:
            return number(value)
        except TypeError:
            raise ValueError(f"{field.name} takes a number.") from None
    if field.type == "date":
        if value == "":
            return ""
        try:
            return timestamp(parse_date(value))
        except ValueError:
            raise ValueError(f"{field.name} takes a date as YYYY-MM-DDT00:00:00Z.") from None
    if field.type in ("text", "enum"):
        if not isinstance(value, str):
            raise ValueError(f"{field.name} takes a text.")
        if field.allowed and value not in field.allowed:
            raise ValueError(f"{field.name} is one of {', '.join(field.allowed)}.")
        if field.maximum is not None and len(value) > field.maximum:
            raise ValueError(f"{field.name} may have {field.maximum} characters, not {len(value)}.")
        return _one_line(value)
    expected: dict[str, tuple[type, str]] = {
        "int": (int, "a whole number"),
        "flag": (bool, "true or false"),
        "ref": (dict, "an object with an id"),
        "list": (list, "a list"),
        "object": (dict, "an object"),
    }
    kind, words = expected[field.type]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{field.name} takes {words}.")
    if field.type == "ref" and isinstance(value, dict) and value and type(value.get("id")) is not int:
        raise ValueError(f"{field.name} takes an object with an id.")
    return value
