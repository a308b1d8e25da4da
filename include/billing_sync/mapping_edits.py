"""Decisions about mappings as a person makes them on a page: one or many, each judged by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from psycopg import sql

from billing_sync.db import Connection
from billing_sync.mapping_grid import Key, Row, State, mapping_rows
from billing_sync.mappings import KINDS, VARIANT_TABLE, MappingKind, copy_given, store_given

Status = Literal["changed", "unchanged", "conflict", "refused"]
VALUES = ("target_id", "recurring_mode", "note")


@dataclass(frozen=True)
class Decision:
    """What a person decides about an entry. version: of the entry as they saw it, 0 when there was none.

    values: target_id, recurring_mode and note as far as they change; what is not named stays as it is.
    """

    source_id: str
    billing_frequency: str
    version: int
    state: State
    values: Mapping[str, Any]

    @property
    def key(self) -> Key:
        """Which entry."""
        return self.source_id, self.billing_frequency


@dataclass(frozen=True)
class Result:
    """What became of a decision, and why. conflict: somebody else decided otherwise meanwhile."""

    key: Key
    status: Status
    message: str | None = None


@dataclass(frozen=True)
class _Target:
    name: str
    unusable: str | None
    company_id: int | None  # of an agreement


def decide_mappings(
    connection: Connection, kind_name: str, decisions: Sequence[Decision], *, person: str
) -> list[Result]:
    """Judge each decision by itself and store those that stand; a result for each, in their order.

    kind_name: a name of `mappings.KINDS`. Lines are not decided again here: see `lines_concerned`.
    """
    kind = KINDS[kind_name]
    with connection.transaction():
        connection.execute("select set_config('billing.user', %s, true)", [person])
        _lock(connection, kind, [decision.source_id for decision in decisions])
        known = mapping_rows(connection, kind_name, {one.key for one in decisions}, with_money=False)
        targets = _targets(connection, kind, decisions, known.values())
        twice = {key for key, count in Counter(one.key for one in decisions).items() if count > 1}
        results, changed = [], []
        for decision in decisions:
            row = known.get(decision.key)
            if decision.key in twice:
                result = Result(decision.key, "refused", "It stands more than once in what was sent.")
            elif row is None:
                result = Result(decision.key, "refused", _not_known(kind, decision))
            else:
                result = _judged(kind, decision, row, targets)
                if result.status == "changed":
                    changed.append((decision, row))
            results.append(result)
        if changed:
            copy_given(
                connection,
                [(None, *decision.key, *_stored(decision, row)) for decision, row in changed],
            )
            more = ["recurring_mode"] if kind_name == "offers" else []
            store_given(connection, kind, more, approve=True, person=person, take_back=True)
    return results


def lines_concerned(connection: Connection, kind_name: str, source_ids: Collection[str]) -> list[str]:
    """The organizations that have open lines which the entries of these sources decide about."""
    condition = {
        "organizations": "invoice.organization_id = any(%(ids)s)",
        "offers": "line.offer_id = any(%(ids)s)",
        "contracts": "coalesce(line.contract_id, invoice.contract_id) = any(%(ids)s)",
    }[kind_name]
    rows = connection.execute(
        sql.SQL(
            """
            select distinct invoice.organization_id
            from billing.invoice as invoice join billing.invoice_line as line using (invoice_id)
            where {} and not exists (select from delivery.addition_line as carried where carried.line_id = line.line_id)
            """
        ).format(sql.SQL(condition)),
        {"ids": sorted(set(source_ids))},
    ).fetchall()
    return [organization_id for (organization_id,) in rows]


# -- judging -----------------------------------------------------------------------------------------------------------


def _judged(kind: MappingKind, decision: Decision, row: Row, targets: Mapping[int, _Target]) -> Result:
    target_id, state, recurring_mode, note = _stored(decision, row)
    if (target_id, decision.state, recurring_mode, note) == (row.target_id, row.state, row.recurring_mode, row.note):
        return Result(decision.key, "unchanged")
    if decision.version != row.version:
        return Result(decision.key, "conflict", _conflict(row))
    if recurring_mode is not None and kind.source_id != "offer_id":
        return Result(decision.key, "refused", "Only offers have a recurring mode of their own.")
    if target_id is None:
        if state == "approved":
            return Result(decision.key, "refused", f"It cannot be approved without a {kind.target_table}: choose one.")
        return Result(decision.key, "changed")
    target = targets.get(target_id)
    if target is None:
        return Result(
            decision.key, "refused",
            f"There is no {kind.target_table} {target_id} in ConnectWise as it was read last. If it is new there: "
            "Sync Organizations reads it.",
        )  # fmt: skip
    stays_approved = row.state == "approved" and row.target_id == target_id
    if state == "approved" and target.unusable and not stays_approved:
        return Result(
            decision.key, "refused",
            f"{kind.target_table.capitalize()} {target.name} ({target_id}) is {target.unusable}"
            f"{', which cannot be an Addition' if target.unusable == 'a Bundle' else ''}: choose another one, or mend "
            "it in ConnectWise and run Sync Organizations.",
        )  # fmt: skip
    return Result(decision.key, "changed", _remark(row, target) if state == "approved" else None)


def _stored(decision: Decision, row: Row) -> tuple[int | None, str | None, str | None, str | None]:
    """target_id, state (None: undecided), recurring_mode and note as they will stand."""
    target_id, recurring_mode, note = (decision.values.get(name, getattr(row, name)) for name in VALUES)
    return target_id, None if decision.state == "undecided" else decision.state, recurring_mode, note or None


def _conflict(row: Row) -> str:
    target = f" as {row.target_name} ({row.target_id})" if row.target_id is not None else ""
    if row.decided_by is None:
        return f"Somebody changed it meanwhile: it is undecided{target} now. Look at it and decide again."
    return f"{row.decided_by} has {row.state} it{target} meanwhile. Look at it and decide again if you disagree."


def _remark(row: Row, target: _Target) -> str | None:
    """What a person should know about an approval that stands."""
    if row.selectors:
        return f"{row.selectors} selectors say which company each of its lines goes to; they win over this company."
    if target.company_id is not None and row.company_id is not None and target.company_id != row.company_id:
        return (
            f"Agreement {target.name} is of company {target.company_id}, and the organization's company is "
            f"{row.company_id}: lines that go to that company are held until one of the two is changed."
        )
    return None


def _not_known(kind: MappingKind, decision: Decision) -> str:
    if decision.billing_frequency:
        return (
            f"No invoice has the offer {decision.source_id} with the billing frequency {decision.billing_frequency!r}."
        )
    what = kind.source_id.removesuffix("_id")
    return f"There is no {what} {decision.source_id}. If it is new in AppXite: Sync Organizations or Load Products."


# -- reading -----------------------------------------------------------------------------------------------------------


def _lock(connection: Connection, kind: MappingKind, source_ids: Sequence[str]) -> None:
    """Whoever decides about the same entries waits; an offer's own entry stands for its variants that are yet to be."""
    for table in (kind.table, *((VARIANT_TABLE,) if kind.source_id == "offer_id" else ())):
        connection.execute(
            sql.SQL("select from mapping.{table} where {key} = any(%s) order by {key} for update").format(
                table=sql.Identifier(table), key=sql.Identifier(kind.source_id)
            ),
            [list(source_ids)],
        )


def _targets(
    connection: Connection, kind: MappingKind, decisions: Sequence[Decision], rows: Collection[Row]
) -> dict[int, _Target]:
    wanted = {decision.values.get("target_id") for decision in decisions} | {row.target_id for row in rows}
    found = connection.execute(
        sql.SQL(
            "select {id}, coalesce({name}, 'without name'), unusable, {company} from mapping.{table}"
            " where {id} = any(%s)"
        ).format(
            company=sql.SQL("company_id" if kind.target_table == "agreement" else "null"),
            id=sql.Identifier(kind.target_id),
            name=sql.Identifier(kind.target_name),
            table=sql.Identifier(kind.target_table),
        ),
        [[target_id for target_id in wanted if target_id is not None]],
    ).fetchall()
    return {target_id: _Target(*rest) for target_id, *rest in found}
