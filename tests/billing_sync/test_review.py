"""The review grid reads what the database holds: filters, order, pages, totals; and says why a line is held."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from review_world import JUNE, MAY, World, filled

from billing_sync.cures import CURE_LINKS, cure_link
from billing_sync.errors import NotFoundError
from billing_sync.review import SORT_COLUMNS, LineFilter, find_line_ids, read_line, read_lines, read_page, read_totals
from local_stack.postgres import Postgres


@pytest.fixture(scope="module")
def world(postgres: Postgres, billing_template: str) -> Iterator[World]:
    """One world for all tests here: they only read."""
    made = filled(postgres.create_database("billing_review", template=billing_template))
    yield made
    made.close()
    postgres.drop_database("billing_review")


def everything(world: World) -> list[dict[str, Any]]:
    return read_lines(world.connection, find_line_ids(world.connection, LineFilter()))


def found(world: World, wanted: LineFilter) -> set[int]:
    page = read_page(world.connection, wanted, sort="line_id", offset=0, limit=1000)
    ids = {row["line_id"] for row in page.rows}
    assert page.total == len(ids) == len(page.rows)
    return ids


def test_the_world_has_every_kind_of_line(world: World) -> None:
    outcomes = {row["outcome"] for row in everything(world)}

    assert outcomes == {"delivered", "held", "awaiting approval"}


def test_a_line_shows_source_values_beside_what_connectwise_gets(world: World) -> None:
    (line_id,) = find_line_ids(world.connection, LineFilter(subscription_id="sub-5"))

    line = read_line(world.connection, line_id)

    assert (line["quantity"], line["unit_price"], line["total_price"]) == (5, Decimal("2.5"), Decimal("12.50"))
    assert (line["sent_quantity"], line["sent_unit_price"], line["sent_amount"]) == (
        5,
        Decimal("2.5"),
        Decimal("12.50"),
    )
    assert line["effective_date"] == JUNE
    assert line["value_sources"]["quantity"] == "as invoiced"
    assert (line["version"], line["typed"], line["lock"]) == (0, None, None)
    assert line["billing_period"] == "2026-06"


def test_a_delivered_line_is_locked_and_says_why(world: World) -> None:
    (line_id,) = find_line_ids(world.connection, LineFilter(subscription_id="sub-delivered"))

    line = read_line(world.connection, line_id)

    assert line["outcome"] == "delivered"
    assert str(line["connectwise_addition_id"]) in line["lock"]


def test_all_reasons_of_a_line_come_with_cure_and_link(world: World) -> None:
    (line_id,) = find_line_ids(world.connection, LineFilter(subscription_id="sub-8"))

    line = read_line(world.connection, line_id)

    (reason,) = line["held_reasons"]
    assert reason["code"] == "organization_unmapped"
    assert reason["title"]
    assert "Mapping, Organizations" in reason["cure"]
    assert reason["cure_link"] == f"mapping/organizations?q={line['organization_id']}"


def test_a_line_that_does_not_exist_is_not_found(world: World) -> None:
    with pytest.raises(NotFoundError):
        read_line(world.connection, 10**12)


TEXTS = [
    "bäckerei", "100%", "%", "_", "\\", "\\ 50%_", "'quoted'", '"twice"', "=1+1", "right to left", "PLAIN", "inv-",
    "sub-", "offer-unknown", "xxxxxxxx", "no such text", "' or true --", "cloud suite", "company",
]  # fmt: skip
CONDITIONS: list[tuple[dict[str, Any], Callable[[dict[str, Any]], bool]]] = [
    ({"periods": [MAY]}, lambda row: row["billing_period"] == "2026-05"),
    ({"periods": [MAY, JUNE]}, lambda row: row["billing_period"] in ("2026-05", "2026-06")),
    ({"outcomes": ["held"]}, lambda row: row["outcome"] == "held"),
    (
        {"outcomes": ["delivered", "awaiting approval"]},
        lambda row: row["outcome"] in ("delivered", "awaiting approval"),
    ),
    ({"outcomes": ["in doubt"]}, lambda row: row["outcome"] == "in doubt"),
    (
        {"reason_codes": ["unknown_charge_type", "dates_missing"]},
        lambda row: bool({"unknown_charge_type", "dates_missing"} & {reason["code"] for reason in row["held_reasons"]}),
    ),
    ({"charge_types": ["Mystery"]}, lambda row: row["charge_type"] == "Mystery"),
    ({"subscription_id": "sub-5"}, lambda row: row["subscription_id"] == "sub-5"),
    ({"offer_id": "offer"}, lambda row: row["offer_id"] == "offer"),
    ({"user_updated": True}, lambda row: row["typed"] is not None),
    ({"user_updated": False}, lambda row: row["typed"] is None),
    (
        {"min_total": Decimal("12.50")},
        lambda row: row["total_price"] is not None and row["total_price"] >= Decimal("12.50"),
    ),
    (
        {"max_total": Decimal("12.50")},
        lambda row: row["total_price"] is not None and row["total_price"] <= Decimal("12.50"),
    ),
    ({"currencies": ["SEK"]}, lambda row: row["currency"] == "SEK"),
    ({"invoice_number": "INV-0"}, lambda row: row["invoice_number"] == "INV-0"),
    ({"organization_ids": ["nobody"]}, lambda row: row["organization_id"] == "nobody"),
    *(({"text": text}, lambda row, text=text: has_text(row, text)) for text in TEXTS),
]


def has_text(row: dict[str, Any], text: str) -> bool:
    columns = (
        "organization_name", "company_name", "invoice_number", "subscription_name", "subscription_id", "offer_name",
        "offer_id", "invoice_description",
    )  # fmt: skip

    def folded(value: str) -> str:  # the test database has no locale: it folds ASCII only
        return "".join(letter.lower() if letter.isascii() else letter for letter in value)

    return row["organization_id"] == text or any(folded(text) in folded(row[name] or "") for name in columns)


@pytest.mark.parametrize(("wanted", "keeps"), CONDITIONS, ids=[str(wanted) for wanted, _ in CONDITIONS])
def test_a_filter_finds_what_a_look_at_each_line_finds(
    world: World, wanted: dict[str, Any], keeps: Callable[[dict[str, Any]], bool]
) -> None:
    expected = {row["line_id"] for row in everything(world) if keeps(row)}

    assert found(world, LineFilter(**wanted)) == expected


def test_conditions_count_all_at_once(world: World) -> None:
    chance = random.Random(7)
    rows = everything(world)
    for _ in range(60):
        some = chance.sample(CONDITIONS, 2)
        wanted = {**some[0][0], **some[1][0]}
        kept = [keeps for given, keeps in some if all(wanted[name] == value for name, value in given.items())]
        expected = {row["line_id"] for row in rows if all(keeps(row) for keeps in kept)}

        assert found(world, LineFilter(**wanted)) == expected, wanted


@pytest.mark.parametrize("column", SORT_COLUMNS)
@pytest.mark.parametrize("direction", ["", "-"])
def test_pages_in_any_order_show_each_line_once(world: World, column: str, direction: str) -> None:
    everything_at_once = read_page(world.connection, LineFilter(), sort=direction + column, offset=0, limit=1000)
    ids = [row["line_id"] for row in everything_at_once.rows]

    paged: list[int] = []
    for offset in range(0, len(ids), 3):
        page = read_page(world.connection, LineFilter(), sort=direction + column, offset=offset, limit=3)
        paged += [row["line_id"] for row in page.rows]

    assert paged == ids
    assert sorted(ids) == find_line_ids(world.connection, LineFilter())
    assert find_line_ids(world.connection, LineFilter(), sort=direction + column) == ids
    values = [row[column] for row in everything_at_once.rows if row[column] is not None]
    if column != "line_id" and all(isinstance(value, (int, Decimal, date)) for value in values):
        assert values == sorted(values, reverse=direction == "-")
    assert all(row[column] is None for row in everything_at_once.rows[len(values) :]), "empty values come last"


def test_totals_add_up_to_the_lines(world: World) -> None:
    rows = everything(world)

    totals = read_totals(world.connection, LineFilter())

    assert sum(one["lines"] for one in totals["outcomes"]) == len(rows)
    for one in totals["outcomes"]:
        amounts = [
            row["total_price"] or 0
            for row in rows
            if (row["outcome"], row["currency"]) == (one["outcome"], one["currency"])
        ]
        assert Decimal(one["amount"]) == sum(amounts)
        assert one["lines"] == len(amounts)
    for one in totals["reasons"]:
        held = [
            row for row in rows
            if row["currency"] == one["currency"] and one["code"] in {reason["code"] for reason in row["held_reasons"]}
        ]  # fmt: skip
        assert one["lines"] == len(held)
    assert totals["currencies"] == ["EUR", "SEK"]
    assert "Mystery" in totals["charge_types"]


def test_totals_are_those_of_the_filter(world: World) -> None:
    totals = read_totals(world.connection, LineFilter(currencies=["SEK"]))

    assert {one["currency"] for one in totals["outcomes"]} == {"SEK"}
    assert "agreement_currency_differs" in {one["code"] for one in totals["reasons"]}


def test_each_held_reason_says_where_it_is_cured(world: World) -> None:
    known = {row["reason_code"] for row in world.rows("select reason_code from billing.held_reason_code")}

    assert set(CURE_LINKS) == known


def test_a_link_hides_what_would_end_it(world: World) -> None:
    assert cure_link("offer_unmapped", {"offer_id": "a b&c=d#e"}) == "mapping/products?q=a%20b%26c%3Dd%23e"
    assert cure_link("offer_unmapped") == "mapping/products"
    assert cure_link("row_unreadable", {"offer_id": "x"}) is None
