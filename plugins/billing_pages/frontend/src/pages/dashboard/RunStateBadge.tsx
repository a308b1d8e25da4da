import { Badge, HStack } from "@chakra-ui/react";
import type { Model } from "../../models";

const COLORS: Record<string, string> = { running: "blue", succeeded: "green", failed: "red", awaiting_approval: "blue" };

/** How a run went, and whether it was a dry run. */
export function RunStateBadge({ run }: { run: Pick<Model<"Run">, "state" | "is_dry_run"> }) {
  return (
    <HStack as="span" display="inline-flex" gap="1">
      <Badge colorPalette={COLORS[run.state] ?? "gray"}>{run.state.replaceAll("_", " ")}</Badge>
      {run.is_dry_run && <Badge colorPalette="violet">dry run</Badge>}
    </HStack>
  );
}
