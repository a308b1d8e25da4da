import { Button, HStack, Text } from "@chakra-ui/react";
import { count } from "../lib/format";

/** The way to the page before and after, where there is more than one. page counts from 1. */
export function PageSteps({ page, pages, onPage }: { page: number; pages: number; onPage: (page: string) => void }) {
  if (pages <= 1) return null;
  return (
    <HStack mt="2" justify="end">
      <Text fontSize="xs" color="fg.muted">
        Page {count(page)} of {count(pages)}
      </Text>
      <Button size="xs" variant="outline" disabled={page <= 1} onClick={() => onPage(String(page - 1))}>
        Previous
      </Button>
      <Button size="xs" variant="outline" disabled={page >= pages} onClick={() => onPage(String(page + 1))}>
        Next
      </Button>
    </HStack>
  );
}
