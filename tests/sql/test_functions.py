"""The pure SQL functions against oracles in Python, over generated cases; many cases travel in one query."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta
from decimal import Decimal, localcontext
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sql_world import add_months, cycle_of, month_end, rounded

from billing_sync import payload
from billing_sync.db import Connection

generated = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
cents = st.decimals(min_value=-99_999, max_value=99_999, places=2)
small_cents = st.decimals(min_value=-30, max_value=30, places=2)
any_quantity = st.one_of(
    st.integers(-50, 5_000).map(Decimal),
    st.decimals(min_value=-100, max_value=1_000, places=3),
    st.decimals(min_value=0, max_value=50_000_000, places=6),
)
any_price = st.one_of(
    st.decimals(min_value=-1_000, max_value=1_000, places=2),
    st.decimals(min_value=0, max_value=5, places=8),
    st.decimals(min_value=-1, max_value=1, places=12),
)
days = st.dates(date(2019, 1, 1), date(2033, 12, 31))
month_lengths = st.sampled_from([1, 2, 3, 6, 12])
anchors = st.one_of(
    days, st.builds(add_months, st.sampled_from([date(2019, 12, day) for day in (28, 29, 30, 31)]), st.integers(0, 60))
)


def lists_of(case: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(case, min_size=1, max_size=60)


def ask(connection: Connection, function: str, types: str, cases: Iterable[tuple[Any, ...]]) -> list[Any]:
    """The function's value for each case, in order, in one query. types: of its arguments, separated by commas."""
    wanted = types.split(",")
    columns = list(zip(*cases, strict=True))
    arrays = ", ".join(f"%s::{name}[]" for name in wanted)
    names = ", ".join(f"a{number}" for number in range(len(wanted)))
    rows = connection.execute(
        f"select {function}({names}) from unnest({arrays}) with ordinality as given ({names}, place) order by place",  # type: ignore[call-overload]
        [list(column) for column in columns],
    ).fetchall()
    return [row[0] for row in rows]


# -- money ------------------------------------------------------------------------------------------------------------


@generated
@given(cases=lists_of(st.tuples(any_quantity, any_price)))
@example(cases=[(Decimal(1), Decimal("0.005")), (Decimal(1), Decimal("-0.005")), (Decimal(-1), Decimal("2.675"))])
def test_line_amount_rounds_half_away_from_zero_like_python(functions: Connection, cases: list[Any]) -> None:
    with localcontext(prec=60):
        expected = [rounded(quantity * price) for quantity, price in cases]
        assert [payload.line_amount(quantity, price) for quantity, price in cases] == expected
    assert ask(functions, "billing.line_amount", "numeric,numeric", cases) == expected


def shortest_places(quantity: Decimal, total: Decimal, decimals: int) -> int | None:
    """Fewest decimals of a unit price that gives the total, by trying the neighbours of the quotient on every grid."""
    for places in range(2, decimals + 1):
        unit = Decimal(1).scaleb(-places)
        nearest = (total / quantity / unit).to_integral_value()
        for step in range(-3, 4):
            if rounded(quantity * (nearest + step) * unit) == total:
                return places
    return None


def check_unit_prices(functions: Connection, cases: list[tuple[Decimal, Decimal, Decimal, int]]) -> None:
    found = ask(functions, "billing.unit_price_for", "numeric,numeric,numeric,integer", cases)
    with localcontext(prec=60):
        for (quantity, price, total, decimals), given_price in zip(cases, found, strict=True):
            said = f"unit_price_for({quantity}, {price}, {total}, {decimals}) = {given_price}"
            as_sent = round(price, decimals) == price and rounded(quantity * price) == total
            if given_price is not None:
                assert rounded(quantity * given_price) == total, said
                assert round(given_price, decimals) == given_price, said
            if as_sent:
                assert given_price == price, said
            elif quantity == 0:
                assert (given_price is None) == (total != 0), said
            else:
                places = shortest_places(quantity, total, decimals)
                assert (given_price is None) == (places is None), said
                assert places is None or round(given_price, places) == given_price, said


@generated
@given(cases=lists_of(st.tuples(any_quantity, any_price, cents, st.integers(2, 6))))
def test_a_unit_price_reproduces_any_total_or_does_not_exist(functions: Connection, cases: list[Any]) -> None:
    check_unit_prices(functions, cases)


@generated
@given(cases=lists_of(st.tuples(any_quantity, any_price, st.integers(-1, 1), st.integers(2, 6))))
def test_a_unit_price_is_found_when_the_source_rounded_its_total_its_own_way(
    functions: Connection, cases: list[Any]
) -> None:
    with localcontext(prec=60):
        check_unit_prices(
            functions,
            [(q, price, rounded(q * price) + off * Decimal("0.01"), places) for q, price, off, places in cases],
        )


@generated
@given(
    cases=lists_of(st.tuples(st.integers(1, 2_000).map(Decimal), st.just(Decimal(0)), small_cents, st.integers(2, 4)))
)
def test_a_unit_price_at_the_edge_of_its_decimals(functions: Connection, cases: list[Any]) -> None:
    check_unit_prices(functions, cases)


@pytest.mark.parametrize(
    ("quantity", "price", "total", "decimals", "expected"),
    [
        (3, "3.3333", "10.00", 4, "3.3333"),  # AppXite's own price gives the total: sent as it is
        (3, "3.33333333", "10.00", 4, "3.333"),  # too many decimals: the shortest that gives it
        (3, "3.34", "10.00", 4, "3.333"),
        (0, "5.00", "0.00", 4, "5.0000"),
        (0, "5.00", "1.00", 4, None),
        (7_000_000, "0.0000001", "0.70", 4, None),
        (-2, "5.00", "-10.00", 4, "5.00"),
        (2, "-5.00", "-10.00", 4, "-5.00"),
        (1, "0.005", "0.01", 4, "0.005"),
        (1, "0.005", "0.00", 4, "0.00"),
    ],
)
def test_unit_price_examples(
    functions: Connection, quantity: int, price: str, total: str, decimals: int, expected: str | None
) -> None:
    case = (Decimal(quantity), Decimal(price), Decimal(total), decimals)
    (found,) = ask(functions, "billing.unit_price_for", "numeric,numeric,numeric,integer", [case])

    assert found == (None if expected is None else Decimal(expected))


# -- cycles -----------------------------------------------------------------------------------------------------------


def sql_cycles(functions: Connection, cases: list[tuple[date, int, str, date | None]]) -> list[tuple[date, date]]:
    types = "date,integer,text,date"
    starts = ask(functions, "billing.cycle_start", types, cases)
    return list(zip(starts, ask(functions, "billing.cycle_end", types, cases), strict=True))


@generated
@given(cases=lists_of(st.tuples(days, month_lengths, anchors)))
@example(cases=[(date(2024, 2, 29), 1, date(2024, 1, 31)), (date(2023, 2, 28), 12, date(2020, 2, 29))])
def test_contract_cycles_count_from_the_billing_start(functions: Connection, cases: list[Any]) -> None:
    found = sql_cycles(functions, [(day, months, "ContractYear", anchor) for day, months, anchor in cases])

    assert found == [cycle_of(day, months, anchor) for day, months, anchor in cases]


@generated
@given(cases=lists_of(st.tuples(days, month_lengths, anchors)))
def test_calendar_cycles_count_from_january_whenever_billing_starts(functions: Connection, cases: list[Any]) -> None:
    found = sql_cycles(functions, [(day, months, "CalendarYear", anchor) for day, months, anchor in cases])

    assert found == [cycle_of(day, months, date(day.year, 1, 1)) for day, months, _ in cases]


@pytest.mark.parametrize("months", [1, 2, 3, 6, 12])
@pytest.mark.parametrize(
    ("invoicing_cycle", "anchor"),
    [
        ("CalendarYear", date(2023, 5, 17)),
        ("ContractYear", date(2023, 1, 1)),
        ("ContractYear", date(2023, 1, 28)),
        ("ContractYear", date(2023, 1, 29)),
        ("ContractYear", date(2023, 12, 30)),
        ("ContractYear", date(2023, 8, 31)),
        ("ContractYear", date(2024, 2, 29)),
        ("ContractYear", date(2026, 11, 30)),
    ],
)
def test_cycles_divide_time_so_that_every_day_is_in_exactly_one(
    functions: Connection, months: int, invoicing_cycle: str, anchor: date
) -> None:
    every_day = [date(2022, 6, 1) + timedelta(days=number) for number in range(6 * 366)]
    found = sql_cycles(functions, [(day, months, invoicing_cycle, anchor) for day in every_day])

    assert all(start <= day <= end for day, (start, end) in zip(every_day, found, strict=True))
    cycles = sorted(set(found))
    assert all(before[1] + timedelta(days=1) == after[0] for before, after in pairwise(cycles))
    assert len(cycles) in range(6 * 12 // months - 1, 6 * 12 // months + 3)


def test_cycles_are_unknown_when_anything_is_unknown(functions: Connection) -> None:
    day = date(2026, 5, 1)
    found = sql_cycles(
        functions,
        [(None, 1, "CalendarYear", day), (day, None, "CalendarYear", day), (day, 1, "ContractYear", None)],  # type: ignore[list-item]
    )

    assert found == [(None, None)] * 3


def test_months_of_a_billing_option(functions: Connection) -> None:
    options = ["Monthly", "BiMonthly", "Quarterly", "SemiAnnual", "Yearly", "Weekly", "NonRecurring", "", None]
    found = ask(functions, "billing.cycle_months", "text", [(option,) for option in options])

    assert found == [1, 2, 3, 6, 12, None, None, None, None]


# -- frequencies, rules, keys -----------------------------------------------------------------------------------------


@generated
@given(
    cases=lists_of(
        st.tuples(st.integers(0, 999), st.sampled_from(["every {} months", "Every {} Month", " EVERY  {}\tmonths "]))
    )
)
def test_a_frequency_in_months_is_read_whatever_its_case(functions: Connection, cases: list[Any]) -> None:
    found = ask(functions, "billing.frequency_months", "text", [(words.format(number),) for number, words in cases])

    assert found == [number for number, _ in cases]


def test_a_frequency_in_other_words_is_unknown(functions: Connection) -> None:
    words = [
        "Monthly",
        "every month",
        "every 1 year",
        "every 3 months or so",
        "3 months",
        "every 1000 months",
        "",
        None,
    ]

    assert ask(functions, "billing.frequency_months", "text", [(one,) for one in words]) == [None] * len(words)


def by_rule(rule: str, charge: date, invoice: date, following: date) -> date:
    """What each rule means, in Python."""
    next_month = month_end(invoice) + timedelta(days=1)
    return {
        "as_invoiced": charge,
        "first_day_of_charge_month": charge.replace(day=1),
        "last_day_of_charge_month": month_end(charge),
        "first_day_of_invoice_month": invoice.replace(day=1),
        "last_day_of_invoice_month": month_end(invoice),
        "first_day_of_next_month": next_month,
        "last_day_of_next_month": month_end(next_month),
        "invoice_date": invoice,
        "next_invoice_date": following,
    }[rule]


RULES = [
    "as_invoiced", "first_day_of_charge_month", "last_day_of_charge_month", "first_day_of_invoice_month",
    "last_day_of_invoice_month", "first_day_of_next_month", "last_day_of_next_month", "invoice_date",
    "next_invoice_date",
]  # fmt: skip


@generated
@given(cases=lists_of(st.tuples(st.sampled_from(RULES), days, days, days)))
@example(cases=[(rule, date(2024, 1, 31), date(2024, 1, 31), date(2024, 2, 29)) for rule in RULES])
@example(cases=[(rule, date(2026, 12, 31), date(2026, 12, 31), date(2027, 1, 1)) for rule in RULES])
def test_date_rules(functions: Connection, cases: list[Any]) -> None:
    found = ask(functions, "billing.apply_date_rule", "text,date,date,date", cases)

    assert found == [by_rule(rule, *dates) for rule, *dates in cases]


def test_every_rule_that_a_charge_type_may_have_is_known_to_the_function(functions: Connection) -> None:
    for column in ("charge_start_rule", "charge_end_rule"):
        allowed = functions.execute(
            """
            select distinct (regexp_matches(pg_get_constraintdef(oid), '''(\\w+)''', 'g'))[1] from pg_constraint
            where conrelid = 'billing.charge_type'::regclass and pg_get_constraintdef(oid) like %s
            """,
            [f"%{column}%"],
        ).fetchall()
        assert {row[0] for row in allowed} == set(RULES)


@generated
@given(
    keys=st.lists(
        st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"])), min_size=1, max_size=60
    )
)
def test_a_marker_fits_connectwise_and_tells_keys_apart(functions: Connection, keys: list[str]) -> None:
    with functions.transaction(force_rollback=True):
        functions.execute(
            "update billing.setting set value = to_jsonb(%s::text) where setting_key = 'environment'", ["a" * 12]
        )
        found = ask(functions, "delivery.marker_for", "text", [(key,) for key in keys])

    assert all(len(marker) <= 50 for marker in found)
    assert all(set(marker) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for marker in found)
    assert len(set(found)) == len(set(keys))
