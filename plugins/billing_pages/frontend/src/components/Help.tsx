import { IconButton, Popover, Portal, Text } from "@chakra-ui/react";
import type { ReactNode } from "react";

/** A small question mark that tells what something means: by mouse, keyboard and touch. label: its question, read to screen readers. */
export function Help({ label, children }: { label: string; children: ReactNode }) {
  return (
    <Popover.Root lazyMount unmountOnExit positioning={{ placement: "top" }}>
      <Popover.Trigger asChild>
        <IconButton variant="ghost" size="2xs" borderRadius="full" color="fg.muted" aria-label={label} title={label} minW="5" h="5" fontSize="xs">
          ?
        </IconButton>
      </Popover.Trigger>
      <Portal>
        <Popover.Positioner>
          <Popover.Content maxW="xs">
            <Popover.Arrow />
            <Popover.Body p="3">
              <Text fontSize="sm" fontWeight="normal" whiteSpace="normal">
                {children}
              </Text>
            </Popover.Body>
          </Popover.Content>
        </Popover.Positioner>
      </Portal>
    </Popover.Root>
  );
}
