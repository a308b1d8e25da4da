"""A small world to bill in: customers and invoices written straight into the database, and a ConnectWise in memory.

`World.invoices` plays AppXite: every run stages it anew, so a test changes a line there and runs again.
"""

from __future__ import annotations

import calendar
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Literal

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from billing_sync.db import Connection, connect, run_sql_file
from billing_sync.decide import decide
from billing_sync.deliver import Deliverer, DeliveryCounts
from billing_sync.errors import ProofError, WriteRefusedError
from billing_sync.extract import extract_additions
from billing_sync.payload import MarkerCarrier
from billing_sync.plan import approve_plan, plan_of_run, shards_to_deliver
from billing_sync.prove import PROVE_INVOICES, agreements_to_prove
from billing_sync.run import finish_run, open_run
from billing_sync.settings import set_setting

REQUESTER = "seller"
TYPE = "Cloud Subscriptions"
MONTHS = {"Monthly": 1, "BiMonthly": 2, "Quarterly": 3, "SemiAnnual": 6, "Yearly": 12, "Weekly": None}
MAY = date(2026, 5, 1)
JUNE = date(2026, 6, 1)
JULY = date(2026, 7, 1)
SCHEMAS = ("staging", "mapping", "billing", "delivery", "audit", "public")
CENT = Decimal("0.01")


def month_end(day: date) -> date:
    """The last day of a date's month."""
    return day.replace(day=calendar.monthrange(day.year, day.month)[1])


def add_months(day: date, months: int) -> date:
    """The same day `months` later; the last of the month where that day does not exist."""
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))


def cycle_of(day: date, months: int, anchor: date) -> tuple[date, date]:
    """First and last day of the cycle that holds a day, by walking from the anchor: the oracle of the SQL functions."""
    step = 0
    while add_months(anchor, step * months) > day:
        step -= 1
    while add_months(anchor, (step + 1) * months) <= day:
        step += 1
    return add_months(anchor, step * months), add_months(anchor, (step + 1) * months) - timedelta(days=1)


def rounded(amount: Decimal) -> Decimal:
    """Half away from zero, to the cent."""
    return amount.quantize(CENT, rounding=ROUND_HALF_UP)


@dataclass(frozen=True)
class Customer:
    """An AppXite organization, and the company and agreement that it is mapped to."""

    organization_id: str
    company_id: int
    agreement_id: int


@dataclass
class Line:
    """A row of an AppXite invoice. row_id "" stands for a fresh one; None for a feed without row ids."""

    subscription_id: str | None = "sub"
    offer_id: str | None = "offer"
    charge_type: str | None = "CycleFee"
    start: date | None = MAY
    end: date | None = date(2026, 5, 31)
    quantity: Decimal | int | None = 2
    unit_price: Decimal | int | None = 10
    total: Decimal | None = None
    frequency: str | None = "Every 1 month"
    currency: str | None = "EUR"
    name: str | None = "Cloud Suite"
    contract_id: str | None = None
    row_id: str | None = ""
    problem: str | None = None

    def __post_init__(self) -> None:
        if self.total is None and self.quantity is not None and self.unit_price is not None:
            self.total = rounded(Decimal(self.quantity) * Decimal(self.unit_price))

    def price(self, unit_price: Decimal | int | str, quantity: Decimal | int | None = None) -> None:
        """AppXite changes the price; the total follows."""
        self.unit_price = Decimal(unit_price)
        self.quantity = self.quantity if quantity is None else quantity
        assert self.quantity is not None
        self.total = rounded(Decimal(self.quantity) * self.unit_price)


def monthly(period: date, **values: Any) -> Line:
    """A recurring line for a whole calendar month."""
    return Line(start=period, end=month_end(period), **values)


@dataclass
class Invoice:
    """An AppXite invoice: header and rows."""

    invoice_id: int
    organization_id: str | None
    lines: list[Line]
    day: date
    total: Decimal | None = None  # None: what the rows give
    status: str = "Verified"
    provider: str = REQUESTER
    currency: str | None = "EUR"
    contract_id: str | None = None
    problem: str | None = None

    @property
    def period(self) -> date:
        return self.day.replace(day=1)

    def header_total(self) -> Decimal:
        return sum((line.total or Decimal(0) for line in self.lines), Decimal(0)) if self.total is None else self.total


@dataclass
class FakeConnectWise:
    """Additions in memory with the methods that delivery and proof use; agreements are those of mapping.agreement."""

    world: World
    additions_of: dict[int, dict[int, dict[str, Any]]] = field(default_factory=dict)
    refuse: str | None = None  # every write is refused with these words (400)
    stores: dict[str, Any] = field(default_factory=dict)  # fields that it stores differently from what was sent
    agreement_says: dict[str, Any] = field(default_factory=dict)  # fields of agreements that changed since the extract
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(9001))

    def agreement(self, agreement_id: int) -> dict[str, Any]:
        row = self.world.row("select * from mapping.agreement where agreement_id = %s", agreement_id)
        return {
            "id": agreement_id,
            "agreementStatus": row["agreement_status"],
            "company": {"id": row["company_id"]},
            "nextInvoiceDate": f"{row['next_invoice_date']}T00:00:00Z" if row["next_invoice_date"] else None,
            "prorateFlag": row["prorates"],
            "currency": {"currencyCode": row["currency"]},
            "billingCycle": {"id": row["billing_cycle_id"]},
            "billStartDate": f"{row['bill_start_date']}T00:00:00Z" if row["bill_start_date"] else None,
            "endDate": f"{row['end_date']}T00:00:00Z" if row["end_date"] else "",
            **self.agreement_says,
        }

    def additions(self, agreement_id: int) -> Iterator[list[dict[str, Any]]]:
        yield [dict(record) for record in self.additions_of.get(agreement_id, {}).values()]

    def addition(self, agreement_id: int, addition_id: int) -> dict[str, Any] | None:
        record = self.additions_of.get(agreement_id, {}).get(addition_id)
        return dict(record) if record else None

    def create_addition(
        self, agreement_id: int, body: dict[str, Any], *, note: Callable[[], None] | None = None
    ) -> dict[str, Any]:
        if note:
            note()
        if self.refuse:
            raise WriteRefusedError(self.refuse, status=400)
        addition_id = next(self.ids)
        self.additions_of.setdefault(agreement_id, {})[addition_id] = {"id": addition_id}
        return self._store(agreement_id, addition_id, body)

    def patch_addition(
        self,
        agreement_id: int,
        addition_id: int,
        operations: Sequence[dict[str, Any]],
        *,
        note: Callable[[], None] | None = None,
    ) -> dict[str, Any]:
        if note:
            note()
        if self.refuse:
            raise WriteRefusedError(self.refuse, status=400)
        return self._store(agreement_id, addition_id, {step["path"]: step["value"] for step in operations})

    def _store(self, agreement_id: int, addition_id: int, values: dict[str, Any]) -> dict[str, Any]:
        record = self.additions_of[agreement_id][addition_id]
        record.update(values, **self.stores)
        record["extPrice"] = rounded(
            (Decimal(record["quantity"]) - Decimal(record.get("lessIncluded") or 0)) * Decimal(record["unitPrice"])
        )
        return dict(record)

    def edit(self, agreement_id: int, addition_id: int, **values: Any) -> None:
        """A person changes an Addition in ConnectWise."""
        self._store(agreement_id, addition_id, values)

    def only(self, agreement_id: int) -> dict[str, Any]:
        """The agreement's one Addition."""
        (record,) = self.additions_of.get(agreement_id, {}).values()
        return record

    def billed(self, agreement_id: int, cycle_start: date, cycle_end: date) -> Decimal:
        """What agreement invoicing bills for a cycle: each billable Addition whose dates touch it."""
        return sum(
            (
                record["extPrice"]
                for record in self.additions_of.get(agreement_id, {}).values()
                if record["billCustomer"] == "Billable"
                and record["effectiveDate"][:10] <= str(cycle_end)
                and (record["cancelledDate"] or "9999")[:10] >= str(cycle_start)
            ),
            Decimal(0),
        )


class World:
    """Builds what a test needs and answers what was decided."""

    def __init__(self, dsn: str, connection: Connection | None = None) -> None:
        self.dsn = dsn
        self.connection = connection or connect(dsn, user="tests")
        self.connectwise = FakeConnectWise(self)
        self.invoices: list[Invoice] = []
        self._numbers = itertools.count(1)
        self._runs = itertools.count(1)
        self.run_id = 0
        for key, value in {"default_agreement_type": TYPE, "environment": "tests"}.items():
            set_setting(self.connection, key, value)
        self.execute("insert into mapping.agreement_type (agreement_type_id, name) values (1, %s)", TYPE)
        for number, option in enumerate(MONTHS, 1):
            self.insert("mapping.billing_cycle", billing_cycle_id=number, name=option, billing_option=option)

    def close(self) -> None:
        self.connection.close()

    # -- reference data ------------------------------------------------------------------------------------------------

    def number(self) -> int:
        """A number that nothing else in this world has."""
        return next(self._numbers)

    def company(self, **values: Any) -> int:
        number = self.number()
        row = {"company_id": number, "name": f"Company {number}", "status": "Active", "currency": "EUR", **values}
        self.insert("mapping.company", **row)
        return number

    def agreement(self, company_id: int, cycle: str | None = "Monthly", **values: Any) -> int:
        number = self.number()
        row = {
            "agreement_id": number,
            "name": f"Agreement {number}",
            "agreement_type_id": 1,
            "company_id": company_id,
            "agreement_status": "Active",
            "billing_cycle_id": list(MONTHS).index(cycle) + 1 if cycle else None,
            "invoicing_cycle": "CalendarYear",
            "currency": "EUR",
            "start_date": date(2026, 1, 1),
            "bill_start_date": date(2026, 1, 1),
            "next_invoice_date": MAY,
            **values,
        }
        self.insert("mapping.agreement", **row)
        return number

    def product(self, **values: Any) -> int:
        number = self.number()
        row = {"product_id": number, "identifier": f"P{number}", "product_class": "Service", **values}
        self.insert("mapping.product", **row)
        return number

    def organization(self, company_id: int | None = None, *, name: str | None = None) -> str:
        """An organization; mapped and approved when a company is given, else as the pipeline makes it."""
        organization_id = f"org-{self.number()}"
        self.insert("mapping.organization", organization_id=organization_id, name=name or organization_id.title())
        if company_id is not None:
            self.map_organization(organization_id, company_id)
        return organization_id

    def map_organization(
        self, organization_id: str, company_id: int | None, state: str = "approved", by: str | None = "ann"
    ) -> None:
        self._map("organization", organization_id, "company_id", company_id, state, by)

    def offer(self, product_id: int | None = None, *, offer_id: str | None = None) -> str:
        """An offer; mapped and approved to the product (a new one by default)."""
        offer_id = offer_id or f"offer-{self.number()}"
        self.insert("mapping.offer", offer_id=offer_id, name=offer_id)
        self.map_offer(offer_id, product_id or self.product())
        return offer_id

    def map_offer(self, offer_id: str, product_id: int | None, state: str = "approved", by: str | None = "ann") -> None:
        self._map("offer", offer_id, "product_id", product_id, state, by)

    def map_contract(self, contract_id: str, agreement_id: int) -> None:
        self.execute("insert into mapping.contract (contract_id) values (%s) on conflict do nothing", contract_id)
        self._map("contract", contract_id, "agreement_id", agreement_id, "approved", "ann")

    def _map(self, kind: str, source: str, target_name: str, target: int | None, state: str, by: str | None) -> None:
        self.execute(
            f"""
            insert into mapping.{kind}_mapping as known ({kind}_id, {target_name}, state, decided_by, decided_at)
            values (%s, %s, %s, %s, now())
            on conflict ({kind}_id) do update set {target_name} = excluded.{target_name}, state = excluded.state,
                decided_by = excluded.decided_by, version = known.version + 1
            """,
            source, target, state, by,
        )  # fmt: skip

    def customer(self, cycle: str | None = "Monthly", **agreement: Any) -> Customer:
        """An organization with an approved company that has one agreement, and the offer "offer" approved."""
        if not self.value("select exists (select from mapping.offer where offer_id = 'offer')"):
            self.offer(offer_id="offer")
        company_id = self.company()
        agreement_id = self.agreement(company_id, cycle, **agreement)
        return Customer(self.organization(company_id), company_id, agreement_id)

    def set_agreement(self, agreement_id: int, **values: Any) -> None:
        self.update("mapping.agreement", "agreement_id", agreement_id, **values)

    def invoiced_until(self, agreement_id: int, next_invoice_date: date) -> None:
        """ConnectWise has invoiced every cycle before this date."""
        self.set_agreement(agreement_id, next_invoice_date=next_invoice_date)

    def override(self, line: Line, **values: Any) -> None:
        self.execute("delete from billing.override where line_id = %s", self.line_id(line))
        self.insert("billing.override", line_id=self.line_id(line), decided_by="ann", **values)

    def setting(self, key: str, value: str) -> None:
        set_setting(self.connection, key, value)

    # -- invoices ------------------------------------------------------------------------------------------------------

    def invoice(self, customer: Customer | str | None, *lines: Line, day: date | None = None, **values: Any) -> Invoice:
        """An invoice in AppXite, dated by its first line's start unless a day is given."""
        organization_id = customer.organization_id if isinstance(customer, Customer) else customer
        for line in lines:
            if line.row_id == "":
                line.row_id = f"row-{self.number()}"
        day = day or (lines[0].start if lines and lines[0].start else MAY)
        made = Invoice(1000 + self.number(), organization_id, list(lines), day, **values)
        self.invoices.append(made)
        return made

    def stage(self, run_id: int, periods: Iterable[date]) -> None:
        """What the extract does: AppXite's invoices of the periods, whole."""
        for period in periods:
            invoices = [invoice for invoice in self.invoices if invoice.period == period]
            for feed in ("invoice_headers", "invoice_rows"):
                self.execute(
                    "delete from staging.extract where run_id = %s and feed = %s and billing_period = %s",
                    run_id, feed, period,
                )  # fmt: skip
            headers = [
                {
                    "invoice_id": one.invoice_id, "invoice_number": f"INV-{one.invoice_id}", "status": one.status,
                    "invoice_date": one.day, "provider_organization_id": one.provider,
                    "consumer_organization_id": one.organization_id, "consumer_name": str(one.organization_id),
                    "contract_id": one.contract_id, "currency": one.currency, "total_amount": one.header_total(),
                    "problem": one.problem,
                }
                for one in invoices
            ]  # fmt: skip
            rows = [
                {
                    "row_id": line.row_id, "invoice_id": one.invoice_id, "invoice_number": f"INV-{one.invoice_id}",
                    "invoice_date": one.day, "provider_organization_id": one.provider,
                    "consumer_organization_id": one.organization_id, "contract_id": line.contract_id,
                    "subscription_id": line.subscription_id, "subscription_name": line.name,
                    "offer_id": line.offer_id, "offer_name": line.offer_id, "charge_type": line.charge_type,
                    "charge_start_date": line.start, "charge_end_date": line.end,
                    "billing_frequency": line.frequency, "quantity": line.quantity, "unit_price": line.unit_price,
                    "total_price": line.total, "currency": line.currency, "problem": line.problem,
                }
                for one in invoices
                for line in one.lines
            ]  # fmt: skip
            for feed, table, records in (
                ("invoice_headers", "invoice_header", headers),
                ("invoice_rows", "invoice_row", rows),
            ):
                extract_id = self.extract(run_id, "appxite", feed, period)
                for position, record in enumerate(records, 1):
                    record.update(extract_id=extract_id, position=position, raw=Jsonb({}))
                self.insert_many(f"staging.{table}", records)

    def extract(self, run_id: int, source: str, feed: str, period: date | None = None) -> int:
        """The row that says a feed is whole."""
        return int(
            self.value(
                "insert into staging.extract (run_id, source, feed, billing_period) values (%s, %s, %s, %s)"
                " returning extract_id",
                run_id, source, feed, period,
            )
        )  # fmt: skip

    # -- runs ----------------------------------------------------------------------------------------------------------

    def open(
        self, kind: Literal["nightly", "manual", "backfill", "reference"] = "nightly", *periods: date, **options: Any
    ) -> int:
        """Open a run about the periods (those of all invoices by default), with its invoices staged."""
        wanted = list(periods) or sorted({invoice.period for invoice in self.invoices}) or [MAY]
        self.run_id = open_run(
            self.connection, dag_id="tests", dag_run_id=f"run {next(self._runs)}", kind=kind, billing_periods=wanted,
            requester_id=REQUESTER, **options,
        )  # fmt: skip
        with self.connection.transaction():
            self.stage(self.run_id, wanted)
        return self.run_id

    def decide(
        self, kind: Literal["nightly", "manual", "backfill", "reference"] = "nightly", *periods: date, **options: Any
    ) -> int:
        """A run from staging to its plan; returns the run."""
        run_id = self.open(kind, *periods, **options)
        decide(self.connection, run_id)
        return run_id

    def decide_newest(self) -> None:
        """All steps of the newest run, over what is staged for it."""
        decide(self.connection, self.run_id)

    def again(self) -> None:
        """All steps of the newest run once more, over what AppXite says now."""
        with self.connection.transaction():
            self.stage(
                self.run_id, self.value("select billing_periods::date[] from audit.run where run_id = %s", self.run_id)
            )
        self.decide_newest()

    def plan(self, run_id: int | None = None) -> int:
        return plan_of_run(self.connection, run_id or self.run_id)

    def deliver(self, run_id: int | None = None) -> DeliveryCounts:
        """Approve the run's plan and deliver it."""
        plan_id = self.plan(run_id)
        approve_plan(self.connection, plan_id, "ann")
        counts = self.deliver_approved(plan_id)
        finish_run(self.connection, run_id or self.run_id)
        return counts

    def deliver_approved(self, plan_id: int) -> DeliveryCounts:
        """Deliver a plan that is approved already."""
        counts = DeliveryCounts()
        for shard in shards_to_deliver(self.connection, plan_id):
            counts += Deliverer(self.connection, self.connectwise, plan_id).deliver_shard(shard)  # type: ignore[arg-type]
        return counts

    def prove(self, run_id: int | None = None) -> list[str]:
        """Read ConnectWise back; the codes of the breaches."""
        return [breach["code"] for breach in self.breaches(run_id)]

    def breaches(self, run_id: int | None = None) -> list[dict[str, Any]]:
        run_id = run_id or self.run_id
        extract_additions(
            self.connection, self.connectwise, run_id, agreements_to_prove(self.connection, run_id),  # type: ignore[arg-type]
            MarkerCarrier.from_settings(self.connection).read,
        )  # fmt: skip
        return run_sql_file(self.connection, PROVE_INVOICES, run_id)

    def night(self, *periods: date) -> DeliveryCounts:
        """A nightly run with its plan approved, delivered and proven. Raises ProofError for breaches."""
        self.decide("nightly", *periods)
        counts = self.deliver()
        breaches = self.breaches()
        if breaches:
            raise ProofError("; ".join(breach["message"] for breach in breaches))
        return counts

    # -- answers -------------------------------------------------------------------------------------------------------

    def line_id(self, line: Line, revision: int = 1) -> int:
        found = self.value(
            "select line_id from billing.invoice_line where row_id = %s and revision = %s", line.row_id, revision
        )
        assert found is not None, f"no revision {revision} of {line}"
        return int(found)

    def decision(self, line: Line, revision: int = 1) -> dict[str, Any]:
        return self.row("select * from billing.line_decision where line_id = %s", self.line_id(line, revision))

    def outcome(self, line: Line, revision: int = 1) -> str:
        return str(self.decision(line, revision)["outcome"])

    def key(self, line: Line) -> str | None:
        """The delivery key of the Addition that carries, or shall carry, the line."""
        return self.value(
            """
            select coalesce(carried.delivery_key, decision.delivery_key) from billing.line_decision as decision
            left join delivery.addition_line as carried using (line_id) where line_id = %s
            """,
            self.line_id(line),
        )

    def reasons(self, line: Line, revision: int = 1) -> set[str]:
        rows = self.rows("select reason_code from billing.held_reason where line_id = %s", self.line_id(line, revision))
        return {row["reason_code"] for row in rows}

    def is_carried(self, line: Line, revision: int = 1) -> bool:
        return bool(
            self.value(
                "select exists (select from delivery.addition_line where line_id = %s)", self.line_id(line, revision)
            )
        )

    def items(self, run_id: int | None = None) -> list[dict[str, Any]]:
        """The items of the run's plan."""
        return self.rows("select * from delivery.plan_item where plan_id = %s order by plan_item_id", self.plan(run_id))

    def proof(self, invoice: Invoice, run_id: int | None = None) -> dict[str, Decimal]:
        row = self.row(
            """
            select source_total, delivered, held, excluded, awaiting_approval, in_doubt, difference
            from audit.invoice_proof where run_id = %s and invoice_id = %s
            """,
            run_id or self.run_id, invoice.invoice_id,
        )  # fmt: skip
        return dict(row)

    # -- plain SQL -----------------------------------------------------------------------------------------------------

    def execute(self, statement: str, *values: Any) -> None:
        self.connection.execute(statement, values)  # type: ignore[call-overload]

    def rows(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        with self.connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(statement, values).fetchall()  # type: ignore[call-overload,no-any-return]

    def row(self, statement: str, *values: Any) -> dict[str, Any]:
        (row,) = self.rows(statement, *values)
        return row

    def value(self, statement: str, *values: Any) -> Any:
        row = self.connection.execute(statement, values).fetchone()  # type: ignore[call-overload]
        return row[0] if row else None

    def insert(self, table: str, **values: Any) -> None:
        self.insert_many(table, [values])

    def insert_many(self, table: str, records: Sequence[dict[str, Any]]) -> None:
        if not records:
            return
        names = list(records[0])
        statement = f"insert into {table} ({', '.join(names)}) values ({', '.join(['%s'] * len(names))})"
        with self.connection.cursor() as cursor:
            cursor.executemany(statement, [[record[name] for name in names] for record in records])  # type: ignore[arg-type]

    def update(self, table: str, key: str, key_value: Any, **values: Any) -> None:
        names = ", ".join(f"{name} = %s" for name in values)
        self.execute(f"update {table} set {names} where {key} = %s", *values.values(), key_value)

    def snapshot(self, *, with_versions: bool = True, without: Iterable[str] = ()) -> dict[str, list[str]]:
        """Every row of our schemas as text; with versions, a row that was written anew differs even if it is equal.

        without: columns left out.
        """
        tables = self.rows(
            "select table_schema || '.' || table_name as name from information_schema.tables"
            " where table_schema = any(%s) and table_type = 'BASE TABLE'",
            list(SCHEMAS),
        )
        version = "xmin::text || ' ' ||" if with_versions else ""
        return {
            table["name"]: [
                row["content"]
                for row in self.rows(
                    f"select {version} (to_jsonb(known) - %s::text[])::text as content from {table['name']} as known"
                    " order by 1",
                    list(without),
                )
            ]
            for table in tables
        }


def differences_between(before: dict[str, list[str]], after: dict[str, list[str]]) -> dict[str, list[str]]:
    """By table: rows that one snapshot has and the other lacks."""
    return {
        name: sorted(set(before[name]) ^ set(after[name]))
        for name in before
        if sorted(before[name]) != sorted(after[name])
    }
