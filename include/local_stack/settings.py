"""Where the local stack keeps its state and which ports it uses; every choice is an environment variable."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from local_stack.errors import StackError
from local_stack.ports import LOOPBACK

ROOT = Path(__file__).resolve().parents[2]

AIRFLOW_DATABASE = "airflow"
BILLING_DATABASE = "billing"


def _port(variable: str, default: int) -> int:
    text = os.environ.get(variable, "").strip()
    if not text:
        return default
    if not text.isdigit() or not 1024 <= int(text) <= 65535:
        raise StackError(f"{variable}={text!r}: a port between 1024 and 65535 is needed")
    return int(text)


def _state() -> Path:
    return Path(os.environ.get("LOCAL_STATE") or ROOT / ".local").absolute()


@dataclass(frozen=True)
class Settings:
    """The settings of one local stack."""

    root: Path = ROOT
    state: Path = field(default_factory=_state)
    dags: Path = ROOT / "dags"
    plugins: Path = ROOT / "plugins"
    airflow_port: int = field(default_factory=lambda: _port("AIRFLOW_PORT", 8080))
    postgres_port: int = field(default_factory=lambda: _port("POSTGRES_PORT", 54320))
    sandbox_port: int = field(default_factory=lambda: _port("SANDBOX_PORT", 8090))

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def airflow_url(self) -> str:
        return f"http://{LOOPBACK}:{self.airflow_port}"

    @property
    def sandbox_url(self) -> str:
        return f"http://{LOOPBACK}:{self.sandbox_port}"

    @property
    def python_path(self) -> str:
        return os.pathsep.join([str(self.root / "include"), str(self.plugins)])

    def base_environment(self) -> dict[str, str]:
        """The caller's environment without what would redirect our processes to another Airflow or database."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "_AIRFLOW", "BILLING_", "PG"))}
        local = f"{LOOPBACK},localhost"
        return {
            **kept,
            "PYTHONPATH": self.python_path,
            "PYTHONUNBUFFERED": "1",
            "NO_PROXY": local,
            "no_proxy": local,
            "OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES",  # macOS: Airflow forks its workers
        }
