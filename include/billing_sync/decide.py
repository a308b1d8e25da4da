"""The decisions of a run, in order. Each step is a SQL file; the DAGs run the same files."""

from __future__ import annotations

from billing_sync.db import Connection, run_sql_file

REFRESH_REFERENCE = "mapping/refresh_reference.sql"
REFRESH_OFFERS = "mapping/refresh_offers.sql"
LOAD_INVOICES = "billing/load_invoices.sql"
CHECK_SOURCE = "checks/check_source.sql"
MAP_LINES = "billing/map_lines.sql"
APPLY_RULES = "billing/apply_rules.sql"
HOLD_LINES = "billing/hold_lines.sql"
GROUP_LINES = "billing/group_lines.sql"
MAKE_PLAN = "plan/make_plan.sql"

STEPS = (
    REFRESH_REFERENCE,
    REFRESH_OFFERS,
    LOAD_INVOICES,
    CHECK_SOURCE,
    MAP_LINES,
    APPLY_RULES,
    HOLD_LINES,
    GROUP_LINES,
    MAKE_PLAN,
)


def decide(connection: Connection, run_id: int) -> None:
    """Run every step from staged extracts to the plan, each in its own transaction."""
    for step in STEPS:
        run_sql_file(connection, step, run_id)
