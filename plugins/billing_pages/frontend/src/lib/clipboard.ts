// Cells as spreadsheets copy them: rows by line break, cells by tab, quoted where a cell holds either.

/** Rows of cells from copied text. */
export function parseCells(text: string): string[][] {
  const rows: string[][] = [];
  let row: string[] = [];
  let cell = "";
  let isQuoted = false;
  for (let i = 0; i < text.length; i++) {
    const char = text[i] as string;
    if (isQuoted) {
      if (char !== '"') cell += char;
      else if (text[i + 1] === '"') cell += text[++i];
      else isQuoted = false;
    } else if (char === '"' && cell === "") {
      isQuoted = true;
    } else if (char === "\t") {
      row.push(cell);
      cell = "";
    } else if (char === "\n" || char === "\r") {
      if (char === "\r" && text[i + 1] === "\n") i++;
      rows.push([...row, cell]);
      row = [];
      cell = "";
    } else {
      cell += char;
    }
  }
  // spreadsheets end the last row with a line break
  if (cell !== "" || row.length > 0) rows.push([...row, cell]);
  return rows;
}

/** The text to copy for rows of cells. */
export function formatCells(rows: string[][]): string {
  const quoted = (cell: string) => (/[\t\r\n]|^"/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);
  return rows.map((row) => row.map(quoted).join("\t")).join("\n");
}

export type Rectangle = { top: number; left: number; bottom: number; right: number };

/**
 * Which cell gets which text when `cells` are pasted on `range` of a grid with so many rows and columns. A single cell, or a row
 * or column of cells, fills the range when the range is a multiple of it; else the pasted cells start at its corner.
 */
export function placeCells(
  cells: string[][],
  range: Rectangle,
  rowCount: number,
  columnCount: number,
): { row: number; column: number; text: string }[] {
  const height = cells.length;
  const width = Math.max(0, ...cells.map((row) => row.length));
  if (height === 0 || width === 0) return [];
  const repeats = (selected: number, copied: number) => (selected % copied === 0 ? selected : copied);
  const rows = repeats(range.bottom - range.top + 1, height);
  const columns = repeats(range.right - range.left + 1, width);
  const placed = [];
  for (let y = 0; y < rows && range.top + y < rowCount; y++) {
    for (let x = 0; x < columns && range.left + x < columnCount; x++) {
      const text = cells[y % height]?.[x % width];
      if (text !== undefined) placed.push({ row: range.top + y, column: range.left + x, text });
    }
  }
  return placed;
}
