import { Alert, Button, Field, HStack, Progress, Stack, Text } from "@chakra-ui/react";
import { useMutation, useQuery } from "@tanstack/react-query";
import { useEffect, useState } from "react";

import { Drawer } from "../../../components/Drawer";
import { ErrorBox } from "../../../components/ErrorBox";
import { PeriodPicker } from "../../../components/PeriodPicker";
import { get } from "../../../lib/api";
import { DateTime, duration } from "../../../lib/format";
import { shiftPeriod, thisPeriod } from "../../../lib/period";
import type { Model } from "../../../models";
import { fetchSimulation, startSimulation } from "./api";
import { SimulationResult } from "./SimulationResult";
import type { Changes, SimulationState } from "./types";

interface Props {
  title: string;
  changes: Changes;
  refusal?: string;
  onSave: () => Promise<unknown>;
  onDiscard: () => void;
  onClose: () => void;
}

/** What would this change have billed in past periods? Then save or discard it. Nothing is written by a simulation. */
export function SimulationDrawer({ title, changes, refusal, onSave, onDiscard, onClose }: Props) {
  const [first, setFirst] = useState<string | null>(null);
  const [last, setLast] = useState<string | null>(null);
  const [id, setId] = useState<number | null>(null);
  const periods = useQuery({ queryKey: ["periods"], queryFn: () => get<Model<"Period">[]>("periods") });
  const newest = periods.data?.[0]?.billing_period ?? thisPeriod();
  const oldest = periods.data?.[Math.min(2, periods.data.length - 1)]?.billing_period ?? shiftPeriod(newest, -2);
  const from = first ?? oldest;
  const to = last ?? newest;

  const start = useMutation({
    mutationFn: () =>
      startSimulation({ first: from, last: to, settings: changes.settings ?? {}, charge_types: changes.charge_types ?? {} }),
    onSuccess: (state) => setId(state.simulation_id),
  });
  const simulation = useQuery({
    queryKey: ["simulation", id],
    queryFn: ({ signal }) => fetchSimulation(id as number, signal),
    enabled: id !== null,
    refetchInterval: (query) => (query.state.data?.state === "running" ? 1000 : false),
  });
  const save = useMutation({ mutationFn: onSave, onSuccess: onClose });
  const state = simulation.data ?? start.data;
  const isRunning = start.isPending || state?.state === "running";

  return (
    <Drawer
      title="What would it change?"
      onClose={onClose}
      footer={
        <>
          <Button variant="outline" onClick={onDiscard}>
            Discard the change
          </Button>
          <Button disabled={refusal !== undefined || isRunning} title={refusal} loading={save.isPending} onClick={() => save.mutate()}>
            Save the change
          </Button>
        </>
      }
    >
      <Stack gap={4}>
        <div>
          <Text fontSize="md" fontWeight="medium">
            {title}
          </Text>
          <Text fontSize="sm" color="fg.muted">
            Past periods are decided again, with the configuration of today and with this change, in a scratch database. Nothing
            is written, neither here nor to ConnectWise.
          </Text>
        </div>
        <HStack align="end" wrap="wrap" gap={4}>
          <Field.Root width="auto">
            <Field.Label>From</Field.Label>
            <PeriodPicker name="First billing period" value={from} onChange={setFirst} />
          </Field.Root>
          <Field.Root width="auto">
            <Field.Label>To</Field.Label>
            <PeriodPicker name="Last billing period" value={to} onChange={setLast} />
          </Field.Root>
          <Button
            variant={state?.state === "done" ? "outline" : "solid"}
            disabled={from > to || refusal !== undefined}
            title={refusal}
            loading={isRunning}
            loadingText="Deciding…"
            onClick={() => start.mutate()}
          >
            {state?.state === "done" ? "Simulate again" : "Simulate"}
          </Button>
        </HStack>
        {from > to && <Text color="fg.error">The first period is later than the last one.</Text>}
        {refusal && (
          <Alert.Root status="info">
            <Alert.Indicator />
            <Alert.Title>{refusal}</Alert.Title>
          </Alert.Root>
        )}
        {start.isError && <ErrorBox error={start.error} what="The simulation did not start" />}
        {simulation.isError && <ErrorBox error={simulation.error} what="Its state could not be read" onRetry={() => void simulation.refetch()} />}
        {save.isError && <ErrorBox error={save.error} what="Not saved" />}
        <div aria-live="polite">
          {isRunning && <Running state={state} />}
          {state?.state === "failed" && (
            <Alert.Root status="error">
              <Alert.Indicator />
              <Alert.Content>
                <Alert.Title>The simulation failed</Alert.Title>
                <Alert.Description>{state.message}</Alert.Description>
              </Alert.Content>
            </Alert.Root>
          )}
        </div>
        {state?.state === "done" && (
          <>
            <SimulationResult state={state} />
            <Text fontSize="xs" color="fg.muted">
              By {state.requested_by}, <DateTime at={state.started_at} />
              {state.ended_at && `, in ${duration(state.started_at, state.ended_at)}`}
            </Text>
          </>
        )}
      </Stack>
    </Drawer>
  );
}

function Running({ state }: { state: SimulationState | undefined }) {
  const [, tick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => tick((n) => n + 1), 1000);
    return () => clearInterval(timer);
  }, []);
  return (
    <Stack gap={2}>
      <Progress.Root value={null} size="sm" colorPalette="blue" aria-label="The simulation runs">
        <Progress.Track>
          <Progress.Range />
        </Progress.Track>
      </Progress.Root>
      <Text fontSize="sm" color="fg.muted">
        {state?.message ?? "The periods are decided twice"}
        {state && ` · ${duration(state.started_at, new Date().toISOString())}`}. You may close this; the simulation ends by itself.
      </Text>
    </Stack>
  );
}
