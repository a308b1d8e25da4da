"""What the API's models share."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Outcome = Literal["delivered", "held", "excluded", "awaiting approval", "in doubt"]
BillingPeriod = Annotated[str, Field(pattern=r"^20\d\d-(0[1-9]|1[0-2])$", description="calendar month, YYYY-MM")]
Currency = Annotated[str, Field(max_length=10)]
LineId = Annotated[int, Field(ge=1, le=2**63 - 1)]
ConnectWiseId = Annotated[int, Field(ge=1, le=2**31 - 1)]
Note = Annotated[str, Field(max_length=1000)]


def _exact(value: object) -> object:
    """A number of JSON has been a float by now, and may have lost digits."""
    if isinstance(value, float):
        raise ValueError(  # noqa: TRY004  (pydantic answers 422 to it)
            'send it as text, e.g. "12.50": a JSON number may lose digits'
        )
    return value


ExactDecimal = Annotated[Decimal, BeforeValidator(_exact)]


class Given(BaseModel):
    """What a request carries: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


class Money(BaseModel):
    """A sum in one currency, and how many lines make it."""

    model_config = ConfigDict(from_attributes=True)

    currency: str
    amount: Decimal
    lines: int


class OutcomeMoney(Money):
    """A sum by what became of the lines."""

    outcome: Outcome


class Change(BaseModel):
    """One entry of the audit trail."""

    changed_by: str
    changed_at: datetime
    before: dict[str, object] | None
    after: dict[str, object] | None


class Released(BaseModel):
    """What a change did to open lines once they were decided again.

    state: done; running when there are so many lines that it goes on in the background (run_id tells which run); later
    when a run was just deciding: the change is stored, and the next run decides by it; failed: the same, since deciding
    again broke off.
    released: lines that were held and are free now; held: lines that were free and are held now.
    """

    model_config = ConfigDict(from_attributes=True)

    state: Literal["done", "running", "later", "failed"]
    run_id: int | None = None
    decided: int = 0
    released: list[Money] = []
    held: list[Money] = []


class Problem(BaseModel):
    """What every error looks like. current: of a 409, what somebody else has stored meanwhile."""

    error: str
    message: str
    current: object | None = None
