import { Alert, Box, Button, Card, Heading, HStack, Menu, Portal, Stack, Tabs, Text } from "@chakra-ui/react";
import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { ConfirmDialog } from "../../components/Dialog";
import { Empty } from "../../components/Empty";
import { ErrorBox } from "../../components/ErrorBox";
import { GuardedButton } from "../../components/GuardedButton";
import { Loading } from "../../components/Loading";
import { ReasonDialog } from "../../components/ReasonDialog";
import { Page } from "../../components/Page";
import { TextLink } from "../../components/TextLink";
import { toast } from "../../components/Toaster";
import { openInAirflow } from "../../lib/airflow";
import { useAddress } from "../../lib/address";
import { ApiError, apiUrl } from "../../lib/api";
import { count, counted, DateTime, money, period as periodName } from "../../lib/format";
import { airflowRun, logsLink } from "../../lib/links";
import { type ActiveRun, useActiveRuns, useDag } from "../../lib/runs";
import { useMe } from "../../lib/session";
import type { Model } from "../../models";
import { LiveRun } from "../dashboard/ActiveRuns";
import { LetPassDialog } from "../dashboard/ParkedBounds";
import { PauseBanner } from "../dashboard/PauseBanner";
import { usePauses, useSetup } from "../dashboard/queries";
import { SyncDialog } from "../dashboard/SyncDialog";
import { ApproveDialog } from "./ApproveDialog";
import { Counts, Delivery } from "./Counts";
import { APPLY_PLAN, deliver } from "./deliver";
import { Items } from "./Items";
import { type LeftOut, useLeftOut } from "./leaveOut";
import { PlanCustomers } from "./PlanCustomers";
import { Problems } from "./Problems";
import { Proof, ProofLine } from "./Proof";
import { usePlan, useReject } from "./queries";
import { PLAN_STATES, PlanStateBadge } from "./state";

type PlanDetail = Model<"PlanDetail">;
type Asked = "approve" | "reject" | "deliver" | "again";

const ADDRESS = { tab: "customers", customer: "", q: "", company: "", action: "", state: "", sort: "company_name", page: "1", different: "", proofpage: "1" };

const isOf = (plan: PlanDetail, run: ActiveRun) =>
  (run.dag_id === APPLY_PLAN && run.conf?.plan_id === plan.summary.plan_id) || run.dag_run_id === plan.summary.dag_run_id;

/** One plan: what it does, its approval, its delivery and its proof. */
export function OnePlan({ planId }: { planId: number }) {
  const [address, change] = useAddress(ADDRESS);
  const [asked, setAsked] = useState<Asked | null>(null);
  const active = useActiveRuns();
  const plan = usePlan(planId, (active.data?.length ?? 0) > 0);
  const pauses = usePauses();
  const setup = useSetup();
  const { leftOut, leave, clear, size } = useLeftOut(planId, plan.data?.fingerprint);
  const client = useQueryClient();
  const { may } = useMe();
  const title = `Plan ${planId}`;

  if (plan.isPending) return <Page title={title}><Loading what="plan" /></Page>;
  if (plan.error)
    return (
      <Page title={title}>
        {plan.error instanceof ApiError && plan.error.status === 404 ? (
          <Empty title={`There is no plan ${planId}`}>
            <TextLink to="/plan">All plans</TextLink>
          </Empty>
        ) : (
          <ErrorBox error={plan.error} onRetry={() => plan.refetch()} />
        )}
      </Page>
    );

  const { summary } = plan.data;
  const runs = (active.data ?? []).filter((run) => isOf(plan.data, run));
  const canChoose = summary.state === "proposed" && !summary.is_dry_run && may("approve");
  const showItems = (filter: Partial<typeof ADDRESS>) => change({ tab: "items", q: "", company: "", action: "", state: "", page: "1", ...filter });
  const refresh = () => {
    for (const key of ["plan", "plan-items", "plans"]) void client.invalidateQueries({ queryKey: [key] });
  };

  return (
    <Page
      title={title}
      detail={<About plan={plan.data} />}
      actions={<Actions plan={plan.data} isDelivering={runs.length > 0} leftOut={size} onAsk={setAsked} />}
    >
      {pauses.data && <PauseBanner pauses={pauses.data} />}
      <Notices plan={plan.data} onAgain={() => setAsked("again")} />
      {runs.length > 0 && (
        <Card.Root size="sm">
          <Card.Body gap="3">
            {runs.map((run) => (
              <LiveRun key={run.dag_run_id} run={run} />
            ))}
            {summary.state !== "proposed" && <Delivery plan={plan.data} />}
          </Card.Body>
        </Card.Root>
      )}
      {runs.length === 0 && ["approved", "applied"].includes(summary.state) && summary.items > 0 && (
        <Box>
          <Heading as="h2" size="sm" mb="1">
            Result
          </Heading>
          <Delivery plan={plan.data} />
          {summary.state === "applied" && (
            <Box mt="2">
              <ProofLine planId={planId} />
            </Box>
          )}
        </Box>
      )}
      <Problems plan={plan.data} onShow={(state) => showItems({ state })} />
      <Counts plan={plan.data} />
      {canChoose && size > 0 && <LeftOutNote leftOut={leftOut} onClear={clear} />}
      <Tabs.Root value={address.tab} onValueChange={(tab) => change({ tab: tab.value })} variant="line" size="sm" lazyMount unmountOnExit>
        <Tabs.List>
          <Tabs.Trigger value="customers">Customers</Tabs.Trigger>
          <Tabs.Trigger value="items">Items, before → after</Tabs.Trigger>
          <Tabs.Trigger value="proof">Proof per invoice</Tabs.Trigger>
        </Tabs.List>
        <Tabs.Content value="customers">
          <PlanCustomers
            planId={planId}
            customers={plan.data.customers}
            q={address.customer}
            onSearch={(customer) => change({ customer })}
            onOpen={(companyId) => showItems({ company: String(companyId) })}
            leftOut={leftOut}
            onLeave={leave}
            canChoose={canChoose}
          />
        </Tabs.Content>
        <Tabs.Content value="items">
          <Items
            planId={planId}
            address={address}
            onChange={change}
            leftOut={leftOut}
            onLeave={leave}
            canChoose={canChoose}
            companyName={plan.data.customers.find((each) => String(each.company_id) === address.company)?.company_name}
          />
        </Tabs.Content>
        <Tabs.Content value="proof">
          <Proof planId={planId} onlyDifferent={address.different === "yes"} page={Math.max(1, Number(address.proofpage) || 1)} onChange={change} />
        </Tabs.Content>
      </Tabs.Root>
      {asked === "approve" && <ApproveDialog plan={plan.data} leftOut={leftOut} isPaused={(pauses.data?.length ?? 0) > 0} onClose={() => setAsked(null)} onChanged={refresh} />}
      {asked === "reject" && <RejectDialog planId={planId} onClose={() => setAsked(null)} />}
      {asked === "deliver" && <DeliverDialog plan={plan.data} onClose={() => setAsked(null)} />}
      {asked === "again" && (
        <SyncDialog isDryRun={false} period={null} periods={summary.billing_periods} syncsByItself={setup.data?.automated_daily_sync ?? false} onClose={() => setAsked(null)} />
      )}
    </Page>
  );
}

function About({ plan }: { plan: PlanDetail }) {
  const { summary, run } = plan;
  return (
    <HStack as="span" wrap="wrap" gap="2" display="flex">
      <PlanStateBadge plan={summary} />
      <span>
        {summary.billing_periods.map(periodName).join(", ")} · made <DateTime at={summary.created_at} /> by{" "}
        <Button variant="plain" size="xs" px="0" h="auto" fontSize="inherit" color="brand.fg" textDecoration="underline" onClick={() => openInAirflow(airflowRun(summary.dag_id, summary.dag_run_id))} title="Open this run in Airflow">
          run {summary.run_id}
        </Button>{" "}
        (<TextLink to={logsLink(summary.run_id)}>log</TextLink>)
        {summary.approved_by && summary.approved_at && (
          <>
            {" · "}approved by {summary.approved_by}, <DateTime at={summary.approved_at} />
          </>
        )}
        {run.proven_at && summary.state !== "proposed" && (
          <>
            {" · "}proven <DateTime at={run.proven_at} />
          </>
        )}
      </span>
    </HStack>
  );
}

function Actions({ plan, isDelivering, leftOut, onAsk }: { plan: PlanDetail; isDelivering: boolean; leftOut: number; onAsk: (asked: Asked) => void }) {
  const { summary } = plan;
  const isProposed = summary.state === "proposed";
  const whyNotApprove = summary.is_dry_run ? "The plan of a dry run can never be delivered." : summary.items === 0 ? "The plan has nothing to write." : null;
  const hasMore = summary.state === "approved" || (summary.state === "applied" && plan.counts.some((each) => each.state === "pending"));
  return (
    <>
      <Menu.Root>
        <Menu.Trigger asChild>
          <Button variant="outline">Download</Button>
        </Menu.Trigger>
        <Portal>
          <Menu.Positioner>
            <Menu.Content>
              {(["csv", "xlsx"] as const).map((kind) => (
                <Menu.Item key={kind} value={kind} asChild>
                  <a href={apiUrl(`plans/${summary.plan_id}/export.${kind}`)} download>
                    {kind === "csv" ? "All items as CSV" : "All items as XLSX (Excel)"}
                  </a>
                </Menu.Item>
              ))}
            </Menu.Content>
          </Menu.Positioner>
        </Portal>
      </Menu.Root>
      <GuardedButton permission="edit" variant="outline" whyNot={isDelivering ? "A run of this plan is under way." : null} onClick={() => onAsk("again")}>
        Plan again …
      </GuardedButton>
      {isProposed && !summary.is_dry_run && (
        <GuardedButton permission="approve" variant="outline" colorPalette="red" onClick={() => onAsk("reject")}>
          Reject …
        </GuardedButton>
      )}
      {isProposed && (
        <GuardedButton permission="approve" whyNot={whyNotApprove} onClick={() => onAsk("approve")}>
          {leftOut === 0 ? "Approve all …" : "Approve the rest …"}
        </GuardedButton>
      )}
      {hasMore && (
        <GuardedButton permission="approve" whyNot={isDelivering ? "It is being delivered." : null} onClick={() => onAsk("deliver")}>
          {summary.state === "applied" ? "Resume delivery …" : "Deliver now …"}
        </GuardedButton>
      )}
    </>
  );
}

/** What somebody should know before approving: bounds that park it, items that changed, why it is no longer open. */
function Notices({ plan, onAgain }: { plan: PlanDetail; onAgain: () => void }) {
  const [letting, setLetting] = useState<Model<"PlanBound"> | null>(null);
  const { summary } = plan;
  const again = (
    <GuardedButton permission="edit" size="xs" variant="outline" onClick={onAgain}>
      Plan again …
    </GuardedButton>
  );
  return (
    <>
      {summary.is_dry_run && <Notice status="info" title="This is the plan of a dry run: it shows what a sync would do, and can never be delivered." />}
      {["rejected", "superseded"].includes(summary.state) && <Notice status="info" title={PLAN_STATES[summary.state].help} action={again} />}
      {summary.state === "proposed" && plan.bounds.length > 0 && (
        <Alert.Root status="warning" alignItems="start">
          <Alert.Indicator />
          <Alert.Content>
            <Alert.Title>Parked: a bound keeps it from being approved by itself</Alert.Title>
            <Stack as="ul" listStyleType="none" gap="1" w="full">
              {plan.bounds.map((bound) => (
                <HStack as="li" key={bound.bound_key} justify="space-between" gap="4">
                  <Text>
                    <strong>{bound.title}</strong>: {bound.detail}
                  </Text>
                  <GuardedButton permission="approve" size="xs" variant="outline" onClick={() => setLetting(bound)} aria-label={`Let pass: ${bound.title}`}>
                    Let pass …
                  </GuardedButton>
                </HStack>
              ))}
            </Stack>
          </Alert.Content>
        </Alert.Root>
      )}
      {["proposed", "approved"].includes(summary.state) && plan.stale_items > 0 && (
        <Notice
          status="warning"
          title={`${counted(plan.stale_items, "item")} changed since this plan was made: edited, or decided otherwise. This plan will not deliver them; plan again to have them in the next one.`}
          action={again}
        />
      )}
      {letting && <LetPassDialog bounds={[letting]} onClose={() => setLetting(null)} />}
    </>
  );
}

function Notice({ status, title, action }: { status: "info" | "warning"; title: string; action?: React.ReactNode }) {
  return (
    <Alert.Root status={status} size="sm">
      <Alert.Indicator />
      <Alert.Title flex="1">{title}</Alert.Title>
      {action}
    </Alert.Root>
  );
}

function LeftOutNote({ leftOut, onClear }: { leftOut: LeftOut; onClear: () => void }) {
  return (
    <Alert.Root status="info" size="sm" aria-live="polite">
      <Alert.Indicator />
      <Alert.Title flex="1">
        {counted(leftOut.items.size + leftOut.agreements.size, "item")} left out of your approval. The next run plans {count(leftOut.items.size + leftOut.agreements.size) === "1" ? "it" : "them"} again.
      </Alert.Title>
      <Button size="xs" variant="outline" onClick={onClear}>
        Take all in again
      </Button>
    </Alert.Root>
  );
}

function RejectDialog({ planId, onClose }: { planId: number; onClose: () => void }) {
  const reject = useReject(planId);
  return (
    <ReasonDialog title={`Reject plan ${planId}`} confirm="Reject" isDanger onConfirm={(reason) => reject.mutateAsync(reason)} onClose={onClose}>
      Nothing of it is written to ConnectWise. Its lines stay ready, and the next run plans them again.
    </ReasonDialog>
  );
}

function DeliverDialog({ plan, onClose }: { plan: PlanDetail; onClose: () => void }) {
  const applies = useDag(APPLY_PLAN);
  const client = useQueryClient();
  const { summary } = plan;
  const start = async () => {
    await deliver(client, summary.plan_id);
    toast("info", `Plan ${summary.plan_id} is being delivered`);
  };
  return (
    <ConfirmDialog title={`Deliver plan ${summary.plan_id} now?`} confirm={applies.data?.is_paused ? "Switch the DAG on and deliver" : "Deliver now"} onConfirm={start} onClose={onClose}>
      <Stack gap="3">
        <Text>
          Writes what was approved to ConnectWise, exactly once, and proves it: {summary.money.map((sum) => money(sum.amount, sum.currency)).join(" + ") || "no money newly billed"} in {counted(summary.items, "item")}. What is done already is not written again.
        </Text>
        {applies.data?.is_paused && (
          <Alert.Root status="warning" size="sm">
            <Alert.Indicator />
            <Alert.Title>The DAG “Apply an approved plan” is switched off in Airflow. Without it nothing is delivered; it is switched on together with this delivery.</Alert.Title>
          </Alert.Root>
        )}
        {applies.error && <ErrorBox error={applies.error} what="Airflow does not tell whether the DAG is switched on" />}
      </Stack>
    </ConfirmDialog>
  );
}
