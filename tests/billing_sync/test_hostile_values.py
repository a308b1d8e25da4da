"""Every hostile value in every field of an invoice, from AppXite's wire to ConnectWise's invoices.

One customer gets an invoice for each pair of field and value, all in one month; three others get ordinary ones. After
one whole run the others are billed to the cent, and of each bad invoice it is said what is wrong with which field, or
it is billed because the value does no harm.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from pipeline import OCT, Pipeline, invoiced, most_billable_at_once, one_time, recurring

from billing_sync import records
from billing_sync.errors import ProofError

BAD, OTHERS = 0, {202: Decimal("12.34"), 203: Decimal("20.00"), 204: Decimal("30.30")}
LONG = 100_000

VALUES: dict[str, str | None] = {
    "NaN": "NaN",
    "Infinity": "Infinity",
    "-Infinity": "-Infinity",
    "1e400": "1e400",
    "-0": "-0",
    "-0.00": "-0.00",
    "-1": "-1",
    "half a cent": "10.005",
    "40 digits": "1234567890" * 4,
    "40 decimals": "10." + "1234567890" * 4,
    "beyond bigint": "9223372036854775808",
    "null": "null",
    "missing": None,
    "empty text": '""',
    "blanks": '"   "',
    "true": "true",
    "list": "[1]",
    "object": '{"id": 1}',
    "NUL": r'"a\u0000b"',
    "lone surrogate": r'"a\ud800b"',
    "right to left": r'"\u202e321\u202c"',
    "line breaks": r'"a\r\n\u2028b"',
    "long text": '"' + "x" * LONG + '"',
    "unknown word": '"Frobnicate"',
    "number as text": '"10.00"',
    "date zero": '"0000-00-00"',
    "date with hour": '"9999-12-31T23:59"',
    "impossible date": '"2026-02-30"',
}


def planted(text: str, field: str, value: str | None) -> str:
    """A record's JSON with a field replaced by raw JSON, or left out; "twice" gives it a second time."""
    record = json.loads(text, parse_float=Decimal)
    record.pop(field, None)
    head = json.dumps(record, default=float)[:-1]
    return head + "}" if value is None else f'{head}, "{field}": {value}}}'


def columns(shape: records.Shape) -> list[str]:
    first = [column.split("_") for column in shape.columns]
    return [head + "".join(part.capitalize() for part in rest) for head, *rest in first]


def plant(pipeline: Pipeline, feed: str) -> dict[int, tuple[str, str]]:
    """An invoice of the bad customer for each field and value; returns which stands for what."""
    table = {"header": "appxite_invoices", "row": "appxite_rows"}[feed]
    fields = columns(records.INVOICE_HEADER if feed == "header" else records.INVOICE_ROW)
    found = {}
    for field in fields:
        for name in VALUES:
            row = one_time(f"{field} {name}", OCT.replace(day=5), 1, "10.00", offerId="OF-1001")
            found[pipeline.bill(OCT, row, customer=BAD)] = (field, name)
    db = pipeline.sandbox.store.db
    with pipeline.sandbox.store.transaction():
        for invoice_id, (field, name) in found.items():
            (text,) = db.execute(f"select body from {table} where invoice_id = ?", (invoice_id,)).fetchone()
            text = planted(text, field, VALUES[name])
            db.execute(f"update {table} set body = ? where invoice_id = ?", (text, invoice_id))
    return found


@pytest.mark.parametrize("feed", ["row", "header"])
def test_explore(pipeline: Pipeline, feed: str) -> None:
    import time
    t=time.time()
    for customer, amount in enumerate(OTHERS.values(), 1):
        pipeline.bill(OCT, one_time("other", OCT, 1, amount), customer=customer)
    found = plant(pipeline, feed)
    print("planted", len(found), time.time()-t)
    run_id, plan_id = pipeline.plan_night(OCT)
    print("planned", time.time()-t)
    try:
        counts, proof = pipeline.finish(run_id)
        print(counts, proof)
    except ProofError as error:
        print("PROOF", error)
    print("finished", time.time()-t)
    for level in ("ERROR", "WARNING"):
        print(level, pipeline.warnings(level)[:6000])
    staged = {i: p for i, p in pipeline.rows(f"select (raw->>'invoiceNumber'), problem from staging.invoice_{feed}")}
    held: dict[Any, Any] = {}
    for number, outcome, reasons, ext in pipeline.rows("""
        select invoice.invoice_number, line.outcome, (select string_agg(reason_code || ': ' || detail, ' | ' order by reason_code) from billing.held_reason h where h.line_id = line.line_id), line.total_price
        from reporting.invoice_line as line join billing.invoice as invoice using (invoice_id)"""):
        held[number] = (outcome, ext, (reasons or "")[:260])
    for invoice_id, (field, name) in found.items():
        print(f"{field:24} {name:16} {held.get(f'T-{invoice_id}')}  STAGED {str(staged.get(f'T-{invoice_id}'))[:150]}")
    assert most_billable_at_once(pipeline.sandbox) <= 1
    got = invoiced(pipeline.sandbox)
    print({k: v for k, v in got.items()})
    print("end", time.time()-t)
