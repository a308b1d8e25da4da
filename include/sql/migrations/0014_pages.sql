-- Guarantees: the audit trail is written by its triggers alone: who may change a setting or a mapping (the web role of the
-- review pages, include/sql/roles/web.sql) needs no right on audit.change, and so cannot write there what did not happen.
-- Runs once, in one transaction, by `python -m billing_sync migrate`.

alter function audit.record_change() security definer set search_path = pg_catalog, pg_temp;
