"""What the Dashboard shows: set-up state, the money of billing periods, held money with its age, runs, subscriptions.

Money comes per currency, as {"currency", "amount", "lines"}. All of it is read from tables, so that it is quick with
100,000 lines in a period; what an outcome is stands in the view billing.line_money.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any, Literal

from psycopg import sql

from billing_sync.db import Connection, read_rows

Row = dict[str, Any]
PERIODS_SHOWN = 24


# -- money -------------------------------------------------------------------------------------------------------------


def money_by_period(connection: Connection, periods: int = PERIODS_SHOWN) -> list[Row]:
    """The newest billing periods, newest first: {billing_period: YYYY-MM, invoices, outcomes: [money with outcome]}."""
    known = read_rows(
        connection,
        """
        select to_char(billing_period, 'YYYY-MM') as billing_period, count(*) as invoices
        from billing.invoice group by 1 order by 1 desc limit %(periods)s
        """,
        {"periods": periods},
    )
    found = {row["billing_period"]: {**row, "outcomes": []} for row in known}
    if found:
        for row in read_rows(
            connection,
            """
            select
                to_char(invoice.billing_period, 'YYYY-MM') as billing_period,
                coalesce(line.currency, invoice.currency) as currency,
                line.outcome, count(*) as lines,
                coalesce(sum(line.total_price), 0) as amount
            from billing.invoice as invoice join billing.line_money as line using (invoice_id)
            where invoice.billing_period >= to_date(%(oldest)s, 'YYYY-MM')
            group by 1, 2, 3 order by 1, 2, 3
            """,
            {"oldest": min(found)},
        ):
            found[row.pop("billing_period")]["outcomes"].append(row)
    return list(found.values())


CUSTOMER_COLUMNS = (
    "organization_name", "currency", "total", "delivered", "held", "excluded", "awaiting_approval", "in_doubt",
)  # fmt: skip


def money_by_customer(
    connection: Connection, period: date, *, sort: str = "-total", limit: int = 50, offset: int = 0
) -> tuple[int, list[Row]]:
    """Of a billing period, how many rows there are (organization and currency), and a page of them.

    sort: one of CUSTOMER_COLUMNS, with - in front for descending.
    """
    column = sort.removeprefix("-")
    assert column in CUSTOMER_COLUMNS
    statement = sql.SQL(
        """
        with money as (
            select
                invoice.organization_id,
                coalesce(line.currency, invoice.currency) as currency,
                coalesce(sum(line.total_price), 0) as total,
                coalesce(sum(line.total_price) filter (where line.outcome = 'delivered'), 0) as delivered,
                coalesce(sum(line.total_price) filter (where line.outcome = 'held'), 0) as held,
                coalesce(sum(line.total_price) filter (where line.outcome = 'excluded'), 0) as excluded,
                coalesce(sum(line.total_price) filter (where line.outcome = 'awaiting approval'), 0)
                    as awaiting_approval,
                coalesce(sum(line.total_price) filter (where line.outcome = 'in doubt'), 0) as in_doubt
            from billing.invoice as invoice join billing.line_money as line using (invoice_id)
            where invoice.billing_period = %(period)s
            group by 1, 2
        )
        select
            count(*) over () as row_count, money.*, organization.name as organization_name,
            case when mapped.state = 'approved' then mapped.company_id end as company_id
        from money
        join mapping.organization as organization using (organization_id)
        left join mapping.organization_mapping as mapped using (organization_id)
        order by {column} {direction}, organization_name, organization_id, currency
        limit %(limit)s offset %(offset)s
        """
    ).format(column=sql.Identifier(column), direction=sql.SQL("desc" if sort.startswith("-") else "asc"))
    found = read_rows(connection, statement, {"period": period, "limit": limit, "offset": offset})
    if not found and offset:
        total, _ = money_by_customer(connection, period, sort=sort, limit=1)
        return total, []
    return (found[0]["row_count"] if found else 0), found


# -- held money --------------------------------------------------------------------------------------------------------

_HELD_LINE = """
    held_line as (
        select line.line_id, coalesce(line.currency, invoice.currency) as currency, line.total_price
        from billing.line_decision as decision
        join billing.invoice_line as line using (line_id)
        join billing.invoice as invoice using (invoice_id)
        where
            decision.outcome = 'held'
            and (%(period)s::date is null or invoice.billing_period = %(period)s)
            and not exists (select from delivery.addition_line as carried where carried.line_id = line.line_id)
    )
"""


def held_by_age(connection: Connection, period: date | None = None) -> list[Row]:
    """Held money by how long its line is held, each line once: money with bucket ("0-7", "8-30", "31-90", "90+")."""
    return read_rows(
        connection,
        f"""
        with {_HELD_LINE},
        aged as (
            select held_line.line_id, held_line.currency, held_line.total_price,
                extract(day from now() - min(reason.held_since)) as days
            from held_line left join billing.held_reason as reason using (line_id)
            group by held_line.line_id, held_line.currency, held_line.total_price
        )
        select
            case when days <= 7 or days is null then '0-7' when days <= 30 then '8-30' when days <= 90 then '31-90'
                else '90+' end as bucket,
            currency, coalesce(sum(total_price), 0) as amount, count(*) as lines
        from aged group by 1, 2 order by 2, 1
        """,  # noqa: S608
        {"period": period},
    )


def held_by_cause(connection: Connection, period: date | None = None) -> list[Row]:
    """What each reason holds: {code, title, cure, money: [...], oldest, days}, the oldest first.

    A line with several reasons counts under each.
    """
    found: dict[str, Row] = {}
    for row in read_rows(
        connection,
        f"""
        with {_HELD_LINE}
        select
            reason.reason_code as code, code.title, code.cure, held_line.currency,
            coalesce(sum(held_line.total_price), 0) as amount, count(*) as lines,
            min(reason.held_since) as oldest, extract(day from now() - min(reason.held_since))::integer as days
        from held_line
        join billing.held_reason as reason using (line_id)
        join billing.held_reason_code as code using (reason_code)
        group by reason.reason_code, code.title, code.cure, held_line.currency
        order by min(reason.held_since), reason.reason_code, held_line.currency
        """,  # noqa: S608
        {"period": period},
    ):
        cause = found.setdefault(
            row["code"], {**{key: row[key] for key in ("code", "title", "cure", "oldest", "days")}, "money": []}
        )
        cause["money"].append({key: row[key] for key in ("currency", "amount", "lines")})
    return list(found.values())


# -- runs --------------------------------------------------------------------------------------------------------------


def runs(
    connection: Connection, *, run_ids: Sequence[int] | None = None, before: int | None = None, limit: int = 20
) -> list[Row]:
    """Runs, newest first, with the newest plan of each, what it writes per currency, writes, errors and warnings.

    run_ids: these. before: older ones than this run_id. What the pages decide again is no run of the pipeline.
    """
    return read_rows(
        connection,
        """
        select
            run.run_id, run.dag_id, run.dag_run_id, run.kind,
            array(select to_char(period, 'YYYY-MM') from unnest(run.billing_periods::date[]) as period)
                as billing_periods,
            run.is_dry_run, run.state, run.started_at, run.ended_at, run.proven_at,
            plan.plan_id, plan.state as plan_state, plan.approved_by,
            coalesce(planned.additions, 0) as planned_additions,
            coalesce(planned.money, '[]') as planned_amount,
            (
                select string_agg(bound.detail, '; ' order by bound.bound_key) from delivery.plan_bound as bound
                where bound.plan_id = plan.plan_id
            ) as parked_because,
            (
                select count(*) from delivery.plan as any_plan join delivery.attempt using (plan_id)
                where any_plan.run_id = run.run_id and attempt.outcome = 'invoke'
            ) as writes,
            (
                select count(*) from audit.log_entry as entry where entry.run_id = run.run_id and entry.level = 'ERROR'
            ) as errors,
            (
                select count(*) from audit.log_entry as entry
                where entry.run_id = run.run_id and entry.level = 'WARNING'
            ) as warnings
        from (
            select * from audit.run
            where
                kind <> 'review'
                and (%(run_ids)s::bigint[] is null or run_id = any(%(run_ids)s))
                and (%(before)s::bigint is null or run_id < %(before)s)
            order by run_id desc limit %(limit)s
        ) as run
        left join lateral (
            select newest.* from delivery.plan as newest
            where newest.run_id = run.run_id order by newest.plan_id desc limit 1
        ) as plan on true
        left join lateral (
            select
                sum(money.items) as additions,
                jsonb_agg(
                    jsonb_build_object('currency', money.currency, 'amount', money.amount, 'lines', money.items)
                    order by money.currency
                ) as money
            from delivery.plan_money as money where money.plan_id = plan.plan_id
        ) as planned on true
        order by run.run_id desc
        """,
        {"run_ids": list(run_ids) if run_ids is not None else None, "before": before, "limit": limit},
    )


# -- subscriptions -----------------------------------------------------------------------------------------------------


def subscriptions(
    connection: Connection, *, only_amiss: bool = False, text: str = "", limit: int = 50, offset: int = 0
) -> tuple[int, list[Row]]:
    """How many subscriptions there are, and a page of them, as reporting.subscription has them.

    text: stands in the name or id of subscription, customer or company. only_amiss: without those whose lines only
    await approval, which the plan shows.
    """
    found = read_rows(
        connection,
        """
        select
            count(*) over () as row_count, subscription_id, subscription_name, organization_id, organization_name,
            company_name, agreement_id, agreement_name, coalesce(addition_ids, '{}') as addition_ids, quantity,
            unit_price, currency, state, since, paid_until, amiss
        from reporting.subscription
        where
            (not %(only_amiss)s or amiss <> 'active without an Addition now: its line awaits approval')
            and (
                %(text)s = ''
                or strpos(lower(concat_ws(
                    chr(10), subscription_id, subscription_name, organization_id, organization_name, company_name
                )), lower(%(text)s)) > 0
            )
        order by organization_name, subscription_name, subscription_id
        limit %(limit)s offset %(offset)s
        """,
        {"only_amiss": only_amiss, "text": text, "limit": limit, "offset": offset},
    )
    if not found and offset:
        total, _ = subscriptions(connection, only_amiss=only_amiss, text=text, limit=1)
        return total, []
    return (found[0]["row_count"] if found else 0), found


# -- set-up ------------------------------------------------------------------------------------------------------------

StepState = Literal["done", "todo", "warning"]


def _step(key: str, title: str, state: StepState, detail: str, link: str | None = None) -> Row:
    return {"key": key, "title": title, "state": state, "detail": detail, "link": link}


def setup_steps(connection: Connection) -> list[Row]:
    """What is set up in the billing database, in the order in which a person does it.

    Each {key, title, state: done, todo or warning, detail, link: page of the review pages or null}. Asks no service.
    """
    return [
        _agreement_type(connection),
        _environment(connection),
        *_reference_data(connection),
        *_mappings(connection),
        _first_run(connection),
        _daily_sync(connection),
    ]


def _value(connection: Connection, key: str) -> Any:
    row = connection.execute("select value from billing.setting where setting_key = %s", [key]).fetchone()
    return row[0] if row else None


def _agreement_type(connection: Connection) -> Row:
    name, link = _value(connection, "default_agreement_type"), "settings/configuration?key=default_agreement_type"
    title = "Default Agreement Type"
    if not name:
        return _step(
            "agreement_type", title, "todo",
            "Choose the Agreement Type of ConnectWise whose agreements take the lines. Nothing runs without it.", link,
        )  # fmt: skip
    row = connection.execute(
        """
        select count(*) filter (where name = %s and not is_inactive and not is_gone), count(*)
        from mapping.agreement_type
        """,
        [name],
    ).fetchone()
    assert row is not None
    if not row[1]:
        return _step(
            "agreement_type", title, "warning",
            f"{name}. It is compared with ConnectWise once reference data is loaded.", link,
        )  # fmt: skip
    if not row[0]:
        return _step(
            "agreement_type", title, "todo", f"{name}: ConnectWise has no active Agreement Type of that name.", link
        )
    return _step("agreement_type", title, "done", f"{name}.", link)


def _environment(connection: Connection) -> Row:
    title, link = "Environment and marker", "settings/configuration?key=environment"
    carriers = {
        "serial_number": "the serial number", "description": "the description", "custom_field": "a custom field",
    }  # fmt: skip
    name, carrier = _value(connection, "environment"), _value(connection, "marker_carrier")
    words = f"{name}; our marker stands in {carriers.get(carrier, carrier)} of each Addition"
    if carrier == "custom_field" and _value(connection, "marker_custom_field_id") is None:
        return _step("environment", title, "todo", f"{words}, and which one is not set.", link)
    row = connection.execute(
        """
        select
            exists (select from delivery.addition),
            exists (
                select from audit.change
                where table_name = 'billing.setting' and row_key in ('environment', 'marker_carrier')
                    and before is not null
            )
        """
    ).fetchone()
    assert row is not None
    if row[0]:
        return _step("environment", title, "done", f"{words}. Fixed, since Additions were delivered.", link)
    if row[1]:
        return _step("environment", title, "done", f"{words}.", link)
    return _step(
        "environment", title, "warning",
        f"{words}. Nobody has changed that: make sure it is right, it is fixed with the first delivery.", link,
    )  # fmt: skip


def _reference_data(connection: Connection) -> list[Row]:
    """When organizations, companies and products were last read whole."""
    steps = []
    feeds = (
        ("organizations", "Organizations and companies", ("organizations", "companies"), "mapping/organizations"),
        ("products", "Products", ("products",), "mapping/products"),
    )
    for key, title, names, link in feeds:
        row = connection.execute(
            """
            select to_char(min(read_at) at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"'), count(*),
                min(read_at) < now() - interval '3 days'
            from (
                select feed, max(ended_at) as read_at from staging.extract
                where feed = any(%s) and ended_at is not null group by feed
            ) as read
            """,
            [list(names)],
        ).fetchone()
        counted = connection.execute(
            """
            select (select count(*) from mapping.organization where not is_gone),
                (select count(*) from mapping.company where not is_gone),
                (select count(*) from mapping.product where not is_gone)
            """
        ).fetchone()
        assert row is not None
        assert counted is not None
        organizations, companies, products = counted
        is_empty = not (organizations and companies) if key == "organizations" else not products
        words = f"{organizations} organizations, {companies} companies" if key == "organizations" else f"{products}"
        if is_empty:
            button = "Sync Organizations" if key == "organizations" else "Load Products"
            steps.append(_step(key, title, "todo", f"None are loaded. Press {button}.", link))
        elif row[1] < len(names) or row[2]:
            when = f"last read {row[0]}" if row[1] else "read long ago"
            steps.append(_step(key, title, "warning", f"{words}, {when}: read them again.", link))
        else:
            steps.append(_step(key, title, "done", f"{words}, last read {row[0]}.", link))
    return steps


def _mappings(connection: Connection) -> list[Row]:
    """Undecided organizations and offers that money waits for."""
    steps = []
    kinds = (
        ("mapping_organizations", "Mapping of organizations", "organization", "organizations", "organization_unmapped"),
        ("mapping_offers", "Mapping of products", "offer", "offers", "offer_unmapped"),
    )
    for key, title, one, many, reason in kinds:
        link = f"mapping/{'organizations' if one == 'organization' else 'products'}"
        row = connection.execute(
            sql.SQL(
                """
                select count(*) filter (where state = 'approved'), count(*) filter (where decided_by is null), count(*)
                from mapping.{table}
                """
            ).format(table=sql.Identifier(f"{one}_mapping"))
        ).fetchone()
        waiting = read_rows(
            connection,
            sql.SQL(
                """
                select coalesce(line.currency, invoice.currency) as currency, sum(line.total_price) as amount,
                    count(distinct {source}) as sources
                from billing.held_reason as reason
                join billing.line_decision as decision using (line_id)
                join billing.invoice_line as line using (line_id)
                join billing.invoice as invoice using (invoice_id)
                where
                    reason.reason_code = %(reason)s and decision.outcome = 'held'
                    and not exists (select from delivery.addition_line as carried where carried.line_id = line.line_id)
                group by 1 order by 1
                """
            ).format(source=sql.SQL("invoice.organization_id" if one == "organization" else "line.offer_id")),
            {"reason": reason},
        )
        assert row is not None
        approved, undecided, known = row
        if waiting:
            sources = max(money["sources"] for money in waiting)
            money = " and ".join(f"{one_money['amount']:,.2f} {one_money['currency']}" for one_money in waiting)
            is_one = sources == 1
            words = (
                f"{sources} {one if is_one else many} {'is' if is_one else 'are'} undecided while {money} "
                f"wait for {'it' if is_one else 'them'}."
            )
            steps.append(_step(key, title, "todo", words, f"{link}?state=undecided&only_held=true"))
        elif not known:
            steps.append(_step(key, title, "todo", f"No {many} are known yet.", link))
        elif not approved:
            steps.append(_step(key, title, "todo", f"None of {known} {many} is approved.", f"{link}?state=undecided"))
        else:
            rest = f"; {undecided} undecided, no money waits for them" if undecided else ""
            steps.append(_step(key, title, "done", f"{approved} of {known} {many} approved{rest}.", link))
    return steps


def _first_run(connection: Connection) -> Row:
    title = "First sync"
    row = connection.execute(
        """
        select
            exists (select from delivery.plan where state = 'applied'),
            (
                select max(plan.plan_id) from delivery.plan as plan
                where
                    plan.state = 'proposed' and not plan.is_dry_run
                    and (
                        exists (select from delivery.plan_item as item where item.plan_id = plan.plan_id)
                        or exists (select from delivery.plan_agreement as new where new.plan_id = plan.plan_id)
                    )
            ),
            exists (select from audit.run where kind in ('nightly', 'manual', 'backfill'))
        """
    ).fetchone()
    assert row is not None
    is_applied, waiting, is_loaded = row
    if is_applied:
        return _step("first_run", title, "done", "A plan has been delivered to ConnectWise.", "plan")
    if waiting is not None:
        return _step(
            "first_run", title, "todo", f"Plan {waiting} waits: look at it, then approve it.", f"plan/{waiting}"
        )
    if is_loaded:
        return _step("first_run", title, "todo", "Invoices are loaded; nothing was delivered yet.", "mapping/invoices")
    return _step("first_run", title, "todo", "Load Invoices of a billing period, and look at them.", "mapping/invoices")


def _daily_sync(connection: Connection) -> Row:
    title, link = "Automated Daily Sync", "dashboard"
    if _value(connection, "automated_daily_sync") is True:
        return _step("daily_sync", title, "done", "On: a plan within the bounds is approved by itself.", link)
    return _step("daily_sync", title, "warning", "Off: each plan waits until a person approves it.", link)
