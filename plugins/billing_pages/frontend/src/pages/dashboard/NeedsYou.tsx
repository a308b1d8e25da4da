import { Button, Card, Heading, HStack, Text } from "@chakra-ui/react";
import type { ReactNode } from "react";
import { Link } from "react-router";
import { counted, money } from "../../lib/format";
import { linesLink, logsLink, planLink } from "../../lib/links";
import type { Model } from "../../models";

/** What waits for a person this morning, most urgent first; one line each, with the way to it. */
export function NeedsYou({ plans, lastRun, period, unsettled }: {
  plans: Model<"PlanSummary">[];
  lastRun: Model<"Run"> | undefined;
  period: Model<"Period"> | undefined;
  unsettled: number;
}) {
  const items: { key: string; text: ReactNode; to: string; label: string }[] = [];
  if (lastRun?.state === "failed") {
    items.push({ key: "failed", text: `The last sync (run ${lastRun.run_id}) failed. Its log says why and what to do.`, to: logsLink(lastRun.run_id), label: "Read its log" });
  }
  for (const plan of plans.filter((each) => each.state === "proposed" && !each.is_dry_run && each.items > 0)) {
    const what = `Plan ${plan.plan_id} waits for approval: ${counted(plan.items, "item")}, ${plan.money.map((sum) => money(sum.amount, sum.currency)).join(" + ")}.`;
    items.push({ key: `plan-${plan.plan_id}`, text: what, to: planLink(plan.plan_id), label: "Review plan" });
  }
  for (const plan of plans.filter((each) => each.state === "approved")) {
    items.push({ key: `plan-${plan.plan_id}`, text: `Plan ${plan.plan_id} is approved and not delivered yet.`, to: planLink(plan.plan_id), label: "Open plan" });
  }
  if (unsettled > 0) {
    items.push({ key: "unsettled", text: `${counted(unsettled, "Addition")} must be looked at in ConnectWise.`, to: "/dashboard#unsettled", label: "Settle them" });
  }
  const doubt = period?.outcomes.filter((sum) => sum.outcome === "in doubt") ?? [];
  if (period && doubt.length > 0) {
    items.push({
      key: "doubt",
      text: `${doubt.map((sum) => money(sum.amount, sum.currency)).join(" + ")} were sent, but not read back as sent.`,
      to: linesLink({ periods: [period.billing_period], outcomes: ["in doubt"] }),
      label: "Look at the lines",
    });
  }
  if (items.length === 0) return null;
  return (
    <Card.Root as="section" size="sm" aria-labelledby="needs-heading" borderColor="blue.emphasized" borderLeftWidth="4px" borderLeftColor="blue.solid">
      <Card.Body py="3" gap="2">
        <Heading size="md" id="needs-heading">
          Needs you
        </Heading>
        {items.map((item) => (
          <HStack key={item.key} justify="space-between" gap="4" flexWrap="wrap">
            <Text>{item.text}</Text>
            <Button asChild size="xs" variant="outline">
              <Link to={item.to}>{item.label}</Link>
            </Button>
          </HStack>
        ))}
      </Card.Body>
    </Card.Root>
  );
}
