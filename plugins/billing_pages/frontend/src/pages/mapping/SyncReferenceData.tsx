import { Alert, Button, Field, NativeSelect, Stack, Text } from "@chakra-ui/react";
import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { ConfirmDialog } from "../../components/Dialog";
import { GuardedButton } from "../../components/GuardedButton";
import { RunProgress } from "../../components/RunProgress";
import { toast } from "../../components/Toaster";
import { useAddress } from "../../lib/address";
import { setPaused, triggerDag } from "../../lib/airflow";
import { useDag } from "../../lib/runs";

const DAG = "sync_reference_data";
const WINDOWS = Array.from({ length: 15 }, (_, number) => number + 1);

/** A button that reads the reference data of both systems anew. asksWindow: the months of invoices that offers are looked for in. */
export function SyncButton({ name, asksWindow }: { name: string; asksWindow: boolean }) {
  const [isAsking, setAsking] = useState(false);
  return (
    <>
      <GuardedButton permission="edit" size="sm" variant="outline" onClick={() => setAsking(true)}>
        {name}
      </GuardedButton>
      {isAsking && <StartDialog name={name} asksWindow={asksWindow} onClose={() => setAsking(false)} />}
    </>
  );
}

function StartDialog({ name, asksWindow, onClose }: { name: string; asksWindow: boolean; onClose: () => void }) {
  const [, change] = useAddress({ run: "" });
  const [months, setMonths] = useState(3);
  const dag = useDag(DAG);
  const isPaused = dag.data?.is_paused ?? false;
  const start = async () => {
    if (isPaused) await setPaused(DAG, false);
    const run = await triggerDag(DAG, { offer_window_months: months });
    change({ run: run.dag_run_id });
  };
  return (
    <ConfirmDialog title={name} confirm={isPaused ? "Switch on and start" : "Start"} onConfirm={start} onClose={onClose}>
      <Stack gap={4}>
        <Text>
          Reads organizations, contracts and offers from AppXite, and companies, agreements and products from ConnectWise. Reads only:
          nothing is decided, and nothing is written to ConnectWise.
        </Text>
        {asksWindow && (
          <Field.Root>
            <Field.Label>Offers on invoices of the last</Field.Label>
            <NativeSelect.Root size="sm" maxW="48">
              <NativeSelect.Field value={months} onChange={(event) => setMonths(Number(event.target.value))}>
                {WINDOWS.map((one) => (
                  <option key={one} value={one}>
                    {one === 1 ? "month (the current one)" : `${one} months`}
                  </option>
                ))}
              </NativeSelect.Field>
              <NativeSelect.Indicator />
            </NativeSelect.Root>
            <Field.HelperText>The current month included. More months take longer.</Field.HelperText>
          </Field.Root>
        )}
        {isPaused && (
          <Alert.Root status="warning">
            <Alert.Indicator />
            <Alert.Description>
              The DAG {DAG} is paused in Airflow: it would wait and do nothing. Starting switches it on. It has no schedule, so nothing
              else begins.
            </Alert.Description>
          </Alert.Root>
        )}
      </Stack>
    </ConfirmDialog>
  );
}

/** The run that the address names, with its progress; when it has ended, everything that it read is asked anew. */
export function SyncProgress({ name }: { name: string }) {
  const [{ run }, change] = useAddress({ run: "" });
  const queries = useQueryClient();
  if (run === "") return null;
  return (
    <Stack gap={1} flexShrink={0}>
      <RunProgress
        key={run}
        dagId={DAG}
        runId={run}
        title={name}
        onEnd={(state) => {
          void queries.invalidateQueries({ predicate: ({ queryKey }) => queryKey[0] !== "dag-run" });
          if (state === "success") toast("success", `${name}: done`);
          else toast("error", `${name} failed`, "Open the run in Airflow, or look at System Logs.");
        }}
      />
      <Button size="2xs" variant="ghost" alignSelf="end" onClick={() => change({ run: "" })}>
        Hide
      </Button>
    </Stack>
  );
}
