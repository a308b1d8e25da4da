import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { toastReleased } from "../../components/released";
import { toast, toastError } from "../../components/Toaster";
import { counted } from "../../lib/format";
import { decide } from "./api";
import type { Kind } from "./kinds";
import type { MappingDecision, MappingResult } from "./types";

/** A decision that was not stored, with why, and what stands now. */
export interface Unstored {
  wanted: MappingDecision;
  result: MappingResult;
}

const DONE = { approved: "approved", excluded: "excluded", undecided: "taken back" } as const;

/** Stores decisions, says what they did, and keeps those that were not stored for the person to look at. */
export function useDecide(kind: Kind) {
  const queries = useQueryClient();
  const [unstored, setUnstored] = useState<Unstored[]>([]);
  const mutation = useMutation({
    mutationFn: (items: MappingDecision[]) => decide(kind.kind, items),
    onSuccess: ({ results, released }, items) => {
      const stored = results.filter((one) => one.status === "changed" || one.status === "unchanged");
      setUnstored(
        results.flatMap((result, number) => {
          const wanted = items[number];
          return wanted && (result.status === "conflict" || result.status === "refused") ? [{ wanted, result }] : [];
        }),
      );
      if (stored.length > 0) toastReleased(whatWasDone(kind, items, stored), released);
      for (const one of stored) if (one.message) toast("warning", one.row?.source_name ?? one.source_id, one.message);
      if (results.length === 0) toast("info", "Nothing was changed");
    },
    onError: (error) => toastError(error, "The decision was not stored"),
    onSettled: () => {
      for (const key of [["grid", kind.title], ["mapping-entry"], ["suggestions"], ["history"], ["selectors"], ["setup"], ["held"]])
        void queries.invalidateQueries({ queryKey: key });
    },
  });
  return {
    /** Fails when nothing could be stored (a toast says so); decideNow does not. */
    decide: mutation.mutateAsync,
    decideNow: (items: MappingDecision[]) => mutation.mutate(items),
    isDeciding: mutation.isPending,
    unstored,
    forgetUnstored: () => setUnstored([]),
  };
}

function whatWasDone(kind: Kind, items: MappingDecision[], stored: MappingResult[]): string {
  const states = new Set(items.map((one) => one.state));
  const word = states.size === 1 ? DONE[[...states][0] as keyof typeof DONE] : "decided";
  const only = stored.length === 1 ? stored[0]?.row?.source_name : null;
  return `${only ?? counted(stored.length, kind.source)} ${word}`;
}
