"""Reads any text, or a train review without some of its words, into the space of the profiles."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from symcere.data.dataset import Dataset, Side
from symcere.errors import ConfigError
from symcere.mapped import map_tensors, write_tensors
from symcere.text.cache import NO_CACHE, VectorCache
from symcere.text.conditioning import Affine
from symcere.text.corpus import Corpus, Part, corpus_of
from symcere.text.deletion import Cuttable, Gone, Reread, Summing
from symcere.text.distilled import FittedDistilled, WordVectors
from symcere.text.encoders import Encoder, OnProgress, TextEncoder
from symcere.text.features import TextFeatures
from symcere.text.profiles import Weighting, review_weights
from symcere.text.sentence import FittedSentence
from symcere.text.tfidf import FittedTfidf, TermVectors

_ASKED = 16  # users whose profiles are made again: those of the fewest reviews, for some encoders read slowly
_AGREE = 0.1  # how far, of their length, they may be from what they were: more than the rounding of kept vectors


@runtime_checkable
class Reads(Protocol):
    """What is needed of an encoder to read: one that was loaded knows no more."""

    def encode(self, texts: Sequence[str]) -> Float[ndarray, "texts text_dim"]:
        """Vectors of `texts`, one row a text."""
        ...


@dataclass(frozen=True, eq=False)
class _Block:
    """One block of columns of the profiles."""

    encoder: Reads
    corpus: Corpus
    affine: Affine | None
    columns: slice
    weight: ndarray

    @property
    def exact(self) -> bool:
        """Whether leaving words out costs no second reading."""
        return isinstance(self.encoder, Summing)

    def conditioned(self, vectors: ndarray) -> ndarray:
        """Vectors as the profiles have them; a text of which nothing is known is zero, and stays so."""
        if self.affine is None:
            return vectors
        out = self.affine(vectors)
        out[~vectors.any(1)] = 0
        return out

    def cut(self, texts: Sequence[str]) -> Cuttable:
        """Texts of which words can be left out."""
        if isinstance(self.encoder, Summing):
            return self.encoder.bag(texts)
        return Reread(texts, self.encoder.encode)


@dataclass(frozen=True, eq=False)
class Reader:
    """The encoders of some profiles, ready to read.

    Args:
        train: The train part that the profiles were made from.
        blocks: One for each block of columns of the profiles.
    """

    train: Dataset
    blocks: tuple[_Block, ...]

    @classmethod
    def of(
        cls,
        train: Dataset,
        features: TextFeatures,
        encoders: Sequence[Encoder],
        parts: Sequence[Part] = ("review",),
        weightings: Sequence[Weighting] = (),
        cache: VectorCache = NO_CACHE,
        on_progress: OnProgress | None = None,
    ) -> "Reader":
        """Fit the encoders of profiles again; encoders and options must be those that the profiles were made with.

        Args:
            train: The train part.
            features: The profiles.
            encoders: As given to `encode_reviews`.
            parts: As given there.
            weightings: As given there.
            cache: Where it keeps what is costly to learn.
            on_progress: Called while an encoder learns.

        Returns:
            The reader.

        Raises:
            ConfigError: If the profiles come from vectors of a file, which say nothing of words, or were made
                otherwise: the reviews of a few users are read again.
        """
        known = train.known_reviews
        blocks: list[_Block] = []
        for encoder in encoders:
            if not isinstance(encoder, TextEncoder):
                raise ConfigError(
                    f"The profiles come from vectors of a file ({encoder.name}), and nobody can say which words made "
                    "them. Run again with --encoder lift, tfidf, distilled or sentence to see what words do."
                )
            for part in parts:
                corpus = corpus_of(known.review, part, (known.user, known.item))
                fitted = encoder.fit(corpus, cache, on_progress)
                reads = fitted.table if isinstance(fitted, FittedTfidf | FittedDistilled) else fitted
                affine = features.affines[len(blocks)] if len(blocks) < len(features.affines) else None
                begin = blocks[-1].columns.stop if blocks else 0
                width = affine.matrix.shape[1] if affine else reads.encode(corpus.take(slice(0, 1))).shape[1]
                weight = review_weights(corpus, weightings)
                blocks.append(_Block(reads, corpus, affine, slice(begin, begin + width), weight))
        found, wanted = blocks[-1].columns.stop, features.user.shape[1]
        if found != wanted or len(blocks) != len(features.affines):
            raise ConfigError(
                f"The encoders give {found} columns in {len(blocks)} blocks, the profiles have {wanted} in "
                f"{len(features.affines)}: they were made otherwise."
            )
        reader = cls(train, tuple(blocks))
        reader._check_made(features)
        return reader

    def _check_made(self, features: TextFeatures) -> None:
        """Refuse profiles that the reviews of a few users, read again, do not give."""
        known, shares = self.train.known_reviews, self.shares("user")
        reads = np.flatnonzero(shares.any(1))
        users, n_reviews = np.unique(known.user[reads], return_counts=True)
        some = np.sort(users[np.argsort(n_reviews, kind="stable")[:_ASKED]])
        reviews = reads[np.isin(known.user[reads], some)]
        made = np.zeros((len(some), features.user.shape[1]))
        vectors = shares[reviews][:, self.block_of_column] * self.open(reviews).vectors()
        np.add.at(made, np.searchsorted(some, known.user[reviews]), vectors)
        wanted = features.user[some]
        off = np.linalg.norm(made - wanted) / max(float(np.linalg.norm(wanted)), 1e-12)
        if off > _AGREE:
            raise ConfigError(
                f"The reviews of {len(some)} users, read again, do not give their profiles (relative difference "
                f"{off:.2f}): the encoder is not the one that made them, or an older version did. Run again."
            )

    def save(self, folder: Path) -> None:
        """Write the encoders into an existing folder, ready to read: nothing has to be learned again.

        Args:
            folder: A folder a block, and reader.json.

        Raises:
            ConfigError: If an encoder is a function, which no file can hold.
        """
        about = []
        for number, block in enumerate(self.blocks):
            inner = folder / f"block{number}"
            inner.mkdir()
            about.append({"kind": _save_encoder(block.encoder, inner), "part": block.corpus.part})
            tensors = {"weight": block.weight}
            if block.affine:
                tensors |= {"mean": block.affine.mean, "matrix": block.affine.matrix}
            write_tensors(inner / "block.safetensors", tensors)
        (folder / "reader.json").write_text(json.dumps(about), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, train: Dataset) -> "Reader":
        """Read what `save` wrote.

        Args:
            folder: The folder.
            train: The train part that the profiles were made from.

        Returns:
            An equal reader.
        """
        blocks: list[_Block] = []
        for number, about in enumerate(json.loads((folder / "reader.json").read_text(encoding="utf-8"))):
            inner = folder / f"block{number}"
            tensors = map_tensors(inner / "block.safetensors")
            affine = Affine(tensors["mean"], tensors["matrix"]) if "matrix" in tensors else None
            encoder = _load_encoder(about["kind"], inner)
            width = affine.matrix.shape[1] if affine else encoder.encode(["width"]).shape[1]
            begin = blocks[-1].columns.stop if blocks else 0
            corpus = corpus_of(train.known_reviews.review, about["part"])
            blocks.append(_Block(encoder, corpus, affine, slice(begin, begin + width), tensors["weight"]))
        return cls(train, tuple(blocks))

    @property
    def exact(self) -> bool:
        """Whether leaving words out costs no second reading of the text."""
        return all(block.exact for block in self.blocks)

    @cached_property
    def block_of_column(self) -> Int[ndarray, " text_dim"]:
        """Block of each column of the profiles."""
        return np.repeat(
            np.arange(len(self.blocks)), [each.columns.stop - each.columns.start for each in self.blocks]
        )

    def encode(self, texts: Sequence[str]) -> Float[ndarray, "texts text_dim"]:
        """Vectors of any cleaned texts, as a profile of that one review would be."""
        return np.concatenate([block.conditioned(block.encoder.encode(texts)) for block in self.blocks], axis=1)

    def knows(self, texts: Sequence[str]) -> Bool[ndarray, " texts"]:
        """Whether an encoder knows a word of each text; some give a vector to any text, whatever it says."""
        known = np.zeros(len(texts), dtype=bool)
        for block in self.blocks:
            text, _ = block.cut(texts).occurrences
            known[text] = True
        return known

    def shares(self, side: Side) -> Float[ndarray, "known_reviews blocks"]:
        """Weight of each known review in the profile of its user or item, a column a block; they sum to 1 a node."""
        known, about = self.train.known_reviews, self.train.about(side)
        node = known.user if side == "user" else known.item
        n_nodes = len(self.train.users if side == "user" else self.train.items)
        columns = []
        for block in self.blocks:
            weight = block.weight * about * (block.corpus.text_of >= 0)
            total = np.bincount(node, weights=weight, minlength=n_nodes)
            columns.append(weight / np.maximum(total[node], 1e-300))
        return np.stack(columns, axis=1)

    def open(self, reviews: Int[ndarray, " reviews"]) -> "Reviews":
        """Some known reviews, ready to be read without some of their words."""
        cut, place_of = [], []
        for block in self.blocks:
            distinct, place = np.unique(block.corpus.text_of[reviews], return_inverse=True)
            none = int(distinct[:1].tolist() == [-1])
            cut.append(block.cut(block.corpus.take(distinct[none:])))
            place_of.append(place - none)
        return Reviews(self, reviews, cut, place_of)

    def open_texts(self, texts: Sequence[str]) -> "Reviews":
        """Any texts, each read as one review, ready to be read without some of their words."""
        every = np.arange(len(texts))
        return Reviews(self, every, [block.cut(texts) for block in self.blocks], [every] * len(self.blocks))


def _save_encoder(encoder: Reads, folder: Path) -> str:
    """Write what an encoder needs to read; returns its kind."""
    for kind, saved in (("tfidf", TermVectors), ("distilled", WordVectors), ("sentence", FittedSentence)):
        if isinstance(encoder, saved):
            encoder.save(folder)
            return kind
    raise ConfigError(
        f"An encoder of the kind {type(encoder).__name__} cannot be written to a file. Encode with lift, tfidf, "
        "distilled or sentence to export a bundle."
    )


def _load_encoder(kind: str, folder: Path) -> Reads:
    from symcere.text.onnx_bert import read_onnx_bert

    kinds: dict[str, Callable[[Path], Reads]] = {
        "tfidf": TermVectors.load,
        "distilled": WordVectors.load,
        "sentence": read_onnx_bert,
    }
    return kinds[kind](folder)


class Reviews:
    """Some reviews, ready to be read without some of their words.

    Args:
        reader: Who reads.
        reviews: Which of the known reviews, or of some texts.
        cut: Their distinct texts, as each block of the reader reads them.
        text: Which of these each review has, for each block; -1 for none.
    """

    def __init__(
        self,
        reader: Reader,
        reviews: Int[ndarray, " reviews"],
        cut: Sequence[Cuttable],
        text: Sequence[Int[ndarray, " reviews"]],
    ) -> None:
        self.reader, self.reviews = reader, reviews
        self._cut, self._text = cut, text
        index: dict[str, int] = {}
        self._word_of: list[ndarray] = []  # word of the block -> word of all
        for each in cut:
            self._word_of.append(
                np.array([index.setdefault(word, len(index)) for word in each.vocabulary], dtype=np.int64)
            )
        self.vocabulary = tuple(index)

    def __len__(self) -> int:
        return len(self.reviews)

    @cached_property
    def occurrences(self) -> tuple[Int[ndarray, " occurrences"], Int[ndarray, " occurrences"]]:
        """Place among the reviews and word of each occurrence that can matter: a word once a review, by place."""
        size = max(len(self.vocabulary), 1)
        keys = []
        for cut, text_of, word_of in zip(self._cut, self._text, self._word_of, strict=True):
            text, word = cut.occurrences
            begin, end = (np.searchsorted(text, text_of, side=side) for side in ("left", "right"))
            n = np.where(text_of >= 0, end - begin, 0)
            at = np.arange(n.sum()) + np.repeat(begin - np.cumsum(n) + n, n)
            keys.append(np.repeat(np.arange(len(text_of)), n) * size + word_of[word[at]])
        place, word = np.divmod(np.unique(np.concatenate(keys)), size)
        return place, word

    def vectors(self) -> Float[ndarray, "reviews text_dim"]:
        """Vectors of the reviews as they are; zero where there is no text."""
        every = np.arange(len(self))
        return self.without(every, Gone(np.zeros(len(every) + 1, dtype=np.int64), np.zeros(0, dtype=np.int64)))

    def without(self, place: Int[ndarray, " variants"], gone: Gone) -> Float[ndarray, "variants text_dim"]:
        """Vectors of variants of the reviews, each without some words.

        Args:
            place: Which of the reviews each variant is of.
            gone: Words of the vocabulary that each is without.

        Returns:
            One row a variant; zero where nothing is left.
        """
        made = []
        for block, cut, text_of, word_of in zip(
            self.reader.blocks, self._cut, self._text, self._word_of, strict=True
        ):
            text = text_of[place]
            there = np.flatnonzero(text >= 0)
            mine = np.full(len(self.vocabulary), -1)
            mine[word_of] = np.arange(len(word_of))
            word, variant = mine[gone.word], gone.variant
            kept = (word >= 0) & (text[variant] >= 0)
            n = np.bincount(variant[kept], minlength=len(text))[there]
            its = Gone(np.concatenate([[0], np.cumsum(n)]), word[kept])
            width = block.columns.stop - block.columns.start
            out = np.zeros((len(place), width), dtype=np.float32)
            if len(there):
                out[there] = block.conditioned(cut.without(text[there], its))
            made.append(out)
        return np.concatenate(made, axis=1)

    def without_sets(self, gone: Bool[ndarray, "sets words"]) -> Float[ndarray, "sets reviews text_dim"]:
        """Vectors of all the reviews, without each of some sets of words.

        Args:
            gone: Which words of the vocabulary each set has.

        Returns:
            The same as `without` gives.
        """
        made = []
        for block, cut, text_of, word_of in zip(
            self.reader.blocks, self._cut, self._text, self._word_of, strict=True
        ):
            there = text_of >= 0
            width = block.columns.stop - block.columns.start
            out = np.zeros((len(gone), len(self), width), dtype=np.float32)
            if there.any():
                vectors = cut.without_sets(gone[:, word_of])
                flat = block.conditioned(vectors.reshape(-1, vectors.shape[-1]))
                out[:, there] = flat.reshape(*vectors.shape[:2], width)[:, text_of[there]]
            made.append(out)
        return np.concatenate(made, axis=2)
