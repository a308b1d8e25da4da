"""An executable model of the delivery of one Addition: every interleaving of two workers, searched breadth first.

A world is what ConnectWise holds, the ledger row, the requests whose fate nobody knows, and where each worker stands.
Each worker's next step, a crash and restart at any step, a lost answer, a late application, an edit or deletion by a
person leads to other worlds; all that can be reached are visited. Steps bear the names of billing_sync/deliver.py.
Our own protocol is searched without lock and without claim: its promises must not rest on them.

    PYTHONPATH=include:tests python -m campaign.model        prints the table, and the shortest trace of each violation
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

CREATE_TRIES, PATCH_TRIES = 2, 3
PERSON = 9  # stands for values that a person typed in ConnectWise


class Record(NamedTuple):
    """An Addition of our marker in ConnectWise; its id is its place in World.held, from 1. ended: neutralised."""

    agreement: int
    values: int
    is_billable: bool
    is_ended: bool = False
    is_gone: bool = False


class Row(NamedTuple):
    """The ledger's row of the key. payload, applied: versions of the values; winner: the recorded id, 0 is none."""

    state: str
    agreement: int
    payload: int
    applied: int = 0
    winner: int = 0
    was_attempted: bool = False
    may_be_activated: bool = False


class Request(NamedTuple):
    """A write. stage: unsent, flying, or settled (nothing will come of it any more); young: within the settle time."""

    operation: str
    agreement: int
    target: int
    values: int
    is_billable: bool
    stage: str = "unsent"
    is_young: bool = True


class Worker(NamedTuple):
    """A process: the step it is at, and its variables."""

    at: str = "idle"
    row: Row | None = None
    number: int = 0
    addition_id: int = 0
    listed: tuple[Record, ...] = ()
    request: Request | None = None
    then: str = ""


class World(NamedTuple):
    """Everything at one moment. The numbers at the end are what may still happen."""

    held: tuple[Record, ...]
    row: Row | None
    plan: tuple[int, int]  # the version of the values that is wanted, and the agreement
    requests: tuple[Request, ...]
    workers: tuple[Worker, ...]
    claim: int  # the worker that holds it, from 1; 0 is nobody
    crashes: int
    losses: int
    edits: int
    deletions: int
    newer_plans: int
    moves: int


Moves = Iterator[tuple[str, World]]


@dataclass(frozen=True)
class Variant:
    """What is searched.

    protocol      "inert" (ours), "naive", "look-up" (before a retry), "locked" (ours where inert Additions are refused)
    lock          only one worker at a time, as with an advisory lock: it ends with its process
    lease         a claim that another worker may take over from one that stands still
    mutation      one thing of our protocol done wrongly
    rule          no PATCH with other values while an earlier one of unknown fate is younger than the settle time
    settling      what is known of a request older than the settle time: "" (nothing: it may be applied at any time),
                  "sent" (one that was sent is applied by then, or never), "begun" (also: none is sent so late)
    finds_begun   a PATCH that was begun and never answered counts as one of unknown fate, also after a crash
    """

    name: str
    protocol: str = "inert"
    workers: int = 2
    crashes: int = 2
    losses: int = 1
    edits: int = 0
    deletions: int = 0
    newer_plans: int = 0
    moves: int = 0
    lock: bool = False
    lease: bool = False
    mutation: str = ""
    rule: bool = False
    settling: str = ""
    tracks: bool = False
    stands: bool = False
    echo_differs: bool = False
    finds_begun: bool = False
    guards_edits: bool = False
    checks_row: bool = False


@dataclass
class Result:
    """What a search found. violation: what was broken, empty if nothing was; trace: the shortest way to it."""

    variant: Variant
    states: int = 0
    transitions: int = 0
    seconds: float = 0.0
    most_orphans: int = 0
    violation: str = ""
    trace: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        head = f"{self.variant.name}: {self.states} states, {self.transitions} transitions, {self.seconds:.1f} s"
        if not self.violation:
            return f"{head}: no violation; at most {self.most_orphans} inert orphans"
        steps = "\n".join(f"  {number:2}. {step}" for number, step in enumerate(self.trace, 1))
        return f"{head}: {self.violation}, after {len(self.trace)} steps\n{steps}"


# -- small changes of a world ------------------------------------------------------------------------------------------


def _put(world: World, w: int, **changes: object) -> World:
    """The world with some of a worker's variables changed."""
    worker = world.workers[w]._replace(**changes)
    return world._replace(workers=(*world.workers[:w], worker, *world.workers[w + 1 :]))


def _goes(world: World, w: int, at: str, **changes: object) -> World:
    return _put(world, w, at=at, **changes)


def _ends(world: World, w: int) -> World:
    """A worker gives its claim back and forgets its variables; it, or a new one, may begin again at any time."""
    claim = 0 if world.claim == w + 1 else world.claim
    return world._replace(claim=claim, workers=(*world.workers[:w], Worker(), *world.workers[w + 1 :]))


def _without(requests: tuple[Request, ...], request: Request) -> tuple[Request, ...]:
    """Without the newest request that is equal."""
    for place in range(len(requests) - 1, -1, -1):
        if requests[place] == request:
            return (*requests[:place], *requests[place + 1 :])
    return requests


def _swapped(requests: tuple[Request, ...], before: Request, after: Request) -> tuple[Request, ...]:
    """With the newest request that is equal to `before` changed; `after` is added if there is none."""
    for place in range(len(requests) - 1, -1, -1):
        if requests[place] == before:
            return (*requests[:place], after, *requests[place + 1 :])
    return (*requests, after)


def _applied(world: World, request: Request, variant: Variant) -> tuple[World, int]:
    """What ConnectWise does with a request: the new world, and the Addition's id, or 0 if it refuses (404)."""
    if request.operation == "create":
        values = -request.values if variant.echo_differs else request.values
        held = (*world.held, Record(request.agreement, values, request.is_billable))
        return world._replace(held=held), len(held)
    record = world.held[request.target - 1]
    if record.is_gone:
        return world, 0
    if request.operation == "neutralise":
        record = record._replace(is_billable=False, is_ended=True)
    elif request.operation == "deactivate" and not request.is_billable:
        record = record._replace(is_billable=False)
    else:
        values = -request.values if variant.echo_differs else request.values
        record = record._replace(values=values, is_billable=request.is_billable)
    held = (*world.held[: request.target - 1], record, *world.held[request.target :])
    return world._replace(held=held), request.target


def _describe(request: Request) -> str:
    if request.operation == "create":
        return f"POST {'Billable' if request.is_billable else 'inert'} (values {request.values})"
    to = {"neutralise": "to its end", "deactivate": "to DoNotBill"}.get(
        request.operation, f"to Billable, values {request.values}"
    )
    return f"PATCH of {request.target} {to}"


# -- sending, common to all protocols ----------------------------------------------------------------------------------


def _invoke(world: World, w: int, request: Request, then: str, variant: Variant) -> World:
    """_attempt(…, "invoke"): committed before anything is sent."""
    assert world.row is not None
    if variant.lease and world.claim != w + 1:
        return _ends(world, w)
    known = world.workers[w].row
    if (
        variant.checks_row
        and request.operation != "neutralise"
        and known
        and ((known.payload, known.state, known.agreement) != (world.row.payload, world.row.state, world.row.agreement))
    ):
        return _ends(world, w)
    row = world.row._replace(was_attempted=True) if request.operation == "create" else world.row
    if request.operation == "activate" and variant.finds_begun:
        row = row._replace(may_be_activated=True)
    if variant.tracks:
        requests = (*world.requests, request)
        return _goes(world._replace(row=row, requests=requests), w, "send", request=request, then=then)
    # Killed before it sends, or sent and never applied: without ages that is the same.
    flying = request._replace(stage="flying")
    return _goes(world._replace(row=row, requests=(*world.requests, flying)), w, "wait", request=flying, then=then)


def _is_crossed(world: World, request: Request) -> bool:
    """Whether an earlier PATCH of unknown fate, with other values, is younger than the settle time."""
    return any(
        other.is_young and other.target == request.target
        and (other.values, other.is_billable) != (request.values, request.is_billable)
        for other in world.requests
    )  # fmt: skip


def _may_be_applied_yet(world: World, addition_id: int) -> bool:
    """Whether a PATCH of the Addition is of unknown fate and younger than the settle time."""
    return any(other.is_young and other.target == addition_id != 0 for other in world.requests)


def _patch(world: World, w: int, operation: str, then: str, variant: Variant, **what: object) -> World:
    worker = world.workers[w]
    assert worker.row is not None
    request = Request(operation, worker.row.agreement, worker.row.winner, worker.row.payload, is_billable=True)
    request = request._replace(**what)
    if variant.rule and operation != "neutralise" and _is_crossed(world, request):
        return _ends(world, w)  # TemporaryError: tried again later
    return _invoke(world, w, request, then, variant)


def _send(world: World, w: int, variant: Variant) -> Moves:
    request = world.workers[w].request
    assert request is not None
    flying = request._replace(stage="flying")
    requests = _swapped(world.requests, request, flying)
    yield f"sends {_describe(request)}", _goes(world._replace(requests=requests), w, "wait", request=flying)


def _wait(world: World, w: int, variant: Variant) -> Moves:
    worker = world.workers[w]
    request = worker.request
    assert request is not None
    after, addition_id = _applied(world, request, variant)
    outcome = f"applied: Addition {addition_id}" if addition_id else "refused (404)"
    if variant.tracks:
        now = request._replace(stage="settled")
        after = after._replace(requests=_swapped(after.requests, request, now))
        after = _goes(after, w, "answer", request=now, addition_id=addition_id or -1)
    else:
        after = after._replace(requests=_without(after.requests, request))
        after = _goes(after, w, "answer", addition_id=addition_id or -1)
        after = next(_answer(after, w, variant))[1]
    yield f"{_describe(request)} is {outcome}", after
    if world.losses:
        yield from _lost(world._replace(losses=world.losses - 1), w, variant)


def _lost(world: World, w: int, variant: Variant) -> Moves:
    """_attempt(…, "unknown"): the request stays in flight."""
    worker = world.workers[w]
    assert worker.request is not None
    number = worker.number + 1
    label = "its answer is lost (time-out)"
    if worker.request.operation == "create":
        if variant.protocol != "inert":
            yield label, _ends(world, w)
        elif number < CREATE_TRIES:
            yield label, _goes(world, w, "_create", number=number, request=None, addition_id=0)
        else:
            yield label, _ends(world, w)
        return
    if worker.request.operation == "activate" and world.row:
        world = world._replace(row=world.row._replace(may_be_activated=True))
    if number < PATCH_TRIES:
        again = worker.request._replace(stage="unsent", is_young=True)
        yield label, _goes(world, w, "patch again", number=number, request=again)
    else:
        yield label, _ends(world, w)


def _patch_again(world: World, w: int, variant: Variant) -> Moves:
    worker = world.workers[w]
    assert worker.request is not None
    yield f"_patch: tries {worker.request.operation} again", _invoke(world, w, worker.request, worker.then, variant)


def _answer(world: World, w: int, variant: Variant) -> Moves:
    """_attempt(…, "ok" or "fail"): the fate of this request is known."""
    worker = world.workers[w]
    request = worker.request
    assert request is not None
    if variant.tracks:
        world = world._replace(requests=_without(world.requests, request))
    if worker.addition_id > 0:
        if request.operation != "create":
            world = _put(world, w, addition_id=0)
        yield "gets the answer", _goes(world, w, worker.then, request=None, then="", number=0)
    else:
        yield "gets 404", _goes(world, w, "refused", request=None, then="", number=0, addition_id=0)


def _refused(world: World, w: int, _: Variant) -> Moves:
    """_judge_refusal: the Addition was deleted by a person."""
    assert world.row is not None
    row = world.row._replace(state="conflict", winner=0)
    yield "_judge_refusal: it was deleted; conflict", _ends(world._replace(row=row), w)


# -- ours: create inert, record the winner, activate, read back --------------------------------------------------------


def _begin(world: World, w: int, variant: Variant) -> Moves:
    """_begin and _commit_intent: one transaction."""
    row, (version, agreement) = world.row, world.plan
    if row is None:
        row = Row("intended", agreement, version)
    elif row.state == "refused" and row.agreement == agreement:
        row = row._replace(state="created" if row.winner else "intended", payload=version)
    elif row.state == "refused" and not row.may_be_activated:
        row = row._replace(state="intended", agreement=agreement, payload=version, winner=0)
    elif row.state == "delivered" and row.payload != version and row.agreement == agreement:
        row = row._replace(state="updating", payload=version)
    elif row.state in ("delivered", "conflict", "refused"):
        yield "finds nothing to do", _ends(world, w)
        return
    else:
        yield from _load(world, w, variant)
        return
    yield "_commit_intent", world._replace(row=row)  # the worker is still at its beginning, and reads the row next


def _load(world: World, w: int, variant: Variant) -> Moves:
    """_open_additions, then _advance or _settle."""
    row = world.row
    assert row is not None
    if row.state not in ("intended", "created", "active", "updating"):
        yield "_open_additions: nothing is open", _ends(world, w)
        return
    at = {"intended": "_create", "created": "_activate", "updating": "_update", "active": "_read_back"}[row.state]
    if row.agreement != world.plan[1] and row.state != "active":
        at = "_settle" if row.winner or row.was_attempted else "_take_back"
    yield f"_open_additions: {row.state}", _goes(world, w, at, row=row)


def _create(world: World, w: int, variant: Variant) -> Moves:
    worker = world.workers[w]
    assert worker.row is not None
    if (worker.row.was_attempted or worker.number) and variant.mutation != "skips the look-up":
        found = _found(world, worker.row.agreement)
        if found:
            chosen = max(found) if variant.mutation == "adopts the highest id" else min(found)
            yield f"_adopt: finds {chosen}", _goes(world, w, "_record_winner", addition_id=chosen)
            return
        yield "_adopt: finds nothing", _goes(world, w, "POST")
        return
    yield from _post(world, w, variant)


def _found(world: World, agreement: int) -> list[int]:
    return [n for n, one in enumerate(world.held, 1) if one.agreement == agreement and not one.is_gone]


def _post(world: World, w: int, variant: Variant) -> Moves:
    row = world.workers[w].row
    assert row is not None
    request = Request("create", row.agreement, 0, row.payload, is_billable=variant.mutation == "creates it Billable")
    then = "_activate first" if variant.mutation == "activates before recording" else "_record_winner"
    yield "_create: begins", _invoke(world, w, request, then, variant)


def _activate_first(world: World, w: int, variant: Variant) -> Moves:
    worker = world.workers[w]
    assert worker.row is not None
    world = _put(world, w, row=worker.row._replace(winner=worker.addition_id))
    yield "_activate: begins", _patch(world, w, "activate", "_record_winner", variant)


def _record_winner(world: World, w: int, variant: Variant) -> Moves:
    """The compare-and-set."""
    worker, row = world.workers[w], world.row
    assert row is not None
    addition_id = worker.addition_id or (worker.row.winner if worker.row else 0)
    if row.winner == 0 or variant.mutation == "records without compare-and-set":
        label = f"_record_winner: {addition_id}"
        row = row._replace(winner=addition_id, state="created")
    else:
        label = f"_record_winner: {addition_id} is not it, {row.winner} is"
    after = _goes(world._replace(row=row), w, "reload")
    if variant.mutation == "activates the id it has":
        own = row._replace(winner=addition_id, state="created")
        after = _put(after, w, at="_activate", row=own)
    yield label, after


def _reload(world: World, w: int, variant: Variant) -> Moves:
    """The second half of _record_winner: whoever won, its id counts."""
    row = world.row
    assert row is not None
    at = "_activate" if row.state == "created" else "_read_back"
    if row.agreement != world.plan[1] and row.state == "created":
        at = "_settle"
    yield f"_record_winner: reads {row.winner}, {row.state}", _goes(world, w, at, row=row, addition_id=0, number=0)


def _activate(world: World, w: int, variant: Variant) -> Moves:
    yield "_activate: begins", _patch(world, w, "activate", "_set_state", variant)


def _update(world: World, w: int, variant: Variant) -> Moves:
    """Reads the Addition; what a person changed since we read it back last is a conflict."""
    row = world.workers[w].row
    assert row is not None
    record = world.held[row.winner - 1]
    if record.is_gone or not (record.is_billable and record.values in (row.applied, row.payload)):
        yield "_update: not as we left it", _goes(world, w, "_conflict")
        return
    yield "_update: as we left it", _goes(world, w, "PATCH")


def _update_patch(world: World, w: int, variant: Variant) -> Moves:
    yield "_update: begins", _patch(world, w, "update", "_set_state", variant)


def _set_state(world: World, w: int, variant: Variant) -> Moves:
    """To active, if the row still has the payload that was sent."""
    worker, row = world.workers[w], world.row
    assert row is not None
    assert worker.row is not None
    if row.payload == worker.row.payload:
        row = row._replace(state="active", may_be_activated=row.may_be_activated and not variant.finds_begun)
    yield "_set_state: active", _goes(world._replace(row=row), w, "_read_back")


def _conflict(world: World, w: int, variant: Variant) -> Moves:
    worker, row = world.workers[w], world.row
    assert row is not None
    assert worker.row is not None
    if row.payload == worker.row.payload:
        row = row._replace(state="conflict")
    yield "_conflict: for a person", _ends(world._replace(row=row), w)


def _read_back(world: World, w: int, variant: Variant) -> Moves:
    """Reads what is active from the ledger, then lists the agreement's Additions."""
    row = world.row
    assert row is not None
    yield "_read_back: lists", _goes(world, w, "judge", row=row, listed=world.held, addition_id=0, number=0)


def _judge(world: World, w: int, variant: Variant) -> Moves:
    worker = world.workers[w]
    row = worker.row
    assert row is not None
    if row.state != "active":
        yield "_read_back: nothing is active", _goes(world, w, "_neutralise_orphans", row=None)
        return
    if not _is_as_sent(worker.listed[row.winner - 1], row) and not _is_as_sent(world.held[row.winner - 1], row):
        if world.held[row.winner - 1].is_gone:
            yield "_read_back: it is gone", _goes(world, w, "_conflict")
        else:
            back = {"values": row.applied} if row.applied else {"is_billable": False, "values": 0}
            yield "_read_back: differs", _patch(world, w, "deactivate", "_conflict", variant, **back)
        return
    label = "_read_back: as sent"
    now = world.row
    assert now is not None
    if now.state == "active" and now.payload == row.payload:
        now = now._replace(state="delivered", applied=now.payload)
        label += ": delivered"
    yield label, _goes(world._replace(row=now), w, "_neutralise_orphans", row=None)


def _is_as_sent(record: Record, row: Row) -> bool:
    return record.is_billable and not record.is_gone and record.values == row.payload


def _neutralise_orphans(world: World, w: int, variant: Variant) -> Moves:
    worker, row = world.workers[w], world.row
    assert row is not None
    for addition_id, record in enumerate(worker.listed, 1):
        if row.winner in (0, addition_id) or record.is_ended or record.is_gone or record.agreement != row.agreement:
            continue
        listed = (*worker.listed[: addition_id - 1], record._replace(is_ended=True), *worker.listed[addition_id:])
        after = _put(world, w, listed=listed, row=row)
        what = {"target": addition_id, "is_billable": False, "values": 0}
        yield (
            f"_neutralise_orphans: {addition_id}",
            _patch(after, w, "neutralise", "_neutralise_orphans", variant, **what),
        )
        return
    yield "_neutralise_orphans: done", _ends(world, w)


def _settle(world: World, w: int, variant: Variant) -> Moves:
    """The agreement is not as it was planned: what stands already as planned stays, else the lines are free again."""
    worker = world.workers[w]
    row = worker.row
    assert row is not None
    if row.state == "intended":
        found = _found(world, row.agreement)
        if found:
            yield f"_adopt: finds {min(found)}", _goes(world, w, "_record_winner", addition_id=min(found))
        else:
            yield "_adopt: finds nothing", _goes(world, w, "_take_back")
        return
    if variant.rule and _may_be_applied_yet(world, row.winner):
        yield "_settle: waits for a PATCH of unknown fate", _ends(world, w)
        return
    record = world.held[row.winner - 1]
    if record.is_gone:
        yield "_settle: deleted", _goes(world, w, "_conflict")
    elif _is_as_sent(record, row):
        yield "_settle: stands as planned", _goes(world, w, "_set_state")
    else:
        yield "_settle: does not stand as planned", _goes(world, w, "_take_back")


def _take_back(world: World, w: int, variant: Variant) -> Moves:
    worker, row = world.workers[w], world.row
    assert row is not None
    assert worker.row is not None
    if variant.rule and _may_be_applied_yet(world, row.winner):
        yield "_take_back: waits for a PATCH of unknown fate", _ends(world, w)
        return
    if row.payload == worker.row.payload and row.agreement == worker.row.agreement:
        is_update = worker.row.state == "updating"
        row = row._replace(
            state="delivered" if is_update else "refused", payload=row.applied if is_update else row.payload
        )
    yield "_take_back: its lines are free again", _ends(world._replace(row=row), w)


# -- the others: created billable --------------------------------------------------------------------------------------


def _direct_begin(world: World, w: int, variant: Variant) -> Moves:
    if variant.lock and world.claim not in (0, w + 1):
        return  # waits
    row = world.row or Row("intended", *world.plan[::-1])
    claim = w + 1 if variant.lock else world.claim
    yield "takes the lock" if variant.lock else "begins", _goes(world._replace(row=row, claim=claim), w, "load")


def _direct_load(world: World, w: int, variant: Variant) -> Moves:
    row = world.row
    assert row is not None
    if row.state == "delivered":
        yield "finds it delivered", _ends(world, w)
    elif variant.protocol == "locked" and any(one.is_young for one in world.requests):
        yield "waits for the settle time", _ends(world, w)
    elif row.was_attempted and variant.protocol != "naive":
        yield "reads that it was attempted", _goes(world, w, "look up", row=row)
    else:
        yield "reads that it is intended", _goes(world, w, "POST", row=row)


def _look_up(world: World, w: int, variant: Variant) -> Moves:
    found = _found(world, world.plan[1])
    if found:
        yield f"look-up: finds {min(found)}", _goes(world, w, "record", addition_id=min(found), listed=world.held)
    else:
        yield "look-up: finds nothing", _goes(world, w, "POST")


def _direct_post(world: World, w: int, variant: Variant) -> Moves:
    row = world.workers[w].row
    assert row is not None
    request = Request("create", row.agreement, 0, row.payload, is_billable=True)
    yield "begins a POST", _invoke(world, w, request, "record", variant)


def _record(world: World, w: int, variant: Variant) -> Moves:
    worker, row = world.workers[w], world.row
    assert row is not None
    row = row._replace(state="delivered", applied=row.payload, winner=row.winner or worker.addition_id)
    yield f"records {worker.addition_id}", _ends(world._replace(row=row), w)


Step = Callable[[World, int, Variant], Moves]
COMMON: dict[str, Step] = {
    "send": _send, "wait": _wait, "answer": _answer, "patch again": _patch_again, "refused": _refused,
}  # fmt: skip
INERT: dict[str, Step] = COMMON | {
    "idle": _begin, "_create": _create, "POST": _post,
    "_record_winner": _record_winner, "reload": _reload, "_activate": _activate, "_activate first": _activate_first,
    "_update": _update, "PATCH": _update_patch, "_set_state": _set_state, "_conflict": _conflict,
    "_read_back": _read_back, "judge": _judge, "_neutralise_orphans": _neutralise_orphans,
    "_settle": _settle, "_take_back": _take_back,
}  # fmt: skip
DIRECT: dict[str, Step] = COMMON | {
    "idle": _direct_begin, "load": _direct_load, "look up": _look_up, "POST": _direct_post,
    "record": _record,
}  # fmt: skip


FENCED = ("_record_winner", "record", "_set_state", "_conflict", "judge", "_take_back", "refused")


# -- what else may happen ----------------------------------------------------------------------------------------------


def _crashes(world: World, variant: Variant) -> Moves:
    for w, worker in enumerate(world.workers):
        if worker.at == "idle" or not world.crashes:
            continue
        requests = world.requests
        if worker.at == "send" and variant.tracks and worker.request is not None:
            requests = _swapped(requests, worker.request, worker.request._replace(stage="settled"))
        yield f"worker {w + 1} is killed", _ends(world._replace(requests=requests, crashes=world.crashes - 1), w)


def _late_requests(world: World, variant: Variant) -> Moves:
    """Requests that nobody waits for any more are applied after all."""
    awaited = [worker.request for worker in world.workers if worker.at == "wait"]
    for request in dict.fromkeys(world.requests):
        if request.stage != "flying" or world.requests.count(request) <= awaited.count(request):
            continue
        after, _ = _applied(world, request, variant)
        requests = _without(world.requests, request)
        if variant.tracks and request.is_young:
            requests = _swapped(world.requests, request, request._replace(stage="settled"))
        yield f"late: {_describe(request)} is applied now", after._replace(requests=requests)


def _settle_time(world: World, variant: Variant) -> Moves:
    """The oldest request of unknown fate becomes older than the settle time."""
    place = next((n for n, one in enumerate(world.requests) if one.is_young), None)
    if not variant.tracks or place is None:
        return
    request = world.requests[place]
    others = (*world.requests[:place], *world.requests[place + 1 :])
    holders = [
        w for w, one in enumerate(world.workers) if one.request == request and one.at in ("send", "wait", "answer")
    ]
    label = f"the settle time of {_describe(request)} is over"
    old = request._replace(is_young=False)
    after = world._replace(requests=others)
    if not holders:
        if request.stage == "flying" and not variant.settling:
            after = world._replace(requests=(*world.requests[:place], old, *world.requests[place + 1 :]))
        yield label, after
    for w in holders:
        if request.stage == "unsent" and variant.settling == "begun":
            yield f"{label}: worker {w + 1} does not send it any more", _ends(after, w)
        elif request.stage == "unsent":
            yield label, _put(world._replace(requests=(*others, old)), w, request=old)
        elif request.stage == "flying" and variant.settling:
            yield f"{label}: it was never applied, worker {w + 1} gives up", _ends(after, w)
        elif request.stage == "flying":
            requests = (*world.requests[:place], old, *world.requests[place + 1 :])
            yield label, _put(world._replace(requests=requests), w, request=old)
        else:
            yield label, after


def _people(world: World, variant: Variant) -> Moves:
    row = world.row
    if row is None or not row.winner:
        return
    record = world.held[row.winner - 1]
    before, after = world.held[: row.winner - 1], world.held[row.winner :]
    if world.edits and record.is_billable and not record.is_gone:
        held = (*before, record._replace(values=PERSON), *after)
        yield f"a person edits {row.winner}", world._replace(held=held, edits=world.edits - 1)
    if world.deletions and not record.is_gone:
        held = (*before, record._replace(is_gone=True, is_billable=False), *after)
        yield f"a person deletes {row.winner}", world._replace(held=held, deletions=world.deletions - 1)


def _plans(world: World, variant: Variant) -> Moves:
    version, agreement = world.plan
    if world.newer_plans and world.row and world.row.state == "delivered" and world.row.payload == version:
        yield (
            f"a newer plan: values {version + 1}",
            world._replace(plan=(version + 1, agreement), newer_plans=world.newer_plans - 1),
        )
    if world.moves and world.row:
        yield (
            "the agreement is exchanged for another one",
            world._replace(plan=(version, agreement + 1), moves=world.moves - 1),
        )


def moves(world: World, variant: Variant) -> Moves:
    """Every world that may come next."""
    steps = INERT if variant.protocol == "inert" else DIRECT
    for w, worker in enumerate(world.workers):
        if variant.lease and worker.at in FENCED and world.claim != w + 1:
            yield f"worker {w + 1}: has lost its claim", _ends(world, w)
            continue
        if variant.lease and worker.at == "idle" and world.claim != w + 1:
            words = "takes the claim over from one that stands still" if world.claim else "takes the claim"
            yield f"worker {w + 1}: {words}", world._replace(claim=w + 1)
            continue
        for label, after in steps[worker.at](world, w, variant):
            yield f"worker {w + 1}: {label}", after
    for others in (_crashes, _late_requests, _settle_time, _people, _plans):
        yield from others(world, variant)


# -- what must hold ----------------------------------------------------------------------------------------------------


def _violated(world: World) -> str:
    if sum(one.is_billable for one in world.held) > 1:
        return "two billable Additions"
    return ""


def _violated_by(before: World, after: World) -> str:
    """A recorded winner is for ever: only a deletion by a person, or another agreement, ends it."""
    if before.row is None or after.row is None or not before.row.winner or before.row.agreement != after.row.agreement:
        return ""
    if before.row.winner != after.row.winner and not before.held[before.row.winner - 1].is_gone:
        return "a recorded winner was changed"
    return ""


def _overwritten(before: World, after: World) -> str:
    for old, new in zip(before.held, after.held, strict=False):
        if old.values == PERSON != new.values:
            return "a person's value was overwritten"
    return ""


def _wrong_at_rest(world: World, variant: Variant) -> str:
    """What is wrong with a world in which a worker, alone and without faults, has nothing left to do."""
    row = world.row
    assert row is not None
    billable = [n for n, one in enumerate(world.held, 1) if one.is_billable]
    if row.state == "delivered":
        if world.plan[0] != row.payload and world.plan[1] == row.agreement:
            return "a plan was not carried out"
        record = world.held[row.winner - 1]
        touched = record.values == PERSON or record.is_gone
        if billable != [row.winner] and not touched:
            return f"delivered, but billable are {billable}, not {row.winner}"
        if record.values != row.payload and not touched:
            return f"delivered with values {row.payload}, but ConnectWise holds {record.values}"
    elif row.state == "conflict":
        if not (variant.edits or variant.deletions or variant.echo_differs or variant.newer_plans > 1):
            return "a conflict that nobody caused"
        if not row.applied and billable and not (variant.edits or variant.deletions):
            return f"in conflict with its lines held, but {billable} bills"
    elif row.state == "refused":
        if billable:
            return f"its lines are free again, but {billable} bills"
        if not variant.moves:
            return "refused, but nobody refused it"
    else:
        return f"it stays {row.state} for ever"
    return ""


def _alone(world: World, variant: Variant, known: dict[World, str]) -> str:
    """Let one new worker go on alone, with no more faults, until nothing is left to do; what is wrong then."""
    fresh = world._replace(
        workers=(Worker(),), claim=int(variant.lease), crashes=0, losses=0, edits=0, deletions=0, newer_plans=0, moves=0
    )  # fmt: skip
    if fresh in known:
        return known[fresh]
    steps = INERT if variant.protocol == "inert" else DIRECT
    now = fresh._replace(requests=()) if variant.tracks else fresh  # what is in flight gets old
    rested = None
    for _ in range(200):
        if now.workers[0].at == "idle":
            if now == rested:
                break
            rested = now
        _, after = next(iter(steps[now.workers[0].at](now, 0, variant)))  # the first is the one without a fault
        now = after._replace(claim=int(variant.lease))
    else:
        known[fresh] = "it never comes to an end"
        return known[fresh]
    known[fresh] = _wrong_at_rest(now, variant)
    return known[fresh]


# -- the search --------------------------------------------------------------------------------------------------------


def _first(variant: Variant) -> World:
    """Nothing yet, or (stands) an Addition that was delivered with values 1."""
    held: tuple[Record, ...] = ()
    row = None
    if variant.stands:
        held, row = (Record(1, 1, is_billable=True),), Row("delivered", 1, 1, 1, 1, was_attempted=True)
    return World(
        held, row, (1, 1), (), (Worker(),) * variant.workers, 0, variant.crashes, variant.losses, variant.edits,
        variant.deletions, variant.newer_plans, variant.moves,
    )  # fmt: skip


def _same(world: World, variant: Variant) -> World:
    """Worlds that differ only in the names of the workers, or in the order of requests without age, are one."""
    one, *others = world.workers
    if others and not world.claim and hash(one) > hash(others[0]):
        world = world._replace(workers=(others[0], one))
    if len(world.requests) > 1 and not variant.tracks:
        world = world._replace(requests=tuple(sorted(world.requests)))
    return world


def run_model(variant: Variant, *, most_states: int = 5_000_000) -> Result:
    """Search all worlds that can be reached, or until the first violation (then the trace is a shortest one)."""
    result, began = Result(variant), time.monotonic()
    first = _first(variant)
    came_from: dict[World, tuple[World, str] | None] = {_same(first, variant): None}
    waiting = deque([first])
    known: dict[World, str] = {}

    def found(world: World, words: str) -> Result:
        result.violation, result.states, result.seconds = words, len(came_from), time.monotonic() - began
        step = came_from[_same(world, variant)]
        while step is not None:
            before, label = step
            result.trace.append(label)
            step = came_from[_same(before, variant)]
        result.trace.reverse()
        return result

    while waiting:
        world = waiting.popleft()
        for label, after in moves(world, variant):
            result.transitions += 1
            if after == world:
                continue
            key = _same(after, variant)
            if key in came_from:
                continue
            came_from[key] = (world, label)
            waiting.append(after)
            wrong = _violated(after) or _violated_by(world, after)
            if not wrong and variant.guards_edits:
                wrong = _overwritten(world, after)
            if not wrong and after.row is not None and variant.protocol in ("inert", "locked"):
                wrong = _alone(after, variant, known)
            if wrong:
                return found(after, wrong)
            result.most_orphans = max(result.most_orphans, len(after.held) - 1)
        if len(came_from) > most_states:
            raise MemoryError(f"{variant.name}: more than {most_states} states")
    result.states, result.seconds = len(came_from), time.monotonic() - began
    return result


# -- what the campaign runs --------------------------------------------------------------------------------------------

CREATE = Variant("create", crashes=2, losses=2)
UPDATE = Variant("update", stands=True, newer_plans=1, crashes=2, losses=2)
LOCKED = Variant("locked mode", protocol="locked", lease=True, tracks=True, crashes=2, losses=2)
NAIVE = Variant("naive", protocol="naive")
LOOK_UP = Variant("look-up", protocol="look-up")
LOOK_UP_LOCKED = Variant("look-up under a lock", protocol="look-up", lock=True)
MUTATIONS = (
    "records without compare-and-set",
    "activates before recording",
    "activates the id it has",
    "creates it Billable",
    "adopts the highest id",
    "skips the look-up",
)


def mutant(mutation: str) -> Variant:
    """Our protocol with one thing done wrongly."""
    return replace(CREATE, name=f"mutant: {mutation}", mutation=mutation, losses=1)


if __name__ == "__main__":
    import sys

    for chosen in (
        NAIVE, LOOK_UP, LOOK_UP_LOCKED, CREATE, UPDATE, LOCKED, *map(mutant, MUTATIONS),
    ):  # fmt: skip
        sys.stdout.write(f"{run_model(chosen)}\n\n")
        sys.stdout.flush()
