"""The command line: `python -m billing_sync --help`. Needs BILLING_DB_DSN, the address of the billing database."""

from __future__ import annotations

import getpass
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from pathlib import Path
from typing import Annotated

import psycopg
import typer
from psycopg.conninfo import conninfo_to_dict
from rich.console import Console
from rich.table import Table

from billing_sync.db import Connection, connect
from billing_sync.errors import BillingSyncError, ConfigurationError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Bill AppXite's verified invoices from ConnectWise PSA."
)
mappings_app = typer.Typer(
    no_args_is_help=True, help="Organizations, offers and contracts: which becomes which; selectors: which company."
)
rules_app = typer.Typer(no_args_is_help=True, help="Charge types: names on the customer's invoice and date rules.")
settings_app = typer.Typer(no_args_is_help=True, help="What an administrator configures.")
additions_app = typer.Typer(no_args_is_help=True, help="Additions that ConnectWise refused or holds differently.")
plan_app = typer.Typer(no_args_is_help=True, help="What runs want to write, and approving it.")
app.add_typer(mappings_app, name="mappings")
app.add_typer(rules_app, name="rules")
app.add_typer(settings_app, name="settings")
app.add_typer(plan_app, name="plan")
app.add_typer(additions_app, name="additions")
pauses_app = typer.Typer(no_args_is_help=True, help="The stop button: nothing is written while a pause lasts.")
app.add_typer(pauses_app, name="pauses")
bounds_app = typer.Typer(no_args_is_help=True, help="What bounds park, and letting it pass.")
app.add_typer(bounds_app, name="bounds")
agreement_rules_app = typer.Typer(no_args_is_help=True, help="Which of a company's agreements takes which lines.")
app.add_typer(agreement_rules_app, name="agreement-rules")
agreements_app = typer.Typer(no_args_is_help=True, help="Agreements that plans create for companies that have none.")
app.add_typer(agreements_app, name="agreements")
subscriptions_app = typer.Typer(no_args_is_help=True, help="What each customer runs, and which Addition bills it.")
app.add_typer(subscriptions_app, name="subscriptions")
adoption_app = typer.Typer(no_args_is_help=True, help="Additions made by hand: list, compare, take over.")
app.add_typer(adoption_app, name="adoption")
console = Console(width=max(120, Console().width))

ME = getpass.getuser()
FileToWrite = Annotated[Path, typer.Argument(help="CSV file to write")]
Person = Annotated[str, typer.Option("--as", help="Who does this; stands in the audit trail.")]
Kind = Annotated[str, typer.Argument(help="organizations, offers, contracts or selectors")]


def _dsn() -> str:
    dsn = os.environ.get("BILLING_DB_DSN")
    if not dsn:
        raise ConfigurationError(
            "BILLING_DB_DSN is not set. It is the address of the billing database, e.g. postgresql://user@host/billing"
        )
    try:
        conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:  # its text may quote the password
        raise ConfigurationError(
            "BILLING_DB_DSN is no address of a database, e.g. postgresql://user@host:5432/billing"
        ) from None
    return dsn


@contextmanager
def _database() -> Iterator[Connection]:
    try:
        with connect(_dsn()) as connection:
            yield connection
    except psycopg.errors.UndefinedTable:
        raise ConfigurationError("The billing database is not migrated: run python -m billing_sync migrate") from None


@app.command()
def migrate() -> None:
    """Bring the billing database to the newest schema. Safe to run at any time."""
    from billing_sync.migrate import migrate as apply_migrations

    applied = apply_migrations(_dsn())
    console.print(f"applied {', '.join(applied)}" if applied else "the billing database is up to date")


@app.command()
def report() -> None:
    """Where the money is: invoices, lines, held by reason, and the proof. Ends with an error if the proof fails."""
    from billing_sync.report import print_report

    with _database() as connection:
        if not print_report(connection, console):
            raise typer.Exit(1)


@app.command()
def why(
    line: Annotated[int | None, typer.Option("--line", help="line_id, as reports and pages show it")] = None,
    invoice: Annotated[str | None, typer.Option("--invoice", help="AppXite's invoice number")] = None,
    addition: Annotated[
        str | None, typer.Option("--addition", help="Id of an Addition in ConnectWise, or its delivery key")
    ] = None,
) -> None:
    """Why a line, an invoice or an Addition is as it is: what decided then, who approved, what ConnectWise answered."""
    from billing_sync import why as story

    if [line, invoice, addition].count(None) != 2:
        raise ConfigurationError("Name one of --line, --invoice and --addition.")
    with _database() as connection:
        if line is not None:
            story.print_line(story.why_line(connection, line), console)
        elif addition is not None:
            story.print_addition(story.why_addition(connection, addition), console)
        else:
            for found in story.why_invoice(connection, invoice or ""):
                story.print_invoice(found, console)


@app.command()
def simulate(
    first: Annotated[str, typer.Option("--from", help="First billing period, e.g. 2026-08")],
    last: Annotated[str, typer.Option("--to", help="Last billing period, e.g. 2026-10")],
    settings: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, as `settings set` takes it")] = None,
    rules: Annotated[Path | None, typer.Option(help="CSV file as `rules export` writes it")] = None,
    organizations: Annotated[Path | None, typer.Option(help="CSV file as `mappings export` writes it")] = None,
    offers: Annotated[Path | None, typer.Option(help="CSV file as `mappings export` writes it")] = None,
    contracts: Annotated[Path | None, typer.Option(help="CSV file as `mappings export` writes it")] = None,
    selectors: Annotated[Path | None, typer.Option(help="CSV file as `mappings export` writes it")] = None,
    agreement_rules: Annotated[Path | None, typer.Option(help="CSV file as `agreement-rules export` writes it")] = None,
    lines_file: Annotated[Path | None, typer.Option("--csv", help="CSV file to write with every line")] = None,
) -> None:
    """What other settings, rules or mappings would bill in past periods, per customer. Writes nothing."""
    from billing_sync.run import parse_billing_period
    from billing_sync.simulate import Changes, print_simulation
    from billing_sync.simulate import simulate as run_simulation

    pairs = [text.partition("=") for text in settings or []]
    unclear = [key for key, sign, _ in pairs if not sign]
    if unclear:
        raise ConfigurationError(f"--set {unclear[0]} lacks a value. Write --set KEY=VALUE.")
    files = {"organizations": organizations, "offers": offers, "contracts": contracts}
    changes = Changes(
        {key: value for key, _, value in pairs}, rules, {kind: path for kind, path in files.items() if path},
        selectors, agreement_rules,
    )  # fmt: skip
    periods = parse_billing_period(first), parse_billing_period(last)
    print_simulation(run_simulation(_dsn(), *periods, changes, csv=lines_file), console)


@mappings_app.command("export")
def export_mappings(
    kind: Kind,
    path: FileToWrite,
    since: Annotated[
        str | None, typer.Option("--since", help="Only offers on invoices of this billing period (2026-05) or later.")
    ] = None,
) -> None:
    """Write all mappings of a kind, new ones included, to a CSV file."""
    from billing_sync.mappings import export_mappings as export
    from billing_sync.run import parse_billing_period
    from billing_sync.selectors import SELECTORS, export_selectors

    with _database() as connection:
        if kind == SELECTORS:
            frame = export_selectors(connection)
        else:
            frame = export(connection, kind, since=parse_billing_period(since) if since else None)
    frame.to_csv(path, index=False)
    console.print(f"{len(frame)} {kind} written to {path}")


@mappings_app.command("import")
def import_mappings(
    kind: Kind,
    path: Annotated[Path, typer.Argument(help="CSV file to read; columns as export writes them")],
    approve: Annotated[
        bool, typer.Option("--approve", help="Let the file's column state count; else all stay excluded.")
    ] = False,
    person: Person = ME,
) -> None:
    """Read mappings of a kind from a CSV file, all or nothing."""
    from billing_sync.mappings import import_mappings as store
    from billing_sync.mappings import read_mapping_file
    from billing_sync.selectors import SELECTORS, import_selectors, read_selector_file

    if kind == SELECTORS:
        if not approve:
            raise ConfigurationError("Selectors decide as they are imported: say --approve.")
        selectors = read_selector_file(path)
        with _database() as connection:
            done = import_selectors(connection, selectors, person=person)
        console.print(f"selectors: {done.rows} rows, {done.stored} added or changed, {done.removed} removed")
        return
    frame = read_mapping_file(path, kind)
    with _database() as connection:
        result = store(connection, kind, frame, approve=approve, person=person)
    console.print(
        f"{kind}: {result.rows} rows, {result.approved} approved, {result.excluded} excluded by {person}, "
        f"{result.undecided} left undecided"
    )


@mappings_app.command("suggest")
def suggest_mappings(
    kind: Annotated[str, typer.Argument(help="organizations or offers")],
    path: FileToWrite,
    decided: Annotated[bool, typer.Option("--all", help="Also for entries that are decided already.")] = False,
) -> None:
    """Write candidates with evidence to a CSV file. Nothing is applied: fill in `state`, then import the file."""
    from billing_sync.suggestions import suggest, suggestions_frame

    with _database() as connection:
        suggestions = suggest(connection, kind, decided=decided)
    suggestions_frame(kind, suggestions).to_csv(path, index=False)
    found = sum(bool(one.candidates) for one in suggestions)
    console.print(f"{len(suggestions)} {kind}, {found} with candidates, written to {path}")


@mappings_app.command("targets")
def export_targets(
    targets: Annotated[str, typer.Argument(help="companies, products or agreements")], path: FileToWrite
) -> None:
    """Write everything of ConnectWise that a mapping may point at to a CSV file."""
    from billing_sync.mappings import export_targets as export

    with _database() as connection:
        frame = export(connection, targets)
    frame.to_csv(path, index=False)
    console.print(f"{len(frame)} {targets} written to {path}")


@rules_app.command("export")
def export_rules(path: Annotated[Path, typer.Argument(help="CSV file to write")]) -> None:
    """Write the rules of all charge types to a CSV file."""
    from billing_sync.rules import export_rules as export

    with _database() as connection:
        frame = export(connection)
    frame.to_csv(path, index=False)
    console.print(f"{len(frame)} charge types written to {path}")


@rules_app.command("import")
def import_rules(
    path: Annotated[Path, typer.Argument(help="CSV file to read; columns as export writes them")], person: Person = ME
) -> None:
    """Read rules of charge types from a CSV file, all or nothing. Counts for lines loaded from then on."""
    from billing_sync.rules import import_rules as store
    from billing_sync.rules import read_rules_file

    frame = read_rules_file(path)
    with _database() as connection:
        changed = store(connection, frame, person=person)
    console.print(f"{len(frame)} charge types read, {changed} changed")


@rules_app.command("apply-again")
def apply_rules_again(
    period: Annotated[str | None, typer.Option("--period", help="Billing period, e.g. 2026-05")] = None,
    organization: Annotated[str | None, typer.Option("--organization", help="AppXite id")] = None,
    line: Annotated[list[int] | None, typer.Option("--line", help="Id of a line; may be given several times.")] = None,
    person: Person = ME,
) -> None:
    """Give undelivered lines the current rules of their charge type; the next run decides them again."""
    from billing_sync.rules import apply_rules_again as apply_again
    from billing_sync.run import parse_billing_period

    month = parse_billing_period(period) if period is not None else None
    with _database() as connection:
        changed = apply_again(
            connection, person=person, period=month, organization_id=organization, line_ids=line or []
        )
    console.print(f"{changed} lines changed; the next run decides them by the current rules")


@agreement_rules_app.command("export")
def export_agreement_rules(path: Annotated[Path, typer.Argument(help="CSV file to write")]) -> None:
    """Write all agreement rules, in their order, to a CSV file."""
    from billing_sync.agreement_rules import export_agreement_rules as export

    with _database() as connection:
        frame = export(connection)
    frame.to_csv(path, index=False)
    console.print(f"{len(frame)} agreement rules written to {path}")


@agreement_rules_app.command("import")
def import_agreement_rules(
    path: Annotated[Path, typer.Argument(help="CSV file to read; columns as export writes them")], person: Person = ME
) -> None:
    """Make the agreement rules what the file says, all or nothing: order as in the file, the others are removed."""
    from billing_sync.agreement_rules import import_agreement_rules as store
    from billing_sync.agreement_rules import read_agreement_rules_file

    frame = read_agreement_rules_file(path)
    with _database() as connection:
        result = store(connection, frame, person=person)
    console.print(
        f"{len(frame)} agreement rules: {result.added} added, {result.changed} changed, {result.removed} removed "
        f"by {person}"
    )


@agreements_app.command("list")
def list_agreements() -> None:
    """Agreements that plans create, with the money that waits for them."""
    table = Table(
        "company", "agreement", "type", "billing cycle", "from", "lines", "money", "plan", "state", "id", "problem"
    )
    with _database() as connection:
        for row in connection.execute(
            """
            select company_name || ' (' || company_id || ')', agreement_name, agreement_type, billing_cycle,
                bill_start_date, line_count, amount || ' ' || currency, plan_id, state, agreement_id, problem
            from reporting.new_agreement order by state = 'created', company_name, company_id
            """
        ).fetchall():
            table.add_row(*("" if value is None else str(value) for value in row))
    console.print(table)


AgreementCompany = Annotated[int, typer.Argument(help="ConnectWise id of the company")]


@agreements_app.command("refuse")
def refuse_agreement(
    company: AgreementCompany,
    reason: Annotated[str, typer.Option("--reason", help="Why; stands at its held lines.")],
    person: Person = ME,
) -> None:
    """No agreement is created for this company, by no plan; its lines are held as no_agreement."""
    from billing_sync.create_agreements import refuse_agreement as refuse

    with _database() as connection:
        refuse(connection, company, reason, person)
    console.print(f"no agreement is created for company {company}, by {person}")


@agreements_app.command("allow")
def allow_agreement(company: AgreementCompany, person: Person = ME) -> None:
    """Take a refusal back; also lets the next run try again what ConnectWise refused, or what was deleted there."""
    from billing_sync.create_agreements import allow_agreement as allow

    with _database() as connection:
        was = allow(connection, company, person)
    console.print(f"company {company}: {was}; the next run plans an agreement again")


@subscriptions_app.command("list")
def list_subscriptions(
    amiss: Annotated[bool, typer.Option("--amiss", help="Only those with something amiss.")] = False,
) -> None:
    """Subscriptions with agreement, Additions, quantity, price and state; and what is amiss."""
    from billing_sync.report import print_subscriptions

    with _database() as connection:
        print_subscriptions(connection, console, only_amiss=amiss)


@settings_app.command("list")
def list_settings() -> None:
    """All settings with their values."""
    from billing_sync.settings import all_settings

    table = Table("setting", "value", "what it does")
    with _database() as connection:
        for key, value, description in all_settings(connection):
            table.add_row(key, json.dumps(value) if value is not None else "(not set)", description)
    console.print(table)


@settings_app.command("set")
def set_setting(key: str, value: str, person: Person = ME) -> None:
    """Change one setting."""
    from billing_sync.settings import set_setting as store

    with _database() as connection:
        connection.execute("select set_config('billing.user', %s, false)", [person])
        stored = store(connection, key, value)
    console.print(f"{key} = {json.dumps(stored)}")


@plan_app.command("list")
def list_plans() -> None:
    """The newest plans with their state and money."""
    table = Table("plan", "run", "state", "Additions", "money", "new agreements", "approved by", "parked because")
    with _database() as connection:
        for row in connection.execute(
            """
            select plan_id, run_id, case when is_dry_run then plan_state || ' (dry run)' else plan_state end,
                planned_additions, planned_amount, planned_agreements, approved_by, parked_because
            from reporting.run where plan_id is not null order by plan_id desc limit 20
            """
        ).fetchall():
            table.add_row(*("" if value is None else str(value) for value in row))
    console.print(table)


@plan_app.command("approve")
def approve_plan(
    plan_id: int,
    leave_out: Annotated[
        list[int] | None,
        typer.Option(help="Plan item (reporting.plan_item) that it shall not deliver; may be repeated."),
    ] = None,
    leave_out_agreement: Annotated[
        list[int] | None, typer.Option(help="Company whose agreement it shall not create; may be repeated.")
    ] = None,
    person: Person = ME,
) -> None:
    """Approve a plan as it stands, or a part of it; the DAG apply_plan then delivers it.

    What is left out is planned again by the next run.
    """
    from billing_sync.plan import approve_plan as approve

    with _database() as connection:
        connection.execute("select set_config('billing.user', %s, false)", [person])
        approve(connection, plan_id, person, leave_out=leave_out or (), leave_out_agreements=leave_out_agreement or ())
    console.print(
        f"plan {plan_id} is approved by {person}. Deliver it: trigger the DAG apply_plan with plan_id {plan_id}."
    )


@plan_app.command("reject")
def reject_plan(
    plan_id: int, reason: Annotated[str, typer.Option(help="Why; stands in the audit trail.")], person: Person = ME
) -> None:
    """Reject a plan that waits: it is never delivered. Its lines stay open, the next run makes another plan."""
    from billing_sync.plan import reject_plan as reject

    with _database() as connection:
        connection.execute("select set_config('billing.user', %s, false)", [person])
        reject(connection, plan_id, person, reason)
    console.print(f"plan {plan_id} is rejected by {person}; the next run makes another one")


@bounds_app.command("list")
def list_bounds() -> None:
    """What bounds park now, with figures and money at risk; and what people let pass."""
    from billing_sync.bounds import allowed, parked_now

    parked = Table("key", "figure", "lines", "money at risk", "why", title="Parked by bounds")
    passed = Table("key", "up to", "allowed by", "at (UTC)", "note", title="Let pass")
    with _database() as connection:
        for one in parked_now(connection):
            money = "" if one.money_at_risk is None else f"{one.money_at_risk} {one.currency}"
            scope = f"plan {one.plan_id}" if one.plan_id else str(one.lines)
            parked.add_row(one.bound_key, str(one.figure), scope, money, one.detail)
        for key, up_to, person, when, note in allowed(connection):
            passed.add_row(key, str(up_to), person, when, note)
    console.print(parked)
    if passed.rows:
        console.print(passed)


@bounds_app.command("allow")
def allow_bound(
    bound_key: Annotated[str, typer.Argument(help="As `bounds list` shows it")],
    up_to: Annotated[str, typer.Option("--up-to", help="The figure that you saw; a larger one parks again.")],
    note: Annotated[str | None, typer.Option("--note", help="Why it is right.")] = None,
    person: Person = ME,
) -> None:
    """You looked at it and it is right: the next run lets it pass, up to this figure."""
    from billing_sync.bounds import allow

    with _database() as connection:
        try:
            figure = allow(connection, bound_key, up_to, person, note)
        except ConfigurationError as error:  # the pages say the same, and have the list before them
            raise ConfigurationError(f"{error} List them with: python -m billing_sync bounds list") from None
    console.print(f"{bound_key} passes up to {figure}, by {person}; the next run plans it")


@bounds_app.command("withdraw")
def withdraw_bound(
    bound_key: Annotated[str, typer.Argument(help="As `bounds list` shows it")], person: Person = ME
) -> None:
    """Take back what was let pass: what is not delivered yet is parked again."""
    from billing_sync.bounds import withdraw

    with _database() as connection:
        withdraw(connection, bound_key, person)
    console.print(f"{bound_key} is parked again by the next run, as far as it is not delivered")


@additions_app.command("list")
def list_additions() -> None:
    """Additions that need a person: refused, in conflict with what ConnectWise holds, or not proven."""
    from billing_sync.settle import unsettled_additions

    table = Table("key", "state", "agreement", "Addition", "lines", "money", "problem")
    with _database() as connection:
        total, additions = unsettled_additions(connection)
    for one in additions:
        table.add_row(
            one["delivery_key"], one["state"], one["agreement_name"], str(one["connectwise_addition_id"] or ""),
            str(len(one["line_ids"])), f"{one['amount']} {one['currency']}" if one["line_ids"] else "", one["problem"],
        )  # fmt: skip
    console.print(table)
    if total > len(additions):
        console.print(f"{len(additions)} of {total}")


@additions_app.command("retry")
def retry_addition(
    delivery_key: Annotated[str, typer.Argument(help="As `additions list` shows it")],
    anew: Annotated[
        bool, typer.Option("--anew", help="It was deleted or changed in ConnectWise: decide its open lines again.")
    ] = False,
    person: Person = ME,
) -> None:
    """The cause is mended in ConnectWise: let the next run try again, whatever was refused before."""
    from billing_sync.settle import retry_addition as retry

    with _database() as connection:
        state = retry(connection, delivery_key, person, anew=anew)
    console.print(f"{delivery_key} was {state}; the next run tries again")


@additions_app.command("confirm")
def confirm_addition(
    delivery_key: Annotated[str, typer.Argument(help="As `additions list` shows it")], person: Person = ME
) -> None:
    """You have seen the Addition in conflict on ConnectWise's invoice: its lines are delivered."""
    from billing_sync.settle import confirm_addition as confirm

    with _database() as connection:
        lines = confirm(connection, delivery_key, person)
    console.print(f"{delivery_key}: {lines} lines are delivered")


@adoption_app.command("scan")
def scan_additions() -> None:
    """Read all Additions of the mapped companies' active agreements. Needs AIRFLOW_CONN_CONNECTWISE_API."""
    from billing_sync.adoption import connectwise_of_environment, scan

    with _database() as connection:
        counts = scan(connection, connectwise_of_environment(_dsn()))
    console.print(
        f"{counts.additions} Additions of {counts.agreements} agreements read; "
        f"{counts.hand_made} were made by hand and still bill"
    )


@adoption_app.command("export")
def export_adoption(path: Annotated[Path, typer.Argument(help="CSV file to write")]) -> None:
    """Write Additions made by hand with the subscriptions they may stand for, and the evidence, to a CSV file."""
    from billing_sync.adoption import export_candidates

    with _database() as connection:
        frame = export_candidates(connection)
    frame.to_csv(path, index=False)
    console.print(f"{frame['connectwise_addition_id'].nunique()} Additions, {len(frame)} rows written to {path}")


@adoption_app.command("import")
def import_adoption(
    path: Annotated[Path, typer.Argument(help="CSV file to read; columns as export writes them")], person: Person = ME
) -> None:
    """Take over what the file approves, all or nothing. Writes nothing to ConnectWise: the next plan does."""
    from billing_sync.adoption import connectwise_of_environment, import_adoptions, read_adoption_file

    frame = read_adoption_file(path)
    with _database() as connection:
        counts = import_adoptions(connection, connectwise_of_environment(_dsn()), frame, person=person)
    console.print(
        f"{counts.approved} Additions taken over by {person}, {counts.ignored} ignored, "
        f"{counts.unchanged} rows unchanged. The next plan changes them; look at it in reporting.plan_item."
    )


@adoption_app.command("list")
def list_adoptions() -> None:
    """Additions made by hand that were taken over, ignored or released."""
    from billing_sync.adoption import adoptions

    table = Table("id", "state", "agreement", "Addition", "subscription", "billed by hand before", "by", "problem")
    with _database() as connection:
        for one in adoptions(connection):
            cells = (
                one["adoption_id"], one["state"], one["agreement_name"], one["connectwise_addition_id"],
                one["subscription_id"], one["covered_before"], one["decided_by"], one["problem"],
            )  # fmt: skip
            table.add_row(*("" if value is None else str(value) for value in cells))
    console.print(table)


@adoption_app.command("release")
def release_adoption(
    adoption_id: Annotated[int, typer.Argument(help="As `adoption list` shows it")], person: Person = ME
) -> None:
    """Give an Addition back that no plan has changed yet."""
    from billing_sync.adoption import release

    with _database() as connection:
        words = release(connection, adoption_id, person)
    console.print(f"released: {words}. It bills on as it was made by hand.")


Company = Annotated[int | None, typer.Option("--company", help="ConnectWise id of a company; without it: everything.")]


@pauses_app.command("list")
def list_pauses() -> None:
    """Pauses that last, with who set them and why."""
    from billing_sync.pauses import active_pauses

    table = Table("company", "since (UTC)", "by", "why")
    with _database() as connection:
        for found in active_pauses(connection):
            whom = "everything" if found["company_id"] is None else f"{found['company_name']} ({found['company_id']})"
            since = f"{found['paused_at'].astimezone(UTC):%Y-%m-%d %H:%M}"
            table.add_row(whom, since, found["paused_by"], found["reason"])
    console.print(table)


@pauses_app.command("begin")
def begin_pause(
    reason: Annotated[str, typer.Option("--reason", help="Why; everybody who meets the pause reads it.")],
    company: Company = None,
    person: Person = ME,
) -> None:
    """Stop writing to ConnectWise, at the next write even of a run under way."""
    from billing_sync.pauses import pause

    with _database() as connection:
        is_new = pause(connection, reason, person, company)
    whom = "delivery" if company is None else f"delivery to company {company}"
    console.print(f"{whom} is paused by {person}" if is_new else f"{whom} was paused already")


@pauses_app.command("end")
def end_pause(company: Company = None, person: Person = ME) -> None:
    """Let writing go on: with the next run, or with apply_plan for a plan that was stopped."""
    from billing_sync.pauses import end_pause as end

    with _database() as connection:
        ended = end(connection, person, company)
    console.print("delivery goes on" if company is None else f"delivery to company {company} goes on")
    for words in ended:
        console.print(f"ended the pause by {words}")


def main() -> None:
    """Run the command line; errors of ours are one readable line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        app()
    except BillingSyncError as error:
        _say_error(str(error))
    except psycopg.OperationalError as error:
        _say_error(f"the billing database does not answer: {error}")


def _say_error(text: str) -> None:
    console.print("Error:", style="bold red", end=" ")
    console.print(text, soft_wrap=True, highlight=False, markup=False)
    raise SystemExit(1)


if __name__ == "__main__":
    main()
