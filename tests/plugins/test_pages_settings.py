"""The settings pages over HTTP: settings, charge types, connections without any secret, simulations."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import psycopg
import pytest
from pages_client import Pages, pages_of
from pipeline import OCT, Pipeline, one_time, recurring
from prepared import Prepared, prepare
from psycopg.conninfo import make_conninfo

from billing_hooks.connection_states import ask_service, shown_host
from billing_sync import simulation_jobs
from billing_sync.settings import SETTINGS
from billing_sync.simulate import NOT_SIMULATED
from local_stack.postgres import Postgres


@pytest.fixture(scope="module")
def world(postgres: Postgres, billing_template: str, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """12.60 monthly, 3.00 once and a charge type that nobody knows, decided and not delivered."""
    prepared = prepare(postgres, billing_template, tmp_path_factory.mktemp("prepared"), "pages_settings")
    pipeline = prepared.copy(tmp_path_factory.mktemp("settings"))
    pipeline.set(automated_daily_sync="off")
    strange = one_time("y", OCT, 1, "7.00", chargeType="TransferFee")
    pipeline.bill(OCT, recurring("a", OCT, 3, "4.20"), one_time("x", OCT, 1, "3.00"), strange)
    return prepared.freeze(pipeline, *pipeline.plan_night(OCT))


@pytest.fixture
def pipeline(world: Prepared, tmp_path: Path) -> Iterator[Pipeline]:
    made = world.copy(tmp_path)
    yield made
    world.discard(made)


@pytest.fixture
def pages(pipeline: Pipeline) -> Iterator[Pages]:
    with pages_of(pipeline.dsn) as made:
        yield made


# -- settings --------------------------------------------------------------------------------------------------------


def settings_of(pages: Pages) -> dict[str, dict[str, Any]]:
    return {one["key"]: one for one in pages.get("settings")}


def test_every_setting_is_told_with_what_it_takes(pages: Pages) -> None:
    found = settings_of(pages)
    assert list(found) == list(SETTINGS)
    assert list(dict.fromkeys(one["group"] for one in found.values())) == [
        "Agreements", "Dates and lines", "Prices", "Credits", "Bounds", "Delivery", "Sync",
    ]  # fmt: skip
    mode = found["recurring_mode"]
    assert (mode["kind"], mode["choices"], mode["value"], mode["default"]) == (
        "choice", ["persistent", "dated"], "persistent", "persistent",
    )  # fmt: skip
    assert (mode["changed_by"], mode["changed_at"], mode["locked"], mode["is_simulated"]) == (None, None, None, True)
    switch = found["automated_daily_sync"]
    assert (switch["kind"], switch["value"], switch["default"], switch["changed_by"]) == (
        "switch",
        "off",
        "off",
        "tests",
    )
    assert (found["unit_price_decimals"]["lowest"], found["unit_price_decimals"]["highest"]) == (2, 6)
    assert found["accepted_statuses"]["value"] == "Verified, Issued, Paid"
    assert "Cloud Subscriptions" in found["default_agreement_type"]["choices"]
    assert found["default_agreement_type"]["default"] is None
    assert {key for key, one in found.items() if not one["is_simulated"]} == set(NOT_SIMULATED)
    for key, one in found.items():
        if one["value"]:
            assert SETTINGS[key].takes.parse(one["value"]) is not None  # what is shown can be stored as it is


def test_a_setting_changes_once_and_tells_the_second_person(pages: Pages) -> None:
    shown = settings_of(pages)["late_lines"]
    now = pages.send("PUT", "settings/late_lines", {"value": "hold", "version": shown["version"]})
    assert (now["value"], now["changed_by"], now["default"]) == ("hold", "ann", "next_open_cycle")
    stale = pages.ask("PUT", "settings/late_lines", {"value": "next_open_cycle", "version": shown["version"]})
    assert stale.status_code == 409
    assert (stale.json()["current"]["value"], "ann changed Late lines to 'hold'" in stale.json()["message"]) == (
        "hold",
        True,
    )
    again = pages.send("PUT", "settings/late_lines", {"value": "hold", "version": shown["version"]})
    assert again["version"] == now["version"], "what stands already is no conflict"
    (change, *_) = pages.get("history", table="billing.setting", key="late_lines")
    assert (change["changed_by"], change["after"]["value"]) == ("ann", "hold")


@pytest.mark.parametrize(
    ("key", "value", "status", "said"),
    [
        ("late_lines", "whatever", 422, "Late lines cannot be 'whatever': it takes next_open_cycle or hold."),
        ("unit_price_decimals", "9", 422, "it takes a whole number from 2 to 6."),
        ("bound_customer_factor", "0.5", 422, "it takes a whole number from 1 to 1000, or off."),
        ("colour", "x", 404, "There is no setting 'colour'."),
    ],
)
def test_what_does_not_fit_is_refused_in_words(pages: Pages, key: str, value: str, status: int, said: str) -> None:
    version = settings_of(pages).get(key, {}).get("version", "1")
    answered, message = pages.refused("PUT", f"settings/{key}", {"value": value, "version": version})
    assert (answered, message.endswith(said)) == (status, True), message


def test_a_bound_is_switched_off(pages: Pages) -> None:
    shown = settings_of(pages)["bound_removed_lines"]
    assert (shown["kind"], shown["value"], shown["lowest"]) == ("bound", "50", 1)
    now = pages.send("PUT", "settings/bound_removed_lines", {"value": "off", "version": shown["version"]})
    assert now["value"] == "off"


def test_what_markers_are_found_by_is_locked_after_a_delivery(pages: Pages, pipeline: Pipeline) -> None:
    pipeline.set(automated_daily_sync="on")
    pipeline.night(OCT)
    locked = {key: one for key, one in settings_of(pages).items() if one["locked"]}
    assert set(locked) == {"environment", "marker_carrier", "marker_custom_field_id"}
    status, message = pages.refused(
        "PUT", "settings/environment", {"value": "other", "version": locked["environment"]["version"]}
    )
    assert (status, "we find them by their markers" in message) == (423, True)


def test_only_an_administrator_changes_settings(pages: Pages) -> None:
    shown = settings_of(pages)["late_lines"]
    body = {"value": "hold", "version": shown["version"]}
    assert pages.ask("PUT", "settings/late_lines", body, person="eve:read,edit,approve").status_code == 403
    assert (
        pages.ask("POST", "simulations", {"first": "2026-10", "last": "2026-10"}, person="eve:read,edit").status_code
        == 403
    )
    assert pages.ask("POST", "connections/appxite_api/test", {}, person="eve:read,edit,approve").status_code == 403


# -- charge types ----------------------------------------------------------------------------------------------------


def rules_of(pages: Pages) -> dict[str, dict[str, Any]]:
    return {one["charge_type"]: one for one in pages.get("charge-types")}


def changed(one: dict[str, Any], **values: Any) -> dict[str, Any]:
    told = ("charge_type", "default_product", "changed_by", "changed_at", "lines_with_older_rules", "released")
    return {**{name: value for name, value in one.items() if name not in told}, **values}


def test_a_charge_type_that_only_stands_on_lines_can_be_defined(pages: Pages, pipeline: Pipeline) -> None:
    *_, last = rules_of(pages).values()
    assert (last["charge_type"], last["version"], last["lines_with_older_rules"]) == ("TransferFee", 0, 1)
    now = pages.send("PUT", "charge-types/TransferFee", changed(last, display_name="Transfer"))
    assert (now["version"], now["display_name"], now["changed_by"]) == (1, "Transfer", "ann")
    assert now["released"]["released"] == [{"currency": "EUR", "amount": "7.00", "lines": 1}]
    assert pipeline.held() == {}
    stale = pages.ask("PUT", "charge-types/TransferFee", changed(last, display_name="Transfer fee"))
    assert (stale.status_code, stale.json()["current"]["display_name"]) == (409, "Transfer")


def test_lines_keep_the_rules_they_were_loaded_with(pages: Pages) -> None:
    fee = rules_of(pages)["CycleFee"]
    assert (fee["version"], fee["changed_by"], fee["lines_with_older_rules"]) == (1, None, 0)
    now = pages.send("PUT", "charge-types/CycleFee", changed(fee, charge_end_rule="last_day_of_charge_month"))
    assert (now["version"], now["lines_with_older_rules"]) == (2, 1)
    for values in ({"default_product_id": 999_999}, {"charge_start_rule": "tomorrow"}, {"display_name": " "}):
        assert pages.refused("PUT", "charge-types/CycleFee", changed(now, **values))[0] == 422
    message = pages.refused("PUT", "charge-types/CycleFee", changed(now, default_product_id=999_999))[1]
    assert "product 999999 is not known" in message


# -- connections -----------------------------------------------------------------------------------------------------

SECRETS = ("s/k+y=&é sécret", 'priv"KEY+67/890=', "p@ss:w/rd?x")


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def store(conn_id: str, **fields: Any) -> None:
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps({"conn_type": "http", **fields}))

    return store


def spellings(secret: str) -> set[str]:
    raw = secret.encode()
    return {
        secret, quote(secret, safe=""), quote(secret), quote_plus(secret), base64.b64encode(raw).decode(),
        base64.urlsafe_b64encode(raw).decode(), json.dumps(secret)[1:-1], repr(secret)[1:-1],
    }  # fmt: skip


def assert_no_secret(text: str) -> None:
    for secret in SECRETS:
        found = [form for form in spellings(secret) if form in text]
        assert not found, f"{found[0]!r} stands in {text}"
    token = base64.b64encode(f"demo+public-key:{SECRETS[1]}".encode()).decode()
    assert token not in text


def test_connections_are_told_without_their_secrets(pages: Pages, connection: Callable[..., None]) -> None:
    key = quote(SECRETS[0], safe="")
    host = f"https://someone:{key}@127.0.0.1:1/api?sasKey={key}"
    connection("appxite_api", host=host, password=SECRETS[0])
    extra = {"company_id": "demo", "client_id": SECRETS[2]}
    connection("connectwise_api", host="127.0.0.1:1", login="public-key", password=SECRETS[1], extra=extra)
    answer = pages.ask("GET", "connections")
    assert_no_secret(answer.text)
    appxite, connectwise, database = answer.json()
    assert (appxite["exists"], appxite["source"], appxite["host"]) == (True, "environment", "https://127.0.0.1:1")
    assert appxite["missing"] == ["extra requester_id (your organization id)"]
    assert (connectwise["missing"], connectwise["host"]) == ([], "https://127.0.0.1:1")
    assert (database["exists"], database["host"].count("@")) == (True, 0)

    for conn_id in ("appxite_api", "connectwise_api", "billing_db"):
        answer = pages.ask("POST", f"connections/{conn_id}/test", {})
        assert answer.status_code == 200, answer.text
        assert_no_secret(answer.text)
        assert answer.json()["works"] is (conn_id == "billing_db"), answer.text


def test_a_connection_that_is_not_there(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_APPXITE_API", raising=False)
    appxite, *_ = pages.get("connections")
    assert (appxite["exists"], "Admin > Connections" in appxite["message"]) == (False, True)
    tested = pages.send("POST", "connections/appxite_api/test", {})
    assert (tested["works"], "does not exist" in tested["message"]) == (False, True)
    assert pages.refused("POST", "connections/aws_default/test", {})[0] == 422


def test_a_service_that_does_not_answer_is_not_waited_for(connection: Callable[..., None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connection(
            "appxite_api",
            host=f"http://127.0.0.1:{silent.getsockname()[1]}",
            password="x" * 20,
            extra={"requester_id": 1},
        )
        began = time.monotonic()
        answer = ask_service("appxite_api", at_most=1.0)
    assert (answer.works, "No answer within 1 seconds" in answer.message) == (False, True)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("https://api.example.com:8449", "https://api.example.com:8449"),
        ("api.example.com", "https://api.example.com"),
        ("user:pass@api.example.com/path?sasKey=x", "https://api.example.com"),
        ("https://api.example.com/?sasKey=hunter2", "https://api.example.com"),
        ("https://us#er:hunter2@api.example.com", None),
        ("https://user:hun/ter2@api.example.com", None),
        ("hunter2", None),
        ("https://hunter2.example.com", None),
        ("http://[::1]:80", "http://[::1]:80"),
        ("http://[broken", None),
        ("", None),
    ],
)
def test_only_the_server_of_a_host_is_shown(host: str, shown: str | None) -> None:
    from airflow.sdk import Connection

    assert shown_host(Connection(conn_id="x", conn_type="http", host=host, password="hunter2")) == shown


# -- simulations -----------------------------------------------------------------------------------------------------


def finished(pages: Pages, simulation_id: int) -> dict[str, Any]:
    for thread in threading.enumerate():
        if thread.name == f"simulation {simulation_id}":
            thread.join(100)
    found: dict[str, Any] = pages.get(f"simulations/{simulation_id}")
    return found


def test_a_simulation_tells_what_would_change(pages: Pages, pipeline: Pipeline) -> None:
    fee = rules_of(pages)["OneTimeFee"]
    started = pages.send(
        "POST", "simulations",
        {
            "first": "2026-10", "last": "2026-10", "settings": {"bound_amount_per_line": "10"},
            "charge_types": {"OneTimeFee": changed(fee, display_name="Once")},
        },
    )  # fmt: skip
    assert (started["state"], started["requested_by"], started["customers"]) == ("running", "ann", [])
    second = {"first": "2026-10", "last": "2026-10", "settings": {"late_lines": "hold"}}
    refused = pages.ask("POST", "simulations", second)
    assert (refused.status_code, "ann started is running" in refused.json()["message"]) == (409, True)
    assert refused.json()["current"]["simulation_id"] == started["simulation_id"]
    done = finished(pages, started["simulation_id"])
    assert done["state"] == "done", done["message"]
    (customer,) = [one for one in done["customers"] if one["changed_lines"]]
    assert (customer["deliver_before"], customer["deliver_after"], customer["difference"]) == (
        "15.60",
        "3.00",
        "-12.60",
    )
    assert (customer["held_before"], customer["held_after"]) == ("7.00", "19.60")
    assert done["changed_lines"] == len(done["lines"]) == 2
    assert {one["change"] for one in done["lines"]} == {"deliver → held (amount_above_bound)", "another description"}
    assert pipeline.value("select value from billing.setting where setting_key = 'bound_amount_per_line'") == 50000
    assert pipeline.value("select count(*) from pg_database where datname like 'billing_simulation_%%'") == 0


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"first": "2026-10", "last": "2026-10"}, "Nothing is changed"),
        (
            {"first": "2026-10", "last": "2026-09", "settings": {"late_lines": "hold"}},
            "end (2026-09) before they begin",
        ),
        ({"first": "2020-01", "last": "2026-09", "settings": {"late_lines": "hold"}}, "at most 24"),
        ({"first": "2026-10", "last": "2026-10", "settings": {"late_lines": "x"}}, "it takes next_open_cycle or hold"),
        ({"first": "2026-10", "last": "2026-10", "settings": {"settle_seconds": "1"}}, "nothing to simulate"),
        ({"first": "2026-13", "last": "2026-10"}, "first"),
    ],
)
def test_what_cannot_be_simulated_is_refused_at_once(pages: Pages, request_: dict[str, Any], said: str) -> None:
    status, message = pages.refused("POST", "simulations", request_)
    assert (status, said in message) == (422, True), message


def test_a_simulation_that_fails_says_what_to_do(pages: Pages, pipeline: Pipeline, postgres: Postgres) -> None:
    body = {"first": "2026-01", "last": "2026-02", "settings": {"late_lines": "hold"}}
    failed = finished(pages, pages.send("POST", "simulations", body)["simulation_id"])
    assert (failed["state"], "No invoices are known from 2026-01 to 2026-02" in failed["message"]) == ("failed", True)

    pipeline.connection.execute("create role simulating login password 'secret'")
    try:
        pipeline.connection.execute(
            "grant usage on schema audit to simulating; grant all on audit.simulation to simulating"
        )
        dsn = make_conninfo(pipeline.dsn, user="simulating", password="secret")
        request = simulation_jobs.Request(OCT, OCT, {"late_lines": "hold"})
        failed = finished(pages, simulation_jobs.start_simulation(dsn, request, person="ann"))
        assert (failed["state"], 'alter role "simulating" createdb' in failed["message"]) == ("failed", True), failed
    finally:
        pipeline.connection.execute("drop owned by simulating; drop role simulating")


def test_a_simulation_whose_process_died_is_told_as_failed(pages: Pages, pipeline: Pipeline) -> None:
    dead = pipeline.value(
        "insert into audit.simulation (requested_by, request, heartbeat_at)"
        " values ('bob', '{}', now() - interval '2 min') returning simulation_id"
    )
    found = pages.get(f"simulations/{dead}")
    assert (found["state"], "Start the simulation again" in found["message"]) == ("failed", True)
    body = {"first": "2026-10", "last": "2026-10", "settings": {"late_lines": "hold"}}
    assert finished(pages, pages.send("POST", "simulations", body)["simulation_id"])["state"] == "done"
    assert pipeline.value("select state from audit.simulation where simulation_id = %s", dead) == "failed"
    assert pages.refused("GET", "simulations/999")[0] == 404


def test_the_role_of_the_pages_only_reads_simulations(pipeline: Pipeline) -> None:
    with pipeline.connection.transaction(force_rollback=True):
        pipeline.connection.execute("set local role billing_web")
        pipeline.connection.execute("select * from audit.simulation")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            pipeline.connection.execute("insert into audit.simulation (requested_by, request) values ('x', '{}')")


# -- dictionary ------------------------------------------------------------------------------------------------------


def test_the_dictionary_tells_every_held_reason(pages: Pages, pipeline: Pipeline) -> None:
    told = pages.get("dictionary")["held_reasons"]
    known = pipeline.connection.execute("select reason_code from billing.held_reason_code").fetchall()
    assert sorted(one["code"] for one in told) == sorted(code for (code,) in known)
    assert all(one["title"] and one["cure"] for one in told)
    links = {one["code"]: one["cure_link"] for one in told}
    assert links["offer_unmapped"] == "mapping/products"
    assert links["late_line"] == "settings/configuration?key=late_lines"
    assert links["row_unreadable"] is None
