"""What a refresh says about organizations, offers, contracts, companies, products and agreements; ids are the keys."""

from __future__ import annotations

from typing import Any

from sql_world import MAY, REQUESTER, World, monthly

from billing_sync.db import run_sql_file
from billing_sync.decide import REFRESH_OFFERS, REFRESH_REFERENCE
from billing_sync.run import open_run

FEEDS = {
    "organizations": ("appxite", "organization"),
    "contracts": ("appxite", "contract"),
    "companies": ("connectwise", "company"),
    "products": ("connectwise", "product"),
    "agreements": ("connectwise", "agreement"),
}


def refresh(world: World, **feeds: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """A run whose extracts say this; the level and message of what it logs."""
    world.run_id = open_run(
        world.connection, dag_id="tests", dag_run_id=f"refresh {world.number()}", kind="reference",
        billing_periods=[MAY], requester_id=REQUESTER,
    )  # fmt: skip
    for feed, records in feeds.items():
        source, table = FEEDS[feed]
        extract_id = world.extract(world.run_id, source, feed)
        for record in records:
            world.insert(f"staging.{table}", extract_id=extract_id, **record)
    run_sql_file(world.connection, REFRESH_REFERENCE, world.run_id)
    return said(world)


def said(world: World) -> list[tuple[str, str]]:
    rows = world.rows("select * from audit.log_entry where run_id = %s order by log_entry_id", world.run_id)
    return [(row["level"], row["message"]) for row in rows]


def acme(**values: Any) -> dict[str, Any]:
    return {"company_id": 201, "name": "Acme", "status": "Active", **values}


def test_what_is_new_renamed_gone_and_back_is_said_once(world: World) -> None:
    assert refresh(world, companies=[acme()]) == [("INFO", "Company: 1 new: Acme (201)")]
    assert refresh(world, companies=[acme()]) == []
    assert refresh(world, companies=[acme(name="Acme Corp")]) == [
        ("INFO", "Company: 1 renamed: Acme Corp (201), was Acme")
    ]
    assert refresh(world, companies=[]) == [("INFO", "Company: 1 unusable: Acme Corp (201): gone, was usable")]
    assert refresh(world) == []  # no extract says nothing about what is gone
    assert refresh(world, companies=[acme(is_deleted=True)]) == [
        ("INFO", "Company: 1 unusable: Acme (201): deleted, was gone")
    ]
    assert refresh(world, companies=[acme(status="Inactive")]) == [
        ("INFO", "Company: 1 unusable: Acme (201): Inactive, was deleted")
    ]
    assert refresh(world, companies=[acme()]) == [("INFO", "Company: 1 usable again: Acme (201): usable, was Inactive")]


def test_each_kind_is_told_by_itself(world: World) -> None:
    told = refresh(
        world,
        organizations=[{"organization_id": "o1", "name": "Org"}],
        contracts=[{"contract_id": "c1", "contract_number": "C-1"}],
        products=[{"product_id": 5, "identifier": "SKU", "product_class": "Bundle"}],
        agreements=[{"agreement_id": 7, "name": "Cloud", "agreement_status": "Active"}],
    )

    assert sorted(message for _, message in told) == [
        "Agreement: 1 new: Cloud (7)",
        "Contract: 1 new: C-1 (c1)",
        "Organization: 1 new: Org (o1)",
        "Product: 1 new: SKU (5), a Bundle",
    ]


def test_an_approved_mapping_to_what_is_renamed_or_gone_is_warned_of_and_stays_by_id(world: World) -> None:
    refresh(world, companies=[acme()], organizations=[{"organization_id": "o1", "name": "Org"}])
    world.map_organization("o1", 201)

    renamed = refresh(
        world, companies=[acme(name="New name")], organizations=[{"organization_id": "o1", "name": "New"}]
    )
    deleted = refresh(world, companies=[acme(name="New name", is_deleted=True)])

    assert ("WARNING", "Company of approved mappings: 1 renamed: New name (201), was Acme, mapped from New") in renamed
    assert ("INFO", "Organization: 1 renamed: New (o1), was Org") in renamed
    assert deleted[-1] == (
        "WARNING", "Company of approved mappings: 1 unusable: New name (201): deleted, was usable, mapped from New"
    )  # fmt: skip
    mapped = world.row("select * from mapping.organization_mapping")
    assert (mapped["organization_id"], mapped["company_id"], mapped["state"]) == ("o1", 201, "approved")


def test_selectors_variants_and_default_products_are_warned_of_too(world: World) -> None:
    refresh(
        world, companies=[acme()], organizations=[{"organization_id": "o1", "name": "Org"}],
        products=[{"product_id": number, "identifier": f"P{number}"} for number in (1, 2)],
    )  # fmt: skip
    world.insert("mapping.company_selector", organization_id="o1", kind="offer", source_id="x", company_id=201)
    world.insert("mapping.offer", offer_id="x", name="Suite")
    world.insert(
        "mapping.offer_variant_mapping", offer_id="x", billing_frequency="Every 12 months", product_id=1,
        state="approved", decided_by="ann",
    )  # fmt: skip
    world.update("billing.charge_type", "charge_type", "UserCorrection", default_product_id=2)

    told = refresh(world, companies=[], products=[])

    assert [message for level, message in told if level == "WARNING"] == [
        "Company of approved mappings: 1 unusable: Acme (201): gone, was usable, mapped from Org",
        "Product of approved mappings: 2 unusable: P1 (1): gone, was usable, mapped from Suite; "
        "P2 (2): gone, was usable, mapped from UserCorrection",
    ]


def test_the_log_stays_short_however_much_changed(world: World) -> None:
    companies = [{"company_id": number, "name": f"Company {number:04d}"} for number in range(1, 2001)]

    told = refresh(world, companies=companies)

    assert len(told) == 1
    assert told[0][1].startswith("Company: 2000 new: Company 0001 (1); Company 0002 (2); ")
    assert told[0][1].endswith("Company 0010 (10); and 1990 more")


def test_new_offers_and_organizations_of_invoices_are_said(world: World) -> None:
    world.invoice("from an invoice", monthly(MAY, offer_id="brand new"))
    world.open("nightly")
    run_sql_file(world.connection, REFRESH_OFFERS, world.run_id)

    assert said(world) == [
        ("INFO", "Offer: 1 new: brand new (brand new)"),
        ("INFO", "Organization: 1 new: from an invoice (from an invoice)"),
    ]
    run_sql_file(world.connection, REFRESH_OFFERS, world.run_id)
    assert len(said(world)) == 2
