-- Guarantees: edits on the pages are decided at once by runs of kind review; bulk changes freeze their selection; cures
-- name the page where a cause is cured; the review grid finds its lines by an index.
-- Runs once, in one transaction, by `python -m billing_sync migrate`.

-- Runs of the pages ---------------------------------------------------------------------------------------------------

alter table audit.run drop constraint run_kind_check;
alter table audit.run add constraint run_kind_check
    check (kind in ('nightly', 'manual', 'backfill', 'reference', 'review'));
comment on column audit.run.kind is 'nightly decides over every open line; manual and backfill only over the billing_periods (and organization_ids) named; reference over none; review is no run of the pipeline, but decides open lines again after a change on the pages, without loading, planning or proving anything.';
comment on column audit.run.billing_periods is 'Periods whose invoices are extracted. Of kind review: whose lines are decided; empty: all.';

-- Two branches, so that a few organizations are found by an index.
create or replace view billing.line_in_scope as
select line.line_id, line.invoice_id
from audit.run as run
join billing.invoice as invoice on invoice.organization_id = any(run.organization_ids)
join billing.invoice_line as line on line.invoice_id = invoice.invoice_id
where
    run.run_id = audit.current_run_id()
    and cardinality(run.organization_ids) > 0
    and (
        run.kind = 'nightly'
        or (run.kind = 'review' and cardinality(run.billing_periods) = 0)
        or invoice.billing_period = any(run.billing_periods)
    )
    and not exists (select from delivery.addition_line as carried where carried.line_id = line.line_id)
union all
select line.line_id, line.invoice_id
from audit.run as run
join billing.invoice as invoice on
    run.kind = 'nightly'
    or (run.kind = 'review' and cardinality(run.billing_periods) = 0)
    or invoice.billing_period = any(run.billing_periods)
join billing.invoice_line as line on line.invoice_id = invoice.invoice_id
where
    run.run_id = audit.current_run_id()
    and cardinality(run.organization_ids) = 0
    and not exists (select from delivery.addition_line as carried where carried.line_id = line.line_id);
