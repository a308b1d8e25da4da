"""The negative controls: delivery as it is usually written. The harness must find what each of them bills twice.

They deliver the same plans to the same ConnectWise, under the same kills, overlaps and faulty answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from psycopg.rows import dict_row

from billing_sync.connectwise import ConnectWise
from billing_sync.db import Connection
from billing_sync.errors import AuthenticationError, TemporaryError, WriteOutcomeUnknownError, WriteRefusedError
from billing_sync.payload import MarkerCarrier, patch_operations

Item = dict[str, Any]


class Naive:
    """Task retries only: what is not written down as done is sent (again), billable at once."""

    def __init__(self, connection: Connection, connectwise: ConnectWise, plan_id: int) -> None:
        self._db = connection
        self._connectwise = connectwise
        self._plan_id = plan_id
        self._marker = MarkerCarrier.from_settings(connection)

    def deliver_shard(self, shard: int) -> None:
        """Deliver what is pending in a shard. Raises TemporaryError when it is to be tried again."""
        for item in self._pending(shard):
            with self._lock(item):
                self._deliver(item)

    @contextmanager
    def _lock(self, item: Item) -> Iterator[None]:  # noqa: ARG002
        yield

    def _is_there(self, item: Item) -> bool:  # noqa: ARG002
        return False

    def _deliver(self, item: Item) -> None:
        state = "done"
        try:
            if item["action"] == "update":
                self._connectwise.patch_addition(
                    item["agreement_id"], item["connectwise_addition_id"], patch_operations(item["payload"])
                )
            elif not self._is_there(item):
                self._connectwise.create_addition(item["agreement_id"], item["payload"])
        except WriteOutcomeUnknownError as error:
            raise TemporaryError(str(error)) from None
        except WriteRefusedError as error:
            if error.status in (401, 403):
                raise AuthenticationError(str(error)) from None
            if error.status != 400:
                raise TemporaryError(str(error)) from None
            state = "refused"
        self._db.execute(
            "update delivery.plan_item set state = %s where plan_item_id = %s", [state, item["plan_item_id"]]
        )

    def _pending(self, shard: int) -> list[Item]:
        with self._db.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(
                """
                select item.*, addition.connectwise_addition_id
                from delivery.plan_item as item left join delivery.addition as addition using (delivery_key)
                where item.plan_id = %s and item.shard = %s and item.state = 'pending' order by item.plan_item_id
                """,
                [self._plan_id, shard],
            ).fetchall()


class LookUp(Naive):
    """The plan is the committed intent; ConnectWise is asked for the marker before anything is sent."""

    def _is_there(self, item: Item) -> bool:
        return any(
            self._marker.read(record) == item["marker"]
            for page in self._connectwise.additions(item["agreement_id"])
            for record in page
        )


class LookUpUnderLock(LookUp):
    """The same while holding an advisory lock of the agreement, and looking again at what is done already."""

    @contextmanager
    def _lock(self, item: Item) -> Iterator[None]:
        with self._db.transaction():
            self._db.execute("select pg_advisory_xact_lock(hashtext('campaign'), %s)", [item["agreement_id"]])
            yield


CONTROLS: dict[str, type[Naive]] = {
    "naive": Naive,
    "look-up": LookUp,
    "look-up, locked": LookUpUnderLock,
}
