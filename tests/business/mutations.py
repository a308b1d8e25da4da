# ruff: noqa: E501  (a mutation is one line, to be compared with its file)
"""Wrong decisions that the simulated business must find: each is one change of one product file, made in a copy.

A change that alters nothing that anybody could see is no mutation: it does not belong here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from business.program import Program, write
from local_stack.settings import ROOT

HOLD, RULES, GROUP = "sql/billing/hold_lines.sql", "sql/billing/apply_rules.sql", "sql/billing/group_lines.sql"
LOAD, PLAN, MAP = "sql/billing/load_invoices.sql", "sql/plan/make_plan.sql", "sql/billing/map_lines.sql"
RESOLVE, FUNCTIONS, SCOPE = (
    "sql/billing/resolve_agreements.sql",
    "sql/migrations/0004_billing.sql",
    "sql/migrations/0013_review.sql",
)


@dataclass(frozen=True)
class Mutation:
    """In a file below include, `before` becomes `after`. before stands there exactly once.

    needs: which programs can show it at all; the others are not played
    """

    name: str
    file: str
    before: str
    after: str
    needs: Callable[[Program], bool] = lambda _: True

    def programs(self, seeds: int) -> list[Program]:
        """The first programs that can show it, of as many seeds."""
        made = (write(seed, mode) for seed in range(1, 1000) for mode in ("persistent", "dated"))
        return list(islice(filter(self.needs, made), seeds))

    def apply(self, include: Path) -> None:
        """Change a copy. Raises ValueError when the text is not there, or more than once."""
        path = include / self.file
        text = path.read_text()
        if text.count(self.before) != 1:
            raise ValueError(f"mutation {self.name!r}: its text stands {text.count(self.before)} times in {self.file}")
        path.write_text(text.replace(self.before, self.after))


def happens(*events: str) -> Callable[[Program], bool]:
    """Programs with each of these events."""
    return lambda program: all(any(event.what == name for event in program.events) for name in events)


def is_set(**settings: str) -> Callable[[Program], bool]:
    """Programs with these settings."""
    return lambda program: all(program.settings[name] == value for name, value in settings.items())


def types(column: str) -> Callable[[Program], bool]:
    """Programs in which people type such values often."""
    return lambda program: sum(event.given.get("column") == column for event in program.events) > 1


def persists(program: Program) -> bool:
    """Programs with persistent Additions, for several customers that are billed monthly."""
    return program.mode == "persistent" and sum(customer.months == 1 for customer in program.customers) > 2


MUTATIONS = (
    # Guards
    Mutation("bill on an agreement that prorates", HOLD, "case when agreement.prorates\n", "case when false\n", lambda one: sum(customer.prorates for customer in one.customers) > 0),
    Mutation("ignore the agreement's currency", HOLD, "case when agreement.agreement_id is not null and agreement.currency is distinct from line.currency\n", "case when false\n", happens("agreement_currency")),
    Mutation("bill an invoice that does not add up", HOLD, "case when not invoice.adds_up\n        then", "case when false\n        then", happens("break_total")),
    Mutation("bill a withdrawn invoice", HOLD, "case when invoice.withdrawn is not null\n", "case when false\n", happens("withdraw")),
    Mutation("bill an invoice issued again a second time", HOLD, "case when standing.lines is not null\n", "case when false\n", happens("reissue")),
    Mutation("bill the difference of a changed line by itself", HOLD, "correction.why_held is not null or (line.revision = 1", "(line.revision = 1", lambda one: is_set(changes_after_delivery="hold")(one) and happens("change_row")(one)),
    Mutation("bill what a person excluded", HOLD, "when override.is_excluded then format", "when false then format", types("is_excluded")),
    Mutation("bill late lines that shall be held", HOLD, "case when decision.is_late and setting.late_lines = 'hold'\n", "case when false\n", is_set(late_lines="hold")),
    Mutation("send credits that shall be held", HOLD, "case when decision.amount < 0 and setting.negative_additions = 'hold'\n", "case when false\n", is_set(negative_additions="hold")),
    Mutation("send zero amounts that shall be skipped", HOLD, "when line.total_price = 0 and billing.text_setting('zero_amounts') = 'skip' then", "when false then", is_set(zero_amounts="skip")),
    Mutation("take the first of several agreements", RESOLVE, "case when cardinality(candidate_ids) = 1 then candidate_ids[1] end\n", "candidate_ids[1]\n", happens("second_agreement")),
    # Dates
    Mutation("a late line begins a day late", RULES, "when is_late then next_invoice_date\n", "when is_late then next_invoice_date + 1\n"),
    Mutation("a line is late only by its end", RULES, "coalesce(start_date < next_invoice_date\n", "coalesce(end_date < next_invoice_date\n"),
    Mutation("a dated Addition runs beyond its cycle", RULES, "else least(greatest(end_date, effective_date), cycle_end)", "else greatest(end_date, effective_date)"),
    Mutation("the invoice date for the charge date", RULES, "charge_type.charge_start_rule, line.charge_start_date, invoice.invoice_date,", "charge_type.charge_start_rule, invoice.invoice_date, invoice.invoice_date,"),
    Mutation("ignore a typed date", RULES, "coalesce(override.effective_date, billing.apply_date_rule(", "coalesce(null::date, billing.apply_date_rule(", types("effective_date")),
    Mutation("cycles end a day late", FUNCTIONS, "months, invoicing_cycle, bill_start\n    ) - 1\n", "months, invoicing_cycle, bill_start\n    )\n"),
    Mutation("contract cycles begin with the month", FUNCTIONS, "'ContractYear' then bill_start else", "'ContractYear' then date_trunc('month', bill_start)::date else", lambda one: any(customer.anchor for customer in one.customers)),
    # Money
    Mutation("round half towards zero", FUNCTIONS, "select round(quantity * unit_price, 2)", "select sign(quantity * unit_price) * ceil(abs(quantity * unit_price) * 100 - 0.5) / 100"),
    Mutation("cut instead of rounding", FUNCTIONS, "select round(quantity * unit_price, 2)", "select trunc(quantity * unit_price, 2)"),
    Mutation("swap quantity for one", RULES, "case when sent.is_one_unit then 1 else sent.wanted_quantity end", "1"),
    Mutation("ignore a typed quantity", RULES, "coalesce(typed_quantity, quantity) as wanted_quantity,", "quantity as wanted_quantity,", types("quantity")),
    Mutation("ignore a typed price", RULES, "                typed_unit_price,\n                billing.unit_price_for(", "                billing.unit_price_for(", types("unit_price")),
    Mutation("ignore a chosen product", MAP, "            override.product_id,\n", "            null,\n", types("product_id")),
    Mutation("credit more than was charged", "sql/billing/bound_credits.sql", "summed.credited > summed.charged\n", "false\n", is_set(credits="hold")),
    Mutation("tax what shall not be taxed", RULES, "when 'on' then true when 'off' then false end as taxable_flag", "when 'on' then true end as taxable_flag", is_set(taxable="off")),
    Mutation("leave out the charge period", RULES, "case when not can_be_persistent and charge_start_date is not null then", "case when false then"),
    # Persistent Additions
    Mutation("prolong over a gap", GROUP, "max(line.cycle_end) as last_cycle_end", "(max(line.cycle_end) + interval '1 month')::date as last_cycle_end", persists),
    Mutation("change an open cycle in place", GROUP, "(ledger.last_cycle_end < founded.next_invoice_date and ledger.is_proven)", "true", persists),
    Mutation("never prolong", GROUP, "coalesce(\n        ledger.delivery_key,\n        billing", "coalesce(\n        null,\n        billing", persists),
    Mutation("an update moves the beginning", PLAN, "ledger.payload || (fresh.payload - 'effectiveDate')", "ledger.payload || fresh.payload", persists),
    Mutation("end with the first of several cycles", PLAN, "max(decision.cancelled_date) as cancelled_date", "min(decision.cancelled_date) as cancelled_date", persists),
    Mutation("yearly terms prolong monthly", RULES, "and billing.frequency_months(billing_frequency) = cycle_months\n", "\n", lambda one: one.mode == "persistent"),
    # What AppXite changed
    Mutation("the whole line for the difference", LOAD, "staged.total_price - so_far.total, staged.currency", "staged.total_price, staged.currency", happens("change_row")),
    Mutation("a removed line counts twice", LOAD, "-vanished.total, first.currency", "vanished.total, first.currency", happens("remove_row")),
    Mutation("withdrawn for ever", LOAD, "update set withdrawn = null, status", "update set status", happens("withdraw", "relist")),
    # Whole runs
    Mutation("forget lines of older months", SCOPE, "on\n    run.kind = 'nightly'\n    or (run.kind", "on\n    (run.kind"),
    Mutation("deliver into an invoiced cycle", "billing_sync/deliver.py", "\"next invoice date\": api_date(agreement.get(\"nextInvoiceDate\")),", "\"next invoice date\": item[\"next_invoice_date\"],", is_set(automated_daily_sync="off")),
)  # fmt: skip


@dataclass(frozen=True)
class Hunted:
    """What became of a mutation. words: by which program, in which month, it was found; or how it failed."""

    mutation: Mutation
    is_found: bool
    words: str
    seconds: float
    what: str = ""  # the difference


def hunt_one(mutation: Mutation, seeds: int) -> Hunted:
    """Play the first programs that can show it with a mutated copy of include, until something is wrong."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="billing-sync-mutation-") as directory:
        include = Path(shutil.copytree(ROOT / "include", Path(directory) / "include"))
        mutation.apply(include)
        folders = [include, *(ROOT / one for one in ("plugins", "tests/helpers", "tests"))]
        answer = subprocess.run(
            [sys.executable, "-m", "business", "--until-wrong", "--only", mutation.name, "--seeds", str(seeds)],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders)), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
        )
    seconds = time.monotonic() - began
    last = answer.stdout.strip().splitlines()[-1:]
    if answer.returncode == 1 and last and last[0].startswith("{"):
        found = json.loads(last[0])
        where = f"seed {found['seed']}, {found['mode']}, {found['day'][:7]}"
        return Hunted(mutation, True, where, seconds, found["words"])
    if answer.returncode == 0:
        return Hunted(mutation, False, f"not found by {seeds} programs", seconds)
    return Hunted(mutation, False, f"broke: {(answer.stderr or answer.stdout).strip()[-400:]}", seconds)


def hunt(mutations: Sequence[Mutation], seeds: int, workers: int, say: Callable[[str], None]) -> list[Hunted]:
    """Hunt each mutation, several at a time; in the order in which they are given."""
    with ThreadPoolExecutor(workers) as pool:
        jobs = [pool.submit(hunt_one, mutation, seeds) for mutation in mutations]
        for number, job in enumerate(as_completed(jobs), 1):
            hunted = job.result()
            word = "found" if hunted.is_found else "NOT FOUND"
            words = f"{hunted.words}: {hunted.what[:100]}" if hunted.what else hunted.words
            say(f"{number} of {len(jobs)}: {hunted.mutation.name}: {word}, {words} ({hunted.seconds:.0f} s)")
    hunt_of = [job.result() for job in jobs]
    say(f"{sum(hunted.is_found for hunted in hunt_of)} of {len(hunt_of)} mutations found")
    return hunt_of
