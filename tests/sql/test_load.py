"""What becomes of AppXite's invoices in billing.*: loaded once, followed while they change, never guessed."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest
from sql_world import JUNE, MAY, Customer, Invoice, Line, World, differences_between, monthly

from billing_sync.db import run_sql_file
from billing_sync.decide import CHECK_SOURCE, decide


def lines_of(world: World, invoice: Invoice) -> list[dict[str, object]]:
    return world.rows(
        "select * from billing.invoice_line where invoice_id = %s order by line_key, revision", invoice.invoice_id
    )


def totals(world: World, invoice: Invoice) -> list[Decimal]:
    """Money of each revision of each line."""
    return [line["total_price"] for line in lines_of(world, invoice)]  # type: ignore[misc]


def delivered(world: World, *lines: Line) -> Invoice:
    invoice = world.invoice(world.customer(), *lines)
    world.night()
    assert all(world.is_carried(line) for line in lines)
    return invoice


# -- a line that changes ----------------------------------------------------------------------------------------------


def test_a_line_changed_before_delivery_takes_the_new_values(world: World) -> None:
    line = monthly(MAY)
    invoice = world.invoice(world.customer(), line)
    world.decide()
    line.price("11", quantity=3)
    line.charge_type, line.end = "UsageFee", date(2026, 5, 20)

    world.night()

    (row,) = lines_of(world, invoice)
    assert (row["revision"], row["total_price"], row["quantity"], row["charge_type"]) == (1, 33, 3, "UsageFee")
    assert world.proof(invoice)["delivered"] == Decimal("33.00")


@pytest.mark.parametrize(
    "change",
    [
        {"subscription_id": "another"}, {"offer_id": "another"}, {"charge_type": "UsageFee"},
        {"start": date(2026, 5, 2)}, {"end": date(2026, 5, 30)}, {"frequency": "Every 3 months"},
        {"currency": "USD"}, {"contract_id": "another"},
    ],
    ids=str,
)  # fmt: skip
def test_each_value_that_matters_is_followed(world: World, change: dict[str, object]) -> None:
    line = monthly(MAY)
    invoice = world.invoice(world.customer(), line)
    world.decide()
    ((name, value),) = change.items()
    setattr(line, name, value)

    world.decide()

    column = {"start": "charge_start_date", "end": "charge_end_date", "frequency": "billing_frequency"}.get(name, name)
    assert [row[column] for row in lines_of(world, invoice)] == [value]


def test_a_value_that_moves_to_another_field_is_followed(world: World) -> None:
    line = monthly(MAY, quantity=None, unit_price=20, total=Decimal("20.00"))
    invoice = world.invoice(world.customer(), line)
    world.decide()
    line.quantity, line.unit_price = 20, None

    world.decide()

    assert [row["quantity"] for row in lines_of(world, invoice)] == [20]


def test_a_line_changed_after_delivery_gets_a_revision_with_the_difference_to_what_appxite_says_now(
    world: World,
) -> None:
    line = monthly(MAY)
    invoice = delivered(world, line)
    seen = []
    for price in ("12", "9.99", "9.99"):
        line.price(price)
        world.decide()
        seen.append(totals(world, invoice))

    assert seen == [[Decimal("20.00"), Decimal(rest)] for rest in ("4.00", "-0.02", "-0.02")]
    assert world.reasons(line, 2) == {"changed_after_delivery"}
    assert world.items() == []
    assert world.connectwise.only(world.decision(line)["agreement_id"])["extPrice"] == Decimal("20.00")
    assert world.prove() == []
    assert world.proof(invoice) == {
        "source_total": Decimal("19.98"), "delivered": Decimal("20.00"), "held": Decimal("-0.02"), "excluded": 0,
        "awaiting_approval": 0, "in_doubt": 0, "difference": 0,
    }  # fmt: skip


def test_a_difference_that_a_person_dealt_with_stays_when_the_line_changes_again(world: World) -> None:
    line = monthly(MAY)
    invoice = delivered(world, line)
    line.price(12)
    world.decide()
    world.insert(
        "billing.override", line_id=world.line_id(line, 2), decided_by="ann", is_excluded=True, reason="by hand"
    )
    line.price("9.99")

    world.decide()

    assert totals(world, invoice) == [Decimal("20.00"), Decimal("4.00"), Decimal("-4.02")]
    assert [world.outcome(line, revision) for revision in (1, 2, 3)] == ["deliver", "excluded", "held"]
    assert world.prove() == []
    assert world.proof(invoice) == {
        "source_total": Decimal("19.98"), "delivered": Decimal("20.00"), "held": Decimal("-4.02"),
        "excluded": Decimal("4.00"), "awaiting_approval": 0, "in_doubt": 0, "difference": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    "was_planned",
    [
        False,
        True,
    ],
)
def test_a_line_removed_before_delivery_is_removed_and_said(world: World, was_planned: bool) -> None:
    stays, goes = monthly(MAY), monthly(MAY, subscription_id="other")
    if not was_planned:
        goes.charge_type = "Mystery"
    invoice = world.invoice(world.customer(), stays, goes)
    world.decide()
    invoice.lines.remove(goes)

    world.night()

    assert totals(world, invoice) == [Decimal("20.00")]
    assert world.value("select count(*) from audit.log_entry where code = 'line_removed_in_appxite'") == 1


def test_a_line_removed_after_delivery_gets_a_revision_that_takes_it_back_once(world: World) -> None:
    stays, goes = monthly(MAY), monthly(MAY, subscription_id="other", unit_price=7)
    invoice = delivered(world, stays, goes)
    invoice.lines.remove(goes)
    world.decide()
    world.decide()

    assert sorted(totals(world, invoice)) == [Decimal("-14.00"), Decimal("14.00"), Decimal("20.00")]
    assert world.reasons(goes, 2) == {"changed_after_delivery"}
    assert world.value("select count(*) from audit.log_entry where code = 'line_removed_in_appxite'") == 1
    invoice.lines.append(goes)
    world.decide()
    assert sorted(totals(world, invoice)) == [Decimal("14.00"), Decimal("20.00")]


def test_loading_again_writes_nothing(world: World) -> None:
    customer = world.customer()
    line = monthly(MAY)
    world.invoice(customer, line, monthly(MAY, subscription_id="other", charge_type="Mystery"))
    world.invoice("somebody new", monthly(MAY, offer_id="new", row_id=None), total=Decimal("1.00"))
    world.night()
    line.price(12)
    world.decide()
    before = world.snapshot(without=["plan_item_id"])

    decide(world.connection, world.run_id)

    assert differences_between(before, world.snapshot(without=["plan_item_id"])) == {}


def test_running_an_older_run_again_does_not_bring_old_values_back(world: World) -> None:
    line = monthly(MAY)
    invoice = world.invoice(world.customer(), line)
    older = world.decide()
    line.price(12)
    world.decide()

    decide(world.connection, older)  # its deciding tasks are cleared; its extracts are the old ones

    assert totals(world, invoice) == [Decimal("24.00")]


# -- which invoices ---------------------------------------------------------------------------------------------------


def test_an_invoice_is_loaded_once_it_is_verified_and_kept_when_it_moves_on(world: World) -> None:
    line = monthly(MAY)
    invoice = world.invoice(world.customer(), line, status="New")
    seen = []
    for status in ("New", "New Corrected", "Payment Card Error", "Verified", "Issued", "Paid"):
        invoice.status = status
        counts = world.night()
        seen.append((status, world.value("select status from billing.invoice"), counts.created))

    assert seen == [
        ("New", None, 0), ("New Corrected", None, 0), ("Payment Card Error", None, 0),
        ("Verified", "Verified", 1), ("Issued", "Issued", 0), ("Paid", "Paid", 0),
    ]  # fmt: skip
    assert len(lines_of(world, invoice)) == 1


def test_a_first_sight_as_issued_or_paid_is_billed(world: World) -> None:
    customer = world.customer()
    lines = [monthly(MAY, subscription_id=status) for status in ("Issued", "Paid")]
    for line in lines:
        world.invoice(customer, line, status=str(line.subscription_id))

    world.night()

    assert all(world.is_carried(line) for line in lines)


def test_an_invoice_that_is_no_longer_listed_is_withdrawn_until_it_comes_back(world: World) -> None:
    customer = world.customer()
    line, other = monthly(MAY), monthly(MAY)
    invoice = world.invoice(customer, line, status="Verified")
    world.invoice(customer, other)
    world.decide()
    assert world.outcome(line) == "deliver"
    invoice.status = "New Corrected"
    world.decide()
    assert world.reasons(line) == {"invoice_withdrawn"}
    world.invoices.remove(invoice)
    world.decide()
    assert world.reasons(line) == {"invoice_withdrawn"}
    assert world.value("select withdrawn from billing.invoice where invoice_id = %s", invoice.invoice_id) == (
        "AppXite does not list it in 2026-05 any more"
    )
    assert world.outcome(other) == "deliver"
    invoice.status = "Paid"
    world.invoices.append(invoice)
    world.night()
    assert world.is_carried(line)


def test_only_a_run_that_read_it_says_that_an_invoice_is_gone(world: World) -> None:
    ours, theirs = world.customer(), world.customer()
    line = monthly(MAY)
    invoice = world.invoice(ours, line)
    world.invoice(theirs, monthly(MAY))
    older = world.open("nightly", MAY)
    world.decide()
    world.invoices.remove(invoice)
    # Of other organizations, of another month, or read before the invoice was there: says nothing about it.
    world.decide("manual", MAY, organization_ids=[theirs.organization_id])
    world.decide("manual", JUNE)
    world.execute(
        "delete from staging.invoice_header where invoice_id = %s and extract_id in "
        "(select extract_id from staging.extract where run_id = %s)",
        invoice.invoice_id,
        older,
    )
    decide(world.connection, older)
    assert world.reasons(line) == set()


@pytest.mark.parametrize("between", ["a reference run", "a dry run", "a run of some organizations"])
def test_a_run_that_loads_nothing_of_it_does_not_hide_that_an_invoice_is_gone(world: World, between: str) -> None:
    ours, theirs = world.customer(), world.customer()
    line = monthly(MAY)
    invoice = world.invoice(ours, line)
    world.invoice(theirs, monthly(MAY))
    world.decide()
    world.invoices.remove(invoice)
    night = world.open("nightly", MAY)
    if between == "a reference run":
        world.open("reference", MAY)
    elif between == "a dry run":
        world.open("nightly", MAY, is_dry_run=True)
    else:
        world.open("manual", MAY, organization_ids=[theirs.organization_id])
    decide(world.connection, night)

    assert world.reasons(line) == {"invoice_withdrawn"}
    assert len(world.items(night)) == 1


def test_a_vendor_invoice_is_never_loaded(world: World) -> None:
    customer = world.customer()
    ours = world.invoice(customer, monthly(MAY))
    world.invoice(customer, monthly(MAY, offer_id="at cost"), provider="distributor")

    world.decide()

    assert [row["invoice_id"] for row in world.rows("select invoice_id from billing.invoice")] == [ours.invoice_id]
    assert world.value("select count(*) from mapping.offer where offer_id = 'at cost'") == 0


def test_a_run_for_some_organizations_leaves_the_others_alone(world: World) -> None:
    wanted, other = world.customer(), world.customer()
    line, others = monthly(MAY), monthly(MAY)
    world.invoice(wanted, line)
    world.invoice(other, others)

    world.decide("manual", MAY, organization_ids=[wanted.organization_id])

    assert world.outcome(line) == "deliver"
    assert world.value("select count(*) from billing.invoice") == 1


@pytest.mark.parametrize("what", ["currency", "organization_id"])
def test_an_invoices_new_currency_or_organization_is_stored(world: World, what: str) -> None:
    customer = world.customer()
    line = monthly(MAY)
    invoice = world.invoice(customer, line)
    world.decide()
    if what == "currency":
        world.set_agreement(customer.agreement_id, currency="USD")
        invoice.currency = line.currency = "USD"
    else:
        invoice.organization_id = world.customer().organization_id

    world.decide()

    assert world.value(f"select {what} from billing.invoice") == getattr(invoice, what)
    assert world.reasons(line) == set()


def test_an_invoice_whose_date_moved_to_the_next_month_between_two_reads_stops_nothing(world: World) -> None:
    customer = world.customer()
    line = monthly(MAY)
    invoice = world.invoice(customer, line)
    world.open("nightly", MAY, JUNE)
    invoice.day = JUNE
    world.stage(world.run_id, [JUNE])  # May was read before

    decide(world.connection, world.run_id)

    assert len(lines_of(world, invoice)) == 1


# -- duplicates -------------------------------------------------------------------------------------------------------


def corrections(customer: Customer, world: World, *amounts: int) -> Invoice:
    lines = [monthly(MAY, charge_type="Correction", quantity=1, unit_price=amount, row_id=None) for amount in amounts]
    return world.invoice(customer, *lines)


def test_true_duplicates_without_row_ids_are_all_kept_and_stable_under_the_order_of_pages(world: World) -> None:
    customer = world.customer()
    invoice = corrections(customer, world, 5, 5, -3, 8, 5)
    world.decide()
    before = lines_of(world, invoice)
    invoice.lines.reverse()
    world.decide()

    assert lines_of(world, invoice) == before
    assert sorted(totals(world, invoice)) == [-3, 5, 5, 5, 8]
    world.night()
    invoice.lines.sort(key=lambda line: -(line.total or 0))
    counts = world.night()
    assert counts.writes == 0
    assert lines_of(world, invoice) == before
    assert world.proof(invoice)["delivered"] == Decimal("20.00")


def test_a_changed_duplicate_after_delivery_keeps_the_sum_of_revisions_at_what_appxite_invoices(world: World) -> None:
    invoice = corrections(world.customer(), world, 5, 7)
    world.night()
    invoice.lines[0].price(30)

    world.decide()

    assert sum(totals(world, invoice)) == Decimal("37.00")
    assert world.prove() == []
    assert world.proof(invoice)["delivered"] == Decimal("12.00")
    assert world.proof(invoice)["held"] == Decimal("25.00")


def test_lines_that_differ_only_by_row_id_are_different_lines(world: World) -> None:
    invoice = world.invoice(
        world.customer(), monthly(MAY, charge_type="Correction"), monthly(MAY, charge_type="Correction")
    )

    world.night()

    assert world.proof(invoice)["delivered"] == Decimal("40.00")


# -- invoices that do not add up --------------------------------------------------------------------------------------


@pytest.mark.parametrize("total", [Decimal("39.99"), Decimal("0.00"), Decimal("-40.00")])
def test_an_invoice_that_does_not_add_up_is_held_wholly(world: World, total: Decimal) -> None:
    lines = [monthly(MAY), monthly(MAY, subscription_id="other")]
    invoice = world.invoice(world.customer(), *lines, total=total)

    world.decide()

    assert [world.reasons(line) for line in lines] == [{"invoice_does_not_add_up"}] * 2
    assert world.items() == []
    assert world.prove() == []
    assert world.proof(invoice) == {
        "source_total": total, "held": total, "delivered": 0, "excluded": 0, "awaiting_approval": 0, "in_doubt": 0,
        "difference": 0,
    }  # fmt: skip


def test_lines_of_an_invoice_that_does_not_add_up_are_only_added_never_changed_or_removed(world: World) -> None:
    stays, changes, goes = (monthly(MAY, subscription_id=name) for name in "abc")
    invoice = world.invoice(world.customer(), stays, changes, goes)
    world.night()
    before = totals(world, invoice)
    changes.price(99)
    invoice.lines.remove(goes)
    added = monthly(MAY, subscription_id="d", row_id="row-added")
    invoice.lines.append(added)
    invoice.total = Decimal("1.00")

    world.decide()

    assert totals(world, invoice)[:1] + sorted(totals(world, invoice)) == [Decimal("20.00"), *before, Decimal("20.00")]
    assert world.reasons(added) == {"invoice_does_not_add_up"}
    assert world.prove() == []
    assert world.proof(invoice)["held"] == Decimal("1.00") - Decimal("60.00")


def test_waiting_lines_of_an_invoice_that_does_not_add_up_are_followed_once_it_does(world: World) -> None:
    changes, goes = monthly(MAY, subscription_id="a"), monthly(MAY, subscription_id="b", charge_type="Mystery")
    invoice = world.invoice(world.customer(), changes, goes, total=Decimal("1.00"))
    world.decide()
    changes.price(99)
    invoice.lines.remove(goes)
    world.decide()
    meanwhile = totals(world, invoice)
    invoice.total = None

    world.night()

    assert meanwhile == [Decimal("20.00"), Decimal("20.00")]
    assert totals(world, invoice) == [Decimal("198.00")]
    assert world.proof(invoice)["delivered"] == Decimal("198.00")


def test_an_invoice_with_a_total_and_no_rows_is_accounted_for_as_held(world: World) -> None:
    invoice = world.invoice(world.customer(), day=MAY, total=Decimal("12.00"))

    world.decide()

    assert world.prove() == []
    assert world.proof(invoice)["held"] == Decimal("12.00")


# -- what is said about the source ------------------------------------------------------------------------------------


def test_what_is_wrong_with_the_source_is_said_once(world: World) -> None:
    customer = world.customer()
    world.invoice(customer, monthly(MAY), total=Decimal("1.00"))
    world.invoice(None, monthly(MAY), problem="consumerOrganizationId: missing")
    orphan = world.invoice(customer, monthly(MAY))
    world.open("nightly", MAY, JUNE)
    world.execute("delete from staging.invoice_header where invoice_id = %s", orphan.invoice_id)
    decide(world.connection, world.run_id)
    findings = run_sql_file(world.connection, CHECK_SOURCE, world.run_id)

    codes = ["header_unreadable", "invoice_does_not_add_up", "period_without_invoices", "row_without_header"]
    assert sorted(finding["code"] for finding in findings) == codes
    said = world.rows("select code from audit.log_entry where code = any(%s)", codes)
    assert sorted(entry["code"] for entry in said) == codes
    # Money that could not even be read turns the run red.
    assert sorted(world.prove()) == ["header_unreadable", "row_without_header"]


def test_a_period_with_vendor_invoices_only_is_said_to_be_empty(world: World) -> None:
    world.invoice(world.customer(), monthly(MAY), provider="somebody else")

    world.decide()

    assert world.value("select count(*) from audit.log_entry where code = 'period_without_invoices'") == 1
