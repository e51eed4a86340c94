"""CSV that a spreadsheet may open: no text in it is run as a formula. Pure.

As OWASP advises ("CSV Injection"): a text that would begin a formula gets an apostrophe before it,
and every text stands between quotes, so that no separator in it begins a cell of its own, whichever
separator the reader takes.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence

# Blanks and quotes before it do not count: readers drop them. The full-width forms are read as the
# plain ones by some.
_FORMULA = re.compile(r"[\s\"']*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")


def escape_formula(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula.

    >>> defused("=1+1"), defused("llama-3")
    ("'=1+1", 'llama-3')
    """
    return f"'{text}" if _FORMULA.match(text) else text


def to_csv(
    columns: Sequence[str], rows: Iterable[Sequence[str | int]], *, line_end: str = "\r\n"
) -> str:
    """Return a table as CSV (RFC 4180), with a line of titles.

    Args:
        columns: the titles.
        rows: texts, which are quoted and defused, and whole numbers, which stand as they are.
        line_end: what ends a line: the standard's, or the one of text files here.
    """
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_NONNUMERIC, lineterminator=line_end)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([cell if isinstance(cell, int) else escape_formula(cell) for cell in row])
    return out.getvalue()
