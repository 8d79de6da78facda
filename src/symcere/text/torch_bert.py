"""The BERT of all-MiniLM-L6-v2 on torch, read from safetensors: the forward pass and nothing else."""

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

from symcere.text.onnx_bert import load_tokenizer, read_config

_BATCH = {"cpu": 32, "cuda": 256}


class TorchBert:
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
        self.device = weights["embeddings.word_embeddings.weight"].device
        self.n_layers, self.n_heads, self.epsilon = n_layers, n_heads, epsilon

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> Float[ndarray, "texts text_dim"]:
        """Unit vectors of `texts`; batches are sorted by length, so little is padded."""
        tokens = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(tokens)), key=lambda row: len(tokens[row]))
        out = np.empty((len(tokens), self.weights["embeddings.word_embeddings.weight"].shape[1]), dtype=np.float32)
        size = _BATCH[self.device.type]
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            ids = torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(tokens[row]) for row in rows], batch_first=True, padding_value=0
            )
            out[rows] = self._vectors(ids.to(self.device)).float().cpu().numpy()
        return out

    def _vectors(self, ids: Int[Tensor, "batch length"]) -> Float[Tensor, "batch text_dim"]:
        there = ids != 0  # [PAD] is token 0
        position = torch.arange(ids.shape[1], device=ids.device)
        w = self.weights
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][position]
        x = self._norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings")
        for layer in range(self.n_layers):
            name = f"encoder.layer.{layer}"
            x = self._norm(x + self._attention(x, there, name), f"{name}.attention.output")
            inner = functional.gelu(self._linear(x, f"{name}.intermediate.dense"))
            x = self._norm(x + self._linear(inner, f"{name}.output.dense"), f"{name}.output")
        return functional.normalize(
            (x.float() * there[..., None]).sum(1), dim=1
        )  # a mean has the direction of its sum

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


def load_torch_bert(
    folder: Path, max_tokens: int, precision: str = "float32", device: str | None = None
) -> TorchBert:
    """Load a BERT checkpoint.

    Args:
        folder: Holds config.json, model.safetensors and tokenizer.json.
        max_tokens: Longer texts are cut here; at most what the position table holds.
        precision: "float32", "bfloat16" or "float16": what weights and layers are computed in.
        device: Where; if left out, the CPU for float32 and the GPU for the others.

    Returns:
        The encoder.
    """
    config = read_config(folder)
    device = device or ("cpu" if precision == "float32" else "cuda")
    weights = {
        name: weight.to(device, getattr(torch, precision))
        for name, weight in load_file(folder / "model.safetensors").items()
        if weight.is_floating_point()
    }
    return TorchBert(
        weights,
        load_tokenizer(folder, min(max_tokens, config["max_position_embeddings"])),
        config["num_hidden_layers"],
        config["num_attention_heads"],
        config["layer_norm_eps"],
    )
