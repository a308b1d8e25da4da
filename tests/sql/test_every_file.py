"""Every file of include/sql runs as it stands in psql, says what it guarantees, and changes nothing when run again."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest
from sql_world import JUNE, MAY, REQUESTER, World, differences_between, monthly

from billing_sync import decide, prove
from billing_sync.db import SQL_DIR
from billing_sync.extract import extract_additions
from billing_sync.payload import MarkerCarrier
from local_stack.postgres import Postgres

# In the order of a run. What a second run may write anew, without changing what it says:
STEPS: dict[str, tuple[str, ...]] = {
    decide.REFRESH_REFERENCE: (),
    decide.REFRESH_OFFERS: (),
    decide.LOAD_INVOICES: (),
    decide.LOAD_COSTS: (),
    decide.CHECK_SOURCE: (),
    decide.MAP_LINES: (),
    decide.RESOLVE_AGREEMENTS: (),
    decide.APPLY_RULES: (),
    decide.HOLD_LINES: (),
    decide.BOUND_AGREEMENTS: (),
    decide.BOUND_AMOUNTS: (),
    decide.BOUND_CREDITS: (),
    decide.GROUP_LINES: (),
    decide.BOUND_ADDITIONS: (),
    decide.MAKE_PLAN: (
        "delivery.plan_item",
        "delivery.plan_item_line",
        "delivery.plan_agreement",
    ),  # a proposed plan is made anew
    decide.BOUND_PLAN: (),
    prove.PROVE_INVOICES: ("audit.invoice_proof",),  # the proof is made anew
    "staging/prune_extracts.sql": (),
}
WITHOUT_RUN = ("staging/prune_extracts.sql",)
MIGRATIONS = [f"migrations/{file.name}" for file in sorted((SQL_DIR / "migrations").glob("*.sql"))]
VIEWS = ["reporting/views.sql", "reporting/why.sql", "roles/web.sql"]


def psql_program(postgres: Postgres) -> str:
    """psql beside the server's own binaries, else the system's."""
    own = Path(postgres.binaries.program("psql"))
    found = str(own) if own.exists() else shutil.which("psql")
    if not found:
        pytest.skip("there is no psql on this machine")
    return found


def psql(program: str, dsn: str, name: str, run_id: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run a file as its first comment says a person would."""
    options = {"PGOPTIONS": f"-c billing.run_id={run_id}"} if run_id is not None else {}
    return subprocess.run(
        [program, "-X", "-1", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(SQL_DIR / name), dsn],
        env={**os.environ, **options},
        capture_output=True,
        text=True,
        timeout=60,
    )


def stage_reference(world: World) -> None:
    """What ConnectWise and AppXite answered to the feeds of reference data, with something new and something gone."""
    company_id = world.company(name="Old name")
    world.organization()
    for source, feed, table, records in (
        ("appxite", "organizations", "organization", [{"organization_id": "new", "name": "New Ltd"}]),
        ("appxite", "contracts", "contract", [{"contract_id": "c", "billing_cycle_day": 1}]),
        ("appxite", "subscriptions", "subscription", [{"subscription_id": "s", "quantity": 2}]),
        ("connectwise", "companies", "company", [{"company_id": company_id, "name": "New name", "status": "Active"}]),
        ("connectwise", "products", "product", [{"product_id": 500, "identifier": "P500"}]),
        ("connectwise", "agreement_types", "agreement_type", [{"agreement_type_id": 9, "name": "Other"}]),
        ("connectwise", "billing_cycles", "billing_cycle", [{"billing_cycle_id": 9, "name": "M"}]),
        ("connectwise", "agreements", "agreement", [{"agreement_id": 900, "company_id": company_id}]),
    ):  # fmt: skip
        extract_id = world.extract(world.run_id, source, feed)
        world.insert_many(f"staging.{table}", [{"extract_id": extract_id, **record} for record in records])


@dataclass
class Answer:
    first: subprocess.CompletedProcess[str]
    second: subprocess.CompletedProcess[str]
    written: dict[str, list[str]]
    changed: dict[str, list[str]]
    without_run: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def answers(postgres: Postgres, billing_template: str) -> Iterator[dict[str, Answer]]:
    """Each step of a run with something of everything to do, by psql, twice."""
    program = psql_program(postgres)
    dsn = postgres.create_database("billing_by_psql", template=billing_template)
    world = World(dsn)
    busy_customers(world)
    result = {}
    for name, made_anew in STEPS.items():
        if name == prove.PROVE_INVOICES:
            world.deliver()
            extract_additions(
                world.connection, world.connectwise, world.run_id,  # type: ignore[arg-type]
                prove.agreements_to_prove(world.connection, world.run_id),
                MarkerCarrier.from_settings(world.connection).read,
            )  # fmt: skip
        if name in WITHOUT_RUN:
            world.execute("update audit.run set state = 'succeeded'")
            world.execute("update staging.extract set started_at = now() - interval '20 days' where run_id = 1")
        without_run = psql(program, dsn, name)
        first = psql(program, dsn, name, world.run_id)
        rows = world.snapshot()
        content = world.snapshot(with_versions=False, without=["plan_item_id", "proven_at"])
        second = psql(program, dsn, name, world.run_id)
        written = differences_between(rows, world.snapshot())
        changed = differences_between(
            content, world.snapshot(with_versions=False, without=["plan_item_id", "proven_at"])
        )
        result[name] = Answer(
            first, second, {table: written[table] for table in written if table not in made_anew}, changed, without_run
        )
    yield result
    world.close()
    postgres.drop_database("billing_by_psql")


def busy_customers(world: World) -> None:
    """An older night delivered; for tonight: something to prolong, change, remove, hold, exclude and complain about."""
    customer = world.customer()
    changed, removed = monthly(MAY, subscription_id="changed"), monthly(MAY, subscription_id="removed")
    world.invoice(customer, monthly(MAY))
    invoice = world.invoice(customer, changed, removed)
    world.night()
    changed.price(11)
    invoice.lines.remove(removed)
    world.invoiced_until(customer.agreement_id, JUNE)
    world.invoice(customer, monthly(JUNE), monthly(JUNE, charge_type="Mystery"), monthly(JUNE, charge_type="UsageFee"))
    world.invoice(customer, *(monthly(JUNE, charge_type="Correction", row_id=None) for _ in range(2)))
    world.invoice("unmapped", monthly(JUNE, offer_id="unmapped"))
    world.invoice(world.customer(), monthly(JUNE), total=1)  # type: ignore[arg-type]
    world.open("nightly", MAY, JUNE, date(2026, 7, 1))
    stage_reference(world)
    # The staged feeds of ConnectWise name none of the customers: they come last to stay usable.
    world.execute(
        "delete from staging.extract where run_id = %s and feed in ('products', 'agreements', 'companies')",
        world.run_id,
    )
    assert world.value("select requester_id from audit.run where run_id = %s", world.run_id) == REQUESTER


@pytest.mark.parametrize("name", STEPS)
def test_a_step_runs_as_it_stands_in_psql(answers: dict[str, Answer], name: str) -> None:
    for run in (answers[name].first, answers[name].second):
        assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize("name", STEPS)
def test_a_second_run_of_a_step_changes_nothing(answers: dict[str, Answer], name: str) -> None:
    assert answers[name].changed == {}


@pytest.mark.parametrize("name", STEPS)
def test_a_second_run_of_a_step_writes_nothing(answers: dict[str, Answer], name: str) -> None:
    assert answers[name].written == {}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_without_a_run_says_what_to_set(answers: dict[str, Answer], name: str) -> None:
    run = answers[name].without_run
    if name in WITHOUT_RUN:
        assert run.returncode == 0
    else:
        assert run.returncode != 0
        assert 'No run chosen: set billing.run_id first, e.g. PGOPTIONS="-c billing.run_id=1" psql' in run.stderr


def test_the_chain_did_something_of_everything(answers: dict[str, Answer]) -> None:
    assert set(answers) == set(STEPS)
    assert "period_without_invoices" in answers[decide.CHECK_SOURCE].second.stdout
    assert "invoice_does_not_add_up" in answers[decide.CHECK_SOURCE].second.stdout


def test_every_file_of_the_folder_is_run_by_a_test() -> None:
    """A new file fails here until it stands in STEPS, or is a migration or a view."""
    found = {str(file.relative_to(SQL_DIR)) for file in SQL_DIR.rglob("*.sql")}

    assert found == {*STEPS, *MIGRATIONS, *VIEWS}


@pytest.mark.parametrize("name", [*STEPS, *MIGRATIONS, *VIEWS])
def test_a_file_says_on_top_what_it_guarantees_and_whether_it_may_run_again(name: str) -> None:
    comment = re.match(r"(?:--[^\n]*\n)+", (SQL_DIR / name).read_text(encoding="utf-8"))

    assert comment is not None
    assert comment[0].startswith("-- Guarantees: ")
    if name in STEPS:
        assert "May run again" in comment[0]
        assert "By hand: " in comment[0]
    if name in STEPS and name not in WITHOUT_RUN:
        assert "billing.run_id=" in comment[0]


def test_migrations_and_views_run_as_they_stand_in_psql_and_give_what_migrate_gives(
    postgres: Postgres, empty_db: str, billing_db: str
) -> None:
    program = psql_program(postgres)
    for name in [*MIGRATIONS, *VIEWS]:
        run = psql(program, empty_db, name)
        assert run.returncode == 0, run.stderr
        assert "WARNING" not in run.stderr

    by_hand = describe(empty_db)
    assert by_hand == describe(billing_db)
    for name in MIGRATIONS:
        assert psql(program, empty_db, name).returncode != 0, "a migration runs once"
    for name in VIEWS:
        run = psql(program, empty_db, name)
        assert run.returncode == 0, run.stderr
    assert describe(empty_db) == by_hand


def describe(dsn: str) -> list[tuple[object, ...]]:
    """Columns, views and constraints of our schemas."""
    from billing_sync.db import connect

    with connect(dsn) as connection:
        return connection.execute(
            """
            select table_schema, table_name, column_name, ordinal_position::text, data_type, is_nullable
            from information_schema.columns
            where table_schema in ('staging', 'mapping', 'billing', 'delivery', 'audit', 'reporting')
            union all
            select connamespace::regnamespace::text, conrelid::regclass::text, conname, '',
                pg_get_constraintdef(oid), ''
            from pg_constraint
            where connamespace::regnamespace::text in ('staging', 'mapping', 'billing', 'delivery', 'audit')
            order by 1, 2, 3, 4, 5
            """
        ).fetchall()


# -- reference data ---------------------------------------------------------------------------------------------------


def test_reference_data_is_followed_and_what_has_gone_is_marked(world: World) -> None:
    world.open("reference")
    stage_reference(world)
    world.decide_newest()

    assert world.value("select name from mapping.company") == "New name"
    gone = {row["organization_id"]: row["is_gone"] for row in world.rows("select * from mapping.organization")}
    assert gone.pop("new") is False
    assert set(gone.values()) == {True}
    mapped = world.rows("select state, decided_by from mapping.organization_mapping where organization_id = 'new'")
    assert mapped == [{"state": "excluded", "decided_by": None}]
    assert world.value("select state from mapping.contract_mapping where contract_id = 'c'") == "excluded"


def test_what_comes_back_is_no_longer_gone(world: World) -> None:
    company_id = world.company()
    for names in ([], [{"company_id": company_id, "name": "Back", "status": "Active"}]):
        world.open("reference")
        extract_id = world.extract(world.run_id, "connectwise", "companies")
        world.insert_many("staging.company", [{"extract_id": extract_id, **name} for name in names])
        world.decide_newest()
        assert world.value("select is_gone from mapping.company") is (not names)


def test_a_feed_that_was_not_read_marks_nothing_gone(world: World) -> None:
    customer = world.customer()
    world.open("reference")
    world.decide_newest()

    assert world.value("select is_gone from mapping.company where company_id = %s", customer.company_id) is False
    assert world.value("select is_gone from mapping.agreement") is False


@pytest.mark.parametrize(
    ("feed", "table", "key"),
    [
        ("organizations", "organization", {"organization_id": "x", "name": "x"}),
        ("companies", "company", {"company_id": 77}),
        ("products", "product", {"product_id": 77}),
        ("agreements", "agreement", {"agreement_id": 77}),
        ("contracts", "contract", {"contract_id": "x"}),
        ("subscriptions", "subscription", {"subscription_id": "x"}),
        ("agreement_types", "agreement_type", {"agreement_type_id": 77}),
    ],
)  # fmt: skip
def test_what_a_whole_extract_no_longer_names_is_marked_gone(
    world: World, feed: str, table: str, key: dict[str, object]
) -> None:
    world.insert(f"mapping.{table}", **key)
    world.open("reference")
    source = "appxite" if table in ("organization", "contract", "subscription") else "connectwise"
    world.extract(world.run_id, source, feed)
    world.decide_newest()

    ((name, value),) = list(key.items())[:1]
    assert world.value(f"select is_gone from mapping.{table} where {name} = %s", value) is True


def test_an_offers_name_follows_its_newest_invoice(world: World) -> None:
    customer = world.customer()
    for period, name in ((JUNE, "new name"), (MAY, "old name")):
        world.invoice(customer, monthly(period, offer_id="renamed"))
        world.open("nightly", period)
        world.execute("update staging.invoice_row set offer_name = %s where offer_id = 'renamed'", name)
        world.decide_newest()

    offer = world.row("select * from mapping.offer where offer_id = 'renamed'")
    assert (offer["name"], offer["last_invoiced_on"]) == ("new name", JUNE)


# -- pruning ----------------------------------------------------------------------------------------------------------


def test_pruning_leaves_young_extracts_and_those_of_runs_still_open(postgres: Postgres, world: World) -> None:
    world.invoice(world.customer(), monthly(MAY))
    for state, days, started in (
        ("succeeded", 15, 15), ("succeeded", 13, 13), ("running", 15, 6), ("running", 15, 15),
        ("awaiting_approval", 15, 15),
    ):  # fmt: skip
        world.open("nightly")
        world.execute(
            "update audit.run set state = %s, started_at = now() - make_interval(days => %s), dag_id = %s"
            " where run_id = %s",
            state, started, f"{state} {days} {started}", world.run_id,
        )  # fmt: skip
        world.execute(
            "update staging.extract set started_at = now() - make_interval(days => %s) where run_id = %s",
            days,
            world.run_id,
        )

    run = psql(psql_program(postgres), world.dsn, "staging/prune_extracts.sql")

    assert (run.returncode, run.stderr) == (0, "")
    left = {row["dag_id"] for row in world.rows("select dag_id from staging.extract join audit.run using (run_id)")}
    assert left == {"succeeded 13 13", "running 15 6"}
    assert world.value("select count(*) from staging.invoice_row") == 2
