"""A small HTTP server that answers what a test tells it, byte by byte where that matters."""

from __future__ import annotations

import json
import re
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pipeline import Pipeline
from prepared import Build, Prepared, prepare
from rich.console import Console

from billing_sync import __main__ as command_line
from local_stack.postgres import Postgres


@dataclass
class Reply:
    """status and body; `how`: "", "reset" (no answer), "cut" (half of the body), "drip" (a byte at a time)."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    how: str = ""
    wait: float = 0.0

    @property
    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    connection: int


class Stub:
    """`replies` are used up one by one (the last one stays); `answer` decides instead if it is set."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.replies: list[Reply] = [Reply(200, [])]
        self.answer: Callable[[Asked], Reply] | None = None
        self._stopping = threading.Event()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_: Any) -> None:
                pass

            def handle_one(self) -> None:
                url = urlsplit(self.path)
                length = int(self.headers.get("Content-Length") or 0)
                asked = Asked(
                    self.command,
                    url.path,
                    {name: values[-1] for name, values in parse_qs(url.query).items()},
                    {name.lower(): value for name, value in self.headers.items()},
                    self.rfile.read(length),
                    self.client_address[1],
                )
                stub.asked.append(asked)
                if stub.answer:
                    reply = stub.answer(asked)
                else:
                    reply = stub.replies.pop(0) if len(stub.replies) > 1 else stub.replies[0]
                stub._stopping.wait(reply.wait)
                self.reply(reply)

            do_GET = do_POST = do_PATCH = handle_one  # noqa: N815

            def reply(self, reply: Reply) -> None:
                if reply.how == "reset":
                    self.close_connection = True
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.connection.close()
                    return
                content = reply.content
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if reply.how == "cut":
                    self.wfile.write(content[: len(content) // 2])
                    self.close_connection = True
                elif reply.how == "drip":
                    for byte in content:
                        if stub._stopping.wait(0.05):
                            return
                        self.wfile.write(bytes([byte]))
                        self.wfile.flush()
                else:
                    self.wfile.write(content)

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                """Clients that go away are what these tests are about."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self.server.shutdown()
        self.server.server_close()
        self._thread.join(5)


@pytest.fixture
def stub() -> Iterator[Stub]:
    server = Stub()
    yield server
    server.stop()


@pytest.fixture
def reply() -> type[Reply]:
    return Reply


@pytest.fixture
def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """`python -m billing_sync …` in this process: exit code, and what it printed, lines joined."""
    monkeypatch.setattr(command_line, "console", Console(width=200))

    def call(dsn: str | None, *arguments: str) -> tuple[int, str]:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["billing_sync", *arguments])
            patch.delenv("BILLING_DB_DSN", raising=False)
            if dsn is not None:
                patch.setenv("BILLING_DB_DSN", dsn)
            code = 0
            try:
                command_line.main()
            except SystemExit as end:
                code = int(end.code or 0)
            captured = capsys.readouterr()
            return code, re.sub(r"\s+", " ", captured.out + captured.err)

    return call


# -- the whole path (pipeline.py) --------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def prepared(postgres: Postgres, billing_template: str, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Four customers, mapped and approved; nothing invoiced by AppXite yet."""
    return prepare(postgres, billing_template, tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="session")
def stage(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Build], Prepared]:
    """Prepares what several tests begin with once: a function that fills a pipeline and plans a run in it."""
    known: dict[Build, Prepared] = {}

    def make(build: Build) -> Prepared:
        if build not in known:
            pipeline = prepared.copy(tmp_path_factory.mktemp("stage"))
            known[build] = prepared.freeze(pipeline, *build(pipeline))
        return known[build]

    return make


@pytest.fixture
def pipeline_of(tmp_path: Path) -> Iterator[Callable[[Prepared], Pipeline]]:
    """Makes a pipeline of its own from a prepared one."""
    made: list[tuple[Prepared, Pipeline]] = []

    def make(prepared: Prepared) -> Pipeline:
        made.append((prepared, prepared.copy(tmp_path)))
        return made[-1][1]

    yield make
    for prepared, pipeline in made:
        prepared.discard(pipeline)


@pytest.fixture
def pipeline(prepared: Prepared, pipeline_of: Callable[[Prepared], Pipeline]) -> Pipeline:
    """A prepared database and sandbox that belong to this test alone."""
    return pipeline_of(prepared)
