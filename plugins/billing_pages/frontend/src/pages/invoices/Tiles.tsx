import { Flex } from "@chakra-ui/react";
import { OUTCOME_COLOR } from "../../components/Badge";
import { Tile } from "../../components/Tile";
import { counted, money } from "../../lib/format";
import type { Model, Outcome } from "../../models";

const ORDER: Outcome[] = ["held", "awaiting approval", "delivered", "in doubt", "excluded"];

/** Money by outcome; a tile narrows the grid to its outcome. */
export function Tiles(props: { totals: Model<"LineTotals"> | undefined; chosen: Outcome[]; onToggle: (outcome: Outcome) => void }) {
  return (
    <Flex gap={2} wrap="wrap" role="group" aria-label="Money by outcome" flexShrink={0}>
      {ORDER.map((outcome) => {
        const sums = props.totals?.outcomes.filter((sum) => sum.outcome === outcome) ?? [];
        const lines = sums.reduce((total, sum) => total + sum.lines, 0);
        if (lines === 0 && (outcome === "in doubt" || outcome === "excluded") && !props.chosen.includes(outcome)) return null;
        return (
          <Tile
            key={outcome}
            name={outcome.charAt(0).toUpperCase() + outcome.slice(1)}
            color={OUTCOME_COLOR[outcome]}
            value={props.totals === undefined ? "…" : sums.length === 0 ? "–" : sums.map((sum) => money(sum.amount, sum.currency)).join(" · ")}
            detail={props.totals === undefined ? "" : counted(lines, "line")}
            isOn={props.chosen.includes(outcome)}
            onClick={() => props.onToggle(outcome)}
          />
        );
      })}
    </Flex>
  );
}
