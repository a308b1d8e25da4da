"""Agreement rules as a CSV file: which of a company's several agreements takes which lines. The order of the rows is
the order of the rules; what they mean is SQL (billing/resolve_agreements.sql).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from billing_sync.db import Connection
from billing_sync.errors import ConfigurationError
from billing_sync.mappings import read_csv

LINES = ("charge_type", "line_kind", "offer_id")
CONDITIONS = ("agreement_type", "agreement_name", "currency", "billing_cycle")
COLUMNS = ("agreement_rule", *LINES, *CONDITIONS)
LINE_KINDS = ("recurring", "one-time")
BILLING_CYCLES = ("Monthly", "BiMonthly", "Quarterly", "SemiAnnual", "Yearly", "line")
# A value of these columns has to be known: column of the file -> where, and what to do about it.
KNOWN = {
    "charge_type": "select charge_type from billing.charge_type",
    "offer_id": "select offer_id from mapping.offer",
    "agreement_type": "select name from mapping.agreement_type where not is_gone",
}


@dataclass(frozen=True)
class RuleChanges:
    """How many rules an import added, changed (a condition or the place in the order) and removed."""

    added: int
    changed: int
    removed: int


def export_agreement_rules(connection: Connection) -> pd.DataFrame:
    """All agreement rules in their order, as text columns ready for CSV; an empty cell is no condition."""
    rows = connection.execute(
        """
        select agreement_rule, charge_type, line_kind, offer_id, agreement_type, agreement_name, currency, billing_cycle
        from mapping.agreement_rule order by position
        """
    ).fetchall()
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype="str")


def read_agreement_rules_file(path: Path) -> pd.DataFrame:
    """Read and check a CSV file of agreement rules.

    Raises ConfigurationError that names file, line and what is expected.
    """
    frame = read_csv(path)
    missing = [column for column in COLUMNS if column not in frame.columns]
    if missing:
        raise ConfigurationError(f"{path} lacks the column {', '.join(missing)}. It has: {', '.join(frame.columns)}.")
    frame = frame.assign(**{column: frame[column].str.strip() for column in COLUMNS})
    frame["currency"] = frame["currency"].map(lambda code: code if code.lower() == "line" else code.upper())
    frame["currency"] = frame["currency"].str.replace(r"(?i)^line$", "line", regex=True)
    problems = []
    for number, row in zip(frame.index, frame.to_dict("records"), strict=True):
        if not row["agreement_rule"]:
            problems.append(f"line {number}: agreement_rule (the rule's name) is empty")
        if row["line_kind"] not in ("", *LINE_KINDS):
            problems.append(f"line {number}: line_kind {row['line_kind']!r} is neither of {', '.join(LINE_KINDS)}")
        if not re.fullmatch(r"([A-Z]{3}|line)?", row["currency"]):
            problems.append(f"line {number}: currency {row['currency']!r} is no code of 3 letters, nor line")
        if row["billing_cycle"] not in ("", *BILLING_CYCLES):
            problems.append(
                f"line {number}: billing_cycle {row['billing_cycle']!r} is none of {', '.join(BILLING_CYCLES)}"
            )
        problems.extend(
            f"line {number}: {column} has more than 200 characters" for column in COLUMNS if len(row[column]) > 200
        )
    doubled = frame.loc[frame["agreement_rule"].duplicated() & (frame["agreement_rule"] != ""), "agreement_rule"]
    problems.extend(f"rule {name!r} stands in it twice" for name in doubled.unique())
    if problems:
        raise ConfigurationError(f"{path}: nothing was imported. " + "; ".join(problems[:20]))
    return frame


def import_agreement_rules(connection: Connection, frame: pd.DataFrame, *, person: str) -> RuleChanges:
    """Make the rules what the frame says, all or nothing: a rule that it does not name is removed.

    They count for lines not delivered yet, from the next run on. Raises ConfigurationError for a charge type, offer or
    Agreement Type that is not known.
    """
    with connection.transaction():
        connection.execute("select set_config('billing.user', %s, true)", [person])
        unknown = []
        for column, statement in KNOWN.items():
            known = {row[0] for row in connection.execute(statement).fetchall()}
            unknown += [f"{column} {value!r}" for value in frame[column].unique() if value and value not in known]
        if unknown:
            raise ConfigurationError(
                f"Nothing was imported: not known: {', '.join(unknown[:20])}. Look at the spelling, or run "
                "sync_reference_data first."
            )
        removed = connection.execute(
            "delete from mapping.agreement_rule where agreement_rule <> all(%s)", [list(frame["agreement_rule"])]
        ).rowcount
        added = changed = 0
        for position, row in enumerate(frame.to_dict("records"), start=1):
            done = connection.execute(
                """
                insert into mapping.agreement_rule as known (agreement_rule, position, charge_type, line_kind, offer_id,
                    agreement_type, agreement_name, currency, billing_cycle)
                values (%(agreement_rule)s, %(position)s, %(charge_type)s, %(line_kind)s, %(offer_id)s,
                    %(agreement_type)s, %(agreement_name)s, %(currency)s, %(billing_cycle)s)
                on conflict (agreement_rule) do update set
                    position = excluded.position, charge_type = excluded.charge_type, line_kind = excluded.line_kind,
                    offer_id = excluded.offer_id, agreement_type = excluded.agreement_type,
                    agreement_name = excluded.agreement_name, currency = excluded.currency,
                    billing_cycle = excluded.billing_cycle,
                    version = known.version + ((known.charge_type, known.line_kind, known.offer_id,
                        known.agreement_type, known.agreement_name, known.currency, known.billing_cycle)
                        is distinct from (excluded.charge_type, excluded.line_kind, excluded.offer_id,
                            excluded.agreement_type, excluded.agreement_name, excluded.currency,
                            excluded.billing_cycle))::integer
                where (known.position, known.charge_type, known.line_kind, known.offer_id, known.agreement_type,
                        known.agreement_name, known.currency, known.billing_cycle)
                    is distinct from (excluded.position, excluded.charge_type, excluded.line_kind, excluded.offer_id,
                        excluded.agreement_type, excluded.agreement_name, excluded.currency, excluded.billing_cycle)
                returning known.xmax = 0
                """,
                {**{column: row[column] or None for column in COLUMNS}, "position": position},
            ).fetchone()
            added += done is not None and done[0]
            changed += done is not None and not done[0]
    return RuleChanges(added=added, changed=changed, removed=removed)
