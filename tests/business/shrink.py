"""The smallest program that still fails: events are left out greedily, in ever smaller pieces, for a bounded time."""

from __future__ import annotations

import time
from collections.abc import Callable

from business.player import Wrong
from business.program import Event, Program


def shrink(
    fails: Callable[[Program], Wrong | None], program: Program, wrong: Wrong, seconds: float
) -> tuple[Program, Wrong]:
    """fails: plays a program, and gives what is wrong or None. Returns the smallest found, and its fault."""
    until = time.monotonic() + seconds
    events = [event for event in program.events if event.day <= wrong.day]
    smallest = program

    def still(fewer: list[Event]) -> bool:
        nonlocal smallest, wrong, events
        tried = program.with_events(fewer)
        found = fails(tried)
        if found is None:
            return False
        events = [event for event in fewer if event.day <= found.day]
        smallest, wrong = program.with_events(events), found
        return True

    if not still(events):
        events = list(program.events)
    for number in range(len(program.customers)):
        if time.monotonic() < until:
            still([event for event in events if event.customer != number])
    size = max(1, len(events) // 2)
    while time.monotonic() < until:
        start = 0
        while start < len(events) and time.monotonic() < until:
            if not still(events[:start] + events[start + size :]):
                start += size
        if size == 1:
            break
        size = max(1, size // 2)
    return smallest, wrong
