"""Each reason for holding a line: what provokes exactly it, and that curing it delivers the line."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal

import pytest
from sql_world import JULY, JUNE, MAY, Customer, Invoice, Line, World, monthly

from billing_sync.plan import approve_plan
from billing_sync.settle import retry_addition

APRIL = date(2026, 4, 1)
Step = Callable[[World, Customer, Invoice, Line], None]


def fields(**values: object) -> Step:
    """Set fields of the AppXite line."""

    def step(world: World, customer: Customer, invoice: Invoice, line: Line) -> None:
        for name, value in values.items():
            setattr(line, name, value)

    return step


def agreement(**values: object) -> Step:
    def step(world: World, customer: Customer, invoice: Invoice, line: Line) -> None:
        world.set_agreement(customer.agreement_id, **values)

    return step


def company(**values: object) -> Step:
    def step(world: World, customer: Customer, invoice: Invoice, line: Line) -> None:
        world.update("mapping.company", "company_id", customer.company_id, **values)

    return step


def product(**values: object) -> Step:
    def step(world: World, customer: Customer, invoice: Invoice, line: Line) -> None:
        product_id = world.value("select product_id from mapping.offer_mapping where offer_id = %s", line.offer_id)
        world.update("mapping.product", "product_id", product_id, **values)

    return step


def setting(**values: str) -> Step:
    def step(world: World, customer: Customer, invoice: Invoice, line: Line) -> None:
        for key, value in values.items():
            world.setting(key, value)

    return step


def header(**values: object) -> Step:
    def step(world: World, customer: Customer, invoice: Invoice, line: Line) -> None:
        for name, value in values.items():
            setattr(invoice, name, value)

    return step


def all_of(*steps: Step) -> Step:
    def step(world: World, customer: Customer, invoice: Invoice, line: Line) -> None:
        for one in steps:
            one(world, customer, invoice, line)

    return step


def contract_of_other_company(world: World, customer: Customer, invoice: Invoice, line: Line) -> None:
    line.contract_id = "contract"
    world.map_contract("contract", world.agreement(world.company()))


def contract_of_own_company(world: World, customer: Customer, invoice: Invoice, line: Line) -> None:
    world.map_contract("contract", customer.agreement_id)


def contract_mapped(world: World, customer: Customer, invoice: Invoice, line: Line) -> None:
    line.contract_id = "contract"
    contract_of_own_company(world, customer, invoice, line)


def by_contract(**values: object) -> Step:
    """The agreement comes from a mapped contract, so that it is chosen whatever its state."""
    return all_of(contract_mapped, agreement(**values))


def second_agreement(world: World, customer: Customer, invoice: Invoice, line: Line) -> None:
    world.agreement(customer.company_id)


def unmap_organization(world: World, customer: Customer, invoice: Invoice, line: Line) -> None:
    world.map_organization(customer.organization_id, None, "excluded", by=None)


def map_organization(world: World, customer: Customer, invoice: Invoice, line: Line) -> None:
    world.map_organization(customer.organization_id, customer.company_id)


def new_offer(world: World, customer: Customer, invoice: Invoice, line: Line) -> None:
    line.offer_id = "never seen"


def map_new_offer(world: World, customer: Customer, invoice: Invoice, line: Line) -> None:
    world.map_offer("never seen", world.product())


def choose_product(world: World, customer: Customer, invoice: Invoice, line: Line) -> None:
    world.override(line, product_id=world.product())


def type_dates(world: World, customer: Customer, invoice: Invoice, line: Line) -> None:
    world.override(line, effective_date=MAY, cancelled_date=date(2026, 5, 31))


def type_price(world: World, customer: Customer, invoice: Invoice, line: Line) -> None:
    world.override(line, quantity=1, unit_price=line.total)


def know_charge_type(world: World, customer: Customer, invoice: Invoice, line: Line) -> None:
    world.insert("billing.charge_type", charge_type="Mystery", display_name="Mystery", is_recurring=False)


WEEKLY, MONTHLY = 6, 1
ACTIVE, INACTIVE = agreement(agreement_status="Active"), agreement(agreement_status="Inactive")
odd_price = fields(quantity=Decimal("1000000"), unit_price=Decimal("0.00000012"), total=Decimal("0.12"))

# (name of the case, its reason, what provokes it, what cures it)
CASES: list[tuple[str, str, Step, Step]] = [
    ("total_differs", "invoice_does_not_add_up", header(total=Decimal("99.99")), header(total=None)),
    ("quantity_missing", "row_unreadable", fields(quantity=None), fields(quantity=2)),
    ("price_missing", "row_unreadable", fields(unit_price=None), fields(unit_price=10)),
    (
        "other_currency",
        "currency_differs_from_invoice",
        all_of(fields(currency="USD"), agreement(currency="USD")),
        all_of(fields(currency="EUR"), agreement(currency="EUR")),
    ),
    ("unmapped", "organization_unmapped", unmap_organization, map_organization),
    ("company_inactive", "company_not_usable", company(status="Inactive"), company(status="Active")),
    ("company_not_active", "company_not_usable", company(status="Not-Active (old)"), company(status="Active")),
    ("company_deleted", "company_not_usable", company(is_deleted=True), company(is_deleted=False)),
    ("company_gone", "company_not_usable", company(is_gone=True), company(is_gone=False)),
    ("no_offer", "offer_missing", fields(offer_id=None), choose_product),
    ("new_offer", "offer_unmapped", new_offer, map_new_offer),
    ("product_inactive", "product_not_usable", product(is_inactive=True), product(is_inactive=False)),
    ("product_gone", "product_not_usable", product(is_gone=True), product(is_gone=False)),
    ("bundle", "product_not_usable", product(product_class="Bundle"), product(product_class="Service")),
    ("only_inactive_agreement", "no_agreement", INACTIVE, ACTIVE),
    ("agreement_of_other_type", "no_agreement", agreement(agreement_type_id=None), agreement(agreement_type_id=1)),
    ("two_agreements", "ambiguous_agreement", second_agreement, contract_mapped),
    ("agreement_inactive", "agreement_not_usable", by_contract(agreement_status="Inactive"), ACTIVE),
    ("agreement_cancelled", "agreement_not_usable", by_contract(is_cancelled=True), agreement(is_cancelled=False)),
    ("agreement_gone", "agreement_not_usable", by_contract(is_gone=True), agreement(is_gone=False)),
    ("agreement_ended", "agreement_not_usable", agreement(end_date=date(2026, 4, 30)), agreement(end_date=None)),
    ("agreement_of_other_company", "agreement_not_usable", contract_of_other_company, contract_of_own_company),
    ("agreement_currency", "agreement_currency_differs", agreement(currency="USD"), agreement(currency="EUR")),
    ("agreement_without_currency", "agreement_currency_differs", agreement(currency=None), agreement(currency="EUR")),
    ("prorating", "agreement_prorates", agreement(prorates=True), agreement(prorates=False)),
    ("weekly", "billing_cycle_unsupported", agreement(billing_cycle_id=WEEKLY), agreement(billing_cycle_id=MONTHLY)),
    ("no_cycle", "billing_cycle_unsupported", agreement(billing_cycle_id=None), agreement(billing_cycle_id=MONTHLY)),
    ("before_billing", "before_bill_start", agreement(bill_start_date=JUNE), agreement(bill_start_date=MAY)),
    ("unknown_type", "unknown_charge_type", fields(charge_type="Mystery"), know_charge_type),
    ("no_charge_type", "unknown_charge_type", fields(charge_type=None), fields(charge_type="CycleFee")),
    ("no_start", "dates_missing", fields(start=None), fields(start=MAY)),
    ("no_end", "dates_missing", fields(end=None), fields(end=date(2026, 5, 31))),
    ("ends_before_start", "dates_missing", fields(end=APRIL), fields(end=date(2026, 5, 31))),
    ("odd_price", "price_not_representable", all_of(odd_price, setting(price_fallback="hold")), type_price),
    (
        "odd_price_may_be_one_unit",
        "price_not_representable",
        all_of(odd_price, setting(price_fallback="hold")),
        setting(price_fallback="one_unit"),
    ),
    (
        "late",
        "late_line",
        all_of(setting(late_lines="hold"), agreement(next_invoice_date=JUNE)),
        setting(late_lines="next_open_cycle"),
    ),
    (
        "credit",
        "negative_amount",
        all_of(setting(negative_additions="hold", credits="send"), fields(unit_price=-10, total=Decimal(-20))),
        setting(negative_additions="send"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "provoke", "cure"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_line_is_held_for_exactly_the_reason_and_delivered_when_cured(
    world: World, reason: str, provoke: Step, cure: Step
) -> None:
    customer = world.customer()
    line = monthly(MAY)
    invoice = world.invoice(customer, line, day=date(2026, 5, 2))
    provoke(world, customer, invoice, line)

    world.decide()

    assert world.reasons(line) == {reason}
    assert world.outcome(line) == "held"
    assert world.items() == []
    assert world.prove() == []
    assert world.proof(invoice)["held"] == invoice.header_total()
    cure(world, customer, invoice, line)
    world.night()
    assert world.reasons(line) == set()
    assert world.is_carried(line)
    assert (
        world.proof(invoice)["delivered"]
        == invoice.header_total()
        == world.connectwise.only(world.decision(line)["agreement_id"])["extPrice"]
    )


@pytest.mark.parametrize("missing", [{"start": None}, {"end": None}], ids=["no start", "no end"])
def test_typing_the_dates_cures_missing_dates(world: World, missing: dict[str, None]) -> None:
    line = monthly(MAY)
    for name, value in missing.items():
        setattr(line, name, value)
    world.invoice(world.customer(), line, day=MAY)
    world.decide()
    type_dates(world, None, None, line)  # type: ignore[arg-type]

    world.decide()

    assert (world.outcome(line), world.reasons(line)) == ("deliver", set())


def test_a_line_shows_all_its_reasons_at_once(world: World) -> None:
    customer = world.customer(
        agreement_status="Active", prorates=True, currency="USD", end_date=date(2026, 4, 30), billing_cycle_id=WEEKLY
    )
    world.setting("negative_additions", "hold")
    line = monthly(MAY, offer_id="nobody mapped it", unit_price=-10, total=Decimal("-20.00"), charge_type="Correction")
    world.invoice(customer, line, total=Decimal("5.00"))

    world.decide()

    assert world.reasons(line) == {
        "agreement_currency_differs", "agreement_not_usable", "agreement_prorates", "billing_cycle_unsupported",
        "credit_exceeds_charge", "invoice_does_not_add_up", "negative_amount", "offer_unmapped",
    }  # fmt: skip


def test_curing_one_of_two_reasons_leaves_the_other_with_its_age(world: World) -> None:
    customer = world.customer(prorates=True)
    line = monthly(MAY, offer_id="nobody mapped it")
    world.invoice(customer, line)
    world.decide()
    since = world.value("select held_since from billing.held_reason where reason_code = 'agreement_prorates'")
    world.map_offer("nobody mapped it", world.product())

    world.decide()

    assert world.reasons(line) == {"agreement_prorates"}
    assert world.value("select held_since from billing.held_reason") == since


def test_one_bad_line_does_not_hold_its_neighbours(world: World) -> None:
    customer = world.customer()
    good = monthly(MAY)
    bad = monthly(MAY, subscription_id="other", charge_type="Mystery")
    world.invoice(customer, good, bad)

    world.night()

    assert world.is_carried(good)
    assert world.reasons(bad) == {"unknown_charge_type"}


def test_an_unreadable_row_is_held_with_what_is_wrong_and_its_invoice_waits(world: World) -> None:
    customer = world.customer()
    bad = monthly(MAY, quantity=None, unit_price=None, problem="quantity: 'NaN' is not a number")
    good = monthly(MAY, subscription_id="other")
    invoice = world.invoice(customer, bad, good, total=Decimal("40.00"))

    world.decide()

    assert world.reasons(bad) == {"row_unreadable", "invoice_does_not_add_up"}
    assert world.reasons(good) == {"invoice_does_not_add_up"}
    detail = world.value("select detail from billing.held_reason where reason_code = 'row_unreadable'")
    assert detail == "quantity: 'NaN' is not a number"
    assert world.prove() == []
    assert world.proof(invoice)["held"] == Decimal("40.00")


def test_candidates_are_listed_and_none_is_picked(world: World) -> None:
    customer = world.customer()
    other = world.agreement(customer.company_id)
    line = monthly(MAY)
    world.invoice(customer, line)

    world.decide()

    decision = world.decision(line)
    assert decision["agreement_id"] is None
    assert decision["agreement_candidates"] == sorted([customer.agreement_id, other])
    detail = world.value("select detail from billing.held_reason where reason_code = 'ambiguous_agreement'")
    assert f"({customer.agreement_id})" in detail
    assert f"({other})" in detail


def test_choosing_an_agreement_for_the_line_wins_over_contract_and_default_type(world: World) -> None:
    customer = world.customer()
    world.agreement(customer.company_id)
    chosen = world.agreement(customer.company_id, agreement_type_id=None)
    line = monthly(MAY, contract_id="contract")
    world.map_contract("contract", customer.agreement_id)
    world.invoice(customer, line)
    world.decide()
    by_contract = world.decision(line)
    world.override(line, agreement_id=chosen)

    world.decide()

    assert (by_contract["agreement_id"], by_contract["agreement_source"]) == (customer.agreement_id, "contract")
    assert (world.decision(line)["agreement_id"], world.decision(line)["agreement_source"]) == (chosen, "override")


# -- reasons that delivery gives --------------------------------------------------------------------------------------


def conflict(world: World) -> tuple[Customer, Line]:
    """An Addition that a person changed in ConnectWise before its next month was delivered."""
    customer = world.customer()
    world.invoice(customer, monthly(MAY))
    world.night()
    world.invoiced_until(customer.agreement_id, JUNE)
    record = world.connectwise.only(customer.agreement_id)
    world.connectwise.edit(customer.agreement_id, record["id"], quantity=7)
    line = monthly(JUNE)
    world.invoice(customer, line)
    world.decide()
    world.deliver()
    return customer, line


def test_changed_in_connectwise_is_held_and_nothing_is_overwritten(world: World) -> None:
    customer, line = conflict(world)

    assert world.reasons(line) == {"changed_in_connectwise"}
    assert not world.is_carried(line)
    assert world.connectwise.only(customer.agreement_id)["quantity"] == 7


def test_a_line_whose_addition_is_in_conflict_waits_until_that_is_settled(world: World) -> None:
    customer, line = conflict(world)
    world.decide()

    assert world.reasons(line) == {"addition_not_settled", "changed_in_connectwise"}
    assert world.outcome(line) == "held"
    assert world.items() == []
    record = world.connectwise.only(customer.agreement_id)
    world.connectwise.edit(customer.agreement_id, record["id"], quantity=2)
    retry_addition(world.connection, world.value("select delivery_key from delivery.addition"), "ann")
    world.night()
    assert world.is_carried(line)
    assert world.reasons(line) == set()


def test_a_line_that_was_written_to_an_addition_in_conflict_waits_with_those_that_would_follow_it(world: World) -> None:
    customer = world.customer()
    may, june, july = (monthly(month) for month in (MAY, JUNE, JULY))
    world.invoice(customer, may)
    world.invoice(customer, june)
    world.decide()
    world.connectwise.stores = {"invoiceDescription": "Cut o"}
    world.deliver()
    world.connectwise.stores = {}
    world.override(may, is_excluded=True, reason="billed by hand")
    world.invoice(customer, july)

    world.decide()  # without May, June would found an Addition of its own, and July follow it

    assert "addition_not_settled" in world.reasons(june) & world.reasons(july)
    assert world.items() == []
    retry_addition(world.connection, world.value("select delivery_key from delivery.addition"), "ann")
    world.decide()
    assert (world.outcome(june), world.outcome(july)) == ("deliver", "deliver")
    assert world.reasons(june) | world.reasons(july) == set()


def test_a_line_that_was_refused_and_is_then_excluded_has_no_reasons_left(world: World) -> None:
    line = monthly(MAY)
    world.invoice(world.customer(), line)
    world.decide()
    world.connectwise.refuse = "no"
    world.deliver()
    world.override(line, is_excluded=True, reason="a gift")

    world.decide()

    assert (world.outcome(line), world.reasons(line)) == ("excluded", set())


def test_a_line_that_was_refused_and_then_lost_its_mapping_waits_for_the_mapping(world: World) -> None:
    customer = world.customer()
    line = monthly(MAY)
    world.invoice(customer, line)
    world.decide()
    world.connectwise.refuse = "no"
    world.deliver()
    world.map_organization(customer.organization_id, None, "excluded", by=None)
    world.decide()

    assert world.reasons(line) == {"organization_unmapped"}


def test_a_line_whose_addition_is_in_doubt_waits_until_that_is_settled(world: World) -> None:
    customer = world.customer()
    first, second = monthly(MAY), monthly(JUNE)
    world.invoice(customer, first)
    world.night()
    world.execute("update delivery.addition set state = 'updating'")
    world.invoice(customer, second)

    world.decide()

    assert world.reasons(second) == {"addition_not_settled"}


@pytest.mark.parametrize("kind", ["conflict", "refused"])
def test_the_age_of_a_reason_survives_the_next_night(world: World, kind: str) -> None:
    if kind == "conflict":
        conflict(world)
    else:
        world.invoice(world.customer(), monthly(MAY))
        world.decide()
        world.connectwise.refuse = "no"
        world.deliver()
    world.decide()
    since = world.value("select held_since from billing.held_reason")

    world.decide()

    assert world.value("select held_since from billing.held_reason") == since


def test_refused_is_held_with_connectwises_words_and_delivered_when_it_is_changed(world: World) -> None:
    customer = world.customer()
    line = monthly(MAY)
    world.invoice(customer, line)
    world.decide()
    world.connectwise.refuse = "Product is not available to you"
    world.deliver()
    at_once = world.reasons(line)
    world.decide()

    assert at_once == world.reasons(line) == {"refused_by_connectwise"}
    assert "not available" in world.value("select detail from billing.held_reason")
    world.connectwise.refuse = None
    world.override(line, invoice_description="Something else")
    world.night()
    assert world.is_carried(line)
    assert world.reasons(line) == set()


def test_agreement_changed_between_plan_and_delivery_is_decided_again_by_the_next_run(world: World) -> None:
    customer = world.customer()
    line = monthly(MAY)
    world.invoice(customer, line)
    world.decide()
    world.connectwise.agreement_says = {"agreementStatus": "Inactive"}
    world.deliver()

    assert world.reasons(line) == {"agreement_changed"}
    assert world.outcome(line) == "held"
    world.connectwise.agreement_says = {}
    world.night()
    assert world.is_carried(line)


def test_a_line_that_changed_after_its_plan_was_approved_is_decided_again_by_the_next_run(world: World) -> None:
    line = monthly(MAY)
    invoice = world.invoice(world.customer(), line)
    first = world.decide()
    approve_plan(world.connection, world.plan(first), "ann")
    line.price(15)
    world.decide()
    world.deliver(first)

    assert world.reasons(line) == {"line_changed"}
    assert not world.is_carried(line)
    world.night()
    assert world.reasons(line) == set()
    assert world.proof(invoice)["delivered"] == Decimal("30.00")


def test_an_echo_that_differs_is_held_and_bills_nothing(world: World) -> None:
    customer = world.customer()
    line = monthly(MAY)
    world.invoice(customer, line)
    world.decide()
    world.connectwise.stores = {"invoiceDescription": "Cut o"}
    world.deliver()

    assert world.reasons(line) == {"echo_differs"}
    assert world.connectwise.only(customer.agreement_id)["billCustomer"] == "DoNotBill"


def changed_after_delivery(world: World) -> tuple[Invoice, Line]:
    line = monthly(MAY)
    invoice = world.invoice(world.customer(), line)
    world.night()
    line.price("12.50")
    world.decide()
    return invoice, line


def test_a_change_after_delivery_is_held_with_the_difference_until_a_person_excludes_it(world: World) -> None:
    invoice, line = changed_after_delivery(world)
    revision = world.row("select * from billing.invoice_line where revision = 2")

    assert revision["total_price"] == Decimal("5.00")
    assert world.reasons(line, 2) == {"changed_after_delivery"}
    assert world.outcome(line, 2) == "held"
    assert world.prove() == []
    assert world.proof(invoice)["held"] == Decimal("5.00")
    world.insert(
        "billing.override", line_id=revision["line_id"], decided_by="ann", is_excluded=True, reason="billed by hand"
    )
    world.decide()
    assert world.reasons(line, 2) == set()
    assert world.outcome(line, 2) == "excluded"
    assert world.decision(line, 2)["excluded_by"] == "ann: billed by hand"


def test_correcting_the_invoice_in_appxite_cures_a_change_after_delivery(world: World) -> None:
    _, line = changed_after_delivery(world)
    line.price("10")

    world.decide()

    assert world.value("select sum(total_price) from billing.invoice_line") == Decimal("20.00")
    assert world.value("select count(*) from reporting.held_line") == 0


SELECTORS = {"company_unclaimed", "company_ambiguous"}  # test_company_selectors.py
ADOPTION = {"adopted_addition_waits"}  # tests/billing_sync/test_adoption.py
LOADING = {"invoice_withdrawn"}  # tests/sql/test_load.py
ISSUED_AGAIN = {"delivered_on_withdrawn_invoice"}  # tests/sql/test_double_billing.py
DELIVERY = {
    "changed_in_connectwise", "addition_not_settled", "refused_by_connectwise", "agreement_changed", "line_changed",
    "echo_differs", "changed_after_delivery", "invoiced_meanwhile",
}  # fmt: skip
NEW_AGREEMENTS = {"agreement_to_create", "too_many_agreements"}  # test_new_agreements.py
BOUNDS = {"too_many_additions", "amount_above_bound", "customer_total_unusual"}  # test_bounds.py
ELSEWHERE = {
    "customer_paused",
    "credit_exceeds_charge",  # test_credits.py
    "typed_dates_not_usable",  # test_one_cycle.py
}


def test_every_reason_code_has_a_test(world: World) -> None:
    codes = {row["reason_code"] for row in world.rows("select reason_code from billing.held_reason_code")}

    found_elsewhere = DELIVERY | BOUNDS | LOADING | ISSUED_AGAIN | SELECTORS | NEW_AGREEMENTS | ADOPTION | ELSEWHERE
    assert codes == {case[1] for case in CASES} | found_elsewhere


def test_every_reason_says_what_it_is_and_what_to_do(world: World) -> None:
    assert world.value("select count(*) from billing.held_reason_code where title = '' or cure = ''") == 0
