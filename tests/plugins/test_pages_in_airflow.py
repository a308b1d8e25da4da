"""The pages as Airflow mounts them: sessions of the simple auth manager, the way to the login, below a path prefix."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

ROOT = Path(__file__).resolve().parents[2]
HTML = {"Accept": "text/html,application/xhtml+xml", "Sec-Fetch-Mode": "navigate"}
WRITE = {"X-Billing-Request": "1", "Content-Type": "application/json", "Origin": "http://testserver"}


@pytest.fixture(scope="module")
def client(airflow_db: None, billing_template: str, postgres: object) -> Iterator[TestClient]:
    from airflow.api_fastapi.app import create_app

    with TestClient(create_app(apps="core"), follow_redirects=False) as client:
        yield client


def session(client: TestClient, name: str) -> dict[str, str]:
    answer = client.post("/auth/token", json={"username": name, "password": name})
    assert answer.status_code == 201, answer.text
    return {"Cookie": f"_token={answer.json()['access_token']}"}


def test_without_a_session_a_page_leads_to_the_login_and_back(client: TestClient) -> None:
    answer = client.get("/billing/mapping/products?q=1", headers=HTML)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/auth/login?next=%2Fbilling%2Fmapping%2Fproducts%3Fq%3D1"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("cookie", [{}, {"Cookie": "_token=nonsense"}])
def test_without_a_session_a_script_gets_401(client: TestClient, cookie: dict[str, str]) -> None:
    answer = client.get("/billing/api/me", headers=cookie)
    assert answer.status_code == 401
    assert answer.json()["error"] == "not logged in"


def test_a_session_of_airflow_is_one_here(client: TestClient) -> None:
    cookie = session(client, "viewer")
    assert client.get("/billing/api/nothing", headers=cookie).status_code == 404
    assert client.post("/billing/api/pauses", headers={**cookie, **WRITE}, content="{}").status_code == 403
    op = session(client, "op")  # let in, as far as the database, which is not there
    assert client.post("/billing/api/pauses", headers={**op, **WRITE}, content="{}").status_code == 503
    assert client.put("/billing/api/settings/x", headers={**op, **WRITE}, content="{}").status_code == 403


def test_a_token_does_for_programs(client: TestClient) -> None:
    token = session(client, "op")["Cookie"].removeprefix("_token=")
    headers = {**WRITE, "Authorization": f"Bearer {token}"}
    del headers["Origin"]
    assert client.post("/billing/api/pauses", headers=headers, content="{}").status_code == 503


def test_airflow_offers_the_pages(client: TestClient) -> None:
    answer = client.get("/api/v2/plugins", headers=session(client, "admin"))
    plugin = next(one for one in answer.json()["plugins"] if one["name"] == "connectwise_billing")
    views = {view["url_route"]: view for view in plugin["external_views"]}
    assert set(views) == {"connectwise-billing", "billing-run"}
    assert views["connectwise-billing"]["nav_top_level"] is True
    assert views["billing-run"]["destination"] == "dag_run"
    assert all(not view["href"].startswith("/") for view in views.values()), "they must work below a path prefix"
    assert all(view["icon"] != view["icon_dark_mode"] for view in views.values())


def test_loading_the_plugin_costs_nothing_that_only_the_pages_need() -> None:
    """Scheduler, DAG processor and every worker load it."""
    script = (
        "import sys, airflow.plugins_manager, airflow.timetables.interval\n"
        "before = set(sys.modules)\n"
        "import connectwise_billing_plugin\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip().splitlines()[-1] == "['billing_timetable', 'connectwise_billing_plugin']"


def test_below_a_path_prefix(airflow_db: None) -> None:
    """[api] base_url with a path; read when Airflow is imported, hence a process of its own."""
    script = (
        "import json\n"
        "from fastapi.testclient import TestClient\n"
        "from airflow.api_fastapi.app import create_app\n"
        "client = TestClient(create_app(apps='core'), follow_redirects=False, root_path='/prefix')\n"
        "away = client.get('/prefix/billing/plan?x=1', headers={'Accept': 'text/html'})\n"
        "token = client.post('/prefix/auth/token', json={'username': 'viewer', 'password': 'viewer'}).json()\n"
        "page = client.get('/prefix/billing/plan/7', headers={'Cookie': '_token=' + token['access_token']})\n"
        "print(json.dumps([away.status_code, away.headers.get('location'), page.status_code, page.text]))\n"
    )
    environment = {**os.environ, "AIRFLOW__API__BASE_URL": "https://airflow.example.com/prefix"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    away, location, status, text = json.loads(done.stdout.strip().splitlines()[-1])
    assert (away, location) == (303, "/prefix/auth/login?next=%2Fprefix%2Fbilling%2Fplan%3Fx%3D1")
    if status == 503:
        pytest.skip("the pages are not built: make pages")
    assert status == 200
    assert '<base href="/prefix/billing/"' in text
