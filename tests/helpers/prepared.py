"""A billing database and a sandbox, prepared once and copied for each test."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg
from pipeline import CUSTOMERS, Pipeline

from local_stack.postgres import Postgres
from sandbox.server import Sandbox


@dataclass
class Prepared:
    """A database and the state of a sandbox that belong together, to be copied; and the run planned in them, if any."""

    postgres: Postgres
    database: str
    state: Path
    run_id: int = 0
    plan_id: int = 0

    def copy(self, directory: Path) -> Pipeline:
        """A pipeline of one's own; `discard` it."""
        name = f"pipeline_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(self.postgres.dsn(), autocommit=True) as connection:
            # Copying files would force a checkpoint each time.
            connection.execute(f"create database {name} template {self.database} strategy wal_log")  # type: ignore[call-overload]
        sandbox = Sandbox(shutil.copytree(self.state, directory / name))
        sandbox.start()
        return Pipeline(self.postgres.dsn(name), sandbox)

    def freeze(self, pipeline: Pipeline, run_id: int = 0, plan_id: int = 0) -> Prepared:
        """The pipeline as it is now, to be copied; it is not used any more itself."""
        pipeline.close()
        pipeline.sandbox.stop()
        return Prepared(self.postgres, pipeline.database, pipeline.sandbox.store.directory, run_id, plan_id)

    def discard(self, pipeline: Pipeline) -> None:
        """Remove a copy."""
        pipeline.close()
        pipeline.sandbox.stop()
        self.postgres.drop_database(pipeline.database)
        shutil.rmtree(pipeline.sandbox.store.directory, ignore_errors=True)


def prepare(postgres: Postgres, template: str, directory: Path, name: str = "billing_prepared") -> Prepared:
    """Four customers, mapped and approved; nothing invoiced by AppXite yet. template: a migrated database."""
    with Sandbox(directory / "sandbox", customers=CUSTOMERS) as sandbox:
        pipeline = Pipeline(postgres.create_database(name, template=template), sandbox)
        pipeline.set_up()
        pipeline.close()
        for invoice in sandbox.appxite_invoices():
            sandbox.delete_appxite_invoice(invoice["invoiceId"])
    return Prepared(postgres, name, sandbox.store.directory)


Build = Callable[[Pipeline], tuple[int, int]]
