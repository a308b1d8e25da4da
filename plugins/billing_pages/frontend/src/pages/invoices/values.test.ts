import { expect, test } from "vitest";
import { narrowing, readFilter, toggle, writeFilter } from "./filter";
import { readDate, readNumber } from "./values";

test.each([
  ["12", "12"],
  ["-0.5", "-0.5"],
  [".5", "0.5"],
  ["12,5", "12.5"],
  ["0,123", "0.123"],
  ["1 234,50", "1234.50"],
  ["1,234.50", "1234.50"],
  ["1.234,50", "1234.50"],
  ["1,234", null],
  ["12 apples", null],
  ["1e5", null],
  ["", null],
])("number %j is %j", (text, number) => expect(readNumber(text)).toBe(number));

test.each([
  ["2026-05-31", "2026-05-31"],
  ["31.5.2026", "2026-05-31"],
  ["2026-02-30", null],
  ["05/06/2026", null],
  ["", null],
])("day %j is %j", (text, day) => expect(readDate(text)).toBe(day));

test("a filter reads back as it was written", () => {
  const filter = { periods: ["2026-05"], outcomes: ["held" as const], text: "", user_updated: false };
  expect(readFilter(writeFilter(filter))).toEqual({ periods: ["2026-05"], outcomes: ["held"], user_updated: false });
  expect(readFilter("")).toBeNull();
  expect(readFilter("[1]")).toBeNull();
  expect(readFilter("{broken")).toBeNull();
});

test("a tile puts its outcome in, and takes it out again", () => {
  const once = toggle({ periods: ["2026-05"] }, "outcomes", "held");
  expect(once.outcomes).toEqual(["held"]);
  expect(toggle(once, "outcomes", "held").outcomes).toEqual([]);
  expect(narrowing(once)).toBe(1);
  expect(narrowing({ periods: ["2026-05"] })).toBe(0);
});
