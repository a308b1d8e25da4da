"""Small worlds, prepared once and copied for each trial: a billing database, a sandbox, and a run in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from pipeline import NOV, OCT, POST, Pipeline, one_time, recurring
from prepared import Prepared, prepare

from billing_sync.migrate import migrate
from campaign.report import Config


@dataclass(frozen=True)
class World:
    """A prepared database and sandbox; run_id and plan_id stand in `prepared`.

    month   whose night the run is
    held    rowIds of the lines that must stay held, told to the checker
    """

    name: str
    prepared: Prepared
    month: date
    held: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Built:
    """What a builder made in its pipeline."""

    run_id: int
    plan_id: int = 0
    held: frozenset[str] = frozenset()
    month: date = NOV


def world_of(config: Config, name: str) -> World:
    """A world by its name in BUILDERS; made when it is first asked for."""
    if name not in config.worlds:
        base = _base(config)
        pipeline = base.copy(config.directory)
        built = BUILDERS[name](pipeline)
        prepared = base.freeze(pipeline, built.run_id, built.plan_id)
        config.worlds[name] = World(name, prepared, built.month, built.held)
    return config.worlds[name]


def _base(config: Config) -> Prepared:
    """Four customers, mapped, without an invoice."""
    if "" not in config.worlds:
        migrate(config.postgres.create_database("campaign_template"))
        directory = config.directory / "base"
        config.worlds[""] = World("", prepare(config.postgres, "campaign_template", directory, "campaign_base"), OCT)
    return config.worlds[""].prepared


# -- the worlds --------------------------------------------------------------------------------------------------------

GONE_PRODUCT, GONE_OFFER = 506, {"offerId": "OF-1006", "offerName": "Identity Protection"}


def everything(pipeline: Pipeline) -> Built:
    """Two agreements: an update, a prolongation, a creation, a refused one, and an orphan to neutralise."""
    bill_everything(pipeline)
    run_id, plan_id = pipeline.plan_night(NOV)
    pipeline.sandbox.change_record("catalog", GONE_PRODUCT, {"inactiveFlag": True})
    return Built(run_id, plan_id, held_rows(pipeline))


def everything_delivered(pipeline: Pipeline) -> Built:
    """The same after its delivery, before its proof."""
    built = everything(pipeline)
    pipeline.deliver(built.plan_id)
    return built


def everything_to_stage(pipeline: Pipeline) -> Built:
    """The same before its run: opened, nothing staged."""
    bill_everything(pipeline)
    pipeline.sandbox.change_record("catalog", GONE_PRODUCT, {"inactiveFlag": True})
    return Built(pipeline.open("nightly", [OCT, NOV]), held=held_rows(pipeline))


def bill_everything(pipeline: Pipeline) -> None:
    """October delivered and invoiced, an orphan left behind; November billed."""
    pipeline.bill(OCT, recurring("a", OCT, 2))
    pipeline.bill(OCT, recurring("d", OCT, 4, "1.15"), customer=2)
    pipeline.sandbox.add_fault("late", **POST, count=1, params={"delay": None})
    pipeline.night(OCT)
    pipeline.sandbox.release_late()  # applied after the second try: an orphan
    pipeline.sandbox.clear_faults()
    for customer in (0, 2):
        pipeline.sandbox.invoice(pipeline.agreement(customer), through="2026-10-31")
    pipeline.bill(NOV, recurring("a", NOV, 5), one_time("c", date(2026, 11, 4), 1, "7.77"))
    pipeline.bill(NOV, recurring("d", NOV, 4, "1.15"), recurring("f", NOV, 1, "5.55", **GONE_OFFER), customer=2)


def held_rows(pipeline: Pipeline) -> frozenset[str]:
    """The lines whose product ConnectWise does not sell any more."""
    return frozenset(
        line["rowId"]
        for invoice in pipeline.sandbox.truth()
        for line in invoice["lines"]
        if line["offerId"] == GONE_OFFER["offerId"]
    )


def a_few(pipeline: Pipeline) -> Built:
    """One agreement: an update and two creations. The smallest plan with a first, a middle and a last write."""
    pipeline.bill(OCT, recurring("a", OCT, 2))
    pipeline.night(OCT)
    pipeline.sandbox.invoice(pipeline.agreement(), through="2026-10-31")
    pipeline.bill(NOV, recurring("a", NOV, 5), recurring("b", NOV, 1, "2.50"), one_time("c", date(2026, 11, 4)))
    return Built(*pipeline.plan_night(NOV))


def two(pipeline: Pipeline) -> Built:
    """One agreement: an update and a creation."""
    pipeline.bill(OCT, recurring("a", OCT, 2))
    pipeline.night(OCT)
    pipeline.sandbox.invoice(pipeline.agreement(), through="2026-10-31")
    pipeline.bill(NOV, recurring("a", NOV, 5), recurring("b", NOV, 1, "2.50"))
    return Built(*pipeline.plan_night(NOV))


def many(pipeline: Pipeline) -> Built:
    """Three agreements with four creations each, for workers that overlap."""
    for customer in (0, 1, 3):
        rows = [recurring(f"{customer}{n}", NOV, n + 1, "1.25") for n in range(3)]
        pipeline.bill(NOV, *rows, one_time(f"{customer}t", date(2026, 11, 9), 1, "9.99"), customer=customer)
    return Built(*pipeline.plan_night(NOV))


def empty(_: Pipeline) -> Built:
    """Four customers, mapped; AppXite has not billed anything."""
    return Built(0)


BUILDERS: dict[str, Callable[[Pipeline], Built]] = {
    "everything": everything,
    "everything_delivered": everything_delivered,
    "everything_to_stage": everything_to_stage,
    "a_few": a_few,
    "two": two,
    "empty": empty,
    "many": many,
}
