"""JSON with exact decimals, the one rounding rule, and dates.

Money never becomes a float here: numbers are read as int or Decimal and written with their own digits.
"""

from __future__ import annotations

import json
import re
from datetime import date
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any

Json = dict[str, Any]

# Wide enough that quantity x price never loses a digit: the inputs are bounded to MAX_DIGITS each.
EXACT = Context(prec=80)
MAX_DIGITS = 30
CENT = Decimal("0.01")

_quote = json.encoder.encode_basestring_ascii


class BadJson(ValueError):
    """The text is not JSON, or holds a number that is not a finite decimal of a sane size."""


def _decimal(text: str) -> Decimal:
    value = Decimal(text)
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or len(value.as_tuple().digits) > MAX_DIGITS or abs(exponent) > MAX_DIGITS:
        raise BadJson(f"number out of range: {text[:40]}")
    return value


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise BadJson(f"number out of range: {text[:40]}")
    return int(text)


def _refuse(text: str) -> Any:
    raise BadJson(f"{text} is not a number")


def loads(text: str | bytes) -> Any:
    """Read JSON; fractions become Decimal; NaN, Infinity and absurd numbers raise BadJson."""
    try:
        return json.loads(text, parse_float=_decimal, parse_int=_integer, parse_constant=_refuse)
    except BadJson:
        raise
    except (ValueError, RecursionError) as error:
        raise BadJson(str(error)) from error


def dumps(value: Any) -> str:
    """Write JSON; a Decimal is written with its own digits (`5.20` stays `5.20`), never as an exponent."""
    # The json module cannot write a Decimal as a number, hence these few lines.
    if isinstance(value, str):
        return _quote(value)
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, dict):
        return "{" + ",".join(f"{_quote(key)}:{dumps(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join([dumps(item) for item in value]) + "]"
    raise TypeError(f"no JSON for {type(value).__name__}")


def number(value: Any) -> Decimal:
    """A JSON number as Decimal; anything else raises TypeError (true and "5" are no numbers)."""
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        raise TypeError(f"not a number: {value!r}")
    return Decimal(value)


def round_half_up(value: Decimal, step: Decimal = CENT) -> Decimal:
    """Round to a multiple of a power of ten, a half away from zero. The only rounding in the sandbox."""
    rounded = value.quantize(step, rounding=ROUND_HALF_UP, context=EXACT)
    return rounded if rounded else abs(rounded)  # there is no minus zero on an invoice


def line_amount(quantity: Decimal, price: Decimal) -> Decimal:
    """What ConnectWise bills for a line: quantity x price, multiplied exactly, then rounded to the cent."""
    return round_half_up(EXACT.multiply(quantity, price))


_DATE = re.compile(r"(\d{4}-\d{2}-\d{2})(T\d{2}:\d{2}:\d{2}(\.\d+)?Z)?")


def parse_date(text: object) -> date:
    """`2026-05-01` or `2026-05-01T00:00:00Z` as a date; raises ValueError."""
    match = _DATE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"not a date: {text!r}")
    return date.fromisoformat(match.group(1))


def timestamp(day: date) -> str:
    """The way ConnectWise writes a date: midnight UTC."""
    return f"{day.isoformat()}T00:00:00Z"
