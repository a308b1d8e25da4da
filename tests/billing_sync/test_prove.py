"""The proof turns red for everything that is not as it was delivered, and green money is the money that is invoiced."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from pipeline import (
    LIST,
    NOV,
    OCT,
    PATCH,
    SEP,
    Pipeline,
    check,
    invoiced,
    one_time,
    recurring,
)
from prepared import Build, Prepared

from billing_sync.errors import ConfigurationError, ProofError, TemporaryError
from billing_sync.plan import plan_of_run
from billing_sync.prove import agreements_to_prove, prove
from billing_sync.report import delivered_by_company
from billing_sync.run import finish_run, last_day_of

Stage = Callable[[Build], Prepared]
MakePipeline = Callable[[Prepared], Pipeline]


def delivered_line(pipeline: Pipeline) -> tuple[int, int]:
    """A recurring line of October, 3 x 4.20, delivered and proven; beside it one of another customer."""
    pipeline.bill(OCT, recurring("a", OCT, 3, "4.20"))
    pipeline.bill(OCT, recurring("b", OCT, 1, "1.00"), customer=2)
    run_id, plan_id = pipeline.plan_night(OCT)
    pipeline.finish(run_id)
    return run_id, plan_id


@pytest.fixture
def delivered(stage: Stage, pipeline_of: MakePipeline) -> Pipeline:
    return pipeline_of(stage(delivered_line))


def ours(pipeline: Pipeline) -> dict[str, Any]:
    return pipeline.additions(pipeline.agreement())[0]


def tampered(pipeline: Pipeline) -> str:
    """The proof of another night, which must fail; its words."""
    run_id = pipeline.plan_night(OCT)[0]
    with pytest.raises(ProofError) as failure:
        pipeline.finish(run_id)
    assert finish_run(pipeline.connection, run_id) == "failed"
    assert pipeline.value("select proven_at from audit.run where run_id = %s", run_id) is None
    assert str(run_id) in str(failure.value)
    # Each breach stands in the log that people read.
    assert all(line.partition(": ")[2] in str(failure.value) for line in pipeline.warnings("ERROR").splitlines())
    return str(failure.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"unitPrice": Decimal("4.21")}, "bills 12.63 instead of 12.60"),
        ({"quantity": 4}, "bills 16.80 instead of 12.60"),
        ({"lessIncluded": 1}, "bills 8.40 instead of 12.60"),
        ({"billCustomer": "DoNotBill"}, "set to DoNotBill"),
        ({"billCustomer": "NoCharge"}, "set to NoCharge"),
        ({"cancelledDate": None}, "has no end and bills for ever"),
        ({"cancelledDate": "2026-11-01T00:00:00Z"}, "bills from 2026-10-01 to 2026-11-01 instead of 2026-10-01 to"),
        ({"effectiveDate": "2026-09-30T00:00:00Z"}, "bills from 2026-09-30 to 2026-10-31 instead of 2026-10-01 to"),
        ({"effectiveDate": None}, "is not settled"),
        ({"serialNumber": "X-1"}, "marker changed"),
    ],
)
def test_a_change_in_connectwise_makes_the_proof_red(delivered: Pipeline, change: dict[str, Any], said: str) -> None:
    addition = ours(delivered)
    delivered.sandbox.change_addition(addition["id"], change)
    words = tampered(delivered)
    assert f"Addition {addition['id']} on agreement 1001" in words
    assert said in words
    assert "1 breaches" in words
    proof = delivered.rows(
        "select delivered, in_doubt, difference from audit.invoice_proof order by run_id desc, invoice_id limit 2"
    )
    assert proof == [(0, Decimal("12.60"), 0), (Decimal("1.00"), 0, 0)]


def test_it_is_never_mended_by_itself_and_green_when_a_person_puts_it_back(delivered: Pipeline) -> None:
    addition = ours(delivered)
    delivered.sandbox.change_addition(addition["id"], {"quantity": 4})
    tampered(delivered)
    tampered(delivered)
    delivered.sandbox.change_addition(addition["id"], {"quantity": 3})
    assert delivered.night(OCT)[1]["delivered"] == "13.60"
    check(delivered.sandbox)


def test_a_deleted_addition_makes_the_proof_red(delivered: Pipeline) -> None:
    addition = ours(delivered)
    delivered.sandbox.delete_addition(addition["id"])
    assert f"Addition {addition['id']} on agreement 1001 not found in ConnectWise" in tampered(delivered)


def test_a_deleted_agreement_makes_the_proof_red(delivered: Pipeline) -> None:
    with delivered.sandbox.store.transaction():
        delivered.sandbox.store.delete("agreement", delivered.sandbox.store.records("agreement")[1001])
    assert "on agreement 1001 not found in ConnectWise" in tampered(delivered)


def test_a_second_billable_addition_of_one_marker_makes_the_proof_red(delivered: Pipeline) -> None:
    addition = ours(delivered)
    twin = {name: addition[name] for name in ("product", "quantity", "unitPrice", "serialNumber", "effectiveDate")}
    delivered.sandbox.add_addition(1001, {**twin, "billCustomer": "Billable"})
    assert f"Agreement 1001: 2 billable Additions carry the marker {addition['marker']}" in tampered(delivered)


def test_hand_made_additions_are_nobodys_business(delivered: Pipeline) -> None:
    delivered.sandbox.add_addition(1001, {"product": {"id": 502}, "billCustomer": "Billable", "serialNumber": "S-77"})
    assert delivered.night(OCT)[1]["delivered"] == "13.60"


def test_a_list_that_is_stale_or_away_proves_nothing(delivered: Pipeline) -> None:
    run_id = delivered.plan_night(OCT)[0]
    delivered.sandbox.add_fault("status", **LIST, params={"status": 503})
    with pytest.raises(TemporaryError):
        delivered.finish(run_id)
    delivered.sandbox.clear_faults()
    delivered.sandbox.add_fault("stale", **LIST, params={"age": 3600})
    with pytest.raises(ProofError, match="not found in ConnectWise"):
        delivered.finish(run_id)
    assert finish_run(delivered.connection, run_id) == "failed"
    delivered.sandbox.clear_faults()
    delivered.finish(run_id)  # the proof of a run may be made again, and is then the proof
    assert delivered.value("select state from audit.run where run_id = %s", run_id) == "succeeded"
    assert delivered.value("select sum(in_doubt) from audit.invoice_proof where run_id = %s", run_id) == 0


def test_a_proof_counts_every_outcome(pipeline: Pipeline) -> None:
    pipeline.bill(OCT, recurring("a", OCT, 1, "1.00"), recurring("b", OCT, 1, "2.00", chargeType="TransferFee"))
    pipeline.bill(OCT, recurring("c", OCT, 1, "4.00"), customer=2)
    pipeline.bill(OCT, recurring("d", OCT, 1, "8.00"), customer=3, totalAmount=Decimal("8.01"))
    pipeline.connection.execute(
        "update mapping.organization_mapping set state = 'excluded', note = 'no' where company_id = 203"
    )
    _, proof = pipeline.night(OCT)
    assert proof == {
        "invoices": "3", "source": "15.01", "delivered": "1.00", "held": "10.01", "excluded": "4.00",
        "awaiting_approval": "0", "difference": "0.00",
    }  # fmt: skip
    # A plan that waits is money that waits, and the run is proven all the same.
    pipeline.set(automated_daily_sync="off")
    pipeline.bill(OCT, one_time("e", date(2026, 10, 8), 1, "16.00"))
    run_id, _ = pipeline.plan_night(OCT)
    _, proof = pipeline.finish(run_id)
    assert (proof["delivered"], proof["awaiting_approval"], proof["difference"]) == ("1.00", "16.00", "0.00")
    assert finish_run(pipeline.connection, run_id) == "awaiting_approval"


def test_only_agreements_of_the_runs_invoices_are_read(delivered: Pipeline) -> None:
    manual = delivered.plan("manual", [OCT], organization_ids=["110001"])
    assert agreements_to_prove(delivered.connection, manual) == [1001]
    nightly = delivered.plan("nightly", [SEP, OCT])
    assert agreements_to_prove(delivered.connection, nightly) == [1001, 1005]
    copy = delivered.sandbox.copy_agreement(1005)
    nightly = delivered.plan("nightly", [SEP, OCT])
    assert agreements_to_prove(delivered.connection, nightly) == [1001, 1005, copy["id"]]
    assert agreements_to_prove(delivered.connection, delivered.plan("manual", [SEP])) == []


# -- invoicing between nights ------------------------------------------------------------------------------------------


def test_what_was_proven_and_then_invoiced_stays_proven_when_the_addition_moves_on(delivered: Pipeline) -> None:
    delivered.sandbox.invoice(1001, through="2026-10-31")
    delivered.bill(NOV, recurring("a", NOV, 7, "4.20"))
    counts, proof = delivered.night(NOV)
    assert counts.updated == 1
    assert proof["delivered"] == "43.00"  # 12.60 + 29.40 + 1.00
    assert proof["source"] == "43.00"
    check(delivered.sandbox)


def test_an_addition_moves_on_only_after_its_lines_were_proven(pipeline: Pipeline) -> None:
    """October is delivered, its proof fails on an outage, October is invoiced, November has other values."""
    pipeline.bill(OCT, recurring("a", OCT, 3, "4.20"))
    run_id, plan_id = pipeline.plan_night(OCT)
    pipeline.deliver(plan_id)
    finish_run(pipeline.connection, run_id, is_failed=True)
    pipeline.sandbox.invoice(1001, through="2026-10-31")
    pipeline.bill(NOV, recurring("a", NOV, 7, "4.20"))
    _, proof = pipeline.night(NOV)
    assert proof["delivered"] == "42.00"
    check(pipeline.sandbox)


def test_an_addition_that_bills_without_a_line_makes_the_proof_red(pipeline: Pipeline) -> None:
    """What ConnectWise stored differs, and it refuses to be set back: it stays billable, with wrong money."""
    pipeline.sandbox.change_settings(unit_price_decimals=2)
    pipeline.sandbox.add_fault("status", **PATCH, body="DoNotBill", params={"status": 400})
    pipeline.bill(OCT, recurring("a", OCT, 100, "5.2456"))
    run_id, plan_id = pipeline.plan_night(OCT)
    pipeline.deliver(plan_id)
    assert pipeline.the_addition()["billCustomer"] == "Billable"
    with pytest.raises(ProofError, match=str(pipeline.the_addition()["id"])):
        prove(pipeline.connection, pipeline.connectwise(read_only=True), run_id)


class Story:
    """Three months of nights and agreement invoicing in an order that chance decides."""

    def __init__(self, pipeline: Pipeline, seed: int) -> None:
        self.pipeline = pipeline
        self.chance = random.Random(seed)
        self.values = {name: [Decimal(2), Decimal("10.00")] for name in ("a", "b", "c")}

    def invoice(self, month: date) -> None:
        """Somebody runs agreement invoicing, for one agreement or all, through the month or the one before."""
        through = self.chance.choice([month, month, month - timedelta(days=1)])
        agreement = self.chance.choice([None, 1001, 1005])
        self.pipeline.sandbox.invoice(agreement, through=through.isoformat())

    def bill(self, month: date) -> None:
        """The month's invoices: changed quantities and prices, a pause, one more line of a subscription, a credit."""
        for customer, names in ((0, "ab"), (2, "c")):
            rows = []
            for name in names:
                quantity, price = self.values[name]
                if self.chance.random() < 0.4:
                    quantity += self.chance.choice([1, 2, 5])
                if self.chance.random() < 0.3:
                    price += Decimal(self.chance.randrange(-90, 300)).scaleb(-2)
                self.values[name] = [quantity, price]
                if self.chance.random() < 0.15:
                    continue
                rows.append(recurring(name, month, quantity, price))
                if self.chance.random() < 0.2:
                    rows.append(recurring(name, month, 1, price))
                if self.chance.random() < 0.3:
                    before = month - timedelta(days=self.chance.randrange(1, 20))
                    rows.append(one_time(name, before, -1, price, chargeType="Correction"))
            if rows:
                self.pipeline.bill(month, *rows, customer=customer)

    def night(self, month: date) -> None:
        run_id, _ = self.pipeline.plan_night(month)
        if self.chance.random() < 0.25:
            self.invoice(month)
        self.pipeline.finish(run_id)

    def tell(self) -> None:
        for month in (SEP, OCT, NOV):
            self.bill(month)
            acts = [self.night] + [self.invoice] * self.chance.choice([0, 1, 1, 2])
            if self.chance.random() < 0.3:
                acts.append(self.night)
            self.chance.shuffle(acts)
            for act in acts:
                act(month)
        for _ in range(3):
            if not self.pipeline.night(last_day_of(NOV))[0].writes:
                break


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("mode", ["persistent", "dated"])
def test_what_is_invoiced_is_what_was_delivered_in_every_order(pipeline: Pipeline, mode: str, seed: int) -> None:
    pipeline.set(recurring_mode=mode, credits="send")  # some of its credits are for nothing that was charged
    story = Story(pipeline, seed)
    story.tell()
    assert set(pipeline.outcomes()) == {"delivered"}
    delivered = delivered_by_company(pipeline.connection)
    assert invoiced(pipeline.sandbox) == delivered
    check(pipeline.sandbox)


def test_a_run_without_a_plan_says_so(pipeline: Pipeline) -> None:
    with pytest.raises(ConfigurationError, match="Run 77 has made no plan"):
        plan_of_run(pipeline.connection, 77)
