"""Journeys of a finance team through the review pages, as people make them: by what is written on the screen.

Nothing here reads the database to find its way; it is read at the end, to see that what the screen said is true.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pipeline import OCT, SEP, check, invoiced, one_time, recurring
from playwright.sync_api import FrameLocator, Locator, expect
from visit import Site, Visit, world

from billing_sync.errors import ProofError

if TYPE_CHECKING:
    from pipeline import Pipeline

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

Visits = Callable[..., Visit]
RUN = 300_000  # milliseconds that a run of the pipeline may take on a busy machine
CUSTOMERS = 12


def button(place: FrameLocator | Locator, name: str | re.Pattern[str]) -> Locator:
    """A button by its name."""
    return place.get_by_role("button", name=name, exact=isinstance(name, str))


def cell(row: Locator, field: str) -> Locator:
    """The cell of a column of the grid."""
    return row.locator(f"[tabulator-field='{field}']")


def grid_row(place: FrameLocator | Locator, text: str | re.Pattern[str]) -> Locator:
    """A row of the grid, by what stands in it."""
    return place.locator(".tabulator-row").filter(has_text=text)


def choose(place: FrameLocator, name: str, words: str) -> None:
    """Pick from a field that finds its options on the server."""
    field = place.get_by_role("combobox", name=name)
    field.click()
    field.fill(words)
    place.get_by_role("option", name=re.compile(re.escape(words))).first.click()


def run_is_done(inside: FrameLocator, title: str) -> None:
    """Wait until a run that the page follows says that it is done."""
    progress = inside.get_by_role("status").filter(has=button(inside, "Open run in Airflow"))
    expect(progress).to_contain_text(re.compile(f"^{title}.*Done$"), timeout=RUN)


def tile(inside: FrameLocator, outcome: str) -> Locator:
    """The tile of an outcome above the review grid."""
    return inside.get_by_role("group", name="Money by outcome").get_by_role("button", name=re.compile(f"^{outcome}"))


@pytest.fixture
def empty(site: Site, billing_db: str, tmp_path: Path) -> Iterator[Pipeline]:
    """Nothing is set up: a migrated database, and two services full of data."""
    with world(site, tmp_path, billing_db, customers=CUSTOMERS) as pipeline:
        yield pipeline


@pytest.fixture
def office(site: Site, billing_db: str, tmp_path: Path) -> Iterator[Pipeline]:
    """Everything is set up, September is delivered and proven, and Automated Daily Sync is off again."""
    with world(site, tmp_path, billing_db, customers=4) as pipeline:
        pipeline.set_up()
        for invoice in pipeline.sandbox.appxite_invoices():
            pipeline.sandbox.delete_appxite_invoice(invoice["invoiceId"])
        for customer in range(4):
            rows = [recurring(f"{customer}{n}", SEP, n + 1, "10.00") for n in range(3)]
            pipeline.bill(SEP, *rows, customer=customer)
        pipeline.night(SEP)
        pipeline.set(automated_daily_sync="off")
        yield pipeline


def plan_waits(pipeline: Pipeline) -> int:
    """A run of October whose plan waits for a person; returns the plan's number."""
    run_id = pipeline.plan("manual", [OCT])
    pipeline.finish(run_id)
    return int(pipeline.value("select max(plan_id) from delivery.plan"))


def approve_and_deliver(inside: FrameLocator) -> None:
    """On the page of a plan: approve all of it, deliver, and wait for the proof."""
    button(inside, "Approve all …").click()
    dialog = inside.get_by_role("dialog")
    expect(dialog).to_contain_text("You approve")
    button(dialog, "Approve and deliver").click()
    expect(dialog).to_be_hidden()
    expect(inside.get_by_text(re.compile(r"0\.00.* difference")).first).to_be_visible(timeout=RUN)


def test_from_first_set_up_to_first_sync(empty: Pipeline, visits: Visits) -> None:
    admin = visits("admin")
    admin.page.goto(f"{admin.site.url}/")
    admin.page.get_by_role("link", name="ConnectWise billing").first.click()
    inside = admin.inside

    # The checklist leads: connections first.
    expect(inside.get_by_role("heading", name="Set-up")).to_be_visible()
    expect(inside.get_by_role("heading", name="No invoice is loaded yet")).to_be_visible()
    admin.open("settings/authentication")
    for connection in ("appxite_api", "connectwise_api", "billing_db"):
        card = inside.locator(f"section[aria-labelledby='connection-{connection}']")
        button(card, "Test").click()
        expect(card).to_contain_text("It works")
    secrets = empty.sandbox.credentials
    everything = inside.locator("body").inner_text()
    assert secrets.sas_key not in everything
    assert secrets.private_key not in everything

    # The first two settings.
    admin.open("settings/configuration")
    for key, value in (("default_agreement_type", "Cloud Subscriptions"), ("environment", "tests")):
        setting = inside.locator("section").filter(has=inside.get_by_text(key, exact=True)).last
        setting.get_by_role("textbox").or_(setting.get_by_role("combobox")).first.fill(value)
        button(setting, "Save").click()
        if key == "default_agreement_type":  # about money: asked again
            button(inside.get_by_role("dialog"), "Save").click()
        expect(button(setting, "Save")).to_be_hidden()

    # Organizations and products: read, then the strong suggestions are taken over by a person.
    admin.open("mapping/organizations")
    button(inside, "Sync Organizations").first.click()
    inside.get_by_role("dialog").get_by_role("button", name=re.compile("tart")).click()
    run_is_done(inside, "Sync Organizations")
    expect(grid_row(inside, "undecided").first).to_be_visible()
    button(inside, "Approve strong suggestions…").click()
    dialog = inside.get_by_role("dialog")
    dialog.get_by_role("button", name=re.compile(r"^Approve \d+")).click()
    expect(dialog).to_be_hidden()
    approved = empty.value("select count(*) from mapping.organization_mapping where state = 'approved'")
    assert approved > CUSTOMERS / 2
    assert empty.value("select count(*) from audit.change where changed_by = 'admin'") >= approved

    # Products: an offer is approved for a product that a person picks, others by their suggestion.
    admin.open("mapping/products")
    button(inside, "Approve strong suggestions…").click()
    dialog = inside.get_by_role("dialog")
    dialog.get_by_role("button", name=re.compile(r"^Approve \d+")).click()
    expect(dialog).to_be_hidden()
    assert empty.value("select count(*) from mapping.offer_mapping where state = 'approved'") > 3

    # The first month is loaded, looked at, approved and delivered.
    admin.open("mapping/invoices")
    button(inside, "Load Invoices").first.click()
    dialog = inside.get_by_role("dialog")
    dialog.get_by_text("Another month").click()
    dialog.get_by_label("Billing period to load").fill("2026-09")
    switch_on = button(dialog, "Switch on")
    if switch_on.is_visible():
        switch_on.click()
        expect(switch_on).to_be_hidden()
    button(dialog, "Load September 2026").click()
    run_is_done(inside, "Load Invoices of September 2026")
    expect(tile(inside, "Awaiting approval")).to_contain_text("line")
    admin.open("plan")
    inside.get_by_role("link", name="Review").first.click()
    approve_and_deliver(inside)

    # What the screen said is true.
    delivered = empty.value("select sum(amount) from delivery.addition_line")
    assert delivered > 0
    assert sum(invoiced(empty.sandbox).values()) == delivered
    assert empty.value("select bool_and(difference = 0) from reporting.invoice_proof")


def test_a_months_review_with_bulk_update_and_approval(office: Pipeline, visits: Visits) -> None:
    for customer in range(4):
        office.bill(OCT, *(recurring(f"{customer}{n}", OCT, n + 1, "10.00") for n in range(3)), customer=customer)
        office.bill(OCT, one_time(f"Workshop {customer}", date(2026, 10, 12), 1, "250.00"), customer=customer, day=14)
    plan_waits(office)

    ann = visits("op")
    inside = ann.open('mapping/invoices?filter={"periods":["2026-10"]}')
    expect(tile(inside, "Awaiting approval")).to_contain_text("16 lines")

    # All workshops get one description, across all customers: preview first.
    inside.get_by_label("Search text").fill("Workshop")
    expect(inside.locator(".tabulator-row")).to_have_count(4)
    button(inside, "Bulk update").click()
    dialog = inside.get_by_role("dialog")
    dialog.get_by_text("Description", exact=True).click()
    dialog.get_by_role("textbox", name="Description").fill("Onboarding workshop, as agreed")
    button(dialog, "Preview").click()
    expect(dialog).to_contain_text("4 lines of 4 customers would change: 1,000.00 EUR")
    button(dialog, "Change 4 lines").click()
    expect(dialog).to_contain_text("4 lines changed")
    button(dialog, "Done").click()
    expect(grid_row(inside, "User Updated")).to_have_count(4)

    # The plan that waits knows that its items changed; planned again, it is approved and delivered.
    button(inside, "Plan again").click()
    switch_on = button(inside, "Switch on")
    if switch_on.is_visible():
        switch_on.click()
    run_is_done(inside, "Plan again")
    ann.open("plan")
    inside.get_by_role("link", name="Review").first.click()
    approve_and_deliver(inside)
    assert office.value("select approved_by from delivery.plan order by plan_id desc limit 1") == "op"
    described = {one["invoiceDescription"] for one in office.additions() if one["extPrice"] == Decimal("250.00")}
    assert described == {"Onboarding workshop, as agreed"}
    check(office.sandbox)


def test_a_held_cause_is_fixed_and_its_lines_released(office: Pipeline, visits: Visits) -> None:
    new = {"offerId": "OF-NEW", "offerName": "Brand New Suite"}
    for customer in range(3):
        office.bill(OCT, recurring(f"new{customer}", OCT, 2, "15.50", **new), customer=customer)
    plan_waits(office)

    ann = visits("op")
    inside = ann.open("dashboard")
    cause = inside.get_by_role("row").filter(has_text="The offer has no approved product")
    expect(cause).to_contain_text("93.00")
    cause.get_by_role("link", name="Cure: The offer has no approved product").click()

    # The cure's page knows the offer and what waits for it.
    row = grid_row(inside, "Brand New Suite").first
    expect(row).to_contain_text("93.00")
    row.get_by_role("button", name=re.compile("Open")).click()
    drawer = inside.get_by_role("dialog")
    choose(inside, "product", "Mail")
    button(drawer, "Approve").click()
    expect(inside.locator("[data-scope='toast'][data-part='root']").last).to_contain_text("3 lines, 93.00 EUR released")

    held = office.value(
        "select count(*) from billing.line_decision join billing.invoice_line using (line_id)"
        " where offer_id = 'OF-NEW' and outcome = 'held'"
    )
    assert held == 0
    ann.open('mapping/invoices?filter={"periods":["2026-10"]}')
    expect(tile(inside, "Awaiting approval")).to_contain_text("3 lines")


def test_two_people_edit_one_line(office: Pipeline, visits: Visits) -> None:
    office.bill(OCT, one_time("Migration", date(2026, 10, 5), 1, "480.00"))
    plan_waits(office)
    where = 'mapping/invoices?filter={"periods":["2026-10"]}'
    ann, bob = visits("admin"), visits("op")
    anns, bobs = ann.open(where), bob.open(where)
    line, lines = grid_row(anns, "Migration"), grid_row(bobs, "Migration")
    expect(line).to_be_visible()
    expect(lines).to_be_visible()

    def type_description(place: FrameLocator, row: Locator, text: str) -> None:
        cell(row, "invoice_description").dblclick()
        editor = place.get_by_role("textbox", name=re.compile("Description"))
        editor.fill(text)
        editor.press("Enter")

    type_description(anns, line, "Mailbox migration")
    expect(cell(line, "invoice_description")).to_contain_text("Mailbox migration")

    # Bob's page still shows the old value: what Ann typed is shown to him, and nothing is lost.
    type_description(bobs, lines, "Migration of mailboxes")
    dialog = bobs.get_by_role("dialog")
    expect(dialog).to_contain_text("Somebody else changed this line")
    expect(dialog).to_contain_text("Mailbox migration")
    expect(dialog).to_contain_text("admin")
    button(dialog, "Keep admin's value").click()
    expect(cell(lines, "invoice_description")).to_contain_text("Mailbox migration")
    assert office.value("select invoice_description from billing.override") == "Mailbox migration"

    # The second time he has seen it, and stores his.
    type_description(bobs, lines, "Migration of mailboxes")
    expect(cell(lines, "invoice_description")).to_contain_text("Migration of mailboxes")
    people = office.rows(
        "select changed_by, after ->> 'invoice_description' from audit.change"
        " where table_name = 'billing.override' order by change_id"
    )
    assert people == [("admin", "Mailbox migration"), ("op", "Migration of mailboxes")]


def test_a_customers_dispute_is_answered_by_why(office: Pipeline, visits: Visits) -> None:
    line_id = office.value("select min(line_id) from delivery.addition_line")
    number, addition = office.rows(
        "select invoice_number, connectwise_addition_id from reporting.invoice_line where line_id = %s", line_id
    )[0]
    viewer = visits("viewer")
    inside = viewer.open("mapping/invoices")
    inside.get_by_label("Search text").fill(number)
    row = grid_row(inside, number).first
    expect(row).to_be_visible()
    row.get_by_role("button", name=re.compile("Why")).click()
    story = inside.get_by_role("dialog")
    for words in (number, f"Addition {addition}", "What decided so", "What happened", "Automated Daily Sync", "proven"):
        expect(story).to_contain_text(re.compile(re.escape(words), re.IGNORECASE))
    expect(story).to_contain_text("10.00")

    # A viewer looks, and changes nothing.
    assert story.get_by_role("button", name=re.compile("Edit|Exclude")).count() == 0
    answer = viewer.context.request.patch(
        f"{viewer.site.url}/billing/api/lines/{line_id}",
        data={"version": 0, "unit_price": "0.01"},
        headers={"X-Billing-Request": "1", "Origin": viewer.site.url, "Sec-Fetch-Site": "same-origin"},
    )
    assert answer.status == 403
    assert office.rows("select * from billing.override") == []


def test_what_is_left_out_of_a_plan_stays_so_until_it_is_approved(office: Pipeline, visits: Visits) -> None:
    for customer in range(3):
        office.bill(OCT, one_time(f"n{customer}", OCT, 1, f"{customer + 1}.00"), customer=customer)
    plan_id = plan_waits(office)
    op = visits("op")
    inside = op.open(f"plan/{plan_id}?tab=items&sort=-amount")
    doubtful = inside.get_by_role("row").filter(has_text="3.00 EUR")
    doubtful.locator("label").click()
    expect(inside.get_by_text("left out of your approval")).to_be_visible()

    # A look at its line, and back; then the page is loaded again.
    doubtful.get_by_role("link", name="1 line").click()
    expect(inside.get_by_role("heading", name="Invoices")).to_be_visible()
    for again in (lambda: op.page.go_back(), lambda: op.open(f"plan/{plan_id}?tab=items")):
        again()
        expect(inside.get_by_text("left out of your approval")).to_be_visible()

    button(inside, "Approve the rest …").click()
    dialog = inside.get_by_role("dialog")
    expect(dialog).to_contain_text("3.00 EUR")
    dialog.get_by_text("Deliver it right away").click()  # not yet
    button(dialog, "Approve").click()
    expect(dialog).to_be_hidden()
    states = office.rows("select amount, state from delivery.plan_item where plan_id = %s order by amount", plan_id)
    assert states == [
        (Decimal("1.00"), "pending"), (Decimal("2.00"), "pending"), (Decimal("3.00"), "skipped"),
    ]  # fmt: skip


def test_what_was_deleted_in_connectwise_is_settled_and_billed_once(office: Pipeline, visits: Visits) -> None:
    deleted = office.value("select min(connectwise_addition_id) from delivery.addition")
    office.sandbox.delete_addition(deleted)
    office.set(automated_daily_sync="on")
    with pytest.raises(ProofError):
        office.night(SEP)

    # Who may not approve sees what is to do, and who may.
    viewed = visits("viewer").open("dashboard")
    expect(button(viewed, re.compile("^Settle: "))).to_have_attribute("aria-disabled", "true")

    op = visits("op")
    inside = op.open("dashboard")
    expect(inside.get_by_text("must be looked at in ConnectWise")).to_be_visible()
    inside.get_by_role("link", name="Settle them").click()
    card = inside.locator("#unsettled")
    expect(card).to_contain_text(f"Addition {deleted}")
    button(card, re.compile("^Settle: ")).click()
    dialog = inside.get_by_role("dialog")
    expect(dialog).to_contain_text("Choose what you found")
    dialog.get_by_role("radiogroup").get_by_text("AppXite's values shall stand").click()
    button(dialog, "AppXite's values shall stand").click()
    expect(dialog).to_be_hidden()
    expect(card).to_have_count(0)

    for _ in range(2):
        office.night(SEP)
    assert office.value("select count(*) from reporting.unsettled_addition") == 0
    assert office.rows("select state from delivery.addition where state <> 'delivered'") == []
    check(office.sandbox)
