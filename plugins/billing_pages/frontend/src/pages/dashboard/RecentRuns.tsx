import { Button, Card, Heading, HStack, Table, Text } from "@chakra-ui/react";
import { TableFrame } from "../../components/TableFrame";
import { TextLink } from "../../components/TextLink";
import { openInAirflow } from "../../lib/airflow";
import { count, DateTime, duration, money, period as periodName } from "../../lib/format";
import { airflowRun, logsLink, planLink } from "../../lib/links";
import type { Model } from "../../models";
import { RunStateBadge } from "./RunStateBadge";

const KINDS: Record<string, string> = {
  nightly: "Nightly sync",
  manual: "Sync by hand",
  backfill: "Backfill",
  reference: "Organizations, products, agreements",
};

/** The newest runs, each with its plan, its log and its page in Airflow. */
export function RecentRuns({ runs, onMore }: { runs: Model<"Run">[]; onMore: (() => void) | null }) {
  return (
    <Card.Root as="section" size="sm" aria-labelledby="runs-heading">
      <Card.Header pb="2">
        <Heading size="md" id="runs-heading">
          Recent runs
        </Heading>
      </Card.Header>
      <Card.Body gap="2">
        <TableFrame name="Table of runs" borderWidth="0">
          <Table.Root size="sm">
            <Table.Header>
              <Table.Row>
                <Table.ColumnHeader scope="col">Run</Table.ColumnHeader>
                <Table.ColumnHeader scope="col">Began</Table.ColumnHeader>
                <Table.ColumnHeader scope="col">Billing periods</Table.ColumnHeader>
                <Table.ColumnHeader scope="col">State</Table.ColumnHeader>
                <Table.ColumnHeader scope="col">Plan</Table.ColumnHeader>
                <Table.ColumnHeader scope="col" textAlign="end">
                  Writes to ConnectWise
                </Table.ColumnHeader>
                <Table.ColumnHeader scope="col">Log</Table.ColumnHeader>
              </Table.Row>
            </Table.Header>
            <Table.Body>
              {runs.map((run) => (
                <Table.Row key={run.run_id}>
                  <Table.Cell>
                    <Button variant="plain" color="brand.fg" textDecoration="underline" textDecorationColor="border.emphasized" size="xs" px="0" h="auto" onClick={() => openInAirflow(airflowRun(run.dag_id, run.dag_run_id))} title="Open this run in Airflow">
                      {KINDS[run.kind] ?? run.kind} {run.run_id}
                    </Button>
                  </Table.Cell>
                  <Table.Cell whiteSpace="nowrap">
                    <DateTime at={run.started_at} />
                    <Text fontSize="xs" color="fg.muted">
                      {run.ended_at ? `took ${duration(run.started_at, run.ended_at)}` : "not ended"}
                    </Text>
                  </Table.Cell>
                  <Table.Cell>{run.kind === "reference" ? "–" : run.billing_periods.map(periodName).join(", ")}</Table.Cell>
                  <Table.Cell>
                    <RunStateBadge run={run} />
                  </Table.Cell>
                  <Table.Cell>
                    {run.plan_id === null ? (
                      <Text color="fg.muted">none</Text>
                    ) : (
                      <>
                        <TextLink to={planLink(run.plan_id)}>
                          Plan {run.plan_id}
                        </TextLink>{" "}
                        <Text as="span" fontSize="xs" color="fg.muted">
                          {run.plan_state}
                        </Text>
                        <Text fontSize="xs" color="fg.muted" fontVariantNumeric="tabular-nums">
                          {run.planned_additions === 0
                            ? "nothing to write"
                            : `${count(run.planned_additions)} Additions, ${run.planned_amount.map((sum) => money(sum.amount, sum.currency)).join(" + ")}`}
                        </Text>
                      </>
                    )}
                  </Table.Cell>
                  <Table.Cell textAlign="end" fontVariantNumeric="tabular-nums">
                    {count(run.writes)}
                  </Table.Cell>
                  <Table.Cell whiteSpace="nowrap">
                    <TextLink to={logsLink(run.run_id)} aria-label={`Log of run ${run.run_id}: ${run.errors} errors, ${run.warnings} warnings`}>
                      {run.errors > 0 && `${count(run.errors)} errors, `}
                      {count(run.warnings)} warnings
                    </TextLink>
                  </Table.Cell>
                </Table.Row>
              ))}
            </Table.Body>
          </Table.Root>
        </TableFrame>
        {onMore && (
          <HStack>
            <Button size="xs" variant="ghost" onClick={onMore}>
              Show more
            </Button>
          </HStack>
        )}
      </Card.Body>
    </Card.Root>
  );
}
