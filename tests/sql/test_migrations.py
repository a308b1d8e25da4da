"""The schema: migrations, and what the database itself refuses, records and shows."""

from __future__ import annotations

import threading
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest
from sql_world import JUNE, MAY, World, monthly

from billing_sync import migrate as migrations
from billing_sync.db import Connection, connect
from billing_sync.errors import ConfigurationError
from billing_sync.mappings import export_mappings, import_mappings
from billing_sync.migrate import MIGRATIONS_DIR, migrate, pending

OURS = "('staging', 'mapping', 'billing', 'delivery', 'audit')"
ALL = [file.name for file in sorted(MIGRATIONS_DIR.glob("*.sql"))]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the migrations that a test may change."""
    copy = tmp_path / "migrations"
    copy.mkdir()
    for file in MIGRATIONS_DIR.glob("*.sql"):
        (copy / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(migrations, "MIGRATIONS_DIR", copy)
    return copy


# -- migrations -------------------------------------------------------------------------------------------------------


def test_migrations_are_applied_once_and_in_order(empty_db: str) -> None:
    with connect(empty_db) as connection:
        assert pending(connection) == ALL
        assert migrate(empty_db) == ALL
        assert pending(connection) == []
        assert migrate(empty_db) == []
        assert [row[0] for row in connection.execute("select name from public.schema_migration order by 1")] == ALL


def test_a_migration_changed_after_it_was_applied_is_refused(billing_db: str, folder: Path) -> None:
    with (folder / ALL[1]).open("a") as file:
        file.write("-- a word more\n")

    with pytest.raises(ConfigurationError, match=f"{ALL[1]} was changed after it was applied"):
        migrate(billing_db)


def test_a_new_migration_is_pending_and_then_applied_alone(billing_db: str, folder: Path) -> None:
    (folder / "0900_more.sql").write_text("create table billing.more (more_id bigint primary key);")
    with connect(billing_db) as connection:
        assert pending(connection) == ["0900_more.sql"]

    assert migrate(billing_db) == ["0900_more.sql"]


def test_a_migration_that_fails_leaves_nothing_behind(empty_db: str, folder: Path) -> None:
    (folder / "0900_bad.sql").write_text("create table billing.more (more_id bigint); select 1 / 0;")

    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(empty_db)

    with connect(empty_db) as connection:
        assert pending(connection) == [*ALL, "0900_bad.sql"]
        assert connection.execute("select to_regnamespace('billing')").fetchone() == (None,)


def test_two_migrations_at_once_apply_each_file_once(empty_db: str) -> None:
    applied: list[list[str]] = []
    failures: list[BaseException] = []
    together = threading.Barrier(3)

    def work() -> None:
        try:
            together.wait()
            applied.append(migrate(empty_db))
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert sorted(applied, key=len) == [[], [], ALL]


# -- documentation and keys -------------------------------------------------------------------------------------------


def test_every_table_and_view_and_function_says_what_it_is(functions: Connection) -> None:
    silent = functions.execute(
        f"""
        select relnamespace::regnamespace || '.' || relname from pg_class
        where (relnamespace::regnamespace::text in {OURS} or relnamespace = 'reporting'::regnamespace
                or relname = 'schema_migration')
            and relkind in ('r', 'v') and coalesce(obj_description(oid, 'pg_class'), '') = ''
        union all
        select oid::regprocedure::text from pg_proc
        where pronamespace::regnamespace::text in {OURS} and coalesce(obj_description(oid, 'pg_proc'), '') = ''
        union all
        select nspname from pg_namespace
        where (nspname in {OURS} or nspname = 'reporting') and coalesce(obj_description(oid, 'pg_namespace'), '') = ''
        """
    ).fetchall()

    assert silent == []


def test_every_table_has_a_primary_key(functions: Connection) -> None:
    without_key = functions.execute(
        f"""
        select oid::regclass::text from pg_class where relkind = 'r' and relnamespace::regnamespace::text in {OURS}
            and not exists (select from pg_constraint where conrelid = pg_class.oid and contype = 'p')
        """
    ).fetchall()

    assert without_key == []


@pytest.mark.parametrize(
    ("table", "target"),
    [
        ("staging.invoice_row", "staging.extract"), ("staging.extract", "audit.run"),
        ("billing.invoice", "mapping.organization"), ("billing.invoice_line", "billing.invoice"),
        ("billing.invoice_line", "mapping.offer"), ("billing.line_decision", "billing.invoice_line"),
        ("billing.held_reason", "billing.held_reason_code"), ("billing.override", "billing.invoice_line"),
        ("delivery.plan", "audit.run"), ("delivery.plan_item", "delivery.plan"),
        ("delivery.plan_item_line", "billing.invoice_line"), ("delivery.addition_line", "billing.invoice_line"),
        ("delivery.addition_line", "delivery.addition"), ("delivery.addition", "mapping.agreement"),
        ("audit.invoice_proof", "billing.invoice"), ("mapping.organization_mapping", "mapping.company"),
        ("mapping.offer_mapping", "mapping.product"), ("mapping.contract_mapping", "mapping.agreement"),
    ],
)  # fmt: skip
def test_a_foreign_key_holds_the_tables_together(functions: Connection, table: str, target: str) -> None:
    found = functions.execute(
        "select count(*) from pg_constraint"
        " where contype = 'f' and conrelid = %s::regclass and confrelid = %s::regclass",
        [table, target],
    ).fetchone()

    assert found is not None
    assert found[0] >= 1


def test_a_line_is_carried_by_one_addition_only(world: World) -> None:
    line = monthly(MAY)
    world.invoice(world.customer(), line)
    world.night()

    with pytest.raises(psycopg.errors.UniqueViolation):
        world.execute("insert into delivery.addition_line select * from delivery.addition_line")


# -- money ------------------------------------------------------------------------------------------------------------


def money_columns(connection: Connection, domain: str) -> list[tuple[str, str]]:
    return connection.execute(
        f"""
        select attrelid::regclass::text, attname from pg_attribute join pg_class on pg_class.oid = attrelid
        where relkind = 'r' and relnamespace::regnamespace::text in {OURS} and atttypid = %s::regtype and attnum > 0
        """,
        [domain],
    ).fetchall()


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "0.001", "1e16", "-1e16"])
def test_a_money_column_refuses_what_is_no_money(functions: Connection, value: str) -> None:
    assert len(money_columns(functions, "billing.amount")) > 10
    with pytest.raises(psycopg.errors.CheckViolation):
        functions.execute("select %s::numeric::billing.amount", [value])


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e16", "0.0000000000001"])
def test_a_quantity_or_unit_price_refuses_what_is_no_number(functions: Connection, value: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        functions.execute("select %s::numeric::billing.decimal_number", [value])


@pytest.mark.parametrize("value", ["0", "10", "10.10", "10.100000", "-9999999999999999.99", "1e2"])
def test_money_keeps_what_it_is_given(functions: Connection, value: str) -> None:
    row = functions.execute("select %s::numeric::billing.amount", [value]).fetchone()

    assert row is not None
    assert row[0] == Decimal(value)


def test_no_money_quantity_or_price_is_kept_outside_the_domains(functions: Connection) -> None:
    """Only staging.addition is plain numeric: it must hold whatever ConnectWise says, to be compared."""
    plain = functions.execute(
        f"""
        select attrelid::regclass::text || '.' || attname from pg_attribute join pg_class on pg_class.oid = attrelid
        where relkind = 'r' and relnamespace::regnamespace::text in {OURS} and attnum > 0
            and atttypid in ('numeric'::regtype, 'real'::regtype, 'double precision'::regtype, 'money'::regtype)
            and attrelid <> 'staging.addition'::regclass
        """
    ).fetchall()

    assert plain == []


def test_a_billing_period_is_the_first_of_a_month(functions: Connection) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        functions.execute("select '2026-05-02'::date::billing.billing_period")


# -- the audit trail --------------------------------------------------------------------------------------------------


@pytest.fixture
def audited(world: World) -> World:
    """A world in which every append-only table has a row."""
    world.invoice(world.customer(), monthly(MAY), total=Decimal("1.00"))
    world.invoice(world.customer(), monthly(MAY))
    world.night()
    return world


@pytest.mark.parametrize("table", ["audit.change", "audit.log_entry", "delivery.attempt"])
@pytest.mark.parametrize("statement", ["update {} set {} = null", "delete from {}"])
def test_append_only_tables_refuse_changes(audited: World, table: str, statement: str) -> None:
    column = {"audit.change": "before", "audit.log_entry": "run_id", "delivery.attempt": "plan_id"}[table]
    rows = audited.value(f"select count(*) from {table}")

    with pytest.raises(psycopg.errors.RaiseException, match=f"{table} is append-only"):
        audited.execute(statement.format(table, column))

    assert audited.value(f"select count(*) from {table}") == rows > 0


@pytest.mark.parametrize("table", ["audit.change", "audit.log_entry", "delivery.attempt"])
def test_append_only_tables_refuse_to_be_emptied(audited: World, table: str) -> None:
    with pytest.raises(psycopg.errors.RaiseException):
        audited.execute(f"truncate {table}")


def changes(world: World, table: str, key: str) -> list[tuple[str, object, object]]:
    return [
        (row["changed_by"], row["before"], row["after"])
        for row in world.rows(
            "select * from audit.change where table_name = %s and row_key = %s order by change_id", table, key
        )
    ]


def test_a_change_of_a_setting_is_recorded_with_who_and_before_and_after(world: World) -> None:
    world.setting("late_lines", "hold")
    world.setting("late_lines", "hold")

    ((who, before, after),) = changes(world, "billing.setting", "late_lines")
    assert who == "tests"
    assert (before["value"], after["value"]) == ("next_open_cycle", "hold")  # type: ignore[index]


@pytest.mark.parametrize("kind", ["organization", "offer", "contract"])
def test_a_change_of_a_mapping_is_recorded_from_its_making_to_its_removal(world: World, kind: str) -> None:
    table = f"mapping.{kind}_mapping"
    world.insert(f"mapping.{kind}", **{f"{kind}_id": "x"}, **({"name": "x"} if kind == "organization" else {}))
    world.insert(table, **{f"{kind}_id": "x"})
    world.update(table, f"{kind}_id", "x", note="seen")
    world.execute(f"delete from {table} where {kind}_id = 'x'")

    made, changed, removed = changes(world, table, "x")
    assert made[1] is None
    assert (changed[1]["note"], changed[2]["note"]) == (None, "seen")  # type: ignore[index]
    assert removed[2] is None


def test_a_rule_and_an_override_are_recorded(world: World) -> None:
    line = monthly(MAY)
    world.invoice(world.customer(), line)
    world.decide()
    world.update("billing.charge_type", "charge_type", "CycleFee", display_name="Fee")
    world.override(line, unit_price=3, reason="agreed")

    assert changes(world, "billing.charge_type", "CycleFee")[-1][2]["display_name"] == "Fee"  # type: ignore[index]
    ((who, _, after),) = changes(world, "billing.override", str(world.line_id(line)))
    assert (who, after["reason"]) == ("tests", "agreed")  # type: ignore[index]


def test_every_table_that_people_change_has_a_history(functions: Connection) -> None:
    found = functions.execute("select tgrelid::regclass::text from pg_trigger where tgname = 'history'").fetchall()

    assert {row[0] for row in found} == {
        "billing.setting", "billing.charge_type", "billing.override", "mapping.organization_mapping",
        "mapping.offer_mapping", "mapping.contract_mapping", "billing.bound_allowance", "delivery.pause",
        "delivery.plan",
        "mapping.company_selector", "mapping.offer_variant_mapping",
        "mapping.agreement_rule", "mapping.agreement_refusal", "delivery.adoption",
        "billing.invoice", "billing.invoice_line", "billing.held_reason",
    }  # fmt: skip


def test_whoever_works_without_a_name_is_recorded_as_the_database_user(world: World) -> None:
    with connect(world.dsn) as nameless:
        nameless.execute("update billing.setting set value = '\"hold\"' where setting_key = 'late_lines'")

    assert changes(world, "billing.setting", "late_lines")[0][0] == "postgres"


def test_importing_a_mapping_records_the_person_and_versions_only_what_changed(world: World) -> None:
    customer = world.customer()
    frame = export_mappings(world.connection, "organizations").assign(note="checked").fillna("")
    for _ in range(2):
        import_mappings(world.connection, "organizations", frame, approve=True, person="carla")

    mapped = world.row("select * from mapping.organization_mapping")
    assert (mapped["state"], mapped["decided_by"], mapped["version"]) == ("approved", "carla", 2)
    assert changes(world, "mapping.organization_mapping", customer.organization_id)[-1][0] == "carla"


# -- analysts ---------------------------------------------------------------------------------------------------------


def views(connection: Connection) -> list[str]:
    rows = connection.execute("select 'reporting.' || viewname from pg_views where schemaname = 'reporting' order by 1")
    return [row[0] for row in rows.fetchall()]


def test_analysts_may_read_the_reporting_views_and_nothing_else(audited: World) -> None:
    tables = [
        row["name"]
        for row in audited.rows(
            f"select schemaname || '.' || tablename as name from pg_tables where schemaname in {OURS}"
            " union all select 'public.schema_migration'"
            " union all select schemaname || '.' || viewname from pg_views where schemaname in ('billing', 'delivery')"
        )
    ]
    assert len(tables) > 30
    try:
        audited.execute("set role billing_analyst")
        for view in views(audited.connection):
            audited.rows(f"select * from {view}")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                audited.execute(f"create view {view}_2 as select * from {view}")
        for table in tables:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                audited.execute(f"select * from {table}")
        for statement in (
            "select billing.text_setting('environment')", "create table public.mine (x int)", "create schema mine",
            "delete from reporting.invoice_line", "select audit.current_person()",
        ):  # fmt: skip
            with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.ObjectNotInPrerequisiteState)):
                audited.execute(statement)
    finally:
        audited.execute("reset role")


def test_the_reporting_views_show_each_line_once_and_its_money(world: World) -> None:
    customer = world.customer()
    lines = {name: monthly(MAY, subscription_id=name) for name in ("delivered", "held", "excluded", "doubt")}
    lines["held"].charge_type, lines["held"].offer_id = "Mystery", "unmapped"
    world.invoice(customer, *lines.values())
    world.decide()
    world.override(lines["excluded"], is_excluded=True, reason="gift")
    world.night()
    world.invoice(customer, monthly(JUNE, subscription_id="waits"))
    world.decide()
    world.execute("update delivery.addition set state = 'active' where subscription_id = 'doubt'")

    shown = {row["subscription_id"]: row for row in world.rows("select * from reporting.invoice_line")}
    assert {name: row["outcome"] for name, row in shown.items()} == {
        "delivered": "delivered", "held": "held", "excluded": "excluded", "doubt": "in doubt",
        "waits": "awaiting approval",
    }  # fmt: skip
    assert shown["held"]["held_reasons"] == ["offer_unmapped", "unknown_charge_type"]
    assert world.value("select sum(amount) from reporting.money_by_customer") == Decimal("100.00")
    held = world.rows("select reason_code, money_at_risk, cure from reporting.held_line order by 1")
    assert [(row["reason_code"], row["money_at_risk"]) for row in held] == [
        ("offer_unmapped", 20),
        ("unknown_charge_type", 20),
    ]
    assert all(row["cure"] for row in held)
    assert world.value("select count(*) from reporting.held_by_reason") == 2
    assert world.value("select count(*) from reporting.invoice_proof") == 1
    assert world.value("select sum(amount) from reporting.addition") == Decimal("40.00")
    run = world.row("select * from reporting.run where run_id = %s", world.run_id)
    assert (run["planned_additions"], run["planned_amount"], run["writes"], run["plan_state"]) == (1, 20, 0, "proposed")


def test_every_reporting_view_is_tested_and_runs_on_nothing(functions: Connection) -> None:
    found = views(functions)

    names = (
        "addition", "adoption", "cycle_without_line", "held_by_reason", "held_line", "invoice_line", "invoice_proof",
        "log_entry", "money_by_customer", "new_agreement", "parked_by_bound", "plan_item", "run", "subscription",
        "unsettled_addition",
    )  # fmt: skip
    assert found == [f"reporting.{name}" for name in names]
    for view in found:
        assert functions.execute(f"select * from {view}").fetchall() == []  # type: ignore[call-overload]
