"""The FastAPI app of the review pages, as Airflow mounts it at /billing."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI

from billing_pages.security import Permission, needs

ROUTERS: tuple[str, ...] = ("session", "dashboard", "mapping", "lines", "plans", "logs", "settings")


def build_app() -> FastAPI:
    """The app with all its routes; each needs at least the permission read."""
    from importlib import import_module

    app = FastAPI(title="ConnectWise billing", docs_url=None, redoc_url=None, openapi_url=None)
    api = APIRouter(prefix="/api", dependencies=[needs(Permission.READ)])
    for name in ROUTERS:
        api.include_router(import_module(f"billing_pages.api.{name}").router)
    app.include_router(api)
    return app
