"""Adoption: Additions that people made by hand are listed with evidence, and taken over by a person's word.

    scan ──▶ export FILE.csv ──▶ a person fills `state` ──▶ import FILE.csv ──▶ the next plan changes the Addition

Taking over writes nothing to ConnectWise: it notes down in the ledger what stands there. The next plan that has a line
of the subscription adds our marker and brings values and end to AppXite's. See docs/cut-over.md.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from psycopg.rows import dict_row

from billing_sync.connectwise import CONNECTION, DEFAULT_API_VERSION, ConnectWise
from billing_sync.db import Connection, connect
from billing_sync.errors import ConfigurationError
from billing_sync.extract import extract_additions
from billing_sync.mappings import is_target_id, not_formulas, read_csv, typed_text
from billing_sync.payload import MarkerCarrier, differences
from billing_sync.rate_budget import DatabaseLimiter
from billing_sync.run import finish_run, open_run
from billing_sync.settings import get_setting

FEED = "hand_made_additions"
KEY = ("agreement_id", "connectwise_addition_id", "subscription_id")
NEEDED = (*KEY, "version", "state")


@dataclass(frozen=True)
class ScanCounts:
    """What a scan found. additions: all of the agreements; hand_made: those that may be taken over."""

    agreements: int
    additions: int
    hand_made: int


@dataclass(frozen=True)
class AdoptionCounts:
    """What an import did: Additions taken over now, ignored now, and rows that changed nothing."""

    approved: int
    ignored: int
    unchanged: int


def connectwise_of_environment(dsn: str) -> ConnectWise:
    """A client that cannot write, by the Airflow connection in the environment (AIRFLOW_CONN_CONNECTWISE_API, as JSON).

    It shares the budget of requests with all workers. Raises ConfigurationError for a missing field.
    """
    name = f"AIRFLOW_CONN_{CONNECTION.upper()}"
    try:
        given = json.loads(os.environ.get(name) or "{}")
        extra = given.get("extra") or {}
        extra = json.loads(extra) if isinstance(extra, str) else extra
    except (ValueError, AttributeError):
        given, extra = {}, {}
    if not isinstance(given, dict) or not isinstance(extra, dict) or not given.get("host"):
        raise ConfigurationError(f"{name} is not set, or no JSON with host, login, password and extra (see README.md).")
    host, port = str(given["host"]).rstrip("/"), given.get("port")
    url = host if "://" in host else f"{given.get('schema') or 'https'}://{host}"
    with connect(dsn) as connection:
        budget = get_setting(connection, "requests_per_minute")
    return ConnectWise(
        f"{url}:{port}" if port else url,
        str(extra.get("company_id") or ""),
        str(given.get("login") or ""),
        str(given.get("password") or ""),
        str(extra.get("client_id") or ""),
        str(extra.get("api_version") or DEFAULT_API_VERSION),
        read_only=True,
        limiter=DatabaseLimiter(lambda: connect(dsn), CONNECTION, budget),
        verify=extra.get("verify") or True,
    )


def scan(connection: Connection, connectwise: ConnectWise) -> ScanCounts:
    """Read all Additions of the active agreements of mapped companies anew. Writes nothing to ConnectWise."""
    agreements = [
        row[0]
        for row in connection.execute(
            """
            select agreement.agreement_id from mapping.agreement as agreement
            where
                agreement.unusable is null
                and (
                    exists (
                        select from mapping.organization_mapping as mapped
                        where mapped.company_id = agreement.company_id and mapped.state = 'approved'
                    )
                    or exists (
                        select from billing.line_decision as decision
                        where decision.agreement_id = agreement.agreement_id
                            or decision.company_id = agreement.company_id
                    )
                )
            order by 1
            """
        ).fetchall()
    ]
    today = datetime.now(UTC)
    run_id = open_run(
        connection, dag_id="command_line", dag_run_id=f"adoption scan {today.isoformat()}", kind="reference",
        billing_periods=[today.date().replace(day=1)],
    )  # fmt: skip
    counts = extract_additions(
        connection, connectwise, run_id, agreements, MarkerCarrier.from_settings(connection).read, feed=FEED
    )
    finish_run(connection, run_id)
    row = connection.execute(
        "select count(*) from delivery.hand_made_addition where refused_because is null"
    ).fetchone()
    assert row is not None
    return ScanCounts(len(agreements), counts.rows[FEED], row[0])


def export_candidates(connection: Connection) -> pd.DataFrame:
    """Additions made by hand that still bill, one row per subscription that each may stand for, as text ready for CSV.

    Best evidence first. An Addition without a candidate has one row without subscription. `state` is empty where nobody
    has decided; fill in `approved` in the one right row of an Addition, or `ignored`.
    """
    rows = connection.execute(
        """
        select
            made.agreement_id::text, made.agreement_name, company.name as company_name,
            made.connectwise_addition_id::text, product.identifier as product,
            trim_scale(made.quantity)::text as quantity, trim_scale(made.unit_price)::text as unit_price,
            made.effective_date::text, made.cancelled_date::text, made.serial_number, made.invoice_description,
            candidate.subscription_id, candidate.subscription_name, candidate.score::text, candidate.evidence,
            case
                when candidate.subscription_id is null then 'no subscription fits'
                when count(*) over best > 1 then format('%s subscriptions fit as well', count(*) over best)
                when count(*) over rival > 1 then format('%s Additions fit as well', count(*) over rival)
            end as ambiguity,
            candidate.refused_because,
            candidate.covered_lines::text, candidate.covered_amount::text, made.next_invoice_date::text,
            left(md5(made.observed::text), 12) as version,
            case
                when adoption.state = 'ignored' then 'ignored'
                when adoption.state = 'approved' and adoption.subscription_id = candidate.subscription_id
                    then 'approved'
            end as state,
            adoption.note
        from delivery.hand_made_addition as made
        left join delivery.adoption_candidate as candidate using (agreement_id, connectwise_addition_id)
        left join delivery.adoption as adoption using (agreement_id, connectwise_addition_id)
        left join mapping.company as company on company.company_id = made.company_id
        left join mapping.product as product on product.product_id = made.product_id
        where made.refused_because is null
        window
            best as (partition by made.agreement_id, made.connectwise_addition_id, candidate.score),
            rival as (partition by made.agreement_id, candidate.subscription_id, candidate.score)
        order by made.agreement_name, made.agreement_id, made.connectwise_addition_id, candidate.score desc,
            candidate.subscription_id
        """
    )
    assert rows.description is not None
    columns = [column.name for column in rows.description]
    return not_formulas(pd.DataFrame(rows.fetchall(), columns=columns, dtype="str"))


def read_adoption_file(path: Path) -> pd.DataFrame:
    """Read and check a CSV file as `export_candidates` makes it; only the columns NEEDED and `note` count.

    Raises ConfigurationError that names file, line and what is expected.
    """
    frame = read_csv(path)
    missing = [column for column in NEEDED if column not in frame.columns]
    if missing:
        raise ConfigurationError(f"{path} lacks the column {' and '.join(missing)}. Export it anew.")
    frame = frame.assign(**{name: frame[name].str.strip() for name in NEEDED})
    frame["note"] = (frame["note"] if "note" in frame else pd.Series("", index=frame.index)).map(typed_text)
    problems = []
    for number, row in zip(frame.index, frame.to_dict("records"), strict=True):
        problems += [
            f"line {number}: {name} {row[name]!r} is not a ConnectWise id"
            for name in KEY[:2]
            if not is_target_id(row[name])
        ]
        if row["state"] not in ("", "approved", "ignored"):
            problems.append(f"line {number}: state {row['state']!r} is neither approved nor ignored")
        if row["state"] == "approved" and not row["subscription_id"]:
            problems.append(f"line {number}: approved without a subscription_id")
    if problems:
        raise ConfigurationError(f"{path}: nothing was imported. " + "; ".join(problems[:20]))
    return frame


def import_adoptions(
    connection: Connection, connectwise: ConnectWise, frame: pd.DataFrame, *, person: str
) -> AdoptionCounts:
    """Take over what the rows approve and note down what they ignore, all or nothing. Writes nothing to ConnectWise.

    Each Addition to be taken over is read again. From then on older plans do not create an Addition for its
    subscription any more. Raises ConfigurationError that names each line that cannot be done, and why.
    """
    wanted = [
        (line, int(row["agreement_id"]), int(row["connectwise_addition_id"]), row["subscription_id"] or None,
            row["version"], row["state"], row["note"] or None)
        for line, row in zip(frame.index, frame.to_dict("records"), strict=True)
        if row["state"]
    ]  # fmt: skip
    changed = _changed_since_scan(connection, connectwise, wanted)
    with connection.transaction():
        connection.execute("select set_config('billing.user', %s, true)", [person])
        connection.execute("select pg_advisory_xact_lock(hashtext('billing.decide'))")
        connection.execute(
            """
            create temporary table given (
                line integer, agreement_id integer, connectwise_addition_id integer, subscription_id text, version text,
                state text, note text
            ) on commit drop
            """
        )
        with connection.cursor() as cursor, cursor.copy("copy given from stdin") as copy:
            for row in wanted:
                copy.write_row(row)
        # A worker that is at one of these agreements now finds its claim gone, and is tried again.
        connection.execute(
            """
            update delivery.claim set token = token + 1
            where agreement_id in (select agreement_id from given where state = 'approved')
            """
        )
        connection.execute(_NEW)
        problems = [*changed, *(f"line {line}: {why}" for line, why in connection.execute(_PROBLEMS).fetchall())]
        if problems:
            raise ConfigurationError(f"Nothing was imported. {'; '.join(problems[:20])}")
        approved = connection.execute(_APPROVE).fetchall()
        ignored = connection.execute(_IGNORE).fetchall()
        connection.execute(_FREE_LINES)
    return AdoptionCounts(len(approved), len(ignored), len(wanted) - len(approved) - len(ignored))


def _changed_since_scan(connection: Connection, connectwise: ConnectWise, wanted: list[tuple[Any, ...]]) -> list[str]:
    """In words, which of the Additions to be taken over are not in ConnectWise as the scan saw them."""
    carrier = MarkerCarrier.from_settings(connection)
    found = []
    for line, agreement_id, addition_id, _, _, state, _ in wanted:
        if state != "approved":
            continue
        row = connection.execute(
            """
            select made.observed from delivery.hand_made_addition as made
            where
                (made.agreement_id, made.connectwise_addition_id) = (%s, %s) and made.refused_because is null
                and not exists (
                    select from delivery.adoption as known
                    where known.state = 'approved' and known.agreement_id = made.agreement_id
                        and known.connectwise_addition_id = made.connectwise_addition_id
                )
            """,
            [agreement_id, addition_id],
        ).fetchone()
        if row is None:
            continue  # said by _PROBLEMS, or taken over already
        record = connectwise.addition(agreement_id, addition_id)
        if record is None:
            found.append(f"line {line}: Addition {addition_id} was deleted since the scan")
        elif words := differences(
            {key: value for key, value in row[0].items() if key != "serialNumber"}, record, carrier
        ):
            found.append(
                f"line {line}: Addition {addition_id} was changed since the scan ({'; '.join(words)}): scan again"
            )
    return found


# What of the file says something new.
_NEW = """
create temporary table new_adoption on commit drop as
select distinct on (given.agreement_id, given.connectwise_addition_id, given.subscription_id) given.*
from given
where
    given.state = 'approved'
    and not exists (
        select from delivery.adoption as known
        where known.agreement_id = given.agreement_id and known.connectwise_addition_id = given.connectwise_addition_id
            and known.state = 'approved' and known.subscription_id = given.subscription_id
    )
order by given.agreement_id, given.connectwise_addition_id, given.subscription_id, given.line
"""

_PROBLEMS = """
select problem.line, problem.why
from (
    select
        new.line,
        case
            when made.agreement_id is null then format('agreement %s has no Addition %s in the last scan',
                new.agreement_id, new.connectwise_addition_id)
            when made.refused_because is not null then format('Addition %s cannot be taken over: %s',
                new.connectwise_addition_id, made.refused_because)
            when new.version <> left(md5(made.observed::text), 12) then format(
                'Addition %s was changed since the file was exported', new.connectwise_addition_id)
            when known.agreement_id is not null then format('Addition %s is taken over for subscription %s already',
                new.connectwise_addition_id, known.subscription_id)
            when candidate.subscription_id is null then format('subscription %s is no candidate for Addition %s',
                new.subscription_id, new.connectwise_addition_id)
            when candidate.refused_because is not null then format(
                'Addition %s cannot be taken over for subscription %s: %s',
                new.connectwise_addition_id, new.subscription_id, candidate.refused_because)
            when taken.agreement_id is not null then format('subscription %s has taken over Addition %s already',
                new.subscription_id, taken.connectwise_addition_id)
            when twin.line is not null then format('line %s approves the same Addition or the same subscription',
                twin.line)
            when busy.delivery_key is not null then format(
                'an Addition of subscription %s is being delivered now: import again when that is done',
                new.subscription_id)
        end as why
    from new_adoption as new
    left join delivery.hand_made_addition as made using (agreement_id, connectwise_addition_id)
    left join delivery.adoption_candidate as candidate using (agreement_id, connectwise_addition_id, subscription_id)
    left join delivery.adoption as known
        on known.agreement_id = new.agreement_id and known.connectwise_addition_id = new.connectwise_addition_id
        and known.state = 'approved'
    left join delivery.adoption as taken
        on taken.agreement_id = new.agreement_id and taken.subscription_id = new.subscription_id
        and taken.state = 'approved'
    left join lateral (
        select other.line from given as other
        where
            other.state = 'approved' and other.line <> new.line and other.agreement_id = new.agreement_id
            and (
                other.connectwise_addition_id = new.connectwise_addition_id
                or other.subscription_id = new.subscription_id
            )
        order by other.line limit 1
    ) as twin on true
    left join lateral (
        select ledger.delivery_key from delivery.addition as ledger
        where
            ledger.agreement_id = new.agreement_id and ledger.subscription_id = new.subscription_id
            and ledger.state not in ('delivered', 'refused')
        limit 1
    ) as busy on true
    union all
    select given.line, format('Addition %s is taken over: release it first', given.connectwise_addition_id)
    from given
    join delivery.adoption as known using (agreement_id, connectwise_addition_id)
    where
        given.state = 'ignored' and known.state = 'approved'
        and (given.subscription_id is null or given.subscription_id = known.subscription_id)
) as problem
where problem.why is not null
order by problem.line
"""

_APPROVE = """
with approved as (
    insert into delivery.adoption as known (agreement_id, connectwise_addition_id, subscription_id, state,
        covered_before, observed, evidence, covered_lines, covered_amount, delivery_key, note)
    select
        new.agreement_id, new.connectwise_addition_id, new.subscription_id, 'approved', made.next_invoice_date,
        made.observed, candidate.evidence, candidate.covered_lines, candidate.covered_amount,
        format('%s/adopted/%s/%s', billing.text_setting('environment'), new.agreement_id, new.connectwise_addition_id),
        new.note
    from new_adoption as new
    join delivery.hand_made_addition as made using (agreement_id, connectwise_addition_id)
    join delivery.adoption_candidate as candidate using (agreement_id, connectwise_addition_id, subscription_id)
    on conflict (agreement_id, connectwise_addition_id) do update set
        subscription_id = excluded.subscription_id, state = excluded.state, covered_before = excluded.covered_before,
        observed = excluded.observed, evidence = excluded.evidence, covered_lines = excluded.covered_lines,
        covered_amount = excluded.covered_amount, delivery_key = excluded.delivery_key, note = excluded.note,
        decided_by = audit.current_person(), decided_at = now()
    returning known.*
)
insert into delivery.addition (delivery_key, marker, agreement_id, company_id, subscription_id, is_persistent,
    is_adopted, state, connectwise_addition_id, payload, payload_hash, applied_payload)
select
    approved.delivery_key, delivery.marker_for(approved.delivery_key), approved.agreement_id, agreement.company_id,
    approved.subscription_id, true, true, 'delivered', approved.connectwise_addition_id, ledger.payload,
    encode(sha256(convert_to(ledger.payload::text, 'UTF8')), 'hex'), ledger.payload
from approved
join mapping.agreement as agreement using (agreement_id)
-- Without what our marker replaces.
cross join lateral (select approved.observed - 'serialNumber' as payload) as ledger
returning delivery_key
"""

_IGNORE = """
insert into delivery.adoption as known (agreement_id, connectwise_addition_id, state, note)
select distinct on (given.agreement_id, given.connectwise_addition_id)
    given.agreement_id, given.connectwise_addition_id, 'ignored', given.note
from given
where
    given.state = 'ignored'
    and not exists (
        select from given as chosen
        where chosen.agreement_id = given.agreement_id and chosen.state = 'approved'
            and chosen.connectwise_addition_id = given.connectwise_addition_id
    )
order by given.agreement_id, given.connectwise_addition_id, given.line
on conflict (agreement_id, connectwise_addition_id) do update set
    state = 'ignored', note = excluded.note, decided_by = audit.current_person(), decided_at = now()
    where known.state = 'released'
returning adoption_id
"""

# Plans made before do not know of it: their items for these subscriptions are skipped, and planned anew.
_FREE_LINES = """
update billing.line_decision as decision set delivery_key = null
from billing.invoice_line as line, new_adoption as new
where
    line.line_id = decision.line_id and line.subscription_id = new.subscription_id
    and decision.agreement_id = new.agreement_id and decision.delivery_key is not null
    and not exists (select from delivery.addition_line as carried where carried.line_id = line.line_id)
"""


def release(connection: Connection, adoption_id: int, person: str) -> str:
    """Give an Addition back that no plan has changed yet; returns what it was, in words.

    It bills on as it was made by hand; the next run gives the subscription an Addition of its own.
    Raises ConfigurationError if it is not taken over, or was changed already.
    """
    with connection.transaction():
        connection.execute("select set_config('billing.user', %s, true)", [person])
        connection.execute("select pg_advisory_xact_lock(hashtext('billing.decide'))")
        connection.execute(
            """
            update delivery.claim set token = token + 1
            where agreement_id in (select agreement_id from delivery.adoption where adoption_id = %s)
            """,
            [adoption_id],
        )
        row = connection.execute(
            """
            select adoption.agreement_id, adoption.connectwise_addition_id, adoption.subscription_id,
                adoption.delivery_key, ledger.state = 'delivered'
                and not exists (
                    select from delivery.attempt where attempt.delivery_key = adoption.delivery_key
                )
                and not exists (
                    select from delivery.addition_line as carried where carried.delivery_key = adoption.delivery_key
                )
            from delivery.adoption as adoption join delivery.addition as ledger using (delivery_key)
            where adoption.adoption_id = %s and adoption.state = 'approved'
            """,
            [adoption_id],
        ).fetchone()
        if row is None:
            raise ConfigurationError(
                f"There is no Addition taken over with id {adoption_id}. "
                "List them with: python -m billing_sync adoption list"
            )
        agreement_id, addition_id, subscription_id, delivery_key, is_unchanged = row
        if not is_unchanged:
            raise ConfigurationError(f"Addition {addition_id} was changed by a plan already: it cannot be released.")
        connection.execute(
            """
            update billing.line_decision as decision set delivery_key = null
            where decision.delivery_key = %s
            """,
            [delivery_key],
        )
        connection.execute("delete from delivery.addition where delivery_key = %s", [delivery_key])
        connection.execute(
            """
            update delivery.adoption set state = 'released', decided_by = audit.current_person(), decided_at = now()
            where adoption_id = %s
            """,
            [adoption_id],
        )
    return f"Addition {addition_id} of agreement {agreement_id}, taken over for subscription {subscription_id}"


def adoptions(connection: Connection) -> list[dict[str, Any]]:
    """What people decided, newest first: reporting.adoption."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute("select * from reporting.adoption order by adoption_id desc").fetchall()
