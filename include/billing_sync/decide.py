"""The decisions of a run, in order. Each step is a SQL file; the DAGs and the pages run the same files."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Final, Literal

import psycopg

from billing_sync.db import Connection, run_sql_file, working_for
from billing_sync.errors import BusyError, NotFoundError
from billing_sync.run import finish_run, log_entry, open_run

log = logging.getLogger(__name__)

REFRESH_REFERENCE = "mapping/refresh_reference.sql"
REFRESH_OFFERS = "mapping/refresh_offers.sql"
LOAD_INVOICES = "billing/load_invoices.sql"
LOAD_COSTS = "billing/load_costs.sql"
CHECK_SOURCE = "checks/check_source.sql"
MAP_LINES = "billing/map_lines.sql"
RESOLVE_AGREEMENTS = "billing/resolve_agreements.sql"
APPLY_RULES = "billing/apply_rules.sql"
HOLD_LINES = "billing/hold_lines.sql"
BOUND_AGREEMENTS = "billing/bound_agreements.sql"
BOUND_AMOUNTS = "billing/bound_amounts.sql"
BOUND_CREDITS = "billing/bound_credits.sql"
GROUP_LINES = "billing/group_lines.sql"
BOUND_ADDITIONS = "billing/bound_additions.sql"
MAKE_PLAN = "plan/make_plan.sql"
BOUND_PLAN = "plan/bound_plan.sql"

STEPS = (
    REFRESH_REFERENCE,
    REFRESH_OFFERS,
    LOAD_INVOICES,
    LOAD_COSTS,
    CHECK_SOURCE,
    MAP_LINES,
    RESOLVE_AGREEMENTS,
    APPLY_RULES,
    HOLD_LINES,
    BOUND_AGREEMENTS,
    BOUND_AMOUNTS,
    BOUND_CREDITS,
    GROUP_LINES,
    BOUND_ADDITIONS,
    MAKE_PLAN,
    BOUND_PLAN,
)
REVIEW_STEPS = (MAP_LINES, RESOLVE_AGREEMENTS, APPLY_RULES, HOLD_LINES, BOUND_AMOUNTS, BOUND_CREDITS)
REVIEW_DAG = "review_pages"  # no DAG of Airflow: what is decided again at once, after an edit on the pages
REVIEW_LOCK = 0x1E71E4
MANY_LINES = 3000  # more are decided in the background
FEW_LINES = 500  # these are looked up by index
LOCK_WAIT = "3s"
BACKGROUND_LOCK_WAIT = "30min"


def decide(connection: Connection, run_id: int) -> None:
    """Run every step from staged extracts to the plan, each in its own transaction."""
    for step in STEPS:
        run_sql_file(connection, step, run_id)


def count_outcomes(connection: Connection, run_id: int) -> dict[str, int]:
    """Lines that the run decides about, by outcome (deliver, held, excluded)."""
    with working_for(connection, run_id):
        rows = connection.execute(
            """
            select decision.outcome, count(*)
            from billing.line_in_scope join billing.line_decision as decision using (line_id)
            group by 1
            """
        ).fetchall()
    return {str(outcome): int(count) for outcome, count in rows}


def say_held_lines(connection: Connection, run_id: int) -> int:
    """Write into the log that people read how many lines are held, why, and the money at risk. Returns the reasons."""
    with working_for(connection, run_id):
        rows = connection.execute(
            """
            select held.reason_code, held.reason, held.currency, count(*), sum(held.money_at_risk)
            from billing.line_in_scope join reporting.held_line as held using (line_id)
            group by 1, 2, 3 order by 4 desc, 1
            """
        ).fetchall()
    for code, reason, currency, count, money in rows:
        message = f"{count} {'line' if count == 1 else 'lines'} held, {money} {currency}: {reason}"
        log.info(message)
        log_entry(connection, run_id, "WARNING", "lines_held", message, reason_code=code)
    return len(rows)


# -- deciding again, on the pages --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sum:
    """Money of lines in one currency."""

    currency: str
    amount: Decimal
    lines: int


def stored_sums(stored: Iterable[Mapping[str, Any]]) -> list[Sum]:
    """Sums as they were kept in jsonb."""
    return [Sum(one["currency"], Decimal(one["amount"]), one["lines"]) for one in stored]


@dataclass(frozen=True)
class Released:
    """What a change did to open lines once they were decided again.

    state: done; running: goes on in the background (ask `review_state`); later: a run was deciding, the next one
    decides by the change; failed: it broke off, the same. released: were held, are free; held: were free, are held.
    """

    state: Literal["done", "running", "later", "failed"]
    run_id: int | None = None
    decided: int = 0
    released: Sequence[Sum] = ()
    held: Sequence[Sum] = ()


def decide_again(
    connection: Connection,
    *,
    billing_periods: Collection[date] = (),
    organization_ids: Collection[str] = (),
    connect: Callable[[], AbstractContextManager[Connection]] | None = None,
) -> Released:
    """Decide the open lines of these billing periods and organizations again (empty: of all), as a run of kind review.

    It holds and frees lines, and takes those that are decided otherwise off the Addition that carries them, so that no
    older plan delivers them; it groups and plans nothing. All or nothing, in one transaction.
    connect: opens a further connection. With it, more than `MANY_LINES` lines are decided in a thread of their own. If
    that breaks off, nothing is lost: the next run decides again.
    Raises BusyError when a run is deciding right now.
    """
    run_id = open_run(
        connection,
        dag_id=REVIEW_DAG,
        dag_run_id=uuid.uuid4().hex,
        kind="review",
        billing_periods=sorted(billing_periods),
        organization_ids=sorted(organization_ids),
    )
    if connect is not None and _lines_in_scope(connection, run_id) > MANY_LINES:
        _decide_in_background(connect, run_id)
        return Released("running", run_id)
    return _decide_review(connection, run_id, lock_wait=LOCK_WAIT)


def try_decide_again(
    connection: Connection,
    *,
    billing_periods: Collection[date] = (),
    organization_ids: Collection[str] = (),
    connect: Callable[[], AbstractContextManager[Connection]] | None = None,
) -> Released:
    """As `decide_again`, for a change that is stored already: a run that is deciding right now makes it `later`."""
    try:
        return decide_again(
            connection, billing_periods=billing_periods, organization_ids=organization_ids, connect=connect
        )
    except BusyError:
        return Released("later")


def review_state(connection: Connection, run_id: int) -> Released:
    """How far a run of kind review has come. Raises NotFoundError when there is no such run."""
    state = _state_of_review(connection, run_id)
    # The thread holds the lock as long as it lives; without it, it was cut off (the API server was restarted, say).
    if state == "running" and _is_free(connection, run_id) and _state_of_review(connection, run_id) == "running":
        return Released("failed", run_id)
    if state != "succeeded":
        return Released("running" if state == "running" else "failed", run_id)
    row = connection.execute(
        "select subject from audit.log_entry where run_id = %s and code = 'decided_again'", [run_id]
    ).fetchone()
    told: dict[str, Any] = row[0] if row else {}

    return Released(
        "done", run_id, told.get("decided", 0), stored_sums(told.get("released", ())), stored_sums(told.get("held", ()))
    )


def _lines_in_scope(connection: Connection, run_id: int) -> int:
    with working_for(connection, run_id):
        row = connection.execute("select count(*) from billing.line_in_scope").fetchone()
    assert row is not None
    return int(row[0])


def _decide_in_background(connect: Callable[[], AbstractContextManager[Connection]], run_id: int) -> None:
    with ExitStack() as opened:
        connection = opened.enter_context(connect())
        connection.execute("select pg_advisory_lock(%s, %s)", [REVIEW_LOCK, _lock_number(run_id)])
        to_close = opened.pop_all()

    def work() -> None:
        with to_close:
            try:
                _decide_review(connection, run_id, lock_wait=BACKGROUND_LOCK_WAIT)
            except Exception:  # whoever waits reads it from the run's state
                log.exception("run %s: deciding again broke off; the next run decides by what is stored", run_id)
                with suppress(psycopg.Error):
                    finish_run(connection, run_id, is_failed=True)

    threading.Thread(target=work, name=f"review {run_id}", daemon=True).start()


def _lock_number(run_id: int) -> int:
    return run_id % 2**31


def _is_free(connection: Connection, run_id: int) -> bool:
    with connection.transaction():
        row = connection.execute(
            "select pg_try_advisory_xact_lock(%s, %s)", [REVIEW_LOCK, _lock_number(run_id)]
        ).fetchone()
    return bool(row and row[0])


def _state_of_review(connection: Connection, run_id: int) -> str:
    row = connection.execute("select state from audit.run where run_id = %s and kind = 'review'", [run_id]).fetchone()
    if row is None:
        raise NotFoundError(f"There is no run {run_id} that decided lines again.")
    return str(row[0])


@contextmanager
def deciding(connection: Connection, *, lock_wait: str = LOCK_WAIT) -> Iterator[None]:
    """A transaction that no run decides in. Raises BusyError when one is at it for longer than lock_wait."""
    try:
        with connection.transaction():
            # The bound of a web request's statements is meant neither for waiting in the background nor for deciding.
            connection.execute(
                "select set_config('statement_timeout', '30min', true), set_config('lock_timeout', %s, true)",
                [lock_wait],
            )
            connection.execute("select pg_advisory_xact_lock(hashtext('billing.decide'))")
            yield
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
        raise BusyError("A run is deciding right now. Try again in a moment.") from None


def _decide_review(connection: Connection, run_id: int, *, lock_wait: str) -> Released:
    try:
        with deciding(connection, lock_wait=lock_wait):
            with working_for(connection, run_id):
                lines = connection.execute(_REMEMBER).rowcount
                if lines <= FEW_LINES:  # PostgreSQL cannot know how few: it would read whole tables to join them
                    connection.execute(
                        "select set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)"
                    )
            for step in REVIEW_STEPS:
                run_sql_file(connection, step, run_id)
            with working_for(connection, run_id):
                connection.execute(_JUDGE)
                connection.execute(_DATE)
                decided, *sums = _compared(connection)
                finish_run(connection, run_id)
            _say_released(connection, run_id, decided, *sums)
    except BusyError:
        with suppress(psycopg.Error):  # of a transaction around it, the run itself is taken back
            finish_run(connection, run_id, is_failed=True)
        raise
    return Released("done", run_id, decided, *sums)


def _compared(connection: Connection) -> tuple[int, list[Sum], list[Sum]]:
    """How many lines were decided; what was released, and what is held now."""
    row = connection.execute("select count(*) from remembered_decision").fetchone()
    assert row is not None
    rows = connection.execute(_COMPARE).fetchall()
    return (
        int(row[0]),
        [Sum(currency, amount, lines) for outcome, currency, amount, lines in rows if outcome == "deliver"],
        [Sum(currency, amount, lines) for outcome, currency, amount, lines in rows if outcome == "held"],
    )


def _say_released(
    connection: Connection, run_id: int, decided: int, released: Sequence[Sum], held: Sequence[Sum]
) -> None:
    if not released and not held and decided <= MANY_LINES:
        return

    def words(sums: Sequence[Sum]) -> str:
        return ", ".join(f"{one.lines} lines, {one.amount} {one.currency}" for one in sums) or "none"

    log_entry(
        connection, run_id, "INFO", "decided_again",
        f"{decided} lines decided again on the pages. Released: {words(released)}. Held now: {words(held)}.",
        decided=decided, released=[asdict(one) for one in released], held=[asdict(one) for one in held],
    )  # fmt: skip


_REMEMBER: Final = """
    create temporary table remembered_decision on commit drop as
    select
        scope.line_id, decision.outcome, decision.delivery_key, decision.company_id, decision.agreement_id,
        decision.product_id, decision.effective_date, decision.cancelled_date, decision.quantity, decision.unit_price,
        decision.invoice_description, decision.taxable_flag, decision.unit_cost, decision.can_be_persistent
    from billing.line_in_scope as scope left join billing.line_decision as decision using (line_id)
"""

# What is decided otherwise leaves the Addition that carries it. What grouping, plan or delivery found is judged by the
# next run only: until then it holds the line, unless the line itself is decided otherwise now.
_JUDGE: Final = """
    update billing.line_decision as known
    set
        outcome = case when judged.is_otherwise then known.outcome else 'held' end,
        delivery_key = null, run_id = audit.current_run_id(), decided_at = now()
    from (
        select
            decision.line_id,
            before.outcome as outcome_before,
            (decision.company_id, decision.agreement_id, decision.product_id, decision.effective_date,
                decision.cancelled_date, decision.quantity::numeric, decision.unit_price::numeric,
                decision.invoice_description, decision.taxable_flag, decision.unit_cost::numeric,
                decision.can_be_persistent)
            is distinct from (before.company_id, before.agreement_id, before.product_id, before.effective_date,
                before.cancelled_date, before.quantity::numeric, before.unit_price::numeric,
                before.invoice_description, before.taxable_flag, before.unit_cost::numeric,
                before.can_be_persistent) as is_otherwise
        from remembered_decision as before
        join billing.line_decision as decision using (line_id)
    ) as judged
    where
        known.line_id = judged.line_id
        and case
            when judged.is_otherwise then known.delivery_key is not null
            else judged.outcome_before = 'held' and known.outcome = 'deliver'
                and exists (select from billing.held_reason as reason where reason.line_id = known.line_id)
        end
"""

# now() is when the transaction began; a change made within it is younger, and "why" would tell the line without it.
_DATE: Final = """
    update billing.line_decision set decided_at = clock_timestamp()
    where run_id = audit.current_run_id() and line_id in (select line_id from remembered_decision)
"""

_COMPARE: Final = """
    select decision.outcome, coalesce(line.currency, ''), coalesce(sum(line.total_price), 0), count(*)
    from remembered_decision as before
    join billing.line_decision as decision using (line_id)
    join billing.invoice_line as line using (line_id)
    where (before.outcome, decision.outcome) in (('held', 'deliver'), ('deliver', 'held'))
    group by 1, 2 order by 1, 2
"""
