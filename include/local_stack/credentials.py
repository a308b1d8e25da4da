"""Passwords and keys of the local stack: generated once, kept in .local/secrets.json, readable by the owner only."""

from __future__ import annotations

import base64
import json
import os
import secrets
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from local_stack.errors import StackError


def _password() -> str:
    return secrets.token_urlsafe(12)


def _long_key() -> str:
    return secrets.token_urlsafe(64)


def _fernet_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


@dataclass(frozen=True)
class Credentials:
    """Everything secret that the local stack needs. Not shown when printed."""

    postgres_password: str = field(default_factory=_password, repr=False)
    jwt_secret: str = field(default_factory=_long_key, repr=False)
    api_secret_key: str = field(default_factory=_long_key, repr=False)
    fernet_key: str = field(default_factory=_fernet_key, repr=False)
    admin_password: str = field(default_factory=_password, repr=False)
    op_password: str = field(default_factory=_password, repr=False)
    viewer_password: str = field(default_factory=_password, repr=False)
    sas_key: str = field(default_factory=_password, repr=False)
    public_key: str = field(default_factory=_password, repr=False)
    private_key: str = field(default_factory=_password, repr=False)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.new")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    partial.replace(path)


def load_credentials(path: Path) -> Credentials:
    """Read the credentials, generating those that are missing."""
    stored: dict[str, str] = {}
    if path.exists():
        try:
            stored = json.loads(path.read_text())
        except ValueError as error:
            raise StackError(f"{path} is not JSON any more. Start afresh with `make clean`.") from error
    known = {f.name for f in fields(Credentials)}
    credentials = Credentials(**{name: value for name, value in stored.items() if name in known})
    if asdict(credentials) != stored:
        write_private(path, json.dumps(asdict(credentials), indent=2) + "\n")
    return credentials
