"""Everything that must be right before a run touches anything: three connections, migrations, settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_sync.errors import BillingSyncError, ConfigurationError, TemporaryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from billing_sync.connectwise import ConnectWise
    from billing_sync.db import Connection


def preflight(
    *,
    appxite_conn_id: str = "appxite_api",
    connectwise_conn_id: str = "connectwise_api",
    billing_db_conn_id: str = "billing_db",
) -> list[str]:
    """Check all connections and settings. Returns what is right, one line each.

    All problems are collected, so that a person mends them in one go: one ConfigurationError lists each of them.
    If nothing is wrong but that a service does not answer right now, it is a TemporaryError: trying again may help.
    """
    # Imported here: the providers are heavy, and DAG files import this module.
    from billing_hooks.appxite import AppXiteHook
    from billing_hooks.billing_db import BillingDbHook
    from billing_hooks.connectwise import ConnectWiseHook
    from billing_sync.rate_budget import Unlimited

    fine: list[str] = []
    problems: list[BillingSyncError] = []

    def attempt(check: Callable[[], str]) -> bool:
        try:
            fine.append(check())
        except BillingSyncError as error:
            problems.append(error)
            return False
        return True

    database = BillingDbHook(billing_db_conn_id)
    database_is_fine = attempt(database.check)
    attempt(lambda: AppXiteHook(appxite_conn_id).get_client().check())

    client: ConnectWise | None = None

    def check_connectwise() -> str:
        nonlocal client
        # Without the shared budget: a handful of requests, and the database may be what is broken.
        client = ConnectWiseHook(connectwise_conn_id).get_client(read_only=True, limiter=Unlimited())
        return client.check()

    connectwise_is_fine = attempt(check_connectwise)

    if database_is_fine:
        with database.get_conn() as connection:
            attempt(lambda: _settings(connection))
            known = client if connectwise_is_fine else None
            attempt(lambda: _default_agreement_type(connection, known, connectwise_conn_id))

    if problems:
        text = "\n".join(f"{number}. {problem}" for number, problem in enumerate(problems, 1))
        if all(isinstance(problem, TemporaryError) for problem in problems):
            raise TemporaryError(f"Not everything answers right now:\n{text}")
        raise ConfigurationError(f"{len(problems)} things are to be mended before a run can start:\n{text}")
    return fine


def _settings(connection: Connection) -> str:
    """All settings have values that the pipeline knows: somebody may have changed the table by hand."""
    from billing_sync.settings import SETTINGS, all_settings, setting_text

    stored = {key: value for key, value, _ in all_settings(connection)}
    wrong = [f"{key} is missing in table billing.setting" for key in sorted(SETTINGS.keys() - stored.keys())]
    for key, value in stored.items():
        if value is None or key not in SETTINGS:
            continue
        text = setting_text(key, value)
        try:
            parsed = SETTINGS[key].takes.parse(text)
        except ValueError as wanted:
            wrong.append(f"{key} is {text!r} and takes {wanted}")
        else:
            if parsed != value:
                wrong.append(f"{key} is stored as {value!r}, expected {parsed!r}")
    if stored.get("marker_carrier") == "custom_field" and stored.get("marker_custom_field_id") is None:
        wrong.append("marker_carrier is custom_field, and marker_custom_field_id is not set")
    if wrong:
        raise ConfigurationError(
            f"Settings: {'; '.join(wrong)}. Mend them: python -m billing_sync settings set KEY VALUE"
        )
    return "All settings have known values."


def _default_agreement_type(connection: Connection, client: ConnectWise | None, conn_id: str) -> str:
    """The setting default_agreement_type is set, and ConnectWise has exactly one active type of that name."""
    from billing_sync.settings import get_setting

    wanted = get_setting(connection, "default_agreement_type")
    mend = "Choose one: python -m billing_sync settings set default_agreement_type NAME"
    if not wanted:
        raise ConfigurationError(f"Setting default_agreement_type is not set; nothing runs without it. {mend}")
    if client is None:
        return f"Default agreement type: {wanted} (not compared with ConnectWise, which cannot be read)."
    types = [record for page in client.agreement_types() for record in page]
    named = [record for record in types if record.get("name") == wanted]
    active = [record for record in named if not record.get("inactiveFlag")]
    if len(active) == 1:
        return f"Default agreement type: {wanted}."
    names = sorted({str(record.get("name")) for record in types if not record.get("inactiveFlag")})
    listed = ", ".join(names[:20]) or "none"
    if len(active) > 1:
        why = f"{len(active)} active agreement types of that name"
    elif named:
        why = "that agreement type as inactive"
    else:
        why = "no agreement type of that name"
    raise ConfigurationError(
        f"Setting default_agreement_type is {wanted!r}, and ConnectWise (connection {conn_id}) has {why}. "
        f"Active types: {listed}. {mend}"
    )
