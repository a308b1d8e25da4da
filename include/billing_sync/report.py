"""The summary of where the money is, printed for people."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.table import Table

from billing_sync.db import Connection

OUTCOMES = ("delivered", "held", "excluded", "awaiting approval", "in doubt")


def _amount(value: Decimal | int | None) -> str:
    return f"{value or 0:,.2f}"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    return table


def print_report(connection: Connection, console: Console) -> bool:
    """Print invoices, lines, held by reason, runs and the proof. True if every cent is accounted for."""
    rows = connection.execute(
        """
        select billing_period, currency, count(distinct invoice_id), count(*),
            sum(total_price) filter (where outcome = 'delivered'), sum(total_price) filter (where outcome = 'held'),
            sum(total_price) filter (where outcome = 'excluded'),
            sum(total_price) filter (where outcome in ('awaiting approval', 'in doubt')), sum(total_price)
        from reporting.invoice_line group by 1, 2 order by 1, 2
        """
    ).fetchall()
    table = _table(
        "Accepted invoices",
        "period",
        "currency",
        "invoices",
        "lines",
        "delivered",
        "held",
        "excluded",
        "open",
        "lines' total",
    )
    for period, currency, invoices, lines, *amounts in rows:
        table.add_row(f"{period:%Y-%m}", currency, str(invoices), str(lines), *map(_amount, amounts))
    console.print(table)

    table = _table("Lines by outcome", "outcome", "lines", "currency", "money")
    for outcome, lines, currency, amount in connection.execute(
        "select outcome, count(*), currency, sum(total_price) from reporting.invoice_line group by 1, 3 order by 1, 3"
    ).fetchall():
        table.add_row(outcome, str(lines), currency, _amount(amount))
    console.print(table)

    held = connection.execute(
        """
        select reason, reason_code, line_count, currency, money_at_risk
        from reporting.held_by_reason order by 3 desc, 2, 4
        """
    ).fetchall()
    if held:
        table = _table(
            "Held lines by reason (a line with several reasons counts under each)",
            "reason",
            "code",
            "lines",
            "currency",
            "money",
        )
        for reason, code, lines, currency, amount in held:
            table.add_row(reason, code, str(lines), currency, _amount(amount))
        console.print(table)

    table = _table("Runs", "run", "kind", "periods", "state", "planned", "writes", "errors", "warnings")
    for run in connection.execute(
        """
        select run_id, kind,
            (select string_agg(to_char(period, 'YYYY-MM'), ', ') from unnest(billing_periods) as period),
            state, planned_additions, writes, errors, warnings
        from reporting.run order by run_id desc limit 10
        """
    ).fetchall():
        table.add_row(*(str(value if value is not None else "") for value in run))
    console.print(table)
    return _print_proof(connection, console)


def _print_proof(connection: Connection, console: Console) -> bool:
    table = _table(
        "Proof, re-read from ConnectWise: source = delivered + held + excluded + awaiting approval + in doubt",
        "currency", "invoices", "source", "delivered", "held", "excluded", "awaiting", "in doubt", "difference",
    )  # fmt: skip
    proven = connection.execute(
        """
        select currency, count(*), sum(source_total), sum(delivered), sum(held), sum(excluded), sum(awaiting_approval),
            sum(in_doubt), sum(abs(difference))
        from reporting.invoice_proof group by 1 order by 1
        """
    ).fetchall()
    for currency, invoices, *amounts in proven:
        table.add_row(currency, str(invoices), *map(_amount, amounts))
    console.print(table)
    unproven: Any = connection.execute(
        """
        select count(*), (
            -- Some breaches are of no invoice: a second billable Addition, rows without a header.
            select count(*) from audit.run
            where run.run_id = (select max(proof.run_id) from audit.invoice_proof as proof) and run.proven_at is null
        )
        from billing.invoice
        where not exists (select from audit.invoice_proof as proof where proof.invoice_id = invoice.invoice_id)
        """
    ).fetchone()
    is_proven = bool(proven) and not any(unproven) and all(row[-1] == 0 and row[-2] == 0 for row in proven)
    if is_proven:
        console.print("Difference 0.00: every cent of every accepted invoice is accounted for.", style="bold green")
    else:
        console.print(
            "NOT proven: "
            + (f"{unproven[0]} invoices have no proof yet. " if unproven[0] or not proven else "")
            + ("The proof of the newest run failed. " if unproven[1] else "")
            + "See reporting.invoice_proof, and audit.log_entry where level = 'ERROR'.",
            style="bold red",
        )
    return is_proven


def print_subscriptions(connection: Connection, console: Console, *, only_amiss: bool = False) -> int:
    """Print what each customer runs, and what is amiss; returns how many subscriptions were printed."""
    rows = connection.execute(
        """
        select company_name, coalesce(subscription_name, subscription_id), agreement_name,
            array_to_string(addition_ids, ', '), trim_scale(quantity), trim_scale(unit_price) || ' ' || currency, state,
            since, paid_until, next_open_cycle, amiss
        from reporting.subscription where not %s or amiss is not null
        order by company_name nulls last, 2, subscription_id
        """,
        [only_amiss],
    ).fetchall()
    table = _table(
        "Subscriptions" + (" with something amiss" if only_amiss else ""),
        "company", "subscription", "agreement", "Additions", "quantity", "price", "state", "since", "paid until",
        "next open cycle", "amiss",
    )  # fmt: skip
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row))
    console.print(table)
    return len(rows)


def delivered_by_company(connection: Connection) -> dict[int, Decimal]:
    """Money delivered per ConnectWise company id: what agreement invoicing must bring to its customers' invoices."""
    rows = connection.execute(
        """
        select ledger.company_id, sum(carried.amount)
        from delivery.addition as ledger join delivery.addition_line as carried using (delivery_key)
        where ledger.state in ('delivered', 'conflict')
        group by 1
        """
    ).fetchall()
    return {int(company_id): amount for company_id, amount in rows}
