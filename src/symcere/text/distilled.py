"""A static encoder made for one corpus: word and word-pair vectors, learned from a teacher that read a sample.

The vector of a text is a sum of rows, so it costs what looking up its words costs. Rows come from ridge regression
in closed form, on three kernels between bags of words:

    K = <words, words> + w_pairs <pairs, pairs> + w_prior <z, z>,     z = words @ (teacher's vectors of single words)
    rows of words = words_sample' a + w_prior prior (z_sample' a),    a = (K + ridge I)^-1 (teacher - mean)

The prior gives a word that the sample lacks the vector that the teacher has for it alone, mapped as the sample
teaches; the words' own kernel corrects the words that the sample has. Bags are TF-IDF rows of unit length.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from safetensors.numpy import load_file

from symcere.errors import DataError
from symcere.manifest import digest
from symcere.mapped import write_tensors
from symcere.text.cache import NO_CACHE, VectorCache
from symcere.text.conditioning import WHITENED, Conditioning
from symcere.text.corpus import Corpus, blocks, corpus_of
from symcere.text.deletion import Bag
from symcere.text.encoders import FittedEncoder, OnProgress, Progress, TextEncoder, TextVectors
from symcere.text.sentence import SentenceEncoder
from symcere.text.words import Bags, Vocabulary, count_words, terms_of

W_PAIRS = 0.3
W_PRIOR = 1.0
RIDGES = (0.5, 1.0, 2.0, 4.0)
"""Tried on a held-out part of the sample; the one nearest the teacher is taken."""

_COUNTED = 200_000  # reviews whose words are counted for the vocabulary: a random sample of the train texts
_MAX_WORDS = 50_000
_MAX_PAIRS = 50_000
_HELD_OUT = 0.125  # of the sample, to choose the ridge and to say how near the teacher the encoder comes


@dataclass(frozen=True)
class DistilledEncoder(TextEncoder):
    """Word vectors taught by a sentence encoder on a sample of the train texts.

    Args:
        n_sample: Train texts that the teacher reads; it also reads every word of the vocabulary once.
        teacher: Who teaches. One whose vectors are not cached teaches an encoder that is not cached either.
        conditioning: Centred and whitened, as the teacher's vectors are.
    """

    n_sample: int = 8_000
    teacher: TextEncoder = field(default_factory=SentenceEncoder)
    name: str = "distilled"
    conditioning: Conditioning = WHITENED

    @property
    def identity(self) -> str:
        """The settings, and what decides the teacher's vectors."""
        return f"{self!r} {self.teacher.identity}"

    @property
    def repeatable(self) -> bool:
        """Whether the teacher is."""
        return self.teacher.repeatable

    def fit(
        self, corpus: Corpus, cache: VectorCache = NO_CACHE, on_progress: OnProgress | None = None
    ) -> "FittedDistilled":
        """Take note of the train texts; teacher and regression are put to work when the first text is encoded.

        Args:
            corpus: Train texts only. A random sample of them is read by the teacher.
            cache: Keeps the teacher's vectors and the encoder once it is made.
            on_progress: Called while the teacher reads.

        Returns:
            The encoder.
        """
        teacher = self.teacher.fit(corpus, cache, on_progress)
        parts = (W_PAIRS, W_PRIOR, RIDGES, _COUNTED, _MAX_WORDS, _MAX_PAIRS)
        fingerprint = digest(self.name, self.n_sample, teacher.fingerprint, corpus.fingerprint, *parts)
        known = fingerprint if teacher.fingerprint is not None else None
        return FittedDistilled(corpus, self.n_sample, teacher, cache, on_progress, known)


@dataclass(frozen=True, eq=False)
class FittedDistilled:
    """The encoder of one corpus, made when it is first needed."""

    corpus: Corpus
    n_sample: int
    teacher: FittedEncoder
    cache: VectorCache
    on_progress: OnProgress | None
    fingerprint: str | None
    reach: int = 2**31
    half: bool = True

    @cached_property
    def table(self) -> "WordVectors":
        """Its word vectors: from the cache, or taught now."""
        return self.cache.kept(
            self.fingerprint,
            WordVectors.load,
            lambda: teach(self.corpus, self.n_sample, self.teacher, self.cache, self.on_progress),
        )

    def encode(self, texts: Sequence[str]) -> Float[ndarray, "texts text_dim"]:
        """Unit vectors of `texts`."""
        return self.table.encode(texts)


@dataclass(frozen=True, eq=False)
class WordVectors:
    """Rows to sum, and how to count.

    Args:
        bags: Counts words and pairs of a text.
        word: A row for each word.
        pair: A row for each pair of words.
        mean: Mean vector of the teacher, the vector of a text without a known word.
        ridge: The penalty that was chosen.
        agreement: Mean cosine with the teacher on texts of the sample that were held out, both centred.
    """

    bags: Bags
    word: Float[ndarray, "words text_dim"]
    pair: Float[ndarray, "pairs text_dim"]
    mean: Float[ndarray, " text_dim"]
    ridge: float
    agreement: float

    def encode(self, texts: Sequence[str]) -> Float[ndarray, "texts text_dim"]:
        """Unit vectors of `texts`: the mean plus the rows of their words and pairs."""
        words, pairs = self.bags(texts)
        vectors = words @ self.word + pairs @ self.pair + self.mean
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)

    def bag(self, texts: Sequence[str]) -> Bag:
        """`texts` as sums over their terms, of which some can be left out."""
        terms = terms_of(texts)
        word, pair = self.bags.rows_of(terms)
        tf = 1 + np.log(terms.count)
        blocks = [
            (word, tf * self.bags.idf[word], self.word),
            (pair, tf * self.bags.pair_idf[pair] if len(self.pair) else tf, self.pair),
        ]
        return Bag.of(len(texts), terms, blocks, self.mean)

    def save(self, folder: Path) -> None:
        """Write the encoder into an existing folder, as safetensors and JSON."""
        tensors = {
            "word": self.word, "pair": self.pair, "mean": self.mean, "idf": self.bags.idf, "pairs": self.bags.pairs,
            "pair_idf": self.bags.pair_idf,
        }  # fmt: skip
        write_tensors(folder / "vectors.safetensors", tensors)
        about = {"vocabulary": self.bags.words, "ridge": self.ridge, "agreement": self.agreement}
        (folder / "vocabulary.json").write_text(json.dumps(about), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "WordVectors":
        """Read what `save` wrote."""
        tensors = load_file(folder / "vectors.safetensors")
        about = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
        bags = Bags(about["vocabulary"], tensors["idf"], tensors["pairs"], tensors["pair_idf"])
        return cls(bags, tensors["word"], tensors["pair"], tensors["mean"], about["ridge"], about["agreement"])


def teach(
    corpus: Corpus,
    n_sample: int,
    teacher: FittedEncoder,
    cache: VectorCache = NO_CACHE,
    on_progress: OnProgress | None = None,
) -> WordVectors:
    """Learn word and pair vectors from a teacher.

    Args:
        corpus: Train texts.
        n_sample: Texts that the teacher reads: the first ones, which are a random sample.
        teacher: Any encoder.
        cache: Keeps what the teacher has read.
        on_progress: Called while it reads.

    Returns:
        The word vectors.

    Raises:
        DataError: If no word occurs in two texts.

    Source:
        The idea of static vectors from a sentence encoder is that of model2vec; the regression on a sample of the
        corpus is ours.
    """
    from scipy.linalg import cho_factor, cho_solve

    sample = corpus.take(slice(0, n_sample))
    bags = _vocabulary(corpus, sample)

    def read(texts: Sequence[str], phase: str) -> ndarray:
        texts_of = corpus_of(texts)
        vectors = TextVectors(teacher, texts_of, cache, on_progress, phase).all()
        out = np.zeros((len(texts), vectors.shape[1]), dtype=np.float32)
        out[texts_of.review] = vectors[texts_of.text]
        return out

    target = read(sample, "teacher reads")
    prior = read(bags.words, "teacher's words")
    if on_progress:
        on_progress(Progress("learning", 0, len(sample), 0.0))
    prior -= prior.mean(0)
    words, pairs = bags(sample)
    prior /= np.sqrt(np.square(words @ prior).sum(1).mean())
    z = words @ prior
    mean = target.mean(0)
    centred = target - mean
    kernel = W_PRIOR * (z @ z.T)
    for rows in blocks(len(sample), 512):  # a sparse product of all rows at once would take three times its memory
        kernel[rows] += (words[rows] @ words.T).toarray()
        kernel[rows] += W_PAIRS * (pairs[rows] @ pairs.T).toarray()

    def solve(part: ndarray, ridge: float) -> ndarray:
        """Overwrites `part`, which LAPACK does in place where columns stand together."""
        part[np.diag_indices(len(part))] += ridge
        factor = cho_factor(part, overwrite_a=True, check_finite=False)
        solved: ndarray = cho_solve(factor, centred[: len(part)])
        return solved

    n_fit = max(1, round(len(sample) * (1 - _HELD_OUT)))

    def agreement(ridge: float) -> float:
        found = kernel[n_fit:, :n_fit] @ solve(kernel[:n_fit, :n_fit].copy(order="F"), ridge)
        length = np.linalg.norm(found, axis=1) * np.linalg.norm(centred[n_fit:], axis=1)
        return (
            float(((found * centred[n_fit:]).sum(1) / np.maximum(length, 1e-12)).mean())
            if n_fit < len(sample)
            else 0.0
        )

    near, ridge = max((agreement(ridge), ridge) for ridge in RIDGES)
    weight = solve(kernel.T, ridge).astype(np.float32)
    return WordVectors(
        bags,
        np.asarray(words.T @ weight + W_PRIOR * prior @ (z.T @ weight), dtype=np.float32),
        np.asarray(W_PAIRS * (pairs.T @ weight), dtype=np.float32),
        mean,
        ridge,
        near,
    )


def distilled_encoder(n_sample: int = DistilledEncoder.n_sample, *, text_dim: int = 256) -> DistilledEncoder:
    """Word vectors made for this corpus by the sentence encoder: near its quality at a hundredth of its cost."""
    return DistilledEncoder(n_sample, conditioning=Conditioning("whiten", text_dim))


def _vocabulary(corpus: Corpus, sample: Sequence[str]) -> Bags:
    """Words of the train texts, and pairs of the sample, that occur in at least two texts; the most frequent ones."""
    texts = corpus.sample(_COUNTED)
    n, counted = len(texts), count_words(texts)
    vocabulary = _most_frequent(counted, _MAX_WORDS)
    if not vocabulary:
        raise DataError(
            f"The distilled encoder needs a word that occurs in at least two of the {len(corpus.review):,} train "
            "texts; there is none. Check the text column, or use --encoder sentence."
        )
    idf = np.log((1 + n) / (1 + np.array([counted[word] for word in vocabulary]))).astype(np.float32)
    words_only = Vocabulary(vocabulary, np.empty(0, dtype=np.int64))
    pair, text = words_only.pairs_of(*words_only.ids(sample))
    seen = Counter(np.unique(np.stack([pair, text]), axis=1)[0].tolist())
    pairs = np.array(sorted(_most_frequent(seen, _MAX_PAIRS)), dtype=np.int64)
    pair_idf = np.log((1 + len(sample)) / (1 + np.array([seen[pair] for pair in pairs.tolist()]))).astype(np.float32)
    return Bags(vocabulary, idf, pairs, pair_idf)


def _most_frequent(counts: Counter[Any], n: int) -> list[Any]:
    """Keys counted at least twice, the most frequent `n`; equal counts in the order of the keys."""
    return sorted((key for key, count in counts.items() if count > 1), key=lambda key: (-counts[key], key))[:n]
