"""ConnectWise's client against the sandbox, whose journal says what was really applied."""

from __future__ import annotations

import base64
from datetime import date
from decimal import Decimal

import pytest

from billing_sync.connectwise import ConnectWise, api_date, to_api_date
from billing_sync.errors import (
    AuthenticationError,
    ConfigurationError,
    SourceDataError,
    TemporaryError,
    WriteOutcomeUnknownError,
    WriteRefusedError,
)
from billing_sync.http import Limits

GUID = "00000000-0000-4000-8000-000000000001"
QUICK = Limits(connect=5, read=20, attempts=3, first_wait=0.0, sleep=lambda _: None)
HASTY = Limits(connect=5, read=0.7, attempts=1)


def client(url: str, company="demo", public="demo-public-key", private="demo-private-key", guid=GUID, **options):
    return ConnectWise(url, company, public, private, guid, **{"limits": QUICK, **options})


@pytest.fixture
def connectwise(sandbox):
    return client(sandbox.url)


@pytest.fixture
def agreement(sandbox) -> int:
    records = sandbox.store.records("agreement")
    return min(number for number, one in records.items() if one["agreementStatus"] == "Active")


@pytest.fixture
def body(sandbox):
    product = next(
        number
        for number, one in sandbox.store.records("product").items()
        if not one["inactiveFlag"] and one["productClass"] != "Bundle"
    )
    return {
        "product": {"id": product},
        "billCustomer": "DoNotBill",
        "quantity": Decimal("3"),
        "unitPrice": Decimal("5.20"),
        "serialNumber": "ENV:test:1",
    }


def ids(pages) -> list[int]:
    return [record["id"] for page in pages for record in page]


# -- dates -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, ""])
def test_an_unset_date_is_none(value):
    assert api_date(value) is None


@pytest.mark.parametrize("value", ["2026-05-01T00:00:00Z", "2026-05-01T00:00:00.000Z", "2026-05-01"])
def test_a_date_is_midnight_utc(value):
    assert api_date(value) == date(2026, 5, 1)


@pytest.mark.parametrize(
    "value", ["2026-05-01T05:00:00Z", "2026-13-01T00:00:00Z", "tomorrow", 5, True, [], "2026-05-01 "]
)
def test_anything_else_is_no_date(value):
    with pytest.raises(SourceDataError):
        api_date(value)


def test_dates_go_there_and_back():
    assert to_api_date(date(2026, 5, 1)) == "2026-05-01T00:00:00Z"
    assert to_api_date(date(800, 1, 2)) == "0800-01-02T00:00:00Z"
    assert api_date(to_api_date(date(2026, 12, 31))) == date(2026, 12, 31)


# -- reading -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page_size", [1, 3, 23, 47, 69, 1000])
def test_every_list_arrives_whole_at_any_page_size(sandbox_session, page_size):
    connectwise = client(sandbox_session.url, page_size=page_size)
    for method, kind in {
        "companies": "company",
        "products": "product",
        "agreement_types": "agreementType",
        "billing_cycles": "billingCycle",
        "agreements": "agreement",
    }.items():
        assert ids(getattr(connectwise, method)()) == sorted(sandbox_session.store.records(kind))
    number = max(sandbox_session.store.records("agreement"), key=lambda n: len(sandbox_session.store.additions(n)))
    assert ids(connectwise.additions(number)) == sorted(sandbox_session.store.additions(number))


def test_a_server_that_pages_by_number_is_read_whole(stub, reply):
    """Forward-only paging is asked for; an older server ignores that, and its Link header counts pages."""

    def answer(asked):
        page = int(asked.query.get("page", 1))
        link = f'<{stub.url}/x?pageSize=2&page={page + 1}>; rel="next", <{stub.url}/x?page=4>; rel="last"'
        return reply(200, [{"id": page * 10}, {"id": page * 10 + 1}], {"Link": link} if page < 4 else {})

    stub.answer = answer
    assert ids(client(stub.url, page_size=2).companies()) == [10, 11, 20, 21, 30, 31, 40, 41]


def test_the_end_is_where_the_link_header_says_and_not_where_a_page_is_short(stub, reply):
    stub.replies = [
        reply(200, [{"id": 1}], {"Link": f'<{stub.url}/x?pageId=1>; rel="next"'}),
        reply(200, [], {"Link": f"<{stub.url}/x?PAGEID=2>; rel=next"}),
        reply(200, [{"id": 3}]),
    ]
    assert ids(client(stub.url).companies()) == [1, 3]
    assert [asked.query.get("pageId") for asked in stub.asked] == [None, "1", "2"]


def test_a_link_to_elsewhere_does_not_carry_the_keys_there(stub, reply):
    stub.replies = [reply(200, [{"id": 1}], {"Link": '<http://evil.invalid/x?pageId=1>; rel="next"'}), reply(200, [])]
    assert ids(client(stub.url).companies()) == [1]
    assert len(stub.asked) == 2


def test_links_that_lead_in_a_circle_end_as_an_error(stub, reply):
    stub.replies = [reply(200, [{"id": 1}], {"Link": f'<{stub.url}/x?pageId=1>; rel="next"'})]
    with pytest.raises(TemporaryError, match="read already"):
        list(client(stub.url).companies())
    assert len(stub.asked) == 2


@pytest.mark.parametrize("body", [{"id": 1}, None, "x", [1], [None]])
def test_a_page_that_is_no_list_of_records_is_refused(stub, reply, body):
    stub.replies = [reply(200, body)]
    with pytest.raises(SourceDataError, match="companies, page 1"):
        list(client(stub.url).companies())


def test_every_request_carries_keys_client_id_and_version(stub, reply):
    list(client(stub.url, api_version="2024.1").companies())
    headers = stub.asked[0].headers
    assert base64.b64decode(headers["authorization"].removeprefix("Basic ")) == b"demo+demo-public-key:demo-private-key"
    assert headers["clientid"] == GUID
    assert headers["accept"] == "application/vnd.connectwise.com+json; version=2024.1"
    assert stub.asked[0].path == "/v4_6_release/apis/3.0/company/companies"


def test_the_address_may_hold_the_path_of_the_api(sandbox_session):
    assert len(ids(client(sandbox_session.url + "/v4_6_release/apis/3.0/").agreement_types())) == 3


def test_one_record_or_none(connectwise, agreement, body):
    assert connectwise.agreement(agreement)["id"] == agreement
    assert connectwise.agreement(999999) is None
    created = connectwise.create_addition(agreement, body)
    assert connectwise.addition(agreement, created["id"])["unitPrice"] == Decimal("5.20")
    assert connectwise.addition(agreement, 999999) is None


@pytest.mark.parametrize("status", [401, 404])
def test_bad_keys_never_look_as_if_a_record_were_gone(sandbox, agreement, status):
    """On cloud bad keys answer 404: concluding that an Addition was deleted would bill it again."""
    sandbox.change_settings(bad_keys_status=status)
    connectwise = client(sandbox.url, private="wrong-private")
    for read in (
        lambda: connectwise.agreement(agreement),
        lambda: connectwise.addition(agreement, 1),
        lambda: list(connectwise.additions(agreement)),
        lambda: list(connectwise.companies()),
    ):
        with pytest.raises(AuthenticationError, match=rf"refuses the keys \({status}"):
            read()


@pytest.mark.parametrize("fault", ["status", "reset", "truncated", "invalid_json"])
def test_a_read_survives_a_fault_that_passes(sandbox, connectwise, fault):
    sandbox.add_fault(fault, service="connectwise", count=2)
    assert len(ids(connectwise.companies())) == len(sandbox.store.records("company"))


@pytest.mark.parametrize("fault", ["status", "reset", "truncated", "invalid_json"])
def test_a_fault_that_stays_names_the_list_and_the_page(sandbox, fault):
    sandbox.add_fault(fault, service="connectwise", skip=1)
    with pytest.raises(TemporaryError, match="ConnectWise, companies, page 2: "):
        list(client(sandbox.url, page_size=10).companies())


def test_too_many_requests_end_as_temporary_when_they_do_not_stop(sandbox, connectwise):
    sandbox.change_settings(requests_per_minute=0)
    with pytest.raises(TemporaryError, match="429"):
        list(connectwise.companies())


# -- check -------------------------------------------------------------------------------------------------------------


def test_check_passes(sandbox_session):
    assert "company demo" in client(sandbox_session.url).check()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"company": "other"}, ConfigurationError, "does not know the company 'other'. Check company_id of connection"),
        ({"private": "wrong-key"}, AuthenticationError, "refuses the keys.*password"),
        ({"public": "wrong-key"}, AuthenticationError, "refuses the keys.*login"),
        ({"guid": "another-guid"}, AuthenticationError, "403.*client_id"),
        ({"api_version": "2999.1"}, ConfigurationError, "newer than.*api_version"),
    ],
)
def test_check_says_what_is_wrong(sandbox_session, options, error, words):
    with pytest.raises(error, match=words) as caught:
        client(sandbox_session.url, connection="my_connectwise", **options).check()
    assert "my_connectwise" in str(caught.value)


def test_check_names_the_permission_that_is_missing(sandbox):
    sandbox.add_fault("status", service="connectwise", path="/procurement/catalog", params={"status": 403})
    with pytest.raises(AuthenticationError, match=r"products: .*security role"):
        client(sandbox.url).check()


def test_check_tells_a_host_that_is_something_else(stub, reply, closed_port):
    stub.replies = [reply(404, b"<h1>nginx</h1>")]
    with pytest.raises(ConfigurationError, match="does not answer as ConnectWise"):
        client(stub.url).check()
    with pytest.raises(TemporaryError, match="no connection"):
        client(f"http://127.0.0.1:{closed_port}").check()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"company": ""}, "company_id"),
        ({"private": "", "guid": ""}, "password, client_id"),
        ({"api_version": "x"}, "'x'"),
    ],
)
def test_a_client_without_its_fields_is_not_made(options, words):
    with pytest.raises(ConfigurationError, match=words):
        client("https://example.com", **options)


# -- writing -----------------------------------------------------------------------------------------------------------


def applied(sandbox) -> int:
    return len([entry for entry in sandbox.journal() if entry["operation"].startswith("addition.")])


def received(sandbox, method: str) -> int:
    return sandbox.store.db.execute("select count(*) from requests where method = ?", (method,)).fetchone()[0]


def test_an_addition_is_created_changed_and_read_back_to_the_digit(sandbox, connectwise, agreement, body):
    created = connectwise.create_addition(agreement, {**body, "effectiveDate": to_api_date(date(2026, 12, 1))})
    assert (created["unitPrice"], created["extPrice"]) == (Decimal("5.20"), Decimal("15.60"))
    assert api_date(created["effectiveDate"]) == date(2026, 12, 1)
    changes = [
        {"op": "replace", "path": "unitPrice", "value": Decimal("7.1000")},
        {"op": "replace", "path": "billCustomer", "value": "Billable"},
    ]
    changed = connectwise.patch_addition(agreement, created["id"], changes)
    assert changed["extPrice"] == Decimal("21.30")
    assert connectwise.addition(agreement, created["id"]) == changed
    assert applied(sandbox) == 2


WRITES = {
    "POST": lambda connectwise, created, body: connectwise.create_addition(created["agreementId"], body),
    "PATCH": lambda connectwise, created, body: connectwise.patch_addition(
        created["agreementId"], created["id"], [{"op": "replace", "path": "quantity", "value": body["quantity"] + 1}]
    ),
}


@pytest.mark.parametrize("method", WRITES)
@pytest.mark.parametrize(
    ("fault", "error", "is_applied"),
    [
        ({"kind": "status", "params": {"status": 400}}, WriteRefusedError, False),
        ({"kind": "status", "params": {"status": 401}}, WriteRefusedError, False),
        ({"kind": "status", "params": {"status": 403}}, WriteRefusedError, False),
        ({"kind": "status", "params": {"status": 404}}, WriteRefusedError, False),
        ({"kind": "status", "params": {"status": 429}}, WriteRefusedError, False),
        ({"kind": "status", "params": {"status": 500}}, WriteOutcomeUnknownError, False),
        ({"kind": "status", "params": {"status": 409}}, WriteOutcomeUnknownError, False),
        ({"kind": "reset"}, WriteOutcomeUnknownError, False),
        ({"kind": "status_after", "params": {"status": 500}}, WriteOutcomeUnknownError, True),
        ({"kind": "status_after", "params": {"status": 504}}, WriteOutcomeUnknownError, True),
        ({"kind": "lost_reply"}, WriteOutcomeUnknownError, True),
        ({"kind": "lost_reply", "params": {"reset": True}}, WriteOutcomeUnknownError, True),
        ({"kind": "late", "params": {"delay": None}}, WriteOutcomeUnknownError, False),
        ({"kind": "late", "params": {"delay": None, "connection": "hang"}}, WriteOutcomeUnknownError, False),
        ({"kind": "truncated"}, WriteOutcomeUnknownError, True),
        ({"kind": "invalid_json"}, WriteOutcomeUnknownError, True),
        ({"kind": "slow_body", "params": {"seconds": 4, "chunks": 2}}, WriteOutcomeUnknownError, True),
        ({"kind": "delay", "params": {"seconds": 2}}, WriteOutcomeUnknownError, True),
    ],
    ids=lambda value: (
        f"{value['kind']}-{value.get('params', {}).get('status', '')}" if isinstance(value, dict) else None
    ),
)
def test_the_outcome_of_a_write_under_each_fault(
    sandbox, connectwise, agreement, body, method, fault, error, is_applied
):
    """One request, whatever happens, and never a refusal of what was applied."""
    created = connectwise.create_addition(agreement, body)
    before, posts = applied(sandbox), received(sandbox, method)
    sandbox.add_fault(**fault, method=method)
    with pytest.raises(error) as caught:
        WRITES[method](client(sandbox.url, limits=HASTY), created, body)
    assert received(sandbox, method) == posts + 1
    if error is WriteRefusedError:
        assert caught.value.status == fault["params"]["status"]
    if fault["kind"] == "delay":  # the sandbox applies it when the client is gone
        for _ in range(50):
            if applied(sandbox) > before:
                break
            sandbox.stopping.wait(0.1)
    assert applied(sandbox) == before + is_applied


def test_connectwise_says_itself_why_it_refuses(connectwise, agreement, body):
    with pytest.raises(WriteRefusedError) as caught:
        connectwise.create_addition(agreement, {**body, "effectiveDate": to_api_date(date(2020, 1, 1))})
    assert caught.value.status == 400
    assert f"new Addition in agreement {agreement}: refused (400): Addition object is invalid; " in str(caught.value)
    assert "effectiveDate: " in str(caught.value)


def test_nothing_is_sent_to_nobody(closed_port, body):
    with pytest.raises(WriteRefusedError, match="Nothing was sent") as caught:
        client(f"http://127.0.0.1:{closed_port}").create_addition(1, body)
    assert caught.value.status is None


@pytest.mark.parametrize("answer", [{}, {"id": None}, {"id": "5"}])
def test_a_record_without_an_id_leaves_the_outcome_unknown(stub, reply, body, answer):
    stub.replies = [reply(201, answer)]
    with pytest.raises(WriteOutcomeUnknownError, match="without the id"):
        client(stub.url).create_addition(1, body)
    assert len(stub.asked) == 1


@pytest.mark.parametrize("path", ["product/id", "/quantity", "customFields[0]", "", None])
def test_a_patch_that_connectwise_would_ignore_is_not_sent(stub, path):
    with pytest.raises(ValueError, match="bare field name"):
        client(stub.url).patch_addition(1, 2, [{"op": "replace", "path": path, "value": 1}])
    assert stub.asked == []


def test_a_read_only_client_sends_nothing(stub, body):
    connectwise = client(stub.url, read_only=True)
    with pytest.raises(ConfigurationError, match="not written, since this is a dry run"):
        connectwise.create_addition(1, body)
    with pytest.raises(ConfigurationError, match="not written, since this is a dry run"):
        connectwise.patch_addition(1, 2, [{"op": "replace", "path": "quantity", "value": 1}])
    assert stub.asked == []


def test_every_request_asks_the_budget_first(sandbox, agreement, body):
    class Budget:
        taken = 0
        paused = ()

        def acquire(self):
            self.taken += 1

        def pause(self, seconds):
            self.paused = (*self.paused, seconds)

    budget = Budget()
    connectwise = client(sandbox.url, limiter=budget)
    list(connectwise.companies())
    created = connectwise.create_addition(agreement, body)
    connectwise.patch_addition(agreement, created["id"], [{"op": "replace", "path": "quantity", "value": 2}])
    requests = sandbox.store.db.execute("select count(*) from requests").fetchone()[0]
    assert budget.taken == requests == 3
    sandbox.add_fault("status", method="POST", params={"status": 429, "headers": {"Retry-After": "11"}})
    with pytest.raises(WriteRefusedError):
        connectwise.create_addition(agreement, body)
    assert budget.paused == (11,)


def test_representation_holds_no_key():
    shown = repr(client("https://example.com", read_only=True))
    assert shown == "ConnectWise(example.com, company demo, read only)"
