"""The benchmark of the review grid (`make bench`): 100,000 lines in a period, asked through the real app over HTTP.

Makes a PostgreSQL of its own with tests/bench/world.sql, lets the pipeline decide the lines, serves the pages as
Airflow does, and prints the median of each figure beside the bound of issue 5. Exit code 1 when a bound is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from billing_sync import decide
from billing_sync.db import connect, run_sql_file
from billing_sync.migrate import migrate
from local_stack.postgres import Postgres

ROOT = Path(__file__).resolve().parents[2]
PERIOD = "2026-05"
STEPS = decide.STEPS[decide.STEPS.index(decide.MAP_LINES) :]
FIRST_ROWS, FILTER_AND_SORT, STORE_BULK = 1.0, 0.5, 10.0  # seconds, as the issue wants them
FEWEST_BULK_LINES = 50_000


@dataclass
class Figure:
    """A measured time. bound: None where the issue names none."""

    name: str
    seconds: float
    bound: float | None
    note: str = ""

    @property
    def is_missed(self) -> bool:
        return self.bound is not None and self.seconds > self.bound


class Bench:
    """The pages of a database, asked and measured."""

    def __init__(self, address: str, repeats: int) -> None:
        self._client = httpx.Client(
            base_url=f"{address.rstrip('/')}/api/",
            headers={"X-Billing-Request": "1", "Origin": address.split("/billing")[0]},
            timeout=900,
        )
        self._repeats = repeats
        self.figures: list[Figure] = []

    def ask(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """What an answer that works gives."""
        answer = self._client.request(method, path, json=body, params=query)
        answer.raise_for_status()
        return answer.json()

    def lines(self, sort: str = "line_id", offset: int = 0, **wanted: Any) -> Any:
        """A page of 100 lines of the period."""
        chosen = json.dumps({"periods": [PERIOD], **wanted})
        return self.ask("GET", "lines", filter=chosen, sort=sort, offset=offset, limit=100)

    def measure(self, name: str, bound: float | None, work: Callable[[], Any], *, repeats: int = 0) -> Any:
        """Do it once to warm up (not what changes something), then so often; the median counts."""
        if not repeats:
            work()
        seconds, answer = [], None
        for _ in range(repeats or self._repeats):
            began = time.perf_counter()
            answer = work()
            seconds.append(time.perf_counter() - began)
        self.note(Figure(name, statistics.median(seconds), bound))
        return answer

    def note(self, figure: Figure) -> None:
        """Keep and print a figure."""
        self.figures.append(figure)
        bound = f"  (bound {figure.bound:.1f} s{', MISSED' if figure.is_missed else ''})" if figure.bound else ""
        print(f"{figure.name:<44} {figure.seconds:8.3f} s{bound}{figure.note and '  ' + figure.note}", flush=True)

    def download(self, path: str) -> int:
        """Read a file as it comes; its bytes."""
        query = {"filter": json.dumps({"periods": [PERIOD]})}
        with self._client.stream("GET", path, params=query) as answer:
            answer.raise_for_status()
            return sum(len(piece) for piece in answer.iter_bytes())


def make_world(dsn: str, lines: int) -> None:
    """Fill the database, and decide and plan its open lines as a run does."""
    migrate(dsn)
    with connect(dsn, user="bench") as connection:
        with connection.transaction():
            connection.execute((ROOT / "tests/bench/world.sql").read_text().format(lines=lines))  # type: ignore[call-overload]
        connection.execute("vacuum analyze")
        row = connection.execute("select max(run_id) from audit.run").fetchone()
        assert row is not None
        for step in STEPS:
            began = time.perf_counter()
            run_sql_file(connection, step, row[0])
            print(f"  {step:<42} {time.perf_counter() - began:8.1f} s", flush=True)
        connection.execute("vacuum analyze")


@contextmanager
def serving(dsn: str, home: Path) -> Iterator[str]:
    """The pages in a process of their own."""
    server = subprocess.Popen(
        [sys.executable, str(ROOT / "tests/helpers/pages_server.py"), "--dsn", dsn],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "AIRFLOW_HOME": str(home)},
    )  # fmt: skip
    try:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
    finally:
        server.terminate()
        server.wait()


def read(bench: Bench) -> None:
    """Pages, filters, sorts, totals."""
    bench.measure("first page", FIRST_ROWS, bench.lines)
    bench.measure("page 100", FIRST_ROWS, lambda: bench.lines(offset=9_900))
    bench.measure("filter by outcome", FILTER_AND_SORT, lambda: bench.lines(outcomes=["held"]))
    bench.measure("filter by reason", FILTER_AND_SORT, lambda: bench.lines(reason_codes=["offer_unmapped"]))
    bench.measure("filter by text", FILTER_AND_SORT, lambda: bench.lines(text="bakery 4"))
    bench.measure("filter by text that is nowhere", FILTER_AND_SORT, lambda: bench.lines(text="nowhere at all"))
    bench.measure("sort by money", FILTER_AND_SORT, lambda: bench.lines(sort="-total_price"))
    bench.measure("sort by customer", FILTER_AND_SORT, lambda: bench.lines(sort="organization_name"))
    bench.measure("sort by agreement", FILTER_AND_SORT, lambda: bench.lines(sort="agreement_name"))
    whole = json.dumps({"periods": [PERIOD]})
    bench.measure("totals of the period", FILTER_AND_SORT, lambda: bench.ask("GET", "lines/totals", filter=whole))


def edit(bench: Bench) -> None:
    """One line edited, again and again."""
    line = bench.lines(outcomes=["awaiting approval"])["lines"][0]
    path = f"lines/{line['line_id']}"
    version = 0

    def change() -> None:
        nonlocal version
        answer = bench.ask("PATCH", path, {"version": version, "quantity": str(version + 2)})
        version = answer["line"]["version"]

    bench.measure("edit of one line, decided", None, change)
    bench.measure("why", None, lambda: bench.ask("GET", f"{path}/why"))


def bulk(bench: Bench, lines: int) -> None:
    """Many lines changed at once, then decided again."""
    body = {
        "filter": {"periods": [PERIOD], "outcomes": ["awaiting approval"], "charge_types": ["CycleFee"]},
        "values": {"action": "set", "cancelled_date": "last_day_of_charge_month"},
    }
    preview = bench.measure("bulk preview", None, lambda: bench.ask("POST", "bulk/preview", body), repeats=1)
    if lines >= 2 * FEWEST_BULK_LINES and preview["lines"] < FEWEST_BULK_LINES:
        sys.exit(f"The world has only {preview['lines']} lines for the bulk change.")
    path = f"bulk/{preview['bulk_id']}"
    result = bench.measure(
        f"bulk apply, {preview['lines']} lines stored",
        STORE_BULK,
        lambda: bench.ask("POST", f"{path}/apply", {}),
        repeats=1,
    )
    began = time.perf_counter()
    while result["state"] == "running":
        time.sleep(0.5)
        result = bench.ask("GET", path)
    if result["state"] != "done" or result["changed"] != preview["lines"]:
        sys.exit(f"The bulk change went wrong: {result}")
    bench.note(Figure("decided again in the background", time.perf_counter() - began, None))


def main() -> int:
    """Measure everything; 1 when a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=100_000, help="in the billing period, a multiple of 4,000")
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="billing-bench-", ignore_cleanup_errors=True) as home,
        Postgres(Path(home) / "postgres", password="bench-only", durable=False) as postgres,
    ):
        dsn = postgres.create_database("bench")
        print(f"A billing period of {given.lines} lines:", flush=True)
        make_world(dsn, given.lines)
        with serving(dsn, Path(home)) as address:
            bench = Bench(address, given.repeats)
            read(bench)
            edit(bench)
            for ending in ("csv", "xlsx"):
                size = bench.measure(
                    f"export of {given.lines} lines, {ending}", None,
                    lambda ending=ending: bench.download(f"lines/export.{ending}"), repeats=1,
                )  # fmt: skip
                print(f"{'':<44} {size / 1e6:8.1f} MB")
            bulk(bench, given.lines)
    missed = [figure.name for figure in bench.figures if figure.is_missed]
    print(f"MISSED: {', '.join(missed)}" if missed else "Every figure is within its bound.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
