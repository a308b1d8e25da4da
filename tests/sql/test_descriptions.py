"""What stands on the customer's invoice: the template, what is left out, and text that ConnectWise would not take."""

from __future__ import annotations

import unicodedata
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sql_world import JULY, JUNE, MAY, Customer, Line, World, month_end, monthly

from billing_sync.db import Connection, run_sql_file
from billing_sync.decide import APPLY_RULES
from billing_sync.errors import ConfigurationError
from billing_sync.settings import get_setting, set_setting

generated = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
DEFAULT = "{subscription} - {charge_type} - {period} - {quantity_and_price}"
LONGEST = 5940


def text_of(functions: Connection, function: str, *values: object) -> str:
    marks = ", ".join(["%s"] * len(values))
    row = functions.execute(f"select {function}({marks})", values).fetchone()  # type: ignore[call-overload]
    assert row is not None
    return str(row[0])


def described(world: World, line: Line) -> str:
    world.invoice(world.customer(), line)
    world.decide()
    return str(world.decision(line)["invoice_description"])


# -- the template -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "has_period", "has_price", "expected"),
    [
        (DEFAULT, True, True, DEFAULT),
        (DEFAULT, False, True, "{subscription} - {charge_type} - {quantity_and_price}"),
        (DEFAULT, True, False, "{subscription} - {charge_type} - {period}"),
        (DEFAULT, False, False, "{subscription} - {charge_type}"),
        ("{period}: {subscription}", False, True, "{subscription}"),
        ("{subscription} ({period}), {charge_type}", False, True, "{subscription}, {charge_type}"),
        ("{subscription} ({period}, {quantity_and_price})", False, True, "{subscription} ({quantity_and_price})"),
        ("{subscription} ({period}, {quantity_and_price})", True, False, "{subscription} ({period})"),
        ("{subscription} ({period}, {quantity_and_price})", False, False, "{subscription}"),
        ("{subscription} [{quantity_and_price}] / {charge_type}", True, False, "{subscription} / {charge_type}"),
        ("{charge_type} | {period} | {subscription}", False, False, "{charge_type} | {subscription}"),
        ("{period}", False, False, ""),
    ],
)
def test_an_empty_part_leaves_no_separator(
    functions: Connection, template: str, has_period: bool, has_price: bool, expected: str
) -> None:
    assert text_of(functions, "billing.description_template", template, has_period, has_price) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (DEFAULT, "Cloud Suite - Usage - 2026-05-01 to 2026-05-31 - 3 x 3.33333333"),
        ("{charge_type}: {subscription} ({period})", "Usage: Cloud Suite (2026-05-01 to 2026-05-31)"),
        ("{period}", "2026-05-01 to 2026-05-31"),
    ],
)
def test_the_setting_words_the_description(world: World, template: str, expected: str) -> None:
    world.setting("description_template", template)
    line = monthly(MAY, charge_type="UsageFee", quantity=3, unit_price=Decimal("3.33333333"), total=Decimal("10.00"))

    assert described(world, line) == expected


def test_a_description_is_never_empty(world: World) -> None:
    world.setting("description_template", "{period}")  # which a persistent Addition does not have

    assert described(world, monthly(MAY)) == "Cloud Suite"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{subscription} {customer}", "and not {customer}"),
        ("{Subscription}", "and not {Subscription}"),
        ("{}", "and not {}"),
        ("Cloud services", "one or more of the placeholders"),
        ("{subscription} - {", "one or more of the placeholders"),
        ("{subscription}\n{period}", "on one line"),
        ("{subscription}" + "x" * 500, "at most 500"),
    ],
)
def test_a_template_is_checked_when_it_is_set(world: World, template: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        set_setting(world.connection, "description_template", template)

    assert words in str(refused.value)
    assert "{subscription}, {charge_type}, {period}, {quantity_and_price}" in str(refused.value)
    assert get_setting(world.connection, "description_template") == DEFAULT


# -- text -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "offer", "expected"),
    [
        ("Two\r\nlines\tand more", None, "Two lines and more"),
        ("  wide \u00a0\u3000 space ", None, "wide space"),
        ("line\u2028separator\u0085next", None, "line separator next"),
        ("zero\u200bwidth\u2060joined\ufeff", None, "zerowidthjoined"),
        ("\u202eevil\u202c \u2067right\u2069\u200f", None, "evil right"),
        ("bell\x07 and \x1b[31mred", None, "bell and [31mred"),
        ("", "Offer name", "Offer name"),
        ("\u200b\n", "Offer name", "Offer name"),
        (None, None, "Cloud services"),
        ("{period} {charge_type}", None, "{period} {charge_type}"),
        ("Łódź 100% \\1 \\& $1", None, "Łódź 100% \\1 \\& $1"),
    ],
)
def test_the_subscription_is_one_clean_line_or_the_offer(
    world: World, name: str | None, offer: str | None, expected: str
) -> None:
    line = monthly(MAY, name=name)
    world.invoice(world.customer(), line)
    world.decide()
    world.execute("update billing.invoice_line set offer_name = %s", offer)
    run_sql_file(world.connection, APPLY_RULES, world.run_id)

    assert world.decision(line)["invoice_description"] == f"{expected} - Subscription fee"


@generated
@given(text=st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=60))
def test_no_text_breaks_the_line_or_hides_anything(functions: Connection, text: str) -> None:
    cleaned = text_of(functions, "billing.clean_text", text)

    assert not [one for one in cleaned if unicodedata.category(one) in ("Cc", "Zl", "Zp")]
    assert not set(cleaned) & set(
        "\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
    )
    assert cleaned == " ".join(cleaned.split())
    assert text_of(functions, "billing.clean_text", cleaned) == cleaned
    assert [one for one in cleaned if one.isalnum()] == [one for one in text if one.isalnum()]


@generated
@given(
    text=st.text(st.sampled_from("ab \U0001f600\u00e9"), max_size=60).map(lambda one: one * 3),
    longest=st.integers(2, 120),
)
def test_a_text_is_cut_to_what_fits_as_connectwise_counts(functions: Connection, text: str, longest: int) -> None:
    def units(one: str) -> int:
        return len(one.encode("utf-16-le")) // 2

    cut = text_of(functions, "billing.shorten", text, longest)

    assert units(cut) <= longest
    if units(text) <= longest:
        assert cut == text
    else:
        assert cut.endswith("…")
        assert text.startswith(cut[:-1])


@pytest.mark.parametrize("carrier", ["serial_number", "description"])
@pytest.mark.parametrize("letter", ["x", "\U0001f600"])
def test_the_longest_description_fits_with_its_marker(world: World, carrier: str, letter: str) -> None:
    world.setting("environment", "a" * 12)
    world.setting("marker_carrier", carrier)
    customer = world.customer()
    line = monthly(MAY)
    world.invoice(customer, line)
    world.decide()
    world.override(line, invoice_description=letter * 7000 + "\nend")

    world.night()

    stored = world.connectwise.only(customer.agreement_id)["invoiceDescription"]
    assert len(stored.encode("utf-16-le")) // 2 <= 6000
    assert len(world.decision(line)["invoice_description"].encode("utf-16-le")) // 2 <= LONGEST
    assert ("…" in stored, "\n" in stored) == (True, False)


def test_a_typed_description_of_nothing_is_no_description(world: World) -> None:
    line = monthly(MAY)
    world.invoice(world.customer(), line)
    world.decide()
    world.override(line, invoice_description=" \u200b\n")

    world.decide()

    assert world.decision(line)["invoice_description"] == "Cloud Suite - Subscription fee"
    assert "invoice_description" not in world.decision(line)["rules"]["user_updated"]


# -- another template later -------------------------------------------------------------------------------------------


def two_templates(world: World, *, invoiced: bool) -> tuple[Customer, Line, Line]:
    """May is delivered by the old template; the new one is there when June comes."""
    customer = world.customer()
    may, june = monthly(MAY), monthly(JUNE)
    world.invoice(customer, may)
    world.night()
    if invoiced:
        world.invoiced_until(customer.agreement_id, JUNE)
    world.setting("description_template", "{charge_type}: {subscription}")
    world.invoice(customer, june)
    return customer, may, june


def test_a_new_template_writes_nothing_about_what_is_delivered(world: World) -> None:
    customer, may, _ = two_templates(world, invoiced=False)
    world.invoices.pop()
    before = dict(world.connectwise.only(customer.agreement_id))

    counts = world.night(MAY)

    assert counts.writes == 0
    assert world.connectwise.only(customer.agreement_id) == before
    assert world.decision(may)["invoice_description"] == "Cloud Suite - Subscription fee"


def test_a_new_template_begins_a_new_addition_while_an_earlier_cycle_is_open(world: World) -> None:
    customer, may, june = two_templates(world, invoiced=False)

    world.night()

    assert world.key(may) != world.key(june)
    descriptions = {
        record["effectiveDate"][:10]: record["invoiceDescription"]
        for record in world.connectwise.additions_of[customer.agreement_id].values()
    }
    assert descriptions == {
        "2026-05-01": "Cloud Suite - Subscription fee", "2026-06-01": "Subscription fee: Cloud Suite",
    }  # fmt: skip
    for month in (MAY, JUNE):
        assert world.connectwise.billed(customer.agreement_id, month, month_end(month)) == Decimal("20.00")


def test_a_new_template_changes_the_addition_in_place_once_its_cycles_are_invoiced(world: World) -> None:
    customer, may, june = two_templates(world, invoiced=True)

    counts = world.night()

    assert (counts.created, counts.updated) == (0, 1)
    assert world.key(may) == world.key(june)
    assert world.connectwise.only(customer.agreement_id)["invoiceDescription"] == "Subscription fee: Cloud Suite"


def test_a_new_template_splits_no_group_of_lines_that_wait(world: World) -> None:
    customer = world.customer()
    lines = [monthly(period) for period in (MAY, JUNE, JULY)]
    world.invoice(customer, lines[0])
    world.invoice(customer, lines[1])
    world.decide()
    world.setting("description_template", "{charge_type}: {subscription}")
    world.invoice(customer, lines[2])

    assert world.night().created == 1
    assert len({world.key(line) for line in lines}) == 1
