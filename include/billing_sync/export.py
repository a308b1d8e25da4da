"""Tables as files for spreadsheets, CSV and XLSX, made in pieces so that 100,000 rows need little memory.

Texts come from outside and never become formulas: in CSV a text that a spreadsheet would read as one gets an apostrophe
in front, in XLSX every text is stored as a text. Money stays Decimal until the file's own digits are written.
"""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import xlsxwriter

from billing_sync.mappings import FORMULA_BEGINS

ROWS_PER_PIECE = 1000
BYTES_PER_PIECE = 64 * 1024
LONGEST_CELL = 32_767  # of Excel
SHEET_NAME = 31
MONEY_FORMAT = "#,##0.00"
NUMBER_FORMAT = "0.############"
ALSO_FORMULA_BEGINS = (*FORMULA_BEGINS, "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the wide forms of = + - @, too

Cell = str | int | bool | Decimal | date | datetime | None


class Money(Decimal):
    """An amount: shown with two decimals."""


def csv_chunks(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Iterator[bytes]:
    """A CSV file (UTF-8 with the mark that Excel wants, commas, CRLF) in pieces."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    buffer.write("\ufeff")
    writer.writerow(header)
    for number, row in enumerate(rows, start=1):
        writer.writerow([_csv_cell(cell) for cell in row])
        if number % ROWS_PER_PIECE == 0:
            yield buffer.getvalue().encode()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue().encode()


def _csv_cell(cell: Cell) -> str:
    match cell:
        case None:
            return ""
        case bool():
            return "yes" if cell else "no"
        case Decimal():
            return f"{cell:f}"
        case datetime():
            return f"{cell.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
        case str():
            return f"'{cell}" if cell.startswith(ALSO_FORMULA_BEGINS) else cell
        case _:
            return str(cell)


def xlsx_chunks(title: str, header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Iterator[bytes]:
    """An Excel workbook with one sheet, in pieces; it is made in a temporary file first. Times are in UTC."""
    with tempfile.TemporaryFile(prefix="billing-export-") as file:
        # In constant_memory each row is written to disk when the next one begins.
        book = xlsxwriter.Workbook(file, {"constant_memory": True, "default_date_format": "yyyy-mm-dd"})
        formats = {
            Money: book.add_format({"num_format": MONEY_FORMAT}),
            Decimal: book.add_format({"num_format": NUMBER_FORMAT}),
            datetime: book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"}),
        }
        sheet = book.add_worksheet(title[:SHEET_NAME])
        sheet.freeze_panes(1, 0)
        bold = book.add_format({"bold": True})
        for column, name in enumerate(header):
            sheet.write_string(0, column, name, bold)
        for number, row in enumerate(rows, start=1):
            for column, cell in enumerate(row):
                _write_cell(sheet, number, column, cell, formats)
        book.close()
        file.seek(0)
        while piece := file.read(BYTES_PER_PIECE):
            yield piece


def _write_cell(sheet: Any, row: int, column: int, cell: Cell, formats: dict[type, Any]) -> None:
    match cell:
        case None | "":
            return
        case bool():
            sheet.write_string(row, column, "yes" if cell else "no")
        case Decimal() | int():
            sheet.write_number(row, column, cell, formats.get(type(cell)))
        case datetime():
            sheet.write_datetime(row, column, cell.astimezone(UTC).replace(tzinfo=None), formats[datetime])
        case date():
            sheet.write_datetime(row, column, cell)
        case _:
            sheet.write_string(row, column, cell[:LONGEST_CELL])
