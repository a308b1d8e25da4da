import { Alert, Box, Button, HStack, Stack, Text } from "@chakra-ui/react";
import { useState } from "react";

import { Dialog } from "../../components/Dialog";
import { DateTime } from "../../lib/format";
import type { Kind } from "./kinds";
import { StateBadge } from "./StateBadge";
import type { MappingDecision, MappingRow } from "./types";
import type { Unstored } from "./useDecide";

interface Props {
  kind: Kind;
  unstored: Unstored[];
  isDeciding: boolean;
  /** Stores these decisions over what stands now. */
  onDecide: (items: MappingDecision[]) => void;
  onClose: () => void;
}

/** Decisions that were not stored: somebody else was quicker (choose whose counts), or they were refused (why). */
export function UnstoredDialog({ kind, unstored, isDeciding, onDecide, onClose }: Props) {
  const [kept, setKept] = useState<Set<string>>(new Set());
  const conflicts = unstored.filter((one) => one.result.status === "conflict");
  const refused = unstored.filter((one) => one.result.status === "refused");
  const mine = conflicts.filter((one) => !kept.has(keyOf(one)));
  return (
    <Dialog
      title={conflicts.length > 0 ? "Somebody else decided meanwhile" : "Not stored"}
      onClose={onClose}
      size="lg"
      footer={
        conflicts.length > 0 ? (
          <>
            <Button variant="outline" onClick={onClose}>
              Keep what is stored
            </Button>
            <Button
              disabled={mine.length === 0}
              loading={isDeciding}
              onClick={() => onDecide(mine.map(({ wanted, result }) => ({ ...wanted, version: result.row?.version ?? wanted.version })))}
            >
              Store mine instead{conflicts.length > 1 ? ` (${mine.length})` : ""}
            </Button>
          </>
        ) : (
          <Button onClick={onClose}>Close</Button>
        )
      }
    >
      <Stack gap={4}>
        {conflicts.map((one) => (
          <Box key={keyOf(one)} borderWidth="1px" borderRadius="md" p={3}>
            <Text fontWeight="medium">{nameOf(one)}</Text>
            {one.result.row && <Stored kind={kind} row={one.result.row} />}
            <HStack mt={1}>
              <Text color="fg.muted" minW="24">
                Yours
              </Text>
              <StateBadge state={one.wanted.state} />
              <Text>{one.wanted.target_id ? `${kind.target} ${one.wanted.target_id}` : ""}</Text>
            </HStack>
            {conflicts.length > 1 && (
              <Button
                size="2xs"
                variant="ghost"
                mt={2}
                aria-pressed={kept.has(keyOf(one))}
                onClick={() =>
                  setKept((before) => {
                    const next = new Set(before);
                    if (!next.delete(keyOf(one))) next.add(keyOf(one));
                    return next;
                  })
                }
              >
                {kept.has(keyOf(one)) ? "What is stored stays. Choose mine" : "Mine counts. Keep what is stored"}
              </Button>
            )}
          </Box>
        ))}
        {refused.map((one) => (
          <Alert.Root key={keyOf(one)} status="error">
            <Alert.Indicator />
            <Alert.Content>
              <Alert.Title>{nameOf(one)}</Alert.Title>
              <Alert.Description>{one.result.message}</Alert.Description>
            </Alert.Content>
          </Alert.Root>
        ))}
      </Stack>
    </Dialog>
  );
}

function Stored({ kind, row }: { kind: Kind; row: MappingRow }) {
  return (
    <HStack mt={1} wrap="wrap">
      <Text color="fg.muted" minW="24">
        Stored now
      </Text>
      <StateBadge state={row.state} />
      <Text>{row.target_name ?? (row.target_id ? `${kind.target} ${row.target_id}` : "")}</Text>
      {row.decided_by && (
        <Text fontSize="xs" color="fg.muted">
          by {row.decided_by}, <DateTime at={row.decided_at} />
        </Text>
      )}
    </HStack>
  );
}

const keyOf = ({ wanted }: Unstored) => `${wanted.source_id} ${wanted.billing_frequency}`;
const nameOf = ({ wanted, result }: Unstored) =>
  [result.row?.source_name ?? wanted.source_id, wanted.billing_frequency].filter(Boolean).join(" · ");
