"""Months pass: whatever happens to a subscription, ConnectWise invoices what AppXite wants, to the cent.

Each story is played in both recurring modes, and with agreement invoicing run after the night, before it (so every
charge is late), in turns, or a whole month behind.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from pipeline import (
    CUSTOMERS,
    DEC,
    NOV,
    OCT,
    SEP,
    Json,
    Pipeline,
    is_ours,
    most_billable_at_once,
    one_time,
    recurring,
    wanted,
)

from billing_sync.errors import ProofError
from billing_sync.pauses import end_pause
from billing_sync.run import last_day_of

JAN, FEB, MAR, APR = (date(2027, month, 1) for month in (1, 2, 3, 4))
MONTHS = (OCT, NOV, DEC, JAN, FEB, MAR, APR)

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
        {
            **row,
            "subscriptionId": f"{name}-{row['subscriptionId']}",
            "subscriptionName": f"{name}: {row['subscriptionId']}",
        }
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
    pipeline.sandbox.invoice(through="2031-12-31")
    assert sum(by_cycle(pipeline).values()) == sum(wanted(pipeline.sandbox).values())
    assert most_billable_at_once(pipeline.sandbox) <= 1


@pytest.mark.timeout(400)  # 15 seconds on a machine of one's own
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


@pytest.mark.parametrize("mode", ["persistent", "dated"])
@pytest.mark.parametrize("order", ["in_time", "late"])
@pytest.mark.parametrize(("cycle_id", "months"), [(2, 3), (4, 12)], ids=["quarterly", "yearly"])
def test_long_terms_on_an_agreement_of_the_same_cycle(
    pipeline: Pipeline, cycle_id: int, months: int, order: str, mode: str
) -> None:
    """Two terms, the second renewed at another price; each is invoiced once, in its own cycle or the next open one."""
    pipeline.set(recurring_mode=mode)
    agreement_id = pipeline.agreement()
    pipeline.sandbox.change_record(
        "agreements", agreement_id, {"billingCycle": {"id": cycle_id}, "nextInvoiceDate": "2026-01-01T00:00:00Z"}
    )
    starts = [date(2026 + number * months // 12, number * months % 12 + 1, 1) for number in range(4)]
    if months == 3:
        starts = [date(2026, month, 1) for month in (1, 4, 7, 10)]
    ends = [date(start.year + (start.month + months > 12), (start.month + months - 1) % 12 + 1, 1) for start in starts]
    for start, after, price in zip(starts, ends, ("100.10", "100.10", "90.00", "95.25"), strict=True):
        end = after - timedelta(days=1)
        pipeline.bill(start, term("t", start, end, months, price))
        if order == "late":
            pipeline.sandbox.invoice(agreement_id, through=start.isoformat())
        pipeline.night(start)
        if order == "in_time":
            pipeline.sandbox.invoice(agreement_id, through=start.isoformat())
    settled(pipeline, starts[-1])
    expected = {"100.10", "90.00", "95.25"}
    if order == "in_time":
        assert [by_cycle(pipeline)[start.isoformat()] for start in starts] == [
            Decimal("100.10"), Decimal("100.10"), Decimal("90.00"), Decimal("95.25")
        ]  # fmt: skip
        if mode == "persistent":
            assert len(pipeline.additions()) == 1
    assert {str(amount) for amount in by_cycle(pipeline).values()} == expected


@pytest.mark.parametrize("mode", ["persistent", "dated"])
def test_a_contract_that_moves_to_another_agreement_ends_on_the_one_and_begins_on_the_other(
    pipeline: Pipeline, mode: str
) -> None:
    pipeline.set(recurring_mode=mode)
    first = pipeline.agreement()
    second = pipeline.sandbox.copy_agreement(first, "Second")["id"]
    for one in pipeline.sandbox.additions(second):
        pipeline.sandbox.delete_addition(one["id"])
    pipeline.sandbox.change_record("agreements", second, {"type": {"id": 2}})
    pipeline.bill(SEP, one_time("before", SEP))
    pipeline.night(SEP)  # from now on the second agreement is known
    pipeline.connection.execute("insert into mapping.contract (contract_id) values ('CT-30001') on conflict do nothing")
    for month, agreement_id in ((OCT, first), (NOV, first), (DEC, second), (JAN, second), (FEB, first)):
        pipeline.connection.execute(
            """
            insert into mapping.contract_mapping as known (contract_id, agreement_id, state, decided_by)
            values ('CT-30001', %(agreement)s, 'approved', 'ann')
            on conflict (contract_id) do update set
                agreement_id = %(agreement)s, state = 'approved', decided_by = 'ann', version = known.version + 1
            """,
            {"agreement": agreement_id},
        )
        pipeline.bill(month, recurring("a", month, 3, "4.20"))
        pipeline.night(month)
        assert {
            one["agreementId"] for one in pipeline.additions() if (one["cancelledDate"] or "") > month.isoformat()
        } == {agreement_id}
        pipeline.sandbox.invoice(through=last_day_of(month).isoformat())
    settled(pipeline, FEB)


def test_an_end_that_a_person_removes_months_later_turns_the_proof_red(pipeline: Pipeline) -> None:
    """There is no cancel sweep; this is what would find a subscription that is billed on without a line."""
    for month, names in ((OCT, "ab"), (NOV, "b"), (DEC, "b")):
        pipeline.bill(month, *(recurring(name, month, 1, "7.00") for name in names))
        pipeline.night(month)
        pipeline.sandbox.invoice(through=last_day_of(month).isoformat())
    ended = next(one for one in pipeline.additions() if one["cancelledDate"] == "2026-10-31T00:00:00Z")
    pipeline.sandbox.change_addition(ended["id"], {"cancelledDate": None})
    pipeline.bill(JAN, recurring("b", JAN, 1, "7.00"))
    with pytest.raises(ProofError, match=f"Addition {ended['id']} of ours bills until for ever, its last line is of"):
        pipeline.night(JAN)


# -- what AppXite changes after it was delivered -----------------------------------------------------------------------


def row_of(pipeline: Pipeline, invoice_id: int, number: int = 0) -> dict[str, Any]:
    row: dict[str, Any] = pipeline.sandbox.appxite_invoice(invoice_id)["rows"][number]
    return row


def write_total(pipeline: Pipeline, invoice_id: int) -> None:
    """The header says what the rows give."""
    amount = total(entry["row"] for entry in pipeline.sandbox.appxite_invoice(invoice_id)["rows"])
    pipeline.sandbox.change_appxite_invoice(invoice_id, {"totalAmount": amount})


def change(pipeline: Pipeline, invoice_id: int, quantity: int, price: str = "4.20", number: int = 0) -> None:
    """AppXite changes a row and its invoice's total."""
    amount = (quantity * Decimal(price)).quantize(Decimal("0.01"))
    pipeline.sandbox.change_appxite_row(
        row_of(pipeline, invoice_id, number)["line"],
        {"quantity": Decimal(quantity), "unitPrice": Decimal(price), "totalPrice": amount},
    )
    write_total(pipeline, invoice_id)


def remove(pipeline: Pipeline, invoice_id: int, number: int = 0) -> None:
    """AppXite removes a row and lowers its invoice's total."""
    pipeline.sandbox.delete_appxite_row(row_of(pipeline, invoice_id, number)["line"])
    write_total(pipeline, invoice_id)


@pytest.fixture
def corrected(pipeline: Pipeline) -> tuple[Pipeline, int]:
    """October is delivered, 3 x 4.20; what AppXite changes from now on is delivered, too."""
    pipeline.set(changes_after_delivery="next_open_cycle")
    invoice_id = pipeline.bill(OCT, recurring("a", OCT, 3, "4.20"), one_time("b", OCT.replace(day=9), 1, "5.00"))
    pipeline.night(OCT)
    return pipeline, invoice_id


def corrections(pipeline: Pipeline) -> list[Json]:
    return [one for one in pipeline.additions() if "correction of" in one["invoiceDescription"]]


def test_a_change_is_delivered_in_its_own_cycle_while_that_is_open(corrected: tuple[Pipeline, int]) -> None:
    pipeline, invoice_id = corrected
    change(pipeline, invoice_id, 5)
    counts, proof = pipeline.night(OCT)
    assert (counts.created, counts.updated, Decimal(proof["held"])) == (1, 0, 0)
    (correction,) = corrections(pipeline)
    assert (correction["quantity"], correction["unitPrice"], correction["extPrice"]) == (
        1,
        Decimal("8.40"),
        Decimal("8.40"),
    )
    assert correction["invoiceDescription"].endswith("correction of 2026-10-01 to 2026-10-31")
    assert correction["effectiveDate"] == "2026-10-01T00:00:00Z"
    assert correction["cancelledDate"] == "2026-10-31T00:00:00Z"

    pipeline.sandbox.invoice(through="2026-10-31")
    pipeline.bill(NOV, recurring("a", NOV, 5, "4.20"))
    pipeline.night(NOV)
    settled(pipeline, NOV)
    assert by_cycle(pipeline) == {"2026-10-01": Decimal("26.00"), "2026-11-01": Decimal("21.00")}


def test_a_change_of_an_invoiced_cycle_is_delivered_in_the_next_open_one(corrected: tuple[Pipeline, int]) -> None:
    pipeline, invoice_id = corrected
    pipeline.sandbox.invoice(through="2026-10-31")
    change(pipeline, invoice_id, 2)
    pipeline.night(NOV)
    (correction,) = corrections(pipeline)
    assert (correction["quantity"], correction["unitPrice"]) == (-1, Decimal("4.20"))
    assert correction["effectiveDate"] == "2026-11-01T00:00:00Z"
    settled(pipeline, NOV)
    assert by_cycle(pipeline) == {"2026-10-01": Decimal("17.60"), "2026-11-01": Decimal("-4.20")}


def test_a_removed_line_is_taken_back(corrected: tuple[Pipeline, int]) -> None:
    pipeline, invoice_id = corrected
    remove(pipeline, invoice_id)
    pipeline.night(OCT)
    (correction,) = corrections(pipeline)
    assert correction["extPrice"] == Decimal("-12.60")
    settled(pipeline, OCT)


def test_changes_that_cancel_each_other_out_before_delivery_leave_nothing(corrected: tuple[Pipeline, int]) -> None:
    pipeline, invoice_id = corrected
    pipeline.set(automated_daily_sync="off")
    for quantity in (5, 2, 3):
        change(pipeline, invoice_id, quantity)
        pipeline.night(OCT)
    assert pipeline.rows("select revision, total_price from billing.invoice_line where revision > 1") == []
    change(pipeline, invoice_id, 7)
    pipeline.night(OCT)
    remove(pipeline, invoice_id)
    pipeline.night(OCT)
    assert pipeline.rows("select revision, total_price from billing.invoice_line where revision > 1") == [
        (2, Decimal("-12.60"))
    ]
    pipeline.set(automated_daily_sync="on")
    pipeline.night(OCT)
    settled(pipeline, OCT)


def test_a_change_that_is_taken_back_after_its_delivery_is_corrected_again(corrected: tuple[Pipeline, int]) -> None:
    pipeline, invoice_id = corrected
    for quantity in (5, 3, 4):
        change(pipeline, invoice_id, quantity)
        pipeline.night(OCT)
    assert sorted(one["extPrice"] for one in corrections(pipeline)) == [
        Decimal("-8.40"), Decimal("4.20"), Decimal("8.40")
    ]  # fmt: skip
    settled(pipeline, OCT)


def test_what_replaces_a_removed_line_waits_until_that_is_taken_back(corrected: tuple[Pipeline, int]) -> None:
    pipeline, invoice_id = corrected
    remove(pipeline, invoice_id)
    shared = row_of(pipeline, invoice_id)["row"]
    again = {**shared, **recurring("a", OCT, 4, "4.20"), "rowId": "another id"}
    pipeline.sandbox.add_appxite_row(invoice_id, again)
    write_total(pipeline, invoice_id)
    pipeline.night(OCT)
    assert pipeline.held() == {
        "changed_after_delivery": "a delivered line of this invoice was removed or replaced in AppXite"
    }
    pipeline.night(OCT)
    settled(pipeline, OCT)
    assert by_cycle(pipeline) == {"2026-10-01": Decimal("21.80")}


def test_nothing_is_corrected_while_the_original_is_in_conflict(corrected: tuple[Pipeline, int]) -> None:
    pipeline, invoice_id = corrected
    ours = next(one for one in pipeline.additions() if one["quantity"] == 3)
    pipeline.sandbox.change_addition(ours["id"], {"quantity": 8})
    with pytest.raises(ProofError):
        pipeline.night(OCT)
    end_pause(pipeline.connection, "ann", company_id=201)
    change(pipeline, invoice_id, 5)
    with pytest.raises(ProofError):
        pipeline.night(OCT)
    assert pipeline.held()["changed_after_delivery"] == (
        "difference 8.40 EUR: the Addition it corrects is in conflict or in doubt"
    )
    pipeline.sandbox.change_addition(ours["id"], {"quantity": 3})
    end_pause(pipeline.connection, "ann", company_id=201)
    for _ in range(2):
        pipeline.night(OCT)
    settled(pipeline, OCT)


def test_an_amount_that_a_person_typed_is_not_corrected_by_itself(pipeline: Pipeline) -> None:
    pipeline.set(changes_after_delivery="next_open_cycle")
    invoice_id = pipeline.bill(OCT, recurring("a", OCT, 3, "4.20"))
    pipeline.plan("nightly", [OCT], approve=False)
    pipeline.connection.execute(
        "insert into billing.override (line_id, quantity, unit_price) select line_id, 2, 4.20 from billing.invoice_line"
    )
    pipeline.night(OCT)
    change(pipeline, invoice_id, 4)
    assert pipeline.night(OCT)[0].writes == 0
    assert "bills another amount" in pipeline.held()["changed_after_delivery"]


def test_bounds_hold_for_corrections_too(corrected: tuple[Pipeline, int]) -> None:
    pipeline, invoice_id = corrected
    pipeline.set(bound_amount_per_line="100")
    change(pipeline, invoice_id, 300)
    assert pipeline.night(OCT)[0].writes == 0
    assert "amount_above_bound" in pipeline.held()


def test_another_offer_at_the_same_total_has_nothing_to_deliver(corrected: tuple[Pipeline, int]) -> None:
    pipeline, invoice_id = corrected
    pipeline.sandbox.change_appxite_row(row_of(pipeline, invoice_id)["line"], {"offerId": "OF-1002"})
    assert pipeline.night(OCT)[0].writes == 0
    assert pipeline.rows("select excluded_by from reporting.invoice_line where outcome = 'excluded'") == [
        ("setting changes_after_delivery: no difference in money to what was delivered",)
    ]
    settled(pipeline, OCT)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("mode", ["persistent", "dated"])
@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_appxite_changes_the_customer_is_invoiced_what_it_says_in_the_end(
    pipeline: Pipeline, seed: int, mode: str
) -> None:
    chance = random.Random(seed)
    pipeline.set(changes_after_delivery="next_open_cycle", recurring_mode=mode)
    bills: list[int] = []
    gone: list[tuple[int, Json]] = []
    for month in (OCT, NOV, DEC, JAN):
        rows = [
            recurring(name, month, chance.randint(1, 5), "4.20") for name in ("a", "b", "c") if chance.random() < 0.8
        ]
        bills.append(pipeline.bill(month, *rows, one_time("o", month, 1, "3.00")))
        for _ in range(3):
            if chance.random() < 0.3:
                pipeline.sandbox.invoice(through=last_day_of(month).isoformat())
            for invoice_id in bills[-2:]:
                number = len(pipeline.sandbox.appxite_invoice(invoice_id)["rows"])
                if chance.random() < 0.2 and number > 1:
                    which = chance.randrange(number)
                    gone.append((invoice_id, row_of(pipeline, invoice_id, which)["row"]))
                    remove(pipeline, invoice_id, which)
                elif gone and gone[-1][0] == invoice_id:  # it comes back, under its own id or another
                    row = gone.pop()[1]
                    pipeline.sandbox.add_appxite_row(
                        invoice_id, {**row, "rowId": chance.choice((row["rowId"], f"{row['rowId']}-again"))}
                    )
                    write_total(pipeline, invoice_id)
                elif chance.random() < 0.7:
                    price = chance.choice(("4.20", "3.99"))
                    change(pipeline, invoice_id, chance.randint(0, 6), price, chance.randrange(number))
            pipeline.night(month)
    for _ in range(2):
        pipeline.night(JAN)
    settled(pipeline, JAN)


# -- a cycle without a line --------------------------------------------------------------------------------------------


def cycles_without_line(pipeline: Pipeline) -> list[tuple[str, str, str]]:
    return [
        (subscription_id, str(start), why)
        for subscription_id, start, why in pipeline.rows(
            "select subscription_id, cycle_start, why from reporting.cycle_without_line order by 1, 2"
        )
    ]


def test_a_cycle_that_connectwise_invoiced_without_a_line_is_shown_with_the_cause(pipeline: Pipeline) -> None:
    """held, excluded, late, not billed; a subscription that ended is not shown, one that runs on is."""
    pipeline.set(late_lines="hold")

    def month_of(month: date, names: str, **other: Any) -> None:
        pipeline.bill(month, *(recurring(name, month, 1, "7.00", **other) for name in names))

    month_of(OCT, "hxnre")
    pipeline.night(OCT)
    pipeline.sandbox.invoice(through="2026-10-31")
    month_of(NOV, "r")
    pipeline.bill(NOV, recurring("h", NOV, 1, "7.00", currency="USD"))
    pipeline.plan("nightly", [NOV], approve=False)
    pipeline.bill(NOV, recurring("x", NOV, 1, "7.00"))
    pipeline.plan("nightly", [NOV], approve=False)
    pipeline.connection.execute(
        """
        insert into billing.override (line_id, is_excluded, reason)
        select line_id, true, 'a gift' from billing.invoice_line
        where subscription_id = 'sub-x' and charge_start_date = %s
        """,
        [NOV],
    )
    pipeline.night(NOV)
    pipeline.sandbox.invoice(through="2026-11-30")
    month_of(DEC, "hxnr")
    pipeline.night(DEC)
    assert cycles_without_line(pipeline) == [
        ("sub-h", "2026-11-01", "held"),
        ("sub-n", "2026-11-01", "not billed by AppXite"),
        ("sub-x", "2026-11-01", "excluded"),
    ]

    pipeline.connection.execute(
        "insert into mapping.subscription (subscription_id, status) values ('sub-e', 'Active') on conflict do nothing"
    )
    pipeline.connection.execute("update audit.run set billing_periods = array_remove(billing_periods, %s)", [NOV])
    assert cycles_without_line(pipeline) == [
        ("sub-e", "2026-11-01", "not loaded"),
        ("sub-h", "2026-11-01", "held"),
        ("sub-n", "2026-11-01", "not loaded"),
        ("sub-x", "2026-11-01", "excluded"),
    ]


def test_a_late_charge_that_was_billed_in_a_later_cycle_says_so(pipeline: Pipeline) -> None:
    for month in (OCT, NOV, DEC):
        pipeline.bill(month, recurring("a", month, 1, "7.00"))
        if month == NOV:
            pipeline.sandbox.invoice(through="2026-11-30")
        pipeline.night(month)
        pipeline.sandbox.invoice(through=last_day_of(month).isoformat())
    assert cycles_without_line(pipeline) == [("sub-a", "2026-11-01", "billed in another cycle")]
