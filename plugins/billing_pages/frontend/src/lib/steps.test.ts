import { describe, expect, it } from "vitest";
import type { TaskState } from "./airflow";
import { stagesOf } from "./steps";

const task = (task_id: string, state: string | null, map_index = -1): TaskState => ({ task_id, map_index, state, try_number: 1 });
const states = (tasks: TaskState[]) => Object.fromEntries(stagesOf(tasks).map((stage) => [stage.name, stage.state]));

describe("stages of a run", () => {
  it("are all shown while nothing is known", () => {
    expect(states([])).toEqual({ Observe: "waiting", Decide: "waiting", Plan: "waiting", Deliver: "waiting", Prove: "waiting" });
  });

  it("run from their first task to their last", () => {
    const tasks = [task("preflight", "success"), task("extract_invoices", "running", 0), task("extract_invoices", null, 1), task("map_lines", null), task("prove", null)];
    expect(states(tasks)).toEqual({ Observe: "running", Decide: "waiting", Prove: "waiting" });
    expect(stagesOf(tasks)[0]?.running).toEqual(["extract invoices"]);
  });

  it("are done although a branch was skipped, and failed as soon as one task is", () => {
    expect(states([task("approve_plan", "success"), task("await_approval", "skipped")])).toMatchObject({ Plan: "done" });
    expect(states([task("deliver_shard", "success", 0), task("deliver_shard", "failed", 1)])).toMatchObject({ Deliver: "failed" });
  });

  it("that did not happen are skipped", () => {
    expect(states([task("deliver_shard", "skipped")])).toMatchObject({ Deliver: "skipped" });
  });
});
