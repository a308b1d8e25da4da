// Load Invoices: a run of sync_verified_invoices for one billing period.
import { Alert, Button, HStack, RadioGroup, Stack, Text } from "@chakra-ui/react";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { ConfirmDialog } from "../../components/Dialog";
import { ErrorBox } from "../../components/ErrorBox";
import { PeriodPicker } from "../../components/PeriodPicker";
import { dag, setPaused, triggerDag } from "../../lib/airflow";
import { period as periodName } from "../../lib/format";
import { shiftPeriod, thisPeriod } from "../../lib/period";

export const SYNC_DAG = "sync_verified_invoices";

/** Warns when the DAG is paused, and offers to switch it on. */
export function PausedDag({ dagId }: { dagId: string }) {
  const queries = useQueryClient();
  const { data, error } = useQuery({ queryKey: ["dag", dagId], queryFn: () => dag(dagId) });
  const [problem, setProblem] = useState<unknown>(null);
  if (error || problem) return <ErrorBox error={problem ?? error} what={`Airflow does not tell about ${dagId}`} />;
  if (!data?.is_paused) return null;
  const switchOn = () =>
    setPaused(dagId, false)
      .then(() => queries.invalidateQueries({ queryKey: ["dag", dagId] }))
      .catch(setProblem);
  return (
    <Alert.Root status="warning" alignItems="center">
      <Alert.Indicator />
      <Alert.Content>
        <Alert.Title>{dagId} is paused in Airflow</Alert.Title>
        <Alert.Description>A run would wait until it is switched on. Switched on, it also runs every night.</Alert.Description>
      </Alert.Content>
      <Button size="xs" variant="outline" onClick={switchOn}>
        Switch on
      </Button>
    </Alert.Root>
  );
}

export function LoadInvoices(props: { onClose: () => void; onStarted: (runId: string, period: string) => void }) {
  const current = thisPeriod();
  const previous = shiftPeriod(current, -1);
  const [choice, setChoice] = useState("current");
  const [other, setOther] = useState(shiftPeriod(current, -2));
  const period = choice === "current" ? current : choice === "previous" ? previous : other;
  return (
    <ConfirmDialog
      title="Load Invoices"
      confirm={`Load ${periodName(period)}`}
      onClose={props.onClose}
      onConfirm={async () => {
        const run = await triggerDag(SYNC_DAG, { billing_periods: [period] });
        props.onStarted(run.dag_run_id, period);
      }}
    >
      <Stack gap={4}>
        <Text>
          Reads the Verified invoices of a billing period from AppXite, decides every line, and plans what ConnectWise gets. Lines already delivered
          stay as they are.
        </Text>
        <RadioGroup.Root value={choice} onValueChange={(event) => setChoice(event.value ?? "current")} aria-label="Billing period">
          <Stack gap={2}>
            {[
              { value: "current", label: `Current month, ${periodName(current)}` },
              { value: "previous", label: `Previous month, ${periodName(previous)}` },
              { value: "other", label: "Another month" },
            ].map((one) => (
              <HStack key={one.value}>
                <RadioGroup.Item value={one.value}>
                  <RadioGroup.ItemHiddenInput />
                  <RadioGroup.ItemIndicator />
                  <RadioGroup.ItemText>{one.label}</RadioGroup.ItemText>
                </RadioGroup.Item>
                {one.value === "other" && choice === "other" && <PeriodPicker value={other} onChange={setOther} name="Billing period to load" />}
              </HStack>
            ))}
          </Stack>
        </RadioGroup.Root>
        <PausedDag dagId={SYNC_DAG} />
      </Stack>
    </ConfirmDialog>
  );
}
