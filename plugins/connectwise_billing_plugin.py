"""Registers this project with Airflow. The only file below plugins/ that Airflow runs by itself (.airflowignore)."""

from __future__ import annotations

import threading
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from billing_timetable import MonthlyOnDemand

# An invoice. In the address itself, since what lies below /billing needs a session and a permission.
ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24' fill='none' stroke='{color}' "
    "stroke-width='2' stroke-linecap='round' stroke-linejoin='round'%3E%3Cpath fill='{fill}' "
    "d='M5 2v20l3-2 2 2 2-2 2 2 2-2 3 2V2l-3 2-2-2-2 2-2-2-2 2z'/%3E%3Cpath d='M9 9h6M9 14h6'/%3E%3C/svg%3E"
)
# A white sheet: the selected entry of the light theme is dark.
ICONS = {
    "icon": ICON.format(color="%2327272a", fill="white"),
    "icon_dark_mode": ICON.format(color="%23e4e4e7", fill="none"),
}


class LazyApp:
    """The review pages, built at their first request: scheduler, workers and DAG processor load this file, too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._app is None:
            from starlette.concurrency import run_in_threadpool

            await run_in_threadpool(self._build)
        await self._app(scope, receive, send)

    def _build(self) -> None:
        from billing_pages.app import build_app
        from billing_pages.people import person_of_airflow

        with self._lock:
            self._app = self._app or build_app(person_of_airflow)


class ConnectWiseBillingPlugin(AirflowPlugin):
    """AppXite → ConnectWise billing. What DAGs use is imported as `billing_hooks.…`, without registration."""

    name = "connectwise_billing"
    timetables = [MonthlyOnDemand]  # noqa: RUF012  (Airflow's own shape)
    fastapi_apps = [{"app": LazyApp(), "url_prefix": "/billing", "name": "ConnectWise billing"}]  # noqa: RUF012
    external_views = [  # noqa: RUF012
        {
            "name": "ConnectWise billing",
            "href": "billing/",
            "destination": "nav",
            "url_route": "connectwise-billing",
            "nav_top_level": True,
            **ICONS,
        },
        {
            "name": "Billing plan",
            "href": "billing/run?dag_id={DAG_ID}&run_id={RUN_ID}",
            "destination": "dag_run",
            "url_route": "billing-run",
            **ICONS,
        },
    ]
