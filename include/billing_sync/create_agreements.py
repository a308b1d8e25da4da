"""Creates the agreements that an approved plan lists: one for each company that has none, never two that are used.

ConnectWise has no idempotency key, and an agreement cannot be created inert. But an agreement without Additions bills
nothing, so a second one costs nothing as long as one of them alone is used: the one that the ledger
(delivery.new_agreement) records. The others carry the same marker, and no rule takes them (mapping.doubled_agreement).

    intended ──look, POST──▶ created        looked for by marker, company and type before each POST
        └── 400 ──▶ refused                 no answer: settle_seconds are waited for, then looked for, then POST again

A company is one worker's alone while it holds an advisory lock, which ends with its connection. Before the POST, in one
statement, pauses, the plan's deadline and a person's refusal are looked at, and the attempt is noted down.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.rows import dict_row

from billing_sync.claim import paused
from billing_sync.connectwise import ConnectWise, Record
from billing_sync.db import Connection
from billing_sync.errors import (
    AuthenticationError,
    ConfigurationError,
    InDoubtError,
    MarkerLostError,
    PausedError,
    TemporaryError,
    WriteOutcomeUnknownError,
    WriteRefusedError,
)
from billing_sync.http import NOT_FOUND, TOO_MANY_REQUESTS
from billing_sync.pauses import pause
from billing_sync.records import AGREEMENT, marker_in_notes, problem_text
from billing_sync.run import log_entry

log = logging.getLogger(__name__)

CREATE_TRIES = 3
LOCK_WAIT = "60s"
OPERATION = "create_agreement"


class _NotWantedError(Exception):
    """The agreement is not to be created any more; the message says why."""


class AgreementCreator:
    """Creates the agreements of one approved plan, over one database connection (of db.connect) and one client.

    writes, created: how many requests were sent, and how many agreements were recorded.
    """

    def __init__(self, connection: Connection, connectwise: ConnectWise, plan_id: int, worker: str) -> None:
        self._db = connection
        self._connectwise = connectwise
        self._plan_id = plan_id
        self._worker = worker
        self.writes = 0
        self.created = 0

    def companies(self, shard: int) -> list[int]:
        """Companies of a shard that wait for an agreement of the plan, or for one that an earlier run left open."""
        rows = self._all(
            """
            select company_id from delivery.plan_agreement
            where plan_id = %s and state = 'pending' and delivery.shard_of(company_id) = %s
            union
            select company_id from delivery.new_agreement
            where state = 'intended' and delivery.shard_of(company_id) = %s
            order by 1
            """,
            [self._plan_id, shard, shard],
        )
        return [int(row["company_id"]) for row in rows]

    def create(self, company_id: int) -> None:
        """Create the company's agreement, or find out that it exists; what is not wanted any more is set aside.

        Raises TemporaryError (InDoubtError) when a later try goes on, ConfigurationError for a plan that was tampered
        with, PausedError when everything is paused or the plan is too old, AuthenticationError (the right to add
        agreements), MarkerLostError.
        """
        with self._alone(company_id):
            for item in self._all(
                """
                select *, payload_hash = encode(sha256(convert_to(payload::text, 'UTF8')), 'hex') as is_sealed
                from delivery.plan_agreement where plan_id = %s and company_id = %s and state = 'pending'
                """,
                [self._plan_id, company_id],
            ):
                self._begin(item)
            for intended in self._all(
                "select * from delivery.new_agreement where company_id = %s and state = 'intended'", [company_id]
            ):
                self._finish(intended)

    @contextmanager
    def _alone(self, company_id: int) -> Iterator[None]:
        """No other worker creates an agreement of the company meanwhile."""
        self._db.execute("select set_config('lock_timeout', %s, false)", [LOCK_WAIT])
        try:
            self._db.execute("select pg_advisory_lock(hashtext('billing_sync.create_agreement'), %s)", [company_id])
        except psycopg.errors.LockNotAvailable:
            raise TemporaryError("another worker is creating it") from None
        finally:
            self._db.execute("select set_config('lock_timeout', '0', false)")
        try:
            yield
        finally:
            if not self._db.closed:  # it ends with its connection
                self._db.execute(
                    "select pg_advisory_unlock(hashtext('billing_sync.create_agreement'), %s)", [company_id]
                )

    def _begin(self, item: dict[str, Any]) -> None:
        """Commit the intent, before anything is sent. One that another plan began is finished instead."""
        if not item["is_sealed"]:
            raise ConfigurationError(f"{item['agreement_key']} is not what was approved: its payload changed")
        with self._db.transaction():
            self._db.execute(
                """
                insert into delivery.new_agreement
                    (agreement_key, marker, company_id, agreement_type_id, state, payload, payload_hash, plan_id)
                select agreement_key, marker, company_id, agreement_type_id, 'intended', payload, payload_hash, plan_id
                from delivery.plan_agreement where plan_id = %s and agreement_key = %s
                on conflict (agreement_key) do nothing
                """,
                [self._plan_id, item["agreement_key"]],
            )
            self._set_item_state(item, "done")

    def _finish(self, intended: dict[str, Any]) -> None:
        try:
            self._post(intended)
        except (_NotWantedError, PausedError) as error:
            if isinstance(error, PausedError) and error.company_id is None:
                raise
            # Nothing was sent that may still be applied: it is planned again once nothing is in the way.
            log.info("%s: not created: %s", intended["agreement_key"], error)
            with self._db.transaction():
                self._db.execute(
                    "delete from delivery.new_agreement where agreement_key = %s and state = 'intended'",
                    [intended["agreement_key"]],
                )
                self._set_item_state(intended, "skipped")

    def _post(self, intended: dict[str, Any]) -> None:
        """Look, then POST; again only when an earlier one that got no answer cannot be applied any more."""
        said = ""
        for _ in range(CREATE_TRIES):
            # Asked before ConnectWise is read: what is read before would not count any more.
            unanswered = self._may_come_late(intended)
            ours, others = self._find(intended)
            if ours:
                self._record(intended, ours)
                return
            if unanswered:
                raise InDoubtError(f"{intended['agreement_key']}: {unanswered}; until then none is created")
            if others:
                raise _NotWantedError(f"the company has agreement {others[0]['id']} by now")
            try:
                record = self._connectwise.create_agreement(intended["payload"], note=lambda: self._note(intended))
            except WriteRefusedError as error:
                self._attempt(intended, "fail", str(error))
                self._judge_refusal(intended, error)
                return
            except WriteOutcomeUnknownError as error:
                self._attempt(intended, "unknown", str(error))
                said = str(error)
                log.warning("%s: not known whether it was created: %s", intended["agreement_key"], error)
                continue
            self._attempt(intended, "ok", f"agreement {record['id']}")
            # An earlier one that got no answer may have come, too: the oldest counts.
            ours, _ = self._find(intended)
            self._record(intended, list({one["id"]: one for one in [record, *ours]}.values()))
            return
        raise InDoubtError(f"{intended['agreement_key']}: no answer to {CREATE_TRIES} tries to create it. {said}")

    def _find(self, intended: dict[str, Any]) -> tuple[list[Record], list[Record]]:
        """The company's agreements of the type: those with our marker, and the others."""
        of_type = [
            record
            for page in self._connectwise.agreements_of(intended["company_id"])
            for record in page
            if (record.get("company") or {}).get("id") == intended["company_id"]
            and (record.get("type") or {}).get("id") == intended["agreement_type_id"]
        ]
        ours = [record for record in of_type if _marker(record) == intended["marker"]]
        return ours, [record for record in of_type if record not in ours]

    def _record(self, intended: dict[str, Any], found: Sequence[Record]) -> None:
        """The oldest of ours is the company's agreement from now on; any other is said to a person."""
        found = sorted(found, key=lambda record: int(record["id"]))
        winner = found[0]
        ((row, problems),) = AGREEMENT.rows([winner])
        columns = ", ".join(AGREEMENT.columns)
        with self._db.transaction():
            self._db.execute(
                f"insert into mapping.agreement ({columns}) values ({', '.join(['%s'] * len(row))})"  # noqa: S608
                " on conflict (agreement_id) do nothing",
                row,
            )
            recorded = self._db.execute(
                """
                update delivery.new_agreement
                set state = 'created', agreement_id = %s, created_at = clock_timestamp(), problem = null
                where agreement_key = %s and state = 'intended'
                """,
                [winner["id"], intended["agreement_key"]],
            ).rowcount
            if recorded:
                self.created += 1
                message = (
                    f"Agreement {winner.get('name')} ({winner['id']}) of company {intended['company_id']} is created. "
                    "Its lines follow with the next run."
                )
                self._say("INFO", "agreement_created", message, intended)
        differing = _differences(intended["payload"], winner)
        if problems or differing:
            words = "; ".join([*differing, *filter(None, [problem_text(problems)])])
            message = f"Agreement {winner['id']} is not as it was planned: {words}. Its lines are checked against it."
            self._say("WARNING", "agreement_differs", message, intended)
        if len(found) > 1:
            others = ", ".join(str(record["id"]) for record in found[1:])
            message = f"Agreement {others} is a double of {winner['id']}, which is used. End it in ConnectWise."
            self._say("WARNING", "agreement_doubled", message, intended)
        unmarked = [record["id"] for record in found if _marker(record) != intended["marker"]]
        if unmarked:
            reason = (
                f"ConnectWise stored agreement {unmarked[0]} without the mark {intended['marker']} in its internal "
                "notes. Check what changes that field."
            )
            pause(self._db, reason, "delivery")
            raise MarkerLostError(f"{reason} Delivery is paused; then: python -m billing_sync pauses end")

    def _judge_refusal(self, intended: dict[str, Any], error: WriteRefusedError) -> None:
        if error.status in (None, TOO_MANY_REQUESTS):
            raise TemporaryError(str(error)) from None
        if error.status in (401, 403):
            raise AuthenticationError(
                f"{error} create_agreements needs the right to add agreements (docs/connections.md)."
            ) from None
        if error.status == NOT_FOUND:
            # On cloud, bad keys answer 404 as well: reading tells, and raises if they are the reason.
            for _ in self._connectwise.agreements_of(intended["company_id"]):
                pass
        self._db.execute(
            "update delivery.new_agreement set state = 'refused', problem = %s where agreement_key = %s"
            " and state = 'intended'",
            [str(error), intended["agreement_key"]],
        )
        self._set_item_state(intended, "refused")
        self._say("WARNING", "agreement_refused", f"{intended['agreement_key']}: {error}", intended)

    def _may_come_late(self, intended: dict[str, Any]) -> str:
        """In words, that a POST got no answer, and is so young that it may still be applied."""
        row = self._db.execute(
            """
            select to_char(max(may_come_until) at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"')
            from delivery.unanswered_write where delivery_key = %s and may_come_until > clock_timestamp()
            """,
            [intended["agreement_key"]],
        ).fetchone()
        return f"an earlier create got no answer and may be applied until {row[0]}" if row and row[0] else ""

    def _note(self, intended: dict[str, Any]) -> None:
        """Called right before the POST: notes it down, or raises if it must not be sent.

        Raises PausedError during a pause or after the deadline, _NotWantedError if nobody waits for it any more.
        """
        (gate,) = self._all(
            """
            with gate as (
                select
                    pause.company_id as paused_company_id,
                    pause.paused_by || ': ' || pause.reason as pause,
                    coalesce(
                        plan.approved_at + billing.text_setting('delivery_deadline_hours')::integer * interval '1 hour'
                            < clock_timestamp(),
                        true
                    ) as is_late,
                    case
                        when refusal.company_id is not null then refusal.refused_by || ' refused it: ' || refusal.reason
                        when billing.text_setting('create_agreements') <> 'true' then 'create_agreements is off'
                        when not exists (
                            select from billing.line_decision as decision
                            join billing.held_reason as reason using (line_id)
                            where
                                decision.company_id = %(company_id)s
                                and reason.reason_code = 'agreement_to_create'
                        ) then 'no line waits for it any more'
                    end as objection
                from delivery.plan as plan
                left join mapping.agreement_refusal as refusal on refusal.company_id = %(company_id)s
                left join lateral (
                    select * from delivery.pause as active
                    where
                        active.ended_at is null
                        and (active.company_id is null or active.company_id = %(company_id)s)
                    order by active.company_id nulls first, active.proof_run_id nulls first limit 1
                ) as pause on true
                where plan.plan_id = %(plan_id)s
            ),
            noted as (
                insert into delivery.attempt (delivery_key, plan_id, operation, outcome, worker)
                select %(key)s, %(plan_id)s, %(operation)s, 'invoke', %(worker)s
                from gate where pause is null and not is_late and objection is null
                returning attempt_id
            )
            select gate.*, (select attempt_id from noted) as attempt_id from gate
            """,
            {
                "company_id": intended["company_id"],
                "plan_id": self._plan_id,
                "key": intended["agreement_key"],
                "operation": OPERATION,
                "worker": self._worker,
            },
        )
        if gate["pause"] is not None:
            raise paused(gate["pause"], gate["paused_company_id"])
        if gate["is_late"]:
            raise PausedError(
                f"Plan {self._plan_id} was approved too long ago (setting delivery_deadline_hours): it is made anew."
            )
        if gate["objection"] is not None:
            raise _NotWantedError(gate["objection"])
        self._invoked = int(gate["attempt_id"])
        self.writes += 1

    _invoked = 0  # attempt_id of the POST that is under way

    def _attempt(self, intended: dict[str, Any], outcome: str, detail: str) -> None:
        """Note down what became of the POST."""
        self._db.execute(
            """
            insert into delivery.attempt (delivery_key, plan_id, operation, outcome, detail, worker, invoke_id)
            values (%s, %s, %s, %s, %s, %s, nullif(%s, 0))
            """,
            [intended["agreement_key"], self._plan_id, OPERATION, outcome, detail[:2000], self._worker, self._invoked],
        )
        self._invoked = 0

    def _set_item_state(self, agreement: dict[str, Any], state: str) -> None:
        """Of this plan's item, and of that of the plan that began it."""
        self._db.execute(
            "update delivery.plan_agreement set state = %s where agreement_key = %s and plan_id in (%s, %s)",
            [state, agreement["agreement_key"], self._plan_id, agreement["plan_id"]],
        )

    def _say(self, level: str, code: str, message: str, intended: dict[str, Any]) -> None:
        log.log(logging.getLevelName(level), message)
        row = self._db.execute("select run_id from delivery.plan where plan_id = %s", [self._plan_id]).fetchone()
        log_entry(
            self._db, row[0] if row else None, level, code, message,
            company_id=intended["company_id"], agreement_key=intended["agreement_key"],
        )  # fmt: skip

    def _all(self, statement: str, values: Any) -> list[dict[str, Any]]:
        with self._db.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(statement, values).fetchall()


def _marker(record: Record) -> str | None:
    return marker_in_notes(record.get("internalNotes"))


def _differences(payload: dict[str, Any], record: Record) -> list[str]:
    """What ConnectWise stored otherwise than it was sent, in words. The notes are compared by their marker."""
    found = []
    for field, wanted in payload.items():
        stored = record.get(field)
        if isinstance(wanted, dict):
            wanted, stored = wanted.get("id"), (stored or {}).get("id")
        if field != "internalNotes" and stored != wanted:
            found.append(f"{field} is {stored}, was sent as {wanted}")
    return found


def refuse_agreement(connection: Connection, company_id: int, reason: str, person: str) -> None:
    """A person does not want an agreement to be created for a company; also counts for a plan under way.

    Raises ConfigurationError for a company that is not known, or without a reason.
    """
    if not reason.strip():
        raise ConfigurationError("Say why: --reason")
    with connection.transaction():
        connection.execute("select set_config('billing.user', %s, true)", [person])
        known = connection.execute("select from mapping.company where company_id = %s", [company_id]).fetchone()
        if known is None:
            raise ConfigurationError(f"There is no company {company_id}. Its id stands in ConnectWise.")
        connection.execute(
            """
            insert into mapping.agreement_refusal (company_id, reason) values (%s, %s)
            on conflict (company_id) do update set reason = excluded.reason,
                refused_by = audit.current_person(), refused_at = now()
            """,
            [company_id, reason.strip()[:1000]],
        )


def refusal_of(connection: Connection, company_id: int) -> str | None:
    """What keeps plans from creating an agreement for the company, and allow_agreement takes back; None: nothing."""
    row = connection.execute(
        """
        select string_agg(words, '; ') from (
            select format('%%s refused it: %%s', refused_by, reason) as words from mapping.agreement_refusal
            where company_id = %(company_id)s
            union all
            select case when ledger.state = 'refused' then concat_ws(': ', 'ConnectWise refused it', ledger.problem)
                else format('agreement %%s, which was created, is gone', ledger.agreement_id) end
            from delivery.new_agreement as ledger
            left join mapping.agreement as created using (agreement_id)
            where ledger.company_id = %(company_id)s
                and (ledger.state = 'refused' or (ledger.state = 'created' and created.is_gone))
        ) as in_the_way
        """,
        {"company_id": company_id},
    ).fetchone()
    return row[0] if row else None


def allow_agreement(connection: Connection, company_id: int, person: str) -> str:
    """Take a refusal back, and let be tried again what ConnectWise refused or what is gone. Returns what it was.

    Raises ConfigurationError when nothing is in the way, or the agreement that was created still stands.
    """
    with connection.transaction():
        connection.execute("select set_config('billing.user', %s, true)", [person])
        words = [
            f"refused by {row[0]}: {row[1]}"
            for row in connection.execute(
                "delete from mapping.agreement_refusal where company_id = %s returning refused_by, reason", [company_id]
            ).fetchall()
        ]
        words += [
            str(row[0])
            for row in connection.execute("select delivery.forget_new_agreement(%s)", [company_id]).fetchall()
        ]
        if not words:
            raise ConfigurationError(
                f"Nothing that a person can take back keeps company {company_id} from an agreement. "
                "See: python -m billing_sync agreements list"
            )
        log_entry(
            connection, None, "INFO", "agreement_allowed",
            f"{person} lets an agreement of company {company_id} be created again: {'; '.join(words)}",
            company_id=company_id,
        )  # fmt: skip
    return "; ".join(words)
