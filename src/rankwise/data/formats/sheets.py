"""Spreadsheets, .xlsx, .xls and .ods, through python-calamine: a Rust reader without dependencies, ten times as
fast as openpyxl and read-only.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from typing import Any

from rankwise.data.columns import is_known
from rankwise.data.formats.dialect import has_header
from rankwise.data.formats.reader import rows_above_header
from rankwise.data.opening import Opener
from rankwise.data.table import SAMPLE_ROWS, SPLITS, Reading, Table
from rankwise.errors import UserError, counted, nearest


class Sheet(Table):
    """One sheet of a workbook; its cells are the strings that a CSV file of it would hold."""

    def __init__(self, file: Opener, reading: Reading) -> None:
        super().__init__(str(file.path))
        import python_calamine

        try:
            with file.whole() as content:
                book = python_calamine.CalamineWorkbook.from_filelike(content)
                sheets = {name: _cells(book.get_sheet_by_name(name)) for name in book.sheet_names}
        except (python_calamine.CalamineError, OSError, ValueError) as error:
            raise UserError(f"{self.name} is not a spreadsheet that can be read ({error}): save it again") from error
        name = self._chosen(sheets, file.part, reading)
        above = rows_above_header(sheets[name])
        first, *others = sheets[name][above:]
        self.facts = [f"sheet '{name}'"]
        if above:
            self.facts.append(f"{counted(above, 'row')} above the header left out")
        is_header = has_header(first, others[:SAMPLE_ROWS], reading)
        self.columns = tuple(cell.strip() for cell in first) if is_header else tuple(map(str, range(len(first))))
        self._header_rows = int(is_header)
        self._rows = others if is_header else [first, *others]
        if not is_header:
            self.facts.append("no header")

    def _chosen(self, sheets: dict[str, list[list[str]]], part: str | None, reading: Reading) -> str:
        """The sheet that is named, the only one that looks like a table of texts, or of these the role's."""
        if part is not None:
            if part not in sheets or not sheets[part]:
                raise UserError(
                    f"{self.name} has no sheet '{part}' with rows{nearest(part, sheets)}: its sheets are "
                    f"{', '.join(sheets)}"
                )
            return part
        filled = [name for name, rows in sheets.items() if rows]
        if not filled:
            raise UserError(f"{self.name} is empty: no sheet holds rows")
        telling = [name for name in filled if len(sheets[name]) > 1 and any(map(is_known, sheets[name][0]))]
        likely = telling or filled
        of_role = [name for name in likely if name.strip().lower() in SPLITS[reading.role]]
        likely = of_role if len(of_role) == 1 else likely
        if len(likely) > 1:
            raise UserError(
                f"{self.name} has several sheets that may be meant, {' and '.join(repr(n) for n in likely[:4])}: "
                f"name one, as in {self.name}[{likely[0]}]"
            )
        return likely[0]

    def records(self) -> Iterator[list[str]]:
        for cells in self._rows:
            self.row += 1
            self.line = self.row + self._header_rows
            yield cells


def _cells(sheet: Any) -> list[list[str]]:
    """Rows of strings, without blank rows and without columns that are blank throughout at the right.

    What is written once over several rows, whose cells were merged, stands in each of them.
    """
    written = [[_written(cell) for cell in row] for row in sheet.to_python()]
    above, before = sheet.start or (0, 0)  # what is blank before the first cell is left out
    for (top, left), (bottom, _) in sheet.merged_cell_ranges or ():
        for row in written[top + 1 - above : bottom + 1 - above]:
            row[left - before] = written[top - above][left - before]
    written = [row for row in written if any(cell.strip() for cell in row)]
    width = max((place + 1 for row in written for place, cell in enumerate(row) if cell.strip()), default=0)
    return [row[:width] for row in written]


def _written(cell: Any) -> str:
    """A cell as a CSV file would hold it."""
    if isinstance(cell, bool):
        return str(cell).upper()
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, (date, datetime)):
        return cell.isoformat()
    return str(cell)
