-- Guarantees: simulations that a person starts on the pages, with what they found, so that any process can answer for them;
-- what waits for an offer's mapping is found by an index.
-- Runs once, in one transaction, by `python -m billing_sync migrate`.

create table audit.simulation (
    simulation_id bigint generated always as identity primary key,
    requested_by text not null,
    request jsonb not null,
    state text not null default 'running' check (state in ('running', 'done', 'failed')),
    started_at timestamptz not null default now(),
    heartbeat_at timestamptz not null default now(),
    ended_at timestamptz,
    message text,
    result jsonb,
    check ((state = 'running') = (ended_at is null)),
    check ((state = 'done') = (result is not null))
);
-- One at a time: each needs a scratch database and a processor.
create unique index one_simulation_at_a_time on audit.simulation ((true)) where state = 'running';
comment on table audit.simulation is 'Simulations started on the pages (billing_sync.simulation_jobs). They decide nothing.';
comment on column audit.simulation.request is 'Periods, settings and charge types as given.';
comment on column audit.simulation.heartbeat_at is 'When the process that simulates last said that it lives. Older than a minute: it died.';
comment on column audit.simulation.message is 'How far it is; when it failed: why, and what to do.';
comment on column audit.simulation.result is 'Per customer: money before and after; the first changed lines; how many there are.';

create index on billing.invoice_line (offer_id);
