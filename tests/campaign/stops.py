"""A worker that stops at any line, is overtaken, and wakes up when another one has finished."""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import replace

from campaign.kills import NIGHT_EVERY, count, spread
from campaign.report import Config, Figures, part
from campaign.trial import Lane, finish, run_trials
from campaign.worlds import World, world_of

QUICK = 10
# Short, so that the second worker need not wait long. It is also how long a worker may pause within a transaction
# before PostgreSQL ends its session, so it must not be too short for a worker that lives.
LEASE = 0.5
CONSTANTS = {"LEASE_SECONDS": LEASE, "LOCK_WAIT": "1ms"}
TAKEOVERS = 20  # tries of the second worker


def trial(lane: Lane, world: World, *, stop_at: int) -> Figures:
    """SIGSTOP at a line; another worker delivers what it can; SIGCONT; both have ended; resume and judge."""
    with lane.copy(world) as pipeline:
        sleeper = lane.deliver(pipeline, world, "ours", stop_at=stop_at, constants=CONSTANTS)
        stopped = lane.workers.wait(sleeper)
        took_over = ""
        try:
            for _ in range(TAKEOVERS):
                time.sleep(LEASE / 2)
                second = lane.workers.wait(lane.deliver(pipeline, world, "ours", constants=CONSTANTS))
                took_over = second.error or f"exit {second.status}" if second.error or second.status else ""
                if not took_over:
                    break
        finally:
            if stopped.status is None:
                os.kill(sleeper, signal.SIGCONT)
                woken = lane.workers.wait(sleeper)
        figures = finish(lane, pipeline, world, with_night=stop_at % NIGHT_EVERY == 0)
        figures.stops = int(stopped.status is None)
        if stopped.status is not None:
            figures.failures.append(f"the worker did not stop at line {stop_at}: {stopped}")
        elif woken.status:
            figures.failures.append(f"the woken worker failed: {woken.error}")
        if took_over:
            figures.failures.append(f"nobody could take over: {took_over}")
        figures.covered = {"delivery, stopped": figures.stops}
        return figures


@part("stops")
def stops(config: Config) -> Figures:
    """SIGSTOP at every line of the delivery, another worker takes over and finishes, SIGCONT, the first one goes on."""
    world = world_of(config, "two")
    lines = run_trials(replace(config, only=""), "stops", count, world, [("count", {})]).points["delivery"]
    places = range(1, lines + 1)
    if config.quick:
        places = spread(random.Random(f"{config.seed}/stops"), lines, QUICK)
    # They wait more than they work.
    found = run_trials(
        replace(config, workers=2 * config.workers), "stops", trial, world, [(str(k), {"stop_at": k}) for k in places]
    )
    return found + Figures(points={"delivery, stopped": lines})
