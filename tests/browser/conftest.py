"""The review pages as a person meets them: a real Airflow with its scheduler, a real Chromium, the sandbox behind them.

One Airflow serves all journeys; each has a billing database and a sandbox of its own, to which the three connections
are pointed for its time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Browser, expect, sync_playwright
from real_airflow import real_airflow
from visit import FLAGS, PATIENCE, SCREEN, Site, Visit, find_chromium

from local_stack.credentials import load_credentials

if TYPE_CHECKING:
    from local_stack.postgres import Postgres


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """A headless Chromium of this machine."""
    found = find_chromium()
    if found is None:
        why = "No Chromium: install it (Debian: apt-get install chromium) or name it in the variable CHROMIUM."
        pytest.fail(why) if os.environ.get("CI") else pytest.skip(why)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Site]:
    """A running Airflow. Its connections lead nowhere until a journey points them somewhere."""
    state = tmp_path_factory.mktemp("site") / ".local"
    nowhere = {
        "billing_db": {"conn_type": "postgres", "host": "127.0.0.1", "port": 1, "login": "nobody", "schema": "none"},
        "appxite_api": {"conn_type": "http", "host": "http://127.0.0.1:1"},
        "connectwise_api": {"conn_type": "http", "host": "http://127.0.0.1:1"},
    }
    with real_airflow(state, postgres, nowhere) as airflow:
        secret = load_credentials(airflow.state / "secrets.json")
        yield Site(
            airflow, {"admin": secret.admin_password, "op": secret.op_password, "viewer": secret.viewer_password}
        )


@pytest.fixture
def visits(site: Site, chromium: Browser, tmp_path: Path) -> Iterator[Callable[..., Visit]]:
    """Log people in, each with a browser of their own: `visits("op")`. At the end no page may have complained.

    What each person saw last is kept as a picture beside the test's other files.
    """
    made: list[Visit] = []

    def visit(user: str = "admin", **options: object) -> Visit:
        context = chromium.new_context(
            base_url=site.url, **{"viewport": SCREEN, "timezone_id": "Europe/Vienna", "locale": "en-GB", **options}
        )
        made.append(Visit(site, context, user))
        return made[-1]

    expect.set_options(timeout=PATIENCE)
    yield visit
    complaints = [complaint for one in made for complaint in one.complaints]
    for number, one in enumerate(made, 1):
        one.page.screenshot(path=tmp_path / f"last-seen-{number}-{one.user}.png")
        one.context.close()
    assert complaints == []
