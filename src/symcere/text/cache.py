"""Vectors on disk by content: a text that was encoded once is never encoded again."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from symcere.manifest import write_file
from symcere.text.encoders import FittedEncoder

_SEGMENT = 1_024  # texts encoded, written and reported at a time: what an interrupt can lose


def encode_cached(
    encoder: FittedEncoder,
    texts: Sequence[str],
    cache: Path | None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Float[ndarray, "texts text_dim"], int]:
    """Encode `texts`, each distinct one once, taking from the cache what it holds.

    The cache is a folder of segments, each written whole under the hash of its content. Two processes may
    write at once; an interrupt loses at most the segment in the making; a damaged segment is encoded again.

    Args:
        encoder: Decides the folder: its fingerprint.
        texts: At least one text.
        cache: Root folder of all caches; None keeps nothing.
        on_progress: Called with (texts done, texts to encode).

    Returns:
        One vector a text, and how many texts had to be encoded.

    Raises:
        OutputError: If a segment cannot be written.
    """
    keys = [hashlib.blake2b(text.encode("utf-8", errors="replace"), digest_size=16).digest() for text in texts]
    folder = cache / encoder.fingerprint[:32] if cache else None
    known = _load_segments(folder) if folder else {}
    missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
    order = sorted(missing, key=lambda key: len(missing[key]))  # like lengths together: less padding
    for start in range(0, len(order), _SEGMENT):
        segment = order[start : start + _SEGMENT]
        vectors = encoder.encode([missing[key] for key in segment])
        if folder:
            raw = save({"keys": np.frombuffer(b"".join(segment), dtype=np.uint8), "vectors": vectors})
            write_file(folder / f"{hashlib.sha256(raw).hexdigest()[:32]}.safetensors", raw)
        known |= zip(segment, vectors, strict=True)
        if on_progress:
            on_progress(start + len(segment), len(order))
    return np.stack([known[key] for key in keys]), len(order)


def _load_segments(folder: Path) -> dict[bytes, Float[ndarray, " text_dim"]]:
    """All vectors of a folder by key; a segment whose content does not match its name is passed over."""
    known: dict[bytes, ndarray] = {}
    for path in sorted(folder.glob("*.safetensors")):
        raw = path.read_bytes()
        if hashlib.sha256(raw).hexdigest()[:32] == path.stem:
            try:
                tensors = load(raw)
            except SafetensorError:
                continue
            keys = tensors["keys"].tobytes()
            known |= {keys[16 * row : 16 * row + 16]: vector for row, vector in enumerate(tensors["vectors"])}
    return known
