import { describe, expect, test } from "vitest";
import { formatCells, parseCells, placeCells } from "./clipboard";

describe("cells of the clipboard", () => {
  test("read as a spreadsheet writes them", () => {
    expect(parseCells("1\t2\r\n3\t4\r\n")).toEqual([["1", "2"], ["3", "4"]]);
    expect(parseCells("5")).toEqual([["5"]]);
    expect(parseCells("")).toEqual([]);
    expect(parseCells("a\t\n\tb")).toEqual([["a", ""], ["", "b"]]);
  });

  test("keep tabs, line breaks and quotes inside a cell", () => {
    const cells = [["a\tb", 'say "x"'], ["two\nlines", '"']];
    expect(parseCells(formatCells(cells))).toEqual(cells);
  });

  test("a quote inside a cell is itself", () => {
    expect(parseCells('19" rack\t1')).toEqual([['19" rack', "1"]]);
  });
});

describe("pasting", () => {
  const range = { top: 1, left: 1, bottom: 3, right: 1 };

  test("one cell fills the range", () => {
    expect(placeCells([["x"]], range, 10, 10).map((cell) => cell.row)).toEqual([1, 2, 3]);
  });

  test("several cells start at the corner and end with the grid", () => {
    expect(placeCells([["a", "b"], ["c", "d"]], { top: 9, left: 9, bottom: 9, right: 9 }, 10, 10)).toEqual([
      { row: 9, column: 9, text: "a" },
    ]);
  });

  test("a range that is a multiple repeats what was copied", () => {
    const placed = placeCells([["a"], ["b"]], { top: 0, left: 0, bottom: 3, right: 0 }, 10, 10);
    expect(placed.map((cell) => cell.text)).toEqual(["a", "b", "a", "b"]);
  });

  test("rows that are shorter leave the cells beside them alone", () => {
    expect(placeCells([["a", "b"], ["c"]], { top: 0, left: 0, bottom: 0, right: 0 }, 10, 10)).toHaveLength(3);
  });
});
