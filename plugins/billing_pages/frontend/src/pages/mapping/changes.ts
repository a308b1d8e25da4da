/** Changes of the audit trail in the words of these pages. */
import type { Change } from "./types";

/** What stands above the change, or names the row itself. */
const HIDDEN = new Set([
  ...["version", "decided_at", "decided_by", "changed_at", "changed_by", "description"],
  ...["setting_key", "charge_type", "organization_id", "offer_id", "contract_id"],
]);
const shown = (value: unknown): string => {
  if (value === null || value === undefined || value === "") return "–";
  if (value === true) return "on";
  if (value === false) return "off";
  if (Array.isArray(value)) return value.join(", ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
};

/** As these pages say it: an entry that nobody decided is undecided, whatever stands in its column. */
function told(row: Record<string, unknown> | null): Record<string, unknown> {
  if (row === null) return {};
  return "decided_by" in row && "state" in row && row.decided_by === null ? { ...row, state: "undecided" } : row;
}

/** The fields that a change changed, with their values before and after. */
export function differences(change: Change): { field: string; before: string; after: string }[] {
  const before = told(change.before);
  const after = told(change.after);
  return [...new Set([...Object.keys(before), ...Object.keys(after)])]
    .filter((field) => !HIDDEN.has(field) && JSON.stringify(before[field] ?? null) !== JSON.stringify(after[field] ?? null))
    .map((field) => ({ field, before: shown(before[field]), after: shown(after[field]) }));
}
