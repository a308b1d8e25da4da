import { keepPreviousData, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { get, send } from "../../lib/api";
import type { Model } from "../../models";

type PlanDetail = Model<"PlanDetail">;

/** The newest plans. */
export const usePlans = (limit = 30) =>
  useQuery({
    queryKey: ["plans", limit],
    queryFn: () => get<Model<"PlanSummary">[]>("plans", { limit }),
    refetchInterval: 60_000,
    placeholderData: keepPreviousData,
  });

/** One plan; looked at every 2 seconds while it is delivered. */
export const usePlan = (planId: number, isDelivering: boolean) =>
  useQuery({
    queryKey: ["plan", planId],
    queryFn: () => get<PlanDetail>(`plans/${planId}`),
    refetchInterval: isDelivering ? 2_000 : 60_000,
  });

export const useProof = (planId: number, onlyDifferent: boolean, offset: number, limit: number) =>
  useQuery({
    queryKey: ["proof", planId, onlyDifferent, offset, limit],
    queryFn: () => get<Model<"ProofPage">>(`plans/${planId}/proof`, { only_different: onlyDifferent, offset, limit }),
    placeholderData: keepPreviousData,
  });

export type Approval = { fingerprint: string; leave_out: number[]; leave_out_agreements: number[] };

/** What would be approved; asked when the confirmation opens. */
export const useSelection = (planId: number, approval: Approval) =>
  useQuery({
    queryKey: ["selection", planId, approval],
    queryFn: () => send<Model<"PlanSelection">>("POST", `plans/${planId}/selection`, approval),
    retry: false,
    staleTime: 0,
    gcTime: 0,
  });

export function useApprove(planId: number) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (approval: Approval) => send<PlanDetail>("POST", `plans/${planId}/approve`, approval),
    onSuccess: (plan) => settle(client, planId, plan),
  });
}

export function useReject(planId: number) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (reason: string) => send<PlanDetail>("POST", `plans/${planId}/reject`, { reason }),
    onSuccess: (plan) => settle(client, planId, plan),
  });
}

function settle(client: ReturnType<typeof useQueryClient>, planId: number, plan: PlanDetail): void {
  client.setQueryData(["plan", planId], plan);
  for (const key of ["plans", "runs", "plan-items"]) void client.invalidateQueries({ queryKey: [key] });
}
