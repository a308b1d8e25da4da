// How values read: money and quantities are strings of decimal digits from the server to the screen, never floats.
import { useEffect, useState } from "react";

const language = () => (typeof navigator === "undefined" ? "en" : navigator.language);
/** NBSP: a figure and its currency stay on one line. */
const NBSP = "\u00a0";

function formatted(value: string, minimumFractionDigits: number): string {
  const digits = new Intl.NumberFormat(language(), { minimumFractionDigits, maximumFractionDigits: 12 });
  return digits.format(value as Intl.StringNumericLiteral);
}

/** "340.00 EUR" in the reader's notation; nothing for null. */
export function money(amount: string | null | undefined, currency: string | null | undefined): string {
  if (amount === null || amount === undefined) return "";
  return currency ? `${formatted(amount, 2)}${NBSP}${currency}` : formatted(amount, 2);
}

/** A quantity or unit price: no zeros that say nothing. */
export function quantity(value: string | null | undefined): string {
  return value === null || value === undefined ? "" : formatted(value, 0);
}

/** A unit price: at least two decimals. */
export function price(value: string | null | undefined): string {
  return value === null || value === undefined ? "" : formatted(value, 2);
}

export function count(value: number): string {
  return new Intl.NumberFormat(language()).format(value);
}

/** "1 line", "1,234 lines". */
export function counted(value: number, one: string, many = `${one}s`): string {
  return `${count(value)}${NBSP}${value === 1 ? one : many}`;
}

/** Several sums as one text: "12 lines, 340.00 EUR; 3 lines, 12.00 USD". */
export function moneyList(sums: { amount: string; currency: string; lines: number }[]): string {
  return sums.map((sum) => `${counted(sum.lines, "line")}, ${money(sum.amount, sum.currency)}`).join("; ");
}

/** A calendar day as it is written everywhere on these pages: 2026-05-31. */
export function date(value: string | null | undefined): string {
  return value ?? "";
}

/** "May 2026" of "2026-05". */
export function period(value: string): string {
  const [year, month] = value.split("-").map(Number);
  return new Intl.DateTimeFormat(language(), { month: "long", year: "numeric", timeZone: "UTC" }).format(
    new Date(Date.UTC(year ?? 0, (month ?? 1) - 1, 1)),
  );
}

/** A point in time in the reader's time zone; hasSeconds: to the second, as in logs. */
export function dateTime(at: string, hasSeconds = false): string {
  return new Intl.DateTimeFormat(language(), { dateStyle: "medium", timeStyle: hasSeconds ? "medium" : "short" }).format(new Date(at));
}

/** The same in UTC, with the zone's name. */
export function utc(at: string, hasSeconds = false): string {
  return `${new Date(at).toISOString().slice(0, hasSeconds ? 19 : 16).replace("T", " ")} UTC`;
}

/** "3 minutes ago", "in 5 hours". */
export function relative(at: string, now: number = Date.now()): string {
  const seconds = Math.round((new Date(at).getTime() - now) / 1000);
  const units: [Intl.RelativeTimeFormatUnit, number][] = [
    ["year", 31_536_000],
    ["month", 2_592_000],
    ["day", 86_400],
    ["hour", 3_600],
    ["minute", 60],
  ];
  const format = new Intl.RelativeTimeFormat(language(), { numeric: "auto" });
  for (const [unit, size] of units) {
    if (Math.abs(seconds) >= size) return format.format(Math.round(seconds / size), unit);
  }
  return "just now";
}

/** "1 min 5 s" between two points in time. */
export function duration(from: string, to: string): string {
  const seconds = Math.max(0, Math.round((new Date(to).getTime() - new Date(from).getTime()) / 1000));
  if (seconds < 60) return `${seconds}${NBSP}s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes}${NBSP}min ${seconds % 60}${NBSP}s`;
  return `${Math.floor(minutes / 60)}${NBSP}h ${minutes % 60}${NBSP}min`;
}

/** A point in time: in the reader's time zone, UTC on hover and for screen readers. relative: as an age that stays right. */
export function DateTime({ at, relative: asAge = false, hasSeconds = false }: { at: string | null | undefined; relative?: boolean; hasSeconds?: boolean }) {
  const [, tick] = useState(0);
  useEffect(() => {
    if (!asAge) return;
    const timer = setInterval(() => tick((n) => n + 1), 30_000);
    return () => clearInterval(timer);
  }, [asAge]);
  if (!at) return null;
  const hover = asAge ? `${dateTime(at)} (${utc(at)})` : utc(at, hasSeconds);
  return (
    <time dateTime={at} title={hover}>
      {asAge ? relative(at) : dateTime(at, hasSeconds)}
      <span className="sr-only"> ({hover})</span>
    </time>
  );
}
