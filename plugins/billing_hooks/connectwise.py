"""Airflow connection → client of ConnectWise PSA's REST API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow.providers.http.hooks.http import HttpHook

from billing_hooks.connections import TEST_LIMITS, base_url, fields, hide, look_up, tested, verification
from billing_sync.connectwise import DEFAULT_API_VERSION, ConnectWise
from billing_sync.errors import ConfigurationError
from billing_sync.secrets import basic_token

if TYPE_CHECKING:
    from billing_sync.rate_budget import Limiter


class ConnectWiseHook(HttpHook):
    """Connection of type http: host = https://api-<region>.myconnectwise.net, login = public key, password = private
    key, extra `company_id` and `client_id`; optional extra `api_version` and `verify` (path of a CA bundle).
    """

    default_conn_name = "connectwise_api"
    hook_name = "ConnectWise PSA"
    needed: ClassVar = {
        "host": "address of ConnectWise", "login": "public key", "password": "private key",
        "company_id": "login company", "client_id": "GUID of the integration",
    }  # fmt: skip

    def __init__(
        self, http_conn_id: str = default_conn_name, *, billing_db_conn_id: str = "billing_db", **options: Any
    ) -> None:
        super().__init__(method="GET", http_conn_id=http_conn_id, **options)
        self.billing_db_conn_id = billing_db_conn_id

    def get_client(self, *, read_only: bool = False, limiter: Limiter | None = None, **options: Any) -> ConnectWise:
        """The client.

        read_only   it cannot write; for dry runs
        limiter     without one: the budget that all workers share in the billing database (requests_per_minute)
        options     go to `ConnectWise` (page_size, limits)
        Raises ConfigurationError for a missing field.
        """
        connection = look_up(self.get_connection, self.http_conn_id)
        given = fields(connection, self.http_conn_id, self.needed)
        user = f"{given['company_id']}+{given['login']}"
        hide(given["password"], basic_token(user, given["password"]), given["login"], given["client_id"])
        return ConnectWise(
            base_url(connection),
            given["company_id"],
            given["login"],
            given["password"],
            given["client_id"],
            str(connection.extra_dejson.get("api_version") or DEFAULT_API_VERSION),
            read_only=read_only,
            limiter=limiter or self.get_limiter(),
            connection=self.http_conn_id,
            verify=verification(connection),
            **options,
        )

    def get_limiter(self) -> Limiter:
        """The budget of requests that all workers share for this connection."""
        from billing_hooks.billing_db import BillingDbHook
        from billing_sync.rate_budget import DatabaseLimiter
        from billing_sync.settings import get_setting

        database = BillingDbHook(self.billing_db_conn_id)
        with database.get_conn() as connection:
            budget = get_setting(connection, "requests_per_minute")
        if not isinstance(budget, int) or budget < 1:
            raise ConfigurationError(
                f"Setting requests_per_minute is {budget!r}, expected a whole number, e.g. 600 "
                "(python -m billing_sync settings set requests_per_minute 600)."
            )
        return DatabaseLimiter(database.get_conn, self.http_conn_id, budget)

    def get_conn(self, *_: Any, **__: Any) -> ConnectWise:  # type: ignore[override]
        """The client: the plain session of HttpHook would send the extras as headers and repeat writes."""
        return self.get_client()

    def run(self, *_: Any, **__: Any) -> NoReturn:
        """Not offered; see get_conn."""
        raise ConfigurationError("ConnectWiseHook has no run(): use get_client(), which never sends a write twice.")

    def test_connection(self) -> tuple[bool, str]:
        """(works, a text without secrets): company, keys, clientId and permissions."""
        from billing_sync.rate_budget import Unlimited

        # A handful of requests; the button must work before the billing database does.
        return tested(lambda: self.get_client(read_only=True, limiter=Unlimited(), limits=TEST_LIMITS).check())
