"""Airflow connection → client of AppXite's Reporting API."""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

from airflow.providers.http.hooks.http import HttpHook

from billing_hooks.connections import TEST_LIMITS, base_url, fields, hide, look_up, tested, verification
from billing_sync.appxite import AppXite
from billing_sync.errors import ConfigurationError


class AppXiteHook(HttpHook):
    """Connection of type http: host = https://api.telemetry.appxite.com:8449, password = sasKey, extra `requester_id`.

    Optional extra `verify`: path of a CA bundle.
    """

    default_conn_name = "appxite_api"
    hook_name = "AppXite Reporting API"
    needed: ClassVar = {
        "host": "address of the Reporting API", "password": "sasKey", "requester_id": "your organization id"
    }  # fmt: skip

    def __init__(self, http_conn_id: str = default_conn_name, **options: Any) -> None:
        super().__init__(method="GET", http_conn_id=http_conn_id, **options)

    def get_client(self, **options: Any) -> AppXite:
        """The client; options go to `AppXite` (page_size, limits). Raises ConfigurationError for a missing field."""
        connection = look_up(self.get_connection, self.http_conn_id)
        given = fields(connection, self.http_conn_id, self.needed)
        hide(given["password"])
        return AppXite(
            base_url(connection),
            given["requester_id"],
            given["password"],
            connection=self.http_conn_id,
            verify=verification(connection),
            **options,
        )

    def get_conn(self, *_: Any, **__: Any) -> AppXite:  # type: ignore[override]
        """The client: the plain session of HttpHook would send the extras as headers and log the key."""
        return self.get_client()

    def run(self, *_: Any, **__: Any) -> NoReturn:
        """Not offered; see get_conn."""
        raise ConfigurationError("AppXiteHook has no run(): use get_client(), which keeps the key out of the logs.")

    def test_connection(self) -> tuple[bool, str]:
        """(works, a text without secrets): what AppXite answers to the key and the requester id."""
        return tested(lambda: self.get_client(limits=TEST_LIMITS).check())
