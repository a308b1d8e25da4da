"""The FastAPI app of the review pages, as Airflow mounts it at /billing: the JSON API, and the built front end."""

from __future__ import annotations

import secrets
from importlib import import_module
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, HTMLResponse
from starlette.middleware import Middleware

from billing_pages.api.common import Problem
from billing_pages.errors import answer_errors
from billing_pages.guard import Guard, content_security_policy
from billing_pages.security import Permission, WhoIsAsking, needs

ROUTERS: tuple[str, ...] = ("session", "dashboard", "mapping", "lines", "plans", "settle", "logs", "settings")
STATIC = Path(__file__).resolve().parent / "static"
NOT_BUILT = "The pages are not built. Run: make pages"

pages = APIRouter(dependencies=[needs(Permission.READ)], include_in_schema=False)


def build_app(who_is_asking: WhoIsAsking | None = None) -> FastAPI:
    """The app with all its routes; each needs at least the permission read.

    who_is_asking: tells the person of a request; without it everybody is refused.
    """
    app = FastAPI(
        title="ConnectWise billing",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        middleware=[Middleware(Guard)],
    )
    app.state.who_is_asking = who_is_asking
    answer_errors(app)
    errors: dict[int | str, dict[str, Any]] = {"default": {"model": Problem, "description": "Any error"}}
    api = APIRouter(prefix="/api", dependencies=[needs(Permission.READ)], responses=errors)
    for name in ROUTERS:
        api.include_router(import_module(f"billing_pages.api.{name}").router)
    app.include_router(api)
    app.include_router(pages)
    return app


@pages.get("/assets/{name}")
def asset(name: str) -> FileResponse:
    """A built file; its name carries its hash, so a browser may keep it."""
    folder = STATIC / "assets"
    file = folder / name
    if file.parent != folder or not file.is_file():
        raise HTTPException(404, "There is no such file.")
    return FileResponse(file, headers={"Cache-Control": "private, max-age=31536000, immutable"})


@pages.get("/api/{path:path}")
def no_such_route(path: str) -> None:
    """Below /api nothing is a page."""
    raise HTTPException(404, f"There is no api/{path[:100]}.")


@pages.get("/{path:path}")
def page(request: Request) -> HTMLResponse:
    """Every page is the same document; the front end reads the address. It learns where it is mounted, and the nonce
    with which alone its styles are taken."""
    index = STATIC / "index.html"
    if not index.is_file():
        raise HTTPException(503, NOT_BUILT)
    nonce = secrets.token_urlsafe(16)
    base = f"{request.scope['root_path'].rstrip('/')}/"
    text = index.read_text(encoding="utf-8").replace("__NONCE__", nonce).replace("__BASE__", base)
    return HTMLResponse(
        text, headers={"Cache-Control": "no-store", "Content-Security-Policy": content_security_policy(nonce)}
    )
