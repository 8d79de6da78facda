"""TF-IDF + SVD: plain words, fitted on the train texts."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.sparse import csr_array, diags_array

from symcere.errors import DataError, OutputError
from symcere.heap import give_back
from symcere.manifest import digest, digest_array
from symcere.mapped import map_tensors, write_tensors
from symcere.text.cache import NO_CACHE, VectorCache
from symcere.text.conditioning import AS_IS, Conditioning
from symcere.text.corpus import Corpus
from symcere.text.deletion import Bag
from symcere.text.encoders import OnProgress, TextEncoder
from symcere.text.lift import lift_weights, of_some_users
from symcere.text.svd import term_directions
from symcere.text.vocabulary import count_terms
from symcere.text.words import Vocabulary, terms_of

FITTED_ON = 100_000
"""Reviews at most that terms and SVD are learned from: a random sample of the train texts, or of whole users."""

_VERSION = 2  # of what is learned from the same texts: vectors that are kept of another stand beside these


@dataclass(frozen=True)
class TfidfEncoder(TextEncoder):
    """TF-IDF of words and word pairs, reduced by truncated SVD (latent semantic analysis).

    Args:
        text_dim: Length of a vector, cut to what the texts allow.
        max_terms: Most frequent terms to keep.
        lifted: Whether a term also weighs by its lift: how much oftener than by chance it comes back.
        conditioning: The vectors are taken as they are.
    """

    text_dim: int = 384
    max_terms: int = 50_000
    lifted: bool = False
    conditioning: Conditioning = AS_IS

    @property
    def name(self) -> str:
        """Short name, as on the command line."""
        return "lift" if self.lifted else "tfidf"

    def fit(
        self, corpus: Corpus, cache: VectorCache = NO_CACHE, on_progress: OnProgress | None = None
    ) -> "FittedTfidf":
        """Take note of the train texts; vocabulary and SVD are learned when the first text is encoded.

        Args:
            corpus: Train texts only; of more than 100,000 a random sample is learned from.
            cache: Keeps the vectors of terms, where somebody asks for them.
            on_progress: Not called.

        Returns:
            The encoder.

        Raises:
            DataError: If terms are to be lifted, and the corpus does not know its users and items.
        """
        del on_progress
        pairs: list[str] = []
        if self.lifted:
            if corpus.pairs is None:
                raise DataError("Lift needs to know who wrote each text of which item; these are texts alone.")
            written = (corpus.text_of, *corpus.pairs)  # which text by whom of what, in an order that no file decides
            order = np.lexsort(written[::-1])
            pairs = [digest_array(side[order]) for side in written]
        fingerprint = digest(self.name, self.text_dim, self.max_terms, corpus.fingerprint, pairs, _VERSION)
        return FittedTfidf(corpus, self.text_dim, self.max_terms, fingerprint, self.lifted, cache)


class _Parts(NamedTuple):
    """The vector of each term, and the weights of the texts learned from, which need not be read twice.

    Args:
        table: The terms and their vectors.
        weights: Terms of the texts learned from.
        row_of: Row of each of these, unless there are many.
    """

    table: "TermVectors"
    weights: csr_array
    row_of: dict[str, int]


@dataclass(frozen=True, eq=False)
class FittedTfidf:
    """TF-IDF with its vocabulary and its SVD."""

    corpus: Corpus
    text_dim: int
    max_terms: int
    fingerprint: str
    lifted: bool = False
    cache: VectorCache = NO_CACHE
    reach: int = 2**31
    half: bool = True

    @cached_property
    def parts(self) -> "_Parts":
        """What is learned, once."""
        texts, pairs = self._sample()
        terms, counts = count_terms(texts, most=self.max_terms)
        if not terms:
            raise DataError(
                f"TF-IDF needs a word that occurs in at least two of the {len(self.corpus.review):,} train "
                "texts, and not in half of them; there is none. Check the text column, or use --encoder sentence."
            )
        n_texts = np.bincount(counts.indices, minlength=len(terms)).astype(np.float32)
        idf = np.log((np.float32(len(texts)) + 1) / (n_texts + 1)) + 1
        weights = _weighed(counts, idf)
        if pairs:
            lift = lift_weights(weights, *pairs)
            idf *= lift
            weights = csr_array(weights @ diags_array(lift))
        table = TermVectors(terms, idf, term_directions(weights, max(1, min(self.text_dim, min(weights.shape) - 1))))
        give_back()
        if len(self.corpus.review) > FITTED_ON:  # those learned from are but some
            return _Parts(table, weights[:0], {})
        return _Parts(table, weights, {text: row for row, text in enumerate(texts)})

    def _sample(self) -> tuple[list[str], tuple[ndarray, ndarray] | None]:
        """Texts to learn from, in an order that no file decides; with their users and items where these matter."""
        corpus = self.corpus
        if not self.lifted or corpus.pairs is None:
            return corpus.sample(FITTED_ON), None
        (user, item), text = corpus.pairs, corpus.text_of
        rows = of_some_users(user, FITTED_ON)
        rows = rows[text[rows] >= 0]
        rows = rows[np.lexsort((item[rows], user[rows], text[rows]))]
        return corpus.take(text[rows]), (user[rows], item[rows])

    def encode(self, texts: Sequence[str]) -> Float[ndarray, "texts text_dim"]:
        """Unit vectors of `texts`; a text without a known word gets a zero vector."""
        table, weights, row_of = self.parts
        row = np.array([row_of.get(text, -1) for text in texts], dtype=np.int64)
        old, new = np.flatnonzero(row >= 0), np.flatnonzero(row < 0)
        vectors = np.empty((len(texts), table.rows.shape[1]), dtype=np.float32)
        vectors[old] = weights[row[old]] @ table.rows
        if len(new):
            vectors[new] = table.weights([texts[at] for at in new.tolist()]) @ table.rows
        return _unit(vectors)

    @cached_property
    def table(self) -> "TermVectors":
        """The vector of each term, which is all that reading needs: from the cache, or learned now."""
        try:
            return self.cache.kept(self.fingerprint, TermVectors.load, lambda: self.parts.table)
        except OutputError:  # it can be read all the same
            return self.parts.table


@dataclass(frozen=True, eq=False)
class TermVectors:
    """TF-IDF and SVD as rows to sum.

    Args:
        terms: Words, and pairs of words with a blank between.
        idf: Weight of each.
        rows: Vector of each.
    """

    terms: tuple[str, ...]
    idf: Float[ndarray, " terms"]
    rows: Float[ndarray, "terms text_dim"]

    def encode(self, texts: Sequence[str]) -> Float[ndarray, "texts text_dim"]:
        """Unit vectors of `texts`; a text without a known word gets a zero vector."""
        return _unit(self.weights(texts) @ self.rows)

    def weights(self, texts: Sequence[str]) -> csr_array:
        """Weight of each term of `texts`, rows of unit length."""
        known, of_word, of_pair = self._vocabulary
        word, text, pair, pair_text = known.found_in(texts)
        term, text = np.append(of_word[word], of_pair[pair]), np.append(text, pair_text)
        key, count = np.unique((text * len(self.terms) + term)[term >= 0], return_counts=True)
        text, term = np.divmod(key, len(self.terms))
        offsets = np.searchsorted(text, np.arange(len(texts) + 1))
        return _weighed(csr_array((count.astype(np.float32), term, offsets), (len(texts), len(self.terms))), self.idf)

    def bag(self, texts: Sequence[str]) -> Bag:
        """`texts` as sums over their terms, of which some can be left out."""
        terms = terms_of(texts)
        known, of_word, of_pair = self._vocabulary
        word, pair = known.rows_of(terms)
        row = np.where(word >= 0, np.append(of_word, -1)[word], np.append(of_pair, -1)[pair])
        return Bag.of(len(texts), terms, [(row, (1 + np.log(terms.count)) * self.idf[row], self.rows)])

    @cached_property
    def _vocabulary(self) -> tuple[Vocabulary, Int[ndarray, " words"], Int[ndarray, " pairs"]]:
        return Vocabulary.of(self.terms)

    def save(self, folder: Path) -> None:
        """Write the rows into an existing folder, as safetensors and JSON."""
        write_tensors(folder / "terms.safetensors", {"idf": self.idf, "rows": self.rows})
        (folder / "terms.json").write_text(json.dumps(self.terms), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "TermVectors":
        """Read what `save` wrote; the rows are mapped."""
        tensors = map_tensors(folder / "terms.safetensors")
        return cls(tuple(json.loads((folder / "terms.json").read_text(encoding="utf-8"))), **tensors)


def tfidf_encoder(text_dim: int = TfidfEncoder.text_dim) -> TfidfEncoder:
    """TF-IDF + SVD, fitted on the train texts: seconds for a corpus, and hard to beat where facts are words."""
    return TfidfEncoder(text_dim)


def lift_encoder(text_dim: int = TfidfEncoder.text_dim) -> TfidfEncoder:
    """TF-IDF + SVD of terms that also weigh by their lift: words that come back, such as "Waikiki", before "great".

    Args:
        text_dim: Length of a vector.

    Returns:
        The encoder; it learns from the pairs of train as well as from its texts.
    """
    return TfidfEncoder(text_dim, lifted=True)


def _weighed(counts: csr_array, idf: Float[ndarray, " terms"]) -> csr_array:
    """Weights of terms: (1 + log count) * idf, rows of unit length."""
    values = (np.log(counts.data) + 1) * idf[counts.indices]
    text = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    length = np.sqrt(np.bincount(text, values * values, minlength=counts.shape[0]))
    return csr_array(((values / length[text]).astype(np.float32), counts.indices, counts.indptr), counts.shape)


def _unit(vectors: Float[ndarray, "texts text_dim"]) -> Float[ndarray, "texts text_dim"]:
    """Vectors of unit length, or zero where they were."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-12), dtype=np.float32)
