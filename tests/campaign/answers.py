"""Faulty answers of ConnectWise to writes, one by one or all kinds mixed."""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Any

from pipeline import LIST, PATCH, POST, Pipeline

from campaign.report import Figures

FAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "lost reply": ("lost_reply", {}),
    "lost reply, reset": ("lost_reply", {"reset": True}),
    "late": ("late", {"delay": 0.1}),
    "very late": ("late", {"delay": None}),  # when the client has given up and tried again
    "500 after applying": ("status_after", {"status": 500}),
    "500": ("status", {"status": 500}),
    "reset": ("reset", {}),
    "429": ("status", {"status": 429, "headers": {"Retry-After": "0"}}),
    "401": ("status", {"status": 401}),
    "400": ("status", {"status": 400}),
    "truncated": ("truncated", {}),
    "invalid JSON": ("invalid_json", {}),
}
AMBIGUOUS = ("lost_reply", "late", "status_after", "reset", "truncated", "invalid_json")


LIES = ("400", "401")
"""What a person has to cure, though nothing is wrong."""


def mix_faults(pipeline: Pipeline, seed: object, share: float = 0.35, *, without: Collection[str] = ()) -> None:
    """Spoil a share of all writes, each kind of fault alike; how late a late one is applied varies."""
    chance = random.Random(f"faults/{seed}")
    for where in (POST, PATCH):
        left = 1.0
        names = [name for name in FAULTS if name not in without]
        chance.shuffle(names)
        for name in names:
            kind, params = FAULTS[name]
            if name == "late":
                params = {"delay": chance.uniform(0.005, 0.3)}
            # The first rule that fires wins: those that come later see only what the earlier ones left.
            each = share / len(names)
            pipeline.sandbox.add_fault(
                kind, **where, probability=each / left, seed=chance.randrange(10**9), params=params
            )
            left -= each


def mix_delays(pipeline: Pipeline, seed: object) -> None:
    """Answer some writes and lists a little later, so that workers meet at ever other places."""
    chance = random.Random(f"delays/{seed}")
    for where in (POST, PATCH, LIST):
        seconds = chance.uniform(0.002, 0.03)
        pipeline.sandbox.add_fault(
            "delay", **where, probability=0.4, seed=chance.randrange(10**9), params={"seconds": seconds}
        )


def count_faulty(pipeline: Pipeline, since: int) -> Figures:
    """How many writes after a request got a faulty answer."""
    faulty = [
        one
        for one in pipeline.sandbox.requests(since, service="connectwise")
        if one["method"] in ("POST", "PATCH") and one["fault"] not in (None, "delay")
    ]
    return Figures(
        faulty_writes=len(faulty),
        ambiguous_replies=sum(one["fault"] in AMBIGUOUS or one["status"] == 500 for one in faulty),
        late_writes=sum(one["fault"] == "late" for one in faulty),
    )
