"""A person in front of the review pages: a real Airflow, a real Chromium, and the sandbox behind them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import requests
from playwright.sync_api import BrowserContext, ConsoleMessage, FrameLocator, Page
from real_airflow import RealAirflow, connections_to

if TYPE_CHECKING:
    from pipeline import Pipeline

SCREEN = {"width": 1280, "height": 900}
# Without these Chromium calls home, and a test may reach this machine only.
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run"),
]
PATIENCE = 20_000  # milliseconds that a page may take on a busy machine


def find_chromium() -> str | None:
    """The browser: variable CHROMIUM, else what is on the PATH."""
    names = (os.environ.get("CHROMIUM") or "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next(filter(None, map(shutil.which, names)), None)


@dataclass
class Site:
    """An Airflow with the pages, and where its connections lead."""

    airflow: RealAirflow
    passwords: dict[str, str]
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.airflow.airflow.settings.airflow_url

    def token(self, user: str) -> str:
        """What Airflow gives for a log-in."""
        if user not in self.tokens:
            answer = requests.post(
                f"{self.url}/auth/token", json={"username": user, "password": self.passwords[user]}, timeout=30
            )
            answer.raise_for_status()
            self.tokens[user] = answer.json()["access_token"]
        return self.tokens[user]

    def lead_to(self, pipeline: Pipeline) -> None:
        """Point the three connections to a database and a sandbox."""
        for conn_id, connection in connections_to(pipeline.dsn, pipeline.sandbox).items():
            self.airflow.api.call("PATCH", f"/connections/{conn_id}", body={"connection_id": conn_id, **connection})


class Visit:
    """A person with a browser of their own, logged in to Airflow."""

    def __init__(self, site: Site, context: BrowserContext, user: str) -> None:
        self.site, self.context, self.user = site, context, user
        context.set_default_timeout(PATIENCE)
        context.add_cookies([{"name": "_token", "value": site.token(user), "url": site.url}])
        self.page: Page = context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", self._listen)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _listen(self, message: ConsoleMessage) -> None:
        # What our own pages complain about; an answer of 4xx that a journey provokes is shown on the page instead.
        if message.type == "error" and "/billing/" in message.location["url"] and "status of 4" not in message.text:
            self.complaints.append(message.text)

    def open(self, path: str = "") -> FrameLocator:
        """A page of ours inside Airflow, by its path below /billing/."""
        self.page.goto(f"{self.site.url}/plugin/connectwise-billing/billing/{path}")
        return self.inside

    @property
    def inside(self) -> FrameLocator:
        """Our page in Airflow's frame."""
        return self.page.frame_locator("iframe[title='ConnectWise billing']")


@contextmanager
def world(site: Site, directory: Path, dsn: str, *, customers: int) -> Iterator[Pipeline]:
    """A sandbox and a billing database that the site leads to for a journey's time."""
    from pipeline import Pipeline

    from sandbox.server import Sandbox

    with Sandbox(directory / "sandbox", customers=customers) as sandbox:
        pipeline = Pipeline(dsn, sandbox)
        try:
            site.lead_to(pipeline)
            yield pipeline
        finally:
            pipeline.close()
