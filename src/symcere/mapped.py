"""Arrays of a safetensors file by memory map: several processes share them, and nothing is read before it is used."""

import json
from pathlib import Path

import numpy as np
from numpy import ndarray
from safetensors import SafetensorError

_TYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I32": "<i4", "I64": "<i8"}


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
