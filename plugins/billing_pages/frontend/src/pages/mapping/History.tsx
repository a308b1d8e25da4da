import { Box, Skeleton, Stack, Table, Text } from "@chakra-ui/react";
import { useQuery } from "@tanstack/react-query";

import { DateTime } from "../../lib/format";
import { fetchHistory } from "./api";
import { differences } from "./changes";
import type { Change, HistoryTable } from "./types";

interface Props {
  table: HistoryTable;
  rowKey: string;
  /** Which of the changes; all when it is left out. */
  only?: (change: Change) => boolean;
}

/** Who changed an entry, when, and what: before → after, newest first. */
export function History({ table, rowKey, only }: Props) {
  const history = useQuery({
    queryKey: ["history", table, rowKey],
    queryFn: ({ signal }) => fetchHistory(table, rowKey, signal),
  });
  if (history.isPending) return <Skeleton height="80px" />;
  if (history.isError)
    return (
      <Text fontSize="sm" color="fg.error">
        The history could not be read: {history.error.message}
      </Text>
    );
  const changes = only ? history.data.filter(only) : history.data;
  if (changes.length === 0)
    return (
      <Text fontSize="sm" color="fg.muted">
        Nobody has changed it yet.
      </Text>
    );
  return (
    <Stack as="ol" listStyleType="none" gap={3}>
      {changes.map((change) => (
        <Box as="li" key={`${change.changed_at} ${change.changed_by}`} borderStartWidth="2px" ps={3}>
          <Text fontSize="sm">
            <b>{change.changed_by}</b>, <DateTime at={change.changed_at} />
            {change.before === null ? " · added" : change.after === null ? " · removed" : ""}
          </Text>
          <Table.Root size="sm" variant="line" aria-label={`What ${change.changed_by} changed`}>
            <Table.Body>
              {differences(change).map(({ field, before, after }) => (
                <Table.Row key={field} bg="transparent">
                  <Table.ColumnHeader scope="row" width="35%" color="fg.muted" fontWeight="normal">
                    {field.replaceAll("_", " ")}
                  </Table.ColumnHeader>
                  <Table.Cell wordBreak="break-word">
                    {change.before !== null && (
                      <>
                        <Text as="span" color="fg.muted">
                          {before}
                        </Text>
                        <span aria-label="becomes"> → </span>
                      </>
                    )}
                    {after}
                  </Table.Cell>
                </Table.Row>
              ))}
            </Table.Body>
          </Table.Root>
        </Box>
      ))}
    </Stack>
  );
}
