"""Exception → answer: every error is a `Problem`, and none tells more than helps."""

from __future__ import annotations

from typing import Any

import psycopg
from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from billing_sync.errors import (
    BillingSyncError,
    BusyError,
    LockedError,
    NotFoundError,
    PausedError,
    RefusedEditError,
    StaleEditError,
    TemporaryError,
)

NAMES = {
    400: "bad request",
    401: "not logged in",
    403: "forbidden",
    404: "not found",
    405: "method not allowed",
    409: "stale",
    413: "too large",
    422: "invalid",
    423: "locked",
    503: "unavailable",
}
# The first that fits counts.
OF_OURS: tuple[tuple[type[BillingSyncError], int, str], ...] = (
    (NotFoundError, 404, "not found"),
    (StaleEditError, 409, "stale"),
    (LockedError, 423, "locked"),
    (RefusedEditError, 422, "invalid"),
    (BusyError, 503, "busy"),
    (PausedError, 409, "paused"),
    (TemporaryError, 503, "unavailable"),
    (BillingSyncError, 422, "invalid"),
)
OF_DATABASE: tuple[tuple[type[psycopg.Error], int, str, str], ...] = (
    (psycopg.errors.QueryCanceled, 503, "too slow", "The billing database took too long. Narrow the filter."),
    (psycopg.errors.LockNotAvailable, 503, "busy", "Somebody else is changing the same. Try again in a moment."),
    (psycopg.errors.DeadlockDetected, 503, "busy", "Somebody else is changing the same. Try again in a moment."),
    (psycopg.errors.SerializationFailure, 503, "busy", "Somebody else is changing the same. Try again in a moment."),
    (psycopg.errors.OperationalError, 503, "unavailable", "The billing database does not answer. Try again."),
    (psycopg.DataError, 422, "invalid", "A value does not fit: the database cannot store or compare it."),
)


class UnavailableError(Exception):
    """The pages cannot work now; the message says what to do (503)."""


def problem(status: int, error: str, message: str, current: object = None) -> JSONResponse:
    """An error as the API answers it."""
    return JSONResponse({"error": error, "message": message, "current": jsonable_encoder(current)}, status)


def answer_errors(app: FastAPI) -> None:
    """Register all of them."""
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(BillingSyncError, _of_ours)
    app.add_exception_handler(psycopg.Error, _of_database)
    app.add_exception_handler(UnavailableError, _of_unavailable)


def _of_http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, NAMES.get(error.status_code, "error"), str(error.detail))


def _of_validation(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    said = [f"{_place(one['loc'])}: {one['msg']}" for one in error.errors()[:5]]
    return problem(422, "invalid", "; ".join(said))


def _place(location: tuple[Any, ...]) -> str:
    """Where in the request: without "query" or "body", which say nothing to a person."""
    return ".".join(str(part)[:60] for part in location[1:]) or str(location[0])


def _of_ours(_: Request, error: Exception) -> Response:
    status, name = next((status, name) for kind, status, name in OF_OURS if isinstance(error, kind))
    return problem(status, name, str(error), getattr(error, "current", None))


def _of_database(_: Request, error: Exception) -> Response:
    for kind, status, name, message in OF_DATABASE:
        if isinstance(error, kind):
            return problem(status, name, message)
    raise error  # unknown, so that the guard writes it to the log


def _of_unavailable(_: Request, error: Exception) -> Response:
    return problem(503, "unavailable", str(error))
