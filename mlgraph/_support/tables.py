"""Tables as text and as HTML, for the reprs of results."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlgraph._support.installation import install_command

if TYPE_CHECKING:
    import pandas

MOST_ROWS = 20


def to_pandas(columns: Mapping[str, npt.NDArray[Any]]) -> pandas.DataFrame:
    """A frame with copies of these columns; an ImportError names pandas if it is not installed."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError(f"to_pandas needs pandas ({error}): {install_command('pandas')}") from None
    return pandas.DataFrame({name: np.array(column) for name, column in columns.items()})


def some_rows(n: int, row: Callable[[int], Sequence[Any]]) -> list[list[str]]:
    """The cells of rows 0 to n - 1. Of more than `MOST_ROWS`, only the first and last, with dots between."""
    half = MOST_ROWS // 2
    if n <= MOST_ROWS:
        return [[cell(value) for value in row(i)] for i in range(n)]
    first, last = ([[cell(value) for value in row(i)] for i in some] for some in (range(half), range(n - half, n)))
    return [*first, ["..."] * len(first[0]), *last]


def cell(value: Any) -> str:
    """A value in a table: three digits of a float, and nothing for NaN or None."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.3g}"
    return "" if value is None else str(value)


def to_text(names: Sequence[str], rows: list[list[str]]) -> str:
    """Right-aligned columns under their names."""
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    lines = ["  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in [names, *rows]]
    return "\n".join(line.rstrip() for line in lines)


def to_html(names: Sequence[str], rows: list[list[str]]) -> str:
    """An HTML table; notebooks style it."""

    def line(tag: str, row: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(text)}</{tag}>" for text in row) + "</tr>"

    head, body = line("th", names), "\n".join(line("td", row) for row in rows)
    return f"<table>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"
