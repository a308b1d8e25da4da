"""What a record of each feed must look like, and how it becomes a row of its staging table.

A record type below is the whole truth about its feed: its fields are the columns of the staging table, their types
say what is accepted, and `Expected` says it in words. A page is checked by pydantic at once (17 us a line against 26
and more line by line); only a page that fails is looked at line by line and field by field.

Two ways with what cannot be read:
* invoices are kept with their `problem`, so that a bad line is held and its customer is not blocked;
* reference data is money's way, not money: a record that cannot be read is left out, and a warning says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Context, Decimal
from functools import lru_cache
from typing import Annotated, Any, get_type_hints

import simplejson
from pydantic import Field, PlainValidator, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic: typing.TypedDict only from Python 3.12 on

from billing_sync.http import Unreadable, shorten

Record = Mapping[str, Any]
Row = tuple[Any, ...]

REPLACEMENT = "\ufffd"
_LONGEST_RAW_TEXT = 10_000
_LONGEST_RAW_RECORD = 200_000
_DEEPEST_RAW = 30
_LONGEST_PROBLEM = 2_000

# -- kinds of fields -------------------------------------------------------------------------------------------------

_EXACT = Context(prec=80)
_AMOUNT_BOUND = 10**16  # of the domains billing.amount and billing.decimal_number
_YEARS = range(2000, 2101)  # .NET writes an unset date as 0001-01-01
_DATE = re.compile(r"(\d{4}-\d{2}-\d{2})(?:T00:00:00(?:\.0+)?(?:Z|\+00:00)?)?")


_MARKER = re.compile(r"\baxs-[a-z0-9]{1,12}-[0-9a-f]{32}\b")  # delivery.marker_for


@dataclass(frozen=True)
class Expected:
    """What a field has to be, in words for a person. is_id: a shortened or mended value would be another one."""

    words: str
    is_id: bool = False


@lru_cache(maxsize=4096)
def _day(text: str) -> date:
    match = _DATE.fullmatch(text)
    if match is None:
        raise ValueError("no date")
    day = date.fromisoformat(match[1])
    if day.year not in _YEARS:
        raise ValueError("out of range")
    return day


def _date(value: Any) -> date:
    if not isinstance(value, str):
        raise ValueError("no text")  # noqa: TRY004  (pydantic wants ValueError)
    return _day(value)


def _whole(value: Any) -> int:
    if type(value) is int:
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len("999999999999999999"):
        return int(value)
    raise ValueError("no whole number")


def _big(value: Any) -> int:
    number = _whole(value)
    if not -(2**63) <= number < 2**63:
        raise ValueError("out of range")
    return number


def _small(value: Any) -> int:
    number = _whole(value)
    if not -(2**31) <= number < 2**31:
        raise ValueError("out of range")
    return number


def _decimal(places: int) -> Callable[[Any], Decimal]:
    def check(value: Any) -> Decimal:
        if type(value) is int:
            number = Decimal(value)
        elif type(value) is Decimal:
            number = value
        else:
            raise ValueError("no number")
        if abs(number) >= _AMOUNT_BOUND:
            raise ValueError("out of range")
        scaled = number.scaleb(places, _EXACT)  # 12.3400 has 2 decimals: trailing zeros are none
        if scaled != scaled.to_integral_value(context=_EXACT):
            raise ValueError("too many decimals")
        return number

    return check


def _flag(value: Any) -> bool:
    if value is True or value is False:
        return value
    raise ValueError("neither true nor false")


def marker_in_notes(notes: Any) -> str | None:
    """Our marker in an agreement's internal notes, which people write into, too; None if there is none."""
    found = _MARKER.search(notes) if isinstance(notes, str) else None
    return found[0] if found else None


_NO_NUL = r"^[^\x00]*$"

Id = Annotated[
    str,
    Field(coerce_numbers_to_str=True, max_length=200, pattern=_NO_NUL),
    Expected("a text of at most 200 characters", is_id=True),
]
Text = Annotated[
    str,
    Field(coerce_numbers_to_str=True, max_length=1000, pattern=_NO_NUL),
    Expected("a text of at most 1000 characters"),
]
LongText = Annotated[
    str,
    Field(coerce_numbers_to_str=True, max_length=10_000, pattern=_NO_NUL),
    Expected("a text of at most 10000 characters"),
]
Currency = Annotated[str, Field(pattern=r"^[A-Za-z]{3}$"), Expected("a currency code of 3 letters", is_id=True)]
BigId = Annotated[int, PlainValidator(_big), Expected("a whole number")]
SmallId = Annotated[int, PlainValidator(_small), Expected("a whole number")]
Date = Annotated[date, PlainValidator(_date), Expected("a date like 2026-05-01")]
Amount = Annotated[Decimal, PlainValidator(_decimal(2)), Expected("an amount of at most 2 decimals")]
Number = Annotated[Decimal, PlainValidator(_decimal(12)), Expected("a number of at most 12 decimals")]
AgreementMarker = Annotated[str | None, PlainValidator(marker_in_notes), Expected("a text")]
Flag = Annotated[bool, PlainValidator(_flag), Expected("true or false")]

_TEXT_LIMITS = {Id: 200, Text: 1000, LongText: 10_000, Currency: 3}

# -- AppXite (names: camelCase of these, in any case) ----------------------------------------------------------------


class InvoiceHeader(TypedDict):
    invoice_id: BigId
    invoice_number: Id
    status_id: SmallId
    status: Text
    invoice_date: Date
    due_date: Date | None
    provider_organization_id: Id
    consumer_organization_id: Id
    consumer_name: Text | None
    contract_id: Id | None
    currency: Currency
    total_amount: Amount
    invoice_source: Text | None
    invoice_frequency: Text | None
    invoice_reference: Id | None


class InvoiceRow(TypedDict):
    row_id: Id | None
    invoice_id: BigId
    invoice_number: Id
    invoice_date: Date | None
    provider_organization_id: Id | None
    consumer_organization_id: Id | None
    contract_id: Id | None
    subscription_id: Id | None
    subscription_name: Text | None
    offer_id: Id | None
    offer_name: Text | None
    charge_type: Id
    vendor_charge_type: Id | None
    charge_start_date: Date
    charge_end_date: Date
    billing_frequency: Text | None
    quantity: Number
    unit_price: Number
    total_price: Amount
    currency: Currency
    custom_charge_details: LongText | None


class Organization(TypedDict):
    organization_id: Id
    name: Text
    erp_id: Id | None
    status: Text | None
    vat_number: Text | None
    country: Text | None


class Contract(TypedDict):
    contract_id: Id
    contract_number: Text | None
    contract_reference_number: Text | None
    consumer_organization_id: Id | None
    contract_type: Text | None
    currency: Currency | None
    billing_cycle_day: SmallId | None


class Subscription(TypedDict):
    subscription_id: Id
    organization_id: Id | None
    contract_id: Id | None
    offer_id: Id | None
    name: Text | None
    status: Text | None
    quantity: Number | None
    billing_frequency: Text | None
    start_date: Date | None
    end_date: Date | None


# -- ConnectWise (names: see the paths in the shapes) ----------------------------------------------------------------


class Company(TypedDict):
    company_id: SmallId
    identifier: Text | None
    name: Text | None
    status: Text | None
    is_deleted: Flag
    tax_identifier: Text | None
    currency: Currency | None
    default_contact_id: SmallId | None


class Product(TypedDict):
    product_id: SmallId
    identifier: Text | None
    description: Text | None
    vendor_sku: Text | None
    product_class: Text | None
    is_inactive: Flag


class AgreementType(TypedDict):
    agreement_type_id: SmallId
    name: Text | None
    is_inactive: Flag
    billing_cycle_id: SmallId | None
    invoicing_cycle: Text | None


class BillingCycle(TypedDict):
    billing_cycle_id: SmallId
    name: Text | None
    billing_option: Text | None


class Agreement(TypedDict):
    agreement_id: SmallId
    name: Text | None
    agreement_type_id: SmallId | None
    company_id: SmallId | None
    agreement_status: Text | None
    is_cancelled: Flag
    billing_cycle_id: SmallId | None
    invoicing_cycle: Text | None
    currency: Currency | None
    prorates: Flag
    start_date: Date | None
    end_date: Date | None
    bill_start_date: Date | None
    next_invoice_date: Date | None
    marker: AgreementMarker | None


class Addition(TypedDict):
    agreement_id: SmallId
    addition_id: SmallId
    product_id: SmallId | None
    bill_customer: Text | None
    quantity: Number | None
    less_included: Number | None
    unit_price: Number | None
    ext_price: Number | None
    effective_date: Date | None
    cancelled_date: Date | None
    serial_number: Text | None
    invoice_description: LongText | None
    marker: Text | None


# -- from a record to a row ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """A field that could not be read as it is. mended: a text that was shortened or cleaned, and is kept so."""

    field: str
    words: str
    mended: bool = False

    def __str__(self) -> str:
        return f"{self.field}: {self.words}"


# How records with certain keys are read: columns with their key (or None), then those that need more than a look-up.
_Readers = tuple[list[tuple[str, str | None]], list[tuple[str, tuple[tuple[str, ...], ...]]]]


class Shape:
    """Reads records of one type.

    record_type   a TypedDict; its fields are the columns
    paths         column → where it stands in the record, e.g. "company/id"; a column not named: camelCase, in any case
    defaults      column → value where the record has none
    """

    def __init__(
        self,
        record_type: type,
        paths: Mapping[str, str] | None = None,
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        hints = get_type_hints(record_type, include_extras=True)
        self.columns: tuple[str, ...] = tuple(hints)
        self._paths = {column: (paths or {}).get(column, _camel(column)) for column in hints}
        self._defaults = dict(defaults or {})
        self._page: TypeAdapter[list[dict[str, Any]]] = TypeAdapter(list[record_type])  # type: ignore[valid-type]
        self._fields: dict[str, TypeAdapter[Any]] = {column: TypeAdapter(hint) for column, hint in hints.items()}
        self._expected = {column: _expected(hint) for column, hint in hints.items()}
        self._longest = {column: _longest(hint) for column, hint in hints.items()}
        # Which key of a record is which column. Records of a feed nearly always have the same keys in the same order.
        self._readers: dict[tuple[str, ...], _Readers] = {}

    def rows(self, page: list[dict[str, Any]]) -> Iterable[tuple[Row, list[Problem]]]:
        """For each record: its values in the order of `columns` (None where unreadable), and what is wrong with it."""
        flat = [self._flat(record) for record in page]
        try:
            good = self._page.validate_python(flat)
        except ValidationError:
            return (self._field_by_field(record) for record in flat)
        return ((tuple(record.values()), []) for record in good)

    def _flat(self, record: dict[str, Any]) -> dict[str, Any]:
        keys = tuple(record)
        readers = self._readers.get(keys)
        if readers is None:
            if len(self._readers) > 1000:  # somebody invents names: do not remember them all
                self._readers.clear()
            readers = self._readers[keys] = self._find(keys)
        plain, special = readers
        flat = {column: record[key] if key is not None else None for column, key in plain}
        for column, places in special:
            value = _at(record, places[0]) if places else None
            for other in places[1:]:
                if (again := _at(record, other)) != value:
                    value = Unreadable(f"given twice: {shorten(str(value), 30)}, {shorten(str(again), 30)}")
            flat[column] = value
        for column, value in flat.items():
            if value is None or value == "":  # ConnectWise writes what is not set either way
                flat[column] = self._defaults.get(column)
        return flat

    def _find(self, keys: tuple[str, ...]) -> _Readers:
        by_name: dict[str, list[str]] = {}
        for key in keys:
            by_name.setdefault(key.lower(), []).append(key)
        plain: list[tuple[str, str | None]] = []
        special = []
        for column, path in self._paths.items():
            head, *rest = path.split("/")
            found = by_name.get(head.lower(), [])
            if rest or len(found) > 1:
                plain.append((column, None))  # keeps the columns in their order
                special.append((column, tuple((key, *rest) for key in found)))
            else:
                plain.append((column, found[0] if found else None))
        return plain, special

    def _field_by_field(self, record: dict[str, Any]) -> tuple[Row, list[Problem]]:
        values, problems = [], []
        for column, value in record.items():
            try:
                values.append(self._fields[column].validate_python(value))
            except ValidationError:
                kept, problem = self._explain(column, value)
                values.append(kept)
                problems.append(problem)
        return tuple(values), problems

    def _explain(self, column: str, value: Any) -> tuple[str | None, Problem]:
        """What of a value that was not accepted can be kept, and what is wrong with it."""
        field, expected, longest = self._paths[column], self._expected[column], self._longest[column]
        if value is None:
            return None, Problem(field, f"missing, expected {expected.words}")
        if isinstance(value, str) and longest is not None:
            clean, notes = clean_text(value, longest)
            if notes:
                kept = None if expected.is_id else clean
                # Shown longer than kept: a currency cut to 3 letters would look like a right one.
                given = shorten(clean_text(value, 400)[0])
                words = f"{given} ({', '.join(notes)}), expected {expected.words}"
                return kept, Problem(field, words, mended=kept is not None)
        shown = value if isinstance(value, (str, Unreadable)) else type(value).__name__ if _is_nested(value) else value
        return None, Problem(field, f"{shorten(clean_text(str(shown), 400)[0])}, expected {expected.words}")


def _camel(column: str) -> str:
    first, *others = column.split("_")
    return first + "".join(part.capitalize() for part in others)


def _expected(hint: Any) -> Expected:
    for part in (hint, *getattr(hint, "__args__", ())):
        for mark in getattr(part, "__metadata__", ()):
            if isinstance(mark, Expected):
                return mark
    raise TypeError(f"{hint} says nothing about what is expected")


def _longest(hint: Any) -> int | None:
    return next((_TEXT_LIMITS[part] for part in (hint, *getattr(hint, "__args__", ())) if part in _TEXT_LIMITS), None)


def _at(record: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        if record is None or record == "":
            return None
        if not isinstance(record, dict):
            return Unreadable(str(record))
        record = record.get(name)
    return record


def _is_nested(value: Any) -> bool:
    return isinstance(value, (dict, list))


# -- texts that PostgreSQL can store ---------------------------------------------------------------------------------

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def clean_text(text: str, longest: int) -> tuple[str, list[str]]:
    """The text with code points that PostgreSQL cannot store replaced, cut to `longest`; and notes of what was done."""
    notes = []
    if len(text) > longest:
        notes.append(f"{len(text)} characters")
        text = text[:longest]
    points = sorted({f"U+{ord(found):04X}" for found in _UNSTORABLE.findall(text)})
    if points:
        notes.append(f"holds {', '.join(points[:5])}")
        text = _UNSTORABLE.sub(REPLACEMENT, text)
    return text, notes


def raw_json(record: Any) -> tuple[str, list[Problem]]:
    """A record as text for a jsonb column: as answered, but for what PostgreSQL cannot store and for what is huge."""
    text = _dump(record)
    if len(text) <= _LONGEST_RAW_RECORD and "\\u0000" not in text:
        try:
            text.encode()
        except UnicodeEncodeError:
            pass  # a lone surrogate
        else:
            return text, []
    problems: list[Problem] = []
    return _dump(_clean(record, "", problems, 0))[: 50 * _LONGEST_RAW_RECORD], problems


def _dump(value: Any) -> str:
    return simplejson.dumps(value, use_decimal=True, ensure_ascii=False, default=str)


def _clean(value: Any, field: str, problems: list[Problem], depth: int) -> Any:
    if isinstance(value, str):
        clean, notes = clean_text(value, _LONGEST_RAW_TEXT)
        if notes:
            problems.append(Problem(field or "record", ", ".join(notes), mended=True))
        return clean
    if _is_nested(value) and depth >= _DEEPEST_RAW:
        problems.append(Problem(field, "nested too deeply"))
        return "…"
    if isinstance(value, dict):
        result = {}
        for name, item in value.items():
            clean = clean_text(name, 200)[0]
            result[clean] = _clean(item, field or clean, problems, depth + 1)
        return result
    if isinstance(value, list):
        return [_clean(item, field, problems, depth + 1) for item in value]
    return value


def problem_text(problems: list[Problem]) -> str | None:
    """All problems of a row as one text; None if there are none. A field is named once, by its first problem."""
    if not problems:
        return None
    by_field: dict[str, Problem] = {}
    for problem in problems:
        by_field.setdefault(problem.field.lower(), problem)
    text = "; ".join(map(str, by_field.values()))
    return text if len(text) <= _LONGEST_PROBLEM else text[: _LONGEST_PROBLEM - 1] + "…"


# -- the shapes ------------------------------------------------------------------------------------------------------

INVOICE_HEADER = Shape(InvoiceHeader)
INVOICE_ROW = Shape(InvoiceRow)
ORGANIZATION = Shape(Organization)
CONTRACT = Shape(Contract)
SUBSCRIPTION = Shape(Subscription)

COMPANY = Shape(
    Company,
    {
        "company_id": "id",
        "status": "status/name",
        "is_deleted": "deletedFlag",
        "currency": "currency/currencyCode",
        "default_contact_id": "defaultContact/id",
    },
    {"is_deleted": False},
)
PRODUCT = Shape(Product, {"product_id": "id", "is_inactive": "inactiveFlag"}, {"is_inactive": False})
AGREEMENT_TYPE = Shape(
    AgreementType,
    {"agreement_type_id": "id", "is_inactive": "inactiveFlag", "billing_cycle_id": "billingCycle/id"},
    {"is_inactive": False},
)
BILLING_CYCLE = Shape(BillingCycle, {"billing_cycle_id": "id", "billing_option": "billingOptions"})
AGREEMENT = Shape(
    Agreement,
    {
        "agreement_id": "id",
        "agreement_type_id": "type/id",
        "company_id": "company/id",
        "is_cancelled": "cancelledFlag",
        "billing_cycle_id": "billingCycle/id",
        "currency": "currency/currencyCode",
        "prorates": "prorateFlag",
        "marker": "internalNotes",
    },
    {"is_cancelled": False, "prorates": False},
)
ADDITION = Shape(Addition, {"addition_id": "id", "product_id": "product/id"})
