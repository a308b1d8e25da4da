"""A few seeds of the simulated business, and whether it finds what is wrong. All of it: `make business SEEDS=200`."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from prepared import Prepared

from business.books import cents, places
from business.dates import Span, cycle_with, later
from business.mutations import MUTATIONS, hunt_one
from business.player import Wrong, play, prepare
from business.program import END, START, Event, write
from business.shrink import shrink
from local_stack.postgres import Postgres
from local_stack.settings import ROOT

SEED = random.SystemRandom().randrange(1000, 10**6)
QUICK_MUTATIONS = ("cut instead of rounding", "a late line begins a day late")


@pytest.fixture(scope="module")
def world(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prepared, Path]]:
    directory = tmp_path_factory.mktemp("business")
    yield prepare(postgres, directory), directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.timeout(600)  # about 10 seconds on an idle machine
@pytest.mark.parametrize("mode", ["persistent", "dated"])
def test_customers_are_invoiced_what_the_rules_say(world: tuple[Prepared, Path], mode: str) -> None:
    covered = play(*world, write(SEED, mode))
    assert covered.lines > 10, SEED
    assert covered.outcomes["awaiting approval"] == 0


def test_both_modes_have_the_same_business() -> None:
    assert write(SEED, "persistent").events == write(SEED, "dated").events
    assert write(SEED, "dated").events != write(SEED + 1, "dated").events


# -- what is wrong is found --------------------------------------------------------------------------------------------


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", QUICK_MUTATIONS)
def test_a_wrong_decision_is_found(name: str) -> None:
    (mutation,) = (one for one in MUTATIONS if one.name == name)
    hunted = hunt_one(mutation, seeds=12)
    assert hunted.is_found, hunted.words


def test_each_mutation_has_its_place(tmp_path: Path) -> None:
    """Else the list would rot silently. The others are hunted by `make business ARGS=--mutations`."""
    for number, mutation in enumerate(MUTATIONS):
        (tmp_path / str(number) / mutation.file).parent.mkdir(parents=True)
        shutil.copy(ROOT / "include" / mutation.file, tmp_path / str(number) / mutation.file)
        mutation.apply(tmp_path / str(number))


def test_a_mutation_whose_text_is_gone_is_refused(tmp_path: Path) -> None:
    (mutation, *_) = MUTATIONS
    (tmp_path / mutation.file).parent.mkdir(parents=True)
    (tmp_path / mutation.file).write_text("select 1;\n")
    with pytest.raises(ValueError, match="stands 0 times"):
        mutation.apply(tmp_path)


def test_a_failing_program_becomes_small() -> None:
    program = write(SEED, "dated")
    guilty = [program.events[len(program.events) // 3], program.events[len(program.events) // 2]]

    def fails(tried) -> Wrong | None:
        return Wrong(END, "both") if all(event in tried.events for event in guilty) else None

    small, _ = shrink(fails, program, Wrong(END, "both"), seconds=60)
    assert [*small.events] == guilty


# -- the oracle's own arithmetic ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("day", "months", "anchor", "cycle"),
    [
        (date(2028, 2, 29), 1, date(2025, 1, 31), Span(date(2028, 2, 29), date(2028, 3, 30))),
        (date(2028, 2, 28), 1, date(2025, 1, 31), Span(date(2028, 1, 31), date(2028, 2, 28))),
        (date(2027, 2, 28), 12, date(2024, 2, 29), Span(date(2027, 2, 28), date(2028, 2, 28))),
        (date(2027, 12, 31), 3, None, Span(date(2027, 10, 1), date(2027, 12, 31))),
        (date(2027, 1, 1), 6, None, Span(date(2027, 1, 1), date(2027, 6, 30))),
        (date(2026, 12, 31), 3, date(2027, 2, 1), Span(date(2026, 11, 1), date(2027, 1, 31))),
    ],
)
def test_cycles_of_month_ends_and_leap_days(day: date, months: int, anchor: date | None, cycle: Span) -> None:
    assert cycle_with(day, months, anchor) == cycle


def test_cycles_follow_each_other_without_gap() -> None:
    for anchor in (None, date(2025, 1, 31), date(2024, 2, 29), date(2027, 3, 31)):
        for months in (1, 3, 6, 12):
            cycle = cycle_with(START, months, anchor)
            while cycle.start < END:
                following = cycle_with(cycle.end + (date(2027, 1, 2) - START), months, anchor)
                assert (following.start - cycle.end).days == 1
                assert later(cycle.start, months).month == following.start.month
                cycle = following


def test_amounts_round_half_away_from_zero() -> None:
    assert [cents(Decimal(text)) for text in ("2.345", "-2.345", "2.3449999", "0.005")] == [
        Decimal(text) for text in ("2.35", "-2.35", "2.34", "0.01")
    ]
    assert [places(Decimal(text)) for text in ("1", "1.10", "100", "0.0001")] == [0, 1, 0, 4]


def test_events_are_told_in_one_line() -> None:
    assert str(Event(START, "buy", 2, {"name": "s1"})) == "2027-01-01 buy                  customer 2  name=s1"
