"""Airflow's side of the connections: hooks that turn an Airflow connection into a client of `billing_sync`.

    from billing_hooks.appxite import AppXiteHook            AppXiteHook().get_client()
    from billing_hooks.connectwise import ConnectWiseHook    ConnectWiseHook().get_client(read_only=True)
    from billing_hooks.billing_db import BillingDbHook       BillingDbHook().get_conn()
    from billing_hooks.preflight import preflight            preflight()

Import them inside tasks: they load Airflow's providers. This package itself imports nothing.
"""
