"""Settings: what an administrator configures, in table billing.setting, checked here before it is stored."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from psycopg.types.json import Jsonb

from billing_sync.db import Connection
from billing_sync.errors import ConfigurationError


def _switch(text: str) -> bool:
    if text.lower() in ("on", "true", "yes", "1"):
        return True
    if text.lower() in ("off", "false", "no", "0"):
        return False
    raise ValueError("on or off")


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(" or ".join(allowed))
        return text

    return parse


def _whole_number(lowest: int, highest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"\d{1,9}", text) or not lowest <= int(text) <= highest:
            raise ValueError(f"a whole number from {lowest} to {highest}")
        return int(text)

    return parse


def _bound(highest: int) -> Callable[[str], int]:
    """A bound; off is stored as 0."""

    def parse(text: str) -> int:
        if text.lower() == "off":
            return 0
        if not re.fullmatch(r"\d{1,9}", text) or int(text) > highest:
            raise ValueError(f"a whole number from 1 to {highest}, or off")
        return int(text)

    return parse


def _environment(text: str) -> str:
    # It stands in each marker, which must fit the 50 characters of ConnectWise's serialNumber.
    if not re.fullmatch(r"[a-z0-9]{1,12}", text):
        raise ValueError("1 to 12 lower-case letters and digits")
    return text


def _words(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise ValueError("one or more names, separated by commas")
    return words


def _name(text: str) -> str:
    if not text.strip() or len(text) > 100:
        raise ValueError("a name of at most 100 characters")
    return text.strip()


def _agreement_name(text: str) -> str:
    bare = text.replace("{type}", "").replace("{company}", "")
    if not text.strip() or len(text) > 100 or "{" in bare or "}" in bare or not bare.isprintable():
        raise ValueError("a text of at most 100 characters in which {type} and {company} may stand")
    return text.strip()


PLACEHOLDERS = ("subscription", "charge_type", "period", "quantity_and_price")


def _description_template(text: str) -> str:
    named = re.findall(r"\{([^{}]*)\}", text)
    unknown = sorted(set(named) - set(PLACEHOLDERS))
    known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
    if unknown:
        raise ValueError(f"the placeholders {known}, and not {', '.join(f'{{{name}}}' for name in unknown)}")
    if not named or re.search(r"[{}]", re.sub(r"\{[^{}]*\}", "", text)) or len(text) > 500 or not text.isprintable():
        raise ValueError(f"a text of at most 500 characters on one line, with one or more of the placeholders {known}")
    return text.strip()


PARSERS: dict[str, Callable[[str], Any]] = {
    "environment": _environment,
    "accepted_statuses": _words,
    "default_agreement_type": _name,
    "create_agreements": _switch,
    "new_agreement_name": _agreement_name,
    "automated_daily_sync": _switch,
    "recurring_mode": _one_of("persistent", "dated"),
    "unit_price_decimals": _whole_number(2, 6),
    "price_fallback": _one_of("one_unit", "hold"),
    "negative_additions": _one_of("send", "hold"),
    "zero_amounts": _one_of("send", "skip"),
    "credits": _one_of("hold", "send"),
    "taxable": _one_of("product", "on", "off"),
    "unit_cost": _one_of("off", "incoming_invoice"),
    "description_template": _description_template,
    "late_lines": _one_of("next_open_cycle", "hold"),
    "changes_after_delivery": _one_of("hold", "next_open_cycle"),
    "lookback_months": _whole_number(2, 12),
    "marker_carrier": _one_of("serial_number", "description", "custom_field"),
    "marker_custom_field_id": _whole_number(1, 999_999_999),
    "create_mode": _one_of("inert", "locked"),
    "settle_seconds": _whole_number(0, 86_400),
    "delivery_deadline_hours": _whole_number(1, 168),
    "requests_per_minute": _whole_number(1, 100_000),
    "staging_retention_days": _whole_number(1, 3650),
    "bound_additions_per_agreement": _bound(1_000_000),
    "bound_new_agreements": _bound(1_000_000),
    "bound_amount_per_line": _bound(999_999_999),
    "bound_customer_factor": _bound(1000),
    "bound_customer_minimum": _whole_number(0, 999_999_999),
    "bound_fewer_invoices_percent": _bound(100),
    "bound_removed_lines": _bound(1_000_000),
}


FIXED_ONCE_DELIVERED = ("environment", "marker_carrier", "marker_custom_field_id")


def get_setting(connection: Connection, key: str) -> Any:
    """The stored value of a setting (None when not set). Raises ConfigurationError for an unknown key."""
    row = connection.execute("select value from billing.setting where setting_key = %s", [key]).fetchone()
    if row is None:
        raise ConfigurationError(f"There is no setting {key!r}. Known settings: {', '.join(sorted(PARSERS))}.")
    return row[0]


def set_setting(connection: Connection, key: str, text: str) -> Any:
    """Check and store a setting given as text; returns the stored value.

    Raises ConfigurationError for an unknown key or a value that does not fit.
    """
    if key not in PARSERS:
        raise ConfigurationError(f"There is no setting {key!r}. Known settings: {', '.join(sorted(PARSERS))}.")
    try:
        value = PARSERS[key](text)
    except ValueError as wanted:
        raise ConfigurationError(f"Setting {key} cannot be {text!r}: it takes {wanted}.") from None
    with connection.transaction():
        if key in FIXED_ONCE_DELIVERED and value != get_setting(connection, key):
            used = connection.execute("select exists (select from delivery.addition)").fetchone()
            if used and used[0]:
                raise ConfigurationError(
                    f"{key} cannot change once Additions were delivered: we find them by their markers."
                )
        connection.execute("update billing.setting set value = %s where setting_key = %s", [Jsonb(value), key])
    return value


def all_settings(connection: Connection) -> list[tuple[str, Any, str]]:
    """(key, value, description) of every setting, by key."""
    rows = connection.execute("select setting_key, value, description from billing.setting order by setting_key")
    return [(key, value, description) for key, value, description in rows.fetchall()]
