"""Whether the state machine sees what must not be: each rule of it broken once, by hand."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline import OCT
from prepared import Prepared, prepare

from campaign.report import Figures
from campaign.state_machine import OFFERS, Billing, can_be_matched
from campaign.trial import Lane
from campaign.worlds import World
from local_stack.postgres import Postgres


@pytest.fixture(scope="module")
def prepared(postgres: Postgres, billing_template: str, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(postgres, billing_template, tmp_path_factory.mktemp("machine"), "billing_machine")


@pytest.fixture
def machine(prepared: Prepared, tmp_path: Path) -> Iterator[Billing]:
    """One line of 20.00, delivered."""

    class Here(Billing):
        lane, world, found = Lane(tmp_path), World("", prepared, OCT), Figures()

    machine = Here()
    machine.bill(customer=0, month=OCT, offer=OFFERS[0], is_verified=True, rows=[("a", 2)])
    machine.run(kind="nightly", month=OCT)
    yield machine
    machine.world.prepared.discard(machine.pipeline)
    machine.lane.workers.close()


def test_a_line_that_is_delivered_is_accounted_for(machine: Billing) -> None:
    machine.settle()
    assert (machine.found.lines, machine.found.money) == (1, Decimal("20.00"))


COPIED = ("product", "quantity", "unitPrice", "effectiveDate", "cancelledDate", "invoiceDescription")


@pytest.mark.parametrize("marker", ["the same", "axs-tests-another"])
def test_a_line_that_bills_twice_is_seen(machine: Billing, marker: str) -> None:
    (addition,) = machine.ours()
    body = {name: addition[name] for name in COPIED} | {"billCustomer": "Billable"}
    same = addition["serialNumber"]
    machine.sandbox.add_addition(
        addition["agreementId"], {**body, "serialNumber": same if marker == "the same" else marker}
    )
    if marker == "the same":
        with pytest.raises(AssertionError):
            machine.never_two_billable_additions_of_one_marker()
    machine.invoicing(customer=0, month=OCT)
    with pytest.raises(AssertionError):
        machine.each_line_is_invoiced_once_at_most_and_nothing_else_is()


def test_a_line_that_is_not_billed_is_seen(machine: Billing) -> None:
    (addition,) = machine.ours()
    machine.invoicing(customer=0, month=OCT)
    machine.sandbox.store.records("invoice").clear()  # as if ConnectWise had not taken it
    assert addition["billCustomer"] == "Billable"
    with pytest.raises(AssertionError, match=r"0 \+ 0.00 of .* is not 20.00"):
        machine.settle()


@given(st.lists(st.tuples(st.integers(0, 4), st.sets(st.integers(0, 4)))))
def test_lines_are_matched_whatever_their_order(lines: list[tuple[int, set[int]]]) -> None:
    known = [{Decimal(one) for one in {amount, *others}} for amount, others in lines]
    billed = [Decimal(amount) for amount, _ in lines]
    assert can_be_matched(billed[::-1], known)
    assert not can_be_matched([*billed, Decimal(1)], known)
