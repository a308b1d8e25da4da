"""SIGKILL at every executed line of the delivery code, with and without faulty answers."""

from __future__ import annotations

import random
import time

from campaign.answers import mix_faults
from campaign.report import Config, Figures, part
from campaign.trial import PROTOCOLS, Lane, finish, run_trials
from campaign.worlds import World, world_of

QUICK = 30  # lines of the slice


def trial(lane: Lane, world: World, *, kill_at: int, protocol: str = "ours", faults: str = "") -> Figures:
    """Kill the worker at a line, resume, judge. faults: the seed of faulty answers, or none."""
    with lane.copy(world) as pipeline:
        if faults:
            mix_faults(pipeline, faults)
        ended = lane.workers.wait(lane.deliver(pipeline, world, protocol, kill_at=kill_at))
        killed_at = time.perf_counter()
        was_killed = ended.status == -9
        figures = finish(lane, pipeline, world, protocol, killed_at=killed_at if was_killed else None)
        if not was_killed and (ended.status or not (faults or ended.error)):
            figures.failures.append(f"the worker was not killed at line {kill_at}: {ended}")
        figures.kills = int(was_killed)
        if not faults:
            figures.covered = {"delivery": int(was_killed)}
        return figures


def count(lane: Lane, world: World, *, protocol: str = "ours") -> Figures:
    """How many lines a delivery runs that nobody disturbs."""
    with lane.copy(world) as pipeline:
        ended = lane.workers.wait(lane.deliver(pipeline, world, protocol))
        assert ended.status == 0, ended
        return finish(lane, pipeline, world, protocol) + Figures(points={"delivery": ended.lines})


@part("kills")
def kills(config: Config) -> Figures:
    """SIGKILL of the delivering process at every line it executes; resumed, proven, invoiced."""
    world = world_of(config, "everything")
    total = Figures()
    for protocol in PROTOCOLS:
        found = sweep(config, world, protocol)
        total += found if protocol == "ours" else Figures(controls={protocol: found})
    return total


def sweep(config: Config, world: World, protocol: str) -> Figures:
    """Every line of a protocol once; every third of them once more with faulty answers."""
    from dataclasses import replace

    counted = run_trials(replace(config, only=""), "kills", count, world, [("count", {"protocol": protocol})])
    lines = counted.points["delivery"]
    chance = random.Random(f"{config.seed}/kills/{protocol}")
    plain = range(1, lines + 1)
    faulty = range(1, lines + 1, 3)
    if config.quick:
        plain, faulty = spread(chance, lines, QUICK), spread(chance, lines, QUICK // 3)
    trials = [(f"{protocol}/{k}", {"kill_at": k, "protocol": protocol}) for k in plain]
    trials += [
        (f"{protocol}/{k}/faults", {"kill_at": k, "protocol": protocol, "faults": f"{config.seed}/{protocol}/{k}"})
        for k in faulty
    ]
    return counted + run_trials(config, "kills", trial, world, trials)


def spread(chance: random.Random, lines: int, number: int) -> list[int]:
    """Lines spread evenly over all of them, each at random within its part."""
    step = lines / number
    return [max(1, int(n * step + chance.random() * step)) for n in range(number)]
