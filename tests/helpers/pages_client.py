"""The pages of a billing database, asked over HTTP as a person."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from pages_server import pages_server


class Pages:
    """The API below /billing/api. Money arrives as text, as the pages get it."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._client = httpx.Client(timeout=60)

    def close(self) -> None:
        self._client.close()

    def ask(
        self, method: str, path: str, body: Any = None, *, person: str | None = None, **query: Any
    ) -> httpx.Response:
        """Any answer. person: "bob:read,edit" instead of ann, who may do everything."""
        headers = {"Origin": self._address.removesuffix("/billing")}
        if person is not None:
            headers["X-Test-Person"] = person
        if method != "GET":
            headers["X-Billing-Request"] = "1"
        return self._client.request(method, f"{self._address}/api/{path}", json=body, params=query, headers=headers)

    def get(self, path: str, **query: Any) -> Any:
        """What a GET that works gives."""
        return self._json(self.ask("GET", path, **query))

    def send(self, method: str, path: str, body: Any) -> Any:
        """What a write that works gives."""
        return self._json(self.ask(method, path, body))

    def refused(self, method: str, path: str, body: Any = None, **query: Any) -> tuple[int, str]:
        """Status and message of what does not work."""
        answer = self.ask(method, path, body, **query)
        assert answer.status_code >= 400, answer.text
        return answer.status_code, answer.json()["message"]

    @staticmethod
    def _json(answer: httpx.Response) -> Any:
        assert answer.status_code < 300, f"{answer.status_code} {answer.text}"
        return answer.json()


@contextmanager
def pages_of(dsn: str) -> Iterator[Pages]:
    """The pages of a database; person ann may do everything."""
    with pages_server(dsn) as address:
        pages = Pages(address)
        try:
            yield pages
        finally:
            pages.close()
