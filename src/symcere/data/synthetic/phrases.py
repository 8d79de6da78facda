"""Texts at speed: a review is a run of phrases from a table, joined in one go for a whole block of reviews."""

from dataclasses import dataclass
from itertools import islice

import numpy as np
import polars as pl
from jaxtyping import Bool, Int, UInt8
from numpy import ndarray

from symcere import rng
from symcere.data.synthetic.vocabulary import FACTS, FILLERS, SENTIMENTS

_N_FILLERS, _PER_FACT, _PER_FEELING = 8_192, 16, 64  # phrases of each kind
_RARE = 4_000  # made-up words, as names and typos are in real reviews
_SYLLABLES = "ba ce di fo gu ha je ki lo mu na pe ri so tu va we xi yo zu".split()
_WORDS_A_PHRASE = 5.5
_MEAN_WORDS, _SPREAD, _MOST_WORDS = 60, 0.9, 1_000


@dataclass(frozen=True, eq=False)
class Phrases:
    """What reviews are made of: phrases without meaning, about a fact, of a feeling; then the end of a review.

    Args:
        table: All phrases, each with a blank at its end; the last one is a line feed.
        titles: Titles by feeling (bad, neutral, good), word and fact; the last fact is none.
    """

    table: ndarray
    titles: ndarray

    def write(
        self,
        likes: UInt8[ndarray, "reviews 3"],
        has: UInt8[ndarray, "reviews 3"],
        rating: Int[ndarray, " reviews"],
        draws: np.random.Generator,
    ) -> tuple[pl.Series, pl.Series]:
        """Write a text and a title for each review.

        Args:
            likes: Facts that its user likes.
            has: Facts that its item has: the ones it speaks of, liked ones more often.
            rating: Stars, which decide the words of feeling.
            draws: Where randomness comes from.

        Returns:
            Texts and titles.
        """
        n = len(has)
        liked: Bool[ndarray, "reviews 3"] = (has[:, :, None] == likes[:, None, :]).any(2)
        facts = np.take_along_axis(has, np.argsort(~liked, axis=1, kind="stable"), axis=1).astype(np.int64)
        feeling = np.where(rating <= 2, 0, np.where(rating == 3, 1, 2))
        n_words = np.exp(draws.normal(np.log(_MEAN_WORDS) - _SPREAD**2 / 2, _SPREAD, n))
        n_phrases = np.ceil(np.minimum(n_words, _MOST_WORDS) / _WORDS_A_PHRASE).astype(np.int64)
        review = np.repeat(np.arange(n), n_phrases + 1)
        kind, which, other = draws.random((3, len(review)))
        fact = facts[review, (3 * other**2).astype(np.int64)]
        phrase = np.where(
            kind < 0.25,
            _N_FILLERS + fact * _PER_FACT + (which * _PER_FACT).astype(np.int64),
            np.where(
                kind < 0.45,
                _N_FILLERS + len(FACTS) * _PER_FACT + feeling[review] * _PER_FEELING
                + (which * _PER_FEELING).astype(np.int64),
                (which * _N_FILLERS).astype(np.int64),
            ),
        )  # fmt: skip
        phrase[np.cumsum(n_phrases + 1) - 1] = len(self.table) - 1
        text = pl.Series("".join(self.table[phrase].tolist()).split("\n")[:-1], dtype=pl.String)
        word = draws.integers(0, self.titles.shape[1], n)
        said = np.where(draws.random(n) < 0.5, facts[:, 0], len(FACTS))
        title = pl.Series(self.titles[feeling, word, said].tolist(), dtype=pl.String)
        return text.str.strip_chars_end(" "), title


def phrases(seed: int) -> Phrases:
    """Make the phrases of a world."""
    draws = rng.stream(seed, "world phrases")
    rare = [
        "".join(_SYLLABLES[n] for n in draws.integers(0, len(_SYLLABLES), size))
        for size in draws.integers(2, 5, _RARE)
    ]
    vocabulary = (*FILLERS, *rare)
    usual = 1 / (np.arange(len(FILLERS)) + 5)
    weight = np.concatenate([0.9 * usual / usual.sum(), np.full(_RARE, 0.1 / _RARE)])
    said = [fact for fact in FACTS for _ in range(_PER_FACT)]
    said += [words[n % len(words)] for words in SENTIMENTS for n in range(_PER_FEELING)]
    lengths = draws.integers(3, 9, _N_FILLERS).tolist()
    around = draws.integers(1, 4, (len(said), 2)).tolist()
    total = sum(lengths) + sum(before + after for before, after in around)
    fillers = (vocabulary[word] for word in draws.choice(len(vocabulary), total, p=weight).tolist())
    made = [" ".join(islice(fillers, length)) for length in lengths]
    made += [
        " ".join([*islice(fillers, before), word, *islice(fillers, after)])
        for word, (before, after) in zip(said, around, strict=True)
    ]
    ends = draws.choice([" ", ", ", ". "], len(made), p=[0.5, 0.2, 0.3])
    table = np.array([*(f"{phrase}{end}" for phrase, end in zip(made, ends, strict=True)), "\n"], dtype=object)
    titles = [
        [[f"{word} {fact}".strip().capitalize() for fact in (*FACTS, "")] for word in words] for words in SENTIMENTS
    ]
    return Phrases(table, np.array(titles, dtype=object))
