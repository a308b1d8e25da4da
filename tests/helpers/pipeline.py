"""The whole path in plain Python: what the DAGs do, without Airflow, on a small world that a test fills itself.

A `Pipeline` is a billing database, a sandbox and the steps of a run between them. Its sandbox has four customers
(`CUSTOMERS`) with the agreements of the data set, and no AppXite invoice until a test writes one with `bill`.
The checker at the end reads the sandbox only: what AppXite wants, and what ConnectWise holds and did.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any

import pandas as pd

from billing_sync.appxite import AppXite
from billing_sync.connectwise import ConnectWise
from billing_sync.db import Connection, connect, run_sql_file
from billing_sync.decide import REFRESH_OFFERS, REFRESH_REFERENCE, decide
from billing_sync.deliver import Deliverer, DeliveryCounts
from billing_sync.errors import BillingSyncError
from billing_sync.extract import extract_appxite_reference, extract_connectwise_reference, extract_invoices
from billing_sync.http import Limits
from billing_sync.mappings import import_mappings
from billing_sync.plan import approve_automatically, plan_of_run, shards_to_deliver
from billing_sync.prove import prove
from billing_sync.run import finish_run, last_day_of, nightly_periods, open_run
from billing_sync.settings import set_setting

if TYPE_CHECKING:
    from sandbox.messages import Request
    from sandbox.server import Sandbox

CUSTOMERS = 4
SEP, OCT, NOV, DEC = (date(2026, month, 1) for month in (9, 10, 11, 12))
SETTINGS = {
    "environment": "tests",
    "default_agreement_type": "Cloud Subscriptions",
    "automated_daily_sync": "on",
    "settle_seconds": "0",  # a month passes within a test
}
# Reads are tried again at once, and an answer that does not come is not waited for long.
PATIENCE = Limits(connect=5.0, read=5.0, whole=20.0, first_wait=0.0, sleep=lambda _: None)
POST, PATCH = {"method": "POST", "path": "/additions$"}, {"method": "PATCH", "path": r"/additions/\d+$"}
LIST, READ = {"method": "GET", "path": "/additions$"}, {"method": "GET", "path": r"/additions/\d+$"}

Json = dict[str, Any]


class Killed(BaseException):
    """Stands for the end of a process: nothing catches it."""


# -- invoices of AppXite -----------------------------------------------------------------------------------------------


def recurring(subscription: str, month: date, quantity: object = 1, price: object = "10.00", **other: Any) -> Json:
    """A monthly charge in advance."""
    dates = {"chargeStartDate": month.isoformat(), "chargeEndDate": last_day_of(month).isoformat()}
    return _row(subscription, "CycleFee", quantity, price, "Every 1 months", {**dates, **other})


def one_time(name: str, day: date, quantity: object = 1, price: object = "10.00", **other: Any) -> Json:
    """A one-time charge of one day."""
    dates = {"chargeStartDate": day.isoformat(), "chargeEndDate": day.isoformat()}
    return _row(name, "OneTimeFee", quantity, price, "One Time", {**dates, **other})


def _row(name: str, charge: str, quantity: object, price: object, frequency: str, other: Json) -> Json:
    quantity, price = Decimal(str(quantity)), Decimal(str(price))
    return {
        "subscriptionId": f"sub-{name}",
        "subscriptionName": f"Subscription {name}",
        "offerId": "OF-1001",
        "offerName": "Mail Essentials",
        "chargeType": charge,
        "billingFrequency": frequency,
        "quantity": quantity,
        "unitPrice": price,
        "totalPrice": (quantity * price).quantize(Decimal("0.01"), ROUND_HALF_UP),
        "currency": "EUR",
        **other,
    }


# -- the pipeline ------------------------------------------------------------------------------------------------------


@dataclass
class Pipeline:
    """A billing database and a sandbox, and the steps of a run between them."""

    dsn: str
    sandbox: Sandbox
    connection: Connection = field(init=False)

    def __post_init__(self) -> None:
        self.connection = connect(self.dsn, user="tests")

    def close(self) -> None:
        self.connection.close()

    @property
    def database(self) -> str:
        """The name of the database."""
        return self.dsn.rpartition("/")[2]

    def appxite(self) -> AppXite:
        """A client of the sandbox's AppXite half."""
        keys = self.sandbox.credentials
        return AppXite(self.sandbox.url, keys.requester_id, keys.sas_key, limits=PATIENCE)

    def connectwise(self, *, read_only: bool = False, **other: Any) -> ConnectWise:
        """A client of the sandbox's ConnectWise half."""
        keys = self.sandbox.credentials
        given = {"private_key": keys.private_key, "limits": PATIENCE, **other}
        return ConnectWise(
            self.sandbox.url, keys.company_id, keys.public_key, given.pop("private_key"), keys.client_id,
            read_only=read_only, **given,
        )  # fmt: skip

    # -- what an administrator does once -------------------------------------------------------------------------

    def set_up(self, **settings: str) -> None:
        """Reference data, offers of the sandbox's invoices, mappings and settings; no invoice is loaded."""
        run_id = self.open("reference", [SEP, OCT, NOV])
        self.extract(run_id)
        run_sql_file(self.connection, REFRESH_REFERENCE, run_id)
        run_sql_file(self.connection, REFRESH_OFFERS, run_id)
        for kind, key in (("organizations", "organization_id"), ("offers", "offer_id")):
            known = {row[0] for row in self.rows(f"select {key} from mapping.{kind[:-1]}")}
            rows = [row for row in csv.DictReader(io.StringIO(self.sandbox.mapping_csv(kind))) if row[key] in known]
            import_mappings(self.connection, kind, pd.DataFrame(rows).assign(note=""), approve=True, person="tests")
        self.set(**{**SETTINGS, **settings})

    def set(self, **settings: str) -> None:
        """Change settings."""
        for key, value in settings.items():
            set_setting(self.connection, key, value)

    # -- the world -----------------------------------------------------------------------------------------------

    def bill(self, month: date, *rows: Json, customer: int = 0, day: int = 3, **header: Any) -> int:
        """Add a Verified invoice of a customer to AppXite; returns its id."""
        from sandbox.appxite import STATUS_IDS

        invoice_id = 1 + max((one["invoiceId"] for one in self.sandbox.appxite_invoices()), default=800000)
        mapped = list(csv.DictReader(io.StringIO(self.sandbox.mapping_csv("organizations"))))[customer]
        invoice = {
            "invoiceId": invoice_id,
            "invoiceNumber": f"T-{invoice_id}",
            "statusId": STATUS_IDS["Verified"],
            "status": "Verified",
            "invoiceDate": month.replace(day=day).isoformat(),
            "providerOrganizationId": self.sandbox.credentials.requester_id,
            "providerName": "Demo Service Provider",
            "consumerOrganizationId": mapped["organization_id"],
            "consumerName": mapped["organization_name"],
            "contractId": f"CT-{30001 + customer}",
            "currency": "EUR",
            "totalAmount": sum((row["totalPrice"] for row in rows), Decimal("0.00")),
            "invoiceSourceId": 1,
            "invoiceSource": "Billing Cycle",
            **header,
        }
        names = ("invoiceId", "invoiceNumber", "invoiceDate", "providerOrganizationId", "consumerOrganizationId")
        shared = {name: invoice[name] for name in (*names, "contractId")}
        lines = [({"rowId": f"{invoice_id}-{n:03d}", **shared, **row}, []) for n, row in enumerate(rows, 1)]
        with self.sandbox.store.transaction():
            self.sandbox.store.add_invoice(invoice, lines, "published")
        return invoice_id

    def agreement(self, customer: int = 0) -> int:
        """The customer's active agreement of the default type."""
        return next(
            one["id"] for one in self.sandbox.agreements()
            if one["company"]["id"] == 201 + customer and one["type"]["name"] == SETTINGS["default_agreement_type"]
        )  # fmt: skip

    def additions(self, agreement_id: int | None = None) -> list[Json]:
        """Our Additions as ConnectWise holds them now, by id."""
        return [one for one in self.sandbox.additions(agreement_id) if is_ours(one["marker"])]

    def the_addition(self) -> Json:
        """Our one Addition in ConnectWise."""
        found = self.additions()
        assert len(found) == 1, found
        return found[0]

    def remove_agreements(self, company_id: int) -> None:
        """The company has no agreement in ConnectWise any more."""
        store = self.sandbox.store
        with store.transaction():
            for record in list(store.records("agreement").values()):
                if record["company"]["id"] == company_id:
                    for addition in list(store.additions(record["id"]).values()):
                        store.delete("addition", addition)
                    store.delete("agreement", record)

    @contextmanager
    def on_request(self, method: str, path: str, act: Callable[[Request], None]) -> Iterator[None]:
        """Do something at the moment in which a request comes in, before the sandbox looks at it."""
        answer = self.sandbox.answer

        def hooked(request: Request) -> Any:
            if request.method == method and re.search(path, request.path):
                act(request)
            return answer(request)

        self.sandbox.answer = hooked  # type: ignore[method-assign]
        try:
            yield
        finally:
            self.sandbox.answer = answer  # type: ignore[method-assign]

    # -- a run ---------------------------------------------------------------------------------------------------

    def open(self, kind: Any, periods: Sequence[date], **options: Any) -> int:
        """Open a run."""
        number = self.value("select count(*) from audit.run") + 1
        return open_run(
            self.connection,
            dag_id="tests",
            dag_run_id=f"run_{number}",
            kind=kind,
            billing_periods=periods,
            requester_id=self.sandbox.credentials.requester_id,
            **options,
        )

    def extract(self, run_id: int) -> None:
        """Stage both sides."""
        appxite = self.appxite()
        extract_appxite_reference(self.connection, appxite, run_id)
        extract_connectwise_reference(self.connection, self.connectwise(read_only=True), run_id)
        for period in self.value("select billing_periods::date[] from audit.run where run_id = %s", run_id):
            extract_invoices(self.connection, appxite, run_id, period)

    def plan(self, kind: Any, periods: Sequence[date], *, approve: bool = True, **options: Any) -> int:
        """A run up to its plan, approved if the settings approve it; returns the run's id."""
        run_id = self.open(kind, periods, **options)
        self.extract(run_id)
        decide(self.connection, run_id)
        if approve:
            approve_automatically(self.connection, run_id)
        return run_id

    def deliver(self, plan_id: int) -> DeliveryCounts:
        """Deliver every shard of a plan; as with mapped tasks, one that fails does not stop the others."""
        total, failed = DeliveryCounts(), None
        for shard in shards_to_deliver(self.connection, plan_id):
            with connect(self.dsn) as connection:
                deliverer = Deliverer(connection, self.connectwise(), plan_id)
                try:
                    deliverer.deliver_shard(shard)
                except BillingSyncError as error:
                    failed = error
                total += deliverer.counts
        if failed:
            raise failed
        return total

    def finish(self, run_id: int) -> tuple[DeliveryCounts, dict[str, str]]:
        """Deliver a planned run if its plan is approved, and prove it."""
        counts, plan_id = DeliveryCounts(), plan_of_run(self.connection, run_id)
        if self.value("select state from delivery.plan where plan_id = %s", plan_id) in ("approved", "applied"):
            counts = self.deliver(plan_id)
        proof = prove(self.connection, self.connectwise(read_only=True), run_id)
        finish_run(self.connection, run_id)
        return counts, proof

    def plan_night(self, month: date) -> tuple[int, int]:
        """A nightly run up to its approved plan; returns run_id and plan_id."""
        run_id = self.plan("nightly", nightly_periods(month.replace(day=15)))
        return run_id, plan_of_run(self.connection, run_id)

    def night(self, month: date) -> tuple[DeliveryCounts, dict[str, str]]:
        """A whole nightly run in the middle of a month: what was delivered, and the proof's money."""
        return self.finish(self.plan_night(month)[0])

    # -- looking at the database -----------------------------------------------------------------------------------

    def value(self, statement: str, *values: Any) -> Any:
        """The first column of the first row."""
        row = self.connection.execute(statement, values).fetchone()
        return row[0] if row else None

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """All rows."""
        return self.connection.execute(statement, values).fetchall()

    def states(self) -> list[str]:
        """The states of the ledger's Additions, sorted."""
        return [row[0] for row in self.rows("select state from delivery.addition order by state")]

    def attempts(self) -> list[str]:
        """Every attempt, oldest first: "create invoke", "create ok"."""
        return [
            f"{operation} {outcome}"
            for operation, outcome in self.rows("select operation, outcome from delivery.attempt order by attempt_id")
        ]

    def held(self) -> dict[str, str]:
        """Why lines are held, as the review pages show it: reason codes with their detail."""
        return dict(self.rows("select reason_code, detail from reporting.held_line order by line_id"))

    def outcomes(self) -> dict[str, Decimal]:
        """Money by outcome."""
        return dict(
            self.rows("select outcome, sum(total_price) from reporting.invoice_line group by outcome order by 1")
        )

    def warnings(self, level: str = "WARNING") -> str:
        """What the log that people read says."""
        rows = self.rows("select code, message from audit.log_entry where level = %s order by log_entry_id", level)
        return "\n".join(f"{code}: {message}" for code, message in rows)


# -- the checker: reads nothing but the sandbox ------------------------------------------------------------------------


def is_ours(marker: str | None) -> bool:
    """Whether a marker is of this pipeline."""
    return str(marker or "").startswith("axs-tests-")


def most_billable_at_once(sandbox: Sandbox) -> int:
    """How many billable Additions of one marker in one agreement existed at the worst moment."""
    billable: dict[tuple[int, str], set[int]] = {}
    worst = 0
    for entry in sandbox.journal():
        record = entry["after"] or entry["before"]
        if not entry["operation"].startswith("addition.") or not is_ours(entry["marker"]):
            continue
        ids = billable.setdefault((entry["agreement_id"], entry["marker"]), set())
        ids.discard(entry["addition_id"])
        if entry["after"] and record["billCustomer"] == "Billable":
            ids.add(entry["addition_id"])
        worst = max(worst, len(ids))
    return worst


def invoiced(sandbox: Sandbox, through: str = "2027-03-01") -> dict[int, Decimal]:
    """What ConnectWise invoices of our Additions by company id, once every cycle up to a day is invoiced."""
    sandbox.invoice(through=through)
    sums: dict[int, Decimal] = {}
    for invoice in sandbox.invoices():
        for line in invoice["lines"]:
            if is_ours(line["marker"]):
                company_id = int(invoice["company"]["id"])
                sums[company_id] = sums.get(company_id, Decimal(0)) + line["amount"]
    return sums


def wanted(sandbox: Sandbox) -> dict[int, Decimal]:
    """What AppXite wants from each customer, by company id."""
    companies = {
        row["organization_id"]: int(row["company_id"])
        for row in csv.DictReader(io.StringIO(sandbox.mapping_csv("organizations")))
    }
    sums: dict[int, Decimal] = {}
    for invoice in sandbox.truth():
        company_id = companies[invoice["consumerOrganizationId"]]
        sums[company_id] = sums.get(company_id, Decimal(0)) + sum(row["totalPrice"] for row in invoice["lines"])
    return sums


def check(sandbox: Sandbox) -> None:
    """Duplicates 0, lost 0, cents off 0. Runs agreement invoicing to the end, so it comes last."""
    assert most_billable_at_once(sandbox) <= 1
    assert invoiced(sandbox) == wanted(sandbox)


def body(request: Request) -> Any:
    """What a request carries."""
    return json.loads(request.body)


def a_day_after(period: date) -> str:
    """The first day after a billing period."""
    return (last_day_of(period) + timedelta(days=1)).isoformat()
