import { expect, test } from "vitest";
import { changedSearch, mirroredAddress, readState } from "./address";

const DEFAULTS = { q: "", sort: "name", page: "1" };

test("what the address does not name is as in the defaults", () => {
  expect(readState("?q=a%26b&other=1", DEFAULTS)).toEqual({ q: "a&b", sort: "name", page: "1" });
});

test("defaults are left out, what others keep there stays", () => {
  expect(changedSearch("?other=1&page=3", DEFAULTS, { page: "1", q: "x y" })).toBe("?other=1&q=x+y");
  expect(changedSearch("?q=x", DEFAULTS, { q: "" })).toBe("");
});

test("Airflow's address carries ours behind its plugin page", () => {
  const mirrored = mirroredAddress("/plugin/connectwise-billing", "/billing/mapping/invoices?q=1");
  expect(mirrored).toBe("/plugin/connectwise-billing/billing/mapping/invoices?q=1");
  expect(mirroredAddress("/prefix/plugin/connectwise-billing/billing/old", "/billing/plan")).toBe(
    "/prefix/plugin/connectwise-billing/billing/plan",
  );
  expect(mirroredAddress("/dags/a/runs/b/plugin/billing-run", "/billing/run")).toBeNull();
  expect(mirroredAddress("/home", "/billing/plan")).toBeNull();
});
