import { keepPreviousData, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { get, send } from "../../lib/api";
import type { Model } from "../../models";

type Setup = Model<"Setup">;
type Pause = Model<"Pause">;
type Parked = Model<"Parked">;

// Everything of these pages that a run or a decision changes is asked again every minute, and at once when a run ends.
const MINUTE = 60_000;

export const useSetup = () => useQuery({ queryKey: ["setup"], queryFn: () => get<Setup>("setup"), refetchInterval: MINUTE });

export const usePeriods = () =>
  useQuery({ queryKey: ["periods"], queryFn: () => get<Model<"Period">[]>("periods"), refetchInterval: MINUTE });

export const CUSTOMERS_PER_PAGE = 25;

export const useCustomerMoney = (period: string, sort: string, offset: number) =>
  useQuery({
    queryKey: ["money", period, sort, offset],
    queryFn: () => get<Model<"CustomerMoneyPage">>("money", { period, sort, offset, limit: CUSTOMERS_PER_PAGE }),
    placeholderData: keepPreviousData,
  });

export const useHeld = (period: string | null) =>
  useQuery({ queryKey: ["held", period], queryFn: () => get<Model<"Held">>("held", { period }), placeholderData: keepPreviousData });

export const useRuns = (limit: number) =>
  useQuery({ queryKey: ["runs", limit], queryFn: () => get<Model<"Run">[]>("runs", { limit }), refetchInterval: MINUTE });

export const usePauses = () =>
  useQuery({ queryKey: ["pauses"], queryFn: () => get<Pause[]>("pauses"), refetchInterval: MINUTE });

export const useParked = () =>
  useQuery({ queryKey: ["parked"], queryFn: () => get<Parked[]>("parked"), refetchInterval: MINUTE });

export const useUnsettled = (limit: number) =>
  useQuery({
    queryKey: ["unsettled", limit],
    queryFn: () => get<Model<"UnsettledPage">>("additions/unsettled", { limit }),
    placeholderData: keepPreviousData,
    refetchInterval: MINUTE,
  });

export const useSubscriptions = (isAmiss: boolean, q: string, limit: number) =>
  useQuery({
    queryKey: ["subscriptions", isAmiss, q, limit],
    queryFn: () => get<Model<"SubscriptionPage">>("subscriptions", { amiss: isAmiss, q, limit }),
    placeholderData: keepPreviousData,
  });

/** Turn Automated Daily Sync on or off. A stale version is refused with 409. */
export function useSwitchSync() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (change: { on: boolean; version: string }) => send<Setup>("PUT", "automated-daily-sync", change),
    onSuccess: (setup) => client.setQueryData(["setup"], setup),
    onError: () => client.invalidateQueries({ queryKey: ["setup"] }),
  });
}

export function usePause() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (pause: { company_id: number | null; reason: string }) => send<Pause[]>("POST", "pauses", pause),
    onSuccess: (pauses) => client.setQueryData(["pauses"], pauses),
  });
}

export function useEndPause() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (pause: { company_id: number | null }) => send<Pause[]>("POST", "pauses/end", pause),
    onSuccess: (pauses) => client.setQueryData(["pauses"], pauses),
  });
}

export function useAllow() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (allowed: { bound_key: string; up_to: string; note: string | null }) =>
      send<Parked[]>("POST", "parked/allow", allowed),
    onSuccess: (parked) => {
      client.setQueryData(["parked"], parked);
      void client.invalidateQueries({ queryKey: ["plan"] });
    },
  });
}
