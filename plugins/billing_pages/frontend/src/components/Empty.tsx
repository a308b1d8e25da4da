import { EmptyState } from "@chakra-ui/react";
import type { ReactNode } from "react";

/** Nothing to show: says why, and (children) offers what to do about it. */
export function Empty({ title, detail, children }: { title: string; detail?: ReactNode; children?: ReactNode }) {
  return (
    <EmptyState.Root size="sm">
      <EmptyState.Content>
        <EmptyState.Title>{title}</EmptyState.Title>
        {detail && <EmptyState.Description maxW="lg" textAlign="center">{detail}</EmptyState.Description>}
        {children}
      </EmptyState.Content>
    </EmptyState.Root>
  );
}
