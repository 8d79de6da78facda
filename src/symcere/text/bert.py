"""The 6-layer BERT of all-MiniLM-L6-v2, read from safetensors: the forward pass and nothing else."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

_BATCH = 32


class Bert:
    """A frozen BERT encoder with mean pooling.

    Args:
        weights: Tensors by their names in the checkpoint.
        tokenizer: The model's own; pads nothing, cuts at the wanted length.
        n_layers: Number of transformer layers.
        n_heads: Attention heads of a layer.
        epsilon: Of the layer norms.
    """

    def __init__(
        self, weights: dict[str, Tensor], tokenizer: Tokenizer, n_layers: int, n_heads: int, epsilon: float
    ) -> None:
        self.weights, self.tokenizer = weights, tokenizer
        self.n_layers, self.n_heads, self.epsilon = n_layers, n_heads, epsilon

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> Float[ndarray, "texts text_dim"]:
        """Unit vectors of `texts`; batches are sorted by length, so little is padded."""
        tokens = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(tokens)), key=lambda row: len(tokens[row]))
        out = np.empty((len(tokens), self.weights["embeddings.word_embeddings.weight"].shape[1]), dtype=np.float32)
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            ids = torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(tokens[row]) for row in rows], batch_first=True, padding_value=0
            )
            out[rows] = self._vectors(ids).numpy()
        return out

    def _vectors(self, ids: Int[Tensor, "batch length"]) -> Float[Tensor, "batch text_dim"]:
        there = ids != 0  # [PAD] is token 0
        position = torch.arange(ids.shape[1])
        w = self.weights
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][position]
        x = self._norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings")
        for layer in range(self.n_layers):
            name = f"encoder.layer.{layer}"
            x = self._norm(x + self._attention(x, there, name), f"{name}.attention.output")
            inner = functional.gelu(self._linear(x, f"{name}.intermediate.dense"))
            x = self._norm(x + self._linear(inner, f"{name}.output.dense"), f"{name}.output")
        mean = (x * there[..., None]).sum(1) / there.sum(1, keepdim=True).clamp(min=1)
        return functional.normalize(mean, dim=1)

    def _attention(self, x: Tensor, there: Tensor, name: str) -> Tensor:
        batch, length, dim = x.shape
        query, key, value = (
            self._linear(x, f"{name}.attention.self.{part}").view(batch, length, self.n_heads, -1).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=there[:, None, None, :])
        return self._linear(mixed.transpose(1, 2).reshape(batch, length, dim), f"{name}.attention.output.dense")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return functional.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self.weights[f"{name}.LayerNorm.weight"], self.weights[f"{name}.LayerNorm.bias"]
        return functional.layer_norm(x, weight.shape, weight, bias, self.epsilon)


def load_bert(folder: Path, max_tokens: int) -> Bert:
    """Load a BERT checkpoint.

    Args:
        folder: Holds config.json, model.safetensors and tokenizer.json.
        max_tokens: Longer texts are cut here; at most what the position table holds.

    Returns:
        The encoder.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()  # the file ships padding and truncation at 128
    tokenizer.enable_truncation(min(max_tokens, config["max_position_embeddings"]))
    weights = load_file(folder / "model.safetensors")
    return Bert(
        weights,
        tokenizer,
        config["num_hidden_layers"],
        config["num_attention_heads"],
        config["layer_norm_eps"],
    )
