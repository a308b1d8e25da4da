"""Months pass: whatever happens to a subscription, ConnectWise invoices what AppXite wants, to the cent.

Each story is played in both recurring modes, and with agreement invoicing run after the night, before it (so every
charge is late), in turns, or a whole month behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from pipeline import CUSTOMERS, DEC, NOV, OCT, Json, Pipeline, is_ours, most_billable_at_once, one_time, recurring, wanted

from billing_sync.run import last_day_of

JAN, FEB, MAR, APR = (date(2027, month, 1) for month in (1, 2, 3, 4))
MONTHS = (OCT, NOV, DEC, JAN, FEB, MAR, APR)
QUARTERLY, YEARLY = {"billingCycle": {"id": 2}}, {"billingCycle": {"id": 4}}
EVERY_3, EVERY_12 = "Every 3 months", "Every 12 months"

Story = dict[date, list[Json]]


def purchase(name: str, start: date, end: date, quantity: object = 1, price: object = "10.00", **other: Any) -> Json:
    """A PurchaseFee from any day to any day."""
    dates = {"chargeStartDate": start.isoformat(), "chargeEndDate": end.isoformat()}
    return recurring(name, start.replace(day=1), quantity, price, **{"chargeType": "PurchaseFee", **dates, **other})


def term(name: str, start: date, end: date, months: int, price: object, **other: Any) -> Json:
    """A recurring charge of several months in advance."""
    dates = {"chargeStartDate": start.isoformat(), "chargeEndDate": end.isoformat()}
    return recurring(name, start, 1, price, **{"billingFrequency": f"Every {months} months", **dates, **other})


def correction(name: str, month: date, price: str, quantity: int = 1) -> Json:
    return one_time(name, month, quantity, price, chargeType="Correction", chargeEndDate=last_day_of(month).isoformat())


STORIES: dict[str, Callable[[], Story]] = {
    "quantity_and_price_change": lambda: {
        OCT: [recurring("a", OCT, 3, "4.20")],
        NOV: [recurring("a", NOV, 5, "4.20")],
        DEC: [recurring("a", DEC, 5, "4.55")],
        JAN: [recurring("a", JAN, 5, "4.55")],
        FEB: [recurring("a", FEB, 2, "4.55")],
        MAR: [recurring("a", MAR, 2, "4.55")],
    },
    "upgrade_and_downgrade": lambda: {
        OCT: [recurring("a", OCT, 3, "4.20")],
        NOV: [recurring("a", NOV, 3, "6.00", offerId="OF-1002")],
        DEC: [recurring("a", DEC, 3, "6.00", offerId="OF-1002"), correction("a", NOV, "-1.37")],
        JAN: [recurring("a", JAN, 3, "4.20")],
        FEB: [recurring("a", FEB, 3, "4.20")],
    },
    "suspension": lambda: {
        OCT: [recurring("a", OCT, 3, "4.20")],
        NOV: [recurring("b", NOV, 1, "7.00")],
        FEB: [recurring("a", FEB, 3, "4.20")],
        MAR: [recurring("a", MAR, 4, "4.20")],
    },
    "cancelled_at_the_end_of_its_period": lambda: {
        OCT: [recurring("a", OCT, 3, "4.20")],
        NOV: [recurring("a", NOV, 3, "4.20")],
    },
    "cancelled_in_the_middle_with_a_credit": lambda: {
        OCT: [recurring("a", OCT, 3, "4.20")],
        NOV: [recurring("a", NOV, 3, "4.20")],
        DEC: [correction("a", NOV, "-6.31")],
    },
    "renewal": lambda: {
        OCT: [recurring("a", OCT, 3, "4.20")],
        NOV: [recurring("a", NOV, 3, "4.20")],
        DEC: [purchase("a", DEC, last_day_of(DEC), 3, "4.40")],
        JAN: [recurring("a", JAN, 3, "4.40")],
        FEB: [recurring("a", FEB, 3, "4.40")],
    },
    "bought_again_under_a_new_id": lambda: {
        OCT: [recurring("a", OCT, 3, "4.20")],
        NOV: [correction("a", OCT, "-2.10"), purchase("a2", NOV, last_day_of(NOV), 3, "4.20")],
        DEC: [recurring("a2", DEC, 3, "4.20")],
        JAN: [recurring("a2", JAN, 3, "4.20")],
    },
    "bought_again_under_the_same_id_in_the_same_cycle": lambda: {
        OCT: [recurring("a", OCT, 3, "4.20")],
        NOV: [
            recurring("a", NOV, 3, "4.20"),
            correction("a", NOV, "-8.40"),
            purchase("a", NOV.replace(day=20), last_day_of(NOV), 4, "1.54"),
        ],
        DEC: [recurring("a", DEC, 4, "4.20")],
        JAN: [recurring("a", JAN, 4, "4.20")],
    },
    "purchase_fee_then_cycle_fee": lambda: {
        OCT: [
            purchase("a", OCT.replace(day=12), last_day_of(OCT), 3, "2.71"),
            purchase("b", OCT.replace(day=12), last_day_of(OCT), 3, "2.71"),
            recurring("b", OCT, 1, "4.20"),
        ],
        NOV: [recurring("a", NOV, 3, "4.20"), recurring("b", NOV, 3, "4.20")],
        DEC: [recurring("a", DEC, 3, "4.20"), recurring("b", DEC, 3, "4.20")],
    },
    "from_the_15th_to_the_14th": lambda: {
        month: [purchase("a", month.replace(day=15), after.replace(day=14), 3, "4.20", chargeType="CycleFee")]
        for month, after in ((OCT, NOV), (NOV, DEC), (DEC, JAN), (JAN, FEB))
    },
    "terms_longer_than_the_cycle": lambda: {
        OCT: [term("y", OCT, date(2027, 9, 30), 12, "1199.40"), term("q", OCT, date(2026, 12, 31), 3, "82.30")],
        JAN: [term("q", JAN, date(2027, 3, 31), 3, "82.30")],
        APR: [term("q", APR, date(2027, 6, 30), 3, "84.00")],
    },
    "billed_a_month_late_by_appxite": lambda: {
        OCT: [recurring("a", OCT, 3, "4.20")],
        DEC: [recurring("a", NOV, 3, "4.20"), recurring("a", DEC, 3, "4.20")],
        JAN: [recurring("a", JAN, 3, "4.20")],
    },
    "billed_a_month_ahead_by_appxite": lambda: {
        OCT: [recurring("a", OCT, 3, "4.20"), recurring("a", NOV, 5, "4.20")],
        NOV: [recurring("a", DEC, 5, "4.20")],
        DEC: [recurring("a", JAN, 2, "4.20")],
    },
}


# Billed in another cycle than that of the month in which AppXite bills it.
IN_ANOTHER_CYCLE = ("billed_a_month_ahead_by_appxite",)


def told_by(name: str, rows: list[Json]) -> list[Json]:
    """A story's rows, their subscriptions named after it."""
    return [
        {**row, "subscriptionId": f"{name}-{row['subscriptionId']}", "subscriptionName": f"{name}: {row['subscriptionId']}"}
        for row in rows
    ]


def by_cycle(pipeline: Pipeline, name: str = "") -> dict[str, Decimal]:
    """What ConnectWise invoiced of our Additions (of a story), by the cycle's first day."""
    sums: dict[str, Decimal] = {}
    for invoice in pipeline.sandbox.invoices():
        lines = (line for line in invoice["lines"] if is_ours(line["marker"]) and name in line["description"])
        amount = sum((line["amount"] for line in lines), Decimal(0))
        if amount:
            sums[invoice["cycleStart"]] = sums.get(invoice["cycleStart"], Decimal(0)) + amount
    return sums


def total(rows: Iterable[Json]) -> Decimal:
    return sum((row["totalPrice"] for row in rows), Decimal(0))


def live(pipeline: Pipeline, bills: Callable[[date], None], order: str, months: Sequence[date] = MONTHS) -> None:
    """Month by month: AppXite bills, the night runs, ConnectWise invoices; in that order, or in another."""
    for number, month in enumerate(months):
        bills(month)
        through = last_day_of(months[number - 1] if order == "behind" else month).isoformat()
        invoices_first = order == "late" or (order == "turns" and number % 2) or (order == "behind" and number)
        if invoices_first:
            pipeline.sandbox.invoice(through=through)
        pipeline.night(month)
        if not invoices_first and order != "behind":
            pipeline.sandbox.invoice(through=through)


def settled(pipeline: Pipeline, month: date = APR) -> None:
    """Nothing is held, a further night writes nothing, and all that ConnectWise ever invoices is what AppXite wants."""
    assert pipeline.held() == {}
    counts, _ = pipeline.night(month)
    assert counts.writes == 0
    pipeline.sandbox.invoice(through="2028-12-31")
    assert sum(by_cycle(pipeline).values()) == sum(wanted(pipeline.sandbox).values())
    assert most_billable_at_once(pipeline.sandbox) <= 1


@pytest.mark.parametrize("mode", ["persistent", "dated"])
@pytest.mark.parametrize("order", ["in_time", "late", "turns", "behind"])
def test_connectwise_invoices_what_appxite_wants(pipeline: Pipeline, order: str, mode: str) -> None:
    pipeline.set(recurring_mode=mode)
    stories = {name: make() for name, make in STORIES.items()}

    def bills(month: date) -> None:
        for customer in range(CUSTOMERS):
            rows = [
                row
                for number, (name, story) in enumerate(stories.items())
                if number % CUSTOMERS == customer
                for row in told_by(name, story.get(month, []))
            ]
            if rows:
                pipeline.bill(month, *rows, customer=customer)

    live(pipeline, bills, order)
    settled(pipeline)

    for name, story in stories.items():
        rows = [row for month in MONTHS for row in story.get(month, [])]
        assert sum(by_cycle(pipeline, f"{name}:").values()) == total(rows), name
        if order in ("in_time", "behind") and name not in IN_ANOTHER_CYCLE:
            expected = {month.isoformat(): total(story[month]) for month in MONTHS if month in story}
            assert by_cycle(pipeline, f"{name}:") == expected, name
