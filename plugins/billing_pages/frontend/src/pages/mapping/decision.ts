import type { MappingDecision, MappingRow, MappingState } from "./types";

/** A decision about a row: what is not given stays as it is shown. */
export function decisionOf(row: MappingRow, state: MappingState, given: Partial<MappingDecision> = {}): MappingDecision {
  return {
    source_id: row.source_id,
    billing_frequency: row.billing_frequency,
    version: row.version,
    state,
    target_id: row.target_id,
    recurring_mode: row.recurring_mode,
    note: row.note,
    ...given,
  };
}
