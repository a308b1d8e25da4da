"""The tasks of a run before and after its delivery, one after the other as in dags/sync_verified_invoices.py."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pipeline import Pipeline

from billing_sync.db import run_sql_file
from billing_sync.decide import STEPS
from billing_sync.extract import extract_appxite_reference, extract_connectwise_reference, extract_invoices
from billing_sync.plan import approve_automatically
from billing_sync.prove import prove
from billing_sync.run import finish_run

Step = tuple[str, Callable[[], object]]


def stage_steps(pipeline: Pipeline, run_id: int) -> list[Step]:
    """From an open run to its approved plan: a name and the work of each task."""
    connection = pipeline.connection
    periods = pipeline.value("select billing_periods::date[] from audit.run where run_id = %s", run_id)
    return [
        ("appxite", lambda: extract_appxite_reference(connection, pipeline.appxite(), run_id)),
        (
            "connectwise",
            lambda: extract_connectwise_reference(connection, pipeline.connectwise(read_only=True), run_id),
        ),
        *(
            (f"invoices {period:%Y-%m}", partial(extract_invoices, connection, pipeline.appxite(), run_id, period))
            for period in periods
        ),
        *((name, partial(run_sql_file, connection, name, run_id)) for name in STEPS),
        ("approve", lambda: approve_automatically(connection, run_id)),
    ]


def prove_steps(pipeline: Pipeline, run_id: int) -> list[Step]:
    """What is left when a run's plan is delivered."""
    connection = pipeline.connection
    return [
        ("prove", lambda: prove(connection, pipeline.connectwise(read_only=True), run_id)),
        ("finish", lambda: finish_run(connection, run_id)),
    ]
