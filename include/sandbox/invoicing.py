"""Agreement invoicing: how an Addition becomes money, one billing cycle at a time.

An agreement is billed for the cycle that holds its nextInvoiceDate: every Billable Addition whose dates touch
that cycle, at round(billedQuantity x unitPrice, 2), by days if the agreement prorates. Then nextInvoiceDate
moves to the first day of the next cycle.
"""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

from sandbox.store import Store, marker_of
from sandbox.wire import EXACT, Json, line_amount, number, parse_date, round_half_up, timestamp

CYCLE_MONTHS = {"Monthly": 1, "BiMonthly": 2, "Quarterly": 3, "SemiAnnual": 6, "Yearly": 12}
FIRST_INVOICE_ID = 9001


class CannotInvoice(ValueError):
    """The agreement cannot be invoiced; the message says why."""


@dataclass(frozen=True)
class Cycle:
    """One billing cycle, both days inclusive."""

    start: date
    end: date

    @property
    def days(self) -> int:
        return (self.end - self.start).days + 1


def add_months(anchor: date, months: int) -> date:
    """`months` after the anchor, on the anchor's day or the last day of a shorter month."""
    index = anchor.year * 12 + anchor.month - 1 + months
    year, month = index // 12, index % 12 + 1
    return date(year, month, min(anchor.day, calendar.monthrange(year, month)[1]))


def cycle_of(day: date, months: int, anchor: date) -> Cycle:
    """The cycle of `months` months that holds `day`, counted from the anchor.

    Each start is computed from the anchor itself, never from the start before it: an anchor on the 31st gives
    31 January, 28 February, 31 March, and does not drift to the 28th.
    """
    count = ((day.year - anchor.year) * 12 + day.month - anchor.month) // months
    while add_months(anchor, count * months) > day:
        count -= 1
    while add_months(anchor, (count + 1) * months) <= day:
        count += 1
    return Cycle(add_months(anchor, count * months), add_months(anchor, (count + 1) * months) - timedelta(days=1))


def is_recurring(store: Store, agreement: Json) -> bool:
    """Whether the agreement has a billing cycle that comes again (a prepaid block of time has none)."""
    billing = store.records("billingCycle").get((agreement.get("billingCycle") or {}).get("id", 0), {})
    return billing.get("billingOptions") in CYCLE_MONTHS


def agreement_cycle(store: Store, agreement: Json, day: date) -> Cycle:
    """The agreement's cycle that holds `day`: calendar cycles start in January, contract cycles on the
    anniversary of billStartDate."""
    billing = store.records("billingCycle").get((agreement.get("billingCycle") or {}).get("id", 0), {})
    option = billing.get("billingOptions")
    if option not in CYCLE_MONTHS:
        raise CannotInvoice(f"agreement {agreement['id']} has billing cycle {option}, which the sandbox cannot invoice")
    anchor = date(2000, 1, 1)
    if agreement.get("invoicingCycle") == "ContractYear":
        anchor = parse_date(agreement["billStartDate"])
    return cycle_of(day, CYCLE_MONTHS[option], anchor)


def touching_days(addition: Json, cycle: Cycle) -> int:
    """How many days of the cycle lie in effectiveDate..cancelledDate, both inclusive; 0 if none."""
    start, end = cycle.start, cycle.end
    if addition.get("effectiveDate"):
        start = max(start, parse_date(addition["effectiveDate"]))
    if addition.get("cancelledDate"):
        end = min(end, parse_date(addition["cancelledDate"]))
    return max(0, (end - start).days + 1)


def billed_amount(addition: Json, cycle: Cycle, *, prorate: bool) -> Decimal | None:
    """The money of one Addition in one cycle, or None if it is not billed in it."""
    days = touching_days(addition, cycle)
    if addition["billCustomer"] != "Billable" or not days:
        return None
    quantity, price = number(addition["billedQuantity"]), number(addition["unitPrice"])
    if not prorate or days == cycle.days:
        return line_amount(quantity, price)
    full = EXACT.multiply(quantity, price)
    return round_half_up(EXACT.divide(EXACT.multiply(full, Decimal(days)), Decimal(cycle.days)))


def invoice_agreement(store: Store, agreement_id: int) -> Json | None:
    """Invoice the next cycle of one agreement. Returns the invoice, or None if there was nothing to bill.

    Shape of the invoice: a ConnectWise invoice plus `cycleStart`, `cycleEnd` (dates, inclusive) and `lines`
    (`additionId, marker, product, description, quantity, unitPrice, days, amount`).
    """
    with store.transaction():
        agreement = store.records("agreement").get(agreement_id)
        if agreement is None:
            raise CannotInvoice(f"there is no agreement {agreement_id}")
        cycle = agreement_cycle(store, agreement, parse_date(agreement["nextInvoiceDate"]))
        lines = []
        for addition in store.additions(agreement_id).values():
            amount = billed_amount(addition, cycle, prorate=bool(agreement.get("prorateFlag")))
            if amount is not None:
                lines.append(
                    {
                        "additionId": addition["id"],
                        "marker": marker_of(addition),
                        "product": addition["product"]["identifier"],
                        "description": addition.get("invoiceDescription") or addition["description"],
                        "quantity": addition["billedQuantity"],
                        "unitPrice": addition["unitPrice"],
                        "days": touching_days(addition, cycle),
                        "amount": amount,
                    }
                )
        moved = {**agreement, "nextInvoiceDate": timestamp(cycle.end + timedelta(days=1))}
        store.save("agreement", moved)
        store.journal("invoicing", "agreement.update", agreement, moved)
        if not lines:
            return None
        invoice = _invoice(store, agreement, cycle, lines)
        store.save("invoice", invoice)
        store.journal("invoicing", "invoice.create", None, invoice)
        return invoice


def _invoice(store: Store, agreement: Json, cycle: Cycle, lines: list[Json]) -> Json:
    invoice_id = store.next_id("invoice", FIRST_INVOICE_ID)
    total = sum((line["amount"] for line in lines), Decimal("0.00"))
    return {
        "id": invoice_id,
        "invoiceNumber": str(invoice_id),
        "type": "Agreement",
        "status": {"id": 1, "name": "New"},
        "company": agreement["company"],
        "applyToType": "Agreement",
        "applyToId": agreement["id"],
        "agreement": {"id": agreement["id"], "name": agreement["name"]},
        "date": timestamp(cycle.start),
        "dueDate": timestamp(cycle.start + timedelta(days=30)),
        "currency": agreement.get("currency"),
        "agreementAmount": total,
        "subtotal": total,
        "salesTax": Decimal("0.00"),
        "total": total,
        "balance": total,
        "_info": {"lastUpdated": timestamp(cycle.end)},
        "cycleStart": cycle.start.isoformat(),
        "cycleEnd": cycle.end.isoformat(),
        "lines": lines,
    }


def invoice_through(store: Store, through: date, agreement_id: int | None = None) -> list[Json]:
    """Invoice every cycle that starts on or before `through`, of one agreement or of all active ones."""
    invoices = []
    ids = [agreement_id] if agreement_id else list(store.records("agreement"))
    for one in ids:
        while True:
            agreement = store.records("agreement").get(one)
            if agreement is None:
                raise CannotInvoice(f"there is no agreement {one}")
            skipped = agreement["agreementStatus"] != "Active" or not is_recurring(store, agreement)
            if skipped and not agreement_id:
                break
            if parse_date(agreement["nextInvoiceDate"]) > through:
                break
            invoice = invoice_agreement(store, one)
            if invoice is not None:
                invoices.append(invoice)
    return invoices
