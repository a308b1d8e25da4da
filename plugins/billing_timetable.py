"""The schedule of a DAG that is only ever backfilled or triggered by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.timetables.interval import CronDataIntervalTimetable

if TYPE_CHECKING:
    from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction


class MonthlyOnDemand(CronDataIntervalTimetable):
    """Calendar months in UTC that the scheduler never runs by itself.

    `airflow backfill create` needs a schedule, and an unpaused DAG with a schedule gets runs of its own: they would
    come in the way of a backfill (a month that has a run is passed over) and run beside the nightly one. The
    scheduler asks with catchup off, as the DAG says; a backfill with catchup on (DAG.iter_dagrun_infos_between).
    """

    def __init__(self) -> None:
        super().__init__("0 0 1 * *", timezone="UTC")

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """Only for backfills."""
        if not restriction.catchup:
            return None
        return super().next_dagrun_info(
            last_automated_data_interval=last_automated_data_interval, restriction=restriction
        )

    def serialize(self) -> dict[str, str]:
        """Nothing to keep: the schedule is always the same."""
        return {}

    @classmethod
    def deserialize(cls, data: dict[str, str]) -> MonthlyOnDemand:  # noqa: ARG003
        """As serialize gave it."""
        return cls()

    @property
    def summary(self) -> str:
        """As the UI shows it."""
        return "monthly, by backfill only"
