"""No key is left behind anywhere, also when every step fails: a real Airflow at log level DEBUG, then a search.

Searched: every file of Airflow (the logs of its servers and of all tries of all tasks), every table of its metadata
and of the billing database, the sandbox's state (journal and request log), command lines of processes, and what the
REST API tells an administrator. A canary planted in each of these places shows that the search finds what is there.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import requests
from pipeline import CUSTOMERS, OCT, Pipeline, one_time, recurring
from psycopg import sql
from psycopg.conninfo import make_conninfo
from real_airflow import RealAirflow, connections_to, real_airflow

from billing_sync.db import connect
from billing_sync.migrate import migrate
from billing_sync.run import log_entry
from sandbox.server import Sandbox

if TYPE_CHECKING:
    from local_stack.airflow_api import Json
    from local_stack.postgres import Postgres

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

DAG = "sync_billing_period"
PERIOD = "2026-10"
SECONDS = 240

# A secret is found by its core, which no quoting changes, even if a message holds only a part of the secret.
CORES = {
    "sasKey": "Qz7vK3mTw9RbXe42",
    "private key": "Hn5yL8cJf2PdSg63",
    "database password": "Wk9uB4xNa6VtMr85",
    "wrong sasKey": "Ey3hZ6sQp8GjUc27",
    "wrong private key": "Tb8wF2kDm5LxYn94",
    "wrong database password": "Rj6gC9eVq3HsKz58",
}
SECRETS = {name: f"""sv%2F1/+&=;'{core}"\\ #?:@{core[::-1]}+/==""" for name, core in CORES.items()}
CANARY = "canary0Xf4Tq7"

# Airflow's own place for a deployment's policies: tries follow each other at once, and what a person would clear is
# tried again by itself. The clients do not wait long for a service that stays away.
LOCAL_SETTINGS = """
import functools
from datetime import timedelta
from billing_sync import http

http.Limits = functools.partial(http.Limits, attempts=2, first_wait=0.01)

def task_policy(task):
    task.retries = 20
    task.retry_delay = task.max_retry_delay = timedelta(seconds=1)
    task.retry_policy = None
"""
OPTIONS = {"logging": {"logging_level": "DEBUG"}, "core": {"test_connection": "Enabled"}}

REDIRECT = {"status": 302, "headers": {"Location": "http://127.0.0.1:9/elsewhere"}}
NO_SUCH_LOGIN = "refuses its login or password|password authentication failed"
# What each task must have said, as regular expressions.
SAID = {
    "preflight": [
        "refuses its login or password", "appxite_api lacks extra requester_id",
        "connectwise_api lacks extra company_id", r"AppXite refuses the key \(401\)",
        r"ConnectWise refuses the keys \(401", r"redirect \(302\)", "answered 500", "the connection broke",
        "not whole JSON",
    ],
    "extract_appxite_reference": [
        NO_SUCH_LOGIN, "lacks extra requester_id", r"refuses the key \(401\)", r"redirect \(302\)", "answered 500",
        "the connection broke", "not whole JSON",
    ],
    "extract_connectwise_reference": [
        NO_SUCH_LOGIN, "lacks extra company_id", r"refuses the keys \(401", r"redirect \(302\)", "answered 500",
        "the connection broke", "not whole JSON",
    ],
    "extract_invoices": [
        NO_SUCH_LOGIN, "lacks extra requester_id", r"refuses the key \(401\)", r"redirect \(302\)", "answered 500",
        "the connection broke", "not whole JSON",
    ],
    "load_invoices": [NO_SUCH_LOGIN],
    "deliver_shard": [
        r"refuses the keys \(401", r"refuses access \(403\)", r"refused \(401\)", "answered 302",
        "Whether it was applied is not known", "whether it was applied is not known",
        "record that came back cannot be read",
    ],
    "prove": [
        NO_SUCH_LOGIN, "lacks extra company_id", r"refuses the keys \(401", r"refuses access \(403\)",
        r"redirect \(302\)", "answered 500", "the connection broke", "not whole JSON",
    ],
}  # fmt: skip


def forms(core: str) -> list[bytes]:
    """How a core may stand in a file: as it is, within any Base64, in hexadecimal (bytea)."""
    raw = core.encode()
    found = [raw, raw.hex().encode()]
    for shift in range(3):  # where it begins within a group of three bytes
        encoded = base64.b64encode(b"\0" * shift + raw)
        found.append(encoded[-(-shift * 8 // 6) : (shift + len(raw)) * 8 // 6])
    return found


# -- the world and its troubles ----------------------------------------------------------------------------------------


def fail_reads(sandbox: Sandbox, service: str, path: str, *, refuse: bool = False) -> None:
    """The next reads of a resource fail in each way. The client asks twice, so that a try meets two rules."""
    rule = {"service": service, "method": "GET", "path": path, "count": 1}
    if refuse:
        sandbox.add_fault("status", **rule, params={"status": 403})
    sandbox.add_fault("status", **rule, params={"status": 500})
    sandbox.add_fault("reset", **rule)
    sandbox.add_fault("invalid_json", **rule)
    sandbox.add_fault("status", **rule, params=REDIRECT)


def fail_writes(sandbox: Sandbox) -> None:
    """What a delivery meets: refused reads of the agreement, and then writes that fail in each way."""
    agreement = {"service": "connectwise", "method": "GET", "path": r"/agreements/\d+$"}
    for status in (401, 403):
        sandbox.add_fault("status", **agreement, count=1, params={"status": status})
    for write in (
        {"service": "connectwise", "method": "POST", "path": "/additions$"},
        {"service": "connectwise", "method": "PATCH", "path": r"/additions/\d+$"},
    ):
        sandbox.add_fault("status", **write, count=1, params={"status": 500})
        sandbox.add_fault("reset", **write, count=1)
        sandbox.add_fault("status", **write, count=1, params=REDIRECT)
        sandbox.add_fault("status", **write, count=1, params={"status": 401})
        sandbox.add_fault("invalid_json", **write, count=1)


@dataclass
class World:
    """A real Airflow, its connections, and what was seen of it on the way."""

    running: RealAirflow
    sandbox: Sandbox
    connections: dict[str, Json]
    admin_dsn: str
    run_id: str = ""
    command_lines: set[bytes] = field(default_factory=set)
    told: list[str] = field(default_factory=list)

    def change(self, conn_id: str, **fields: str) -> None:
        """Overwrite fields of an Airflow connection."""
        body = {"connection_id": conn_id, "conn_type": self.connections[conn_id]["conn_type"], **fields}
        answer = self.running.api.call(
            "PATCH", f"/connections/{conn_id}", body=body, query={"update_mask": list(fields)}
        )
        self.told.append(json.dumps(answer))

    def mend(self, conn_id: str, name: str = "password") -> None:
        """A field of a connection as it should be."""
        self.change(conn_id, **{name: self.connections[conn_id][name]})

    def look(self, _: object = None) -> None:
        """Keep the command lines of all processes."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                self.command_lines.add(path.read_bytes())
            except OSError:  # it has ended
                continue

    def run(self, dag_id: str, **conf: Any) -> str:
        run_id = self.running.trigger(dag_id, conf)
        assert self.running.follow(dag_id, run_id, self.look, seconds=SECONDS) == "success"
        return run_id

    def clear(self, tasks: Sequence[str]) -> None:
        body = {"dag_run_id": self.run_id, "task_ids": list(tasks), "only_failed": False, "dry_run": False}
        self.running.api.call("POST", f"/dags/{DAG}/clearTaskInstances", body=body)

    def tries(self, *, ended: bool) -> dict[str, int]:
        """How many tries of each task have begun, or ended (of a mapped one: of its first instance)."""
        found: dict[str, int] = {}
        for one in self.running.api.task_instances(DAG, self.run_id):
            is_going_on = one["state"] in ("scheduled", "queued", "running")
            found.setdefault(one["task_id"], one["try_number"] - (1 if ended and is_going_on else 0))
        return found

    def wait_for_a_failure_of(self, tasks: Sequence[str]) -> None:
        """Wait until each of the tasks has ended a try that began after this moment."""
        begun = self.tries(ended=False)
        deadline = time.monotonic() + SECONDS
        while any(self.tries(ended=True)[task] <= begun[task] for task in tasks):
            assert time.monotonic() < deadline, (tasks, begun, self.tries(ended=True))
            self.look()
            time.sleep(0.5)


def run_with_trouble(world: World) -> None:
    """A run whose every step fails in many ways, and which is green in the end."""
    sandbox = world.sandbox
    fail_writes(sandbox)
    world.run_id = world.run(DAG, billing_periods=[PERIOD])

    readers = ["preflight", "extract_appxite_reference", "extract_connectwise_reference", "extract_invoices", "prove"]
    world.change("billing_db", password=SECRETS["wrong database password"])
    world.clear([*readers, "load_invoices"])
    world.wait_for_a_failure_of([*readers, "load_invoices"])
    # The next trouble comes before the last one goes: no try of a task may get through between them.
    world.change("appxite_api", extra="{}")
    world.change("connectwise_api", extra="{}")
    world.mend("billing_db")
    world.wait_for_a_failure_of(readers)
    world.change("appxite_api", password=SECRETS["wrong sasKey"])
    world.change("connectwise_api", password=SECRETS["wrong private key"])
    world.mend("appxite_api", "extra")
    world.mend("connectwise_api", "extra")
    world.wait_for_a_failure_of(readers)
    # Resources that one task alone reads.
    fail_reads(sandbox, "appxite", "/contracts")
    fail_reads(sandbox, "appxite", "/invoice-headers")
    fail_reads(sandbox, "connectwise", "/companyinfo")
    fail_reads(sandbox, "connectwise", "/additions$", refuse=True)
    world.mend("appxite_api")
    world.mend("connectwise_api")
    assert world.running.follow(DAG, world.run_id, world.look, seconds=SECONDS) == "success"
    fail_reads(sandbox, "connectwise", "/billingCycles$")  # preflight reads them, too, and has ended
    world.clear(["extract_connectwise_reference"])
    assert world.running.follow(DAG, world.run_id, world.look, seconds=SECONDS) == "success"


def ask_a_worker(world: World, conn_id: str) -> list[str]:
    """The same test, made by a worker; the request waits in the metadata database, keys included."""
    url = f"{world.running.api.base_url}/api/v2/connections/enqueue-test"
    headers = dict(world.running.api._session.headers)
    body = {"connection_id": conn_id, **world.connections[conn_id]}
    queued = requests.post(url, json=body, headers=headers, timeout=30).json()
    headers["Airflow-Connection-Test-Token"] = queued["token"]
    deadline = time.monotonic() + SECONDS
    while (answer := requests.get(url, headers=headers, timeout=30).json())["state"] not in ("success", "failed"):
        assert time.monotonic() < deadline, answer
        time.sleep(0.5)
    return [json.dumps(queued), json.dumps(answer)]


def press_test(world: World) -> None:
    """Airflow's button Test for each connection, with the keys right and wrong; and what an administrator may list."""
    api = world.running.api
    for conn_id, right in world.connections.items():
        for password in (right["password"], SECRETS["wrong private key"]):
            body = {"connection_id": conn_id, **right, "password": password}
            world.told.append(json.dumps(api.call("POST", "/connections/test", body=body)))
        world.told += ask_a_worker(world, conn_id)
    for path in ("/connections", "/eventLogs", f"/dags/{DAG}/dagRuns/~/taskInstances/~/xcomEntries", "/config"):
        answer = requests.get(
            f"{api.base_url}/api/v2{path}", headers=dict(api._session.headers), params={"limit": 1000}, timeout=30
        )
        world.told.append(answer.text)


# -- where a secret may be -----------------------------------------------------------------------------------------


def files(folder: Path, kind: str) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        # Where the local stack keeps its passwords; none of ours is in it.
        if path.is_file() and path.name not in ("secrets.json", "airflow-passwords.json"):
            yield f"{kind}: {path.relative_to(folder)}", path.read_bytes()


def tables(dsn: str, kind: str) -> Iterator[tuple[str, bytes]]:
    """Every table as text, also those that are encrypted in part (connection)."""
    with psycopg.connect(dsn) as connection:
        names = connection.execute(
            "select schemaname, tablename from pg_tables where schemaname not in ('pg_catalog', 'information_schema')"
        ).fetchall()
        for name in names:
            with connection.cursor().copy(sql.SQL("copy {} to stdout").format(sql.Identifier(*name))) as copy:
                yield f"{kind}: {'.'.join(name)}", b"".join(bytes(block) for block in copy)


def haystack(world: World) -> dict[str, bytes]:
    """Everything there is to search, by place."""
    return dict(
        [
            *files(world.running.state, "airflow"),
            *files(world.sandbox.store.directory, "sandbox"),
            *tables(world.running.metadata_dsn, "metadata"),
            *tables(world.admin_dsn, "billing"),
            ("command lines", b"\n".join(world.command_lines)),
            ("told by the API", "\n".join(world.told).encode()),
        ]
    )


def places_of(needles: Sequence[bytes], hay: dict[str, bytes]) -> list[str]:
    return sorted(place for place, content in hay.items() if any(needle in content for needle in needles))


@contextmanager
def canary_planted(world: World) -> Iterator[None]:
    """The canary in one log, one row of each database, the request log, a command line and an answer of the API."""
    log = next((world.running.logs / "tasks").rglob("attempt=1.log"))
    with log.open("a") as file:
        file.write(f'{{"event": "{CANARY}"}}\n')
    note = world.running.api.call("PATCH", f"/dags/{DAG}/dagRuns/{world.run_id}", body={"note": CANARY})
    world.told.append(json.dumps(note))
    with connect(world.admin_dsn) as connection:
        log_entry(connection, None, "INFO", "tests", CANARY)
    requests.get(f"{world.sandbox.url}/v4_6_release/apis/3.0/{CANARY}", timeout=10)
    script = "print(flush=True); input()"
    command = [sys.executable, "-c", script, CANARY]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # now its command line is there
        world.look()
        yield
        process.communicate(b"\n")


def prepare(dsn: str, sandbox: Sandbox) -> None:
    """Mappings and settings as an administrator makes them, and an invoice."""
    sandbox.change_settings(requests_per_minute=1_000_000)
    pipeline = Pipeline(dsn, sandbox)
    pipeline.set_up(requests_per_minute="100000")
    pipeline.close()
    for invoice in sandbox.appxite_invoices():
        sandbox.delete_appxite_invoice(invoice["invoiceId"])
    # One agreement: agreements are read side by side, and only the first error of several is told.
    pipeline.bill(OCT, recurring("a", OCT), recurring("b", OCT, 3), one_time("c", OCT))


@dataclass
class Aftermath:
    """What is left after the run: everything there is to search, and the logs of each task."""

    hay: dict[str, bytes]
    logs: dict[str, str]
    unused_faults: list[Json]


@pytest.fixture(scope="module")
def aftermath(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Aftermath:
    home = tmp_path_factory.mktemp("secrets")
    admin_dsn = postgres.create_database("secrets")
    migrate(admin_dsn)
    with psycopg.connect(admin_dsn, autocommit=True) as connection:
        password = sql.Literal(SECRETS["database password"])
        connection.execute(sql.SQL("create role secretive superuser login password {}").format(password))
    dsn = make_conninfo(admin_dsn, user="secretive", password=SECRETS["database password"])
    keys = {"sas_key": SECRETS["sasKey"], "private_key": SECRETS["private key"], "public_key": "pub/lic+key"}
    with Sandbox(home / "sandbox", customers=CUSTOMERS, **keys) as sandbox:
        prepare(admin_dsn, sandbox)
        connections = connections_to(dsn, sandbox)
        with real_airflow(
            home / "airflow", postgres, connections, options=OPTIONS, local_settings=LOCAL_SETTINGS
        ) as running:
            world = World(running, sandbox, connections, admin_dsn)
            run_with_trouble(world)
            press_test(world)
            logs = {task: running.task_log(DAG, world.run_id, task) for task in SAID}
            unused = [rule for rule in sandbox.faults() if rule["hits"] < rule["count"]]
            with canary_planted(world):
                return Aftermath(haystack(world), logs, unused)


def test_every_step_failed_and_said_why(aftermath: Aftermath) -> None:
    missing = {
        task: [words for words in expected if not re.search(words, aftermath.logs[task])]
        for task, expected in SAID.items()
    }
    assert {task: words for task, words in missing.items() if words} == {}
    assert aftermath.unused_faults == []


def test_the_search_finds_a_canary_in_every_place(aftermath: Aftermath) -> None:
    kinds = {place.partition(":")[0] for place in places_of(forms(CANARY), aftermath.hay)}
    assert kinds == {place.partition(":")[0] for place in aftermath.hay}
    # Where Airflow keeps what passes between tasks and what was rendered, there was something to search.
    kept = ("xcom", "rendered_task_instance_fields", "log", "task_instance_history", "connection_test_request")
    for table in kept:
        assert aftermath.hay[f"metadata: public.{table}"], table


def test_keys_would_have_been_logged(aftermath: Aftermath) -> None:
    """The URLs with the sasKey did go to the logs, without it: else the search would prove little."""
    assert "sasKey=***" in aftermath.logs["extract_invoices"]


def test_no_secret_is_left_anywhere(aftermath: Aftermath) -> None:
    found = {name: places_of(forms(core), aftermath.hay) for name, core in CORES.items()}
    assert {name: places for name, places in found.items() if places} == {}
