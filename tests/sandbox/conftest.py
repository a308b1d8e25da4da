"""A running sandbox and plain HTTP clients for both halves. Everything goes over real sockets on loopback."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from sandbox.messages import Credentials
from sandbox.server import Sandbox
from sandbox.wire import dumps, loads

KEYS = Credentials()


class Client:
    """One base URL; numbers of answers are Decimal, numbers of bodies keep their digits."""

    def __init__(self, base: str, headers: dict[str, str] | None = None, **query: str) -> None:
        self.base, self.query = base, query
        self.session = requests.Session()
        self.session.headers.update(headers or {})

    def __call__(
        self, method: str, path: str, body: Any = None, headers: Any = None, **query: Any
    ) -> requests.Response:
        url = path if path.startswith("http") else self.base + path
        data = None if body is None else body if isinstance(body, bytes) else dumps(body).encode()
        return self.session.request(method, url, params={**self.query, **query}, data=data, headers=headers, timeout=10)

    def get(self, path: str, expect: int = 200, **query: Any) -> Any:
        return self.expect(self("GET", path, **query), expect)

    def post(self, path: str, body: Any, expect: int = 201) -> Any:
        return self.expect(self("POST", path, body), expect)

    def patch_json(self, path: str, body: Any, expect: int = 200) -> Any:
        return self.expect(self("PATCH", path, body), expect)

    def patch(self, path: str, *operations: Any, expect: int = 200) -> Any:
        body = [{"op": "replace", "path": name, "value": value} for name, value in operations]
        return self.expect(self("PATCH", path, body), expect)

    def expect(self, response: requests.Response, status: int) -> Any:
        assert response.status_code == status, response.text
        return loads(response.content) if response.content else None


def appxite_client(url: str) -> Client:
    return Client(url + "/api/v1/reporting", sasKey=KEYS.sas_key)


def connectwise_client(url: str) -> Client:
    client = Client(url + "/v4_6_release/apis/3.0", {"clientId": KEYS.client_id})
    client.session.auth = (f"{KEYS.company_id}+{KEYS.public_key}", KEYS.private_key)
    return client


@pytest.fixture
def sandbox(tmp_path: Any) -> Iterator[Sandbox]:
    """A fresh one with few customers, for tests that change something."""
    with Sandbox(tmp_path / "state", customers=3, months=2) as running:
        yield running


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """The default data set, shared by the tests of a module: they only read."""
    with Sandbox(tmp_path_factory.mktemp("whole")) as running:
        yield running


@pytest.fixture
def cw(sandbox: Sandbox) -> Client:
    return connectwise_client(sandbox.url)


@pytest.fixture
def appxite(sandbox: Sandbox) -> Client:
    return appxite_client(sandbox.url)


@pytest.fixture
def whole_cw(whole: Sandbox) -> Client:
    return connectwise_client(whole.url)


@pytest.fixture
def whole_appxite(whole: Sandbox) -> Client:
    return appxite_client(whole.url)


@pytest.fixture
def control(sandbox: Sandbox) -> Client:
    return Client(sandbox.url + "/_sandbox")


@pytest.fixture
def agreement(sandbox: Sandbox) -> dict[str, Any]:
    """An active monthly calendar agreement without proration and without Additions; next invoice 2026-10-01."""
    found = next(a for a in sandbox.agreements() if a["type"]["name"] == "Cloud Subscriptions")
    assert found["nextInvoiceDate"] == "2026-10-01T00:00:00Z"
    for addition in sandbox.additions(found["id"]):
        sandbox.delete_addition(addition["id"])
    return found


@pytest.fixture
def addition() -> dict[str, Any]:
    """The body of an Addition as a client would post it."""
    return {
        "product": {"id": 501},
        "billCustomer": "DoNotBill",
        "quantity": 3,
        "unitPrice": 4,
        "effectiveDate": "2026-10-01T00:00:00Z",
        "customFields": [{"id": 11, "value": "demo:line:1"}],
    }


@pytest.fixture
def path(agreement: dict[str, Any]) -> str:
    return f"/finance/agreements/{agreement['id']}/additions"
