"""Plans: approving and rejecting one, and what there is to deliver."""

from __future__ import annotations

from collections.abc import Collection

from billing_sync.bounds import is_parked, why_parked
from billing_sync.db import Connection
from billing_sync.errors import ConfigurationError, NotFoundError, PausedError, RefusedEditError, StaleEditError
from billing_sync.pauses import require_no_pause
from billing_sync.run import log_entry, reopen_run
from billing_sync.settings import get_setting

AUTOMATIC = "Automated Daily Sync"


def plan_of_run(connection: Connection, run_id: int) -> int:
    """The newest plan that a run made. Raises ConfigurationError when it has none."""
    row = connection.execute("select max(plan_id) from delivery.plan where run_id = %s", [run_id]).fetchone()
    if row is None or row[0] is None:
        raise ConfigurationError(f"Run {run_id} has made no plan: run it again from its start.")
    return int(row[0])


def approve_plan(
    connection: Connection,
    plan_id: int,
    approved_by: str,
    *,
    fingerprint: str | None = None,
    leave_out: Collection[int] = (),
    leave_out_agreements: Collection[int] = (),
) -> None:
    """Approve a proposed plan as it stands, or a part of it. Approving it again as it stands changes nothing.

    fingerprint: delivery.plan_fingerprint as the person saw it. leave_out: plan_item_ids that shall not be delivered by
    it; leave_out_agreements: companies whose agreement shall not be created by it. They are skipped, their lines stay
    open, and the next run plans them.
    Raises ConfigurationError for a plan of a dry run, and for one that is rejected or superseded; StaleEditError when
    the plan changed since the person saw it; RefusedEditError for what cannot be left out, or when nothing is left.
    """
    with connection.transaction():
        state, is_dry_run = _locked_plan(connection, plan_id)
        if is_dry_run:
            raise ConfigurationError(f"Plan {plan_id} is of a dry run and can never be applied. Run without dry_run.")
        is_as_seen = fingerprint is not None or bool(leave_out) or bool(leave_out_agreements)
        if state in ("approved", "applied"):
            if is_as_seen:
                raise _decided_meanwhile(connection, plan_id)
            return
        if state != "proposed":
            if is_as_seen:
                raise _decided_meanwhile(connection, plan_id)
            raise ConfigurationError(f"Plan {plan_id} is {state}: approve the newest plan instead.")
        if fingerprint is not None:
            require_fingerprint(connection, plan_id, fingerprint)
        left_out = _leave_out(connection, plan_id, set(leave_out), set(leave_out_agreements))
        connection.execute(
            "update delivery.plan set state = 'approved', approved_by = %s, approved_at = now() where plan_id = %s",
            [approved_by, plan_id],
        )
        if approved_by != AUTOMATIC:
            log_entry(
                connection, run_id_of_plan(connection, plan_id), "INFO", "plan_approved",
                f"{approved_by} approved plan {plan_id}" + (f" without {left_out} of its items" if left_out else ""),
                plan_id=plan_id, left_out=left_out,
            )  # fmt: skip


def reject_plan(connection: Connection, plan_id: int, rejected_by: str, reason: str) -> None:
    """Reject a proposed plan: it is never delivered. Its lines stay open, and the next run makes another plan.

    The run that waited for its approval has ended: it was proven, and has nothing to deliver any more.
    Raises NotFoundError; StaleEditError when somebody decided about it meanwhile; RefusedEditError for a plan of a dry
    run, and without a reason.
    """
    if not reason.strip():
        raise RefusedEditError("Say why the plan is rejected.")
    with connection.transaction():
        state, is_dry_run = _locked_plan(connection, plan_id)
        if is_dry_run:
            raise RefusedEditError(
                f"Plan {plan_id} is of a dry run: it is never delivered, there is nothing to reject."
            )
        if state != "proposed":
            raise _decided_meanwhile(connection, plan_id)
        connection.execute(
            """
            update delivery.plan
            set state = 'rejected', rejected_by = %s, rejected_at = now(), rejected_because = %s
            where plan_id = %s
            """,
            [rejected_by, reason.strip()[:1000], plan_id],
        )
        run_id = run_id_of_plan(connection, plan_id)
        connection.execute(
            "update audit.run set state = 'succeeded' where run_id = %s and state = 'awaiting_approval'", [run_id]
        )
        log_entry(
            connection, run_id, "WARNING", "plan_rejected",
            f"{rejected_by} rejected plan {plan_id}: {reason.strip()[:1000]}. The next run makes another one.",
            plan_id=plan_id,
        )  # fmt: skip


def _locked_plan(connection: Connection, plan_id: int) -> tuple[str, bool]:
    """State, and whether it is of a dry run; nobody changes the plan until the transaction ends."""
    row = connection.execute(
        "select state, is_dry_run from delivery.plan where plan_id = %s for update", [plan_id]
    ).fetchone()
    if row is None:
        raise NotFoundError(f"There is no plan {plan_id}. List them with: python -m billing_sync plan list")
    return str(row[0]), bool(row[1])


def _decided_meanwhile(connection: Connection, plan_id: int) -> StaleEditError:
    row = connection.execute(
        "select state, coalesce(rejected_by, approved_by) from delivery.plan where plan_id = %s", [plan_id]
    ).fetchone()
    assert row is not None
    state, person = row
    if state == "superseded":
        words = (
            f"A newer run has made another plan of the same lines: plan {plan_id} gave way to it. Look at the newest."
        )
    else:
        words = f"{person} has {'rejected' if state == 'rejected' else 'approved'} plan {plan_id} already."
        words += {"approved": " To stop its delivery: pause delivery.", "applied": " It is delivered."}.get(state, "")
    return StaleEditError(words)


def require_fingerprint(connection: Connection, plan_id: int, fingerprint: str) -> None:
    """Raises StaleEditError if the plan does other things than the person saw."""
    row = connection.execute("select delivery.plan_fingerprint(%s)", [plan_id]).fetchone()
    assert row is not None
    if row[0] != fingerprint:
        raise StaleEditError(f"Plan {plan_id} was made anew since you looked at it: look at it again, then approve it.")


def _leave_out(connection: Connection, plan_id: int, items: set[int], companies: set[int]) -> int:
    """Skip them; returns how many. Raises RefusedEditError for what is not in the plan, or when nothing is left."""
    if not items and not companies:
        return 0
    skipped = connection.execute(
        """
        update delivery.plan_item set state = 'skipped', is_left_out = true
        where plan_id = %s and plan_item_id = any(%s) and state = 'pending'
        """,
        [plan_id, list(items)],
    ).rowcount
    skipped_agreements = connection.execute(
        """
        update delivery.plan_agreement set state = 'skipped', is_left_out = true
        where plan_id = %s and company_id = any(%s) and state = 'pending'
        """,
        [plan_id, list(companies)],
    ).rowcount
    if skipped != len(items) or skipped_agreements < len(companies):
        raise RefusedEditError(f"Not all of what shall be left out is in plan {plan_id}: look at it again.")
    left = connection.execute(
        """
        select from delivery.plan_item where plan_id = %(plan_id)s and state = 'pending'
        union all
        select from delivery.plan_agreement where plan_id = %(plan_id)s and state = 'pending' limit 1
        """,
        {"plan_id": plan_id},
    ).fetchone()
    if left is None:
        raise RefusedEditError(f"Everything of plan {plan_id} is left out: reject it instead.")
    return skipped + skipped_agreements


def approve_automatically(connection: Connection, run_id: int) -> bool:
    """Approve the run's plan if Automated Daily Sync is on, it is no dry run, no bound parks it and nothing is paused.

    Returns whether it is approved now; a plan that a newer one has superseded is not. Raises SourceDataError when
    AppXite gave no invoice at all (bounds.is_parked).
    """
    plan_id = plan_of_run(connection, run_id)
    with connection.transaction():
        # Locked, so that no other run supersedes it between the look and the word.
        row = connection.execute(
            "select state, is_dry_run from delivery.plan where plan_id = %s for update", [plan_id]
        ).fetchone()
        assert row is not None
        if row[0] in ("approved", "applied"):
            return True
        if row[0] != "proposed" or row[1] or is_parked(connection, plan_id):
            return False
        if get_setting(connection, "automated_daily_sync") is not True and not _only_resumes(connection, plan_id):
            return False
        try:
            require_no_pause(connection)
        except PausedError as error:
            log_entry(connection, run_id, "WARNING", "delivery_paused", str(error), plan_id=plan_id)
            return False
        approve_plan(connection, plan_id, AUTOMATIC)
        return True


def _only_resumes(connection: Connection, plan_id: int) -> bool:
    """Whether a plan adds nothing to what was approved before, and of that something is not finished yet."""
    has_items = connection.execute(
        """
        select from delivery.plan_item where plan_id = %(plan_id)s
        union all select from delivery.plan_agreement where plan_id = %(plan_id)s limit 1
        """,
        {"plan_id": plan_id},
    ).fetchone()
    return has_items is None and bool(shards_to_deliver(connection, plan_id))


def shards_to_deliver(connection: Connection, plan_id: int) -> list[int]:
    """Shards (agreement id modulo 8) with pending items of the plan or with Additions that an earlier run left open.

    An agreement to create has no id yet: its shard is its company's.
    """
    rows = connection.execute(
        """
        select shard from delivery.plan_item where plan_id = %s and state = 'pending'
        union
        select delivery.shard_of(agreement_id) from delivery.addition
        where state in ('intended', 'created', 'active', 'updating')
        union
        select delivery.shard_of(agreement_id) from delivery.orphan where neutralised_at is null
        union
        select delivery.shard_of(company_id) from delivery.plan_agreement where plan_id = %s and state = 'pending'
        union
        select delivery.shard_of(company_id) from delivery.new_agreement where state = 'intended'
        order by 1
        """,
        [plan_id, plan_id],
    )
    return [int(row[0]) for row in rows.fetchall()]


def say_awaiting_approval(connection: Connection, run_id: int) -> str:
    """Say what waits, and what to do about it; also into the log that people read."""
    plan_id = plan_of_run(connection, run_id)
    row = connection.execute(
        """
        select plan.is_dry_run, plan.state, count(item.plan_item_id), coalesce(sum(item.amount), 0.00),
            (select count(*) from delivery.plan_agreement as new where new.plan_id = plan.plan_id)
        from delivery.plan as plan left join delivery.plan_item as item using (plan_id)
        where plan.plan_id = %s group by plan.plan_id
        """,
        [plan_id],
    ).fetchone()
    assert row is not None
    is_dry_run, state, additions, amount, agreements = row
    what = f"{additions} Additions worth {amount}" + (f" and {agreements} new agreements" if agreements else "")
    if state == "rejected":
        message = f"Plan {plan_id} was rejected. The next run makes another one."
    elif state == "superseded":
        message = f"Plan {plan_id} gave way to another run's plan. The next run plans what only this one spoke of."
    elif is_dry_run:
        message = f"Dry run: plan {plan_id} would write {what}. It can never be applied."
    elif not additions and not agreements:
        message = f"Plan {plan_id} has nothing to write."
    else:
        message = (
            f"Plan {plan_id} waits for approval: {what}. "
            f"Approve it (python -m billing_sync plan approve {plan_id}), then trigger apply_plan."
        )
    message += why_parked(connection, plan_id)
    log_entry(connection, run_id, "INFO", "plan_waits", message, plan_id=plan_id)
    return message


def run_id_of_plan(connection: Connection, plan_id: int) -> int:
    """The run that made a plan. Raises NotFoundError for one that is not known."""
    row = connection.execute("select run_id from delivery.plan where plan_id = %s", [plan_id]).fetchone()
    if row is None:
        raise NotFoundError(f"There is no plan {plan_id}. List them with: python -m billing_sync plan list")
    return int(row[0])


def begin_delivery(connection: Connection, plan_id: int, dag_id: str, dag_run_id: str) -> int:
    """A DAG run of its own delivers an approved plan: the run that made the plan goes on. Returns its run_id.

    The log says which DAG run it is, so that its page shows the plan. Raises ConfigurationError as run_of_plan does.
    """
    run_id = run_of_plan(connection, plan_id)
    with connection.transaction():
        reopen_run(connection, run_id)
        log_entry(
            connection, run_id, "INFO", "plan_delivery_begins",
            f"DAG run {dag_run_id} of {dag_id} delivers plan {plan_id}",
            plan_id=plan_id, dag_id=dag_id, dag_run_id=dag_run_id,
        )  # fmt: skip
    return run_id


def run_of_plan(connection: Connection, plan_id: int) -> int:
    """The run that made an approved plan. Raises ConfigurationError for a plan that is unknown or not approved."""
    row = connection.execute("select run_id, state from delivery.plan where plan_id = %s", [plan_id]).fetchone()
    if row is None:
        raise ConfigurationError(f"There is no plan {plan_id}. List them with: python -m billing_sync plan list")
    if row[1] not in ("approved", "applied"):
        raise ConfigurationError(
            f"Plan {plan_id} is {row[1]}, not approved. Approve it first: python -m billing_sync plan approve {plan_id}"
        )
    return int(row[0])
