"""What the campaign is asked and what it found: figures that add up, the list of parts, the table."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from decimal import Decimal
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from campaign.worlds import World
    from local_stack.postgres import Postgres


@dataclass
class Config:
    """What a part is given.

    seed       everything random follows from it
    quick      the bounded slice that `make test` runs, instead of all of it
    postgres   a running server; a part may make and drop databases on it
    directory  scratch; removed at the end
    workers    how many trials run at the same time
    only       the name of one trial: everything else is left out
    say        tells how far a part is
    worlds     worlds that were made already (campaign.worlds)
    pools      processes that run trials (campaign.trial), by their number
    """

    seed: int
    postgres: Postgres
    directory: Path
    quick: bool = False
    workers: int = 2
    only: str = ""
    say: Callable[[str], None] = print
    worlds: dict[str, World] = field(default_factory=dict)
    pools: dict[int, Executor] = field(default_factory=dict)

    def wants(self, trial: str) -> bool:
        """Whether a trial is to be run."""
        return self.only in ("", trial)

    def close(self) -> None:
        """End the processes that run trials."""
        for pool in self.pools.values():
            pool.shutdown()
        self.pools.clear()


@dataclass
class Figures:
    """What trials found. Figures of several trials or parts add up field by field (`+`).

    points, covered   executed lines at which a process could be killed, and at which one was, by what was running
    overlap_seconds   how long two writers were at work at the same time
    lines, money      delivered, as ConnectWise invoiced them
    duplicates        Additions of one key that were billable beside another one
    cents_off         |invoiced - wanted| of each company, in cents
    in_doubt          trials that were not proven however often they were resumed
    orphans           inert Additions of ours that are not the billable one; neutralised: with an end on their first day
    rerun_writes      writes when the delivered plan is delivered once more; and by `reruns` further whole nights
    recovery          seconds from a kill until the resumed run is proven, one per kill
    failures          what is not as promised, each with how to repeat just that trial
    controls          the figures of the negative controls, by name; their duplicates are wanted
    """

    trials: int = 0
    points: dict[str, int] = field(default_factory=dict)
    covered: dict[str, int] = field(default_factory=dict)
    kills: int = 0
    stops: int = 0
    overlaps: int = 0
    overlap_seconds: float = 0.0
    faulty_writes: int = 0
    ambiguous_replies: int = 0
    late_writes: int = 0
    restarts: int = 0
    lost_commits: int = 0
    runs_at_once: int = 0
    examples: int = 0
    model_states: int = 0
    lines: int = 0
    money: Decimal = Decimal("0.00")
    duplicates: int = 0
    lost: int = 0
    cents_off: int = 0
    in_doubt: int = 0
    orphans: int = 0
    orphans_neutralised: int = 0
    reruns: int = 0
    rerun_writes: int = 0
    recovery: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    controls: dict[str, Figures] = field(default_factory=dict)

    def __add__(self, other: Figures) -> Figures:
        return Figures(*(_sum(getattr(self, one.name), getattr(other, one.name)) for one in fields(self)))

    def broken(self, *, all_controls: bool = True) -> list[str]:
        """What is not as promised, in words.

        A control that bills nothing twice means that the harness would not see it; all_controls: each one must be
        caught (all parts together do that), else one is enough.
        """
        promised_zero = ("duplicates", "lost", "cents_off", "in_doubt", "rerun_writes")
        found = [f"{WORDS[name]}: {getattr(self, name)}" for name in promised_zero if getattr(self, name)]
        silent = [name for name, control in self.controls.items() if not control.duplicates]
        if all_controls or len(silent) == len(self.controls):
            found += [f"{name}: found no duplicate: the harness proves nothing" for name in silent]
        return found + self.failures

    def percentile(self, percent: int) -> float:
        """Of the recovery times, in seconds; 0 when there is none."""
        if len(self.recovery) < 2:
            return sum(self.recovery)
        return quantiles(self.recovery, n=100, method="inclusive")[percent - 1]


def _sum(mine: Any, other: Any) -> Any:
    if isinstance(mine, dict):
        return {
            name: mine[name] + other[name] if name in mine and name in other else mine.get(name, other.get(name))
            for name in [*mine, *(name for name in other if name not in mine)]
        }
    return mine + other


WORDS = {
    "trials": "trials",
    "kills": "SIGKILL",
    "stops": "SIGSTOP, takeover, SIGCONT",
    "overlaps": "workers at one plan at once",
    "overlap_seconds": "overlap in a real Airflow, seconds",
    "faulty_writes": "writes with a faulty answer",
    "ambiguous_replies": "… fate unknown to the client",
    "late_writes": "… applied late",
    "restarts": "PostgreSQL restarts",
    "lost_commits": "lost COMMIT acknowledgements",
    "runs_at_once": "runs of one period at once",
    "examples": "state machine examples",
    "model_states": "states of the model",
    "lines": "lines delivered",
    "money": "money delivered",
    "duplicates": "duplicates",
    "lost": "lost",
    "cents_off": "cents off",
    "in_doubt": "left in doubt",
    "orphans": "orphans made",
    "orphans_neutralised": "orphans neutralised",
    "reruns": "further nights over what is delivered",
    "rerun_writes": "writes of any re-run",
}

# -- the parts ---------------------------------------------------------------------------------------------------------

Part = Callable[[Config], Figures]
PARTS: dict[str, Part] = {}


def part(name: str) -> Callable[[Part], Part]:
    """Registers a part of the campaign. Its docstring's first line stands in the table."""

    def register(function: Part) -> Part:
        PARTS[name] = function
        return function

    return register


def all_parts() -> dict[str, Part]:
    """Every part that a module of this package registers."""
    import campaign

    for module in pkgutil.iter_modules(campaign.__path__):
        if not module.name.startswith(("test_", "__main__")):
            importlib.import_module(f"campaign.{module.name}")
    return PARTS


# -- the table ---------------------------------------------------------------------------------------------------------


@dataclass
class Report:
    """The figures of all parts of one campaign, and where they come from."""

    seed: int
    date: str
    commit: str
    command: str
    seconds: float
    parts: dict[str, Figures]

    @property
    def whole(self) -> Figures:
        """All parts together."""
        return sum(self.parts.values(), Figures())

    def rows(self) -> list[list[str]]:
        """Name, our value, and the value of each control."""
        whole = self.whole
        columns = [whole, *whole.controls.values()]
        rows = [
            [f"lines covered, {name}", f"{whole.covered.get(name, 0):,} of {points:,}"] + ["" for _ in whole.controls]
            for name, points in whole.points.items()
        ]
        for name, words in WORDS.items():
            if any(getattr(column, name) for column in columns) or name in ALWAYS:
                rows.append([words, *(shown(getattr(column, name)) for column in columns)])
        times = [f"{whole.percentile(50):.2f} s / {whole.percentile(95):.2f} s"] if whole.recovery else ["-"]
        rows.append(["from kill to proof, p50 / p95", *times, *("" for _ in whole.controls)])
        return rows

    def header(self) -> list[str]:
        """Of the columns of `rows`."""
        return ["", "this pipeline", *self.whole.controls]

    def table(self) -> Table:
        """For the terminal."""
        table = Table(title=f"make prove, seed {self.seed}, commit {self.commit}, {self.seconds:.0f} seconds")
        for number, name in enumerate(self.header()):
            table.add_column(name, justify="right" if number else "left")
        for row in self.rows():
            table.add_row(*row)
        return table

    def markdown_table(self) -> list[str]:
        """The same in Markdown, with what made it."""
        header = self.header()
        return [
            f"Made by `{self.command}` on {self.date}, commit {self.commit}, in {self.seconds:.0f} seconds. "
            "Negative controls stand beside it: protocols that are known to bill twice, run by the same harness.",
            "",
            "| " + " | ".join(header) + " |",
            "|" + "---|" + "---:|" * (len(header) - 1),
            *("| " + " | ".join(row) + " |" for row in self.rows()),
        ]

    def markdown(self) -> str:
        """For docs/proof.md: the table, and what each part does."""
        lines = ["# Proof", "", *self.markdown_table(), ""]
        for name, figures in self.parts.items():
            does = (PARTS[name].__doc__ or "").strip().partition("\n")[0]
            lines += [f"* **{name}** ({figures.trials:,} trials): {does}", *(f"  * {note}" for note in figures.notes)]
        return "\n".join(lines) + "\n"

    def save(self, directory: Path) -> None:
        """proof.md and proof.json."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "proof.md").write_text(self.markdown())
        values = {**asdict(self), "whole": asdict(self.whole), "recovery_p50_p95": [
            self.whole.percentile(50), self.whole.percentile(95)
        ]}  # fmt: skip
        (directory / "proof.json").write_text(json.dumps(values, default=str, indent=1) + "\n")

    def show_in(self, readme: Path) -> None:
        """Put the table between the two marks of the README."""
        before, mark, rest = readme.read_text().partition("<!-- proof -->\n")
        _, end, after = rest.partition("<!-- end of proof -->\n")
        if not (mark and end):
            raise ValueError(f"{readme} has no place for the table")
        readme.write_text(before + mark + "\n".join(self.markdown_table()) + "\n" + end + after)


ALWAYS = ("trials", "kills", "lines", "money", "duplicates", "lost", "cents_off", "in_doubt", "rerun_writes")


def shown(value: Any) -> str:
    """A figure as text."""
    return f"{value:,.2f}" if isinstance(value, (Decimal, float)) else f"{value:,}"
