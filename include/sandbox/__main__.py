"""Command line of the sandbox.

    python -m sandbox serve --state DIR [--port 0] [--seed 7] [--customers 40] [--months 3] [--last-month 2026-11]
    python -m sandbox mappings --state DIR --out DIR

The keys are options; their defaults come from SANDBOX_* variables, else they are the documented demo values.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import signal
import sys
from pathlib import Path

from sandbox.messages import Credentials
from sandbox.server import Sandbox, serve_forever


def _month(text: str) -> str:
    if not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", text):
        raise argparse.ArgumentTypeError(f"{text} is not a month as YYYY-MM")
    return text


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sandbox", description="AppXite and ConnectWise PSA as one local program.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("serve", "answer requests until interrupted"),
        ("mappings", "write the two mapping files"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--state", type=Path, required=True, help="directory that keeps everything")
        command.add_argument("--seed", type=int, default=7)
        command.add_argument("--customers", type=int, default=40)
        command.add_argument("--months", type=int, default=3)
        command.add_argument("--last-month", type=_month, default="2026-11", help="YYYY-MM")
        for field in dataclasses.fields(Credentials):
            variable = f"SANDBOX_{field.name.upper()}"
            command.add_argument(
                f"--{field.name.replace('_', '-')}",
                default=os.environ.get(variable, field.default),
                help=f"default: {variable}, else {field.default}",
            )
        if name == "serve":
            command.add_argument("--host", default="127.0.0.1", help="0.0.0.0 in a container")
            command.add_argument("--port", type=int, default=0, help="0 picks a free one; see DIR/port")
        else:
            command.add_argument("--out", type=Path, required=True, help="directory for the two CSV files")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = _arguments().parse_args(arguments)
    if options.customers < 1 or options.months < 1:
        print("sandbox: --customers and --months are 1 or more", file=sys.stderr)
        return 2
    sandbox = Sandbox(
        options.state,
        seed=options.seed,
        customers=options.customers,
        months=options.months,
        last_month=options.last_month,
        host=getattr(options, "host", "127.0.0.1"),
        port=getattr(options, "port", 0),
        **{field.name: getattr(options, field.name) for field in dataclasses.fields(Credentials)},
    )
    if sandbox.parameters_ignored:
        print(f"sandbox: {options.state} already holds data, kept: {sandbox.kept}", file=sys.stderr)
    if options.command == "mappings":
        options.out.mkdir(parents=True, exist_ok=True)
        for name in ("organizations", "offers"):
            (options.out / f"{name}.csv").write_text(sandbox.mapping_csv(name), encoding="utf-8")
            print(options.out / f"{name}.csv")
        sandbox.store.close()
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a container is stopped with TERM
    serve_forever(sandbox)
    return 0


if __name__ == "__main__":
    sys.exit(main())
