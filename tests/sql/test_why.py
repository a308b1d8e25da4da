"""Why: the story of a line tells what was valid when it was decided, whatever was changed since."""

from __future__ import annotations

import io
import re
import time
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from rich.console import Console
from sql_world import JUNE, MAY, Customer, Line, World, monthly

from billing_sync.errors import ConfigurationError
from billing_sync.why import (
    AdditionStory,
    Entry,
    LineStory,
    addition_events,
    line_events,
    print_addition,
    print_invoice,
    print_line,
    why_addition,
    why_invoice,
    why_line,
)


def story_of(world: World, line: Line, revision: int = 1) -> LineStory:
    return why_line(world.connection, world.line_id(line, revision))


def entry(story: LineStory, role: str, key: str | None = None) -> Entry:
    (found,) = [one for one in story.entries if one.role == role and key in (None, one.row_key)]
    return found


def words(story: LineStory) -> list[str]:
    return [f"{event.who}: {event.what}" for event in line_events(story)]


def printed(print_it: Any, story: Any) -> str:
    text = io.StringIO()
    print_it(story, Console(file=text, width=250))
    return re.sub(r"\s+", " ", text.getvalue())


@pytest.fixture
def delivered(world: World) -> tuple[Customer, Line]:
    """A line that was delivered and proven; everything that decided is changed by others afterwards."""
    customer = world.customer()
    line = monthly(MAY)
    world.invoice(customer, line)
    world.night()
    return customer, line


def test_a_delivered_line_is_explained_by_what_was_valid_then(world: World, delivered: tuple[Customer, Line]) -> None:
    customer, line = delivered
    product = world.decision(line)["product_id"]
    world.execute("select set_config('billing.user', 'bob', false)")
    world.map_organization(customer.organization_id, world.company(name="Another"), by="bob")
    world.map_offer("offer", world.product(), by="bob")
    world.execute(
        "update billing.charge_type set display_name = 'Renamed', version = version + 1 where charge_type = 'CycleFee'"
    )
    world.setting("recurring_mode", "dated")

    story = story_of(world, line)

    company = entry(story, "organization")
    assert (company.person, company.version, company.value["company_id"]) == ("ann", 1, customer.company_id)
    assert company.value_now is not None
    assert (company.is_same_now, company.value_now["company"], company.changed_by) == (False, "Another", "bob")
    assert entry(story, "offer").value["product_id"] == product
    rule = entry(story, "rule")
    assert (rule.version, rule.value["display_name"], rule.is_default) == (1, "Subscription fee", True)
    assert rule.value_now is not None
    assert rule.value_now["display_name"] == "Renamed"
    mode = entry(story, "setting", "recurring_mode")
    assert (mode.value["value"], mode.is_same_now) == ("persistent", False)
    assert {one.role for one in story.changed_since} == {"organization", "offer", "rule", "setting"}
    assert "the line keeps what was delivered" in " ".join(words(story))


def test_an_open_line_says_that_the_next_run_decides_by_what_changed(world: World) -> None:
    customer = world.customer(prorates=True)
    line = monthly(MAY)
    world.invoice(customer, line)
    world.decide()
    world.map_offer("offer", world.product(), by="bob")

    story = story_of(world, line)

    assert story.outcome == "held"
    assert [one.reason_code for one in story.held] == ["agreement_prorates"]
    assert entry(story, "offer").version == 1
    assert "the next run decides by it" in " ".join(words(story))


def test_a_change_that_came_too_late_for_its_run_did_not_decide(world: World) -> None:
    line = monthly(MAY)
    world.invoice(world.customer(), line)
    world.decide()
    decided = world.decision(line)["product_id"]
    world.map_offer("offer", world.product(), by="bob")  # between the decision and its plan
    world.execute("update delivery.plan set created_at = clock_timestamp()")
    world.deliver()

    assert entry(story_of(world, line), "offer").value["product_id"] == decided


def test_the_way_from_appxite_to_the_proof_is_told_in_order(world: World, delivered: tuple[Customer, Line]) -> None:
    _, line = delivered
    story = story_of(world, line)

    told = words(story)
    steps = [
        "invoice INV-", "decided: company Company", "create the Addition, 20.00", f"plan {world.plan()} approved",
        "create: sent", "create Addition 9001: ConnectWise did it", "activate Addition 9001: ConnectWise did it",
        "Addition 9001 read back, equal to what was sent", "proven: 20.00 for 2026-05-01 to 2026-05-31",
    ]  # fmt: skip
    places = [next(number for number, text in enumerate(told) if step in text) for step in steps]
    assert places == sorted(places)
    assert [event.at for event in line_events(story)] == sorted(event.at for event in line_events(story))
    assert story.delivery is not None
    assert story.delivery.addition is not None
    assert story.delivery.addition["applied_payload"] == story.delivery.addition["payload"]
    assert story.delivery.plans[0].approved_by == "ann"
    assert story.delivery.lines[0].proven_run_id == world.run_id
    assert story.staged is not None
    assert story.staged["row"]["total_price"] == 20


def test_what_held_a_line_and_until_when_stays(world: World) -> None:
    customer = world.customer(prorates=True)
    line = monthly(MAY)
    world.invoice(customer, line)
    world.decide()
    since = world.value("select held_since from billing.held_reason")
    world.set_agreement(customer.agreement_id, prorates=False)
    world.night()

    (held,) = story_of(world, line).held

    assert (held.reason_code, held.held_since) == ("agreement_prorates", since)
    assert held.held_until is not None
    assert held.held_until > since
    assert any("no longer held: agreement_prorates" in text for text in words(story_of(world, line)))


def test_what_appxite_changed_before_and_after_delivery_is_told(world: World) -> None:
    line = monthly(MAY, unit_price=12)
    world.invoice(world.customer(), line)
    world.decide()
    line.price(10)
    world.night()
    line.price(9)
    world.night()

    story = story_of(world, line)

    told = " ".join(words(story))
    assert "the line changed: quantity" not in told
    assert "unit_price: 12 → 10" in told
    assert "the difference of -2.00 EUR" in told
    assert [one.total_price for one in story.revisions] == [Decimal("20.00"), Decimal("-2.00")]
    second = story_of(world, line, 2)
    assert second.outcome == "held"
    assert [one.reason_code for one in second.held] == ["changed_after_delivery"]


def test_the_selector_that_chose_the_company_is_told_as_it_was(world: World) -> None:
    customer = world.customer()
    second = world.company(name="Second")
    world.agreement(second)
    line = monthly(MAY, contract_id="c1")
    world.invoice(customer, line)
    for kind, source, company in (("contract", "c1", second), ("subscription", "elsewhere", customer.company_id)):
        world.insert(
            "mapping.company_selector", organization_id=customer.organization_id, kind=kind, source_id=source,
            company_id=company, decided_by="ann",
        )  # fmt: skip
    world.night()
    world.execute("delete from mapping.company_selector where kind = 'contract'")

    selector = entry(story_of(world, line), "selector")

    assert (selector.person, selector.part) == ("ann", {"kind": "contract", "source_id": "c1"})
    assert (selector.value["company"], selector.value_now) == ("Second", None)
    assert "company Second" in printed(print_line, story_of(world, line))


def test_the_agreement_rule_that_decided_is_told_in_its_version_of_then(world: World) -> None:
    customer = world.customer()
    world.insert("mapping.agreement_type", agreement_type_id=2, name="Projects")
    chosen = world.agreement(customer.company_id, agreement_type_id=2)
    world.insert("mapping.agreement_rule", agreement_rule="projects", position=1, agreement_type="Projects")
    line = monthly(MAY)
    world.invoice(customer, line)
    world.night()
    world.execute("update mapping.agreement_rule set agreement_type = 'Other', version = 2")

    rule = entry(story_of(world, line), "agreement rule")

    assert world.decision(line)["agreement_id"] == chosen
    assert (rule.version, rule.value["agreement_type"], rule.person) == (1, "Projects", "tests")
    assert rule.value_now is not None
    assert rule.value_now["agreement_type"] == "Other"


def test_the_variant_of_the_offer_that_chose_the_product_is_told(world: World) -> None:
    customer = world.customer()
    yearly, product = world.product(), world.product(identifier="YEARLY")
    line = monthly(MAY)
    world.invoice(customer, line)
    for frequency, number in (("Every 1 month", product), ("Every 12 months", yearly)):
        world.insert(
            "mapping.offer_variant_mapping", offer_id="offer", billing_frequency=frequency, product_id=number,
            state="approved", decided_by="ann",
        )  # fmt: skip
    world.night()

    assert entry(story_of(world, line), "offer variant").value["product"] == "YEARLY"


def test_an_addition_made_by_hand_that_a_person_dealt_with_is_told(
    world: World, delivered: tuple[Customer, Line]
) -> None:
    customer, line = delivered
    world.insert(
        "delivery.adoption", agreement_id=customer.agreement_id, connectwise_addition_id=77, subscription_id="sub",
        state="ignored", decided_by="bob", note="ends in May",
    )  # fmt: skip
    world.execute("update delivery.plan set created_at = clock_timestamp()")

    adopted = entry(story_of(world, line), "adoption")

    assert (adopted.person, adopted.value["state"], adopted.value["connectwise_addition_id"]) == ("bob", "ignored", 77)


def test_typed_values_are_told_with_version_and_person(world: World) -> None:
    line = monthly(MAY)
    world.invoice(world.customer(), line)
    world.decide()
    world.override(line, unit_price=Decimal("7.50"), reason="agreed")
    world.night()
    world.execute("delete from billing.override")

    typed = entry(story_of(world, line), "override")

    assert (typed.version, typed.person, typed.value["unit_price"]) == (1, "ann", Decimal("7.5"))
    assert (typed.value_now, typed.is_same_now) == (None, False)
    assert "User Updated: unit_price" in printed(print_line, story_of(world, line))


def test_an_excluded_line_says_by_whom(world: World) -> None:
    line = monthly(MAY)
    world.invoice(world.customer(), line)
    world.decide()
    world.override(line, is_excluded=True, reason="billed by hand")
    world.decide()

    story = story_of(world, line)

    assert story.outcome == "excluded"
    assert "excluded: ann: billed by hand" in " ".join(words(story))
    assert "billed by hand" in printed(print_line, story)


def test_an_addition_tells_its_lines_and_what_each_month_wrote(world: World) -> None:
    customer = world.customer()
    may, june = monthly(MAY), monthly(JUNE)
    world.invoice(customer, may)
    world.night()
    world.invoice(customer, june)
    world.night()

    story = why_addition(world.connection, "9001")

    assert [line.line_id for line in story.lines] == [world.line_id(may), world.line_id(june)]
    assert [plan.action for plan in story.plans] == ["create", "update"]
    assert story == why_addition(world.connection, story.delivery_key)
    of_may = [event.what for event in addition_events(story, of_line=world.line_id(may))]
    assert "update Addition 9001: sent" not in of_may
    assert "update Addition 9001: sent" in [event.what for event in addition_events(story)]
    text = printed(print_addition, story)
    assert "2026-06-01 to 2026-06-30" in text
    assert "invoiceDescription" in text


def test_an_addition_that_is_only_planned_has_a_story(world: World) -> None:
    line = monthly(MAY)
    world.invoice(world.customer(), line)
    world.decide()

    story = why_addition(world.connection, str(world.key(line)))

    assert (story.addition, [plan.plan_state for plan in story.plans]) == (None, ["proposed"])
    assert "only planned" in printed(print_addition, story)
    assert story_of(world, line).outcome == "awaiting approval"


def test_a_refusal_is_told_in_connectwises_words(world: World) -> None:
    line = monthly(MAY)
    world.invoice(world.customer(), line)
    world.connectwise.refuse = "the product [is] discontinued"
    world.decide()
    world.deliver()
    world.decide()

    text = printed(print_line, story_of(world, line))

    assert "refused_by_connectwise" in text
    assert "refused, certainly not applied: the product [is] discontinued" in text


def test_the_invoice_lists_each_line_with_its_fate(world: World) -> None:
    good, bad = monthly(MAY), monthly(MAY, subscription_id="other", charge_type="Mystery")
    invoice = world.invoice(world.customer(), good, bad)
    world.night()

    (story,) = why_invoice(world.connection, f"INV-{invoice.invoice_id}")

    assert [line["outcome"] for line in story.lines] == ["delivered", "held"]
    text = printed(print_invoice, story)
    assert "unknown_charge_type" in text
    assert "difference 0.00: delivered 20.00 + held 20.00" in text


def test_what_is_not_there_is_said(world: World) -> None:
    for ask, name in (
        (why_line, 4711),
        (why_addition, "4711"),
        (why_addition, "tests/no/such"),
        (why_invoice, "INV-0"),
    ):
        with pytest.raises(ConfigurationError):
            ask(world.connection, name)  # type: ignore[operator]


def test_an_id_that_several_agreements_have_is_not_guessed(world: World) -> None:
    for subscription in ("one", "two"):
        world.invoice(world.customer(), monthly(MAY, subscription_id=subscription))
    world.night()
    world.execute("update delivery.addition set connectwise_addition_id = 9001")

    with pytest.raises(ConfigurationError, match="Several agreements have an Addition 9001"):
        why_addition(world.connection, "9001")


def test_each_table_of_decisions_keeps_its_history(world: World) -> None:
    without = world.rows(
        """
        select distinct columns.table_schema || '.' || columns.table_name as name
        from information_schema.columns as columns
        join information_schema.tables as tables using (table_schema, table_name)
        where columns.table_schema in ('mapping', 'billing') and tables.table_type = 'BASE TABLE'
            and columns.column_name in ('version', 'decided_by', 'allowed_by', 'setting_key')
            -- Which version of the typed values was previewed; what was decided stands in billing.override.
            and columns.table_name <> 'bulk_change_line'
            and not exists (
                select from information_schema.triggers as trigger
                where trigger.event_object_schema = columns.table_schema
                    and trigger.event_object_table = columns.table_name
                    and trigger.action_statement ~ '(record_change|refuse_change)'
            )
        """
    )
    assert without == [], "create trigger history ... audit.record_change, or the past cannot be told"


def test_analysts_may_ask_why(world: World, delivered: tuple[Customer, Line]) -> None:
    line_id = world.line_id(delivered[1])
    with world.connection.transaction():
        world.execute("set local role billing_analyst")
        assert world.value("select reporting.why_line(%s) ->> 'outcome'", line_id) == "delivered"
        assert world.value("select reporting.why_addition('none') is null")


def test_one_call_is_quick_among_many_lines(world: World) -> None:
    customer = world.customer()
    line = monthly(MAY)
    world.invoice(customer, line, day=date(2026, 5, 2))
    world.night()
    many(world, 20_000)
    world.execute("analyze")

    line_id = world.line_id(line)
    why_line(world.connection, line_id)
    started = time.perf_counter()
    for _ in range(5):
        why_line(world.connection, line_id)
    assert (time.perf_counter() - started) / 5 < 0.2


def many(world: World, count: int) -> None:
    """Lines, decisions, Additions, attempts, reasons, changes and log entries of many other lines."""
    world.execute(
        """
        with line as (
            insert into billing.invoice_line (line_key, invoice_id, subscription_id, offer_id, charge_type, quantity,
                unit_price, total_price, currency, content_hash, first_run_id)
            select 'many/' || number, (select min(invoice_id) from billing.invoice), 'many', 'offer', 'CycleFee', 1,
                1, 1, 'EUR', 'hash', (select min(run_id) from audit.run)
            from generate_series(1, %s) as number
            returning *
        ),
        ledger as (
            insert into delivery.addition (delivery_key, marker, agreement_id, company_id, is_persistent, state,
                payload, payload_hash, plan_id)
            select line_key, line_key, agreement_id, company_id, false, 'delivered', '{}', '', plan_id
            from line cross join (select * from delivery.addition limit 1) as one (k, m, agreement_id, company_id)
            returning *
        ),
        attempt as (
            insert into delivery.attempt (delivery_key, plan_id, operation, outcome, worker)
            select delivery_key, plan_id, 'create', outcome, 'worker'
            from ledger cross join unnest(array['invoke', 'ok', 'invoke', 'ok']) as outcome
        ),
        change as (
            insert into audit.change (table_name, row_key, changed_by, before)
            select 'billing.held_reason', line_id::text, 'many', '{}' from line
        )
        insert into audit.log_entry (level, code, message, subject)
        select 'INFO', 'many', 'many', jsonb_build_object('line_key', line_key) from line
        """,
        count,
    )
    world.execute(
        """
        insert into delivery.addition_line (line_id, delivery_key, plan_id, cycle_start, cycle_end, amount)
        select line.line_id, ledger.delivery_key, ledger.plan_id, '2026-05-01', '2026-05-31', 1
        from billing.invoice_line as line join delivery.addition as ledger on ledger.delivery_key = line.line_key
        """
    )


def test_stories_of_everything_are_typed(world: World, delivered: tuple[Customer, Line]) -> None:
    _, line = delivered
    story = story_of(world, line)
    assert isinstance(story.delivery, AdditionStory)
    assert isinstance(story.delivery.lines[0].amount, Decimal)
    assert isinstance(story.delivery.lines[0].cycle_start, date)
    assert story.as_of.tzinfo is not None
