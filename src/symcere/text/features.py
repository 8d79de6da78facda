"""Text features: profiles of all users and items, pooled while the vectors of their train reviews pass by."""

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float, Int
from numpy import ndarray
from safetensors.numpy import load_file

from symcere import rng
from symcere.data.dataset import Dataset
from symcere.errors import DataError
from symcere.heap import give_back
from symcere.manifest import code_digest, digest, new_folder, read_manifest
from symcere.mapped import write_tensors
from symcere.text.cache import VectorCache
from symcere.text.conditioning import SAMPLE, Affine, fit_conditioning
from symcere.text.corpus import Corpus, Part, blocks, corpus_of
from symcere.text.encoders import Encoder, OnProgress, Vectors
from symcere.text.function import function_encoder
from symcere.text.profiles import NAMED, Pool, Weighting, review_weights


@dataclass(frozen=True, eq=False)
class OwnReviews:
    """What each train review adds to the two profiles of its own pair, so that training can take it out again.

    Args:
        vectors: float32 (n_reviews x width), conditioned like the profiles; a zero row where a review has none.
        user_share: Weight of the review in the profile of its user, 0 to 1.
        item_share: Weight of the review in the profile of its item, 0 to 1.
    """

    vectors: Float[ndarray, "n_reviews width"]
    user_share: Float[ndarray, " n_reviews"]
    item_share: Float[ndarray, " n_reviews"]

    def left_out(
        self,
        review: Int[ndarray, " batch"],
        user_profile: Float[ndarray, "batch width"],
        item_profile: Float[ndarray, "batch width"],
    ) -> tuple[Float[ndarray, "batch width"], Float[ndarray, "batch width"]]:
        """Return the profiles of the users and items of some reviews as if these had not been written.

        Args:
            review: Train reviews.
            user_profile: Profile of the user of each.
            item_profile: Profile of the item of each.

        Returns:
            (profile - share * vector) / (1 - share); zero where nothing else is known of the node.
        """
        own = self.vectors[review]

        def without(profile: ndarray, share: ndarray) -> ndarray:
            left = np.maximum(1 - share, 0)[:, None]
            return np.where(left > 1e-6, (profile - share[:, None] * own) / np.maximum(left, 1e-6), 0).astype(
                np.float32
            )

        return without(user_profile, self.user_share[review]), without(item_profile, self.item_share[review])


@dataclass(frozen=True, eq=False)
class TextFeatures:
    """Profiles of all nodes.

    Args:
        user: float32 (n_users x text_dim); a zero row is a user without text.
        item: float32 (n_items x text_dim); a zero row is an item without text.
        encoder: Name of the encoder.
        fingerprint: Digest of the encoder and all that it was fitted on.
        n_encoded: Texts that had to be encoded; 0 when the cache held them all.
        own: For leave-one-out profiles: the reviews behind each block of columns, in order; empty for plain ones.
        affines: How the vectors of each block were conditioned; None where they were taken as they are.

    Raises:
        DataError: If a value is not finite or the widths differ.
    """

    user: Float[ndarray, "n_users text_dim"]
    item: Float[ndarray, "n_items text_dim"]
    encoder: str
    fingerprint: str
    n_encoded: int = 0
    own: tuple[OwnReviews, ...] = ()
    affines: tuple[Affine | None, ...] = ()

    def __post_init__(self) -> None:
        """Check finiteness and width."""
        if self.user.shape[1] != self.item.shape[1]:
            raise DataError(f"Profiles must be of one width; found {self.user.shape[1]} and {self.item.shape[1]}.")
        if not (np.isfinite(self.user).all() and np.isfinite(self.item).all()):
            raise DataError("Text features must be finite. Check the vectors of the encoder for NaN.")

    def left_out(
        self, user: Int[ndarray, " batch"], item: Int[ndarray, " batch"], review: Int[ndarray, " batch"]
    ) -> tuple[Float[ndarray, "batch text_dim"], Float[ndarray, "batch text_dim"]]:
        """Return profiles of users and items as if the reviews of their pairs had not been written.

        Args:
            user: Users.
            item: Items.
            review: Train review of each pair.

        Returns:
            Profiles of the users and of the items.
        """
        user_blocks, item_blocks = [], []
        begin = 0
        for own in self.own:
            columns = slice(begin, begin := begin + own.vectors.shape[1])
            without = own.left_out(review, self.user[user, columns], self.item[item, columns])
            user_blocks.append(without[0])
            item_blocks.append(without[1])
        return np.concatenate(user_blocks, axis=1), np.concatenate(item_blocks, axis=1)

    def save(self, folder: Path) -> None:
        """Write the features into an existing folder, as safetensors, .npy and JSON."""
        write_tensors(folder / "features.safetensors", {"user": self.user, "item": self.item})
        for number, own in enumerate(self.own):
            np.save(folder / f"own{number}.npy", own.vectors)
            shares = {"user_share": own.user_share, "item_share": own.item_share}
            write_tensors(folder / f"own{number}.safetensors", shares)
        conditioned = [number for number, affine in enumerate(self.affines) if affine]
        for number in conditioned:
            affine = self.affines[number]
            assert affine is not None  # it is among those conditioned
            write_tensors(folder / f"affine{number}.safetensors", {"mean": affine.mean, "matrix": affine.matrix})
        about = {
            "encoder": self.encoder,
            "fingerprint": self.fingerprint,
            "n_own": len(self.own),
            "n_blocks": len(self.affines),
            "conditioned": conditioned,
        }
        (folder / "features.json").write_text(json.dumps(about), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "TextFeatures":
        """Read what `save` wrote; the vectors of reviews are mapped, not read."""
        tensors = load_file(folder / "features.safetensors")
        about = json.loads((folder / "features.json").read_text(encoding="utf-8"))
        own = tuple(
            OwnReviews(np.load(folder / f"own{n}.npy", mmap_mode="r"), **load_file(folder / f"own{n}.safetensors"))
            for n in range(about["n_own"])
        )
        affines = tuple(
            Affine(**load_file(folder / f"affine{number}.safetensors")) if number in about["conditioned"] else None
            for number in range(about["n_blocks"])
        )
        return cls(tensors["user"], tensors["item"], about["encoder"], about["fingerprint"], own=own, affines=affines)

    def shuffled(self, seed: int = 0) -> "TextFeatures":
        """Return a control: every profile belongs to another user, or another item, drawn at random."""
        draws = rng.stream(seed, "shuffled text")
        user, item = (side[draws.permutation(len(side))] for side in (self.user, self.item))
        return replace(self, user=user, item=item, own=(), fingerprint=digest(self.fingerprint, "shuffled", seed))


def encode_reviews(
    train: Dataset,
    *encoders: Encoder | Callable[[list[str]], Any],
    parts: Sequence[Part] = ("review",),
    weightings: Sequence[Weighting] = (),
    leave_one_out: bool = False,
    cache: str | Path | None = None,
    on_progress: OnProgress | None = None,
) -> TextFeatures:
    """Encode the train reviews and pool them into profiles.

    Each distinct text is encoded once, in chunks; profiles gather chunk by chunk, so that memory holds the profiles
    and not the vectors of all reviews. Reviews without text are left out of the mean; a node without any text keeps
    a zero row, and the model leaves it out of the text terms. The cache keeps vectors by text, and the profiles of a
    train part by all that decides them: asked for the same again, it only reads them.

    Support reviews of a split by cold nodes are read with those of train, and encoders are fitted on both: they are
    known before anybody is tested. They go into the profiles of the cold nodes alone, not into those of the nodes on
    the other side. The reviews of held-out interactions are in neither.

    Args:
        train: The train part; nothing else has text.
        *encoders: At least one; or functions from a list of texts to an array. Their profiles stand side by side.
        parts: What is read of a review: ("review",) is title and body as one text; ("title", "body") gives profiles
            of both, side by side.
        weightings: Weights of the reviews in a profile, multiplied; none for a plain mean.
        leave_one_out: Keep the review vectors, so that training can take the review of a pair out of the pair's
            profiles. They stay in memory: 4 bytes x n_reviews x text_dim.
        cache: Root folder of the vector cache; None to encode without one.
        on_progress: Called while an encoder works.

    Returns:
        The features.

    Raises:
        DataError: If no review has text, or no encoder is given.
        OutputError: If the cache cannot be written.

    Example:
        >>> import symcere as sc
        >>> split = sc.split_random(sc.k_core(sc.anchoring_world(60, 30, 5).reviews, 2))
        >>> text = sc.encode_reviews(split.train, sc.tfidf_encoder(8), weightings=[sc.Recency()])
        >>> text.user.shape[1], text.encoder
        (8, 'tfidf')
    """
    if not encoders:
        raise DataError("encode_reviews needs at least one encoder, such as tfidf_encoder().")
    chosen = [function_encoder(encoder) if callable(encoder) else encoder for encoder in encoders]
    with _cache(cache, needed=leave_one_out) as store:
        named = all(isinstance(way, NAMED) for way in weightings)  # others may be the same, or not
        if leave_one_out or not named or not all(encoder.repeatable for encoder in chosen):
            return _encode(train, chosen, parts, weightings, leave_one_out, store, on_progress)
        settings = [[encoder.identity for encoder in chosen], list(parts), [repr(way) for way in weightings]]
        key = digest(code_digest("text"), _digest_train(train), settings)
        folder = store.folder(f"profiles-{key[:32]}")
        if folder and read_manifest(folder):
            return TextFeatures.load(folder)
        text = _encode(train, chosen, parts, weightings, leave_one_out, store, on_progress)
        if folder:
            with new_folder(folder, key, {"encoder": text.encoder}) as temporary:
                text.save(temporary)
        return text


def _encode(
    train: Dataset,
    encoders: Sequence[Encoder],
    parts: Sequence[Part],
    weightings: Sequence[Weighting],
    leave_one_out: bool,
    store: VectorCache,
    on_progress: OnProgress | None,
) -> TextFeatures:
    """Profiles from vectors."""
    known = train.known_reviews
    corpora = [corpus_of(known.review, part, (known.user, known.item)) for part in parts]
    made = [
        _encoded(train, encoder, corpus, review_weights(corpus, weightings), leave_one_out, store, on_progress)
        for encoder in encoders
        for corpus in (corpora if encoder.reads_text else corpora[:1])
    ]
    decided = [[repr(way) for way in weightings], leave_one_out, train.support.side, len(train.support)]
    return TextFeatures(
        np.concatenate([block.user for block in made], axis=1),
        np.concatenate([block.item for block in made], axis=1),
        "+".join(encoder.name for encoder in encoders),
        digest([block.key for block in made], decided),
        sum(block.n_encoded for block in made),
        tuple(block.own for block in made if block.own),
        tuple(block.affine for block in made),
    )


def _encoded(
    train: Dataset,
    encoder: Encoder,
    corpus: Corpus,
    weight: Float[ndarray, " n_reviews"],
    leave_one_out: bool,
    store: VectorCache,
    on_progress: OnProgress | None,
) -> "_Block":
    """Profiles by one encoder from one part of the reviews; what it was fitted to is gone before the next begins."""
    known = train.known_reviews
    if encoder.reads_text and not len(corpus):
        raise DataError(
            f"None of the {len(known):,} train reviews has text ({corpus.part}). Check the text column "
            "(--columns text=), or bring your own vectors (--encoder FILE.parquet)."
        )
    vectors = encoder.vectors(known, corpus, store, on_progress)
    block = _pooled(train, vectors, weight, encoder)
    block.key = digest(block.key, corpus.part)
    if leave_one_out:
        block.own = _own(train, encoder.vectors(known, corpus, store, None), weight, block)
    del vectors
    give_back()
    return block


@dataclass
class _Block:
    """Profiles by one encoder from one part of the reviews."""

    user: ndarray
    item: ndarray
    user_weight: ndarray
    item_weight: ndarray
    affine: Affine | None
    key: str
    n_encoded: int
    own: OwnReviews | None = None


def _pooled(train: Dataset, vectors: Vectors, weight: ndarray, encoder: Encoder) -> _Block:
    """Pool vectors into conditioned profiles as they pass by; the map is fitted on a random sample of them."""
    known, review, row, n_rows = train.known_reviews, vectors.review, vectors.row, len(vectors)
    slot = np.full(n_rows, -1)
    if encoder.conditioning.kind != "none":
        drawn = np.arange(min(n_rows, SAMPLE))  # texts stand in the order of their hashes: a random sample
        if not encoder.reads_text:
            drawn = np.sort(rng.stream(0, "conditioning").permutation(n_rows)[:SAMPLE])
        slot[drawn] = np.arange(len(drawn))
    n_sample = int((slot >= 0).sum())
    pools: list[Pool] = []
    sample = np.empty(0)
    for rows, chunk in vectors:
        if not pools:
            user_weight, item_weight = weight * train.about("user"), weight * train.about("item")
            sides = ((known.user, user_weight, len(train.users)), (known.item, item_weight, len(train.items)))
            pools = [Pool(node[review], row, w[review], n, n_rows, chunk.shape[1]) for node, w, n in sides]
            sample = np.empty((n_sample, chunk.shape[1]), dtype=chunk.dtype)
        mine = slot[rows] >= 0
        sample[slot[rows[mine]]] = chunk[mine]
        wide = chunk.astype(np.float64)
        for pool in pools:
            pool.add(rows, wide)
    n_reviews = np.bincount(row, minlength=n_rows)[slot >= 0].astype(np.float64)
    affine = fit_conditioning(sample, n_reviews, encoder.conditioning)

    def profiles(pool: Pool) -> ndarray:
        mean = pool.mean()
        conditioned = affine(mean) if affine else mean.astype(np.float32)
        partly = np.flatnonzero(pool.heard < pool.weight_of_node)  # some of their vectors are zero, and stay so
        if affine and len(partly):
            silent = 1 - pool.heard[partly] / pool.weight_of_node[partly]
            conditioned[partly] -= silent[:, None] * affine(np.zeros_like(mean[:1]))
        conditioned[pool.weight_of_node == 0] = 0
        pool.total = np.empty((0, 0))  # float64: the other side's profiles take its place
        return conditioned

    user, item = pools
    key = digest(vectors.fingerprint, repr(encoder.conditioning))
    return _Block(
        profiles(user), profiles(item), user.weight_of_node, item.weight_of_node, affine, key, vectors.n_encoded
    )  # fmt: skip


def _own(train: Dataset, vectors: Vectors, weight: ndarray, block: _Block) -> OwnReviews:
    """Read the vectors once more, now that they can be conditioned, and lay those of train out by review."""
    learned = vectors.review < len(train)
    review, row = vectors.review[learned], vectors.row[learned]
    by_row = np.empty((len(vectors), block.user.shape[1]), dtype=np.float32)
    for rows, chunk in vectors:
        by_row[rows] = block.affine(chunk) if block.affine else chunk
        by_row[rows[~chunk.any(1)]] = 0
    laid_out = np.zeros((len(train), by_row.shape[1]), dtype=np.float32)
    laid_out[review] = by_row[row]
    there = np.zeros(len(train))
    there[review] = weight[review]
    user_share, item_share = (
        (there / np.maximum(total[node], 1e-300)).astype(np.float32)
        for total, node in ((block.user_weight, train.user), (block.item_weight, train.item))
    )
    return OwnReviews(laid_out, user_share, item_share)


def _digest_train(train: Dataset) -> str:
    """SHA-256 of who reviewed what in which words: faster than cleaning the texts, and as telling."""
    known = train.known_reviews
    sizes = (len(train.users), len(train.items), len(train), len(known), train.support.side)
    seen = hashlib.sha256(repr(sizes).encode())
    for ids in (train.users.ids, train.items.ids):
        seen.update("\n".join(ids).encode())
    for index in (known.user, known.item):
        seen.update(index.astype(np.int64).tobytes())
    for rows in blocks(len(known), 65_536):
        for column in known.review[rows]:
            seen.update(column.is_null().to_numpy().tobytes())
            if column.dtype == pl.String:
                seen.update(column.str.len_bytes().fill_null(0).to_numpy().tobytes())
                seen.update((column.str.join("").item() or "").encode())
            else:
                seen.update(column.fill_null(0).to_numpy().tobytes())
    return seen.hexdigest()


@contextlib.contextmanager
def _cache(root: str | Path | None, *, needed: bool) -> Iterator[VectorCache]:
    """Yield the vector cache; a temporary one where vectors are read twice and the user keeps none."""
    if root is None and needed:
        with tempfile.TemporaryDirectory() as temporary:
            yield VectorCache(Path(temporary))
    else:
        yield VectorCache(Path(root) if root is not None else None)
