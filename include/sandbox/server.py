"""The HTTP server, and the order in which a request is asked: log, fault rules, keys, service, fault again.

from sandbox.server import Sandbox
with Sandbox(tmp_path, seed=7, customers=40, months=3, last_month="2026-11") as sandbox:
    sandbox.url               # http://127.0.0.1:PORT
    sandbox.add_fault("lost_reply", service="connectwise", method="POST", count=1)
    sandbox.journal()
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import threading
import time
import traceback
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from sandbox import control
from sandbox.appxite import AppXite
from sandbox.connectwise import ConnectWise
from sandbox.dataset import Dataset
from sandbox.faults import Faults, Rule
from sandbox.messages import Credentials, Refusal, Request, Response
from sandbox.store import Store
from sandbox.wire import Json, dumps, loads

WRITES = ("POST", "PUT", "PATCH", "DELETE")
MAX_BODY = 5_000_000
_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


class Sandbox(control.Control):
    """Both services and the control API over one state directory.

    A directory that holds data already is used as it is, and the parameters of the data set are ignored.
    """

    def __init__(
        self,
        state_dir: Path | str,
        *,
        seed: int = 7,
        customers: int = 40,
        months: int = 3,
        last_month: str = "2026-11",
        host: str = "127.0.0.1",
        port: int = 0,
        **credentials: str,
    ) -> None:
        self.credentials = Credentials(**credentials)
        self.store = Store(Path(state_dir))
        given = {"seed": seed, "customers": customers, "months": months, "last_month": last_month}
        wanted = {**given, "requester_id": self.credentials.requester_id}
        self.kept = self.store.get("parameters")
        if self.kept is None:
            with self.store.transaction():
                Dataset(self.store, self.credentials, **given).build()  # type: ignore[arg-type]
                self.store.put("parameters", wanted)
        else:
            # The invoices carry the requester's id, so a kept data set keeps it.
            self.credentials = Credentials(**{**credentials, "requester_id": self.kept["requester_id"]})
        self.parameters_ignored = self.kept is not None and self.kept != wanted
        self.appxite = AppXite(self.store, self.credentials)
        self.connectwise = ConnectWise(self.store, self.credentials)
        self.fault_rules = Faults(seed)
        self._address = (host, port)
        self._server: _Server | None = None
        self._threads: list[threading.Thread] = []
        self.stopping = threading.Event()
        self._late_changed = threading.Condition(self.store.lock)

    # -- life -----------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        if self._server is None:
            raise RuntimeError("the sandbox is not started")
        return f"http://{self._address[0]}:{self._server.server_address[1]}"

    @property
    def port(self) -> int:
        if self._server is None:
            raise RuntimeError("the sandbox is not started")
        return int(self._server.server_address[1])

    def start(self) -> str:
        """Listen, in background threads; returns the base URL and writes the port to `DIR/port`."""
        self._server = _Server(self._address, self)
        (self.store.directory / "port").write_text(f"{self.port}\n")
        self._threads = [
            threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True),
            threading.Thread(target=self._apply_late_ones, daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        return self.url

    def stop(self) -> None:
        """Stop answering, end open connections, close the state. Late requests stay pending for a restart."""
        self.stopping.set()
        with self._late_changed:
            self._late_changed.notify_all()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.end_connections()
        for thread in self._threads:
            thread.join(5)
        self.store.close()

    def __enter__(self) -> Sandbox:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- one request ----------------------------------------------------------------------------------------------

    def service_of(self, path: str) -> str:
        if path.startswith("/_sandbox"):
            return "control"
        return "appxite" if path.lower().startswith("/api/") else "connectwise"

    def answer(self, request: Request) -> tuple[Response | None, Rule | None]:
        """The answer and the fault that is to spoil it; no answer means: end the connection."""
        service = self.service_of(request.path)
        if service == "control":
            return control.dispatch(self, request), None
        with self.store.lock:
            seq = self.store.log_request(service, request.method, request.path)
            rule = self.fault_rules.pick(service, request.method, request.path, request.body)
        if rule is not None and rule.kind == "delay":
            self.stopping.wait(float(rule.params.get("seconds", 1)))
        with self.store.lock:
            changes: dict[str, Any] = {"seq": seq}
            if rule is not None and rule.kind == "stale":
                ago = timedelta(seconds=float(rule.params.get("age", 60)))
                changes["as_of"] = (datetime.now(UTC) - ago).strftime(_TIME)
                changes["hide_only"] = bool(rule.params.get("hide_only", False))
            request = Request(**{**request.__dict__, **changes})
            response, outcome = self._apply(service, request, rule)
            status = response.status if response is not None else None
            if rule is not None and rule.kind == "lost_reply":
                response = status = None
            elif rule is not None and rule.kind == "status_after":
                response = faulty(service, rule)
                status = response.status
            self.store.finish_request(seq, status, rule.kind if rule else None, outcome)
        return response, rule

    def _apply(self, service: str, request: Request, rule: Rule | None) -> tuple[Response | None, str]:
        """Let the service handle the request unless the fault keeps it away. Returns the answer and the outcome."""
        if rule is not None and rule.kind == "status":
            return faulty(service, rule), "not_applied"
        if rule is not None and rule.kind == "reset":
            return None, "not_applied"
        if service == "appxite":
            response = self.appxite.dispatch(request)
            return response, "answered" if response.status < 400 else "refused"
        try:
            self.connectwise.authorize(request)
        except Refusal as refusal:
            return self.connectwise.finish(request, refusal.response), "refused"
        if rule is not None and rule.kind == "late":
            self._keep_for_later(request, rule)
            return None, "pending"
        response = self.connectwise.dispatch(request)
        return response, outcome_of(response)

    # -- late requests --------------------------------------------------------------------------------------------

    def _keep_for_later(self, request: Request, rule: Rule) -> None:
        """Store an accepted request, so that it is applied later even if the sandbox is restarted meanwhile."""
        delay = rule.params.get("delay", 1)
        due = None if delay is None else (datetime.now(UTC) + timedelta(seconds=float(delay))).strftime(_TIME)
        with self._late_changed:
            query = {name: value for name, value in request.query.items() if name != "clientid"}
            self.store.db.execute(
                "insert into late (due, request_seq, method, path, query, body) values (?, ?, ?, ?, ?, ?)",
                (
                    due,
                    request.seq,
                    request.method,
                    request.path,
                    dumps(query),
                    request.body.decode("utf-8", "replace"),
                ),
            )
            self._late_changed.notify_all()

    def _apply_one(self, late_id: int) -> Json:
        with self.store.transaction():
            row = self.store.db.execute(
                "select request_seq, method, path, query, body from late where id = ?", (late_id,)
            ).fetchone()
            seq, method, path, query, body = row
            request = Request(method, path, loads(query), {}, body.encode(), seq=seq, by="late")
            response = self.connectwise.dispatch(request)
            self.store.db.execute("delete from late where id = ?", (late_id,))
            self.store.db.execute("update requests set outcome = ? where seq = ?", (outcome_of(response), seq))
            return {"id": late_id, "status": response.status}

    def release_late(self) -> list[Json]:
        with self.store.lock:
            ids = [row[0] for row in self.store.db.execute("select id from late order by id").fetchall()]
            return [self._apply_one(late_id) for late_id in ids]

    def _apply_late_ones(self) -> None:
        """Background thread: apply what is due, then sleep until the next one is."""
        with self._late_changed:
            while not self.stopping.is_set():
                now = datetime.now(UTC)
                waiting = self.store.db.execute(
                    "select id, due from late where due is not null order by due, id limit 1"
                ).fetchone()
                if waiting is None:
                    self._late_changed.wait()
                    continue
                due = datetime.strptime(waiting[1], _TIME).replace(tzinfo=UTC)
                if due > now:
                    self._late_changed.wait((due - now).total_seconds())
                    continue
                self._apply_one(waiting[0])


def outcome_of(response: Response) -> str:
    if response.status >= 400:
        return "refused"
    return "applied" if response.applied else "answered"


def faulty(service: str, rule: Rule) -> Response:
    """The answer of a `status` or `status_after` rule."""
    status = int(rule.params.get("status", 500))
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Error"
    default: Json = {"message": phrase} if service == "appxite" else {"error": "ConnectWiseAPI", "message": phrase}
    body = rule.params.get("body", default)
    headers = {str(name): str(value) for name, value in rule.params.get("headers", {}).items()}
    if status == 429:
        headers.setdefault("Retry-After", "1")
    if isinstance(body, str):
        return Response(status, text=body, headers={"Content-Type": "text/plain; charset=utf-8", **headers})
    return Response(status, body, headers)


class _Server(ThreadingHTTPServer):
    """Keeps track of open connections: to end them on stop, and to reset some of them."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self._open: set[socket.socket] = set()
        self._to_reset: set[socket.socket] = set()
        self._guard = threading.Lock()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # HTTPServer.server_bind looks the host name up, which can take seconds without a resolver.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "sandbox", int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._guard:
            self._open.add(request)
        super().process_request(request, client_address)

    def reset(self, connection: socket.socket) -> None:
        """End this connection with a reset instead of an orderly end."""
        # Linger of zero seconds: close() then sends RST. A shutdown before it would send FIN first.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with self._guard:
            self._to_reset.add(connection)

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._open.discard(request)
            hard = request in self._to_reset
            self._to_reset.discard(request)
        if hard:
            self.close_request(request)
        else:
            super().shutdown_request(request)

    def end_connections(self) -> None:
        with self._guard:
            connections = list(self._open)
        for connection in connections:
            with contextlib.suppress(OSError):  # gone already
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        if not isinstance(sys.exc_info()[1], ConnectionError):
            traceback.print_exc()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "sandbox"
    disable_nagle_algorithm = True
    wbufsize = 65536  # head and body leave in one packet; http.server flushes after each request
    server: _Server

    def log_message(self, *_: Any) -> None:
        """Silent: the default would print the query, and with it the key."""

    def _handle(self) -> None:
        body = self._read_body()
        if body is None:
            return
        url = urlsplit(self.path)
        # parse_qsl with strict off: a name given twice counts once, the last time.
        pairs = parse_qsl(url.query, keep_blank_values=True)
        request = Request(
            method=self.command,
            path=unquote(url.path),
            query={name.lower() if not url.path.startswith("/_sandbox") else name: value for name, value in pairs},
            headers={name.lower(): value for name, value in self.headers.items()},
            body=body,
            base_url=f"http://{self.headers.get('Host') or 'localhost'}",
        )
        try:
            response, rule = self.server.sandbox.answer(request)
        except Exception:  # noqa: BLE001
            traceback.print_exc()
            response, rule = Response(500, {"message": "The sandbox itself failed; see its log."}), None
        if response is None:
            self._say_nothing(rule)
        else:
            self._send(response, rule)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815

    def _read_body(self) -> bytes | None:
        try:
            length = int(self.headers.get("Content-Length") or 0)
        except ValueError:
            length = -1
        if length < 0 or length > MAX_BODY or self.headers.get("Transfer-Encoding"):
            self.close_connection = True
            self._send(Response(411, {"message": "A body needs a Content-Length of reasonable size."}), None)
            return None
        body = self.rfile.read(length) if length else b""
        if len(body) < length:  # the client went away in the middle: nothing was asked
            self.close_connection = True
            return None
        return body

    def _say_nothing(self, rule: Rule | None) -> None:
        self.close_connection = True
        params = rule.params if rule else {}
        if rule and rule.kind == "late" and params.get("connection") == "hang":
            self.server.sandbox.stopping.wait(float(params.get("hang", 30)))
        if rule and (rule.kind == "reset" or params.get("reset")):
            self.server.reset(self.connection)

    def _send(self, response: Response, rule: Rule | None) -> None:
        kind, params = (rule.kind, rule.params) if rule else ("", {})
        payload = response.payload()
        if kind == "invalid_json":
            payload = payload[: len(payload) // 2] + b"\x00<html>"
        self.send_response(response.status)
        self.send_header("Content-Type", response.headers.pop("Content-Type", "application/json; charset=utf-8"))
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(payload)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if kind == "truncated":
            self.wfile.write(payload[: int(len(payload) * float(params.get("keep", 0.5)))])
            self.close_connection = True
        elif kind == "slow_body":
            chunks = max(1, int(params.get("chunks", 10)))
            step = max(1, -(-len(payload) // chunks))
            for start in range(0, len(payload), step):
                self.wfile.flush()
                self.server.sandbox.stopping.wait(float(params.get("seconds", 2)) / chunks)
                self.wfile.write(payload[start : start + step])
        else:
            self.wfile.write(payload)


def serve_forever(sandbox: Sandbox) -> None:
    """Run in the foreground until interrupted."""
    print(f"sandbox ready on {sandbox.start()}", flush=True)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        pass
    finally:
        sandbox.stop()
