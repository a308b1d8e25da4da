"""Suggestions with evidence: which company an organization may be, which product an offer. Nothing applies itself.

A guess that bills the wrong customer costs more than a mapping that a person makes. So every candidate is listed with
all that speaks for it, best first, and a person approves one (`mappings suggest`, then `mappings import`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache, lru_cache

import numpy as np
import pandas as pd
from anyascii import anyascii
from cleanco import prepare_default_terms
from rapidfuzz import fuzz, process

from billing_sync.db import Connection
from billing_sync.errors import ConfigurationError
from billing_sync.mappings import KINDS, not_formulas

SIMILAR_FROM = 80  # of 100; below it names of different customers are "similar", too
SIMILAR_AT_MOST = 5  # candidates per entry for which nothing but a similar name speaks
_LEGAL_FORMS: list[tuple[int, list[str]]] = prepare_default_terms()  # words of each, the longest first
ROWS_AT_ONCE = 1000  # of the matrix of all names by all names: 5 MB for 5,000 companies


class Strength(IntEnum):
    """What speaks for a candidate, weakest first."""

    SIMILAR_NAME = 1
    SAME_WORDS = 2
    EXACT_NAME = 3
    VAT_NUMBER = 4
    IDENTIFIER = 5


@dataclass(frozen=True)
class Evidence:
    """One thing that speaks for a candidate, in words for people."""

    strength: Strength
    text: str


@dataclass(frozen=True)
class Target:
    """A company or product of ConnectWise. unusable: why nothing can be billed to it (deleted, inactive, ...)."""

    target_id: int
    identifier: str | None
    name: str | None
    status: str | None
    unusable: str | None
    identifiers: tuple[tuple[str, str], ...]  # what may be looked up exactly: ("identifier", "ACME"), ("id", "201")
    vat_number: str | None = None
    mapped_from: tuple[str, ...] = ()  # names of those whose approved mapping it is already
    may_be_shared: bool = False  # several offers may become one product


@dataclass(frozen=True)
class Candidate:
    """A target with all that speaks for it, strongest first. similarity: of the names, 0 to 100."""

    target: Target
    evidence: tuple[Evidence, ...]
    similarity: int

    @property
    def strength(self) -> Strength:
        """Of the strongest evidence."""
        return self.evidence[0].strength

    @property
    def score(self) -> int:
        """How much speaks for it, 0 to 100; to compare candidates, not a probability."""
        return {
            Strength.IDENTIFIER: 100, Strength.VAT_NUMBER: 97, Strength.EXACT_NAME: 93, Strength.SAME_WORDS: 88,
            Strength.SIMILAR_NAME: self.similarity * 85 // 100,
        }[self.strength]  # fmt: skip


@dataclass(frozen=True)
class Suggestion:
    """An organization or offer with its candidates: usable ones first, then by strength of the evidence."""

    source_id: str
    source_name: str
    candidates: tuple[Candidate, ...]

    @property
    def only_strong(self) -> Candidate | None:
        """The candidate that can be approved among many others without a second look, if there is one: an identifier,
        a VAT number or exactly the name speaks for it, nothing but a similar name for any other, and no other
        organization has the company."""
        strong = [one for one in self.candidates if one.strength >= Strength.SAME_WORDS]
        if len(strong) != 1 or strong[0].strength == Strength.SAME_WORDS or strong[0].target.unusable:
            return None
        target = strong[0].target
        return None if self.others_of(target) and not target.may_be_shared else strong[0]

    def others_of(self, target: Target) -> list[str]:
        """Names of the others whose approved mapping the target is already."""
        return [name for name in target.mapped_from if name != self.source_name]


@dataclass(frozen=True)
class _Source:
    source_id: str
    name: str
    identifiers: tuple[tuple[str, str], ...]  # (what it is, value), e.g. ("erpId", "ACME")
    vat_number: str | None = None


@dataclass
class _Index:
    """Targets by what can be looked up exactly."""

    by_identifier: dict[str, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))
    by_vat: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    by_name: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    by_words: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))


def suggest(
    connection: Connection, kind_name: str, *, decided: bool = False, source_ids: Collection[str] | None = None
) -> list[Suggestion]:
    """Candidates for each organization (`organizations`) or offer (`offers`) that nobody has decided yet.

    decided: for those that are decided already, too; source_ids: for these only. An entry without any candidate is
    there with none. Raises ConfigurationError for another kind.
    """
    if kind_name not in ("organizations", "offers"):
        raise ConfigurationError(f"There are no suggestions for {kind_name!r}. Known: organizations, offers.")
    named = None if source_ids is None else sorted(source_ids)
    words = company_words if kind_name == "organizations" else plain_words
    read = _organizations if kind_name == "organizations" else _offers
    sources = read(connection, decided=decided, source_ids=named)
    if not sources:
        return []
    targets = _companies(connection) if kind_name == "organizations" else _products(connection)

    target_words = [words(target.name or "") for target in targets]
    index = _index_of(targets, target_words)
    source_words = [words(source.name) for source in sources]
    suggestions = []
    for source, own_words, scores in zip(sources, source_words, _similarities(source_words, target_words), strict=True):
        found = _exact_evidence(source, own_words, targets, index)
        similar = [int(number) for number in np.flatnonzero(scores >= SIMILAR_FROM) if int(number) not in found]
        most_similar = sorted(similar, key=lambda number: (-int(scores[number]), number))
        for number in most_similar[:SIMILAR_AT_MOST]:
            found[number] = [Evidence(Strength.SIMILAR_NAME, f"similar name ({scores[number]} of 100)")]
        candidates = [
            Candidate(targets[number], tuple(sorted(evidence, key=lambda one: -one.strength)), int(scores[number]))
            for number, evidence in found.items()
        ]
        suggestions.append(Suggestion(source.source_id, source.name, tuple(sorted(candidates, key=_rank))))
    return suggestions


def suggestions_frame(kind_name: str, suggestions: Iterable[Suggestion]) -> pd.DataFrame:
    """Suggestions as a CSV file for a person: one row per candidate, `state` empty; it can be imported as it is.

    An entry without a candidate has one row that says so.
    """
    kind = KINDS[kind_name]
    columns = [
        kind.source_id, f"{kind.source_table}_name", kind.target_id, f"{kind.target_table}_identifier",
        f"{kind.target_table}_name", f"{kind.target_table}_status", "evidence", "name_similarity", "mapped_from",
        "state", "note",
    ]  # fmt: skip
    rows = [
        (
            suggestion.source_id, suggestion.source_name, str(one.target.target_id), one.target.identifier,
            one.target.name, one.target.unusable or one.target.status,
            "; ".join(evidence.text for evidence in one.evidence), str(one.similarity),
            "; ".join(one.target.mapped_from), "", "",
        )
        for suggestion in suggestions
        for one in suggestion.candidates
    ] + [
        (suggestion.source_id, suggestion.source_name, "", "", "", "", "nothing found", "", "", "", "")
        for suggestion in suggestions
        if not suggestion.candidates
    ]  # fmt: skip
    return not_formulas(pd.DataFrame(rows, columns=columns, dtype="str").fillna(""))


# -- names and numbers made comparable ---------------------------------------------------------------------------------


@lru_cache(maxsize=200_000)
def plain_words(name: str) -> str:
    """The words of a name in lower case and ASCII, in order of the alphabet: "Café  B.V." as "bv cafe"."""
    text = anyascii(name).casefold().replace("&", " and ")
    return " ".join(sorted(re.sub(r"[^a-z0-9]+", " ", re.sub(r"[.']", "", text)).split()))


@lru_cache(maxsize=200_000)
def company_words(name: str) -> str:
    """As plain_words, without the legal form: "Müller GmbH & Co. KG" as "muller"."""
    words = re.sub(r"[^.\w]+$", "", anyascii(name).casefold()).split()
    bare = [re.sub(r"[.,-]", "", word) for word in words]
    # As cleanco.basename does, but for the accents, which are gone already, and the forms that cannot be in it.
    for number in sorted({number for word in set(bare) for number in _forms_by_last_word().get(word, ())}):
        form = _LEGAL_FORMS[number][1]
        if bare[-len(form) :] == form:
            del bare[-len(form) :], words[-len(form) :]
    return plain_words(" ".join(words)) or plain_words(name)


@cache
def _forms_by_last_word() -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for number, (_, form) in enumerate(_LEGAL_FORMS):
        found[form[-1]].append(number)
    return found


@lru_cache(maxsize=200_000)
def _vat_parts(number: str | None) -> tuple[str, str] | None:
    """A VAT number as (country prefix or "", the rest); None for what is none: too short, or one digit repeated."""
    text = re.sub(r"[^A-Z0-9]", "", (number or "").upper())
    match = re.fullmatch(r"([A-Z]{2})?([A-Z0-9]{5,})", text)
    if match is None or len(set(match[2])) == 1 or sum(one.isdigit() for one in match[2]) < 5:
        return None
    return match[1] or "", match[2]


# -- what speaks for whom ----------------------------------------------------------------------------------------------


def _index_of(targets: list[Target], target_words: list[str]) -> _Index:
    index = _Index()
    for number, target in enumerate(targets):
        for what, value in target.identifiers:
            index.by_identifier[value.strip().casefold()].append((number, what))
        vat = _vat_parts(target.vat_number)
        if vat:
            index.by_vat[vat[1]].append(number)
        if target.name and target.name.strip():
            index.by_name[target.name.strip()].append(number)
        if target_words[number]:
            index.by_words[target_words[number]].append(number)
    return index


def _exact_evidence(source: _Source, words: str, targets: list[Target], index: _Index) -> dict[int, list[Evidence]]:
    """By number of the target: everything but a similar name that speaks for it."""
    found: dict[int, list[Evidence]] = defaultdict(list)
    for what, value in source.identifiers:
        for number, same in index.by_identifier.get(value.strip().casefold(), ()):
            found[number].append(Evidence(Strength.IDENTIFIER, f"{what} = {same} {value.strip()}"))
    vat = _vat_parts(source.vat_number)
    if vat:
        for number in index.by_vat.get(vat[1], ()):
            other = _vat_parts(targets[number].vat_number)
            if other == vat:
                found[number].append(Evidence(Strength.VAT_NUMBER, f"same VAT number {''.join(vat)}"))
            elif other and not (other[0] and vat[0]):
                found[number].append(Evidence(Strength.VAT_NUMBER, f"same VAT number {vat[1]}, without country"))
    for number in index.by_name.get(source.name.strip(), ()):
        found[number].append(Evidence(Strength.EXACT_NAME, "same name"))
    for number in index.by_words.get(words, ()) if words else ():
        if not any(one.strength == Strength.EXACT_NAME for one in found.get(number, ())):
            found[number].append(
                Evidence(Strength.SAME_WORDS, "same name but for case, accents, punctuation, legal form")
            )
    return found


def _similarities(sources: list[str], targets: list[str]) -> Iterator[np.ndarray]:
    """For each source, its similarity to each target, 0 to 100."""
    for begin in range(0, len(sources), ROWS_AT_ONCE):
        yield from process.cdist(sources[begin : begin + ROWS_AT_ONCE], targets, scorer=fuzz.ratio, dtype=np.uint8)


def _rank(candidate: Candidate) -> tuple[object, ...]:
    strengths = [one.strength for one in candidate.evidence]
    return (
        candidate.target.unusable is not None, -max(strengths), -len(strengths), -candidate.similarity,
        candidate.target.target_id,
    )  # fmt: skip


# -- reading -----------------------------------------------------------------------------------------------------------


def _organizations(connection: Connection, *, decided: bool, source_ids: list[str] | None) -> list[_Source]:
    rows = connection.execute(
        """
        select organization_id, name, erp_id, vat_number
        from mapping.organization join mapping.organization_mapping using (organization_id)
        where not is_gone and (decided_by is null or %(decided)s)
            and (%(source_ids)s::text[] is null or organization_id = any(%(source_ids)s))
        order by name, organization_id
        """,
        {"decided": decided, "source_ids": source_ids},
    ).fetchall()
    return [_Source(key, name, (("erpId", erp_id),) if erp_id else (), vat) for key, name, erp_id, vat in rows]


def _companies(connection: Connection) -> list[Target]:
    rows = connection.execute(
        """
        select company.company_id, company.identifier, company.name, company.status, company.unusable,
            company.tax_identifier, array_remove(array_agg(organization.name order by organization.name), null)
        from mapping.company
        left join mapping.organization_mapping as mapped
            on mapped.company_id = company.company_id and mapped.state = 'approved'
        left join mapping.organization as organization using (organization_id)
        group by company.company_id
        order by company.company_id
        """
    ).fetchall()
    return [
        Target(
            key, identifier, name, status, unusable, _named(identifier=identifier, id=str(key)), vat, tuple(mapped_from)
        )
        for key, identifier, name, status, unusable, vat, mapped_from in rows
    ]


def _offers(connection: Connection, *, decided: bool, source_ids: list[str] | None) -> list[_Source]:
    rows = connection.execute(
        """
        select offer_id, coalesce(name, '')
        from mapping.offer join mapping.offer_mapping using (offer_id)
        where (decided_by is null or %(decided)s)
            and (%(source_ids)s::text[] is null or offer_id = any(%(source_ids)s))
        order by name, offer_id
        """,
        {"decided": decided, "source_ids": source_ids},
    ).fetchall()
    return [_Source(key, name, (("offer id", key), ("name", name))) for key, name in rows]


def _products(connection: Connection) -> list[Target]:
    rows = connection.execute(
        """
        select product.product_id, product.identifier, product.description, product.product_class, product.unusable,
            product.vendor_sku, array_remove(array_agg(offer.name order by offer.name), null)
        from mapping.product
        left join mapping.offer_mapping as mapped
            on mapped.product_id = product.product_id and mapped.state = 'approved'
        left join mapping.offer as offer using (offer_id)
        group by product.product_id
        order by product.product_id
        """
    ).fetchall()
    return [
        Target(
            key, identifier, description, product_class, unusable,
            _named(identifier=identifier, vendor_SKU=vendor_sku), mapped_from=tuple(mapped_from), may_be_shared=True,
        )
        for key, identifier, description, product_class, unusable, vendor_sku, mapped_from in rows
    ]  # fmt: skip


def _named(**values: str | None) -> tuple[tuple[str, str], ...]:
    return tuple((name.replace("_", " "), value) for name, value in values.items() if value and value.strip())
