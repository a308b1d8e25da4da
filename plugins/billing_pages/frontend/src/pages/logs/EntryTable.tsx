import { Badge, Box, Button, Table, Text } from "@chakra-ui/react";
import { TableFrame } from "../../components/TableFrame";
import { TextLink } from "../../components/TextLink";
import { openInAirflow } from "../../lib/airflow";
import { DateTime } from "../../lib/format";
import { airflowRun, linesLink, logsLink, planLink } from "../../lib/links";
import type { Entry } from "./entries";

const LEVELS: Record<Entry["level"], { color: string; word: string }> = {
  INFO: { color: "gray", word: "Info" },
  WARNING: { color: "orange", word: "Warning" },
  ERROR: { color: "red", word: "Error" },
};

/** Log entries, newest first, each with the ways to what it speaks of. */
export function EntryTable({ entries, hasRun = true }: { entries: Entry[]; hasRun?: boolean }) {
  return (
    <TableFrame name="Log entries">
      <Table.Root size="sm">
        <Table.Header>
          <Table.Row>
            <Table.ColumnHeader scope="col">Time</Table.ColumnHeader>
            <Table.ColumnHeader scope="col">Level</Table.ColumnHeader>
            <Table.ColumnHeader scope="col">Message</Table.ColumnHeader>
            {hasRun && <Table.ColumnHeader scope="col">Run</Table.ColumnHeader>}
            <Table.ColumnHeader scope="col">Look at</Table.ColumnHeader>
          </Table.Row>
        </Table.Header>
        <Table.Body>
          {entries.map((entry) => (
            <Table.Row key={entry.log_entry_id} verticalAlign="top">
              <Table.Cell whiteSpace="nowrap" fontVariantNumeric="tabular-nums">
                <DateTime at={entry.logged_at} hasSeconds />
              </Table.Cell>
              <Table.Cell>
                <Badge colorPalette={LEVELS[entry.level].color}>{LEVELS[entry.level].word}</Badge>
              </Table.Cell>
              <Table.Cell whiteSpace="normal" minW="20rem">
                <Text whiteSpace="pre-wrap" overflowWrap="anywhere">
                  {entry.message}
                </Text>
                <Text fontSize="xs" color="fg.muted">
                  {entry.code.replaceAll("_", " ")}
                </Text>
              </Table.Cell>
              {hasRun && (
                <Table.Cell whiteSpace="nowrap">
                  {entry.run_id === null ? (
                    <Text color="fg.muted">–</Text>
                  ) : (
                    <Box>
                      <TextLink to={logsLink(entry.run_id)} title="Only entries of this run">
                        run {entry.run_id}
                      </TextLink>
                      {entry.dag_id !== null && entry.dag_run_id !== null && <InAirflow dagId={entry.dag_id} dagRunId={entry.dag_run_id} />}
                    </Box>
                  )}
                </Table.Cell>
              )}
              <Table.Cell whiteSpace="nowrap">
                {linksOf(entry).map((link) => (
                  <Box key={link.to}>
                    <TextLink to={link.to}>{link.label}</TextLink>
                  </Box>
                ))}
              </Table.Cell>
            </Table.Row>
          ))}
        </Table.Body>
      </Table.Root>
    </TableFrame>
  );
}

function InAirflow({ dagId, dagRunId }: { dagId: string; dagRunId: string }) {
  return (
    <Button display="block" variant="plain" size="xs" px="0" h="auto" color="fg.muted" textDecoration="underline" onClick={() => openInAirflow(airflowRun(dagId, dagRunId))}>
      in Airflow
    </Button>
  );
}

/** Where to look at what an entry speaks of: its subject names lines, a reason, an invoice, a plan or a delivery key. */
function linksOf(entry: Entry): { label: string; to: string }[] {
  const { subject } = entry;
  const links: { label: string; to: string }[] = [];
  const text = (name: string) => (["string", "number"].includes(typeof subject[name]) ? String(subject[name]) : null);
  const lineId = text("line_id");
  if (lineId !== null && /^\d+$/.test(lineId)) links.push({ label: "line", to: linesLink({ line_ids: [Number(lineId)] }) });
  if (Array.isArray(subject.line_ids)) links.push({ label: "lines", to: linesLink({ line_ids: subject.line_ids.filter((each) => typeof each === "number") }) });
  const reason = text("reason_code");
  if (reason !== null) links.push({ label: "held lines", to: linesLink({ outcomes: ["held"], reason_codes: [reason] }) });
  const invoice = text("invoice_number");
  if (invoice !== null) links.push({ label: "invoice", to: linesLink({ invoice_number: invoice }) });
  const plan = text("plan_id");
  if (plan !== null && /^\d+$/.test(plan)) links.push({ label: `plan ${plan}`, to: planLink(Number(plan)) });
  const key = text("delivery_key");
  if (key !== null) links.push({ label: "its writes", to: `/logs?show=writes&by=delivery_key&find=${encodeURIComponent(key)}` });
  return links;
}
