import { useCallback, useState } from "react";
import { get } from "../../lib/api";
import type { Model } from "../../models";

type Item = Model<"PlanItem">;

/** What an approval leaves out, each with its company: items by their id, agreements to create by their company's. */
export type LeftOut = { items: ReadonlyMap<number, number>; agreements: ReadonlySet<number> };

export const NOTHING: LeftOut = { items: new Map(), agreements: new Set() };

export const isLeftOut = (leftOut: LeftOut, item: Item) =>
  item.plan_item_id === null ? leftOut.agreements.has(item.company_id) : leftOut.items.has(item.plan_item_id);

/** How many things of a company are left out. */
export function leftOutOf(leftOut: LeftOut, companyId: number): number {
  const items = [...leftOut.items.values()].filter((company) => company === companyId).length;
  return items + (leftOut.agreements.has(companyId) ? 1 : 0);
}

/** leftOut with items left out, or taken in again. */
export function changed(leftOut: LeftOut, items: readonly Item[], isOut: boolean): LeftOut {
  const next = { items: new Map(leftOut.items), agreements: new Set(leftOut.agreements) };
  for (const item of items) {
    if (item.plan_item_id === null) {
      if (isOut) next.agreements.add(item.company_id);
      else next.agreements.delete(item.company_id);
    } else if (isOut) next.items.set(item.plan_item_id, item.company_id);
    else next.items.delete(item.plan_item_id);
  }
  return next;
}

/** All items of a customer in a plan. */
export async function itemsOf(planId: number, companyId: number): Promise<Item[]> {
  const items: Item[] = [];
  for (;;) {
    const page = await get<Model<"PlanItemPage">>(`plans/${planId}/items`, { company_id: companyId, offset: items.length, limit: 1000 });
    items.push(...page.items);
    if (page.items.length === 0 || items.length >= page.total) return items;
  }
}

export function useLeftOut() {
  const [leftOut, setLeftOut] = useState<LeftOut>(NOTHING);
  const leave = useCallback((items: readonly Item[], isOut: boolean) => setLeftOut((before) => changed(before, items, isOut)), []);
  const clear = useCallback(() => setLeftOut(NOTHING), []);
  return { leftOut, leave, clear, size: leftOut.items.size + leftOut.agreements.size };
}
