"""A seed as a program: who the customers are, how the product is set up, and what happens on which day.

All chance is here. The player only carries out what the events say, and an event that makes no sense any more (its
subscription was never bought, since shrinking left that out) does nothing.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from business.dates import DAY, cycle_with, last_of_month, later
from sandbox.dataset import OFFERS

START = date(2027, 1, 1)  # with 29 February 2028
MONTHS = 15
END = later(START, MONTHS) - DAY

SPLIT_CUSTOMERS = 3  # each of the first few has a second company in ConnectWise

MONTHLY = tuple(one for one in OFFERS if "OF-1001" <= one < "OF-1013")
YEARLY, QUARTERLY = ("OF-1101", "OF-1102"), ("OF-1103", "OF-1104")
USAGE, ONE_TIME, ITEM = ("OF-1201", "OF-1202", "OF-1203"), ("OF-1301", "OF-1302"), ("OF-1401", "OF-1402")
DATE_RULES = (
    "as_invoiced", "as_invoiced", "first_day_of_charge_month", "last_day_of_charge_month", "first_day_of_invoice_month",
    "last_day_of_invoice_month", "first_day_of_next_month", "last_day_of_next_month", "invoice_date",
    "next_invoice_date",
)  # fmt: skip
TEMPLATES = (
    "{subscription} - {charge_type} - {period} - {quantity_and_price}",
    "{charge_type}: {subscription} ({period})",
    "{subscription}, {period}",
)
SOLD = MONTHLY + YEARLY + QUARTERLY + USAGE + ONE_TIME + ITEM


@dataclass(frozen=True)
class Event:
    """Something that happens. given: what it needs to know, by name."""

    day: date
    what: str
    customer: int = -1
    given: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        details = ", ".join(f"{name}={value}" for name, value in self.given.items())
        who = f"customer {self.customer}" if self.customer >= 0 else ""
        return f"{self.day} {self.what:20} {who:11} {details}".rstrip()


@dataclass(frozen=True)
class Customer:
    """A customer as it is on the first day: its AppXite side and its ConnectWise agreement.

    months        of a ConnectWise billing cycle
    anchor        the billing start on which contract cycles count; None: calendar cycles
    bill_start    of the agreement
    billing_day   on which AppXite's monthly terms begin
    """

    currency: str
    months: int
    anchor: date | None
    bill_start: date
    billing_day: int
    prorates: bool
    is_mapped: bool
    has_agreement: bool

    def cycle(self, day: date) -> Any:
        """ConnectWise's cycle that holds a day."""
        return cycle_with(day, self.months, self.anchor)


@dataclass(frozen=True)
class Program:
    """All that follows from a seed and a recurring mode."""

    seed: int
    mode: str
    settings: dict[str, str]
    rules: dict[str, tuple[str, str]]  # charge type -> rules for start and end, where they are not "as invoiced"
    unmapped_offers: tuple[str, ...]
    dated_offers: tuple[str, ...]  # in persistent mode these are dated all the same
    agreement_rule: str  # of a company's agreements take the one in the line's "currency" or of its "cycle"; or no rule
    custom_offer: str  # custom charges without an offer become the product of this one; empty: they have no product
    variants: dict[tuple[str, str], str]  # offer and billing frequency -> the offer whose product they become instead
    customers: tuple[Customer, ...]
    events: tuple[Event, ...]

    def with_events(self, events: list[Event]) -> Program:
        """The same with other events."""
        return replace(self, events=tuple(events))

    def __str__(self) -> str:
        lines = [f"seed {self.seed}, mode {self.mode}, {self.settings}, rules {self.rules}"]
        lines += [f"not mapped at first: {self.unmapped_offers}, always dated: {self.dated_offers}"]
        lines += [f"agreement rule: {self.agreement_rule or 'none'}"]
        lines += [f"custom charges become {self.custom_offer or 'nothing'}, variants {self.variants}"]
        lines += [f"customer {number}: {customer}" for number, customer in enumerate(self.customers)]
        return "\n".join([*lines, *map(str, self.events)])


def write(seed: int, mode: str) -> Program:
    """The program of a seed. Both modes have the same business."""
    return Writer(seed, mode).write()


class Writer:
    """Makes up a program. chance: everything follows from the seed."""

    def __init__(self, seed: int, mode: str) -> None:
        self.seed, self.mode = seed, mode
        self.chance = random.Random(f"{seed}/business")
        self.events: list[Event] = []
        self.bought = 0

    def write(self) -> Program:
        settings = self._settings()
        customers = tuple(self._customer(number) for number in range(self.chance.randrange(3, 6)))
        rules = self._rules() if self._happens(0.35) else {}
        dated = tuple(self.chance.sample(SOLD, 3)) if self._happens(0.3) else ()
        agreement_rule = self.chance.choice(["", "", "currency", "cycle"])
        custom_offer = self.chance.choice(["", *ITEM])
        variants = {(offer, "Every 1 months"): self.chance.choice(MONTHLY) for offer in self.chance.sample(MONTHLY, 4)}
        if self._happens(0.7):
            variants = {}
        unmapped = tuple(self.chance.sample(SOLD, self.chance.choice([0, 1, 2, 3])))
        for offer in unmapped:
            if self._happens(0.8):
                self._add(
                    self._day(20, 180), "map_offer", offer=offer, state="excluded" if self._happens(0.2) else "approved"
                )
        for number, customer in enumerate(customers):
            self._sell(number)
            self._bill(number, customer)
            self._invoice(number, customer)
            self._mend(number, customer)
            self._correct(number)
            self._type(number)
        self._nights(customers)
        order = {"invoice": self.chance.choice([0, 9]), "night": 5}
        events = sorted(self.events, key=lambda event: (event.day, order.get(event.what, 4)))
        return Program(
            self.seed,
            self.mode,
            settings,
            rules,
            unmapped,
            dated,
            agreement_rule,
            custom_offer,
            variants,
            customers,
            tuple(events),
        )

    def _happens(self, share: float) -> bool:
        return self.chance.random() < share

    def _add(self, day: date, what: str, customer: int = -1, **given: Any) -> None:
        if START <= day <= END:
            self.events.append(Event(day, what, customer, given))

    def _day(self, first: int = 0, last: int = (END - START).days) -> date:
        return START + timedelta(days=self.chance.randint(first, last))

    def _settings(self) -> dict[str, str]:
        pick = self.chance.choice
        return {
            "late_lines": pick(["next_open_cycle"] * 5 + ["hold"]),
            "negative_additions": pick(["send"] * 5 + ["hold"]),
            "zero_amounts": pick(["send", "skip"]),
            "unit_price_decimals": pick(["4", "4", "2", "6"]),
            "price_fallback": pick(["one_unit"] * 3 + ["hold"]),
            "marker_carrier": pick(["serial_number"] * 3 + ["description"]),
            "lookback_months": pick(["2", "2", "3"]),
            "automated_daily_sync": pick(["on"] * 4 + ["off"]),
            "create_agreements": pick(["on", "on", "off"]),
            "credits": pick(["hold", "send"]),
            "changes_after_delivery": pick(["hold", "hold", "next_open_cycle", "next_open_cycle"]),
            "taxable": pick(["product", "product", "on", "off"]),
            "description_template": pick(TEMPLATES),
        }

    def _rules(self) -> dict[str, tuple[str, str]]:
        charges = self.chance.sample(
            ("CycleFee", "PurchaseFee", "UsageFee", "OneTimeFee", "Correction", "UserCorrection"), 2
        )
        return {charge: (self.chance.choice(DATE_RULES), self.chance.choice(DATE_RULES)) for charge in charges}

    # -- customers -----------------------------------------------------------------------------------------------

    def _customer(self, number: int) -> Customer:
        pick = self.chance.choice
        anchor = None
        if self._happens(0.45):
            anchor = pick(
                [date(2025, 1, 31), date(2026, 8, 31), date(2026, 5, 10), date(2024, 2, 29), date(2026, 11, 30)]
            )
        bill_start = anchor or date(2025, 1, 1)
        if self._happens(0.1):
            bill_start = pick([date(2027, 2, 1), date(2027, 1, 10), date(2027, 3, 31)])
            anchor = bill_start if anchor else None
        is_mapped = self._happens(0.65)
        if not is_mapped and self._happens(0.85):
            day = self._day(20, 150)
            self._add(day, "map_organization", number, state="approved")
        elif self._happens(0.06):
            self._add(self._day(100), "map_organization", number, state="excluded")
        return Customer(
            currency="USD" if number == 1 and self._happens(0.6) else "EUR",
            months=pick([1] * 7 + [3, 3, 6, 12]),
            anchor=anchor,
            bill_start=bill_start,
            billing_day=pick([1, 1, 1, 10, 15, 28]),
            prorates=self._happens(0.12),
            is_mapped=is_mapped,
            has_agreement=self._happens(0.88),
        )

    # -- what they buy -------------------------------------------------------------------------------------------

    def _sell(self, number: int) -> None:
        for count in range(self.chance.randrange(2, 5)):
            offer = self.chance.choice(MONTHLY * 2 + YEARLY * 3 + QUARTERLY * 3)
            self._life_of(number, self._buy(number, START if count == 0 else self._day(0, 330), offer))
        for _ in range(self.chance.randrange(0, 8)):
            offer = self.chance.choice(USAGE)
            quantity = Decimal(self.chance.randrange(1, 10**9)).scaleb(-self.chance.choice([4, 5, 6, 8, 10]))
            price = Decimal(self.chance.randrange(1, 10**6)).scaleb(-self.chance.choice([6, 8, 10]))
            cent = self.chance.choice([0, 0, 0, 0, 1, -1])
            self._add(self._day(), "usage", number, offer=offer, quantity=quantity, price=price, cent=cent)
        for _ in range(self.chance.randrange(0, 4)):
            self._add(self._day(), "once", number, offer=self.chance.choice(ONE_TIME), quantity=self._seats())
        for _ in range(self.chance.randrange(0, 3)):
            self._add(self._day(), "item", number, offer=self.chance.choice(ITEM), quantity=self._seats())
        for _ in range(self.chance.randrange(0, 3)):
            self._add(
                self._day(), "custom", number, offer=self.chance.choice([None, None, *ITEM]),
                amount=Decimal(self.chance.randrange(-9000, 15000)).scaleb(-2),
            )  # fmt: skip

        if self._happens(0.15):
            self._add(self._day(), "odd", number, how=self.chance.choice(["charge type", "currency", "dates"]))

    def _seats(self) -> int:
        return self.chance.choice([1, 2, 3, 5, 7, 12, 17])

    def _buy(self, number: int, day: date, offer: str, again: str = "") -> Event:
        self.bought += 1
        name = again or f"s{self.bought}"
        price = OFFERS[offer].price + Decimal(self.chance.randrange(0, 100)).scaleb(-self.chance.choice([2, 2, 3, 4]))
        if self._happens(0.05):
            price = Decimal("0.00")
        self._add(day, "buy", number, name=name, offer=offer, quantity=self._seats(), price=price)
        return Event(day, "buy", number, {"name": name, "offer": offer})

    def _life_of(self, number: int, bought: Event) -> None:
        """What becomes of a subscription until it ends."""
        name, offer, day = bought.given["name"], bought.given["offer"], bought.day
        while True:
            day += timedelta(days=self.chance.randrange(15, 140))
            if day > END:
                return
            what = self.chance.choice(
                ["seats"] * 5 + ["price", "price", "discount", "rename", "upgrade", "cancel", "suspend"]
            )
            if what == "seats":
                self._add(day, "seats", number, name=name, change=self.chance.choice([1, 2, 5, -1, -2]))
            elif what == "price":
                self._add(
                    day,
                    "price",
                    number,
                    name=name,
                    price=OFFERS[offer].price + Decimal(self.chance.randrange(-90, 300)).scaleb(-2),
                )
            elif what == "discount":
                self._add(
                    day, "discount", number, name=name, amount=Decimal(self.chance.randrange(50, 2500)).scaleb(-2)
                )
            elif what == "rename":
                self._add(day, "rename", number, name=name, text=f"{name} \"Größe\" {self.chance.randrange(100)}%\t'x'")
            elif what == "upgrade":
                offer = self.chance.choice(MONTHLY)
                self._add(day, "upgrade", number, name=name, offer=offer, price=OFFERS[offer].price)
            elif what == "suspend":
                self._add(day, "suspend", number, name=name)
                self._add(day + timedelta(days=self.chance.randrange(20, 100)), "resume", number, name=name)
            else:
                self._add(day, "cancel", number, name=name, at_once=self._happens(0.5))
                if self._happens(0.5):
                    again = name if self._happens(0.5) else ""
                    self._life_of(
                        number, self._buy(number, day + timedelta(days=self.chance.randrange(1, 90)), offer, again)
                    )
                return

    # -- AppXite's invoices --------------------------------------------------------------------------------------

    def _bill(self, number: int, customer: Customer) -> None:
        for month in range(MONTHS):
            day = later(START, month).replace(day=customer.billing_day) + timedelta(
                days=self.chance.choice([0, 0, 0, 1, 2])
            )
            late = self.chance.choice([0] * 9 + [self.chance.randrange(1, 20), self.chance.randrange(25, 70)])
            self._add(day, "bill", number, month=month, is_verified=not late)
            if late:
                self._add(min(day + timedelta(days=late), END), "verify", number, month=month)
                if late > 27 and self._happens(0.7):
                    self._add(min(day + timedelta(days=late + 2), END), "backfill", month=month)

    def _correct(self, number: int) -> None:
        """AppXite changes what it has invoiced."""
        for month in range(MONTHS):
            if not self._happens(0.16):
                continue
            day = later(START, month) + timedelta(days=self.chance.randrange(2, 50))
            what = self.chance.choice(
                ["change_row"] * 3 + ["remove_row", "remove_row", "withdraw", "reissue", "break_total"]
            )
            self._add(
                day, what, number, month=month, row=self.chance.randrange(9), factor=self.chance.choice([0, 2, 3])
            )
            after = day + timedelta(days=self.chance.randrange(5, 40))
            if what == "withdraw" and self._happens(0.6):
                self._add(after, "relist", number, month=month)
            if what == "break_total" and self._happens(0.8):
                self._add(after, "mend_total", number, month=month)
            if what == "change_row" and self._happens(0.3):
                self._add(after, "change_back", number, month=month)

    # -- ConnectWise ---------------------------------------------------------------------------------------------

    def _invoice(self, number: int, customer: Customer) -> None:
        cycle = customer.cycle(max(START, customer.bill_start))
        in_arrears = customer.months > 1 and self._happens(0.6)
        while cycle.start <= END:
            in_time = customer.billing_day + self.chance.randrange(6, 22)
            early, long_after = self.chance.randrange(-2, 11), self.chance.randrange(28, 75)
            delay = self.chance.choice([in_time] * 6 + [early] * 3 + [long_after])
            self._add((cycle.end if in_arrears else cycle.start) + timedelta(days=delay), "invoice", number)
            cycle = customer.cycle(cycle.end + DAY)

    def _mend(self, number: int, customer: Customer) -> None:
        """What people change about a customer in ConnectWise, mostly until they mend it."""
        if customer.prorates and self._happens(0.8):
            self._add(self._day(10, 120), "prorate", number, is_on=False)
        other = "USD" if customer.currency == "EUR" else "EUR"
        differs = self.chance.choice(["nothing", "currency", "cycle"])
        self._for_a_while(0.12, ("prorate", {"is_on": True}), ("prorate", {"is_on": False}), number)
        self._for_a_while(
            0.12,
            ("agreement_currency", {"currency": other}),
            ("agreement_currency", {"currency": customer.currency}),
            number,
        )
        self._for_a_while(0.12, ("second_agreement", {"differs": differs}), ("end_second", {}), number, "map_contract")
        self._for_a_while(0.10, ("cancel_agreement", {}), ("restore_agreement", {}), number)
        self._for_a_while(0.10, ("pause", {}), ("end_pause", {}), number)
        inactive, active = ({"status": status} for status in ("Inactive", "Active"))
        self._for_a_while(0.10, ("company_status", inactive), ("company_status", active), number)
        offer = self.chance.choice(MONTHLY)
        gone, back = ({"offer": offer, "is_inactive": is_inactive} for is_inactive in (True, False))
        self._for_a_while(0.08, ("product", gone), ("product", back))
        if number < SPLIT_CUSTOMERS:
            by = self.chance.choice(["offer", "subscription", "contract"])
            self._for_a_while(0.2, ("split", {"by": by, "part": self.chance.randrange(1, 4)}), ("unite", {}), number)
        if self._happens(0.06):
            self._add(self._day(60, 300), "bill_currency", number, currency=other)
        if self._happens(0.4):
            self._add(self._day(), self.chance.choice(["rename_company", "rename_organization"]), number)

    def _for_a_while(
        self, share: float, begin: tuple[str, dict[str, Any]], end: tuple[str, dict[str, Any]], number: int = -1,
        between: str = "",
    ) -> None:  # fmt: skip
        """Something begins for a share of customers, and ends some weeks later, or never."""
        if not self._happens(share):
            return
        day = self._day(0, 350)
        self.events.append(Event(day, begin[0], number, begin[1]))
        if between and self._happens(0.4):
            self._add(day + timedelta(days=self.chance.randrange(5, 40)), between, number)
        if self._happens(0.8):
            self._add(day + timedelta(days=self.chance.randrange(8, 70)), end[0], number, **end[1])

    # -- people --------------------------------------------------------------------------------------------------

    def _type(self, number: int) -> None:
        """Values that people type for open lines, lines they exclude."""
        for _ in range(self.chance.randrange(1, 9)):
            what = self.chance.choice(
                [
                    "is_excluded",
                    "unit_price",
                    "quantity",
                    "effective_date",
                    "invoice_description",
                    "product_id",
                    "agreement_id",
                ]
            )
            self._add(
                self._day(10),
                "type",
                number,
                line=self.chance.randrange(50),
                column=what,
                value=self.chance.randrange(1, 40),
            )

    def _nights(self, customers: tuple[Customer, ...]) -> None:
        """In many months one soon after the invoices of some customers."""
        for month in range(MONTHS):
            first = later(START, month)
            for _ in range(self.chance.choice([1, 1, 2, 2])):
                soon = self.chance.choice(customers).billing_day + self.chance.randrange(0, 4)
                anyhow = self.chance.randrange(0, last_of_month(first).day)
                day = first + timedelta(days=soon if self._happens(0.7) else anyhow)
                self._add(day, "night")
                if self._happens(0.7):
                    self._add(day + timedelta(days=self.chance.randrange(0, 12)), "approve")
