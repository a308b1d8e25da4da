"""Nothing of the pages is open by default: every route, forged writes, headers, who may do what, the web role."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
from fastapi import Request
from fastapi.routing import APIRoute
from pages_server import pages_server
from psycopg import sql

from billing_pages.app import build_app
from billing_pages.guard import MAX_BODY
from billing_pages.people import permissions_of
from billing_pages.security import Permission, Person
from local_stack.postgres import Postgres

WRITE = {"X-Billing-Request": "1", "Content-Type": "application/json"}
# A value that each kind of path parameter takes.
PATH_VALUES = {"kind": "organizations", "path": "dashboard", "name": "index.js", "charge_type": "CycleFee"}


def routes() -> list[tuple[str, str, APIRoute]]:
    """(method, path with its parameters filled in, route) of everything the app answers."""
    found = []
    for route in build_app().routes:
        assert isinstance(route, APIRoute), f"{route} would be open: nothing may be mounted beside the API's routes"
        path = re.sub(r"\{(\w+)(?::\w+)?\}", lambda name: PATH_VALUES.get(name[1], "1"), route.path)
        found += [(method, path, route) for method in sorted(route.methods)]
    return found


ROUTES = routes()
WRITES = [(method, path, route) for method, path, route in ROUTES if method not in ("GET", "HEAD")]


def names(route: APIRoute) -> list[str]:
    return [f"{method} {path}" for method, path, one in ROUTES if one is route]


@pytest.fixture(scope="module")
def address(postgres: Postgres, billing_template: str) -> Iterator[str]:
    dsn = postgres.create_database("pages_security", template=billing_template)
    with pages_server(dsn) as address:
        yield address
    postgres.drop_database("pages_security")


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(timeout=60) as client:
        yield client


def ask(client: httpx.Client, address: str, method: str, path: str, person: str, **headers: str) -> httpx.Response:
    own = {"Origin": address.removesuffix("/billing"), **(WRITE if method not in ("GET", "HEAD") else {})}
    body = "{}" if method not in ("GET", "HEAD") else None
    return client.request(method, address + path, content=body, headers={**own, "X-Test-Person": person, **headers})


def needed(route: APIRoute) -> set[str]:
    """The permissions that a route asks for, anywhere in its dependencies."""
    found, todo = set(), [route.dependant]
    while todo:
        dependant = todo.pop()
        todo += dependant.dependencies
        name = getattr(dependant.call, "__name__", "")
        if name.startswith("needs_"):
            found.add(name.removeprefix("needs_"))
    return found


# -- every route -----------------------------------------------------------------------------------------------------


def test_there_are_routes_of_every_page() -> None:
    heads = {path.split("/")[2] for _, path, _ in ROUTES if path.startswith("/api/")}
    assert {"me", "setup", "lines", "bulk", "mappings", "plans", "logs", "settings", "connections"} <= heads


@pytest.mark.parametrize("route", [route for *_, route in ROUTES], ids=lambda route: f"{route.methods} {route.path}")
def test_a_route_needs_read_and_one_that_changes_something_needs_more(route: APIRoute) -> None:
    assert "read" in needed(route)
    if not route.methods <= {"GET", "HEAD"}:
        assert needed(route) & {"edit", "approve", "admin"}, f"{names(route)} changes something with read alone"


def test_nobody_sees_anything_without_a_session(client: httpx.Client, address: str) -> None:
    answers = {f"{method} {path}": ask(client, address, method, path, "-") for method, path, _ in ROUTES}
    assert {name: answer.status_code for name, answer in answers.items() if answer.status_code != 401} == {}
    assert all(answer.json()["error"] == "not logged in" for answer in answers.values() if answer.content)


def test_nobody_sees_anything_with_a_session_but_no_permission(client: httpx.Client, address: str) -> None:
    answers = {f"{m} {path}": ask(client, address, m, path, "ben:").status_code for m, path, _ in ROUTES}
    assert {name: status for name, status in answers.items() if status != 403} == {}


def test_a_viewer_changes_nothing(client: httpx.Client, address: str) -> None:
    answers = {f"{m} {path}": ask(client, address, m, path, "vic:read").status_code for m, path, _ in WRITES}
    assert len(answers) > 8
    assert {name: status for name, status in answers.items() if status != 403} == {}


def test_what_is_not_there_is_not_there(client: httpx.Client, address: str) -> None:
    for path in ("/docs", "/openapi.json", "/redoc"):
        assert "openapi" not in ask(client, address, "GET", path, "vic:read").text.lower()
    for path in ("/api", "/api/", "/api/nothing", "/assets/..%2f..%2fapp.py", "/assets/%2e%2e"):
        answer = ask(client, address, "GET", path, "vic:read")
        assert answer.status_code == 404 or "text/html" in answer.headers["content-type"], path
        assert "import" not in answer.text


def test_a_get_cannot_change_the_database(address: str) -> None:
    from billing_pages.database import connect

    connection = connect("vic", read_only=True)
    with connection, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        connection.execute("update billing.setting set value = value")


# -- forged writes -----------------------------------------------------------------------------------------------------

FORGED: dict[str, dict[str, str | None]] = {
    "another site": {"Origin": "https://evil.example"},
    "another port": {"Origin": "http://127.0.0.1:1"},
    "a sandboxed frame": {"Origin": "null"},
    "no origin and no token": {"Origin": None},
    "a browser that says cross-site": {"Sec-Fetch-Site": "cross-site"},
    "a browser that says same-site": {"Sec-Fetch-Site": "same-site"},
    "an address typed in": {"Sec-Fetch-Site": "none"},
    "a form": {"Content-Type": "application/x-www-form-urlencoded"},
    "a form that looks like text": {"Content-Type": "text/plain"},
    "no content type": {"Content-Type": None},
    "no header of ours": {"X-Billing-Request": None},
    "a token, and another site": {"Authorization": "Bearer x", "Origin": "https://evil.example"},
    "a token, and a form": {"Authorization": "Bearer x", "Origin": None, "Content-Type": "text/plain"},
    "a token without our header": {"Authorization": "Bearer x", "Origin": None, "X-Billing-Request": None},
}
EVERYTHING = "ann:read,edit,approve,admin"


def send(client: httpx.Client, address: str, changed: dict[str, str | None]) -> httpx.Response:
    own = {"Origin": address.removesuffix("/billing"), **WRITE, "X-Test-Person": EVERYTHING}
    headers = {name: value for name, value in {**own, **changed}.items() if value is not None}
    return client.post(f"{address}/api/pauses", content="{}", headers=headers)


@pytest.mark.parametrize("changed", FORGED.values(), ids=FORGED)
def test_a_forged_write_is_refused(client: httpx.Client, address: str, changed: dict[str, str | None]) -> None:
    answer = send(client, address, changed)
    assert answer.status_code == 403, answer.text
    assert answer.json()["error"] == "forbidden"


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"Sec-Fetch-Site": "same-origin"},
        {"Content-Type": "application/json; charset=utf-8"},
        {"Authorization": "Bearer x", "Origin": None},
    ],
)
def test_our_own_write_is_let_through(client: httpx.Client, address: str, changed: dict[str, str | None]) -> None:
    assert send(client, address, changed).status_code == 422  # it lacks its values


def test_a_proxy_that_changes_the_host_is_known_by_the_base_url(
    client: httpx.Client, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = {"Origin": "https://airflow.example.com"}
    assert send(client, address, outside).status_code == 403
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.com/prefix")
    assert send(client, address, outside).status_code == 422


# -- bounds, headers, errors -----------------------------------------------------------------------------------------


def test_a_body_is_bounded_announced_or_not(client: httpx.Client, address: str) -> None:
    own = {"Origin": address.removesuffix("/billing"), **WRITE, "X-Test-Person": EVERYTHING}
    too_much = b'{"x": "' + b"a" * MAX_BODY + b'"}'
    announced = client.post(f"{address}/api/pauses/end", content=too_much, headers=own)
    chunked = client.post(f"{address}/api/pauses/end", content=iter([too_much]), headers=own)
    assert (announced.status_code, chunked.status_code) == (413, 413)


@pytest.mark.parametrize("path", ["/api/me", "/api/nothing", "/api/lines?limit=x", "/dashboard", "/assets/none.js"])
@pytest.mark.parametrize("person", ["-", "ben:", "vic:read"])
def test_every_answer_carries_the_headers(client: httpx.Client, address: str, path: str, person: str) -> None:
    headers = ask(client, address, "GET", path, person).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "same-origin"
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'self'" in policy
    assert "unsafe" not in policy


def test_input_that_cannot_be_is_answered_as_a_problem_that_quotes_nothing(client: httpx.Client, address: str) -> None:
    answer = ask(client, address, "GET", "/api/lines?limit=secret-value", "vic:read")
    assert answer.status_code == 422
    assert set(answer.json()) == {"error", "message", "current"}
    assert "limit" in answer.json()["message"]
    assert "secret-value" not in answer.text


def test_an_unexpected_error_tells_only_a_number_that_stands_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    from fastapi.testclient import TestClient

    async def anybody(_: Request) -> Person:
        return Person("ann", frozenset(Permission))

    app = build_app(anybody)

    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("password=hunter2")

    app.router.routes.insert(0, app.router.routes.pop())
    answer = TestClient(app, raise_server_exceptions=False).get("/broken")
    assert answer.status_code == 500
    number = re.search(r"error (\w{8})", answer.json()["message"])
    assert number is not None
    assert number[1] in caplog.text
    assert "hunter2" not in answer.text


# -- without a database ------------------------------------------------------------------------------------------------


def test_an_unmigrated_database_is_503_and_says_what_to_do(empty_db: str, address: str, client: httpx.Client) -> None:
    with pages_server(empty_db) as other:
        answer = ask(client, other, "GET", "/api/periods", "vic:read")
    assert answer.status_code == 503
    assert "python -m billing_sync migrate" in answer.json()["message"]


def test_a_database_that_is_not_there_is_503(address: str, client: httpx.Client) -> None:
    with pages_server("postgresql://nobody:secret@127.0.0.1:1/none") as other:
        answer = ask(client, other, "GET", "/api/periods", "vic:read")
    assert answer.status_code == 503
    assert "billing_db" in answer.json()["message"]
    assert "secret" not in answer.text


# -- who may do what -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        ("viewer", "read"),
        ("user", "read edit"),
        ("op", "read edit approve"),
        ("admin", "read edit approve admin"),
        ("ADMIN", "read edit approve admin"),
        ("other", ""),
        (None, ""),
    ],
)
def test_roles_of_the_simple_auth_manager(role: str | None, expected: str) -> None:
    from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    user = SimpleAuthManagerUser(username="ann", role=role)
    assert permissions_of(user, SimpleAuthManager()) == {Permission(one) for one in expected.split()}


def test_another_auth_manager_lets_only_listed_names_in(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    class Another(SimpleAuthManager):
        """Not the simple one: what its roles mean is not known."""

    ann, ben = (SimpleAuthManagerUser(username=name, role="admin") for name in ("ann@example.com", "ben"))
    assert permissions_of(ann, Another()) == set()
    monkeypatch.setenv("AIRFLOW__CONNECTWISE_BILLING__READ", "ann@example.com, ben")
    monkeypatch.setenv("AIRFLOW__CONNECTWISE_BILLING__APPROVE", " ann@example.com,")
    assert permissions_of(ann, Another()) == {Permission.READ, Permission.APPROVE}
    assert permissions_of(ben, Another()) == {Permission.READ}
    assert permissions_of(SimpleAuthManagerUser(username="", role="admin"), Another()) == set()


# -- the web role ----------------------------------------------------------------------------------------------------

MAY_INSERT = {"audit.run", "audit.log_entry", "delivery.pause"}
MAY_UPDATE = {
    "audit.run": None,  # any column
    "delivery.pause": {"ended_by", "ended_at"},
    "delivery.plan": {"state", "approved_by", "approved_at", "rejected_by", "rejected_at", "rejected_because"},
    "delivery.plan_item": {"state", "is_left_out"},
    "delivery.plan_agreement": {"state", "is_left_out"},
}
READ_ONLY_ELSEWHERE = {
    "billing": {"invoice", "invoice_line", "cost_line", "held_reason_code"},
    "mapping": {"organization", "offer", "contract", "subscription", "company", "product", "agreement"},
    "public": {"schema_migration"},
}


def is_refused(connection: psycopg.Connection[Any], statement: sql.Composable) -> bool:
    """Whether the role may not even try."""
    connection.execute("savepoint one")
    try:
        connection.execute(statement)
    except psycopg.errors.InsufficientPrivilege:
        return True
    except psycopg.Error:
        return False
    finally:
        connection.execute("rollback to savepoint one")
    return False


def test_the_web_role_writes_nothing_of_the_ledger(billing_db: str) -> None:
    with psycopg.connect(billing_db) as connection:
        tables = connection.execute(
            "select table_schema, table_name from information_schema.tables where table_type = 'BASE TABLE' "
            "and table_schema in ('delivery', 'audit', 'staging', 'billing', 'mapping', 'public')"
        ).fetchall()
        connection.execute("set role billing_web")
        seen = 0
        for schema, name in tables:
            if name not in READ_ONLY_ELSEWHERE.get(schema, {name}):
                continue
            seen += 1
            full, table = f"{schema}.{name}", sql.Identifier(schema, name)
            assert is_refused(connection, sql.SQL("insert into {} default values").format(table)) == (
                full not in MAY_INSERT
            ), f"insert into {full}"
            assert is_refused(connection, sql.SQL("delete from {}").format(table)), f"delete from {full}"
            assert is_refused(connection, sql.SQL("truncate {} cascade").format(table)), f"truncate {full}"
            columns = connection.execute(
                "select column_name from information_schema.columns where table_schema = %s and table_name = %s",
                [schema, name],
            ).fetchall()
            for (column,) in columns:
                allowed = MAY_UPDATE.get(full, set())
                update = sql.SQL("update {} set {} = default").format(table, sql.Identifier(column))
                assert is_refused(connection, update) == (allowed is not None and column not in allowed), (
                    f"update of {full}.{column}"
                )
        assert seen > 35


def test_the_web_role_is_nobody_special(billing_db: str) -> None:
    with psycopg.connect(billing_db) as connection:
        role = connection.execute(
            "select rolsuper, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls from pg_roles "
            "where rolname = 'billing_web'"
        ).fetchone()
        assert role is not None
        assert not any(role)
        connection.execute("set role billing_web")
        for statement in ("create table public.x ()", "create schema x", "create role x", "create database x"):
            with pytest.raises(psycopg.Error), connection.transaction():
                connection.execute(statement)


def test_a_login_of_its_own_is_used_where_there_is_one(
    billing_db: str, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    from billing_pages.database import connect

    server = urlsplit(billing_db)
    name = server.path.removeprefix("/")
    with psycopg.connect(billing_db, autocommit=True) as owner:
        owner.execute("create role pages_login login password 'tests-only' in role billing_web")
        try:
            own = f"postgresql://pages_login:tests-only@{server.hostname}:{server.port}/{name}"
            monkeypatch.setenv("AIRFLOW_CONN_BILLING_WEB", own)
            with connect("ann") as connection:
                assert connection.info.user == "pages_login"
                assert connection.execute("select current_user").fetchone() == ("billing_web",)
                connection.execute("reset role")
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute("delete from delivery.addition")
        finally:
            owner.execute("drop owned by pages_login")
            owner.execute("drop role pages_login")


def test_the_audit_trail_is_written_though_the_role_may_not(billing_db: str) -> None:
    with psycopg.connect(billing_db) as connection:
        connection.execute("set role billing_web")
        connection.execute("select set_config('billing.user', 'ann', false)")
        connection.execute("update billing.setting set value = '\"hold\"' where setting_key = 'late_lines'")
        found = connection.execute(
            "select changed_by, before ->> 'value', after ->> 'value' from audit.change order by change_id desc limit 1"
        ).fetchone()
        assert found == ("ann", "next_open_cycle", "hold")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("insert into audit.change (table_name, row_key, changed_by) values ('x', 'y', 'ben')")


def test_what_has_more_rights_than_who_calls_it_is_named_and_closed_to_others(billing_db: str) -> None:
    """Triggers of the audit trail, and what settles an Addition; the latter only for the pages' role."""
    with psycopg.connect(billing_db) as connection:
        found = connection.execute(
            "select oid::regproc::text, prorettype::regtype::text, array_to_string(proconfig, ','), array("
            "  select coalesce(nullif(grantee, 0)::regrole::text, 'everybody') from aclexplode(proacl)"
            "  where grantee <> proowner"
            ") from pg_proc where prosecdef "
            "and pronamespace::regnamespace::text not in ('pg_catalog', 'information_schema', 'reporting')"
        ).fetchall()
    assert {path for _, _, path, _ in found} == {"search_path=pg_catalog, pg_temp"}
    settling = {
        name: grantees for name, result, _, grantees in found if (name.split(".")[0], result) != ("audit", "trigger")
    }
    assert settling == {
        name: ["billing_web"]
        for name in ("delivery.retry_addition", "delivery.confirm_addition", "delivery.forget_new_agreement")
    }
