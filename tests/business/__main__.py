"""`make business`: plays seeds in both modes, prints what was covered. Exit code 1 if anything differs."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import typer
from prepared import Prepared

from business.mutations import MUTATIONS, hunt
from business.player import Covered, Wrong, play, prepare
from business.program import Program, write
from business.report import Report
from business.shrink import shrink
from campaign.__main__ import commit
from local_stack.console import console
from local_stack.postgres import Postgres
from local_stack.settings import ROOT

MEMORY = Path("/dev/shm")
MODES = ("persistent", "dated")


def main(
    seeds: Annotated[int, typer.Option(help="how many seeds, from 1 on")] = 20,
    seed: Annotated[int | None, typer.Option(help="this seed only")] = None,
    mode: Annotated[str, typer.Option(help="persistent or dated only")] = "",
    workers: Annotated[int, typer.Option(help="programs at the same time")] = os.cpu_count() or 2,
    save: Annotated[bool, typer.Option(help="also write docs/business.md and the README's table")] = False,
    patience: Annotated[float, typer.Option(help="seconds for making a failing program smaller")] = 120,
    mutations: Annotated[bool, typer.Option(help="show that wrong decisions are found")] = False,
    only: Annotated[str, typer.Option(help="with --mutations: those whose name contains this")] = "",
    until_wrong: Annotated[
        bool, typer.Option(help="stop at the first difference and print it as JSON", hidden=True)
    ] = False,
) -> None:
    """Run a business for 15 months, and compare what customers are invoiced with the rules, to the cent."""
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped, too
    if mutations:
        chosen = [one for one in MUTATIONS if only in one.name]
        raise typer.Exit(1 if hunt(chosen, seeds, workers, console.print) else 0)
    numbers = [seed] if seed is not None else list(range(1, seeds + 1))
    tasks = [(number, one) for number in numbers for one in MODES if mode in ("", one)]
    with base() as (prepared, directory):
        if until_wrong:
            programs = [one for mutation in MUTATIONS if mutation.name == only for one in mutation.programs(seeds)]
            raise typer.Exit(_until_wrong(prepared, directory, programs or [write(*task) for task in tasks]))
        began, covered, failures = time.monotonic(), Covered(), list[str]()
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_quiet) as pool:
            jobs = [pool.submit(_task, prepared, directory, number, one, patience) for number, one in tasks]
            for done, job in enumerate(as_completed(jobs), 1):
                found, failure = job.result()
                covered += found
                if failure:
                    failures.append(failure)
                    console.print(failure, style="red", highlight=False, markup=False)
                if done % 10 == 0 or done == len(jobs):
                    console.print(f"{done} of {len(jobs)} programs, {covered.lines:,} lines, {len(failures)} failures")
    command = (
        f"make business SEEDS={seeds}" if seed is None and not mode else " ".join(["python -m business", *sys.argv[1:]])
    )
    report = Report(command, f"{datetime.now(UTC):%Y-%m-%d}", commit(), time.monotonic() - began, covered, failures)
    console.print(report.table())
    if save:
        report.save(ROOT)
    raise typer.Exit(1 if failures else 0)


@contextmanager
def base() -> Iterator[tuple[Prepared, Path]]:
    """A PostgreSQL server with the prepared world, and a directory for copies."""
    directory = Path(tempfile.mkdtemp(prefix="billing-sync-business-", dir=MEMORY if MEMORY.is_dir() else None))
    try:
        with Postgres(directory / "postgres", password="tests-only", durable=False) as postgres:
            yield prepare(postgres, directory), directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _quiet() -> None:
    logging.disable(logging.CRITICAL)


def _task(prepared: Prepared, directory: Path, seed: int, mode: str, patience: float) -> tuple[Covered, str]:
    """Play one program; if it fails, find a small one that does, too, and say how to repeat it."""
    began = time.monotonic()
    program = write(seed, mode)
    try:
        covered = play(prepared, directory, program)
    except Wrong as wrong:
        small, found = program, wrong
        if patience:
            small, found = shrink(lambda one: _wrong(prepared, directory, one), program, wrong, patience)
        again = f"make business SEED={seed} ARGS='--mode {mode}'"
        return Covered(programs=1), f"{wrong}\nsmallest program found: {found}\n{small}\nagain: {again}"
    covered.seconds = time.monotonic() - began
    return covered, ""


def _wrong(prepared: Prepared, directory: Path, program: Program) -> Wrong | None:
    try:
        play(prepared, directory, program)
    except Wrong as wrong:
        return wrong
    return None


def _until_wrong(prepared: Prepared, directory: Path, programs: list[Program]) -> int:
    for program in programs:
        if wrong := _wrong(prepared, directory, program):
            found = {"seed": program.seed, "mode": program.mode, "day": f"{wrong.day}", "words": str(wrong)}
            print(json.dumps(found))
            return 1
    return 0


if __name__ == "__main__":
    typer.run(main)
