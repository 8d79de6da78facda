"""Text features: one profile for every user and item, the mean of the vectors of its train reviews."""

import html
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Float, Int
from numpy import ndarray

from symcere.data.dataset import Dataset, interaction_matrix
from symcere.errors import DataError
from symcere.manifest import digest
from symcere.text.cache import encode_cached
from symcere.text.encoders import Encoder


@dataclass(frozen=True, eq=False)
class TextFeatures:
    """Profiles of all nodes.

    Args:
        user: float32 (n_users x text_dim); a zero row is a user without text.
        item: float32 (n_items x text_dim); a zero row is an item without text.
        encoder: Name of the encoder.
        fingerprint: Digest of the encoder and all that it was fitted on.
        n_encoded: Texts that had to be encoded; 0 when the cache held them all.

    Raises:
        DataError: If a value is not finite or the widths differ.
    """

    user: Float[ndarray, "n_users text_dim"]
    item: Float[ndarray, "n_items text_dim"]
    encoder: str
    fingerprint: str
    n_encoded: int = 0

    def __post_init__(self) -> None:
        """Check finiteness and width."""
        if self.user.shape[1] != self.item.shape[1]:
            raise DataError(f"Profiles must be of one width; found {self.user.shape[1]} and {self.item.shape[1]}.")
        if not (np.isfinite(self.user).all() and np.isfinite(self.item).all()):
            raise DataError("Text features must be finite. Check the vectors of the encoder for NaN.")


def encode_reviews(
    train: Dataset,
    *encoders: Encoder,
    cache: str | Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> TextFeatures:
    """Encode the train reviews and pool them into profiles.

    With several encoders their profiles stand side by side. Reviews without text are left out of the mean;
    a node without any text keeps a zero row, and the model leaves it out of the text terms.

    Args:
        train: The train part; nothing else has text.
        *encoders: At least one.
        cache: Root folder of the vector cache; None to encode without one.
        on_progress: Called with (texts done, texts to encode) while an encoder works.

    Returns:
        The features.

    Raises:
        DataError: If no review has text, or no encoder is given.
        OutputError: If the cache cannot be written.
    """
    if not encoders:
        raise DataError("encode_reviews needs at least one encoder, such as tfidf_encoder().")
    texts = clean_text(train.text)
    there = (texts.str.strip_chars() != "").to_numpy()
    if not there.any():
        raise DataError(
            f"None of the {len(train):,} train reviews has text. Check the text column (--columns text=)."
        )
    kept = texts.filter(pl.Series(there)).to_list()
    blocks: list[tuple[ndarray, ndarray]] = []
    fingerprints: list[str] = []
    n_encoded = 0
    for encoder in encoders:
        fitted = encoder.fit(kept)
        vectors, n = encode_cached(fitted, kept, Path(cache) if cache else None, on_progress)
        if encoder.whiten_dim:
            vectors = whiten(vectors, encoder.whiten_dim)
        blocks.append(profiles(vectors, train.user[there], train.item[there], len(train.users), len(train.items)))
        fingerprints.append(digest(fitted.fingerprint, encoder.whiten_dim))
        n_encoded += n
    user, item = (np.concatenate(side, axis=1) for side in zip(*blocks, strict=True))
    return TextFeatures(user, item, "+".join(e.name for e in encoders), digest(*fingerprints), n_encoded)


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
    return pl.Series(texts.name, [html.unescape(t) if c else t for t, c in zip(plain, coded, strict=True)])


def profiles(
    vectors: Float[ndarray, "reviews text_dim"],
    user: Int[ndarray, " reviews"],
    item: Int[ndarray, " reviews"],
    n_users: int,
    n_items: int,
) -> tuple[Float[ndarray, "n_users text_dim"], Float[ndarray, "n_items text_dim"]]:
    """Mean of the review vectors of each user and of each item; zero where there is none."""
    n_reviews = np.arange(len(vectors))

    def pooled(node: ndarray, n_nodes: int) -> ndarray:
        total = interaction_matrix(node, n_reviews, n_nodes, len(vectors)) @ vectors
        n = np.bincount(node, minlength=n_nodes)[:, None]
        return np.asarray(total / np.maximum(n, 1), dtype=np.float32)

    return pooled(user, n_users), pooled(item, n_items)


def whiten(vectors: Float[ndarray, "reviews text_dim"], dim: int) -> Float[ndarray, "reviews whitened"]:
    """Centre vectors and give their leading directions equal variance.

    The mean of sentence vectors is dominated by one common direction; without it, profiles differ by content.
    The map is affine, so it commutes with the mean that makes a profile.

    Args:
        vectors: Vectors of the train reviews: the map is fitted on them.
        dim: Directions to keep; fewer where the data has fewer.

    Returns:
        float32 vectors of unit variance in each direction, divided by sqrt(dim): of unit length on average.
    """
    centred = vectors - vectors.mean(0)
    covariance = centred.T.astype(np.float64) @ centred / len(vectors)
    variance, direction = np.linalg.eigh(covariance)
    keep = np.flatnonzero(variance > 1e-8 * variance[-1])[::-1][:dim]
    scale = 1 / np.sqrt(variance[keep] * max(len(keep), 1))
    return np.asarray(centred @ (direction[:, keep] * scale), dtype=np.float32)
