"""Tables as spreadsheets and scripts write them: any delimiter, encoding, line end."""

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from datamodules.errors import DataError

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_EXCEL_HINT = re.compile(r"sep=.?", re.IGNORECASE)


@dataclass(frozen=True)
class Delimited:
    """A table's header and rows, cells without the blanks around them."""

    path: Path
    columns: list[str]
    """Names in lower case."""
    rows: Iterator[tuple[int, list[str]]]
    """Line number in the file and cells, as many as columns; no blank lines."""


def open_delimited(
    path: Path,
    needed: Sequence[str],
    optional: str = "[,fx,fy,cx,cy][,depth_scale]",
) -> Delimited:
    """Begin to read a table: UTF-8 or UTF-16, with or without a byte order mark.

    The delimiter is the one with which the first line has the columns that are needed.
    Rows are read as they are asked for, which raises the errors of later lines.

    Args:
        path: The file.
        needed: Names of columns, in lower case.
        optional: What else there may be, for messages.

    Raises:
        DataError: Naming the file, the line where there is one, and what to change.
    """
    text = _decoded(path)
    headers: dict[str, list[str]] = {}
    for delimiter in DELIMITERS:
        number, header = next(_rows(path, text, delimiter), (0, []))
        names = [cell.lower() for cell in header]
        headers[delimiter] = names
        if set(needed) <= set(names):
            twice = sorted({name for name in names if name and names.count(name) > 1})
            if twice:
                raise DataError(
                    f"{path} line {number} has the column {twice[0]!r} twice; remove "
                    "or rename one"
                )
            rows = _whole_rows(path, text, delimiter, header)
            return Delimited(path, names, rows)
    found = max(headers.values(), key=len)
    kinds = ", ".join(DELIMITERS.values())
    raise DataError(
        f"{path} has the columns {', '.join(found) or 'none'}; its first line must be "
        f"{','.join(needed)}{optional} (apart by one of {kinds})"
    )


def _decoded(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    coding = "utf-16" if content.startswith(_UTF16) else "utf-8-sig"
    try:
        text = content.decode(coding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path} line {line} has bytes that are not {coding.removesuffix('-sig')}; "
            "save it as 'CSV UTF-8'"
        ) from None
    if "\0" in text:
        raise DataError(
            f"{path} holds zero bytes: a spreadsheet itself, or UTF-16 without its "
            "mark; save it as 'CSV UTF-8'"
        )
    return text


def _rows(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and stripped cells of the lines that are not blank."""
    source = io.StringIO(text, newline="")
    reader = csv.reader(source, delimiter=delimiter, skipinitialspace=True, strict=True)
    number = 1
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            hint = number == 1 and _EXCEL_HINT.fullmatch("".join(cells))
            if any(cells) and not hint:
                yield number, cells
            number = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path} line {number}: {error}; a quotation mark is not closed, or stands "
            "within a cell"
        ) from None


def _whole_rows(
    path: Path, text: str, delimiter: str, header: list[str]
) -> Iterator[tuple[int, list[str]]]:
    rows = _rows(path, text, delimiter)
    next(rows)
    width = len(header)
    for number, cells in rows:
        if len(cells) > width:
            if any(cells[width:]):
                raise DataError(
                    f"{path} line {number} has {len(cells)} cells, the first line "
                    f"{width} columns; put cells that hold {delimiter!r} into "
                    "quotation marks"
                )
            del cells[width:]
        yield number, cells + [""] * (width - len(cells))
