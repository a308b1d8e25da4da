"""The judge. Reads what AppXite wants, and what ConnectWise holds, did and invoiced; never the product's tables."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pipeline import is_ours

from campaign.report import Figures
from sandbox.server import Sandbox

THE_END = "2027-03-01"

Line = tuple[int, str, str, Decimal]  # company, first day of the cycle, product, amount


@dataclass(frozen=True)
class Verdict:
    """What became of the lines that AppXite wants to be paid for. Figures as in report.Figures."""

    lines: int
    money: Decimal
    duplicates: int
    lost: int
    cents_off: int
    orphans: int
    orphans_neutralised: int

    def problems(self) -> list[str]:
        """What is not as promised, in words; empty when all is well."""
        return [f"{name} {getattr(self, name)}" for name in ("duplicates", "lost", "cents_off") if getattr(self, name)]

    def figures(self) -> Figures:
        """To be added up."""
        return Figures(**vars(self))


def judge(sandbox: Sandbox, held: Collection[str] = ()) -> Verdict:
    """Invoice every cycle, then compare line by line.

    held: rowIds of AppXite's lines that the scenario wants held; they must not be billed.
    Comes last: agreement invoicing cannot be undone. Monthly agreements only, each line invoiced in its charge's month.
    """
    orphans, neutralised = orphans_of(sandbox)
    wanted, billed = wanted_lines(sandbox, held), billed_lines(sandbox)
    by_company: Counter[int] = Counter()
    for lines, sign in ((billed, 1), (wanted, -1)):
        for (company, _, _, amount), count in lines.items():
            by_company[company] += sign * count * int(amount * 100)
    return Verdict(
        lines=billed.total(),
        money=sum((line[3] * count for line, count in billed.items()), Decimal("0.00")),
        duplicates=sum(most - 1 for most in most_billable(sandbox).values() if most > 1),
        lost=(wanted - billed).total(),
        cents_off=sum(abs(cents) for cents in by_company.values()),
        orphans=orphans,
        orphans_neutralised=neutralised,
    )


def most_billable(sandbox: Sandbox) -> dict[tuple[int, str], int]:
    """How many billable Additions each (agreement, marker) had at its worst moment, by the journal."""
    billable: dict[tuple[int, str], set[int]] = {}
    most: dict[tuple[int, str], int] = {}
    for entry in our_entries(sandbox):
        key = (entry["agreement_id"], entry["marker"])
        ids = billable.setdefault(key, set())
        ids.discard(entry["addition_id"])
        if entry["after"] and entry["after"]["billCustomer"] == "Billable":
            ids.add(entry["addition_id"])
        most[key] = max(most.get(key, 0), len(ids))
    return most


def orphans_of(sandbox: Sandbox) -> tuple[int, int]:
    """Inert Additions beside the one of their key, and how many of them end on the day on which they begin."""
    of_key: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for addition in sandbox.additions():
        if is_ours(addition["marker"]):
            of_key.setdefault((addition["agreementId"], addition["marker"]), []).append(addition)
    orphans = []
    for additions in of_key.values():
        # The billable one is the Addition; without one, any one of them.
        inert = [one for one in additions if one["billCustomer"] != "Billable"]
        orphans += inert if len(inert) < len(additions) else inert[1:]
    return len(orphans), sum(one.get("cancelledDate") == one.get("effectiveDate") for one in orphans)


def our_entries(sandbox: Sandbox) -> list[dict[str, Any]]:
    """The journal, as far as it is about our Additions."""
    return [
        entry for entry in sandbox.journal() if entry["operation"].startswith("addition.") and is_ours(entry["marker"])
    ]


def wanted_lines(sandbox: Sandbox, held: Collection[str] = ()) -> Counter[Line]:
    """What AppXite wants to be billed."""
    companies = {row["organization_id"]: int(row["company_id"]) for row in mapped(sandbox, "organizations")}
    products = {row["offer_id"]: row["product_identifier"] for row in mapped(sandbox, "offers")}
    return Counter(
        (
            companies[invoice["consumerOrganizationId"]],
            line["chargeStartDate"][:8] + "01",
            products[line["offerId"]],
            line["totalPrice"],
        )
        for invoice in sandbox.truth()
        for line in invoice["lines"]
        if line["rowId"] not in held
    )


def billed_lines(sandbox: Sandbox) -> Counter[Line]:
    """What ConnectWise invoices of our Additions, once every cycle is invoiced."""
    sandbox.invoice(through=THE_END)
    return Counter(
        (int(invoice["company"]["id"]), invoice["cycleStart"], line["product"], line["amount"])
        for invoice in sandbox.invoices()
        for line in invoice["lines"]
        if is_ours(line["marker"])
    )


def mapped(sandbox: Sandbox, name: str) -> list[dict[str, str]]:
    """The mapping file `organizations` or `offers`."""
    return list(csv.DictReader(io.StringIO(sandbox.mapping_csv(name))))
