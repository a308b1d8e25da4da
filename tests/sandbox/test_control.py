"""Journal, request log, changes as a person, truth, mapping files: over HTTP, as a checker uses them."""

import csv
import io
from decimal import Decimal
from typing import Any

import pytest


def test_the_journal_tells_every_change_in_order(control: Any, cw: Any, path: str, addition: Any) -> None:
    start = control.get("/health")["journal"]
    made = cw.post(path, addition)
    changed = cw.patch(f"{path}/{made['id']}", ("billCustomer", "Billable"))
    cw("DELETE", f"{path}/{made['id']}")
    entries = control.get("/journal", since=start)
    assert [entry["operation"] for entry in entries] == ["addition.create", "addition.update", "addition.delete"]
    assert [entry["seq"] for entry in entries] == [start + 1, start + 2, start + 3]
    assert {(e["by"], e["agreement_id"], e["addition_id"], e["marker"]) for e in entries} == {
        ("api", made["agreementId"], made["id"], "demo:line:1")
    }
    assert [e["at"] for e in entries] == sorted(e["at"] for e in entries)
    assert (entries[0]["before"], entries[2]["after"]) == (None, None)
    assert entries[1]["before"]["billCustomer"] == "DoNotBill"
    assert entries[1]["after"]["billCustomer"] == changed["billCustomer"] == "Billable"
    assert control.get("/journal", marker="demo:line:1", operation="addition.update") == [entries[1]]
    assert control.get("/journal", addition_id=1) == []


def test_writes_are_counted_by_what_became_of_them(
    sandbox: Any, control: Any, cw: Any, path: str, addition: Any
) -> None:
    since = control.get("/health")["requests"]
    made = cw.post(path, addition)
    cw.patch(f"{path}/{made['id']}", ("quantity", 3))  # changes nothing
    cw.post(path, {}, expect=400)
    sandbox.add_fault("status", method="POST", count=1)
    cw.post(path, addition, expect=500)
    cw.get(path)
    assert control.get("/journal/writes", since=since) == {
        "received": 4,
        "applied": 2,
        "refused": 1,
        "not_applied": 1,
        "pending": 0,
        "changes": 1,
        "methods": {"PATCH": 1, "POST": 3},
    }


def test_the_request_log_holds_no_query_and_no_key(sandbox: Any, control: Any, cw: Any, appxite: Any) -> None:
    appxite.get("/contracts/100001")
    cw.get("/company/companies", conditions='name = "secret"')
    log = control.get("/requests")
    assert [(e["service"], e["method"], e["status"], e["outcome"]) for e in log] == [
        ("appxite", "GET", 200, "answered"),
        ("connectwise", "GET", 200, "answered"),
    ]
    assert control.get("/requests?path=contracts", service="appxite") == log[:1]
    sandbox.add_fault("late", method="POST", params={"delay": None})
    with pytest.raises(OSError):
        cw("POST", "/finance/agreements/1001/additions", {}, clientId="from-the-query")
    files = b"".join(file.read_bytes() for file in sandbox.store.directory.iterdir())
    for secret in (b"demo-sas-key", b"demo-private-key", b"ZGVtbytkZW1v", b"from-the-query", b"secret"):
        assert secret not in files


@pytest.mark.parametrize(
    ("changes", "marker"),
    [
        ({}, "demo:line:1"),
        ({"customFields": [], "serialNumber": "S-1"}, "S-1"),
        ({"customFields": [], "invoiceDescription": "Mail, CycleFee [demo:line:9]"}, "demo:line:9"),
        ({"customFields": []}, None),
    ],
)
def test_three_places_can_carry_a_marker(
    sandbox: Any, cw: Any, path: str, addition: Any, changes: Any, marker: Any
) -> None:
    cw.post(path, {**addition, **changes})
    assert sandbox.journal()[-1]["marker"] == marker


def test_changes_as_a_person(sandbox: Any, control: Any, cw: Any, path: str, addition: Any) -> None:
    made = cw.post(path, addition)
    start = sandbox.health()["journal"]
    changed = control.patch_json(
        f"/connectwise/additions/{made['id']}", {"unitPrice": Decimal("9.99"), "cancelledDate": None}
    )
    assert (changed["extPrice"], changed["_info"]["updatedBy"]) == (Decimal("29.97"), "finance.user")
    control.patch_json("/connectwise/companies/201", {"deletedFlag": True})
    assert cw.get("/company/companies/201")["deletedFlag"] is True
    control.patch_json("/connectwise/catalog/501", {"inactiveFlag": True})
    cw.post(path, addition, expect=400)
    agreement_path = path.removeprefix("/finance").removesuffix("/additions")
    assert control.patch_json("/connectwise" + agreement_path, {"prorateFlag": True})["prorateFlag"] is True
    control.post(f"/connectwise{agreement_path}/additions", addition, expect=200)
    assert control("DELETE", f"/connectwise/additions/{made['id']}").status_code == 204
    assert {entry["by"] for entry in sandbox.journal(since=start)} == {"person"}
    assert len(control.get("/connectwise/additions", agreement_id=made["agreementId"])) == 1


def test_appxite_changes_over_http(control: Any) -> None:
    first = control.get("/truth")[0]
    one = f"/appxite/invoices/{first['invoiceId']}"
    line = control.get(one)["rows"][0]["line"]
    assert control.patch_json(f"/appxite/rows/{line}", {"totalPrice": Decimal("7.77")})["row"]["totalPrice"] == Decimal(
        "7.77"
    )
    assert control.patch_json(one, {"status": "New Corrected"})["header"]["statusId"] == 6
    assert first["invoiceId"] not in {i["invoiceId"] for i in control.get("/truth")}
    assert first["invoiceId"] in {i["invoiceId"] for i in control.get("/truth", statuses="New Corrected,New")}
    assert control.post(one + "/show", {"visibility": "hidden"}, expect=200)["visibility"] == "hidden"
    assert control.post(one + "/show", {}, expect=200)["visibility"] == "published"
    stored = control.get(one)
    again = {"header": stored["header"], "rows": [stored["rows"][0]["row"]]}
    assert len(control.post("/appxite/invoices", again, expect=200)["rows"]) == 1
    added = control.post(one + "/rows", stored["rows"][0]["row"], expect=200)
    assert control("DELETE", f"/appxite/rows/{added['line']}").status_code == 204
    assert control("DELETE", one).status_code == 204
    control.get(one, expect=404)


def test_settings_over_http(control: Any) -> None:
    assert control.get("/settings")["requests_per_minute"] == 1000
    assert control.patch_json("/settings", {"requests_per_minute": 50})["requests_per_minute"] == 50
    assert control("PATCH", "/settings", {"nonsense": 1}).status_code == 400


def test_mapping_files(sandbox: Any, control: Any, cw: Any) -> None:
    organizations = list(csv.DictReader(io.StringIO(control("GET", "/mappings/organizations.csv").text)))
    assert list(organizations[0]) == ["organization_id", "organization_name", "company_id", "company_name", "state"]
    for row in organizations:
        assert cw.get(f"/company/companies/{row['company_id']}")["name"] == row["company_name"]
    offers = list(csv.DictReader(io.StringIO(control("GET", "/mappings/offers.csv").text)))
    assert list(offers[0]) == ["offer_id", "offer_name", "product_id", "product_identifier", "state"]
    for row in offers:
        assert cw.get(f"/procurement/catalog/{row['product_id']}")["identifier"] == row["product_identifier"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nothing", None, 404),
        ("POST", "/health", {}, 405),
        ("GET", "/journal?nonsense=1", None, 400),
        ("GET", "/journal?since=x", None, 400),
        ("POST", "/invoicing", [1], 400),
        ("POST", "/faults", b"{", 400),
        ("PATCH", "/connectwise/additions/1", {"quantity": 1}, 404),
        ("PATCH", "/connectwise/companies/201", {"name": "x" * 51}, 400),
    ],
)
def test_a_mistake_is_answered_with_a_reason(control: Any, method: str, path: str, body: Any, status: int) -> None:
    answer = control(method, path, body)
    assert (answer.status_code, bool(answer.json()["message"])) == (status, True)
