import { Badge, HStack } from "@chakra-ui/react";
import type { Model } from "../../models";

type PlanState = Model<"PlanSummary">["state"];
export type ItemState = Model<"PlanItem">["state"];
export type Action = Model<"PlanItem">["action"];

export const PLAN_STATES: Record<PlanState, { label: string; color: string; help: string }> = {
  proposed: { label: "waits for approval", color: "blue", help: "Nothing is written before somebody approves it." },
  approved: { label: "approved", color: "cyan", help: "It may be delivered, exactly as it was approved." },
  applied: { label: "delivered", color: "green", help: "Its delivery has ended; the proof shows what ConnectWise holds." },
  rejected: { label: "rejected", color: "gray", help: "It will not be delivered. The next run makes another plan." },
  superseded: { label: "superseded", color: "gray", help: "A later run decided again before this plan was approved." },
};

export const ITEM_STATES: Record<ItemState, { label: string; color: string; help: string }> = {
  pending: { label: "to do", color: "gray", help: "Not written yet." },
  done: { label: "done", color: "green", help: "Written, and read back as written." },
  refused: { label: "refused", color: "red", help: "ConnectWise said no, for good: see its words." },
  conflict: { label: "conflict", color: "orange", help: "ConnectWise holds something else than was delivered: a person changed it there. It is reported, never overwritten." },
  skipped: { label: "left for the next run", color: "gray", help: "Left out at approval, or its lines, its agreement or a pause changed since. The next run plans it." },
};

export const ACTIONS: Record<Action, { label: string; color: string; help: string }> = {
  create: { label: "create", color: "green", help: "A new Addition." },
  update: { label: "update", color: "blue", help: "An Addition that stands in ConnectWise gets other values; with a new end date, it is cancelled from that day on." },
  adoption: { label: "adoption", color: "violet", help: "An Addition that was made by hand in ConnectWise is taken over." },
  "create agreement": { label: "create agreement", color: "amber", help: "The company gets an agreement of the default Agreement Type." },
};

export function PlanStateBadge({ plan }: { plan: Pick<Model<"PlanSummary">, "state" | "is_dry_run"> }) {
  const state = PLAN_STATES[plan.state];
  return (
    <HStack as="span" display="inline-flex" gap="1">
      {plan.is_dry_run ? (
        <Badge colorPalette="violet" title="It can never be delivered">
          dry run
        </Badge>
      ) : (
        <Badge colorPalette={state.color} title={state.help}>
          {state.label}
        </Badge>
      )}
    </HStack>
  );
}
