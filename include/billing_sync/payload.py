"""An Addition as we send it and as ConnectWise gives it back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import Any

from billing_sync.connectwise import api_date
from billing_sync.db import Connection
from billing_sync.errors import ConfigurationError
from billing_sync.settings import get_setting

Payload = dict[str, Any]

# Set when the Addition is made; a PATCH leaves them alone: they are what we find it by.
FIXED_FIELDS = ("product", "serialNumber", "customFields")


@dataclass(frozen=True)
class MarkerCarrier:
    """Where our marker stands on an Addition (settings marker_carrier, marker_custom_field_id)."""

    carrier: str
    custom_field_id: int | None = None

    @classmethod
    def from_settings(cls, connection: Connection) -> MarkerCarrier:
        """As configured. Raises ConfigurationError when the custom field is chosen, but not which one."""
        carrier, field_id = (get_setting(connection, key) for key in ("marker_carrier", "marker_custom_field_id"))
        if carrier == "custom_field" and field_id is None:
            raise ConfigurationError(
                "marker_carrier is custom_field: set marker_custom_field_id to the id of the custom field on Additions."
            )
        return cls(str(carrier), field_id)

    def read(self, record: Mapping[str, Any]) -> str | None:
        """The marker on a ConnectWise Addition; None if it carries none of ours."""
        if self.carrier == "serial_number":
            text = record.get("serialNumber")
        elif self.carrier == "custom_field":
            fields = record.get("customFields") or []
            text = next((field.get("value") for field in fields if field.get("id") == self.custom_field_id), None)
        else:
            found = re.search(r"\[(axs-[a-z0-9]+-[0-9a-f]{32})\]\s*$", str(record.get("invoiceDescription") or ""))
            text = found[1] if found else None
        return text if isinstance(text, str) and text.startswith("axs-") else None


def inert(payload: Mapping[str, Any]) -> Payload:
    """The same Addition, but never billed: what a duplicate of it costs is 0.00."""
    return {**payload, "billCustomer": "DoNotBill"}


def patch_operations(payload: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """PATCH operations to the payload: of all fields that may change, or of those that differ from before."""
    return [
        {"op": "replace", "path": field, "value": value}
        for field, value in payload.items()
        if field not in FIXED_FIELDS and (before is None or before.get(field) != value)
    ]


def marker_operations(payload: Mapping[str, Any], record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """PATCH operations that put our marker on an Addition made by hand; its other custom fields stay as they are.

    A marker in the description needs none: patch_operations sends the description.
    """
    operations = []
    if "serialNumber" in payload:
        operations.append({"op": "replace", "path": "serialNumber", "value": payload["serialNumber"]})
    if "customFields" in payload:  # replaced as a whole
        ours = payload["customFields"]
        ids = {field["id"] for field in ours}
        others = [field for field in record.get("customFields") or [] if field.get("id") not in ids]
        operations.append({"op": "replace", "path": "customFields", "value": [*others, *ours]})
    return operations


def line_amount(quantity: Decimal, unit_price: Decimal) -> Decimal:
    """What ConnectWise bills: rounded to 2 decimals after multiplying, half away from zero (billing.line_amount)."""
    with localcontext(prec=80):  # the usual 28 digits would round the product of two long numbers before the cent
        return (quantity * unit_price).quantize(Decimal("0.01"), rounding=ROUND_HALF_UP)


def _number(value: Any) -> Decimal | None:
    return Decimal(value) if isinstance(value, (int, Decimal)) and not isinstance(value, bool) else None


def _plain(value: Any) -> str:
    return " ".join(str(value or "").split())  # ConnectWise turns newlines into spaces


def differences(payload: Mapping[str, Any], record: Mapping[str, Any], marker: MarkerCarrier) -> list[str]:
    """What ConnectWise holds differently from what was sent, in words; empty if it is the same to the cent."""
    found = []

    def compare(field: str, sent: Any, stored: Any) -> None:
        if sent != stored:
            found.append(f"{field} is {stored if stored is not None else 'missing'} instead of {sent}")

    compare("product", payload["product"]["id"], (record.get("product") or {}).get("id"))
    compare("billCustomer", payload["billCustomer"], record.get("billCustomer"))
    for field in ("quantity", "lessIncluded", "unitPrice"):
        compare(field, _number(payload[field]), _number(record.get(field) or 0))
    for field in ("effectiveDate", "cancelledDate"):
        compare(field, api_date(payload[field]), api_date(record.get(field)))
    compare("invoiceDescription", _plain(payload["invoiceDescription"]), _plain(record.get("invoiceDescription")))
    compare("marker", marker.read(payload), marker.read(record))
    if "taxableFlag" in payload:
        compare("taxableFlag", payload["taxableFlag"], record.get("taxableFlag"))
    if "unitCost" in payload:
        compare("unitCost", _number(payload["unitCost"]), _number(record.get("unitCost")))
    quantity, less, price = (_number(payload[field]) for field in ("quantity", "lessIncluded", "unitPrice"))
    assert quantity is not None
    assert less is not None
    assert price is not None
    compare("extPrice", line_amount(quantity - less, price), _number(record.get("extPrice") or 0))
    return found
