"""The real pages over loopback, without Airflow's servers: against a given billing database, as a given person.

    python tests/helpers/pages_server.py --dsn postgresql://... --port 8090 --person ann --permissions read,edit

Airflow's own REST API (/api/v2) is not there. Tests use it as `with pages_server(dsn) as address:`.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for folder in ("plugins", "include"):
    if str(ROOT / folder) not in sys.path:
        sys.path.insert(0, str(ROOT / folder))


def serving(dsn: str, *, person: str = "ann", permissions: str = "read,edit,approve,admin", port: int = 0):
    """A uvicorn server that is not started yet, and its socket.

    The request header X-Test-Person ("bob:read,edit", or "-" for nobody) asks as somebody else.
    """
    import uvicorn
    from fastapi import FastAPI, HTTPException, Request
    from psycopg.conninfo import conninfo_to_dict

    import billing_hooks.billing_db  # noqa: F401  (takes seconds, which the first request would wait for)
    from billing_pages.app import build_app
    from billing_pages.security import Permission, Person

    parts = conninfo_to_dict(dsn)
    fields = {"host": "host", "port": "port", "login": "user", "password": "password", "schema": "dbname"}
    os.environ["AIRFLOW_CONN_BILLING_DB"] = json.dumps(
        {"conn_type": "postgres", **{ours: parts[theirs] for ours, theirs in fields.items() if theirs in parts}}
    )

    async def who_is_asking(request: Request) -> Person:
        given = request.headers.get("x-test-person", f"{person}:{permissions}")
        if given == "-":
            raise HTTPException(401, "Not logged in.")
        name, _, names = given.partition(":")
        return Person(name, frozenset(Permission(one) for one in names.split(",") if one))

    outer = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    outer.mount("/billing", build_app(who_is_asking))
    listening = socket.create_server(("127.0.0.1", port))
    return uvicorn.Server(uvicorn.Config(outer, log_level="warning", lifespan="off")), listening


@contextmanager
def pages_server(dsn: str, **options: str) -> Iterator[str]:
    """Run the server in a thread. Yields the address of the pages, e.g. http://127.0.0.1:12345/billing."""
    server, listening = serving(dsn, **options)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/billing"
    finally:
        server.should_exit = True
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--person", default="ann")
    parser.add_argument("--permissions", default="read,edit,approve,admin")
    given = parser.parse_args()
    server, listening = serving(given.dsn, person=given.person, permissions=given.permissions, port=given.port)
    print(f"http://127.0.0.1:{listening.getsockname()[1]}/billing/", flush=True)
    server.run(sockets=[listening])


if __name__ == "__main__":
    main()
