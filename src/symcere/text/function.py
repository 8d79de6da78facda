"""Any function from texts to vectors as an encoder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy import ndarray

from symcere.manifest import digest
from symcere.text.cache import NO_CACHE, VectorCache
from symcere.text.conditioning import WHITENED, Conditioning
from symcere.text.corpus import Corpus
from symcere.text.encoders import OnProgress, TextEncoder


@dataclass(frozen=True)
class FunctionEncoder(TextEncoder):
    """A function `list[str] -> array` (texts x text_dim).

    Args:
        function: The function; it is called with some tens to thousands of distinct texts at a time.
        name: What it is called in reports.
        version: Names what it computes. With a version its vectors are kept in the cache, under name and version;
            without one nobody can know that it is still the same, and nothing is kept.
        conditioning: Centred and whitened, as fits most sentence encoders.
    """

    function: Callable[[list[str]], Any]
    name: str = "function"
    version: str | None = None
    conditioning: Conditioning = WHITENED

    @property
    def identity(self) -> str:
        """Name and version; a function without a version is its own identity."""
        return f"{self.name} {self.version} {self.conditioning}" if self.repeatable else repr(self)

    @property
    def repeatable(self) -> bool:
        """Whether it has a version."""
        return self.version is not None

    def fit(
        self, corpus: Corpus, cache: VectorCache = NO_CACHE, on_progress: OnProgress | None = None
    ) -> "FittedFunction":
        """Return the function as a fitted encoder; nothing is learned."""
        del corpus, cache, on_progress
        fingerprint = digest("function", self.name, self.version) if self.version is not None else None
        return FittedFunction(self.function, fingerprint)


@dataclass(frozen=True)
class FittedFunction:
    """A function that encodes."""

    function: Callable[[list[str]], Any]
    fingerprint: str | None
    reach: int = 2**31
    half: bool = False

    def encode(self, texts: Sequence[str]) -> ndarray:
        """What the function returns, as an array; its shape is checked by who asked."""
        return np.asarray(self.function(list(texts)))


def function_encoder(
    function: Callable[[list[str]], Any],
    *,
    name: str | None = None,
    version: str | None = None,
    conditioning: Conditioning = FunctionEncoder.conditioning,
) -> FunctionEncoder:
    """Make an encoder of any function from a list of texts to an array of vectors.

    Args:
        function: The function.
        name: What it is called in reports; the function's own name if left out.
        version: Names what it computes, so that vectors can be cached.
        conditioning: What is done to the vectors.

    Returns:
        The encoder.

    Example:
        >>> function_encoder(lambda texts: [[len(text)] for text in texts], name="length").name
        'length'
    """
    return FunctionEncoder(function, name or str(getattr(function, "__name__", "function")), version, conditioning)
