"""What holds for every request and every answer, whatever the route: a session, bounds, forged writes, headers, unknown
errors. Nothing of a request's body is read before.
"""

from __future__ import annotations

import logging
import secrets
from typing import Any

from fastapi import HTTPException, Request
from fastapi.responses import RedirectResponse, Response
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from billing_pages.errors import problem
from billing_pages.people import login_address, own_address
from billing_pages.security import SAFE_METHODS, WhoIsAsking, refusal_of_write

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

        try:
            refused = await self._refusal(Request(scope))
            if refused is None:
                await self.app(scope, _bounded(receive), send_with_headers)
            else:
                await refused(scope, receive, send_with_headers)
        except Exception:
            number = secrets.token_hex(4)
            log.exception("Unexpected error %s of %s %s", number, scope["method"], scope["path"])
            if started:
                raise
            message = f"This should not happen. The log of Airflow's API server tells more: error {number}."
            await problem(500, "unexpected", message)(scope, receive, send_with_headers)

    async def _refusal(self, request: Request) -> Response | None:
        ask: WhoIsAsking | None = request.app.state.who_is_asking
        try:
            request.state.person = await ask(request) if ask else None
        except HTTPException as error:
            return _answer_without_session(request, error)
        length = request.headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MAX_BODY:
            return problem(413, "too large", f"A request may carry {MAX_BODY:,} bytes at most.")
        if request.method in SAFE_METHODS:
            return None
        why = refusal_of_write(request, own_address())
        return problem(403, "forbidden", why) if why else None


def _answer_without_session(request: Request, error: HTTPException) -> Response:
    """To a person who opened a page: Airflow's login, and from there back. To anybody else: 401."""
    root = request.scope["root_path"].rstrip("/")
    path = request.scope["path"].removeprefix(root)
    is_page = request.method == "GET" and not path.startswith(("/api/", "/assets/"))
    if not (is_page and "text/html" in request.headers.get("accept", "")):
        return problem(401, "not logged in", str(error.detail))
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse(login_address(f"{root}{path}{query}"), 303)


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
