"""AppXite's half: what customers buy, change and cancel becomes rows, and rows become invoices, in the sandbox."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from business.dates import DAY, Span, first_of_month, last_of_month, later
from business.program import START, Customer
from sandbox.dataset import OFFERS
from sandbox.server import Sandbox

Row = dict[str, Any]
CENT = Decimal("0.01")


@dataclass
class Subscription:
    """What a customer runs. next_term: the first day that is not charged yet."""

    id: str
    name: str
    offer: str
    quantity: int
    price: Decimal
    next_term: date
    is_active: bool = True
    is_suspended: bool = False


@dataclass
class Account:
    """A customer of the seller: its subscriptions, and rows that wait for the next invoice."""

    organization_id: str
    name: str
    contract_id: str
    currency: str
    billing_day: int
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    waiting: list[Row] = field(default_factory=list)


class Seller:
    """Sells, and invoices into the sandbox's AppXite. Methods are named as events; what makes no sense is not done."""

    def __init__(self, sandbox: Sandbox, customers: tuple[Customer, ...], organizations: list[dict[str, str]]) -> None:
        self.sandbox = sandbox
        self.accounts = [
            Account(
                one["organization_id"],
                one["organization_name"],
                f"CT-{30001 + number}",
                customer.currency,
                customer.billing_day,
            )
            for number, (customer, one) in enumerate(zip(customers, organizations, strict=False))
        ]
        self.today = START
        self.invoices: dict[tuple[int, int], int] = {}  # by customer and month: the newest that stands for them
        self._changed: dict[tuple[int, int], tuple[int, Row]] = {}  # rows as they were before their last change
        self._last_id = 800000

    # -- subscriptions -------------------------------------------------------------------------------------------

    def buy(self, number: int, name: str, offer: str, quantity: int, price: Decimal) -> None:
        """The first charge is prorated to the customer's billing day for monthly terms."""
        account = self.accounts[number]
        term = self._term(account, self.today, OFFERS[offer].months)
        whole = term
        if OFFERS[offer].months == 1:
            whole = Span(later(term.end + DAY, -1), term.end)
        kept = Subscription(f"sub-{number}-{name}", f"Subscription {name}", offer, quantity, price, term.end + DAY)
        account.subscriptions[name] = kept
        self._charge(account, kept, "PurchaseFee", term, quantity, self._prorated(price, term, whole, 6))

    def _term(self, account: Account, day: date, months: int) -> Span:
        if months > 1:
            return Span(day, later(day, months) - DAY)
        turn = day.replace(day=account.billing_day)
        return Span(day, (turn if turn > day else later(turn, 1)) - DAY)

    def _prorated(self, price: Decimal, part: Span, whole: Span, places: int) -> Decimal:
        if part == whole:
            return price
        days, all_days = (part.end - part.start).days + 1, (whole.end - whole.start).days + 1
        return (price * days / all_days).quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)

    def _running(self, number: int, name: str) -> tuple[Account, Subscription | None]:
        account = self.accounts[number]
        kept = account.subscriptions.get(name)
        return account, kept if kept and kept.is_active else None

    def _rest(self, kept: Subscription, day: date) -> tuple[Span, Span]:
        """What is left of the term that is charged already, and that term."""
        whole = Span(later(kept.next_term, -OFFERS[kept.offer].months), kept.next_term - DAY)
        return Span(max(day, whole.start), whole.end), whole

    def seats(self, number: int, name: str, change: int) -> None:
        """More or fewer seats from a day on: a correction for the rest of the term."""
        account, kept = self._running(number, name)
        if kept is None or kept.quantity + change < 1:
            return
        kept.quantity += change
        if self.today < kept.next_term:
            part, whole = self._rest(kept, self.today)
            # A refund comes as a negative quantity or as a negative price.
            price = self._prorated(kept.price, part, whole, 4 if change > 0 else 9)
            given = (change, price) if change % 2 else (abs(change), price if change > 0 else -price)
            self._charge(account, kept, "Correction", part, *given)

    def price(self, number: int, name: str, price: Decimal) -> None:
        """From the next term on."""
        _, kept = self._running(number, name)
        if kept is not None and price >= 0:
            kept.price = price

    def rename(self, number: int, name: str, text: str) -> None:
        _, kept = self._running(number, name)
        if kept is not None:
            kept.name = text

    def discount(self, number: int, name: str, amount: Decimal) -> None:
        account, kept = self._running(number, name)
        if kept is not None:
            self._charge(account, kept, "Correction", Span(self.today, self.today), 1, -amount)

    def upgrade(self, number: int, name: str, offer: str, price: Decimal) -> None:
        """Another offer under the same subscription: the rest is credited, the new one bought."""
        account, kept = self._running(number, name)
        if kept is None:
            return
        self._credit_rest(account, kept, self.today)
        kept.offer, kept.price = offer, price
        term = self._term(account, self.today, OFFERS[offer].months)
        whole = Span(later(term.end + DAY, -1), term.end) if OFFERS[offer].months == 1 else term
        kept.next_term = term.end + DAY
        self._charge(account, kept, "PurchaseFee", term, kept.quantity, self._prorated(price, term, whole, 6))

    def cancel(self, number: int, name: str, at_once: bool) -> None:
        account, kept = self._running(number, name)
        if kept is None:
            return
        kept.is_active = False
        if at_once:
            self._credit_rest(account, kept, self.today)

    def _credit_rest(self, account: Account, kept: Subscription, day: date) -> None:
        if day < kept.next_term:
            part, whole = self._rest(kept, day)
            self._charge(account, kept, "Correction", part, -kept.quantity, self._prorated(kept.price, part, whole, 4))

    def suspend(self, number: int, name: str) -> None:
        _, kept = self._running(number, name)
        if kept is not None:
            kept.is_suspended = True

    def resume(self, number: int, name: str) -> None:
        """Terms that began meanwhile are not charged."""
        account, kept = self._running(number, name)
        if kept is None or not kept.is_suspended:
            return
        kept.is_suspended = False
        while kept.next_term < self.today:
            kept.next_term = self._term(account, kept.next_term, OFFERS[kept.offer].months).end + DAY

    # -- other charges -------------------------------------------------------------------------------------------

    def usage(self, number: int, offer: str, quantity: Decimal, price: Decimal, cent: int) -> None:
        """In arrears, for the month before; some totals are a cent off quantity x price."""
        before = later(first_of_month(self.today), -1)
        row = self._charge(
            self.accounts[number],
            self._single(number, offer),
            "UsageFee",
            Span(before, last_of_month(before)),
            quantity,
            price,
        )
        if row["totalPrice"] >= 1:
            row["totalPrice"] += cent * CENT

    def once(self, number: int, offer: str, quantity: int) -> None:
        self._charge(
            self.accounts[number],
            self._single(number, offer),
            "OneTimeFee",
            Span(self.today, self.today),
            quantity,
            OFFERS[offer].price,
        )

    def item(self, number: int, offer: str, quantity: int) -> None:
        self._charge(
            self.accounts[number],
            self._single(number, offer),
            "ItemFee",
            Span(self.today, last_of_month(self.today)),
            quantity,
            OFFERS[offer].price,
        )

    def custom(self, number: int, offer: str | None, amount: Decimal) -> None:
        """A row of a custom invoice: no subscription, often no offer, any sign."""
        row = self._row(
            self.accounts[number],
            None,
            "Default Subscription",
            offer,
            "UserCorrection",
            Span(self.today, self.today),
            1,
            amount,
        )
        if amount % 2:
            row["rowId"] = None
        self.accounts[number].waiting.append(row)

    def odd(self, number: int, how: str) -> None:
        """A row that makes no sense to anybody."""
        row = self._charge(
            self.accounts[number],
            self._single(number, "OF-1401"),
            "ItemFee",
            Span(self.today, self.today),
            1,
            Decimal("7.50"),
        )
        if how == "charge type":
            row["chargeType"] = "TransferFee"
        elif how == "currency":
            row["currency"] = "GBP"
        else:
            row["chargeEndDate"] = (self.today - 3 * DAY).isoformat()

    def _single(self, number: int, offer: str) -> Subscription:
        return Subscription(f"sub-{number}-{offer}", OFFERS[offer].name, offer, 1, OFFERS[offer].price, START)

    def _charge(
        self, account: Account, kept: Subscription, charge: str, period: Span, quantity: object, price: Decimal
    ) -> Row:
        row = self._row(account, kept.id, kept.name, kept.offer, charge, period, quantity, price)
        account.waiting.append(row)
        return row

    def _row(
        self, account: Account, subscription: str | None, name: str, offer: str | None, charge: str, period: Span,
        quantity: object, price: Decimal,
    ) -> Row:  # fmt: skip
        quantity = Decimal(str(quantity))
        months = OFFERS[offer].months if offer else 0
        return {
            "subscriptionId": subscription,
            "subscriptionName": name,
            "offerId": offer,
            "offerName": OFFERS[offer].name if offer else None,
            "chargeType": charge,
            "chargeStartDate": period.start.isoformat(),
            "chargeEndDate": period.end.isoformat(),
            "billingFrequency": f"Every {months} months" if months else "One Time",
            "quantity": quantity,
            "unitPrice": price,
            "totalPrice": (quantity * price).quantize(CENT, ROUND_HALF_UP),
            "currency": account.currency,
        }

    # -- invoices ------------------------------------------------------------------------------------------------

    def bill(self, number: int, month: int, is_verified: bool) -> None:
        """The customer's invoice of a month: what waits, and the terms that begin until its end."""
        account = self.accounts[number]
        until = last_of_month(later(START, month))
        for kept in account.subscriptions.values():
            while kept.is_active and not kept.is_suspended and kept.next_term <= until:
                term = self._term(account, kept.next_term, OFFERS[kept.offer].months)
                self._charge(account, kept, "CycleFee", term, kept.quantity, kept.price)
                kept.next_term = term.end + DAY
        if account.waiting:
            rows, account.waiting = account.waiting, []
            self.invoices[number, month] = self._issue(
                account, min(self.today, until), rows, "Verified" if is_verified else "New"
            )

    def _issue(self, account: Account, day: date, rows: list[Row], status: str) -> int:
        self._last_id += 1
        header = {
            "invoiceId": self._last_id,
            "invoiceNumber": f"B-{self._last_id}",
            "invoiceDate": day.isoformat(),
            "providerOrganizationId": self.sandbox.credentials.requester_id,
            "consumerOrganizationId": account.organization_id,
        }
        shared = {**header, "contractId": account.contract_id}
        lines = [{"rowId": f"{self._last_id}-{n:03d}", **shared, **row} for n, row in enumerate(rows, 1)]
        lines = [{name: value for name, value in row.items() if name != "rowId" or value} for row in lines]
        rest = {
            "status": status, "statusId": 1 if status == "Verified" else 0, "consumerName": account.name,
            "providerName": "Seller", "contractId": account.contract_id, "currency": account.currency,
            "totalAmount": sum((row["totalPrice"] for row in rows), Decimal("0.00")), "invoiceSourceId": 1,
            "invoiceSource": "Billing Cycle",
        }  # fmt: skip
        self.sandbox.add_appxite_invoice({**header, **rest}, lines)
        return self._last_id

    def verify(self, number: int, month: int) -> None:
        self._status(number, month, "Issued")

    def relist(self, number: int, month: int) -> None:
        self._status(number, month, "Verified")

    def withdraw(self, number: int, month: int, **_: Any) -> None:
        self._status(number, month, "New Corrected")

    def _status(self, number: int, month: int, status: str) -> None:
        if (number, month) in self.invoices:
            self.sandbox.change_appxite_invoice(self.invoices[number, month], {"status": status})

    def reissue(self, number: int, month: int, **_: Any) -> None:
        """Withdrawn, and the same charges under another id."""
        if (number, month) not in self.invoices:
            return
        old = self.sandbox.appxite_invoice(self.invoices[number, month])
        self.withdraw(number, month)
        own = (
            "rowId",
            "invoiceId",
            "invoiceNumber",
            "invoiceDate",
            "providerOrganizationId",
            "consumerOrganizationId",
            "contractId",
        )
        rows = [{name: value for name, value in one["row"].items() if name not in own} for one in old["rows"]]
        account, invoiced = self.accounts[number], date.fromisoformat(old["header"]["invoiceDate"])
        if rows and rows[0]["currency"] == account.currency:
            self.invoices[number, month] = self._issue(account, invoiced, rows, "Verified")

    def change_row(self, number: int, month: int, row: int, factor: int) -> None:
        """Another quantity; the invoice still adds up."""
        if found := self._find(number, month, row):
            line, now = found
            quantity = Decimal(now["quantity"]) * factor
            total = (quantity * Decimal(now["unitPrice"])).quantize(CENT, ROUND_HALF_UP)
            self._changed[number, month] = (line, now)
            self.sandbox.change_appxite_row(line, {"quantity": quantity, "totalPrice": total})
            self._total(number, month)

    def change_back(self, number: int, month: int) -> None:
        """As it was before the last change."""
        if (number, month) in self._changed:
            line, was = self._changed.pop((number, month))
            if any(one["line"] == line for one in self.sandbox.appxite_invoice(self.invoices[number, month])["rows"]):
                self.sandbox.change_appxite_row(line, {name: was[name] for name in ("quantity", "totalPrice")})
                self._total(number, month)

    def remove_row(self, number: int, month: int, row: int, **_: Any) -> None:
        if found := self._find(number, month, row):
            self.sandbox.delete_appxite_row(found[0])
            self._total(number, month)

    def _find(self, number: int, month: int, row: int) -> tuple[int, Row] | None:
        if (number, month) not in self.invoices:
            return None
        rows = self.sandbox.appxite_invoice(self.invoices[number, month])["rows"]
        return (rows[row % len(rows)]["line"], rows[row % len(rows)]["row"]) if rows else None

    def _total(self, number: int, month: int, cents: int = 0) -> None:
        invoice_id = self.invoices[number, month]
        rows = self.sandbox.appxite_invoice(invoice_id)["rows"]
        total = sum((one["row"]["totalPrice"] for one in rows), Decimal("0.00")) + cents * CENT
        self.sandbox.change_appxite_invoice(invoice_id, {"totalAmount": total})

    def break_total(self, number: int, month: int, **_: Any) -> None:
        if (number, month) in self.invoices:
            self._total(number, month, cents=1)

    def mend_total(self, number: int, month: int) -> None:
        if (number, month) in self.invoices:
            self._total(number, month)

    def bill_currency(self, number: int, currency: str) -> None:
        """From the next row on the customer is charged in another currency; what waits is invoiced before."""
        account = self.accounts[number]
        rows, account.waiting = account.waiting, []
        if rows:
            self._issue(account, self.today, rows, "Verified")
        account.currency = currency

    def rename_organization(self, number: int) -> None:
        account = self.accounts[number]
        account.name += " Group"
        store = self.sandbox.store
        with store.transaction():
            store.db.execute(
                "update appxite_records set body = json_set(body, '$.name', ?) where feed = 'organizations' and id = ?",
                (account.name, account.organization_id),
            )
