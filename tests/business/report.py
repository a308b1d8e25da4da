"""What was covered, as a table for the terminal, docs/business.md and the README."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from business.mutations import Hunted
from business.player import Covered

BEGIN, END = "<!-- business -->\n", "<!-- end of business -->\n"
MUST_HAPPEN = ("late", "credits", "values typed", "changed after delivery", "prolonged")


@dataclass
class Report:
    """The figures of all programs, and where they come from."""

    command: str
    date: str
    commit: str
    seconds: float
    covered: Covered
    failures: list[str]

    def rows(self) -> list[tuple[str, str]]:
        """Name and figure."""
        covered = self.covered
        return [
            ("programs of 15 months, each seed in both modes", f"{covered.programs:,}"),
            ("nightly runs", f"{covered.events['night']:,}"),
            ("ConnectWise invoices with lines of ours", f"{covered.invoices:,}"),
            ("lines", f"{covered.lines:,}"),
            ("… delivered, each invoiced once, to the cent", f"{covered.outcomes['delivered']:,}"),
            ("… held at the end", f"{covered.outcomes['held']:,}"),
            ("… excluded", f"{covered.outcomes['excluded']:,}"),
            ("money invoiced, EUR and USD", f"{covered.money:,.2f}"),
            ("… late lines, billed in the next open cycle", f"{covered.kinds['late']:,}"),
            ("… credits", f"{covered.kinds['credits']:,}"),
            ("… with values typed by a person", f"{covered.kinds['values typed']:,}"),
            ("… prolonging the Addition of the cycle before", f"{covered.kinds['prolonged']:,}"),
            ("differences held after a change in AppXite", f"{covered.kinds['changed after delivery']:,}"),
            ("seconds for a program, mean", f"{covered.seconds / max(1, covered.programs):.1f}"),
            ("programs in which anything differs", f"{len(self.failures):,}"),
        ]

    def table(self) -> Table:
        """For the terminal."""
        table = Table(title=f"{self.command}, commit {self.commit}, {self.seconds:.0f} seconds")
        table.add_column("")
        table.add_column("", justify="right")
        for row in self.rows():
            table.add_row(*row)
        return table

    def markdown_table(self) -> list[str]:
        """The same in Markdown, with what made it."""
        made = f"Made by `{self.command}` on {self.date}, commit {self.commit}, in {self.seconds:.0f} seconds."
        return [
            made,
            "",
            "| the simulated business | |",
            "|---|---:|",
            *(f"| {name} | {figure} |" for name, figure in self.rows()),
        ]

    def markdown(self) -> str:
        """For docs/business.md: the table, what happened, and why lines were held at the end."""
        return "\n".join(
            [
                "# The simulated business", "",
                "What customers are invoiced over 15 months, compared with rules worked out a second time. How:",
                "[development](development.md#the-simulated-business).", "",
                *self.markdown_table(),
                *_counted("What happened", "event", self.covered.events),
                *_counted("Why lines were held", "reason", self.covered.held),
            ]
        ) + "\n"  # fmt: skip

    def save(self, root: Path) -> None:
        """docs/business.md, and the table in the README between its marks."""
        (root / "docs" / "business.md").write_text(self.markdown())
        readme = root / "README.md"
        before, mark, rest = readme.read_text().partition(BEGIN)
        _, end, after = rest.partition(END)
        if not (mark and end):
            raise ValueError(f"{readme} has no place for the table")
        readme.write_text(before + mark + "\n".join(self.markdown_table()) + "\n" + end + after)


def save_mutations(root: Path, date: str, commit: str, seeds: int, hunted: Sequence[Hunted]) -> None:
    """docs/mutations.md: each wrong decision, and by what it was found first."""
    found = sum(one.is_found for one in hunted)
    rows = [
        f"| {number} | {one.mutation.name} | `{Path(one.mutation.file).name}` "
        f"| {one.words if one.is_found else 'NOT FOUND'} |"
        for number, one in enumerate(hunted, 1)
    ]
    lines = [
        "# Wrong decisions that the simulated business finds", "",
        f"Made by `make business SEEDS={seeds} ARGS=\"--mutations --save\"` on {date}, commit {commit}.", "",
        "Each is one change of one product file, made in a copy. The programs that can show it are played until an",
        "invoice, an Addition or the proof differs from the rules, which are worked out a second time. The texts",
        "stand in `tests/business/mutations.py`.", "",
        f"**{found} of {len(hunted)} found**, each by at most {seeds} programs.", "",
        "| | wrong decision | file | found first by, in the month |",
        "|---:|---|---|---|",
        *rows,
    ]  # fmt: skip
    (root / "docs" / "mutations.md").write_text("\n".join(lines) + "\n")


def _counted(title: str, name: str, counted: Counter[str]) -> list[str]:
    rows = [f"| {words} | {count:,} |" for words, count in counted.most_common()]
    return ["", f"## {title}", "", f"| {name} | |", "|---|---:|", *rows]
