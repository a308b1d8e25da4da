"""The Reporting API half: keys, periods, pages, previews, spelling."""

import json
from decimal import Decimal
from typing import Any

import pytest

FEEDS = (
    "/invoices/invoice-headers/100001",
    "/invoices/invoice-rows/100001",
    "/organizations/details/100001",
    "/organizations/100001",
    "/contracts/100001",
    "/subscriptions/100001",
    "/offers/100001",
)


def all_pages(client: Any, path: str, size: int, **query: Any) -> list[dict[str, Any]]:
    """Every record; a page shorter than pageSize is the last."""
    records: list[dict[str, Any]] = []
    page = 1
    while True:
        batch = client.get(path, page=page, pageSize=size, **query)
        records += batch
        if len(batch) < size:
            return records
        page += 1


@pytest.mark.parametrize("path", FEEDS)
def test_a_wrong_key_is_a_401_for_every_feed(whole_appxite: Any, path: str) -> None:
    assert whole_appxite("GET", path, sasKey="wrong").status_code == 401
    whole_appxite.query = {}
    assert whole_appxite("GET", path).status_code == 401


def test_an_unknown_requester_is_a_400_with_prose(whole_appxite: Any) -> None:
    assert "555" in whole_appxite.get("/contracts/555", expect=400)["message"]


def test_an_empty_period_is_a_400_unless_told_otherwise(sandbox: Any, appxite: Any) -> None:
    period = {"invoiceDateFrom": "2020-01-01", "invoiceDateTill": "2020-01-31"}
    assert appxite.get(FEEDS[0], expect=400, **period)["message"]
    sandbox.change_settings(empty_is_400=False)
    assert appxite.get(FEEDS[0], **period) == []


@pytest.mark.parametrize(
    "query", [{"page": "0"}, {"pageSize": "x"}, {"invoiceDateFrom": "01.05.2026"}, {"expand": "all"}]
)
def test_bad_parameters_are_refused(whole_appxite: Any, query: dict[str, str]) -> None:
    whole_appxite.get(FEEDS[1], expect=400, **query)


@pytest.mark.parametrize("size", [1, 7, 100, 367, 1000])
@pytest.mark.parametrize("path", FEEDS[:2])
def test_every_page_size_gives_the_same_rows(whole: Any, whole_appxite: Any, path: str, size: int) -> None:
    if size == 1 and path == FEEDS[1]:
        size = 11  # 1,500 requests would say no more
    table = "appxite_invoices" if path == FEEDS[0] else "appxite_rows join appxite_invoices using (invoice_id)"
    sql = f"select count(*) from {table} where visibility = 'published'"
    expected = whole.store.db.execute(sql).fetchone()[0]
    records = all_pages(whole_appxite, path, size)
    assert len(records) == expected
    assert records == all_pages(whole_appxite, path, 1000)


def test_a_larger_page_is_capped_silently(whole_appxite: Any) -> None:
    assert len(whole_appxite.get(FEEDS[1], pageSize=5000)) == 1000


def test_a_page_past_the_end_is_empty_or_a_400(sandbox: Any, appxite: Any) -> None:
    assert appxite.get(FEEDS[0], page=9999) == []
    sandbox.change_settings(page_past_end_is_400=True)
    appxite.get(FEEDS[0], expect=400, page=9999)


def test_the_period_is_inclusive_on_both_ends(whole: Any, whole_appxite: Any) -> None:
    shown = [h for h in whole.appxite_invoices() if h["visibility"] == "published"]
    for day in {shown[0]["invoiceDate"], shown[-1]["invoiceDate"]}:
        found = whole_appxite.get(FEEDS[0], invoiceDateFrom=day, invoiceDateTill=day)
        assert {h["invoiceId"] for h in found} == {h["invoiceId"] for h in shown if h["invoiceDate"] == day}


def test_query_names_are_read_in_any_case(whole_appxite: Any) -> None:
    assert len(whole_appxite.get(FEEDS[0], PAGESIZE=3)) == 3


@pytest.mark.parametrize("pattern", ["/invoices/{}/preview/100001", "/invoices/{}/100001/preview"])
def test_preview_holds_what_is_not_published(whole_appxite: Any, pattern: str) -> None:
    preview = whole_appxite.get(pattern.format("invoice-headers"))
    assert {h["status"] for h in preview} == {"New"}
    ids = {h["invoiceId"] for h in preview}
    assert {r["invoiceId"] for r in whole_appxite.get(pattern.format("invoice-rows"))} == ids
    assert not ids & {h["invoiceId"] for h in whole_appxite.get(FEEDS[0])}


def test_numbers_come_with_their_own_digits(whole_appxite: Any) -> None:
    raw = json.loads(whole_appxite("GET", FEEDS[1]).text, parse_float=str)
    usage = [row for row in raw if row["chargeType"] == "UsageFee"]
    assert any(len(row["unitPrice"].split(".")[1]) >= 8 for row in usage)
    assert all(len(str(row["totalPrice"]).split(".")[1]) == 2 for row in usage)


def test_one_feed_comes_in_pascal_case_and_that_is_a_setting(sandbox: Any, appxite: Any) -> None:
    assert {"ContractId", "Currency"} <= set(appxite.get("/contracts/100001")[0])
    sandbox.change_settings(pascal_feeds=["invoice-rows"])
    assert {"contractId", "currency"} <= set(appxite.get("/contracts/100001")[0])
    assert "TotalPrice" in appxite.get(FEEDS[1])[0]


def test_expanded_lines_add_up_to_the_aggregated_ones(whole_appxite: Any) -> None:
    def totals(rows: list[dict[str, Any]]) -> dict[str, Decimal]:
        sums: dict[str, Decimal] = {}
        for row in rows:
            sums[row["subscriptionId"]] = sums.get(row["subscriptionId"], Decimal(0)) + row["totalPrice"]
        return sums

    period = {"invoiceDateFrom": "2026-11-01", "invoiceDateTill": "2026-11-30"}
    plain = all_pages(whole_appxite, FEEDS[1], 1000, **period)
    full = all_pages(whole_appxite, FEEDS[1], 1000, expand="AllDetails", **period)
    vendor = [row for row in full if "vendorInvoiceRowId" in row]
    assert len(full) > len(plain)
    assert len({row["vendorInvoiceRowId"] for row in vendor}) == len(vendor)
    aggregated, expanded = totals(plain), totals(full)
    assert all(abs(aggregated[key] - expanded[key]) < Decimal("0.06") for key in aggregated)


def test_the_api_is_read_only(whole_appxite: Any) -> None:
    assert whole_appxite("POST", FEEDS[0], {}).status_code == 405
    assert whole_appxite("GET", "/nothing/100001").status_code == 404


def test_a_changed_published_or_reissued_invoice_is_served(sandbox: Any, appxite: Any) -> None:
    first = sandbox.truth()[0]
    sandbox.change_appxite_invoice(first["invoiceId"], {"status": "Paid"})
    sandbox.show_appxite_invoice(first["invoiceId"], "hidden")
    assert first["invoiceId"] not in {h["invoiceId"] for h in appxite.get(FEEDS[0])}
    assert first["invoiceId"] not in {r["invoiceId"] for r in appxite.get(FEEDS[1])}
    sandbox.show_appxite_invoice(first["invoiceId"])
    served = next(h for h in appxite.get(FEEDS[0]) if h["invoiceId"] == first["invoiceId"])
    assert (served["status"], served["statusId"]) == ("Paid", 3)

    stored = sandbox.appxite_invoice(first["invoiceId"])
    row = {**stored["rows"][0]["row"], "totalPrice": Decimal("1.23")}
    header = {**stored["header"], "totalAmount": Decimal("1.23")}
    sandbox.add_appxite_invoice(header, [row])
    rows = [r for r in appxite.get(FEEDS[1]) if r["invoiceId"] == first["invoiceId"]]
    assert [r["totalPrice"] for r in rows] == [Decimal("1.23")]

    line = sandbox.appxite_invoice(first["invoiceId"])["rows"][0]["line"]
    sandbox.change_appxite_row(line, {"chargeType": "Strange", "rowId": None})
    assert "rowId" not in sandbox.appxite_invoice(first["invoiceId"])["rows"][0]["row"]
    sandbox.add_appxite_row(first["invoiceId"], row)
    sandbox.delete_appxite_row(line)
    assert len(sandbox.appxite_invoice(first["invoiceId"])["rows"]) == 1
    sandbox.delete_appxite_invoice(first["invoiceId"])
    assert first["invoiceId"] not in {i["invoiceId"] for i in sandbox.truth()}
