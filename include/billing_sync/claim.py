"""Who may write to an agreement now: the claim with its fencing token, the pauses and the plan's deadline.

A worker holds an advisory lock, which ends with its connection, so the agreement of a worker that died is free at
once. One that is frozen keeps its lock; when it has not renewed its claim for the length of a lease, the next worker
takes over and the token grows. The frozen one finds that out when it wakes: before each write it renews its claim,
and with each change of the ledger it looks whether the claim is still its own.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psycopg

from billing_sync.db import Connection
from billing_sync.errors import OvertakenError, PausedError, TemporaryError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Claim:
    """One worker's right to deliver one agreement, until somebody with a higher token has it."""

    connection: Connection
    agreement_id: int
    token: int
    worker: str

    @contextmanager
    def fenced(self) -> Iterator[None]:
        """A transaction that changes the ledger only if the claim is still ours. Raises OvertakenError if not."""
        with self.connection.transaction():
            held = self.connection.execute(
                "select from delivery.claim where agreement_id = %s and token = %s for share",
                [self.agreement_id, self.token],
            ).fetchone()
            if held is None:
                raise self._overtaken()
            yield

    def invoke(
        self, *, delivery_key: str, company_id: int, plan_id: int, operation: str, addition_id: int | None
    ) -> int:
        """Note down in delivery.attempt that a write is sent now, and renew the claim; in one statement.

        Returns its attempt_id, for the answer to name.

        Raises OvertakenError if the claim is no longer ours, PausedError during a pause or after the deadline; then
        nothing is noted down, and the write must not be sent. The proof's own pause lets orphans be neutralised.
        """
        row = self.connection.execute(
            """
            with own as (
                update delivery.claim set renewed_at = clock_timestamp()
                where agreement_id = %(agreement_id)s and token = %(token)s
                returning agreement_id
            ),
            gate as (
                select
                    exists (select from own) as is_own,
                    pause.company_id as paused_company_id,
                    pause.paused_by || ': ' || pause.reason as pause,
                    coalesce(
                        plan.approved_at + billing.text_setting('delivery_deadline_hours')::integer * interval '1 hour'
                            < clock_timestamp(),
                        true
                    ) as is_late
                from delivery.plan as plan
                left join lateral (
                    select * from delivery.pause as active
                    where
                        active.ended_at is null
                        and (
                            active.company_id is null
                            or (
                                active.company_id = %(company_id)s
                                and not (active.proof_run_id is not null and %(operation)s = 'neutralise')
                            )
                        )
                    order by active.company_id nulls first, active.proof_run_id nulls first limit 1
                ) as pause on true
                where plan.plan_id = %(plan_id)s
            ),
            noted as (
                insert into delivery.attempt
                    (delivery_key, plan_id, operation, outcome, connectwise_addition_id, worker, claim_token)
                select %(key)s, %(plan_id)s, %(operation)s, 'invoke', %(addition_id)s, %(worker)s, %(token)s
                from gate where is_own and pause is null and not is_late
                returning attempt_id
            )
            select is_own, paused_company_id, pause, is_late, (select attempt_id from noted) from gate
            """,
            {
                "agreement_id": self.agreement_id,
                "token": self.token,
                "worker": self.worker,
                "key": delivery_key,
                "company_id": company_id,
                "plan_id": plan_id,
                "operation": operation,
                "addition_id": addition_id,
            },
        ).fetchone()
        assert row is not None
        is_own, company, pause, is_late, attempt_id = row
        if not is_own:
            raise self._overtaken()
        if pause is not None:
            raise paused(pause, company)
        if is_late:
            raise PausedError(
                f"Plan {plan_id} was approved too long ago (setting delivery_deadline_hours), so nothing more of it is "
                "written. What it began is finished by the next run, the rest is planned anew."
            )
        return int(attempt_id)

    def _overtaken(self) -> OvertakenError:
        return OvertakenError(f"another worker has taken over agreement {self.agreement_id}")


def paused(words: str, company_id: int | None) -> PausedError:
    """The error for a pause; words: by whom and why."""
    words = words.rstrip(".")
    if company_id is None:
        return PausedError(
            f"Delivery is paused by {words}. When that is mended: python -m billing_sync pauses end; "
            "then trigger apply_plan, or wait for the next run."
        )
    return PausedError(
        f"Delivery to company {company_id} is paused by {words}. "
        f"When that is mended: python -m billing_sync pauses end --company {company_id}",
        company_id=company_id,
    )


@contextmanager
def hold_claim(
    connection: Connection, agreement_id: int, worker: str, *, lease_seconds: float, lock_wait: str
) -> Iterator[Claim]:
    """Claim an agreement for this worker.

    lease_seconds: how long a claim counts that is not renewed. lock_wait: how long to wait for a worker that is at
    work, as PostgreSQL writes it ("60s"). Raises TemporaryError if that one is still at work then.
    """
    # Frozen within a transaction, a worker would hold the claim's row for ever.
    connection.execute(
        "select set_config('idle_in_transaction_session_timeout', %s, false)", [f"{lease_seconds * 1000:.0f}ms"]
    )
    is_locked = _lock(connection, agreement_id, lock_wait)
    try:
        token = _take(connection, agreement_id, worker, lease_seconds, is_locked=is_locked)
        connection.execute("select set_config('lock_timeout', '0', false)")
        yield Claim(connection, agreement_id, token, worker)
    finally:
        if is_locked and not connection.closed:  # it ends with its connection
            connection.execute("select pg_advisory_unlock(hashtext('billing_sync.deliver'), %s)", [agreement_id])


def _lock(connection: Connection, agreement_id: int, lock_wait: str) -> bool:
    connection.execute("select set_config('lock_timeout', %s, false)", [lock_wait])
    try:
        connection.execute("select pg_advisory_lock(hashtext('billing_sync.deliver'), %s)", [agreement_id])
    except psycopg.errors.LockNotAvailable:
        return False
    return True


def _take(connection: Connection, agreement_id: int, worker: str, lease_seconds: float, *, is_locked: bool) -> int:
    """The next token. Without the lock only if its owner's claim has run out."""
    row = None
    with suppress(psycopg.errors.LockNotAvailable):
        row = connection.execute(
            """
            insert into delivery.claim as known (agreement_id, token, worker, renewed_at)
            values (%(agreement_id)s, 1, %(worker)s, clock_timestamp())
            on conflict (agreement_id) do update
                set token = known.token + 1, worker = excluded.worker, renewed_at = excluded.renewed_at
                where %(is_locked)s or known.renewed_at < clock_timestamp() - %(lease)s * interval '1 second'
            returning token
            """,
            {"agreement_id": agreement_id, "worker": worker, "is_locked": is_locked, "lease": lease_seconds},
        ).fetchone()
    if row is None:
        raise TemporaryError("another worker is delivering it")
    if not is_locked:
        log.warning("agreement %s: taken over from a worker that has been silent", agreement_id)
    return int(row[0])
