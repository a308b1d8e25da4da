import { Box, Button, Card, Heading, HStack, Table, Text } from "@chakra-ui/react";
import { useState } from "react";
import { Link } from "react-router";
import { Empty } from "../../components/Empty";
import { ErrorBox } from "../../components/ErrorBox";
import { GuardedButton } from "../../components/GuardedButton";
import { Loading } from "../../components/Loading";
import { Page } from "../../components/Page";
import { TableFrame } from "../../components/TableFrame";
import { TextLink } from "../../components/TextLink";
import { count, counted, DateTime, money, period as periodName } from "../../lib/format";
import { planLink } from "../../lib/links";
import { useActiveRuns } from "../../lib/runs";
import type { Model } from "../../models";
import { ActiveRuns } from "../dashboard/ActiveRuns";
import { useSetup } from "../dashboard/queries";
import { SyncDialog } from "../dashboard/SyncDialog";
import { usePlans } from "./queries";
import { PlanStateBadge } from "./state";

type Summary = Model<"PlanSummary">;

/** What the next sync will do, and every plan before it. */
export function PlanList() {
  const [limit, setLimit] = useState(30);
  const [isAsking, setIsAsking] = useState(false);
  const plans = usePlans(limit);
  const setup = useSetup();
  const active = useActiveRuns();
  const waiting = plans.data?.filter((plan) => ["proposed", "approved"].includes(plan.state) && !plan.is_dry_run) ?? [];

  return (
    <Page
      title="Plan"
      detail="What the next sync will do in ConnectWise: nothing is written that does not stand in an approved plan."
      actions={
        <GuardedButton permission="edit" variant="outline" onClick={() => setIsAsking(true)}>
          Plan again …
        </GuardedButton>
      }
    >
      {plans.isPending ? (
        <Loading what="plans" />
      ) : plans.error ? (
        <ErrorBox error={plans.error} onRetry={() => plans.refetch()} />
      ) : (
        <>
          <ActiveRuns runs={active.data ?? []} />
          {waiting.map((plan) => (
            <Waiting key={plan.plan_id} plan={plan} />
          ))}
          {plans.data.length === 0 ? (
            <Empty title="There is no plan yet" detail="Every sync makes one. “Plan again” starts a sync; a dry run on the Dashboard makes a plan that can never be delivered." />
          ) : (
            <AllPlans plans={plans.data} />
          )}
          {plans.data.length === limit && limit < 1000 && (
            <Box>
              <Button variant="ghost" size="xs" onClick={() => setLimit(Math.min(1000, limit * 3))}>
                Show older plans
              </Button>
            </Box>
          )}
        </>
      )}
      {isAsking && <SyncDialog isDryRun={false} period={null} syncsByItself={setup.data?.automated_daily_sync ?? false} onClose={() => setIsAsking(false)} />}
    </Page>
  );
}

function Waiting({ plan }: { plan: Summary }) {
  return (
    <Card.Root as="section" size="sm" borderLeftWidth="4px" borderLeftColor="blue.solid">
      <Card.Body py="3">
        <HStack justify="space-between" gap="4" flexWrap="wrap">
          <Box>
            <HStack>
              <Heading size="md">Plan {plan.plan_id}</Heading>
              <PlanStateBadge plan={plan} />
            </HStack>
            <Text>
              {plan.items === 0 ? "Nothing to write" : `${counted(plan.items, "item")}, ${sums(plan)}`} · {plan.billing_periods.map(periodName).join(", ")}
            </Text>
            {plan.parked_because && <Text color="orange.fg">Parked: {plan.parked_because}</Text>}
          </Box>
          <Button asChild colorPalette="brand">
            <Link to={planLink(plan.plan_id)}>{plan.state === "proposed" ? "Review" : "Open"}</Link>
          </Button>
        </HStack>
      </Card.Body>
    </Card.Root>
  );
}

const sums = (plan: Summary) => plan.money.map((sum) => money(sum.amount, sum.currency)).join(" + ");

function AllPlans({ plans }: { plans: Summary[] }) {
  return (
    <TableFrame name="All plans">
      <Table.Root size="sm" interactive>
        <Table.Header>
          <Table.Row>
            <Table.ColumnHeader scope="col">Plan</Table.ColumnHeader>
            <Table.ColumnHeader scope="col">Made</Table.ColumnHeader>
            <Table.ColumnHeader scope="col">Billing periods</Table.ColumnHeader>
            <Table.ColumnHeader scope="col">State</Table.ColumnHeader>
            <Table.ColumnHeader scope="col" textAlign="end">
              Items
            </Table.ColumnHeader>
            <Table.ColumnHeader scope="col" textAlign="end">
              Money
            </Table.ColumnHeader>
            <Table.ColumnHeader scope="col">Approved by</Table.ColumnHeader>
            <Table.ColumnHeader scope="col">Parked because</Table.ColumnHeader>
          </Table.Row>
        </Table.Header>
        <Table.Body>
          {plans.map((plan) => (
            <Table.Row key={plan.plan_id}>
              <Table.Cell as="th" scope="row" textAlign="start">
                <TextLink to={planLink(plan.plan_id)}>Plan {plan.plan_id}</TextLink>
              </Table.Cell>
              <Table.Cell whiteSpace="nowrap">
                <DateTime at={plan.created_at} />
              </Table.Cell>
              <Table.Cell>{plan.billing_periods.map(periodName).join(", ")}</Table.Cell>
              <Table.Cell>
                <PlanStateBadge plan={plan} />
              </Table.Cell>
              <Table.Cell textAlign="end" fontVariantNumeric="tabular-nums">
                {count(plan.items)}
              </Table.Cell>
              <Table.Cell textAlign="end" fontVariantNumeric="tabular-nums" whiteSpace="nowrap">
                {plan.money.length === 0 ? "–" : plan.money.map((sum) => <div key={sum.currency}>{money(sum.amount, sum.currency)}</div>)}
              </Table.Cell>
              <Table.Cell>{plan.approved_by ?? "–"}</Table.Cell>
              <Table.Cell maxW="20rem">{plan.parked_because ?? "–"}</Table.Cell>
            </Table.Row>
          ))}
        </Table.Body>
      </Table.Root>
    </TableFrame>
  );
}
