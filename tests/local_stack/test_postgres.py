"""The embedded server: found, started whatever state it was left in, stopped."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from local_stack import postgres as module
from local_stack.errors import StackError
from local_stack.ports import free_port, is_free
from local_stack.postgres import Binaries, Postgres, find_binaries, server_process, stop_server, system_binaries

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to change to another user")


def one(dsn: str, statement: str) -> object:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(statement).fetchone()
    return None if row is None else row[0]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Postgres]:
    with Postgres(tmp_path / "postgres", password="tests-only") as running:
        yield running


def test_it_listens_on_the_loopback_address_only_and_asks_for_the_password(server: Postgres) -> None:
    assert one(server.dsn(), "show listen_addresses") == "127.0.0.1"
    assert one(server.dsn(), "show unix_socket_directories") == ""
    assert one(server.dsn(), "show max_connections") == "200"
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.dsn().replace("tests-only", "wrong"))


def test_only_the_tests_give_up_durability(server: Postgres, postgres: Postgres) -> None:
    assert one(server.dsn(), "show fsync") == "on"
    assert one(postgres.dsn(), "show fsync") == "off"


def test_a_killed_server_starts_again_with_its_data(server: Postgres) -> None:
    dsn = server.create_database("kept")
    with psycopg.connect(dsn) as connection:
        connection.execute("create table note as select 'still here' as words")
    process = server_process(server.data)
    assert process is not None
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert (server.data / "postmaster.pid").exists()

    server.start()

    assert one(server.dsn("kept"), "select words from note") == "still here"


def test_what_was_committed_survives_the_death_of_the_tests_own_server(tmp_path: Path) -> None:
    with Postgres(tmp_path / "postgres", password="tests-only", durable=False) as server:
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute("create table note (number int)")
            for number in range(200):
                connection.execute("insert into note values (%s)", [number])
            assert stop_server(server.data, as_in_a_crash=True)
        server.start()
        assert one(server.dsn(), "select count(*) from note") == 200


def test_a_pid_file_that_names_another_living_program_is_not_believed(tmp_path: Path) -> None:
    server = Postgres(tmp_path / "postgres", password="tests-only", durable=False)
    with server:
        lines = (server.data / "postmaster.pid").read_text().splitlines()
    lines[0] = str(os.getpid())
    (server.data / "postmaster.pid").write_text("\n".join(lines))

    assert not server.is_running()
    assert not stop_server(server.data)
    with server:
        assert server.is_running()


def test_a_running_server_is_taken_over(server: Postgres) -> None:
    second = Postgres(server.home, password="tests-only", port=free_port())
    second.start()
    assert second.port == server.port


def test_an_interrupted_creation_is_begun_anew(tmp_path: Path) -> None:
    home = tmp_path / "postgres"
    (home / "data" / "base").mkdir(parents=True)
    with Postgres(home, password="tests-only", durable=False) as server:
        assert server.is_running()


def test_stop_ends_open_connections(tmp_path: Path) -> None:
    with Postgres(tmp_path / "postgres", password="tests-only", durable=False) as server:
        connection = psycopg.connect(server.dsn())
        connection.execute("select 1")
    assert is_free(server.port)
    assert server_process(server.data) is None
    with pytest.raises(psycopg.OperationalError):
        connection.execute("select 1")


def test_a_cluster_of_another_version_is_refused_with_a_way_out(tmp_path: Path) -> None:
    data = tmp_path / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("9\n")
    with pytest.raises(StackError, match=r"made by PostgreSQL 9.*make clean"):
        Postgres(tmp_path / "postgres", password="tests-only").start()


def test_databases_are_made_once_copied_and_dropped_while_in_use(postgres: Postgres) -> None:
    dsn = postgres.create_database("original")
    with psycopg.connect(dsn) as connection:
        connection.execute("create table note ()")
    assert postgres.create_database("original") == dsn
    copy = postgres.create_database("copied", template="original")
    user = psycopg.connect(copy)
    assert user.execute("select to_regclass('note') is not null").fetchone() == (True,)
    postgres.drop_database("copied")
    user.close()
    postgres.drop_database("original")
    postgres.drop_database("original")


@pytest.mark.parametrize("choice", ["wheel", "system"])
def test_the_version_can_be_chosen(choice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if choice == "system" and system_binaries() is None:
        pytest.skip("no PostgreSQL server installed on this system")
    monkeypatch.setenv("LOCAL_POSTGRES", choice)
    with Postgres(tmp_path / "postgres", password="tests-only", durable=False) as server:
        version = str(one(server.dsn(), "show server_version"))
    assert int(version.split(".")[0]) == server.binaries.major_version() >= 15


def test_a_directory_without_a_server_is_named() -> None:
    with pytest.raises(StackError, match=r"/usr/bin holds no .*pg_ctl"):
        find_binaries("/usr/bin")


def test_nothing_found_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "wheel_binaries", lambda: None)
    monkeypatch.setattr(module, "system_binaries", lambda: None)
    with pytest.raises(StackError, match=r"make install.*LOCAL_POSTGRES"):
        find_binaries("")


@AS_ROOT
def test_root_reaches_a_server_below_a_root_only_directory(tmp_path: Path) -> None:
    if not module._namespace_works():
        pytest.skip("the kernel allows no user namespaces here")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with Postgres(closed / "postgres", password="tests-only", durable=False) as server:
        process = server_process(server.data)
        assert process is not None
        assert one(server.dsn(), "select 1") == 1


@AS_ROOT
def test_root_without_namespaces_becomes_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_namespace_works", lambda: False)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with Postgres(Path(folder) / "postgres", password="tests-only", durable=False) as server:
            process = server_process(server.data)
            assert process is not None
            assert process.username() == "nobody"
        with server:  # and again, as the owner of what is there
            assert one(server.dsn(), "select 1") == 1


def test_the_password_is_in_no_command_line(server: Postgres) -> None:
    process = server_process(server.data)
    assert process is not None
    assert "tests-only" not in " ".join(process.cmdline())
    assert not (server.home / "initdb-password").exists()
    assert "tests-only" not in server.log.read_text()


def test_binaries_tell_their_version() -> None:
    assert isinstance(find_binaries(), Binaries)
    assert find_binaries().major_version() >= 15
