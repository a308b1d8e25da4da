// Airflow's own REST API, with the reader's cookie and rights, and the way out of the iframe to Airflow's pages.
import { useQuery } from "@tanstack/react-query";
import { type Params, request, withParams } from "./api";

export type Dag = { dag_id: string; is_paused: boolean; next_dagrun_run_after: string | null };
export type DagRunState = "queued" | "running" | "success" | "failed";
export type DagRun = {
  dag_id: string;
  dag_run_id: string;
  state: DagRunState;
  start_date: string | null;
  end_date: string | null;
};
export type TaskState = { task_id: string; task_display_name?: string; map_index: number; state: string | null; try_number: number };
/** Progress of a run: its tasks (a mapped task counts once per instance), how many ended, and the names of those that run now or failed. */
export type TaskProgress = { tasks: TaskState[]; ended: number; total: number; running: string[]; failed: string[] };

const ENDED = new Set(["success", "failed", "skipped", "upstream_failed", "removed"]);

/** Airflow's address: one folder above that of these pages. */
function airflowUrl(path: string, params: Params = {}): string {
  return withParams(new URL(`../api/v2/${path}`, document.baseURI), params);
}

function write<T>(method: string, path: string, body: unknown): Promise<T> {
  return request<T>(airflowUrl(path), { method, body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
}

const part = encodeURIComponent;

export function dag(dagId: string): Promise<Dag> {
  return request<Dag>(airflowUrl(`dags/${part(dagId)}`), {});
}

export function setPaused(dagId: string, isPaused: boolean): Promise<Dag> {
  return write<Dag>("PATCH", `dags/${part(dagId)}`, { is_paused: isPaused });
}

/** Starts a run; conf are its params. A paused DAG queues the run and does not start it: look at dag().is_paused before. */
export function triggerDag(dagId: string, conf: Record<string, unknown> = {}): Promise<DagRun> {
  return write<DagRun>("POST", `dags/${part(dagId)}/dagRuns`, { logical_date: null, conf });
}

export function dagRun(dagId: string, runId: string): Promise<DagRun> {
  return request<DagRun>(airflowUrl(`dags/${part(dagId)}/dagRuns/${part(runId)}`), {});
}

export async function taskProgress(dagId: string, runId: string): Promise<TaskProgress> {
  const path = `dags/${part(dagId)}/dagRuns/${part(runId)}/taskInstances`;
  const tasks: TaskState[] = [];
  let total = 1;
  // Airflow gives 100 at most, whatever is asked for
  while (tasks.length < total) {
    const page = await request<{ task_instances: TaskState[]; total_entries: number }>(airflowUrl(path, { limit: 100, offset: tasks.length }), {});
    tasks.push(...page.task_instances);
    total = page.task_instances.length === 0 ? 0 : page.total_entries;
  }
  const named = (states: string[]) => {
    const found = tasks.filter((task) => states.includes(task.state ?? ""));
    return [...new Set(found.map((task) => task.task_display_name ?? task.task_id))];
  };
  return {
    tasks,
    ended: tasks.filter((t) => ENDED.has(t.state ?? "")).length,
    total: tasks.length,
    running: named(["running", "queued", "up_for_retry", "deferred", "restarting"]),
    failed: named(["failed"]),
  };
}

/** Follows a run every 2 seconds until it has ended. */
export function useDagRun(dagId: string | null, runId: string | null) {
  return useQuery({
    queryKey: ["dag-run", dagId, runId],
    enabled: dagId !== null && runId !== null,
    queryFn: async () => {
      const run = await dagRun(dagId as string, runId as string);
      return { run, progress: await taskProgress(dagId as string, runId as string) };
    },
    refetchInterval: (query) => (["success", "failed"].includes(query.state.data?.run.state ?? "") ? false : 2000),
  });
}

/** Airflow's window when these pages stand in its iframe, else null. */
export function airflowWindow(): Window | null {
  try {
    return window.parent !== window && window.parent.location.origin === window.location.origin ? window.parent : null;
  } catch {
    return null;
  }
}

/**
 * Opens a page of Airflow, path as in `dags/apply_plan/runs/x`. The iframe's sandbox refuses target=_top, so Airflow's own
 * router is told by a popstate event.
 */
export function openInAirflow(path: string): void {
  const url = new URL(`../${path.replace(/^\//, "")}`, document.baseURI);
  const airflow = airflowWindow();
  if (airflow === null) {
    window.location.assign(url);
    return;
  }
  airflow.history.pushState({}, "", url);
  airflow.dispatchEvent(new PopStateEvent("popstate", { state: {} }));
}
