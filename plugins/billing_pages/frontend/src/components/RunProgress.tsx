import { Box, Button, HStack, Progress, Text } from "@chakra-ui/react";
import { useEffect, useRef } from "react";
import { openInAirflow, useDagRun } from "../lib/airflow";
import { ErrorBox } from "./ErrorBox";

/** Follows a run of a DAG until it ends: bar, the steps that run now, a link to it. onEnd is called once. */
export function RunProgress(props: { dagId: string; runId: string; title: string; onEnd?: (state: "success" | "failed") => void }) {
  const { data, error, refetch } = useDagRun(props.dagId, props.runId);
  const told = useRef(false);
  const state = data?.run.state;
  const { onEnd } = props;
  useEffect(() => {
    if ((state === "success" || state === "failed") && !told.current) {
      told.current = true;
      onEnd?.(state);
    }
  }, [state, onEnd]);
  if (error) return <ErrorBox error={error} what="The run cannot be followed" onRetry={() => refetch()} />;
  const progress = data?.progress;
  const hasEnded = state === "success" || state === "failed";
  const words =
    state === undefined || state === "queued"
      ? "Waits for Airflow's scheduler"
      : state === "success"
        ? "Done"
        : state === "failed"
          ? `Failed in ${progress?.failed.join(", ") || "a step"}`
          : progress?.running.length
            ? `Now: ${progress.running.join(", ")}`
            : "Next step starts";
  return (
    <Box borderWidth={1} borderRadius="md" p={3} role="status" flexShrink={0}>
      <HStack justify="space-between" mb={2} gap={4}>
        <Text fontWeight="medium">{props.title}</Text>
        <Button size="xs" variant="outline" onClick={() => openInAirflow(`dags/${props.dagId}/runs/${encodeURIComponent(props.runId)}`)}>
          Open run in Airflow
        </Button>
      </HStack>
      <Progress.Root
        value={hasEnded ? 100 : progress?.total ? (100 * progress.ended) / progress.total : null}
        colorPalette={state === "failed" ? "red" : state === "success" ? "green" : "blue"}
        size="sm"
        aria-label={props.title}
      >
        <Progress.Track>
          <Progress.Range />
        </Progress.Track>
      </Progress.Root>
      <Text fontSize="xs" color="fg.muted" mt={1}>
        {words}
        {progress && !hasEnded ? ` · ${progress.ended} of ${progress.total} steps` : ""}
      </Text>
    </Box>
  );
}
