import { HStack, IconButton, Text } from "@chakra-ui/react";
import { count } from "../lib/format";

/** Where in all rows this page stands, and the way to others. page counts from 1. */
export function Pager({ page, size, total, onPage }: { page: number; size: number; total: number; onPage: (page: number) => void }) {
  const last = Math.max(1, Math.ceil(total / size));
  const step = (label: string, sign: string, to: number, isOff: boolean) => (
    <IconButton size="xs" variant="outline" aria-label={label} disabled={isOff} onClick={() => onPage(to)}>
      {sign}
    </IconButton>
  );
  return (
    <HStack as="nav" aria-label="Pages" gap={1}>
      {step("First page", "«", 1, page <= 1)}
      {step("Previous page", "‹", page - 1, page <= 1)}
      <Text fontSize="sm" px={2} fontVariantNumeric="tabular-nums">
        {count(Math.min(total, (page - 1) * size + 1))}–{count(Math.min(total, page * size))} of {count(total)}
      </Text>
      {step("Next page", "›", page + 1, page >= last)}
      {step("Last page", "»", last, page >= last)}
    </HStack>
  );
}
