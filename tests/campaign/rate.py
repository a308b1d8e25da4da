"""One budget of requests for all workers: never more, and used fully although each answer takes its time."""

from __future__ import annotations

import threading
import time
from datetime import datetime

from pipeline import Pipeline

from billing_sync.db import connect
from billing_sync.deliver import Deliverer
from billing_sync.plan import shards_to_deliver
from billing_sync.rate_budget import DatabaseLimiter
from campaign.report import Config, Figures, part
from campaign.trial import Lane, finish, run_trials
from campaign.worlds import World, world_of

PER_MINUTE = 600  # the default
ANSWER_TAKES = 0.25  # seconds; about what a cloud instance takes


def trial(lane: Lane, world: World, *, workers: int) -> Figures:
    """Deliver all agreements with so many workers; how much of the budget they used stands in a note."""
    with lane.copy(world) as pipeline:
        pipeline.sandbox.change_settings(requests_per_minute=PER_MINUTE)
        pipeline.sandbox.add_fault("delay", service="connectwise", params={"seconds": ANSWER_TAKES})
        shards = shards_to_deliver(pipeline.connection, world.prepared.plan_id)
        began = time.monotonic()
        threads = [
            threading.Thread(target=_deliver, args=(pipeline, world, shards[number::workers]))
            for number in range(workers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.monotonic() - began
        asked = [one for one in pipeline.sandbox.requests(lane.since) if one["service"] == "connectwise"]
        at = [datetime.fromisoformat(one["at"]).timestamp() for one in asked]
        most = max(sum(start <= moment < start + 60 for moment in at) for start in at)
        figures = finish(lane, pipeline, world)
        if most > PER_MINUTE or any(one["status"] == 429 for one in asked):
            figures.failures.append(f"{most} requests in a minute, {PER_MINUTE} allowed")
        used = len(asked) / (seconds * PER_MINUTE / 60)
        how = f"{workers} at once: {len(asked)} requests in {seconds:.1f} s"
        figures.notes.append(f"{how}, {used:.0%} of a budget of {PER_MINUTE} a minute")
        return figures


def _deliver(pipeline: Pipeline, world: World, shards: list[int]) -> None:
    limiter = DatabaseLimiter(lambda: connect(pipeline.dsn), "connectwise_api", PER_MINUTE)
    with connect(pipeline.dsn) as connection:
        for shard in shards:
            Deliverer(connection, pipeline.connectwise(limiter=limiter), world.prepared.plan_id).deliver_shard(shard)
    limiter.close()


@part("rate")
def rate(config: Config) -> Figures:
    """Workers that share one budget of requests, with slow answers: never above it, and many agreements use it up."""
    world = world_of(config, "many")
    trials = [(str(workers), {"workers": workers}) for workers in ((3,) if config.quick else (1, 3))]
    return run_trials(config, "rate", trial, world, trials)
