import { Checkbox, Stack, Table, Text } from "@chakra-ui/react";
import { useState } from "react";

import { ConfirmDialog } from "../../components/Dialog";
import { counted, moneyList } from "../../lib/format";
import { decisionOf } from "./decision";
import type { Kind } from "./kinds";
import type { MappingDecision, MappingRow } from "./types";

interface Proposal {
  row: MappingRow;
  targetId: number;
  targetName: string;
  why: string;
}

/** What would be approved for a row: the target that it has, else the best suggestion; null when there is none. */
function proposalOf(row: MappingRow): Proposal | null {
  if (row.target_id !== null && row.target_unusable === null)
    return { row, targetId: row.target_id, targetName: row.target_name ?? String(row.target_id), why: "as it stands" };
  if (row.best && row.best.unusable === null)
    return {
      row,
      targetId: row.best.target_id,
      targetName: row.best.target_name,
      why: row.best.evidence.map((one) => one.text).join("; "),
    };
  return null;
}

interface Props {
  kind: Kind;
  title: string;
  rows: MappingRow[];
  onDecide: (items: MappingDecision[]) => Promise<unknown>;
  onClose: () => void;
}

/** The list of what is about to be approved, with the evidence for each; what is not wanted is unticked. */
export function ApproveDialog({ kind, title, rows, onDecide, onClose }: Props) {
  const proposals = rows.map(proposalOf).filter((one) => one !== null);
  const [left, setLeft] = useState<Set<string>>(new Set());
  const wanted = proposals.filter((one) => !left.has(keyOf(one.row)));
  const without = rows.length - proposals.length;
  return (
    <ConfirmDialog
      title={title}
      size="xl"
      confirm={`Approve ${wanted.length}`}
      isDisabled={wanted.length === 0}
      onConfirm={() => onDecide(wanted.map((one) => decisionOf(one.row, "approved", { target_id: one.targetId })))}
      onClose={onClose}
    >
      <Stack gap={3}>
        <Text>
          Lines that wait for {wanted.length === 1 ? `this ${kind.source}` : `these ${kind.sources}`} are decided again at once. Untick
          what you are not sure of.
        </Text>
        {proposals.length > 0 && (
          <Table.ScrollArea maxH="50vh" borderWidth="1px" borderRadius="md" whiteSpace="normal">
            <Table.Root size="sm" stickyHeader aria-label={title}>
              <Table.Header>
                <Table.Row>
                  <Table.ColumnHeader width="8">
                    <span className="sr-only">Approve</span>
                  </Table.ColumnHeader>
                  <Table.ColumnHeader textTransform="capitalize">{kind.source}</Table.ColumnHeader>
                  <Table.ColumnHeader textTransform="capitalize">{kind.target}</Table.ColumnHeader>
                  <Table.ColumnHeader>Why</Table.ColumnHeader>
                  <Table.ColumnHeader>Money that waits</Table.ColumnHeader>
                </Table.Row>
              </Table.Header>
              <Table.Body>
                {proposals.map(({ row, targetId, targetName, why }) => (
                  <Table.Row key={keyOf(row)} verticalAlign="top">
                    <Table.Cell>
                      <Checkbox.Root
                        checked={!left.has(keyOf(row))}
                        onCheckedChange={({ checked }) =>
                          setLeft((before) => {
                            const next = new Set(before);
                            if (checked) next.delete(keyOf(row));
                            else next.add(keyOf(row));
                            return next;
                          })
                        }
                      >
                        <Checkbox.HiddenInput aria-label={`Approve ${row.source_name ?? row.source_id}`} />
                        <Checkbox.Control />
                      </Checkbox.Root>
                    </Table.Cell>
                    <Table.Cell>
                      {[row.source_name ?? row.source_id, row.billing_frequency].filter(Boolean).join(" · ")}
                      <Text fontSize="xs" color="fg.muted">
                        {row.source_id}
                      </Text>
                    </Table.Cell>
                    <Table.Cell>
                      {targetName}
                      <Text fontSize="xs" color="fg.muted">
                        id {targetId}
                      </Text>
                    </Table.Cell>
                    <Table.Cell>{why}</Table.Cell>
                    <Table.Cell>{row.held.length > 0 ? moneyList(row.held) : "–"}</Table.Cell>
                  </Table.Row>
                ))}
              </Table.Body>
            </Table.Root>
          </Table.ScrollArea>
        )}
        {without > 0 && (
          <Text color="fg.muted">
            {counted(without, kind.source)} left out: without a {kind.target} and without a suggestion.
          </Text>
        )}
      </Stack>
    </ConfirmDialog>
  );
}

const keyOf = (row: MappingRow) => `${row.source_id} ${row.billing_frequency}`;
