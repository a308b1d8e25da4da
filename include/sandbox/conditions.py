"""The query languages of ConnectWise: `conditions` and `orderBy`.

    company/id = 7 and (agreementStatus = "Active" or name like "Cloud%") and billStartDate < [2026-01-01T00:00:00Z]

Grammar (the subset that real clients use; keywords, names and text compare without regard to case):

    expression = conjunction {"or" conjunction}
    conjunction = test {"and" test}
    test = "(" expression ")" | field operator value | field ["not"] "in" "(" value {"," value} ")"
         | field ["not"] "like" text | field ["not"] "contains" text
    operator = "=" | "!=" | "<>" | "<" | ">" | "<=" | ">="
    value = number | "text" | [date] | true | false | null

How a quote inside a text is escaped is not documented by ConnectWise, so it is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from sandbox.fields import Field
from sandbox.wire import Json, parse_date

Predicate = Callable[[Json], bool]


class BadCondition(ValueError):
    """The text is not a condition this server understands. The message says where it stopped."""


_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"[^"\\]*")|(?P<date>\[[^\]]*\])|(?P<number>-?\d+(?:\.\d+)?)(?![\w.])
    |(?P<operator><=|>=|!=|<>|=|<|>|\(|\)|,)|(?P<word>[A-Za-z_][\w/]*))""",
    re.VERBOSE,
)


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens, position = [], 0
    text = text.strip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise BadCondition(f"cannot read the condition at {text[position : position + 30]!r}")
        tokens.append((match.lastgroup, match.group(match.lastgroup)))
        position = match.end()
    return tokens


def value_at(record: Json, path: str) -> Any:
    """The value at `company/id`, by names without regard to case; None where a part is absent."""
    value: Any = record
    for name in path.split("/"):
        if not isinstance(value, dict):
            return None
        if name not in value:
            name = next((key for key in value if key.lower() == name.lower()), name)
        value = value.get(name)
    return value


def _comparable(value: Any, like: Any) -> Any:
    """The stored value in the type of the literal, or None if they cannot be compared."""
    if isinstance(like, bool):
        return value if isinstance(value, bool) else None
    if isinstance(like, Decimal):
        return Decimal(value) if isinstance(value, (int, Decimal)) and not isinstance(value, bool) else None
    if isinstance(like, str):
        return value.casefold() if isinstance(value, str) else None
    try:  # a date
        return parse_date(value)
    except ValueError:
        return None


def _compare(operator: str, stored: Any, literal: Any) -> bool:
    if literal is None:
        empty = stored is None or stored == ""
        return empty if operator == "=" else not empty
    stored = _comparable(stored, literal)
    wanted = literal.casefold() if isinstance(literal, str) else literal
    if operator in ("!=", "<>"):
        return bool(stored != wanted)
    if stored is None:
        return False
    return bool(
        {
            "=": lambda: stored == wanted,
            "<": lambda: stored < wanted,
            ">": lambda: stored > wanted,
            "<=": lambda: stored <= wanted,
            ">=": lambda: stored >= wanted,
        }[operator]()
    )


class _Parser:
    def __init__(self, text: str, model: Mapping[str, Field]) -> None:
        self.tokens = _tokens(text)
        self.position = 0
        self.model = model

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.position] if self.position < len(self.tokens) else ("end", "the end")

    def take(self, *expected: str) -> tuple[str, str]:
        kind, text = self.peek()
        if expected and kind not in expected and text.lower() not in expected:
            raise BadCondition(f"expected {' or '.join(expected)}, found {text}")
        self.position += 1
        return kind, text

    def keyword(self, word: str) -> bool:
        kind, text = self.peek()
        if kind == "word" and text.lower() == word:
            self.position += 1
            return True
        return False

    def expression(self) -> Predicate:
        parts = [self.conjunction()]
        while self.keyword("or"):
            parts.append(self.conjunction())
        return parts[0] if len(parts) == 1 else lambda record: any(part(record) for part in parts)

    def conjunction(self) -> Predicate:
        parts = [self.test()]
        while self.keyword("and"):
            parts.append(self.test())
        return parts[0] if len(parts) == 1 else lambda record: all(part(record) for part in parts)

    def test(self) -> Predicate:
        if self.peek()[1] == "(":
            self.take("(")
            inner = self.expression()
            self.take(")")
            return inner
        path = self.take("word")[1]
        if path.split("/")[0].lower() not in self.model:
            raise BadCondition(f"unknown field {path}")
        negated = self.keyword("not")
        if self.keyword("in"):
            self.take("(")
            values = [self.value()]
            while self.peek()[1] == ",":
                self.take(",")
                values.append(self.value())
            self.take(")")
            return lambda record: any(_compare("=", value_at(record, path), value) for value in values) != negated
        for word in ("like", "contains"):
            if self.keyword(word):
                text = self.take("text")[1][1:-1]
                pattern = _like(text if word == "like" else f"%{text}%")
                return lambda record: bool(pattern.fullmatch(str(value_at(record, path) or ""))) != negated
        if negated:
            raise BadCondition("expected in, like or contains after not")
        operator = self.take("=", "!=", "<>", "<", ">", "<=", ">=")[1]
        literal = self.value()
        return lambda record: _compare(operator, value_at(record, path), literal)

    def value(self) -> Any:
        kind, text = self.take("text", "date", "number", "word")
        if kind == "text":
            return text[1:-1]
        if kind == "number":
            return Decimal(text)
        if kind == "date":
            try:
                return parse_date(text[1:-1])
            except ValueError as error:
                raise BadCondition(str(error)) from error
        try:
            return {"true": True, "false": False, "null": None}[text.lower()]
        except KeyError:
            raise BadCondition(f"text belongs in double quotes: {text}") from None


def _like(text: str) -> re.Pattern[str]:
    """`%` and `*` stand for any text, as in SQL and in ConnectWise's own examples."""
    parts = ["." if char == "_" else ".*" if char in "%*" else re.escape(char) for char in text]
    return re.compile("".join(parts), re.IGNORECASE | re.DOTALL)


def parse(text: str, model: Mapping[str, Field]) -> Predicate:
    """Turn `conditions` into a test of one record; raises BadCondition. Empty text accepts everything."""
    if not text.strip():
        return lambda _: True
    parser = _Parser(text, model)
    predicate = parser.expression()
    if parser.position < len(parser.tokens):
        raise BadCondition(f"unexpected {parser.peek()[1]}")
    return predicate


def order(records: list[Json], text: str, model: Mapping[str, Field]) -> list[Json]:
    """Sort by `orderBy` (`company/name desc, id`); records without the value come first."""
    for part in reversed([part.strip() for part in text.split(",") if part.strip()]):
        words = part.split()
        if len(words) > 2 or words[0].split("/")[0].lower() not in model or words[1:] not in ([], ["asc"], ["desc"]):
            raise BadCondition(f"cannot order by {part!r}")
        path = words[0]
        records = sorted(records, key=lambda record: _sort_key(value_at(record, path)), reverse=words[1:] == ["desc"])
    return records


def _sort_key(value: Any) -> tuple[int, Decimal, str]:
    if isinstance(value, (int, Decimal)):
        return (1, Decimal(value), "")
    return (0 if value in (None, "") else 2, Decimal(0), str(value or "").casefold())
