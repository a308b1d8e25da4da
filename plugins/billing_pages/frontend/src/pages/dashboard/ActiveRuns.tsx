import { Box, Button, Card, Heading, HStack, Progress, Stack, Text } from "@chakra-ui/react";
import { openInAirflow, useDagRun } from "../../lib/airflow";
import { count, DateTime } from "../../lib/format";
import { airflowRun } from "../../lib/links";
import type { ActiveRun } from "../../lib/runs";
import { stagesOf, type StageState } from "../../lib/steps";

const NAMES: Record<string, string> = {
  sync_verified_invoices: "Sync verified invoices",
  sync_billing_period: "Sync one billing period",
  sync_reference_data: "Sync Organizations and Load Products",
  apply_plan: "Deliver plan",
};

/** Runs that run now, live, stage by stage. */
export function ActiveRuns({ runs }: { runs: ActiveRun[] }) {
  if (runs.length === 0) return null;
  return (
    <Card.Root as="section" size="sm" aria-labelledby="active-heading">
      <Card.Header pb="2">
        <Heading size="md" id="active-heading">
          Running now
        </Heading>
      </Card.Header>
      <Card.Body gap="4">
        {runs.map((run) => (
          <LiveRun key={`${run.dag_id}/${run.dag_run_id}`} run={run} />
        ))}
      </Card.Body>
    </Card.Root>
  );
}

const COLORS: Record<StageState, string> = { waiting: "gray.muted", skipped: "gray.muted", running: "blue.solid", done: "green.solid", failed: "red.solid" };

/** Progress of one DAG run: its stages, the tasks that run now, and how many of its tasks have ended. */
export function LiveRun({ run }: { run: Pick<ActiveRun, "dag_id" | "dag_run_id" | "start_date" | "state" | "conf"> }) {
  const live = useDagRun(run.dag_id, run.dag_run_id);
  const progress = live.data?.progress;
  const state = live.data?.run.state ?? run.state;
  const stages = stagesOf(progress?.tasks ?? []);
  const now = [...new Set(stages.flatMap((stage) => stage.running))];
  const name = `${run.conf?.dry_run ? "Dry run: " : ""}${NAMES[run.dag_id] ?? run.dag_id}${run.conf?.plan_id ? ` ${run.conf.plan_id}` : ""}`;
  return (
    <Stack gap="2">
      <HStack flexWrap="wrap">
        <Text fontWeight="medium">{name}</Text>
        <Text fontSize="xs" color="fg.muted">
          {run.start_date ? (
            <>
              since <DateTime at={run.start_date} />
            </>
          ) : (
            "waits for its turn"
          )}
        </Text>
        <Button size="xs" variant="outline" ms="auto" onClick={() => openInAirflow(airflowRun(run.dag_id, run.dag_run_id))}>
          Open in Airflow
        </Button>
      </HStack>
      <HStack as="ol" gap="1" listStyleType="none">
        {stages.map((stage) => (
          <Box as="li" key={stage.name} flex="1" title={stage.help} minW="0">
            <Box h="1.5" borderRadius="full" bg={COLORS[stage.state]} />
            <Text fontSize="xs" color={stage.state === "waiting" || stage.state === "skipped" ? "fg.muted" : "fg"} truncate>
              {stage.name}
              <Text as="span" color="fg.muted">
                {" "}
                · {stage.state}
              </Text>
            </Text>
          </Box>
        ))}
      </HStack>
      <Progress.Root value={progress && progress.total > 0 ? (100 * progress.ended) / progress.total : null} size="xs" colorPalette={state === "failed" ? "red" : "blue"} aria-label={`Progress: ${name}`}>
        <Progress.Track>
          <Progress.Range />
        </Progress.Track>
      </Progress.Root>
      <Text fontSize="xs" color="fg.muted" aria-live="polite">
        {now.length > 0 ? `Now: ${now.join(", ")}` : state === "queued" ? "Waits for another run to end, or for Airflow to begin it" : "Between two steps"}
        {progress ? ` · ${count(progress.ended)} of ${count(progress.total)} tasks ended` : ""}
      </Text>
    </Stack>
  );
}
