import { Badge } from "@chakra-ui/react";
import { node } from "../lib/dom";
import type { Outcome } from "../models";

/** The colour of each outcome, everywhere: badges, tiles, charts. */
export const OUTCOME_COLOR: Record<Outcome, string> = {
  delivered: "green",
  held: "orange",
  excluded: "gray",
  "awaiting approval": "blue",
  "in doubt": "red",
};

export function OutcomeBadge({ outcome }: { outcome: Outcome }) {
  return <Badge colorPalette={OUTCOME_COLOR[outcome]}>{outcome}</Badge>;
}

/** A badge inside a grid cell; color is a name of the theme (green, orange, gray, blue, red, violet, cyan, amber). */
export function badgeNode(text: string, color: string, title?: string): HTMLElement {
  return node("span", { class: `grid-badge grid-badge-${color}`, title }, text);
}

export function outcomeNode(outcome: Outcome): HTMLElement {
  return badgeNode(outcome, OUTCOME_COLOR[outcome]);
}
