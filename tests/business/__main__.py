"""`make business`: plays seeds in both modes, prints what was covered. Exit code 1 if anything differs."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import UTC, datetime
from multiprocessing import get_context
from typing import Annotated

import typer

from business.mutations import MUTATIONS, hunt
from business.player import Covered
from business.program import write
from business.report import Report, save_mutations
from business.tasks import base, play_seed, quiet
from business.tasks import until_wrong as run_until_wrong
from campaign.__main__ import commit
from local_stack.console import console
from local_stack.settings import ROOT

MODES = ("persistent", "dated")


def main(
    seeds: Annotated[int, typer.Option(help="how many seeds, from 1 on")] = 20,
    seed: Annotated[int | None, typer.Option(help="this seed only")] = None,
    mode: Annotated[str, typer.Option(help="persistent or dated only")] = "",
    workers: Annotated[int, typer.Option(help="programs at the same time")] = os.cpu_count() or 2,
    save: Annotated[bool, typer.Option(help="also write the tables in docs and README")] = False,
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
        hunted = hunt(chosen, seeds, workers, console.print)
        if save:
            save_mutations(ROOT, f"{datetime.now(UTC):%Y-%m-%d}", commit(), seeds, hunted)
        raise typer.Exit(0 if all(one.is_found for one in hunted) else 1)
    numbers = [seed] if seed is not None else list(range(1, seeds + 1))
    tasks = [(number, one) for number in numbers for one in MODES if mode in ("", one)]
    with base() as (prepared, directory):
        if until_wrong:
            programs = [one for mutation in MUTATIONS if mutation.name == only for one in mutation.programs(seeds)]
            raise typer.Exit(run_until_wrong(prepared, directory, programs or [write(*task) for task in tasks]))
        began, covered, failures = time.monotonic(), Covered(), list[str]()
        pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=quiet)
        try:
            jobs = [pool.submit(play_seed, prepared, directory, number, one, patience) for number, one in tasks]
            for done, job in enumerate(as_completed(jobs), 1):
                found, failure = job.result()
                covered += found
                if failure:
                    failures.append(failure)
                    console.print(failure, style="red", highlight=False, markup=False)
                if done % 10 == 0 or done == len(jobs):
                    console.print(f"{done} of {len(jobs)} programs, {covered.lines:,} lines, {len(failures)} failures")
        finally:
            pool.shutdown(cancel_futures=True)  # when stopped: not the seeds that have not begun
    command = (
        f"make business SEEDS={seeds}" if seed is None and not mode else " ".join(["python -m business", *sys.argv[1:]])
    )
    report = Report(command, f"{datetime.now(UTC):%Y-%m-%d}", commit(), time.monotonic() - began, covered, failures)
    console.print(report.table())
    if save:
        report.save(ROOT)
    raise typer.Exit(1 if failures else 0)


if __name__ == "__main__":
    typer.run(main)
