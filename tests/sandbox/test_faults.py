"""Each kind of fault: what the client sees, and what was applied all the same."""

import contextlib
import time
from typing import Any

import pytest
import requests

WRITE = {"service": "connectwise", "method": "POST", "path": "/additions$"}
BROKEN = (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)


def settle(condition: Any, seconds: float = 5) -> None:
    """Wait until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 502])
def test_a_status_instead_of_applying(sandbox: Any, cw: Any, path: str, addition: Any, status: int) -> None:
    sandbox.add_fault("status", **WRITE, count=1, params={"status": status, "headers": {"X-Test": "yes"}})
    answer = cw("POST", path, addition)
    assert (answer.status_code, answer.headers["X-Test"]) == (status, "yes")
    assert ("Retry-After" in answer.headers) == (status == 429)
    assert sandbox.journal(by="api") == []
    assert sandbox.writes()["not_applied"] == 1
    cw.post(path, addition)


@pytest.mark.parametrize("body", ["upstream timeout", {"code": "InvalidObject", "message": "x", "errors": []}])
def test_a_status_with_a_body_of_choice(sandbox: Any, appxite: Any, body: Any) -> None:
    sandbox.add_fault("status", service="appxite", params={"status": 503, "body": body})
    answer = appxite("GET", "/contracts/100001")
    assert (answer.json() if isinstance(body, dict) else answer.text) == body


def test_a_500_after_applying(sandbox: Any, cw: Any, path: str, addition: Any) -> None:
    sandbox.add_fault("status_after", **WRITE, count=1)
    assert cw("POST", path, addition).status_code == 500
    assert len(sandbox.additions(marker="demo:line:1")) == 1
    log = sandbox.requests(method="POST")[0]
    assert (log["status"], log["fault"], log["outcome"]) == (500, "status_after", "applied")


@pytest.mark.parametrize("params", [{}, {"reset": True}])
def test_a_reply_lost_after_applying(sandbox: Any, cw: Any, path: str, addition: Any, params: Any) -> None:
    sandbox.add_fault("lost_reply", **WRITE, count=1, params=params)
    with pytest.raises(BROKEN):
        cw("POST", path, addition)
    assert len(cw.get(path)) == 1
    assert sandbox.requests(method="POST")[0]["status"] is None


def test_a_reset_before_applying(sandbox: Any, cw: Any, path: str, addition: Any) -> None:
    sandbox.add_fault("reset", **WRITE, count=1)
    with pytest.raises(BROKEN, match="reset"):
        cw("POST", path, addition)
    assert cw.get(path) == []
    cw.post(path, addition)


def test_applied_late_after_the_connection_was_dropped(sandbox: Any, cw: Any, path: str, addition: Any) -> None:
    sandbox.add_fault("late", **WRITE, count=1, params={"delay": 0.2})
    with pytest.raises(BROKEN):
        cw("POST", path, addition)
    assert cw.get(path) == []
    assert sandbox.writes()["pending"] == 1
    settle(lambda: sandbox.writes()["applied"] == 1)
    assert len(cw.get(path)) == 1
    assert sandbox.journal()[-1]["by"] == "late"
    assert sandbox.health()["pending"] == 0


def test_applied_late_while_the_client_hangs(sandbox: Any, cw: Any, path: str, addition: Any) -> None:
    sandbox.add_fault("late", **WRITE, count=1, params={"delay": 0.05, "connection": "hang", "hang": 20})
    with pytest.raises(requests.ReadTimeout):
        requests.post(
            cw.base + path, json=addition, auth=cw.session.auth, headers=dict(cw.session.headers), timeout=0.3
        )
    settle(lambda: len(sandbox.additions(marker="demo:line:1")) == 1)


def test_applied_late_when_the_test_says_so(sandbox: Any, control: Any, cw: Any, path: str, addition: Any) -> None:
    sandbox.add_fault("late", **WRITE, count=1, params={"delay": None})
    with pytest.raises(BROKEN):
        cw("POST", path, addition)
    assert [one["due"] for one in control.get("/late")] == [None]
    cw.post(path, addition)  # the caller looked, found nothing, and tried again
    assert [one["status"] for one in control.post("/late/release", {}, expect=200)] == [201]
    assert len(cw.get(path)) == 2
    assert control.get("/late") == []


def test_a_late_request_is_validated_when_it_is_applied(sandbox: Any, cw: Any, path: str, addition: Any) -> None:
    sandbox.add_fault("late", **WRITE, count=1, params={"delay": None})
    with pytest.raises(BROKEN):
        cw("POST", path, {**addition, "product": {"id": 1}})
    assert [one["status"] for one in sandbox.release_late()] == [400]
    assert sandbox.writes()["refused"] == 1


def test_bad_keys_are_refused_before_a_fault_applies_anything(sandbox: Any, cw: Any, path: str, addition: Any) -> None:
    sandbox.add_fault("late", **WRITE)
    cw.session.auth = None
    assert cw("POST", path, addition).status_code == 401
    assert sandbox.late() == []


def test_a_stale_list_misses_what_is_new(sandbox: Any, cw: Any, path: str, addition: Any) -> None:
    old = cw.post(path, addition)
    time.sleep(0.25)
    new = cw.post(path, addition)
    cw.patch(f"{path}/{old['id']}", ("quantity", 9))
    rule = sandbox.add_fault("stale", service="connectwise", method="GET", path="/additions$", params={"age": 0.2})
    assert [(a["id"], a["quantity"]) for a in cw.get(path)] == [(old["id"], 3)]
    sandbox.clear_faults(rule["id"])
    sandbox.add_fault("stale", method="GET", path="/additions$", params={"age": 0.2, "hide_only": True})
    assert [(a["id"], a["quantity"]) for a in cw.get(path)] == [(old["id"], 9)]
    assert cw.get(f"{path}/{new['id']}") == new
    time.sleep(0.25)
    assert [a["id"] for a in cw.get(path)] == [old["id"], new["id"]]


def test_a_deleted_addition_is_still_in_a_stale_list(sandbox: Any, cw: Any, path: str, addition: Any) -> None:
    made = cw.post(path, addition)
    time.sleep(0.05)
    sandbox.delete_addition(made["id"])
    sandbox.add_fault("stale", path="/additions$", params={"age": 0.03}, count=1)
    assert cw.get(path) == [made]
    assert cw.get(path) == []


def an_agreement(cw: Any, name: str) -> dict[str, Any]:
    """The body of a new agreement of the company that has the first one."""
    known = cw.get("/finance/agreements/1001")
    ids = {field: {"id": known[field]["id"]} for field in ("type", "company", "contact")}
    return {"name": name, **ids, "internalNotes": f"Mark: {name}"}


@pytest.mark.parametrize(
    ("kind", "params", "is_applied"),
    [
        ("lost_reply", {}, True),
        ("status_after", {"status": 500}, True),
        ("status", {"status": 400}, False),
        ("reset", {}, False),
        ("late", {"delay": None}, False),
    ],
)
def test_a_new_agreement_meets_the_same_faults(
    sandbox: Any, cw: Any, kind: str, params: dict[str, Any], is_applied: bool
) -> None:
    body = an_agreement(cw, kind)
    sandbox.add_fault(kind, method="POST", path="/finance/agreements$", params=params, count=1)
    with contextlib.suppress(*BROKEN):
        assert cw("POST", "/finance/agreements", body).status_code >= 400

    def standing() -> list[str]:
        conditions = f"company/id = {body['company']['id']}"
        listed = cw.get("/finance/agreements", conditions=conditions, pageSize=1000)
        return [one["internalNotes"] for one in listed if one["name"] == kind]

    assert standing() == [f"Mark: {kind}"] * is_applied
    sandbox.release_late()
    assert len(standing()) == (is_applied or kind == "late")


def test_a_stale_list_of_agreements_misses_the_new_one(sandbox: Any, cw: Any) -> None:
    before = cw.get("/finance/agreements/count")["count"]
    made = cw.post("/finance/agreements", an_agreement(cw, "new"))
    sandbox.add_fault("stale", method="GET", path="/finance/agreements$", params={"age": 60}, count=1)
    assert len(cw.get("/finance/agreements", pageSize=1000)) == before
    assert made in cw.get("/finance/agreements", pageSize=1000)


def test_a_truncated_page(sandbox: Any, appxite: Any) -> None:
    sandbox.add_fault("truncated", service="appxite", path="invoice-rows", count=1)
    with pytest.raises(BROKEN):
        appxite.get("/invoices/invoice-rows/100001")
    assert appxite.get("/invoices/invoice-rows/100001")


def test_invalid_json(sandbox: Any, appxite: Any) -> None:
    sandbox.add_fault("invalid_json", service="appxite", count=1)
    answer = appxite("GET", "/invoices/invoice-rows/100001")
    assert answer.status_code == 200
    with pytest.raises(ValueError):
        answer.json()


@pytest.mark.parametrize(
    "rule", [{"kind": "delay", "params": {"seconds": 0.3}}, {"kind": "slow_body", "params": {"seconds": 0.3}}]
)
def test_slow_answers_are_whole(sandbox: Any, appxite: Any, rule: Any) -> None:
    quick = appxite.get("/invoices/invoice-rows/100001")
    sandbox.add_fault(service="appxite", **rule)
    started = time.monotonic()
    assert appxite.get("/invoices/invoice-rows/100001") == quick
    assert time.monotonic() - started >= 0.3


def test_rules_choose_by_count_every_skip_and_body(sandbox: Any, cw: Any, path: str, addition: Any) -> None:
    def statuses(n: int) -> list[int]:
        return [cw("POST", path, addition).status_code for _ in range(n)]

    sandbox.add_fault("status", **WRITE, skip=1, every=3, count=2)
    assert statuses(9) == [201, 500, 201, 201, 500, 201, 201, 201, 201]
    sandbox.clear_faults()
    sandbox.add_fault("status", **WRITE, body="demo:line:2")
    assert statuses(1) == [201]
    addition["customFields"][0]["value"] = "demo:line:2"
    assert statuses(1) == [500]
    assert sandbox.faults()[0]["hits"] == 1


def test_chance_is_seeded(sandbox: Any, cw: Any) -> None:
    def run(seed: int) -> list[int]:
        sandbox.clear_faults()
        sandbox.add_fault("status", service="connectwise", probability=0.35, seed=seed)
        return [cw("GET", "/system/info").status_code for _ in range(40)]

    first = run(1)
    assert run(1) == first != run(2)
    assert 5 <= first.count(500) <= 25


def test_rules_over_http(control: Any, cw: Any) -> None:
    rule = control.post("/faults", {"kind": "status", "service": "connectwise", "params": {"status": 502}}, expect=200)
    cw.get("/system/info", expect=502)
    assert [r["hits"] for r in control.get("/faults")] == [1]
    assert control("DELETE", f"/faults/{rule['id']}").status_code == 204
    cw.get("/system/info")
    control.post("/faults", {"kind": "status"}, expect=200)
    assert control("DELETE", "/faults").status_code == 204
    assert control.get("/faults") == []
    for bad in ({"kind": "nonsense"}, {"kind": "status", "nonsense": 1}, {"kind": "status", "path": "("}, {}):
        assert control.post("/faults", bad, expect=400)["message"]


def test_faults_never_touch_the_control_api(sandbox: Any, control: Any) -> None:
    sandbox.add_fault("reset")
    assert control.get("/health")["status"] == "ok"
