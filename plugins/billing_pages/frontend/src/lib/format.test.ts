import { expect, test } from "vitest";
import { counted, duration, money, price, quantity, relative, utc } from "./format";

const plain = (text: string) => text.replaceAll("\u00a0", " ");

test("money keeps every digit that the server sent", () => {
  expect(plain(money("12345678901234567890.12", "EUR"))).toBe("12,345,678,901,234,567,890.12 EUR");
  expect(plain(money("-0.10", "USD"))).toBe("-0.10 USD");
  expect(money(null, "EUR")).toBe("");
});

test("quantities lose zeros that say nothing, prices keep two decimals", () => {
  expect(quantity("3.000000000000")).toBe("3");
  expect(quantity("0.123456789012")).toBe("0.123456789012");
  expect(price("7.5")).toBe("7.50");
  expect(price("0.00123")).toBe("0.00123");
});

test("words", () => {
  expect(plain(counted(1, "line"))).toBe("1 line");
  expect(plain(counted(1234, "line"))).toBe("1,234 lines");
  expect(plain(duration("2026-05-01T00:00:00Z", "2026-05-01T00:01:05Z"))).toBe("1 min 5 s");
  expect(relative("2026-05-01T00:00:00Z", Date.parse("2026-05-01T03:00:00Z"))).toBe("3 hours ago");
  expect(relative("2026-05-01T00:00:00Z", Date.parse("2026-05-01T00:00:20Z"))).toBe("just now");
  expect(utc("2026-05-01T02:00:00+02:00")).toBe("2026-05-01 00:00 UTC");
});
