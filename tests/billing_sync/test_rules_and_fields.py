"""Rules on the command line, and tax and cost over real HTTP: sent, read back, changed in place."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from pipeline import NOV, OCT, SEP, Pipeline, check, one_time, recurring

Run = Callable[..., tuple[int, str]]


def incoming(pipeline: Pipeline, month: object, price: str) -> None:
    """What a vendor invoices the seller for subscription "a"."""
    pipeline.bill(
        month, recurring("a", month, 1, price), day=2,  # type: ignore[arg-type]
        providerOrganizationId="900001", consumerOrganizationId=pipeline.sandbox.credentials.requester_id,
    )  # fmt: skip


def test_tax_and_cost_are_sent_and_follow_when_the_cycle_before_is_invoiced(pipeline: Pipeline) -> None:
    pipeline.set(taxable="off", unit_cost="incoming_invoice")
    for month, cost in ((SEP, "7.125"), (OCT, "7.25")):
        pipeline.bill(month, recurring("a", month))
        incoming(pipeline, month, cost)
        pipeline.night(month)
        pipeline.sandbox.invoice(through=f"{month:%Y-%m}-01")
        if month == SEP:
            first = pipeline.the_addition()

    addition = pipeline.the_addition()
    assert (first["taxableFlag"], first["unitCost"]) == (False, Decimal("7.125"))
    assert (addition["id"], addition["taxableFlag"], addition["unitCost"]) == (first["id"], False, Decimal("7.25"))
    assert pipeline.states() == ["delivered"]
    assert pipeline.outcomes() == {"delivered": Decimal("20.00")}


def test_a_persons_change_of_the_cost_is_a_conflict_and_not_overwritten(pipeline: Pipeline) -> None:
    pipeline.set(unit_cost="incoming_invoice")
    pipeline.bill(SEP, recurring("a", SEP))
    incoming(pipeline, SEP, "7.00")
    pipeline.night(SEP)
    addition = pipeline.the_addition()
    pipeline.sandbox.change_addition(addition["id"], {"unitCost": Decimal("1.00")})
    pipeline.bill(OCT, recurring("a", OCT))
    incoming(pipeline, OCT, "7.00")

    pipeline.plan_night(OCT)
    run_id = pipeline.value("select max(run_id) from audit.run")
    pipeline.deliver(pipeline.value("select plan_id from delivery.plan where run_id = %s", run_id))

    assert pipeline.the_addition()["unitCost"] == Decimal("1.00")
    assert "unitCost is 1" in pipeline.held()["changed_in_connectwise"]


def test_rules_are_applied_again_from_the_command_line(pipeline: Pipeline, run: Run) -> None:
    pipeline.set(automated_daily_sync="off")
    pipeline.bill(NOV, one_time("a", NOV), one_time("b", NOV))
    pipeline.night(NOV)
    pipeline.connection.execute(
        "update billing.charge_type set charge_start_rule = 'last_day_of_charge_month' where charge_type = 'OneTimeFee'"
    )
    line_id = pipeline.value("select min(line_id) from billing.invoice_line")

    by_line = run(pipeline.dsn, "rules", "apply-again", "--line", str(line_id), "--as", "Anna")
    by_period = run(pipeline.dsn, "rules", "apply-again", "--period", "2026-11", "--organization", "nobody")
    rest = run(pipeline.dsn, "rules", "apply-again", "--period", "2026-11")
    nothing = run(pipeline.dsn, "rules", "apply-again")
    no_period = run(pipeline.dsn, "rules", "apply-again", "--period", "November")

    assert [(code, text.split(";")[0]) for code, text in (by_line, by_period, rest)] == [
        (0, "1 lines changed"), (0, "0 lines changed"), (0, "1 lines changed"),
    ]  # fmt: skip
    assert (nothing[0], "Say which lines" in nothing[1]) == (1, True)
    assert (no_period[0], "2026-05" in no_period[1]) == (1, True)
    assert "Anna applied rules again to lines" in pipeline.warnings("INFO")
    pipeline.set(automated_daily_sync="on")
    pipeline.night(NOV)
    assert {one["effectiveDate"][:10] for one in pipeline.additions()} == {"2026-11-30"}
    check(pipeline.sandbox)
