import { Alert, Heading, Stack, Table, Text } from "@chakra-ui/react";

import { TextLink } from "../../../components/TextLink";
import { counted, money } from "../../../lib/format";
import type { SimulatedCustomer, SimulatedLine, SimulationState } from "./types";

const SHOWN_LINES = 200;

/** The result of a simulation: the difference in money per customer, why, and the lines that would be decided otherwise. */
export function SimulationResult({ state }: { state: SimulationState }) {
  const changed = state.customers.filter((one) => one.changed_lines > 0 || /[1-9]/.test(one.difference));
  if (changed.length === 0)
    return (
      <Alert.Root status="success">
        <Alert.Indicator />
        <Alert.Content>
          <Alert.Title>It would have changed nothing</Alert.Title>
          <Alert.Description>
            {counted(state.customers.reduce((sum, one) => sum + one.lines, 0), "line")} of these periods would be decided just the
            same.
          </Alert.Description>
        </Alert.Content>
      </Alert.Root>
    );
  const hasExcluded = changed.some((one) => one.excluded_before !== one.excluded_after);
  return (
    <Stack gap={4}>
      <Heading as="h3" size="sm">
        {counted(state.changed_lines, "line")} of {counted(changed.length, "customer")} would be decided otherwise
      </Heading>
      <Table.ScrollArea whiteSpace="normal">
        <Table.Root size="sm" aria-label="Difference per customer">
          <Table.Header>
            <Table.Row>
              <Table.ColumnHeader>Customer</Table.ColumnHeader>
              <Table.ColumnHeader textAlign="end">Difference</Table.ColumnHeader>
              <Table.ColumnHeader>Delivered</Table.ColumnHeader>
              <Table.ColumnHeader>Held</Table.ColumnHeader>
              {hasExcluded && <Table.ColumnHeader>Excluded</Table.ColumnHeader>}
            </Table.Row>
          </Table.Header>
          <Table.Body>
            {changed.map((one) => (
              <Customer key={`${one.organization_id} ${one.currency}`} customer={one} hasExcluded={hasExcluded} />
            ))}
          </Table.Body>
        </Table.Root>
      </Table.ScrollArea>
      <Heading as="h3" size="sm">
        Lines
      </Heading>
      <Table.ScrollArea maxH="360px" whiteSpace="normal">
        <Table.Root size="sm" stickyHeader aria-label="Lines that would be decided otherwise">
          <Table.Header>
            <Table.Row>
              <Table.ColumnHeader>Line</Table.ColumnHeader>
              <Table.ColumnHeader>Customer, invoice</Table.ColumnHeader>
              <Table.ColumnHeader textAlign="end">Before</Table.ColumnHeader>
              <Table.ColumnHeader textAlign="end">After</Table.ColumnHeader>
              <Table.ColumnHeader>What changes</Table.ColumnHeader>
            </Table.Row>
          </Table.Header>
          <Table.Body>
            {state.lines.slice(0, SHOWN_LINES).map((one) => (
              <Line key={one.line_id} line={one} />
            ))}
          </Table.Body>
        </Table.Root>
      </Table.ScrollArea>
      {state.changed_lines > Math.min(state.lines.length, SHOWN_LINES) && (
        <Text fontSize="sm" color="fg.muted">
          The first {Math.min(state.lines.length, SHOWN_LINES)} of {counted(state.changed_lines, "line")}.
        </Text>
      )}
    </Stack>
  );
}

function Customer({ customer: one, hasExcluded }: { customer: SimulatedCustomer; hasExcluded: boolean }) {
  return (
    <>
      <Table.Row css={{ "& > *": { borderBottomWidth: 0, paddingBottom: 0 } }}>
        <Table.ColumnHeader scope="row">{one.organization_name}</Table.ColumnHeader>
        <Table.Cell textAlign="end" fontWeight="semibold" whiteSpace="nowrap">
          {signed(one.difference)} {one.currency}
        </Table.Cell>
        <Pair before={one.deliver_before} after={one.deliver_after} />
        <Pair before={one.held_before} after={one.held_after} />
        {hasExcluded && <Pair before={one.excluded_before} after={one.excluded_after} />}
      </Table.Row>
      <Table.Row>
        <Table.Cell colSpan={hasExcluded ? 5 : 4} fontSize="xs" color="fg.muted" pt={0}>
          {counted(one.changed_lines, "line")}: {one.reasons.map((reason) => reason.replaceAll("_", " ")).join("; ")}
        </Table.Cell>
      </Table.Row>
    </>
  );
}

function Pair({ before, after }: { before: string; after: string }) {
  return (
    <Table.Cell whiteSpace="nowrap" color={before === after ? "fg.muted" : undefined}>
      {before === after ? money(before, null) : `${money(before, null)} → ${money(after, null)}`}
    </Table.Cell>
  );
}

function Line({ line }: { line: SimulatedLine }) {
  return (
    <Table.Row verticalAlign="top">
      <Table.Cell>
        <TextLink to={`/mapping/invoices?line=${line.line_id}`}>{line.line_id}: why?</TextLink>
      </Table.Cell>
      <Table.Cell>
        {line.organization_name}
        <Text fontSize="xs" color="fg.muted">
          {line.invoice_number}
        </Text>
      </Table.Cell>
      <Table.Cell textAlign="end" whiteSpace="nowrap">
        {line.amount_before === null ? "nothing" : money(line.amount_before, line.currency)}
      </Table.Cell>
      <Table.Cell textAlign="end" whiteSpace="nowrap">
        {line.amount_after === null ? "nothing" : money(line.amount_after, line.currency)}
      </Table.Cell>
      <Table.Cell>{line.change}</Table.Cell>
    </Table.Row>
  );
}

/** "+12.00", "-3.50"; text all the way. */
function signed(amount: string): string {
  const shown = money(amount, null);
  return /^-|^0*(\.0*)?$/.test(amount) ? shown : `+${shown}`;
}
