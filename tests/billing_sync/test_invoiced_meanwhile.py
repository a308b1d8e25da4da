"""Somebody runs agreement invoicing while an Addition is being written: it is never billed twice, nor lost silently."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pipeline import OCT, PATCH, Pipeline, one_time

from billing_sync.errors import ProofError
from billing_sync.plan import confirm_addition, retry_addition


def invoicing_at(pipeline: Pipeline, request_number: int) -> Callable[[Any], None]:
    """A hook that runs October's invoicing when the n-th PATCH arrives, before it is applied."""
    seen = []

    def hook(request: Any) -> None:
        seen.append(request)
        if len(seen) == request_number:
            pipeline.sandbox.invoice(pipeline.agreement(), through="2026-10-31")

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
