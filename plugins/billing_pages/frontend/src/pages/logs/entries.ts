import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { useEffect, useMemo, useState } from "react";
import { get } from "../../lib/api";
import type { Model } from "../../models";

export type Entry = Model<"LogEntry">;

export type EntryFilter = { levels: string; q: string; run: string; code: string };

const PER_PAGE = 100;
const EVERY_MS = 3_000;

/**
 * Entries that a filter finds, newest first, older ones on demand; while isLive, new ones are asked for every few seconds and come on top.
 * fresh: how many came since the last page was loaded.
 */
export function useEntries(filter: EntryFilter, isLedger: boolean, isLive: boolean) {
  const params = useMemo(
    () => ({ levels: filter.levels === "" ? [] : filter.levels.split(","), q: filter.q.trim(), run_id: filter.run, code: filter.code, ledger: isLedger }),
    [filter.levels, filter.q, filter.run, filter.code, isLedger],
  );
  const [fresh, setFresh] = useState<Entry[]>([]);
  const pages = useInfiniteQuery({
    queryKey: ["logs", params],
    queryFn: ({ pageParam, signal }) => get<Model<"LogPage">>("logs", { ...params, before: pageParam, limit: PER_PAGE }, signal),
    initialPageParam: null as number | null,
    getNextPageParam: (page) => page.next_before,
    staleTime: Number.POSITIVE_INFINITY,
  });
  const loaded = useMemo(() => pages.data?.pages.flatMap((page) => page.entries) ?? [], [pages.data]);
  const newest = Math.max(0, ...fresh.map((each) => each.log_entry_id), loaded[0]?.log_entry_id ?? 0);
  const poll = useQuery({
    queryKey: ["logs-after", params, newest],
    queryFn: ({ signal }) => get<Model<"LogPage">>("logs", { ...params, after: newest === 0 ? null : newest, limit: PER_PAGE }, signal),
    enabled: isLive && pages.isSuccess,
    refetchInterval: EVERY_MS,
    staleTime: 0,
    gcTime: 0,
  });
  useEffect(() => setFresh([]), [params]);
  useEffect(() => {
    const came = poll.data?.entries ?? [];
    if (came.length > 0) setFresh((before) => [...came.filter((each) => !before.some((other) => other.log_entry_id === each.log_entry_id)), ...before]);
  }, [poll.data]);
  const entries = useMemo(() => {
    const seen = new Set(fresh.map((each) => each.log_entry_id));
    return [...fresh, ...loaded.filter((each) => !seen.has(each.log_entry_id))];
  }, [fresh, loaded]);
  return { pages, entries, fresh: fresh.length, liveError: isLive ? poll.error : null };
}
