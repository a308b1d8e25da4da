"""The review grid over HTTP: what the browser gets, edits of two people, bulk changes, downloads, the whole story."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import zipfile
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from xml.etree import ElementTree

import pytest
from pages_client import Pages, pages_of
from review_world import filled

from local_stack.postgres import Postgres

CONNECTION = "AIRFLOW_CONN_BILLING_DB"
NAMES = {"sheet": "http://schemas.openxmlformats.org/spreadsheetml/2006/main"}


@pytest.fixture(scope="module")
def template(postgres: Postgres, billing_template: str) -> Iterator[str]:
    filled(postgres.create_database("lines_template", template=billing_template)).close()
    yield "lines_template"
    postgres.drop_database("lines_template")


@pytest.fixture
def dsn(postgres: Postgres, template: str) -> Iterator[str]:
    yield postgres.create_database("lines_copy", template=template)
    postgres.drop_database("lines_copy")


@pytest.fixture
def pages(dsn: str) -> Iterator[Pages]:
    with pages_of(dsn) as made:
        yield made


@pytest.fixture(scope="module")
def only_read(postgres: Postgres, template: str) -> Iterator[tuple[Pages, str]]:
    """The pages of a copy, and how the process finds that copy."""
    with pages_of(postgres.create_database("lines_read", template=template)) as made:
        yield made, os.environ[CONNECTION]
    postgres.drop_database("lines_read")


@pytest.fixture
def reading(only_read: tuple[Pages, str], monkeypatch: pytest.MonkeyPatch) -> Pages:
    """For tests that only read: they share a database. The pages of other tests ran in this process meanwhile."""
    pages, address = only_read
    monkeypatch.setenv(CONNECTION, address)
    return pages


def one(pages: Pages, subscription_id: str) -> dict[str, Any]:
    (line,) = pages.get("lines", filter=json.dumps({"subscription_id": subscription_id}))["lines"]
    return dict(line)


# -- reading -----------------------------------------------------------------------------------------------------------


def test_a_page_of_lines_with_money_as_text(reading: Pages) -> None:
    page = reading.get("lines", filter='{"periods": ["2026-06"]}', sort="-total_price", limit=2)

    assert page["total"] == 9
    assert [line["total_price"] for line in page["lines"]] == ["21.00", "20.00"]
    line = one(reading, "sub-5")
    assert (line["quantity"], line["unit_price"], line["sent_amount"]) == ("5", "2.5", "12.50")


def test_one_line_and_no_line(reading: Pages) -> None:
    line = one(reading, "sub-5")

    assert reading.get(f"lines/{line['line_id']}") == line
    assert reading.refused("GET", "lines/999999999")[0] == 404


def test_totals_are_sums_per_currency(reading: Pages) -> None:
    totals = reading.get("lines/totals", filter='{"outcomes": ["held"]}')

    assert {money["outcome"] for money in totals["outcomes"]} == {"held"}
    assert {money["currency"] for money in totals["outcomes"]} == {"EUR", "SEK"}
    assert all(re.fullmatch(r"-?\d+\.\d\d", money["amount"]) for money in (*totals["outcomes"], *totals["reasons"]))


@pytest.mark.parametrize(
    "wanted",
    [
        "no json", "[]", '{"unknown": 1}', '{"periods": ["2026-13"]}', '{"text": "a\\u0000b"}', '{"line_ids": [0]}',
        '{"min_total": "NaN"}', '{"min_total": "Infinity"}', '{"text": "\\ud800"}', '{"outcomes": ["lost"]}',
    ],
)  # fmt: skip
def test_a_filter_that_is_none_is_refused(reading: Pages, wanted: str) -> None:
    assert reading.refused("GET", "lines", filter=wanted)[0] == 422


@pytest.mark.parametrize(
    "query", [{"sort": "total_price; drop"}, {"sort": "--line_id"}, {"limit": 1001}, {"limit": 0}, {"offset": -1}]
)
def test_a_page_that_cannot_be_is_refused(reading: Pages, query: dict[str, Any]) -> None:
    assert reading.refused("GET", "lines", **query)[0] == 422


@pytest.mark.parametrize("text", ["%", "_", "\\", "'", '"', "\u202e", "🍰", "x" * 200, "' or 1=1 --"])
def test_hostile_text_is_searched_as_it_is(reading: Pages, text: str) -> None:
    page = reading.get("lines", filter=json.dumps({"text": text}))

    for line in page["lines"]:
        shown = " ".join(str(value) for value in line.values())
        assert text.lower() in shown.lower()


@pytest.mark.parametrize("route", ["agreements", "products"])
def test_nothing_is_found_for_a_text_that_no_database_can_hold(reading: Pages, route: str) -> None:
    line = one(reading, "sub-5")

    assert reading.refused("GET", f"lines/{line['line_id']}/{route}", q="a\0b")[0] == 422


# -- editing -----------------------------------------------------------------------------------------------------------


def test_an_edit_gives_the_line_as_it_stands_then(pages: Pages) -> None:
    line = one(pages, "sub-5")

    changed = pages.send("PATCH", f"lines/{line['line_id']}", {"version": 0, "quantity": "4", "unit_price": "2.5"})

    assert (changed["line"]["sent_amount"], changed["line"]["version"]) == ("10.00", 1)
    assert changed["line"]["typed"]["decided_by"] == "ann"
    assert changed["released"]["state"] == "done"


def test_of_two_people_the_second_gets_what_stands_now(pages: Pages) -> None:
    line = one(pages, "sub-5")
    path = f"lines/{line['line_id']}"
    pages.send("PATCH", path, {"version": 0, "quantity": "4"})

    answer = pages.ask("PATCH", path, {"version": 0, "quantity": "6"}, person="bob:read,edit")

    assert answer.status_code == 409
    assert "ann changed this line" in answer.json()["message"]
    assert answer.json()["current"] == pages.get(path)


def test_a_delivered_line_is_locked(pages: Pages) -> None:
    line = one(pages, "sub-delivered")

    status, message = pages.refused("PATCH", f"lines/{line['line_id']}", {"version": 0, "quantity": "4"})

    assert status == 423
    assert "Addition" in message


@pytest.mark.parametrize(
    "change",
    [
        {"quantity": "4"}, {"version": 0, "unknown": 1}, {"version": 0, "quantity": "NaN"},
        {"version": 0, "quantity": "1e30"}, {"version": 0, "effective_date": "31.05.2026"},
        {"version": 0, "invoice_description": "x" * 5901}, {"version": 0, "invoice_description": "a\0b"},
        {"version": 0, "is_excluded": True}, {"version": 0, "agreement_id": 999}, {"version": 0, "quantity": 0.1 + 0.2},
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_is_refused(pages: Pages, change: dict[str, Any]) -> None:
    line = one(pages, "sub-5")

    assert pages.refused("PATCH", f"lines/{line['line_id']}", change)[0] == 422
    assert one(pages, "sub-5") == line


def test_a_reader_may_not_edit(pages: Pages) -> None:
    line = one(pages, "sub-5")

    answer = pages.ask("PATCH", f"lines/{line['line_id']}", {"version": 0, "quantity": "4"}, person="eve:read")

    assert answer.status_code == 403


def test_choices_for_a_line(pages: Pages) -> None:
    line = one(pages, "sub-5")

    (agreement,) = pages.get(f"lines/{line['line_id']}/agreements")
    assert (agreement["id"], agreement["is_candidate"]) == (line["agreement_id"], True)
    assert pages.get(f"lines/{line['line_id']}/products", q="no such product") == []


# -- bulk --------------------------------------------------------------------------------------------------------------


def test_a_bulk_change_from_preview_to_report(pages: Pages) -> None:
    wanted = {"periods": ["2026-06"], "outcomes": ["awaiting approval"]}
    values = {"action": "set", "effective_date": "first_day_of_charge_month", "quantity": "2"}

    preview = pages.send("POST", "bulk/preview", {"filter": wanted, "values": values})
    assert (preview["chosen"], preview["lines"]) == (3, 3)
    assert {money["currency"]: money["amount"] for money in preview["money"]} == {"EUR": "53.50"}

    result = pages.send("POST", f"bulk/{preview['bulk_id']}/apply", {})
    assert (result["state"], result["changed"]) == ("done", 3)
    assert pages.get(f"bulk/{preview['bulk_id']}") == result
    lines = pages.get(f"bulk/{preview['bulk_id']}/lines", status="changed")
    assert lines["total"] == 3
    assert {line["status"] for line in lines["lines"]} == {"changed"}
    assert one(pages, "sub-5")["sent_quantity"] == "2"


def test_a_bulk_change_of_chosen_lines(pages: Pages) -> None:
    line = one(pages, "sub-8")

    preview = pages.send(
        "POST", "bulk/preview",
        {"filter": {"line_ids": [line["line_id"]]}, "values": {"action": "exclude", "reason": "a test customer"}},
    )  # fmt: skip
    pages.send("POST", f"bulk/{preview['bulk_id']}/apply", {})

    assert one(pages, "sub-8")["excluded_by"] == "ann: a test customer"


@pytest.mark.parametrize(
    "values",
    [
        {"action": "delete"}, {"action": "set"}, {"action": "set", "effective_date": "never"}, {"action": "exclude"},
        {"action": "set", "quantity": "NaN"}, {"action": "set", "invoice_description": "a\0b"},
        {"action": "set", "effective_date": "1970-01-01"},
    ],
)  # fmt: skip
def test_a_bulk_change_that_cannot_be_is_refused(pages: Pages, values: dict[str, Any]) -> None:
    assert pages.refused("POST", "bulk/preview", {"filter": {}, "values": values})[0] == 422


def test_what_was_never_previewed_is_not_found(pages: Pages) -> None:
    assert pages.refused("POST", "bulk/999/apply", {})[0] == 404
    assert pages.refused("GET", "bulk/999")[0] == 404
    assert pages.refused("GET", "bulk/999/lines")[0] == 404
    assert pages.refused("GET", "decisions/999")[0] == 404


# -- downloads ---------------------------------------------------------------------------------------------------------


def as_csv(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))


def as_xlsx(content: bytes) -> list[list[tuple[str, str]]]:
    """The cells of the sheet as (type, text), row by row; the type of a number is n, of a text inlineStr."""
    with zipfile.ZipFile(io.BytesIO(content)) as book:
        assert not [name for name in book.namelist() if "external" in name.lower()]
        sheet = ElementTree.fromstring(book.read("xl/worksheets/sheet1.xml"))  # noqa: S314  (made by ourselves)
    assert sheet.find(".//sheet:f", NAMES) is None, "a formula"
    return [
        [(cell.get("t", "n"), "".join(cell.itertext())) for cell in row.findall("sheet:c", NAMES)]
        for row in sheet.findall(".//sheet:row", NAMES)
    ]


def plain(text: str | None) -> str:
    return "" if text is None else text


@pytest.mark.parametrize(
    "wanted",
    [{}, {"periods": ["2026-06"]}, {"outcomes": ["held"]}, {"text": "%"}, {"text": "nowhere"}, {"currencies": ["SEK"]}],
)  # fmt: skip
@pytest.mark.parametrize("sort", ["line_id", "-total_price", "organization_name"])
def test_a_csv_file_holds_what_the_grid_shows(reading: Pages, wanted: dict[str, Any], sort: str) -> None:
    shown = reading.get("lines", filter=json.dumps(wanted), sort=sort, limit=1000)["lines"]

    rows = as_csv(reading.ask("GET", "lines/export.csv", filter=json.dumps(wanted), sort=sort).content)

    assert [row["line_id"] for row in rows] == [str(line["line_id"]) for line in shown]
    for row, line in zip(rows, shown, strict=True):
        for name in (
            "total_price",
            "quantity",
            "unit_price",
            "sent_amount",
            "currency",
            "outcome",
            "charge_start_date",
        ):
            assert row[name] == plain(line[name]), name
        for name in ("subscription_name", "organization_name", "invoice_description"):
            assert row[name].removeprefix("'") == plain(line[name]).removeprefix("'"), name
        assert row["held_reasons"] == "; ".join(reason["title"] for reason in line["held_reasons"])


def test_no_text_becomes_a_formula(reading: Pages) -> None:
    rows = as_csv(reading.ask("GET", "lines/export.csv").content)
    texts = {text for row in rows for text in row.values()}
    assert {"'=1+1", '\'=cmd|" /C calc"!A0', "'+Unmapped", "'@Nothing"} <= texts
    assert not [text for text in texts if text.startswith(("=", "+", "@", "\t", "\r"))]

    cells = [cell for row in as_xlsx(reading.ask("GET", "lines/export.xlsx").content) for cell in row]
    assert {("inlineStr", "=1+1"), ("inlineStr", "+Unmapped")} <= set(cells)


def test_an_excel_file_holds_numbers_as_numbers_and_all_rows(reading: Pages) -> None:
    answer = reading.ask(
        "GET", "lines/export.xlsx", filter='{"periods": ["2026-06"]}', sort="-total_price",
        columns="total_price,subscription_name,charge_start_date",
    )  # fmt: skip

    assert answer.headers["content-disposition"] == 'attachment; filename="lines-2026-06.xlsx"'
    header, *rows = as_xlsx(answer.content)
    assert [text for _, text in header] == ["total_price", "subscription_name", "charge_start_date"]
    assert len(rows) == 9
    assert [(kind, Decimal(text)) for kind, text in [row[0] for row in rows[:2]]] == [("n", 21), ("n", 20)]
    assert rows[0][1] == ("inlineStr", "=1+1")


def test_a_column_that_does_not_exist_is_refused(reading: Pages) -> None:
    status, message = reading.refused("GET", "lines/export.csv", columns="line_id,secrets")

    assert status == 422
    assert "secrets" in message


# -- why ---------------------------------------------------------------------------------------------------------------


def test_the_whole_story_of_a_delivered_line(reading: Pages) -> None:
    line = one(reading, "sub-delivered")

    story = reading.get(f"lines/{line['line_id']}/why")

    assert story["line"] == line
    assert "2 x 10 = 20.00" in story["decision"]
    assert {"organization → company", "offer → product"} <= {entry["role"] for entry in story["entries"]}
    assert [event["at"] for event in story["events"]] == sorted(event["at"] for event in story["events"])
    told = {field["name"]: (field["sent"], field["held"]) for field in story["connectwise"]}
    assert told["quantity"] == ("2", "2")
    assert "delivered 20.00" in story["proof"]


def test_the_story_of_a_held_line_tells_each_reason_and_each_edit(pages: Pages) -> None:
    line = one(pages, "sub-8")
    pages.send("PATCH", f"lines/{line['line_id']}", {"version": 0, "quantity": "4"})

    story = pages.get(f"lines/{line['line_id']}/why")

    assert any("organization_unmapped" in event["text"] for event in story["events"])
    assert any(event["kind"] == "ann" and "quantity 4" in event["text"] for event in story["events"])
    assert story["connectwise"] == []
    assert pages.refused("GET", "lines/999999999/why")[0] == 404
