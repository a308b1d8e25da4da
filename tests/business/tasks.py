"""What a process of `make business` does: play a seed, and find a small program that fails like it."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from prepared import Prepared

from business.player import Covered, Wrong, play, prepare
from business.program import Program, write
from business.shrink import shrink
from local_stack.postgres import Postgres

MEMORY = Path("/dev/shm")


@contextmanager
def base() -> Iterator[tuple[Prepared, Path]]:
    """A PostgreSQL server with the prepared world, and a directory for copies."""
    directory = Path(tempfile.mkdtemp(prefix="billing-sync-business-", dir=MEMORY if MEMORY.is_dir() else None))
    try:
        with Postgres(directory / "postgres", password="tests-only", durable=False) as postgres:
            yield prepare(postgres, directory), directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def quiet() -> None:
    """A process that plays seeds says nothing itself."""
    logging.disable(logging.CRITICAL)


def play_seed(prepared: Prepared, directory: Path, seed: int, mode: str, patience: float) -> tuple[Covered, str]:
    """Play one program; if it fails, find a small one that does, too, and say how to repeat it."""
    began = time.monotonic()
    program, again = write(seed, mode), f"make business SEED={seed} ARGS='--mode {mode}'"
    try:
        covered = play(prepared, directory, program)
    except Wrong as wrong:
        small, found = program, wrong
        if patience:
            small, found = shrink(lambda one: _wrong(prepared, directory, one), program, wrong, patience)
        return Covered(programs=1), f"{wrong}\nsmallest program found: {found}\n{small}\nagain: {again}"
    except psycopg.Error as error:
        return Covered(programs=1), f"{type(error).__name__}: {error}\nagain: {again}"
    covered.seconds = time.monotonic() - began
    return covered, ""


def _wrong(prepared: Prepared, directory: Path, program: Program) -> Wrong | None:
    try:
        play(prepared, directory, program)
    except Wrong as wrong:
        return wrong
    return None


def until_wrong(prepared: Prepared, directory: Path, programs: list[Program]) -> int:
    """Play programs until one is wrong, which is printed as JSON; 1 if there is one."""
    for program in programs:
        if wrong := _wrong(prepared, directory, program):
            found = {"seed": program.seed, "mode": program.mode, "day": f"{wrong.day}", "words": str(wrong)}
            print(json.dumps(found))
            return 1
    return 0
