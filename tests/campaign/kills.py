"""SIGKILL at every executed line of the delivery code, with and without faulty answers."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import replace

from campaign.answers import mix_faults
from campaign.controls import CONTROLS
from campaign.report import Config, Figures, part
from campaign.trial import Lane, finish, run_trials
from campaign.worlds import World, world_of

QUICK = 24  # lines of the slice
NIGHT_EVERY = 4  # kills


def trial(lane: Lane, world: World, *, kill_at: int, protocol: str = "ours", faults: str = "") -> Figures:
    """Kill the worker at a line, resume, judge. faults: the seed of faulty answers, or none."""
    with lane.copy(world) as pipeline:
        if faults:
            mix_faults(pipeline, faults)
        ended = lane.workers.wait(lane.deliver(pipeline, world, protocol, kill_at=kill_at))
        killed_at = time.perf_counter()
        was_killed = ended.status == -9
        with_night = bool(faults) or kill_at % NIGHT_EVERY == 0
        figures = finish(
            lane, pipeline, world, protocol, killed_at=killed_at if was_killed else None, with_night=with_night
        )
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
    total = sweep(config, world_of(config, "everything"), "ours")
    # In a control's few lines every third is enough to hit the gap between the answer and what is written down.
    for protocol in ["naive"] if config.quick else CONTROLS:
        total += Figures(controls={protocol: sweep(config, world_of(config, "a_few"), protocol)})
    return total


def sweep(config: Config, world: World, protocol: str) -> Figures:
    """Every line of a protocol once, and every fourth once more with faulty answers."""
    counted = run_trials(replace(config, only=""), "kills", count, world, [("count", {"protocol": protocol})])
    lines = counted.points["delivery"]
    plain: Sequence[int] = range(1, lines + 1)
    faulty: Sequence[int] = range(1, lines + 1, 4)
    if config.quick and protocol == "ours":
        chance = random.Random(f"{config.seed}/kills")
        plain, faulty = spread(chance, lines, QUICK), spread(chance, lines, QUICK // 3)
    elif config.quick:
        plain, faulty = range(1 + config.seed % 3, lines + 1, 3), ()
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
