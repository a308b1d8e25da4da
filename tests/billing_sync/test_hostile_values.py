"""Every hostile value in every field, from the wire to ConnectWise's invoices.

One customer gets an invoice for each pair of field and value, all in one month; three others get ordinary ones. After
one whole run the others are billed to the cent, and of each bad invoice it is said what is wrong with which field, or
it is billed because the value does no harm. Reference records of both services are treated likewise.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest
from pipeline import OCT, Pipeline, invoiced, most_billable_at_once, one_time

from billing_sync import records
from billing_sync.decide import decide
from billing_sync.errors import ProofError
from billing_sync.extract import extract_appxite_reference, extract_connectwise_reference, extract_invoices
from billing_sync.plan import approve_automatically, plan_of_run
from billing_sync.prove import prove
from billing_sync.records import Shape
from sandbox.wire import dumps, loads

OTHERS = {202: Decimal("12.34"), 203: Decimal("20.00"), 204: Decimal("30.30")}

# Raw JSON. None: the field is left out. "{field}" and "{value}" stand for the name and for what was there.
MISSING = None
VALUES: dict[str, str | None] = {
    "NaN": '"{field}": NaN',
    "Infinity": '"{field}": -Infinity',
    "1e400": '"{field}": 1e400',
    "minus zero": '"{field}": -0',
    "negative": '"{field}": -1',
    "half a cent": '"{field}": 10.005',
    "40 digits": '"{field}": ' + "1234567890" * 4,
    "40 decimals": '"{field}": 10.' + "1234567890" * 4,
    "beyond bigint": '"{field}": 9223372036854775808',
    "null": '"{field}": null',
    "missing": MISSING,
    "empty": '"{field}": ""',
    "blanks": '"{field}": "   "',
    "true": '"{field}": true',
    "list": '"{field}": [1]',
    "object": '"{field}": {"id": {"id": []}}',
    "NUL": r'"{field}": "a\u0000b"',
    "lone surrogate": r'"{field}": "a\ud800b"',
    "right to left": r'"{field}": "\u202e321\u202c"',
    "line breaks": r'"{field}": "a\r\n\u2028b"',
    "long": '"{field}": "' + "x" * 100_000 + '"',
    "unknown word": '"{field}": "Frobnicate"',
    "number as text": '"{field}": "10.00"',
    "date zero": '"{field}": "0000-00-00"',
    "date with hour": '"{field}": "9999-12-31T23:59"',
    "impossible date": '"{field}": "2026-02-30"',
    "given twice": '"{field}": {value}, "{field}": "another"',
    "two spellings": '"{field}": {value}, "{FIELD}": "another"',
}
# With these 10 MB a page stays below the bound of an answer.
HUGE = {"subscriptionName": "10 MB", "totalPrice": "10 MB", "consumerName": "10 MB", "totalAmount": "10 MB"}


def planted(record: dict[str, Any], field: str, value: str | None) -> str:
    """A record's JSON with a field replaced by raw JSON, or left out."""
    others = {name: value for name, value in record.items() if name != field}
    text = dumps(others)[:-1]
    if value is MISSING:
        return text + "}"
    member = value.replace("{field}", field).replace("{FIELD}", field.upper())
    return text + ", " + member.replace("{value}", dumps(record.get(field))) + "}"


def fields_of(shape: Shape) -> list[str]:
    """The names on the wire, of the fields at the top of a record."""
    return sorted({path.split("/")[0] for path in shape._paths.values()})


class Planted:
    """The bad customer's invoices: by id, what was planted. Headers and rows come in the order of the ids."""

    def __init__(self, pipeline: Pipeline, feed: str) -> None:
        shape, self.table = {
            "header": (records.INVOICE_HEADER, "appxite_invoices"),
            "row": (records.INVOICE_ROW, "appxite_rows"),
        }[feed]
        self.by_id: dict[int, tuple[str, str]] = {}
        store = pipeline.sandbox.store
        first = pipeline.bill(OCT, one_time("bad", OCT.replace(day=5), 1, "10.00"))
        model = pipeline.sandbox.appxite_invoice(first)
        header, row = model["header"], model["rows"][0]["row"]
        pipeline.sandbox.delete_appxite_invoice(first)
        with store.transaction():
            for field in fields_of(shape):
                values = VALUES | ({"10 MB": '"{field}": "' + "x" * 10_000_000 + '"'} if field in HUGE else {})
                for name, value in values.items():
                    number = first + len(self.by_id)
                    own = {"invoiceId": number, "invoiceNumber": f"T-{number}"}
                    bad_header = {**header, **own}
                    bad_row = {**row, **own, "rowId": f"{number}-001", "subscriptionId": f"sub-{number}"}
                    store.add_invoice(bad_header, [(bad_row, [])], "published")
                    text = planted(bad_header if feed == "header" else bad_row, field, value)
                    store.db.execute(f"update {self.table} set body = ? where invoice_id = ?", (text, number))
                    self.by_id[number] = (field, name)


def run(pipeline: Pipeline) -> tuple[int, str]:
    """A whole manual run of October; returns its id and what the proof complained about. Nothing else may fail."""
    run_id = pipeline.open("manual", [OCT])
    extract_invoices(pipeline.connection, pipeline.appxite(), run_id, OCT)
    extract_appxite_reference(pipeline.connection, pipeline.appxite(), run_id)
    extract_connectwise_reference(pipeline.connection, pipeline.connectwise(read_only=True), run_id)
    decide(pipeline.connection, run_id)
    approve_automatically(pipeline.connection, run_id)
    counts = pipeline.deliver(plan_of_run(pipeline.connection, run_id))
    assert (counts.refused, counts.conflicts, counts.skipped, counts.in_doubt) == (0, 0, 0, 0)
    try:
        prove(pipeline.connection, pipeline.connectwise(read_only=True), run_id)
    except ProofError as error:
        return run_id, str(error)
    return run_id, ""


def others_are_billed(pipeline: Pipeline) -> None:
    assert most_billable_at_once(pipeline.sandbox) <= 1
    sums = invoiced(pipeline.sandbox)
    assert {company_id: sums.get(company_id) for company_id in OTHERS} == OTHERS


def bill_others(pipeline: Pipeline) -> None:
    for customer, amount in enumerate(OTHERS.values(), 1):
        pipeline.bill(OCT, one_time("other", OCT, 1, amount), customer=customer)


# -- invoices ----------------------------------------------------------------------------------------------------------

# Lines that are read well, and held for what they say: by field, the reasons.
JUDGED = {
    "offerId": {"offer_missing", "offer_unmapped"},
    "chargeType": {"unknown_charge_type"},
    "totalPrice": {"invoice_does_not_add_up", "credit_exceeds_charge"},
    "totalAmount": {"invoice_does_not_add_up"},
    "currency": {"currency_differs_from_invoice", "agreement_currency_differs"},
    "consumerOrganizationId": {"organization_unmapped"},
}
# Without these an invoice cannot be placed: the run is red, and says which.
PLACES = {
    "row": {"invoiceId"},
    "header": {"invoiceId", "status", "invoiceDate", "providerOrganizationId", "consumerOrganizationId", "currency"},
}


@pytest.mark.parametrize("feed", ["row", "header"])
def test_a_hostile_value_holds_its_own_invoice_and_nothing_else(pipeline: Pipeline, feed: str) -> None:
    bill_others(pipeline)
    bad = Planted(pipeline, feed)
    run_id, complaint = run(pipeline)

    problems = [
        row[0]
        for row in pipeline.rows(
            f"select problem from staging.invoice_{feed} join staging.extract using (extract_id) where run_id = %s "
            "order by position",
            run_id,
        )
    ][len(OTHERS) :]
    assert len(problems) == len(bad.by_id)
    lines: dict[int, tuple[str, dict[str, str]]] = {}
    for invoice_id, outcome, reasons in pipeline.rows(
        """
        select
            invoice_id,
            outcome,
            (
                select coalesce(jsonb_object_agg(held.reason_code, held.detail), '{}') from billing.held_reason as held
                where held.line_id = line.line_id
            )
        from reporting.invoice_line as line
        """
    ):
        lines[invoice_id] = (outcome, reasons)
    said = pipeline.warnings("ERROR") + pipeline.warnings()
    unplaced = set()
    for (invoice_id, (field, name)), problem in zip(bad.by_id.items(), problems, strict=True):
        what = f"{field}, {name}: {problem}, {lines.get(invoice_id)}"
        if problem is not None:
            assert field.lower() in problem.lower(), what
            assert len(problem) <= 2000, what
        if invoice_id not in lines:
            unplaced.add(invoice_id)
            assert field in PLACES[feed], what
            continue
        outcome, reasons = lines[invoice_id]
        if problem is not None:
            assert outcome == "held", what
            assert any(field.lower() in detail.lower() for detail in reasons.values()), what
        elif outcome == "held":
            assert reasons.keys() <= JUDGED[field], what
            assert reasons, what
        else:
            assert outcome == "delivered", what

    found = Counter(outcome for outcome, _ in lines.values())
    assert found["held"] > len(bad.by_id) // 4
    assert found["delivered"] > len(bad.by_id) // 5

    # Nothing is lost: what has no line is named by its number or counted by its status; every other cent is proven.
    for invoice_id in unplaced:
        field, name = bad.by_id[invoice_id]
        if field == "providerOrganizationId" and f"T-{invoice_id} " not in said:
            continue  # the invoice of another seller
        if field == "status" and f"T-{invoice_id} " not in said:
            assert "status_not_billed" in said
            continue
        assert re.search(rf"T-{invoice_id} .*{field}", said) or field == "invoiceId", (field, name)
        assert re.search(rf"\bT-{invoice_id}\b", complaint + said), (field, name)
    assert pipeline.value("select count(*) from audit.invoice_proof where run_id = %s and difference <> 0", run_id) == 0
    assert pipeline.value("select count(*) from audit.invoice_proof where run_id = %s", run_id) == pipeline.value(
        "select count(*) from billing.invoice"
    )
    codes = {code for (code,) in pipeline.rows("select distinct code from audit.log_entry where level = 'ERROR'")}
    assert codes == ({"row_without_header"} if feed == "row" else {"row_without_header", "header_unreadable"})
    others_are_billed(pipeline)


# -- reference records -------------------------------------------------------------------------------------------------

APPXITE = {
    "organizations": records.ORGANIZATION,
    "contracts": records.CONTRACT,
    "subscriptions": records.SUBSCRIPTION,
}
CONNECTWISE = {
    "/company/companies": ("companies", records.COMPANY),
    "/procurement/catalog": ("products", records.PRODUCT),
    "/finance/agreements/types": ("agreement_types", records.AGREEMENT_TYPE),
    "/finance/billingCycles": ("billing_cycles", records.BILLING_CYCLE),
    "/finance/agreements": ("agreements", records.AGREEMENT),
}


def bad_records(model: dict[str, Any], shape: Shape) -> Iterator[tuple[str, str, str]]:
    """Copies of a record under ids of their own, each with one hostile value: field, value, JSON."""
    id_field = shape._paths[shape.columns[0]]
    number = 7_000_000
    for field in fields_of(shape):
        for name, value in VALUES.items():
            number += 1
            own_id: Any = number if isinstance(model[id_field], int) else f"bad-{number}"
            yield field, name, planted({**model, id_field: own_id}, field, value)


@contextmanager
def extended(pipeline: Pipeline, more: dict[str, list[str]]) -> Iterator[None]:
    """The first page of a ConnectWise list (by the end of its path) with records added at its end."""
    answer = pipeline.sandbox.answer

    def longer(request: Any) -> Any:
        response, rule = answer(request)
        place = request.path.removeprefix("/v4_6_release/apis/3.0")
        is_first_page = request.method == "GET" and not {"pageid", "fields"} & set(request.query)
        if is_first_page and place in more:
            response.text = "[" + ",".join([*map(dumps, response.body), *more[place]]) + "]"
        return response, rule

    pipeline.sandbox.answer = longer  # type: ignore[method-assign]
    try:
        yield
    finally:
        del pipeline.sandbox.answer


def test_hostile_reference_records_are_left_out_with_a_warning_and_disturb_nobody(pipeline: Pipeline) -> None:
    bill_others(pipeline)
    db, sandbox = pipeline.sandbox.store.db, pipeline.sandbox
    sandbox.change_settings(pascal_feeds=[])  # the sandbox could not read them itself
    planted_in: dict[str, list[tuple[str, str]]] = {}
    with sandbox.store.transaction():
        for feed, shape in APPXITE.items():
            (text,) = db.execute("select body from appxite_records where feed = ? limit 1", (feed,)).fetchone()
            for place, (field, name, bad) in enumerate(bad_records(loads(text), shape), 100_000):
                planted_in.setdefault(feed, []).append((field, name))
                values = (feed, place, f"bad-{place}", bad)
                db.execute("insert into appxite_records (feed, position, id, body) values (?, ?, ?, ?)", values)
    more: dict[str, list[str]] = {}
    for path, (feed, shape) in CONNECTWISE.items():
        model = next(iter(getattr(pipeline.connectwise(), feed)()))[0]
        for field, name, bad in bad_records(model, shape):
            planted_in.setdefault(feed, []).append((field, name))
            more.setdefault(path, []).append(bad)

    said: list[str] = []
    run_id = pipeline.open("manual", [OCT])
    with extended(pipeline, more):
        appxite, connectwise = pipeline.appxite(), pipeline.connectwise(read_only=True)
        for result in (
            extract_appxite_reference(pipeline.connection, appxite, run_id),
            extract_connectwise_reference(pipeline.connection, connectwise, run_id),
        ):
            said += result.warnings
        extract_invoices(pipeline.connection, appxite, run_id, OCT)
        decide(pipeline.connection, run_id)
        approve_automatically(pipeline.connection, run_id)
        counts = pipeline.deliver(plan_of_run(pipeline.connection, run_id))
        prove(pipeline.connection, connectwise, run_id)
    assert counts.created == len(OTHERS)
    for feed, bad in planted_in.items():
        words = feed.replace("_", " ")
        ours = [one for one in said if f", {words}: record " in one]
        assert ours, feed
        assert all(len(one) < 3000 for one in ours)
        # Of the notes that people write on an agreement only a mark of ours is read.
        for field in {field for field, _ in bad} - {"internalNotes"}:
            assert any(f" {field}" in one or f"{field}/" in one for one in ours), (feed, field)
        for value in ("NaN", "1e400", "U+0000", "U+D800", "given twice"):
            assert any(value in one for one in ours), (feed, value)
        staged = pipeline.value("select row_count from staging.extract where run_id = %s and feed = %s", run_id, feed)
        left_out = sum(" was left out: " in one for one in ours)
        whole = pipeline.value(
            "select row_count from staging.extract where feed = %s order by extract_id limit 1", feed
        )
        assert staged == whole + len(bad) - left_out
    others_are_billed(pipeline)
