"""Arrays of safetensors files: read by memory map, which several processes share, and written without a copy."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy import ndarray
from safetensors import SafetensorError

# in the order in which the library lays arrays out in a file
_TYPES = {"I64": "<i8", "F64": "<f8", "F32": "<f4", "I32": "<i4", "F16": "<f2"}
_NAMES = {np.dtype(kind): name for name, kind in _TYPES.items()}


def map_tensors(path: Path) -> dict[str, ndarray]:
    """Map the arrays of a safetensors file; they cannot be written to.

    Args:
        path: The file.

    Returns:
        Array by name.

    Raises:
        SafetensorError: If the file is no safetensors file, or holds a type that we do not write.
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(size)) if 2 <= size < 100_000_000 else {}
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
            whole = np.memmap(path, dtype=np.uint8, mode="r", offset=8 + size) if entries else np.empty(0, np.uint8)
            return {
                name: whole[slice(*entry["data_offsets"])].view(_TYPES[entry["dtype"]]).reshape(entry["shape"])
                for name, entry in entries.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SafetensorError(f"{path.name} is no safetensors file of ours: {error}") from error


def write_tensors(path: Path, tensors: Mapping[str, ndarray]) -> None:
    """Write arrays as a safetensors file, the same bytes as the library's `save`, which takes twice their memory.

    Args:
        path: The file.
        tensors: Array by name: floats of 16, 32 or 64 bits, or integers of 32 or 64.

    Raises:
        OSError: If it cannot be written.
    """
    kinds = list(_TYPES)
    named = {name: (_NAMES[array.dtype], array) for name, array in tensors.items()}
    header, end = {}, 0
    for name, (kind, array) in (
        ordered := sorted(named.items(), key=lambda each: (kinds.index(each[1][0]), each[0]))
    ):
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [begin, end]}
    about = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    about += b" " * (-len(about) % 8)
    with path.open("wb") as file:
        file.write(len(about).to_bytes(8, "little") + about)
        for _, (_, array) in ordered:
            file.write(np.ascontiguousarray(array).data)
