"""The whole DAG, twice: everything is accounted for, and the second night writes nothing."""

from __future__ import annotations

from billing_sync.db import connect


def test_x(run_dag, billing_db, sandbox, tmp_path):
    import csv, io, time
    import pandas as pd
    from billing_sync.mappings import import_mappings
    from billing_sync.settings import set_setting
    t=time.time()
    r = run_dag("sync_reference_data", offer_window_months=3)
    print("REF", r.state, time.time()-t)
    with connect(billing_db) as c:
        for kind in ("organizations","offers"):
            import_mappings(c, kind, pd.DataFrame(list(csv.DictReader(io.StringIO(sandbox.mapping_csv(kind))))).assign(note=""), approve=True, person="t")
        for k,v in dict(default_agreement_type="Cloud Subscriptions",automated_daily_sync="on",environment="tests",requests_per_minute="100000").items(): set_setting(c,k,v)
    for p in ("2026-09",):
        t=time.time(); r = run_dag("sync_billing_period", billing_periods=[p]); print(p, r.state, time.time()-t)
    t=time.time(); r = run_dag("sync_verified_invoices"); print(r.state, time.time()-t)
    t=time.time(); r = run_dag("sync_verified_invoices"); print(r.state, time.time()-t)
    from rich.console import Console
    from billing_sync.report import print_report
    with connect(billing_db) as c:
        assert print_report(c, Console(width=150))
    assert 0
