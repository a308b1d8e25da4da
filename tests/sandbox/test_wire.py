"""Numbers keep their digits, and there is one rounding."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.wire import BadJson, dumps, line_amount, loads, parse_date, round_half_up


@given(st.decimals(allow_nan=False, allow_infinity=False, places=10, min_value=-(10**12), max_value=10**12))
def test_a_decimal_survives_the_wire_digit_for_digit(value: Decimal) -> None:
    text = dumps([value])
    assert "E" not in text
    assert dumps(loads(text)) == text
    assert loads(text) == [value]


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "-Infinity", "1e400", "1e-400", "9" * 40, '{"a":', "", "\x00"])
def test_what_is_not_a_number_or_not_json_is_refused(text: str) -> None:
    with pytest.raises(BadJson):
        loads(text)


@pytest.mark.parametrize(
    ("value", "rounded"),
    [("0.005", "0.01"), ("-0.005", "-0.01"), ("2.675", "2.68"), ("1.004999", "1.00"), ("-0.001", "0.00")],
)
def test_a_half_goes_away_from_zero(value: str, rounded: str) -> None:
    assert str(round_half_up(Decimal(value))) == rounded


def test_a_line_is_rounded_after_multiplying() -> None:
    assert line_amount(Decimal(100), Decimal("5.2456")) == Decimal("524.56")
    assert line_amount(Decimal("123456789.123456789"), Decimal("0.0000000001")) == Decimal("0.01")


@pytest.mark.parametrize("text", ["2026-5-1", "20260501", "2026-05-01 00:00", "2026-02-30", "", None, 5])
def test_what_is_not_a_date_is_refused(text: object) -> None:
    with pytest.raises(ValueError):
        parse_date(text)
