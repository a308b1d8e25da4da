"""The oracle: what must become of each line, worked out a second time from what everybody can see.

It reads what AppXite lists, what ConnectWise holds about companies, products and agreements, and what people decided.
It never reads the product's tables, and none of its SQL. The rules are those of docs/mappings-and-rules.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any

from business.dates import Span, cycle_with, first_of_month, last_of_month, later
from sandbox.server import Sandbox

CENT = Decimal("0.01")
WIDE = Context(prec=60)
MONTHS_OF = {1: 1, 2: 3, 3: 6, 4: 12}  # of the sandbox's billing cycles
RECURRING = {"PurchaseFee", "CycleFee"}
DISPLAY_NAMES = {
    "PurchaseFee": "Purchase", "CycleFee": "Subscription fee", "Correction": "Correction", "UsageFee": "Usage",
    "OneTimeFee": "One-time fee", "ItemFee": "Item", "UserCorrection": "Custom charge",
}  # fmt: skip
DEFAULT_TYPE = "Cloud Subscriptions"
APPROVED, EXCLUDED = "approved", "excluded"


def cents(amount: Decimal) -> Decimal:
    """Rounded to cents, half away from zero, as ConnectWise bills."""
    return amount.quantize(CENT, ROUND_HALF_UP, WIDE) + 0  # no negative zero


def places(number: Decimal) -> int:
    """Decimals that count."""
    return max(0, -int(number.normalize(WIDE).as_tuple().exponent))


@dataclass
class Decisions:
    """What people decided. An organization or offer that is not named has not been looked at.

    organizations   id -> (approved or excluded, company)
    offers          id -> (approved or excluded, product)
    contracts       id -> agreement
    selectors       organization -> what is claimed (contract, offer or subscription, its id) for which company
    variants        offer and billing frequency -> product
    default_products  charge type -> product of lines without an offer
    paused          companies to which nothing may be delivered
    rules           charge type -> rules for its start and its end; as invoiced where there are none
    dated_offers    offers whose recurring lines are dated in each mode
    agreement_rule  of several agreements the one in the line's "currency", or of its "cycle", if any fits
    """

    settings: dict[str, str]
    organizations: dict[str, tuple[str, int]] = field(default_factory=dict)
    offers: dict[str, tuple[str, int]] = field(default_factory=dict)
    contracts: dict[str, int] = field(default_factory=dict)
    selectors: dict[str, list[tuple[str, str, int]]] = field(default_factory=dict)
    variants: dict[tuple[str, str], int] = field(default_factory=dict)
    default_products: dict[str, int] = field(default_factory=dict)
    paused: set[int] = field(default_factory=set)
    rules: dict[str, tuple[str, str]] = field(default_factory=dict)
    dated_offers: Collection[str] = ()
    agreement_rule: str = ""


@dataclass
class Agreement:
    """A ConnectWise agreement as it is now."""

    id: int
    type: str
    company: int
    is_active: bool
    currency: str
    prorates: bool
    months: int
    anchor: date | None
    bill_start: date
    next_invoice: date

    @classmethod
    def of(cls, record: dict[str, Any]) -> Agreement:
        def day(name: str) -> date:
            return date.fromisoformat(record[name][:10])

        return cls(
            record["id"], record["type"]["name"], record["company"]["id"],
            record["agreementStatus"] == "Active" and not record["cancelledFlag"],
            record["currency"]["currencyCode"], bool(record["prorateFlag"]),
            MONTHS_OF.get(record["billingCycle"]["id"], 0),
            day("billStartDate") if record["invoicingCycle"] == "ContractYear" else None, day("billStartDate"),
            day("nextInvoiceDate") if record.get("nextInvoiceDate") else date.min,
        )  # fmt: skip

    def cycle(self, day: date) -> Span:
        """The cycle that holds a day."""
        return cycle_with(day, self.months, self.anchor)


@dataclass
class Due:
    """How a line must appear in ConnectWise."""

    agreement: Agreement
    company: int
    product: int
    cycle: Span
    is_late: bool
    may_persist: bool
    effective: date
    cancelled: date
    quantity: Decimal
    price: Decimal
    amount: Decimal
    words: tuple[str, ...]  # all of them stand in the description
    period: str | None  # and this one, unless the line is on a persistent Addition; None: a person worded it


@dataclass(eq=False)
class Line:
    """A line of an accepted invoice, or the difference by which AppXite changed it after its delivery.

    delivered    set once an Addition carries it; from then on nothing about the line changes
    night        number of the run that delivered it
    """

    invoice: Invoice
    key: tuple[Any, ...]
    revision: int
    row: dict[str, Any]
    total: Decimal
    content: tuple[Any, ...] = ()  # as AppXite had it when it was read
    is_removed: bool = False
    amount: Decimal | None = None  # that ConnectWise would bill
    typed: dict[str, Any] = field(default_factory=dict)
    outcome: str = ""
    reasons: frozenset[str] = frozenset()
    due: Due | None = None
    delivered: Due | None = None
    night: int = 0
    invoiced: Any = None  # ConnectWise's line, once it is invoiced

    def __str__(self) -> str:
        row = self.row
        return (
            f"{row['chargeType']} of {row['subscriptionId']} {row['chargeStartDate']} to {row['chargeEndDate']}, "
            f"{row['quantity']} x {row['unitPrice']} = {self.total} {row['currency']} on invoice {self.invoice.id}"
            + (f", revision {self.revision}" if self.revision > 1 else "")
        )


@dataclass(eq=False)
class Invoice:
    """An invoice as it was last read."""

    id: int
    period: date
    organization: str
    currency: str
    header: dict[str, Any]
    adds_up: bool = True
    is_withdrawn: bool = False


def with_decimals(row: dict[str, Any]) -> dict[str, Any]:
    """A row as JSON gave it; whole numbers are Decimals, too."""
    return {**row, **{name: Decimal(row[name]) for name in ("quantity", "unitPrice", "totalPrice")}}


def content_of(row: dict[str, Any]) -> tuple[Any, ...]:
    """The values of a row that matter for billing."""
    names = (
        "subscriptionId",
        "offerId",
        "chargeType",
        "chargeStartDate",
        "chargeEndDate",
        "billingFrequency",
        "currency",
    )
    return (
        *(row[name] for name in names),
        *(row[name].normalize(WIDE) for name in ("quantity", "unitPrice", "totalPrice")),
    )


def by_rule(rule: str, day: date, row: dict[str, Any], next_invoice: date) -> date:
    """A date rule for a charge's own start or end."""
    invoiced = date.fromisoformat(row["invoiceDate"])
    following = later(first_of_month(invoiced), 1)
    return {
        "as_invoiced": day,
        "first_day_of_charge_month": first_of_month(day),
        "last_day_of_charge_month": last_of_month(day),
        "first_day_of_invoice_month": first_of_month(invoiced),
        "last_day_of_invoice_month": last_of_month(invoiced),
        "first_day_of_next_month": following,
        "last_day_of_next_month": last_of_month(following),
        "invoice_date": invoiced,
        "next_invoice_date": next_invoice,
    }[rule]


class Books:
    """Every line that was ever read, in the order in which they were."""

    def __init__(self, sandbox: Sandbox, decisions: Decisions) -> None:
        self.sandbox, self.decisions = sandbox, decisions
        self.lines: list[Line] = []
        self.invoices: dict[int, Invoice] = {}
        self.night = 0

    # -- read ----------------------------------------------------------------------------------------------------

    def read(self, periods: Collection[date]) -> None:
        """What a run sees that reads these billing periods."""
        self.night += 1
        accepted = {}
        for header in self.sandbox.truth():
            period = first_of_month(date.fromisoformat(header["invoiceDate"]))
            if period in periods:
                accepted[header["invoiceId"]] = header
                self._read_invoice(header, period)
        for invoice in self.invoices.values():
            if invoice.period in periods and invoice.id not in accepted:
                invoice.is_withdrawn = True

    def _read_invoice(self, header: dict[str, Any], period: date) -> None:
        rows = [with_decimals(row) for row in header["lines"]]
        invoice = self.invoices.setdefault(
            header["invoiceId"],
            Invoice(header["invoiceId"], period, header["consumerOrganizationId"], header["currency"], header),
        )
        invoice.header, invoice.is_withdrawn = header, False
        invoice.adds_up = header["totalAmount"] == sum((row["totalPrice"] for row in rows), Decimal("0.00"))
        staged = dict(self._keyed(rows))
        known: dict[tuple[Any, ...], list[Line]] = {}
        for line in self.lines:
            if line.invoice is invoice:
                known.setdefault(line.key, []).append(line)
        for key, row in staged.items():
            if key not in known:
                self.lines.append(Line(invoice, key, 1, row, row["totalPrice"], content_of(row)))
            elif invoice.adds_up:
                self._read_again(known[key], row)
        if invoice.adds_up:
            for key in known.keys() - staged.keys():
                self._read_no_more(known[key])

    def _keyed(self, rows: list[dict[str, Any]]) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
        """By AppXite's row id; without one by what the row says, and a number for true duplicates."""
        nameless: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for row in rows:
            if row.get("rowId"):
                yield (row["rowId"],), row
            else:
                said = tuple(row[name] for name in ("subscriptionId", "chargeStartDate", "chargeEndDate", "chargeType"))
                nameless.setdefault(said, []).append(row)
        for said, twins in nameless.items():
            twins.sort(key=lambda row: (row["totalPrice"], row["quantity"], row["unitPrice"]))
            yield from (((*said, number), row) for number, row in enumerate(twins))

    def _read_again(self, revisions: list[Line], row: dict[str, Any]) -> None:
        first = revisions[0]
        if len(revisions) == 1 and not first.delivered:
            if first.content != content_of(row):
                first.row, first.total, first.content = row, row["totalPrice"], content_of(row)
            return
        if revisions[-1].content != content_of(row):
            revisions = self._without_pending(revisions)
            if revisions[-1].content != content_of(row):
                self._add_difference(revisions, row, row["totalPrice"] - sum(line.total for line in revisions))

    def _add_difference(
        self, revisions: list[Line], row: dict[str, Any], difference: Decimal, *, removed: bool = False
    ) -> None:
        """A further revision, of 1 or -1 times the difference."""
        said = {**row, "quantity": Decimal(-1 if difference < 0 else 1), "unitPrice": abs(difference)}
        first, number = revisions[0], revisions[-1].revision + 1
        content = () if removed else content_of(row)
        self.lines.append(Line(first.invoice, first.key, number, said, difference, content, is_removed=removed))

    def _without_pending(self, revisions: list[Line]) -> list[Line]:
        """A difference that nobody has dealt with is made anew."""
        pending = [line for line in revisions if line.revision > 1 and not line.delivered and not line.typed]
        self._forget(pending)
        return [line for line in revisions if line not in pending]

    def _forget(self, lines: Collection[Line]) -> None:
        self.lines = [line for line in self.lines if line not in lines]

    def _read_no_more(self, revisions: list[Line]) -> None:
        if not revisions[-1].is_removed:
            revisions = self._without_pending(revisions)
        total = sum((line.total for line in revisions), Decimal("0.00"))
        if not any(line.delivered for line in revisions):
            self._forget(revisions)
        elif total:
            self._add_difference(revisions, revisions[0].row, -total, removed=True)

    # -- decide --------------------------------------------------------------------------------------------------

    def open_lines(self, periods: Collection[date] | None = None) -> list[Line]:
        """Lines that no Addition carries; of some periods only."""
        return [
            line for line in self.lines if not line.delivered and (periods is None or line.invoice.period in periods)
        ]

    def decide(self, periods: Collection[date] | None = None) -> None:
        """Decide about every open line, or those of some periods."""
        agreements = [Agreement.of(record) for record in self.sandbox.agreements()]
        standing = [
            line for line in self.lines
            if line.delivered and line.invoice.is_withdrawn and line.total and not line.typed.get("is_excluded")
        ]  # fmt: skip
        for line in self.open_lines(periods):
            self._decide(line, {one.id: one for one in agreements}, standing)
        if self.decisions.settings["credits"] == "hold":
            for line in self._credits_beyond_charges(periods):
                line.outcome, line.due, line.reasons = "held", None, line.reasons | {"credit_exceeds_charge"}

    def _decide(self, line: Line, agreements: dict[int, Agreement], standing: list[Line]) -> None:
        row, settings = line.row, self.decisions.settings
        state, company = self.decisions.organizations.get(line.invoice.organization, (None, 0))
        offer_state, product = self.decisions.offers.get(row["offerId"] or "", (None, 0))
        company, unclear = self._company(line, company) if state == APPROVED else (0, "organization_unmapped")
        product = line.typed.get("product_id") or (
            self.decisions.variants.get((row["offerId"] or "", row["billingFrequency"]))
            or (product if offer_state == APPROVED else 0)
            or (0 if row["offerId"] else self.decisions.default_products.get(row["chargeType"], 0))
        )
        line.due, line.reasons = None, frozenset()
        quantity, price = self._price(line)
        line.amount = None if price is None else cents(WIDE.multiply(quantity, price))
        if (
            line.typed.get("is_excluded")
            or state == EXCLUDED
            or (offer_state == EXCLUDED and not product)
            or (not line.total and settings["zero_amounts"] == "skip")
            or (not line.total and line.revision > 1 and not self._waits_as_changed(line))
        ):
            line.outcome = "excluded"
            return
        candidates = [
            one for one in agreements.values() if one.company == company and one.type == DEFAULT_TYPE and one.is_active
        ]
        candidates = self._ruled(row, candidates)
        chosen = line.typed.get("agreement_id") or self.decisions.contracts.get(row["contractId"])
        agreement = agreements[chosen] if chosen else candidates[0] if len(candidates) == 1 else None
        reasons = {
            *self._reasons_of_the_line(line, standing),
            *([unclear] if unclear else []),
            *self._reasons_of_mapping(row, company, product),
            *self._reasons_of_agreement(line, agreement, company, candidates, agreements),
        }
        if price is None:
            reasons.add("price_not_representable")
        elif line.amount is not None and line.amount < 0 and settings["negative_additions"] == "hold":
            reasons.add("negative_amount")
        due = None
        # Of a charge type that nobody knows, nobody knows when it begins.
        if agreement is not None and (row["chargeType"] in DISPLAY_NAMES or "effective_date" in line.typed):
            due = self._due(line, agreement, company, product, quantity, price if price is not None else Decimal(0))
            if due.effective < agreement.bill_start:
                reasons.add("before_bill_start")
            if due.is_late and settings["late_lines"] == "hold":
                reasons.add("late_line")
            if due.cancelled > due.cycle.end or due.cancelled < due.effective:
                reasons.add("typed_dates_not_usable")
        line.reasons, line.outcome = frozenset(reasons), "held" if reasons else "awaiting approval"
        line.due = None if reasons else due

    def _ruled(self, row: dict[str, Any], candidates: list[Agreement]) -> list[Agreement]:
        """Those that the agreement rule leaves; all of them, where it fits none."""
        months = row["billingFrequency"].removeprefix("Every ").removesuffix(" months")
        fitting = {
            "currency": [one for one in candidates if one.currency == row["currency"]],
            "cycle": [one for one in candidates if str(one.months) == months],
        }.get(self.decisions.agreement_rule)
        return fitting or candidates

    def _company(self, line: Line, company: int) -> tuple[int, str]:
        """The company of an approved organization, or 0 and why there is none."""
        selectors = self.decisions.selectors.get(line.invoice.organization)
        if not selectors:
            return company, ""
        ids = {"contract": "contractId", "offer": "offerId", "subscription": "subscriptionId"}
        claiming = {chosen for kind, source, chosen in selectors if line.row[ids[kind]] == source}
        if len(claiming) == 1:
            return claiming.pop(), ""
        return 0, "company_ambiguous" if claiming else "company_unclaimed"

    # -- credits -------------------------------------------------------------------------------------------------

    def _credits_beyond_charges(self, periods: Collection[date] | None) -> list[Line]:
        """Credits that do not fit into what was charged for the same thing and time, oldest first."""
        waiting = [
            line for line in self.open_lines(periods)
            if line.revision == 1 and line.outcome != "excluded" and self._billed(line) < 0
        ]  # fmt: skip
        order = {line: number for number, line in enumerate(self.lines)}
        beyond = []
        for account in {self._account(line) for line in waiting}:
            kept = [line for line in self.lines if self._belongs_to(line, account) and self._counts(line)]
            for island in self._islands(kept):
                charged = sum((self._billed(line) for line in island if self._billed(line) > 0), Decimal(0))
                credited = Decimal(0)
                for line in sorted(island, key=lambda one: (not one.delivered, one.row["invoiceDate"], order[one])):
                    if self._billed(line) < 0:
                        credited -= self._billed(line)
                        if credited > charged and line in waiting and self._account(line) == account:
                            beyond.append(line)
        return beyond

    def _billed(self, line: Line) -> Decimal:
        return line.delivered.amount if line.delivered else line.total if line.amount is None else line.amount

    def _account(self, line: Line) -> tuple[Any, ...]:
        """What a credit is compared with: a subscription; else an offer; else, and if typed by the seller, all."""
        row = line.row
        is_typed = row["chargeType"] == "UserCorrection"
        subscription = None if is_typed else row["subscriptionId"]
        offer = None if is_typed or subscription else row["offerId"]
        return (line.invoice.organization, row["currency"], subscription, offer)

    def _belongs_to(self, line: Line, account: tuple[Any, ...]) -> bool:
        organization, currency, subscription, offer = account
        row = line.row
        return (
            (line.invoice.organization, row["currency"]) == (organization, currency)
            and subscription in (None, row["subscriptionId"])
            and offer in (None, row["offerId"])
        )

    def _counts(self, line: Line) -> bool:
        """Charges that are billed or about to be; credits unless they are excluded or withdrawn."""
        if line.delivered or not self._billed(line):
            return bool(line.delivered and self._billed(line))
        if line.revision > 1:
            return line.outcome == "awaiting approval"
        if self._billed(line) > 0:
            # One whose agreement comes with this plan waits together with its credits.
            return line.outcome == "awaiting approval" or line.reasons == {"agreement_to_create"}
        return line.outcome != "excluded" and not line.invoice.is_withdrawn

    def _islands(self, lines: list[Line]) -> Iterator[list[Line]]:
        """Lines whose charge periods overlap, directly or through others."""
        island: list[Line] = []
        end = ""
        for line in sorted(lines, key=lambda one: (one.row["chargeStartDate"], one.row["chargeEndDate"])):
            if island and line.row["chargeStartDate"] > end:
                yield island
                island, end = [], ""
            island.append(line)
            end = max(end, line.row["chargeEndDate"], line.row["chargeStartDate"])
        if island:
            yield island

    # -- reasons -------------------------------------------------------------------------------------------------

    def _reasons_of_the_line(self, line: Line, standing: list[Line]) -> Iterator[str]:
        invoice, row = line.invoice, line.row
        if not invoice.adds_up:
            yield "invoice_does_not_add_up"
        if invoice.is_withdrawn:
            yield "invoice_withdrawn"
        elif any(self._stands_for(old, line) for old in standing):
            yield "delivered_on_withdrawn_invoice"
        if self._waits_as_changed(line):
            yield "changed_after_delivery"
        if row["currency"] != invoice.currency:
            yield "currency_differs_from_invoice"
        if row["chargeType"] not in DISPLAY_NAMES:
            yield "unknown_charge_type"
        # A typed start alone does not say when the charge ends.
        if row["chargeEndDate"] < row["chargeStartDate"]:
            yield "dates_missing"

    def _delivers_changes(self) -> bool:
        return self.decisions.settings["changes_after_delivery"] == "next_open_cycle"

    def _waits_as_changed(self, line: Line) -> bool:
        """A difference waits for a person, and what may stand for a removed line until that one is taken back."""
        if line.revision == 1:
            return any(
                one.invoice is line.invoice and one.is_removed and one.total
                and not (one.delivered and self._delivers_changes())
                for one in self.lines
            )  # fmt: skip
        return not self._delivers_changes() or not self._corrects_what_is_billed(line)

    def _corrects_what_is_billed(self, line: Line) -> bool:
        """Whether all that a difference corrects is delivered as AppXite said then, to the same customer."""
        state, own = self.decisions.organizations.get(line.invoice.organization, (None, 0))
        company = self._company(line, own)[0] if state == APPROVED else 0
        for earlier in self.lines:
            if earlier.invoice is line.invoice and earlier.key == line.key and earlier.revision < line.revision:
                due = earlier.delivered
                if due is None:
                    if not earlier.typed.get("is_excluded"):
                        return False
                elif (due.amount, earlier.row["currency"], due.company) != (
                    earlier.total, line.row["currency"], company
                ):  # fmt: skip
                    return False
        return True

    def _stands_for(self, old: Line, new: Line) -> bool:
        """The same charge, on an invoice that AppXite withdrew."""
        was, now = old.row, new.row
        if was["subscriptionId"] != now["subscriptionId"] or was["chargeType"] != now["chargeType"]:
            return False
        if now["subscriptionId"] is None and was["offerId"] != now["offerId"]:
            return False
        return (
            old.invoice.organization == new.invoice.organization
            and was["chargeStartDate"] <= now["chargeEndDate"]
            and was["chargeEndDate"] >= now["chargeStartDate"]
        )

    def _reasons_of_mapping(self, row: dict[str, Any], company: int, product: int) -> Iterator[str]:
        if company:
            record = self.sandbox.store.records("company")[company]
            if record["status"]["name"] == "Inactive" or record["deletedFlag"]:
                yield "company_not_usable"
            if company in self.decisions.paused:
                yield "customer_paused"
        if not product:
            yield "offer_unmapped" if row["offerId"] else "offer_missing"
        else:
            record = self.sandbox.store.records("product")[product]
            if record["inactiveFlag"] or record["productClass"] == "Bundle":
                yield "product_not_usable"

    def _reasons_of_agreement(
        self, line: Line, agreement: Agreement | None, company: int, candidates: list[Agreement],
        agreements: dict[int, Agreement],
    ) -> Iterator[str]:  # fmt: skip
        if agreement is None:
            if len(candidates) > 1:
                yield "ambiguous_agreement"
            elif company:
                currency = self.sandbox.store.records("company")[company]["currency"]["currencyCode"]
                has_none = not any(one.company == company and one.type == DEFAULT_TYPE for one in agreements.values())
                is_created = self.decisions.settings["create_agreements"] == "on" and has_none
                yield "agreement_to_create" if is_created and currency == line.row["currency"] else "no_agreement"
            return
        if not agreement.is_active or agreement.company != company:
            yield "agreement_not_usable"
        if agreement.currency != line.row["currency"]:
            yield "agreement_currency_differs"
        if agreement.prorates:
            yield "agreement_prorates"

    # -- money and dates -----------------------------------------------------------------------------------------

    def _price(self, line: Line) -> tuple[Decimal, Decimal | None]:
        """Quantity and unit price that give the total: AppXite's, else the shortest price, else one unit, else none."""
        typed, row = line.typed, line.row
        quantity = typed.get("quantity", row["quantity"])
        if "unit_price" in typed:
            return quantity, typed["unit_price"]
        decimals = int(self.decisions.settings["unit_price_decimals"])
        price = self._unit_price(quantity, row["unitPrice"], line.total, decimals)
        if price is None and self.decisions.settings["price_fallback"] == "one_unit" and "quantity" not in typed:
            return Decimal(1), line.total
        return quantity, price

    def _unit_price(self, quantity: Decimal, price: Decimal, total: Decimal, decimals: int) -> Decimal | None:
        if places(price) <= decimals and cents(WIDE.multiply(quantity, price)) == total:
            return price
        if not quantity:
            return price.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP, WIDE) if not total else None
        for number in range(2, decimals + 1):
            step = Decimal(1).scaleb(-number)
            shorter = WIDE.divide(total, quantity).quantize(step, ROUND_HALF_UP, WIDE)
            if cents(WIDE.multiply(quantity, shorter)) == total:
                return shorter
        return None

    def _due(
        self, line: Line, agreement: Agreement, company: int, product: int, quantity: Decimal, price: Decimal
    ) -> Due:
        row, typed, settings = line.row, line.typed, self.decisions.settings
        start, end = (date.fromisoformat(row[name]) for name in ("chargeStartDate", "chargeEndDate"))
        rules = self.decisions.rules.get(row["chargeType"], ("as_invoiced", "as_invoiced"))
        ruled = [
            by_rule(rule, day, line.row, agreement.next_invoice) for rule, day in zip(rules, (start, end), strict=True)
        ]
        begins, ends = typed.get("effective_date", ruled[0]), typed.get("cancelled_date")
        is_late = begins < agreement.next_invoice and agreement.cycle(begins).start < agreement.next_invoice
        effective = agreement.next_invoice if is_late else begins
        bill_start = agreement.bill_start
        if not is_late and effective < bill_start and agreement.cycle(bill_start) == agreement.cycle(effective):
            effective = bill_start
        cycle = agreement.cycle(effective)
        months = row["billingFrequency"].removeprefix("Every ").removesuffix(" months")
        template = settings["description_template"]
        words = (
            *([" ".join(row["subscriptionName"].split())] if "{subscription}" in template else []),
            *([DISPLAY_NAMES.get(row["chargeType"], "")] if "{charge_type}" in template else []),
        )
        if "invoice_description" in typed:
            words = (typed["invoice_description"],)
        return Due(
            agreement, company, product, cycle, is_late,
            may_persist=(
                row["chargeType"] in RECURRING and not is_late
                and settings["recurring_mode"] == "persistent"
                and row["subscriptionId"] is not None and months == str(agreement.months)
                and not {"effective_date", "cancelled_date"} & typed.keys() and line.revision == 1
                and row["offerId"] not in self.decisions.dated_offers
            ),
            effective=effective,
            # What a person typed is not corrected.
            cancelled=(
                cycle.end if is_late and (ends is None or ends < effective)
                else min(max(ruled[1], effective), cycle.end) if ends is None else ends
            ),
            quantity=quantity, price=price, amount=cents(WIDE.multiply(quantity, price)), words=words,
            period=None if "invoice_description" in typed else f"{start} to {end}",
        )  # fmt: skip

    # -- deliver -------------------------------------------------------------------------------------------------

    def deliver(self, lines: Iterable[Line]) -> None:
        """An approved plan was carried out: lines go onto their Additions; or wait, if their agreement has changed."""
        now = {record["id"]: Agreement.of(record) for record in self.sandbox.agreements()}
        for line in lines:
            if line.outcome != "awaiting approval" or line.due is None:
                continue
            if now[line.due.agreement.id] == line.due.agreement:
                line.delivered, line.night, line.outcome, line.reasons = line.due, self.night, "delivered", frozenset()
            else:
                line.outcome, line.reasons = "held", frozenset({"agreement_changed"})
