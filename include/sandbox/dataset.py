"""The seeded data: what the seller invoiced in AppXite, and what its ConnectWise looks like beforehand.

Same parameters, same bytes; nothing depends on the wall clock. Every customer has its own random generator, so
one more customer changes no line of another. Most customers are ordinary; what is special about the others is in
ROLES: one customer each, so that the large majority of the money can be delivered. All roles need 28 customers.
"""

from __future__ import annotations

import calendar
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from sandbox.appxite import STATUS_IDS
from sandbox.connectwise import ConnectWise, currency_reference
from sandbox.invoicing import Cycle, add_months, agreement_cycle
from sandbox.messages import Credentials
from sandbox.store import Store
from sandbox.wire import CENT, EXACT, Json, line_amount, round_half_up, timestamp

ROLES: dict[str, int] = {
    "name_differs": 0,  # Acme Corp here, ACME Corporation there
    "heavy": 1,  # more than 100 lines a month, every charge type
    "odd_text": 2,  # quotes, unicode, very long names
    "changing_quantity": 3,  # also two subscriptions of one offer, and a line of zero
    "changing_price": 4,
    "cancelled_subscription": 5,  # no recurring line after the first month
    "several_invoices": 6,  # and a credit note that refers to one of them
    "custom_invoice": 7,  # UserCorrections, one of them without offer and subscription
    "unmapped_offer": 8,
    "mid_month": 9,  # billing cycle day 15
    "broken_total": 10,  # the rows of one invoice do not add up to its total
    "unknown_charge_type": 11,
    "bundle_product": 12,
    "inactive_product": 13,
    "other_currency": 14,  # invoiced in USD, the agreement is in EUR
    "no_company": 15,
    "two_agreements": 16,
    "no_agreement": 17,
    "prorating_agreement": 18,
    "expired_agreement": 19,
    "quarterly_agreement": 20,
    "yearly_agreement": 21,
    "contract_cycle": 22,  # anniversary on the 10th
    "internal_use": 23,  # the seller itself: mapped, and excluded
    "not_verified": 24,  # besides verified invoices: preview, New and New Corrected
    "twin_offers": 25,  # one product name, a monthly and a yearly offer
    "long_terms": 26,  # quarterly and yearly subscriptions
    "mid_month_too": 27,
}

VENDOR_ID, VENDOR_NAME = "900001", "Northwind Cloud Distribution"
SELLER_NAME = "Demo Service Provider"
SYNC_KEY_FIELD, COST_CENTRE_FIELD = 11, 12
CLOUD, MANAGED, BLOCK_TIME = 1, 2, 3
_CYCLES = {
    1: ("M", "Monthly"),
    2: ("Q", "Quarterly"),
    3: ("S", "SemiAnnual"),
    4: ("Y", "Yearly"),
    5: ("N", "NotRecurring"),
}
_FREQUENCY = {0: "One Time", 1: "Every 1 months", 3: "Every 3 months", 12: "Every 12 months"}

_FIRST = (  # noqa: SIM905
    "Alder Birch Cedar Delta Ember Falcon Granite Harbour Iris Juniper Kestrel Linden Maple Nordic Opal Pioneer "
    "Quartz River Summit Tundra Umber Vista Willow Xenon Yarrow Zephyr Anchor Beacon Copper Drift"
).split()
_SECOND = (  # noqa: SIM905
    "Logistics Foods Dental Architects Motors Textiles Legal Media Energy Clinics Print Garden Hotels Steel"
).split()


@dataclass(frozen=True)
class Offer:
    """An AppXite offer and the catalog item an administrator would map it to (no `sku`: there is none)."""

    id: str
    name: str
    months: int  # length of a term; 0: not recurring
    price: Decimal
    charge: str  # CycleFee (also PurchaseFee), UsageFee, OneTimeFee or ItemFee
    sku: str | None
    product_class: str = "NonInventory"
    inactive: bool = False


def _offers() -> list[Offer]:
    monthly = [
        ("Mail Essentials", "4.20", "MAIL-ESS"),
        ("Mail Business", "6.00", "MAIL-BUS"),
        ("Office Standard", "11.70", "OFF-STD"),
        ("Office Premium", "20.60", "OFF-PRE"),
        ("Office Enterprise", "35.75", "OFF-ENT"),
        ("Identity Protection", "5.65", "ID-PROT"),
        ("Endpoint Security", "2.845", "END-SEC"),
        ("Mail Backup", "3.15", "MAIL-BAK"),
        ("Project Planning", "28.10", "PROJ"),
        ("Phone System", "7.4975", "PHONE"),
        ("Remote Desktop", "9.95", "RDP"),
        ("Signature Manager", "0.99", "SIGN"),
    ]
    offers = [
        Offer(f"OF-{1001 + n}", name, 1, Decimal(price), "CycleFee", f"{sku}-M")
        for n, (name, price, sku) in enumerate(monthly)
    ]
    offers += [
        # The same product name with another term is another offer: only the id and the frequency tell them apart.
        Offer("OF-1101", "Office Premium", 12, Decimal("226.60"), "CycleFee", "OFF-PRE-Y"),
        Offer("OF-1102", "Office Standard (Yearly)", 12, Decimal("128.70"), "CycleFee", "OFF-STD-Y"),
        Offer("OF-1103", "Project Planning (Quarterly)", 3, Decimal("82.30"), "CycleFee", "PROJ-Q"),
        Offer("OF-1104", "Mail Backup (Quarterly)", 3, Decimal("9.10"), "CycleFee", "MAIL-BAK-Q"),
        Offer("OF-1201", "Cloud Compute", 0, Decimal("0.0834"), "UsageFee", "CLOUD-CMP"),
        Offer("OF-1202", "Object Storage", 0, Decimal("0.0198"), "UsageFee", "CLOUD-STO"),
        Offer("OF-1203", "Data Transfer", 0, Decimal("0.0712"), "UsageFee", "CLOUD-NET"),
        Offer("OF-1301", "Tenant Migration", 0, Decimal("480.00"), "OneTimeFee", "MIGRATE"),
        Offer("OF-1302", "Perpetual Server Licence", 0, Decimal("612.35"), "OneTimeFee", "SRV-LIC"),
        Offer("OF-1401", "Domain Registration", 0, Decimal("14.90"), "ItemFee", "DOMAIN"),
        Offer("OF-1402", "Support Ticket Pack", 0, Decimal("95.00"), "ItemFee", "TICKETS"),
        Offer("OF-1901", "Insight Analytics (Beta)", 1, Decimal("16.40"), "CycleFee", None),
        Offer(
            "OF-1902",
            "Workplace Bundle",
            1,
            Decimal("31.00"),
            "CycleFee",
            "WORK-BUNDLE",
            product_class="Bundle",
        ),
        Offer("OF-1903", "Legacy Archive", 1, Decimal("8.25"), "CycleFee", "ARCHIVE-OLD", inactive=True),
    ]
    return offers


OFFERS = {offer.id: offer for offer in _offers()}
_MONTHLY = [offer for offer in OFFERS.values() if offer.months == 1 and offer.id < "OF-1100"]
_USAGE = [offer for offer in OFFERS.values() if offer.charge == "UsageFee"]
_SINGLE = [offer for offer in OFFERS.values() if offer.charge in ("OneTimeFee", "ItemFee")]


@dataclass
class Subscription:
    """What a customer runs; `first` is the month (its first day) of the first charge."""

    id: str
    name: str
    offer: Offer
    quantity: Decimal
    price: Decimal
    first: date
    last: date | None = None  # the last month with a recurring line
    status: str = "Active"
    free: bool = False


@dataclass
class Customer:
    """One customer: its AppXite organization and, for most, its ConnectWise company."""

    index: int
    organization_id: str
    name: str
    company_name: str
    identifier: str
    contract_id: str
    rng: random.Random
    size: int
    currency: str = "EUR"
    day: int = 1
    subscriptions: list[Subscription] = field(default_factory=list)

    def has(self, role: str) -> bool:
        return ROLES[role] == self.index

    @property
    def company_id(self) -> int:
        return 201 + self.index


@dataclass
class Invoice:
    """An invoice while it is put together; `rows` come with their vendor lines."""

    header: Json
    visibility: str = "published"
    rows: list[tuple[Json, list[Json]]] = field(default_factory=list)


def seeded(name: str) -> random.Random:
    """A generator that depends on the name only. Chance for a data set, nothing to keep secret."""
    return random.Random(name)  # noqa: S311


def guid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def month_range(last_month: str, months: int) -> list[date]:
    """The first days of `months` months that end with `last_month` (YYYY-MM)."""
    last = date.fromisoformat(f"{last_month}-01")
    return [add_months(last, -back) for back in range(months - 1, -1, -1)]


def month_end(day: date) -> date:
    return day.replace(day=calendar.monthrange(day.year, day.month)[1])


class Dataset:
    """Builds both sides into an empty store: `Dataset(...).build()`."""

    def __init__(
        self, store: Store, credentials: Credentials, seed: int, customers: int, months: int, last_month: str
    ) -> None:
        self.store = store
        self.requester = credentials.requester_id
        self.connectwise = ConnectWise(store, credentials)
        self.seed = seed
        self.months = month_range(last_month, months)
        self.today = add_months(self.months[-1], 1)
        self.bill_start = date(self.months[0].year - 2, 1, 1)
        self.anomalies: list[Json] = []
        self.product_ids = {offer.id: 501 + n for n, offer in enumerate(OFFERS.values()) if offer.sku}
        self._invoice_count = 0
        self.customers = [self._customer(index) for index in range(customers)]

    def build(self) -> None:
        with self.store.transaction():
            self.store.change_settings({"today": self.today.isoformat()})
            self._connectwise_basics()
            for customer in self.customers:
                self._agreements(customer)
            self._hand_made_additions()
            for month in self.months:
                for customer in self.customers:
                    for invoice in self._month(customer, month):
                        self.store.add_invoice(invoice.header, invoice.rows, invoice.visibility)
                self._vendor_invoices(month)
            self._appxite_records()
            self.store.put("mappings", self._mappings())
            self.store.put("anomalies", self.anomalies)

    def _note(self, kind: str, customer: Customer, **facts: Any) -> None:
        """Write down a planted anomaly, for tests and for whoever shows the demo."""
        self.anomalies.append({"kind": kind, "organizationId": customer.organization_id, **facts})

    # -- customers and what they run ---------------------------------------------------------------------------

    def _customer(self, index: int) -> Customer:
        rng = seeded(f"{self.seed}/customer/{index}")
        name = f"{_FIRST[index % len(_FIRST)]} {_SECOND[index // len(_FIRST) * 5 % 14 - index % 14]}"
        name += f" {index}" if index >= len(_FIRST) * 2 else ""
        company_name = rng.choice([name, name, name, f"{name} Ltd", name.upper()])
        size = rng.choice([3, 6, 8, 10, 12, 14, 16, 18, 22, 28, 38])
        customer = Customer(
            index=index,
            organization_id=str(110001 + index * 7),
            name=name,
            company_name=company_name,
            identifier=f"{name.split()[0]}{name.split()[1][:6]}{index}",
            contract_id=f"CT-{30001 + index}",
            rng=rng,
            size=size,
        )
        special: dict[str, dict[str, Any]] = {
            "name_differs": {
                "name": "Acme Corp",
                "company_name": "ACME Corporation",
                "identifier": "Acme",
                "size": 3,
            },
            "heavy": {"size": 160},
            "odd_text": {
                "name": 'O\'Brien & "Søn" Žaltys, Größe 100% ApS',
                "company_name": "O'Brien and Son Zaltys",
                "identifier": "OBrienSon",
                "size": 7,
            },
            "other_currency": {"currency": "USD", "size": 4},
            "internal_use": {
                "name": SELLER_NAME,
                "company_name": SELLER_NAME,
                "identifier": "Internal",
                "size": 4,
            },
            "mid_month": {"day": 15},
            "mid_month_too": {"day": 15},
        }
        # Customers whose money cannot be delivered stay small.
        for role in (
            "no_company",
            "two_agreements",
            "no_agreement",
            "prorating_agreement",
            "expired_agreement",
        ):
            special[role] = {"size": 4}
        for role, changes in special.items():
            if customer.has(role):
                customer = replace(customer, **changes)
        self._subscribe(customer)
        return customer

    def _subscribe(self, customer: Customer) -> None:
        rng = customer.rng
        count = max(2, round(customer.size * 0.72))
        offers = [rng.choice(_MONTHLY) for _ in range(count)] if count > len(_MONTHLY) else rng.sample(_MONTHLY, count)
        self._choose_offers(customer, offers)
        self._start(customer, offers)
        usage = min(len(_USAGE), max(1, customer.size // 6)) if customer.size > 4 else 0
        for n in range(usage if not customer.has("heavy") else 12):
            offer = _USAGE[n % len(_USAGE)]
            name = f"{offer.name} {n + 1}" if n >= len(_USAGE) else offer.name
            customer.subscriptions.append(
                Subscription(guid(rng), name, offer, Decimal(1), offer.price, add_months(self.months[0], -6))
            )

    def _choose_offers(self, customer: Customer, offers: list[Offer]) -> None:
        """Replace or add the offers of special customers; larger customers have one longer term as well."""
        if customer.has("changing_quantity"):
            offers[1] = offers[0]
        if customer.has("twin_offers"):
            offers[:2] = [OFFERS["OF-1004"], OFFERS["OF-1101"]]
        if customer.has("long_terms"):
            offers[:3] = [OFFERS["OF-1103"], OFFERS["OF-1102"], OFFERS["OF-1104"]]
        elif customer.size >= 12:
            offers.append(OFFERS[customer.rng.choice(["OF-1101", "OF-1102", "OF-1103", "OF-1104"])])
        for role, offer_id in (
            ("unmapped_offer", "OF-1901"),
            ("bundle_product", "OF-1902"),
            ("inactive_product", "OF-1903"),
        ):
            if customer.has(role):
                offers.append(OFFERS[offer_id])
                self._note(role, customer, offerId=offer_id)

    def _start(self, customer: Customer, offers: list[Offer]) -> None:
        """A subscription of each offer, with its first month, quantity and price."""
        rng = customer.rng
        for offer in offers:
            # Most have run for a long time; about one in eight begins within the data set, in the middle of a month.
            back = rng.choice([0, *range(1, 8)]) if len(self.months) > 1 else 1
            first = (
                self.months[rng.randrange(1, len(self.months))] if back == 0 else add_months(self.months[0], -back - 1)
            )
            if offer.months > 1:  # let the anniversary fall into the data set
                first = add_months(rng.choice(self.months), -12)
            customer.subscriptions.append(
                Subscription(
                    id=guid(rng),
                    name=offer.name,
                    offer=offer,
                    quantity=Decimal(rng.choice([1, 2, 3, 5, 8, 12, 17, 25, 40])),
                    price=offer.price,
                    first=first,
                )
            )
        if customer.has("cancelled_subscription"):
            gone = customer.subscriptions[0]
            gone.first, gone.last, gone.status = add_months(self.months[0], -3), self.months[0], "Cancelled"
            self._note("cancelled_subscription", customer, subscriptionId=gone.id)
        if customer.has("changing_quantity") or customer.has("heavy"):
            customer.subscriptions[-1].free = True
            customer.subscriptions[-1].price = Decimal("0.00")
        if customer.has("odd_text"):
            customer.subscriptions[0].name = f'{customer.subscriptions[0].name} / "Łódź" 100% \\ ' + "département " * 30

    # -- one customer, one month -------------------------------------------------------------------------------

    def _month(self, customer: Customer, month: date) -> list[Invoice]:
        """The invoices of a customer in a month."""
        rng = customer.rng
        index = self.months.index(month)
        invoice_day = 15 if customer.day == 15 else rng.randrange(1, 6)
        main = self._invoice(customer, month.replace(day=invoice_day))
        invoices = [main]
        extra = main
        if customer.has("several_invoices") or customer.has("heavy") or rng.random() < 0.12:
            extra = self._invoice(customer, month.replace(day=rng.randrange(17, 27)))
            extra.header |= {"invoiceFrequencyId": 2, "invoiceFrequency": "Per Order"}
            invoices.append(extra)
        for subscription in customer.subscriptions:
            if subscription.offer.charge == "UsageFee":
                self._usage(customer, main, subscription, month)
            else:
                self._recurring(customer, main, subscription, month, index)
        self._singles(customer, extra, month)
        self._corrections(customer, extra, month)
        invoices += self._special(customer, main, month, index)
        invoices = [invoice for invoice in invoices if invoice.rows]
        for invoice in invoices:
            self._close(invoice)
        if customer.has("broken_total") and index == len(self.months) - 1:
            main.header["totalAmount"] += Decimal("0.01")
            self._note("broken_total", customer, invoiceId=main.header["invoiceId"])
        return invoices

    def _invoice(self, customer: Customer, day: date, status: str | None = None) -> Invoice:
        self._invoice_count += 1
        if status is None:
            older = day < self.months[-1]
            status = customer.rng.choice(
                ["Verified", "Verified", "Issued", "Paid"] if older else ["Verified"] * 5 + ["Issued"]
            )
        header = {
            "invoiceId": 700000 + self._invoice_count,
            "invoiceNumber": f"INV-{day.year}-{self._invoice_count:06d}",
            "statusId": STATUS_IDS[status],
            "status": status,
            "invoiceDate": day.isoformat(),
            "dueDate": (day + timedelta(days=14)).isoformat(),
            "providerOrganizationId": self.requester,
            "providerName": SELLER_NAME,
            "consumerOrganizationId": customer.organization_id,
            "consumerName": customer.name,
            "contractId": customer.contract_id,
            "contractType": "Direct",
            "currency": customer.currency,
            "totalAmount": Decimal("0.00"),
            "invoiceSourceId": 1,
            "invoiceSource": "Billing Cycle",
            "invoiceFrequencyId": 1,
            "invoiceFrequency": "Per Billing Cycle",
            "invoiceReference": None,
            "portalRegion": "EU-North",  # nobody asked for this one: clients must ignore what they do not know
        }
        return Invoice(header)

    def _close(self, invoice: Invoice) -> None:
        invoice.header["totalAmount"] = sum((row["totalPrice"] for row, _ in invoice.rows), Decimal("0.00"))

    def _row(
        self,
        customer: Customer,
        invoice: Invoice,
        subscription: Subscription | None,
        charge: str,
        period: Cycle,
        quantity: Decimal,
        price: Decimal,
        **other: Any,
    ) -> Json:
        """Append a row. `total` overrides round(quantity x price); `row_id=False` leaves the rowId out."""
        header, rng = invoice.header, customer.rng
        offer = subscription.offer if subscription else None
        with_id = rng.random() >= 0.25
        row: Json = {
            "rowId": f"{header['invoiceId']}-{len(invoice.rows) + 1:04d}",
            **{name: header[name] for name in ("invoiceId", "invoiceNumber", "invoiceDate", "providerOrganizationId")},
            "consumerOrganizationId": customer.organization_id,
            "contractId": customer.contract_id,
            "subscriptionId": subscription.id if subscription else None,
            "subscriptionName": subscription.name if subscription else "Default Subscription",
            "offerId": offer.id if offer else None,
            "offerName": offer.name if offer else None,
            "vendorChargeType": {"CycleFee": "cycleFee", "UsageFee": "usage"}.get(charge),
            "chargeType": charge,
            "chargeStartDate": period.start.isoformat(),
            "chargeEndDate": period.end.isoformat(),
            "billingFrequency": _FREQUENCY[offer.months if offer else 0],
            "quantity": quantity,
            "unitPrice": price,
            "totalPrice": other.get("total", line_amount(quantity, price)),
            "currency": customer.currency,
            "customChargeDetails": other.get("details"),
            "costCentreHint": "n/a",
        }
        if not other.get("row_id", with_id):
            del row["rowId"]
        invoice.rows.append((row, other.get("detail", [])))
        return row

    def _period(self, customer: Customer, month: date, months: int) -> Cycle:
        """The charge period of a term that begins in `month`, on the customer's billing day."""
        start = month.replace(day=customer.day)
        return Cycle(start, add_months(start, months) - timedelta(days=1))

    def _recurring(
        self, customer: Customer, invoice: Invoice, subscription: Subscription, month: date, index: int
    ) -> None:
        """In advance: the first charge is a PurchaseFee from the day of the order, then a CycleFee per term."""
        elapsed = (month.year - subscription.first.year) * 12 + month.month - subscription.first.month
        if elapsed < 0 or elapsed % subscription.offer.months or (subscription.last and month > subscription.last):
            return
        period = self._period(customer, month, subscription.offer.months)
        quantity, price = subscription.quantity, subscription.price
        if subscription is customer.subscriptions[0]:
            if customer.has("changing_quantity"):
                quantity += 2 * index
            if customer.has("changing_price"):
                price += Decimal("0.35") * index
        if elapsed:
            self._row(customer, invoice, subscription, "CycleFee", period, quantity, price)
            return
        start = period.start + timedelta(days=customer.rng.randrange(0, 20))
        days = (period.end - start).days + 1
        if days < period.days:  # the unit price is already prorated, to more decimals than anybody likes
            price = round_half_up(EXACT.divide(price * days, Decimal(period.days)), Decimal("0.000001"))
        self._row(customer, invoice, subscription, "PurchaseFee", Cycle(start, period.end), quantity, price)

    def _usage(self, customer: Customer, invoice: Invoice, subscription: Subscription, month: date) -> None:
        """In arrears, with many decimals; a few totals are a cent off quantity x price."""
        rng = customer.rng
        start = add_months(month.replace(day=customer.day), -1)
        period = Cycle(start, month.replace(day=customer.day) - timedelta(days=1))
        quantity = Decimal(rng.randrange(10**7, 10**10)).scaleb(-rng.choice([6, 6, 8, 10]))
        price = round_half_up(subscription.price * Decimal(rng.randrange(900, 1100)) / 1000, Decimal("0.0000000001"))
        if rng.random() < 0.5:
            price = round_half_up(price, Decimal("0.000001"))
        total = line_amount(quantity, price)
        if total >= 1 and rng.random() < 0.08:
            total += rng.choice([CENT, -CENT])
        detail, left = [], EXACT.multiply(quantity, price)
        half = round_half_up(quantity / 2, Decimal("0.000001"))
        row = self._row(customer, invoice, subscription, "UsageFee", period, quantity, price, total=total)
        for n, part in enumerate((half, quantity - half), 1):
            amount = EXACT.multiply(part, price) if n == 1 else left
            left = EXACT.subtract(left, amount)
            line = {**row, "vendorInvoiceRowId": f"V{row['invoiceId']}-{len(invoice.rows)}-{n}"}
            detail.append({**line, "quantity": part, "totalPrice": amount})
        invoice.rows[-1] = (row, detail)

    def _singles(self, customer: Customer, invoice: Invoice, month: date) -> None:
        """One-time and item fees: some months, some customers."""
        rng = customer.rng
        count = 6 if customer.has("heavy") else int(customer.size > 4 and rng.random() < 0.45)
        for n in range(count):
            offer = _SINGLE[n % len(_SINGLE)] if customer.has("heavy") else rng.choice(_SINGLE)
            day = month.replace(day=rng.randrange(1, 28))
            bought = Subscription(guid(rng), offer.name, offer, Decimal(1), offer.price, month)
            quantity = Decimal(rng.choice([1, 1, 1, 2, 4]))
            end = day if offer.charge == "OneTimeFee" else month_end(month)
            self._row(customer, invoice, bought, offer.charge, Cycle(day, end), quantity, offer.price)

    def _corrections(self, customer: Customer, invoice: Invoice, month: date) -> None:
        """Changes in the month before, of either sign: more seats, fewer seats, a refund."""
        rng = customer.rng
        running = [s for s in customer.subscriptions if s.offer.months == 1 and s.first < month and not s.free]
        if not running:
            return
        count = rng.choice([0, 0, 1, 1, 2]) if customer.size > 4 else 0
        count = 9 if customer.has("heavy") else count
        before = self._period(customer, add_months(month, -1), 1)
        for _ in range(count):
            subscription = rng.choice(running)
            start = before.start + timedelta(days=rng.randrange(1, 25))
            days = (before.end - start).days + 1
            price = round_half_up(EXACT.divide(subscription.price * days, Decimal(before.days)), Decimal("0.0001"))
            quantity = Decimal(rng.choice([1, 2, 3]))
            if rng.random() < 0.45:
                # A refund comes as a negative quantity or as a negative price.
                quantity, price = (-quantity, price) if rng.random() < 0.5 else (quantity, -price)
            self._row(customer, invoice, subscription, "Correction", Cycle(start, before.end), quantity, price)
        with_ids = customer.has("several_invoices")
        if (customer.has("heavy") and month == self.months[0]) or with_ids:
            # True duplicates: the same correction twice, because the same thing happened twice.
            subscription, period = running[0], Cycle(before.end - timedelta(days=9), before.end)
            for _ in range(2):
                self._row(
                    customer,
                    invoice,
                    subscription,
                    "Correction",
                    period,
                    Decimal(1),
                    Decimal("1.37"),
                    row_id=with_ids,
                )
            self._note("duplicate_correction", customer, invoiceId=invoice.header["invoiceId"])

    def _special(self, customer: Customer, main: Invoice, month: date, index: int) -> list[Invoice]:
        """What only one customer has."""
        rng, last = customer.rng, index == len(self.months) - 1
        whole = Cycle(month, month_end(month))
        subscription = customer.subscriptions[0]
        if customer.has("heavy"):
            self._row(
                customer,
                main,
                subscription,
                "UserCorrection",
                whole,
                Decimal(1),
                Decimal("-12.50"),
                details="Goodwill",
            )
        if customer.has("cancelled_subscription") and index == 1:
            period = Cycle(add_months(month, -1).replace(day=20), month - timedelta(days=1))
            price = round_half_up(subscription.price / 3, Decimal("0.0001"))
            self._row(
                customer,
                main,
                subscription,
                "Correction",
                period,
                -subscription.quantity,
                price,
                details="Cancelled",
            )
        if customer.has("unknown_charge_type") and last:
            row = self._row(customer, main, subscription, "TransferFee", whole, Decimal(1), Decimal("9.00"))
            self._note("unknown_charge_type", customer, invoiceId=row["invoiceId"])
        if customer.has("several_invoices") and last:
            credit = self._invoice(customer, month.replace(day=28), "Verified")
            credit.header |= {"invoiceReference": main.header["invoiceNumber"], "invoiceSource": "Credit"}
            self._row(
                customer,
                credit,
                subscription,
                "Correction",
                whole,
                Decimal(-1),
                subscription.price,
                details="Credit",
            )
            return [credit]
        if customer.has("custom_invoice"):
            custom = self._invoice(customer, month.replace(day=20), "Verified")
            custom.header |= {"invoiceSourceId": 4, "invoiceSource": "Custom"}
            consulting = Decimal("85.00")
            self._row(
                customer,
                custom,
                None,
                "UserCorrection",
                whole,
                Decimal("1.5"),
                consulting,
                details="Consulting",
            )
            self._row(
                customer,
                custom,
                subscription,
                "UserCorrection",
                whole,
                Decimal(1),
                Decimal("-7.25"),
                details="Discount",
            )
            self._note("no_offer", customer, invoiceId=custom.header["invoiceId"])
            return [custom]
        if customer.has("not_verified") and last:
            drafts = []
            for status, visibility in (
                ("New", "preview"),
                ("New", "published"),
                ("New Corrected", "published"),
            ):
                draft = self._invoice(customer, month.replace(day=rng.randrange(20, 28)), status)
                draft.visibility = visibility
                self._row(customer, draft, subscription, "CycleFee", whole, Decimal(3), subscription.price)
                self._note("not_verified", customer, invoiceId=draft.header["invoiceId"], status=status)
                drafts.append(draft)
            return drafts
        return []

    def _vendor_invoices(self, month: date) -> None:
        """What the vendor charges the seller: in the same feed, and nobody's revenue."""
        rng = seeded(f"{self.seed}/vendor/{month}")
        vendor = Customer(-1, self.requester, SELLER_NAME, "", "", "CT-VENDOR", rng, 0)
        for _ in range(2):
            invoice = self._invoice(vendor, month.replace(day=rng.randrange(2, 9)), "Issued")
            invoice.header |= {"providerOrganizationId": VENDOR_ID, "providerName": VENDOR_NAME}
            for customer in rng.sample(self.customers, min(8, len(self.customers))):
                bought = customer.subscriptions[0]
                cost = round_half_up(bought.price * Decimal("0.82"), Decimal("0.0001"))
                period = self._period(customer, month, 1)
                self._row(vendor, invoice, bought, "CycleFee", period, bought.quantity, cost)
            self._close(invoice)
            self.store.add_invoice(invoice.header, invoice.rows, "published")

    def _appxite_records(self) -> None:
        organizations, contracts, subscriptions = [], [], []
        for customer in self.customers:
            # The ERP id names the company for most; some never filled it in.
            known = not customer.has("no_company") and not customer.has("odd_text") and customer.index % 9 != 8
            organizations.append(
                {
                    "organizationId": customer.organization_id,
                    "name": customer.name,
                    "erpId": customer.identifier if known else None,
                    "status": "Active",
                    "vatNumber": f"LV4{customer.index:010d}" if customer.index % 3 else None,
                    "country": "LV",
                    "partnerTier": "Standard",
                }
            )
            contracts.append(
                {
                    "contractId": customer.contract_id,
                    "contractNumber": f"C{2000 + customer.index}" if customer.index % 2 else None,
                    "contractReferenceNumber": None,
                    "consumerOrganizationId": customer.organization_id,
                    "contractType": "Direct",
                    "currency": customer.currency,
                    "billingCycleDay": customer.day,
                    "signedOnline": True,
                }
            )
            subscriptions += [
                {
                    "subscriptionId": one.id,
                    "organizationId": customer.organization_id,
                    "contractId": customer.contract_id,
                    "offerId": one.offer.id,
                    "name": one.name,
                    "status": one.status,
                    "quantity": one.quantity,
                    "billingFrequency": _FREQUENCY[one.offer.months],
                    "startDate": one.first.isoformat(),
                    "endDate": month_end(one.last).isoformat() if one.last else None,
                }
                for one in customer.subscriptions
            ]
        offers = [
            {
                "offerId": o.id,
                "name": o.name,
                "billingFrequency": _FREQUENCY[o.months],
                "vendorName": VENDOR_NAME,
            }
            for o in OFFERS.values()
        ]
        self.store.add_appxite_records("organizations", "organizationId", organizations)
        self.store.add_appxite_records("contracts", "contractId", contracts)
        self.store.add_appxite_records("subscriptions", "subscriptionId", subscriptions)
        self.store.add_appxite_records("offers", "offerId", offers)

    # -- ConnectWise -------------------------------------------------------------------------------------------

    def _info(self) -> Json:
        return {"lastUpdated": timestamp(self.bill_start), "updatedBy": "admin"}

    def _connectwise_basics(self) -> None:
        save = self.store.save
        for id_, code, symbol, name in ((1, "EUR", "€", "Euro"), (2, "USD", "$", "US Dollar")):
            save(
                "currency",
                {
                    "id": id_,
                    "currencyIdentifier": code,
                    "name": name,
                    "symbol": symbol,
                    "displayIdFlag": True,
                    "displaySymbolFlag": True,
                    "currencyCode": {"id": id_, "name": code},
                    "thousandsSeparator": ",",
                    "decimalSeparator": ".",
                    "negativeParenthesesFlag": False,
                    "rightAlign": False,
                    "numberOfDecimals": 2,
                    "_info": self._info(),
                },
            )
        for id_, (code, option) in _CYCLES.items():
            name = {"SemiAnnual": "Semi-Annual", "NotRecurring": "One Time"}.get(option, option)
            save(
                "billingCycle",
                {
                    "id": id_,
                    "identifier": code,
                    "name": name,
                    "defaultFlag": id_ == 1,
                    "billingOptions": option,
                    "_info": self._info(),
                },
            )
        for id_, name, cycle in (
            (CLOUD, "Cloud Subscriptions", 1),
            (MANAGED, "Managed Services", 1),
            (BLOCK_TIME, "Block Time", 5),
        ):
            save(
                "agreementType",
                {
                    "id": id_,
                    "name": name,
                    "defaultFlag": id_ == MANAGED,
                    "inactiveFlag": False,
                    "applicationUnits": "Hours" if id_ == BLOCK_TIME else "Amount",
                    "employeeCompRate": "Actual",
                    "employeeCompNotExceed": "Billing",
                    "invoicingCycle": "CalendarYear",
                    "billingCycle": {"id": cycle, "name": _CYCLES[cycle][1]},
                    "billingTerms": {"id": 1, "name": "Net 30"},
                    "billTime": "NoDefault",
                    "billExpenses": "NoDefault",
                    "billProducts": "Billable",
                    "taxableFlag": True,
                    "prorateFlag": False,
                    "_info": self._info(),
                },
            )
        for id_, caption in ((SYNC_KEY_FIELD, "Sync Key"), (COST_CENTRE_FIELD, "Cost Centre")):
            save(
                "userDefinedField",
                {
                    "id": id_,
                    "podId": 7,
                    "caption": caption,
                    "sequenceNumber": id_ - SYNC_KEY_FIELD + 1,
                    "screenId": "AgreementAdditions",
                    "helpText": "",
                    "fieldTypeIdentifier": "Text",
                    "entryTypeIdentifier": "EntryField",
                    "requiredFlag": False,
                    "displayOnScreenFlag": True,
                    "readOnlyFlag": False,
                    "listViewFlag": False,
                    "dateCreated": timestamp(self.bill_start),
                    "_info": self._info(),
                },
            )
        for offer in OFFERS.values():
            if offer.sku:
                self._product(self.product_ids[offer.id], offer.sku, offer.name, offer)
        self._product(601, "MANAGED-WORKPLACE", "Managed Workplace", None, "Service")
        self._product(602, "SUPPORT-HOUR", "Support hour", None, "Service")
        self._product(603, "OFF-PRE-M-OLD", "Office Premium", None)  # a renamed SKU that nobody cleaned up
        for customer in self.customers:
            if not customer.has("no_company"):
                self._company(customer.company_id, customer.identifier, customer.company_name)
        first = 201 + len(self.customers)
        namesake = self.customers[min(3, len(self.customers) - 1)].company_name
        self._company(first, "Namesake2", namesake)
        self._company(first + 1, "GoneGmbH", "Gone GmbH", deletedFlag=True, dateDeleted=timestamp(self.bill_start))
        self._company(first + 2, "SleepyInc", "Sleepy Inc", status={"id": 2, "name": "Inactive"})
        for n in range(5):
            self._company(
                first + 3 + n,
                f"Prospect{n + 1}",
                f"Prospect Company {n + 1}",
                status={"id": 3, "name": "Prospect"},
            )

    def _product(
        self, id_: int, identifier: str, name: str, offer: Offer | None, product_class: str | None = None
    ) -> None:
        price = offer.price if offer else Decimal("79.00")
        self.store.save(
            "product",
            {
                "id": id_,
                "identifier": identifier,
                "description": name[:60],
                "inactiveFlag": bool(offer and offer.inactive),
                "subcategory": {"id": 1, "name": "Cloud"},
                "type": {"id": 1, "name": "Subscription"},
                "productClass": product_class or (offer.product_class if offer else "NonInventory"),
                "serializedFlag": False,
                "unitOfMeasure": {"id": 1, "name": "Each"},
                "price": price,
                "cost": round_half_up(price * Decimal("0.82")),
                "taxableFlag": True,
                "customerDescription": name,
                "vendorSku": offer.id if offer else "",
                "recurringFlag": bool(offer and offer.months),
                "category": {"id": 1, "name": "Software"},
                "_info": self._info(),
            },
        )

    def _company(self, id_: int, identifier: str, name: str, **other: Any) -> None:
        currency = currency_reference(self.store.records("currency")[1])
        self.store.save(
            "company",
            {
                "id": id_,
                "identifier": identifier[:30],
                "name": name[:50],
                "status": {"id": 1, "name": "Active"},
                "addressLine1": f"{id_} Main Street",
                "city": "Riga",
                "zip": f"LV-{id_:04d}",
                "country": {"id": 1, "name": "Latvia"},
                "accountNumber": f"A{id_}",
                "defaultContact": {"id": 10000 + id_, "name": "Accounts Payable"},
                "billingTerms": {"id": 1, "name": "Net 30"},
                "deletedFlag": False,
                "currency": currency,
                "_info": self._info(),
                **other,
            },
        )

    def _agreement(self, customer: Customer, kind: int, **other: Any) -> None:
        """An agreement from its first day; nextInvoiceDate is the cycle that holds the oldest month."""
        bill_start = other.pop("billStart", self.bill_start)
        type_ = self.store.records("agreementType")[kind]
        company = self.store.records("company")[customer.company_id]
        record: Json = {
            "id": self.store.next_id("agreement", 1001),
            "name": f"{type_['name']} {customer.company_name}"[:100],
            "type": {"id": kind, "name": type_["name"]},
            "company": {name: company[name] for name in ("id", "identifier", "name")},
            "contact": company["defaultContact"],
            "startDate": timestamp(bill_start),
            "endDate": "",
            "noEndingDateFlag": True,
            "cancelledFlag": False,
            "applicationUnits": type_["applicationUnits"],
            "billingCycle": type_["billingCycle"],
            "billingTerms": type_["billingTerms"],
            "invoicingCycle": "CalendarYear",
            "billAmount": Decimal("0.00"),
            "billStartDate": timestamp(bill_start),
            "prorateFlag": False,
            "invoiceProratedAdditionsFlag": False,
            "billTime": "NoDefault",
            "billExpenses": "NoDefault",
            "billProducts": "Billable",
            "currency": company["currency"],
            "periodType": "Current",
            "nextInvoiceDate": timestamp(self.months[0]),
            "agreementStatus": "Active",
            "customFields": [],
            "_info": self._info(),
            **other,
        }
        if kind != BLOCK_TIME:
            cycle = agreement_cycle(self.store, record, self.months[0])
            record["nextInvoiceDate"] = timestamp(cycle.start)
        self.store.save("agreement", record)

    def _agreements(self, customer: Customer) -> None:
        if customer.has("no_company"):
            self._note("no_company", customer)
            return
        past = self.months[0] - timedelta(days=40)
        choices: dict[str, list[Json]] = {
            "two_agreements": [{}, {"name": f"Cloud Subscriptions 2 {customer.company_name}"[:100]}],
            "no_agreement": [],
            "prorating_agreement": [{"prorateFlag": True}],
            "expired_agreement": [
                {"endDate": timestamp(past), "noEndingDateFlag": False, "agreementStatus": "Expired"}
            ],
            "quarterly_agreement": [{"billingCycle": {"id": 2, "name": "Quarterly"}}],
            "yearly_agreement": [{"billingCycle": {"id": 4, "name": "Yearly"}}],
            "contract_cycle": [{"invoicingCycle": "ContractYear", "billStart": self.bill_start.replace(day=10)}],
        }
        agreements: list[Json] = [{}]
        for role, special in choices.items():
            if customer.has(role):
                agreements = special
                self._note(role, customer, companyId=customer.company_id)
        if customer.has("other_currency"):
            self._note("other_currency", customer, companyId=customer.company_id)
        for other in agreements:
            self._agreement(customer, CLOUD, **other)
        if customer.index % 2 == 0:
            self._agreement(customer, MANAGED)
        if customer.index % 5 == 0:
            self._agreement(customer, BLOCK_TIME)
        if customer.index % 11 == 4:
            cancelled = {
                "cancelledFlag": True,
                "agreementStatus": "Cancelled",
                "dateCancelled": timestamp(past),
            }
            self._agreement(customer, CLOUD, name=f"Old cloud agreement {customer.company_name}"[:100], **cancelled)

    def _hand_made_additions(self) -> None:
        """Typed in by people long before any synchronisation: nobody may touch them."""
        managed = [a for a in self.store.records("agreement").values() if a["type"]["id"] == MANAGED]
        cloud = [a for a in self.store.records("agreement").values() if a["type"]["id"] == CLOUD]
        for agreement in managed + [a for a in cloud if a["agreementStatus"] == "Active"][::4]:
            rng = seeded(f"{self.seed}/hand-made/{agreement['id']}")
            for product in (601, 603)[: rng.randrange(1, 3)]:
                wanted = {
                    "product": {"id": product},
                    "billCustomer": "Billable",
                    "quantity": Decimal(rng.randrange(1, 30)),
                    "unitPrice": Decimal(rng.randrange(500, 9000)).scaleb(-2),
                    "effectiveDate": agreement["billStartDate"],
                    "invoiceDescription": "Agreed with the customer by phone",
                }
                # The record that the API would make, but with a date of the data set instead of today's.
                addition = self.connectwise.computed_addition(agreement, wanted)
                addition["id"] = self.store.next_id("addition", 30001)
                addition["sequenceNumber"] = Decimal(len(self.store.additions(agreement["id"])) + 1)
                addition["_info"] = {**self._info(), "updatedBy": "finance.user"}
                self.store.save("addition", addition)

    def _mappings(self) -> Json:
        """The two mapping files as an administrator would prepare them; what is unmapped is not in them."""
        return {"organizations": list(self._organization_mapping()), "offers": list(self._offer_mapping())}

    def _organization_mapping(self) -> Iterator[Json]:
        for customer in self.customers:
            if not customer.has("no_company"):
                yield {
                    "organization_id": customer.organization_id,
                    "organization_name": customer.name,
                    "company_id": customer.company_id,
                    "company_name": self.store.records("company")[customer.company_id]["name"],
                    "state": "excluded" if customer.has("internal_use") else "approved",
                }

    def _offer_mapping(self) -> Iterator[Json]:
        for offer in OFFERS.values():
            if offer.sku:
                yield {
                    "offer_id": offer.id,
                    "offer_name": offer.name,
                    "product_id": self.product_ids[offer.id],
                    "product_identifier": offer.sku,
                    # An import refuses to approve what cannot be an Addition: it stays undecided.
                    "state": "" if offer.inactive or offer.product_class == "Bundle" else "approved",
                }
