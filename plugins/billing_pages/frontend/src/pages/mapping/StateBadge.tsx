import { Badge } from "@chakra-ui/react";

import type { MappingState } from "./types";

export const STATE_COLOR: Record<MappingState, string> = { approved: "green", excluded: "gray", undecided: "orange" };

export function StateBadge({ state }: { state: MappingState }) {
  return (
    <Badge colorPalette={STATE_COLOR[state]} variant="subtle">
      {state}
    </Badge>
  );
}
