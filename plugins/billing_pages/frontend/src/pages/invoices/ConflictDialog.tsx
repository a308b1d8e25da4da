// Two people edited one line: whose values stand?
import { Button, Stack, Table, Text } from "@chakra-ui/react";
import { Dialog } from "../../components/Dialog";
import { DateTime } from "../../lib/format";
import { type EditableField, FIELD_TITLES, type Line, type LineChange, shownValue } from "./line";

export type Conflict = { before: Line; mine: LineChange; theirs: Line };

export function ConflictDialog({ conflict, onMine, onTheirs }: { conflict: Conflict; onMine: () => void; onTheirs: () => void }) {
  const { before, mine, theirs } = conflict;
  const fields = (Object.keys(FIELD_TITLES) as EditableField[]).filter((field) => field in mine || shownValue(before, field) !== shownValue(theirs, field));
  const who = theirs.typed?.decided_by;
  return (
    <Dialog
      title="Somebody else changed this line"
      size="lg"
      onClose={onTheirs}
      footer={
        <>
          <Button variant="outline" onClick={onTheirs}>
            Keep {who ? `${who}'s` : "the other"} value
          </Button>
          <Button onClick={onMine}>Store mine</Button>
        </>
      }
    >
      <Stack gap={3}>
        <Text>
          {who ? <strong>{who}</strong> : "Somebody"} changed it
          {theirs.typed && (
            <>
              {" "}
              <DateTime at={theirs.typed.decided_at} relative />
            </>
          )}
          , after you had loaded it. Your value is not stored yet.
        </Text>
        <Table.Root size="sm" variant="outline">
          <Table.Header>
            <Table.Row>
              <Table.ColumnHeader>Value</Table.ColumnHeader>
              <Table.ColumnHeader>As you saw it</Table.ColumnHeader>
              <Table.ColumnHeader>{who ?? "Now"}</Table.ColumnHeader>
              <Table.ColumnHeader>Yours</Table.ColumnHeader>
            </Table.Row>
          </Table.Header>
          <Table.Body>
            {fields.map((field) => (
              <Table.Row key={field}>
                <Table.Cell>{FIELD_TITLES[field]}</Table.Cell>
                <Table.Cell>{shownValue(before, field) || "–"}</Table.Cell>
                <Table.Cell fontWeight="semibold">{shownValue(theirs, field) || "–"}</Table.Cell>
                <Table.Cell fontWeight="semibold">{field in mine ? String(mine[field] ?? "system value") : ""}</Table.Cell>
              </Table.Row>
            ))}
            {mine.is_excluded !== undefined && mine.is_excluded !== null && (
              <Table.Row>
                <Table.Cell>Excluded</Table.Cell>
                <Table.Cell>{before.typed?.is_excluded ? "yes" : "no"}</Table.Cell>
                <Table.Cell fontWeight="semibold">{theirs.typed?.is_excluded ? "yes" : "no"}</Table.Cell>
                <Table.Cell fontWeight="semibold">{mine.is_excluded ? "yes" : "no"}</Table.Cell>
              </Table.Row>
            )}
          </Table.Body>
        </Table.Root>
      </Stack>
    </Dialog>
  );
}
