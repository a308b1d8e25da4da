"""Simulations: the same decisions with a changed configuration, in a scratch database; the real one is only read."""

from __future__ import annotations

import csv
import io
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from rich.console import Console
from sql_world import JUNE, MAY, Customer, Line, World, differences_between, month_end, monthly

from billing_sync import simulate as simulation_module
from billing_sync.agreement_rules import COLUMNS as AGREEMENT_RULE_COLUMNS
from billing_sync.db import SQL_DIR
from billing_sync.errors import ConfigurationError
from billing_sync.mappings import export_mappings, import_mappings, read_mapping_file
from billing_sync.rules import export_rules, import_rules, read_rules_file
from billing_sync.settings import SETTINGS
from billing_sync.simulate import (
    DECISIONS,
    NOT_SIMULATED,
    Changes,
    Money,
    Simulation,
    print_simulation,
    scratch_database,
    simulate,
)

APRIL = date(2026, 4, 1)
DECIDED = (
    "outcome", "amount", "company_id", "product_id", "agreement_id", "effective_date", "cancelled_date", "quantity",
    "unit_price", "invoice_description", "excluded_by",
)  # fmt: skip


def scratch_databases(world: World) -> list[str]:
    rows = world.rows("select datname from pg_database where datname like 'billing\\_simulation\\_%%'")
    return [row["datname"] for row in rows]


def printed(found: Simulation) -> str:
    text = io.StringIO()
    print_simulation(found, Console(file=text, width=250))
    return re.sub(r"\s+", " ", text.getvalue())


def edited(path: Path, frame: Any, key: str, **values: str) -> Path:
    """A file as an export writes it, with the row of `key` changed."""
    frame = frame.astype("object").fillna("")
    for name, value in values.items():
        frame.loc[frame.iloc[:, 0] == key, name] = value
    frame.to_csv(path, index=False)
    return path


@pytest.fixture
def two_customers(world: World) -> Iterator[tuple[World, Customer, Customer, Line]]:
    """20.00 and 0.00 delivered to one customer; 20.00 of another held, since its agreement prorates."""
    good, held = world.customer(), world.customer(prorates=True)
    free = monthly(MAY, unit_price=0, subscription_id="free")
    world.invoice(good, monthly(MAY), free)
    world.invoice(held, monthly(MAY, subscription_id="other"))
    world.night()
    yield world, good, held, free
    assert scratch_databases(world) == []


def test_the_difference_is_told_per_customer_beside_what_was_really_delivered(
    two_customers: tuple[World, Customer, Customer, Line], tmp_path: Path
) -> None:
    world, good, held, free = two_customers
    rules = edited(tmp_path / "rules.csv", export_rules(world.connection), "CycleFee", display_name="Licence")
    offers = edited(tmp_path / "offers.csv", export_mappings(world.connection, "offers"), "offer", state="excluded")
    lines = tmp_path / "lines.csv"
    before = world.snapshot()

    found = simulate(world.dsn, MAY, MAY, Changes({"zero_amounts": "skip"}, rules, {"offers": offers}), csv=lines)

    assert differences_between(before, world.snapshot()) == {}
    first, second = found.customers
    assert (first.organization_id, first.delivered, first.is_as_in_the_past) == (good.organization_id, 20, True)
    assert (first.before, first.after) == (
        Money(Decimal(20), Decimal(0), Decimal(0)),
        Money(Decimal(0), Decimal(0), Decimal(20)),
    )
    assert (first.difference, first.changed_lines, first.lines) == (-20, 2, 2)
    assert second.organization_id == held.organization_id
    assert (second.before.held, second.after.excluded, second.delivered) == (20, 20, 0)
    assert second.reasons == ["1 x held (agreement_prorates) → excluded (simulation: offer excluded)"]
    assert world.line_id(free) in [line.line_id for line in found.lines]
    text = printed(found)
    assert "20.00 → 0.00" in text
    assert "-20.00" in text
    with lines.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["outcome_after"] for row in rows] == ["excluded"] * 3


def test_a_baseline_that_is_not_the_past_is_marked(two_customers: tuple[World, Customer, Customer, Line]) -> None:
    world, good, _, _ = two_customers
    world.set_agreement(good.agreement_id, currency="USD")

    found = simulate(world.dsn, MAY, MAY, Changes({"zero_amounts": "skip"}))

    first = next(one for one in found.customers if one.organization_id == good.organization_id)
    assert (first.before.deliver, first.delivered, first.is_as_in_the_past) == (0, 20, False)
    assert "20.00 ≠" in printed(found)


def test_earlier_cycles_are_open_again_and_later_ones_are_as_they_are(world: World) -> None:
    customer = world.customer()
    may, june = monthly(MAY), monthly(JUNE)
    late = Line(start=APRIL, end=month_end(APRIL), subscription_id="late", charge_type="UsageFee")
    world.invoice(customer, may, late)
    world.invoice(customer, june)
    world.decide()
    world.invoiced_until(customer.agreement_id, date(2026, 9, 1))

    found = simulate(world.dsn, MAY, JUNE, Changes({"late_lines": "hold"}))

    assert [(line.line_id, line.change) for line in found.lines] == [
        (world.line_id(late), "deliver → held (late_line)")
    ]


def test_a_past_total_is_compared_with_the_periods_before_it(world: World) -> None:
    customer = world.customer()
    for month in (3, 4):
        world.invoice(customer, monthly(date(2026, month, 1), unit_price=100))
    big = monthly(MAY, unit_price=4000)
    world.invoice(customer, big)
    world.decide()

    found = simulate(world.dsn, MAY, MAY, Changes({"bound_customer_factor": "off"}))

    assert [line.change for line in found.lines] == ["held (customer_total_unusual) → deliver"]
    assert found.periods == [MAY]


def test_a_credit_is_judged_by_the_charges_of_earlier_periods(world: World) -> None:
    customer = world.customer()
    world.invoice(customer, monthly(MAY))
    credit = monthly(MAY, unit_price=-5, charge_type="Correction")
    world.invoice(customer, credit, day=JUNE)
    world.night()
    assert world.is_carried(credit)

    found = simulate(world.dsn, JUNE, JUNE, Changes({"negative_additions": "hold"}))

    (one,) = found.customers
    assert (one.before.deliver, one.delivered, one.after.held) == (-10, -10, -10)


def test_selectors_and_agreement_rules_are_simulated(world: World, tmp_path: Path) -> None:
    customer = world.customer()
    second = world.company()
    elsewhere = world.agreement(second)
    world.insert("mapping.agreement_type", agreement_type_id=2, name="Projects")
    projects = world.agreement(second, agreement_type_id=2)
    line = monthly(MAY)
    world.invoice(customer, line)
    world.decide()
    selectors = tmp_path / "selectors.csv"
    selectors.write_text(
        f"organization_id,kind,source_id,company_id,note\n{customer.organization_id},offer,offer,{second},\n"
    )
    rules = tmp_path / "agreement_rules.csv"
    rules.write_text(f"{','.join(AGREEMENT_RULE_COLUMNS)}\nprojects,,,,Projects,,,\n")

    for changes, agreement_id in ((Changes(selectors=selectors), elsewhere),
                                  (Changes(selectors=selectors, agreement_rules=rules), projects)):  # fmt: skip
        lines = tmp_path / "lines.csv"
        found = simulate(world.dsn, MAY, MAY, changes, csv=lines)
        assert [one.change for one in found.lines] == ["another company, another agreement"]
        with lines.open(encoding="utf-8") as file:
            assert [row["agreement_id_after"] for row in csv.DictReader(file)] == [str(agreement_id)]


# -- it cannot write ---------------------------------------------------------------------------------------------------


def test_the_real_database_is_open_for_reading_only(world: World) -> None:
    with (
        simulation_module._snapshot_of(world.dsn) as real,
        pytest.raises(psycopg.errors.ReadOnlySqlTransaction),
    ):
        real.execute("update billing.setting set value = null")


def test_every_write_to_the_real_database_would_fail(two_customers: tuple[World, Customer, Customer, Line]) -> None:
    world = two_customers[0]
    tables = world.rows(
        "select format('%%I.%%I', schemaname, tablename) as name from pg_tables"
        " where schemaname in ('staging', 'mapping', 'billing', 'delivery', 'audit', 'public')"
    )
    world.execute(
        "create function public.refuse() returns trigger language plpgsql as $$ begin raise 'a write'; end $$"
    )
    try:
        for table in tables:
            world.execute(
                f"create trigger refused before insert or update or delete or truncate on {table['name']}"
                " for each statement execute function public.refuse()"
            )
        with pytest.raises(psycopg.errors.RaiseException, match="a write"):
            world.setting("zero_amounts", "skip")
        found = simulate(world.dsn, MAY, MAY, Changes({"zero_amounts": "skip"}))
        assert len(found.lines) == 1
    finally:
        world.execute("drop function public.refuse() cascade")


def test_it_works_beside_a_run_that_holds_its_locks(two_customers: tuple[World, Customer, Customer, Line]) -> None:
    world = two_customers[0]
    with psycopg.connect(world.dsn) as run:
        run.execute("select pg_advisory_xact_lock(hashtext('billing.decide'))")
        run.execute("update billing.line_decision set outcome = 'held'")
        run.execute("update mapping.offer_mapping set version = version + 1")
        run.execute("lock table billing.invoice_line, delivery.addition in row exclusive mode")

        found = simulate(world.dsn, MAY, MAY, Changes({"zero_amounts": "skip"}))

        run.rollback()
    assert [line.change for line in found.lines] == ["deliver → excluded (setting zero_amounts: 0.00 is not sent)"]


# -- as a real run -----------------------------------------------------------------------------------------------------


def generated(world: World, choose: random.Random) -> list[Line]:
    """Customers and lines of all sorts over two months."""
    offers = [world.offer(offer_id=f"offer-{name}") for name in "abc"]
    lines = []
    for number in range(12):
        customer = world.customer(choose.choice(["Monthly", "Quarterly", "Yearly"]), prorates=choose.random() < 0.1)
        if choose.random() < 0.15:
            world.agreement(customer.company_id)
        for period in (MAY, JUNE):
            of_invoice = []
            for _ in range(choose.randint(1, 4)):
                quantity = choose.choice([1, 2, 7, Decimal("0.333"), -1])
                start = choose.choice([period, period, APRIL])
                line = Line(
                    subscription_id=f"sub-{number}-{choose.randint(1, 2)}", offer_id=choose.choice([*offers, "new"]),
                    charge_type=choose.choice(["CycleFee", "UsageFee", "OneTimeFee", "Mystery"]),
                    start=start, end=month_end(start), quantity=quantity,
                    unit_price=choose.choice([10, 0, Decimal("3.3333"), Decimal("0.00071")]),
                )  # fmt: skip
                if choose.random() < 0.2 and line.total is not None:
                    line.total += Decimal("0.01")
                of_invoice.append(line)
            wrong = {"total": Decimal("1.23")} if choose.random() < 0.1 else {}
            world.invoice(customer, *of_invoice, day=period, **wrong)
            lines += of_invoice
    return lines


def random_changes(world: World, choose: random.Random, folder: Path) -> Changes:
    options = {
        "zero_amounts": ["send", "skip"], "negative_additions": ["send", "hold"],
        "late_lines": ["next_open_cycle", "hold"],
        "price_fallback": ["one_unit", "hold"], "recurring_mode": ["persistent", "dated"],
        "unit_price_decimals": ["2", "4", "6"], "bound_amount_per_line": ["15", "50000"],
    }  # fmt: skip
    settings = {key: choose.choice(values) for key, values in options.items() if choose.random() < 0.6}
    rules = export_rules(world.connection)
    rules["charge_start_rule"] = [choose.choice(["as_invoiced", "first_day_of_invoice_month"]) for _ in rules.index]
    rules["display_name"] = [choose.choice([name, f"{name}!"]) for name in rules["display_name"]]
    rules.to_csv(folder / "rules.csv", index=False)
    files = {}
    for kind in ("offers", "organizations"):
        frame = export_mappings(world.connection, kind).astype("object").fillna("")
        target = {"offers": "product_id", "organizations": "company_id"}[kind]
        frame["state"] = [choose.choice([state, state, "excluded"]) for state in frame["state"]]
        frame[target] = [
            choose.choice([number, number, choose.choice(list(frame[target]))]) for number in frame[target]
        ]
        frame.loc[frame[target] == "", "state"] = ""
        frame.to_csv(folder / f"{kind}.csv", index=False)
        files[kind] = folder / f"{kind}.csv"
    return Changes(settings, folder / "rules.csv", files)


def decisions(world: World) -> dict[int, tuple[Any, ...]]:
    rows = world.rows(
        """
        select decision.*, (
            select string_agg(reason_code, ', ' order by reason_code) from billing.held_reason as reason
            where reason.line_id = decision.line_id
        ) as reasons
        from billing.line_decision as decision
        """
    )
    return {row["line_id"]: tuple(row[name] for name in (*DECIDED, "reasons")) for row in rows}


@pytest.mark.parametrize("seed", range(3))
def test_it_gives_what_a_real_run_with_that_configuration_gives(
    world: World, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = random.Random(seed)
    generated(world, choose)
    world.decide("manual", MAY, JUNE)
    changes = random_changes(world, choose, tmp_path)
    simulated: dict[str, dict[int, tuple[Any, ...]]] = {}
    decided = simulation_module._decide

    def remembered(scratch: Any, periods: Any, name: str, say: Any) -> None:
        decided(scratch, periods, name, say)
        columns = ", ".join(f"made.{column}" for column in DECIDED)
        rows = scratch.execute(
            f"""
            select made.line_id, {columns}, (select string_agg(reason_code, ', ' order by reason_code)
                from billing.held_reason as reason where reason.line_id = made.line_id)
            from billing.line_decision as made
            """
        ).fetchall()
        simulated[name] = {row[0]: row[1:] for row in rows}

    monkeypatch.setattr(simulation_module, "_decide", remembered)
    found = simulate(world.dsn, MAY, JUNE, changes)

    for name in ("before", "after"):
        if name == "after":
            for key, value in changes.settings.items():
                world.setting(key, value)
            assert changes.rules is not None
            import_rules(world.connection, read_rules_file(changes.rules), person="simulation")
            for kind, path in changes.mappings.items():
                import_mappings(
                    world.connection, kind, read_mapping_file(path, kind), approve=True, person="simulation"
                )
        world.execute("delete from delivery.plan_item")
        world.execute("delete from billing.line_decision")
        world.execute("delete from billing.held_reason")
        for period in (MAY, JUNE):
            world.execute(
                """
                update mapping.agreement set next_invoice_date = least(next_invoice_date, case billing_cycle_id
                    when 1 then %(period)s when 3 then '2026-04-01' else '2026-01-01' end::date)
                """.replace("%(period)s", f"'{period}'")
            )
            world.decide("manual", period)
        assert decisions(world) == simulated[name]
    assert found.lines, "the changes of this seed change nothing"
    assert sum(one.changed_lines for one in found.customers) == len(found.lines)


def test_each_setting_that_decides_is_simulated(world: World) -> None:
    text = "\n".join((SQL_DIR / step).read_text(encoding="utf-8") for step in DECISIONS)
    text += world.value(
        "select string_agg(pg_get_functiondef(oid), '') from pg_proc"
        " where pronamespace = 'billing'::regnamespace and prokind = 'f'"
    )
    text += world.value("select string_agg(definition, '') from pg_views where schemaname in ('billing', 'mapping')")

    deciding = {key for key in SETTINGS if f"'{key}'" in text} - {
        "environment",
        "marker_carrier",
        "marker_custom_field_id",
    }
    assert deciding.isdisjoint(NOT_SIMULATED)
    assert set(SETTINGS) == deciding | set(NOT_SIMULATED), "a setting decides nothing: add it to simulate.NOT_SIMULATED"


# -- the scratch database ----------------------------------------------------------------------------------------------

KILLED = """
import sys
from datetime import date
from billing_sync import simulate as module

def wait(*_):
    print("now", flush=True)
    sys.stdin.read()

module._apply = wait
module.simulate(sys.argv[1], date(2026, 5, 1), date(2026, 5, 1), module.Changes({"zero_amounts": "skip"}))
"""


def test_what_a_killed_simulation_left_is_gone_after_the_next(
    two_customers: tuple[World, Customer, Customer, Line],
) -> None:
    world = two_customers[0]
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, world.dsn], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(SQL_DIR.parent)},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        (left,) = scratch_databases(world)
        simulate(world.dsn, MAY, MAY, Changes({"zero_amounts": "skip"}))
        assert scratch_databases(world) == [left], "it lives: its database is not to be dropped"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert scratch_databases(world) == [left]
    until = time.monotonic() + 30
    while scratch_databases(world) and time.monotonic() < until:
        simulate(world.dsn, MAY, MAY, Changes({"zero_amounts": "skip"}))
    assert scratch_databases(world) == []


def test_a_failure_leaves_no_scratch_database(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def halt(*_: object) -> None:
        seen.extend(scratch_databases(world))
        raise KeyboardInterrupt

    monkeypatch.setattr(simulation_module, "_copy_tables", halt)
    with pytest.raises(KeyboardInterrupt):
        simulate(world.dsn, MAY, MAY, Changes())
    assert len(seen) == 1
    assert scratch_databases(world) == []


def test_a_login_that_may_not_create_databases_is_told_so(world: World) -> None:
    world.execute("create role no_scratch login password 'secret'")
    try:
        dsn = make_conninfo(world.dsn, user="no_scratch", password="secret")
        with pytest.raises(ConfigurationError, match=r"alter role .* createdb"):
            simulate(dsn, MAY, MAY, Changes({"zero_amounts": "skip"}))
    finally:
        world.execute("drop role no_scratch")


def test_reading_and_createdb_are_all_that_a_login_needs(
    two_customers: tuple[World, Customer, Customer, Line],
) -> None:
    world = two_customers[0]
    schemas = "staging, mapping, billing, delivery, audit, reporting, public"
    world.execute("create role reader login createdb password 'secret'")
    try:
        world.execute(f"grant usage on schema {schemas} to reader")
        world.execute(f"grant select on all tables in schema {schemas} to reader")
        dsn = make_conninfo(world.dsn, user="reader", password="secret")
        assert len(simulate(dsn, MAY, MAY, Changes({"zero_amounts": "skip"})).lines) == 1
    finally:
        world.execute("drop owned by reader")
        world.execute("drop role reader")


def test_nobody_else_may_look_into_the_scratch_database(world: World) -> None:
    with scratch_database(world.dsn) as dsn:
        name = conninfo_to_dict(dsn)["dbname"]
        assert not world.value("select has_database_privilege('billing_analyst', %s, 'connect')", name), sql.Identifier(
            str(name)
        )


# -- what it refuses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (Changes({"colour": "red"}), "There is no setting 'colour'"),
        (Changes({"zero_amounts": "maybe"}), "cannot be 'maybe'"),
        (Changes({"requests_per_minute": "1"}), "nothing to simulate"),
        (Changes(rules=Path("/nowhere/rules.csv")), "cannot be read as CSV"),
    ],
    ids=["unknown setting", "wrong value", "setting of delivery", "no file"],
)
def test_changes_that_cannot_be_made_are_refused_before_anything_is_copied(
    world: World, changes: Changes, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulation_module, "scratch_database", None)

    with pytest.raises(ConfigurationError, match=words):
        simulate(world.dsn, MAY, MAY, changes)


def test_periods_without_invoices_are_said(world: World) -> None:
    with pytest.raises(ConfigurationError, match="No invoices are known from 2026-05 to 2026-06"):
        simulate(world.dsn, MAY, JUNE, Changes())
    with pytest.raises(ConfigurationError, match=r"end .2026-05. before they begin .2026-06."):
        simulate(world.dsn, JUNE, MAY, Changes())


def test_decisions_are_those_of_a_run() -> None:
    from billing_sync.decide import STEPS

    assert [step for step in STEPS if step in DECISIONS] == list(DECISIONS)
    others = {step for step in STEPS if step.startswith("billing/")} - set(DECISIONS)
    assert others == {"billing/load_invoices.sql", "billing/load_costs.sql"}
