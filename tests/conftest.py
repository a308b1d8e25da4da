"""What every test may use: a real PostgreSQL, a migrated billing database, the sandbox, Airflow's metadata.

Airflow reads its configuration on import, so its environment is set when this file is loaded, before any test module.
Nothing here imports Airflow, the pipeline or the sandbox until a fixture that needs them is asked for.
"""

from __future__ import annotations

import atexit
import ipaddress
import os
import shutil
import signal
import socket
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

ROOT = Path(__file__).resolve().parent.parent
for folder in ("plugins", "include"):
    if str(ROOT / folder) not in sys.path:
        sys.path.insert(0, str(ROOT / folder))

from local_stack.postgres import Postgres  # noqa: E402

if TYPE_CHECKING:
    from sandbox.server import Sandbox

# -- Airflow's environment -------------------------------------------------------------------------------------------

AIRFLOW_HOME = Path(tempfile.mkdtemp(prefix="billing-sync-airflow-"))
atexit.register(shutil.rmtree, AIRFLOW_HOME, ignore_errors=True)

for name in [*os.environ]:
    if name.startswith(("AIRFLOW_", "_AIRFLOW_", "BILLING_")):
        del os.environ[name]  # the developer's own Airflow and databases are none of the tests' business

os.environ.update(
    {
        "AIRFLOW_HOME": str(AIRFLOW_HOME),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__FERNET_KEY": "dGVzdHMtb25seS10ZXN0cy1vbmx5LXRlc3RzLW9ubHk=",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,op:op,viewer:viewer",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(AIRFLOW_HOME / "passwords.json"),
        "AIRFLOW__API__SECRET_KEY": "tests-only-" * 8,
        "AIRFLOW__API_AUTH__JWT_SECRET": "tests-only-" * 8,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{AIRFLOW_HOME / 'airflow.db'}",
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "include"), str(ROOT / "plugins")]),
        "TZ": "UTC",
    }
)
(AIRFLOW_HOME / "passwords.json").write_text('{"admin": "admin", "op": "op", "viewer": "viewer"}')

# -- order and the network ------------------------------------------------------------------------------------------


def pytest_configure() -> None:
    """A run that is terminated still stops what it started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


# The files that take longest, longest first: with several processes none of them comes last, while the others idle.
LONGEST = (
    "e2e/test_demo_for_real.py",
    "campaign/test_campaign.py",
    "e2e/test_secrets.py",
    "local_stack/test_demo.py",
    "billing_sync/test_over_time.py",
    "billing_sync/test_deliver.py",
    "dags/test_end_to_end.py",
    "business/test_business.py",
    "sql/test_bounds.py",
    "sql/test_simulate.py",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Several processes begin with the longest files; one alone ends with what starts real Airflow servers."""
    order = {str(ROOT / "tests" / name): place for place, name in enumerate(LONGEST)}
    if hasattr(config, "workerinput"):  # one of several
        items.sort(key=lambda item: order.get(str(item.path), len(order)))
    else:
        items.sort(key=lambda item: item.get_closest_marker("e2e") is not None)


class NetworkBlocked(OSError):
    """A test tried to leave this machine."""


def _is_local(host: object) -> bool:
    if host in (None, "", b"", "localhost"):
        return True
    try:
        return ipaddress.ip_address(str(host).split("%")[0]).is_loopback
    except ValueError:
        return False


def _refuse_remote(host: object) -> None:
    if not _is_local(host):
        raise NetworkBlocked(f"tests may reach this machine only, not {host!r}: use the sandbox fixture")


@pytest.fixture(scope="session", autouse=True)
def network_guard() -> Iterator[None]:
    """Refuse connections and name look-ups that would leave this machine."""
    patch = pytest.MonkeyPatch()

    def guarded(method: Callable[..., Any]) -> Callable[..., Any]:
        def connect(self: socket.socket, address: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6):
                _refuse_remote(address[0])
            return method(self, address)

        return connect

    look_up = socket.getaddrinfo

    def guarded_look_up(host: Any, *arguments: Any, **options: Any) -> Any:
        _refuse_remote(host)
        return look_up(host, *arguments, **options)

    patch.setattr(socket.socket, "connect", guarded(socket.socket.connect))
    patch.setattr(socket.socket, "connect_ex", guarded(socket.socket.connect_ex))
    patch.setattr(socket, "getaddrinfo", guarded_look_up)
    yield
    patch.undo()


# -- PostgreSQL ------------------------------------------------------------------------------------------------------


MEMORY, ROOM = Path("/dev/shm"), 4 * 2**30


def _memory() -> Path | None:
    """Where files are in memory, which saves a tenth of the servers' work; None when there is too little of it."""
    if not os.access(MEMORY, os.W_OK) or psutil.virtual_memory().available < 2 * ROOM:
        return None
    return MEMORY if shutil.disk_usage(MEMORY).free > ROOM else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server of this test run's own. LOCAL_POSTGRES chooses which: `wheel`, `system` or a directory."""
    home = Path(tempfile.mkdtemp(prefix="billing-sync-postgres-", dir=_memory()))
    try:
        with Postgres(home, password="tests-only", durable=False) as server:
            yield server
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def empty_db(postgres: Postgres) -> Iterator[str]:
    """The address of a new, empty database."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    yield postgres.create_database(name)
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def billing_template(postgres: Postgres) -> str:
    """The name of a database that holds our migrations and nothing else; tests work on copies of it."""
    from billing_sync.migrate import migrate

    migrate(postgres.create_database("billing_template"))
    return "billing_template"


@pytest.fixture
def billing_db(postgres: Postgres, billing_template: str) -> Iterator[str]:
    """The address of a migrated billing database that belongs to this test alone."""
    name = f"billing_{uuid.uuid4().hex[:12]}"
    yield postgres.create_database(name, template=billing_template)
    postgres.drop_database(name)


# -- the sandbox: AppXite and ConnectWise in one process ---------------------------------------------------------------


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    """A running sandbox of this test's own, with its default seed."""
    from sandbox.server import Sandbox

    with Sandbox(tmp_path / "sandbox") as running:
        yield running


@pytest.fixture(scope="session")
def sandbox_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A running sandbox shared by tests that only read from it."""
    from sandbox.server import Sandbox

    with Sandbox(tmp_path_factory.mktemp("sandbox")) as running:
        yield running


# -- Airflow's metadata ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def airflow_db() -> None:
    """Airflow's metadata database with the pool that our tasks name: enough for `dag.test()`."""
    from airflow.models.pool import Pool
    from airflow.utils.db import initdb

    initdb()
    Pool.create_or_update_pool("connectwise_api", slots=4, description="tests", include_deferred=False)
