import { Box, Flex, HStack, SimpleGrid, Text } from "@chakra-ui/react";
import { Figure } from "../../components/Figure";
import { TextLink } from "../../components/TextLink";
import { count, counted, money } from "../../lib/format";
import { linesLink } from "../../lib/links";
import type { Model } from "../../models";
import { ACTIONS, ITEM_STATES, type Action, type ItemState } from "./state";

type PlanDetail = Model<"PlanDetail">;

/** What the plan does, in figures: per action, and how far each is. */
export function Counts({ plan }: { plan: PlanDetail }) {
  const actions = (Object.keys(ACTIONS) as Action[]).filter((action) => action === "create" || action === "update" || plan.counts.some((each) => each.action === action));
  // Of a plan that is over these are figures of another time than its own.
  const today = ["proposed", "approved"].includes(plan.summary.state) ? "" : ", today";
  const periods = plan.run.kind === "nightly" ? {} : { periods: plan.summary.billing_periods };
  return (
    <SimpleGrid columns={{ base: 2, md: 3, xl: actions.length + 3 }} gap="3">
      {actions.map((action) => {
        const own = plan.counts.filter((each) => each.action === action);
        const items = own.reduce((sum, each) => sum + each.items, 0);
        return (
          <Figure key={action} name={ACTIONS[action].label} help={ACTIONS[action].help} color={ACTIONS[action].color} value={count(items)}>
            {own.map((each) => (
              <Text key={each.state}>
                {own.length > 1 || each.state !== "pending" ? `${ITEM_STATES[each.state as ItemState].label} ${count(each.items)}: ` : ""}
                {each.money.map((sum) => money(sum.amount, sum.currency)).join(" + ")}
              </Text>
            ))}
          </Figure>
        );
      })}
      <Figure name={`keep${today}`} help="Additions of these customers that already stand in ConnectWise as they should: nothing is written." color="gray" value={count(plan.kept)} />
      <Figure name={`held${today}`} help="Lines that are not in this plan because something must be cured first, as they stand now (what was held when the plan was delivered says its proof). A nightly run decides about the open lines of all months." color="orange" value={plan.held.length === 0 ? "none" : plan.held.map((sum) => <div key={sum.currency}>{money(sum.amount, sum.currency)}</div>)}>
        {plan.held.length > 0 && (
          <TextLink to={linesLink({ ...periods, outcomes: ["held"] })}>{counted(plan.held.reduce((sum, each) => sum + each.lines, 0), "line")}</TextLink>
        )}
      </Figure>
      <Figure name={`conflict${today}`} help="Additions that hold something else in ConnectWise than was delivered, because a person changed them there. They are reported, never overwritten." color="red" value={plan.conflicts === 0 ? "none" : count(plan.conflicts)} />
    </SimpleGrid>
  );
}

const ORDER: ItemState[] = ["done", "refused", "conflict", "skipped", "pending"];

/** How far the delivery is: items by state, as a bar with its figures. */
export function Delivery({ plan }: { plan: PlanDetail }) {
  const total = plan.counts.reduce((sum, each) => sum + each.items, 0);
  if (total === 0) return null;
  const states = ORDER.map((state) => ({ state, items: plan.counts.filter((each) => each.state === state).reduce((sum, each) => sum + each.items, 0) })).filter((each) => each.items > 0);
  return (
    <Box>
      <Flex h="3" borderRadius="full" overflow="hidden" bg="bg.muted" aria-hidden>
        {states.map(({ state, items }) => (
          <Box key={state} bg={state === "pending" ? "gray.muted" : `${ITEM_STATES[state].color}.solid`} style={{ width: `${(100 * items) / total}%` }} minW="3px" />
        ))}
      </Flex>
      <HStack as="ul" listStyleType="none" gap="4" mt="1" fontSize="sm" wrap="wrap" aria-live="polite">
        {states.map(({ state, items }) => (
          <HStack as="li" key={state} gap="1.5" title={ITEM_STATES[state].help}>
            <Box boxSize="2.5" borderRadius="sm" bg={state === "pending" ? "gray.muted" : `${ITEM_STATES[state].color}.solid`} aria-hidden />
            {ITEM_STATES[state].label} {count(items)}
          </HStack>
        ))}
        <Text as="li" color="fg.muted">
          of {counted(total, "item")}
        </Text>
      </HStack>
    </Box>
  );
}
