"""Keeps keys out of every text that leaves the process: messages, log lines, representations.

AppXite's key travels in the URL, and urllib3 logs URLs. So each client makes a `Scrubber` of its secrets, and the
loggers of the HTTP libraries get a filter that removes what any scrubber knows.
"""

from __future__ import annotations

import base64
import json
import logging
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

HIDDEN = "***"

# What must go even if nobody has told us the value: a key in a query, a Basic or Bearer header.
_PATTERNS = (
    (re.compile(r"(?i)(saskey(?:=|%3d))[^&\s\"'<>)]*"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)\b(basic|bearer)(\s+)[A-Za-z0-9+/=_.\-]{8,}"), rf"\1\2{HIDDEN}"),
)

# A logger's filter sees the records of that very logger only, not those of its children: hence each by its name.
_LOGGERS = ("urllib3", "urllib3.connection", "urllib3.connectionpool", "urllib3.poolmanager", "urllib3.util.retry")
_SHORTEST = 3  # replacing a one-letter "secret" would garble every message and protect nothing


def spellings(secret: str) -> set[str]:
    """How a secret may stand in a text: as it is, URL-quoted, Base64, escaped in JSON or by repr()."""
    raw = secret.encode("utf-8", "surrogatepass")
    return {
        secret,
        quote(raw, safe=""),
        quote(raw),
        quote_plus(raw),
        base64.b64encode(raw).decode(),
        json.dumps(secret)[1:-1],
        repr(secret)[1:-1],
    }


def basic_token(user: str, password: str) -> str:
    """The Base64 part of a Basic Authorization header. As secret as what is in it."""
    return base64.b64encode(f"{user}:{password}".encode()).decode()


class Scrubber:
    """Removes a fixed set of secrets from texts."""

    def __init__(self, secrets: Iterable[str]) -> None:
        found = {form for secret in secrets if len(secret) >= _SHORTEST for form in spellings(secret)}
        # Longest first: a secret may be part of another's spelling.
        self._forms = sorted(found, key=len, reverse=True)
        _FILTER.learn(found)
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(_FILTER)  # adding it twice changes nothing

    def __call__(self, text: str) -> str:
        return _clean(text, self._forms)

    def __repr__(self) -> str:
        return "Scrubber()"


def _clean(text: str, forms: Iterable[str]) -> str:
    for form in forms:
        text = text.replace(form, HIDDEN)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


class _SecretFilter(logging.Filter):
    """Rewrites a log record whose text holds a secret."""

    def __init__(self) -> None:
        super().__init__()
        self._forms: list[str] = []

    def learn(self, forms: Iterable[str]) -> None:
        self._forms = sorted({*self._forms, *forms}, key=len, reverse=True)

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        clean = _clean(text, self._forms)
        if clean != text:
            record.msg, record.args = clean, ()
        if record.exc_info:  # a traceback of the library's own may quote the URL; its message is enough
            record.exc_info = record.exc_text = None
        return True


_FILTER = _SecretFilter()
