"""`make check`, `make format` and `make lock`: the tools that look at the code, not at its behaviour."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from local_stack import pages
from local_stack.console import console
from local_stack.settings import ROOT

SQL = Path("include/sql")
CODE = ("include", "plugins", "dags", "tests")
TYPED = ("include", "plugins")
UV_COMPILE = (
    *("-m", "uv", "--no-config", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"),
    *("--generate-hashes", "--no-emit-index-url", "--no-emit-find-links", "--custom-compile-command", "make lock"),
)


def _run(name: str, arguments: Sequence[str]) -> bool:
    console.print(f"[bold]{name}[/bold]")
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, check=False).returncode == 0


def _with_files(folders: Sequence[str], pattern: str) -> list[str]:
    return [folder for folder in folders if any((ROOT / folder).rglob(pattern))]


def check() -> bool:
    """Run every check, also after one has failed; true when all are satisfied."""
    code = _with_files(CODE, "*.py")
    results = {
        "ruff check": _run("ruff check", ["-m", "ruff", "check", *code]),
        "ruff format": _run("ruff format --check", ["-m", "ruff", "format", "--check", *code]),
        "mypy": _run("mypy", ["-m", "mypy", *_with_files(TYPED, "*.py")]),
    }
    if any((ROOT / SQL).rglob("*.sql")):
        results["sqlfluff"] = _run("sqlfluff", ["-m", "sqlfluff", "lint", "--processes", "2", str(SQL)])
    console.print("[bold]npm run check[/bold]")
    results["npm run check"] = pages.run_script("check")
    results["api-types.ts"] = pages.api_types_are_current()
    failed = [name for name, passed in results.items() if not passed]
    console.print(f"[red]failed: {', '.join(failed)}[/red]" if failed else "[green]all checks passed[/green]")
    return not failed


def format_code() -> bool:
    """Let the tools mend what they can mend safely."""
    code = _with_files(CODE, "*.py")
    results = [_run("ruff check --fix", ["-m", "ruff", "check", "--fix", *code])]
    results.append(_run("ruff format", ["-m", "ruff", "format", *code]))
    if any((ROOT / SQL).rglob("*.sql")):
        results.append(_run("sqlfluff fix", ["-m", "sqlfluff", "fix", "--processes", "2", str(SQL)]))
    return all(results)


def lock(*, upgrade: bool) -> bool:
    """Write both locks. The image's comes first: the local one follows its versions, so both run the same code."""
    more = ["--upgrade"] if upgrade else []
    deploy = [*UV_COMPILE, *more, "requirements-deploy.txt", "-o", "requirements-deploy.lock"]
    local = [
        *UV_COMPILE,
        *more,
        "requirements-dev.txt",
        "-c",
        "requirements-deploy.lock",
        "-o",
        "requirements-dev.lock",
    ]
    return _run("requirements-deploy.lock", deploy) and _run("requirements-dev.lock", local)
