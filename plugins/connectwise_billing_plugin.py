"""Registers this project with Airflow. The only file below plugins/ that Airflow runs by itself (.airflowignore)."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from billing_timetable import MonthlyOnDemand


class ConnectWiseBillingPlugin(AirflowPlugin):
    """AppXite → ConnectWise billing. What DAGs use is imported as `billing_hooks.…`, without registration."""

    name = "connectwise_billing"
    timetables = [MonthlyOnDemand]  # noqa: RUF012  (Airflow's own shape)
