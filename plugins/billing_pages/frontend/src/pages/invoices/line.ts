// What the review grid knows about a line: which columns it has, what may be edited, and how an edit is sent.
import { badgeNode, outcomeNode } from "../../components/Badge";
import type { Edit, GridColumn } from "../../components/Grid";
import type { Option } from "../../components/Combobox";
import { get } from "../../lib/api";
import { node } from "../../lib/dom";
import { date, dateTime, money, price, quantity } from "../../lib/format";
import type { Model } from "../../models";
import { readDate, readNumber } from "./values";

export type Line = Model<"Line">;
export type LineChange = Model<"LineChange">;
export type EditableField = Model<"Typed">["fields"][number];

/** The API's name of each value that a person may type, by the grid's column. */
export const FIELD_OF_COLUMN: Record<string, EditableField> = {
  agreement_name: "agreement_id",
  product: "product_id",
  effective_date: "effective_date",
  cancelled_date: "cancelled_date",
  sent_quantity: "quantity",
  sent_unit_price: "unit_price",
  invoice_description: "invoice_description",
};

const INVOICED = "AppXite invoiced";
const SENT = "ConnectWise will get";

export const FIELD_TITLES: Record<EditableField, string> = {
  agreement_id: "Agreement",
  product_id: "Product",
  effective_date: "Effective date",
  cancelled_date: "Cancelled date",
  quantity: "Quantity",
  unit_price: "Unit price",
  invoice_description: "Description",
};

/** The value as plain text, "" when there is none. */
export function plainValue(line: Line, field: EditableField): string {
  const value = {
    agreement_id: line.agreement_id,
    product_id: line.product_id,
    effective_date: line.effective_date,
    cancelled_date: line.cancelled_date,
    quantity: line.sent_quantity,
    unit_price: line.sent_unit_price,
    invoice_description: line.invoice_description,
  }[field];
  return value === null || value === undefined ? "" : String(value);
}

/** The value in words. */
export function shownValue(line: Line, field: EditableField): string {
  if (field === "agreement_id") return line.agreement_name ?? plainValue(line, field);
  if (field === "product_id") return line.product ?? plainValue(line, field);
  return plainValue(line, field);
}

/** Where the value comes from: a person, a rule, or the invoice as it is. */
export function sourceOf(line: Line, field: EditableField): string | undefined {
  return line.value_sources[field.replace(/_id$/, "")];
}

export function sourceHint(line: Line, field: EditableField): string | null {
  const source = sourceOf(line, field);
  if (source === "User Updated" && line.typed) return `User Updated by ${line.typed.decided_by}, ${dateTime(line.typed.decided_at)}`;
  if (source === "System Updated") {
    return line.rules_version === null ? "System Updated" : `System Updated by the rules of its charge type, version ${line.rules_version}`;
  }
  return source === undefined ? null : "As AppXite invoiced it";
}

const searchChoices = (kind: "agreements" | "products") => async (line: Line, text: string): Promise<Option[]> => {
  const choices = await get<Model<"Choice">[]>(`lines/${line.line_id}/${kind}`, { q: text });
  return choices.map((choice) => ({
    value: String(choice.id),
    label: choice.name,
    detail: [choice.is_candidate ? "candidate" : null, choice.detail, `id ${choice.id}`].filter(Boolean).join(" · "),
    unusable: choice.unusable,
  }));
};

export const searchAgreements = searchChoices("agreements");
export const searchProducts = searchChoices("products");

/** A value for ConnectWise: marked when a person typed it, and when it is not what AppXite invoiced. */
function sentNode(text: string, invoiced: string | null, isTyped: boolean): Node {
  const isOther = invoiced !== null && text !== "" && text !== invoiced;
  if (!isTyped && !isOther) return document.createTextNode(text);
  return node("span", { class: [isTyped ? "line-typed" : "", isOther ? "line-differs" : ""].join(" ").trim() }, text);
}

function differsHint(text: string, invoiced: string | null): string | null {
  return invoiced === null || text === "" || text === invoiced ? null : `AppXite invoiced ${invoiced || "none"}`;
}

function sent(
  field: string,
  title: string,
  kind: "text" | "number" | "date" | "choice",
  text: (line: Line) => string,
  more: Partial<GridColumn<Line>> = {},
  invoiced: ((line: Line) => string) | null = null,
): GridColumn<Line> {
  const name = FIELD_OF_COLUMN[field] as EditableField;
  const source = (line: Line) => (invoiced === null ? null : invoiced(line));
  return {
    field,
    title,
    group: SENT,
    text,
    isSortable: field !== "invoice_description",
    hint: (line) => [differsHint(text(line), source(line)), sourceHint(line, name)].filter(Boolean).join(". ") || null,
    node: (line) => sentNode(text(line), source(line), sourceOf(line, name) === "User Updated"),
    edit: {
      kind,
      value: (line) => plainValue(line, name),
      refuses: (line) => line.lock,
      search: name === "agreement_id" ? searchAgreements : name === "product_id" ? searchProducts : undefined,
    },
    ...more,
  };
}

export const lineId = (line: Line) => line.line_id;

/** What AppXite invoiced stands right beside what ConnectWise will get, in a window of 1280 pixels, too; the rest follows. */
export const COLUMNS: GridColumn<Line>[] = [
  { field: "organization_name", title: "Organization", width: 96, isFrozen: true, isSortable: true, text: (line) => line.organization_name },
  { field: "subscription_name", title: "Subscription", width: 104, isFrozen: true, isSortable: true, text: (line) => line.subscription_name ?? line.subscription_id ?? "" },
  {
    field: "outcome",
    title: "Outcome",
    width: 112,
    isSortable: true,
    text: (line) => (line.lock ? `${line.outcome}, locked` : line.outcome),
    hint: (line) => line.lock ?? line.outcome,
    node: (line) =>
      line.lock && line.outcome !== "delivered"
        ? node("span", {}, outcomeNode(line.outcome), badgeNode("locked", "gray", line.lock))
        : outcomeNode(line.outcome),
  },
  { field: "charge_start_date", title: "Start", group: INVOICED, width: 80, isSortable: true, text: (line) => date(line.charge_start_date) },
  { field: "charge_end_date", title: "End", group: INVOICED, width: 80, isSortable: true, text: (line) => date(line.charge_end_date) },
  { field: "quantity", title: "Qty", group: INVOICED, width: 50, align: "right", isSortable: true, text: (line) => quantity(line.quantity) },
  { field: "unit_price", title: "Unit price", group: INVOICED, width: 78, align: "right", isSortable: true, text: (line) => price(line.unit_price) },
  { field: "total_price", title: "Total", group: INVOICED, width: 96, align: "right", isSortable: true, text: (line) => money(line.total_price, line.currency) },
  sent("effective_date", "Effective", "date", (line) => date(line.effective_date), { width: 80 }, (line) => date(line.charge_start_date)),
  sent("cancelled_date", "Cancelled", "date", (line) => date(line.cancelled_date), { width: 80 }, (line) => date(line.charge_end_date)),
  sent("sent_quantity", "Qty", "number", (line) => quantity(line.sent_quantity), { width: 50, align: "right" }, (line) => quantity(line.quantity)),
  sent("sent_unit_price", "Unit price", "number", (line) => price(line.sent_unit_price), { width: 78, align: "right" }, (line) => price(line.unit_price)),
  {
    field: "sent_amount",
    title: "Amount",
    group: SENT,
    width: 96,
    align: "right",
    isSortable: true,
    text: (line) => money(line.sent_amount, line.currency),
    hint: (line) => differsHint(money(line.sent_amount, line.currency), money(line.total_price, line.currency)),
    node: (line) => sentNode(money(line.sent_amount, line.currency), money(line.total_price, line.currency), false),
  },
  {
    field: "reasons",
    title: "Reasons",
    width: 230,
    text: whyText,
    hint: (line) => line.held_reasons.map((reason) => `${reason.title}. ${reason.detail} ${reason.cure}`).join("\n") || line.excluded_by,
    node: whyNode,
  },
  sent("agreement_name", "Agreement", "choice", (line) => line.agreement_name ?? (line.agreement_id === null ? "" : String(line.agreement_id)), { width: 190 }),
  sent("product", "Product", "choice", (line) => line.product ?? "", { width: 160 }),
  sent("invoice_description", "Description", "text", (line) => line.invoice_description ?? "", { width: 260 }),
  { field: "company_name", title: "Company", group: SENT, width: 170, isSortable: true, text: (line) => line.company_name ?? "" },
  { field: "connectwise_addition_id", title: "Addition", group: SENT, width: 100, isHidden: true, text: (line) => String(line.connectwise_addition_id ?? "") },
  {
    field: "updated",
    title: "Updated",
    width: 130,
    text: (line) => (line.typed ? `User Updated by ${line.typed.decided_by}, ${dateTime(line.typed.decided_at)}` : line.rules_version === null ? "" : "System Updated"),
    hint: (line) =>
      line.typed
        ? `${line.typed.fields.map((field) => FIELD_TITLES[field]).join(", ") || "Line"} by ${line.typed.decided_by}, ${dateTime(line.typed.decided_at)}${line.typed.reason ? `: ${line.typed.reason}` : ""}`
        : line.rules_version === null
          ? null
          : `Rules of the charge type, version ${line.rules_version}`,
    node: (line) =>
      line.typed ? badgeNode("User Updated", "violet") : line.rules_version === null ? document.createTextNode("") : badgeNode("System Updated", "cyan"),
  },
  { field: "invoice_number", title: "Invoice", group: INVOICED, width: 130, isSortable: true, text: (line) => line.invoice_number ?? "" },
  { field: "charge_type", title: "Charge type", group: INVOICED, width: 120, isSortable: true, text: (line) => line.charge_type_name ?? line.charge_type ?? "" },
  { field: "invoice_date", title: "Invoice date", group: INVOICED, width: 100, isHidden: true, isSortable: true, text: (line) => date(line.invoice_date) },
  { field: "offer_name", title: "Offer", group: INVOICED, width: 180, isHidden: true, isSortable: true, text: (line) => line.offer_name ?? line.offer_id ?? "" },
  { field: "billing_frequency", title: "Frequency", group: INVOICED, width: 110, isHidden: true, text: (line) => line.billing_frequency ?? "" },
];

function whyText(line: Line): string {
  if (line.held_reasons.length > 0) return line.held_reasons.map((reason) => reason.title).join("; ");
  return line.excluded_by ?? "";
}

/** Reasons in words; the first is a link to its cure. The drawer has them all with their cures. */
function whyNode(line: Line): Node {
  const [first, ...others] = line.held_reasons;
  if (first === undefined) return document.createTextNode(line.excluded_by ?? "");
  const words = first.cure_link
    ? node("a", { href: first.cure_link, "data-inside": true, tabindex: "-1" }, first.title)
    : node("span", {}, first.title);
  return node("span", {}, words, others.length > 0 ? ` and ${others.length} more` : null);
}

/** What cannot be stored as it was typed. */
export class TypedWrong extends Error {}

/** The value to send for what a person typed or pasted; null takes the typed value back. */
export async function valueToSend(edit: Edit<Line>): Promise<string | number | null> {
  const field = FIELD_OF_COLUMN[edit.field] as EditableField;
  const text = edit.text.trim();
  if (text === "") return null;
  if (field === "effective_date" || field === "cancelled_date") {
    const day = readDate(text);
    if (day === null) throw new TypedWrong(`"${text}" is not a day. Write it as 2026-05-31.`);
    return day;
  }
  if (field === "quantity" || field === "unit_price") {
    const number = readNumber(text);
    if (number === null) throw new TypedWrong(`"${text}" is not a number that can be read one way only. Write it as 1234.50.`);
    return number;
  }
  if (field === "invoice_description") return text;
  if (/^\d+$/.test(text)) return Number(text);
  // a name was pasted
  const found = await (field === "agreement_id" ? searchAgreements : searchProducts)(edit.row, text);
  const exact = found.filter((option) => option.label === text && !option.unusable);
  if (exact.length !== 1) throw new TypedWrong(`"${text}" is not the name of exactly one ${FIELD_TITLES[field].toLowerCase()} of this customer.`);
  return Number(exact[0]?.value);
}

const EXPORTED: Record<string, string[]> = {
  reasons: ["held_reasons", "excluded_by"],
  updated: ["user_updated", "decided_by", "decided_at"],
};

/** The API's names of the columns to export for the columns that the grid shows; undefined: all of them. */
export function exportColumns(shown: string): string | undefined {
  if (shown === "") return undefined;
  const fields = shown.split(",").filter((field) => COLUMNS.some((column) => column.field === field));
  return [...new Set([...fields.flatMap((field) => EXPORTED[field] ?? [field]), "currency"])].join();
}
