"""Simulate: what other rules, mappings or settings would have decided about past periods, and the difference in money.

The very same files of include/sql/billing run twice, with today's configuration and with the changed one, in a scratch
database beside the real one. The real one is only read, in one `repeatable read, read only` transaction. The scratch
database is dropped at the end; one that a killed simulation left behind, by the next simulation.
Why so: docs/decisions/0016-simulations-in-a-scratch-database.md.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from graphlib import TopologicalSorter
from pathlib import Path

import pandas as pd
import psycopg
from psycopg import IsolationLevel, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from billing_sync.agreement_rules import import_agreement_rules, read_agreement_rules_file
from billing_sync.db import Connection, connect, run_sql_file
from billing_sync.decide import STEPS
from billing_sync.errors import ConfigurationError
from billing_sync.mappings import import_mappings, read_mapping_file
from billing_sync.migrate import migrate, pending
from billing_sync.rules import check_rules, import_rules, read_rules_file
from billing_sync.run import open_run, period_of
from billing_sync.selectors import import_selectors, read_selector_file
from billing_sync.settings import parse_setting, set_setting

log = logging.getLogger(__name__)

# What is loaded from staging is copied instead.
DECISIONS = tuple(step for step in STEPS if step.startswith("billing/") and not step.startswith("billing/load_"))
MAINTENANCE_DATABASE = "postgres"
HISTORY_MONTHS = 12  # totals are compared with earlier periods, and credits with earlier charges
RESULTS = ("billing.line_decision", "billing.held_reason")
# Of delivery, extraction and plans: they decide nothing about a line that is loaded.
NOT_SIMULATED = (
    "environment",
    "accepted_statuses",
    "automated_daily_sync",
    "lookback_months",
    "marker_carrier",
    "marker_custom_field_id",
    "create_mode",
    "settle_seconds",
    "delivery_deadline_hours",
    "requests_per_minute",
    "staging_retention_days",
    "bound_fewer_invoices_percent",
    "bound_removed_lines",
)


@dataclass(frozen=True)
class Changes:
    """What is changed in a simulation: settings as text by key, and CSV files as they are exported.

    rules: a file, or its columns. mappings: by kind (organizations, offers, contracts).
    """

    settings: Mapping[str, str] = field(default_factory=dict)
    rules: Path | pd.DataFrame | None = None
    mappings: Mapping[str, Path] = field(default_factory=dict)
    selectors: Path | None = None
    agreement_rules: Path | None = None


@dataclass(frozen=True)
class Money:
    """What becomes of a customer's lines. deliver: as ConnectWise would bill it; held, excluded: AppXite's totals."""

    deliver: Decimal
    held: Decimal
    excluded: Decimal


@dataclass(frozen=True)
class CustomerDifference:
    """A customer and currency over all simulated periods. delivered: what was really delivered of these lines.

    changed_lines: lines whose decision changed; reasons: what changed about them, the most lines first.
    """

    organization_id: str
    organization_name: str
    currency: str
    lines: int
    before: Money
    after: Money
    delivered: Decimal
    changed_lines: int
    reasons: list[str]

    @property
    def difference(self) -> Decimal:
        """Money that ConnectWise would bill more (or less) than with today's configuration."""
        return self.after.deliver - self.before.deliver

    @property
    def is_as_in_the_past(self) -> bool:
        """Whether today's configuration gives what was really delivered."""
        return self.before.deliver == self.delivered


@dataclass(frozen=True)
class ChangedLine:
    """A line whose decision changed. Amounts as ConnectWise would bill them; None when nothing would be delivered."""

    line_id: int
    invoice_number: str | None
    billing_period: date
    organization_name: str
    currency: str | None
    total_price: Decimal | None
    outcome_before: str | None
    outcome_after: str | None
    amount_before: Decimal | None
    amount_after: Decimal | None
    change: str


@dataclass(frozen=True)
class Simulation:
    """What a simulation found: each customer of the periods, and the lines that are decided otherwise."""

    periods: list[date]
    customers: list[CustomerDifference]
    lines: list[ChangedLine]


def simulate(
    dsn: str,
    first: date,
    last: date,
    changes: Changes,
    *,
    csv: Path | None = None,
    say: Callable[[str], None] = log.info,
) -> Simulation:
    """Decide about the invoices of the periods from `first` to `last` with and without changes; writes nothing.

    csv: a file to write with every line of the periods. say: is told how far it is.
    Raises ConfigurationError for changes that cannot be made (a setting, a file), and when the login may not create
    the scratch database.
    """
    files = check_changes(changes)
    first, last = period_of(first), period_of(last)
    if first > last:
        raise ConfigurationError(f"The periods end ({last:%Y-%m}) before they begin ({first:%Y-%m}).")
    say("creating the scratch database")
    with scratch_database(dsn) as scratch_dsn, connect(scratch_dsn, user="simulation") as scratch:
        scratch.execute("set synchronous_commit = off")
        scratch.execute("create schema simulation")
        say("copying invoices, mappings and settings")
        with _snapshot_of(dsn) as real:
            _copy_tables(real, scratch, first, last)
            _copy_delivered(real, scratch, first, last)
        scratch.execute("analyze")
        scratch.execute(
            "create table simulation.agreement as select agreement_id, next_invoice_date from mapping.agreement"
        )
        periods = _periods(scratch, first, last)
        _decide(scratch, periods, "before", say)
        _apply(scratch, changes, files)
        _decide(scratch, periods, "after", say)
        say("comparing")
        scratch.execute(_COMPARED)
        scratch.execute("analyze simulation.compared")
        if csv is not None:
            _write_csv(scratch, csv)
        return Simulation(periods, _customers(scratch), _changed_lines(scratch))


# -- the changes -------------------------------------------------------------------------------------------------------


def check_changes(changes: Changes) -> dict[str, pd.DataFrame]:
    """The files of the changes, read; everything that can be found wrong without the database is.

    Raises ConfigurationError.
    """
    for key, text in changes.settings.items():
        parse_setting(key, text)
        if key in NOT_SIMULATED:
            raise ConfigurationError(f"Setting {key} decides nothing about a line that is loaded: nothing to simulate.")
    files = {kind: read_mapping_file(path, kind) for kind, path in changes.mappings.items()}
    if changes.rules is not None:
        given = changes.rules
        files["rules"] = read_rules_file(given) if isinstance(given, Path) else check_rules(given, "The charge types")
    if changes.selectors is not None:
        files["selectors"] = read_selector_file(changes.selectors)
    if changes.agreement_rules is not None:
        files["agreement rules"] = read_agreement_rules_file(changes.agreement_rules)
    return files


def _apply(scratch: Connection, changes: Changes, files: Mapping[str, pd.DataFrame]) -> None:
    for key, text in changes.settings.items():
        set_setting(scratch, key, text)
    if "rules" in files:
        import_rules(scratch, files["rules"], person="simulation")
    for kind in changes.mappings:
        import_mappings(scratch, kind, files[kind], approve=True, person="simulation")
    if "selectors" in files:
        import_selectors(scratch, files["selectors"], person="simulation")
    if "agreement rules" in files:
        import_agreement_rules(scratch, files["agreement rules"], person="simulation")


# -- the scratch database ----------------------------------------------------------------------------------------------


@contextmanager
def scratch_database(dsn: str) -> Iterator[str]:
    """A migrated, empty billing database on the same server; gives its address, and drops it at the end.

    Raises ConfigurationError when the login may not create databases, or the billing database is not migrated.
    """
    real_name = str(conninfo_to_dict(dsn).get("dbname") or "")
    with _maintenance(dsn) as server:
        row = server.execute(
            "select oid, pg_encoding_to_char(encoding), datcollate, datctype from pg_database where datname = %s",
            [real_name],
        ).fetchone()
        if row is None:
            raise ConfigurationError(f"There is no database {real_name!r} on the server.")
        oid, encoding, collate, ctype = row
        prefix = f"billing_simulation_{oid}_"
        _drop_left_behind(server, prefix)
        name = prefix + uuid.uuid4().hex[:12]
        # Held by this session for as long as the simulation lives: what nobody holds was left behind.
        server.execute("select pg_advisory_lock(hashtext(%s))", [name])
        try:
            try:
                server.execute(
                    sql.SQL(
                        "create database {} template template0 encoding {} lc_collate {} lc_ctype {}"
                    ).format(sql.Identifier(name), *map(sql.Literal, (encoding, collate, ctype)))
                )  # fmt: skip
            except psycopg.errors.InsufficientPrivilege:
                login = sql.Identifier(server.info.user).as_string(server)
                raise ConfigurationError(
                    "A simulation needs a scratch database, and the login of the billing database may not create one. "
                    f"Ask a database administrator for: alter role {login} createdb"
                ) from None
            # It holds invoices: for nobody else.
            server.execute(sql.SQL("revoke all on database {} from public").format(sql.Identifier(name)))
            scratch_dsn = make_conninfo(dsn, dbname=name)
            migrate(scratch_dsn)
            yield scratch_dsn
        finally:
            server.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


@contextmanager
def _maintenance(dsn: str) -> Iterator[Connection]:
    """A session that may create databases, in a database that is not the billing database."""
    try:
        server = psycopg.connect(make_conninfo(dsn, dbname=MAINTENANCE_DATABASE), autocommit=True)
    except psycopg.OperationalError as error:
        raise ConfigurationError(
            f"A simulation creates its scratch database from the database {MAINTENANCE_DATABASE!r}, "
            f"which the login cannot reach: {error}"
        ) from None
    with server:
        yield server


def _drop_left_behind(server: Connection, prefix: str) -> None:
    """Drop the scratch databases of simulations that were killed; those of simulations that live are locked."""
    names = server.execute("select datname from pg_database where starts_with(datname, %s)", [prefix]).fetchall()
    for (name,) in names:
        taken = server.execute("select pg_try_advisory_lock(hashtext(%s))", [name]).fetchone()
        if taken and taken[0]:
            log.info("dropping %s, left behind by a simulation that was killed", name)
            server.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
            server.execute("select pg_advisory_unlock(hashtext(%s))", [name])


@contextmanager
def _snapshot_of(dsn: str) -> Iterator[Connection]:
    """A connection to the real database that sees one moment and can write nothing."""
    with psycopg.connect(dsn) as real:
        real.isolation_level = IsolationLevel.REPEATABLE_READ
        real.read_only = True
        missing = pending(real)
        if missing:
            raise ConfigurationError(
                f"The billing database lacks {', '.join(missing)}: run python -m billing_sync migrate first."
            )
        yield real
        real.rollback()


# -- copying -----------------------------------------------------------------------------------------------------------


def _copy_tables(real: Connection, scratch: Connection, first: date, last: date) -> None:
    """Copy what decides: mappings, reference data, settings, rules, typed values; invoices and lines. No ledger.

    Of the periods before the first one, what was decided, too: totals and credits are judged by it.
    """
    year, month = divmod(first.year * 12 + first.month - 1 - HISTORY_MONTHS, 12)
    known_from = date(year, month + 1, 1)
    tables = _tables_in_order(scratch)
    columns = _columns(scratch, tables)
    names = [sql.Identifier(*table.split(".")) for table in tables]
    for name in reversed(names):  # what migrations put there; no history of it is needed
        scratch.execute(sql.SQL("alter table {} disable trigger user").format(name))
        scratch.execute(sql.SQL("delete from {}").format(name))
    for table, name in zip(tables, names, strict=True):
        listed = sql.SQL(", ").join(map(sql.Identifier, columns[table]))
        until = first - timedelta(days=1) if table in RESULTS else last
        rows = sql.SQL("select {} from {} where {}").format(listed, name, _condition(columns[table], known_from, until))
        _copy(real, scratch, rows, sql.SQL("{} ({})").format(name, listed))
        scratch.execute(sql.SQL("alter table {} enable trigger user").format(name))
        _continue_numbers(scratch, table)


def _tables_in_order(scratch: Connection) -> list[str]:
    """The tables to copy, each after those that it refers to. One that refers to the ledger is the ledger's."""
    found = scratch.execute(
        """
        select format('%s.%s', space.nspname, relation.relname), array_remove(array_agg(
            (select format('%s.%s', target_space.nspname, target.relname)
                from pg_class as target join pg_namespace as target_space on target_space.oid = target.relnamespace
                where target.oid = link.confrelid)), null)
        from pg_class as relation
        join pg_namespace as space on space.oid = relation.relnamespace
        left join pg_constraint as link
            on link.conrelid = relation.oid and link.contype = 'f' and link.confrelid <> relation.oid
        where relation.relkind = 'r'
            and (space.nspname in ('mapping', 'billing') or (space.nspname, relation.relname) = ('audit', 'run'))
        group by 1
        """
    ).fetchall()
    needs = {table: set(others) for table, others in found}
    while ledger := {table for table, others in needs.items() if not others <= set(needs)}:
        needs = {table: others for table, others in needs.items() if table not in ledger}
    return list(TopologicalSorter({table: sorted(needs[table]) for table in sorted(needs)}).static_order())


def _columns(scratch: Connection, tables: Iterable[str]) -> dict[str, list[str]]:
    rows = scratch.execute(
        """
        select table_schema || '.' || table_name, array_agg(column_name::text order by ordinal_position)
        from information_schema.columns
        where table_schema || '.' || table_name = any(%s) and is_generated = 'NEVER'
            -- It may name a line from before what is copied.
            and column_name <> 'corrects_line_id'
        group by 1
        """,
        [list(tables)],
    ).fetchall()
    return dict(rows)


def _condition(columns: list[str], first: date, last: date) -> sql.Composable:
    """Which rows of a table belong to the periods."""
    invoices = sql.SQL("select invoice_id from billing.invoice where billing_period between {} and {}").format(
        sql.Literal(first), sql.Literal(last)
    )
    if "billing_period" in columns:
        return sql.SQL("billing_period between {} and {}").format(sql.Literal(first), sql.Literal(last))
    if "invoice_id" in columns:
        return sql.SQL("invoice_id in ({})").format(invoices)
    if "line_id" in columns:
        return sql.SQL("line_id in (select line_id from billing.invoice_line where invoice_id in ({}))").format(
            invoices
        )
    return sql.SQL("true")


def _copy(real: Connection, scratch: Connection, rows: sql.Composable, into: sql.Composable) -> None:
    read = sql.SQL("copy ({}) to stdout (format binary)").format(rows)
    write = sql.SQL("copy {} from stdin (format binary)").format(into)
    with real.cursor() as source, scratch.cursor() as target, source.copy(read) as blocks, target.copy(write) as given:
        for block in blocks:
            given.write(block)


def _continue_numbers(scratch: Connection, table: str) -> None:
    """New rows get numbers beyond the copied ones."""
    columns = scratch.execute(
        "select column_name from information_schema.columns"
        " where table_schema || '.' || table_name = %s and is_identity = 'YES'",
        [table],
    ).fetchall()
    for (column,) in columns:
        scratch.execute(
            sql.SQL("select setval(pg_get_serial_sequence({}, {}), coalesce(max({}), 0) + 1, false) from {}").format(
                sql.Literal(table), sql.Literal(column), sql.Identifier(column), sql.Identifier(*table.split("."))
            )
        )


def _copy_delivered(real: Connection, scratch: Connection, first: date, last: date) -> None:
    scratch.execute("create table simulation.delivered (line_id bigint primary key, amount billing.amount)")
    rows = sql.SQL(
        """
        select line.line_id, line.delivered_amount from reporting.invoice_line as line
        where line.outcome = 'delivered' and line.billing_period between {} and {}
        """
    ).format(sql.Literal(first), sql.Literal(last))
    _copy(real, scratch, rows, sql.Identifier("simulation", "delivered"))


# -- deciding ----------------------------------------------------------------------------------------------------------


def _periods(scratch: Connection, first: date, last: date) -> list[date]:
    rows = scratch.execute(
        "select distinct billing_period::date from billing.invoice where billing_period between %s and %s order by 1",
        [first, last],
    ).fetchall()
    if not rows:
        raise ConfigurationError(f"No invoices are known from {first:%Y-%m} to {last:%Y-%m}: nothing to simulate.")
    return [row[0] for row in rows]


def _decide(scratch: Connection, periods: Sequence[date], name: str, say: Callable[[str], None]) -> None:
    """Decide about the periods one by one, each as if ConnectWise had invoiced what lies before it and nothing more."""
    for table in RESULTS:
        scratch.execute(
            sql.SQL(
                """
                delete from {} using billing.invoice_line as line join billing.invoice as invoice using (invoice_id)
                where {}.line_id = line.line_id and invoice.billing_period = any(%s)
                """
            ).format(*[sql.Identifier(*table.split("."))] * 2),
            [list(periods)],
        )
    for period in periods:
        say(f"deciding {period:%Y-%m}, {'without' if name == 'before' else 'with'} the changes")
        scratch.execute(_OPEN_CYCLES, {"period": period})
        run_id = open_run(
            scratch, dag_id="simulate", dag_run_id=f"{name} {period}", kind="manual", billing_periods=[period]
        )
        for step in DECISIONS:
            run_sql_file(scratch, step, run_id)
    scratch.execute(
        sql.SQL("create table simulation.{} as " + _DECIDED).format(sql.Identifier(name), sql.Literal(periods))
    )


_OPEN_CYCLES = """
update mapping.agreement as agreement
set next_invoice_date = least(known.next_invoice_date, greatest(
    billing.cycle_start(%(period)s, billing.cycle_months(billing_cycle.billing_option), agreement.invoicing_cycle,
        agreement.bill_start_date),
    agreement.bill_start_date
))
from simulation.agreement as known
join mapping.agreement as same using (agreement_id)
left join mapping.billing_cycle as billing_cycle using (billing_cycle_id)
where agreement.agreement_id = known.agreement_id and known.next_invoice_date is not null
"""

_DECIDED = """
select
    decision.line_id, decision.outcome, case when decision.outcome = 'deliver' then decision.amount end as amount,
    decision.company_id, decision.product_id, decision.agreement_id, decision.effective_date, decision.cancelled_date,
    decision.quantity, decision.unit_price, decision.invoice_description, decision.excluded_by,
    coalesce((
        select string_agg(reason.reason_code, ', ' order by reason.reason_code) from billing.held_reason as reason
        where reason.line_id = decision.line_id and decision.outcome = 'held'
    ), '') as reasons
from billing.line_decision as decision
join billing.invoice_line as line using (line_id)
join billing.invoice as invoice using (invoice_id)
where invoice.billing_period = any({})
"""

_COMPARED = """
create table simulation.compared as
select
    invoice.organization_id,
    organization.name as organization_name,
    line.currency,
    invoice.billing_period,
    invoice.invoice_number,
    line.line_id,
    line.charge_type,
    line.subscription_name,
    line.total_price,
    known.outcome as outcome_before,
    known.amount as amount_before,
    known.reasons as reasons_before,
    simulated.outcome as outcome_after,
    simulated.amount as amount_after,
    simulated.reasons as reasons_after,
    delivered.amount as really_delivered,
    known.company_id as company_id_before,
    simulated.company_id as company_id_after,
    known.product_id as product_id_before,
    simulated.product_id as product_id_after,
    known.agreement_id as agreement_id_before,
    simulated.agreement_id as agreement_id_after,
    known.effective_date as effective_date_before,
    simulated.effective_date as effective_date_after,
    known.cancelled_date as cancelled_date_before,
    simulated.cancelled_date as cancelled_date_after,
    case
        when known.outcome <> simulated.outcome then
            known.outcome || coalesce(' (' || nullif(known.reasons, '') || ')', '') || ' → ' || simulated.outcome
            || coalesce(' (' || nullif(simulated.reasons, '') || ')', ' (' || simulated.excluded_by || ')', '')
        when known.reasons <> simulated.reasons then 'held: ' || known.reasons || ' → ' || simulated.reasons
        when known.outcome = 'deliver' then nullif(concat_ws(', ',
            case when known.company_id <> simulated.company_id then 'another company' end,
            case when known.agreement_id <> simulated.agreement_id then 'another agreement' end,
            case when known.product_id <> simulated.product_id then 'another product' end,
            case when (known.effective_date, known.cancelled_date)
                is distinct from (simulated.effective_date, simulated.cancelled_date) then 'other dates' end,
            case when (known.quantity::numeric, known.unit_price::numeric)
                is distinct from (simulated.quantity::numeric, simulated.unit_price::numeric) then 'another price' end,
            case when known.invoice_description <> simulated.invoice_description then 'another description' end
        ), '')
        when known.excluded_by <> simulated.excluded_by then 'excluded: ' || simulated.excluded_by
    end as change
from simulation.before as known
join simulation.after as simulated using (line_id)
join billing.invoice_line as line using (line_id)
join billing.invoice as invoice using (invoice_id)
join mapping.organization as organization using (organization_id)
left join simulation.delivered as delivered using (line_id)
"""


# -- the result --------------------------------------------------------------------------------------------------------


def _customers(scratch: Connection) -> list[CustomerDifference]:
    rows = scratch.execute(
        """
        with changed as (
            select organization_id, currency, change,
                row_number() over (partition by organization_id, currency order by count(*) desc, change) as place,
                count(*) as lines
            from simulation.compared where change is not null
            group by organization_id, currency, change
        )
        select
            organization_id, organization_name, coalesce(currency, '?'), count(*),
            coalesce(sum(amount_before), 0), coalesce(sum(total_price) filter (where outcome_before = 'held'), 0),
            coalesce(sum(total_price) filter (where outcome_before = 'excluded'), 0),
            coalesce(sum(amount_after), 0), coalesce(sum(total_price) filter (where outcome_after = 'held'), 0),
            coalesce(sum(total_price) filter (where outcome_after = 'excluded'), 0),
            coalesce(sum(really_delivered), 0), count(change),
            coalesce((
                select array_agg(format('%s x %s', changed.lines, changed.change) order by changed.place) from changed
                where changed.organization_id = compared.organization_id
                    and changed.currency is not distinct from compared.currency and changed.place <= 3
            ), '{}')
        from simulation.compared as compared
        group by organization_id, organization_name, currency
        order by abs(coalesce(sum(amount_after), 0) - coalesce(sum(amount_before), 0)) desc, count(change) desc,
            organization_name, organization_id, currency
        """
    ).fetchall()
    return [
        CustomerDifference(
            organization_id, name, currency, lines, Money(*amounts[:3]), Money(*amounts[3:6]), amounts[6], *rest
        )
        for organization_id, name, currency, lines, *amounts, changed, reasons in rows
        for rest in [(changed, reasons)]
    ]


def _changed_lines(scratch: Connection) -> list[ChangedLine]:
    rows = scratch.execute(
        """
        select line_id, invoice_number, billing_period::date, organization_name, currency, total_price, outcome_before,
            outcome_after, amount_before, amount_after, change
        from simulation.compared where change is not null order by line_id
        """
    ).fetchall()
    return [ChangedLine(*row) for row in rows]


def _write_csv(scratch: Connection, path: Path) -> None:
    copied = "copy (select * from simulation.compared order by line_id) to stdout (format csv, header)"
    with path.open("wb") as file, scratch.cursor() as cursor, cursor.copy(copied) as rows:
        for block in rows:
            file.write(block)


# -- printing ----------------------------------------------------------------------------------------------------------


def print_simulation(found: Simulation, console: Console) -> None:
    """Print the difference per customer and currency, then the totals. Customers without any are counted only."""
    periods = f"{found.periods[0]:%Y-%m} to {found.periods[-1]:%Y-%m}"
    table = Table(title=f"Simulated {periods}: today's configuration → the changed one", title_justify="left")
    for name in (
        "customer",
        "currency",
        "deliver",
        "held",
        "excluded",
        "difference",
        "really delivered",
        "lines",
        "why",
    ):
        table.add_column(name, justify="left" if name in ("customer", "currency", "why") else "right")
    shown = [one for one in found.customers if one.changed_lines or not one.is_as_in_the_past]
    for one in shown:
        table.add_row(
            escape(f"{one.organization_name} ({one.organization_id})"), one.currency,
            *_before_after(one.before, one.after), f"{one.difference:+,.2f}", _past(one.before, one.delivered),
            f"{one.changed_lines} of {one.lines}", escape("\n".join(one.reasons)),
        )  # fmt: skip
    for currency in sorted({one.currency for one in found.customers}):
        own = [one for one in found.customers if one.currency == currency]
        before, after = _sum(one.before for one in own), _sum(one.after for one in own)
        delivered = sum((one.delivered for one in own), Decimal(0))
        table.add_section()
        table.add_row(
            f"all {len(own)} customers", currency, *_before_after(before, after),
            f"{after.deliver - before.deliver:+,.2f}", _past(before, delivered),
            f"{sum(one.changed_lines for one in own)} of {sum(one.lines for one in own)}", "",
        )  # fmt: skip
    console.print(table)
    untouched = len(found.customers) - len(shown)
    if untouched:
        console.print(f"{untouched} customers are the same before, after and in the past; they are not listed.")
    if not all(one.is_as_in_the_past for one in found.customers):
        console.print(
            "≠: today's configuration gives something else than what was really delivered; it, or ConnectWise, was "
            "another then. python -m billing_sync why --line ID tells."
        )
    console.print("Nothing was written to the billing database.")


def _before_after(before: Money, after: Money) -> list[str]:
    pairs = ((before.deliver, after.deliver), (before.held, after.held), (before.excluded, after.excluded))
    return [f"{old:,.2f}" if old == new else f"{old:,.2f} → {new:,.2f}" for old, new in pairs]


def _past(before: Money, delivered: Decimal) -> str:
    return f"{delivered:,.2f}" if before.deliver == delivered else f"{delivered:,.2f} ≠"


def _sum(amounts: Iterable[Money]) -> Money:
    listed = list(amounts)
    return Money(*(sum((getattr(one, name) for one in listed), Decimal(0)) for name in ("deliver", "held", "excluded")))
