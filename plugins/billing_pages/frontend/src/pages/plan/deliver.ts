import type { QueryClient } from "@tanstack/react-query";
import { dag, setPaused, triggerDag } from "../../lib/airflow";

export const APPLY_PLAN = "apply_plan";

/** Starts the delivery of an approved plan, with the reader's rights in Airflow; switches its DAG on if it is off. */
export async function deliver(client: QueryClient, planId: number): Promise<void> {
  if ((await dag(APPLY_PLAN)).is_paused) await setPaused(APPLY_PLAN, false);
  await triggerDag(APPLY_PLAN, { plan_id: planId });
  await client.invalidateQueries({ queryKey: ["active-runs"] });
}
