import { Box, Button, Heading, HStack, Stack, Text } from "@chakra-ui/react";
import { useQuery } from "@tanstack/react-query";
import { Empty } from "../components/Empty";
import { ErrorBox } from "../components/ErrorBox";
import { Loading } from "../components/Loading";
import { useAddress } from "../lib/address";
import { openInAirflow, useDagRun } from "../lib/airflow";
import { get } from "../lib/api";
import { counted, DateTime, duration, money, period as periodName } from "../lib/format";
import type { Model } from "../models";
import { LiveRun } from "./dashboard/ActiveRuns";
import { RunStateBadge } from "./dashboard/RunStateBadge";
import { EntryTable } from "./logs/EntryTable";
import { Counts, Delivery } from "./plan/Counts";
import { Problems } from "./plan/Problems";
import { ProofLine } from "./plan/Proof";
import { PlanStateBadge } from "./plan/state";

const ADDRESS = { dag_id: "", run_id: "" };

/** Opens a page of ours in Airflow's plugin page: this tab is too small for it. */
const openPage = (path: string) => openInAirflow(`plugin/connectwise-billing/billing${path}`);

/** The tab of a DAG run: what this run did, its plan, its problems, and its log. */
export default function RunTab() {
  const [{ dag_id: dagId, run_id: dagRunId }] = useAddress(ADDRESS);
  const live = useDagRun(dagId || null, dagRunId || null);
  const state = live.data?.run.state;
  const isRunning = state === "running" || state === "queued";
  const planId = (live.data?.run as { conf?: { plan_id?: number } } | undefined)?.conf?.plan_id;
  const tab = useQuery({
    queryKey: ["dag-run-tab", dagId, dagRunId, planId],
    queryFn: () => get<Model<"RunOfDag">>("dag-run", { dag_id: dagId, dag_run_id: dagRunId, plan_id: dagId === "apply_plan" ? planId : null }),
    enabled: dagId !== "" && dagRunId !== "" && !(dagId === "apply_plan" && live.isPending),
    refetchInterval: isRunning ? 3_000 : false,
  });

  if (dagId === "" || dagRunId === "") return <Empty title="No run is named" detail="This page stands on the tab “Billing” of a DAG run." />;
  if (tab.isPending) return <Loading what="run" />;
  if (tab.error) return <ErrorBox error={tab.error} onRetry={() => tab.refetch()} />;
  const { run, plan } = tab.data;
  return (
    <Stack gap="4">
      {isRunning && live.data && <LiveRun run={{ ...live.data.run, conf: null }} />}
      {run === null ? (
        <Empty
          title={isRunning ? "This run has not begun its work yet" : "This run has made nothing"}
          detail={isRunning ? "It shows here what it decides, plans and delivers as soon as it does." : "It ended before it opened a run of the billing database: the log of its first failed task says why."}
        />
      ) : (
        <>
          <Outcome run={run} plan={plan} />
          {plan && (
            <>
              <Problems plan={plan} onShow={(itemState) => openPage(`/plan/${plan.summary.plan_id}?tab=items&state=${itemState}`)} />
              {plan.summary.items > 0 && plan.summary.state !== "proposed" && <Delivery plan={plan} />}
              <Counts plan={plan} />
              <ProofLine planId={plan.summary.plan_id} />
            </>
          )}
          {!plan && run.kind === "reference" && (
            <Text>This run read organizations, companies, agreements, offers and products. It makes no plan and writes nothing to ConnectWise.</Text>
          )}
          {!plan && run.kind !== "reference" && <Text>{isRunning ? "It has not made its plan yet." : "It has made no plan."}</Text>}
          <Log runId={run.run_id} isRunning={isRunning} />
        </>
      )}
    </Stack>
  );
}

function Outcome({ run, plan }: { run: Model<"Run">; plan: Model<"PlanDetail"> | null }) {
  return (
    <HStack justify="space-between" align="start" wrap="wrap" gap="4">
      <Box>
        <HStack>
          <Heading as="h1" size="lg">
            Run {run.run_id}
          </Heading>
          <RunStateBadge run={run} />
          {plan && <PlanStateBadge plan={plan.summary} />}
        </HStack>
        <Text color="fg.muted">
          {run.kind === "reference" ? "Organizations, products, agreements" : run.billing_periods.map(periodName).join(", ")} · <DateTime at={run.started_at} />
          {run.ended_at && ` · took ${duration(run.started_at, run.ended_at)}`}
        </Text>
        {plan && (
          <Text mt="1">
            <strong>
              {plan.summary.items === 0
                ? "Nothing to write: ConnectWise stands as it should."
                : `${counted(plan.summary.items, "item")}, ${plan.summary.money.map((sum) => money(sum.amount, sum.currency)).join(" + ") || "no money newly billed"}`}
            </strong>
            {" · "}
            {counted(run.writes, "write")} to ConnectWise
            {run.approved_by && ` · approved by ${run.approved_by}`}
          </Text>
        )}
        {run.parked_because && <Text color="orange.fg">Parked: {run.parked_because}</Text>}
      </Box>
      <HStack>
        {plan && (
          <Button variant="outline" onClick={() => openPage(`/plan/${plan.summary.plan_id}`)}>
            Open plan {plan.summary.plan_id}
          </Button>
        )}
        <Button variant="outline" onClick={() => openPage("/dashboard")}>
          Dashboard
        </Button>
      </HStack>
    </HStack>
  );
}

function Log({ runId, isRunning }: { runId: number; isRunning: boolean }) {
  const entries = useQuery({
    queryKey: ["logs-of-run", runId],
    queryFn: () => get<Model<"LogPage">>("logs", { run_id: runId, ledger: true, limit: 200 }),
    refetchInterval: isRunning ? 3_000 : false,
  });
  return (
    <Box>
      <Heading as="h2" size="md" mb="2">
        Log of this run
      </Heading>
      {entries.isPending ? (
        <Loading what="log" />
      ) : entries.error ? (
        <ErrorBox error={entries.error} onRetry={() => entries.refetch()} />
      ) : entries.data.entries.length === 0 ? (
        <Text color="fg.muted">No entries.</Text>
      ) : (
        <EntryTable entries={entries.data.entries} hasRun={false} />
      )}
    </Box>
  );
}
