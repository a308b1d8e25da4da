"""The `conditions` subset."""

from decimal import Decimal
from typing import Any

import pytest

from sandbox.conditions import BadCondition, order, parse
from sandbox.fields import AGREEMENT

RECORD = {
    "id": 7,
    "name": "Cloud Subscriptions Acme",
    "company": {"id": 3, "identifier": "Acme"},
    "billAmount": Decimal("12.50"),
    "prorateFlag": False,
    "billStartDate": "2026-01-15T00:00:00Z",
    "endDate": "",
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("id = 7", True),
        ("ID=7", True),
        ("id != 7", False),
        ("id <> 8", True),
        ("id > 6 and id < 8", True),
        ("id >= 8 or id <= 6", False),
        ("id = 1 or id = 7 and prorateFlag = true", False),  # `and` binds first
        ("(id = 1 or id = 7) and prorateFlag = false", True),
        ("company/id = 3", True),
        ('Company/Identifier = "acme"', True),
        ("company/nothing = 3", False),
        ("id in (1, 7)", True),
        ("id not in (1, 7)", False),
        ('company/identifier IN ("x","Acme")', True),
        ('name like "cloud%"', True),
        ('name like "%Sub*Acme"', True),
        ('name like "Cloud"', False),
        ('name not like "x%"', True),
        ('name contains "100%"', False),
        ('name contains "scriptions"', True),
        ("billAmount = 12.5", True),
        ("billAmount > 12.49", True),
        ("billStartDate < [2026-02-01T00:00:00Z]", True),
        ("billStartDate >= [2026-01-15]", True),
        ("billStartDate > [2026-01-15T00:00:00Z]", False),
        ("endDate < [2030-01-01T00:00:00Z]", False),
        ("endDate = null", True),
        ("endDate != null", False),
        ("name = 7", False),
        ('id = "7"', False),
    ],
)
def test_conditions(text: str, expected: bool) -> None:
    assert parse(text, AGREEMENT)(RECORD) is expected


@pytest.mark.parametrize(
    "text",
    [
        "id",
        "id =",
        "id = 7 and",
        "(id = 7",
        "id = 7)",
        "name = Acme",
        "name = 'Acme'",
        'name = "a\\"b"',
        'name = "open',
        "nothing = 1",
        "id = [2026-13-01]",
        "id not = 7",
        "id = 7 id = 7",
        "id = 7a",
        "; drop table",
    ],
)
def test_what_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(BadCondition):
        parse(text, AGREEMENT)


def test_order_by_several_fields() -> None:
    records: list[dict[str, Any]] = [{"id": n, "company": {"id": n % 2}} for n in range(4)]
    assert [r["id"] for r in order(records, "company/id desc, id", AGREEMENT)] == [1, 3, 0, 2]
    for bad in ("nothing", "id sideways", "id desc desc"):
        with pytest.raises(BadCondition):
            order(records, bad, AGREEMENT)
