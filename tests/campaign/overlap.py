"""Several workers deliver the same plan at the same time."""

from __future__ import annotations

import random

from campaign.answers import mix_delays, mix_faults
from campaign.report import Config, Figures, part
from campaign.trial import PROTOCOLS, Lane, finish, run_trials
from campaign.worlds import World, world_of

TRIALS, QUICK = 120, 8
TRIALS_OF_A_CONTROL, QUICK_OF_A_CONTROL = 30, 4
# How long a claim lasts that is not renewed. Without a lease the workers take the agreements from each other all the
# time; with the usual one the second worker waits for the first.
LEASES = (0.0, 0.0, 0.02, 120.0)


def trial(
    lane: Lane, world: World, *, seed: str, workers: int, has_faults: bool, lease: float, protocol: str = "ours"
) -> Figures:
    """Start the workers together, every other one from the last shard; afterwards resume and judge."""
    with lane.copy(world) as pipeline:
        if has_faults:
            mix_faults(pipeline, seed)
        mix_delays(pipeline, seed)
        constants = {"LEASE_SECONDS": lease, "LOCK_WAIT": "60s" if lease > 1 else "1ms"}
        pids = [
            lane.deliver(pipeline, world, protocol, constants=constants, direction=-1 if number % 2 else 1)
            for number in range(workers)
        ]
        ended = [lane.workers.wait(pid) for pid in pids]
        figures = finish(lane, pipeline, world, protocol)
        figures.failures += [f"a worker failed: {one.error}" for one in ended if one.status]
        figures.overlaps = 1
        return figures


@part("overlap")
def overlap(config: Config) -> Figures:
    """Two and three processes deliver the same plan at once, without and with 35 % faulty answers to writes."""
    world = world_of(config, "many")
    total = Figures()
    for protocol in PROTOCOLS:
        number = (
            (QUICK if config.quick else TRIALS)
            if protocol == "ours"
            else (QUICK_OF_A_CONTROL if config.quick else TRIALS_OF_A_CONTROL)
        )
        chance = random.Random(f"{config.seed}/overlap/{protocol}")
        trials = [
            (
                f"{protocol}/{n}",
                {
                    "seed": f"{config.seed}/{protocol}/{n}",
                    "workers": 2 + n % 2,
                    "has_faults": n % 4 > 1,
                    "lease": chance.choice(LEASES),
                    "protocol": protocol,
                },
            )
            for n in range(number)
        ]
        found = run_trials(config, "overlap", trial, world, trials)
        total += found if protocol == "ours" else Figures(controls={protocol: found})
    return total
