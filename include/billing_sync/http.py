"""HTTP for both services: time-outs, bounds, exact numbers, retries of reads, and no secret in any text.

* A read (GET) is tried again on connection errors, 408, 425, 429, 5xx and on bodies that are not JSON, with
  exponential waits and jitter, or as long as Retry-After says.
* A write (POST, PATCH) is sent once, ever: ConnectWise has no idempotency key.
* Exceptions of requests and urllib3 quote the URL, and AppXite's key is in it: so none of them survives as
  `__cause__` or `__context__` of what is raised here; that is why errors are raised outside their except blocks.
"""

from __future__ import annotations

import hashlib
import json
import logging
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import urlsplit

import requests
import simplejson
import urllib3.exceptions as transport_errors
from requests.auth import AuthBase
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from billing_sync.errors import (
    BillingSyncError,
    ConfigurationError,
    RateLimitedError,
    SourceDataError,
    TemporaryError,
    WriteOutcomeUnknownError,
    WriteRefusedError,
)
from billing_sync.rate_budget import Limiter, Unlimited
from billing_sync.secrets import Scrubber

log = logging.getLogger(__name__)

# -- JSON with exact numbers -------------------------------------------------------------------------------------------

MAX_DIGITS = 34
"""Digits, and places before or after the point, of a number that is taken: far more than money has, and few enough
that no arithmetic on it is expensive (1e400 is refused)."""


class Unreadable:
    """A JSON value that was there but cannot be taken: NaN, a number without bounds, a name given twice.

    Equal to nothing, so that no comparison of money ever succeeds with it. str() is the text, shortened.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = shorten(text)

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Unreadable({self._text!r})"


class UnusableJson(ValueError):
    """The text is JSON, but holds a value that is refused. The message quotes it, shortened."""


def shorten(text: str, limit: int = 80) -> str:
    """At most `limit` characters of a text, on one line."""
    line = " ".join(text[: 4 * limit].split())
    return line if len(line) <= limit and len(text) <= 4 * limit else line[: limit - 1] + "…"


def _number(text: str) -> Decimal | Unreadable:
    if len(text) > 3 * MAX_DIGITS:
        return Unreadable(text)
    try:
        value = Decimal(text)
    except InvalidOperation:  # an exponent beyond what Decimal can hold
        return Unreadable(text)
    _, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or len(digits) > MAX_DIGITS or not -MAX_DIGITS <= exponent <= MAX_DIGITS:
        return Unreadable(text)
    return value


def _whole_number(text: str) -> int | Unreadable:
    return int(text) if len(text) <= MAX_DIGITS else Unreadable(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) == len(pairs):
        return record
    names = [name for name, _ in pairs]
    for name in {name for name in names if names.count(name) > 1}:
        values = [value for given, value in pairs if given == name]
        if any(value != values[0] for value in values[1:]):
            record[name] = Unreadable("given twice: " + ", ".join(shorten(str(value), 20) for value in values))
    return record


def _refuse(value: Any) -> Any:
    if isinstance(value, Unreadable):
        raise UnusableJson(f"cannot be taken: {value}")
    return value


def parse_json(text: str, *, keep_unreadable: bool = False) -> Any:
    """Read JSON: whole numbers as int, others as Decimal, never as float.

    A number without bounds, NaN, Infinity, or a name given twice with different values becomes an `Unreadable`
    (keep_unreadable), or raises UnusableJson. Text that is not JSON raises ValueError.
    """
    decoder: Callable[..., Any] = json.loads
    try:
        if keep_unreadable:
            return decoder(
                text,
                parse_float=_number,
                parse_int=_whole_number,
                parse_constant=Unreadable,
                object_pairs_hook=_object,
            )
        return decoder(
            text,
            parse_float=lambda found: _refuse(_number(found)),
            parse_int=lambda found: _refuse(_whole_number(found)),
            parse_constant=lambda found: _refuse(Unreadable(found)),
            object_pairs_hook=lambda pairs: {name: _refuse(value) for name, value in _object(pairs).items()},
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def write_json(value: Any) -> str:
    """Write JSON; a Decimal keeps its own digits (`5.20` stays `5.20`).

    Raises TypeError for a float (no float touches money) and ValueError for NaN and Infinity.
    """
    return simplejson.dumps(_writable(value), use_decimal=True, allow_nan=False, ensure_ascii=True)


def _writable(value: Any) -> Any:
    if isinstance(value, float):
        raise TypeError(f"a float must not be sent: {value!r}")
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise ValueError(f"{value} must not be sent")
        return Decimal(format(value, "f"))  # 1E+2 is JSON, but not every reader knows
    if isinstance(value, Mapping):
        return {name: _writable(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_writable(item) for item in value]
    return value


def _clock() -> float:
    """Seconds that also pass while the process, or the machine, stands still."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


# -- the transport -----------------------------------------------------------------------------------------------------

OK, BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, NOT_FOUND = 200, 400, 401, 403, 404
TOO_MANY_REQUESTS = 429
_AGAIN = frozenset({408, 425, TOO_MANY_REQUESTS})
_REDIRECTS, _CLIENT_ERRORS, _SERVER_ERRORS = 300, 400, 500

# A write answered so was certainly not applied; everything else that is not 2xx is unknown.
REFUSALS = frozenset({BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, TOO_MANY_REQUESTS})


@dataclass(frozen=True)
class Limits:
    """Bounds of a request. Times in seconds, sizes in bytes (after decompression)."""

    connect: float = 10.0
    read: float = 60.0  # between two packets
    whole: float = 300.0  # for one answer, however slowly it drips
    body: int = 64 * 1024 * 1024
    attempts: int = 5  # of a read
    first_wait: float = 1.0
    noted: float = 30.0  # between noting a write down and sending it
    longest_wait: float = 120.0  # a longer Retry-After is left to the task's own retry
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Answer:
    """What a service answered. body: parsed JSON, or None when it is no JSON (only below status 200 or above 299)."""

    status: int
    body: Any
    text: str  # of the body, shortened and without secrets
    headers: Mapping[str, str] = field(repr=False)
    digest: bytes = field(repr=False)  # of the body, to recognise a page that comes again


@dataclass(frozen=True)
class _Raw:
    status: int
    content: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True)
class _Failure:
    """A request without an answer. sent: whether a byte of it can have reached the service."""

    words: str
    sent: bool
    error: type[BillingSyncError] = TemporaryError  # what a read raises for it


class _Header(AuthBase):
    """Sets Authorization. Also where there is none to set: else requests takes a login from ~/.netrc."""

    def __init__(self, value: str | None) -> None:
        self._value = value

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._value is not None:
            request.headers["Authorization"] = self._value
        return request


class Transport:
    """Requests to one service. Safe to share between threads.

    service, connection   its name and the id of its Airflow connection, for messages: "AppXite", "appxite_api"
    base_url              scheme, host, port, and a path that all resources are below
    authorization         value of the Authorization header
    secret_query          query parameters that are sent but never shown
    keep_unreadable       see parse_json
    verify                True, or the path of a CA bundle (requests)
    """

    def __init__(
        self,
        *,
        service: str,
        connection: str,
        base_url: str,
        headers: Mapping[str, str] | None = None,
        authorization: str | None = None,
        secret_query: Mapping[str, str] | None = None,
        secrets: Iterable[str] = (),
        keep_unreadable: bool = False,
        limits: Limits | None = None,
        limiter: Limiter | None = None,
        verify: bool | str = True,
    ) -> None:
        self.service = service
        self.connection = connection
        self.base_url = base_url.rstrip("/")
        self.scrub = Scrubber(secrets)
        self._secret_query = dict(secret_query or {})
        self._keep_unreadable = keep_unreadable
        self._limits = limits or Limits()
        self._limiter: Limiter = limiter or Unlimited()
        self._session = requests.Session()
        self._session.headers.update({"User-Agent": "billing-sync", "Accept": "application/json", **(headers or {})})
        self._session.auth = _Header(authorization)
        self._session.verify = verify
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError(
                f"{service}: the host of connection {connection} is not an address like https://host:port."
            )
        self.host = parts.netloc.rpartition("@")[2]

    def __repr__(self) -> str:
        return f"Transport({self.service}, {self.host})"

    def close(self) -> None:
        self._session.close()

    # -- reading ---------------------------------------------------------------------------------------------------

    def get(
        self,
        path: str,
        params: Mapping[str, str | int] | None = None,
        *,
        what: str,
        headers: Mapping[str, str] | None = None,
        keep_unreadable: bool = False,
    ) -> Answer:
        """Read a resource, trying again as long as that makes sense.

        keep_unreadable: for this answer, also where the transport does not (see parse_json).
        what: words for messages, e.g. "invoice rows of 2026-05, page 3".
        Returns 2xx with its JSON, and any 4xx that is final. Raises TemporaryError (RateLimitedError on 429) when
        the attempts are used up, ConfigurationError for a redirect or an impossible address, SourceDataError for
        JSON that cannot be taken and for an answer above the size bound.
        """
        backoff = wait_exponential_jitter(
            multiplier=self._limits.first_wait, max=self._limits.longest_wait, jitter=self._limits.first_wait
        )

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            return float(error.retry_after) if isinstance(error, RateLimitedError) else backoff(state)

        def worth_waiting(error: BaseException) -> bool:
            if isinstance(error, RateLimitedError):
                return error.retry_after <= self._limits.longest_wait
            return isinstance(error, TemporaryError)

        def note(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            seconds = state.next_action.sleep if state.next_action else 0
            log.warning("%s Trying again in %.1f s (%d of %d).", error, seconds, state.attempt_number, attempts)

        attempts = self._limits.attempts
        retrying = Retrying(
            stop=stop_after_attempt(attempts),
            wait=wait,
            retry=retry_if_exception(worth_waiting),
            before_sleep=note,
            sleep=self._limits.sleep,
            reraise=True,
        )
        return retrying(self._get_once, path, params or {}, what, headers or {}, keep_unreadable)

    def _get_once(
        self,
        path: str,
        params: Mapping[str, str | int],
        what: str,
        headers: Mapping[str, str],
        keep_unreadable: bool,  # noqa: FBT001  (tenacity hands on what it was given)
    ) -> Answer:
        self._limiter.acquire()
        came = self._request("GET", path, params, None, headers)
        place = f"{self.service}, {what}"
        if isinstance(came, _Failure):
            raise came.error(f"{place}: {came.words} (connection {self.connection}, {self.host}).")
        shown = self._shown(came)
        if came.status == TOO_MANY_REQUESTS:
            seconds = _retry_after(came.headers)
            self._limiter.pause(seconds)
            raise RateLimitedError(
                f"{place}: too many requests (429), again in {seconds} seconds.", retry_after=seconds
            )
        if came.status >= _SERVER_ERRORS or came.status in _AGAIN:
            raise TemporaryError(f"{place}: the service answered {came.status}: {shown}")
        if _REDIRECTS <= came.status < _CLIENT_ERRORS:
            raise ConfigurationError(
                f"{place}: {self.host} answered with a redirect ({came.status}), which is not followed, since it would "
                f"carry the keys elsewhere. Check the host of connection {self.connection}."
            )
        body, problem = self._parsed(came, keep_unreadable=keep_unreadable)
        if problem and came.status < _REDIRECTS:
            if isinstance(problem, UnusableJson):
                raise SourceDataError(f"{place}: the answer holds a value that {problem}")
            raise TemporaryError(f"{place}: the answer is not whole JSON ({self.scrub(str(problem))}): {shown}")
        return Answer(came.status, body, shown, came.headers, hashlib.sha256(came.content).digest())

    # -- writing ---------------------------------------------------------------------------------------------------

    def send(
        self,
        method: Literal["POST", "PATCH"],
        path: str,
        body: Any,
        *,
        what: str,
        note: Callable[[], None] | None = None,
    ) -> Answer:
        """Send a write, once. Returns a 2xx answer whose body is a JSON object.

        note: called when its turn has come, right before it is sent. It may raise; nothing is sent then, nor when this
        process stood still since: by now others may reckon with the request no more.
        Raises WriteRefusedError when it was certainly not applied: nothing was sent (status None), or 400, 401, 403,
        404, 429. Raises WriteOutcomeUnknownError otherwise, 2xx with an unreadable body included. A body that is no
        JSON (float, NaN) raises TypeError or ValueError before anything is sent.
        """
        content = write_json(body).encode()
        place = f"{self.service}, {what}"
        unable: str | None = None
        try:
            self._limiter.acquire()
        except TemporaryError as error:
            unable = str(error)
        if unable is not None:
            raise WriteRefusedError(f"{place}: not sent. {unable}", status=None)
        if note is not None:
            noting = _clock()
            note()
            if _clock() - noting > self._limits.noted:
                raise WriteRefusedError(
                    f"{place}: not sent, since {_clock() - noting:.0f} s have passed since it was noted down.",
                    status=None,
                )
        came = self._request(method, path, {}, content, {"Content-Type": "application/json"})
        if isinstance(came, _Failure):
            words = f"{place}: {came.words} (connection {self.connection}, {self.host})"
            if came.sent:
                raise WriteOutcomeUnknownError(f"{words}. Whether it was applied is not known.")
            raise WriteRefusedError(f"{words}. Nothing was sent.", status=None)
        if came.status == TOO_MANY_REQUESTS:
            self._pause_quietly(_retry_after(came.headers))
        parsed, problem = self._parsed(came)
        shown = self._shown(came)
        if came.status in REFUSALS:
            said = self.scrub(spell_out(parsed)) or shown
            raise WriteRefusedError(f"{place}: refused ({came.status}): {said}", status=came.status)
        if not OK <= came.status < _REDIRECTS:
            raise WriteOutcomeUnknownError(
                f"{place}: the service answered {came.status}; whether it was applied is not known: {shown}"
            )
        if problem or not isinstance(parsed, dict):
            raise WriteOutcomeUnknownError(
                f"{place}: answered {came.status}, but the record that came back cannot be read: {shown}"
            )
        return Answer(came.status, parsed, shown, came.headers, hashlib.sha256(came.content).digest())

    def _pause_quietly(self, seconds: int) -> None:
        # The write's own outcome matters more than whether the pause could be noted down.
        try:
            self._limiter.pause(seconds)
        except BillingSyncError as error:
            log.warning("%s", error)

    # -- what both need --------------------------------------------------------------------------------------------

    def _request(
        self,
        method: str,
        path: str,
        params: Mapping[str, str | int],
        content: bytes | None,
        headers: Mapping[str, str],
    ) -> _Raw | _Failure:
        """One request, its whole body read within the bounds. Never raises an exception of the HTTP library."""
        deadline = time.monotonic() + self._limits.whole
        url = self.base_url + path
        try:
            with self._session.request(
                method,
                url,
                params={**params, **self._secret_query},
                data=content,
                headers=dict(headers),
                timeout=(self._limits.connect, self._limits.read),
                allow_redirects=False,
                stream=True,
            ) as response:
                kept = bytearray()
                # read1 returns what has come; read and iter_content would wait for a full buffer, however slow it is.
                while chunk := response.raw.read1(64 * 1024, decode_content=True):
                    kept += chunk
                    if len(kept) > self._limits.body:
                        words = f"the answer is larger than {self._limits.body:,} bytes"
                        return _Failure(words, sent=True, error=SourceDataError)
                    if time.monotonic() > deadline:
                        return _Failure(f"the answer took longer than {self._limits.whole:g} s", sent=True)
                return _Raw(response.status_code, bytes(kept), response.headers)
        except (requests.RequestException, transport_errors.HTTPError, ValueError, OSError) as error:
            return self._failure(error)

    def _failure(self, error: Exception) -> _Failure:
        """Words for an exception of requests or urllib3, without its own text where that may quote the URL."""
        chain = _chain(error)
        limits = self._limits
        for cause in chain:
            # Order matters: urllib3 counts a failed look-up as a NewConnectionError.
            if isinstance(cause, transport_errors.ConnectTimeoutError) and not isinstance(
                cause, transport_errors.NewConnectionError
            ):
                return _Failure(f"no connection within {limits.connect:g} s", sent=False)
            if isinstance(cause, transport_errors.NameResolutionError):
                return _Failure("the host name cannot be resolved", sent=False)
            if isinstance(cause, transport_errors.NewConnectionError):
                return _Failure("no connection (refused or unreachable)", sent=False)
            if isinstance(cause, ssl.SSLCertVerificationError):
                reason = self.scrub(cause.verify_message)
                return _Failure(f"the TLS certificate is not accepted: {reason}", sent=False, error=ConfigurationError)
            if isinstance(cause, (transport_errors.ReadTimeoutError, requests.ReadTimeout)):
                return _Failure(f"no answer within {limits.read:g} s", sent=True)
            if isinstance(cause, transport_errors.ProxyError):
                return _Failure("the proxy failed", sent=True)
        if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader)):
            words = "the address or a key holds characters that cannot be sent"
            return _Failure(words, sent=False, error=ConfigurationError)
        if isinstance(error, requests.RequestException | transport_errors.HTTPError | OSError):
            return _Failure(f"the connection broke ({type(chain[-1]).__name__})", sent=True)
        # A ValueError that is none of the above comes from building the request: http.client checks what it sends.
        words = "the request could not be built; a key may hold characters that cannot be sent"
        return _Failure(words, sent=False, error=ConfigurationError)

    def _parsed(self, came: _Raw, *, keep_unreadable: bool = False) -> tuple[Any, ValueError | None]:
        keep = keep_unreadable or self._keep_unreadable
        try:
            # No guessing of encodings: JSON is UTF-8 (RFC 8259), and a wrong byte means that the answer is damaged.
            return parse_json(came.content.decode("utf-8-sig"), keep_unreadable=keep), None
        except ValueError as error:
            return None, ValueError(error.reason) if isinstance(error, UnicodeDecodeError) else error

    def _shown(self, came: _Raw) -> str:
        text = came.content[:2000].decode("utf-8", "replace")
        return shorten(self.scrub(text), 300) or "an empty body"


def spell_out(body: Any) -> str:
    """The message of an error body, with each of its errors[]: ConnectWise's two shapes, and AppXite's."""
    if not isinstance(body, dict):
        return ""
    given = {str(name).lower(): value for name, value in body.items()}
    parts = [shorten(str(given["message"]), 500)] if given.get("message") else []
    errors = given.get("errors")
    for entry in errors[:20] if isinstance(errors, list) else []:
        if isinstance(entry, dict) and entry.get("message"):
            where = f"{entry['field']}: " if entry.get("field") else ""
            parts.append(where + shorten(str(entry["message"]), 300))
    return "; ".join(parts)


def _chain(error: BaseException) -> list[BaseException]:
    """The exception and those wrapped in it, outermost first: requests and urllib3 wrap by argument, too."""
    found: list[BaseException] = []
    waiting: list[Any] = [error]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, BaseException) and one not in found:
            found.append(one)
            waiting += [getattr(one, "reason", None), *one.args, one.__cause__, one.__context__]
    return found


def _retry_after(headers: Mapping[str, str], default: int = 30) -> int:
    """Seconds of Retry-After, which is a number or a date; at least 1."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit() and len(text) < len("1000000"):
        return max(1, int(text))
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return default
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(1, int((moment - datetime.now(UTC)).total_seconds()) + 1)
