/** Requests of the mapping pages, and what they answer. */
import { get, send } from "../../lib/api";
import type {
  Change,
  HistoryTable,
  MappingDecision,
  MappingKind,
  MappingPageData,
  MappingResults,
  Selectors,
  SelectorsChanged,
  SelectorsGiven,
  Suggestion,
  Target,
  TargetKind,
} from "./types";

export interface MappingQuery {
  q: string;
  state: string;
  onlyHeld: boolean;
  windowMonths: string;
  sort: string;
  offset: number;
  limit: number;
}

export const fetchMappings = (kind: MappingKind, query: MappingQuery, signal?: AbortSignal) =>
  get<MappingPageData>(
    `mappings/${kind}`,
    {
      q: query.q,
      state: query.state === "all" ? null : query.state,
      only_held: query.onlyHeld || null,
      window_months: query.windowMonths,
      sort: query.sort,
      offset: query.offset,
      limit: query.limit,
    },
    signal,
  );

export const fetchSuggestions = (kind: MappingKind, sourceIds: string[], signal?: AbortSignal) =>
  get<Record<string, Suggestion[]>>(`mappings/${kind}/suggestions`, { source_id: sourceIds }, signal);

export const decide = (kind: MappingKind, items: MappingDecision[]) =>
  send<MappingResults>("POST", `mappings/${kind}/decide`, { items });

export const fetchTargets = (kind: TargetKind, q: string, companyId?: number | null) =>
  get<Target[]>(`targets/${kind}`, { q, company_id: companyId });

const selectorsOf = (organizationId: string) => `organizations/${encodeURIComponent(organizationId)}/selectors`;

export const fetchSelectors = (organizationId: string, signal?: AbortSignal) =>
  get<Selectors>(selectorsOf(organizationId), {}, signal);

export const storeSelectors = (organizationId: string, given: SelectorsGiven) =>
  send<SelectorsChanged>("PUT", selectorsOf(organizationId), given);

export const fetchHistory = (table: HistoryTable, key: string, signal?: AbortSignal) =>
  get<Change[]>("history", { table, key }, signal);
