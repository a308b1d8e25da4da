"""What the SQL of months gone by answers: cycles without a line, and which charges an Addition made by hand billed."""

from __future__ import annotations

from datetime import date

import pytest
from sql_world import MAY, TYPE, World, add_months, cycle_of, monthly


def test_cycles_without_a_line_keep_to_month_ends_and_long_cycles(world: World) -> None:
    """Anniversary cycles from the 31st and quarters: the cycle in the middle is named by its own first and last day."""
    world.setting("default_agreement_type", TYPE)
    expected = {}
    for cycle, months, frequency in (("Monthly", 1, "Every 1 months"), ("Quarterly", 3, "Every 3 months")):
        anchor = date(2026, 1, 31)
        customer = world.customer(
            cycle, invoicing_cycle="ContractYear", bill_start_date=anchor, start_date=anchor, next_invoice_date=anchor
        )
        for step in (0, 2):
            start, end = cycle_of(add_months(anchor, step * months), months, anchor)
            world.invoiced_until(customer.agreement_id, start)
            line = monthly(MAY, subscription_id=cycle, frequency=frequency)
            line.start, line.end = start, end
            world.invoice(customer, line, day=start)
            world.night()
        world.invoiced_until(customer.agreement_id, add_months(anchor, 6 * months))
        start, end = cycle_of(add_months(anchor, months), months, anchor)
        expected[cycle] = (start, end, "not billed by AppXite" if cycle == "Quarterly" else "not loaded")
    world.execute("update audit.run set proven_at = now()")
    world.execute("update audit.run set billing_periods = billing_periods || '{2026-04-01}'::date[]")

    found = world.rows("select subscription_id, cycle_start, cycle_end, why from reporting.cycle_without_line")
    assert {row["subscription_id"]: (row["cycle_start"], row["cycle_end"], row["why"]) for row in found} == expected


@pytest.mark.parametrize(
    ("charge_start", "is_recurring", "invoice_date", "expected"),
    [
        ("2026-04-30", True, "2026-05-03", True),  # a late month's fee was billed by hand whenever it comes
        ("2026-05-01", True, "2026-04-20", False),  # in advance for the first cycle of ours
        ("2026-04-01", False, "2026-04-30", True),
        ("2026-04-01", False, "2026-05-01", False),  # usage in arrears, invoiced afterwards
        (None, True, "2026-04-30", False),  # not known: held as dates_missing
    ],
)
def test_what_was_billed_by_hand_lies_before_the_first_cycle_of_ours(
    world: World, charge_start: str | None, is_recurring: bool, invoice_date: str, expected: bool
) -> None:
    assert (
        world.value(
            "select billing.is_billed_by_hand(%s::date, %s, %s::date, '2026-05-01')",
            charge_start, is_recurring, invoice_date,
        )
        is expected
    )  # fmt: skip
