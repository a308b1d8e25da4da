/** What differs between the three mapping pages. */
import type { HistoryTable, MappingKind, TargetKind } from "./types";

export interface Kind {
  kind: MappingKind;
  title: string;
  intro: string;
  source: string;
  sources: string;
  target: string;
  targetKind: TargetKind;
  table: HistoryTable;
  hasSuggestions: boolean;
  /** Undecided entries hold no line. */
  isOptional: boolean;
}

export const KINDS: Record<MappingKind, Kind> = {
  organizations: {
    kind: "organizations",
    title: "Organizations",
    intro: "Which company of ConnectWise each organization of AppXite is. Lines of an undecided organization are held.",
    source: "organization",
    sources: "organizations",
    target: "company",
    targetKind: "companies",
    table: "mapping.organization_mapping",
    hasSuggestions: true,
    isOptional: false,
  },
  offers: {
    kind: "offers",
    title: "Products",
    intro: "Which product of ConnectWise each offer of AppXite is billed as. Lines of an undecided offer are held.",
    source: "offer",
    sources: "offers",
    target: "product",
    targetKind: "products",
    table: "mapping.offer_mapping",
    hasSuggestions: true,
    isOptional: false,
  },
  contracts: {
    kind: "contracts",
    title: "Contracts",
    intro:
      "Optional: which agreement takes the lines of a contract. Without a mapped contract, agreement rules and the default Agreement Type decide.",
    source: "contract",
    sources: "contracts",
    target: "agreement",
    targetKind: "agreements",
    table: "mapping.contract_mapping",
    hasSuggestions: false,
    isOptional: true,
  },
};
