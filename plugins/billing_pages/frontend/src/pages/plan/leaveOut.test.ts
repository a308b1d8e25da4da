import { describe, expect, it } from "vitest";
import type { Model } from "../../models";
import { changed, isLeftOut, leftOutOf, NOTHING, packed, unpacked } from "./leaveOut";

const item = (plan_item_id: number | null, company_id: number) => ({ plan_item_id, company_id }) as Model<"PlanItem">;

describe("what an approval leaves out", () => {
  it("is counted by company, agreements to create too", () => {
    const out = changed(NOTHING, [item(1, 7), item(2, 7), item(null, 7), item(3, 8)], true);
    expect(leftOutOf(out, 7)).toBe(3);
    expect(leftOutOf(out, 8)).toBe(1);
    expect(isLeftOut(out, item(null, 7))).toBe(true);
    expect(isLeftOut(out, item(null, 8))).toBe(false);
  });

  it("can be taken in again, and the value before stays as it was", () => {
    const out = changed(NOTHING, [item(1, 7), item(2, 7)], true);
    const less = changed(out, [item(1, 7)], false);
    expect([...less.items.keys()]).toEqual([2]);
    expect(out.items.size).toBe(2);
    expect(NOTHING.items.size).toBe(0);
  });

  it("is found again for the plan as it was seen, and for no other", () => {
    const out = changed(NOTHING, [item(1, 7), item(null, 8)], true);
    expect(unpacked(packed(out, "a"), "a")).toEqual(out);
    for (const text of [packed(out, "b"), null, "no JSON", '{"fingerprint":"a","items":5}']) expect(unpacked(text, "a")).toEqual(NOTHING);
  });
});
