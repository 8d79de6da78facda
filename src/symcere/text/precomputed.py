"""Bring your own vectors: a file of them, by review or by item."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float, Int
from numpy import ndarray

from symcere.data.dataset import Dataset
from symcere.data.formats.parquet import parquet_frames, parquet_schema
from symcere.data.formats.rows import POLARS_ERRORS, first_line
from symcere.errors import DataError
from symcere.manifest import digest, digest_file
from symcere.text.cache import VectorCache
from symcere.text.conditioning import WHITENED, Conditioning
from symcere.text.corpus import Corpus
from symcere.text.encoders import OnProgress

_CHUNK = 16_384  # rows of the file read at a time


@dataclass(frozen=True)
class PrecomputedEncoder:
    """Vectors from a file.

    A Parquet file has the columns item_id and vector (one vector an item), or user_id, item_id and vector (one a
    review); any one column of lists of numbers is taken for the vector. A .npy file holds a matrix; beside it
    stands a table of its rows' ids, with the same columns: for `v.npy`, `v.keys.csv` or `v.keys.parquet`.

    Args:
        path: The file.
        name: What it is called in reports.
        conditioning: Centred and whitened.
    """

    path: str
    name: str = "precomputed"
    conditioning: Conditioning = WHITENED
    reads_text: bool = False
    repeatable: bool = True

    @property
    def identity(self) -> str:
        """Digest of what the files hold."""
        return digest(repr(self), _digest(Path(self.path)))

    def vectors(
        self, train: Dataset, corpus: Corpus, cache: VectorCache, on_progress: OnProgress | None
    ) -> "FileVectors":
        """Match the rows of the file with the train reviews; vectors of other reviews are never read.

        Args:
            train: The train part.
            corpus: Not needed.
            cache: Not needed.
            on_progress: Not called.

        Returns:
            The vectors that train reviews have.

        Raises:
            DataError: If the file cannot be read, or no train review has a vector in it.
        """
        del corpus, cache, on_progress
        return FileVectors(Path(self.path), train)


class FileVectors:
    """The vectors of a file that belong to train reviews.

    Args:
        path: The file.
        train: The train part.
    """

    n_encoded = 0

    def __init__(self, path: Path, train: Dataset) -> None:
        self.path = path
        keys = self._keys()
        ids = [name for name in ("user_id", "item_id") if name in keys.columns]
        if "item_id" not in ids:
            raise DataError(
                f"{path}: vectors must be keyed by item_id, or by user_id and item_id; found {keys.columns}."
            )
        pairs = pl.DataFrame({"user_id": train.users.ids, "user": np.arange(len(train.users))})
        pairs = pl.DataFrame({"user": train.user, "item": train.item}).join(pairs, on="user", maintain_order="left")
        items = pl.DataFrame({"item_id": train.items.ids, "item": np.arange(len(train.items))})
        pairs = pairs.join(items, on="item", maintain_order="left").with_row_index("review")
        keys = keys.select(ids).with_columns(pl.col(ids).cast(pl.String)).with_row_index("at")
        matched = pairs.join(keys.unique(ids, keep="first"), on=ids).sort("review")
        if matched.is_empty():
            raise DataError(
                f"{path}: none of its {len(keys):,} vectors belongs to a train review. Compare its "
                f"{' and '.join(ids)} (first: {', '.join(map(str, keys.row(0)[1:])) if len(keys) else 'none'}) with "
                "those of the reviews."
            )
        self.review = matched["review"].to_numpy().astype(np.int64)
        self.at, self.row = np.unique(matched["at"].to_numpy().astype(np.int64), return_inverse=True)

    def __len__(self) -> int:
        return len(self.at)

    @property
    def fingerprint(self) -> str:
        """Digest of what the files hold."""
        return _digest(self.path)

    def __iter__(self) -> Iterator[tuple[Int[ndarray, " chunk"], Float[ndarray, "chunk text_dim"]]]:
        """Yield (rows, vectors) in the order of the file."""
        first, dim = 0, 0  # row of the file, length of its vectors
        for chunk in self._chunks():
            start, end = np.searchsorted(self.at, [first, first + len(chunk)]).tolist()
            if start < end:
                at = self.at[start:end]
                with np.errstate(over="ignore"):
                    vectors = self._numbers(chunk, at - first).astype(np.float32)
                dim = dim or vectors.shape[1]
                if vectors.shape[1] != dim:
                    raise DataError(
                        f"{self.path}: all vectors must be of one length; found {dim} and {vectors.shape[1]}."
                    )
                if not np.isfinite(vectors).all():
                    raise DataError(
                        f"{self.path}: vectors must be finite in 32 bits; rows {at[0]:,} to {at[-1]:,} hold others."
                    )
                yield np.arange(start, end), vectors
            first += len(chunk)

    def _keys(self) -> pl.DataFrame:
        if self.path.suffix == ".parquet":
            names = [name for name in self._schema if name in ("user_id", "item_id")]
            return _ids_of(self.path, names)
        beside = _beside(self.path)
        try:
            keys = (
                pl.read_csv(beside, infer_schema=False)
                if beside.suffix == ".csv"
                else _ids_of(beside, list(parquet_schema(beside)))
            )
        except (*POLARS_ERRORS, OSError) as error:
            raise DataError(f"{self.path}: its ids cannot be read ({first_line(error)}).") from error
        if len(keys) != len(self._matrix):
            raise DataError(
                f"{self.path} holds {len(self._matrix):,} vectors and {beside.name} {len(keys):,} ids: each "
                "vector needs its own."
            )
        return keys

    @cached_property
    def _schema(self) -> Mapping[str, Any]:
        return parquet_schema(self.path)

    @cached_property
    def _vector(self) -> str:
        """The one column of lists of numbers."""
        found = [name for name, kind in self._schema.items() if isinstance(kind, pl.List | pl.Array)]
        if len(found) != 1:
            raise DataError(
                f"{self.path} must have one column of lists of numbers, the vector; found {len(found)} among "
                f"{', '.join(self._schema)}."
            )
        return found[0]

    @cached_property
    def _matrix(self) -> ndarray:
        try:
            matrix: ndarray = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # of a damaged header numpy raises what its parsers do
            raise DataError(f"{self.path} cannot be read as .npy ({first_line(error)}).") from error
        if matrix.ndim != 2 or matrix.dtype.kind not in "iuf":
            raise DataError(
                f"{self.path} must be a matrix of numbers; found shape {matrix.shape}, type {matrix.dtype}."
            )
        return matrix

    def _chunks(self) -> Iterator[ndarray | pl.Series]:
        """All vectors of the file, so many rows at a time."""
        if self.path.suffix == ".npy":
            return (self._matrix[start : start + _CHUNK] for start in range(0, len(self._matrix), _CHUNK))
        return (frame[self._vector] for frame in parquet_frames(self.path, [self._vector], _CHUNK))

    def _numbers(self, chunk: ndarray | pl.Series, rows: Int[ndarray, " some"]) -> Float[ndarray, "some text_dim"]:
        if isinstance(chunk, ndarray):
            return np.asarray(chunk[rows])
        try:
            lists = chunk.gather(rows).cast(pl.List(pl.Float32))
        except POLARS_ERRORS as error:
            raise DataError(f"{self.path}: vectors must be numbers ({first_line(error)}).") from error
        if lists.null_count() or lists.list.len().n_unique() != 1:
            raise DataError(f"{self.path}: all vectors must be of one length.")
        return np.array(lists.explode()).reshape(len(rows), -1)


def precomputed(path: str | Path, *, text_dim: int = 256) -> PrecomputedEncoder:
    """Vectors from a .npy or Parquet file, keyed by review (user_id and item_id) or by item (item_id).

    Args:
        path: The file.
        text_dim: Directions kept when the vectors are whitened.

    Returns:
        The encoder.

    Raises:
        DataError: If there is no such file, or a .npy file has no ids beside it.
    """
    path = Path(path)
    if path.suffix not in (".npy", ".parquet"):
        raise DataError(f"{path}: precomputed vectors must be a .npy or a .parquet file.")
    if not path.is_file():
        raise DataError(f"{path} does not exist. Check the path of the precomputed vectors (now in {Path.cwd()}).")
    if path.suffix == ".npy":
        _beside(path)
    return PrecomputedEncoder(str(path), conditioning=Conditioning("whiten", text_dim))


def _ids_of(path: Path, names: list[str]) -> pl.DataFrame:
    """Columns of a Parquet file; one that is damaged may say that it has no part at all."""
    frames = list(parquet_frames(path, names))
    if not frames:
        raise DataError(f"{path} holds no rows.")
    return pl.concat(frames)


def _beside(path: Path) -> Path:
    """Find the table of ids of a .npy file."""
    for suffix in (".keys.parquet", ".keys.csv"):
        if (beside := path.with_suffix(suffix)).exists():
            return beside
    raise DataError(
        f"{path} needs a table of ids beside it, one row a vector: {path.with_suffix('.keys.csv').name} with the "
        "columns item_id, or user_id and item_id."
    )


def _digest(path: Path) -> str:
    files = [path, _beside(path)] if path.suffix == ".npy" else [path]
    return digest("precomputed", [digest_file(file) for file in files])
