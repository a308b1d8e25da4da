"""Plans as people look at them: what a plan does, thing by thing, what became of it, and its proof.

Money comes per currency, as {"currency", "amount", "lines"}; of a plan, "lines" counts its items.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from psycopg import sql

from billing_sync.bounds import PLAN_BOUNDS
from billing_sync.dashboard import runs
from billing_sync.db import Connection, read_rows
from billing_sync.errors import NotFoundError
from billing_sync.export import Cell, Money
from billing_sync.plan import require_fingerprint

Row = dict[str, Any]


# -- plans -------------------------------------------------------------------------------------------------------------


def plans(
    connection: Connection, *, plan_id: int | None = None, before: int | None = None, limit: int = 20
) -> list[Row]:
    """Plans, newest first. plan_id: this one. before: older ones than this plan_id."""
    return read_rows(
        connection,
        """
        select
            plan.plan_id, plan.run_id, run.dag_id, run.dag_run_id, run.kind,
            array(select to_char(period, 'YYYY-MM') from unnest(run.billing_periods::date[]) as period)
                as billing_periods,
            plan.state, plan.is_dry_run, plan.created_at,
            plan.approved_by, plan.approved_at, plan.rejected_by, plan.rejected_at, plan.rejected_because,
            coalesce(planned.items, 0) + (
                select count(*) from delivery.plan_agreement as new where new.plan_id = plan.plan_id
            ) as items,
            coalesce(planned.money, '[]') as money,
            (
                select string_agg(bound.detail, '; ' order by bound.bound_key) from delivery.plan_bound as bound
                where bound.plan_id = plan.plan_id
            ) as parked_because
        from (
            select * from delivery.plan
            where
                (%(plan_id)s::bigint is null or plan_id = %(plan_id)s)
                and (%(before)s::bigint is null or plan_id < %(before)s)
            order by plan_id desc limit %(limit)s
        ) as plan
        join audit.run as run using (run_id)
        left join lateral (
            select
                sum(money.items)::bigint as items,
                jsonb_agg(
                    jsonb_build_object('currency', money.currency, 'amount', money.amount, 'lines', money.items)
                    order by money.currency
                ) as money
            from delivery.plan_money as money where money.plan_id = plan.plan_id
        ) as planned on true
        order by plan.plan_id desc
        """,
        {"plan_id": plan_id, "before": before, "limit": limit},
    )


def plan_detail(connection: Connection, plan_id: int) -> Row:
    """A plan as a person approves it: summary, fingerprint, counts, customers, bounds, stale_items, kept, held,
    conflicts, run. Held lines are those of the plan's run, as they stand now. Raises NotFoundError."""
    found = plans(connection, plan_id=plan_id)
    if not found:
        raise NotFoundError(f"There is no plan {plan_id}.")
    summary = found[0]
    values = {
        "plan_id": plan_id, "run_id": summary["run_id"], "is_open": summary["state"] in ("proposed", "approved"),
    }  # fmt: skip
    held = read_rows(connection, _HELD_OF_RUN, values)
    (figures,) = read_rows(
        connection,
        """
        with company as (
            select company_id from delivery.plan_item where plan_id = %(plan_id)s
            union select company_id from delivery.plan_agreement where plan_id = %(plan_id)s
        ),
        standing as (
            select
                count(*) filter (where state = 'delivered') as delivered,
                count(*) filter (where state = 'conflict') as conflicts
            from delivery.addition where company_id in (select company_id from company)
        )
        select
            delivery.plan_fingerprint(%(plan_id)s) as fingerprint,
            (
                select count(*) from delivery.stale_item as stale join delivery.plan_item as item using (plan_item_id)
                -- Of a plan that is done or given up nothing is delivered any more.
                where %(is_open)s and stale.plan_id = %(plan_id)s and item.state = 'pending'
            ) as stale_items,
            standing.conflicts,
            standing.delivered - (
                select count(*) from delivery.plan_item as item join delivery.addition as ledger using (delivery_key)
                where item.plan_id = %(plan_id)s and ledger.state = 'delivered'
            ) as kept
        from standing
        """,
        values,
    )
    return {
        "summary": summary,
        **figures,
        "counts": _counts(connection, plan_id),
        "customers": _customers(connection, plan_id, held),
        "bounds": [
            {**bound, "title": PLAN_BOUNDS[bound.pop("reason_code")]}
            for bound in read_rows(
                connection,
                """
                select bound_key, reason_code, figure::numeric as figure, detail
                from delivery.plan_bound where plan_id = %(plan_id)s order by bound_key
                """,
                values,
            )
        ],
        "held": _by_currency(held),
        "run": runs(connection, run_ids=[summary["run_id"]])[0],
    }


_HELD_OF_RUN = """
    select decision.company_id, company.name as company_name, coalesce(line.currency, invoice.currency) as currency,
        count(*) as lines, coalesce(sum(line.total_price), 0) as amount
    from audit.run as run
    join billing.line_decision as decision on decision.outcome = 'held'
    join billing.invoice_line as line using (line_id)
    join billing.invoice as invoice using (invoice_id)
    left join mapping.company as company on company.company_id = decision.company_id
    where
        run.run_id = %(run_id)s
        and (run.kind = 'nightly' or invoice.billing_period = any(run.billing_periods))
        and (cardinality(run.organization_ids) = 0 or invoice.organization_id = any(run.organization_ids))
        and not exists (select from delivery.addition_line as carried where carried.line_id = line.line_id)
    group by 1, 2, 3
"""


def _by_currency(held: list[Row]) -> list[Row]:
    sums: dict[str, Row] = {}
    for row in held:
        money = sums.setdefault(row["currency"], {"currency": row["currency"], "amount": 0, "lines": 0})
        money["amount"] += row["amount"]
        money["lines"] += row["lines"]
    return [sums[currency] for currency in sorted(sums)]


def _counts(connection: Connection, plan_id: int) -> list[Row]:
    found: dict[tuple[str, str], Row] = {}
    for row in read_rows(
        connection,
        """
        select
            case when adopting.plan_item_id is not null then 'adoption' else item.action end as action,
            item.state, coalesce(agreement.currency, '') as currency, count(*) as lines, sum(item.amount) as amount
        from delivery.plan_item as item
        join mapping.agreement as agreement using (agreement_id)
        left join delivery.adopting_item as adopting
            on adopting.plan_id = %(plan_id)s and adopting.plan_item_id = item.plan_item_id
        where item.plan_id = %(plan_id)s group by 1, 2, 3
        union all
        select 'create agreement', state, currency, count(*), sum(amount)
        from delivery.plan_agreement where plan_id = %(plan_id)s group by 1, 2, 3
        order by 1, 2, 3
        """,
        {"plan_id": plan_id},
    ):
        count = found.setdefault(
            (row["action"], row["state"]), {"action": row["action"], "state": row["state"], "items": 0, "money": []}
        )
        count["items"] += row["lines"]
        count["money"].append({key: row[key] for key in ("currency", "amount", "lines")})
    return list(found.values())


def _customers(connection: Connection, plan_id: int, held: list[Row]) -> list[Row]:
    """Per company and currency what the plan does, with what is held beside it; also companies of which all is held."""
    found: dict[tuple[int, str], Row] = {}

    def customer(row: Row) -> Row:
        return found.setdefault(
            (row["company_id"], row["currency"]),
            {
                "company_id": row["company_id"], "company_name": row["company_name"] or f"company {row['company_id']}",
                "currency": row["currency"], "creates": 0, "updates": 0, "agreements": 0, "amount": 0,
                "held_lines": 0, "held_amount": 0,
            },
        )  # fmt: skip

    for row in read_rows(
        connection,
        """
        select item.company_id, company.name as company_name, coalesce(agreement.currency, '') as currency,
            count(*) filter (where item.action = 'create') as creates,
            count(*) filter (where item.action = 'update') as updates,
            0 as agreements, sum(item.amount) as amount
        from delivery.plan_item as item
        join mapping.agreement as agreement using (agreement_id)
        join mapping.company as company on company.company_id = item.company_id
        where item.plan_id = %(plan_id)s group by 1, 2, 3
        union all
        -- The money that waits for an agreement is held until it stands.
        select new.company_id, company.name, new.currency, 0, 0, count(*), 0
        from delivery.plan_agreement as new join mapping.company as company using (company_id)
        where new.plan_id = %(plan_id)s group by 1, 2, 3
        """,
        {"plan_id": plan_id},
    ):
        sums = customer(row)
        for key in ("creates", "updates", "agreements", "amount"):
            sums[key] += row[key]
    for row in held:
        if row["company_id"] is not None:
            sums = customer(row)
            sums["held_lines"], sums["held_amount"] = row["lines"], row["amount"]
    return sorted(found.values(), key=lambda row: (row["company_name"], row["company_id"], row["currency"]))


# -- items -------------------------------------------------------------------------------------------------------------

ITEM_COLUMNS = (
    "plan_item_id", "company_name", "agreement_name", "product", "action", "state", "amount", "effective_date",
)  # fmt: skip

_FOUND = """
    select
        item.plan_item_id, item.delivery_key,
        case when adopting.plan_item_id is not null then 'adoption' else item.action end as action,
        item.state, item.company_id, company.name as company_name, agreement.name as agreement_name, item.amount,
        left(item.payload ->> 'effectiveDate', 10)::date as effective_date, item.subscription_id,
        item.payload ->> 'invoiceDescription' as invoice_description, product.identifier as product
    from delivery.plan_item as item
    join mapping.company as company on company.company_id = item.company_id
    join mapping.agreement as agreement on agreement.agreement_id = item.agreement_id
    left join mapping.product as product on product.product_id = (item.payload -> 'product' ->> 'id')::integer
    left join delivery.adopting_item as adopting
        on adopting.plan_id = %(plan_id)s and adopting.plan_item_id = item.plan_item_id
    where item.plan_id = %(plan_id)s
    union all
    select
        null, new.agreement_key, 'create agreement', new.state, new.company_id, company.name, new.payload ->> 'name',
        new.amount, left(new.payload ->> 'billStartDate', 10)::date, null, null, null
    from delivery.plan_agreement as new join mapping.company as company using (company_id)
    where new.plan_id = %(plan_id)s
"""


def plan_items(
    connection: Connection,
    plan_id: int,
    *,
    text: str = "",
    company_id: int | None = None,
    action: str | None = None,
    state: str | None = None,
    sort: str = "company_name",
    limit: int = 50,
    offset: int = 0,
) -> tuple[int, list[Row]]:
    """How many things of the plan there are, and a page of them, before and after.

    text: stands in customer, agreement, product, subscription, description or delivery key, or is an invoice number.
    sort: one of ITEM_COLUMNS, with - in front for descending. Raises NotFoundError.
    """
    column = sort.removeprefix("-")
    assert column in ITEM_COLUMNS
    if connection.execute("select from delivery.plan where plan_id = %s", [plan_id]).fetchone() is None:
        raise NotFoundError(f"There is no plan {plan_id}.")
    conditions: list[sql.Composable] = [sql.SQL("true")]
    if text:
        conditions.append(
            sql.SQL(
                """
                (
                    strpos(lower(concat_ws(
                        chr(10), company_name, agreement_name, product, subscription_id, invoice_description,
                        delivery_key
                    )), lower(%(text)s)) > 0
                    or plan_item_id in (
                        select planned.plan_item_id
                        from billing.invoice as invoice
                        join billing.invoice_line as line using (invoice_id)
                        join delivery.plan_item_line as planned using (line_id)
                        where invoice.invoice_number = %(text)s
                    )
                )
                """
            )
        )
    for name, value in (("company_id", company_id), ("action", action), ("state", state)):
        if value is not None:
            conditions.append(sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name)))
    statement = sql.SQL(
        """
        select count(*) over () as row_count, plan_item_id, delivery_key
        from ({found}) as found where {conditions}
        order by {column} {direction}, company_name, plan_item_id, delivery_key
        limit %(limit)s offset %(offset)s
        """
    ).format(
        found=sql.SQL(_FOUND),
        conditions=sql.SQL(" and ").join(conditions),
        column=sql.Identifier(column),
        direction=sql.SQL("desc" if sort.startswith("-") else "asc"),
    )
    values = {
        "plan_id": plan_id, "text": text, "company_id": company_id, "action": action, "state": state,
        "limit": limit, "offset": offset,
    }  # fmt: skip
    page = read_rows(connection, statement, values)
    if not page:
        if not offset:
            return 0, []
        total, _ = plan_items(
            connection, plan_id, text=text, company_id=company_id, action=action, state=state, limit=1
        )
        return total, []
    known = _details(connection, plan_id, [row["delivery_key"] for row in page])
    return page[0]["row_count"], [known[row["delivery_key"]] for row in page]


def _details(connection: Connection, plan_id: int, delivery_keys: list[str]) -> dict[str, Row]:
    """Of some things of a plan everything that is shown, by delivery key (of an agreement: agreement key)."""
    rows = read_rows(
        connection,
        """
        select
            item.plan_item_id,
            item.delivery_key,
            item.action,
            item.state,
            item.state = 'pending' and exists (
                select from delivery.stale_item as stale where stale.plan_item_id = item.plan_item_id
            ) as is_stale,
            item.company_id,
            company.name as company_name,
            item.agreement_id,
            item.agreement_name,
            item.subscription_id,
            product.identifier as product,
            item.invoice_description as description,
            item.connectwise_addition_id,
            item.quantity_before,
            item.quantity,
            item.unit_price_before,
            item.unit_price,
            item.effective_date,
            item.cancelled_date_before,
            item.cancelled_date,
            item.amount,
            coalesce(agreement.currency, '') as currency,
            (
                select coalesce(array_agg(line.line_id order by line.line_id), '{}')
                from delivery.plan_item_line as line where line.plan_item_id = item.plan_item_id
            ) as line_ids,
            case
                when planned.is_left_out then 'left out by ' || plan.approved_by
                when item.state in ('refused', 'conflict') then coalesce(
                    case when ledger.plan_id = item.plan_id then ledger.problem end,
                    (
                        select answer.detail from delivery.attempt as answer
                        where
                            answer.delivery_key = item.delivery_key and answer.plan_id = item.plan_id
                            and answer.outcome = 'fail'
                        order by answer.attempt_id desc limit 1
                    )
                )
                when item.state = 'skipped' then coalesce(
                    (
                        select string_agg(distinct concat_ws(': ', code.title, nullif(reason.detail, '')), '; ')
                        from delivery.plan_item_line as line
                        join billing.held_reason as reason using (line_id)
                        join billing.held_reason_code as code using (reason_code)
                        where line.plan_item_id = item.plan_item_id
                    ),
                    'its lines were decided anew, or are on another plan''s Addition'
                )
                when item.state = 'done' and not delivery.is_settled(ledger.state) and ledger.plan_id = item.plan_id
                    then 'under way: ConnectWise has not confirmed it yet'
            end as problem,
            null as refusal
        from reporting.plan_item as item
        join delivery.plan_item as planned using (plan_item_id)
        join delivery.plan as plan on plan.plan_id = item.plan_id
        join mapping.company as company on company.company_id = item.company_id
        left join mapping.agreement as agreement on agreement.agreement_id = item.agreement_id
        left join mapping.product as product
            on product.product_id = (planned.payload -> 'product' ->> 'id')::integer
        left join delivery.addition as ledger on ledger.delivery_key = item.delivery_key
        where item.plan_id = %(plan_id)s and item.delivery_key = any(%(keys)s)
        union all
        select
            null, new.agreement_key, 'create agreement', new.state, false, new.company_id, company.name,
            ledger.agreement_id, new.payload ->> 'name', null, null,
            format('%%s lines wait for it', new.line_count), null, null, null, null, null,
            left(new.payload ->> 'billStartDate', 10)::date, null, null, new.amount, new.currency, '{}',
            case
                when new.is_left_out then 'left out by ' || plan.approved_by
                when new.state = 'refused' then ledger.problem
                when new.state = 'skipped' then 'not wanted any more when its turn came'
                when new.state = 'done' and ledger.state = 'intended'
                    then 'under way: ConnectWise has not confirmed it yet'
            end,
            case
                when refusal.company_id is not null
                    then format('%%s refused it: %%s', refusal.refused_by, refusal.reason)
                when ledger.state = 'refused' then 'ConnectWise refused it'
            end
        from delivery.plan_agreement as new
        join delivery.plan as plan using (plan_id)
        join mapping.company as company using (company_id)
        left join delivery.new_agreement as ledger using (agreement_key)
        left join mapping.agreement_refusal as refusal on refusal.company_id = new.company_id
        where new.plan_id = %(plan_id)s and new.agreement_key = any(%(keys)s)
        """,
        {"plan_id": plan_id, "keys": delivery_keys},
    )
    return {row["delivery_key"]: row for row in rows}


def selection(
    connection: Connection,
    plan_id: int,
    *,
    fingerprint: str,
    leave_out: Collection[int] = (),
    leave_out_agreements: Collection[int] = (),
) -> Row:
    """What an approval would comprise: {items, creates, updates, agreements, money, left_out: money, customers}.

    Raises NotFoundError, and StaleEditError as the approval itself does.
    """
    if connection.execute("select from delivery.plan where plan_id = %s", [plan_id]).fetchone() is None:
        raise NotFoundError(f"There is no plan {plan_id}.")
    require_fingerprint(connection, plan_id, fingerprint)
    rows = read_rows(
        connection,
        """
        with item as (
            select item.action, item.company_id, coalesce(agreement.currency, '') as currency, item.amount,
                item.plan_item_id = any(%(items)s) as is_left_out
            from delivery.plan_item as item join mapping.agreement as agreement using (agreement_id)
            where item.plan_id = %(plan_id)s
            union all
            -- The money that waits for an agreement is held until it stands.
            select 'agreement', new.company_id, new.currency, 0, new.company_id = any(%(companies)s)
            from delivery.plan_agreement as new where new.plan_id = %(plan_id)s
        )
        select item.company_id, company.name as company_name, item.currency, item.is_left_out,
            count(*) as items,
            count(*) filter (where item.action <> 'agreement') as lines,
            count(*) filter (where item.action = 'create') as creates,
            count(*) filter (where item.action = 'update') as updates,
            count(*) filter (where item.action = 'agreement') as agreements,
            sum(item.amount) as amount
        from item join mapping.company as company using (company_id)
        group by 1, 2, 3, 4 order by 2, 1, 3
        """,
        {"plan_id": plan_id, "items": list(leave_out), "companies": list(leave_out_agreements)},
    )
    stay = [row for row in rows if not row["is_left_out"]]
    return {
        **{key: sum(row[key] for row in stay) for key in ("items", "creates", "updates", "agreements")},
        "money": _by_currency(stay),
        "left_out": _by_currency([row for row in rows if row["is_left_out"]]),
        "customers": stay,
    }


EXPORTED = {
    "Company": "company_name",
    "Agreement": "agreement_name",
    "Action": "action",
    "State": "state",
    "Product": "product",
    "Description": "description",
    "Subscription": "subscription_id",
    "Quantity before": "quantity_before",
    "Quantity": "quantity",
    "Unit price before": "unit_price_before",
    "Unit price": "unit_price",
    "Effective date": "effective_date",
    "Cancelled date before": "cancelled_date_before",
    "Cancelled date": "cancelled_date",
    "Amount": "amount",
    "Currency": "currency",
    "ConnectWise Addition": "connectwise_addition_id",
    "Delivery key": "delivery_key",
    "Problem": "problem",
}
ROWS_AT_ONCE = 2000


def exported_items(connection: Connection, plan_id: int) -> Iterator[list[Cell]]:
    """All things of a plan, as rows of a file with the header EXPORTED. Raises NotFoundError, before the first row."""
    keys = [
        row["delivery_key"]
        for row in read_rows(
            connection,
            """
            select company.name, key.* from (
                select company_id, delivery_key from delivery.plan_item where plan_id = %(plan_id)s
                union all
                select company_id, agreement_key from delivery.plan_agreement where plan_id = %(plan_id)s
            ) as key join mapping.company as company using (company_id) order by 1, 2, 3
            """,
            {"plan_id": plan_id},
        )
    ]
    if not keys and connection.execute("select from delivery.plan where plan_id = %s", [plan_id]).fetchone() is None:
        raise NotFoundError(f"There is no plan {plan_id}.")
    return _exported(connection, plan_id, keys)


def _exported(connection: Connection, plan_id: int, keys: list[str]) -> Iterator[list[Cell]]:
    for start in range(0, len(keys), ROWS_AT_ONCE):
        some = keys[start : start + ROWS_AT_ONCE]
        known = _details(connection, plan_id, some)
        for key in some:
            row = known[key]
            yield [Money(row[name]) if name == "amount" else row[name] for name in EXPORTED.values()]


# -- proof -------------------------------------------------------------------------------------------------------------


def plan_proof(
    connection: Connection, plan_id: int, *, only_different: bool = False, limit: int = 50, offset: int = 0
) -> Row:
    """The newest proof of the plan's run: {run_id, proven_at, total, totals: per currency, invoices}.

    total: how many invoices the filter finds; totals are over all of them. Raises NotFoundError.
    """
    found = read_rows(
        connection,
        "select run_id, proven_at from delivery.plan join audit.run as run using (run_id) where plan_id = %(plan_id)s",
        {"plan_id": plan_id},
    )
    if not found:
        raise NotFoundError(f"There is no plan {plan_id}.")
    values = {"run_id": found[0]["run_id"], "only_different": only_different, "limit": limit, "offset": offset}
    totals = read_rows(
        connection,
        """
        select
            currency, count(*) as invoices, count(*) filter (where difference <> 0) as different,
            sum(source_total) as source_total, sum(delivered) as delivered, sum(held) as held,
            sum(excluded) as excluded, sum(awaiting_approval) as awaiting_approval, sum(in_doubt) as in_doubt,
            sum(difference) as difference
        from audit.invoice_proof where run_id = %(run_id)s group by currency order by currency
        """,
        values,
    )
    invoices = read_rows(
        connection,
        """
        select
            proof.invoice_id, invoice.invoice_number, organization.name as organization_name, proof.currency,
            proof.source_total, proof.delivered, proof.held, proof.excluded, proof.awaiting_approval, proof.in_doubt,
            proof.difference
        from audit.invoice_proof as proof
        join billing.invoice as invoice using (invoice_id)
        join mapping.organization as organization using (organization_id)
        where proof.run_id = %(run_id)s and (not %(only_different)s or proof.difference <> 0)
        order by abs(proof.difference) desc, organization.name, invoice.invoice_number, proof.invoice_id
        limit %(limit)s offset %(offset)s
        """,
        values,
    )
    return {
        **found[0],
        "total": sum(row["different" if only_different else "invoices"] for row in totals),
        "totals": totals,
        "invoices": invoices,
    }


# -- the tab of a DAG run ----------------------------------------------------------------------------------------------


def run_of_dag(connection: Connection, dag_id: str, dag_run_id: str, plan_id: int | None = None) -> Row:
    """What a DAG run did here: {run, plan}, each null if there is none.

    plan_id: of a DAG run that applies a plan, the plan; without it the ledger tells, once its delivery has begun.
    """
    made = connection.execute(
        "select run_id from audit.run where dag_id = %s and dag_run_id = %s and kind <> 'review'", [dag_id, dag_run_id]
    ).fetchone()
    if made is None:
        delivers = connection.execute(
            """
            select (subject ->> 'plan_id')::bigint from audit.log_entry
            where code = 'plan_delivery_begins' and subject ->> 'dag_run_id' = %s and subject ->> 'dag_id' = %s
            order by log_entry_id desc limit 1
            """,
            [dag_run_id, dag_id],
        ).fetchone()
        plan_id = delivers[0] if delivers else plan_id
        known = connection.execute("select run_id from delivery.plan where plan_id = %s", [plan_id]).fetchone()
        if known is None:
            return {"run": None, "plan": None}
        detail = plan_detail(connection, plan_id) if plan_id is not None else None
        return {"run": runs(connection, run_ids=[known[0]])[0], "plan": detail}
    (run,) = runs(connection, run_ids=[made[0]])
    return {"run": run, "plan": plan_detail(connection, run["plan_id"]) if run["plan_id"] is not None else None}
