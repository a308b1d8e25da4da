"""AppXite's client against the sandbox, and against answers that the sandbox would never give."""

from __future__ import annotations

from datetime import date

import pytest

from billing_sync.appxite import AppXite
from billing_sync.errors import AuthenticationError, ConfigurationError, SourceDataError, TemporaryError
from billing_sync.http import Limits, Unreadable

FIRST, LAST = date(2026, 11, 1), date(2026, 11, 30)
QUICK = Limits(connect=2, read=5, attempts=3, first_wait=0.0, sleep=lambda _: None)


def client(url: str, requester: str = "100001", key: str = "demo-sas-key", **options) -> AppXite:
    return AppXite(url, requester, key, limits=QUICK, **options)


def numbers(pages) -> list[int]:
    return [record["n"] for page in pages for record in page]


def pages_of(reply, count: int, cap: int = 10**9, past_end=None):
    """A server of `count` records whose pages hold at most `cap`."""

    def answer(asked):
        size = min(int(asked.query["pageSize"]), cap)
        page = int(asked.query["page"])
        found = [{"n": n} for n in range(count)][(page - 1) * size : page * size]
        return reply(200, found) if found or past_end is None else past_end

    return answer


# -- all pages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page_size", [1, 2, 7, 39, 40, 41, 999, 1000])
def test_every_feed_of_the_sandbox_arrives_whole(sandbox_session, page_size):
    appxite = client(sandbox_session.url, page_size=page_size)
    truth = sandbox_session.store.db.execute(
        "select count(*) from appxite_invoices where visibility = 'published' and invoice_date between ? and ?",
        (FIRST.isoformat(), LAST.isoformat()),
    ).fetchone()[0]
    headers = [one for page in appxite.invoice_headers(FIRST, LAST) for one in page]
    assert len({one["invoiceId"] for one in headers}) == len(headers) == truth
    rows = [one for page in appxite.invoice_rows(FIRST, LAST) for one in page]
    assert (
        len(rows)
        == sandbox_session.store.db.execute(
            "select count(*) from appxite_rows join appxite_invoices using (invoice_id)"
            " where visibility = 'published' and invoice_date between ? and ?",
            (FIRST.isoformat(), LAST.isoformat()),
        ).fetchone()[0]
    )
    for feed in ("organizations", "contracts", "subscriptions"):
        (count,) = sandbox_session.store.db.execute(
            "select count(*) from appxite_records where feed = ?", (feed,)
        ).fetchone()
        assert sum(map(len, getattr(appxite, feed)())) == count


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 19, 20, 21, 100])
@pytest.mark.parametrize("past_end", ["empty", "400"])
def test_the_end_is_found_wherever_it_lies(stub, reply, count, past_end):
    end = reply(400, {"message": "Nothing could be found for the requested parameters."}) if past_end == "400" else None
    stub.answer = pages_of(reply, count, past_end=end)
    assert numbers(client(stub.url, page_size=10).contracts()) == list(range(count))


def test_a_server_that_caps_the_page_size_silently_loses_no_row(stub, reply):
    stub.answer = pages_of(reply, 57, cap=5)
    assert numbers(client(stub.url, page_size=10).contracts()) == list(range(57))


def test_a_server_that_repeats_its_last_short_page_is_at_its_end(stub, reply):
    stub.replies = [reply(200, [{"n": n} for n in range(10)]), reply(200, [{"n": 10}])]
    assert numbers(client(stub.url, page_size=10).contracts()) == list(range(11))


def test_a_server_that_repeats_a_full_page_does_not_hold_us_for_ever(stub, reply):
    stub.replies = [reply(200, [{"n": n} for n in range(10)])]
    with pytest.raises(TemporaryError, match="contracts, page 2: it repeats the page before"):
        list(client(stub.url, page_size=10).contracts())
    stub.replies = [reply(200, [{"n": 1}])]
    stub.asked.clear()
    with pytest.raises(TemporaryError, match="repeats"):
        list(client(stub.url, page_size=1).contracts())
    assert len(stub.asked) < 200


def test_equal_lines_on_small_pages_are_all_read(stub, reply):
    stub.answer = lambda asked: reply(200, [{"n": 1}] if int(asked.query["page"]) <= 5 else [])
    assert numbers(client(stub.url, page_size=1).contracts()) == [1] * 5


def test_what_is_asked_for(stub, reply):
    list(client(stub.url, requester="10/1").invoice_rows(date(2026, 2, 1), date(2026, 2, 28)))
    asked = stub.asked[0]
    assert asked.path == "/api/v1/reporting/invoices/invoice-rows/10%2F1"
    assert asked.query == {
        "pageSize": "1000",
        "invoiceDateFrom": "2026-02-01",
        "invoiceDateTill": "2026-02-28",
        "page": "1",
        "sasKey": "demo-sas-key",
    }


# -- nothing, or an error? -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "Nothing could be found for the requested parameters.",
        "No invoices found",
        "No data was found for the period.",
        "Invoices not found",
        "No records found.",
        "no subscriptions were found",
        "Invoice rows were not found for the period 2026-05-01 - 2026-05-31",
    ],
)
def test_a_400_that_says_that_there_is_nothing_is_an_empty_list(stub, reply, text):
    stub.replies = [reply(400, {"message": text})]
    assert list(client(stub.url).contracts()) == []


@pytest.mark.parametrize(
    "text",
    [
        "Requester 7 could not be found or you have no access to it.",
        "Requester was not found",
        "Organization not found",
        "No access to invoices: not found",
        "The value '2026-13-01' is not valid for invoiceDateFrom, expected yyyy-MM-dd.",
        "Bad request",
        "Report not found",
        "Something went wrong. The foundation is missing.",
        "",
    ],
)
def test_any_other_400_is_an_error(stub, reply, text):
    stub.replies = [reply(400, {"message": text})]
    with pytest.raises(ConfigurationError, match=r"AppXite refuses the request \(400\).*requester_id.*appxite_api"):
        list(client(stub.url).contracts())


def test_nothing_after_the_first_pages_is_the_end(stub, reply):
    stub.replies = [reply(200, [{"n": n} for n in range(10)]), reply(400, {"Message": "Nothing found"})]
    assert numbers(client(stub.url, page_size=10).contracts()) == list(range(10))


@pytest.mark.parametrize("body", [{"value": []}, None, "text", 5])
def test_a_page_that_is_no_list_is_refused(stub, reply, body):
    stub.replies = [reply(200, body)]
    with pytest.raises(SourceDataError, match="contracts, page 1: the answer is not a list of records"):
        list(client(stub.url).contracts())


def test_a_bad_number_does_not_spoil_the_page(stub, reply):
    stub.replies = [reply(200, b'[{"n": NaN}, {"n": 1}]'), reply(200, [])]
    first, second = numbers(client(stub.url).contracts())
    assert isinstance(first, Unreadable)
    assert second == 1


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_says_which_connection(stub, reply, status):
    stub.replies = [reply(status, {"message": "expired"})]
    with pytest.raises(AuthenticationError, match=rf"refuses the key \({status}\): expired .*connection appxite_api"):
        list(client(stub.url).contracts())
    assert len(stub.asked) == 1


def test_a_wrong_host_says_which_connection(stub, reply):
    stub.replies = [reply(404, b"<h1>Not here</h1>")]
    with pytest.raises(ConfigurationError, match="host of connection appxite_api"):
        list(client(stub.url).contracts())


@pytest.mark.parametrize("fault", ["status", "reset", "truncated", "invalid_json"])
def test_a_fault_that_passes_is_not_noticed(sandbox, fault):
    sandbox.add_fault(fault, service="appxite", count=2)
    assert sum(map(len, client(sandbox.url).organizations())) == 40


@pytest.mark.parametrize("fault", ["status", "reset", "truncated", "invalid_json"])
def test_a_fault_that_stays_names_feed_period_and_page(sandbox, fault):
    sandbox.add_fault(fault, service="appxite", path="invoice-rows", skip=1)
    with pytest.raises(TemporaryError, match="AppXite, invoice rows of 2026-11, page 2: "):
        list(client(sandbox.url, page_size=100).invoice_rows(FIRST, LAST))


# -- check -------------------------------------------------------------------------------------------------------------


def test_check_says_who_answers(sandbox_session):
    assert client(sandbox_session.url).check() == "AppXite answers as requester 100001; organizations can be read."


def test_check_tells_a_wrong_key_from_a_wrong_requester(sandbox_session, closed_port):
    with pytest.raises(AuthenticationError, match="password of connection other_id"):
        client(sandbox_session.url, key="wrong-key", connection="other_id").check()
    with pytest.raises(ConfigurationError, match=r"requester_id \(7\) of connection appxite_api"):
        client(sandbox_session.url, requester="7").check()
    with pytest.raises(TemporaryError, match="no connection"):
        client(f"http://127.0.0.1:{closed_port}").check()


@pytest.mark.parametrize("values", [("", "key"), ("1", "")])
def test_a_client_without_requester_or_key_is_not_made(values):
    with pytest.raises(ConfigurationError, match="appxite_api"):
        AppXite("https://example.com", *values)


def test_representation_holds_no_key():
    assert "wrong-key" not in repr(client("https://example.com", key="wrong-key"))
