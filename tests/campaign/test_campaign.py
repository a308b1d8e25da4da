"""The bounded slice of the campaign that every test run does, and whether its judge finds what it should."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pipeline import Pipeline

from campaign.checker import judge
from campaign.report import PARTS, Config, Figures, Report, all_parts
from campaign.worlds import world_of
from local_stack.postgres import Postgres

all_parts()


@pytest.fixture(scope="module")
def config(postgres: Postgres) -> Iterator[Config]:
    """The slice, with another seed each time."""
    seed = random.SystemRandom().randrange(10**6)
    with (
        tempfile.TemporaryDirectory(prefix="billing-sync-campaign-") as directory,
        closing(Config(seed, postgres, Path(directory), quick=True)) as config,
    ):
        yield config


# -- the slice ---------------------------------------------------------------------------------------------------------


# The negative controls are part of it: a part in which none of them bills twice is broken.
@pytest.mark.timeout(600)  # 10 to 25 seconds on an idle machine
@pytest.mark.parametrize("name", ["kills", "staging", "overlap", "faults", "stops"])
def test_nothing_is_doubled_lost_or_a_cent_off(config: Config, name: str) -> None:
    figures = PARTS[name](config)
    assert figures.broken(all_controls=name != "overlap") == [], f"seed {config.seed}"
    assert figures.trials >= 8
    assert figures.lines >= 3 * figures.trials
    if name in ("kills", "faults", "overlap"):
        assert figures.controls


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("name", "happened"),
    [
        ("acknowledgements", {"lost_commits": 5, "lines": 60}),
        ("restarts", {"restarts": 1, "lines": 12}),  # a delivery may end before the next one
        ("runs_at_once", {"runs_at_once": 9, "lines": 12}),
        ("state_machine", {"examples": 6}),
    ],
)
def test_nothing_is_doubled_lost_or_a_cent_off_whatever_happens_around_the_delivery(
    config: Config, name: str, happened: dict[str, int]
) -> None:
    figures = PARTS[name](config)
    assert figures.broken() == [], f"seed {config.seed}"
    assert {key: getattr(figures, key) >= least for key, least in happened.items()} == dict.fromkeys(happened, True)


# -- the judge ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def delivered(config: Config) -> Iterator[Pipeline]:
    """Everything that the world `a_few` wants, delivered."""
    world = world_of(config, "a_few")
    pipeline = world.prepared.copy(config.directory)
    pipeline.finish(world.prepared.run_id)
    yield pipeline
    world.prepared.discard(pipeline)


def one_time_addition(pipeline: Pipeline) -> dict[str, Any]:
    return next(one for one in pipeline.additions() if one["extPrice"] == Decimal("10.00"))


def delete(pipeline: Pipeline) -> None:
    pipeline.sandbox.delete_addition(one_time_addition(pipeline)["id"])


def change(pipeline: Pipeline) -> None:
    pipeline.sandbox.change_addition(one_time_addition(pipeline)["id"], {"unitPrice": Decimal("10.01")})


COPIED = ("product", "quantity", "unitPrice", "effectiveDate", "cancelledDate", "invoiceDescription", "serialNumber")


def copy(pipeline: Pipeline) -> None:
    add_beside(pipeline, one_time_addition(pipeline), "Billable")


def add_beside(pipeline: Pipeline, addition: dict[str, Any], bill: str) -> None:
    body = {name: addition[name] for name in COPIED} | {"billCustomer": bill}
    pipeline.sandbox.add_addition(addition["agreementId"], body)


def copy_for_a_moment(pipeline: Pipeline) -> None:
    copy(pipeline)
    pipeline.sandbox.change_addition(max(one["id"] for one in pipeline.additions()), {"billCustomer": "DoNotBill"})


@pytest.mark.parametrize(
    ("spoil", "problems"),
    [
        (lambda _: None, []),
        (delete, ["lost 1", "cents_off 1000"]),
        (change, ["lost 1", "cents_off 1"]),
        (copy, ["duplicates 1", "cents_off 1000"]),
        (copy_for_a_moment, ["duplicates 1"]),
    ],
)
def test_the_judge_sees(delivered: Pipeline, spoil: Callable[[Pipeline], None], problems: list[str]) -> None:
    spoil(delivered)
    assert judge(delivered.sandbox).problems() == problems


def test_the_judge_counts_orphans_and_lines_that_are_to_be_held(delivered: Pipeline) -> None:
    monthly = next(one for one in delivered.additions() if one["extPrice"] == Decimal("2.50"))
    add_beside(delivered, monthly, "DoNotBill")
    row = delivered.sandbox.truth()[-1]["lines"][-1]
    verdict = judge(delivered.sandbox, held=[row["rowId"]])
    assert (verdict.orphans, verdict.orphans_neutralised) == (1, 0)
    assert verdict.problems() == [f"cents_off {int(row['totalPrice'] * 100)}"]  # billed, though it is to be held


# -- the report --------------------------------------------------------------------------------------------------------


def test_figures_add_up_and_say_what_is_not_as_promised() -> None:
    control = Figures(trials=1, duplicates=2)
    total = Figures(trials=2, points={"a": 3}, controls={"naive": control}) + Figures(
        trials=1, points={"a": 1, "b": 2}, lost=1, recovery=[1.0, 3.0], controls={"naive": control}
    )
    assert (total.trials, total.points, total.percentile(50)) == (3, {"a": 4, "b": 2}, 2.0)
    assert total.controls["naive"].duplicates == 4
    assert total.broken() == ["lost: 1"]
    silent = Figures(controls={"naive": control, "look-up": Figures()})
    assert silent.broken() == ["look-up: found no duplicate: the harness proves nothing"]
    assert silent.broken(all_controls=False) == []
    assert Figures(controls={"naive": Figures()}).broken(all_controls=False) != []


def test_the_report_is_saved_as_text_and_as_figures(tmp_path: Path) -> None:
    report = Report(7, "2026-11-22", "abc", "make prove SEED=7", 3.0, {"kills": Figures(trials=5, kills=4)})
    report.save(tmp_path)
    assert "| SIGKILL | 4 |" in (tmp_path / "proof.md").read_text()
    assert '"kills": 4' in (tmp_path / "proof.json").read_text()
