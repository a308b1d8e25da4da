"""What goes wrong on demand: rules, and which rule fires for a request.

A rule as JSON (only `kind` is required):

    {"service": "connectwise", "method": "POST", "path": "/additions$", "body": "ENV:prod", "kind": "lost_reply",
     "count": 1, "every": 3, "skip": 2, "probability": 0.35, "seed": 7, "params": {...}}

`path` and `body` are regular expressions (searched, not matched). Of the matching requests the first `skip` pass
unharmed, then each, or every k-th, or each with `probability`, is hit, until `count` have been hit. The first rule
that fires wins. Rules live in memory: a restart of the sandbox clears them.

| kind         | params (default)                          | applied? | what the client sees                          |
|--------------|-------------------------------------------|----------|-----------------------------------------------|
| status       | status (500), body, headers               | no       | that answer                                   |
| status_after | status (500), body, headers               | yes      | that answer                                   |
| lost_reply   | reset (false)                             | yes      | the connection ends without an answer         |
| late         | delay (1.0 s; null: until released),      | later    | the connection ends at once, or hangs and     |
|              | connection ("drop" or "hang"), hang (30 s)|          | then ends, without an answer                  |
| reset        | -                                         | no       | connection reset                              |
| delay        | seconds (1.0)                             | yes      | the true answer, later                        |
| slow_body    | seconds (2.0), chunks (10)                | yes      | the true answer, in drops                     |
| truncated    | keep (0.5)                                | yes      | a part of the body, then the end              |
| invalid_json | -                                         | yes      | 200 and a body that is not JSON               |
| stale        | age (60 s), hide_only (false)             | yes      | additions as they were `age` seconds ago;     |
|              |                                           |          | agreements without those created since        |
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from typing import Any

from sandbox.wire import Json

KINDS = (
    "status",
    "status_after",
    "lost_reply",
    "late",
    "reset",
    "delay",
    "slow_body",
    "truncated",
    "invalid_json",
    "stale",
)


@dataclass
class Rule:
    """One rule; see the module's text. `seen` and `hits` count matching and harmed requests."""

    id: int
    kind: str
    service: str = "any"
    method: str = "any"
    path: str = ""
    body: str = ""
    count: int | None = None
    every: int = 1
    skip: int = 0
    probability: float = 1.0
    seed: int = 0
    params: Json = field(default_factory=dict)
    seen: int = 0
    hits: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is one of {', '.join(KINDS)}")
        if self.every < 1:
            raise ValueError("every is 1 or more")
        self.probability = float(self.probability)
        try:
            self._path, self._body = re.compile(self.path), re.compile(self.body)
        except re.error as problem:
            raise ValueError(f"not a regular expression: {problem}") from None
        self._random = random.Random(f"{self.seed}/{self.kind}")  # noqa: S311

    def fires(self, service: str, method: str, path: str, body: str) -> bool:
        """Whether this request is hit; counts it."""
        if self.service not in ("any", service) or self.method.upper() not in ("ANY", method):
            return False
        if not self._path.search(path) or not self._body.search(body):
            return False
        self.seen += 1
        if self.seen <= self.skip or (self.seen - self.skip - 1) % self.every:
            return False
        if self.count is not None and self.hits >= self.count:
            return False
        # The generator is asked for every matching request, so that the n-th decision depends on n only.
        if self._random.random() >= self.probability:
            return False
        self.hits += 1
        return True

    def describe(self) -> Json:
        return {
            **{name: getattr(self, name) for name in ("id", "kind", "service", "method", "path", "body", "count")},
            **{name: getattr(self, name) for name in ("every", "skip", "seed", "params", "seen", "hits")},
            "probability": str(self.probability),
        }


class Faults:
    """The rules in force, in the order they were added. The caller holds the store's lock."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rules: list[Rule] = []
        self._last_id = 0

    def add(self, **values: Any) -> Rule:
        self._last_id += 1
        values.setdefault("seed", self.seed)
        rule = Rule(self._last_id, **values)
        self.rules.append(rule)
        return rule

    def clear(self, rule_id: int | None = None) -> None:
        self.rules = [rule for rule in self.rules if rule_id is not None and rule.id != rule_id]

    def pick(self, service: str, method: str, path: str, body: bytes) -> Rule | None:
        if not self.rules:
            return None
        text = body.decode("utf-8", "replace")
        return next((rule for rule in self.rules if rule.fires(service, method, path, text)), None)
