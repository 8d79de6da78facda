"""Which words are objective and which subjective: a public lexicon of sentiment, parts of speech, and item metadata.

Subjective: in VADER's lexicon. Objective: not in it, and a term of the items' titles or categories, or a word that
can be a noun and no adjective or adverb, or one that no dictionary has: names, models, units. The rest (function
words, verbs, adjectives of neither kind) is left out of the comparison.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from symcere.data.items import Items
from symcere.text.words import words as words_of

_LEAST_VALENCE = 1.0  # of 4: below it raters hardly agree on the sign
_LEAST_ENGLISH = 0.2  # share of function words among all words of a text in English: about .45

# What contractions leave as words, or are written as without an apostrophe, where reviews have it for the contraction
# more often than for a word of its own: "won" in 94 of 100 cases, "haven" in 95, "wont" wherever we looked (Musical
# Instruments, TripAdvisor, All Beauty). Not "nt", as often a night ("$170/nt"), nor "ill", "id", "wed", "shed",
# "shell" and "hell", which are words; "well" and "were" are function words anyhow.
_NEGATED = "ai are could did do does had has have is might must need ought sha should was were wo would".split()
_JOINED = (
    "im ive youre youve youll youd hes shes itd itll weve theyre theyve theyll theyd thats thatll theres heres "
    "wheres whats whos couldve shouldve wouldve mustve yall tis em gonna wanna gotta kinda sorta dunno gimme "
    "lemme cuz"
).split()
CONTRACTIONS = frozenset(
    ["ve", "ll", "re", "cant", *(f"{verb}{end}" for verb in _NEGATED for end in ("n", "nt")), *_JOINED]
)
"""Words that are left of English contractions: "don t" and "dont", "i ve" and "ive"."""


@dataclass(frozen=True, eq=False)
class Classes:
    """Class of each of some words.

    Args:
        objective: Which are objective.
        subjective: Which are subjective.
        english: Whether the texts are English, without which the lexicon says nothing.
    """

    objective: Bool[ndarray, " words"]
    subjective: Bool[ndarray, " words"]
    english: bool

    def name(self, place: int) -> str:
        """Class of a word, for a table."""
        return "objective" if self.objective[place] else "subjective" if self.subjective[place] else "other"


def classes_of(words: Sequence[str], n_reviews: Sequence[int] | ndarray, items: Items) -> Classes:
    """Sort words into classes.

    Args:
        words: The words, as `symcere.text.words` has them.
        n_reviews: Reviews that have each, to tell the language.
        items: Titles and categories.

    Returns:
        The classes.

    Source:
        Hutto and Gilbert, VADER, ICWSM 2014: the lexicon. LemmInflect, after NIH's SPECIALIST lexicon: the nouns.
    """
    from lemminflect import getAllLemmas

    stop = is_function_word(words)
    feeling = np.array([word in sentiment_words() for word in words], dtype=bool)
    named = item_terms(items)

    def is_thing(word: str) -> bool:
        kinds = getAllLemmas(word)
        return word in named or not kinds or ("NOUN" in kinds and not {"ADJ", "ADV"} & kinds.keys())

    thing = np.array([is_thing(word) for word in words], dtype=bool)
    total = max(float(np.sum(n_reviews)), 1.0)
    english = bool(len(words)) and float(np.sum(np.asarray(n_reviews)[stop])) / total >= _LEAST_ENGLISH
    return Classes(thing & ~feeling & ~stop, feeling & ~stop, english)


def is_function_word(words: Sequence[str]) -> Bool[ndarray, " words"]:
    """Which are English function words, what contractions leave of them, or single letters and digits."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return np.array(
        [word in ENGLISH_STOP_WORDS or word in CONTRACTIONS or _is_letter(word) for word in words], dtype=bool
    )


def _is_letter(word: str) -> bool:
    """Whether it is one ASCII character, as is what stands behind many an apostrophe: "don t", "it s"."""
    return len(word) == 1 and word.isascii()


@cache
def sentiment_words() -> Collection[str]:
    """Words of VADER's lexicon with a valence of at least 1 of 4 either way."""
    lines = (files("vaderSentiment") / "vader_lexicon.txt").read_text(encoding="utf-8").splitlines()
    rows = (line.split("\t") for line in lines if line.strip())
    rated = ((row[0], float(row[1])) for row in rows)
    return frozenset(word for word, valence in rated if abs(valence) >= _LEAST_VALENCE and words_of(word) == [word])


def item_terms(items: Items) -> Collection[str]:
    """Words of the items' titles and categories."""
    texts = items.table["title"].to_list() + items.table["category"].to_list()
    return frozenset(word for text in texts for word in words_of(text))
