"""What passes between the HTTP server and the two services."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sandbox.wire import dumps


@dataclass(frozen=True)
class Credentials:
    """The keys both services accept. The defaults are the documented demo values, not secrets."""

    requester_id: str = "100001"
    sas_key: str = "demo-sas-key"
    company_id: str = "demo"
    public_key: str = "demo-public-key"
    private_key: str = "demo-private-key"
    client_id: str = "00000000-0000-4000-8000-000000000001"


@dataclass(frozen=True)
class Request:
    """One request, as a service sees it. Query names are lower case, path and values are decoded."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    base_url: str = ""
    seq: int | None = None
    by: str = "api"
    # A read with `as_of` sees the additions as they were at that UTC time; with `hide_only` it misses what was
    # created since, but sees the newest state of everything else.
    as_of: str | None = None
    hide_only: bool = False


@dataclass
class Response:
    """One answer. `body` is a JSON value, ready text (str), or None for an empty body."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    text: str | None = None
    applied: bool = False

    def payload(self) -> bytes:
        if self.text is not None:
            return self.text.encode()
        return b"" if self.status == 204 else dumps(self.body).encode()


class Refusal(Exception):
    """A request that is answered with an error; carries the whole response."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"{response.status} {response.body}")
        self.response = response
