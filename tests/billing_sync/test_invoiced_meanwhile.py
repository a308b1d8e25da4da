"""Somebody runs agreement invoicing while an Addition is being written: it is never billed twice, nor lost silently."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from pipeline import NOV, OCT, PATCH, Pipeline, invoiced, one_time, recurring, wanted

from billing_sync.errors import ProofError
from billing_sync.pauses import end_pause
from billing_sync.settle import confirm_addition, retry_addition


def invoicing_at(pipeline: Pipeline, request_number: int, *, through: str = "2026-10-31") -> Callable[[Any], None]:
    """A hook that runs invoicing (October's by default) when the n-th PATCH arrives, before it is applied."""
    seen = []

    def hook(request: Any) -> None:
        seen.append(request)
        if len(seen) == request_number:
            pipeline.sandbox.invoice(pipeline.agreement(), through=through)

    return hook


def times_invoiced(pipeline: Pipeline) -> int:
    ours = pipeline.the_addition()["id"]
    return sum(
        line["additionId"] == ours
        for invoice in pipeline.sandbox.invoices(pipeline.agreement())
        for line in invoice["lines"]
    )


def test_invoiced_before_it_was_activated_is_seen_and_billed_in_the_next_cycle(pipeline: Pipeline) -> None:
    pipeline.bill(OCT, one_time("b", OCT.replace(day=9)))
    with (
        pipeline.on_request("PATCH", r"/additions/\d+$", invoicing_at(pipeline, 1)),
        pytest.raises(ProofError, match="carries no line"),
    ):
        pipeline.night(OCT)
    assert times_invoiced(pipeline) == 0
    with pytest.raises(ProofError):
        pipeline.night(OCT)  # it stays red until a person has looked

    retry_addition(pipeline.connection, pipeline.value("select delivery_key from delivery.addition"), "ann")
    pipeline.night(OCT)
    pipeline.sandbox.invoice(pipeline.agreement(), through="2026-11-30")
    assert times_invoiced(pipeline) == 1


def test_an_activation_that_went_through_unanswered_is_not_billed_again(pipeline: Pipeline) -> None:
    """The first PATCH is applied and its answer lost; October is invoiced; the second PATCH is refused."""
    pipeline.sandbox.change_settings(revalidate_effective_date=True)
    pipeline.bill(OCT, one_time("b", OCT.replace(day=9)))
    pipeline.sandbox.add_fault("lost_reply", **PATCH, count=1)
    with (
        pipeline.on_request("PATCH", r"/additions/\d+$", invoicing_at(pipeline, 2)),
        pytest.raises(ProofError, match="carries no line"),
    ):
        pipeline.night(OCT)
    with pytest.raises(ProofError):
        pipeline.night(OCT)
    pipeline.sandbox.invoice(pipeline.agreement(), through="2026-11-30")
    assert times_invoiced(pipeline) == 1

    key = pipeline.value("select delivery_key from delivery.addition")
    assert confirm_addition(pipeline.connection, key, "ann") == 1
    _, proof = pipeline.night(OCT)
    assert proof["held"] in ("0", "0.00")
    assert times_invoiced(pipeline) == 1


def test_a_prolonged_addition_that_was_invoiced_meanwhile_keeps_its_line_until_a_person_settles_it(
    pipeline: Pipeline,
) -> None:
    """Once its cycle is invoiced, the line would get an Addition of its own: it is on the invoice already."""
    pipeline.bill(OCT, recurring("a", OCT, 3, "4.20"))
    pipeline.night(OCT)
    pipeline.sandbox.invoice(pipeline.agreement(), through="2026-10-31")
    pipeline.bill(NOV, recurring("a", NOV, 3, "4.20"))
    pipeline.sandbox.add_fault("lost_reply", **PATCH, count=1)
    with (
        pipeline.on_request("PATCH", r"/additions/\d+$", invoicing_at(pipeline, 2, through="2026-11-30")),
        pytest.raises(ProofError),
    ):
        pipeline.night(NOV)
    for _ in range(3):
        with suppress(ProofError):
            pipeline.night(NOV)

    assert "addition_not_settled" in pipeline.held()
    assert pipeline.states() == ["conflict"]
    assert invoiced(pipeline.sandbox) == wanted(pipeline.sandbox)

    key = pipeline.value("select delivery_key from delivery.addition")
    assert confirm_addition(pipeline.connection, key, "ann") == 1
    pipeline.night(NOV)
    assert pipeline.held() == {}
    assert invoiced(pipeline.sandbox) == wanted(pipeline.sandbox)


def test_a_later_month_of_an_addition_in_conflict_gets_no_addition_of_its_own(pipeline: Pipeline) -> None:
    """Two months share a new Addition. It bills, though its activation went unanswered and was refused in the end."""
    pipeline.sandbox.change_settings(revalidate_effective_date=True)
    for month in (OCT, NOV):
        pipeline.bill(month, recurring("a", month, 3, "4.20"))
    pipeline.sandbox.add_fault("lost_reply", **PATCH, count=1)
    with (
        pipeline.on_request("PATCH", r"/additions/\d+$", invoicing_at(pipeline, 2)),
        pytest.raises(ProofError, match="carries no line"),
    ):
        pipeline.night(NOV)
    end_pause(pipeline.connection, "ann", company_id=201)
    for _ in range(2):
        run_id, _ = pipeline.plan_night(NOV)
        with pytest.raises(ProofError):
            pipeline.finish(run_id)
        assert (
            pipeline.value("select count(*) from billing.held_reason where reason_code = 'addition_not_settled'") == 2
        )
        end_pause(pipeline.connection, "ann", company_id=201)

    assert pipeline.states() == ["conflict"]
    assert invoiced(pipeline.sandbox) == wanted(pipeline.sandbox)
