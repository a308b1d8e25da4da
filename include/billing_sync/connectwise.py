"""Speaks ConnectWise PSA's REST API. The only module that knows its paths and headers.

Records are plain dicts as ConnectWise spells them, numbers int or Decimal.
Reads are tried again; a write is sent once, ever, and ends as applied (a dict), WriteRefusedError (certainly not
applied) or WriteOutcomeUnknownError.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from billing_sync.errors import (
    AuthenticationError,
    ConfigurationError,
    SourceDataError,
    TemporaryError,
    WriteOutcomeUnknownError,
)
from billing_sync.http import (
    BAD_REQUEST,
    FORBIDDEN,
    NOT_FOUND,
    OK,
    UNAUTHORIZED,
    Answer,
    Limits,
    Transport,
    shorten,
    spell_out,
)
from billing_sync.rate_budget import Limiter
from billing_sync.secrets import basic_token

log = logging.getLogger(__name__)

CONNECTION = "connectwise_api"
DEFAULT_API_VERSION = "2025.8"
MAX_PAGE_SIZE = 1000

_PATH = "/v4_6_release/apis/3.0"
_REDIRECTS = 300

Record = dict[str, Any]
Page = list[Record]

_MIDNIGHT = re.compile(r"(\d{4}-\d{2}-\d{2})(?:T00:00:00(?:\.0+)?Z)?")


def api_date(value: object) -> date | None:
    """A date as ConnectWise writes it (`2026-05-01T00:00:00Z`); None where it is not set (absent or "").

    Raises SourceDataError for anything else, a time of day other than midnight UTC included: it may be another day
    elsewhere, and which one is billed is not ours to guess.
    """
    if value is None or value == "":
        return None
    match = _MIDNIGHT.fullmatch(value) if isinstance(value, str) else None
    try:
        if match:
            return date.fromisoformat(match[1])
    except ValueError:
        pass
    raise SourceDataError(f"ConnectWise: {shorten(str(value))!r} is not a date like 2026-05-01T00:00:00Z.")


def to_api_date(day: date) -> str:
    """A date as ConnectWise wants it: midnight UTC."""
    return f"{day.isoformat()}T00:00:00Z"


class ConnectWise:
    """One company's ConnectWise, through one API member.

    base_url      scheme and host, e.g. https://api-eu.myconnectwise.net; the path of the API is added
    company_id    the login company; with the keys it makes the Basic header
    client_id     the GUID of the integration, on every call
    api_version   pinned in Accept, e.g. 2025.8
    read_only     no write can be made: a dry run cannot write, whatever its code does
    limiter       the budget of requests that all workers share
    connection    the id of the Airflow connection, for messages
    """

    def __init__(
        self,
        base_url: str,
        company_id: str,
        public_key: str,
        private_key: str,
        client_id: str,
        api_version: str = DEFAULT_API_VERSION,
        *,
        read_only: bool = False,
        limiter: Limiter | None = None,
        page_size: int = MAX_PAGE_SIZE,
        connection: str = CONNECTION,
        limits: Limits | None = None,
        verify: bool | str = True,
    ) -> None:
        if not 1 <= page_size <= MAX_PAGE_SIZE:
            raise ValueError(f"page_size is {page_size}, expected 1 to {MAX_PAGE_SIZE}")
        given = {"company_id": company_id, "login": public_key, "password": private_key, "client_id": client_id}
        missing = [name for name, value in given.items() if not value]
        if missing:
            raise ConfigurationError(f"ConnectWise: connection {connection} has no {', '.join(missing)}.")
        if not re.fullmatch(r"\d{4}\.\d{1,2}", api_version):
            raise ConfigurationError(
                f"ConnectWise: connection {connection} has api_version {shorten(api_version)!r}, expected e.g. 2025.8."
            )
        self.company_id = company_id
        self.connection = connection
        self.read_only = read_only
        self._page_size = page_size
        token = basic_token(f"{company_id}+{public_key}", private_key)
        root = base_url.rstrip("/").removesuffix(_PATH)
        self._transport = Transport(
            service="ConnectWise",
            connection=connection,
            base_url=root,
            authorization=f"Basic {token}",
            headers={
                "clientId": client_id,
                "Accept": f"application/vnd.connectwise.com+json; version={api_version}",
            },
            secrets=[private_key, public_key, token, client_id],
            limits=limits,
            limiter=limiter,
            verify=verify,
        )

    def __repr__(self) -> str:
        mode = ", read only" if self.read_only else ""
        return f"ConnectWise({self._transport.host}, company {self.company_id}{mode})"

    def close(self) -> None:
        self._transport.close()

    # -- is everything there? --------------------------------------------------------------------------------------

    def check(self) -> str:
        """Ask who the company is, then for one record of each kind that a run reads. Returns a short text for people.

        Raises ConfigurationError (host, company, api_version), AuthenticationError (keys, clientId, permissions),
        TemporaryError (not reachable now).
        """
        what = "company info"
        answer = self._transport.get(f"/login/companyinfo/{quote(self.company_id, safe='')}", what=what)
        if answer.status != OK:
            raise ConfigurationError(
                f"ConnectWise: {self._transport.host} does not answer as ConnectWise ({answer.status}). "
                f"Check the host of connection {self.connection}."
            )
        if not isinstance(answer.body, dict):
            raise ConfigurationError(
                f"ConnectWise: {self._transport.host} does not know the company {self.company_id!r}. "
                f"Check company_id of connection {self.connection}, and that its host is the region of this company."
            )
        for path, records in (
            ("/company/companies", "companies"),
            ("/finance/agreements", "agreements"),
            ("/finance/agreements/types", "agreement types"),
            ("/finance/billingCycles", "billing cycles"),
            ("/procurement/catalog", "products"),
        ):
            self._read(path, {"pageSize": 1, "fields": "id"}, records)
        return f"ConnectWise answers as company {self.company_id}; all that a run reads can be read."

    # -- reading: pages of records ---------------------------------------------------------------------------------

    def companies(self) -> Iterator[Page]:
        return self._pages("/company/companies", "companies", is_reference=True)

    def products(self) -> Iterator[Page]:
        """Catalog items."""
        return self._pages("/procurement/catalog", "products", is_reference=True)

    def agreement_types(self) -> Iterator[Page]:
        return self._pages("/finance/agreements/types", "agreement types", is_reference=True)

    def billing_cycles(self) -> Iterator[Page]:
        return self._pages("/finance/billingCycles", "billing cycles", is_reference=True)

    def agreements(self) -> Iterator[Page]:
        return self._pages("/finance/agreements", "agreements", is_reference=True)

    def agreements_of(self, company_id: int) -> Iterator[Page]:
        """All agreements of a company."""
        return self._pages(
            "/finance/agreements", f"agreements of company {company_id}", conditions=f"company/id = {company_id:d}"
        )

    def agreement(self, agreement_id: int) -> Record | None:
        """One agreement; None if there is none of that id."""
        return self._one(f"/finance/agreements/{agreement_id:d}", f"agreement {agreement_id}")

    def additions(self, agreement_id: int) -> Iterator[Page]:
        """All Additions of an agreement; no page if ConnectWise has no such agreement (any more)."""
        path, what = f"/finance/agreements/{agreement_id:d}/additions", f"Additions of agreement {agreement_id}"
        return self._pages(path, what, absent_is_empty=True)

    def addition(self, agreement_id: int, addition_id: int) -> Record | None:
        """One Addition; None if there is none of that id in that agreement."""
        path = f"/finance/agreements/{agreement_id:d}/additions/{addition_id:d}"
        return self._one(path, f"Addition {addition_id} of agreement {agreement_id}")

    # -- writing ---------------------------------------------------------------------------------------------------

    def create_agreement(self, body: Mapping[str, Any], *, note: Callable[[], None] | None = None) -> Record:
        """POST an agreement, once. Returns the record as stored, its id included.

        note: as for create_addition. Raises WriteRefusedError, WriteOutcomeUnknownError, or ConfigurationError if this
        client is read-only.
        """
        return self._write(
            "POST", "/finance/agreements", dict(body), f"new agreement {shorten(str(body['name']))}", note
        )

    def create_addition(
        self, agreement_id: int, body: Mapping[str, Any], *, note: Callable[[], None] | None = None
    ) -> Record:
        """POST an Addition, once. Returns the record as stored, its id included.

        note: called right before it is sent; what it raises is raised, and nothing is sent.

        Raises WriteRefusedError, WriteOutcomeUnknownError, or ConfigurationError if this client is read-only.
        """
        path = f"/finance/agreements/{agreement_id:d}/additions"
        return self._write("POST", path, dict(body), f"new Addition in agreement {agreement_id}", note)

    def patch_addition(
        self,
        agreement_id: int,
        addition_id: int,
        operations: Sequence[Mapping[str, Any]],
        *,
        note: Callable[[], None] | None = None,
    ) -> Record:
        """PATCH an Addition, once. Returns the record as stored.

        note: as for create_addition.

        operations: `{"op": "replace", "path": "unitPrice", "value": Decimal("5.20")}`. A path is a bare field name:
        ConnectWise answers a sub-path with 200 and changes nothing, so ValueError is raised for one.
        Raises WriteRefusedError, WriteOutcomeUnknownError, or ConfigurationError if this client is read-only.
        """
        for operation in operations:
            path = operation.get("path")
            if not isinstance(path, str) or not re.fullmatch(r"[A-Za-z]+", path):
                raise ValueError(f"{path!r} is not a bare field name: ConnectWise would ignore it")
        resource = f"/finance/agreements/{agreement_id:d}/additions/{addition_id:d}"
        what = f"Addition {addition_id} of agreement {agreement_id}"
        return self._write("PATCH", resource, list(operations), what, note)

    def _write(self, method: str, path: str, body: Any, what: str, note: Callable[[], None] | None) -> Record:
        if self.read_only:
            raise ConfigurationError(f"ConnectWise, {what}: not written, since this is a dry run.")
        answer = self._transport.send("POST" if method == "POST" else "PATCH", _PATH + path, body, what=what, note=note)
        record: Record = answer.body
        if not isinstance(record.get("id"), int):
            raise WriteOutcomeUnknownError(
                f"ConnectWise, {what}: answered {answer.status}, but without the id of a record: {answer.text}"
            )
        return record

    # -- how reading works -----------------------------------------------------------------------------------------

    def _pages(
        self,
        path: str,
        what: str,
        *,
        absent_is_empty: bool = False,
        is_reference: bool = False,
        conditions: str | None = None,
    ) -> Iterator[Page]:
        """All pages, forward-only where the server knows that: it goes by id, so that a record created or deleted
        meanwhile moves no other one to a page already read. A server that does not know it pages by number. Either
        way the Link header says which page is next, and its absence that there is none.

        conditions: numeric ids only; how ConnectWise escapes texts in them is not documented.
        is_reference: no money in it. A record that cannot be read is left to `extract`, instead of stopping the night.
        """
        every: dict[str, str | int] = {"pageSize": self._page_size}
        if conditions is not None:
            every["conditions"] = conditions
        params = every
        asked: set[tuple[str, str]] = set()
        number = 0
        while True:
            number += 1
            place = f"{what}, page {number}"
            answer = self._read(
                path, params, place, absent_is_empty=absent_is_empty and number == 1, keep_unreadable=is_reference
            )
            if answer is None:
                log.warning("ConnectWise, %s: there is no such agreement (404)", what)
                return
            page = answer.body
            if not isinstance(page, list) or not all(isinstance(record, dict) for record in page):
                raise SourceDataError(f"ConnectWise, {place}: the answer is not a list of records: {answer.text}")
            if page:
                yield page
            following = self._next(answer)
            if following is None:
                return
            if following in asked:
                raise TemporaryError(f"ConnectWise, {place}: the next page is one that was read already. Run again.")
            asked.add(following)
            params = {**every, following[0]: following[1]}

    def _next(self, answer: Answer) -> tuple[str, str] | None:
        """("page" or "pageId", value) of the next page by the Link header, or None on the last.

        Only these are taken from the link: following it as it stands would carry the keys to wherever it points.
        """
        for match in re.finditer(r"<([^>]*)>\s*;([^,<]*)", answer.headers.get("Link", "")):
            if re.search(r'\brel\s*=\s*"?next\b', match[2], re.IGNORECASE):
                query = {name.lower(): values[-1] for name, values in parse_qs(urlsplit(match[1]).query).items()}
                for name in ("pageId", "page"):
                    value = query.get(name.lower(), "")
                    if value.isascii() and value.isdigit():
                        return name, value
                raise SourceDataError("ConnectWise: a Link header names a next page without saying which.")
        return None

    def _one(self, path: str, what: str) -> Record | None:
        answer = self._read(path, {}, what, absent_is_empty=True)
        if answer is None:
            return None
        if not isinstance(answer.body, dict) or not isinstance(answer.body.get("id"), int):
            raise SourceDataError(f"ConnectWise, {what}: the answer is not a record: {answer.text}")
        return answer.body

    def _read(
        self,
        path: str,
        params: Mapping[str, str | int],
        what: str,
        *,
        absent_is_empty: bool = False,
        keep_unreadable: bool = False,
    ) -> Answer | None:
        """A 2xx answer; None for a record that does not exist (absent_is_empty)."""
        headers = {"pagination-type": "forward-only"}
        answer = self._transport.get(_PATH + path, params, what=what, headers=headers, keep_unreadable=keep_unreadable)
        if OK <= answer.status < _REDIRECTS:
            return answer
        said = shorten(self._transport.scrub(spell_out(answer.body)) or answer.text, 500)
        place = f"ConnectWise, {what}"
        if answer.status == NOT_FOUND and absent_is_empty:
            # On cloud, bad keys answer 404 as well. "This Addition is gone" must not be concluded from that, so a
            # resource that is always there is asked for: it raises if the keys are the reason.
            self._read("/finance/agreements", {"pageSize": 1, "fields": "id"}, "agreements")
            return None
        if answer.status in (UNAUTHORIZED, NOT_FOUND):
            raise AuthenticationError(
                f"{place}: ConnectWise refuses the keys ({answer.status}; on cloud bad keys may answer 404): {said} "
                f"Check login (public key), password (private key) and company_id of connection {self.connection}."
            )
        if answer.status == FORBIDDEN:
            raise AuthenticationError(
                f"{place}: ConnectWise refuses access (403): {said} Check client_id of connection {self.connection}, "
                f"and that the security role of the API member may inquire this."
            )
        if answer.status == BAD_REQUEST:
            raise ConfigurationError(
                f"{place}: ConnectWise refuses the request (400): {said} "
                f"Check api_version of connection {self.connection}."
            )
        raise SourceDataError(f"{place}: ConnectWise answered {answer.status}: {said}")
