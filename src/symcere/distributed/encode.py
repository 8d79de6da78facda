"""Profiles on Ray: texts are read where they lie, encoded by a pool of actors, and summed node range by node range.

What an encoder is fitted to is the same random sample as on one machine: the texts with the smallest hashes, which
every part of the table can name for itself. So are the texts that conditioning is fitted to.
"""

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy import ndarray

from symcere.data.dataset import Dataset
from symcere.data.reviews import Reviews
from symcere.data.splits import rows_of
from symcere.distributed.cluster import each, fetch, n_cpus, task, tree
from symcere.distributed.ingestion import TableFile, files_of_table, read_files
from symcere.errors import ConfigError, DataError
from symcere.manifest import digest
from symcere.text.cache import NO_CACHE, VectorCache
from symcere.text.conditioning import SAMPLE, Affine, fit_conditioning
from symcere.text.corpus import Corpus, Part, by_key, corpus_of
from symcere.text.distilled import FittedDistilled
from symcere.text.encoders import Encoder, FittedEncoder, OnProgress, Progress, TextEncoder, TextVectors
from symcere.text.features import TextFeatures
from symcere.text.lift import of_some_users
from symcere.text.profiles import Helpfulness, Recency, Weighting, review_weights
from symcere.text.tfidf import FITTED_ON, FittedTfidf, TfidfEncoder

_SKETCH = 200_000  # texts that encoders are fitted to, at most: what the greediest of them reads
_RANGE = 50_000  # nodes whose profiles one task sums


@dataclass(frozen=True)
class _Sums:
    """Sums of review vectors over some nodes.

    Args:
        node: The nodes, users first, ascending.
        total: float64, a row each.
        weight: Weight of the reviews in each.
    """

    node: ndarray
    total: ndarray
    weight: ndarray


@dataclass(frozen=True)
class _Known:
    """What the head tells all tasks of the reviews that are read.

    Args:
        user: User of each.
        item: Item of each, counted after the users.
        user_weight: Its weight in the profile of its user.
        item_weight: Its weight in the profile of its item.
    """

    user: ndarray
    item: ndarray
    user_weight: ndarray
    item_weight: ndarray


def encode_reviews(
    train: Dataset,
    table: str,
    *encoders: Encoder,
    parts: Sequence[Part] = ("review",),
    weightings: Sequence[Weighting] = (),
    n_actors: int | None = None,
    gpus_an_actor: float = 0,
    cache: str | Path | None = None,
    on_progress: OnProgress | None = None,
) -> TextFeatures:
    """Encode the train reviews on Ray and pool them into profiles: what `symcere.encode_reviews` gives.

    Args:
        train: The train part; of its reviews no words are needed, for these are read from the table.
        table: Folder that `ingest` wrote, and that `train` was split of.
        *encoders: At least one, each of which reads text.
        parts: What is read of a review.
        weightings: Weights of the reviews in a profile: Recency, Helpfulness, or none.
        n_actors: How many encode at a time; one a processor if left out.
        gpus_an_actor: GPUs that each of them has.
        cache: Folder of the vector cache, which all nodes see; None for none.
        on_progress: Called as blocks are done.

    Returns:
        The features, equal to those of one machine to 1e-6.

    Raises:
        ConfigError: If an encoder or a weighting needs to see all texts at once.
        DataError: If no review has text.
    """
    import ray

    for encoder in encoders:
        if not isinstance(encoder, TextEncoder):
            raise ConfigError(f"On Ray, encoders read text; {encoder.name!r} does not. Encode on one machine.")
    for weighting in weightings:
        if not isinstance(weighting, Recency | Helpfulness):
            raise ConfigError(f"On Ray, profiles are weighted by recency and helpfulness; found {weighting!r}.")
    known = train.known_reviews
    weight = review_weights(corpus_of(known.review), weightings)
    n_users = len(train.users)
    told = ray.put(_Known(
        known.user, known.item + n_users, weight * train.about("user"), weight * train.about("item")
    ))  # fmt: skip
    reads = _rows_by_file(table, known)
    blocks = [
        _block(
            reads,
            known,
            told,
            encoder,
            part,
            (n_users, len(train.items)),
            table,
            n_actors,
            gpus_an_actor,
            cache,
            on_progress,
        )
        for encoder in encoders
        if isinstance(encoder, TextEncoder)
        for part in parts
    ]
    decided = [[repr(way) for way in weightings], False, train.support.side, len(train.support)]
    both = np.concatenate([block.profiles for block in blocks], axis=1)
    return TextFeatures(
        both[:n_users],
        both[n_users:],
        "+".join(encoder.name for encoder in encoders),
        digest([block.key for block in blocks], decided),
        sum(block.n_encoded for block in blocks),
        (),
        tuple(block.affine for block in blocks),
    )


@dataclass(frozen=True)
class _Block:
    profiles: ndarray
    affine: Affine | None
    key: str
    n_encoded: int


@dataclass(frozen=True)
class _Read:
    """Rows of one file of the table that are read, and which reviews they are."""

    file: TableFile
    rows: ndarray
    review: ndarray


def _rows_by_file(table: str, known: Dataset) -> list[_Read]:
    """Find the reviews in the files of the table."""
    files = files_of_table(table)
    tables = read_files(files, words=False)
    rows = rows_of(Reviews(pl.concat(tables), table, ()), known.user, known.item)
    order = np.argsort(rows)
    reads, begin = [], 0
    for file, part in zip(files, tables, strict=True):
        end = begin + len(part)
        here = order[np.searchsorted(rows, begin, sorter=order) : np.searchsorted(rows, end, sorter=order)]
        if len(here):
            reads.append(_Read(file, rows[here] - begin, here))
        begin = end
    return reads


def _words(read: _Read) -> pl.DataFrame:
    return read.file.read()[read.rows]


def _keys(read: _Read, part: Part) -> tuple[ndarray, ndarray, ndarray]:
    """Keys of the first texts of a file, how many reviews have each, and a row where each stands."""
    corpus = corpus_of(_words(read), part)
    return corpus.keys[:_SKETCH], corpus.n_reviews[:_SKETCH], corpus.row[:_SKETCH]


def _raw(read: _Read, rows: ndarray) -> pl.DataFrame:
    return _words(read)[rows]


def _sketch(reads: Sequence[_Read], part: Part) -> Corpus:
    """A corpus of the texts with the smallest keys, counted over all files: what one machine takes its samples of."""
    found = dict(each([task(_keys).remote(read, part) for read in reads]))
    keys = np.concatenate([found[at][0] for at in range(len(reads))])
    n, row = (np.concatenate([found[at][which] for at in range(len(reads))]) for which in (1, 2))
    file = np.repeat(np.arange(len(reads)), [len(found[at][0]) for at in range(len(reads))])
    order, first = by_key(keys)
    n_reviews = np.bincount(np.cumsum(first) - 1, weights=n[order]).astype(np.int64)[:_SKETCH]
    chosen = order[first][:_SKETCH]
    wanted = [np.flatnonzero(file[chosen] == at) for at in range(len(reads))]
    texts = dict(each([
        task(_raw).remote(read, row[chosen[mine]]) for read, mine in zip(reads, wanted, strict=True)
    ]))  # fmt: skip
    place = np.argsort(np.concatenate(wanted))
    raw = pl.concat([texts[at] for at in range(len(reads))])[place]
    text = np.repeat(np.arange(len(chosen)), n_reviews)
    length = corpus_of(raw, part)  # of the same texts, in the same order
    return Corpus(raw, part, text, text, keys[chosen], np.arange(len(chosen)), length.length)


def _whole_users(reads: Sequence[_Read], known: Dataset, part: Part) -> Corpus:
    """A corpus of the reviews of some users, and who wrote them of what: what one machine learns lift from."""
    chosen = of_some_users(known.user, FITTED_ON)
    wanted = [np.flatnonzero(np.isin(read.review, chosen)) for read in reads]
    raw = dict(each([task(_raw).remote(read, rows) for read, rows in zip(reads, wanted, strict=True)]))
    review = np.concatenate([read.review[rows] for read, rows in zip(reads, wanted, strict=True)])
    words = pl.concat([raw[at] for at in range(len(reads))])[np.argsort(review)]
    return corpus_of(words, part, (known.user[chosen], known.item[chosen]))


class _Encode:
    """An actor that encodes: the fitted encoder stays in its memory."""

    def __init__(self, part: Part, name: str, cache: str | None) -> None:
        self.part, self.name = part, name
        self.encoder: FittedEncoder | None = None
        self.cache = VectorCache(Path(cache)) if cache else NO_CACHE

    def __call__(self, table: Any, refs: Sequence[Any] = ()) -> Any:
        """Vectors of the reviews of a table that have text; n_encoded stands in the first row."""
        import pyarrow as pa

        self.encoder = self.encoder or fetch(refs[0])
        assert self.encoder is not None  # it was just fetched
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        corpus = corpus_of(frame, self.part)
        vectors = TextVectors(self.encoder, corpus, self.cache, None, self.name)
        chunks = list(vectors)
        if not chunks:
            return pa.table({"review": np.empty(0, np.int64), "n_encoded": np.empty(0, np.int64)})
        laid_out = np.empty((len(corpus), chunks[0][1].shape[1]), dtype=chunks[0][1].dtype)
        for rows, chunk in chunks:
            laid_out[rows] = chunk
        by_review = laid_out[corpus.text]
        return pa.table({
            "review": frame["review"].to_numpy()[corpus.review],
            "first": corpus.keys[corpus.text, 0],
            "second": corpus.keys[corpus.text, 1],
            "n_encoded": np.where(np.arange(len(by_review)) == 0, vectors.n_encoded, 0),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(by_review.ravel()), by_review.shape[1]),
        })  # fmt: skip


def _open(read: _Read) -> Any:
    """The words of a file's reviews, as a table for the encoder."""
    frame = _words(read).select("title", "text")
    return frame.with_columns(review=pl.Series(read.review, dtype=pl.Int64)).to_arrow(
        compat_level=pl.CompatLevel.oldest()
    )


def _opened(batch: dict[str, Any]) -> Any:
    import pyarrow as pa

    return pa.concat_tables([_open(read) for read in batch["read"]])


def _block(
    reads: Sequence[_Read],
    known: Dataset,
    told: Any,
    encoder: TextEncoder,
    part: Part,
    n_nodes: tuple[int, int],
    table: str,
    n_actors: int | None,
    gpus: float,
    cache: str | Path | None,
    on_progress: OnProgress | None,
) -> _Block:
    """Profiles by one encoder from one part of the reviews."""
    import ray.data

    sketch = _sketch(reads, part)
    if not len(sketch):
        raise DataError(
            f"None of the train reviews of {table} has text ({part}). Check the text column (--columns text=)."
        )
    store = VectorCache(Path(cache)) if cache else NO_CACHE
    lifted = isinstance(encoder, TfidfEncoder) and encoder.lifted
    learned_from = _whole_users(reads, known, part) if lifted else sketch
    fitted = portable(encoder.fit(learned_from, store, on_progress))
    n = n_actors or n_cpus()
    encoded = (
        ray.data.from_items([{"read": read} for read in reads], override_num_blocks=len(reads))
        .map_batches(_opened, batch_size=None, batch_format="numpy", num_cpus=0.5)
        .map_batches(
            _Encode,
            fn_constructor_args=(part, encoder.name, str(cache) if cache else None),
            fn_args=([ray.put(fitted)],),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, min(n, len(reads)))),
            num_cpus=0.5,
            num_gpus=gpus or None,
        )
        .materialize()
    )
    blocks = encoded.to_arrow_refs()
    sample = sketch.keys[:SAMPLE] if encoder.conditioning.kind != "none" else sketch.keys[:0]
    bounds = np.append(np.arange(0, sum(n_nodes), _RANGE), sum(n_nodes))
    summed = [task(_sum_block, 1 + len(bounds) - 1).remote(block, told, bounds, sample) for block in blocks]
    picked: list[tuple[ndarray, ndarray]] = []
    n_encoded = 0
    for done, (_, (keys, vectors, n_here)) in enumerate(each([refs[0] for refs in summed])):
        picked.append((keys, vectors))
        n_encoded += n_here
        if on_progress:
            on_progress(Progress(encoder.name, done + 1, len(blocks), (done + 1) / len(blocks)))
    affine = fit_conditioning(*_sampled(picked, sample, sketch.n_reviews), encoder.conditioning)
    ranges = [tree(_added, [refs[1 + at] for refs in summed]) for at in range(len(bounds) - 1)]
    made = [
        task(_profiles).remote(sums, begin, end, affine)
        for sums, begin, end in zip(ranges, bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    ]
    found = dict(each(made))
    key = digest(digest(fitted.fingerprint or encoder.name, repr(encoder.conditioning)), part)
    return _Block(np.concatenate([found[at] for at in range(len(made))]), affine, key, n_encoded)


def portable(fitted: FittedEncoder) -> FittedEncoder:
    """A fitted encoder that has learned what it needs, and no longer holds the texts that it learned from.

    Args:
        fitted: The encoder.

    Returns:
        One that encodes alike, to the last bit.
    """
    if isinstance(fitted, FittedTfidf | FittedDistilled):
        learned = "parts" if isinstance(fitted, FittedTfidf) else "table"
        value = getattr(fitted, learned)
        light = copy.copy(fitted)
        object.__setattr__(light, "corpus", corpus_of([]))
        object.__setattr__(light, "cache", NO_CACHE)
        if isinstance(light, FittedDistilled):
            object.__setattr__(light, "on_progress", None)
            object.__setattr__(light, "teacher", None)
        light.__dict__[learned] = value
        return light
    return fitted


def _sum_block(block: Any, known: _Known, bounds: ndarray, sample: ndarray) -> tuple[Any, ...]:
    """Sums over the nodes of each range, and the vectors of the texts that conditioning is fitted to."""
    n_ranges = len(bounds) - 1
    if not block.num_rows:
        none = _Sums(np.empty(0, np.int64), np.empty((0, 0)), np.empty(0))
        return ((np.empty((0, 2), np.uint64), np.empty((0, 0)), 0), *([none] * n_ranges))
    review = block["review"].to_numpy()
    flat = block["vector"].combine_chunks()
    vectors = flat.flatten().to_numpy(zero_copy_only=False).reshape(block.num_rows, -1)
    node = np.concatenate([known.user[review], known.item[review]])
    weight = np.concatenate([known.user_weight[review], known.item_weight[review]])
    sums = _sum_rows(node, weight, np.concatenate([vectors, vectors]).astype(np.float64))
    cuts = np.searchsorted(sums.node, bounds)
    keys = np.stack([block["first"].to_numpy(), block["second"].to_numpy()], axis=1)
    mine = np.isin(keys[:, 0], sample[:, 0])
    told = keys[mine], vectors[mine], int(np.sum(block["n_encoded"].to_numpy()))
    return (
        told,
        *(_Sums(sums.node[b:e].copy(), sums.total[b:e].copy(), sums.weight[b:e].copy())
          for b, e in itertools.pairwise(cuts)),
    )  # fmt: skip


def _sum_rows(node: ndarray, weight: ndarray, vectors: ndarray) -> _Sums:
    from scipy.sparse import csr_array

    there, at = np.unique(node, return_inverse=True)
    chosen = csr_array((weight, (at, np.arange(len(node)))), shape=(len(there), len(node)))
    return _Sums(there, np.asarray(chosen @ vectors), np.bincount(at, weights=weight, minlength=len(there)))


def _added(*several: _Sums) -> _Sums:
    """Sums of several blocks over the same range."""
    filled = [sums for sums in several if len(sums.node)]
    if not filled:
        return several[0]
    node, total, weight = (
        np.concatenate([getattr(sums, name) for sums in filled]) for name in ("node", "total", "weight")
    )
    there, at = np.unique(node, return_inverse=True)
    joined = np.zeros((len(there), total.shape[1]))
    np.add.at(joined, at, total)
    return _Sums(there, joined, np.bincount(at, weights=weight, minlength=len(there)))


def _profiles(sums: _Sums, begin: int, end: int, affine: Affine | None) -> ndarray:
    """Conditioned profiles of a range of nodes."""
    mean = sums.total / np.maximum(sums.weight, 1e-300)[:, None]
    conditioned = affine(mean) if affine else mean.astype(np.float32)
    conditioned[sums.weight == 0] = 0
    out = np.zeros((end - begin, conditioned.shape[1]), dtype=np.float32)
    out[sums.node - begin] = conditioned
    return out


def _sampled(
    picked: Sequence[tuple[ndarray, ndarray]], sample: ndarray, n_reviews: ndarray
) -> tuple[ndarray, ndarray]:
    """Vectors of the sample in the order of its keys, each once, and how many reviews each stands for."""
    keys = np.concatenate([keys for keys, _ in picked])
    filled = [vectors for _, vectors in picked if len(vectors)]
    if not len(sample) or not filled:
        return np.zeros((0, 1)), np.zeros(0)
    vectors = np.concatenate(filled)
    order, first = by_key(keys)
    chosen = order[first]
    return vectors[chosen], n_reviews[: len(chosen)].astype(np.float64)
