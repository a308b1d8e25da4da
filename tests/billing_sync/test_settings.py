"""Settings are checked before they are stored, and every change is on record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pipeline import OCT, Pipeline, recurring
from prepared import Prepared

from billing_sync.errors import ConfigurationError
from billing_sync.payload import MarkerCarrier
from billing_sync.settings import FIXED_ONCE_DELIVERED, SETTINGS, all_settings, get_setting, set_setting


@pytest.fixture(scope="module")
def shared(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """One database for all tests that only set what nothing depends on."""
    pipeline = prepared.copy(tmp_path_factory.mktemp("settings"))
    yield pipeline
    prepared.discard(pipeline)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("environment", "prod2", "prod2"),
        ("accepted_statuses", " Verified , Paid,,", ["Verified", "Paid"]),
        ("default_agreement_type", "  Cloud Subscriptions ", "Cloud Subscriptions"),
        *(("automated_daily_sync", text, True) for text in ("on", "ON", "true", "yes", "1")),
        *(("automated_daily_sync", text, False) for text in ("off", "False", "no", "0")),
        ("recurring_mode", "dated", "dated"),
        ("unit_price_decimals", "6", 6),
        ("price_fallback", "hold", "hold"),
        ("negative_additions", "hold", "hold"),
        ("zero_amounts", "skip", "skip"),
        ("late_lines", "hold", "hold"),
        ("marker_carrier", "description", "description"),
        ("marker_custom_field_id", "11", 11),
        ("requests_per_minute", "100000", 100000),
        ("staging_retention_days", "1", 1),
    ],
)
def test_what_fits_is_stored(shared: Pipeline, key: str, text: str, value: Any) -> None:
    assert set_setting(shared.connection, key, text) == value
    assert get_setting(shared.connection, key) == value
    assert shared.rows(
        "select changed_by, after -> 'value' from audit.change where table_name = 'billing.setting' and row_key = %s"
        " order by change_id desc limit 1",
        key,
    ) in ([("tests", value)], [])  # nothing is on record when nothing changed


@pytest.mark.parametrize(
    ("key", "text", "wanted"),
    [
        ("environment", "Prod", "1 to 12 lower-case letters and digits"),
        ("environment", "x" * 13, "1 to 12 lower-case letters and digits"),
        ("environment", "a-b", "1 to 12 lower-case letters and digits"),
        ("environment", "a\n", "1 to 12 lower-case letters and digits"),
        ("accepted_statuses", " , ", "one or more names"),
        ("default_agreement_type", " ", "a name of at most 100 characters"),
        ("default_agreement_type", "x" * 101, "a name of at most 100 characters"),
        ("automated_daily_sync", "maybe", "on or off"),
        ("recurring_mode", "Persistent", "persistent or dated"),
        ("unit_price_decimals", "1", "a whole number from 2 to 6"),
        ("unit_price_decimals", "7", "a whole number from 2 to 6"),
        ("unit_price_decimals", "4.0", "a whole number from 2 to 6"),
        ("unit_price_decimals", "-4", "a whole number from 2 to 6"),
        ("marker_custom_field_id", "0", "a whole number from 1"),
        ("marker_carrier", "uom", "serial_number or description or custom_field"),
        ("requests_per_minute", "9" * 40, "a whole number from 1 to 100000"),
        ("staging_retention_days", "", "a whole number from 1 to 3650"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(shared: Pipeline, key: str, text: str, wanted: str) -> None:
    before = get_setting(shared.connection, key)
    with pytest.raises(ConfigurationError) as refusal:
        set_setting(shared.connection, key, text)
    assert f"Setting {key} cannot be {text!r}: it takes {wanted}" in str(refusal.value)
    assert get_setting(shared.connection, key) == before


def test_an_unknown_setting_is_answered_with_those_there_are(shared: Pipeline) -> None:
    for ask in (
        lambda: get_setting(shared.connection, "colour"),
        lambda: set_setting(shared.connection, "colour", "x"),
    ):
        with pytest.raises(
            ConfigurationError, match=r"There is no setting 'colour'\. Known settings: accepted_statuses, "
        ):
            ask()


def test_every_stored_setting_has_a_parser_and_a_description(shared: Pipeline) -> None:
    known = all_settings(shared.connection)
    assert [key for key, _, _ in known] == sorted(SETTINGS)
    assert all(description for _, _, description in known)


def test_what_the_markers_are_found_by_is_fixed_once_anything_was_delivered(pipeline: Pipeline) -> None:
    pipeline.set(marker_carrier="description", marker_custom_field_id="12")
    pipeline.bill(OCT, recurring("a", OCT))
    pipeline.night(OCT)
    others = {"environment": "staging", "marker_carrier": "serial_number", "marker_custom_field_id": "11"}
    assert set(others) == set(FIXED_ONCE_DELIVERED)
    for key, text in others.items():
        with pytest.raises(ConfigurationError, match=f"{key} cannot change once Additions were delivered"):
            pipeline.set(**{key: text})
    pipeline.set(environment="tests", marker_carrier="description")  # what it is anyway
    assert pipeline.night(OCT)[0].writes == 0


def test_the_custom_field_needs_its_id(pipeline: Pipeline) -> None:
    pipeline.set(marker_carrier="custom_field")
    with pytest.raises(ConfigurationError, match="set marker_custom_field_id to the id of the custom field"):
        MarkerCarrier.from_settings(pipeline.connection)
    pipeline.set(marker_custom_field_id="11")
    assert MarkerCarrier.from_settings(pipeline.connection) == MarkerCarrier("custom_field", 11)
