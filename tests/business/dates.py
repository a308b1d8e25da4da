"""Months and ConnectWise's billing cycles, counted here once more: nothing of the product or the sandbox is used."""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import date, timedelta

DAY = timedelta(days=1)


@dataclass(frozen=True, order=True)
class Span:
    """Days from start to end, both inclusive."""

    start: date
    end: date

    def __contains__(self, day: date) -> bool:
        return self.start <= day <= self.end


def later(day: date, months: int) -> date:
    """The same day some months later; the last day of a shorter month."""
    years, month = divmod(day.month - 1 + months, 12)
    year = day.year + years
    return date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))


def first_of_month(day: date) -> date:
    """The first day of a day's month."""
    return day.replace(day=1)


def last_of_month(day: date) -> date:
    """The last day of a day's month."""
    return later(first_of_month(day), 1) - DAY


def cycle_with(day: date, months: int, anchor: date | None) -> Span:
    """The billing cycle that holds a day.

    anchor: a day on which a cycle begins (the billing start); None: calendar cycles, which begin with January.
    """
    anchor = date(day.year - 1, 1, 1) if anchor is None else anchor
    step = -months * (1 + (anchor - day).days // 28) if day < anchor else 0
    step -= step % months
    while later(anchor, step + months) <= day:
        step += months
    return Span(later(anchor, step), later(anchor, step + months) - DAY)
