import { useCallback, useEffect, useRef, useState } from "react";
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

/** As text for the browser's storage, with the plan's fingerprint as it was seen. */
export const packed = (leftOut: LeftOut, fingerprint: string) =>
  JSON.stringify({ fingerprint, items: [...leftOut.items], agreements: [...leftOut.agreements] });

/** What was left out of the plan with this fingerprint; nothing if the text is of another one, or cannot be read. */
export function unpacked(text: string | null, fingerprint: string): LeftOut {
  try {
    const stored = JSON.parse(text ?? "") as { fingerprint: string; items: [number, number][]; agreements: number[] };
    return stored.fingerprint === fingerprint ? { items: new Map(stored.items), agreements: new Set(stored.agreements) } : NOTHING;
  } catch {
    return NOTHING;
  }
}

/** What a person leaves out of a plan; kept for this tab of the browser, so that looking at a line and coming back loses nothing. */
export function useLeftOut(planId: number, fingerprint: string | undefined) {
  const [leftOut, setLeftOut] = useState<LeftOut>(NOTHING);
  const isRead = useRef(false);
  const key = `billing left out of plan ${planId}`;
  useEffect(() => {
    if (fingerprint === undefined || isRead.current) return;
    isRead.current = true;
    setLeftOut(unpacked(stored(key), fingerprint));
  }, [key, fingerprint]);
  const keep = useCallback(
    (change: (before: LeftOut) => LeftOut) =>
      setLeftOut((before) => {
        const next = change(before);
        if (fingerprint !== undefined) store(key, packed(next, fingerprint));
        return next;
      }),
    [key, fingerprint],
  );
  const leave = useCallback((items: readonly Item[], isOut: boolean) => keep((before) => changed(before, items, isOut)), [keep]);
  const clear = useCallback(() => keep(() => NOTHING), [keep]);
  return { leftOut, leave, clear, size: leftOut.items.size + leftOut.agreements.size };
}

// A browser may forbid its storage: then it is kept as long as the page is shown.
function stored(key: string): string | null {
  try {
    return window.sessionStorage.getItem(key);
  } catch {
    return null;
  }
}

function store(key: string, text: string): void {
  try {
    window.sessionStorage.setItem(key, text);
  } catch {
    // as said
  }
}
