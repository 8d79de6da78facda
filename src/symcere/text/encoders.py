"""What an encoder is, and how the texts of a corpus stream through one. What is fitted is fitted on train alone."""

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from symcere.data.dataset import Dataset
from symcere.errors import DataError
from symcere.text.cache import NO_CACHE, Shelf, VectorCache
from symcere.text.conditioning import Conditioning
from symcere.text.corpus import Corpus

_CHUNK = 8_192  # texts that are sorted by length, encoded and yielded together
_FLUSH_SECONDS = 10.0  # of encoding that a kill can lose


@dataclass(frozen=True)
class Progress:
    """How far an encoder is.

    Args:
        phase: What is being done, such as "sentence".
        done: Texts done.
        total: Texts to do; what the cache holds is not among them.
        share: Share of the work done, long texts counting more: what an honest ETA goes by.
    """

    phase: str
    done: int
    total: int
    share: float


OnProgress = Callable[[Progress], None]


@runtime_checkable
class FittedEncoder(Protocol):
    """Turns texts into vectors, always the same way."""

    @property
    def fingerprint(self) -> str | None:
        """Digest of all that decides a vector: the cache keeps vectors under it. None: they are not kept."""
        ...

    @property
    def reach(self) -> int:
        """Characters after which a longer text costs no more, for the ETA."""
        ...

    @property
    def half(self) -> bool:
        """Whether float16 holds the vectors well enough, as it does unit vectors."""
        ...

    def encode(self, texts: Sequence[str]) -> Float[ndarray, "texts text_dim"]:
        """Vectors of `texts`, one row a text."""
        ...


@runtime_checkable
class Vectors(Protocol):
    """Vectors for the train reviews: iterate for chunks (rows, vectors), each row once, in any order."""

    @property
    def review(self) -> Int[ndarray, " reviews"]:
        """Train reviews that have a vector."""
        ...

    @property
    def row(self) -> Int[ndarray, " reviews"]:
        """Which row each of these has."""
        ...

    @property
    def fingerprint(self) -> str:
        """Digest of all that decides the vectors."""
        ...

    @property
    def n_encoded(self) -> int:
        """Texts that had to be encoded so far."""
        ...

    def __len__(self) -> int:
        """Rows."""
        ...

    def __iter__(self) -> Iterator[tuple[Int[ndarray, " chunk"], Float[ndarray, "chunk text_dim"]]]:
        """Chunks."""
        ...


@runtime_checkable
class Encoder(Protocol):
    """A way to give train reviews vectors."""

    @property
    def name(self) -> str:
        """Short name, as on the command line."""
        ...

    @property
    def conditioning(self) -> Conditioning:
        """What is done to the vectors before they are profiles."""
        ...

    @property
    def reads_text(self) -> bool:
        """Whether it makes a difference which part of a review is read."""
        ...

    @property
    def identity(self) -> str:
        """What decides the vectors beside the train reviews: settings, and the content of files."""
        ...

    @property
    def repeatable(self) -> bool:
        """Whether the same identity means the same vectors, so that they can be kept."""
        ...

    def vectors(self, train: Dataset, corpus: Corpus, cache: VectorCache, on_progress: OnProgress | None) -> Vectors:
        """Vectors for the train reviews, made or read while one iterates."""
        ...


class TextEncoder(ABC):
    """An encoder that turns each distinct text into a vector."""

    reads_text = True
    conditioning: Conditioning

    @property
    def identity(self) -> str:
        """The settings."""
        return repr(self)

    @property
    def repeatable(self) -> bool:
        """Settings decide the vectors."""
        return True

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name, as on the command line."""

    @abstractmethod
    def fit(
        self, corpus: Corpus, cache: VectorCache = NO_CACHE, on_progress: OnProgress | None = None
    ) -> FittedEncoder:
        """Learn from the train texts what the encoder needs; a frozen encoder needs nothing.

        Args:
            corpus: Train texts only.
            cache: Where what is costly to learn is kept.
            on_progress: Called while it learns.

        Returns:
            The encoder; what takes long may be put off until the first text is encoded.
        """

    def vectors(
        self, train: Dataset, corpus: Corpus, cache: VectorCache, on_progress: OnProgress | None
    ) -> "TextVectors":
        """Vectors of the distinct texts of `corpus`, from the cache or from the encoder."""
        del train
        return TextVectors(self.fit(corpus, cache, on_progress), corpus, cache, on_progress, self.name)


class TextVectors:
    """Vectors of the texts of a corpus, from the cache or from the encoder, chunk by chunk.

    New vectors are written to the cache every few seconds. Two processes that encode the same corpus begin at
    different places and take over what the other has written.

    Args:
        encoder: The fitted encoder.
        corpus: The texts.
        cache: Where vectors are kept.
        on_progress: Called while texts are encoded.
        phase: What the encoder is called there.
    """

    def __init__(
        self,
        encoder: FittedEncoder,
        corpus: Corpus,
        cache: VectorCache = NO_CACHE,
        on_progress: OnProgress | None = None,
        phase: str = "",
    ) -> None:
        self.encoder, self.corpus, self.on_progress, self.phase = encoder, corpus, on_progress, phase
        self.shelf = cache.shelf(encoder.fingerprint) if encoder.fingerprint else Shelf(None)
        self.review, self.row = corpus.review, corpus.text
        self.n_encoded = 0

    def __len__(self) -> int:
        return len(self.corpus)

    @property
    def fingerprint(self) -> str:
        """Digest of the encoder; its name where it has none."""
        return self.encoder.fingerprint or self.phase

    def __iter__(self) -> Iterator[tuple[Int[ndarray, " chunk"], Float[ndarray, "chunk text_dim"]]]:
        """Yield (texts, vectors): first what the cache holds, then what has to be encoded."""
        segment, at = self.shelf.locate(self.corpus.keys)
        by_segment = np.argsort(segment, kind="stable")
        n_missing, *ends = np.searchsorted(segment[by_segment], np.arange(len(self.shelf.segments) + 1))
        missing = by_segment[:n_missing]
        for number, (begin, end) in enumerate(zip([n_missing, *ends], ends, strict=False)):
            for start in range(begin, end, _CHUNK):
                rows = by_segment[start : min(start + _CHUNK, end)]
                yield rows, self.shelf.read(number, at[rows])
        yield from self._encode(missing)

    def all(self) -> Float[ndarray, "texts text_dim"]:
        """All vectors in the order of the corpus, in memory: for some thousand texts."""
        chunks = list(self)
        out = np.empty((len(self.corpus), chunks[0][1].shape[1]), dtype=np.float32)
        for rows, vectors in chunks:
            out[rows] = vectors
        return out

    def _encode(self, missing: Int[ndarray, " missing"]) -> Iterator[tuple[ndarray, ndarray]]:
        """Encode texts chunk by chunk; in a chunk the short ones first, so that little is padded."""
        work = np.minimum(self.corpus.length, self.encoder.reach) + 1.0
        n_done, work_done, total = 0, 0.0, float(work[missing].sum())
        n_chunks = -(-len(missing) // _CHUNK)
        chunks = np.array_split(missing, n_chunks) if n_chunks else []
        first = os.getpid() % max(n_chunks, 1)
        n_segments = len(self.shelf.segments)
        for chunk in [*chunks[first:], *chunks[:first]]:
            segment, at = self.shelf.locate(self.corpus.keys[chunk], since=n_segments)
            for number in np.unique(segment[segment >= 0]).tolist():
                mine = segment == number
                yield chunk[mine], self.shelf.read(number, at[mine])
            todo = chunk[segment < 0]
            self.n_encoded += len(todo)
            n_done, work_done = n_done + len(chunk) - len(todo), work_done + float(work[chunk[segment >= 0]].sum())
            held: list[tuple[ndarray, ndarray]] = []
            written = time.monotonic()
            for rows, vectors in self._pieces(todo[np.argsort(self.corpus.length[todo], kind="stable")]):
                held.append((rows, vectors))
                n_done, work_done = n_done + len(rows), work_done + float(work[rows].sum())
                if time.monotonic() - written > _FLUSH_SECONDS:
                    yield self._keep(held)
                    held, written = [], time.monotonic()
                if self.on_progress:
                    self.on_progress(Progress(self.phase, n_done, len(missing), min(work_done / total, 1.0)))
            if held:
                yield self._keep(held)

    def _pieces(self, rows: Int[ndarray, " todo"]) -> Iterator[tuple[ndarray, ndarray]]:
        """Encode in pieces of about a second, whatever the speed of the encoder."""
        start, size = 0, 32
        while start < len(rows):
            piece = rows[start : start + size]
            began = time.monotonic()
            yield piece, self._checked(self.encoder.encode(self.corpus.take(piece)), len(piece))
            start += size
            if time.monotonic() - began < 0.5:
                size *= 2

    def _keep(self, held: Sequence[tuple[ndarray, ndarray]]) -> tuple[ndarray, ndarray]:
        rows, vectors = (np.concatenate(part) for part in zip(*held, strict=True))
        self.shelf.append(self.corpus.keys[rows], vectors)
        return rows, vectors

    def _checked(self, vectors: ndarray, n: int) -> ndarray:
        """Refuse what is not one row of finite numbers a text."""
        vectors = np.asarray(vectors)
        if vectors.ndim != 2 or len(vectors) != n or not np.issubdtype(vectors.dtype, np.number):
            raise DataError(
                f"The encoder {self.phase!r} must return one row of numbers a text; for {n} texts it returned an "
                f"array of shape {vectors.shape} and type {vectors.dtype}."
            )
        if not np.isfinite(vectors).all():
            raise DataError(f"The encoder {self.phase!r} returned vectors that are not finite. Check it for NaN.")
        return vectors.astype(np.float16 if self.encoder.half else np.float32)
