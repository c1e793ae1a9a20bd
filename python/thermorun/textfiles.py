"""Numbers in text files as people and programs write them: commas, semicolons, tabs or blanks, any line ends, a BOM."""

import codecs
from pathlib import Path

from thermorun.errors import InputError, short

# Lines that begin so are remarks: of NumPy, of Fortran programs, of Grace (.xvg), of MATLAB.
_REMARKS = ("#", "!", "@", "%")


Row = list[float | None]


def read_rows(name: str, path: Path) -> list[Row]:
    """The numbers of every line; None where a cell between commas, semicolons or tabs is empty.

    A first line of words is skipped.  Where semicolons separate, a comma is a decimal point.  Raises InputError, naming
    the argument ``name``, for a file that cannot be read or holds no numbers, and for a line that is none.
    """
    return [row for _, row in _numbered(name, path)]


def read_table(name: str, path: Path) -> list[list[float]]:
    """The same where all lines hold as many numbers.  Raises InputError where they do not."""
    table: list[list[float]] = []
    for number, cells in _numbered(name, path):
        row = [cell for cell in cells if cell is not None]
        if table and len(row) != len(table[0]):
            raise InputError(f"{name} is {path}, whose line {number} holds {len(row)} numbers, not {len(table[0])}.")
        if len(row) != len(cells):
            raise InputError(f"{name} is {path}, whose line {number} has an empty cell.")
        table.append(row)
    return table


def headings(name: str, path: Path) -> list[str]:
    """The words of the first line, in a remark too; numbers where it holds these.  Raises InputError."""
    return _cells(next(iter(_text(name, path).splitlines()), "").lstrip("# "))


def _numbered(name: str, path: Path) -> list[tuple[int, Row]]:
    rows: list[tuple[int, Row]] = []
    headed = False
    for number, line in enumerate(_text(name, path).splitlines(), 1):
        text = line.partition("#")[0].strip(" ")
        if not text.strip() or text.startswith(_REMARKS):
            continue
        try:
            rows.append((number, [float(cell) if cell else None for cell in _cells(text)]))
        except ValueError:
            if rows or headed or _begins_with_a_number(text):
                raise InputError(f"{name} is {path}, whose line {number} is {short(line)}, not numbers.") from None
            headed = True
    if not rows:
        raise InputError(f"{name} is {path}, which holds no numbers.")
    return rows


def _text(name: str, path: Path) -> str:
    try:
        content = path.read_bytes()
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return content.decode("utf-16" if wide else "utf-8-sig")
    except OSError as error:
        raise InputError(f"{name} is {path}, which cannot be read ({error.strerror or error}).") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is {path}, which is no text: save it as .csv in UTF-8.") from error


def _cells(text: str) -> list[str]:
    mark = next((mark for mark in ";,\t" if mark in text), None)
    cells = [cell.strip().strip('"') for cell in text.split(mark)]
    return [cell.replace(",", ".") for cell in cells] if mark == ";" else cells


def _begins_with_a_number(text: str) -> bool:
    try:
        float(_cells(text)[0])
    except ValueError:
        return False
    return True
