// The filter of the review grid: one query parameter, the JSON of a LineFilter, as links to the grid carry it.
import type { Model } from "../../models";

export type LineFilter = Partial<Model<"LineFilter">>;

/** The filter that an address names; null when it names none (or none that can be read): the newest billing period then. */
export function readFilter(text: string): LineFilter | null {
  if (text === "") return null;
  try {
    const filter: unknown = JSON.parse(text);
    return filter !== null && typeof filter === "object" && !Array.isArray(filter) ? (filter as LineFilter) : null;
  } catch {
    return null;
  }
}

/** The filter as short as it can be said: empty entries are left out. */
export function writeFilter(filter: LineFilter): string {
  const entries = Object.entries(filter).filter(([, value]) => {
    return value !== null && value !== undefined && value !== "" && !(Array.isArray(value) && value.length === 0);
  });
  return JSON.stringify(Object.fromEntries(entries));
}

/** The filter with an entry of a list put in, or taken out when it is in. */
export function toggle<Key extends "outcomes" | "reason_codes">(filter: LineFilter, key: Key, value: string): LineFilter {
  const list = (filter[key] ?? []) as string[];
  return { ...filter, [key]: list.includes(value) ? list.filter((one) => one !== value) : [...list, value] };
}

/** How many entries narrow the filter, apart from the billing period. */
export function narrowing(filter: LineFilter): number {
  return Object.keys(JSON.parse(writeFilter({ ...filter, periods: [] })) as object).length;
}
