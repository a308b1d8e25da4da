"""The staging loader on a real PostgreSQL: whole or not at all, again without harm, nothing hostile gets through."""

from __future__ import annotations

import json
import logging
import resource
import threading
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from billing_sync.appxite import AppXite
from billing_sync.connectwise import ConnectWise
from billing_sync.db import connect
from billing_sync.errors import SourceDataError, TemporaryError
from billing_sync.extract import (
    extract_additions,
    extract_appxite_reference,
    extract_connectwise_reference,
    extract_invoices,
)
from billing_sync.http import Limits
from billing_sync.records import INVOICE_ROW, clean_text, raw_json

MAY = date(2026, 5, 1)
QUICK = Limits(connect=2, read=5, attempts=2, first_wait=0.0)


@pytest.fixture
def conn(billing_db):
    with connect(billing_db) as connection:
        yield connection


@pytest.fixture
def run_id(conn) -> int:
    (found,) = conn.execute(
        "insert into audit.run (dag_id, dag_run_id, kind, billing_periods)"
        " values ('test', 'test', 'manual', array[date '2026-05-01']::billing.billing_period[]) returning run_id"
    ).fetchone()
    conn.commit()
    return found


def count(conn, table: str) -> int:
    return conn.execute(f"select count(*) from staging.{table}").fetchone()[0]


def header(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "invoiceId": number,
        "invoiceNumber": f"INV-{number}",
        "statusId": 1,
        "status": "Verified",
        "invoiceDate": "2026-05-04",
        "providerOrganizationId": "100001",
        "consumerOrganizationId": "7",
        "currency": "EUR",
        "totalAmount": 10,
        **changes,
    }


def row(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "rowId": f"R{number}",
        "invoiceId": 1,
        "invoiceNumber": "INV-1",
        "subscriptionId": "S1",
        "subscriptionName": "Mail",
        "offerId": "O1",
        "chargeType": "CycleFee",
        "chargeStartDate": "2026-05-01",
        "chargeEndDate": "2026-05-31",
        "quantity": 1,
        "unitPrice": 10,
        "totalPrice": 10,
        "currency": "EUR",
        **changes,
    }


class Feeds:
    """Answers as AppXite from two lists. An element that is bytes goes into the page as it is."""

    def __init__(self, stub, reply, headers: list[Any], rows: list[Any]) -> None:
        self.lists = {"invoice-headers": headers, "invoice-rows": rows}
        self.reply = reply
        self.fail_on: tuple[str, int] | None = None
        stub.answer = self.answer

    def answer(self, asked):
        feed = asked.path.split("/")[5]
        page, size = int(asked.query["page"]), int(asked.query["pageSize"])
        if self.fail_on == (feed, page):
            return self.reply(500, {"message": "out of order"})
        part = self.lists[feed][(page - 1) * size : page * size]
        return self.reply(
            200, b"[" + b",".join(e if isinstance(e, bytes) else json.dumps(e).encode() for e in part) + b"]"
        )


@pytest.fixture
def feeds(stub, reply):
    return lambda headers, rows: Feeds(stub, reply, headers, rows)


@pytest.fixture
def appxite(stub):
    return AppXite(stub.url, "100001", "a-secret-key", page_size=10, limits=QUICK)


# -- whole or not at all ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page_size", [1, 7, 50, 1000])
def test_a_month_of_the_sandbox_arrives_whole_at_any_page_size(sandbox_session, conn, run_id, page_size):
    period = date(2026, 11, 1)
    client = AppXite(sandbox_session.url, "100001", "demo-sas-key", page_size=page_size, limits=QUICK)
    counts = extract_invoices(conn, client, run_id, date(2026, 11, 17))
    truth = [i for i in sandbox_session.appxite.truth(("Verified", "Issued", "Paid")) if i["invoiceDate"] >= "2026-11"]
    staged = dict(
        conn.execute(
            "select invoice_id, total_amount from staging.invoice_header"
            " where status in ('Verified', 'Issued', 'Paid') and provider_organization_id = '100001'"
        ).fetchall()
    )
    assert staged == {invoice["invoiceId"]: invoice["totalAmount"] for invoice in truth}
    lines = conn.execute("select invoice_id, count(*), sum(total_price) from staging.invoice_row group by 1").fetchall()
    wanted = {i["invoiceId"]: (len(i["lines"]), sum(Decimal(x["totalPrice"]) for x in i["lines"])) for i in truth}
    assert {number: (n, total) for number, n, total in lines if number in wanted} == wanted
    extracts = conn.execute(
        "select source, feed, billing_period, row_count, ended_at is not null from staging.extract order by extract_id"
    ).fetchall()
    assert extracts == [
        ("appxite", "invoice_headers", period, counts.headers, True),
        ("appxite", "invoice_rows", period, counts.rows, True),
    ]
    assert (counts.headers, counts.rows) == (count(conn, "invoice_header"), count(conn, "invoice_row"))
    assert counts.problems == 0


def test_names_in_pascal_case_are_read(feeds, appxite, conn, run_id):
    pascal = {name[:1].upper() + name[1:]: value for name, value in row(1).items()}
    feeds([header(1)], [pascal])
    assert extract_invoices(conn, appxite, run_id, MAY).problems == 0
    assert conn.execute("select row_id, total_price from staging.invoice_row").fetchone() == ("R1", Decimal(10))


@pytest.mark.parametrize("broken", [("invoice-headers", 2), ("invoice-rows", 1), ("invoice-rows", 3)])
def test_a_page_that_fails_leaves_nothing_behind(feeds, appxite, conn, run_id, broken):
    wire = feeds([header(n) for n in range(1, 16)], [row(n) for n in range(1, 36)])
    wire.fail_on = broken
    with pytest.raises(TemporaryError, match=f"page {broken[1]}"):
        extract_invoices(conn, appxite, run_id, MAY)
    assert [count(conn, table) for table in ("extract", "invoice_header", "invoice_row")] == [0, 0, 0]


def test_a_failed_reload_keeps_what_was_whole(feeds, appxite, conn, run_id):
    wire = feeds([header(1)], [row(n) for n in range(1, 31)])
    extract_invoices(conn, appxite, run_id, MAY)
    wire.fail_on = ("invoice-rows", 2)
    with pytest.raises(TemporaryError):
        extract_invoices(conn, appxite, run_id, MAY)
    assert count(conn, "invoice_row") == 30


def test_the_same_task_again_replaces_its_rows(feeds, appxite, conn, run_id):
    wire = feeds([header(1), header(2)], [row(n) for n in range(1, 26)])
    extract_invoices(conn, appxite, run_id, MAY)
    wire.lists["invoice-headers"].pop()
    wire.lists["invoice-rows"] = [row(n) for n in range(100, 105)]
    counts = extract_invoices(conn, appxite, run_id, MAY)
    assert (counts.headers, counts.rows) == (1, 5)
    assert [count(conn, table) for table in ("extract", "invoice_header", "invoice_row")] == [2, 1, 5]


def test_two_tries_at_once_end_with_one_whole_load(feeds, stub, billing_db, conn, run_id):
    feeds([header(n) for n in range(1, 31)], [row(n) for n in range(1, 301)])
    problems: list[BaseException] = []

    def load():
        try:
            with connect(billing_db) as mine:
                extract_invoices(mine, AppXite(stub.url, "1", "a-secret-key", page_size=10, limits=QUICK), run_id, MAY)
        except BaseException as error:  # noqa: BLE001
            problems.append(error)

    tries = [threading.Thread(target=load) for _ in range(3)]
    [one.start() for one in tries]
    [one.join(60) for one in tries]
    assert problems == []
    assert [count(conn, table) for table in ("extract", "invoice_header", "invoice_row")] == [2, 30, 300]


def test_a_row_that_comes_twice_means_that_the_feed_moved(feeds, appxite, conn, run_id):
    rows = [row(n) for n in range(1, 21)]
    feeds([header(1)], [*rows, row(3)])
    with pytest.raises(TemporaryError, match=r"1/R3 came twice.*changed while being read; run again"):
        extract_invoices(conn, appxite, run_id, MAY)
    assert count(conn, "extract") == 0


def test_an_invoice_that_comes_twice_means_that_the_feed_moved(feeds, appxite, conn, run_id):
    feeds([*[header(n) for n in range(1, 12)], header(4)], [])
    with pytest.raises(TemporaryError, match="invoice headers of 2026-05: invoice_id 4 came twice"):
        extract_invoices(conn, appxite, run_id, MAY)
    assert count(conn, "extract") == 0


def test_equal_rows_without_a_row_id_are_ordinary(feeds, appxite, conn, run_id):
    correction = row(1, rowId=None, chargeType="Correction")
    feeds([header(1)], [correction, correction])
    assert extract_invoices(conn, appxite, run_id, MAY).rows == 2


def test_an_empty_month_is_staged_as_empty(sandbox_session, conn, run_id):
    client = AppXite(sandbox_session.url, "100001", "demo-sas-key", limits=QUICK)
    counts = extract_invoices(conn, client, run_id, date(2020, 1, 1))
    assert (counts.headers, counts.rows) == (0, 0)
    assert conn.execute("select feed, row_count from staging.extract order by 1").fetchall() == [
        ("invoice_headers", 0),
        ("invoice_rows", 0),
    ]


# -- hostile values --------------------------------------------------------------------------------------------------

HOSTILE = [
    ("not a number", b'"totalPrice": NaN', "totalPrice: NaN, expected an amount of at most 2 decimals"),
    ("without end", b'"totalPrice": Infinity', "totalPrice: Infinity, expected"),
    ("huge", b'"totalPrice": 1e400', "totalPrice: 1e400, expected"),
    ("tiny", b'"quantity": 1e-400', "quantity: 1e-400, expected a number of at most 12 decimals"),
    ("an exponent beyond all", b'"quantity": 1e99999999999999999999', "quantity: 1e9999"),
    ("40 digits", b'"totalPrice": ' + b"1234567890" * 4, "totalPrice: 1234567890123"),
    ("40 decimals", b'"quantity": 0.' + b"1234567890" * 4, "quantity: 0.1234567890"),
    ("out of the column's range", b'"totalPrice": 10000000000000000', "totalPrice: 10000000000000000, expected"),
    ("half a cent", b'"totalPrice": 12.345', "totalPrice: 12.345, expected an amount of at most 2 decimals"),
    ("13 decimals", b'"unitPrice": 0.0000000000001', "unitPrice: 1E-13, expected"),
    ("money as text", b'"totalPrice": "12.34"', "totalPrice: 12.34, expected an amount"),
    ("money as truth", b'"totalPrice": true', "totalPrice: True, expected an amount"),
    ("money as an object", b'"totalPrice": {"amount": 5}', "totalPrice: dict, expected an amount"),
    ("no money", b'"totalPrice": null', "totalPrice: missing, expected an amount"),
    ("a NUL", b'"subscriptionName": "a\\u0000b"', "subscriptionName: a\ufffdb (holds U+0000), expected a text"),
    ("a NUL in an id", b'"subscriptionId": "a\\u0000b"', "subscriptionId: a\ufffdb (holds U+0000)"),
    ("a lone surrogate", b'"offerName": "x\\ud83d"', "offerName: x\ufffd (holds U+D83D)"),
    ("a NUL in a field nobody reads", b'"costCentre": "\\u0000"', "costCentre: holds U+0000"),
    ("a NUL in a name", b'"cost\\u0000Centre": {"a\\ud800": ["\\u0000"]}', "holds U+0000"),
    ("10 MB", b'"subscriptionName": "' + b"x" * 10_000_000 + b'"', "10000000 characters"),
    ("10 MB nobody reads", b'"note": "' + b"x" * 10_000_000 + b'"', "note: 10000000 characters"),
    ("a long id", b'"subscriptionId": "' + b"x" * 300 + b'"', "(300 characters), expected a text of at most 200"),
    ("no date", b'"chargeStartDate": "31/05/2026"', "chargeStartDate: 31/05/2026, expected a date like 2026-05-01"),
    ("an impossible date", b'"chargeStartDate": "2026-02-30"', "chargeStartDate: 2026-02-30, expected a date"),
    ("an unset date of .NET", b'"chargeEndDate": "0001-01-01T00:00:00"', "chargeEndDate: 0001-01-01T00:00:00"),
    ("an hour of another day", b'"chargeEndDate": "2026-05-31T23:00:00Z"', "chargeEndDate: 2026-05-31T23:00:00Z"),
    ("a time stamp", b'"chargeEndDate": 1780000000', "chargeEndDate: 1780000000, expected a date"),
    ("a text that is a time stamp", b'"chargeEndDate": "1780000000"', "chargeEndDate: 1780000000, expected a date"),
    ("a missing date", b'"chargeStartDate": null', "chargeStartDate: missing"),
    ("no invoice", b'"invoiceId": null', "invoiceId: missing, expected a whole number"),
    ("an invoice beyond bigint", b'"invoiceId": 9223372036854775808', "invoiceId: 9223372036854775808"),
    ("half an invoice", b'"invoiceId": 1.5', "invoiceId: 1.5, expected a whole number"),
    ("a strange currency", b'"currency": "EURO"', "currency: EURO (4 characters), expected a currency code"),
    ("a list as a name", b'"subscriptionName": []', "subscriptionName: list, expected a text"),
    ("two totals", b'"totalPrice": 1, "totalPrice": 2', "totalPrice: given twice: 1, 2"),
    ("two spellings", b'"totalPrice": 1, "TotalPrice": 2', "totalPrice: given twice: 1, 2"),
]


@pytest.mark.parametrize(("member", "expected"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE])
def test_a_hostile_value_spoils_its_row_and_no_other(feeds, appxite, conn, run_id, member, expected):
    name = member.split(b'"')[1].decode().replace("\\u0000", "\0")
    bad = row(2)
    bad.pop(name, None)
    text = json.dumps(bad).encode()[:-1] + b", " + member + b"}"
    feeds([header(1)], [row(1), text, row(3)])
    counts = extract_invoices(conn, appxite, run_id, MAY)
    staged = conn.execute("select row_id, problem, raw->>'rowId' from staging.invoice_row order by position").fetchall()
    assert (counts.rows, counts.problems) == (3, 1)
    assert [one[2] for one in staged] == ["R1", "R2", "R3"]
    assert [one[1] for one in staged][::2] == [None, None]
    assert expected in staged[1][1]
    assert len(staged[1][1]) <= 2000
    # What could be read stands in its column.
    good = conn.execute("select offer_id, row_id from staging.invoice_row where row_id = 'R2'").fetchone()
    assert good == ("O1", "R2")


@pytest.mark.parametrize("element", [b"null", b"5", b'"text"', b"[]", b"{}"])
def test_what_is_no_record_is_kept_as_a_row_with_problems(feeds, appxite, conn, run_id, element):
    feeds([header(1)], [row(1), element])
    assert extract_invoices(conn, appxite, run_id, MAY).problems == 1
    (problem,) = conn.execute("select problem from staging.invoice_row where position = 2").fetchone()
    assert "invoiceId: missing" in problem


def test_a_bad_header_is_kept_with_all_its_problems(feeds, appxite, conn, run_id):
    feeds([header(1, totalAmount="12", currency=None, status="Somehow"), header(2)], [])
    extract_invoices(conn, appxite, run_id, MAY)
    staged = conn.execute("select invoice_id, status, total_amount, problem from staging.invoice_header").fetchall()
    assert staged[0] == (
        1,
        "Somehow",
        None,
        "currency: missing, expected a currency code of 3 letters; "
        "totalAmount: 12, expected an amount of at most 2 decimals",
    )
    assert staged[1] == (2, "Verified", Decimal(10), None)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (b"12.3400", "12.3400"),
        (b"-0.00", "0.00"),
        (b"1e2", "100"),
        (b"-9999999999999999", "-9999999999999999"),
        (b"9999999999999999.00", "9999999999999999.00"),
        (b"0.1", "0.1"),
    ],
)
def test_unusual_amounts_that_are_right_are_kept_to_the_digit(feeds, appxite, conn, run_id, given, kept):
    line = row(1)
    del line["totalPrice"]
    feeds([header(1)], [json.dumps(line).encode()[:-1] + b', "totalPrice": ' + given + b"}"])
    extract_invoices(conn, appxite, run_id, MAY)
    problem, total = conn.execute("select problem, total_price::text from staging.invoice_row").fetchone()
    assert problem is None
    assert Decimal(total) == Decimal(kept)


def test_unknown_names_of_charges_numbers_as_ids_and_emoji_are_no_problem(feeds, appxite, conn, run_id):
    feeds(
        [header(1, consumerOrganizationId=7)], [row(1, chargeType="Surprise", offerName="Büro 🎉", subscriptionId=12)]
    )
    assert extract_invoices(conn, appxite, run_id, MAY).problems == 0
    staged = conn.execute("select charge_type, offer_name, subscription_id, raw->>'offerName' from staging.invoice_row")
    assert staged.fetchone() == ("Surprise", "Büro 🎉", "12", "Büro 🎉")


def test_raw_holds_the_numbers_as_answered(feeds, appxite, conn, run_id):
    feeds([header(1)], [json.dumps(row(1)).encode()[:-1] + b', "extra": 5.2000, "big": 12345678901234567890.10}'])
    extract_invoices(conn, appxite, run_id, MAY)
    raw = conn.execute("select raw->>'extra', raw->>'big' from staging.invoice_row").fetchone()
    assert raw == ("5.2000", "12345678901234567890.10")


def test_depth_does_not_hurt():
    deep: Any = "x"
    for _ in range(200):
        deep = [deep]
    text, problems = raw_json({"a": deep, "b": "\0"})
    assert json.loads(text)["b"] == "\ufffd"
    assert {problem.field for problem in problems} == {"a", "b"}


def test_many_shapes_of_records_do_not_fill_the_memory():
    for number in range(3000):
        list(INVOICE_ROW.rows([{f"name{number}": 1}]))
    assert len(INVOICE_ROW._readers) <= 1001


def test_clean_text_says_what_it_did():
    assert clean_text("plain", 10) == ("plain", [])
    assert clean_text("a\0b" + "c" * 20, 5) == ("a\ufffdbcc", ["23 characters", "holds U+0000"])


# -- reference data --------------------------------------------------------------------------------------------------


def connectwise(url: str, **options: Any) -> ConnectWise:
    return ConnectWise(
        url,
        "demo",
        "demo-public-key",
        "demo-private-key",
        "00000000-0000-4000-8000-000000000001",
        limits=QUICK,
        **options,
    )


def test_reference_data_of_both_sides_arrives_whole(sandbox_session, conn, run_id):
    client = AppXite(sandbox_session.url, "100001", "demo-sas-key", page_size=7, limits=QUICK)
    first = extract_appxite_reference(conn, client, run_id)
    second = extract_connectwise_reference(conn, connectwise(sandbox_session.url, page_size=7), run_id)
    assert first.warnings == second.warnings == []
    stored = sandbox_session.store
    wanted = {
        "companies": len(stored.records("company")),
        "products": len(stored.records("product")),
        "agreement_types": len(stored.records("agreementType")),
        "billing_cycles": len(stored.records("billingCycle")),
        "agreements": len(stored.records("agreement")),
    }
    assert second.rows == wanted
    tables = ("company", "product", "agreement_type", "billing_cycle", "agreement")
    assert [count(conn, table) for table in tables] == list(wanted.values())
    assert first.rows == {
        "organizations": count(conn, "organization"),
        "contracts": count(conn, "contract"),
        "subscriptions": count(conn, "subscription"),
    }
    for agreement in stored.records("agreement").values():
        staged = conn.execute(
            "select name, agreement_type_id, company_id, agreement_status, billing_cycle_id, invoicing_cycle, currency,"
            " prorates, bill_start_date, next_invoice_date from staging.agreement where agreement_id = %s",
            [agreement["id"]],
        ).fetchone()
        assert staged == (
            agreement["name"],
            agreement["type"]["id"],
            agreement["company"]["id"],
            agreement["agreementStatus"],
            agreement["billingCycle"]["id"],
            agreement["invoicingCycle"],
            agreement["currency"]["currencyCode"],
            agreement["prorateFlag"],
            date.fromisoformat(agreement["billStartDate"][:10]),
            date.fromisoformat(agreement["nextInvoiceDate"][:10]),
        )


def test_reference_data_again_replaces_itself(sandbox_session, conn, run_id):
    client = connectwise(sandbox_session.url)
    once, again = (extract_connectwise_reference(conn, client, run_id) for _ in range(2))
    assert once == again
    assert count(conn, "extract") == 5


def test_a_record_that_cannot_be_read_is_left_out_with_a_warning(stub, reply, conn, run_id):
    company = {"id": 1, "identifier": "Acme", "name": "Acme", "status": {"id": 1, "name": "Active"}}
    agreement = {"id": 5, "name": "Cloud", "prorateFlag": False, "company": {"id": 1}, "currency": None, "endDate": ""}
    answers = {
        "companies": [company, {"name": "no id"}, {**company, "id": 2, "name": "a\0b"}, {**company, "id": "x"}],
        "agreements": [
            agreement,
            {**agreement, "id": 6, "prorateFlag": "perhaps"},
            {**agreement, "id": 7, "company": "?"},
        ],
    }
    stub.answer = lambda asked: reply(200, answers.get(asked.path.rsplit("/", 1)[-1], []))
    result = extract_connectwise_reference(conn, connectwise(stub.url), run_id)
    assert conn.execute("select company_id, name from staging.company order by 1").fetchall() == [
        (1, "Acme"),
        (2, "a\ufffdb"),
    ]
    assert conn.execute("select agreement_id, prorates from staging.agreement").fetchall() == [(5, False)]
    assert len(result.warnings) == 5
    assert "record 6 was left out: prorateFlag: perhaps, expected true or false" in " ".join(result.warnings)
    assert "record without a readable id was left out: id: missing" in " ".join(result.warnings)


def test_a_record_that_comes_twice_means_that_the_feed_moved(stub, reply, conn, run_id):
    stub.replies = [reply(200, [{"id": 1}, {"id": 1}])]
    with pytest.raises(TemporaryError, match="companies: 1 came twice"):
        extract_connectwise_reference(conn, connectwise(stub.url), run_id)
    assert count(conn, "extract") == 0


# -- Additions -------------------------------------------------------------------------------------------------------


def marker_of(addition: dict[str, Any]) -> str | None:
    return addition.get("serialNumber") or None


def open_agreements(sandbox) -> list[int]:
    return [n for n, one in sorted(sandbox.store.records("agreement").items()) if one["agreementStatus"] == "Active"]


def seed_additions(client: ConnectWise, agreement_ids: list[int], each: int) -> None:
    product = next(client.products())[0]["id"]
    for agreement_id in agreement_ids:
        for number in range(each):
            body = {
                "product": {"id": product},
                "billCustomer": "DoNotBill",
                "serialNumber": f"M-{agreement_id}-{number}",
            }
            client.create_addition(agreement_id, {**body, "quantity": Decimal(1), "unitPrice": Decimal("5.20")})


def test_additions_of_agreements_are_staged_with_their_markers(sandbox, conn, run_id):
    client = connectwise(sandbox.url, page_size=3)
    ids = open_agreements(sandbox)[:6]
    seed_additions(client, ids[:2], 8)
    result = extract_additions(conn, client, run_id, ids, marker_of)
    wanted = sum(len(sandbox.store.additions(one)) for one in ids)
    assert result.rows == {"additions": wanted}
    assert count(conn, "addition") == wanted
    assert conn.execute("select count(*) from staging.addition where marker like 'M-%'").fetchone() == (16,)
    assert conn.execute("select row_count, feed from staging.extract").fetchall() == [(wanted, "additions")]
    price = conn.execute("select distinct unit_price::text from staging.addition where marker like 'M-%'").fetchall()
    assert price == [("5.20",)]


def test_additions_read_again_replace_only_their_agreements(sandbox, conn, run_id):
    client = connectwise(sandbox.url)
    one, two = open_agreements(sandbox)[:2]
    seed_additions(client, [one, two], 2)
    extract_additions(conn, client, run_id, [one], marker_of, feed="additions/0")
    extract_additions(conn, client, run_id, [two], marker_of, feed="additions/1")
    before = count(conn, "addition")
    seed_additions(client, [one], 1)
    extract_additions(conn, client, run_id, [one], marker_of)
    assert count(conn, "addition") == before + 1
    extract_additions(conn, client, run_id, [], marker_of, append=False)
    assert count(conn, "addition") == before - len(sandbox.store.additions(one)) + 1


def test_shards_side_by_side_share_one_feed(sandbox, billing_db, conn, run_id):
    client = connectwise(sandbox.url)
    ids = open_agreements(sandbox)[:40]
    seed_additions(client, ids[::3], 1)

    def load(shard: int) -> None:
        with connect(billing_db) as mine:
            extract_additions(mine, client, run_id, ids[shard::4], marker_of)

    shards = [threading.Thread(target=load, args=[shard]) for shard in range(4)]
    [shard.start() for shard in shards]
    [shard.join(60) for shard in shards]
    wanted = sum(len(sandbox.store.additions(one)) for one in ids)
    assert count(conn, "addition") == wanted
    assert conn.execute("select row_count from staging.extract").fetchall() == [(wanted,)]


def test_an_agreement_that_is_gone_has_no_additions_and_blocks_nobody(sandbox, conn, run_id):
    client = connectwise(sandbox.url)
    known = open_agreements(sandbox)[0]
    seed_additions(client, [known], 1)
    extract_additions(conn, client, run_id, [known, 999999], marker_of)
    assert count(conn, "addition") == len(sandbox.store.additions(known))


def test_additions_are_whole_or_not_at_all(sandbox, conn, run_id):
    client = connectwise(sandbox.url)
    ids = open_agreements(sandbox)[:5]
    seed_additions(client, ids, 1)
    sandbox.add_fault("status", service="connectwise", path=f"/agreements/{ids[3]}/additions")
    with pytest.raises(TemporaryError):
        extract_additions(conn, client, run_id, ids, marker_of)
    assert count(conn, "extract") == count(conn, "addition") == 0


def test_an_addition_that_cannot_be_read_stays_visible(stub, reply, conn, run_id):
    stub.replies = [reply(200, [{"id": 9, "unitPrice": "free", "serialNumber": "M"}, {"unitPrice": 1}])]
    result = extract_additions(conn, connectwise(stub.url), run_id, [5], marker_of)
    staged = conn.execute("select agreement_id, addition_id, unit_price, marker from staging.addition").fetchall()
    assert staged == [(5, 9, None, "M")]
    assert len(result.warnings) == 2


def test_a_number_from_connectwise_without_bounds_stops_the_reading(stub, reply, conn, run_id):
    stub.replies = [reply(200, b'[{"id": 9, "unitPrice": NaN}]')]
    with pytest.raises(SourceDataError, match="NaN"):
        extract_additions(conn, connectwise(stub.url), run_id, [5], marker_of)


# -- size and progress -----------------------------------------------------------------------------------------------


def test_20000_rows_load_in_bounded_memory_and_tell_their_progress(feeds, stub, conn, run_id, caplog):
    class Endless(list):
        """Rows made on demand, so that the server's own list does not count."""

        def __init__(self, size: int) -> None:
            self.size = size

        def __getitem__(self, part):
            return [row(n, customChargeDetails="x" * 300) for n in range(*part.indices(self.size))]

    feeds([header(1)], Endless(20_000))
    client = AppXite(stub.url, "100001", "a-secret-key", limits=QUICK)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with caplog.at_level(logging.INFO, "billing_sync.extract"):
        counts = extract_invoices(conn, client, run_id, MAY)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert (counts.rows, counts.pages) == (20_000, 21)
    assert count(conn, "invoice_row") == 20_000
    assert grown < 100_000  # kB; all rows at once would be some 60,000 as text and far more as objects
    assert "invoice rows of 2026-05: 10 pages, 10000 rows so far" in caplog.text


def test_a_transaction_of_the_caller_is_respected(feeds, appxite, conn, run_id):
    feeds([header(1)], [row(1)])
    with conn.transaction(force_rollback=True):
        assert extract_invoices(conn, appxite, run_id, MAY).rows == 1
    assert count(conn, "extract") == 0
