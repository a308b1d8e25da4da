"""The few calls to Airflow's REST API that the demo needs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import requests

from local_stack.errors import StackError

Json = dict[str, Any]
PAGE = 100


class AirflowApi:
    """Airflow as one of its users, through `/api/v2`."""

    def __init__(self, base_url: str, user: str, password: str) -> None:
        self.base_url = base_url
        self._login = {"username": user, "password": password}
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy, no .netrc: the server is on this machine

    def health(self) -> dict[str, str]:
        """Component → state, as the server sees it; empty when it does not answer yet."""
        try:
            answer = self._session.get(f"{self.base_url}/api/v2/monitor/health", timeout=5)
            parts = answer.json() if answer.ok else {}
        except (requests.RequestException, ValueError):
            return {}
        return {name: str(part.get("status")) for name, part in parts.items()}

    def warm_up(self) -> None:
        """Make the server build its Execution API now: the first task would otherwise wait for it and may time out."""
        self._session.get(f"{self.base_url}/execution/health", timeout=120).raise_for_status()

    def log_in(self) -> None:
        answer = self._session.post(f"{self.base_url}/auth/token", json=self._login, timeout=30)
        if answer.status_code != 201:
            raise StackError(f"Airflow refused the log-in of {self._login['username']}: HTTP {answer.status_code}")
        self._session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def call(self, method: str, path: str, *, body: Json | None = None, query: Json | None = None) -> Json:
        answer = self._session.request(method, f"{self.base_url}/api/v2{path}", json=body, params=query, timeout=60)
        if not answer.ok:
            raise StackError(f"Airflow refused {method} {path}: HTTP {answer.status_code} {answer.text[:500]}")
        result: Json = answer.json() if answer.content else {}
        return result

    def _pages(self, path: str, key: str, **query: str) -> Iterator[Json]:
        offset = 0
        while True:
            rows = self.call("GET", path, query={**query, "limit": PAGE, "offset": offset})[key]
            yield from rows
            offset += len(rows)
            if len(rows) < PAGE:
                return

    def ensure_pool(self, name: str, slots: int, description: str) -> None:
        if all(pool["name"] != name for pool in self._pages("/pools", "pools")):
            self.call("POST", "/pools", body={"name": name, "slots": slots, "description": description})

    def dag_ids(self) -> set[str]:
        return {dag["dag_id"] for dag in self._pages("/dags", "dags")}

    def import_errors(self, *, since: datetime) -> list[str]:
        """The DAG files that could not be imported; older entries are of an earlier start and may be mended by now."""
        rows = self._pages("/importErrors", "import_errors")
        return [f"{r['filename']}:\n{r['stack_trace']}" for r in rows if datetime.fromisoformat(r["timestamp"]) > since]

    def set_paused(self, dag_id: str, *, paused: bool) -> None:
        self.call("PATCH", f"/dags/{dag_id}", body={"is_paused": paused})

    def trigger(self, dag_id: str, conf: Json | None = None) -> str:
        run = self.call("POST", f"/dags/{dag_id}/dagRuns", body={"logical_date": None, "conf": conf or {}})
        return str(run["dag_run_id"])

    def runs(self, dag_id: str) -> list[Json]:
        return list(self._pages(f"/dags/{dag_id}/dagRuns", "dag_runs"))

    def next_run_after(self, dag_id: str) -> datetime | None:
        """When the scheduler is to make the DAG's next run; a moment that has passed means: as soon as it may."""
        moment = self.call("GET", f"/dags/{dag_id}")["next_dagrun_run_after"]
        return None if moment is None else datetime.fromisoformat(moment)

    def clear(self, dag_id: str, run_id: str) -> None:
        """Let a finished run run again, all of it."""
        self.call("POST", f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/clear", body={"dry_run": False})

    def run(self, dag_id: str, run_id: str) -> Json:
        return self.call("GET", f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}")

    def task_instances(self, dag_id: str, run_id: str) -> list[Json]:
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances"
        return list(self._pages(path, "task_instances"))

    def end_unfinished(self, dag_id: str) -> None:
        """Give up runs and backfills that an earlier session left in the middle: nobody works on them any more."""
        backfills = list(self._pages("/backfills", "backfills", dag_id=dag_id))
        for backfill in backfills:
            if backfill["completed_at"] is None:
                self.call("PUT", f"/backfills/{backfill['id']}/cancel")
        for run in self.runs(dag_id):
            if run["state"] in ("queued", "running"):
                path = f"/dags/{dag_id}/dagRuns/{quote(run['dag_run_id'], safe='')}"
                self.call("PATCH", path, body={"state": "failed", "note": "left unfinished when the stack stopped"})

    def backfill(self, dag_id: str, day: datetime) -> int:
        """Start a backfill of the one interval that begins at `day`; finished runs of it are run again."""
        moment = day.astimezone(UTC).isoformat()
        body = {"dag_id": dag_id, "from_date": moment, "to_date": moment, "max_active_runs": 1}
        created = self.call("POST", "/backfills", body={**body, "reprocess_behavior": "completed"})
        return int(created["id"])
