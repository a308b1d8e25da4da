"""The sandbox, AppXite and ConnectWise in one process, as a part of the local stack."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import requests

from local_stack.console import run_openly, wait_for
from local_stack.credentials import Credentials
from local_stack.ports import require_free
from local_stack.processes import Processes
from local_stack.settings import Settings

SEED = 7
CUSTOMERS = 40
MONTHS = 3
START_SECONDS = 60


class SandboxProcess:
    """`python -m sandbox serve`. Its state is kept, so a second demo finds what the first delivered."""

    def __init__(self, settings: Settings, credentials: Credentials, processes: Processes, *, last_month: str) -> None:
        self.settings = settings
        self.processes = processes
        self.state = settings.state / "sandbox"
        self.url = settings.sandbox_url
        self._credentials = credentials
        self._last_month = last_month

    def environment(self) -> dict[str, str]:
        keys = {f"SANDBOX_{name.upper()}": value for name, value in self._keys().items()}
        return {**self.settings.base_environment(), **keys}

    def start(self) -> None:
        require_free(self.settings.sandbox_port, what="the sandbox", variable="SANDBOX_PORT")
        self.state.mkdir(parents=True, exist_ok=True)
        world = ["--seed", str(SEED), "--customers", str(CUSTOMERS), "--months", str(MONTHS)]
        place = ["--state", str(self.state), "--port", str(self.settings.sandbox_port)]
        command = self._command("serve", *place, *world, "--last-month", self._last_month)
        self.processes.start("sandbox", command, self.environment(), directory=self.settings.root)
        log = self.settings.logs / "sandbox.log"
        check = self.processes.require_alive
        wait_for("the sandbox", self._answers, seconds=START_SECONDS, check=check, log=log, every=0.2)

    def write_mappings(self, folder: Path) -> None:
        """Let the sandbox write the mapping files that an administrator would have prepared."""
        folder.mkdir(parents=True, exist_ok=True)
        command = self._command("mappings", "--state", str(self.state), "--out", str(folder))
        log = self.settings.logs / "sandbox-mappings.log"
        run_openly("writing the mappings", command, self.environment(), directory=self.settings.root, log=log)

    def allow_requests(self, per_minute: int) -> None:
        """Raise the sandbox's own limit, above which it answers 429."""
        self._control("PATCH", "settings", {"requests_per_minute": per_minute})

    def invoice_agreements(self, through: str) -> None:
        """Run agreement invoicing for every cycle that starts by a day (YYYY-MM-DD)."""
        self._control("POST", "invoicing", {"through": through})

    def invoices(self) -> list[dict[str, Any]]:
        """All agreement invoices so far, with their lines."""
        found: list[dict[str, Any]] = self._control("GET", "invoices")
        return found

    def _control(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = requests.request(method, f"{self.url}/_sandbox/{path}", json=body, timeout=60)
        answer.raise_for_status()
        return json.loads(answer.text, parse_float=Decimal)

    def connections(self) -> dict[str, str]:
        """Airflow connections that lead to this sandbox, in the shape of the real ones."""
        keys = self._keys()
        appxite = {"password": keys["sas_key"], "extra": {"requester_id": keys["requester_id"]}}
        connectwise = {
            "login": keys["public_key"],
            "password": keys["private_key"],
            "extra": {"company_id": keys["company_id"], "client_id": keys["client_id"]},
        }
        http = {"conn_type": "http", "host": self.url}
        return {
            "AIRFLOW_CONN_APPXITE_API": json.dumps({**http, **appxite}),
            "AIRFLOW_CONN_CONNECTWISE_API": json.dumps({**http, **connectwise}),
        }

    def _keys(self) -> dict[str, str]:
        secret = self._credentials
        return {
            "requester_id": "100001",
            "sas_key": secret.sas_key,
            "company_id": "demo",
            "public_key": secret.public_key,
            "private_key": secret.private_key,
            "client_id": "00000000-0000-4000-8000-000000000001",
        }

    def _answers(self) -> bool:
        try:
            requests.get(f"{self.url}/_sandbox/health", timeout=5)
        except requests.ConnectionError:
            return False
        return True

    def _command(self, *arguments: str) -> Sequence[str]:
        return [sys.executable, "-m", "sandbox", *arguments]
