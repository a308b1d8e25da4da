"""The transport: exact numbers, bounds, which requests are repeated, and where secrets must not appear."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
import traceback
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime

import pytest

from billing_sync.errors import (
    BillingSyncError,
    ConfigurationError,
    RateLimitedError,
    SourceDataError,
    TemporaryError,
    WriteOutcomeUnknownError,
    WriteRefusedError,
)
from billing_sync.http import Limits, Transport, Unreadable, UnusableJson, parse_json, shorten, spell_out, write_json
from billing_sync.secrets import Scrubber, basic_token, spellings

SECRET = "s3cr3t/+=&%-küche key"
TOKEN = basic_token("demo+public", SECRET)


def spelled() -> list[str]:
    return [form for secret in (SECRET, TOKEN) for form in spellings(secret)]


@pytest.fixture
def make(stub):
    """Makes a transport to the stub. `slept` collects what it would have waited."""
    slept: list[float] = []

    def transport(url: str = stub.url, **options) -> Transport:
        limits = {"connect": 2, "read": 2, "attempts": 3, "first_wait": 0.5, "sleep": slept.append}
        limits |= options.pop("limits", {})
        return Transport(
            service="AppXite",
            connection="appxite_api",
            base_url=url,
            authorization=f"Basic {TOKEN}",
            secret_query={"sasKey": SECRET},
            secrets=[SECRET, TOKEN],
            limits=Limits(**limits),
            **options,
        )

    transport.slept = slept
    return transport


# -- JSON ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["5.20", "0.1", "-0.00", "12345678901234.56", "1e2", "1E-7"])
def test_numbers_are_read_with_their_own_digits(text):
    value = parse_json(text)
    assert isinstance(value, Decimal)
    assert str(value) == str(Decimal(text))


@pytest.mark.parametrize(
    "text",
    ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1e-400", "1e999999999999999999999", "9" * 40, "0." + "1" * 40],
)
def test_a_number_without_bounds_is_refused_or_kept_as_unreadable(text):
    with pytest.raises(UnusableJson):
        parse_json(f'[{{"a": {text}}}]')
    kept = parse_json(f"[{text}]", keep_unreadable=True)[0]
    assert isinstance(kept, Unreadable)
    assert str(kept)[:10] == text[:10]
    assert kept != parse_json(f"[{text}]", keep_unreadable=True)[0]


def test_a_name_given_twice_counts_only_if_both_agree():
    assert parse_json('{"a": 1, "a": 1}') == {"a": 1}
    with pytest.raises(UnusableJson, match="given twice: 1, 2"):
        parse_json('{"a": 1, "a": 2}')


@pytest.mark.parametrize("text", ["", "{", "[1,", "[" * 100_000, "nul", "[1] x", "{'a': 1}"])
def test_what_is_no_json_is_no_json(text):
    with pytest.raises(ValueError) as caught:
        parse_json(text)
    assert not isinstance(caught.value, UnusableJson)


def test_decimals_are_written_with_their_own_digits():
    body = {"unitPrice": Decimal("5.20"), "quantity": Decimal("1E+2"), "list": [Decimal("-0.0001")], "n": None}
    assert write_json(body) == '{"unitPrice": 5.20, "quantity": 100, "list": [-0.0001], "n": null}'


@pytest.mark.parametrize("value", [1.5, float("nan"), Decimal("NaN"), Decimal("Infinity"), Decimal("sNaN"), object()])
def test_what_must_not_be_written_is_not(value):
    with pytest.raises((TypeError, ValueError)):
        write_json({"deep": [{"in": value}]})


def test_texts_are_shortened_on_one_line():
    assert shorten("a\nb\tc") == "a b c"
    assert shorten("x" * 1000) == "x" * 79 + "…"


def test_all_errors_of_a_refusal_are_spelled_out():
    body = {
        "code": "InvalidObject",
        "message": "Addition object is invalid",
        "errors": [{"message": "too early", "field": "effectiveDate"}, {"message": "odd"}, "nonsense"],
    }
    assert spell_out(body) == "Addition object is invalid; effectiveDate: too early; odd"
    assert spell_out({"error": "ConnectWiseAPI", "Message": "slow down"}) == "slow down"
    assert spell_out(["x"]) == spell_out(None) == ""


# -- reads are tried again -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 425, 500, 502, 503, 504])
def test_a_read_is_tried_again_until_it_goes_through(stub, make, reply, status):
    stub.replies = [reply(status, {"message": "x"}), reply(status, {}), reply(200, [{"n": 1}])]
    transport = make()
    assert transport.get("/x", what="things").body == [{"n": 1}]
    assert len(stub.asked) == 3
    assert 0.5 <= transport._limits.first_wait <= make.slept[0] <= make.slept[1] + 0.5


@pytest.mark.parametrize("how", ["reset", "cut"])
def test_a_broken_connection_is_tried_again(stub, make, reply, how):
    stub.replies = [reply(200, [1, 2, 3], how=how), reply(200, [4])]
    assert make().get("/x", what="things").body == [4]
    assert len(stub.asked) == 2


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 405, 409])
def test_a_final_answer_is_not_asked_for_again(stub, make, reply, status):
    stub.replies = [reply(status, {"message": "so be it"})]
    assert make().get("/x", what="things").status == status
    assert len(stub.asked) == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'[{"a": 1}, {"a"', "not whole JSON"),
        (b"<html><b>Gateway</b></html>", "not whole JSON.*<html>"),
        (b"", "not whole JSON.*an empty body"),
        (b'["\xff\xfe"]', "not whole JSON"),
    ],
)
def test_a_body_that_is_no_json_ends_as_an_error_that_says_what_came(stub, make, reply, body, words):
    stub.replies = [reply(200, body)]
    with pytest.raises(TemporaryError, match=rf"AppXite, invoice rows, page 3: .*{words}"):
        make().get("/x", what="invoice rows, page 3")
    assert len(stub.asked) == 3


def test_an_unusable_number_is_not_asked_for_again(stub, make, reply):
    stub.replies = [reply(200, b"[NaN]")]
    with pytest.raises(SourceDataError, match="NaN"):
        make().get("/x", what="things")
    assert len(stub.asked) == 1


def test_too_many_requests_waits_as_long_as_the_service_says(stub, make, reply):
    stub.replies = [reply(429, {}, {"Retry-After": "7"}), reply(200, [])]
    make().get("/x", what="things")
    assert make.slept == [7.0]


def test_retry_after_may_be_a_date(stub, make, reply):
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    stub.replies = [reply(429, {}, {"Retry-After": later}), reply(200, [])]
    make().get("/x", what="things")
    assert 15 <= make.slept[0] <= 21


@pytest.mark.parametrize("header", [{}, {"Retry-After": "soon"}, {"Retry-After": "9" * 5000}, {"Retry-After": "-5"}])
def test_a_senseless_retry_after_waits_a_while(stub, make, reply, header):
    stub.replies = [reply(429, {}, header), reply(200, [])]
    make().get("/x", what="things")
    assert make.slept == [30.0]


def test_a_long_retry_after_is_left_to_the_task(stub, make, reply):
    stub.replies = [reply(429, {}, {"Retry-After": "3600"})]
    with pytest.raises(RateLimitedError) as caught:
        make().get("/x", what="things")
    assert caught.value.retry_after == 3600
    assert make.slept == []
    assert len(stub.asked) == 1


def test_too_many_requests_pauses_all_workers(stub, make, reply):
    class Budget:
        said: list[object]

        def acquire(self):
            self.said.append("acquire")

        def pause(self, seconds):
            self.said.append(seconds)

    budget = Budget()
    budget.said = []
    stub.replies = [reply(429, {}, {"Retry-After": "7"}), reply(200, [])]
    make(limiter=budget).get("/x", what="things")
    assert budget.said == ["acquire", 7, "acquire"]


def test_a_redirect_is_not_followed(stub, make, reply):
    stub.replies = [reply(302, b"", {"Location": f"{stub.url}/elsewhere"})]
    with pytest.raises(ConfigurationError, match="redirect"):
        make().get("/x", what="things")
    assert len(stub.asked) == 1


def test_nobody_listening_is_temporary(make, closed_port):
    with pytest.raises(TemporaryError, match=rf"no connection .*appxite_api, 127.0.0.1:{closed_port}"):
        make(f"http://127.0.0.1:{closed_port}").get("/x", what="things")


def test_an_unknown_host_is_temporary(make):
    with pytest.raises(TemporaryError, match=r"AppXite, things: .*appxite_api"):
        make("http://does-not-exist.invalid", limits={"attempts": 1}).get("/x", what="things")


@pytest.mark.parametrize("url", ["", "nonsense", "ftp://x", "http://", "http:///path"])
def test_an_impossible_address_is_a_matter_of_configuration(make, url):
    with pytest.raises(ConfigurationError, match="appxite_api"):
        make(url)


@pytest.mark.parametrize("url", ["http://exa mple.com", "http://a..b", f"http://{'x' * 70}.com"])
def test_an_address_that_cannot_be_asked_is_no_crash(make, url):
    with pytest.raises((ConfigurationError, TemporaryError)):
        make(url, limits={"attempts": 1}).get("/x", what="things")


def test_a_slow_answer_ends_in_time(stub, make, reply):
    stub.replies = [reply(200, [], wait=5)]
    start = time.monotonic()
    with pytest.raises(TemporaryError, match=r"no answer within 0\.2 s"):
        make(limits={"read": 0.2, "attempts": 1}).get("/x", what="things")
    assert time.monotonic() - start < 3


def test_an_answer_that_drips_ends_in_time(stub, make, reply):
    stub.replies = [reply(200, ["x" * 200], how="drip")]
    start = time.monotonic()
    with pytest.raises(TemporaryError, match="took longer than"):
        make(limits={"whole": 0.3, "attempts": 1}).get("/x", what="things")
    assert time.monotonic() - start < 3


def test_a_huge_answer_is_refused_and_not_asked_for_again(stub, make, reply):
    stub.replies = [reply(200, ["x" * 5000])]
    with pytest.raises(SourceDataError, match="larger than 1,000 bytes"):
        make(limits={"body": 1000}).get("/x", what="things")
    assert len(stub.asked) == 1


def test_a_compressed_answer_is_bounded_by_what_it_unpacks_to(stub, make, reply):
    import gzip

    stub.replies = [reply(200, gzip.compress(json.dumps(["x" * 5_000_000]).encode()), {"Content-Encoding": "gzip"})]
    with pytest.raises(SourceDataError, match="larger than"):
        make(limits={"body": 100_000}).get("/x", what="things")
    stub.replies = [reply(200, gzip.compress(b"[1]"), {"Content-Encoding": "gzip"})]
    assert make().get("/x", what="things").body == [1]


def test_connections_are_kept(stub, make, reply):
    transport = make()
    for _ in range(5):
        transport.get("/x", what="things")
    assert len({asked.connection for asked in stub.asked}) == 1


def test_a_netrc_file_does_not_replace_the_keys(stub, make, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    make().get("/x", what="things")
    assert stub.asked[0].headers["authorization"] == f"Basic {TOKEN}"


# -- writes are sent once --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 429])
def test_a_refused_write_says_so(stub, make, reply, method, status):
    stub.replies = [reply(status, {"message": "no", "errors": [{"field": "quantity", "message": "bad"}]})]
    with pytest.raises(WriteRefusedError, match=rf"refused \({status}\): no; quantity: bad") as caught:
        make().send(method, "/x", {"a": 1}, what="new Addition")
    assert caught.value.status == status
    assert len(stub.asked) == 1


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize("status", [302, 405, 407, 408, 409, 422, 500, 502, 503, 504])
def test_any_other_answer_leaves_the_outcome_unknown(stub, make, reply, method, status):
    stub.replies = [reply(status, {"message": "timeout"})]
    with pytest.raises(WriteOutcomeUnknownError):
        make().send(method, "/x", {}, what="new Addition")
    assert len(stub.asked) == 1


@pytest.mark.parametrize("body", [b"", b"{", b"<html>", b"[]", b"5", b"null", b'{"id": NaN}', b"\xff"])
def test_a_success_that_cannot_be_read_leaves_the_outcome_unknown(stub, make, reply, body):
    stub.replies = [reply(201, body)]
    with pytest.raises(WriteOutcomeUnknownError, match="201"):
        make().send("POST", "/x", {}, what="new Addition")
    assert len(stub.asked) == 1


@pytest.mark.parametrize("how", ["reset", "cut"])
def test_a_broken_connection_leaves_the_outcome_unknown(stub, make, reply, how):
    stub.replies = [reply(201, {"id": 5}, how=how)]
    with pytest.raises(WriteOutcomeUnknownError, match="not known"):
        make().send("POST", "/x", {}, what="new Addition")
    time.sleep(0.1)
    assert len(stub.asked) == 1


def test_a_kept_connection_that_broke_is_not_used_for_a_second_try(stub, make, reply):
    transport = make()
    transport.get("/x", what="things")
    stub.replies = [reply(201, {"id": 5}, how="reset")]
    with pytest.raises(WriteOutcomeUnknownError):
        transport.send("POST", "/x", {}, what="new Addition")
    time.sleep(0.1)
    assert [asked.method for asked in stub.asked] == ["GET", "POST"]


def test_a_time_out_leaves_the_outcome_unknown(stub, make, reply):
    stub.replies = [reply(201, {"id": 5}, wait=3)]
    with pytest.raises(WriteOutcomeUnknownError, match="no answer within"):
        make(limits={"read": 0.2}).send("POST", "/x", {}, what="new Addition")
    assert len(stub.asked) == 1


def test_an_answer_beyond_the_bound_leaves_the_outcome_unknown(stub, make, reply):
    stub.replies = [reply(201, {"id": 5, "x": "x" * 5000})]
    with pytest.raises(WriteOutcomeUnknownError, match="larger than"):
        make(limits={"body": 1000}).send("POST", "/x", {}, what="new Addition")


def test_nothing_was_sent_when_nobody_listens(make, closed_port):
    with pytest.raises(WriteRefusedError, match="Nothing was sent") as caught:
        make(f"http://127.0.0.1:{closed_port}").send("POST", "/x", {}, what="new Addition")
    assert caught.value.status is None


def test_nothing_was_sent_when_the_connection_is_not_accepted_in_time(make):
    with socket.socket() as full:  # its queue of one is full, so that further connections are not answered
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for one in fillers:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        with pytest.raises(WriteRefusedError, match="Nothing was sent") as caught:
            make(f"http://127.0.0.1:{port}", limits={"connect": 0.3}).send("POST", "/x", {}, what="new Addition")
        for one in fillers:
            one.close()
    assert caught.value.status is None


def test_nothing_was_sent_when_the_budget_is_used_up(stub, make):
    class Empty:
        def acquire(self):
            raise RateLimitedError("The budget is used up.", retry_after=60)

        def pause(self, seconds):
            pass

    with pytest.raises(WriteRefusedError, match=r"not sent. The budget is used up.") as caught:
        make(limiter=Empty()).send("POST", "/x", {}, what="new Addition")
    assert caught.value.status is None
    assert caught.value.__context__ is None
    assert stub.asked == []


def test_a_body_that_must_not_be_sent_is_not(stub, make):
    with pytest.raises(TypeError):
        make().send("POST", "/x", {"unitPrice": 5.2}, what="new Addition")
    assert stub.asked == []


def test_a_proxy_that_fails_leaves_the_outcome_unknown(make, closed_port, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{closed_port}")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(WriteOutcomeUnknownError, match="proxy"):
        make("http://127.1.2.3:8000").send("POST", "/x", {}, what="new Addition")


def test_the_digits_of_a_write_arrive_as_they_are(stub, make, reply):
    stub.replies = [reply(201, {"id": 5})]
    make().send("POST", "/x", {"unitPrice": Decimal("5.20"), "text": "Büro"}, what="new Addition")
    assert stub.asked[0].body == b'{"unitPrice": 5.20, "text": "B\\u00fcro"}'
    assert stub.asked[0].headers["content-type"] == "application/json"


# -- secrets ---------------------------------------------------------------------------------------------------------


def failing_calls(stub, make, reply, closed_port):
    """(name, a call that fails or at least logs)."""
    echo = f"bad key {SECRET} in {stub.url}?sasKey={SECRET} Authorization: Basic {TOKEN}"
    for name, answer in {
        "500": reply(500, {"message": echo}),
        "429": reply(429, {"message": echo}, {"Retry-After": "9999"}),
        "302": reply(302, b"", {"Location": f"/?sasKey={SECRET}"}),
        "reset": reply(200, [], how="reset"),
        "cut": reply(200, [echo], how="cut"),
        "no JSON": reply(200, echo.encode()),
        "400": reply(400, {"message": echo, "errors": [{"message": echo, "field": echo}]}),
        "slow": reply(200, [], wait=1),
    }.items():

        def get(answer=answer):
            stub.replies = [answer]
            return make(limits={"read": 0.3}).get("/x", {"page": 1}, what="things").text

        def send(answer=answer):
            stub.replies = [answer]
            return make(limits={"read": 0.3}).send("POST", "/x", {}, what="a write").text

        yield f"GET {name}", get
        yield f"POST {name}", send
    gone = f"http://127.0.0.1:{closed_port}"
    yield "gone", lambda: make(gone).get("/x", what="things")
    yield "POST gone", lambda: make(gone).send("POST", "/x", {}, what="a write")
    yield "no name", lambda: make("http://nowhere.invalid").get("/x", what="things")
    yield "bad name", lambda: make("http://exa mple.com").get("/x", what="things")


def test_no_secret_in_any_log_message_error_or_representation(stub, make, reply, closed_port, caplog):
    found: list[str] = []
    with caplog.at_level(logging.DEBUG):
        for name, call in failing_calls(stub, make, reply, closed_port):
            text = ""
            try:
                text = str(call())
            except BillingSyncError as error:
                text = "".join(traceback.format_exception(error)) + repr(error)
                if any(isinstance(other, OSError) for other in (error.__cause__, error.__context__)):
                    found.append(f"{name}: an exception of the library is attached")
            found += [name for form in spelled() if form in text]
        assert not found
        transport = make()
        assert not [form for form in spelled() if form in f"{transport!r} {transport} {transport.scrub!r}"]
    logged = "\n".join(record.getMessage() + str(record.__dict__) for record in caplog.records)
    assert "GET /x?page=1&sasKey=***" in logged  # urllib3 did log the URL
    assert not [form for form in spelled() if form in logged]


def test_negative_control_urllib3_would_log_the_key(stub, make, caplog):
    transport = make()
    library = logging.getLogger("urllib3.connectionpool")
    filters, library.filters = library.filters, []
    try:
        with caplog.at_level(logging.DEBUG):
            transport.get("/x", what="things")
    finally:
        library.filters = filters
    assert any("sasKey=s3cr3t" in record.getMessage() for record in caplog.records)


def test_keys_nobody_told_us_about_are_hidden_by_their_place(caplog):
    Scrubber(["something"])
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("urllib3.connectionpool").debug("GET /?sasKey=%s&page=1", "unheard-of")
        logging.getLogger("urllib3.connectionpool").debug("Authorization: Basic dW5oZWFyZDpvZg==")
    assert "unheard-of" not in caplog.text
    assert "dW5oZWFyZDpvZg" not in caplog.text
    assert "page=1" in caplog.text


def test_many_threads_may_share_a_transport(stub, make, reply):
    stub.answer = lambda asked: reply(200, [int(asked.query["page"])])
    transport = make()
    wrong = []

    def read(first: int) -> None:
        for page in range(first, first + 20):
            body = transport.get("/x", {"page": page}, what="things").body
            if body != [page]:
                wrong.append((page, body))

    threads = [threading.Thread(target=read, args=[100 * n]) for n in range(8)]
    [thread.start() for thread in threads]
    [thread.join(30) for thread in threads]
    assert wrong == []
