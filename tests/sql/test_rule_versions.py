"""Rules apply when lines are loaded: a line keeps the version it got, until somebody applies rules again."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from psycopg.errors import RaiseException
from sql_world import JUNE, MAY, Line, World, month_end, monthly

from billing_sync.errors import ConfigurationError
from billing_sync.rules import apply_rules_again, export_rules, import_rules, read_rules_file
from billing_sync.settings import set_setting


def usage(period: date = MAY, **values: object) -> Line:
    return monthly(period, **{"charge_type": "UsageFee", "subscription_id": f"s-{period}", **values})


def change_rules(world: World, **values: object) -> None:
    world.update("billing.charge_type", "charge_type", "UsageFee", **values)


def version_of(world: World, line: Line) -> int:
    return int(
        world.value("select charge_type_version from reporting.invoice_line where line_id = %s", world.line_id(line))
    )


def test_a_later_change_of_the_rules_leaves_loaded_lines_and_counts_for_new_ones(world: World) -> None:
    customer = world.customer()
    old, new = usage(), usage(JUNE)
    world.invoice(customer, old)
    world.decide()
    change_rules(world, charge_start_rule="last_day_of_charge_month", display_name="Consumption")
    world.invoice(customer, new)

    world.decide()

    assert [version_of(world, line) for line in (old, new)] == [1, 2]
    assert [world.decision(line)["effective_date"] for line in (old, new)] == [MAY, month_end(JUNE)]
    assert "Usage" in world.decision(old)["invoice_description"]
    assert "Consumption" in world.decision(new)["invoice_description"]


def test_held_lines_are_stamped_as_well(world: World) -> None:
    line = usage(offer_id="nobody mapped it")
    world.invoice(world.customer(), line)
    world.decide()
    change_rules(world, charge_start_rule="last_day_of_charge_month")
    world.map_offer("nobody mapped it", world.product())

    world.decide()

    assert world.decision(line)["effective_date"] == MAY


def test_a_line_gets_its_version_when_its_charge_type_becomes_known(world: World) -> None:
    line = monthly(MAY, charge_type="Mystery")
    world.invoice(world.customer(), line)
    world.decide()
    before = world.decision(line)["charge_type_version_id"]
    world.insert("billing.charge_type", charge_type="Mystery", display_name="Mystery", is_recurring=False)
    world.decide()
    world.update("billing.charge_type", "charge_type", "Mystery", charge_start_rule="last_day_of_charge_month")
    world.decide()

    assert before is None
    assert (version_of(world, line), world.decision(line)["effective_date"]) == (1, MAY)


def test_a_line_that_changes_its_charge_type_in_appxite_gets_the_rules_of_the_new_one(world: World) -> None:
    line = usage()
    world.invoice(world.customer(), line)
    world.decide()
    world.update("billing.charge_type", "charge_type", "ItemFee", charge_start_rule="last_day_of_charge_month")
    line.charge_type = "ItemFee"

    world.decide()

    assert (version_of(world, line), world.decision(line)["effective_date"]) == (2, month_end(MAY))


@pytest.mark.parametrize("chosen", ["period", "organization", "line"])
def test_rules_are_applied_again_to_the_chosen_undelivered_lines_only(world: World, chosen: str) -> None:
    customer, other = world.customer(), world.customer()
    delivered = usage(subscription_id="delivered")
    world.invoice(customer, delivered)
    world.night()
    line, elsewhere = usage(), usage(JUNE)
    world.invoice(customer, line)
    world.invoice(other, elsewhere)
    world.decide()
    change_rules(world, charge_start_rule="last_day_of_charge_month")
    change_rules(world, charge_end_rule="last_day_of_charge_month")
    frozen = world.decision(delivered)
    how = {
        "period": {"period": MAY},
        "organization": {"organization_id": customer.organization_id},
        "line": {"line_ids": [world.line_id(line), world.line_id(delivered)]},
    }[chosen]

    changed = apply_rules_again(world.connection, person="ann", **how)  # type: ignore[arg-type]

    assert changed == 1
    assert "ann applied rules again" in world.value(
        "select message from audit.log_entry where code = 'rules_applied_again'"
    )
    world.night()
    assert [version_of(world, one) for one in (delivered, line, elsewhere)] == [1, 3, 1]
    assert world.decision(line)["effective_date"] == month_end(MAY)
    assert world.decision(elsewhere)["effective_date"] == JUNE
    assert world.decision(delivered) == frozen
    assert apply_rules_again(world.connection, person="ann", **how) == 0  # type: ignore[arg-type]


def test_a_plan_made_before_does_not_deliver_lines_that_rules_were_applied_to_again(world: World) -> None:
    customer = world.customer()
    line = usage()
    world.invoice(customer, line)
    waiting = world.decide()
    change_rules(world, charge_start_rule="last_day_of_charge_month")
    apply_rules_again(world.connection, person="ann", period=MAY)

    counts = world.deliver(waiting)

    assert (counts.writes, world.is_carried(line)) == (0, False)
    world.night()
    assert world.connectwise.only(customer.agreement_id)["effectiveDate"][:10] == "2026-05-31"


def test_it_must_be_said_which_lines(world: World) -> None:
    with pytest.raises(ConfigurationError, match="Say which lines"):
        apply_rules_again(world.connection, person="ann")
    with pytest.raises(ConfigurationError, match="There is no line 4711"):
        apply_rules_again(world.connection, person="ann", line_ids=[4711])


# -- versions ---------------------------------------------------------------------------------------------------------


def test_every_version_is_kept_with_who_and_when_and_cannot_be_rewritten(world: World) -> None:
    change_rules(world, charge_start_rule="invoice_date")
    change_rules(world, charge_start_rule="invoice_date", version=17)  # nothing changes, and nobody counts by hand
    change_rules(world, display_name="Consumption", version=17)

    kept = world.rows(
        "select version, display_name, charge_start_rule, decided_by from billing.charge_type_version"
        " where charge_type = 'UsageFee' order by version"
    )
    assert [tuple(one.values())[:3] for one in kept] == [
        (1, "Usage", "as_invoiced"), (2, "Usage", "invoice_date"), (3, "Consumption", "invoice_date"),
    ]  # fmt: skip
    assert kept[-1]["decided_by"] == "tests"
    with pytest.raises(RaiseException, match="append-only"):
        world.execute("update billing.charge_type_version set display_name = 'x'")


def test_a_charge_type_that_is_made_again_goes_on_counting(world: World) -> None:
    world.execute("delete from billing.charge_type where charge_type = 'UsageFee'")
    world.insert("billing.charge_type", charge_type="UsageFee", display_name="Usage", is_recurring=False)

    assert world.value("select version from billing.charge_type where charge_type = 'UsageFee'") == 2


def test_rules_travel_by_file_with_their_tax(world: World, tmp_path: Path) -> None:
    path = tmp_path / "rules.csv"
    exported = export_rules(world.connection)
    exported.loc[exported["charge_type"] == "UsageFee", "taxable"] = "off"
    exported.to_csv(path, index=False)

    first = import_rules(world.connection, read_rules_file(path), person="ann")
    second = import_rules(world.connection, read_rules_file(path), person="ann")
    exported.drop(columns="taxable").to_csv(path, index=False)
    without = import_rules(world.connection, read_rules_file(path), person="ann")

    assert (first, second, without) == (1, 0, 0)  # what is not in the file stays as it is
    assert world.rows(
        "select version, taxable from billing.charge_type_version where charge_type = 'UsageFee' order by version"
    ) == [{"version": 1, "taxable": None}, {"version": 2, "taxable": "off"}]
    exported["taxable"] = "maybe"
    exported.to_csv(path, index=False)
    with pytest.raises(ConfigurationError, match="taxable 'maybe' is none of"):
        read_rules_file(path)


# -- where each value comes from --------------------------------------------------------------------------------------


def sources(world: World, line: Line) -> dict[str, str]:
    found = world.value("select value_sources from reporting.invoice_line where line_id = %s", world.line_id(line))
    assert isinstance(found, dict)
    return found


def test_it_is_said_of_each_value_where_it_comes_from(world: World) -> None:
    change_rules(world, charge_end_rule="last_day_of_invoice_month")
    line = usage(quantity=3, unit_price=Decimal("3.33333333"), total=Decimal("10.00"))
    world.invoice(world.customer(), line)
    world.decide()
    loaded = sources(world, line)
    world.override(line, effective_date=MAY.replace(day=2), product_id=world.product(), invoice_description="As agreed")

    world.night()

    assert loaded == {
        "effective_date": "as invoiced", "cancelled_date": "System Updated", "quantity": "as invoiced",
        "unit_price": "System Updated", "invoice_description": "System Updated", "agreement": "System Updated",
        "product": "System Updated",
    }  # fmt: skip
    assert sources(world, line) == loaded | {
        "effective_date": "User Updated", "invoice_description": "User Updated", "product": "User Updated",
    }  # fmt: skip


def test_a_typed_agreement_quantity_and_price_are_user_updated_and_stay_so(world: World) -> None:
    customer = world.customer()
    line = usage()
    world.invoice(customer, line)
    world.decide()
    chosen = world.agreement(customer.company_id, agreement_type_id=None)
    world.override(line, agreement_id=chosen, quantity=4, unit_price=5, cancelled_date=MAY.replace(day=9))
    world.night()
    world.execute("delete from billing.override")  # what is delivered keeps its history

    found = sources(world, line)

    assert {name for name, source in found.items() if source == "User Updated"} == {
        "agreement", "quantity", "unit_price", "cancelled_date"
    }  # fmt: skip


def test_what_is_not_decided_has_no_source(world: World) -> None:
    customer = world.customer()
    world.agreement(customer.company_id)
    line = usage(offer_id="nobody mapped it")
    world.invoice(customer, line)

    world.decide()

    assert set(sources(world, line)) == {
        "effective_date",
        "cancelled_date",
        "quantity",
        "unit_price",
        "invoice_description",
    }


# -- overrides count by themselves ------------------------------------------------------------------------------------


def test_the_version_of_an_override_counts_by_itself_even_when_it_is_made_again(world: World) -> None:
    line = usage()
    world.invoice(world.customer(), line)
    world.decide()
    line_id = world.line_id(line)
    upsert = """
        insert into billing.override (line_id, quantity) values (%s, %s)
        on conflict (line_id) do update set quantity = excluded.quantity
        """
    version = "select version from billing.override"

    world.execute(upsert, line_id, 2)
    first = world.value(version)
    world.execute(upsert, line_id, 3)
    second = world.value(version)
    world.execute(upsert, line_id, 3)
    world.execute("update billing.override set version = 99")
    same = world.value(version)
    world.execute("delete from billing.override")
    world.execute(upsert, line_id, 3)
    again = world.value(version)

    assert (first, second, same, again) == (1, 2, 2, 3)


def test_who_changed_an_override_last_is_noted(world: World) -> None:
    line = usage()
    world.invoice(world.customer(), line)
    world.decide()
    world.override(line, quantity=2)
    with world.connection.transaction():
        world.execute("select set_config('billing.user', 'bert', true)")
        world.execute("update billing.override set quantity = 5")

    assert world.value("select decided_by from billing.override") == "bert"
    set_setting(world.connection, "late_lines", "hold")  # another table's changes do not count
    assert world.value("select version from billing.override") == 2
