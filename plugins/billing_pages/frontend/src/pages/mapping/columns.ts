/** The columns of the three mapping grids. */
import { badgeNode } from "../../components/Badge";
import type { GridColumn } from "../../components/Grid";
import { node } from "../../lib/dom";
import { dateTime, money } from "../../lib/format";
import { fetchTargets } from "./api";
import type { Kind } from "./kinds";
import { STATE_COLOR } from "./StateBadge";
import type { MappingRow, Suggestion } from "./types";

interface Doing {
  /** Takes the suggestion over; undefined when the reader may not. */
  onTake: (row: MappingRow, suggestion: Suggestion) => void;
  /** Why the reader may not decide, or undefined. */
  refusal?: string;
}

export function columnsOf(kind: Kind, doing: Doing): GridColumn<MappingRow>[] {
  const isOffers = kind.kind === "offers";
  const capital = (text: string) => text.charAt(0).toUpperCase() + text.slice(1);
  const columns: (GridColumn<MappingRow> | false)[] = [
    {
      field: "source_name",
      title: capital(kind.source),
      width: 240,
      isSortable: true,
      text: nameOf,
      node: (row) =>
        row.billing_frequency
          ? node("span", { class: "grid-muted" }, `↳ ${row.billing_frequency}, of ${nameOf(row)}`)
          : node("span", {}, nameOf(row), statusNode(row)),
      hint: (row) => [nameOf(row), row.source_id, row.source_detail].filter(Boolean).join(" · "),
    },
    kind.kind === "contracts" && {
      field: "source_detail",
      title: "Organization",
      width: 240,
      text: (row) => row.source_detail,
    },
    {
      field: "held",
      title: "Money that waits",
      width: 150,
      align: "right",
      isSortable: true,
      text: (row) => row.held.map((sum) => money(sum.amount, sum.currency)).join(" + "),
      hint: (row) => row.held.map((sum) => `${sum.lines} lines, ${money(sum.amount, sum.currency)}`).join("; "),
    },
    {
      field: "state",
      title: "State",
      width: 110,
      isSortable: true,
      text: (row) => row.state,
      node: (row) => badgeNode(row.state, kind.isOptional && row.state === "undecided" ? "gray" : STATE_COLOR[row.state]),
    },
    {
      field: "target_name",
      title: capital(kind.target),
      width: 230,
      isSortable: true,
      text: targetOf,
      node: (row) => targetNode(row),
      hint: (row) =>
        [row.target_name, row.target_id && `id ${row.target_id}`, row.target_detail, row.target_unusable && `cannot be used: ${row.target_unusable}`]
          .filter(Boolean)
          .join(" · "),
      edit: {
        kind: "choice",
        value: (row) => (row.target_id === null ? "" : String(row.target_id)),
        refuses: () => doing.refusal ?? null,
        search: async (row, text) =>
          (await fetchTargets(kind.targetKind, text, row.company_id)).map((one) => ({
            value: String(one.id),
            label: one.name,
            detail: [one.detail, `id ${one.id}`].filter(Boolean).join(" · "),
            unusable: one.unusable,
          })),
      },
    },
    kind.hasSuggestions && {
      field: "best",
      title: "Suggestion",
      width: 330,
      text: (row) => (row.best ? `${row.best.target_name} (${row.best.score})` : ""),
      node: (row) => suggestionNode(row, doing),
      hint: (row) => row.best && evidenceOf(row.best),
    },
    isOffers && {
      field: "frequencies",
      title: "Billed as",
      width: 150,
      text: (row) => row.billing_frequency || row.frequencies.join(", "),
    },
    isOffers && {
      field: "recurring_mode",
      title: "Recurring lines",
      width: 120,
      text: (row) => row.recurring_mode ?? (row.billing_frequency ? "as the offer" : "as the setting"),
    },
    {
      field: "note",
      title: "Note",
      width: 180,
      text: (row) => row.note ?? "",
      hint: (row) => row.note,
      edit: { kind: "text", value: (row) => row.note ?? "", refuses: () => doing.refusal ?? null },
    },
    { field: "decided_by", title: "Decided by", width: 110, text: (row) => row.decided_by ?? "" },
    { field: "decided_at", title: "Decided", width: 150, isSortable: true, text: (row) => (row.decided_at ? dateTime(row.decided_at) : "") },
    {
      field: "last_invoiced_on",
      title: "Last invoice",
      width: 110,
      isSortable: true,
      isHidden: !isOffers,
      text: (row) => row.last_invoiced_on ?? "",
    },
    { field: "source_id", title: "AppXite id", width: 120, isHidden: true, text: (row) => row.source_id },
    kind.kind !== "contracts" && { field: "source_detail", title: "Detail", width: 200, isHidden: true, text: (row) => row.source_detail },
    { field: "source_status", title: "Status in AppXite", width: 120, isHidden: true, text: (row) => row.source_status ?? "" },
    {
      field: "first_seen_at",
      title: "First seen",
      width: 150,
      isSortable: true,
      isHidden: true,
      text: (row) => (row.first_seen_at ? dateTime(row.first_seen_at) : ""),
    },
  ];
  return columns.filter((one) => one !== false);
}

export const nameOf = (row: MappingRow) => row.source_name ?? row.source_id;
export const keyOf = (row: Pick<MappingRow, "source_id" | "billing_frequency">) =>
  row.billing_frequency ? `${row.source_id}|${row.billing_frequency}` : row.source_id;

function targetOf(row: MappingRow): string {
  if (row.selectors > 0) return `by ${row.selectors} ${row.selectors === 1 ? "selector" : "selectors"}`;
  return row.target_name ?? (row.target_id === null ? "" : `id ${row.target_id}`);
}

function statusNode(row: MappingRow): Node | null {
  const status = row.source_status;
  return status && status.toLowerCase() !== "active" ? badgeNode(status, "gray", "Status in AppXite") : null;
}

function targetNode(row: MappingRow): Node {
  return node(
    "span",
    { class: row.state === "approved" ? undefined : "grid-muted" },
    targetOf(row),
    row.target_unusable === null ? null : " ",
    row.target_unusable === null ? null : badgeNode("unusable", "red", row.target_unusable),
    row.selectors === 0 && row.target_detail ? node("span", { class: "grid-muted" }, `  ${row.target_detail}`) : null,
  );
}

function evidenceOf(suggestion: Suggestion): string {
  const why = suggestion.evidence.map((one) => one.text).join("; ");
  return `${suggestion.target_name}, id ${suggestion.target_id}: ${why}${suggestion.unusable ? `; cannot be used: ${suggestion.unusable}` : ""}`;
}

function suggestionNode(row: MappingRow, { onTake, refusal }: Doing): Node {
  const best = row.best;
  if (best === null) return node("span", { class: "grid-muted" }, row.state === "undecided" && !row.billing_frequency ? "none found" : "");
  const why = evidenceOf(best);
  const take = node(
    "button",
    {
      type: "button",
      class: "grid-open",
      tabindex: "-1",
      title: refusal ?? `Approve: ${why}`,
      "aria-label": `Approve ${best.target_name} for ${nameOf(row)}`,
      disabled: refusal !== undefined,
    },
    "Approve",
  );
  take.addEventListener("click", (event) => {
    event.stopPropagation();
    onTake(row, best);
  });
  return node(
    "span",
    { class: "grid-head", title: why },
    best.unusable === null ? take : badgeNode("unusable", "red", best.unusable),
    badgeNode(String(best.score), best.is_only_strong ? "green" : "gray", best.is_only_strong ? "the only strong one" : "of 100"),
    node("span", {}, best.target_name),
    node("span", { class: "grid-muted" }, best.evidence.map((one) => one.text).join("; ")),
  );
}
