"""Reads AppXite's Reporting API. The only module that knows its paths, names and habits.

Contract: include/sandbox/appxite_reporting_api.yaml. A page is a JSON array of objects. Field names are read
case-insensitively and unknown fields are kept as they came: both is the business of `extract`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from datetime import date
from typing import Any
from urllib.parse import quote

from billing_sync.errors import AuthenticationError, ConfigurationError, SourceDataError, TemporaryError
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

log = logging.getLogger(__name__)

CONNECTION = "appxite_api"
MAX_PAGE_SIZE = 1000

_PATH = "/api/v1/reporting"

# A 400 whose prose says that there is nothing: "Nothing could be found for the requested parameters.", "No invoices
# found", "Invoices not found". The same status says that the requester is unknown ("Requester 7 could not be found or
# you have no access to it."), and that must never pass for an empty month.
_EMPTY = re.compile(
    r"(nothing|no (matching )?(data|records?|results?|rows?|items?|invoices?|invoice (headers?|rows?)|organi[sz]ations?"
    r"|contracts?|subscriptions?)) ((could|can) be |(was|were|is|are) )?found\b"
    r"|(data|records?|results?|rows?|invoices?|invoice (headers?|rows?)|organi[sz]ations|contracts|subscriptions)"
    r" ((could|can)(not| not) be|(was|were) not|not) found\b",
    re.IGNORECASE,
)
_NOT_EMPTY = re.compile(r"requester|access|permi|denied|key|unauthori|expired|invalid|not valid", re.IGNORECASE)

# Lines without rowId may be equal, so that a small page may honestly come twice; a large one never does.
_TELLING_PAGE = 10
_EQUAL_SMALL_PAGES = 100

Page = list[dict[str, Any]]


class AppXite:
    """The feeds of one requester (the seller's organization).

    base_url       scheme, host and port, e.g. https://api.telemetry.appxite.com:8449
    requester_id   the seller's organization id
    sas_key        travels in the query of every request, and is never shown
    page_size      rows asked for at once, 1 to 1000
    connection     the id of the Airflow connection, for messages
    """

    def __init__(
        self,
        base_url: str,
        requester_id: str,
        sas_key: str,
        *,
        page_size: int = MAX_PAGE_SIZE,
        connection: str = CONNECTION,
        limits: Limits | None = None,
        verify: bool | str = True,
    ) -> None:
        if not 1 <= page_size <= MAX_PAGE_SIZE:
            raise ValueError(f"page_size is {page_size}, expected 1 to {MAX_PAGE_SIZE}")
        if not requester_id or not sas_key:
            raise ConfigurationError(f"AppXite: connection {connection} has no requester_id or no key (password).")
        self.requester_id = requester_id
        self.connection = connection
        self._page_size = page_size
        self._transport = Transport(
            service="AppXite",
            connection=connection,
            base_url=base_url,
            secret_query={"sasKey": sas_key},
            secrets=[sas_key],
            # One bad number spoils its row, not the month: extract holds that row.
            keep_unreadable=True,
            limits=limits,
            verify=verify,
        )

    def __repr__(self) -> str:
        return f"AppXite({self._transport.host}, requester {self.requester_id})"

    def close(self) -> None:
        self._transport.close()

    # -- feeds: pages of objects as AppXite spells them ------------------------------------------------------------

    def invoice_headers(self, period_first_day: date, period_last_day: date) -> Iterator[Page]:
        """Headers of all invoices out of preview with an invoice date in the period, both days inclusive."""
        return self._pages("/invoices/invoice-headers", "invoice headers", period_first_day, period_last_day)

    def invoice_rows(self, period_first_day: date, period_last_day: date) -> Iterator[Page]:
        """Rows of those invoices, aggregated per subscription and rounded to the cent."""
        return self._pages("/invoices/invoice-rows", "invoice rows", period_first_day, period_last_day)

    def organizations(self) -> Iterator[Page]:
        """Organizations below the requester."""
        return self._pages("/organizations/details", "organizations")

    def contracts(self) -> Iterator[Page]:
        """Invoice contracts, seller to customer."""
        return self._pages("/contracts", "contracts")

    def subscriptions(self) -> Iterator[Page]:
        """Subscriptions of all organizations."""
        return self._pages("/subscriptions", "subscriptions")

    def check(self) -> str:
        """Ask for one organization. Returns a short text for people.

        Raises AuthenticationError (key), ConfigurationError (host, requester id), TemporaryError (not reachable now).
        """
        answer = self._ask("/organizations/details", {"page": 1, "pageSize": 1}, "organizations")
        found = self._rows(answer, "organizations")
        seen = "organizations can be read" if found else "it has no organizations yet"
        return f"AppXite answers as requester {self.requester_id}; {seen}."

    # -- paging ----------------------------------------------------------------------------------------------------

    def _pages(self, path: str, feed: str, first: date | None = None, last: date | None = None) -> Iterator[Page]:
        """All pages of a feed. Errors name the feed, the period and the page.

        The contract says that a page shorter than pageSize is the last. Yet a server that silently caps pageSize (as
        ConnectWise does) would then lose rows, and lost rows are lost revenue: so one page more is asked for, and the
        end is where nothing new comes.
        """
        params: dict[str, str | int] = {"pageSize": self._page_size}
        if first and last:
            params |= {"invoiceDateFrom": first.isoformat(), "invoiceDateTill": last.isoformat()}
            feed = f"{feed} of {first:%Y-%m}"
        number, repeated, previous, previous_is_short = 0, 0, b"", False
        while True:
            number += 1
            what = f"{feed}, page {number}"
            answer = self._ask(path, {**params, "page": number}, what)
            page = self._rows(answer, what)
            if not page:
                return
            if answer.digest == previous:
                if previous_is_short:
                    return
                repeated += 1
                if len(page) >= _TELLING_PAGE or repeated > _EQUAL_SMALL_PAGES:
                    raise TemporaryError(
                        f"AppXite, {what}: it repeats the page before, so that the feed cannot be read to its end. "
                        "Run again; if it stays, AppXite does not page this feed as agreed."
                    )
            else:
                repeated = 0
            previous, previous_is_short = answer.digest, len(page) < self._page_size
            yield page

    def _ask(self, path: str, params: dict[str, str | int], what: str) -> Answer:
        return self._transport.get(f"{_PATH}{path}/{quote(self.requester_id, safe='')}", params, what=what)

    def _rows(self, answer: Answer, what: str) -> Page:
        """The objects of a page; raises for every answer that is not a page and does not say that there is nothing."""
        place = f"AppXite, {what}"
        if answer.status == OK:
            if isinstance(answer.body, list):
                # What is no object has no fields; extract keeps it as a row that cannot be read.
                return [row if isinstance(row, dict) else {"": row} for row in answer.body]
            raise SourceDataError(f"{place}: the answer is not a list of records: {answer.text}")
        said = self._transport.scrub(spell_out(answer.body)) or answer.text
        if answer.status == BAD_REQUEST:
            if _EMPTY.search(said) and not _NOT_EMPTY.search(said):
                return []
            raise ConfigurationError(
                f"{place}: AppXite refuses the request (400): {shorten(said, 300)} "
                f"Check requester_id ({self.requester_id}) of connection {self.connection}."
            )
        if answer.status in (UNAUTHORIZED, FORBIDDEN):
            raise AuthenticationError(
                f"{place}: AppXite refuses the key ({answer.status}): {shorten(said, 300)} "
                f"Put a valid sasKey into the password of connection {self.connection}."
            )
        if answer.status == NOT_FOUND:
            raise ConfigurationError(
                f"{place}: there is no Reporting API at {self._transport.host} (404): {shorten(said, 300)} "
                f"Check the host of connection {self.connection}."
            )
        raise SourceDataError(f"{place}: AppXite answered {answer.status}: {shorten(said, 300)}")
