-- Guarantees: all workers on all machines share one budget of requests per connection (billing_sync/rate_budget.py).
-- Runs once, in one transaction, by `python -m billing_sync migrate`.

create table delivery.rate_budget (
    connection_id text primary key,
    spent_until timestamptz not null
) with (fillfactor = 50);
comment on table delivery.rate_budget is 'One row per rate-limited connection; updated once per request, so it is kept small and half empty (HOT updates).';
comment on column delivery.rate_budget.spent_until is 'The moment up to which the budget is taken. In the past: the budget is whole. Far in the future: ConnectWise asked for a pause (429).';
