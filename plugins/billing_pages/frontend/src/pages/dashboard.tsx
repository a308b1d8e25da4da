import { Box, HStack, NativeSelect, SimpleGrid, Skeleton, Stack } from "@chakra-ui/react";
import { useEffect, useState } from "react";
import { useLocation } from "react-router";
import { ErrorBox } from "../components/ErrorBox";
import { GuardedButton } from "../components/GuardedButton";
import { Page } from "../components/Page";
import { useAddress } from "../lib/address";
import { period as periodName } from "../lib/format";
import { useActiveRuns } from "../lib/runs";
import { ActiveRuns } from "./dashboard/ActiveRuns";
import { AmissSubscriptions } from "./dashboard/AmissSubscriptions";
import { Customers } from "./dashboard/Customers";
import { FirstRun } from "./dashboard/FirstRun";
import { HeldMoney } from "./dashboard/HeldMoney";
import { MoneyOfPeriod } from "./dashboard/MoneyOfPeriod";
import { Months } from "./dashboard/Months";
import { NeedsYou } from "./dashboard/NeedsYou";
import { ParkedBounds } from "./dashboard/ParkedBounds";
import { PauseBanner } from "./dashboard/PauseBanner";
import { useParked, usePauses, usePeriods, useRuns, useSetup, useUnsettled } from "./dashboard/queries";
import { RecentRuns } from "./dashboard/RecentRuns";
import { SetupChecklist } from "./dashboard/SetupChecklist";
import { StopDialog } from "./dashboard/StopDialog";
import { SyncCard } from "./dashboard/SyncCard";
import { SyncDialog } from "./dashboard/SyncDialog";
import { UnsettledAdditions } from "./dashboard/UnsettledAdditions";
import { usePlans } from "./plan/queries";

const FEW_RUNS = 6;
const FEW_UNSETTLED = 5;
const MOST = 1000; // rows that a route gives at once

/** What a finance person wants to see first in the morning. */
export default function Dashboard() {
  const [address, change] = useAddress({ period: "", sort: "-total", page: "1", months: "chart", currency: "", held: "period" });
  const [dialog, setDialog] = useState<"stop" | "sync" | "dry run" | null>(null);
  const [runLimit, setRunLimit] = useState(FEW_RUNS);
  const setup = useSetup();
  const periods = usePeriods();
  const runs = useRuns(runLimit);
  const pauses = usePauses();
  const parked = useParked();
  const [unsettledLimit, setUnsettledLimit] = useState(FEW_UNSETTLED);
  const unsettled = useUnsettled(unsettledLimit);
  const plans = usePlans();
  const active = useActiveRuns();

  const period = periods.data?.find((each) => each.billing_period === address.period) ?? periods.data?.[0];
  const lastRun = runs.data?.find((run) => run.kind !== "reference");
  const isEmpty = periods.data?.length === 0;
  const asked = [setup, periods, runs, pauses, parked, unsettled];
  const failed = asked.find((query) => query.error);

  useScrollToHash(!setup.isPending && !periods.isPending && !parked.isPending && !unsettled.isPending);

  return (
    <Page
      title="Dashboard"
      actions={
        <>
          {period && (
            <NativeSelect.Root size="sm" width="10rem">
              <NativeSelect.Field aria-label="Billing period" value={period.billing_period} onChange={(event) => change({ period: event.target.value, page: "1" })}>
                {periods.data?.map((each) => (
                  <option key={each.billing_period} value={each.billing_period}>
                    {periodName(each.billing_period)}
                  </option>
                ))}
              </NativeSelect.Field>
              <NativeSelect.Indicator />
            </NativeSelect.Root>
          )}
          <GuardedButton permission="edit" variant="outline" onClick={() => setDialog("dry run")}>
            Dry run …
          </GuardedButton>
          <GuardedButton permission="edit" onClick={() => setDialog("sync")}>
            Sync now …
          </GuardedButton>
          <GuardedButton permission="approve" variant="outline" colorPalette="red" onClick={() => setDialog("stop")}>
            Stop delivery …
          </GuardedButton>
        </>
      }
    >
      {failed && <ErrorBox error={failed.error} onRetry={() => asked.forEach((query) => void query.refetch())} />}
      {pauses.data && <PauseBanner pauses={pauses.data} />}
      <NeedsYou plans={plans.data ?? []} lastRun={lastRun} period={period} unsettled={unsettled.data?.total ?? 0} />
      {setup.data && <SetupChecklist setup={setup.data} />}
      <ActiveRuns runs={active.data ?? []} />
      {isEmpty && setup.data && <FirstRun isReady={setup.data.is_ready} onDryRun={() => setDialog("dry run")} />}
      {periods.isPending && !failed && <Placeholder />}
      {period && <MoneyOfPeriod period={period} />}
      {setup.data && (
        <SimpleGrid columns={{ base: 1, lg: period ? 2 : 1 }} gap="3" alignItems="start">
          <Stack gap="3" minW="0">
            <SyncCard setup={setup.data} lastRun={lastRun} />
            {period && (
              <Months
                periods={periods.data ?? []}
                asTable={address.months === "table"}
                onAsTable={(asTable) => change({ months: asTable ? "table" : "chart" })}
                currency={address.currency}
                onCurrency={(currency) => change({ currency })}
              />
            )}
          </Stack>
          {period && (
            <HeldMoney period={period.billing_period} scope={address.held === "all" ? "all" : "period"} onScope={(held) => change({ held })} />
          )}
        </SimpleGrid>
      )}
      {unsettled.data && <UnsettledAdditions page={unsettled.data} onMore={() => setUnsettledLimit(Math.min(MOST, unsettledLimit * 5))} />}
      {parked.data && <ParkedBounds parked={parked.data} />}
      {period && <Customers period={period.billing_period} sort={address.sort} page={Number(address.page) || 1} onChange={change} />}
      <AmissSubscriptions />
      {runs.data && runs.data.length > 0 && (
        <RecentRuns runs={runs.data} onMore={runs.data.length === runLimit && runLimit < MOST ? () => setRunLimit(Math.min(MOST, runLimit * 3)) : null} />
      )}
      {dialog === "stop" && <StopDialog onClose={() => setDialog(null)} />}
      {(dialog === "sync" || dialog === "dry run") && (
        <SyncDialog
          isDryRun={dialog === "dry run"}
          period={period?.billing_period ?? null}
          syncsByItself={setup.data?.automated_daily_sync ?? false}
          onClose={() => setDialog(null)}
        />
      )}
    </Page>
  );
}

/** A link to a section (dashboard#parked) shows it once everything above it has its height. */
function useScrollToHash(isReady: boolean) {
  const { hash } = useLocation();
  useEffect(() => {
    if (isReady && hash !== "") document.getElementById(hash.slice(1))?.scrollIntoView();
  }, [isReady, hash]);
}

function Placeholder() {
  return (
    <Stack gap="3" role="status" aria-label="Loading the Dashboard">
      <HStack gap="3">
        {["a", "b", "c", "d", "e"].map((each) => (
          <Skeleton key={each} h="20" flex="1" />
        ))}
      </HStack>
      <Box>
        <Skeleton h="64" />
      </Box>
    </Stack>
  );
}
