"""Airflow connections become clients; nothing of a key is shown anywhere."""

from __future__ import annotations

import base64
import json
import logging
import traceback

import psycopg
import pytest

from billing_sync.errors import ConfigurationError, TemporaryError, WriteRefusedError
from billing_sync.http import Limits
from billing_sync.rate_budget import Unlimited
from billing_sync.settings import set_setting

KEYS = {"sas": "s/k+y=&é secret", "public": "pub-KEY-12345", "private": "priv/KEY+67890=", "client": "client-guid-777"}
QUICK = Limits(connect=2, read=5, attempts=1, first_wait=0.0)


@pytest.fixture
def services(tmp_path):
    from sandbox.server import Sandbox

    with Sandbox(
        tmp_path / "sandbox",
        sas_key=KEYS["sas"],
        public_key=KEYS["public"],
        private_key=KEYS["private"],
        client_id=KEYS["client"],
    ) as running:
        yield running


def describe(conn_type="http", **fields) -> str:
    return json.dumps({"conn_type": conn_type, **fields})


@pytest.fixture
def connections(services, billing_db, monkeypatch):
    """The three connections as AIRFLOW_CONN_* variables; returns a function that changes one."""
    parts = psycopg.conninfo.conninfo_to_dict(billing_db)
    given = {
        "appxite_api": {"host": services.url, "password": KEYS["sas"], "extra": {"requester_id": 100001}},
        "connectwise_api": {
            "host": services.url,
            "login": KEYS["public"],
            "password": KEYS["private"],
            "extra": {"company_id": "demo", "client_id": KEYS["client"], "api_version": "2025.8"},
        },
        "billing_db": {
            "conn_type": "postgres",
            "host": parts["host"],
            "port": int(parts["port"]),
            "login": parts["user"],
            "password": parts["password"],
            "schema": parts["dbname"],
        },
    }

    def change(conn_id: str, remove: str | None = None, **fields) -> None:
        given[conn_id].update(fields)
        for name in filter(None, [remove]):
            (given[conn_id] if name in given[conn_id] else given[conn_id]["extra"]).pop(name)
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", describe(**given[conn_id]))

    for conn_id in given:
        change(conn_id)
    return change


@pytest.fixture
def hooks():
    from billing_hooks.appxite import AppXiteHook
    from billing_hooks.billing_db import BillingDbHook
    from billing_hooks.connectwise import ConnectWiseHook

    return AppXiteHook, ConnectWiseHook, BillingDbHook


@pytest.fixture
def preflight():
    from billing_hooks.preflight import preflight

    return preflight


def spelled(secret: str) -> list[str]:
    from urllib.parse import quote, quote_plus

    return [secret, quote(secret, safe=""), quote_plus(secret), base64.b64encode(secret.encode()).decode()]


TOKEN = base64.b64encode(f"demo+{KEYS['public']}:{KEYS['private']}".encode()).decode()
NEVER = [*spelled(KEYS["sas"]), *spelled(KEYS["private"]), TOKEN]


# -- hooks -----------------------------------------------------------------------------------------------------------


def test_each_hook_reaches_its_service(connections, hooks):
    for hook in hooks:
        works, text = hook().test_connection()
        assert works, text
        assert not [secret for secret in NEVER if secret in text]


def test_clients_read_and_write(connections, hooks, services):
    appxite, connectwise, _ = hooks
    assert sum(map(len, appxite().get_client().organizations())) == 40
    client = connectwise().get_client()
    product = next(client.products())[0]["id"]
    agreement = next(client.agreements())[0]["id"]
    created = client.create_addition(agreement, {"product": {"id": product}, "billCustomer": "DoNotBill"})
    assert created["id"] in services.store.additions(agreement)
    assert isinstance(appxite().get_conn(), type(appxite().get_client()))


def test_a_read_only_client_cannot_write(connections, hooks, services):
    client = hooks[1]().get_client(read_only=True)
    before = services.writes()
    with pytest.raises(ConfigurationError, match="dry run"):
        client.create_addition(1001, {"billCustomer": "DoNotBill"})
    with pytest.raises(ConfigurationError, match="dry run"):
        client.patch_addition(1001, 1, [{"op": "replace", "path": "quantity", "value": 1}])
    assert services.writes() == before


def test_all_clients_share_the_budget_in_the_database(connections, hooks, billing_db):
    client = hooks[1]().get_client()
    list(client.agreement_types())
    with psycopg.connect(billing_db) as connection:
        rows = connection.execute("select connection_id from delivery.rate_budget").fetchall()
    assert rows == [("connectwise_api",)]


def test_a_budget_that_is_no_number_is_named(connections, hooks, billing_db):
    with psycopg.connect(billing_db) as connection:
        connection.execute("update billing.setting set value = '\"many\"' where setting_key = 'requests_per_minute'")
    with pytest.raises(ConfigurationError, match="requests_per_minute is 'many'"):
        hooks[1]().get_client()


@pytest.mark.parametrize(
    ("conn_id", "number", "field"),
    [
        ("appxite_api", 0, "host"),
        ("appxite_api", 0, "password"),
        ("appxite_api", 0, "requester_id"),
        ("connectwise_api", 1, "host"),
        ("connectwise_api", 1, "login"),
        ("connectwise_api", 1, "password"),
        ("connectwise_api", 1, "company_id"),
        ("connectwise_api", 1, "client_id"),
        ("billing_db", 2, "host"),
    ],
)
def test_a_missing_field_is_named(connections, hooks, conn_id, number, field):
    connections(conn_id, remove=field)
    works, text = hooks[number]().test_connection()
    assert not works
    assert conn_id in text
    assert field in text


def test_a_missing_connection_is_named(connections, hooks, monkeypatch, airflow_db):
    monkeypatch.delenv("AIRFLOW_CONN_APPXITE_API")
    with pytest.raises(ConfigurationError, match="Connection appxite_api does not exist"):
        hooks[0]().get_client()


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"host": "https://api.example.com:8449"}, "https://api.example.com:8449"),
        ({"host": "api.example.com"}, "https://api.example.com"),
        ({"host": "api.example.com", "port": 8449}, "https://api.example.com:8449"),
        ({"host": "https://api.example.com/", "port": 8449}, "https://api.example.com:8449"),
        ({"host": "https://api.example.com:1", "port": 8449}, "https://api.example.com:1"),
        ({"host": "localhost", "schema": "http", "port": 80}, "http://localhost:80"),
        ({"host": "http://[::1]", "port": 80}, "http://[::1]:80"),
        ({"host": "https://gateway.example.com/appxite"}, "https://gateway.example.com/appxite"),
    ],
)
def test_the_address_may_stand_in_host_schema_and_port(fields, url):
    from airflow.sdk import Connection

    from billing_hooks.connections import base_url

    assert base_url(Connection(conn_id="x", conn_type="http", **fields)) == url


def test_the_plain_session_of_the_provider_is_not_offered(connections, hooks):
    for hook in hooks[:2]:
        with pytest.raises(ConfigurationError, match="get_client"):
            hook().run("/")


def test_connections_are_masked_in_every_spelling(connections, hooks):
    from airflow.sdk.log import redact

    hooks[0]().get_client()
    hooks[1]().get_client(limiter=Unlimited())
    for secret in NEVER:
        assert secret not in redact(f"before {secret} after")


def test_no_secret_in_logs_errors_or_representations(connections, hooks, services, caplog):
    connections("appxite_api", host=services.url)
    texts = []
    with caplog.at_level(logging.DEBUG):
        for hook, use in (
            (hooks[0], lambda client: list(client.organizations())),
            (hooks[1], lambda client: list(client.companies())),
            (hooks[1], lambda client: client.create_addition(1001, {})),
        ):
            client = hook().get_client(limits=QUICK)
            texts.append(repr(client) + str(client))
            use_now = use
            for fault in ({}, {"kind": "status"}, {"kind": "reset"}, {"kind": "truncated"}, {"kind": "invalid_json"}):
                services.clear_faults()
                if fault:
                    services.add_fault(**fault)
                try:
                    use_now(client)
                except Exception as error:  # noqa: BLE001
                    texts += traceback.format_exception(error)
    assert "urllib3" in {record.name.split(".")[0] for record in caplog.records}
    everything = caplog.text + "".join(texts)
    assert not [secret for secret in NEVER if secret in everything]


def test_a_refused_login_of_the_database_is_told_without_the_password(connections, hooks):
    connections("billing_db", password="wrong-password-1")
    works, text = hooks[2]().test_connection()
    assert not works
    assert "billing_db refuses its login or password" in text
    assert "wrong-password-1" not in text


def test_an_unknown_database_is_told(connections, hooks):
    connections("billing_db", schema="nowhere")
    with pytest.raises(ConfigurationError, match="knows no such database"):
        hooks[2]().get_conn()


def test_a_database_that_does_not_answer_may_answer_later(connections, hooks):
    connections("billing_db", port=1)
    with pytest.raises(TemporaryError, match="billing_db does not answer"):
        hooks[2]().get_conn()


def test_the_database_connection_is_psycopg_3_and_knows_the_person(connections, hooks):
    with hooks[2]().get_conn(user="ann") as connection:
        assert isinstance(connection, psycopg.Connection)
        assert connection.execute("select audit.current_person()").fetchone() == ("ann",)


# -- preflight -------------------------------------------------------------------------------------------------------


@pytest.fixture
def agreement_type(billing_db):
    def choose(name: str) -> None:
        with psycopg.connect(billing_db, autocommit=True) as connection:
            set_setting(connection, "default_agreement_type", name)

    choose("Cloud Subscriptions")
    return choose


def test_preflight_passes_and_says_what_it_saw(connections, agreement_type, preflight):
    said = "\n".join(preflight())
    for words in ("billing_db", "requester 100001", "company demo", "Default agreement type: Cloud Subscriptions"):
        assert words in said
    assert not [secret for secret in NEVER if secret in said]


def test_preflight_lists_all_problems_at_once(connections, preflight, billing_db):
    connections("appxite_api", password="wrong-key-000")
    connections("connectwise_api", remove="client_id")
    with psycopg.connect(billing_db) as connection:
        connection.execute("update billing.setting set value = '\"sometimes\"' where setting_key = 'zero_amounts'")
    with pytest.raises(ConfigurationError) as caught:
        preflight()
    text = str(caught.value)
    assert "4 things" in text
    for words in (
        "appxite_api",
        "connectwise_api lacks extra client_id",
        "zero_amounts",
        "default_agreement_type is not set",
    ):
        assert words in text
    assert "wrong-key-000" not in text
    assert "wrong-key-000" not in "".join(traceback.format_exception(caught.value))


def test_preflight_wants_the_migrations(connections, agreement_type, preflight, billing_db):
    with psycopg.connect(billing_db) as connection:
        connection.execute("delete from public.schema_migration where name like '0009%'")
    with pytest.raises(ConfigurationError, match=r"lacks 1 migrations \(0009_rate_budget.sql\).*migrate"):
        preflight()


@pytest.mark.parametrize("state", ["unknown", "inactive", "twice"])
def test_preflight_wants_one_active_agreement_type(connections, agreement_type, preflight, services, state):
    agreement_type("Nightly Type")
    if state != "unknown":
        for number in (801, 802)[: 2 if state == "twice" else 1]:
            record = {"id": number, "name": "Nightly Type", "inactiveFlag": state == "inactive"}
            services.store.save("agreementType", record)
    words = {
        "unknown": "no agreement type of that name",
        "inactive": "as inactive",
        "twice": "2 active agreement types",
    }
    with pytest.raises(ConfigurationError, match=words[state]):
        preflight()


@pytest.mark.parametrize(
    ("conn_id", "changes", "words"),
    [
        ("appxite_api", {"extra": {"requester_id": "7"}}, "requester_id"),
        ("appxite_api", {"host": "ftp://nowhere"}, "appxite_api is not an address"),
        ("connectwise_api", {"login": "wrong-login"}, "keys"),
        ("connectwise_api", {"extra": {"company_id": "other", "client_id": "client-guid-777"}}, "company_id"),
        ("connectwise_api", {"extra": {"company_id": "demo", "client_id": "other-guid-1"}}, "client_id"),
        (
            "connectwise_api",
            {"extra": {"company_id": "demo", "client_id": "client-guid-777", "api_version": "new"}},
            "api_version",
        ),
    ],
)
def test_preflight_says_what_to_mend(connections, agreement_type, preflight, conn_id, changes, words):
    connections(conn_id, **changes)
    with pytest.raises(ConfigurationError, match=words) as caught:
        preflight()
    assert conn_id in str(caught.value)


def test_preflight_with_services_that_only_do_not_answer_may_be_tried_again(
    connections, agreement_type, preflight, services, monkeypatch
):
    monkeypatch.setattr("billing_sync.http.time.sleep", lambda _: None)
    monkeypatch.setattr(Limits, "__init__", _without_waiting(Limits.__init__))
    services.add_fault("status", service="appxite")
    with pytest.raises(TemporaryError, match="AppXite, organizations: the service answered 500"):
        preflight()


def _without_waiting(original):
    def init(self, *values, **options):
        original(self, *values, **{"first_wait": 0.0, "attempts": 2, "sleep": lambda _: None, **options})

    return init


def test_the_errors_of_the_hooks_are_those_of_the_pipeline(connections, hooks):
    client = hooks[1]().get_client()
    with pytest.raises(WriteRefusedError) as caught:
        client.create_addition(1001, {"product": {"id": 1}, "billCustomer": "DoNotBill"})
    assert caught.value.status == 400
