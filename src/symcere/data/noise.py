"""Noise for tests of robustness: what people write is misspelt, cut off, misplaced, missing or spam.

Only the text of train reviews is touched. Interactions, ratings and times stay, and held-out parts have no text that
could be. The reviews hit at a lower rate are among those hit at a higher one, so that curves over rates are smooth.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeAlias

import numpy as np
import polars as pl
from jaxtyping import Bool, Int
from numpy import ndarray

from symcere import rng
from symcere.data.dataset import Dataset
from symcere.errors import ConfigError

SPAM = tuple(
    "click here free offer discount coupon deal limited sale cheap visit website lowest guaranteed winner prize "
    "bonus subscribe order today promo casino loan miracle cash earn online followers".split()
)
"""The words of spam: none of them is a fact, a filler or a sentiment of the made-up worlds."""

_BLOCK = 20_000  # reviews whose letters are in memory at a time
_N_ADVERTS = 1_000
_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


@dataclass(frozen=True)
class _Rated:
    """What all kinds have in common.

    Args:
        rate: Share that is hit, from 0 to 1.

    Raises:
        ConfigError: If the rate is not from 0 to 1.
    """

    name: ClassVar[str]
    rate: int | float

    def __post_init__(self) -> None:
        """Check the rate."""
        if not 0 <= self.rate <= 1:
            raise ConfigError(f"The rate of {self.name} must be a share from 0 to 1; found {self.rate}.")

    def hits(self, n: int, draws: np.random.Generator) -> Bool[ndarray, " n"]:
        """Which of n are hit."""
        return np.asarray(draws.random(n) < self.rate)


class Typos(_Rated):
    """Each word of title and text is misspelt with this probability.

    Two letters change places, one is dropped, doubled, or replaced by a neighbour: on the keyboard for Latin letters,
    in the alphabet for others. A word is a run of letters of any script; where an edit would leave it as it is, or
    leave nothing, a letter is doubled.
    """

    name = "typos"

    def __call__(self, review: pl.DataFrame, draws: np.random.Generator) -> pl.DataFrame:
        """The reviews, misspelt."""
        blocks = (review[start : start + _BLOCK] for start in range(0, max(len(review), 1), _BLOCK))
        return pl.concat(
            block.with_columns(_misspelt(block[column], self, draws) for column in ("title", "text"))
            for block in blocks
        )


class Truncation(_Rated):
    """This share of the texts is cut after a random word, never the last; one without blanks, after a character."""

    name = "truncation"

    def __call__(self, review: pl.DataFrame, draws: np.random.Generator) -> pl.DataFrame:
        """The reviews, some cut off."""
        hit, kept = self.hits(len(review), draws), draws.random(len(review))
        rows = np.flatnonzero(hit)
        words = pl.col("text").str.extract_all(r"\S+\s*")
        least = pl.max_horizontal(pl.lit(1), (words.list.len() * pl.col("share")).cast(pl.Int64))
        n_characters = (pl.col("text").str.len_chars() * pl.col("share")).ceil().cast(pl.Int64)
        cut = (
            pl.DataFrame({"text": review["text"].gather(rows).str.strip_chars(), "share": kept[rows]})
            .select(
                pl.when(words.list.len() > 1)
                .then(words.list.head(least).list.join("").str.strip_chars_end())
                .otherwise(pl.col("text").str.head(n_characters))
            )
            .to_series()
        )
        return _replaced(review, rows, text=cut)


class Shuffled(_Rated):
    """This share of the reviews, title and text, is exchanged among each other: each gets another one's."""

    name = "shuffled"

    def __call__(self, review: pl.DataFrame, draws: np.random.Generator) -> pl.DataFrame:
        """The reviews, some in one another's place."""
        hit, order = self.hits(len(review), draws), draws.permutation(len(review))
        rows = order[hit[order]]
        given = np.roll(rows, 1)  # round the circle, so that none gets its own
        return _replaced(review, rows, title=review["title"].gather(given), text=review["text"].gather(given))


class Missing(_Rated):
    """This share of the reviews loses title and text."""

    name = "missing"

    def __call__(self, review: pl.DataFrame, draws: np.random.Generator) -> pl.DataFrame:
        """The reviews, some empty."""
        rows = np.flatnonzero(self.hits(len(review), draws))
        empty = pl.repeat("", len(rows), eager=True)
        return _replaced(review, rows, title=empty, text=empty)


class Spam(_Rated):
    """This share of the texts is replaced by one of a thousand advertisements; titles and ratings stay."""

    name = "spam"

    def __call__(self, review: pl.DataFrame, draws: np.random.Generator) -> pl.DataFrame:
        """The reviews, some spam."""
        hit, which = self.hits(len(review), draws), draws.integers(0, _N_ADVERTS, len(review))
        adverts = pl.Series([" ".join(draws.choice(SPAM, n)) for n in draws.integers(8, 30, _N_ADVERTS)])
        rows = np.flatnonzero(hit)
        return _replaced(review, rows, text=adverts.gather(which[rows]))


Noise: TypeAlias = Typos | Truncation | Shuffled | Missing | Spam
"""One kind of noise at one rate."""

KINDS: tuple[type[Noise], ...] = (Typos, Truncation, Shuffled, Missing, Spam)
"""All kinds."""


def apply_noise(train: Dataset, noises: Sequence[Noise], *, seed: int = 0) -> Dataset:
    """Return train with noise in its texts; everything else is as it was.

    Args:
        train: The train part of a split.
        noises: Applied in this order, each kind at most once.
        seed: Each kind has its own stream of it, so that adding one never changes what another hits.

    Returns:
        The same interactions. At rate 0 also the same texts, to the byte.

    Raises:
        ConfigError: If a kind is there twice.

    Example:
        >>> import symcere as sc
        >>> train = sc.split_random(sc.anchoring_world(30, 20, 5).reviews).train
        >>> (apply_noise(train, [Missing(1)]).review["text"] == "").all()
        True
    """
    names = [noise.name for noise in noises]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"Each kind of noise can be applied once; found {twice} {names.count(twice)} times.")
    review = train.review
    for noise in noises:
        review = noise(review, rng.stream(seed, f"noise {noise.name}"))
    return replace(train, review=review)


def _replaced(review: pl.DataFrame, rows: Int[ndarray, " hit"], **columns: pl.Series) -> pl.DataFrame:
    """Put new values into some rows of some columns."""
    order = np.argsort(rows)
    return review.with_columns(
        review[name].scatter(rows[order], values.gather(order)).alias(name) for name, values in columns.items()
    )


def _misspelt(texts: pl.Series, typos: Typos, draws: np.random.Generator) -> pl.Series:
    """Misspell all texts at once, as one array of code points."""
    if texts.is_empty():
        return texts
    listed = texts.to_list()
    alphabet = set().union(*listed)
    end = next(sign for sign in map(chr, range(0x10FFFF, 0, -1)) if sign not in alphabet)
    signs = np.frombuffer(end.join(listed).encode("utf-32-le"), dtype=np.uint32)
    known = np.array(sorted(map(ord, alphabet | {end})), dtype=np.uint32)
    index = np.zeros(0x110000, dtype=np.int32)
    index[known] = np.arange(len(known))
    letter = np.array([_is_letter(chr(sign)) for sign in known])[index[signs]]
    edge = np.flatnonzero(np.diff(letter, prepend=False, append=False))
    start, stop = edge[::2], edge[1::2]
    hit, kind, place, other = typos.hits(len(start), draws), *draws.random((3, len(start)))
    start, size, kind, other = start[hit], (stop - start)[hit], (4 * kind[hit]).astype(np.int64), other[hit]
    at = start + (place[hit] * size).astype(np.int64)
    partner = np.where(at + 1 < start + size, at + 1, at - 1)
    partner = np.where(size > 1, partner, at)
    neighbours = [_neighbours(chr(sign)) for sign in known]
    n_neighbours = np.array([len(near) for near in neighbours])
    first = np.concatenate([[0], np.cumsum(n_neighbours)])
    near = np.array([ord(sign) for signs_near in neighbours for sign in signs_near] or [0], dtype=np.uint32)
    code = index[signs[at]]
    swap = (kind == 0) & (signs[at] != signs[partner])
    drop = (kind == 1) & (size > 1)
    change = (kind == 2) & (n_neighbours[code] > 0)
    edited = signs.copy()
    edited[at[swap]], edited[partner[swap]] = signs[partner[swap]], signs[at[swap]]
    edited[at[change]] = near[(first[code] + (other * n_neighbours[code]).astype(np.int64))[change]]
    times = np.ones(len(signs), dtype=np.int8)
    times[at[drop]] = 0
    times[at[~(swap | drop | change)]] = 2
    made = np.repeat(edited, times).tobytes().decode("utf-32-le").split(end)
    return pl.Series(texts.name, made, dtype=pl.String)


def _is_letter(sign: str) -> bool:
    """Whether a sign is a letter, or a mark on one."""
    return unicodedata.category(sign)[0] in "LM"


def _neighbours(sign: str) -> str:
    """The letters next to a letter on the keyboard, or in the alphabet of another script."""
    if not _is_letter(sign):
        return ""
    for above, row in zip(("", *_KEYS), _KEYS, strict=False):
        column = row.find(sign.lower())
        if column >= 0:
            near = row[max(column - 1, 0) : column] + row[column + 1 : column + 2] + above[column : column + 2]
            return near.upper() if sign.isupper() else near
    kind = unicodedata.category(sign)
    around = (ord(sign) - 1, ord(sign) + 1)
    return "".join(chr(n) for n in around if 0 < n < 0x110000 and unicodedata.category(chr(n)) == kind)
