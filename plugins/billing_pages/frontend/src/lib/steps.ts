import type { TaskState } from "./airflow";

/** The stages of a run, as a person thinks of them, and the tasks that make each. */
const STAGES: readonly { name: string; help: string; tasks: readonly string[] }[] = [
  {
    name: "Observe",
    help: "Read AppXite and ConnectWise, whole or not at all.",
    tasks: [
      "preflight", "open_run", "reopen_run_of_plan", "list_periods", "extract_appxite_reference",
      "extract_connectwise_reference", "extract_invoices", "refresh_reference", "refresh_offers", "load_invoices",
      "load_costs", "check_source",
    ],
  },
  {
    name: "Decide",
    help: "Company, product, agreement, dates and price of each line; or why it is held.",
    tasks: [
      "map_lines", "resolve_agreements", "apply_rules", "hold_lines", "bound_agreements", "bound_amounts",
      "bound_credits", "group_lines", "bound_additions", "branch_lines", "review_held_lines",
    ],
  },
  {
    name: "Plan",
    help: "What is to be created and updated in ConnectWise, and whether it may be.",
    tasks: ["make_plan", "bound_plan", "approve_plan", "await_approval"],
  },
  { name: "Deliver", help: "Write the approved plan to ConnectWise, each Addition once.", tasks: ["list_shards", "deliver_shard"] },
  { name: "Prove", help: "Read ConnectWise back and account for every cent.", tasks: ["prove", "close_run"] },
];

export type StageState = "waiting" | "running" | "done" | "skipped" | "failed";

export interface Stage {
  name: string;
  help: string;
  state: StageState;
  running: string[];
}

const FAILED = ["failed", "upstream_failed"];
const ENDED = ["success", "skipped", "removed", ...FAILED];

/** How far each stage is. A task that this file does not know counts for the first stage. */
export function stagesOf(instances: readonly TaskState[]): Stage[] {
  const known = new Set(STAGES.flatMap((stage) => stage.tasks));
  return STAGES.map((stage, index) => {
    const own = instances.filter(
      (each) => stage.tasks.includes(each.task_id) || (index === 0 && !known.has(each.task_id)),
    );
    return {
      name: stage.name,
      help: stage.help,
      state: stateOf(own),
      running: [...new Set(own.filter((each) => each.state === "running").map(nameOf))],
    };
  }).filter((_, index) => instances.length === 0 || instances.some((each) => STAGES[index]!.tasks.includes(each.task_id)));
}

function stateOf(instances: readonly TaskState[]): StageState {
  const states = instances.map((each) => each.state ?? "none");
  if (states.some((state) => FAILED.includes(state))) return "failed";
  if (states.length === 0 || states.every((state) => state === "none")) return "waiting";
  if (states.every((state) => state === "skipped")) return "skipped";
  return states.every((state) => ENDED.includes(state)) ? "done" : "running";
}

const nameOf = (task: TaskState) => task.task_id.replaceAll("_", " ");
