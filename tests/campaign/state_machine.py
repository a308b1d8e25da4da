"""Anything in any order (Hypothesis): AppXite bills and bills anew, people edit on both sides, runs are killed.

The machine knows what AppXite ever said of each line. After each step ConnectWise's journal and invoices must agree
with that; at the end everything settles, and every customer that nobody touched in ConnectWise is right to the cent.
"""

from __future__ import annotations

import csv
import io
import random
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, ClassVar

import hypothesis
import pandas as pd
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from pipeline import LIST, NOV, OCT, PATCH, POST, READ, Pipeline, is_ours, one_time, recurring

from billing_sync.mappings import import_mappings
from billing_sync.pauses import active_pauses, end_pause
from billing_sync.plan import approve_plan
from billing_sync.run import last_day_of, nightly_periods
from billing_sync.settle import confirm_addition, retry_addition
from campaign.answers import count_faulty
from campaign.checker import THE_END, most_billable
from campaign.report import Config, Figures, part
from campaign.tasks import Tasks
from campaign.trial import Lane, Trial, neutralise, run_trials
from campaign.worlds import World, world_of

CUSTOMERS = (0, 1)
OFFERS = (
    {"offerId": "OF-1001", "offerName": "Mail Essentials"},
    {"offerId": "OF-1006", "offerName": "Identity Protection"},
)
KILLED_IN = ("claim.py", "db.py", "decide.py", "deliver.py", "extract.py", "plan.py", "prove.py", "run.py")

CHANGES: dict[str, dict[str, Any]] = {
    "cancel": {"cancelledFlag": True},
    "move": {"company": {"id": 203}},
    "prorate": {"prorateFlag": True},
}

customers = st.sampled_from(CUSTOMERS)
months = st.sampled_from((OCT, NOV))
quantities = st.integers(1, 3)
which = st.integers(0, 7)  # of what there is, modulo its number
subscriptions = st.sampled_from(("a", "b", "once"))
offers = st.sampled_from(OFFERS)
ROWS = st.lists(st.tuples(subscriptions, quantities), min_size=1, max_size=2)
kinds = st.sampled_from(("nightly", "manual", "backfill"))


@dataclass
class Line:
    """What AppXite ever said of one line, and what a person's typed prices may make of it."""

    customer: int
    amounts: set[Decimal]


class Billing(RuleBasedStateMachine):
    """One service provider, two customers, October and November. Subclassed with the lane and world to work in."""

    lane: ClassVar[Lane]
    world: ClassVar[World]
    found: ClassVar[Figures]

    def __init__(self) -> None:
        super().__init__()
        self.pipeline: Pipeline = self.world.prepared.copy(self.lane.directory)
        self.sandbox = self.pipeline.sandbox
        self.lines: dict[str, Line] = {}  # by rowId; a row that comes back under another id is the same line
        self.touched: set[int] = set()  # customers in whose agreements a person changed something
        self.runs = 0
        self.killed: dict[str, Any] | None = None
        self.agreements = {customer: self.pipeline.agreement(customer) for customer in CUSTOMERS}
        self.pipeline.set(settle_seconds="600")

    # -- AppXite -------------------------------------------------------------------------------------------------

    @initialize(month=months, rows=ROWS)
    def begin(self, month: date, rows: list[tuple[str, int]]) -> None:
        """There is something to deliver from the beginning, for both customers."""
        for customer in CUSTOMERS:
            self.bill(customer, month, OFFERS[customer], True, rows)

    @rule(customer=customers, month=months, offer=offers, is_verified=st.booleans(), rows=ROWS)
    def bill(
        self, customer: int, month: date, offer: dict[str, str], is_verified: bool, rows: list[tuple[str, int]]
    ) -> None:
        made = [
            one_time(f"{customer}", month.replace(day=9), quantity, "7.00", **offer)
            if name == "once"
            else recurring(f"{name}{customer}", month, quantity, "10.00", **offer)
            for name, quantity in rows
        ]
        header = {} if is_verified else {"status": "New", "statusId": 0}
        invoice_id = self.pipeline.bill(month, *made, customer=customer, **header)
        for one in self.sandbox.appxite_invoice(invoice_id)["rows"]:
            self.lines[one["row"]["rowId"]] = Line(customer, {one["row"]["totalPrice"]})

    @precondition(lambda self: self.rows())
    @rule(number=which, what=st.sampled_from(("verify", "reissue", "remove", "replace")), quantity=quantities)
    def correct(self, number: int, what: str, quantity: int) -> None:
        """AppXite verifies an invoice, bills a line anew, removes it, or gives it another id."""
        rows = self.rows()
        line, row = rows[number % len(rows)]
        if what == "verify":
            self.sandbox.change_appxite_invoice(row["invoiceId"], {"status": "Verified"})
        elif what == "reissue":
            total = (quantity * row["unitPrice"]).quantize(Decimal("0.01"), ROUND_HALF_UP)
            changes = {"quantity": Decimal(quantity), "totalPrice": total}
            self.sandbox.change_appxite_row(line, changes)
            self.lines[row["rowId"]].amounts.add(total)
        else:
            self.sandbox.delete_appxite_row(line)
            if what == "replace":
                renamed = {**row, "rowId": row["rowId"] + "x"}
                self.sandbox.add_appxite_row(row["invoiceId"], renamed)
                self.lines[renamed["rowId"]] = self.lines[row["rowId"]]
        self.total_up(row["invoiceId"])

    def rows(self) -> list[tuple[int, dict[str, Any]]]:
        invoices = [self.sandbox.appxite_invoice(one["invoiceId"]) for one in self.sandbox.appxite_invoices()]
        return [(row["line"], row["row"]) for invoice in invoices for row in invoice["rows"]]

    def total_up(self, invoice_id: int) -> None:
        rows = self.sandbox.appxite_invoice(invoice_id)["rows"]
        total = sum((one["row"]["totalPrice"] for one in rows), Decimal("0.00"))
        self.sandbox.change_appxite_invoice(invoice_id, {"totalAmount": total})

    # -- people in our own pages ---------------------------------------------------------------------------------

    @rule(
        entry=st.sampled_from((("organizations", 0), ("organizations", 1), ("offers", 0), ("offers", 1))),
        state=st.sampled_from(("excluded", "approved")),
    )
    def map(self, entry: tuple[str, int], state: str) -> None:
        """A person excludes an organization or an offer, or approves it again."""
        kind, number = entry
        rows = list(csv.DictReader(io.StringIO(self.sandbox.mapping_csv(kind))))
        if kind == "offers":
            rows = [row for row in rows if row["offer_id"] == OFFERS[number]["offerId"]]
            number = 0
        frame = pd.DataFrame(rows[number : number + 1]).assign(note="", state=state)
        import_mappings(self.pipeline.connection, kind, frame, approve=True, person="tests")

    @precondition(lambda self: self.loaded())
    @rule(number=which, price=st.sampled_from((None, "10.00", "8.50")), is_excluded=st.booleans())
    def override(self, number: int, price: str | None, is_excluded: bool) -> None:
        """A person types another unit price for a line, or excludes it, or neither any more."""
        loaded = self.loaded()
        line_id, row_id = loaded[number % len(loaded)]
        self.pipeline.connection.execute(
            """
            insert into billing.override (line_id, unit_price, is_excluded, reason) values (%s, %s, %s, 'tests')
            on conflict (line_id) do update set
                unit_price = excluded.unit_price, is_excluded = excluded.is_excluded, reason = excluded.reason
            """,
            [line_id, price, is_excluded],
        )
        if price:
            self.lines[row_id].amounts |= {
                (Decimal(price) * one).quantize(Decimal("0.01"), ROUND_HALF_UP) for one in range(1, 4)
            }

    def loaded(self) -> list[tuple[int, str]]:
        return self.pipeline.rows(
            "select line_id, row_id from billing.invoice_line where revision = 1 order by line_id"
        )

    @rule(is_on=st.booleans())
    def automated_daily_sync(self, is_on: bool) -> None:
        self.pipeline.set(automated_daily_sync="on" if is_on else "off")

    @precondition(lambda self: self.plans())
    @rule(number=which, applies=st.booleans())
    def approve(self, number: int, applies: bool) -> None:
        """A person approves a plan that waits, and delivers it now or never."""
        plans = self.plans()
        plan_id = plans[number % len(plans)]
        approve_plan(self.pipeline.connection, plan_id, "tests")
        if applies:
            self.trying(lambda tasks: tasks.apply(plan_id))

    def plans(self) -> list[int]:
        found = self.pipeline.rows(
            "select plan_id from delivery.plan where state in ('proposed', 'approved') and not is_dry_run order by 1"
        )
        return [plan_id for (plan_id,) in found]

    # -- runs ----------------------------------------------------------------------------------------------------

    @rule(kind=st.sampled_from(("nightly", "nightly", "manual", "backfill", "dry")), month=months)
    def run(self, kind: str, month: date) -> None:
        is_dry, since = kind == "dry", self.requests()
        order = self.order("manual" if is_dry else kind, month)
        self.trying(lambda tasks: tasks.run(order["kind"], order["months"], order["dag_run_id"], is_dry_run=is_dry))
        assert not (is_dry and self.sandbox.writes(since)["received"]), "a dry run wrote"

    @rule(kind=kinds, month=months, line=st.integers(1, 2500))
    def crash(self, kind: str, month: date, line: int) -> None:
        """SIGKILL at a line; the run may be tried again, by `resume`, or never."""
        self.killed = self.order(kind, month)
        given = {"periods": [f"{one}" for one in self.killed["months"]], "dag_run_id": self.killed["dag_run_id"]}
        pid = self.lane.workers.start(self.pipeline, "run", kind=kind, **given, tries=2, files=KILLED_IN, kill_at=line)
        ended = self.lane.workers.wait(pid)
        assert ended.status in (0, -9), ended.error
        type(self).found += Figures(kills=int(ended.status == -9))

    @precondition(lambda self: self.killed)
    @rule()
    def resume(self) -> None:
        assert self.killed is not None
        killed = self.killed
        self.trying(lambda tasks: tasks.run(killed["kind"], killed["months"], killed["dag_run_id"]))

    def order(self, kind: str, month: date) -> dict[str, Any]:
        self.runs += 1
        periods = nightly_periods(month) if kind == "nightly" else [month]
        return {"kind": kind, "months": periods, "dag_run_id": f"run_{self.runs}_{kind}"}

    def trying(self, work: Callable[[Tasks], str]) -> str:
        """Run as Airflow does. A run may fail, but only with an error that says what to do."""
        tasks = Tasks(self.pipeline, self.pipeline.dsn, tries=2)
        state = work(tasks)
        assert not tasks.unclear(), tasks.unclear()
        return state

    def requests(self) -> int:
        return int(self.sandbox.health()["requests"])

    # -- faults --------------------------------------------------------------------------------------------------

    @rule(
        kind=st.sampled_from(("lost_reply", "status_after", "late", "reset", "status")),
        where=st.sampled_from((POST, PATCH, LIST, READ)),
        skip=st.integers(0, 3),
    )
    def fault(self, kind: str, where: dict[str, str], skip: int) -> None:
        """A later write gets a faulty answer (a late one is applied when time passes), or lists fail a while."""
        if where["method"] == "GET":
            self.sandbox.add_fault("status", **where, count=6, skip=skip)
        else:
            self.sandbox.add_fault(kind, **where, count=1, skip=skip, params={"delay": None} if kind == "late" else {})

    @rule()
    def time_passes(self) -> None:
        """More than settle_seconds: what was late is applied, and what got no answer is not waited for any more."""
        self.sandbox.release_late()
        with self.pipeline.connection.transaction():
            self.pipeline.connection.execute("set local session_replication_role = replica")  # the table is append-only
            self.pipeline.connection.execute(
                "update delivery.attempt set attempted_at = attempted_at - interval '1 hour'"
            )

    # -- people in ConnectWise -----------------------------------------------------------------------------------

    @precondition(lambda self: self.ours())
    @rule(
        number=which,
        change=st.sampled_from(
            (
                {"quantity": 9},
                {"unitPrice": Decimal("99.00")},
                {"billCustomer": "DoNotBill"},
                {"cancelledDate": None},
                None,
            )
        ),
    )
    def person(self, number: int, change: dict[str, Any] | None) -> None:
        """Changes or deletes an Addition."""
        ours = self.ours()
        addition = ours[number % len(ours)]
        self.touch(addition["agreementId"])
        if change is None:
            self.sandbox.delete_addition(addition["id"])
        else:
            self.sandbox.change_addition(addition["id"], change)

    @rule(customer=customers, change=st.sampled_from(("copy", "restore", *CHANGES)))
    def person_in_agreement(self, customer: int, change: str) -> None:
        """Copies, cancels, moves or changes an agreement, or restores it."""
        agreement_id = self.agreements[customer]
        if change == "restore":
            back = {"cancelledFlag": False, "company": {"id": 201 + customer}, "prorateFlag": False}
            self.sandbox.change_record("agreements", agreement_id, back)
            return
        self.touched.add(customer)
        if change == "copy":
            self.sandbox.copy_agreement(agreement_id)
        else:
            self.sandbox.change_record("agreements", agreement_id, CHANGES[change])

    @rule(customer=customers, month=months)
    def invoicing(self, customer: int, month: date) -> None:
        self.sandbox.invoice(self.agreements[customer], through=last_day_of(month).isoformat())

    def ours(self) -> list[dict[str, Any]]:
        return [one for one in self.sandbox.additions() if is_ours(one["marker"])]

    def touch(self, agreement_id: int) -> None:
        self.touched |= {customer for customer in CUSTOMERS if self.agreements[customer] == agreement_id}

    # -- what must hold after each step --------------------------------------------------------------------------

    @invariant()
    def never_two_billable_additions_of_one_marker(self) -> None:
        worst = {key: most for key, most in most_billable(self.sandbox).items() if most > 1}
        assert not worst, worst

    @invariant()
    def each_line_is_invoiced_once_at_most_and_nothing_else_is(self) -> None:
        for customer in set(CUSTOMERS) - self.touched:
            billed = self.invoiced(customer)
            lines = {id(line): line.amounts for line in self.lines.values() if line.customer == customer}
            assert can_be_matched(billed, list(lines.values())), (customer, billed, list(lines.values()))

    def invoiced(self, customer: int) -> list[Decimal]:
        """What ConnectWise has invoiced of our Additions on the customer's agreement."""
        return [
            line["amount"]
            for invoice in self.sandbox.invoices(self.agreements[customer])
            for line in invoice["lines"]
            if is_ours(line["marker"])
        ]

    # -- the end -------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self.settle()
        finally:
            self.world.prepared.discard(self.pipeline)

    def settle(self) -> None:
        """Everything goes well again: the rest is delivered, what is left is held or excluded, to the cent."""
        type(self).found += count_faulty(self.pipeline, 0) + Figures(examples=1)
        self.sandbox.clear_faults()
        self.time_passes()
        self.pipeline.set(automated_daily_sync="on")
        self.night()
        if self.settle_conflicts():
            self.night()
        if self.settle_plans():
            self.night()
        problems = neutralise(self.pipeline, self.night)
        assert not problems, problems
        since = self.requests()
        state, failures = self.night()
        assert not self.sandbox.writes(since)["received"], "a further run wrote"
        if not self.touched:
            assert state == "succeeded", failures
        self.sandbox.invoice(through=THE_END)
        self.each_line_is_invoiced_once_at_most_and_nothing_else_is()
        self.never_two_billable_additions_of_one_marker()
        for customer in set(CUSTOMERS) - self.touched:
            self.accounted_for(customer)

    def night(self) -> tuple[str, list[str]]:
        order = self.order("nightly", NOV)
        tasks = Tasks(self.pipeline, self.pipeline.dsn, tries=2)
        return tasks.run("nightly", order["months"], order["dag_run_id"]), tasks.failures

    def settle_conflicts(self) -> bool:
        """What a person does about an Addition in conflict or refused: was it invoiced? And the pauses end."""
        settled = False
        invoiced = {line["additionId"] for invoice in self.sandbox.invoices() for line in invoice["lines"]}
        touched = {self.agreements[customer] for customer in self.touched}
        for key, agreement_id, addition_id, state in self.pipeline.rows(
            "select delivery_key, agreement_id, connectwise_addition_id, state from delivery.addition"
            " where state in ('conflict', 'refused')"
        ):
            if agreement_id in touched:
                continue
            settled = True
            if state == "conflict" and addition_id in invoiced:
                confirm_addition(self.pipeline.connection, key, "tests")
            else:
                retry_addition(self.pipeline.connection, key, "tests")
        for pause in active_pauses(self.pipeline.connection):
            end_pause(self.pipeline.connection, "tests", pause["company_id"])
            settled = True
        return settled

    def settle_plans(self) -> bool:
        """A person approves what a bound has parked."""
        waiting = self.plans()[-1:]
        for plan_id in waiting:
            approve_plan(self.pipeline.connection, plan_id, "tests")
            Tasks(self.pipeline, self.pipeline.dsn, tries=2).apply(plan_id)
        return bool(waiting)

    def accounted_for(self, customer: int) -> None:
        """What AppXite wants = invoiced by ConnectWise + held + excluded (a typed price's difference is excluded)."""
        organization = [*csv.DictReader(io.StringIO(self.sandbox.mapping_csv("organizations")))][customer]
        wanted = sum(
            (
                row["totalPrice"]
                for invoice in self.sandbox.truth()
                if invoice["consumerOrganizationId"] == organization["organization_id"]
                for row in invoice["lines"]
            ),
            Decimal("0.00"),
        )
        outcomes = self.pipeline.rows(
            """
            select outcome, sum(total_price), sum(total_price - delivered_amount)
            from reporting.invoice_line where organization_id = %s group by 1
            """,
            organization["organization_id"],
        )
        money = {outcome: (total, rest) for outcome, total, rest in outcomes}
        assert set(money) <= {"delivered", "held", "excluded"}, money
        zero = (Decimal(0), Decimal(0))
        kept = money.get("held", zero)[0] + money.get("excluded", zero)[0] + money.get("delivered", zero)[1]
        billed = self.invoiced(customer)
        assert sum(billed) + kept == wanted, f"customer {customer}: {sum(billed)} + {kept} of {money} is not {wanted}"
        type(self).found += Figures(lines=len(billed), money=sum(billed, Decimal("0.00")))


def can_be_matched(billed: Iterable[Decimal], lines: list[set[Decimal]]) -> bool:
    """Whether each billed amount is of a line of its own."""
    taken: dict[int, Decimal] = {}

    def place(amount: Decimal, seen: set[int]) -> bool:
        for number, amounts in enumerate(lines):
            if amount in amounts and number not in seen:
                seen.add(number)
                if number not in taken or place(taken[number], seen):
                    taken[number] = amount
                    return True
        return False

    return all(place(amount, set()) for amount in billed)


# -- the part ----------------------------------------------------------------------------------------------------------

STEPS, EXAMPLES, QUICK_EXAMPLES, BATCH = 16, 120, 6, 10


def explore(lane: Lane, world: World, *, seed: int, examples: int, shrink: bool = True) -> Figures:
    """Run some examples; a failure is shrunk and told as a program."""

    @hypothesis.seed(seed)
    class Here(Billing):
        pass

    Here.lane, Here.world, Here.found = lane, world, Figures(trials=1)
    settings = hypothesis.settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        phases=[Phase.generate, *([Phase.shrink] * shrink)],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    told: list[str] = []
    try:
        with hypothesis.reporting.with_reporter(told.append):
            run_state_machine_as_test(Here, settings=settings)
    except BaseException as error:  # noqa: BLE001
        notes = getattr(error, "__notes__", [])
        program = [line for line in [*notes, *told] if not re.match(r"state\.(never|each)_", line)]
        Here.found.failures.append("\n".join([f"{type(error).__name__}: {error}", *program]))
    return Here.found


@part("state_machine")
def state_machine(config: Config) -> Figures:
    """Hypothesis: bills, re-issues, mappings, overrides, approvals, runs, kills, faults, people in ConnectWise."""
    chance = random.Random(f"{config.seed}/state machine")
    examples = QUICK_EXAMPLES if config.quick else EXAMPLES
    trials: list[Trial] = [
        (str(number), {"seed": chance.randrange(10**9), "examples": min(examples, BATCH), "shrink": not config.quick})
        for number in range(-(-examples // BATCH))
    ]
    return run_trials(config, "state_machine", explore, world_of(config, "empty"), trials)
