"""The decisions of a run, in order. Each step is a SQL file; the DAGs run the same files."""

from __future__ import annotations

import logging

from billing_sync.db import Connection, run_sql_file, working_for
from billing_sync.run import log_entry

log = logging.getLogger(__name__)

REFRESH_REFERENCE = "mapping/refresh_reference.sql"
REFRESH_OFFERS = "mapping/refresh_offers.sql"
LOAD_INVOICES = "billing/load_invoices.sql"
LOAD_COSTS = "billing/load_costs.sql"
CHECK_SOURCE = "checks/check_source.sql"
MAP_LINES = "billing/map_lines.sql"
RESOLVE_AGREEMENTS = "billing/resolve_agreements.sql"
APPLY_RULES = "billing/apply_rules.sql"
HOLD_LINES = "billing/hold_lines.sql"
BOUND_AGREEMENTS = "billing/bound_agreements.sql"
BOUND_AMOUNTS = "billing/bound_amounts.sql"
BOUND_CREDITS = "billing/bound_credits.sql"
GROUP_LINES = "billing/group_lines.sql"
BOUND_ADDITIONS = "billing/bound_additions.sql"
MAKE_PLAN = "plan/make_plan.sql"
BOUND_PLAN = "plan/bound_plan.sql"

STEPS = (
    REFRESH_REFERENCE,
    REFRESH_OFFERS,
    LOAD_INVOICES,
    LOAD_COSTS,
    CHECK_SOURCE,
    MAP_LINES,
    RESOLVE_AGREEMENTS,
    APPLY_RULES,
    HOLD_LINES,
    BOUND_AGREEMENTS,
    BOUND_AMOUNTS,
    BOUND_CREDITS,
    GROUP_LINES,
    BOUND_ADDITIONS,
    MAKE_PLAN,
    BOUND_PLAN,
)


def decide(connection: Connection, run_id: int) -> None:
    """Run every step from staged extracts to the plan, each in its own transaction."""
    for step in STEPS:
        run_sql_file(connection, step, run_id)


def count_outcomes(connection: Connection, run_id: int) -> dict[str, int]:
    """Lines that the run decides about, by outcome (deliver, held, excluded)."""
    with working_for(connection, run_id):
        rows = connection.execute(
            """
            select decision.outcome, count(*)
            from billing.line_in_scope join billing.line_decision as decision using (line_id)
            group by 1
            """
        ).fetchall()
    return {str(outcome): int(count) for outcome, count in rows}


def say_held_lines(connection: Connection, run_id: int) -> int:
    """Write into the log that people read how many lines are held, why, and the money at risk. Returns the reasons."""
    with working_for(connection, run_id):
        rows = connection.execute(
            """
            select held.reason_code, held.reason, held.currency, count(*), sum(held.money_at_risk)
            from billing.line_in_scope join reporting.held_line as held using (line_id)
            group by 1, 2, 3 order by 4 desc, 1
            """
        ).fetchall()
    for code, reason, currency, count, money in rows:
        message = f"{count} lines held, {money} {currency}: {reason}"
        log.info(message)
        log_entry(connection, run_id, "WARNING", "lines_held", message, reason_code=code)
    return len(rows)
