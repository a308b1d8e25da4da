"""The ConnectWise half: keys, pages, Additions with their traps, agreements, both error shapes."""

from decimal import Decimal
from typing import Any

import pytest
import requests

COMPUTED = {"billedQuantity", "extPrice", "extCost", "margin", "description", "uom", "agreementId", "sequenceNumber"}


# -- who may ask ------------------------------------------------------------------------------------------------------


def test_keys_and_client_id_are_required(sandbox: Any, cw: Any) -> None:
    path = "/system/info"
    assert cw.get(path)["isCloud"] is True
    cw.session.auth = ("demo+demo-public-key", "wrong")
    assert cw.get(path, expect=401)["code"] == "Unauthorized"
    sandbox.change_settings(bad_keys_status=404)
    cw.get(path, expect=404)
    cw.session.auth = None
    cw.get(path, expect=404)


@pytest.mark.parametrize("value", [None, "11111111-0000-4000-8000-000000000001"])
def test_a_missing_or_unknown_client_id_is_a_403(whole_cw: Any, value: str | None) -> None:
    assert whole_cw("GET", "/system/info", headers={"clientId": value}).status_code == 403


def test_company_info_needs_no_login_and_is_null_for_a_stranger(whole: Any) -> None:
    info = requests.get(f"{whole.url}/login/companyinfo/demo", timeout=5).json()
    assert info["CompanyID"] == "demo"
    assert f"{whole.url}/{info['Codebase']}apis/3.0" == f"{whole.url}/v4_6_release/apis/3.0"
    stranger = requests.get(f"{whole.url}/login/companyinfo/stranger", timeout=5)
    assert (stranger.status_code, stranger.text) == (200, "null")


def test_the_version_in_accept_is_honoured(whole_cw: Any) -> None:
    pinned = whole_cw("GET", "/system/info", headers={"Accept": "application/vnd.connectwise.com+json; version=2024.1"})
    assert "version=2024.1" in pinned.headers["Content-Type"]
    plain = whole_cw("GET", "/system/info")
    assert plain.headers["Content-Type"].startswith("application/json")
    for bad in ("version=2099.1", "version=latest"):
        answer = whole_cw("GET", "/system/info", headers={"Accept": f"application/vnd.connectwise.com+json; {bad}"})
        assert answer.status_code == 400


def test_too_many_requests_are_a_429_with_retry_after(sandbox: Any, cw: Any) -> None:
    sandbox.change_settings(requests_per_minute=3)
    answers = [cw("GET", "/system/info") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
    assert answers[-1].json()["error"] == "ConnectWiseAPI"
    sandbox.change_settings(requests_per_minute=1000)
    cw.get("/system/info")


# -- lists ------------------------------------------------------------------------------------------------------------


def linked(client: Any, path: str, headers: Any = None, **query: Any) -> list[dict[str, Any]]:
    """Every record, by following `next` until there is none."""
    response = client("GET", path, headers=headers, **query)
    records = client.expect(response, 200)
    while "next" in response.links:
        response = client("GET", response.links["next"]["url"], headers=headers)
        records += client.expect(response, 200)
    return records


@pytest.mark.parametrize("size", [1, 3, 20, 23, 1000, None])
@pytest.mark.parametrize("path", ["/company/companies", "/finance/agreements", "/procurement/catalog"])
def test_every_page_size_and_both_ways_of_paging_give_the_same_set(whole_cw: Any, path: str, size: int | None) -> None:
    query = {"pageSize": size} if size else {}
    count = whole_cw.get(path + "/count")["count"]
    numbered = linked(whole_cw, path, **query)
    forward = linked(whole_cw, path, {"pagination-type": "forward-only"}, **query)
    assert len({record["id"] for record in numbered}) == len(numbered) == count
    assert numbered == forward


def test_the_page_size_defaults_to_25_and_is_capped_at_1000(sandbox: Any, cw: Any, path: str) -> None:
    for n in range(30):
        sandbox.add_addition(
            int(path.split("/")[3]), {"product": {"id": 501}, "billCustomer": "DoNotBill", "quantity": n}
        )
    assert len(cw.get(path)) == 25
    assert len(cw.get(path, PAGESIZE=5000)) == 30


def test_the_next_link_keeps_conditions_and_never_carries_a_key(whole_cw: Any) -> None:
    conditions = 'type/name = "Cloud Subscriptions" and agreementStatus = "Active"'
    response = whole_cw("GET", "/finance/agreements", Conditions=conditions, pageSize=2, clientId="x")
    assert "clientid" not in response.links["next"]["url"].lower()
    rows = linked(whole_cw, "/finance/agreements", conditions=conditions, pageSize=2)
    assert {row["type"]["name"] for row in rows} == {"Cloud Subscriptions"}
    assert len(rows) == whole_cw.get("/finance/agreements/count", conditions=conditions)["count"]


def test_forward_only_refuses_an_order(whole_cw: Any) -> None:
    headers = {"pagination-type": "forward-only"}
    assert whole_cw("GET", "/company/companies", headers=headers, orderBy="name").status_code == 400


@pytest.mark.parametrize(
    "query", [{"conditions": "name = Acme"}, {"conditions": "nothing = 5"}, {"page": "0"}, {"orderBy": "nothing"}]
)
def test_a_bad_query_is_a_400_of_the_plain_shape(whole_cw: Any, query: dict[str, str]) -> None:
    assert set(whole_cw.get("/company/companies", expect=400, **query)) == {"error", "message"}


def test_fields_are_picked(whole_cw: Any) -> None:
    one = whole_cw.get("/finance/agreements", fields="ID,company/identifier,type/name", pageSize=1)[0]
    assert one == {"id": 1001, "company": {"identifier": "Acme"}, "type": {"name": "Cloud Subscriptions"}}


def test_records_are_ordered(whole_cw: Any) -> None:
    names = [c["name"].casefold() for c in whole_cw.get("/company/companies", orderBy="name desc", pageSize=1000)]
    assert names == sorted(names, reverse=True)


@pytest.mark.parametrize(("setting", "seen"), [("mixed", {"", "absent"}), ("absent", {"absent"}), ("empty", {""})])
def test_unset_dates_are_absent_or_empty(sandbox: Any, cw: Any, setting: str, seen: set[str]) -> None:
    sandbox.change_settings(unset_dates=setting)
    agreements = cw.get("/finance/agreements", pageSize=1000, conditions="noEndingDateFlag = true")
    assert {a.get("endDate", "absent") for a in agreements} == seen


@pytest.mark.parametrize(
    "path",
    [
        "/finance/billingCycles",
        "/finance/currencies",
        "/finance/agreements/types",
        "/system/userDefinedFields",
        "/procurement/catalog/501",
        "/company/companies/201",
        "/finance/agreements/1001",
        "/finance/agreements/types/1",
    ],
)
def test_other_resources_answer(whole_cw: Any, path: str) -> None:
    assert whole_cw.get(path)
    assert whole_cw("POST", path, {}).status_code in (405, 404)


def test_what_is_not_there_is_a_404(whole_cw: Any) -> None:
    for path in (
        "/company/companies/1",
        "/finance/agreements/1/additions",
        "/finance/nothing",
        "/finance/agreements/1",
    ):
        assert whole_cw.get(path, expect=404)["code"] == "NotFound"


# -- Additions: create ------------------------------------------------------------------------------------------------


def test_a_new_addition_comes_back_whole_with_computed_fields(cw: Any, path: str, addition: dict[str, Any]) -> None:
    body = {**addition, "quantity": 5, "lessIncluded": 2, "unitPrice": Decimal("5.2456"), "extPrice": 99, "nonsense": 1}
    made = cw.post(path, body)
    assert set(made) >= COMPUTED
    assert made["billedQuantity"] == 3
    assert made["extPrice"] == Decimal("15.74")
    assert made["margin"] == made["extPrice"] - made["extCost"]
    assert (made["description"], made["uom"]) == ("Mail Essentials", "Each")
    assert made["effectiveDate"] == "2026-10-01T00:00:00Z"
    assert made["product"]["identifier"] == "MAIL-ESS-M"
    assert [f.get("value") for f in made["customFields"]] == ["demo:line:1", None]
    assert cw.get(f"{path}/{made['id']}") == made
    assert cw.get(path) == [made]


def test_defaults_come_from_the_product(cw: Any, path: str) -> None:
    made = cw.post(path, {"product": {"id": 501}, "billCustomer": "NoCharge"})
    assert (made["quantity"], made["unitPrice"], made["unitCost"]) == (1, Decimal("4.20"), Decimal("3.44"))
    assert made["invoiceDescription"] == "Mail Essentials"


def test_digits_of_quantity_and_price_are_kept(sandbox: Any, cw: Any, path: str, addition: dict[str, Any]) -> None:
    exact = {"quantity": Decimal("123456.1234567891"), "unitPrice": Decimal("0.0000000017")}
    made = cw.post(path, {**addition, **exact})
    assert (made["quantity"], made["unitPrice"]) == tuple(exact.values())
    sandbox.change_settings(unit_price_decimals=4)
    assert cw.post(path, {**addition, "unitPrice": Decimal("5.24565")})["unitPrice"] == Decimal("5.2457")


def test_a_newline_becomes_a_space(cw: Any, path: str, addition: dict[str, Any]) -> None:
    made = cw.post(path, {**addition, "invoiceDescription": "one\r\ntwo\nthree\rfour"})
    assert made["invoiceDescription"] == "one two three four"


def test_duplicates_are_accepted(cw: Any, path: str, addition: dict[str, Any]) -> None:
    first, second = cw.post(path, addition), cw.post(path, addition)
    assert first["id"] != second["id"]
    assert cw.get(path + "/count")["count"] == 2


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"product": None}, "product"),
        ({"product": {"id": 99999}}, "product"),
        ({"product": {"identifier": "MAIL-ESS-M"}}, "product"),
        ({"product": {"id": 525}}, "product"),  # a bundle
        ({"product": {"id": 526}}, "product"),  # inactive
        ({"billCustomer": None}, "billCustomer"),
        ({"billCustomer": "billable"}, "billCustomer"),
        ({"quantity": "3"}, "quantity"),
        ({"unitPrice": True}, "unitPrice"),
        ({"serialNumber": "x" * 51}, "serialNumber"),
        ({"invoiceDescription": "x" * 6001}, "invoiceDescription"),
        ({"effectiveDate": "01.10.2026"}, "effectiveDate"),
        ({"effectiveDate": "2020-01-01T00:00:00Z"}, "effectiveDate"),  # before billStartDate
        ({"effectiveDate": "2026-09-30T00:00:00Z"}, "effectiveDate"),  # already invoiced
        ({"cancelledDate": "2026-09-30T00:00:00Z"}, "cancelledDate"),
        ({"customFields": [{"id": 99, "value": "x"}]}, "customFields"),
        ({"customFields": [{"caption": "Sync Key", "value": "x"}]}, "customFields"),
        ({"customFields": [{"id": 11, "value": 5}]}, "customFields"),
    ],
)
def test_a_bad_addition_is_a_400_of_the_validation_shape(
    sandbox: Any, cw: Any, path: str, addition: dict[str, Any], changes: dict[str, Any], field: str
) -> None:
    answer = cw.post(path, {**addition, **changes}, expect=400)
    assert answer["code"] == "InvalidObject"
    assert field in {error["field"] for error in answer["errors"]}
    assert all(set(error) == {"code", "message", "resource", "field"} for error in answer["errors"])
    assert sandbox.journal(by="api") == []


def test_the_longest_texts_are_accepted(cw: Any, path: str, addition: dict[str, Any]) -> None:
    cw.post(path, {**addition, "serialNumber": "x" * 50, "invoiceDescription": "x" * 6000})


@pytest.mark.parametrize("body", [b"", b"[]", b'{"quantity": NaN}', b'{"quantity": 1e400}', b"{", b"\xff"])
def test_a_body_that_is_no_json_object_is_a_400_of_the_plain_shape(cw: Any, path: str, body: bytes) -> None:
    assert set(cw.expect(cw("POST", path, body), 400)) == {"error", "message"}


def test_an_invoiced_period_may_be_prorated(sandbox: Any, cw: Any, path: str, addition: dict[str, Any]) -> None:
    sandbox.change_record("agreements", int(path.split("/")[3]), {"prorateFlag": True})
    made = cw.post(path, {**addition, "effectiveDate": "2026-09-16T00:00:00Z"})
    assert made["proratePrice"] == Decimal("2.00")  # 15 of 30 days of 4.00
    assert made["extendedProratePrice"] == Decimal("6.00")


def test_an_ended_agreement_takes_no_new_addition_unless_told_so(
    sandbox: Any, cw: Any, path: str, addition: Any
) -> None:
    made = cw.post(path, addition)
    sandbox.change_record("agreements", int(path.split("/")[3]), {"cancelledFlag": True})
    assert cw.get(f"{path}/{made['id']}")["agreementStatus"] == "Cancelled"
    cw.post(path, addition, expect=400)
    sandbox.change_settings(allow_ended_agreements=True)
    cw.post(path, addition)


# -- Additions: change ------------------------------------------------------------------------------------------------


def test_a_patch_changes_named_fields_and_recomputes(cw: Any, path: str, addition: dict[str, Any]) -> None:
    made = cw.post(path, addition)
    changed = cw.patch(
        f"{path}/{made['id']}", ("billCustomer", "Billable"), ("unitPrice", Decimal("1.005")), ("Quantity", 1)
    )
    assert (changed["billCustomer"], changed["extPrice"], changed["quantity"]) == ("Billable", Decimal("1.01"), 1)
    assert changed["customFields"] == made["customFields"]


def test_a_sub_path_is_a_false_200(sandbox: Any, cw: Any, path: str, addition: dict[str, Any]) -> None:
    made = cw.post(path, addition)
    before = sandbox.journal()[-1]["seq"]
    assert (
        cw.patch(f"{path}/{made['id']}", ("product/id", 502), ("customFields/0/value", "x"), ("/quantity", 9)) == made
    )
    assert sandbox.journal(since=before) == []


def test_objects_and_custom_fields_are_replaced_whole(cw: Any, path: str, addition: dict[str, Any]) -> None:
    made = cw.post(path, addition)
    changed = cw.patch(f"{path}/{made['id']}", ("customFields", [{"id": 12, "value": "R&D"}]))
    assert [f.get("value") for f in changed["customFields"]] == [None, "R&D"]
    assert cw.patch(f"{path}/{made['id']}", ("product", {"id": 502}))["description"] == "Mail Business"


def test_the_whole_stored_record_is_validated_again(sandbox: Any, cw: Any, path: str, addition: dict[str, Any]) -> None:
    made = cw.post(path, addition)
    sandbox.change_record("catalog", 501, {"inactiveFlag": True})
    answer = cw.patch(f"{path}/{made['id']}", ("quantity", 4), expect=400)
    assert answer["errors"][0]["field"] == "product"


def test_an_invoiced_addition_can_still_be_changed_but_not_moved(
    sandbox: Any, cw: Any, path: str, addition: dict[str, Any]
) -> None:
    made = cw.post(path, {**addition, "billCustomer": "Billable"})
    sandbox.invoice(int(path.split("/")[3]))
    cw.patch(f"{path}/{made['id']}", ("quantity", 4))
    cw.patch(f"{path}/{made['id']}", ("effectiveDate", "2026-10-02T00:00:00Z"), expect=400)
    sandbox.change_settings(revalidate_effective_date=True)
    cw.patch(f"{path}/{made['id']}", ("quantity", 5), expect=400)


def test_a_date_can_be_set_and_removed(cw: Any, path: str, addition: dict[str, Any]) -> None:
    one = f"{path}/{cw.post(path, addition)['id']}"
    assert cw.patch(one, ("cancelledDate", "2026-10-31T00:00:00Z"))["cancelledDate"] == "2026-10-31T00:00:00Z"
    removed = cw.expect(cw("PATCH", one, [{"op": "remove", "path": "cancelledDate"}]), 200)
    assert removed.get("cancelledDate", "") == ""


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"op":"replace","path":"quantity","value":1}',
        b"[5]",
        b'[{"op":"test","path":"quantity","value":1}]',
    ],
)
def test_a_patch_that_is_no_array_of_operations_is_refused(cw: Any, path: str, addition: Any, body: bytes) -> None:
    made = cw.post(path, addition)
    assert set(cw.expect(cw("PATCH", f"{path}/{made['id']}", body), 400)) == {"error", "message"}


def test_an_unknown_field_and_a_required_one_are_refused(cw: Any, path: str, addition: dict[str, Any]) -> None:
    one = f"{path}/{cw.post(path, addition)['id']}"
    assert cw.patch(one, ("nothing", 1), expect=400)["errors"][0]["field"] == "nothing"
    assert cw.expect(cw("PATCH", one, [{"op": "remove", "path": "product"}]), 400)["errors"][0]["field"] == "product"


def test_a_put_replaces_everything(cw: Any, path: str, addition: dict[str, Any]) -> None:
    one = f"{path}/{cw.post(path, addition)['id']}"
    replaced = cw.expect(cw("PUT", one, {"product": {"id": 501}, "billCustomer": "DoNotBill"}), 200)
    assert (replaced["quantity"], replaced.get("effectiveDate", "")) == (1, "")
    assert [f.get("value") for f in replaced["customFields"]] == [None, None]


def test_a_deleted_addition_is_gone_and_its_id_is_not_used_again(cw: Any, path: str, addition: dict[str, Any]) -> None:
    made = cw.post(path, addition)
    assert cw("DELETE", f"{path}/{made['id']}").status_code == 204
    cw.get(f"{path}/{made['id']}", expect=404)
    assert cw.post(path, addition)["id"] > made["id"]


def test_an_addition_answers_only_under_its_own_agreement(sandbox: Any, cw: Any, path: str, addition: Any) -> None:
    made = cw.post(path, addition)
    other = next(a for a in sandbox.agreements() if str(a["id"]) not in path)
    cw.get(f"/finance/agreements/{other['id']}/additions/{made['id']}", expect=404)


def test_additions_are_found_by_their_marker(cw: Any, path: str, addition: dict[str, Any]) -> None:
    made = cw.post(path, addition)
    cw.post(path, {**addition, "customFields": [], "serialNumber": "serial-1"})
    by_field = cw.get(path, customFieldConditions='caption = "Sync Key" and value = "demo:line:1"')
    assert [found["id"] for found in by_field] == [made["id"]]
    assert len(cw.get(path, conditions='serialNumber = "serial-1"')) == 1


# -- agreements -------------------------------------------------------------------------------------------------------


def test_a_new_agreement_inherits_from_its_type_and_company(sandbox: Any, cw: Any) -> None:
    body = {"name": "New", "type": {"id": 1}, "company": {"id": 201}, "contact": {"id": 10201}}
    made = cw.post("/finance/agreements", {**body, "startDate": "2026-10-05T00:00:00Z"})
    assert made["billingCycle"]["name"] == "Monthly"
    assert made["currency"]["currencyCode"] == "EUR"
    assert made["billStartDate"] == made["nextInvoiceDate"] == "2026-10-05T00:00:00Z"
    assert (made["agreementStatus"], made["prorateFlag"]) == ("Active", False)
    assert cw.get(f"/finance/agreements/{made['id']}") == made
    assert [entry["operation"] for entry in sandbox.journal()] == ["agreement.create"]
    for missing in body:
        answer = cw.post("/finance/agreements", {k: v for k, v in body.items() if k != missing}, expect=400)
        assert missing in {error["field"] for error in answer["errors"]}
    cw.post("/finance/agreements", {**body, "name": "x" * 101}, expect=400)


def test_an_agreement_can_be_patched_but_not_deleted(cw: Any) -> None:
    changed = cw.patch("/finance/agreements/1001", ("cancelledFlag", True), ("agreementStatus", "Expired"))
    assert changed["agreementStatus"] == "Cancelled"
    assert cw("DELETE", "/finance/agreements/1001").status_code == 403


def test_a_copied_agreement_carries_additions_and_markers(sandbox: Any, cw: Any, path: str, addition: Any) -> None:
    made = cw.post(path, addition)
    copy = sandbox.copy_agreement(int(path.split("/")[3]))
    twins = cw.get(f"/finance/agreements/{copy['id']}/additions")
    assert [twin["customFields"][0]["value"] for twin in twins] == ["demo:line:1"]
    assert twins[0]["id"] != made["id"]
    assert [e["agreement_id"] for e in sandbox.journal(marker="demo:line:1")] == [int(path.split("/")[3]), copy["id"]]
