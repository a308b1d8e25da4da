"""The mapping pages over HTTP: grids, suggestions, decisions, the one-to-many editor, and lines freed at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pages_client import Pages, pages_of
from pipeline import OCT, Pipeline, one_time, recurring
from prepared import Prepared, prepare

from local_stack.postgres import Postgres


@pytest.fixture(scope="module")
def world(postgres: Postgres, billing_template: str, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """One organization that nobody has decided (12.60 and 3.00 wait), and an offer in two frequencies (5.00, 50.00)."""
    prepared = prepare(postgres, billing_template, tmp_path_factory.mktemp("prepared"), "pages_mapping")
    pipeline = prepared.copy(tmp_path_factory.mktemp("mapping"))
    pipeline.set(automated_daily_sync="off")
    pipeline.connection.execute(
        "update mapping.organization_mapping set state = 'excluded', decided_by = null, company_id = null"
        " where organization_id = (select min(organization_id) from mapping.organization)"
    )
    new = {"offerId": "OF-9", "offerName": "Brand New 100%"}
    pipeline.bill(OCT, recurring("a", OCT, 3, "4.20"), one_time("x", OCT, 1, "3.00"))
    pipeline.bill(OCT, recurring("b", OCT, 1, "5.00", **new), one_time("y", OCT, 1, "50.00", **new), customer=1)
    pipeline.bill(OCT, recurring("c", OCT, 1, "1.00"), customer=2)
    return prepared.freeze(pipeline, *pipeline.plan_night(OCT))


@pytest.fixture
def pipeline(world: Prepared, tmp_path: Path) -> Iterator[Pipeline]:
    made = world.copy(tmp_path)
    yield made
    world.discard(made)


@pytest.fixture
def pages(pipeline: Pipeline) -> Iterator[Pages]:
    with pages_of(pipeline.dsn) as made:
        yield made


def rows(pages: Pages, kind: str = "organizations", **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pages.get(f"mappings/{kind}", **query)["rows"]
    return found


def decision(row: dict[str, Any], state: str = "approved", **more: Any) -> dict[str, Any]:
    names = ("source_id", "billing_frequency", "version")
    return {**{name: row[name] for name in names}, "state": state, **more}


def decide(pages: Pages, *items: dict[str, Any], kind: str = "organizations") -> dict[str, Any]:
    found: dict[str, Any] = pages.send("POST", f"mappings/{kind}/decide", {"items": list(items)})
    return found


def undecided(pages: Pages) -> dict[str, Any]:
    (row,) = rows(pages, state="undecided")
    return row


def eur(amount: str, lines: int) -> list[dict[str, Any]]:
    return [{"currency": "EUR", "amount": amount, "lines": lines}]


# -- grids -----------------------------------------------------------------------------------------------------------


def test_the_grid_shows_what_waits_and_what_may_be_the_right_target(pages: Pages) -> None:
    page = pages.get("mappings/organizations")
    assert (page["total"], page["counts"]) == (4, {"undecided": 1, "approved": 3, "excluded": 0})
    waiting = undecided(pages)
    assert waiting["held"] == eur("15.60", 2)
    assert waiting["target_id"] is None
    assert waiting["best"]["target_id"] == 201
    assert waiting["best"]["evidence"][0]["strength"] in ("identifier", "vat_number", "exact_name", "same_words")
    assert [row["best"] for row in page["rows"] if row["state"] == "approved"] == [None] * 3

    assert [row["source_id"] for row in rows(pages, only_held=True)] == [waiting["source_id"]]
    assert rows(pages, sort="-held")[0]["source_id"] == waiting["source_id"]
    assert rows(pages, q="1_0%") == []
    assert [row["source_id"] for row in rows(pages, q=waiting["source_name"][:5])] == [waiting["source_id"]]
    names = [row["source_name"].lower() for row in rows(pages, sort="-source_name")]
    assert names == sorted(names, reverse=True)
    assert rows(pages, offset=1, limit=2) == page["rows"][1:3]


def test_offers_are_found_by_when_they_were_invoiced(pages: Pages, pipeline: Pipeline) -> None:
    (new,) = rows(pages, "offers", q="100%")
    assert (new["source_id"], new["frequencies"]) == ("OF-9", ["Every 1 months", "One Time"])
    assert new["held"] == eur("55.00", 2)
    pipeline.connection.execute(
        "update mapping.offer set last_invoiced_on = now() - interval '5 months' where offer_id = 'OF-9'"
    )
    assert "OF-9" not in {row["source_id"] for row in rows(pages, "offers", window_months=2)}
    assert "OF-9" in {row["source_id"] for row in rows(pages, "offers", window_months=6)}


def test_every_sort_and_kind_works(pages: Pages) -> None:
    for kind in ("organizations", "offers", "contracts"):
        for column in (
            "source_name",
            "target_name",
            "state",
            "first_seen_at",
            "last_invoiced_on",
            "decided_at",
            "held",
        ):
            for sort in (column, f"-{column}"):
                found = rows(pages, kind, sort=sort)
                assert found, kind
                assert len({(row["source_id"], row["billing_frequency"]) for row in found}) == len(found)
    assert pages.refused("GET", "mappings/organizations", sort="password")[0] == 422
    assert pages.refused("GET", "mappings/companies")[0] == 422


def test_suggestions_of_entries_that_are_named(pages: Pages) -> None:
    source_id = undecided(pages)["source_id"]
    found = pages.get("mappings/organizations/suggestions", source_id=[source_id, "nobody"])
    assert list(found) == [source_id]
    assert found[source_id][0]["target_id"] == 201
    assert 0 < found[source_id][0]["score"] <= 100


def test_targets(pages: Pages, pipeline: Pipeline) -> None:
    assert [one["id"] for one in pages.get("targets/companies", q="203")] == [203]
    of_company = pages.get("targets/agreements", company_id=202, limit=1)
    assert all(
        pipeline.value("select company_id from mapping.agreement where agreement_id = %s", one["id"]) == 202
        for one in of_company
    )
    pipeline.connection.execute("update mapping.product set is_inactive = true where product_id = 501")
    products = pages.get("targets/products", limit=200)
    assert products[-1]["unusable"] is not None
    assert [one["unusable"] is None for one in products] == sorted(
        [one["unusable"] is None for one in products], reverse=True
    )
    assert pages.get("targets/products", q="%") == []


# -- decisions -------------------------------------------------------------------------------------------------------


def test_an_approval_frees_what_waited_for_it(pages: Pages, pipeline: Pipeline) -> None:
    row = undecided(pages)
    answer = decide(pages, decision(row, target_id=201, note=" right "))
    (result,) = answer["results"]
    assert (result["status"], result["message"]) == ("changed", None)
    assert answer["released"]["state"] == "done"
    assert answer["released"]["released"] == eur("15.60", 2)
    assert answer["released"]["held"] == []
    now = result["row"]
    assert (now["state"], now["target_id"], now["note"], now["decided_by"], now["held"], now["version"]) == (
        "approved", 201, "right", "ann", [], row["version"] + 1,
    )  # fmt: skip
    assert pipeline.held() == {"offer_unmapped": "Brand New 100% (OF-9)"}
    (change, *_) = pages.get("history", table="mapping.organization_mapping", key=row["source_id"])
    assert (change["changed_by"], change["before"]["state"], change["after"]["company_id"]) == ("ann", "excluded", 201)

    # Excluded, its lines wait no more; taken back, they wait again.
    (result,) = decide(pages, decision(now, "excluded"))["results"]
    assert (result["row"]["state"], result["row"]["target_id"]) == ("excluded", 201)
    assert pipeline.rows(
        """
        select distinct outcome
        from billing.line_decision
        join billing.invoice_line using (line_id)
        join billing.invoice using (invoice_id)
        where organization_id = %s
        """,
        row["source_id"],
    ) == [("excluded",)]
    answer = decide(pages, decision(result["row"], "undecided"))
    (result,) = answer["results"]
    assert (result["row"]["state"], result["row"]["decided_by"], result["row"]["target_id"]) == ("undecided", None, 201)
    assert answer["released"]["decided"] == 2
    assert result["row"]["held"] == eur("15.60", 2)


def test_each_decision_of_many_is_judged_by_itself(pages: Pages, pipeline: Pipeline) -> None:
    row, *others = [undecided(pages), *rows(pages, state="approved")]
    pipeline.connection.execute("update mapping.company set status = 'Inactive' where company_id = 204")
    answer = decide(
        pages,
        decision(row, target_id=201),
        decision(others[0]),
        decision(others[1], "excluded") | {"version": 99},
        decision(others[2], target_id=999),
        decision(row) | {"source_id": "1"},
    )
    told = [(one["status"], one["message"]) for one in answer["results"]]
    assert [status for status, _ in told] == ["changed", "unchanged", "conflict", "refused", "refused"]
    assert "tests has approved it" in told[2][1]
    assert answer["results"][2]["row"]["state"] == "approved"
    assert told[3][1].startswith("There is no company 999")
    assert told[4][1].startswith("There is no organization 1.")
    assert answer["results"][4]["row"] is None
    (refused,) = decide(pages, decision(others[0], target_id=204))["results"]
    assert (refused["status"], "is Inactive: choose another one" in refused["message"]) == ("refused", True)
    twice = decide(pages, decision(others[0], "excluded"), decision(others[0], "excluded"))["results"]
    assert [one["status"] for one in twice] == ["refused", "refused"]


def test_what_cannot_be_approved(pages: Pages) -> None:
    row = undecided(pages)
    (result,) = decide(pages, decision(row))["results"]
    assert result["status"] == "refused"
    assert "choose one" in result["message"]
    (result,) = decide(pages, decision(row, target_id=201, recurring_mode="dated"))["results"]
    assert (result["status"], result["message"]) == ("refused", "Only offers have a recurring mode of their own.")
    (new,) = rows(pages, "offers", q="OF-9")
    bundle = next(one for one in pages.get("targets/products", limit=200) if one["unusable"] == "a Bundle")
    (result,) = decide(pages, decision(new, target_id=bundle["id"]), kind="offers")["results"]
    assert "is a Bundle, which cannot be an Addition" in result["message"]
    assert undecided(pages)["version"] == row["version"]


def test_a_frequency_of_an_offer_becomes_another_product(pages: Pages, pipeline: Pipeline) -> None:
    (new,) = rows(pages, "offers", q="OF-9")
    once = {"source_id": "OF-9", "billing_frequency": "One Time", "version": 0, "state": "approved", "target_id": 502}
    answer = decide(pages, once, once | {"billing_frequency": "Every 7 months"}, kind="offers")
    stored, refused = answer["results"]
    assert (stored["status"], stored["row"]["version"], stored["row"]["target_id"]) == ("changed", 1, 502)
    assert refused["message"] == "No invoice has the offer OF-9 with the billing frequency 'Every 7 months'."
    assert answer["released"]["released"] == eur("50.00", 1)
    (conflict,) = decide(pages, once | {"target_id": 503}, kind="offers")["results"]
    assert (conflict["status"], conflict["row"]["target_id"]) == ("conflict", 502)
    own, variant = sorted(rows(pages, "offers", q="OF-9"), key=lambda one: one["billing_frequency"])
    assert (own["held"], variant["held"]) == (eur("5.00", 1), [])
    (result,) = decide(pages, decision(new, target_id=501, recurring_mode="dated"), kind="offers")["results"]
    assert result["row"]["recurring_mode"] == "dated"
    assert pages.get("history", table="mapping.offer_variant_mapping", key="OF-9")[0]["after"]["product_id"] == 502


def test_a_contract_takes_another_agreement(pages: Pages, pipeline: Pipeline) -> None:
    (row,) = rows(pages, "contracts", q="CT-30003")
    other = next(
        one["id"] for one in pages.get("targets/agreements", company_id=203)
        if one["id"] != pipeline.agreement(2) and one["unusable"] is None
    )  # fmt: skip
    answer = decide(pages, decision(row, target_id=other), kind="contracts")
    assert answer["results"][0]["status"] == "changed"
    assert answer["released"]["state"] == "done"
    assert pipeline.value(
        "select agreement_id from billing.line_decision join billing.invoice_line using (line_id)"
        " where subscription_id = 'sub-c'"
    ) == other  # fmt: skip


def test_a_contract_names_the_company_whose_agreements_come_first(pages: Pages, pipeline: Pipeline) -> None:
    companies = dict(
        pipeline.connection.execute(
            "select contract_id, company_id from mapping.contract join mapping.organization_mapping"
            " using (organization_id) where state = 'approved'"
        ).fetchall()
    )
    assert companies
    assert {row["source_id"]: row["company_id"] for row in rows(pages, "contracts") if row["company_id"]} == companies
    assert {row["company_id"] for row in rows(pages, "organizations")} == {None}


def test_an_agreement_of_another_company_is_remarked(pages: Pages) -> None:
    (row,) = rows(pages, "contracts", q="CT-30003")
    (others, *_) = pages.get("targets/agreements", company_id=202, limit=1)
    (result,) = decide(pages, decision(row, target_id=others["id"]), kind="contracts")["results"]
    assert result["status"] == "changed"
    assert "is of company 202, and the organization's company is 203" in result["message"]


def test_only_who_may_edit_decides(pages: Pages) -> None:
    row = undecided(pages)
    body = {"items": [decision(row, target_id=201)]}
    assert pages.ask("POST", "mappings/organizations/decide", body, person="vic:read").status_code == 403
    assert pages.refused("POST", "mappings/organizations/decide", {"items": []})[0] == 422
    assert pages.refused("POST", "mappings/organizations/decide", {"items": [decision(row) | {"by": "x"}]})[0] == 422


# -- one organization, several companies -------------------------------------------------------------------------------


def test_selectors_are_stored_at_once(pages: Pages, pipeline: Pipeline) -> None:
    row = undecided(pages)
    decide(pages, decision(row, target_id=201))
    path = f"organizations/{row['source_id']}/selectors"
    shown = pages.get(path)
    found = {(one["kind"], one["source_id"]): one["money"] for one in shown["sources"]}
    assert found["subscription", "sub-a"] == eur("12.60", 1)
    assert found["offer", "OF-1001"] == eur("15.60", 2)
    assert shown["selectors"] == []

    one = {"kind": "subscription", "source_id": "sub-a", "company_id": 202, "note": "their shop"}
    answer = pages.send("PUT", path, {"fingerprint": shown["fingerprint"], "selectors": [one]})
    (selector,) = answer["selectors"]["selectors"]
    assert (selector["company_id"], selector["decided_by"], selector["note"]) == (202, "ann", "their shop")
    assert answer["released"]["held"] == eur("3.00", 1)
    assert "company_unclaimed" in pipeline.held()
    assert undecided_or_not(pages, row["source_id"])["selectors"] == 1

    stale = pages.ask("PUT", path, {"fingerprint": shown["fingerprint"], "selectors": []})
    assert stale.status_code == 409
    assert stale.json()["current"]["selectors"][0]["company_id"] == 202
    fresh = answer["selectors"]["fingerprint"]
    both = [one, {"kind": "subscription", "source_id": "sub-x", "company_id": 201}]
    answer = pages.send("PUT", path, {"fingerprint": fresh, "selectors": both})
    assert answer["released"]["released"] == eur("3.00", 1)
    (only, *_) = pages.send("PUT", path, {"fingerprint": answer["selectors"]["fingerprint"], "selectors": both[1:]})[
        "selectors"
    ]["selectors"]
    assert only["source_id"] == "sub-x"


@pytest.mark.parametrize(
    ("selector", "said"),
    [
        ({"kind": "subscription", "source_id": "sub-b", "company_id": 201}, "belongs to another organization"),
        ({"kind": "contract", "source_id": "CT-0", "company_id": 201}, "contract CT-0 is not known"),
        ({"kind": "offer", "source_id": "OF-1001", "company_id": 999}, "company 999 is not known"),
    ],
)
def test_selectors_that_make_no_sense(pages: Pages, selector: dict[str, Any], said: str) -> None:
    path = f"organizations/{undecided(pages)['source_id']}/selectors"
    fingerprint = pages.get(path)["fingerprint"]
    status, message = pages.refused("PUT", path, {"fingerprint": fingerprint, "selectors": [selector]})
    assert (status, said in message) == (422, True), message
    assert "line" not in message.partition(":")[0]
    status, message = pages.refused("PUT", path, {"fingerprint": fingerprint, "selectors": [selector] * 2})
    assert (status, message.startswith("More than one selector names")) == (422, True)
    assert pages.refused("GET", "organizations/nobody/selectors")[0] == 404


def undecided_or_not(pages: Pages, source_id: str) -> dict[str, Any]:
    (row,) = rows(pages, q=source_id)
    return row


def test_history_is_of_named_tables_only(pages: Pages) -> None:
    assert pages.refused("GET", "history", table="pg_catalog.pg_authid", key="1")[0] == 422
    assert pages.get("history", table="billing.override", key="1'; drop table x; --") == []
