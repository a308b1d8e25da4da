// DAG runs that run or wait right now, so that progress is seen before a run has written anything of its own.
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useRef } from "react";
import { type DagRun, dag } from "./airflow";
import { request, withParams } from "./api";

const OUR_DAGS = ["sync_verified_invoices", "sync_billing_period", "sync_reference_data", "apply_plan"];

export type ActiveRun = DagRun & { conf: { plan_id?: number; dry_run?: boolean } | null; run_after: string };

async function activeRuns(): Promise<ActiveRun[]> {
  const url = new URL("../api/v2/dags/~/dagRuns", document.baseURI);
  const runs = await request<{ dag_runs: ActiveRun[] }>(
    withParams(url, { state: ["running", "queued"], order_by: "-run_after", limit: 50 }),
    {},
  );
  return runs.dag_runs.filter((run) => OUR_DAGS.includes(run.dag_id));
}

/** Our runs that run or wait now, looked at every few seconds; when one has ended, everything on the page is asked anew. */
export function useActiveRuns(isFast = false) {
  const client = useQueryClient();
  const query = useQuery({
    queryKey: ["active-runs"],
    queryFn: activeRuns,
    staleTime: 0,
    refetchInterval: (self) => (isFast || (self.state.data?.length ?? 0) > 0 ? 2_000 : 15_000),
  });
  const before = useRef<string[]>([]);
  useEffect(() => {
    const now = (query.data ?? []).map((run) => `${run.dag_id}/${run.dag_run_id}`);
    if (before.current.some((id) => !now.includes(id))) {
      void client.invalidateQueries({ predicate: (each) => !["me", "active-runs", "dag-run"].includes(String(each.queryKey[0])) });
    }
    before.current = now;
  }, [query.data, client]);
  return query;
}

/** A DAG as Airflow knows it: whether it is switched off, and when it runs next. */
export const useDag = (dagId: string) => useQuery({ queryKey: ["dag", dagId], queryFn: () => dag(dagId), refetchInterval: 60_000 });
