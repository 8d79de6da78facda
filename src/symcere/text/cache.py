"""Vectors on disk by content: a text that was encoded once is never encoded again.

The cache of an encoder is a folder of segments. A segment is written under a temporary name, flushed, and renamed
to the hash of its content: it is there whole or not at all, whoever is killed and whoever else is writing. A file
whose content does not match its name (a torn tail, a bad disk) is dropped, and its texts are encoded again. Keys
and vectors are read through a memory map.
"""

import hashlib
import json
import mmap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Int, UInt64
from numpy import ndarray
from safetensors.numpy import save

from symcere.manifest import new_folder, read_manifest, write_file

_DTYPES = {"F16": np.float16, "F32": np.float32, "U64": np.uint64}


@runtime_checkable
class Kept(Protocol):
    """What can be kept in a folder."""

    def save(self, folder: Path) -> None:
        """Write it into an existing folder."""
        ...


Something = TypeVar("Something", bound=Kept)


@dataclass(frozen=True)
class VectorCache:
    """The root folder of all caches; None keeps nothing.

    Args:
        root: The folder; made when something is written.
    """

    root: Path | None

    def shelf(self, fingerprint: str) -> "Shelf":
        """Vectors of the encoder with this fingerprint."""
        return Shelf(self.root / fingerprint[:32] if self.root else None)

    def folder(self, name: str) -> Path | None:
        """Where something else that is made once may stand, such as a model."""
        return self.root / name if self.root else None

    def kept(
        self, fingerprint: str | None, load: Callable[[Path], Something], make: Callable[[], Something]
    ) -> Something:
        """What is costly to learn, such as the words of an encoder: found here, or learned now and kept.

        Args:
            fingerprint: Digest of all that decides it; None keeps nothing.
            load: Reads it from a folder.
            make: Learns it.

        Returns:
            It.

        Raises:
            OutputError: If it cannot be written.
        """
        folder = self.folder(f"encoder-{fingerprint[:32]}") if fingerprint else None
        if not folder:
            return make()
        if not read_manifest(folder):
            made = make()
            with new_folder(folder, fingerprint, {}) as temporary:
                made.save(temporary)
        return load(folder)  # another process may have been quicker: one fingerprint, one encoder


NO_CACHE = VectorCache(None)


class Shelf:
    """The segments of one encoder.

    Args:
        folder: Their folder; None for an encoder that keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.segments: list[Path] = []
        self._known: set[str] = set()

    def locate(
        self, keys: UInt64[ndarray, "texts 2"], since: int = 0
    ) -> tuple[Int[ndarray, " texts"], Int[ndarray, " texts"]]:
        """Find vectors that stood here when the shelf was opened, or that other runs have written since.

        Args:
            keys: Ascending by their first word.
            since: Look only into segments from this number on.

        Returns:
            The segment of each text, -1 where it has no vector, and its row there.
        """
        segment, row = np.full(len(keys), -1), np.zeros(len(keys), dtype=np.int64)
        self._find_segments()
        for number in range(since, len(self.segments)):
            held = _read(self.segments[number])[0]
            at = np.minimum(np.searchsorted(keys[:, 0], held[:, 0]), len(keys) - 1)
            mine = (keys[at] == held).all(1)
            segment[at[mine]], row[at[mine]] = number, np.flatnonzero(mine)
        return segment, row

    def read(self, segment: int, rows: Int[ndarray, " some"]) -> ndarray:
        """Vectors of a segment by row; the map is closed again, so memory does not grow with the cache."""
        return np.asarray(_read(self.segments[segment])[1][rows])

    def append(self, keys: UInt64[ndarray, "texts 2"], vectors: ndarray) -> None:
        """Write a new segment.

        Args:
            keys: Of texts that have no vector yet.
            vectors: Their vectors, float16 or float32.

        Raises:
            OutputError: If it cannot be written; nothing is left behind.
        """
        if self.folder:
            order = np.lexsort((keys[:, 1], keys[:, 0]))
            raw = save({"keys": keys[order], "vectors": vectors[order]})
            path = self.folder / f"{hashlib.sha256(raw).hexdigest()[:32]}.safetensors"
            write_file(path, raw)
            self._known.add(path.name)  # whoever wrote it needs not find it

    def _find_segments(self) -> None:
        """Take note of segments that another run has written since."""
        for path in sorted(self.folder.glob("*.safetensors")) if self.folder else []:
            if path.name not in self._known:
                self._known.add(path.name)
                with path.open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest()[:32] == path.stem:
                        self.segments.append(path)


def _read(path: Path) -> tuple[UInt64[ndarray, "texts 2"], ndarray]:
    """Keys and vectors of a whole segment as memory maps."""
    with path.open("rb") as file:
        raw = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    begin = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:begin])

    def tensor(name: str) -> ndarray:
        entry = header[name]
        flat = np.frombuffer(
            raw, _DTYPES[entry["dtype"]], int(np.prod(entry["shape"])), begin + entry["data_offsets"][0]
        )
        return flat.reshape(entry["shape"])

    return tensor("keys"), tensor("vectors")
