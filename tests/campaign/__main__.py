"""`make prove`: runs the campaign, prints and saves its table. Exit code 1 if anything is not as promised."""

from __future__ import annotations

import logging
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from campaign.report import Config, Figures, Report, all_parts
from local_stack.console import console
from local_stack.postgres import Postgres
from local_stack.settings import ROOT

MEMORY = Path("/dev/shm")


def main(
    part: Annotated[list[str] | None, typer.Option(help="only this part; may be given several times")] = None,
    seed: Annotated[int | None, typer.Option(help="all that is random follows from it (default: a new one)")] = None,
    quick: Annotated[bool, typer.Option(help="the slice that `make test` runs")] = False,
    only: Annotated[str, typer.Option(help="only the trial of this name; with --part")] = "",
    workers: Annotated[int, typer.Option(help="trials at the same time")] = os.cpu_count() or 2,
    save: Annotated[
        bool, typer.Option(help="also write docs/proof.md and the README's table; figures are in .local/prove")
    ] = False,
) -> None:
    """Prove that each Addition is delivered exactly once."""
    parts = all_parts()
    unknown = set(part or ()) - set(parts)
    if unknown:
        raise typer.BadParameter(f"no such part: {', '.join(unknown)}; there are {', '.join(parts)}")
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    console.print(f"seed {seed}")
    logging.disable(logging.CRITICAL)  # thousands of warnings about faults that are meant
    began, found = time.monotonic(), dict[str, Figures]()
    directory = Path(tempfile.mkdtemp(prefix="billing-sync-prove-", dir=MEMORY if MEMORY.is_dir() else None))
    try:
        with Postgres(directory / "postgres", password="tests-only", durable=False) as postgres:
            config = Config(seed, postgres, directory, quick=quick, workers=workers, only=only, say=console.print)
            with closing(config):
                for name in part or parts:
                    console.rule(name)
                    started = time.monotonic()
                    found[name] = parts[name](config)
                    console.print(f"{name}: {time.monotonic() - started:.0f} seconds")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    report = Report(
        seed=seed,
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        commit=commit(),
        command=" ".join(["python -m campaign", *sys.argv[1:]]) if part or quick else f"make prove SEED={seed}",
        seconds=time.monotonic() - began,
        parts=found,
    )
    report.save(ROOT / ".local" / "prove")
    if save:
        (ROOT / "docs" / "proof.md").write_text(report.markdown())
        report.show_in(ROOT / "README.md")
    console.print(report.table())
    broken = report.whole.failures if only else report.whole.broken(all_controls=not part)
    for words in broken[:30]:
        console.print(f"[red]{words}[/red]", highlight=False)
    console.print(f"[red]{len(broken)} things are not as promised[/red]" if broken else "[green]as promised[/green]")
    raise typer.Exit(1 if broken else 0)


def commit() -> str:
    """The commit that was proven."""
    answer = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return answer.stdout.strip() or "unknown"


if __name__ == "__main__":
    typer.run(main)
