import type { Model } from "../models";

type DateRule = Model<"ChargeType">["charge_start_rule"];

/** The date rules of charge types in plain words, each with what it gives for one example. */
export interface DateRuleWords {
  rule: DateRule;
  words: string;
  /** What the rule gives as charge start and as charge end in the example. */
  start: string;
  end: string;
}

/** The example that the rules are told by. */
export const EXAMPLE =
  "Example: charged from 2026-05-12 to 2026-06-11, invoice of 2026-06-03, next invoice date of the agreement 2026-07-01.";

/** Every rule; one that the API knows and this does not is no TypeScript. */
const RULES: Record<DateRule, Omit<DateRuleWords, "rule">> = {
  as_invoiced: { words: "As invoiced: the charge's own date", start: "2026-05-12", end: "2026-06-11" },
  first_day_of_charge_month: { words: "First day of the month the charge's own date lies in", start: "2026-05-01", end: "2026-06-01" },
  last_day_of_charge_month: { words: "Last day of the month the charge's own date lies in", start: "2026-05-31", end: "2026-06-30" },
  first_day_of_invoice_month: { words: "First day of the invoice date's month", start: "2026-06-01", end: "2026-06-01" },
  last_day_of_invoice_month: { words: "Last day of the invoice date's month", start: "2026-06-30", end: "2026-06-30" },
  first_day_of_next_month: { words: "First day of the month after the invoice date", start: "2026-07-01", end: "2026-07-01" },
  last_day_of_next_month: { words: "Last day of the month after the invoice date", start: "2026-07-31", end: "2026-07-31" },
  invoice_date: { words: "The invoice date", start: "2026-06-03", end: "2026-06-03" },
  next_invoice_date: { words: "The agreement's next invoice date", start: "2026-07-01", end: "2026-07-01" },
};

export const DATE_RULES: DateRuleWords[] = (Object.keys(RULES) as DateRule[]).map((rule) => ({ rule, ...RULES[rule] }));

/** The rule in short words, as in a table. */
export function shortOf(rule: string): string {
  return rule.replaceAll("_", " ");
}

/** The rule in plain words; a rule that is not known here is shown as it is. */
export function wordsOf(rule: string): string {
  return DATE_RULES.find((one) => one.rule === rule)?.words ?? rule;
}
