"""A TCP proxy in front of PostgreSQL that breaks a connection at a chosen round trip.

The proxy understands as much of the v3 protocol as it needs: a client's round trip ends with a Query ('Q') or a Sync
('S'), the server's with a ReadyForQuery ('Z'). What the client sends belongs to a round trip until it ends, and is
forwarded together.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from enum import Enum
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_SSL_REQUEST, _GSS_REQUEST = 80877103, 80877104
_HELD_BACK = b"PBDEC"  # Parse, Bind, Describe, Execute, Close: nothing of it counts before the Sync


class Cut(Enum):
    """What becomes of the chosen round trip."""

    AFTER = "done, its acknowledgement lost"
    BEFORE = "never arrived"


class PostgresProxy:
    """Listens on a port of its own. `arm` chooses the round trip that is cut; `round_trips` counts since then."""

    def __init__(self, dsn: str) -> None:
        target = urlsplit(dsn)
        assert target.hostname is not None
        assert target.port is not None
        self._target = (target.hostname, target.port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._guard = threading.Lock()
        self.arm()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A thread that waits in accept() holds the socket open: only a shutdown wakes it.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def through(self, dsn: str) -> str:
        """The address of a database by way of this proxy."""
        host, port = self._target
        return dsn.replace(f"@{host}:{port}/", f"@127.0.0.1:{self._listener.getsockname()[1]}/")

    def arm(self, at: int | None = None, cut: Cut = Cut.AFTER) -> None:
        """Cut the at-th round trip from now (1: the next one); None: none."""
        with self._guard:
            self._at, self._cut = at, cut
            self.round_trips = 0
            self.statement = ""

    def begin(self, statement: str) -> Cut | None:
        """Count a round trip; whether it is the one to cut."""
        with self._guard:
            self.round_trips += 1
            if self.round_trips != self._at:
                return None
            self.statement = statement
            return self._cut

    @property
    def has_cut(self) -> bool:
        """Whether the chosen round trip was reached."""
        with self._guard:
            return self._at is not None and self.round_trips >= self._at

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _Session(self, client, server).start()


class _Session:
    """One client's connection and the server's side of it, a thread for each direction."""

    def __init__(self, proxy: PostgresProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client, self._server = client, server
        self._from_client, self._from_server = client.makefile("rb"), server.makefile("rb")
        self._swallows = False

    def start(self) -> None:
        for direction in (self._to_server, self._to_client):
            threading.Thread(target=self._pump, args=(direction,), daemon=True).start()

    def _pump(self, direction: object) -> None:
        with contextlib.suppress(OSError, ValueError):  # either end is gone
            direction()  # type: ignore[operator]
        for one in (self._client, self._server):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _to_server(self) -> None:
        while True:  # the first messages carry no type
            length, code = struct.unpack("!ii", self._from_client.read(8) or bytes(8))
            if not length:
                return
            if code not in (_SSL_REQUEST, _GSS_REQUEST):
                break
            self._client.sendall(b"N")
        self._server.sendall(struct.pack("!ii", length, code) + self._from_client.read(length - 8))
        held, statement = b"", ""
        while message := _read(self._from_client):
            kind = message[:1]
            if kind in (b"Q", b"P"):
                # Parse: a name, then the statement. Query: the statement.
                statement = message[5:].split(b"\0")[1 if kind == b"P" else 0].decode(errors="replace")
            if kind in _HELD_BACK:
                held += message
                continue
            if kind in b"QS":
                cut = self._proxy.begin(statement)
                if cut is Cut.BEFORE:
                    return
                self._swallows = cut is Cut.AFTER
            self._server.sendall(held + message)
            held = b""

    def _to_client(self) -> None:
        while message := _read(self._from_server):
            kind = message[:1]
            if not self._swallows or kind == b"G":
                self._client.sendall(message)
            elif kind == b"Z":
                return


def _read(stream: object) -> bytes:
    head: bytes = stream.read(5)  # type: ignore[attr-defined]
    if len(head) < 5:
        return b""
    (length,) = struct.unpack("!i", head[1:])
    rest: bytes = stream.read(length - 4)  # type: ignore[attr-defined]
    return head + rest if len(rest) == length - 4 else b""
