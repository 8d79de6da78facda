"""The train texts as encoders see them: cleaned, distinct ones once, in an order that no file decides."""

import hashlib
import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import polars as pl
from jaxtyping import Bool, Int, UInt64
from numpy import ndarray

from symcere.manifest import digest

Part = Literal["review", "title", "body"]
"""What is read of a review: title and body as one text, or one of them."""

_CHUNK = 65_536  # reviews cleaned at a time: what is in memory twice
_COLUMNS: dict[Part, tuple[str, ...]] = {"review": ("title", "text"), "title": ("title",), "body": ("text",)}


@dataclass(frozen=True, eq=False)
class Corpus:
    """Distinct texts of some reviews. A text is cleaned when it is asked for, so no second copy is held.

    Texts are ordered by their keys, which are hashes: the first n of them are a random sample that depends
    neither on the order of the file nor on a seed.

    Args:
        table: The reviews, columns title and text.
        part: What is read of each.
        review: Rows of `table` that have text.
        text: Which text each of these has.
        keys: Two words of a 128-bit hash of each text, sorted.
        row: A row of `table` where each text stands.
        length: Characters of each text.
        pairs: User and item of each row of `table`, where they are known.
    """

    table: pl.DataFrame
    part: Part
    review: Int[ndarray, " reviews"]
    text: Int[ndarray, " reviews"]
    keys: UInt64[ndarray, "texts 2"]
    row: Int[ndarray, " texts"]
    length: Int[ndarray, " texts"]
    pairs: tuple[Int[ndarray, " _"], Int[ndarray, " _"]] | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, texts: Int[ndarray, " some"] | slice) -> list[str]:
        """Cleaned texts by index."""
        return _texts(self.table[self.row[texts]], self.part).to_list()

    @cached_property
    def n_reviews(self) -> Int[ndarray, " texts"]:
        """How many reviews have each text."""
        return np.bincount(self.text, minlength=len(self))

    @cached_property
    def text_of(self) -> Int[ndarray, " table_rows"]:
        """Text of each row of `table`, -1 where it has none."""
        text = np.full(len(self.table), -1)
        text[self.review] = self.text
        return text

    def sample(self, n: int) -> list[str]:
        """Texts of `n` reviews, or of all if there are fewer, as often as they were written: a random sample."""
        return self.take(np.repeat(np.arange(len(self)), self.n_reviews)[:n])

    @property
    def fingerprint(self) -> str:
        """Digest of the texts and of how often each was written."""
        return digest([hashlib.sha256(part.tobytes()).hexdigest() for part in (self.keys, self.n_reviews)])


def corpus_of(
    reviews: pl.DataFrame | Sequence[str],
    part: Part = "review",
    pairs: tuple[Int[ndarray, " _"], Int[ndarray, " _"]] | None = None,
) -> Corpus:
    """Find the distinct texts of some reviews.

    Args:
        reviews: Reviews with the columns title and text; or the texts themselves.
        part: What to read of each review.
        pairs: User and item of each review, for encoders that learn which words come back.

    Returns:
        The corpus; reviews without text are not in it.

    Example:
        >>> corpus = corpus_of(["a <b>strap</b>", "", "a  strap", "a strap"])
        >>> len(corpus), corpus.review.tolist()
        (2, [0, 2, 3])
    """
    if not isinstance(reviews, pl.DataFrame):
        reviews = pl.DataFrame({"title": "", "text": pl.Series(list(reviews), dtype=pl.String)})
    review, keys, length = [], [], []
    for start in range(0, max(len(reviews), 1), _CHUNK):
        texts = _texts(reviews[start : start + _CHUNK], part)
        there = np.flatnonzero((texts != "").to_numpy())
        review.append(there + start)
        length.append(texts.str.len_chars().to_numpy()[there].astype(np.int64))
        keys.append(_keys(texts.gather(there).cast(pl.Binary).to_list()))
    key, where = np.concatenate(keys), np.concatenate(review)
    order, first = by_key(key)
    text = np.empty(len(order), dtype=np.int64)
    text[order] = np.cumsum(first) - 1
    kept = order[first]
    return Corpus(reviews, part, where, text, key[kept], where[kept], np.concatenate(length)[kept], pairs)


def by_key(keys: UInt64[ndarray, "reviews 2"]) -> tuple[Int[ndarray, " reviews"], Bool[ndarray, " reviews"]]:
    """Order reviews by the keys of their texts; and mark, in that order, the first review of each text."""
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    first = np.ones(len(order), dtype=bool)
    first[1:] = (keys[order[1:]] != keys[order[:-1]]).any(1)
    return order, first


def blocks(n: int, size: int = 8_192) -> Iterator[slice]:
    """Slices of at most `size` that cover 0..n-1: how many texts are in memory at a time."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def clean_text(texts: pl.Series) -> pl.Series:
    """Replace HTML tags by spaces and entities by their characters, as raw Amazon reviews need.

    Args:
        texts: Raw texts in any language.

    Returns:
        Cleaned texts, in the same order.

    Example:
        >>> clean_text(pl.Series(["Loud &#34;pop&#34;<br />gone"])).to_list()
        ['Loud "pop" gone']
    """
    plain = texts.str.replace_all(r"</?[A-Za-z][^<>]{0,300}>", " ")
    coded = plain.str.contains("&[#A-Za-z]")
    if not coded.any():
        return plain
    rows = coded.arg_true()
    return plain.scatter(rows, [html.unescape(text) for text in plain.gather(rows)])


def clean_texts(texts: Sequence[str]) -> list[str]:
    """Texts of somebody new as those of reviews are read; those that say nothing are left out."""
    cleaned = clean_text(pl.Series(texts, dtype=pl.String)).str.strip_chars()
    return cleaned.filter(cleaned != "").to_list()


def _texts(reviews: pl.DataFrame, part: Part) -> pl.Series:
    joined = reviews.select(pl.concat_str(_COLUMNS[part], separator="\n")).to_series()
    return clean_text(joined).str.strip_chars()


def _keys(texts: Sequence[bytes]) -> UInt64[ndarray, "texts 2"]:
    joined = b"".join(hashlib.blake2b(text, digest_size=16).digest() for text in texts)
    return np.frombuffer(joined, dtype=">u8").reshape(-1, 2).astype(np.uint64)
