"""Delivery: makes Additions in ConnectWise what an approved plan says, each exactly once.

ConnectWise has no idempotency key, so a write whose answer is lost may have been applied, or may be applied later.
Hence: the intent is committed first; the Addition is created inert (a duplicate of it bills 0.00); one compare-and-set
decides which ConnectWise id is the Addition; only that one is activated, which is idempotent; then it is read back.
Whatever is left over is neutralised. Any step may be repeated by anyone, at any time.

    intended ──POST inert──▶ created ──PATCH Billable──▶ active ──read back equal──▶ delivered ──▶ updating ──▶ …
        └── 400 ──▶ refused                                └── read back different ──▶ conflict
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from datetime import date
from typing import Any

import psycopg
from psycopg.rows import dict_row

from billing_sync.claim import Claim, hold_claim
from billing_sync.connectwise import ConnectWise, Record, api_date
from billing_sync.create_agreements import AgreementCreator
from billing_sync.db import Connection
from billing_sync.errors import (
    AuthenticationError,
    BillingSyncError,
    ConfigurationError,
    InDoubtError,
    MarkerLostError,
    PausedError,
    PermanentError,
    SourceDataError,
    TemporaryError,
    WriteOutcomeUnknownError,
    WriteRefusedError,
)
from billing_sync.http import NOT_FOUND, TOO_MANY_REQUESTS
from billing_sync.pauses import pause, require_no_pause
from billing_sync.payload import MarkerCarrier, differences, inert, marker_operations, patch_operations
from billing_sync.settings import get_setting

log = logging.getLogger(__name__)

CREATE_TRIES = 3
PATCH_TRIES = 3
LASTING = ("activate", "update", "deactivate")  # operations on the one Addition that counts
LOCK_WAIT = "60s"
LEASE_SECONDS = 120.0  # above the longest time between two writes of a worker that lives: a slow list of Additions


@dataclass
class DeliveryCounts:
    """What a delivery did. writes: requests sent that could change ConnectWise."""

    created: int = 0
    updated: int = 0
    refused: int = 0
    conflicts: int = 0
    skipped: int = 0
    in_doubt: int = 0
    neutralised: int = 0
    agreements: int = 0
    writes: int = 0

    def __add__(self, other: DeliveryCounts) -> DeliveryCounts:
        return DeliveryCounts(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def as_dict(self) -> dict[str, int]:
        """For logs and XCom."""
        return asdict(self)


def _day_as_text(value: object) -> str | None:
    """A date of ConnectWise as the plan keeps it; one that cannot be read stays as it is, and so differs."""
    try:
        day = api_date(value)
    except SourceDataError:
        return str(value)
    return None if day is None else day.isoformat()


class Deliverer:
    """Delivers the shards of one approved plan over one database connection (of db.connect) and one client."""

    def __init__(self, connection: Connection, connectwise: ConnectWise, plan_id: int) -> None:
        self._db = connection
        self._connectwise = connectwise
        self._plan_id = plan_id
        self._marker = MarkerCarrier.from_settings(connection)
        self._is_inert = get_setting(connection, "create_mode") == "inert"
        self._claim: Claim | None = None
        self._invoked = 0  # attempt_id of the write that is under way
        self._worker = f"{socket.gethostname()}:{os.getpid()}"
        self.counts = DeliveryCounts()

    def deliver_shard(self, shard: int) -> DeliveryCounts:
        """Deliver what is pending in a shard, and resume what an earlier run left open there.

        One agreement's failure does not stop the others. Raises ConfigurationError if the plan is not approved or was
        tampered with, TemporaryError at the end if anything should be tried again. What concerns all agreements ends
        the work at once: AuthenticationError, MarkerLostError, and PausedError when everything is paused.
        """
        require_no_pause(self._db)
        state = self._one("select state from delivery.plan where plan_id = %s", [self._plan_id])
        if state is None or state["state"] not in ("approved", "applied"):
            raise ConfigurationError(
                f"Plan {self._plan_id} is {state['state'] if state else 'unknown'}: approve it before delivering."
            )
        agreements = self._all(
            """
            select agreement_id from delivery.plan_item where plan_id = %s and shard = %s and state = 'pending'
            union
            select agreement_id from delivery.addition
            where delivery.shard_of(agreement_id) = %s and state in ('intended', 'created', 'active', 'updating')
            union
            select agreement_id from delivery.orphan
            where delivery.shard_of(agreement_id) = %s and neutralised_at is null
            order by 1
            """,
            [self._plan_id, shard, shard, shard],
        )
        companies, failures, is_temporary = self._create_agreements(shard)
        for number, row in enumerate(agreements, start=1):
            try:
                self._deliver_agreement(row["agreement_id"])
            except (AuthenticationError, MarkerLostError, psycopg.OperationalError):
                raise
            except Exception as error:  # whatever is wrong with one agreement, the others do not wait for it
                if isinstance(error, PausedError) and error.company_id is None:
                    raise
                words = self._words(error, f"agreement {row['agreement_id']}")
                failures.append(f"agreement {row['agreement_id']}: {words}")
                is_temporary = is_temporary or not isinstance(error, PermanentError)
            if number % 25 == 0 or number == len(agreements):
                log.info("shard %s: %s of %s agreements, %s", shard, number, len(agreements), self.counts)
        if failures:
            all_of_them = companies + len(agreements)
            summary = f"{len(failures)} of {all_of_them} agreements are not finished. " + "; ".join(failures[:5])
            if is_temporary:
                raise TemporaryError(f"{summary} Trying again resumes them.")
            raise ConfigurationError(summary)
        return self.counts

    def _create_agreements(self, shard: int) -> tuple[int, list[str], bool]:
        """Create the agreements of the shard's companies.

        Returns of how many companies, failures in words, and whether a later try may mend any.
        """
        failures, is_temporary = [], False
        creator = AgreementCreator(self._db, self._connectwise, self._plan_id, self._worker)
        companies = creator.companies(shard)
        try:
            for company_id in companies:
                try:
                    creator.create(company_id)
                except (AuthenticationError, MarkerLostError, psycopg.OperationalError):
                    raise
                except Exception as error:  # the other companies do not wait for it
                    if isinstance(error, PausedError) and error.company_id is None:
                        raise
                    place = f"new agreement of company {company_id}"
                    failures.append(f"{place}: {self._words(error, place)}")
                    is_temporary = is_temporary or not isinstance(error, PermanentError)
        finally:
            self.counts.agreements += creator.created
            self.counts.writes += creator.writes
        return len(companies), failures, is_temporary

    @staticmethod
    def _words(error: Exception, place: str) -> str:
        if isinstance(error, BillingSyncError):
            log.warning("%s: %s", place, error)
            return str(error)
        log.exception("%s: not foreseen", place)
        return f"{type(error).__name__}, see the log"

    # -- one agreement ---------------------------------------------------------------------------------------------

    def _deliver_agreement(self, agreement_id: int) -> None:
        with hold_claim(
            self._db, agreement_id, self._worker, lease_seconds=LEASE_SECONDS, lock_wait=LOCK_WAIT
        ) as self._claim:
            if self._pause_of(agreement_id) is None:
                try:
                    self._deliver_claimed(agreement_id)
                except PausedError as error:
                    if error.company_id is None:
                        raise
            standstill = self._pause_of(agreement_id)
            if standstill is not None:
                self._stand_still(agreement_id, standstill)

    def _deliver_claimed(self, agreement_id: int) -> None:
        agreement = self._connectwise.agreement(agreement_id)
        for item in self._pending_items(agreement_id):
            self._begin(item, agreement)
        open_additions = self._open_additions(agreement_id)
        standing: dict[int, Record] = {}
        if any(addition["state"] in ("intended", "updating") for addition in open_additions):
            standing = self._list(agreement_id)
        unfinished: list[str] = []
        for addition in open_additions:
            with self._one_of_many(addition, unfinished):
                changed = self._changed_since_plan(addition, agreement)
                if changed and addition["state"] != "active":
                    self._settle(addition, changed)
                else:
                    self._advance(addition, standing)
        self._read_back(agreement_id, unfinished)
        if unfinished:
            raise TemporaryError("; ".join(unfinished[:3]))

    @contextmanager
    def _one_of_many(self, addition: dict[str, Any], unfinished: list[str]) -> Iterator[None]:
        """What is wrong with one Addition does not keep the agreement's others waiting; it is added to `unfinished`."""
        try:
            yield
        except (BillingSyncError, psycopg.Error) as error:
            if not isinstance(error, InDoubtError):
                raise
            unfinished.append(str(error))
        except Exception as error:  # noqa: BLE001  (an answer that nobody thought of)
            unfinished.append(f"{addition['delivery_key']}: {self._words(error, addition['delivery_key'])}")

    def _pending_items(self, agreement_id: int) -> list[dict[str, Any]]:
        return self._all(
            """
            select
                item.*,
                plan.created_at as planned_at,
                item.payload_hash = encode(sha256(convert_to(item.payload::text, 'UTF8')), 'hex') as is_sealed
            from delivery.plan_item as item
            join delivery.plan as plan using (plan_id)
            where item.plan_id = %s and item.agreement_id = %s and item.state = 'pending'
            order by item.plan_item_id
            """,
            [self._plan_id, agreement_id],
        )

    def _pause_of(self, agreement_id: int) -> dict[str, Any] | None:
        return self._one(
            """
            select pause.* from delivery.pause join mapping.agreement as known using (company_id)
            where known.agreement_id = %s and pause.ended_at is null
            order by pause.proof_run_id nulls first limit 1
            """,
            [agreement_id],
        )

    def _stand_still(self, agreement_id: int, standstill: dict[str, Any]) -> None:
        """The customer is paused: what was not sent yet is set aside, what was sent waits as it is."""
        words = f"by {standstill['paused_by']}: {standstill['reason']}"
        log.warning("agreement %s: paused %s", agreement_id, words)
        for item in self._pending_items(agreement_id):
            self._set_aside_item(item, "skipped", "customer_paused", words)
            self.counts.skipped += 1
        for addition in self._open_additions(agreement_id):
            if addition["state"] in ("intended", "updating") and not addition["is_sent"]:
                self._take_back(addition, "customer_paused", words)
        if standstill["proof_run_id"] is not None:
            self._neutralise_orphans(agreement_id, self._list(agreement_id))

    def _begin(self, item: dict[str, Any], agreement: Record | None) -> None:
        """Commit the intent, before anything is sent; or set the item aside if the world is not as it was planned."""
        if not item["is_sealed"]:
            raise ConfigurationError(f"plan item {item['plan_item_id']} is not what was approved: its payload changed")
        changed = self._changed_since_plan(item, agreement)
        if changed:
            self._set_aside_item(item, "skipped", "agreement_changed", changed)
            self.counts.skipped += 1
            return
        stale = self._decided_otherwise(item)
        if (stale and stale["has_left"]) or self._cycle_is_taken(item):
            self._skip(item)
            return
        unanswered = self._may_come_late(item) if item["action"] == "update" else ""
        if unanswered:
            self._set_aside_item(item, "skipped", "addition_not_settled", unanswered)
            self.counts.skipped += 1
            return
        changed_lines = self._lines_changed_since_plan(item)
        if changed_lines:
            self._set_aside_item(item, "skipped", "line_changed", changed_lines)
            self.counts.skipped += 1
            return
        if stale:
            self._skip(item)
            return
        if item["action"] == "create":
            self._forget_deleted(item)
        began = None
        # A line stands on one Addition or on none: the table's key decides between two plans.
        with suppress(psycopg.errors.UniqueViolation):
            began = self._commit_intent(item)
        if began is None:
            self._skip(item)

    def _forget_deleted(self, item: dict[str, Any]) -> None:
        """What was refused, or a person wants made anew, keeps its id as long as ConnectWise has such an Addition."""
        known = self._one(
            """
            select connectwise_addition_id from delivery.addition
            where delivery_key = %s and agreement_id = %s and state = 'refused' and connectwise_addition_id is not null
            """,
            [item["delivery_key"], item["agreement_id"]],
        )
        if known and self._connectwise.addition(item["agreement_id"], known["connectwise_addition_id"]) is None:
            self._forget_id(item)

    def _forget_id(self, addition: dict[str, Any]) -> None:
        """Its id is never used again: tried again, it is created anew."""
        with self._fenced():
            self._db.execute(
                "update delivery.addition set connectwise_addition_id = null where delivery_key = %s",
                [addition["delivery_key"]],
            )

    def _skip(self, item: dict[str, Any]) -> None:
        """Another plan has taken the item's lines, or a newer run decided them anew; that run speaks for them."""
        self._set_item_state(item, "skipped")
        self.counts.skipped += 1
        log.info("%s is under way by another plan, or its lines were decided anew", item["delivery_key"])

    def _decided_otherwise(self, item: dict[str, Any]) -> dict[str, Any] | None:
        """What a run after the plan did to the item's lines: None when they are decided as the plan has them."""
        return self._one("select has_left from delivery.stale_item where plan_item_id = %s", [item["plan_item_id"]])

    def _cycle_is_taken(self, item: dict[str, Any]) -> bool:
        """Whether another persistent Addition of the subscription carries one of the item's cycles since the plan."""
        if not item["is_persistent"]:
            return False
        return bool(
            self._all(
                """
                select from delivery.plan_item_line as planned
                join delivery.persistent_cycle as taken using (cycle_start)
                where planned.plan_item_id = %s and taken.subscription_id = %s and taken.agreement_id = %s
                """,
                [item["plan_item_id"], item["subscription_id"], item["agreement_id"]],
            )
        )

    def _commit_intent(self, item: dict[str, Any]) -> dict[str, Any] | None:
        """Write the ledger row and its lines; None if the ledger moved on since the plan was made.

        Raises UniqueViolation when another plan has put one of the lines on an Addition meanwhile.
        """
        with self._fenced():
            if item["action"] == "create":
                # A refused Addition certainly does not bill; it begins anew with the new payload.
                began = self._one(
                    """
                    insert into delivery.addition as known (delivery_key, marker, agreement_id, company_id,
                        subscription_id, is_persistent, state, payload, payload_hash, plan_id)
                    select delivery_key, marker, agreement_id, company_id, subscription_id, is_persistent, 'intended',
                        payload, payload_hash, plan_id
                    from delivery.plan_item where plan_item_id = %(item)s
                    on conflict (delivery_key) do update set
                        agreement_id = excluded.agreement_id, company_id = excluded.company_id,
                        state = case
                            when known.connectwise_addition_id is null or known.agreement_id <> excluded.agreement_id
                                then 'intended'
                            else 'created'
                        end,
                        connectwise_addition_id = case
                            when known.agreement_id = excluded.agreement_id then known.connectwise_addition_id
                        end,
                        payload = excluded.payload, payload_hash = excluded.payload_hash, plan_id = excluded.plan_id,
                        problem = null, intended_at = now()
                    where known.state = 'refused'
                        -- A person settled it after the plan was made: the next one has what follows from that.
                        and (known.settled_at is null or known.settled_at < %(planned_at)s)
                        -- What stands inert on another agreement is forgotten, unless it may become billable yet.
                        and (known.agreement_id = excluded.agreement_id or not exists (
                            select from delivery.unanswered_write as late
                            where late.delivery_key = known.delivery_key and late.operation <> 'create'
                                and late.may_come_until > clock_timestamp()
                        ))
                    returning delivery_key
                    """,
                    {"item": item["plan_item_id"], "planned_at": item["planned_at"]},
                )
            else:
                began = self._one(
                    """
                    update delivery.addition as known set
                        state = 'updating', payload = item.payload, payload_hash = item.payload_hash,
                        plan_id = item.plan_id, intended_at = now()
                    from delivery.plan_item as item
                    where item.plan_item_id = %(item)s and known.delivery_key = item.delivery_key
                        and known.state = 'delivered' and known.payload = item.payload_before
                        and (known.settled_at is null or known.settled_at < %(planned_at)s)
                    returning known.delivery_key
                    """,
                    {"item": item["plan_item_id"], "planned_at": item["planned_at"]},
                )
            if began is not None:
                self._db.execute(
                    """
                    insert into delivery.addition_line (line_id, delivery_key, plan_id, cycle_start, cycle_end, amount)
                    select line.line_id, item.delivery_key, item.plan_id, line.cycle_start, line.cycle_end, line.amount
                    from delivery.plan_item_line as line join delivery.plan_item as item using (plan_item_id)
                    where item.plan_item_id = %s
                    """,
                    [item["plan_item_id"]],
                )
                self._set_item_state(item, "done")
        return began

    def _may_come_late(self, addition: dict[str, Any], operations: Sequence[str] = LASTING) -> str:
        """In words, that a write of an Addition got no answer, and is so young that it may still be applied.

        Then a newer PATCH could be undone, and what was given up could become billable. To be asked before ConnectWise
        is read: what is read before would not count any more.
        """
        found = self._one(
            """
            select
                operation,
                to_char(may_come_until at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"') as settled_at
            from delivery.unanswered_write
            where
                delivery_key = %s and operation = any(%s)
                and may_come_until > clock_timestamp()
            order by attempted_at desc limit 1
            """,
            # Created inert, it bills nothing however late it comes.
            [addition["delivery_key"], [*operations] if self._is_inert else [*operations, "create"]],
        )
        if found is None:
            return ""
        return f"an earlier {found['operation']} got no answer and may be applied until {found['settled_at']}"

    def _wait_for(self, addition: dict[str, Any], unanswered: str) -> None:
        """Raises InDoubtError if a write may still come; the Addition keeps its state for a later try."""
        if unanswered:
            self.counts.in_doubt += 1
            raise InDoubtError(f"{addition['delivery_key']}: {unanswered}; until then nothing is decided about it")

    def _lines_changed_since_plan(self, item: dict[str, Any]) -> str:
        """In words, what of the plan's lines is not as it was; a line of another plan's Addition is told by its key."""
        found = self._one(
            """
            select
                coalesce(sum(planned.amount), 0) as amount,
                count(*) filter (where line.content_hash <> planned.content_hash) as changed,
                count(*) filter (where override.is_excluded) as excluded,
                count(*) filter (where exists (
                    select from audit.change
                    where change.changed_at > plan.created_at and (change.table_name, change.row_key) in (
                        ('mapping.organization_mapping', invoice.organization_id),
                        ('mapping.company_selector', invoice.organization_id),
                        ('mapping.offer_mapping', line.offer_id),
                        ('mapping.offer_variant_mapping', line.offer_id),
                        ('billing.charge_type', case when line.offer_id is null then line.charge_type end),
                        ('mapping.contract_mapping', coalesce(line.contract_id, invoice.contract_id)),
                        ('billing.override', line.line_id::text)
                    )
                ) or (decision.rules ->> 'override_version')::integer is distinct from override.version) as decided_anew
            from delivery.plan_item_line as planned
            join delivery.plan_item as item using (plan_item_id)
            join delivery.plan as plan using (plan_id)
            join billing.invoice_line as line using (line_id)
            join billing.invoice as invoice using (invoice_id)
            left join billing.override as override using (line_id)
            left join billing.line_decision as decision using (line_id)
            where planned.plan_item_id = %s
            """,
            [item["plan_item_id"]],
        )
        assert found is not None
        if found["amount"] != item["amount"]:
            return f"AppXite removed a line: {found['amount']} of {item['amount']} are left"
        if found["changed"]:
            return f"AppXite changed {found['changed']} of its lines"
        if found["excluded"]:
            return f"a person excluded {found['excluded']} of its lines"
        return (
            f"a person changed mapping or values of {found['decided_anew']} of its lines"
            if found["decided_anew"]
            else ""
        )

    def _changed_since_plan(self, item: dict[str, Any], agreement: Record | None) -> str:
        if agreement is None:
            return "the agreement no longer exists"
        now = {
            "status": agreement.get("agreementStatus"),
            "company": (agreement.get("company") or {}).get("id"),
            "next invoice date": api_date(agreement.get("nextInvoiceDate")),
            "proration": bool(agreement.get("prorateFlag")),
            "currency": (agreement.get("currency") or {}).get("currencyCode"),
            "billing cycle": (agreement.get("billingCycle") or {}).get("id"),
            "billing start": _day_as_text(agreement.get("billStartDate")),
            "end": _day_as_text(agreement.get("endDate")),
        }
        terms = item["agreement_terms"]
        planned = {
            "status": "Active",
            "company": item["company_id"],
            "next invoice date": item["next_invoice_date"],
            "proration": False,  # a line of an agreement that prorates is held, not planned
            "currency": terms["currency"],
            "billing cycle": terms["billing_cycle_id"],
            "billing start": terms["bill_start_date"],
            "end": terms["end_date"],
        }
        return ", ".join(f"{name} is {now[name]}, was {planned[name]}" for name in now if now[name] != planned[name])

    def _open_additions(self, agreement_id: int) -> list[dict[str, Any]]:
        return self._all(
            """
            select
                addition.*,
                item.next_invoice_date,
                item.agreement_terms,
                exists (
                    select from delivery.attempt where attempt.delivery_key = addition.delivery_key
                ) as was_attempted,
                exists (
                    select from delivery.attempt
                    where attempt.delivery_key = addition.delivery_key and attempt.attempted_at >= addition.intended_at
                ) as is_sent
            from delivery.addition
            join delivery.plan_item as item using (plan_id, delivery_key)
            where addition.agreement_id = %s and addition.state in ('intended', 'created', 'active', 'updating')
            order by addition.intended_at, addition.delivery_key
            """,
            [agreement_id],
        )

    def _advance(self, addition: dict[str, Any], standing: dict[int, Record]) -> None:
        """Bring an Addition as far as `active`; what cannot be finished now keeps its state for the next try.

        standing: the agreement's Additions by id, as they were just before (one list instead of a look-up each).
        """
        if addition["state"] == "intended" and not self._create(addition, standing):
            return
        if addition["state"] == "created":
            self._activate(addition)
        elif addition["state"] == "updating":
            self._update(addition, standing)

    def _settle(self, addition: dict[str, Any], changed: str) -> None:
        """End what an earlier try left open, since its agreement is not as it was planned: write nothing more.

        An Addition activated in a cycle that was invoiced meanwhile would never be billed. What ConnectWise holds
        already as planned stays; else the lines are free again, and decided anew by the next run.
        """
        is_update = addition["state"] == "updating"
        self._wait_for(addition, self._may_come_late(addition))
        if addition["state"] == "intended" and not (addition["was_attempted"] and self._adopt(addition)):
            self._take_back(addition, "agreement_changed", changed)
            return
        record = self._connectwise.addition(addition["agreement_id"], addition["connectwise_addition_id"])
        if record is None:
            self._conflict(addition, "changed_in_connectwise", "the Addition was deleted in ConnectWise")
        elif not differences(addition["payload"], record, self._marker):
            self._set_state(addition, "active")
        elif (
            is_update
            and addition["applied_payload"] is not None
            and (found := differences(addition["applied_payload"], record, self._marker))
        ):
            self._conflict(addition, "changed_in_connectwise", "; ".join(found))
        else:
            self._take_back(addition, "agreement_changed", changed)

    def _take_back(self, addition: dict[str, Any], reason_code: str, why: str) -> None:
        """Forget what was intended: an update is undone in the ledger, a new Addition may be planned again as it is."""
        is_update = addition["state"] == "updating"
        with self._fenced():
            self._free_lines(addition, "delivered" if is_update else "refused", reason_code, why, item_state="skipped")
            self._db.execute(
                """
                update delivery.addition set
                    payload = coalesce(applied_payload, payload),
                    payload_hash = coalesce(encode(sha256(convert_to(applied_payload::text, 'UTF8')), 'hex'), ''),
                    problem = case when applied_payload is null then problem end
                where delivery_key = %s and payload_hash = %s and state in ('delivered', 'refused')
                """,
                [addition["delivery_key"], addition["payload_hash"]],
            )
        self.counts.skipped += 1

    # -- create inert, record the winner ---------------------------------------------------------------------------

    def _create(self, addition: dict[str, Any], standing: dict[int, Record]) -> bool:
        """True when a ConnectWise id is recorded, whoever posted it; False when ConnectWise refused the Addition."""
        # Also what this ledger does not know of: it may have been restored from a backup.
        if self._take_standing(addition, standing):
            return True
        is_in_doubt = addition["was_attempted"]
        said = ""
        for _ in range(CREATE_TRIES):
            unanswered = self._may_come_late(addition, ()) if is_in_doubt else ""
            if is_in_doubt and self._adopt(addition):
                return True
            # Where it cannot be created inert, none is created again before a late one must have come.
            self._wait_for(addition, unanswered)
            try:
                payload = addition["payload"]
                record = self._connectwise.create_addition(
                    addition["agreement_id"],
                    inert(payload) if self._is_inert else payload,
                    note=lambda: self._invoke(addition, "create"),
                )
            except WriteRefusedError as error:
                self._attempt(addition, "create", "fail", detail=str(error))
                said = str(error)
                if error.status == TOO_MANY_REQUESTS:
                    continue  # certainly not applied; the budget of all workers waits as long as ConnectWise asked
                self._give_way(addition, error)
                self._wait_for(addition, self._may_come_late(addition, ()))
                self._refuse(addition, said)
                return False
            except WriteOutcomeUnknownError as error:
                self._attempt(addition, "create", "unknown", detail=str(error))
                said, is_in_doubt = str(error), True
                log.warning("%s: not known whether it was created: %s", addition["delivery_key"], error)
                continue
            self._attempt(addition, "create", "ok", connectwise_addition_id=record["id"])
            self._record_winner(addition, int(record["id"]))
            self._require_marker(addition, record)
            self.counts.created += 1
            return True
        if not is_in_doubt:
            raise TemporaryError(said)
        if self._adopt(addition):
            return True
        self.counts.in_doubt += 1
        raise InDoubtError(f"{addition['delivery_key']}: no answer to {CREATE_TRIES} tries to create it. {said}")

    def _require_marker(self, addition: dict[str, Any], record: Record) -> None:
        """Without its marker an Addition whose answer is lost would never be found again: nothing more is created."""
        found = self._marker.read(record)
        if found == addition["marker"]:
            return
        reason = (
            f"ConnectWise stored Addition {record['id']} of agreement {addition['agreement_id']} with marker {found} "
            f"instead of {addition['marker']}. Check the setting marker_carrier, and what changes that field."
        )
        pause(self._db, reason, "delivery")
        raise MarkerLostError(f"{reason} Delivery is paused; then: python -m billing_sync pauses end")

    def _adopt(self, addition: dict[str, Any]) -> bool:
        """Look for what an earlier try may have left in ConnectWise."""
        return self._take_standing(addition, self._list(addition["agreement_id"]))

    def _take_standing(self, addition: dict[str, Any], records: dict[int, Record]) -> bool:
        """Record the Addition with our marker on this agreement, if there is one: the lowest id."""
        found = [
            addition_id for addition_id, record in records.items() if self._marker.read(record) == addition["marker"]
        ]
        if not found:
            return False
        self._record_winner(addition, min(found))
        return True

    def _record_winner(self, addition: dict[str, Any], addition_id: int) -> None:
        """Compare-and-set: of all ids that were ever created for a key, exactly one is ever activated."""
        with self._fenced():
            self._db.execute(
                """
                update delivery.addition set connectwise_addition_id = %s, state = 'created'
                where delivery_key = %s and connectwise_addition_id is null and state = 'intended'
                """,
                [addition_id, addition["delivery_key"]],
            )
        winner = self._one("select * from delivery.addition where delivery_key = %s", [addition["delivery_key"]])
        assert winner is not None
        addition.update(winner)

    # -- activate, update ------------------------------------------------------------------------------------------

    def _activate(self, addition: dict[str, Any]) -> None:
        operations = patch_operations(addition["payload"])
        if addition["is_adopted"]:  # what was made by hand may stand without our marker yet
            operations += self._marker_for(addition)
        if self._patch(addition, "activate", operations):
            self._set_state(addition, "active")

    def _update(self, addition: dict[str, Any], standing: dict[int, Record]) -> None:
        """Change an Addition that stands, unless a person changed it since we last read it back."""
        agreement_id, addition_id = addition["agreement_id"], addition["connectwise_addition_id"]
        applied, record = addition["applied_payload"], standing.get(addition_id)
        if record is None or (applied is not None and differences(applied, record, self._marker)):
            unanswered = self._may_come_late(addition)
            record = self._connectwise.addition(agreement_id, addition_id) if addition_id else None
            if record is None:
                self._conflict(addition, "changed_in_connectwise", "the Addition was deleted in ConnectWise")
                self._forget_id(addition)
                return
            since_last = [] if applied is None else differences(applied, record, self._marker)
            if since_last and differences(addition["payload"], record, self._marker):
                self._wait_for(addition, unanswered)
                self._conflict(addition, "changed_in_connectwise", "; ".join(since_last))
                return
        operations = patch_operations(addition["payload"], applied)
        if addition["is_adopted"] and self._marker.read(record) != addition["marker"]:
            operations += marker_operations(addition["payload"], record)
        if not operations or self._patch(addition, "update", operations):
            self._set_state(addition, "active")
            self.counts.updated += 1

    def _marker_for(self, addition: dict[str, Any]) -> list[dict[str, Any]]:
        record = self._connectwise.addition(addition["agreement_id"], addition["connectwise_addition_id"])
        return marker_operations(addition["payload"], record or {})

    def _patch(self, addition: dict[str, Any], operation: str, operations: Sequence[dict[str, Any]]) -> bool:
        """Send an idempotent PATCH until its fate is known. False when ConnectWise refused it (the line is held)."""
        addition_id = addition["connectwise_addition_id"]
        said, is_in_doubt = "", False
        for _ in range(PATCH_TRIES):
            try:
                self._connectwise.patch_addition(
                    addition["agreement_id"],
                    addition_id,
                    operations,
                    note=lambda: self._invoke(addition, operation, addition_id),
                )
            except WriteRefusedError as error:
                self._attempt(addition, operation, "fail", connectwise_addition_id=addition_id, detail=str(error))
                said = str(error)
                if error.status == TOO_MANY_REQUESTS:
                    continue
                self._give_way(addition, error)
                if operation in ("activate", "update"):
                    self._judge_refusal(addition, operation, error)
                return False
            except WriteOutcomeUnknownError as error:
                self._attempt(addition, operation, "unknown", connectwise_addition_id=addition_id, detail=str(error))
                said, is_in_doubt = str(error), True
                continue
            self._attempt(addition, operation, "ok", connectwise_addition_id=addition_id)
            return True
        if not is_in_doubt:
            raise TemporaryError(said)
        self.counts.in_doubt += 1
        raise InDoubtError(f"{addition['delivery_key']}: no answer to {PATCH_TRIES} tries to {operation} it. {said}")

    def _judge_refusal(self, addition: dict[str, Any], operation: str, error: WriteRefusedError) -> None:
        """A refused activation left the Addition inert, unless it is gone or an earlier try went through unanswered."""
        self._wait_for(addition, self._may_come_late(addition))
        if operation == "update":
            self._conflict(addition, "refused_by_connectwise", str(error))
            return
        record = self._connectwise.addition(addition["agreement_id"], addition["connectwise_addition_id"])
        if record is None:
            self._conflict(addition, "changed_in_connectwise", "the Addition was deleted in ConnectWise")
            self._forget_id(addition)
        elif record.get("billCustomer") == "Billable":
            self._conflict(addition, "invoiced_meanwhile", f"it bills already, and ConnectWise says: {error}")
        else:
            self._refuse(addition, str(error))

    def _give_way(self, addition: dict[str, Any], error: WriteRefusedError) -> None:
        """Refusals that are not about the line itself end the work instead of holding the line."""
        if error.status in (401, 403):
            raise AuthenticationError(str(error)) from None
        if error.status == NOT_FOUND:
            # On cloud, bad keys answer 404 as well: reading tells, and raises if they are the reason.
            self._connectwise.agreement(addition["agreement_id"])
        if error.status is None:
            raise TemporaryError(str(error)) from None

    # -- read back -------------------------------------------------------------------------------------------------

    def _read_back(self, agreement_id: int, unfinished: list[str]) -> None:
        """Read the agreement's Additions once, compare each that was written, neutralise what is not a winner.

        If somebody ran agreement invoicing since it was planned, it cannot be told whether an Addition of the invoiced
        cycle came in time: neither billing it again nor calling it billed is safe.
        unfinished: see _one_of_many.
        """
        written = [addition for addition in self._open_additions(agreement_id) if addition["state"] == "active"]
        records = self._list(agreement_id)
        agreement = self._connectwise.agreement(agreement_id) if written else None
        invoiced_until = api_date(agreement.get("nextInvoiceDate")) if agreement else None
        for addition in written:
            with self._one_of_many(addition, unfinished):
                if (
                    invoiced_until is not None
                    and invoiced_until != addition["next_invoice_date"]
                    and self._carries_cycle_before(addition, invoiced_until)
                ):
                    moved = f"the next invoice date moved to {invoiced_until} while it was written"
                    self._conflict(addition, "invoiced_meanwhile", moved)
                else:
                    self._compare(addition, records)
        self._neutralise_orphans(agreement_id, records)

    def _compare(self, addition: dict[str, Any], records: dict[int, Record]) -> None:
        """Delivered, if ConnectWise holds what was sent; else it must not bill so.

        records: the agreement's Additions, as listed after writing.
        """
        agreement_id, addition_id = addition["agreement_id"], addition["connectwise_addition_id"]
        record = records.get(addition_id)
        found = differences(addition["payload"], record, self._marker) if record else ["it is not listed"]
        unanswered = ""
        if found:  # the list may be stale: ask for the record itself before judging
            unanswered = self._may_come_late(addition)
            record = self._connectwise.addition(agreement_id, addition_id)
            found = differences(addition["payload"], record, self._marker) if record else ["it is gone"]
        if found:
            back = addition["applied_payload"]
            if record is not None:
                self._patch(addition, "deactivate", self._silence() if back is None else patch_operations(back))
            self._wait_for(addition, unanswered)
            self._conflict(addition, "echo_differs", "; ".join(found))
            return
        with self._fenced():
            self._db.execute(
                """
                update delivery.addition
                set state = 'delivered', applied_payload = payload, delivered_at = now(), problem = null
                where delivery_key = %s and state = 'active' and payload_hash = %s
                """,
                [addition["delivery_key"], addition["payload_hash"]],
            )

    def _silence(self) -> list[dict[str, Any]]:
        """PATCH operations after which an Addition bills 0.00."""
        field, value = ("billCustomer", "DoNotBill") if self._is_inert else ("quantity", 0)
        return [{"op": "replace", "path": field, "value": value}]

    def _carries_cycle_before(self, addition: dict[str, Any], day: date) -> bool:
        """Whether this plan put a line of a cycle that begins before a day on the Addition."""
        return bool(
            self._all(
                """
                select from delivery.addition_line
                where delivery_key = %s and plan_id = %s and proven_run_id is null and cycle_start < %s
                """,
                [addition["delivery_key"], addition["plan_id"], day],
            )
        )

    def _neutralise_orphans(self, agreement_id: int, records: dict[int, Record]) -> None:
        """Additions with a marker of ours that are not the winner bill nothing already; make their end visible."""
        winners = {
            row["marker"]: row
            for row in self._all(
                "select * from delivery.addition where agreement_id = %s and connectwise_addition_id is not null",
                [agreement_id],
            )
        }
        for addition_id, record in records.items():
            winner = winners.get(self._marker.read(record) or "")
            if winner is None or winner["connectwise_addition_id"] == addition_id:
                continue
            begins, ends = api_date(record.get("effectiveDate")), api_date(record.get("cancelledDate"))
            is_silent = record.get("billCustomer") == "DoNotBill" or record.get("extPrice") == 0
            self._note_orphan(winner, addition_id)
            if not is_silent or begins != ends:
                orphan = {**winner, "connectwise_addition_id": addition_id}
                operations = [
                    *self._silence(),
                    {"op": "replace", "path": "cancelledDate", "value": record.get("effectiveDate")},
                ]
                if not self._patch(orphan, "neutralise", operations):
                    log.warning("agreement %s: orphan %s cannot be neutralised", agreement_id, addition_id)
                    continue
                self.counts.neutralised += 1
            self._db.execute(
                """
                update delivery.orphan set neutralised_at = now()
                where agreement_id = %s and connectwise_addition_id = %s and neutralised_at is null
                """,
                [agreement_id, addition_id],
            )
        self._db.execute(  # a person deleted it
            """
            update delivery.orphan set neutralised_at = now()
            where agreement_id = %s and neutralised_at is null and connectwise_addition_id <> all(%s)
            """,
            [agreement_id, list(records)],
        )

    def _note_orphan(self, winner: dict[str, Any], addition_id: int) -> None:
        self._db.execute(
            """
            insert into delivery.orphan (agreement_id, connectwise_addition_id, delivery_key) values (%s, %s, %s)
            on conflict (agreement_id, connectwise_addition_id) do update set neutralised_at = null
            """,
            [winner["agreement_id"], addition_id, winner["delivery_key"]],
        )

    # -- the ledger ------------------------------------------------------------------------------------------------

    def _refuse(self, addition: dict[str, Any], problem: str) -> None:
        """ConnectWise certainly did not take it: its lines are free again, and held with ConnectWise's words."""
        self._free_lines(addition, "refused", "refused_by_connectwise", problem)
        self.counts.refused += 1

    def _conflict(self, addition: dict[str, Any], reason_code: str, problem: str) -> None:
        self._free_lines(addition, "conflict", reason_code, problem)
        self.counts.conflicts += 1

    def _free_lines(
        self, addition: dict[str, Any], state: str, reason_code: str, problem: str, *, item_state: str | None = None
    ) -> None:
        """Hold the lines that this plan added to an Addition; lines delivered before stay with it."""
        with self._fenced():
            self._set_state(addition, state, problem)
            freed = self._all(
                """
                delete from delivery.addition_line where delivery_key = %s and plan_id = %s and proven_run_id is null
                returning line_id
                """,
                [addition["delivery_key"], addition["plan_id"]],
            )
            self._hold_lines([row["line_id"] for row in freed], reason_code, problem)
            self._db.execute(
                "update delivery.plan_item set state = %s where plan_id = %s and delivery_key = %s",
                [item_state or state, addition["plan_id"], addition["delivery_key"]],
            )

    def _set_aside_item(self, item: dict[str, Any], state: str, reason_code: str, problem: str) -> None:
        with self._fenced():
            lines = self._all(
                "select line_id from delivery.plan_item_line where plan_item_id = %s", [item["plan_item_id"]]
            )
            self._hold_lines([row["line_id"] for row in lines], reason_code, problem)
            self._set_item_state(item, state)

    def _set_item_state(self, item: dict[str, Any], state: str) -> None:
        self._db.execute(
            "update delivery.plan_item set state = %s where plan_item_id = %s and state = 'pending'",
            [state, item["plan_item_id"]],
        )

    def _hold_lines(self, line_ids: Sequence[int], reason_code: str, detail: str) -> None:
        self._db.execute(
            """
            insert into billing.held_reason (line_id, reason_code, detail)
            select unnest(%s::bigint[]), %s, %s
            on conflict (line_id, reason_code) do update set detail = excluded.detail
            """,
            [list(line_ids), reason_code, detail],
        )
        self._db.execute(
            "update billing.line_decision set outcome = 'held' where line_id = any(%s) and outcome = 'deliver'",
            [list(line_ids)],
        )

    def _set_state(self, addition: dict[str, Any], state: str, problem: str | None = None) -> None:
        with self._fenced():
            self._db.execute(
                "update delivery.addition set state = %s, problem = %s where delivery_key = %s and payload_hash = %s",
                [state, problem, addition["delivery_key"], addition["payload_hash"]],
            )
        addition["state"] = state

    def _fenced(self) -> AbstractContextManager[None]:
        """A transaction of the ledger, only while the agreement is ours."""
        assert self._claim is not None
        return self._claim.fenced()

    def _invoke(self, addition: dict[str, Any], operation: str, addition_id: int | None = None) -> None:
        """Called right before each write is sent: notes it down, or raises if it must not be sent."""
        assert self._claim is not None
        self._invoked = self._claim.invoke(
            delivery_key=addition["delivery_key"],
            company_id=addition["company_id"],
            plan_id=self._plan_id,
            operation=operation,
            addition_id=addition_id,
        )
        self.counts.writes += 1

    def _attempt(
        self,
        addition: dict[str, Any],
        operation: str,
        outcome: str,
        *,
        connectwise_addition_id: int | None = None,
        detail: str = "",
    ) -> None:
        """Note down what became of a write; also when the agreement is no longer ours."""
        assert self._claim is not None
        self._db.execute(
            """
            insert into delivery.attempt
                (delivery_key, plan_id, operation, outcome, connectwise_addition_id, detail, worker, claim_token,
                    invoke_id)
            values (%s, %s, %s, %s, %s, %s, %s, %s, nullif(%s, 0))
            """,
            [
                addition["delivery_key"],
                self._plan_id,
                operation,
                outcome,
                connectwise_addition_id,
                detail[:2000],
                self._worker,
                self._claim.token,
                self._invoked,
            ],
        )
        self._invoked = 0

    def _list(self, agreement_id: int) -> dict[int, Record]:
        return {int(record["id"]): record for page in self._connectwise.additions(agreement_id) for record in page}

    def _all(self, statement: str, values: Sequence[Any] | Mapping[str, Any]) -> list[dict[str, Any]]:
        with self._db.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(statement, values).fetchall()

    def _one(self, statement: str, values: Sequence[Any] | Mapping[str, Any]) -> dict[str, Any] | None:
        rows = self._all(statement, values)
        return rows[0] if rows else None
