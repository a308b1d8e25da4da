"""The proof: ConnectWise is read again, and every cent of every invoice is accounted for, or the run turns red."""

from __future__ import annotations

import logging

from billing_sync.connectwise import ConnectWise
from billing_sync.db import Connection, run_sql_file, working_for
from billing_sync.errors import ProofError
from billing_sync.extract import extract_additions
from billing_sync.payload import MarkerCarrier

log = logging.getLogger(__name__)

PROVE_INVOICES = "checks/prove_invoices.sql"


def agreements_to_prove(connection: Connection, run_id: int) -> list[int]:
    """Agreements that carry a line of an invoice that the run is about (its periods, and what its plan touched).

    With them the company's other active agreements of the same type: a copied agreement carries copies of Additions.
    """
    with working_for(connection, run_id):
        rows = connection.execute(
            """
            with carrying as (
                select ledger.agreement_id
                from billing.invoice_to_prove as invoice
                join billing.invoice_line as line using (invoice_id)
                join delivery.addition_line as carried on carried.line_id = line.line_id
                join delivery.addition as ledger on ledger.delivery_key = carried.delivery_key
            )
            select agreement_id from carrying
            union
            select twin.agreement_id
            from carrying
            join mapping.agreement as original using (agreement_id)
            join mapping.agreement as twin using (company_id, agreement_type_id)
            where twin.agreement_status = 'Active' and not twin.is_gone
            union
            -- Additions that carry no line (refused or in conflict): they must not bill.
            select ledger.agreement_id
            from delivery.addition as ledger
            where
                not exists (
                    select from delivery.addition_line as carried where carried.delivery_key = ledger.delivery_key
                )
            union
            -- All that a parked customer has of ours: only then it may be released.
            select ledger.agreement_id
            from delivery.addition as ledger
            join delivery.pause as pause using (company_id)
            where pause.ended_at is null and pause.proof_run_id is not null
            order by 1
            """,
        ).fetchall()
    return [int(row[0]) for row in rows]


def prove(connection: Connection, connectwise: ConnectWise, run_id: int) -> dict[str, str]:
    """Re-read the run's agreements from ConnectWise and account for every invoice.

    Returns money by outcome as text. Raises ProofError that names the first breaches; all stand in audit.log_entry.
    """
    agreement_ids = agreements_to_prove(connection, run_id)
    extract_additions(connection, connectwise, run_id, agreement_ids, MarkerCarrier.from_settings(connection).read)
    breaches = run_sql_file(connection, PROVE_INVOICES, run_id)
    if breaches:
        shown = "; ".join(str(breach["message"]) for breach in breaches[:5])
        raise ProofError(
            f"The proof of run {run_id} failed: {len(breaches)} breaches. {shown}. "
            f"All of them are in audit.log_entry of run {run_id}, level ERROR."
        )
    connection.execute("update audit.run set proven_at = now() where run_id = %s", [run_id])
    totals = connection.execute(
        """
        select
            count(*)::text as invoices, coalesce(sum(source_total), 0.00)::text as source,
            coalesce(sum(delivered), 0.00)::text as delivered, coalesce(sum(held), 0.00)::text as held,
            coalesce(sum(excluded), 0.00)::text as excluded,
            coalesce(sum(awaiting_approval), 0.00)::text as awaiting_approval,
            coalesce(sum(difference), 0.00)::text as difference
        from audit.invoice_proof where run_id = %s
        """,
        [run_id],
    )
    row = totals.fetchone()
    assert row is not None
    assert totals.description is not None
    result = {column.name: str(value) for column, value in zip(totals.description, row, strict=True)}
    log.info("run %s is proven: %s", run_id, result)
    return result
