"""
### Deliver an approved plan

Carries out exactly the plan that a person approved (`python -m billing_sync plan approve`), then proves it. A plan
that is not approved is refused. Running it again resumes what is left, and writes nothing if all is done.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import Param, chain, dag

from billing_steps import DEFAULT_ARGS, close_run, deliver_shard, list_shards, preflight, prove, reopen_run_of_plan


@dag(
    dag_id="apply_plan",
    dag_display_name="Apply an approved plan",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    params={
        "plan_id": Param(
            None,
            type="integer",
            minimum=1,
            title="Plan",
            description="Number of the approved plan: `python -m billing_sync plan list` or reporting.run.",
        )
    },
    doc_md=__doc__,
    tags=["billing", "on demand"],
)
def apply_plan() -> None:
    """Deliver the plan's shards and prove its run."""
    checked = preflight()
    run_id = reopen_run_of_plan()
    closed = close_run(run_id)
    delivered = deliver_shard.partial(billing_run_id=run_id).expand(shard=list_shards(run_id))
    chain(checked, run_id, delivered, prove(run_id), closed)
    closed.as_teardown()


apply_plan()
