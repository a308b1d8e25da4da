"""Ports on the loopback address."""

from __future__ import annotations

import socket

from local_stack.errors import StackError

LOOPBACK = "127.0.0.1"


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
    return port


def require_free(port: int, *, what: str, variable: str) -> None:
    """Refuse to start `what` on a taken port, naming the variable that chooses another."""
    if not is_free(port):
        raise StackError(
            f"Port {port} of {LOOPBACK}, wanted for {what}, is in use by another program. "
            f"Stop that program, or choose another port: make demo {variable}={port + 1000}"
        )
