"""What the seeded data promises to those who build on it."""

from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from sandbox.dataset import OFFERS, ROLES
from sandbox.server import Sandbox
from sandbox.wire import line_amount

CHARGES = {"PurchaseFee", "CycleFee", "Correction", "UsageFee", "OneTimeFee", "ItemFee", "UserCorrection"}


@pytest.fixture(scope="module")
def truth(whole: Any) -> list[dict[str, Any]]:
    return list(whole.truth())


@pytest.fixture(scope="module")
def lines(truth: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for invoice in truth for line in invoice["lines"]]


def organization(role: str) -> str:
    return str(110001 + ROLES[role] * 7)


def of(lines: list[dict[str, Any]], role: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["consumerOrganizationId"] == organization(role)]


def dump(state: Path, **parameters: Any) -> list[str]:
    sandbox = Sandbox(state, **parameters)
    lines = list(sandbox.store.db.iterdump())
    sandbox.store.close()
    return lines


def test_the_same_parameters_give_the_same_bytes(tmp_path: Path) -> None:
    first = dump(tmp_path / "a", customers=40, months=3)
    assert dump(tmp_path / "b", customers=40, months=3) == first
    assert dump(tmp_path / "c", customers=40, months=3, seed=8) != first


def test_one_more_customer_changes_no_line_of_another(tmp_path: Path) -> None:
    def amounts(customers: int) -> list[Any]:
        sandbox = Sandbox(tmp_path / str(customers), customers=customers, months=2)
        rows = [row for invoice in sandbox.truth() for row in invoice["lines"]]
        sandbox.store.close()
        mine = [row for row in rows if int(row["consumerOrganizationId"]) < 110001 + 5 * 7]
        return [(row["consumerOrganizationId"], row["subscriptionId"], row["totalPrice"]) for row in mine]

    assert amounts(5) == amounts(9)


@pytest.mark.parametrize("parameters", [{"customers": 1, "months": 1}, {"customers": 28, "months": 15}])
def test_other_sizes_work(tmp_path: Path, parameters: dict[str, int]) -> None:
    with Sandbox(tmp_path, last_month="2025-02", **parameters) as sandbox:  # type: ignore[arg-type]
        dates = {invoice["invoiceDate"][:7] for invoice in sandbox.truth()}
        assert len(dates) == parameters["months"]
        assert max(dates) == "2025-02"


def test_there_are_about_1500_lines_and_every_charge_type(lines: list[dict[str, Any]]) -> None:
    assert 1300 <= len(lines) <= 1700
    assert {line["chargeType"] for line in lines} == CHARGES | {"TransferFee"}


def test_sums_add_up_except_the_one_that_is_marked(whole: Any, truth: list[dict[str, Any]]) -> None:
    broken = [i["invoiceId"] for i in truth if sum(line["totalPrice"] for line in i["lines"]) != i["totalAmount"]]
    assert broken == [a["invoiceId"] for a in whole.anomalies() if a["kind"] == "broken_total"]


def test_most_lines_are_quantity_times_price_and_a_few_are_a_cent_off(lines: list[dict[str, Any]]) -> None:
    off = [line["totalPrice"] - line_amount(line["quantity"], line["unitPrice"]) for line in lines]
    assert set(map(abs, off)) == {Decimal(0), Decimal("0.01")}
    assert 2 <= sum(map(bool, off)) <= 30
    assert all(line["totalPrice"].as_tuple().exponent == -2 for line in lines)


def test_a_quarter_of_the_rows_has_no_id_and_some_are_true_duplicates(lines: list[dict[str, Any]]) -> None:
    without = [line for line in lines if "rowId" not in line]
    assert 0.18 < len(without) / len(lines) < 0.32
    ids = Counter(line["rowId"] for line in lines if "rowId" in line)
    assert max(ids.values()) == 1
    names = ("invoiceId", "subscriptionId", "chargeStartDate", "chargeEndDate", "chargeType", "totalPrice")
    keys = Counter(tuple(line[name] for name in names) for line in lines)
    twins = [line for line in lines if keys[tuple(line[name] for name in names)] > 1]
    assert {line["chargeType"] for line in twins} == {"Correction"}
    assert {"rowId" in line for line in twins} == {True, False}


def test_corrections_have_both_signs(lines: list[dict[str, Any]]) -> None:
    corrections = [line for line in lines if line["chargeType"] == "Correction"]
    assert {line["totalPrice"] > 0 for line in corrections} == {True, False}
    assert any(line["quantity"] < 0 for line in corrections)
    assert any(line["unitPrice"] < 0 for line in corrections)


def test_sizes_are_skewed(lines: list[dict[str, Any]]) -> None:
    counts = Counter(line["consumerOrganizationId"] for line in lines)
    assert counts.most_common(1)[0][0] == organization("heavy")
    assert counts[organization("heavy")] > 3 * 100
    assert min(counts.values()) <= 3 * 3


def test_only_the_sellers_own_accepted_invoices_are_the_truth(whole: Any, truth: list[dict[str, Any]]) -> None:
    everything = whole.appxite_invoices()
    assert {i["status"] for i in truth} == {"Verified", "Issued", "Paid"}
    assert {i["providerOrganizationId"] for i in truth} == {"100001"}
    assert {i["status"] for i in everything} >= {"New", "New Corrected"}
    assert {i["providerOrganizationId"] for i in everything} == {"100001", "900001"}
    assert {i["visibility"] for i in everything} == {"published", "preview"}


def test_each_special_customer_is_special(whole: Any, truth: list[dict[str, Any]], lines: list[dict[str, Any]]) -> None:
    def recurring(role: str) -> list[dict[str, Any]]:
        return [line for line in of(lines, role) if line["chargeType"] in ("CycleFee", "PurchaseFee")]

    gone = next(a["subscriptionId"] for a in whole.anomalies() if a["kind"] == "cancelled_subscription")
    months = {line["invoiceDate"][:7] for line in recurring("cancelled_subscription") if line["subscriptionId"] == gone}
    assert months == {"2026-09"}
    by_subscription: dict[str, set[Decimal]] = {}
    for line in recurring("changing_quantity"):
        by_subscription.setdefault(line["subscriptionId"], set()).add(line["quantity"])
    assert max(map(len, by_subscription.values())) == 3
    prices: dict[str, set[Decimal]] = {}
    for line in recurring("changing_price"):
        if line["chargeType"] == "CycleFee":
            prices.setdefault(line["subscriptionId"], set()).add(line["unitPrice"])
    assert max(map(len, prices.values())) == 3
    assert any(line["totalPrice"] == 0 for line in lines)
    assert any(line["offerId"] is None and line["subscriptionId"] is None for line in of(lines, "custom_invoice"))
    assert {line["billingFrequency"] for line in lines} >= {f"Every {n} months" for n in (1, 3, 12)}
    twins = {(line["offerName"], line["offerId"]) for line in lines if line["offerName"] == "Office Premium"}
    assert len(twins) == 2
    assert {line["chargeStartDate"][8:] for line in recurring("mid_month")} >= {"15"}
    assert {i["currency"] for i in truth} == {"EUR", "USD"}
    assert any(i["invoiceReference"] for i in truth)
    assert any(i["invoiceSourceId"] == 4 for i in truth)
    per_month = Counter((i["consumerOrganizationId"], i["invoiceDate"][:7]) for i in truth)
    assert per_month[(organization("several_invoices"), "2026-11")] == 3
    assert any("O'Brien" in i["consumerName"] and '"' in i["consumerName"] for i in truth)
    assert max(len(line["subscriptionName"]) for line in lines) > 300


def test_the_agreements_are_as_described(whole: Any) -> None:
    cloud = [a for a in whole.agreements() if a["type"]["name"] == "Cloud Subscriptions"]
    active = Counter(a["company"]["id"] for a in cloud if a["agreementStatus"] == "Active")

    def of_role(role: str) -> dict[str, Any]:
        return next(a for a in cloud if a["company"]["id"] == 201 + ROLES[role])

    assert active[201 + ROLES["two_agreements"]] == 2
    assert active[201 + ROLES["no_agreement"]] == active[201 + ROLES["expired_agreement"]] == 0
    assert sum(count == 1 for count in active.values()) >= 35
    assert of_role("prorating_agreement")["prorateFlag"] is True
    assert of_role("expired_agreement")["agreementStatus"] == "Expired"
    assert of_role("quarterly_agreement")["nextInvoiceDate"] == "2026-07-01T00:00:00Z"
    assert of_role("yearly_agreement")["nextInvoiceDate"] == "2026-01-01T00:00:00Z"
    assert of_role("contract_cycle")["nextInvoiceDate"] == "2026-08-10T00:00:00Z"
    assert {a["agreementStatus"] for a in cloud} == {"Active", "Expired", "Cancelled"}
    assert {a["type"]["name"] for a in whole.agreements()} == {"Cloud Subscriptions", "Managed Services", "Block Time"}


def test_companies_have_the_usual_trouble(whole: Any, whole_cw: Any, whole_appxite: Any) -> None:
    companies = whole_cw.get("/company/companies", pageSize=1000)
    assert max(Counter(company["name"] for company in companies).values()) == 2
    assert {company["deletedFlag"] for company in companies} == {True, False}
    assert {company["status"]["name"] for company in companies} >= {"Active", "Inactive"}
    assert all(len(company["identifier"]) <= 30 and len(company["name"]) <= 50 for company in companies)
    identifiers = {company["identifier"]: company for company in companies}
    assert len(identifiers) == len(companies)
    organizations = whole_appxite.get("/organizations/details/100001")
    known = [o for o in organizations if o["erpId"] in identifiers]
    assert len(known) >= 30
    assert any(identifiers[o["erpId"]]["name"] != o["name"] for o in known)


def test_the_mapping_leaves_out_and_excludes_what_it_should(whole: Any) -> None:
    mapped = whole.store.get("mappings")
    states = {row["organization_id"]: row["state"] for row in mapped["organizations"]}
    assert organization("no_company") not in states
    assert [key for key, state in states.items() if state == "excluded"] == [organization("internal_use")]
    assert set(OFFERS) - {row["offer_id"] for row in mapped["offers"]} == {"OF-1901"}
    products = whole.store.records("product")
    mapped_products = [products[row["product_id"]] for row in mapped["offers"]]
    assert sum(product["inactiveFlag"] for product in mapped_products) == 1
    assert sum(product["productClass"] == "Bundle" for product in mapped_products) == 1


def test_hand_made_additions_are_there_without_marker(whole: Any) -> None:
    types = {a["id"]: a["type"]["name"] for a in whole.agreements()}
    made = whole.additions()
    assert {addition["marker"] for addition in made} == {None}
    assert {types[addition["agreementId"]] for addition in made} == {"Managed Services", "Cloud Subscriptions"}
    assert all(addition["extPrice"] > 0 for addition in made)


@pytest.fixture(scope="module")
def undeliverable() -> set[str]:
    """Organizations none of whose lines can be delivered as they are."""
    roles = "no_company two_agreements no_agreement prorating_agreement expired_agreement other_currency internal_use"
    return {organization(role) for role in roles.split()}


def test_the_large_majority_of_the_money_can_be_delivered(lines: list[dict[str, Any]], undeliverable: set[str]) -> None:
    held = sum(
        abs(line["totalPrice"])
        for line in lines
        if line["consumerOrganizationId"] in undeliverable
        or line["offerId"] in (None, "OF-1901", "OF-1902", "OF-1903")
        or line["chargeType"] == "TransferFee"
    )
    assert held / sum(abs(line["totalPrice"]) for line in lines) < Decimal("0.1")
