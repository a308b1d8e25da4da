import { Alert, Box, Text } from "@chakra-ui/react";
import { useQuery } from "@tanstack/react-query";
import { Button } from "@chakra-ui/react";
import { get } from "../../lib/api";
import { counted, money } from "../../lib/format";
import type { Model } from "../../models";
import { ITEM_STATES, type ItemState } from "./state";

const FEW = 5;

/** What ConnectWise refused, or holds otherwise, in its own words. */
export function Problems({ plan, onShow }: { plan: Model<"PlanDetail">; onShow: (state: ItemState) => void }) {
  const bad = (["refused", "conflict"] as const).filter((state) => plan.counts.some((each) => each.state === state));
  return (
    <>
      {bad.map((state) => (
        <ProblemsOf key={state} plan={plan} state={state} onShow={() => onShow(state)} />
      ))}
    </>
  );
}

function ProblemsOf({ plan, state, onShow }: { plan: Model<"PlanDetail">; state: "refused" | "conflict"; onShow: () => void }) {
  const planId = plan.summary.plan_id;
  const params = { state, limit: FEW, offset: 0 };
  const items = useQuery({ queryKey: ["plan-items", planId, params], queryFn: () => get<Model<"PlanItemPage">>(`plans/${planId}/items`, params) });
  const counts = plan.counts.filter((each) => each.state === state);
  const number = counts.reduce((sum, each) => sum + each.items, 0);
  return (
    <Alert.Root status={state === "refused" ? "error" : "warning"} alignItems="start">
      <Alert.Indicator />
      <Alert.Content>
        <Alert.Title>
          {counted(number, "item")}: {ITEM_STATES[state].label}
        </Alert.Title>
        <Alert.Description>
          <Text mb="1">{ITEM_STATES[state].help}</Text>
          <Box as="ul" ps="4">
            {items.data?.items.map((item) => (
              <li key={item.delivery_key}>
                {item.company_name}, {item.product ?? item.agreement_name}, {money(item.amount, item.currency)}: {item.problem ?? "no words were given"}
              </li>
            ))}
          </Box>
        </Alert.Description>
      </Alert.Content>
      <Button size="xs" variant="outline" onClick={onShow}>
        Show {number > FEW ? "all" : "them"}
      </Button>
    </Alert.Root>
  );
}
