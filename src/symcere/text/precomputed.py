"""Bring your own vectors: a file of them, by review or by item."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Float, Int
from numpy import ndarray

from symcere.data.dataset import Dataset
from symcere.data.formats.rows import POLARS_ERRORS
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
        begins = np.searchsorted(self.at, np.arange(0, int(self.at[-1]) + 1, _CHUNK))
        for start, end in itertools.pairwise([*begins.tolist(), len(self.at)]):
            at = self.at[start:end]
            if not len(at):
                continue
            vectors = np.asarray(self._matrix[at] if self.path.suffix == ".npy" else self._read_parquet(at))
            if not np.isfinite(vectors).all():
                raise DataError(
                    f"{self.path}: vectors must be finite; rows {at[0]:,} to {at[-1]:,} hold NaN or infinity."
                )
            yield np.arange(start, end), vectors.astype(np.float32)

    def _keys(self) -> pl.DataFrame:
        try:
            if self.path.suffix == ".parquet":
                return pl.read_parquet(
                    self.path, columns=[name for name in self._holds_lists if name in ("user_id", "item_id")]
                )
            beside = _beside(self.path)
            keys = pl.read_csv(beside, infer_schema=False) if beside.suffix == ".csv" else pl.read_parquet(beside)
        except (*POLARS_ERRORS, OSError) as error:
            raise DataError(f"{self.path}: its ids cannot be read ({str(error).splitlines()[0][:200]}).") from error
        if len(keys) != len(self._matrix):
            raise DataError(
                f"{self.path} holds {len(self._matrix):,} vectors and {beside.name} {len(keys):,} ids: each "
                "vector needs its own."
            )
        return keys

    @cached_property
    def _holds_lists(self) -> dict[str, bool]:
        """Columns of the Parquet file, and whether they hold lists."""
        try:
            schema = pl.read_parquet_schema(self.path)
        except (*POLARS_ERRORS, OSError) as error:
            raise DataError(f"{self.path} cannot be read as Parquet ({str(error).splitlines()[0][:200]}).") from error
        return {name: isinstance(kind, pl.List | pl.Array) for name, kind in schema.items()}

    @cached_property
    def _vector(self) -> str:
        """The one column of lists of numbers."""
        found = [name for name, holds_lists in self._holds_lists.items() if holds_lists]
        if len(found) != 1:
            raise DataError(
                f"{self.path} must have one column of lists of numbers, the vector; found {len(found)} among "
                f"{', '.join(self._holds_lists)}."
            )
        return found[0]

    @cached_property
    def _matrix(self) -> ndarray:
        try:
            matrix: ndarray = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{self.path} cannot be read as .npy ({error}).") from error
        if matrix.ndim != 2 or not np.issubdtype(matrix.dtype, np.number):
            raise DataError(
                f"{self.path} must be a matrix of numbers; found shape {matrix.shape}, type {matrix.dtype}."
            )
        return matrix

    def _read_parquet(self, at: Int[ndarray, " chunk"]) -> ndarray:
        begin, end = int(at[0]), int(at[-1]) + 1
        table = pl.scan_parquet(self.path).select(self._vector).slice(begin, end - begin).collect()
        lists = table[self._vector].gather(at - begin).cast(pl.List(pl.Float32))
        if lists.null_count() or lists.list.len().n_unique() != 1:
            raise DataError(f"{self.path}: all vectors must be of one length; rows {begin:,} to {end - 1:,} differ.")
        numbers: ndarray = np.array(lists.explode())
        return numbers.reshape(len(at), -1)


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
