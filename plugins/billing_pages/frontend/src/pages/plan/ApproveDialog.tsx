import { Alert, Box, Button, Checkbox, Stack, Table, Text } from "@chakra-ui/react";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { Dialog } from "../../components/Dialog";
import { ErrorBox } from "../../components/ErrorBox";
import { Loading } from "../../components/Loading";
import { TableFrame } from "../../components/TableFrame";
import { toast } from "../../components/Toaster";
import { ApiError, get } from "../../lib/api";
import { count, counted, money } from "../../lib/format";
import type { Model } from "../../models";
import { deliver } from "./deliver";
import type { LeftOut } from "./leaveOut";
import { useApprove, useSelection } from "./queries";

type PlanDetail = Model<"PlanDetail">;

/**
 * Asks before a plan is approved: names customers, Additions and money of exactly what was shown. If the plan has changed since, it
 * says what changed and approves nothing.
 */
export function ApproveDialog({ plan, leftOut, isPaused, onClose, onChanged }: {
  plan: PlanDetail;
  leftOut: LeftOut;
  isPaused: boolean;
  onClose: () => void;
  onChanged: () => void;
}) {
  // What was on the page when the button was pressed, whatever the page learns meanwhile.
  const [shown] = useState(plan);
  const [deliversNow, setDeliversNow] = useState(!isPaused);
  const [isBusy, setBusy] = useState(false);
  const client = useQueryClient();
  const planId = shown.summary.plan_id;
  const approval = { fingerprint: shown.fingerprint, leave_out: [...leftOut.items.keys()], leave_out_agreements: [...leftOut.agreements] };
  const selection = useSelection(planId, approval);
  const approve = useApprove(planId);
  const error = approve.error ?? selection.error;
  const now = useQuery({ queryKey: ["plan-now", planId], queryFn: () => get<PlanDetail>(`plans/${planId}`), enabled: isStale(error), staleTime: 0, gcTime: 0 });

  const confirm = async () => {
    setBusy(true);
    try {
      await approve.mutateAsync(approval);
    } catch {
      setBusy(false);
      return;
    }
    try {
      if (deliversNow) await deliver(client, planId);
      toast("success", `Plan ${planId} is approved`, deliversNow ? "Its delivery is on its way." : "“Deliver now” delivers it.");
    } catch (problem) {
      toast("error", `Plan ${planId} is approved, but its delivery did not start`, (problem as Error).message);
    }
    onClose();
  };

  return (
    <Dialog
      title={`Approve plan ${planId}`}
      size="lg"
      onClose={onClose}
      footer={
        isStale(error) ? (
          <Button
            colorPalette="brand"
            onClick={() => {
              onChanged();
              onClose();
            }}
          >
            Look at the plan as it is now
          </Button>
        ) : (
          <>
            <Button variant="outline" onClick={onClose}>
              Cancel
            </Button>
            <Button colorPalette="brand" loading={isBusy} disabled={!selection.data || selection.data.items === 0} onClick={confirm}>
              {deliversNow ? "Approve and deliver" : "Approve"}
            </Button>
          </>
        )
      }
    >
      {isStale(error) ? (
        <WhatChanged message={error.problem.message} before={shown} now={now.data} />
      ) : error ? (
        <ErrorBox error={error} onRetry={selection.error ? () => selection.refetch() : undefined} />
      ) : !selection.data ? (
        <Loading what="what you are about to approve" />
      ) : (
        <Stack gap="4">
          <Selected selection={selection.data} />
          {shown.stale_items > 0 && (
            <Alert.Root status="warning" size="sm">
              <Alert.Indicator />
              <Alert.Title>
                {counted(shown.stale_items, "item")} will not be delivered by this plan: their lines were edited or decided otherwise since. The next run plans them.
              </Alert.Title>
            </Alert.Root>
          )}
          {isPaused && (
            <Alert.Root status="error" size="sm">
              <Alert.Indicator />
              <Alert.Title>Delivery is stopped (see the Dashboard). The plan can be approved; what is stopped is not delivered before somebody lets it go on.</Alert.Title>
            </Alert.Root>
          )}
          <Checkbox.Root checked={deliversNow} onCheckedChange={(change) => setDeliversNow(change.checked === true)}>
            <Checkbox.HiddenInput />
            <Checkbox.Control />
            <Checkbox.Label>Deliver it right away (DAG “Apply an approved plan”; it is switched on in Airflow if it is off)</Checkbox.Label>
          </Checkbox.Root>
        </Stack>
      )}
    </Dialog>
  );
}

const isStale = (error: unknown): error is ApiError => error instanceof ApiError && error.status === 409 && Boolean(error.problem.current);

function Selected({ selection }: { selection: Model<"PlanSelection"> }) {
  const what = [
    selection.creates > 0 && `${counted(selection.creates, "Addition")} to create`,
    selection.updates > 0 && `${counted(selection.updates, "Addition")} to update`,
    selection.agreements > 0 && `${counted(selection.agreements, "agreement")} to create`,
  ].filter(Boolean);
  if (selection.items === 0) return <Text>Everything is left out: there is nothing to approve.</Text>;
  const companies = new Set(selection.customers.map((customer) => customer.company_id)).size;
  return (
    <Stack gap="3">
      <Box>
        <Text>
          You approve <strong>{what.join(", ")}</strong> for <strong>{counted(companies, "customer")}</strong>:
        </Text>
        <Text fontSize="2xl" fontWeight="semibold" fontVariantNumeric="tabular-nums">
          {selection.money.map((sum) => money(sum.amount, sum.currency)).join(" + ") || "no money newly billed"}
        </Text>
        {selection.left_out.length > 0 && (
          <Text fontSize="sm" color="fg.muted">
            Left out, for the next run to plan: {selection.left_out.map((sum) => money(sum.amount, sum.currency)).join(" + ")}
          </Text>
        )}
      </Box>
      <TableFrame name="Customers of what you approve" maxH="260px">
        <Table.Root size="sm" stickyHeader>
          <Table.Header>
            <Table.Row>
              <Table.ColumnHeader scope="col">Customer</Table.ColumnHeader>
              <Table.ColumnHeader scope="col" textAlign="end">
                Items
              </Table.ColumnHeader>
              <Table.ColumnHeader scope="col" textAlign="end">
                Money
              </Table.ColumnHeader>
            </Table.Row>
          </Table.Header>
          <Table.Body>
            {selection.customers.map((customer) => (
              <Table.Row key={`${customer.company_id}-${customer.currency}`}>
                <Table.Cell as="th" scope="row" textAlign="start" fontWeight="normal">
                  {customer.company_name}
                </Table.Cell>
                <Table.Cell textAlign="end">{count(customer.items)}</Table.Cell>
                <Table.Cell textAlign="end" fontVariantNumeric="tabular-nums" whiteSpace="nowrap">
                  {money(customer.amount, customer.currency)}
                </Table.Cell>
              </Table.Row>
            ))}
          </Table.Body>
        </Table.Root>
      </TableFrame>
    </Stack>
  );
}

/** What is otherwise than it was shown; nothing was approved. */
function WhatChanged({ message, before, now }: { message: string; before: PlanDetail; now: PlanDetail | undefined }) {
  return (
    <Stack gap="3">
      <Alert.Root status="warning">
        <Alert.Indicator />
        <Alert.Title>{message} Nothing was approved now.</Alert.Title>
      </Alert.Root>
      {now ? <Differences before={before} now={now} /> : <Loading what="the plan as it is now" />}
    </Stack>
  );
}

function Differences({ before, now }: { before: PlanDetail; now: PlanDetail }) {
  const sums = (plan: PlanDetail) => plan.summary.money.map((sum) => money(sum.amount, sum.currency)).join(" + ") || "none";
  const rows: [string, string, string][] = [
    ["State", before.summary.state, now.summary.state],
    ["Items", count(before.summary.items), count(now.summary.items)],
    ["Money", sums(before), sums(now)],
    ["Customers", count(new Set(before.customers.map((c) => c.company_id)).size), count(new Set(now.customers.map((c) => c.company_id)).size)],
    ["Items changed since planning", count(before.stale_items), count(now.stale_items)],
  ];
  const was = new Map(before.customers.map((c) => [`${c.company_id} ${c.currency}`, c]));
  const customers = now.customers.filter((c) => was.get(`${c.company_id} ${c.currency}`)?.amount !== c.amount);
  const gone = before.customers.filter((c) => !now.customers.some((other) => other.company_id === c.company_id && other.currency === c.currency));
  const differences = rows
    .filter(([, old, current]) => old !== current)
    .concat(customers.map((c) => [c.company_name, money(was.get(`${c.company_id} ${c.currency}`)?.amount, c.currency) || "not in it", money(c.amount, c.currency)]))
    .concat(gone.map((c) => [c.company_name, money(c.amount, c.currency), "not in it"]));
  if (differences.length === 0) return <Text>Its figures are the same as before; single items differ.</Text>;
  return (
    <Table.Root size="sm">
      <Table.Header>
        <Table.Row>
          <Table.ColumnHeader />
          <Table.ColumnHeader scope="col">As shown</Table.ColumnHeader>
          <Table.ColumnHeader scope="col">Now</Table.ColumnHeader>
        </Table.Row>
      </Table.Header>
      <Table.Body>
        {differences.map(([name, old, current]) => (
          <Table.Row key={`${name}${old}`}>
            <Table.Cell as="th" scope="row" textAlign="start">
              {name}
            </Table.Cell>
            <Table.Cell>{old}</Table.Cell>
            <Table.Cell fontWeight="semibold">{current}</Table.Cell>
          </Table.Row>
        ))}
      </Table.Body>
    </Table.Root>
  );
}
