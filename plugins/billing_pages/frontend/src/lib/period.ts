// Billing periods: calendar months as "2026-05".

export function shiftPeriod(period: string, months: number): string {
  const [year, month] = period.split("-").map(Number);
  return new Date(Date.UTC(year ?? 0, (month ?? 1) - 1 + months, 1)).toISOString().slice(0, 7);
}

/** The billing period of today, in UTC as the nightly run counts. */
export function thisPeriod(): string {
  return new Date().toISOString().slice(0, 7);
}
