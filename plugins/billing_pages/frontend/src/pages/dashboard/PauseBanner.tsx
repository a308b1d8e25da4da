import { Alert, Box, HStack, Text } from "@chakra-ui/react";
import { useState } from "react";
import { ConfirmDialog } from "../../components/Dialog";
import { GuardedButton } from "../../components/GuardedButton";
import { DateTime } from "../../lib/format";
import type { Model } from "../../models";
import { useEndPause } from "./queries";

type Pause = Model<"Pause">;

const nameOf = (pause: Pause) => (pause.company_id === null ? "All customers" : (pause.company_name ?? `Company ${pause.company_id}`));

/** Red as long as delivery is stopped: by whom and why, and the way to go on. */
export function PauseBanner({ pauses }: { pauses: Pause[] }) {
  const [ending, setEnding] = useState<Pause | null>(null);
  const endPause = useEndPause();
  if (pauses.length === 0) return null;
  const isAll = pauses.some((pause) => pause.company_id === null);

  return (
    <Alert.Root status="error" variant="solid" alignItems="start" role="region" aria-label="Delivery is stopped">
      <Alert.Indicator />
      <Alert.Content>
        <Alert.Title>
          {isAll
            ? "Delivery is stopped: nothing is written to ConnectWise"
            : `Delivery to ${pauses.length === 1 ? "one customer" : `${pauses.length} customers`} is stopped`}
        </Alert.Title>
        <Box as="ul" listStyleType="none" w="full">
          {pauses.map((pause) => (
            <HStack as="li" key={`${pause.company_id}-${pause.paused_at}`} justify="space-between" gap="4" py="1">
              <Text>
                <strong>{nameOf(pause)}</strong>: {pause.reason} ({pause.paused_by}, <DateTime at={pause.paused_at} />)
              </Text>
              <GuardedButton permission="approve" size="xs" variant="surface" colorPalette="gray" onClick={() => setEnding(pause)} aria-label={`Go on with delivery: ${nameOf(pause)}`}>
                Go on …
              </GuardedButton>
            </HStack>
          ))}
        </Box>
      </Alert.Content>
      {ending && (
        <ConfirmDialog
          title={`Go on with delivery: ${nameOf(ending)}`}
          confirm="Go on with delivery"
          onConfirm={() => endPause.mutateAsync({ company_id: ending.company_id })}
          onClose={() => setEnding(null)}
        >
          <Text>
            {ending.paused_by} stopped it: “{ending.reason}”. Approved plans may be written to ConnectWise again: by the next run, or by “Deliver now” on a plan's page.
          </Text>
        </ConfirmDialog>
      )}
    </Alert.Root>
  );
}
