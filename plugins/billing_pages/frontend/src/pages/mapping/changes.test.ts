import { describe, expect, test } from "vitest";

import { differences } from "./changes";

const change = (before: Record<string, unknown> | null, after: Record<string, unknown> | null) => ({
  changed_by: "ann",
  changed_at: "2026-11-28T00:00:00Z",
  before,
  after,
});

describe("differences of a change", () => {
  test("an entry that nobody decided is undecided", () => {
    const before = { state: "excluded", decided_by: null, company_id: null, version: 1 };
    const after = { state: "excluded", decided_by: "ann", company_id: null, version: 2 };
    expect(differences(change(before, after))).toEqual([{ field: "state", before: "undecided", after: "excluded" }]);
  });

  test("a new row tells what it holds", () => {
    expect(differences(change(null, { offer_id: "OF-1", product_id: 501, note: null, is_recurring: true }))).toEqual([
      { field: "product_id", before: "–", after: "501" },
      { field: "is_recurring", before: "–", after: "on" },
    ]);
  });
});
