"""Agreement invoicing: cycles, what is billed in them, proration."""

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.invoicing import CYCLE_MONTHS, add_months, cycle_of

DAYS = st.dates(date(2000, 1, 1), date(2060, 12, 31))
CALENDAR = date(2000, 1, 1)


@given(DAYS, st.sampled_from(sorted(CYCLE_MONTHS.values())), DAYS)
def test_cycles_follow_each_other_without_gap(day: date, months: int, anchor: date) -> None:
    cycle = cycle_of(day, months, anchor)
    assert cycle.start <= day <= cycle.end
    assert cycle_of(cycle.end + timedelta(days=1), months, anchor).start == cycle.end + timedelta(days=1)
    assert cycle_of(cycle.start, months, anchor) == cycle_of(cycle.end, months, anchor) == cycle


def test_month_ends_do_not_drift() -> None:
    anchor = date(2026, 1, 31)
    assert [add_months(anchor, n) for n in range(4)] == [
        *(date(2026, 1, 31), date(2026, 2, 28), date(2026, 3, 31), date(2026, 4, 30))
    ]
    assert cycle_of(date(2026, 3, 30), 1, anchor).start == date(2026, 2, 28)
    assert cycle_of(date(2026, 3, 31), 1, anchor).start == date(2026, 3, 31)


@pytest.mark.parametrize(
    ("months", "anchor", "start", "end"),
    [
        (1, CALENDAR, "2026-10-01", "2026-10-31"),
        (3, CALENDAR, "2026-10-01", "2026-12-31"),
        (6, CALENDAR, "2026-07-01", "2026-12-31"),
        (12, CALENDAR, "2026-01-01", "2026-12-31"),
        (1, date(2024, 1, 10), "2026-10-10", "2026-11-09"),
        (3, date(2024, 2, 10), "2026-08-10", "2026-11-09"),
        (12, date(2024, 2, 29), "2026-02-28", "2027-02-27"),
    ],
)
def test_the_cycle_that_holds_a_day(months: int, anchor: date, start: str, end: str) -> None:
    cycle = cycle_of(date(2026, 10, 15), months, anchor)
    assert (cycle.start.isoformat(), cycle.end.isoformat()) == (start, end)


def line(sandbox: Any, agreement_id: int, **changes: Any) -> int:
    body = {"product": {"id": 501}, "billCustomer": "Billable", "quantity": 1, "unitPrice": 10, **changes}
    for name in ("effectiveDate", "cancelledDate"):
        if name in body:
            body[name] += "T00:00:00Z"
    return int(sandbox.add_addition(agreement_id, body)["id"])


def billed(sandbox: Any, agreement_id: int, cycles: int) -> list[dict[int, str]]:
    """Per invoiced cycle: addition -> amount as text."""
    result: list[dict[int, str]] = []
    for _ in range(cycles):
        made = sandbox.invoice(agreement_id)
        result.append({entry["additionId"]: str(entry["amount"]) for invoice in made for entry in invoice["lines"]})
    return result


def test_dates_are_inclusive_and_no_end_bills_for_ever(sandbox: Any, agreement: Any) -> None:
    one = agreement["id"]
    endless = line(sandbox, one, effectiveDate="2026-10-31")
    single = line(sandbox, one, effectiveDate="2026-10-01", cancelledDate="2026-10-01")
    across = line(sandbox, one, effectiveDate="2026-10-31", cancelledDate="2026-11-01")
    future = line(sandbox, one, effectiveDate="2026-12-01")
    past = line(sandbox, one, effectiveDate="2026-01-01", cancelledDate="2026-09-30")
    cycles = billed(sandbox, one, 3)
    assert [set(cycle) for cycle in cycles] == [{endless, single, across}, {endless, across}, {endless, future}]
    assert past not in {addition for cycle in cycles for addition in cycle}
    assert sandbox.agreements()[0]["nextInvoiceDate"] == "2027-01-01T00:00:00Z"


def test_a_year_on_a_monthly_agreement_bills_twelve_times(sandbox: Any, agreement: Any) -> None:
    year = line(sandbox, agreement["id"], effectiveDate="2026-10-01", cancelledDate="2027-09-30", unitPrice=120)
    assert billed(sandbox, agreement["id"], 13) == [{year: "120.00"}] * 12 + [{}]


def test_only_billable_lines_are_billed(sandbox: Any, agreement: Any) -> None:
    for option in ("DoNotBill", "NoCharge"):
        line(sandbox, agreement["id"], billCustomer=option)
    kept = line(sandbox, agreement["id"], quantity=-2, lessIncluded=1, unitPrice=Decimal("0.335"))
    assert billed(sandbox, agreement["id"], 1) == [{kept: "-1.01"}]


def test_without_anything_to_bill_the_date_moves_on_all_the_same(sandbox: Any, agreement: Any) -> None:
    assert sandbox.invoice(agreement["id"]) == []
    assert sandbox.agreements()[0]["nextInvoiceDate"] == "2026-11-01T00:00:00Z"
    assert sandbox.invoices() == []


@pytest.mark.parametrize(
    ("cycle", "invoicing", "next_date", "days", "amount"),
    [
        (1, "CalendarYear", "2026-10-01", 31, "5.16"),  # 16 of 31 days of 10.00
        (2, "CalendarYear", "2026-10-01", 92, "8.37"),  # 77 of 92
        (3, "CalendarYear", "2026-07-01", 184, "4.18"),  # 77 of 184
        (4, "CalendarYear", "2026-01-01", 365, "2.11"),  # 77 of 365
        (1, "ContractYear", "2026-10-10", 31, "8.06"),  # anniversary on the 10th: 25 of 31
    ],
)
def test_a_prorating_agreement_bills_by_days(
    sandbox: Any, agreement: Any, cycle: int, invoicing: str, next_date: str, days: int, amount: str
) -> None:
    sandbox.change_record(
        "agreements",
        agreement["id"],
        {
            "prorateFlag": True,
            "billingCycle": {"id": cycle},
            "invoicingCycle": invoicing,
            "billStartDate": "2024-01-10T00:00:00Z",
            "nextInvoiceDate": next_date + "T00:00:00Z",
        },
    )
    added = line(sandbox, agreement["id"], effectiveDate="2026-10-16")
    (invoice,) = sandbox.invoice(agreement["id"])
    start, end = (date.fromisoformat(invoice[name]) for name in ("cycleStart", "cycleEnd"))
    assert (end - start).days + 1 == days
    assert [(entry["additionId"], str(entry["amount"])) for entry in invoice["lines"]] == [(added, amount)]
    (full,) = sandbox.invoice(agreement["id"])
    assert str(full["lines"][0]["amount"]) == "10.00"


def test_without_prorating_a_touched_cycle_is_billed_whole(sandbox: Any, agreement: Any) -> None:
    added = line(sandbox, agreement["id"], effectiveDate="2026-10-31", cancelledDate="2026-10-31")
    assert billed(sandbox, agreement["id"], 1) == [{added: "10.00"}]


def test_all_agreements_through_a_date(sandbox: Any, cw: Any) -> None:
    made = sandbox.invoice(through="2026-11-30")
    assert {invoice["cycleStart"] for invoice in made} == {"2026-10-01", "2026-11-01"}
    assert len({(i["agreement"]["id"], i["cycleStart"]) for i in made}) == len(made)
    assert sandbox.invoice(through="2026-11-30") == []
    assert len(cw.get("/finance/invoices")) == len(made)
    shown = cw.get(f"/finance/invoices/{made[0]['id']}")
    assert (shown["type"], shown["total"]) == ("Agreement", made[0]["total"])
    assert "lines" not in shown
    assert cw.get("/finance/invoices/count", conditions="agreement/id = 1")["count"] == 0


def test_what_cannot_be_invoiced_is_refused_with_a_reason(sandbox: Any, control: Any) -> None:
    block = next(a for a in sandbox.agreements() if a["type"]["name"] == "Block Time")
    assert "cannot invoice" in control.post("/invoicing", {"agreement_id": block["id"]}, expect=400)["message"]
    assert "no agreement" in control.post("/invoicing", {"agreement_id": 1}, expect=400)["message"]


def test_an_invoice_line_names_addition_and_marker(sandbox: Any, cw: Any, path: str, addition: Any) -> None:
    made = cw.post(path, {**addition, "billCustomer": "Billable"})
    (invoice,) = sandbox.invoice(made["agreementId"])
    assert invoice["lines"][0] | {"amount": "12.00"} == {
        "additionId": made["id"],
        "marker": "demo:line:1",
        "product": "MAIL-ESS-M",
        "description": "Mail Essentials",
        "quantity": 3,
        "unitPrice": 4,
        "days": 31,
        "amount": "12.00",
    }
    assert sandbox.journal(operation="invoice.create")[0]["agreement_id"] == made["agreementId"]
