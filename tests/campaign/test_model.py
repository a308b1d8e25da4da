"""The executable model: our protocol holds in every interleaving, and what others leave out breaks theirs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from campaign.model import BREAKS, CONTROLS, CREATE, HARMLESS, HOLDS, LOCKED, MUTANTS, TWO_UPDATES, Variant, run_model


def named(variant: Variant) -> str:
    return variant.name


@pytest.mark.parametrize("variant", [*HOLDS, *HARMLESS], ids=named)
def test_no_interleaving_breaks_what_we_do(variant: Variant) -> None:
    result = run_model(variant)
    assert result.violation == "", str(result)
    assert result.states > 2000


@pytest.mark.parametrize("variant", [*CONTROLS, *MUTANTS, *BREAKS], ids=named)
def test_what_is_left_out_is_missed(variant: Variant) -> None:
    result = run_model(variant)
    assert result.violation
    assert result.trace


@pytest.mark.parametrize("variant", CONTROLS, ids=named)
def test_the_same_search_finds_the_duplicates_of_other_protocols(variant: Variant) -> None:
    assert run_model(variant).violation == "two billable Additions"


def test_the_shortest_way_in_which_a_look_up_fails() -> None:
    look_up = next(variant for variant in CONTROLS if variant.name == "look-up")
    assert run_model(look_up).trace == [
        "worker 1: begins",
        "worker 1: reads that it is intended",
        "worker 1: begins a POST",
        "worker 1: its answer is lost (time-out)",
        "worker 1: begins",
        "worker 1: reads that it was attempted",
        "worker 1: look-up: finds nothing",
        "worker 1: begins a POST",
        "worker 1: POST Billable (values 1) is applied: Addition 1",
        "late: POST Billable (values 1) is applied now",
    ]


def test_a_late_patch_is_harmless_only_because_we_wait_for_it() -> None:
    alone = replace(TWO_UPDATES, workers=1, crashes=0)
    assert run_model(alone).violation == ""
    trace = run_model(replace(alone, waits=False)).trace
    assert trace[-1] == "late: PATCH of 1 to Billable, values 2 is applied now"


def test_without_faults_and_alone_one_addition_is_made_and_no_orphan() -> None:
    result = run_model(replace(CREATE, workers=1, crashes=0, losses=0))
    assert (result.violation, result.most_orphans) == ("", 0)


def test_the_locked_mode_fails_exactly_beyond_its_assumption() -> None:
    variants = [replace(LOCKED, settling=settling) for settling in ("begun", "sent", "")]
    assert [bool(run_model(variant).violation) for variant in variants] == [False, True, True]


def test_a_search_that_grows_without_end_says_so() -> None:
    with pytest.raises(MemoryError, match="more than 100 states"):
        run_model(CREATE, most_states=100)
