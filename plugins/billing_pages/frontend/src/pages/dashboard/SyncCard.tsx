import { Card, DataList, Heading, HStack, Stack, Switch, Text } from "@chakra-ui/react";
import { useState } from "react";
import { ConfirmDialog } from "../../components/Dialog";
import { ErrorBox } from "../../components/ErrorBox";
import { GuardedButton, useWhyNot } from "../../components/GuardedButton";
import { Help } from "../../components/Help";
import { toast } from "../../components/Toaster";
import { TextLink } from "../../components/TextLink";
import { setPaused } from "../../lib/airflow";
import { DateTime, duration } from "../../lib/format";
import { planLink } from "../../lib/links";
import { useDag } from "../../lib/runs";
import type { Model } from "../../models";
import { RunStateBadge } from "./RunStateBadge";
import { useSwitchSync } from "./queries";

const NIGHTLY = "sync_verified_invoices";

/** Automated Daily Sync, last and next run. */
export function SyncCard({ setup, lastRun }: { setup: Model<"Setup">; lastRun: Model<"Run"> | undefined }) {
  const [asked, setAsked] = useState<boolean | null>(null);
  const switchSync = useSwitchSync();
  const whyNot = useWhyNot("admin");
  const isOn = setup.automated_daily_sync;
  const stale = switchSync.error;

  return (
    <Card.Root as="section" size="sm" aria-labelledby="sync-heading">
      <Card.Header pb="2">
        <Heading size="md" id="sync-heading">
          Synchronization
        </Heading>
      </Card.Header>
      <Card.Body gap="3">
        <HStack>
          <Switch.Root
            checked={isOn}
            onCheckedChange={(change) => whyNot === null && setAsked(change.checked)}
            disabled={whyNot !== null}
            title={whyNot ?? undefined}
            colorPalette="green"
          >
            <Switch.HiddenInput aria-describedby={whyNot ? "sync-why-not" : undefined} />
            <Switch.Control />
            <Switch.Label>Automated Daily Sync is {isOn ? "on" : "off"}</Switch.Label>
          </Switch.Root>
          <Help label="What Automated Daily Sync does">
            On: the plan of the nightly run is approved by itself, unless a bound parks it or delivery is stopped. Off: the nightly run loads, decides and plans all the same, and its plan waits for you on the page Plan.
          </Help>
        </HStack>
        {whyNot && (
          <Text id="sync-why-not" fontSize="xs" color="fg.muted">
            {whyNot}
          </Text>
        )}
        {stale && asked === null && <ErrorBox error={stale} />}
        <DataList.Root orientation="horizontal" size="sm" gap="2">
          <DataList.Item alignItems="start">
            <DataList.ItemLabel minW="20">Last run</DataList.ItemLabel>
            <DataList.ItemValue>
              <LastRun run={lastRun} />
            </DataList.ItemValue>
          </DataList.Item>
          <DataList.Item alignItems="start">
            <DataList.ItemLabel minW="20">Next run</DataList.ItemLabel>
            <DataList.ItemValue>
              <NextRun />
            </DataList.ItemValue>
          </DataList.Item>
        </DataList.Root>
      </Card.Body>
      {asked !== null && (
        <ConfirmDialog
          title={asked ? "Turn Automated Daily Sync on?" : "Turn Automated Daily Sync off?"}
          confirm={asked ? "Turn on" : "Turn off"}
          isDanger={asked}
          onConfirm={() => switchSync.mutateAsync({ on: asked, version: setup.automated_daily_sync_version })}
          onClose={() => setAsked(null)}
        >
          {asked ? (
            <Text>
              From the next run on, plans are approved by themselves and written to ConnectWise with nobody looking first. What is beyond a bound is still parked, what is doubtful is still held, and the stop button still stops everything.
            </Text>
          ) : (
            <Text>The nightly run goes on loading, deciding and planning. Its plan then waits until somebody approves it on the page Plan. Nothing that is delivered changes.</Text>
          )}
        </ConfirmDialog>
      )}
    </Card.Root>
  );
}

function LastRun({ run }: { run: Model<"Run"> | undefined }) {
  if (!run) return <Text color="fg.muted">No sync has run yet</Text>;
  return (
    <Stack gap="0.5">
      <HStack flexWrap="wrap" gap="2">
        <DateTime at={run.started_at} />
        <RunStateBadge run={run} />
      </HStack>
      <Text fontSize="xs" color="fg.muted">
        {run.ended_at ? `took ${duration(run.started_at, run.ended_at)}` : "not ended yet"}
        {run.proven_at && run.state !== "awaiting_approval" && (
          <>
            {" · proven "}
            <DateTime at={run.proven_at} relative />
          </>
        )}
        {run.plan_id !== null && (
          <>
            {" · "}
            <TextLink to={planLink(run.plan_id)}>
              plan {run.plan_id}
            </TextLink>
          </>
        )}
      </Text>
    </Stack>
  );
}

function NextRun() {
  const nightly = useDag(NIGHTLY);
  if (nightly.isPending) return <Text color="fg.muted">…</Text>;
  if (nightly.error) return <Text color="fg.muted">Airflow does not tell: {nightly.error.message}</Text>;
  if (nightly.data.is_paused)
    return (
      <HStack flexWrap="wrap">
        <Text color="orange.fg">None: the DAG “Sync verified invoices” is switched off in Airflow</Text>
        <GuardedButton
          permission="admin"
          size="xs"
          variant="outline"
          onClick={async () => {
            try {
              await setPaused(NIGHTLY, false);
              await nightly.refetch();
              toast("success", "The nightly run is switched on");
            } catch (error) {
              toast("error", "Airflow did not switch it on", (error as Error).message);
            }
          }}
        >
          Switch on
        </GuardedButton>
      </HStack>
    );
  const next = nightly.data.next_dagrun_run_after;
  return next ? (
    <Text>
      <DateTime at={next} />{" "}
      <Text as="span" fontSize="xs" color="fg.muted">
        (<DateTime at={next} relative />)
      </Text>
    </Text>
  ) : (
    <Text color="fg.muted">not planned</Text>
  );
}
