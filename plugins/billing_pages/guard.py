"""What holds for every request and every answer, whatever the route: bounds, forged writes, headers, unknown errors."""

from __future__ import annotations

import logging
import secrets
from typing import Any

from fastapi import HTTPException, Request
from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from billing_pages.people import own_address
from billing_pages.security import SAFE_METHODS, refusal_of_write

log = logging.getLogger(__name__)

MAX_BODY = 1_000_000  # bytes


def content_security_policy(nonce: str | None = None) -> str:
    """What a page may load: our own scripts, and styles with this answer's nonce (Emotion writes them at run time)."""
    styles = f"style-src 'self' 'nonce-{nonce}'; " if nonce else ""
    allowed = f"script-src 'self'; {styles}img-src 'self' data:; font-src 'self'; connect-src 'self'; " if nonce else ""
    base = "'self'" if nonce else "'none'"
    return f"default-src 'none'; {allowed}frame-ancestors 'self'; base-uri {base}; form-action 'self'"


class Guard:
    """ASGI middleware around the whole app."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                _add_headers(MutableHeaders(scope=message))
            await send(message)

        refused = self._refusal(Request(scope))
        if refused is not None:
            await refused(scope, receive, send_with_headers)
            return
        try:
            await self.app(scope, _bounded(receive), send_with_headers)
        except Exception:
            number = secrets.token_hex(4)
            log.exception("Unexpected error %s of %s %s", number, scope["method"], scope["path"])
            if started:
                raise
            message = f"This should not happen. The log of Airflow's API server tells more: error {number}."
            await _problem(500, "unexpected", message)(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> JSONResponse | None:
        length = request.headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MAX_BODY:
            return _problem(413, "too large", f"A request may carry {MAX_BODY:,} bytes at most.")
        if request.method in SAFE_METHODS:
            return None
        why = refusal_of_write(request, own_address())
        return _problem(403, "forbidden", why) if why else None


def _problem(status: int, error: str, message: str) -> JSONResponse:
    return JSONResponse({"error": error, "message": message, "current": None}, status)


def _bounded(receive: Receive) -> Receive:
    """The same messages; more bytes than allowed end in 413, also when no length was announced."""
    total = 0

    async def count() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > MAX_BODY:
            raise HTTPException(413, f"A request may carry {MAX_BODY:,} bytes at most.")
        return message

    return count


def _add_headers(headers: MutableHeaders) -> None:
    given: dict[str, Any] = {
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
        "Content-Security-Policy": content_security_policy(),
    }
    for name, value in given.items():
        headers.setdefault(name, value)
