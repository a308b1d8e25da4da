"""What a person sees while the stack works: steps, progress lines, commands."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from local_stack.errors import StackError, tail

console = Console(highlight=False, soft_wrap=True)


def step(text: str) -> None:
    """The headline of a step."""
    console.print(f"\n[bold]== {text}[/bold]")


def say(text: str) -> None:
    console.print(f"   {text}", markup=False)


def wait_for(
    what: str,
    ready: Callable[[], bool],
    *,
    seconds: float,
    check: Callable[[], None] = lambda: None,
    log: Path | None = None,
    every: float = 0.5,
) -> float:
    """Wait until `ready()`, telling every ten seconds that we still do; `check()` raises when waiting is in vain."""
    began = time.monotonic()
    told = began
    while not ready():
        check()
        now = time.monotonic()
        if now - began > seconds:
            raise StackError(f"{what} was not ready within {seconds:.0f} seconds", log=log)
        if now - told >= 10:
            told = now
            say(f"waiting for {what} ... {now - began:.0f} s")
        time.sleep(every)
    return time.monotonic() - began


def run_quietly(
    name: str, command: Sequence[str], environment: Mapping[str, str], *, directory: Path, log: Path
) -> None:
    """Run a command whose output only matters when it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        answer = subprocess.run(
            list(command), cwd=directory, env=dict(environment), stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    if answer.returncode != 0:
        raise StackError(f"{name} failed (exit {answer.returncode}). Its last lines:\n{tail(log)}", log=log)


def run_openly(
    name: str, command: Sequence[str], environment: Mapping[str, str], *, directory: Path, log: Path
) -> None:
    """Run a command as a person would: shown, with its output on the screen and in the log."""
    shown = ["python", *command[1:]] if command[0].endswith("python") else list(command)
    console.print(f"   [cyan]$ {subprocess.list2cmdline(shown)}[/cyan]", highlight=False)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as output:
        output.write(f"$ {subprocess.list2cmdline(shown)}\n")
        child = subprocess.Popen(
            list(command),
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with child:
            for line in child.stdout or ():
                output.write(line)
                console.print(f"     {line.rstrip()}", markup=False)
    if child.returncode != 0:
        raise StackError(f"{name} failed (exit {child.returncode})", log=log)
