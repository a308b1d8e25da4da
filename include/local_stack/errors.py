"""Errors that end a command with a message for a person instead of a traceback."""

from __future__ import annotations

from pathlib import Path


class StackError(Exception):
    """A part of the stack could not do its work. `log` names the file that tells more."""

    def __init__(self, message: str, *, log: Path | None = None) -> None:
        super().__init__(message)
        self.log = log


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log file, or an empty text when there is none."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
