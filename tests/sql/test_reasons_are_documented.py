"""Every reason a line can be held for stands in docs/mappings-and-rules.md, and is provoked by a test.

A new reason fails here until both are written; the message names what is missing and where to write it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from billing_sync.db import Connection

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "mappings-and-rules.md"
BOUNDS = ROOT / "docs" / "bounds.md"
CAUSE, EFFECT, CURE = 1, 2, 3


def reason_codes(connection: Connection, condition: str = "true") -> set[str]:
    """The codes that the database knows."""
    rows = connection.execute(
        f"select reason_code from billing.held_reason_code where {condition}"  # type: ignore[call-overload]
    ).fetchall()
    return {row[0] for row in rows}


def table_rows(text: str, heading: str) -> dict[str, list[str]]:
    """The rows of all Markdown tables below a heading of the second level whose first cell is a code, by that code."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert section, f"there is no heading {heading!r}"
    rows: dict[str, list[str]] = {}
    for line in section[1].splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        code = re.fullmatch(r"`(\w+)`", cells[0])
        if line.startswith("|") and code:
            assert code[1] not in rows, f"{code[1]} stands in it twice"
            rows[code[1]] = cells
    return rows


def asserted_words(source: str) -> Iterator[str]:
    """The strings that a test file checks: in assert statements, and in what is handed to parametrized tests."""
    tree = ast.parse(source)
    checked: list[ast.AST] = [node for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    handed = [
        node for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "parametrize"
    ]  # fmt: skip
    names = {name.id for call in handed for name in ast.walk(call) if isinstance(name, ast.Name)}
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id in names for target in targets):
            checked.append(node)
    for part in (*checked, *handed):
        for node in ast.walk(part):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def provoked(codes: set[str]) -> set[str]:
    """The codes that some test checks."""
    found: set[str] = set()
    for file in (ROOT / "tests").rglob("test_*.py"):
        if file != Path(__file__).resolve():
            found |= codes & set(asserted_words(file.read_text(encoding="utf-8")))
    return found


def test_each_reason_has_its_cause_money_effect_and_cure_in_the_guide(functions: Connection) -> None:
    codes = reason_codes(functions)
    documented = table_rows(GUIDE.read_text(encoding="utf-8"), "Held reasons")

    missing = sorted(codes - set(documented))
    assert not missing, (
        f"{', '.join(missing)}: no row in {GUIDE.relative_to(ROOT)}, '## Held reasons'. Write one: "
        "| `code` | cause | effect on money | cure |"
    )
    unknown = sorted(set(documented) - codes)
    assert not unknown, f"{', '.join(unknown)}: in {GUIDE.relative_to(ROOT)}, but not in billing.held_reason_code"
    incomplete = sorted(
        code
        for code, cells in documented.items()
        if len(cells) != 4 or not all(cells[n] for n in (CAUSE, EFFECT, CURE))
    )
    assert not incomplete, (
        f"{', '.join(incomplete)}: cause, effect on money or cure is empty in {GUIDE.relative_to(ROOT)}"
    )


def test_each_bound_that_holds_lines_is_explained_where_bounds_are(functions: Connection) -> None:
    documented = table_rows(BOUNDS.read_text(encoding="utf-8"), "Lines")

    codes = reason_codes(functions, "is_bound")
    assert codes == set(documented), (
        f"{', '.join(sorted(codes ^ set(documented)))}: stands in only one of billing.held_reason_code (is_bound) and "
        f"{BOUNDS.relative_to(ROOT)}, '## Lines'"
    )


def test_each_reason_is_provoked_by_a_test(functions: Connection) -> None:
    codes = reason_codes(functions)

    missing = sorted(codes - provoked(codes))
    assert not missing, (
        f"{', '.join(missing)}: no test checks that a line is held for it. Add a case to CASES in "
        "tests/sql/test_held_reasons.py (what provokes it, what cures it), or an assert in a test of your own"
    )


def test_a_code_in_passing_is_no_test() -> None:
    source = '''
CASES = [("case", "in_a_case")]
OTHER = ["in_a_list"]

@pytest.mark.parametrize("case", [*CASES, "in_the_decorator"])
def test_it(case):
    """in_a_docstring"""
    hold("in_a_call")
    assert reasons() == {"in_an_assert"}
'''

    words = {word for word in asserted_words(source) if word.startswith("in_")}
    assert words == {"in_a_case", "in_the_decorator", "in_an_assert"}


def test_tables_are_read_row_by_row_below_their_heading() -> None:
    text = "## One\n| `a` | x |\n"
    text += "## Two\n| reason | cause |\n|---|---|\n| `b` | why |\n\n### More\n| `c` | |\n## Three\n| `d` | |\n"

    assert table_rows(text, "Two") == {"b": ["`b`", "why"], "c": ["`c`", ""]}
