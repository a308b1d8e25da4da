"""Why a line, an Addition or an invoice is as it is: typed stories, and their printing for a person in a dispute.

The database tells the story (sql/reporting/why.sql); here it gets types, and an order of time. Times are in UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, LiteralString

from pydantic import TypeAdapter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from billing_sync.db import Connection
from billing_sync.errors import ConfigurationError
from billing_sync.mappings import is_target_id

Row = dict[str, Any]

ROLES = {
    "organization": "organization → company",
    "offer": "offer → product",
    "contract": "contract → agreement",
    "selector": "selector: which company",
    "offer variant": "offer → product, for this frequency",
    "agreement rule": "agreement rule",
    "agreement refusal": "no agreement is to be created",
    "rule": "rule of the charge type",
    "override": "values typed for the line",
    "allowance": "let pass a bound",
    "adoption": "Addition made by hand",
    "setting": "setting",
}
AGREEMENT_SOURCES = {
    "override": "chosen for the line by a person",
    "contract": "by the contract's mapping",
    "rule": "by an agreement rule",
    "default_type": "the company's one active agreement of the default Agreement Type",
}
# What tells nothing about the value itself.
_OWN_COLUMNS = (
    "version",
    "decided_by",
    "decided_at",
    "allowed_by",
    "allowed_at",
    "refused_by",
    "refused_at",
    "description",
    "position",
)
_UNTOLD_CHANGES = ("last_run_id", "content_hash")


@dataclass(frozen=True)
class Entry:
    """A mapping, rule, typed value or setting that took part, as it was valid when the line was decided.

    value_now: what it is today (None: it was taken away); is_first: nobody changed it before then.
    part: what tells rows of one key apart (the kind of a selector, the frequency of an offer variant).
    changed_by, changed_at: the first change after it, when today's value is another one.
    """

    role: str
    table_name: str
    row_key: str
    part: Row | None
    version: int | None
    person: str | None
    at: datetime | None
    is_first: bool
    value: Row
    value_now: Row | None
    is_same_now: bool
    changed_by: str | None
    changed_at: datetime | None

    @property
    def is_default(self) -> bool:
        """As the pipeline came: no person has set it."""
        return self.is_first and self.role in ("rule", "setting")


@dataclass(frozen=True)
class HeldFor:
    """A reason that holds the line, or held it (held_until is set)."""

    reason_code: str
    title: str | None
    detail: str
    cure: str | None
    held_since: datetime
    held_until: datetime | None


@dataclass(frozen=True)
class Planned:
    """The Addition in a plan: what was to be sent, and who approved or rejected it.

    amount: money that it newly delivers. is_left_out: by the person who approved the rest of the plan.
    """

    plan_id: int
    run_id: int
    run_kind: str
    plan_state: str
    is_dry_run: bool
    created_at: datetime
    approved_by: str | None
    approved_at: datetime | None
    rejected_by: str | None
    rejected_at: datetime | None
    rejected_because: str | None
    parked_because: str | None
    plan_item_id: int
    action: str
    item_state: str
    is_left_out: bool
    amount: Decimal
    payload: Row
    payload_before: Row | None
    payload_hash: str
    next_invoice_date: date | None
    line_ids: list[int]


@dataclass(frozen=True)
class Attempt:
    """A step of a write: invoke before it is sent, then ok, fail (certainly not applied) or unknown."""

    attempt_id: int
    plan_id: int | None
    operation: str
    outcome: str
    connectwise_addition_id: int | None
    detail: str
    worker: str
    attempted_at: datetime


@dataclass(frozen=True)
class CarriedLine:
    """A line that the Addition carries, with the ConnectWise cycle that bills it."""

    line_id: int
    revision: int
    invoice_number: str | None
    billing_period: date
    charge_type: str | None
    total_price: Decimal | None
    currency: str | None
    plan_id: int
    cycle_start: date
    cycle_end: date
    amount: Decimal
    proven_run_id: int | None
    proven_at: datetime | None


@dataclass(frozen=True)
class LogEntry:
    """What the pipeline had to say."""

    level: str
    code: str
    message: str
    run_id: int | None
    logged_at: datetime


@dataclass(frozen=True)
class AdditionStory:
    """An Addition: delivered, or only planned (addition is None). addition: the row of the ledger, with names."""

    delivery_key: str
    addition: Row | None
    lines: list[CarriedLine]
    plans: list[Planned]
    attempts: list[Attempt]
    orphans: list[Row]
    log: list[LogEntry]


@dataclass(frozen=True)
class Revision:
    """The line as first seen (1), and the differences that AppXite made of it after it was delivered."""

    line_id: int
    revision: int
    total_price: Decimal | None
    currency: str | None
    loaded_at: datetime
    is_removal: bool
    outcome: str


@dataclass(frozen=True)
class SourceChange:
    """AppXite changed the invoice or the line before it was delivered. before, after: the rows."""

    table_name: str
    changed_at: datetime
    before: Row | None
    after: Row | None

    def differences(self) -> list[str]:
        """`column: before → after` for each value that changed."""
        if self.before is None or self.after is None:
            return []
        return [
            f"{name}: {shown(self.before.get(name))} → {shown(value)}"
            for name, value in self.after.items()
            if name not in _UNTOLD_CHANGES and self.before.get(name) != value
        ]


@dataclass(frozen=True)
class LineStory:
    """Everything that explains a line. line, invoice, decision, proof: rows of their tables; staged: newest extract.

    new_agreement: the ledger's row, when a plan creates or created the line's agreement.
    as_of: the moment for which `entries` are told: the making of the plan that delivered the line, else its decision.
    """

    line: Row
    invoice: Row
    names: Row
    as_of: datetime
    staged: Row | None
    entries: list[Entry]
    decision: Row | None
    outcome: str
    held: list[HeldFor]
    new_agreement: Row | None
    delivery: AdditionStory | None
    is_carried: bool
    carried_plan_id: int | None
    proof: Row | None
    source_changes: list[SourceChange]
    revisions: list[Revision]
    log: list[LogEntry]

    @property
    def changed_since(self) -> list[Entry]:
        """The entries that are different today from what decided."""
        return [entry for entry in self.entries if not entry.is_same_now]


@dataclass(frozen=True)
class InvoiceStory:
    """An invoice with its lines (rows of reporting.invoice_line) and its newest proof."""

    invoice: Row
    lines: list[Row]
    source_changes: list[SourceChange]


@dataclass(frozen=True)
class Event:
    """Something that happened to a line or an Addition. who: a person, a run or a worker."""

    at: datetime
    who: str
    what: str


_LINE = TypeAdapter(LineStory)
_ADDITION = TypeAdapter(AdditionStory)
_CHANGES = TypeAdapter(list[SourceChange])

# -- asking ------------------------------------------------------------------------------------------------------------


def why_line(connection: Connection, line_id: int) -> LineStory:
    """The story of a line. Raises ConfigurationError when there is no such line."""
    told = _told(connection, "select reporting.why_line(%s)", line_id)
    if told is None:
        raise ConfigurationError(f"There is no line {line_id}. Line ids stand in reporting.invoice_line.")
    return _LINE.validate_python(told)


def why_addition(connection: Connection, name: str) -> AdditionStory:
    """The story of an Addition, by its delivery key or its id in ConnectWise.

    Raises ConfigurationError when it is not ours, or when several agreements have one with that id.
    """
    key = name
    if is_target_id(name):
        keys = connection.execute(
            "select delivery_key, agreement_id from delivery.addition where connectwise_addition_id = %s order by 2",
            [int(name)],
        ).fetchall()
        if len(keys) > 1:
            listed = ", ".join(f"{found} (agreement {agreement})" for found, agreement in keys)
            raise ConfigurationError(f"Several agreements have an Addition {name}. Name one by its key: {listed}.")
        key = keys[0][0] if keys else ""
    told = _told(connection, "select reporting.why_addition(%s::text)", key)
    if told is None:
        raise ConfigurationError(
            f"Addition {name} is not one of ours. Ours stand in reporting.addition; a person may have made it by hand."
        )
    return _ADDITION.validate_python(told)


def why_invoice(connection: Connection, number: str) -> list[InvoiceStory]:
    """The stories of the invoices of a number, as AppXite prints it; more than one if it was issued again.

    Raises ConfigurationError when no accepted invoice has it.
    """
    found = connection.execute(
        """
        select
            to_jsonb(invoice) || jsonb_build_object('organization_name', organization.name,
                'first_run_started_at', first_run.started_at),
            (
                select jsonb_agg(to_jsonb(line) order by line.line_id) from reporting.invoice_line as line
                where line.invoice_id = invoice.invoice_id
            ),
            (
                select to_jsonb(proof) from audit.invoice_proof as proof
                where proof.invoice_id = invoice.invoice_id order by proof.run_id desc limit 1
            ),
            (
                select coalesce(jsonb_agg(jsonb_build_object('table_name', table_name, 'changed_at', changed_at,
                    'before', before, 'after', after) order by change_id), '[]')
                from audit.change
                where table_name = 'billing.invoice' and row_key = invoice.invoice_id::text
            )
        from billing.invoice as invoice
        join mapping.organization as organization using (organization_id)
        join audit.run as first_run on first_run.run_id = invoice.first_run_id
        where invoice.invoice_number = %s
        order by invoice.invoice_id
        """,
        [number],
    ).fetchall()
    if not found:
        raise ConfigurationError(
            f"No accepted invoice has the number {number!r}. It may not be Verified yet, or its period was not run."
        )
    return [
        InvoiceStory({**invoice, "proof": proof}, lines or [], _CHANGES.validate_python(changes))
        for invoice, lines, proof, changes in found
    ]


def _told(connection: Connection, statement: LiteralString, value: object) -> Any:
    row = connection.execute(statement, [value]).fetchone()
    return row[0] if row else None


# -- in order of time --------------------------------------------------------------------------------------------------


def line_events(story: LineStory) -> list[Event]:
    """What happened to a line, oldest first: with what is no matter of it (settings that nobody touched) left out."""
    events = [
        *_source_events(story),
        *_entry_events(story),
        *_held_events(story),
        *_decision_events(story),
        *_agreement_events(story),
    ]
    if story.delivery:
        events.extend(addition_events(story.delivery, of_line=story.line["line_id"]))
    events.extend(Event(entry.logged_at, _run(entry.run_id), f"{entry.level}: {entry.message}") for entry in story.log)
    return _in_order(events)


def addition_events(story: AdditionStory, of_line: int | None = None) -> list[Event]:
    """What happened to an Addition, oldest first; of_line: only what delivered this line."""
    events: list[Event] = []
    own_plans = {plan.plan_id for plan in story.plans if of_line is None or of_line in plan.line_ids}
    for plan in story.plans:
        if plan.plan_id not in own_plans:
            continue
        words = f"plan {plan.plan_id}: {plan.action} the Addition, {_money(plan.amount)}"
        words += ", a dry run: it cannot be approved" if plan.is_dry_run else ""
        words += f", parked: {plan.parked_because}" if plan.parked_because else ""
        words += f" [{plan.plan_state}]" if plan.plan_state in ("superseded", "rejected", "proposed") else ""
        events.append(Event(plan.created_at, f"run {plan.run_id} ({plan.run_kind})", words))
        if plan.approved_at:
            without = " without it: the next run plans it again" if plan.is_left_out else ""
            events.append(Event(plan.approved_at, str(plan.approved_by), f"plan {plan.plan_id} approved{without}"))
        if plan.rejected_at:
            words = f"plan {plan.plan_id} rejected: {plan.rejected_because}"
            events.append(Event(plan.rejected_at, str(plan.rejected_by), words))
    events.extend(
        Event(attempt.attempted_at, f"worker {attempt.worker}", _attempt_words(attempt))
        for attempt in story.attempts
        if of_line is None or attempt.plan_id is None or attempt.plan_id in own_plans
    )
    ledger = story.addition
    if ledger and ledger["delivered_at"] and (of_line is None or ledger["plan_id"] in own_plans):
        read = _time(ledger["delivered_at"])
        events.append(
            Event(
                read, "ConnectWise", f"Addition {ledger['connectwise_addition_id']} read back, equal to what was sent"
            )
        )
    for line in story.lines:
        if line.proven_at and (of_line is None or line.line_id == of_line):
            words = (
                f"proven: {_money(line.amount)} for {line.cycle_start} to {line.cycle_end} read again from ConnectWise"
            )
            events.append(Event(line.proven_at, _run(line.proven_run_id), words))
    for orphan in story.orphans:
        which = f"Addition {orphan['connectwise_addition_id']}"
        words = f"{which} has our marker without being the recorded one; it never bills"
        events.append(Event(_time(orphan["found_at"]), "ConnectWise", words))
    if ledger and ledger["problem"]:
        at = max([attempt.attempted_at for attempt in story.attempts], default=_time(ledger["intended_at"]))
        events.append(Event(at, "ConnectWise", f"the Addition is {ledger['state']}: {ledger['problem']}"))
    events.extend(Event(entry.logged_at, _run(entry.run_id), f"{entry.level}: {entry.message}") for entry in story.log)
    return _in_order(events)


def _source_events(story: LineStory) -> Iterator[Event]:
    line, invoice = story.line, story.invoice
    first = (
        next((change.before for change in story.source_changes if change.table_name == "billing.invoice_line"), None)
        or line
    )
    if line["revision"] == 1:
        what = f"invoice {invoice['invoice_number']} came with this line: {_quantities(first)}"
        yield Event(_time(line["loaded_at"]), f"AppXite, run {line['first_run_id']}", what)
    for change in story.source_changes:
        differences = change.differences()
        if differences:
            whose = "the invoice" if change.table_name == "billing.invoice" else "the line"
            yield Event(change.changed_at, "AppXite", f"{whose} changed: {'; '.join(differences)}")
    for other in story.revisions:
        if other.revision > 1:
            change_words = "took the line away" if other.is_removal else "changed the line"
            yield Event(
                other.loaded_at, "AppXite",
                f"{change_words} after it was delivered: the difference of {_money(other.total_price)} "
                f"{other.currency} is line {other.line_id} (revision {other.revision}), {other.outcome}",
            )  # fmt: skip


def _entry_events(story: LineStory) -> Iterator[Event]:
    for entry in story.entries:
        name = f"{ROLES.get(entry.role, entry.role)} {entry.row_key}"
        if not entry.is_default and entry.at and entry.person:
            version = f", version {entry.version}" if entry.version else ""
            yield Event(entry.at, entry.person, f"{name}: {describe(entry.value, entry.row_key)}{version}")
        if entry.changed_at:
            keeps = "; the line keeps what was delivered" if story.is_carried else "; the next run decides by it"
            now = describe(entry.value_now, entry.row_key) if entry.value_now else "taken away"
            yield Event(entry.changed_at, str(entry.changed_by), f"{name} changed, today: {now}{keeps}")


def _held_events(story: LineStory) -> Iterator[Event]:
    for reason in story.held:
        title = reason.title or reason.reason_code
        detail = f" ({reason.detail})" if reason.detail else ""
        yield Event(reason.held_since, "held", f"{reason.reason_code}: {title}{detail}")
        if reason.held_until:
            yield Event(reason.held_until, "no longer held", f"{reason.reason_code}: {title}")


def _decision_events(story: LineStory) -> Iterator[Event]:
    decision = story.decision
    if decision is None:
        return
    who = f"run {decision['run_id']} ({decision['run_kind']})"
    at = _time(decision["decided_at"])
    if decision["outcome"] == "excluded":
        yield Event(at, who, f"excluded: {decision['excluded_by']}")
    elif decision["outcome"] == "deliver":
        yield Event(at, who, f"decided: {decision_words(story)}")


def _agreement_events(story: LineStory) -> Iterator[Event]:
    made = story.new_agreement
    if made is None:
        return
    name = (made["payload"] or {}).get("name", made["agreement_key"])
    words = f"plan {made['plan_id']} begins to create agreement {name}"
    yield Event(_time(made["intended_at"]), str(made["approved_by"]), words)
    for attempt in TypeAdapter(list[Attempt]).validate_python(made["attempts"]):
        yield Event(attempt.attempted_at, f"worker {attempt.worker}", _attempt_words(attempt))
    if made["created_at"]:
        yield Event(_time(made["created_at"]), "ConnectWise", f"agreement {made['agreement_id']} stands: {name}")
    elif made["problem"]:
        yield Event(_time(made["intended_at"]), "ConnectWise", f"agreement {made['state']}: {made['problem']}")


def _in_order(events: Iterable[Event]) -> list[Event]:
    return sorted(dict.fromkeys(events), key=lambda event: event.at)


# -- in words ----------------------------------------------------------------------------------------------------------


def decision_words(story: LineStory) -> str:
    """What was decided about a line, in one sentence."""
    decision = story.decision or {}
    source = AGREEMENT_SOURCES.get(decision.get("agreement_source") or "", decision.get("agreement_source") or "")
    parts = [
        ", ".join(
            f"{what} {story.names[what]}" if story.names[what] else f"no {what}" for what in ("company", "product")
        ),
        (f"agreement {story.names['agreement']}" if story.names["agreement"] else "no agreement")
        + (f" ({source})" if source else ""),
        f"{decision.get('effective_date') or 'no date'} to {decision.get('cancelled_date') or 'no date'}",
        f"{shown(decision.get('quantity'))} x {shown(decision.get('unit_price'))} = {_money(decision.get('amount'))}",
    ]
    rules = decision.get("rules") or {}
    if rules.get("moved_to_open_cycle"):
        parts.append("moved to the next open cycle, since its own was invoiced already")
    if rules.get("moved_to_bill_start"):
        parts.append("moved to the agreement's billing start, in the same cycle")
    if rules.get("billed_as_one_unit"):
        parts.append("billed as 1 x total, since no unit price gives the total")
    if decision.get("corrects_line_id"):
        parts.append(f"corrects line {decision['corrects_line_id']} ({decision['corrects_told_by']})")
    if rules.get("user_updated"):
        parts.append(f"User Updated: {', '.join(rules['user_updated'])}")
    return "; ".join(parts)


def describe(value: Mapping[str, Any], row_key: str = "") -> str:
    """An entry's value in words, without the key that it stands under: `state approved, company Bakery (17)`."""
    if "setting_key" in value:
        return shown(value.get("value"))
    told = {
        name: given for name, given in value.items()
        if name not in _OWN_COLUMNS and given is not None and given is not False and str(given) != row_key
    }  # fmt: skip
    words = []
    for name, given in told.items():
        plain = name.removesuffix("_id")
        if plain != name and plain in told:
            words.append(f"{plain} {told[plain]} ({given})")
        elif f"{name}_id" not in told:
            words.append(f"{name} {shown(given)}")
    return ", ".join(words)


def _attempt_words(attempt: Attempt) -> str:
    which = f" Addition {attempt.connectwise_addition_id}" if attempt.connectwise_addition_id else ""
    if attempt.outcome == "invoke":
        return f"{attempt.operation}{which}: sent"
    answer = {"ok": "ConnectWise did it", "fail": "refused, certainly not applied", "unknown": "no answer"}
    detail = f": {attempt.detail}" if attempt.detail else ""
    return f"{attempt.operation}{which}: {answer[attempt.outcome]}{detail}"


def _quantities(line: Mapping[str, Any]) -> str:
    if line.get("revision", 1) > 1:
        return f"a difference of {_money(line['total_price'])} {line['currency']}, {line['charge_type']}"
    return (
        f"{shown(line['quantity'])} x {shown(line['unit_price'])} = {_money(line['total_price'])} "
        f"{line['currency']}, {line['charge_type']}, {line['charge_start_date']} to {line['charge_end_date']}"
    )


def _invoice_words(invoice: Mapping[str, Any]) -> str:
    total = f"total {_money(invoice['total_amount'])} {invoice['currency']}"
    return f"{invoice['invoice_date']}, {invoice['status']}, {total}"


def proof_words(proof: Mapping[str, Any]) -> str:
    parts = {"delivered": "delivered", "held": "held", "excluded": "excluded", "awaiting_approval": "awaiting approval"}
    return " + ".join(f"{words} {_money(proof[name])}" for name, words in {**parts, "in_doubt": "in doubt"}.items())


def _named(ledger: Mapping[str, Any], kind: str) -> str:
    return f"{ledger[f'{kind}_name']} ({ledger[f'{kind}_id']})"


def _money(amount: Any) -> str:
    return "?" if amount is None else f"{Decimal(amount):,.2f}"


def shown(value: Any) -> str:
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    if isinstance(value, list):
        return ", ".join(map(shown, value))
    return "not set" if value is None else str(value)


def _time(value: Any) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)


def _utc(at: datetime | None) -> str:
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _run(run_id: int | None) -> str:
    return "a person" if run_id is None else f"run {run_id}"


# -- printing ----------------------------------------------------------------------------------------------------------


def _table(title: str, *columns: str) -> Table:
    return Table(*columns, title=title, title_justify="left")


def _add(table: Table, *cells: object) -> None:
    table.add_row(*(escape("" if cell is None else str(cell)) for cell in cells))


def print_line(story: LineStory, console: Console) -> None:
    """Print the story of a line."""
    line, invoice, decision = story.line, story.invoice, story.decision or {}
    head = _table(f"Line {line['line_id']} of invoice {invoice['invoice_number']}: {story.outcome}", "", "")
    _add(head, "customer", f"{invoice['organization_name']} ({invoice['organization_id']})")
    _add(
        head,
        "invoice",
        _invoice_words(invoice),
    )
    if invoice["withdrawn"]:
        _add(head, "withdrawn", invoice["withdrawn"])
    _add(head, "subscription", f"{line['subscription_name'] or ''} ({line['subscription_id'] or 'none'})")
    _add(head, "line", f"{_quantities(line)}, revision {line['revision']}")
    _add(head, "AppXite's newest extract", _staged_words(story))
    if decision.get("outcome") == "deliver":
        _add(head, "decided", decision_words(story))
    if decision.get("excluded_by"):
        _add(head, "excluded by", decision["excluded_by"])
    for reason in story.held:
        if reason.held_until is None and not story.is_carried:
            _add(
                head,
                f"held since {_utc(reason.held_since)} UTC",
                f"{reason.reason_code}: {reason.title} ({reason.detail}). {reason.cure}",
            )
    ledger = story.delivery.addition if story.delivery else None
    if ledger and story.is_carried:
        _add(
            head,
            "Addition",
            f"{ledger['connectwise_addition_id']} on {_named(ledger, 'agreement')}, {ledger['state']}",
        )
    if story.proof:
        proof = story.proof
        _add(
            head, "proof of the invoice",
            f"run {proof['run_id']}: source {_money(proof['source_total'])} = {proof_words(proof)}",
        )  # fmt: skip
    console.print(head)
    _print_entries(story, console)
    _print_events(line_events(story), console)
    if ledger and story.is_carried:
        _print_answer(ledger, console)


def print_addition(story: AdditionStory, console: Console) -> None:
    """Print the story of an Addition."""
    ledger = story.addition
    state = (
        f"Addition {ledger['connectwise_addition_id'] or '(not known yet)'}: {ledger['state']}"
        if ledger
        else "an Addition that is only planned"
    )
    head = _table(f"{story.delivery_key}: {state}", "", "")
    if ledger:
        _add(
            head,
            "agreement",
            f"{_named(ledger, 'agreement')} of {_named(ledger, 'company')}",
        )
        _add(head, "subscription", ledger["subscription_id"])
        _add(head, "persistent", "yes: it is prolonged by each paid cycle" if ledger["is_persistent"] else "no")
        _add(head, "marker", ledger["marker"])
        console.print(head)
    else:
        console.print(escape(f"{story.delivery_key}: {state}"))
    lines = _table(
        "Lines that it carries (each one's story: why --line ID)",
        "line",
        "invoice",
        "period",
        "charge",
        "cycle",
        "money",
        "plan",
        "proven by (UTC)",
    )
    for line in story.lines:
        proven = f"run {line.proven_run_id}, {_utc(line.proven_at)}" if line.proven_run_id else "not proven"
        _add(
            lines, line.line_id, line.invoice_number, f"{line.billing_period:%Y-%m}", line.charge_type,
            f"{line.cycle_start} to {line.cycle_end}", f"{_money(line.amount)} {line.currency}", line.plan_id, proven,
        )  # fmt: skip
    if story.lines:
        console.print(lines)
    _print_events(addition_events(story), console)
    if ledger:
        _print_answer(ledger, console)


def print_invoice(story: InvoiceStory, console: Console) -> None:
    """Print an invoice and what became of each of its lines."""
    invoice = story.invoice
    head = f"Invoice {invoice['invoice_number']} of {invoice['organization_name']}, {_invoice_words(invoice)}"
    table = _table(
        head + " (each line's story: why --line ID)",
        "line",
        "subscription",
        "charge",
        "total",
        "outcome",
        "delivered",
        "Addition",
        "why",
    )
    for line in story.lines:
        why = (
            ", ".join(line["held_reasons"] or [])
            if line["outcome"] == "held"
            else line["excluded_by"]
            if line["outcome"] == "excluded"
            else ""
        )
        delivered = _money(line["delivered_amount"]) if line["connectwise_addition_id"] else ""
        _add(
            table, line["line_id"], line["subscription_name"], line["charge_type"], _money(line["total_price"]),
            line["outcome"], delivered, line["connectwise_addition_id"], why,
        )  # fmt: skip
    console.print(table)
    if invoice["withdrawn"]:
        console.print(escape(f"Withdrawn: {invoice['withdrawn']}"), style="bold red")
    events = [
        Event(_time(invoice["first_run_started_at"]), f"run {invoice['first_run_id']}", "first loaded from AppXite")
    ]
    events += [
        Event(change.changed_at, "AppXite", "; ".join(change.differences()))
        for change in story.source_changes
        if change.differences()
    ]
    if invoice["proof"]:
        proof = invoice["proof"]
        words = f"proof: difference {_money(proof['difference'])}: {proof_words(proof)}"
        events.append(Event(_time(proof["proven_at"]), f"run {proof['run_id']}", words))
    _print_events(_in_order(events), console)


def _staged_words(story: LineStory) -> str:
    if story.staged is None:
        return "not staged any more (staging_retention_days), or AppXite no longer gives the line"
    staged = story.staged
    return f"of run {staged['run_id']}: invoice {staged['header_status']}, {_quantities(staged['row'])}"


def _print_entries(story: LineStory, console: Console) -> None:
    table = _table(
        f"What decided, as it was valid at {_utc(story.as_of)} UTC",
        "entry",
        "key",
        "value",
        "version",
        "by",
        "since (UTC)",
        "today",
    )
    for entry in story.entries:
        today = (
            "the same"
            if entry.is_same_now
            else "TAKEN AWAY"
            if entry.value_now is None
            else f"DIFFERENT: {describe(entry.value_now, entry.row_key)}"
        )
        who = "default" if entry.is_default else entry.person
        _add(
            table,
            ROLES.get(entry.role, entry.role),
            entry.row_key,
            describe(entry.value, entry.row_key),
            entry.version,
            who,
            _utc(entry.at),
            today,
        )
    console.print(table)


def _print_events(events: Iterable[Event], console: Console) -> None:
    table = _table("What happened, in order of time", "when (UTC)", "who", "what")
    for event in events:
        _add(table, _utc(event.at), event.who, event.what)
    console.print(table)


def _print_answer(ledger: Mapping[str, Any], console: Console) -> None:
    sent, applied = ledger["payload"], ledger["applied_payload"] or {}
    table = _table(
        "What was sent, and what ConnectWise gave back when it was last read as equal", "field", "sent", "ConnectWise"
    )
    for name in dict.fromkeys((*sent, *applied)):
        _add(table, name, shown(sent.get(name)), shown(applied.get(name)))
    console.print(table)
