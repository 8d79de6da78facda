"""What every format gives: rows of text, and the sentences for lines that cannot be read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from symcere.errors import DataError

POLARS_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException)
"""What polars raises on damaged files; found by fuzzing, a panic is no PolarsError and not even an Exception."""

POLARS_UNPACKS = (b"\x1f\x8b", b"x\x01", b"x^", b"x\x9c", b"x\xda", b"\x28\xb5\x2f\xfd")
"""Polars takes text that begins like this for compressed; our blocks are text, whatever they begin with."""


@dataclass(frozen=True)
class Rows:
    """Some rows of a file.

    Args:
        table: Columns of text, or of numbers, under our names.
        n_bad: Lines dropped since the rows before, because they could not be parsed.
    """

    table: pl.DataFrame
    n_bad: int


def text_frame(rows: Sequence[Sequence[str | None]], columns: Mapping[str, object]) -> pl.DataFrame:
    """Rows as a table of text."""
    return pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")


def bad_line(path: Path, number: int, reason: str, *, what: str = "line") -> DataError:
    """Say which line, or other part of a file, cannot be parsed, why, and what to do."""
    return DataError(
        f"{path}, {what} {number}: cannot be parsed ({reason}). Mend the {what}, or pass --skip-bad to drop and "
        f"count such {what}s."
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's message, cut; some have none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
