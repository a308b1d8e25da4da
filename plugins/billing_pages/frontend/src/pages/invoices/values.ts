// Plain values as people type and paste them.

/** A decimal number with a point; null when it cannot be told for sure what is meant. "1 234,50" and "1,234.50" are 1234.50. */
export function readNumber(text: string): string | null {
  const bare = text.replace(/[\s\u00a0\u202f'’]/g, "");
  if (/^-?\d+(\.\d+)?$/.test(bare)) return bare;
  if (/^-?\.\d+$/.test(bare)) return bare.replace(".", "0.");
  if (/^-?\d{1,3}(,\d{3})+\.\d+$/.test(bare)) return bare.replaceAll(",", "");
  if (/^-?\d{1,3}(\.\d{3})+,\d+$/.test(bare)) return bare.replaceAll(".", "").replace(",", ".");
  // "1,234" is a thousand to some and one to others
  if (/^-?\d+,\d+$/.test(bare) && !/^-?[1-9]\d{0,2},\d{3}$/.test(bare)) return bare.replace(",", ".");
  return null;
}

/** A day as 2026-05-31; also from 31.05.2026. null when it is no day, or could be read two ways. */
export function readDate(text: string): string | null {
  const german = /^(\d{1,2})\.(\d{1,2})\.(\d{4})$/.exec(text.trim());
  const day = german ? `${german[3]}-${german[2]?.padStart(2, "0")}-${german[1]?.padStart(2, "0")}` : text.trim();
  if (!/^\d{4}-\d{2}-\d{2}$/.test(day)) return null;
  const parsed = new Date(`${day}T00:00:00Z`);
  return !Number.isNaN(parsed.getTime()) && parsed.toISOString().startsWith(day) ? day : null;
}
