"""Where on the review pages a held line is cured: one entry per code of billing.held_reason_code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

Line = Mapping[str, Any]
Link = Callable[[Line], str | None]


def _page(path: str, parameter: str = "", column: str = "") -> Link:
    """A page; with a line, what the page shows is narrowed to the value of one of its columns."""

    def link(line: Line) -> str:
        value = line.get(column)
        return path if value is None else f"{path}?{parameter}={quote(str(value), safe='')}"

    return link


def _setting(key: str) -> Link:
    return lambda _line: f"settings/configuration?key={key}"


def _lines(code: str) -> Link:
    """The customer's lines that are held for the same reason: all of them can be chosen and changed at once."""

    def link(line: Line) -> str:
        wanted: dict[str, Any] = {"reason_codes": [code]}
        if line.get("organization_id") is not None:
            wanted["organization_ids"] = [line["organization_id"]]
        return f"mapping/invoices?filter={quote(json.dumps(wanted, separators=(',', ':')), safe='')}"

    return link


def _nowhere(_line: Line) -> None:
    """Only AppXite or ConnectWise can cure it, or the next run does by itself."""


_ORGANIZATION = _page("mapping/organizations", "q", "organization_id")
_OFFER = _page("mapping/products", "q", "offer_id")
_CHARGE_TYPE = _page("settings/configuration", "charge_type", "charge_type")
_PAUSES = _page("dashboard")
_PARKED = _page("dashboard#parked")
_UNSETTLED = _page("dashboard#unsettled")

CURE_LINKS: Mapping[str, Link] = {
    "invoice_does_not_add_up": _nowhere,
    "invoice_withdrawn": _lines("invoice_withdrawn"),
    "delivered_on_withdrawn_invoice": _lines("delivered_on_withdrawn_invoice"),
    "row_unreadable": _nowhere,
    "changed_after_delivery": _setting("changes_after_delivery"),
    "currency_differs_from_invoice": _nowhere,
    "organization_unmapped": _ORGANIZATION,
    "company_unclaimed": _ORGANIZATION,
    "company_ambiguous": _ORGANIZATION,
    "company_not_usable": _ORGANIZATION,
    "offer_missing": _CHARGE_TYPE,
    "offer_unmapped": _OFFER,
    "product_not_usable": _OFFER,
    "no_agreement": _lines("no_agreement"),
    "ambiguous_agreement": _lines("ambiguous_agreement"),
    "agreement_to_create": _page("plan"),
    "agreement_not_usable": _lines("agreement_not_usable"),
    "agreement_currency_differs": _lines("agreement_currency_differs"),
    "agreement_prorates": _lines("agreement_prorates"),
    "billing_cycle_unsupported": _lines("billing_cycle_unsupported"),
    "before_bill_start": _lines("before_bill_start"),
    "unknown_charge_type": _CHARGE_TYPE,
    "dates_missing": _lines("dates_missing"),
    "typed_dates_not_usable": _lines("typed_dates_not_usable"),
    "price_not_representable": _lines("price_not_representable"),
    "late_line": _setting("late_lines"),
    "customer_paused": _PAUSES,
    "negative_amount": _setting("negative_additions"),
    "addition_not_settled": _UNSETTLED,
    "adopted_addition_waits": _nowhere,
    "refused_by_connectwise": _UNSETTLED,
    "agreement_changed": _nowhere,
    "invoiced_meanwhile": _UNSETTLED,
    "line_changed": _nowhere,
    "echo_differs": _UNSETTLED,
    "changed_in_connectwise": _UNSETTLED,
    "too_many_additions": _PARKED,
    "too_many_agreements": _PARKED,
    "amount_above_bound": _PARKED,
    "customer_total_unusual": _PARKED,
    "credit_exceeds_charge": _PARKED,
}


def cure_link(code: str, line: Line | None = None) -> str | None:
    """The page that cures a reason, as a path below /billing/; None where none of ours can.

    line: a row of the grid; the page is narrowed to what holds it (its organization, offer, charge type ...).
    """
    link = CURE_LINKS.get(code, _nowhere)
    return link(line or {})
