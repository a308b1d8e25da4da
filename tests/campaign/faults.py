"""Each kind of faulty answer to each write of a small plan, once and again and again."""

from __future__ import annotations

from typing import Any

from pipeline import PATCH, POST

from campaign.answers import FAULTS
from campaign.report import Config, Figures, part
from campaign.trial import PROTOCOLS, Lane, finish, run_trials
from campaign.worlds import World, world_of

# Of the world a_few, in the order in which they are sent.
WRITES: dict[str, tuple[dict[str, str], int]] = {
    "update": (PATCH, 0),
    "first create": (POST, 0),
    "first activate": (PATCH, 1),
    "last create": (POST, 1),
    "last activate": (PATCH, 2),
}
AGAIN = 4  # one more than a write is tried


def trial(lane: Lane, world: World, *, fault: str, write: str, times: int, protocol: str = "ours") -> Figures:
    """Spoil one write (and those that repeat it); afterwards resume and judge."""
    kind, params = FAULTS[fault]
    where, skip = WRITES[write]
    with lane.copy(world) as pipeline:
        pipeline.sandbox.add_fault(kind, **where, skip=skip, count=times, params=params)
        ended = lane.workers.wait(lane.deliver(pipeline, world, protocol))
        spoiled = [one for one in pipeline.sandbox.requests(lane.since) if one["fault"]]
        after = pipeline.sandbox.writes(spoiled[0]["seq"])["received"] if spoiled else 0
        figures = finish(lane, pipeline, world, protocol)
        if ended.status:
            figures.failures.append(f"the worker failed: {ended.error}")
        if not spoiled and protocol == "ours":
            figures.failures.append("the fault hit nothing")
        if fault == "401" and (not ended.error.startswith("AuthenticationError") or after):
            figures.failures.append(f"after a 401: {after} more writes, {ended.error or 'no error'}")
        return figures


@part("faults")
def faults(config: Config) -> Figures:
    """Each kind of faulty answer to each write of a plan, once and more often than it is tried; then resumed."""
    world = world_of(config, "a_few")
    total = Figures()
    for protocol in PROTOCOLS:
        writes = list(WRITES) if protocol == "ours" else ["first create", "last create"]
        times = (1, AGAIN) if protocol == "ours" else (1,)
        chosen: list[tuple[str, dict[str, Any]]] = [
            (f"{protocol}/{fault}/{write}/{n}", {"fault": fault, "write": write, "times": n, "protocol": protocol})
            for fault in FAULTS
            for write in writes
            for n in times
        ]
        if config.quick:  # others for each seed, but always the very late ones of the controls: no look-up finds them
            chosen = [
                one
                for number, one in enumerate(chosen)
                if number % 11 == config.seed % 11 or (protocol != "ours" and one[1]["fault"] == "very late")
            ]
        found = run_trials(config, "faults", trial, world, chosen)
        total += found if protocol == "ours" else Figures(controls={protocol: found})
    return total
