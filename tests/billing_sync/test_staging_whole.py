"""What AppXite may do while it is read, or between two nights: over real HTTP, to the cent in ConnectWise."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from pipeline import NOV, OCT, PATIENCE, SEP, Pipeline, check, most_billable_at_once, one_time, recurring

from billing_sync.appxite import AppXite
from billing_sync.errors import BillingSyncError, ProofError, TemporaryError
from billing_sync.extract import extract_invoices
from billing_sync.http import Limits
from billing_sync.run import nightly_periods

ONCE = Limits(connect=5, read=5, attempts=1, first_wait=0.0)


def reads_by(pipeline: Pipeline, page_size: int) -> None:
    """Read AppXite in small pages."""
    keys = pipeline.sandbox.credentials
    pipeline.appxite = lambda: AppXite(  # type: ignore[method-assign]
        pipeline.sandbox.url, keys.requester_id, keys.sas_key, page_size=page_size, limits=PATIENCE
    )


def once(act: Callable[[], object], *, page: str) -> Callable[[Any], None]:
    """Do something at the first request for a page of October."""
    left = [act]

    def on_request(request: Any) -> None:
        if request.query["page"] == page and request.query["invoicedatefrom"] == OCT.isoformat() and left:
            left.pop()()

    return on_request


def rows_of(pipeline: Pipeline, invoice_id: int) -> list[Any]:
    return list(pipeline.sandbox.appxite_invoice(invoice_id)["rows"])


def total(pipeline: Pipeline, invoice_id: int) -> None:
    """Write the rows' sum into the header."""
    amount = sum((entry["row"]["totalPrice"] for entry in rows_of(pipeline, invoice_id)), Decimal(0))
    pipeline.sandbox.change_appxite_invoice(invoice_id, {"totalAmount": amount})


def nights_until_all_is_delivered(pipeline: Pipeline) -> list[str]:
    """Two nights; what the first one had to say. The second must be green."""
    try:
        pipeline.night(OCT)
        said = []
    except BillingSyncError as error:
        said = [f"{type(error).__name__}: {error}"]
    assert most_billable_at_once(pipeline.sandbox) <= 1
    pipeline.night(OCT)
    return said


# -- while it is read --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("feed", ["invoice-headers", "invoice-rows"])
@pytest.mark.parametrize("drift", ["inserted", "removed"])
def test_a_feed_that_moves_while_it_is_read_loses_and_doubles_nothing(
    pipeline: Pipeline, feed: str, drift: str
) -> None:
    first = pipeline.bill(OCT, *(one_time(f"a{n}", OCT, 1, f"{n}.00") for n in range(1, 5)), customer=0)
    invoices = [pipeline.bill(OCT, one_time(f"b{n}", OCT, 1, "7.00"), customer=n % 4) for n in range(5)]

    def move() -> None:
        if feed == "invoice-headers" and drift == "inserted":
            pipeline.bill(OCT, one_time("new", OCT, 1, "3.00"), customer=2, day=1)
        elif feed == "invoice-headers":
            pipeline.sandbox.delete_appxite_invoice(invoices[0])
        else:
            if drift == "inserted":
                row = {**rows_of(pipeline, first)[0]["row"], "rowId": "inserted"}
                pipeline.sandbox.add_appxite_row(first, row)
            else:
                pipeline.sandbox.delete_appxite_row(rows_of(pipeline, first)[0]["line"])
            total(pipeline, first)

    reads_by(pipeline, 2)
    page = {"inserted": "4", "removed": "2"}[drift] if feed == "invoice-rows" else "3"
    with pipeline.on_request("GET", feed, once(move, page=page)):
        said = nights_until_all_is_delivered(pipeline)

    if drift == "inserted":
        assert "came twice; the feed changed while being read" in said[0]
    elif feed == "invoice-headers":
        assert "have no header in their period" in said[0]
    else:
        assert not said
        assert "its rows do not give its total" in pipeline.warnings()
    check(pipeline.sandbox)


@pytest.mark.parametrize("feed", ["invoice-headers", "invoice-rows"])
def test_a_page_that_comes_twice_stages_nothing(pipeline: Pipeline, feed: str) -> None:
    for n in range(4):
        pipeline.bill(OCT, one_time(f"b{n}", OCT), customer=n)
    reads_by(pipeline, 2)
    answer = pipeline.sandbox.answer

    def repeated(request: Any) -> Any:
        if feed in request.path and request.query.get("page") == "2":
            request.query["page"] = "1"
        return answer(request)

    pipeline.sandbox.answer = repeated  # type: ignore[method-assign]
    before = pipeline.value("select count(*) from staging.invoice_header")
    with pytest.raises(TemporaryError, match=r"came twice|repeats the page before"):
        pipeline.night(OCT)
    assert pipeline.value("select count(*) from staging.invoice_header") == before
    del pipeline.sandbox.answer
    pipeline.night(OCT)
    check(pipeline.sandbox)


@pytest.mark.parametrize("feed", ["invoice-headers", "invoice-rows"])
@pytest.mark.parametrize("by", ["service", "proxy"])
def test_a_page_cut_at_any_byte_stages_nothing(pipeline: Pipeline, feed: str, by: str, stub: Any, reply: Any) -> None:
    """By the service: less comes than was announced. By a proxy that mends Content-Length: JSON that ends too soon."""
    pipeline.bill(OCT, one_time("a", OCT))
    run_id = pipeline.open("manual", [OCT])
    sandbox, keys = pipeline.sandbox, pipeline.sandbox.credentials
    whole: dict[str, bytes] = {}
    answer = sandbox.answer

    def remember(request: Any) -> Any:
        response, rule = answer(request)
        whole[f"{request.path.split('/')[-2]} {request.query['page']}"] = (response.text or "").encode()
        return response, rule

    sandbox.answer = remember  # type: ignore[method-assign]
    extract_invoices(pipeline.connection, pipeline.appxite(), run_id, OCT)
    del sandbox.answer
    page = whole[f"{feed} 1"]
    json.loads(page)
    pipeline.connection.execute("delete from staging.extract where run_id = %s", [run_id])
    cut_at = 0

    def cut(asked: Any) -> Any:
        body = whole.get(f"{asked.path.split('/')[-2]} {asked.query['page']}", b"[]")
        return reply(200, body[:cut_at] if feed in asked.path and asked.query["page"] == "1" else body)

    stub.answer = cut
    url = stub.url if by == "proxy" else sandbox.url
    client = AppXite(url, keys.requester_id, keys.sas_key, limits=ONCE)
    for cut_at in range(len(page)):
        if by == "service":
            sandbox.clear_faults()
            keep = (cut_at + 0.5) / len(page)
            sandbox.add_fault("truncated", service="appxite", path=feed, params={"keep": keep})
        with pytest.raises(TemporaryError, match="page 1"):
            extract_invoices(pipeline.connection, client, run_id, OCT)
    assert pipeline.value("select count(*) from staging.extract where run_id = %s", run_id) == 0


def test_a_status_that_changes_between_header_and_rows_bills_nothing_half(pipeline: Pipeline) -> None:
    opened = pipeline.bill(OCT, one_time("a", OCT, 1, "20.00"), customer=0)
    verified = pipeline.bill(OCT, one_time("b", OCT, 1, "8.00"), customer=1, status="New", statusId=0)
    pipeline.bill(OCT, one_time("c", OCT, 1, "5.00"), customer=2)

    def change() -> None:
        pipeline.sandbox.change_appxite_invoice(opened, {"status": "New Corrected"})
        line = rows_of(pipeline, opened)[0]["line"]
        pipeline.sandbox.change_appxite_row(line, {"unitPrice": Decimal("25.00"), "totalPrice": Decimal("25.00")})
        total(pipeline, opened)
        pipeline.sandbox.change_appxite_invoice(verified, {"status": "Verified"})

    with pipeline.on_request("GET", "invoice-rows", once(change, page="1")):
        _, proof = pipeline.night(OCT)
    assert (proof["delivered"], proof["held"]) == ("5.00", "20.00")
    assert "says 20.00, its rows give 25.00" in pipeline.held()["invoice_does_not_add_up"]
    pipeline.night(OCT)
    assert pipeline.held()["invoice_withdrawn"] == f"invoice T-{opened}: its status is New Corrected"
    assert len(pipeline.additions()) == 2
    pipeline.sandbox.change_appxite_invoice(opened, {"status": "Verified"})
    pipeline.night(OCT)
    assert pipeline.held() == {}
    check(pipeline.sandbox)


# -- between two nights ------------------------------------------------------------------------------------------------


def test_an_invoice_issued_again_with_another_amount_is_shown_to_a_person(pipeline: Pipeline) -> None:
    invoice_id = pipeline.bill(OCT, one_time("a", OCT, 1, "10.00"))
    pipeline.night(OCT)
    line = rows_of(pipeline, invoice_id)[0]["line"]
    pipeline.sandbox.change_appxite_row(line, {"unitPrice": Decimal("12.50"), "totalPrice": Decimal("12.50")})
    total(pipeline, invoice_id)
    counts, proof = pipeline.night(OCT)
    assert counts.writes == 0
    assert (proof["source"], proof["delivered"], proof["held"]) == ("12.50", "10.00", "2.50")
    assert pipeline.held() == {"changed_after_delivery": "difference 2.50 EUR"}
    assert pipeline.rows("select revision, total_price from billing.invoice_line order by 1") == [
        (1, Decimal("10.00")), (2, Decimal("2.50"))
    ]  # fmt: skip
    assert "line_changed_in_appxite: Line " in pipeline.warnings()
    assert "was delivered with 10.00 EUR, and AppXite says 12.50 now" in pipeline.warnings()
    pipeline.night(OCT)
    assert pipeline.warnings().count("line_changed_in_appxite") == 1
    assert pipeline.the_addition()["extPrice"] == Decimal("10.00")


@pytest.mark.parametrize("row_id", ["with", "without"])
@pytest.mark.parametrize("make", [one_time, recurring])
def test_two_equal_rows_of_one_invoice_are_both_billed(
    pipeline: Pipeline, row_id: str, make: Callable[..., dict[str, Any]]
) -> None:
    other = {} if row_id == "with" else {"rowId": None}
    pipeline.bill(OCT, make("a", OCT, 2, "4.20", **other), make("a", OCT, 2, "4.20", **other))
    pipeline.night(OCT)
    counts, proof = pipeline.night(OCT)
    assert counts.writes == 0
    assert proof["delivered"] == "16.80"
    check(pipeline.sandbox)


def test_an_invoice_that_vanishes_while_it_is_held_is_not_billed_by_the_cure(pipeline: Pipeline) -> None:
    pipeline.set(negative_additions="hold", credits="send")
    pipeline.bill(OCT, one_time("other", OCT, 1, "30.00"), customer=1)
    invoice_id = pipeline.bill(OCT, one_time("a", OCT, 1, "-5.00"))
    pipeline.night(OCT)
    invoice = pipeline.sandbox.appxite_invoice(invoice_id)
    pipeline.sandbox.delete_appxite_invoice(invoice_id)
    pipeline.set(negative_additions="send")
    _, proof = pipeline.night(OCT)
    gone = "AppXite does not list it in 2026-10 any more"
    assert pipeline.warnings().count(f"Invoice T-{invoice_id} of Acme Corp: {gone}. Its open lines wait") == 1
    assert pipeline.held() == {"invoice_withdrawn": f"invoice T-{invoice_id}: {gone}"}
    assert (proof["delivered"], proof["held"], proof["difference"]) == ("30.00", "-5.00", "0.00")
    check(pipeline.sandbox)
    # It comes back: nobody needs to do anything.
    pipeline.sandbox.add_appxite_invoice(invoice["header"], [entry["row"] for entry in invoice["rows"]])
    pipeline.night(OCT)
    assert pipeline.held() == {}


def test_a_delivered_invoice_that_vanishes_is_said_with_its_money_and_left_alone(pipeline: Pipeline) -> None:
    pipeline.bill(OCT, one_time("other", OCT), customer=1)
    invoice_id = pipeline.bill(OCT, one_time("a", OCT, 1, "5.00"))
    pipeline.night(OCT)
    pipeline.sandbox.delete_appxite_invoice(invoice_id)
    counts, _ = pipeline.night(OCT)
    assert counts.writes == 0
    assert "Its open lines wait; 5.00 EUR of it are delivered, and stay" in pipeline.warnings()
    assert [one["billCustomer"] for one in pipeline.additions()] == ["Billable", "Billable"]


def test_an_invoice_verified_months_later_is_read_with_a_longer_look_back(pipeline: Pipeline) -> None:
    for month in (SEP, OCT, NOV):
        pipeline.bill(month, one_time(f"other {month}", month), customer=1)
    late = pipeline.bill(SEP, one_time("late", SEP, 1, "9.99"), status="New", statusId=0)
    pipeline.night(OCT)
    assert "1 invoices of 2026-09 (9.99 EUR) are still New" in pipeline.warnings()
    pipeline.sandbox.change_appxite_invoice(late, {"status": "Verified"})
    pipeline.night(NOV)
    assert len(pipeline.additions()) == 3
    pipeline.finish(pipeline.plan("nightly", nightly_periods(NOV, 3)))
    check(pipeline.sandbox)


def test_rows_whose_header_vanished_turn_the_run_red_and_disturb_nobody(pipeline: Pipeline) -> None:
    gone = pipeline.bill(OCT, one_time("a", OCT, 1, "5.00"), customer=0)
    pipeline.bill(OCT, one_time("b", OCT, 1, "6.00"), customer=1)
    pipeline.sandbox.show_appxite_invoice(gone, "hidden")
    with (
        pipeline.on_request("GET", "invoice-rows", once(lambda: pipeline.sandbox.show_appxite_invoice(gone), page="1")),
        pytest.raises(ProofError, match=f"1 rows of invoice T-{gone} have no header"),
    ):
        pipeline.night(OCT)
    assert [one["extPrice"] for one in pipeline.additions()] == [Decimal("6.00")]
    pipeline.night(OCT)
    check(pipeline.sandbox)


@pytest.mark.parametrize("counts", ["the delivered line", "the new line"])
def test_an_invoice_issued_again_under_another_id_is_not_billed_beside_the_delivered_one(
    pipeline: Pipeline, counts: str
) -> None:
    for customer in (1, 2):
        pipeline.bill(OCT, recurring("other", OCT, 1, "1.00"), customer=customer)
    withdrawn = pipeline.bill(OCT, recurring("a", OCT, 3, "4.20"))
    pipeline.night(OCT)
    pipeline.bill(OCT, recurring("a", OCT, 3, "4.20"))
    pipeline.sandbox.delete_appxite_invoice(withdrawn)
    done, proof = pipeline.night(OCT)
    delivered, new = (
        pipeline.value(f"select {which}(line_id) from billing.invoice_line where subscription_id = 'sub-a'")
        for which in ("min", "max")
    )
    assert (done.writes, proof["held"], proof["difference"]) == (0, "12.60", "0.00")
    assert pipeline.held() == {
        "delivered_on_withdrawn_invoice": f"line {delivered} of invoice T-{withdrawn}, 12.60 EUR"
    }

    pipeline.connection.execute(
        "insert into billing.override (line_id, is_excluded, reason, decided_by) values (%s, true, 'seen', 'ann')",
        [new if counts == "the delivered line" else delivered],
    )
    done, proof = pipeline.night(OCT)
    assert pipeline.held() == {}
    assert Decimal(proof["difference"]) == 0
    if counts == "the delivered line":
        assert done.writes == 0
        check(pipeline.sandbox)
    else:  # the delivered one is credited by hand
        assert done.created == 1
        assert [one["extPrice"] for one in pipeline.additions(pipeline.agreement())] == [Decimal("12.60")] * 2
