-- Guarantees: no extract older than the setting staging_retention_days is left, except of runs still open.
-- May run again. By hand: psql -1 -f FILE

delete from staging.extract as old
using audit.run as run
where
    run.run_id = old.run_id
    and old.started_at < now() - make_interval(days => billing.text_setting('staging_retention_days')::integer)
    and (run.state <> 'running' or run.started_at < now() - interval '7 days');
