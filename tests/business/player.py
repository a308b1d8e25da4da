"""Plays a program with the real pipeline, and compares with the books after each run and each agreement invoice."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import psycopg
from pipeline import Pipeline, is_ours
from prepared import Prepared

from billing_sync.db import run_sql_file
from billing_sync.decide import REFRESH_OFFERS, REFRESH_REFERENCE
from billing_sync.errors import BillingSyncError, ConfigurationError
from billing_sync.mappings import import_mappings
from billing_sync.migrate import migrate
from billing_sync.pauses import end_pause, pause
from billing_sync.plan import approve_plan, plan_of_run
from billing_sync.run import nightly_periods
from business.books import Agreement, Books, Decisions, Line
from business.dates import DAY, cycle_with, later
from business.program import END, MONTHS, SOLD, SPLIT_CUSTOMERS, START, Event, Program
from business.seller import Seller
from local_stack.postgres import Postgres
from sandbox.dataset import OFFERS
from sandbox.server import Sandbox

CUSTOMERS = 5 + SPLIT_CUSTOMERS
BILLING_CYCLES = {1: (1, "Monthly"), 3: (2, "Quarterly"), 6: (3, "Semi-Annual"), 12: (4, "Yearly")}
A_PERIOD = re.compile(r"\d{4}-\d\d-\d\d to \d{4}-\d\d-\d\d")
ALL_PERIODS = [later(START, month) for month in range(MONTHS)]
SOLD_BY_SELLER = (
    "buy", "seats", "price", "rename", "discount", "upgrade", "cancel", "suspend", "resume", "usage", "once", "item",
    "custom", "odd", "bill", "verify", "relist", "withdraw", "reissue", "change_row", "change_back", "remove_row",
    "break_total",
    "mend_total", "bill_currency", "rename_organization",
)  # fmt: skip


class Wrong(AssertionError):
    """The product and the books differ. day: when it was found."""

    def __init__(self, day: date, words: str) -> None:
        super().__init__(f"{day}: {words}")
        self.day = day


@dataclass
class Covered:
    """What a program made happen; figures of several programs add up (`+`)."""

    programs: int = 0
    seconds: float = 0.0
    events: Counter[str] = field(default_factory=Counter)
    lines: int = 0
    money: Decimal = Decimal("0.00")
    invoices: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    held: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Covered) -> Covered:
        return Covered(*(mine + theirs for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True)))


# -- the world before the first day ------------------------------------------------------------------------------------


def prepare(postgres: Postgres, directory: Path, name: str = "business") -> Prepared:
    """Five customers that AppXite and ConnectWise know; the product knows both sides' records, and no mapping."""
    migrate(postgres.create_database(f"{name}_template"))
    with Sandbox(directory / name, customers=CUSTOMERS, months=1, last_month="2026-12") as sandbox:
        pipeline = Pipeline(postgres.create_database(name, template=f"{name}_template"), sandbox)
        for invoice in sandbox.appxite_invoices():
            sandbox.delete_appxite_invoice(invoice["invoiceId"])
        rows = [
            {
                **_ROW,
                "rowId": offer,
                "offerId": offer,
                "offerName": OFFERS[offer].name,
                "invoiceId": 1,
                "invoiceNumber": "1",
            }
            for offer in SOLD
        ]
        header = {
            "invoiceId": 1, "invoiceNumber": "1", "invoiceDate": "2026-12-01", "status": "Verified", "statusId": 1,
            "providerOrganizationId": sandbox.credentials.requester_id, "currency": "EUR", "totalAmount": Decimal(0),
            "consumerOrganizationId": csv_of(sandbox, "organizations")[0]["organization_id"],
        }  # fmt: skip
        sandbox.add_appxite_invoice(header, rows)
        run_id = pipeline.open("reference", [date(2026, 12, 1)])
        pipeline.extract(run_id)
        run_sql_file(pipeline.connection, REFRESH_REFERENCE, run_id)
        run_sql_file(pipeline.connection, REFRESH_OFFERS, run_id)
        sandbox.delete_appxite_invoice(1)
        pipeline.close()
    return Prepared(postgres, name, sandbox.store.directory)


_ROW = {
    "chargeType": "ItemFee", "chargeStartDate": "2026-12-01", "chargeEndDate": "2026-12-01", "currency": "EUR",
    "quantity": Decimal(1), "unitPrice": Decimal(0), "totalPrice": Decimal(0), "billingFrequency": "One Time",
}  # fmt: skip


def csv_of(sandbox: Sandbox, kind: str) -> list[dict[str, str]]:
    """A mapping file of the sandbox."""
    return list(csv.DictReader(io.StringIO(sandbox.mapping_csv(kind))))


def play(prepared: Prepared, directory: Path, program: Program) -> Covered:
    """Play a program on a copy of the prepared world. Raises Wrong."""
    pipeline = prepared.copy(directory)
    try:
        return Player(pipeline, program).play()
    finally:
        prepared.discard(pipeline)


class Player:
    """One program on one pipeline."""

    def __init__(self, pipeline: Pipeline, program: Program) -> None:
        self.pipeline, self.sandbox, self.program = pipeline, pipeline.sandbox, program
        self.organizations = csv_of(self.sandbox, "organizations")
        self.products = {one["offer_id"]: int(one["product_id"]) for one in csv_of(self.sandbox, "offers")}
        self.seller = Seller(self.sandbox, program.customers, self.organizations)
        self.decisions = Decisions(
            {**program.settings, "recurring_mode": program.mode},
            agreement_rule=program.agreement_rule,
            rules=program.rules,
            dated_offers=program.dated_offers,
            variants={variant: self.products[offer] for variant, offer in program.variants.items()},
            default_products={"UserCorrection": self.products[program.custom_offer]} if program.custom_offer else {},
        )
        self.books = Books(self.sandbox, self.decisions)
        self.agreements = [self._agreement_of(number) for number in range(len(program.customers))]
        self.covered = Covered(programs=1)
        self.day = START
        self.last_run: tuple[int, list[Line]] | None = None  # of a run whose plan may wait: its id and lines
        self.is_decided_anew = False  # by a person, since that run
        self._ever_held: set[tuple[Any, ...]] = set()

    def play(self) -> Covered:
        try:
            self._begin()
            for event in self.program.events:
                self.day = event.day
                self._do(event)
            self._end()
        except (BillingSyncError, psycopg.IntegrityError) as error:  # a run that a key of the database stops is red
            raise Wrong(self.day, f"{type(error).__name__}: {error}") from error
        return self.covered

    def _do(self, event: Event) -> None:
        self.covered.events[event.what] += 1
        if event.what in SOLD_BY_SELLER:
            self.seller.today = event.day
            getattr(self.seller, event.what)(event.customer, **event.given)
            return
        act: Callable[..., None] = getattr(self, f"_{event.what}")
        act(*([event.customer] if event.customer >= 0 else []), **event.given)

    # -- before the first day ------------------------------------------------------------------------------------

    def _begin(self) -> None:
        for number, customer in enumerate(self.program.customers):
            billing_cycle, name = BILLING_CYCLES[customer.months]
            first = max(customer.cycle(max(START, customer.bill_start)).start, customer.bill_start)
            values = {
                "currency": self._currency(customer.currency),
                "billingCycle": {"id": billing_cycle, "name": name},
                "invoicingCycle": "ContractYear" if customer.anchor else "CalendarYear",
                "billStartDate": f"{customer.bill_start}T00:00:00Z",
                "startDate": f"{customer.bill_start}T00:00:00Z",
                "nextInvoiceDate": f"{first}T00:00:00Z",
                "prorateFlag": customer.prorates,
            }
            for agreement_id in self._agreements_in(*self._companies(number)):
                self._save_agreement(number, agreement_id, **values)
            if not customer.has_agreement:
                store = self.sandbox.store
                store.delete("agreement", store.records("agreement")[self.agreements[number]])
                self.agreements[number] = 0
        self.pipeline.set(
            environment="tests", default_agreement_type="Cloud Subscriptions", settle_seconds="0",
            bound_customer_factor="off", bound_fewer_invoices_percent="off", bound_removed_lines="off",
            bound_amount_per_line="off", bound_new_agreements="off", requests_per_minute="100000",
            **self.decisions.settings,
        )  # fmt: skip
        self.sandbox.change_settings(requests_per_minute=100_000)
        for offer in SOLD:
            if offer not in self.program.unmapped_offers:
                self.decisions.offers[offer] = ("approved", self.products[offer])
        for number, customer in enumerate(self.program.customers):
            if customer.is_mapped:
                self.decisions.organizations[self._organization(number)] = ("approved", self._company(number))
        self._import("organizations", self.decisions.organizations)
        self._import("offers", self.decisions.offers)
        if self.program.agreement_rule:
            column = {"currency": "currency", "cycle": "billing_cycle"}[self.program.agreement_rule]
            self.pipeline.connection.execute(
                f"insert into mapping.agreement_rule (agreement_rule, position, agreement_type, {column})"
                " values ('of several', 1, 'Cloud Subscriptions', 'line')"
            )
        for charge_type, (start, end) in self.program.rules.items():
            self.pipeline.connection.execute(
                "update billing.charge_type set charge_start_rule = %s, charge_end_rule = %s where charge_type = %s",
                [start, end, charge_type],
            )
        for charge_type, product in self.decisions.default_products.items():
            self.pipeline.connection.execute(
                "update billing.charge_type set default_product_id = %s where charge_type = %s", [product, charge_type]
            )
        for (offer, frequency), product in self.decisions.variants.items():
            self.pipeline.connection.execute(
                "insert into mapping.offer_variant_mapping (offer_id, billing_frequency, product_id, state, decided_by)"
                " values (%s, %s, %s, 'approved', 'tests')",
                [offer, frequency, product],
            )
        self.pipeline.connection.execute(
            "update mapping.offer_mapping set recurring_mode = 'dated' where offer_id = any(%s)",
            [[*self.program.dated_offers]],
        )

    def _import(self, kind: str, decided: dict[str, tuple[str, int]]) -> None:
        source, target = {"organizations": ("organization_id", "company_id"), "offers": ("offer_id", "product_id")}[
            kind
        ]
        rows = [
            {source: key, target: str(value), "state": state, "note": ""} for key, (state, value) in decided.items()
        ]
        if rows:
            import_mappings(self.pipeline.connection, kind, pd.DataFrame(rows), approve=True, person="tests")

    def _organization(self, number: int) -> str:
        return self.organizations[number]["organization_id"]

    def _company(self, number: int) -> int:
        return int(self.organizations[number]["company_id"])

    def _companies(self, number: int) -> list[int]:
        """The customer's own company, and the second one that some have."""
        second = [self._company(CUSTOMERS - SPLIT_CUSTOMERS + number)] if number < SPLIT_CUSTOMERS else []
        return [self._company(number), *second]

    def _agreement_of(self, number: int) -> int:
        return self._agreements_in(self._company(number))[0]

    def _agreements_in(self, *companies: int) -> list[int]:
        return [
            one["id"] for one in self.sandbox.agreements()
            if one["company"]["id"] in companies and one["type"]["name"] == "Cloud Subscriptions"
        ]  # fmt: skip

    def _save_agreement(self, number: int, agreement_id: int | None = None, **changes: Any) -> None:
        """As a person in ConnectWise, who may change anything."""
        store = self.sandbox.store
        with store.transaction():
            before = store.records("agreement").get(agreement_id or self.agreements[number])
            if before:
                store.save("agreement", {**before, **changes})

    def _currency(self, code: str) -> dict[str, Any]:
        from sandbox.connectwise import currency_reference

        return currency_reference(self.sandbox.store.records("currency")[1 if code == "EUR" else 2])

    # -- runs ----------------------------------------------------------------------------------------------------

    def _night(self) -> None:
        self._run("nightly", nightly_periods(self.day, int(self.decisions.settings["lookback_months"])))

    def _backfill(self, month: int) -> None:
        self._run("manual", [later(START, month)])

    def _run(self, kind: str, periods: list[date]) -> None:
        self.sandbox.change_settings(today=self.day.isoformat())
        run_id = self.pipeline.plan(kind, periods)
        self.books.read(periods)
        scope = None if kind == "nightly" else periods
        waiting = [line for line in self.books.lines if "agreement_to_create" in line.reasons]
        self.books.decide(scope)
        if too_late := [line for line in waiting if "before_bill_start" in line.reasons]:
            raise Wrong(self.day, f"the agreement created for it begins too late: {too_late[0]}")
        lines = self.books.open_lines(scope)
        self.pipeline.finish(run_id)
        for number, known in enumerate(self.agreements):
            self.agreements[number] = known or next(iter(self._agreements_in(self._company(number))), 0)
        self.last_run, self.is_decided_anew = (run_id, lines), False
        if self.decisions.settings["automated_daily_sync"] == "on":
            self._delivered(lines)
        self._compare()

    def _delivered(self, lines: list[Line]) -> None:
        self.books.deliver(lines)

    def _approve(self) -> None:
        """A person approves the newest plan; after changing anything, they run it again before."""
        if self.decisions.settings["automated_daily_sync"] == "on" or self.last_run is None:
            return
        if self.is_decided_anew:
            self._night()
        run_id, lines = self.last_run
        plan_id = plan_of_run(self.pipeline.connection, run_id)
        state = self.pipeline.value("select state from delivery.plan where plan_id = %s", plan_id)
        if state == "proposed":
            approve_plan(self.pipeline.connection, plan_id, "tests")
            self.pipeline.finish(run_id)
            self._delivered(lines)
            self._compare()
        self.last_run = None

    # -- people in our own pages ---------------------------------------------------------------------------------

    def _map_organization(self, number: int, state: str) -> None:
        self._decide("organizations", self._organization(number), state, self._company(number))

    def _map_contract(self, number: int) -> None:
        """To the customer's first agreement. One that is cancelled is refused: then the person has decided nothing."""
        if not self.agreements[number]:
            return
        contract, agreement = self.seller.accounts[number].contract_id, self.agreements[number]
        rows = [{"contract_id": contract, "agreement_id": str(agreement), "state": "approved", "note": ""}]
        try:
            import_mappings(self.pipeline.connection, "contracts", pd.DataFrame(rows), approve=True, person="tests")
        except ConfigurationError as error:
            _require_unusable(error)
            return
        self.decisions.contracts[contract] = agreement
        self.is_decided_anew = True

    def _split(self, number: int, by: str, part: int) -> None:
        """The organization becomes two companies: selectors say which line goes to which."""
        own, second = self._companies(number)
        account = self.seller.accounts[number]
        subscriptions = sorted(kept.id for kept in account.subscriptions.values())
        if by == "offer":
            chosen = [("offer", offer, second if place % 4 == part else own) for place, offer in enumerate(SOLD)]
        elif by == "subscription":
            chosen = [
                ("subscription", one, second if place % 3 == part else own) for place, one in enumerate(subscriptions)
            ]
        else:  # the contract claims everything, so what a subscription's selector claims is claimed twice
            chosen = [
                ("contract", account.contract_id, own),
                *(("subscription", one, second) for one in subscriptions[:part]),
            ]
        self._select(number, chosen)

    def _unite(self, number: int) -> None:
        self._select(number, [])

    def _select(self, number: int, chosen: list[tuple[str, str, int]]) -> None:
        organization = self._organization(number)
        self.decisions.selectors[organization] = chosen
        self.pipeline.connection.execute(
            "delete from mapping.company_selector where organization_id = %s", [organization]
        )
        with self.pipeline.connection.cursor() as cursor:
            cursor.executemany(
                "insert into mapping.company_selector (organization_id, kind, source_id, company_id)"
                " values (%s, %s, %s, %s)",
                [(organization, *one) for one in chosen],
            )
        self.is_decided_anew = True

    def _map_offer(self, offer: str, state: str) -> None:
        self._decide("offers", offer, state, self.products[offer])

    def _decide(self, kind: str, source: str, state: str, target: int) -> None:
        """What is inactive in ConnectWise is refused: then the person has decided nothing."""
        try:
            self._import(kind, {source: (state, target)})
        except ConfigurationError as error:
            _require_unusable(error)
            return
        getattr(self.decisions, kind)[source] = (state, target)
        self.is_decided_anew = True

    def _type(self, number: int, line: int, column: str, value: int) -> None:
        """A person types a value for an open line, or excludes it."""
        organization = self._organization(number)
        chosen = [one for one in self.books.open_lines() if one.invoice.organization == organization]
        if not chosen:
            return
        if column == "agreement_id" and not self.agreements[number]:
            return
        one = chosen[line % len(chosen)]
        typed: Any = {
            "is_excluded": True,
            "unit_price": Decimal(value) / 4,
            "quantity": Decimal(value),
            "effective_date": self.day + timedelta(days=value - 20),
            "cancelled_date": self.day + timedelta(days=value - 10),
            "invoice_description": f"Agreed with the customer, {value}",
            "product_id": self.products[SOLD[value % len(SOLD)]],
            "agreement_id": self.agreements[number],
        }[column]
        found = self.pipeline.rows(
            """
            select line_id from billing.invoice_line left join billing.override using (line_id)
            where invoice_id = %s and charge_type = %s and charge_start_date = %s and total_price = %s and revision = %s
                and subscription_id is not distinct from %s and override.line_id is null
            order by line_id
            """,
            one.invoice.id, one.row["chargeType"], one.row["chargeStartDate"], one.total, one.revision,
            one.row["subscriptionId"],
        )  # fmt: skip
        if one.typed or len(found) != 1:  # twins cannot be told apart
            return
        self.pipeline.connection.execute(
            f"insert into billing.override (line_id, {column}, reason) values (%s, %s, 'tests')", [found[0][0], typed]
        )
        one.typed[column] = typed
        self.is_decided_anew = True

    def _pause(self, number: int) -> None:
        if self._company(number) not in self.decisions.paused:
            pause(self.pipeline.connection, "a complaint", "tests", self._company(number))
            self.decisions.paused.add(self._company(number))
            self.is_decided_anew = True

    def _end_pause(self, number: int) -> None:
        if self._company(number) in self.decisions.paused:
            end_pause(self.pipeline.connection, "tests", self._company(number))
            self.decisions.paused.discard(self._company(number))

    # -- people in ConnectWise -----------------------------------------------------------------------------------

    def _invoice(self, number: int) -> None:
        """The next cycle of the customer's agreements. Nobody invoices while an agreement is not in order."""
        for agreement_id in self._agreements_in(*self._companies(number)):
            self._invoice_next(agreement_id)

    def _invoice_next(self, agreement_id: int) -> None:
        agreement = self._agreement(agreement_id)
        if agreement.prorates and self._to_invoice(agreement_id):
            return
        made = self.sandbox.invoice(agreement_id)
        self._check_invoice(agreement_id, agreement.cycle(agreement.next_invoice).start, made)

    def _agreement(self, agreement_id: int) -> Agreement:
        return Agreement.of(self.sandbox.store.records("agreement")[agreement_id])

    def _to_invoice(self, agreement_id: int) -> list[Line]:
        """Lines delivered to an agreement that ConnectWise has not invoiced yet."""
        return [
            line for line in self.books.lines
            if line.delivered and line.delivered.agreement.id == agreement_id and line.invoiced is None
        ]  # fmt: skip

    def _close(self, agreement_id: int) -> None:
        """Before an agreement is changed so that its Additions would bill otherwise, finance invoices what is on it."""
        for _ in range(40):
            if not self._to_invoice(agreement_id):
                return
            self._save_agreement(0, agreement_id, prorateFlag=False)
            self._invoice_next(agreement_id)

    def _prorate(self, number: int, is_on: bool) -> None:
        if is_on:
            self._close(self.agreements[number])
        self._save_agreement(number, prorateFlag=is_on)

    def _agreement_currency(self, number: int, currency: str) -> None:
        self._close(self.agreements[number])
        self._save_agreement(number, currency=self._currency(currency))

    def _second_agreement(self, number: int, differs: str) -> None:
        """Another one of the same type, which may differ in currency or cycle."""
        store, customer = self.sandbox.store, self.program.customers[number]
        if not self.agreements[number]:
            return
        with store.transaction():
            first = store.records("agreement")[self.agreements[number]]
            # No copy: that would carry the mark of an agreement that a plan made.
            other = {**first, "id": store.next_id("agreement", 1001), "name": f"Second {number}", "internalNotes": ""}
            if differs == "currency":
                other["currency"] = self._currency("USD" if customer.currency == "EUR" else "EUR")
            elif differs == "cycle":
                months = 3 if customer.months == 1 else 1
                billing_cycle, name = BILLING_CYCLES[months]
                other["billingCycle"] = {"id": billing_cycle, "name": name}
                other["nextInvoiceDate"] = f"{cycle_with(self.day, months, customer.anchor).start}T00:00:00Z"
            store.save("agreement", other)

    def _end_second(self, number: int) -> None:
        for agreement_id in self._agreements_in(self._company(number)):
            if agreement_id != self.agreements[number]:
                self._close(agreement_id)
                self._save_agreement(number, agreement_id, cancelledFlag=True, agreementStatus="Cancelled")

    def _cancel_agreement(self, number: int) -> None:
        self._close(self.agreements[number])
        self._save_agreement(number, cancelledFlag=True, agreementStatus="Cancelled")

    def _restore_agreement(self, number: int) -> None:
        self._save_agreement(number, cancelledFlag=False, agreementStatus="Active")

    def _company_status(self, number: int, status: str) -> None:
        self.sandbox.change_record(
            "companies", self._company(number), {"status": {"id": 1 if status == "Active" else 2, "name": status}}
        )

    def _rename_company(self, number: int) -> None:
        self.sandbox.change_record("companies", self._company(number), {"name": f"Renamed {number}"})

    def _product(self, offer: str, is_inactive: bool) -> None:
        self.sandbox.change_record("catalog", self.products[offer], {"inactiveFlag": is_inactive})

    # -- comparing -----------------------------------------------------------------------------------------------

    def _compare(self) -> None:
        """Every line has the outcome, the reasons and the place that the books say."""
        actual = Counter(
            self.pipeline.rows(
                """
                select invoice_id, subscription_id, charge_type, charge_start_date::text, revision, total_price::text,
                    outcome, coalesce(array_to_string(held_reasons, ' '), ''),
                    case when outcome = 'delivered' then delivered_agreement_id end,
                    case when outcome = 'delivered' then cycle_start::text end,
                    case when outcome = 'delivered' then delivered_amount::text end
                from reporting.invoice_line
                """
            )
        )
        wanted = Counter(self._shown(line) for line in self.books.lines)
        for line in self.books.lines:
            self._ever_held.update((line.invoice.id, line.key, line.revision, reason) for reason in line.reasons)
        if actual != wanted:
            raise Wrong(self.day, f"the product has {_few(actual - wanted)}, the books have {_few(wanted - actual)}")

    def _shown(self, line: Line) -> tuple[Any, ...]:
        row, due = line.row, line.delivered
        place = (due.agreement.id, f"{due.cycle.start}", f"{due.amount:.2f}") if due else (None, None, None)
        return (
            line.invoice.id, row["subscriptionId"], row["chargeType"], row["chargeStartDate"], line.revision,
            f"{line.total + 0:.2f}",
            line.outcome, " ".join(sorted(line.reasons)), *place,
        )  # fmt: skip

    def _check_invoice(self, agreement_id: int, cycle_start: date, made: list[dict[str, Any]]) -> None:
        """ConnectWise's invoice has each line that the books have for this cycle, once, and nothing else of ours."""
        lines = [line for invoice in made for line in invoice["lines"] if is_ours(line["marker"])]
        wanted = [
            line
            for line in self._to_invoice(agreement_id)
            if line.delivered and line.delivered.cycle.start == cycle_start
        ]
        self.covered.invoices += bool(lines)
        additions = {one["id"]: one for one in self.sandbox.additions(agreement_id)}
        pairs = match(wanted, lines, lambda line, shown: self._fits(line, shown, additions[shown["additionId"]]))
        lost = [line for line in wanted if line not in pairs]
        extra = [shown for shown in lines if not any(shown is one for one in pairs.values())]
        if lost or extra:
            raise Wrong(
                self.day,
                f"agreement {agreement_id}, cycle from {cycle_start}: not invoiced as they should be: "
                f"{[f'{line}, wanted {line.delivered}' for line in lost[:3]]}; "
                f"invoiced: {[(shown, _dates(additions[shown['additionId']])) for shown in extra[:3]]}",
            )
        for line, shown in pairs.items():
            line.invoiced = {**shown, "cycle_start": cycle_start}
            if (
                made[0]["company"]["id"] != line.delivered.company
                or made[0]["currency"]["currencyCode"] != line.row["currency"]
            ):
                raise Wrong(self.day, f"{line} is on an invoice of {made[0]['company']} in {made[0]['currency']}")

    def _fits(self, line: Line, shown: dict[str, Any], addition: dict[str, Any]) -> bool:
        due = line.delivered
        assert due is not None
        if addition["taxableFlag"] != (self.decisions.settings["taxable"] != "off"):
            return False
        if shown["amount"] != due.amount or shown["quantity"] != due.quantity or shown["unitPrice"] != due.price:
            return False
        if addition["product"]["id"] != due.product or not all(words in shown["description"] for words in due.words):
            return False
        begins, ends = (date.fromisoformat(addition[name][:10]) for name in ("effectiveDate", "cancelledDate"))
        is_said = due.period is not None and due.period in shown["description"]
        if begins == due.effective and ends == due.cancelled and (is_said or due.period is None):
            return True
        says_none = not A_PERIOD.search(shown["description"])
        return due.may_persist and says_none and begins <= due.effective and ends >= due.cycle.end

    # -- the end -------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        """AppXite's whole history is read once more, everything is delivered and invoiced; the sums are compared."""
        self.day = END + DAY
        self.decisions.settings["automated_daily_sync"] = "on"
        self.pipeline.set(automated_daily_sync="on")
        self._run("manual", ALL_PERIODS)
        self._run("nightly", nightly_periods(END))
        since = self.sandbox.health()["requests"]
        self._run("nightly", nightly_periods(END))
        if self.sandbox.writes(since)["received"]:
            raise Wrong(self.day, "a further night wrote")
        for record in self.sandbox.agreements():
            for _ in range(40):
                if not self._to_invoice(record["id"]):
                    break
                self._save_agreement(0, record["id"], prorateFlag=False)
                self._invoice_next(record["id"])
        if left := [line for line in self.books.lines if line.delivered and line.invoiced is None]:
            raise Wrong(self.day, f"never invoiced: {left[0]}")
        self._check_persistence()
        self._check_additions()
        self._check_sums()
        self._count()

    def _check_persistence(self) -> None:
        """Lines of a subscription in following cycles share an Addition, one line in each cycle."""
        by_cycle: dict[tuple[Any, ...], Line] = {}
        for line in self.books.lines:
            if line.delivered and self._persists(line):
                place = (line.row["subscriptionId"], line.delivered.agreement.id, line.delivered.cycle.start)
                if place in by_cycle:
                    raise Wrong(self.day, f"two persistent lines in one cycle: {line}")
                by_cycle[place] = line
        by_end = {(*place[:2], line.delivered.cycle.end + DAY): line for place, line in by_cycle.items()}
        for place, line in by_cycle.items():
            before = by_end.get(place)
            if before and before.night <= line.night and self._is_same(before, line):
                self.covered.kinds["prolonged"] += 1
                if before.invoiced["additionId"] != line.invoiced["additionId"]:
                    raise Wrong(self.day, f"{line} is not on the Addition of the cycle before: {before}")

    def _persists(self, line: Line) -> bool:
        """Whether a line is on a persistent Addition; where a person typed the description, that cannot be told."""
        due = line.delivered
        return due.may_persist and due.period is not None and not A_PERIOD.search(line.invoiced["description"])

    def _check_additions(self) -> None:
        """An Addition begins with its first line and ends with its last one, and none bills without a line."""
        carried: dict[int, list[Line]] = {}
        for line in self.books.lines:
            if line.delivered:
                carried.setdefault(line.invoiced["additionId"], []).append(line)
        for addition in self.sandbox.additions():
            lines = sorted(carried.get(addition["id"], []), key=lambda one: one.delivered.cycle)
            if not is_ours(addition["marker"]):
                continue
            if not lines and addition["billCustomer"] == "Billable" and addition["extPrice"]:
                raise Wrong(self.day, f"an Addition that carries no line: {addition}")
            if lines and date.fromisoformat(addition["cancelledDate"][:10]) > lines[-1].delivered.cycle.end:
                raise Wrong(
                    self.day, f"Addition {addition['id']} bills {_dates(addition)}, its last line is {lines[-1]}"
                )
            if lines and addition["effectiveDate"][:10] != f"{lines[0].delivered.effective}":
                raise Wrong(
                    self.day, f"Addition {addition['id']} bills {_dates(addition)}, its first line is {lines[0]}"
                )

    def _is_same(self, before: Line, line: Line) -> bool:
        mine, theirs = before.invoiced, line.invoiced
        same = all(mine[name] == theirs[name] for name in ("quantity", "unitPrice", "product"))
        return same and mine["description"].partition(" [axs")[0] == theirs["description"].partition(" [axs")[0]

    def _check_sums(self) -> None:
        """Per customer and currency: invoiced + held + excluded + what people typed = what AppXite accepted."""
        withdrawn = [one.id for one in self.books.invoices.values() if one.is_withdrawn]
        for number in range(len(self.program.customers)):
            organization, companies = self._organization(number), self._companies(number)
            wanted: Counter[str] = Counter()
            for header in self.sandbox.truth():
                if header["consumerOrganizationId"] == organization:
                    # What a header says beyond its rows is held with the rows.
                    for row in header["lines"]:
                        wanted[row["currency"]] += row["totalPrice"]
            found: Counter[str] = Counter()
            for invoice in self.sandbox.invoices():
                if invoice["company"]["id"] in companies:
                    amount = sum((line["amount"] for line in invoice["lines"] if is_ours(line["marker"])), Decimal(0))
                    found[invoice["currency"]["currencyCode"]] += amount
            for currency, kept, typed, no_more in self.pipeline.rows(
                """
                select currency,
                    coalesce(sum(total_price) filter (where outcome <> 'delivered' and not is_withdrawn), 0),
                    coalesce(sum(total_price - delivered_amount)
                        filter (where outcome = 'delivered' and not is_withdrawn), 0),
                    coalesce(sum(delivered_amount) filter (where outcome = 'delivered' and is_withdrawn), 0)
                from (select *, invoice_id = any(%s) as is_withdrawn from reporting.invoice_line) as line
                where organization_id = %s group by currency
                """,
                withdrawn, organization,
            ):  # fmt: skip
                found[currency] += kept + typed - no_more
            if {name: sum_ for name, sum_ in found.items() if sum_} != {
                name: sum_ for name, sum_ in wanted.items() if sum_
            }:
                raise Wrong(
                    self.day, f"customer {number}: AppXite accepted {dict(wanted)}, accounted for {dict(found)}"
                )

    def _count(self) -> None:
        for line in self.books.lines:
            self.covered.lines += 1
            self.covered.outcomes[line.outcome] += 1
            if due := line.delivered:
                self.covered.money += due.amount
                self.covered.kinds["late"] += due.is_late
                self.covered.kinds["credits"] += due.amount < 0
                self.covered.kinds["values typed"] += bool(line.typed)
            self.covered.kinds["changed after delivery"] += line.revision > 1
        self.covered.held.update(reason for *_, reason in self._ever_held)


def match(
    wanted: list[Line], shown: list[dict[str, Any]], fits: Callable[[Line, dict[str, Any]], bool]
) -> dict[Line, dict[str, Any]]:
    """Pairs of lines that fit, each used once, as many as there can be."""
    taken: dict[int, Line] = {}
    choices = {line: [number for number, one in enumerate(shown) if fits(line, one)] for line in wanted}

    def place(line: Line, seen: set[int]) -> bool:
        for number in choices[line]:
            if number not in seen:
                seen.add(number)
                if number not in taken or place(taken[number], seen):
                    taken[number] = line
                    return True
        return False

    for line in wanted:
        place(line, set())
    return {line: shown[number] for number, line in taken.items()}


def _dates(addition: dict[str, Any]) -> str:
    return f"{addition['effectiveDate'][:10]} to {addition['cancelledDate'][:10]}"


def _few(counted: Counter[Any]) -> list[Any]:
    return sorted(counted.elements(), key=str)[:4]


def _require_unusable(error: ConfigurationError) -> None:
    """What a person wanted is refused only because ConnectWise cannot be billed with it; raises any other error."""
    if "nothing can be billed to" not in str(error):
        raise error
