"""Suggestions: every candidate with all its evidence, best first, and nothing applied by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pipeline import Pipeline

from billing_sync.errors import ConfigurationError
from billing_sync.mappings import import_mappings, read_mapping_file
from billing_sync.suggestions import Suggestion, company_words, plain_words, suggest, suggestions_frame


@pytest.fixture
def empty(pipeline: Pipeline) -> Pipeline:
    """Nothing to map and nothing to map it to."""
    pipeline.connection.execute(
        "truncate mapping.organization, mapping.company, mapping.offer, mapping.product cascade"
    )
    return pipeline


def organization(pipeline: Pipeline, name: str, **values: Any) -> str:
    key = f"o{pipeline.value('select count(*) from mapping.organization')}"
    insert(pipeline, "mapping.organization", organization_id=key, name=name, **values)
    insert(pipeline, "mapping.organization_mapping", organization_id=key)
    return key


def company(pipeline: Pipeline, company_id: int, name: str, **values: Any) -> int:
    row = {"identifier": f"C{company_id}", "status": "Active", **values}
    insert(pipeline, "mapping.company", company_id=company_id, name=name, **row)
    return company_id


def insert(pipeline: Pipeline, table: str, **values: Any) -> None:
    marks = ", ".join(["%s"] * len(values))
    pipeline.connection.execute(f"insert into {table} ({', '.join(values)}) values ({marks})", list(values.values()))


def only(pipeline: Pipeline, kind: str = "organizations") -> Suggestion:
    (found,) = suggest(pipeline.connection, kind)
    return found


def told(suggestion: Suggestion) -> list[tuple[int, str]]:
    return [(one.target.target_id, "; ".join(e.text for e in one.evidence)) for one in suggestion.candidates]


@pytest.mark.parametrize(
    ("name", "values", "other", "company_values", "evidence"),
    [
        ("A", {"erp_id": "acme-1"}, "Something else", {"identifier": "ACME-1"}, "erpId = identifier acme-1"),
        ("A", {"erp_id": " 201 "}, "Something else", {}, "erpId = id 201"),
        ("A", {"vat_number": "LV 4000-12345"}, "Else", {"tax_identifier": "lv400012345"},
            "same VAT number LV400012345"),
        ("A", {"vat_number": "400012345"}, "Else", {"tax_identifier": "LV400012345"},
            "same VAT number 400012345, without country"),
        ("Acme Corp", {}, "Acme Corp", {}, "same name"),
        ("Acme Corp", {}, "ACME Corporation", {}, "same name but for case, accents, punctuation, legal form"),
        ("Café Zoë GmbH & Co. KG", {}, "cafe zoe", {}, "same name but for case, accents, punctuation, legal form"),
        ("Øst Łódź B.V.", {}, "Ost, Lodz", {}, "same name but for case, accents, punctuation, legal form"),
        ("Northern Data Trading", {}, "Nothern Data Trading", {}, "similar name (98 of 100)"),
        ("Trading Northern Data", {}, "Nothern Data Trading", {}, "similar name (98 of 100)"),
    ],
)  # fmt: skip
def test_each_kind_of_evidence_is_found_and_named(
    empty: Pipeline, name: str, values: dict[str, str], other: str, company_values: dict[str, str], evidence: str
) -> None:
    organization(empty, name, **values)
    company(empty, 201, other, **company_values)
    company(empty, 202, "Nobody knows it")

    assert told(only(empty)) == [(201, evidence)]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("LV400012345", "EE400012345"), ("00000000", "00000000"), ("n/a", "n/a"), ("none-none", "none-none"), ("", "")],
)
def test_what_is_no_vat_number_or_another_countrys_is_no_evidence(empty: Pipeline, ours: str, theirs: str) -> None:
    organization(empty, "Alpha", vat_number=ours)
    company(empty, 201, "Omega", tax_identifier=theirs)

    assert told(only(empty)) == []


def test_all_evidence_of_all_candidates_stands_best_first_and_unusable_ones_last(empty: Pipeline) -> None:
    organization(empty, "Acme Ltd", erp_id="ACME", vat_number="LV400012345")
    company(empty, 201, "Acme Ltd", identifier="ACME", is_deleted=True, tax_identifier="LV400012345")
    company(empty, 202, "Acme Ltd.")
    company(empty, 203, "Acme Ltd", identifier="Acme2")
    company(empty, 204, "Akme")
    company(empty, 205, "Unlike", tax_identifier="LV400012345")
    company(empty, 206, "Acme", status="Inactive")

    suggestion = only(empty)

    assert told(suggestion) == [
        (205, "same VAT number LV400012345"),
        (203, "same name"),
        (202, "same name but for case, accents, punctuation, legal form"),
        (201, "erpId = identifier ACME; same VAT number LV400012345; same name"),
        (206, "same name but for case, accents, punctuation, legal form"),
    ]
    assert [one.target.unusable for one in suggestion.candidates] == [None, None, None, "deleted", "Inactive"]


def test_two_companies_of_one_name_are_told_apart_in_the_file(empty: Pipeline) -> None:
    organization(empty, "Acme")
    company(empty, 201, "Acme", identifier="AcmeRiga")
    company(empty, 202, "Acme", identifier="AcmeOslo", status="Prospect")
    taken = organization(empty, "Already there")
    empty.connection.execute(
        "update mapping.organization_mapping set state = 'approved', company_id = 202, decided_by = 'ann'"
        " where organization_id = %s", [taken],
    )  # fmt: skip

    frame = suggestions_frame("organizations", suggest(empty.connection, "organizations"))

    columns = ["company_id", "company_identifier", "company_status", "mapped_from", "state"]
    assert frame[columns].values.tolist() == [
        ["201", "AcmeRiga", "Active", "", ""], ["202", "AcmeOslo", "Prospect", "Already there", ""],
    ]  # fmt: skip


def test_who_is_decided_already_is_left_out_unless_asked_for(empty: Pipeline) -> None:
    organization(empty, "Acme")
    empty.connection.execute("update mapping.organization_mapping set decided_by = 'ann'")

    assert suggest(empty.connection, "organizations") == []
    assert [one.source_name for one in suggest(empty.connection, "organizations", decided=True)] == ["Acme"]


def test_offers_are_matched_by_identifier_vendor_sku_and_name(empty: Pipeline) -> None:
    for key, name in (("OF-1", "Mail Suite"), ("OF-2", "Office Premium"), ("MAIL-Y", "Other"), ("OF-4", "Unlike")):
        insert(empty, "mapping.offer", offer_id=key, name=name)
        insert(empty, "mapping.offer_mapping", offer_id=key)
    products = [
        (1, "MAIL-M", "mail suite", None, "Service", False), (2, "OFF", "Office", "of-2", "Service", False),
        (3, "mail-y", "Something", None, "Service", False), (4, "BUN", "Mail Suite", None, "Bundle", False),
    ]  # fmt: skip
    for key, identifier, description, sku, product_class, inactive in products:
        insert(
            empty, "mapping.product", product_id=key, identifier=identifier, description=description, vendor_sku=sku,
            product_class=product_class, is_inactive=inactive,
        )  # fmt: skip

    found = {one.source_id: told(one) for one in suggest(empty.connection, "offers")}

    assert found == {
        "OF-1": [(1, "same name but for case, accents, punctuation, legal form"), (4, "same name")],
        "OF-2": [(2, "offer id = vendor SKU OF-2")],
        "MAIL-Y": [(3, "offer id = identifier MAIL-Y")],
        "OF-4": [],
    }


def test_nothing_is_applied_until_a_person_fills_in_the_state(
    empty: Pipeline, tmp_path: Path, run: Callable[..., tuple[int, str]]
) -> None:
    acme = organization(empty, "Acme")
    other = organization(empty, "Nobody like it")
    company(empty, 201, "Acme", identifier="Riga")
    company(empty, 202, "Acme", identifier="Oslo")
    path = tmp_path / "organizations.csv"

    code, text = run(empty.dsn, "mappings", "suggest", "organizations", str(path))

    assert (code, "2 organizations, 1 with candidates" in text) == (0, True)
    given = read_mapping_file(path, "organizations")
    assert len(given) == 0
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 4
    assert lines[3].startswith(f"{other},Nobody like it,,,,,nothing found")
    path.write_text("\n".join([*lines[:2], lines[2].removesuffix(",,") + ",approved,"]), encoding="utf-8")
    given = read_mapping_file(path, "organizations")
    import_mappings(empty.connection, "organizations", given, approve=True, person="ann")
    mapped = "select organization_id, company_id, state, decided_by from mapping.organization_mapping order by 1"
    assert empty.rows(mapped) == [
        (acme, 202, "approved", "ann"), (other, None, "excluded", None),
    ]  # fmt: skip


def test_two_approved_candidates_of_one_organization_are_refused(empty: Pipeline, tmp_path: Path) -> None:
    organization(empty, "Acme")
    for number in (201, 202):
        company(empty, number, "Acme")
    frame = suggestions_frame("organizations", suggest(empty.connection, "organizations"))
    frame["state"] = "approved"
    frame.to_csv(tmp_path / "s.csv", index=False)

    with pytest.raises(ConfigurationError, match="'o0' stands in it twice"):
        read_mapping_file(tmp_path / "s.csv", "organizations")


def test_names_of_strangers_are_no_formulas_in_the_file(empty: Pipeline) -> None:
    organization(empty, "=HYPERLINK(1)", erp_id="+C1")
    company(empty, 201, "=HYPERLINK(1)", identifier="+C1")

    frame = suggestions_frame("organizations", suggest(empty.connection, "organizations"))

    assert not [cell for cell in frame.iloc[0] if cell.startswith(("=", "+", "-", "@"))]


def test_thousands_of_names_take_seconds(empty: Pipeline) -> None:
    count = 3000
    empty.connection.execute(
        """
        insert into mapping.organization (organization_id, name)
        select 'o' || n, 'Customer ' || md5(n::text) from generate_series(1, %(count)s) as n
        """, {"count": count},
    )  # fmt: skip
    empty.connection.execute(
        "insert into mapping.organization_mapping (organization_id) select organization_id from mapping.organization"
    )
    empty.connection.execute(
        """
        insert into mapping.company (company_id, name)
        select n, 'Customer ' || md5(n::text) || ' Ltd' from generate_series(1, %(count)s) as n
        """, {"count": count},
    )  # fmt: skip
    began = time.process_time()

    found = suggest(empty.connection, "organizations")

    assert time.process_time() - began < 10
    assert len(found) == count
    assert all(one.candidates[0].target.target_id == int(one.source_id[1:]) for one in found)


def test_another_kind_is_refused(pipeline: Pipeline) -> None:
    with pytest.raises(ConfigurationError, match="no suggestions for 'contracts'"):
        suggest(pipeline.connection, "contracts")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Foo Sp. z o.o.", "foo"), ("Foo Pty Ltd", "foo"), ("Nordic A/S", "nordic"), ("Foo, Inc.", "foo"),
        ("Ltd", "ltd"), ("Bar & Foo Limited", "and bar foo"), ("", ""), ("!!!", ""), ("Žalias UAB", "zalias"),
    ],
)  # fmt: skip
def test_legal_forms_accents_and_order_do_not_tell_companies_apart(name: str, words: str) -> None:
    assert company_words(name) == words


def test_products_keep_every_word() -> None:
    assert plain_words("Office Premium (Yearly) Co") == "co office premium yearly"


def test_some_entries_only(empty: Pipeline) -> None:
    first, second = organization(empty, "Alpha"), organization(empty, "Beta")
    company(empty, 201, "Alpha")
    assert [one.source_id for one in suggest(empty.connection, "organizations", source_ids=[first, "nobody"])] == [
        first
    ]
    assert suggest(empty.connection, "organizations", source_ids=[]) == []
    empty.connection.execute(
        "update mapping.organization_mapping set decided_by = 'ann' where organization_id = %s", [second]
    )
    assert suggest(empty.connection, "organizations", source_ids=[second]) == []
    assert len(suggest(empty.connection, "organizations", source_ids=[second], decided=True)) == 1


@pytest.mark.parametrize(
    ("companies", "best"),
    [
        ({201: {"name": "Alpha"}}, 201),
        ({201: {"name": "Other", "tax_identifier": "LV40001234567"}}, 201),
        ({201: {"name": "Alpha"}, 202: {"name": "Alphb"}}, 201),
        ({201: {"name": "Alpha Ltd"}}, None),
        ({201: {"name": "Alpha"}, 202: {"name": "Alpha GmbH"}}, None),
        ({201: {"name": "Alpha"}, 202: {"name": "X", "tax_identifier": "LV40001234567"}}, None),
        ({201: {"name": "Alpha", "status": "Inactive"}}, None),
        ({}, None),
    ],
)
def test_what_may_be_approved_together_with_others(
    empty: Pipeline, companies: dict[int, dict[str, Any]], best: int | None
) -> None:
    key = organization(empty, "Alpha", vat_number="LV40001234567")
    for number, values in companies.items():
        company(empty, number, **values)
    (found,) = suggest(empty.connection, "organizations", source_ids=[key])
    assert (found.only_strong.target.target_id if found.only_strong else None) == best
    assert all(0 < one.score <= 100 for one in found.candidates)
    assert [one.score for one in found.candidates] == sorted((one.score for one in found.candidates), reverse=True)


def test_a_company_that_another_organization_has_is_looked_at_twice(empty: Pipeline) -> None:
    other, key = organization(empty, "Somebody"), organization(empty, "Alpha")
    company(empty, 201, "Alpha")
    empty.connection.execute(
        "update mapping.organization_mapping set company_id = 201, state = 'approved', decided_by = 'ann'"
        " where organization_id = %s",
        [other],
    )
    (found,) = suggest(empty.connection, "organizations", source_ids=[key])
    assert (found.only_strong, found.others_of(found.candidates[0].target)) == (None, ["Somebody"])
