import { RadioGroup, Stack, Text } from "@chakra-ui/react";
import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { ConfirmDialog } from "../../components/Dialog";
import { toast } from "../../components/Toaster";
import { dag, setPaused, triggerDag } from "../../lib/airflow";
import { period as periodName } from "../../lib/format";
import { shiftPeriod, thisPeriod } from "../../lib/period";

const NIGHTLY = "sync_verified_invoices";

/** Starts a sync or a dry run: of the months that the nightly run looks at, or of one month. Switches the DAG on if it is off. */
export function SyncDialog({ isDryRun, period, periods, syncsByItself, onClose }: {
  isDryRun: boolean;
  /** The months offered at first; null: the nightly run's choice. */
  period: string | null;
  periods?: string[];
  syncsByItself: boolean;
  onClose: () => void;
}) {
  const [choice, setChoice] = useState(periods && periods.length > 0 ? "asked" : "nightly");
  const client = useQueryClient();
  const now = thisPeriod();
  const start = async () => {
    if ((await dag(NIGHTLY)).is_paused) await setPaused(NIGHTLY, false);
    const billing_periods = choice === "nightly" ? null : choice === "asked" ? (periods ?? null) : [choice];
    await triggerDag(NIGHTLY, { dry_run: isDryRun, billing_periods });
    await client.invalidateQueries({ queryKey: ["active-runs"] });
    toast("info", isDryRun ? "The dry run is on its way" : "The sync is on its way", "Its progress stands on the Dashboard.");
  };
  return (
    <ConfirmDialog title={isDryRun ? "Dry run" : "Sync now"} confirm={isDryRun ? "Start dry run" : "Start sync"} onConfirm={start} onClose={onClose}>
      <Stack gap="4">
        {isDryRun ? (
          <Text>Loads the Verified invoices, decides and plans, and shows the plan. It cannot write to ConnectWise, and its plan can never be delivered.</Text>
        ) : (
          <Text>
            Loads the Verified invoices, decides and plans.{" "}
            {syncsByItself
              ? "Automated Daily Sync is on: the plan is approved by itself and written to ConnectWise, unless a bound parks it or delivery is stopped."
              : "Automated Daily Sync is off: nothing is written to ConnectWise before you approve the plan on the page Plan."}
          </Text>
        )}
        <RadioGroup.Root value={choice} onValueChange={(change) => setChoice(change.value ?? "nightly")} aria-label="Billing periods" colorPalette="brand">
          <Stack gap="2">
            {periods && periods.length > 0 && <Choice value="asked" text={`The plan's: ${periods.map(periodName).join(", ")}`} />}
            <Choice value="nightly" text={`As every night: ${periodName(shiftPeriod(now, -1))} and ${periodName(now)}, or as set in Settings › Configuration`} />
            {period !== null && <Choice value={period} text={`Only ${periodName(period)}`} />}
          </Stack>
        </RadioGroup.Root>
      </Stack>
    </ConfirmDialog>
  );
}

function Choice({ value, text }: { value: string; text: string }) {
  return (
    <RadioGroup.Item value={value}>
      <RadioGroup.ItemHiddenInput />
      <RadioGroup.ItemIndicator />
      <RadioGroup.ItemText>{text}</RadioGroup.ItemText>
    </RadioGroup.Item>
  );
}
