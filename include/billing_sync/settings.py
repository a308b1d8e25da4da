"""Settings: what an administrator configures, in table billing.setting, checked here before it is stored.

`SETTINGS` says of each what it is called, where it belongs and what it takes; commands, pages and preflight ask it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from psycopg.types.json import Jsonb

from billing_sync.db import Connection
from billing_sync.errors import ConfigurationError, LockedError, NotFoundError, RefusedEditError, StaleEditError

Kind = Literal["choice", "number", "bound", "text", "words", "switch"]


@dataclass(frozen=True)
class Takes:
    """What a setting takes. parse: text as it is typed → value as it is stored; ValueError with what it takes instead.

    choices: of a choice; lowest and highest: of a number or a bound.
    """

    kind: Kind
    parse: Callable[[str], Any]
    choices: tuple[str, ...] = ()
    lowest: int | None = None
    highest: int | None = None


@dataclass(frozen=True)
class Definition:
    """A setting: its name for people, and the group of the page Configuration that it stands in."""

    group: str
    title: str
    takes: Takes


def _parse_switch(text: str) -> bool:
    if text.lower() in ("on", "true", "yes", "1"):
        return True
    if text.lower() in ("off", "false", "no", "0"):
        return False
    raise ValueError("on or off")


SWITCH = Takes("switch", _parse_switch)


def _one_of(*allowed: str) -> Takes:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(" or ".join(allowed))
        return text

    return Takes("choice", parse, choices=allowed)


def _whole_number(lowest: int, highest: int) -> Takes:
    def parse(text: str) -> int:
        if not re.fullmatch(r"\d{1,9}", text) or not lowest <= int(text) <= highest:
            raise ValueError(f"a whole number from {lowest} to {highest}")
        return int(text)

    return Takes("number", parse, lowest=lowest, highest=highest)


def _bound(highest: int) -> Takes:
    """A bound; off is stored as 0."""

    def parse(text: str) -> int:
        if text.lower() == "off":
            return 0
        if not re.fullmatch(r"\d{1,9}", text) or int(text) > highest:
            raise ValueError(f"a whole number from 1 to {highest}, or off")
        return int(text)

    return Takes("bound", parse, lowest=1, highest=highest)


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


ENVIRONMENT = Takes("text", _environment)
NAME = Takes("text", _name)

# In the order of the page Configuration.
SETTINGS: dict[str, Definition] = {
    "default_agreement_type": Definition("Agreements", "Default Agreement Type", NAME),
    "create_agreements": Definition("Agreements", "Create missing agreements", SWITCH),
    "new_agreement_name": Definition("Agreements", "Name of new agreements", Takes("text", _agreement_name)),
    "recurring_mode": Definition("Dates and lines", "Recurring lines", _one_of("persistent", "dated")),
    "late_lines": Definition("Dates and lines", "Late lines", _one_of("next_open_cycle", "hold")),
    "changes_after_delivery": Definition(
        "Dates and lines", "Changes after delivery", _one_of("hold", "next_open_cycle")
    ),
    "zero_amounts": Definition("Dates and lines", "Lines of 0.00", _one_of("send", "skip")),
    "description_template": Definition("Dates and lines", "Invoice description", Takes("text", _description_template)),
    "unit_price_decimals": Definition("Prices", "Decimals of unit prices", _whole_number(2, 6)),
    "price_fallback": Definition("Prices", "When no unit price gives the total", _one_of("one_unit", "hold")),
    "taxable": Definition("Prices", "Taxable", _one_of("product", "on", "off")),
    "unit_cost": Definition("Prices", "Unit cost", _one_of("off", "incoming_invoice")),
    "negative_additions": Definition("Credits", "Credits as negative Additions", _one_of("send", "hold")),
    "credits": Definition("Credits", "Credits beyond what was charged", _one_of("hold", "send")),
    "bound_amount_per_line": Definition("Bounds", "Amount of a line", _bound(999_999_999)),
    "bound_customer_factor": Definition("Bounds", "A customer's total, times its usual", _bound(1000)),
    "bound_customer_minimum": Definition(
        "Bounds", "A customer's total, above its usual by", _whole_number(0, 999_999_999)
    ),
    "bound_additions_per_agreement": Definition("Bounds", "New Additions of an agreement", _bound(1_000_000)),
    "bound_new_agreements": Definition("Bounds", "New agreements of a run", _bound(1_000_000)),
    "bound_fewer_invoices_percent": Definition("Bounds", "Fewer invoices than expected, percent", _bound(100)),
    "bound_removed_lines": Definition("Bounds", "Lines that AppXite removed", _bound(1_000_000)),
    "create_mode": Definition("Delivery", "How Additions are created", _one_of("inert", "locked")),
    "delivery_deadline_hours": Definition("Delivery", "Deadline of a plan, hours", _whole_number(1, 168)),
    "requests_per_minute": Definition("Delivery", "Requests to ConnectWise per minute", _whole_number(1, 100_000)),
    "settle_seconds": Definition("Delivery", "Lost answers settle after, seconds", _whole_number(0, 86_400)),
    "environment": Definition("Delivery", "Environment", ENVIRONMENT),
    "marker_carrier": Definition(
        "Delivery", "Where the marker stands", _one_of("serial_number", "description", "custom_field")
    ),
    "marker_custom_field_id": Definition("Delivery", "Custom field of the marker", _whole_number(1, 999_999_999)),
    "automated_daily_sync": Definition("Sync", "Automated Daily Sync", SWITCH),
    "accepted_statuses": Definition("Sync", "Invoice statuses that are billed", Takes("words", _words)),
    "lookback_months": Definition("Sync", "Months that a nightly run reads", _whole_number(2, 12)),
    "staging_retention_days": Definition("Sync", "Days that extracts are kept", _whole_number(1, 3650)),
}


FIXED_ONCE_DELIVERED = ("environment", "marker_carrier", "marker_custom_field_id")


def definition_of(key: str) -> Definition:
    """The definition of a setting. Raises ConfigurationError for an unknown key."""
    if key not in SETTINGS:
        raise ConfigurationError(f"There is no setting {key!r}. Known settings: {', '.join(sorted(SETTINGS))}.")
    return SETTINGS[key]


def parse_setting(key: str, text: str) -> Any:
    """The value of a setting given as text. Raises ConfigurationError for an unknown key or what does not fit."""
    try:
        return definition_of(key).takes.parse(text)
    except ValueError as wanted:
        raise ConfigurationError(f"Setting {key} cannot be {text!r}: it takes {wanted}.") from None


def setting_text(key: str, value: Any) -> str:
    """A stored value as a person would type it; empty when it is not set."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if key in SETTINGS and SETTINGS[key].takes.kind == "bound" and value == 0:
        return "off"
    return str(value)


def get_setting(connection: Connection, key: str) -> Any:
    """The stored value of a setting (None when not set). Raises ConfigurationError for an unknown key."""
    row = connection.execute("select value from billing.setting where setting_key = %s", [key]).fetchone()
    if row is None:
        raise ConfigurationError(f"There is no setting {key!r}. Known settings: {', '.join(sorted(SETTINGS))}.")
    return row[0]


def set_setting(connection: Connection, key: str, text: str) -> Any:
    """Check and store a setting given as text; returns the stored value.

    Raises ConfigurationError for an unknown key or a value that does not fit.
    """
    value = parse_setting(key, text)
    with connection.transaction():
        if key in FIXED_ONCE_DELIVERED and value != get_setting(connection, key):
            why = _locked(connection)
            if why:
                raise ConfigurationError(f"{key} {why}.")
        connection.execute("update billing.setting set value = %s where setting_key = %s", [Jsonb(value), key])
    return value


def all_settings(connection: Connection) -> list[tuple[str, Any, str]]:
    """(key, value, description) of every setting, by key."""
    rows = connection.execute("select setting_key, value, description from billing.setting order by setting_key")
    return [(key, value, description) for key, value, description in rows.fetchall()]


# -- the page Configuration --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SettingState:
    """A setting as it stands. value and default are text as it is typed; default: what it was before any change.

    version: of the value; changed_by: null as long as nobody changed it. locked: why it cannot change any more.
    """

    key: str
    definition: Definition
    description: str
    value: str
    default: str | None
    version: str
    changed_by: str | None
    changed_at: datetime | None
    locked: str | None


def setting_states(connection: Connection, keys: Sequence[str] = ()) -> list[SettingState]:
    """All settings (or those named), in the order of `SETTINGS`."""
    locked = _locked(connection)
    rows = connection.execute(
        """
        select setting.setting_key, setting.value, setting.description, first.after -> 'value', last.change_id,
            case when last.before is not null then last.changed_by end,
            case when last.before is not null then last.changed_at end
        from billing.setting as setting
        -- The migration that made the setting stands in the audit trail, too.
        left join lateral (
            select * from audit.change
            where table_name = 'billing.setting' and row_key = setting.setting_key order by change_id limit 1
        ) as first on first.before is null
        left join lateral (
            select * from audit.change
            where table_name = 'billing.setting' and row_key = setting.setting_key order by change_id desc limit 1
        ) as last on true
        where cardinality(%(keys)s::text[]) = 0 or setting.setting_key = any(%(keys)s)
        """,
        {"keys": list(keys)},
    ).fetchall()
    found = {
        key: SettingState(
            key, SETTINGS[key], description, setting_text(key, value),
            setting_text(key, default) if default is not None else None, str(version or 0), by, at,
            f"It {locked}." if locked and key in FIXED_ONCE_DELIVERED else None,
        )
        for key, value, description, default, version, by, at in rows
        if key in SETTINGS
    }  # fmt: skip
    return [found[key] for key in SETTINGS if key in found]


def change_setting(connection: Connection, key: str, text: str, version: str) -> SettingState:
    """Store a setting as a person (whose connection it is) changes it who saw `version`; gives how it stands then.

    Raises NotFoundError, RefusedEditError for what does not fit, LockedError for what is fixed by now, and
    StaleEditError with the SettingState when somebody else changed it meanwhile.
    """
    if key not in SETTINGS:
        raise NotFoundError(f"There is no setting {key!r}.")
    try:
        value = SETTINGS[key].takes.parse(text)
    except ValueError as wanted:
        raise RefusedEditError(f"{SETTINGS[key].title} cannot be {text!r}: it takes {wanted}.") from None
    with connection.transaction():
        connection.execute("select from billing.setting where setting_key = %s for update", [key])
        (now,) = setting_states(connection, [key])
        if value == get_setting(connection, key):
            return now
        if now.locked:
            raise LockedError(f"{now.definition.title} stays as it is. {now.locked}")
        if now.version != version:
            raise StaleEditError(
                f"{now.changed_by or 'Somebody'} changed {now.definition.title} to {now.value!r} meanwhile: "
                "look at it, and change it again if you still want to.",
                current=now,
            )
        set_setting(connection, key, text)
        (now,) = setting_states(connection, [key])
    return now


def _locked(connection: Connection) -> str | None:
    """Why what is FIXED_ONCE_DELIVERED cannot change any more, or None."""
    used = connection.execute("select exists (select from delivery.addition)").fetchone()
    return "cannot change once Additions were delivered: we find them by their markers" if used and used[0] else None
