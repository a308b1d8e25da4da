import type { Outcome } from "../models";

/** What became of the lines: the order in which it is drawn, its colour, and what it means. */
export const OUTCOMES: readonly { outcome: Outcome; label: string; color: string; help: string }[] = [
  {
    outcome: "delivered",
    label: "Delivered",
    color: "green",
    help: "Lines that stand in ConnectWise as Additions. The proof reads them back from ConnectWise, to the cent.",
  },
  {
    outcome: "awaiting approval",
    label: "Awaiting approval",
    color: "blue",
    help: "Lines that are ready: the next plan brings them to ConnectWise once it is approved.",
  },
  {
    outcome: "held",
    label: "Held",
    color: "orange",
    help: "Lines that cannot be delivered yet. Each has its reasons, and each reason says how to cure it. Until then this money is not billed.",
  },
  {
    outcome: "in doubt",
    label: "In doubt",
    color: "red",
    help: "Lines that were sent, but not read back as sent. A run with money in doubt is red; the next proof settles it.",
  },
  {
    outcome: "excluded",
    label: "Excluded",
    color: "gray",
    help: "Lines that shall not be billed from ConnectWise: the organization, the offer or the line is excluded by somebody.",
  },
];

export const outcomeOf = (outcome: Outcome) => OUTCOMES.find((each) => each.outcome === outcome)!;
