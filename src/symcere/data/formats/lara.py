"""TripAdvisor's text files of the LARA corpus: one hotel a file, a review a group of lines that begin with a tag."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from symcere.data.formats.rows import Rows
from symcere.errors import DataError

FIELDS = ("hotel", "author", "content", "date", "rating", "helpful")
START = (b"<Author>", b"<Overall Rating>")

_TAGS = {"author": "Author", "content": "Content", "date": "Date", "helpful": "No. Helpful"}


def read_lara(path: Path, blocks: Iterator[bytes], mapping: dict[str, str]) -> Iterator[Rows]:
    """Parse the reviews of one hotel. The hotel is named by the file; the first number after <Rating> is overall.

    Args:
        path: The file; its name without what follows the first dot, and without "_parsed", is the hotel.
        blocks: Its content.
        mapping: Our column -> one of FIELDS.

    Yields:
        All reviews of the hotel at once: there are thousands at most.

    Raises:
        DataError: If there is no review.
    """
    text = b"".join(blocks).decode("utf-8", errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    reviews = pl.Series("review", text.split("<Author>")[1:], dtype=pl.String)
    if reviews.is_empty():
        raise DataError(f"{path} begins like a hotel of TripAdvisor (LARA), but holds no <Author>. Fetch it again.")
    whole = pl.format("<Author>{}", pl.col("review"))
    found = {name: whole.str.extract(rf"(?m)^<{tag}>(.*)$") for name, tag in _TAGS.items()}
    found["rating"] = whole.str.extract(r"(?m)^<(?:Rating|Overall)>\s*(-?[\d.]+)")
    found["hotel"] = pl.lit(path.name.split(".")[0].removesuffix("_parsed"))
    yield Rows(reviews.to_frame().select(found[theirs].alias(ours) for ours, theirs in mapping.items()), 0)
