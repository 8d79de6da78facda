"""The BERT of all-MiniLM-L6-v2 on ONNX Runtime with 8-bit weights, for the CPU; made once, without torch.

A text is a batch of its own. 8-bit activations are scaled by the largest value in their batch, so in a batch a
vector would depend on its neighbours; alone it depends on nothing but the text. It costs nothing: batches of one
are as fast here as batches of 16, and nothing is padded (docs/log.md).
"""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from symcere.errors import ConfigError
from symcere.manifest import digest, digest_file, new_folder, read_manifest
from symcere.text.cache import VectorCache

_RECIPE = "onnx int8 1"  # changes when the graph or its quantisation does
_FILE = "model.onnx"
_CONTRIB = "com.microsoft"  # fused operators of ONNX Runtime


class OnnxBert:
    """A frozen BERT encoder with mean pooling.

    Args:
        model: Path of an ONNX model: ids (1 x length) -> vector (1 x text_dim).
        tokenizer: The model's own; pads nothing, cuts at the wanted length.
    """

    def __init__(self, model: Path, tokenizer: Tokenizer) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # texts run side by side instead
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self.tokenizer = tokenizer

    def encode(self, texts: Sequence[str]) -> Float[ndarray, "texts text_dim"]:
        """Unit vectors of `texts`, several at a time where there are several processors."""
        ids = [np.array([encoding.ids]) for encoding in self.tokenizer.encode_batch(list(texts))]
        with ThreadPoolExecutor(_n_threads()) as pool:
            vectors = list(pool.map(lambda text: self.session.run(None, {"ids": text})[0], ids))
        return np.concatenate(vectors)


def load_onnx_bert(folder: Path, max_tokens: int, cache: VectorCache) -> OnnxBert:
    """Load the 8-bit model of a BERT checkpoint; make it where the cache does not hold it.

    Args:
        folder: Holds config.json, model.safetensors and tokenizer.json.
        max_tokens: Longer texts are cut here; at most what the position table holds.
        cache: Where the model stands under the hash of the weights.

    Returns:
        The encoder.

    Raises:
        ConfigError: If onnxruntime, or onnx when the model has to be made, is not installed.
        OutputError: If the model cannot be written.
    """
    tokenizer = load_tokenizer(folder, _cut(folder, max_tokens))
    key = digest(_RECIPE, digest_file(folder / "model.safetensors"))
    made = cache.folder(f"model-{key[:32]}")
    try:
        if made is None:
            with tempfile.TemporaryDirectory() as temporary:
                _make(folder, Path(temporary) / _FILE)
                return OnnxBert(Path(temporary) / _FILE, tokenizer)
        if read_manifest(made) is None:
            with new_folder(made, key, {"recipe": _RECIPE}) as temporary_folder:
                _make(folder, temporary_folder / _FILE)
        return OnnxBert(made / _FILE, tokenizer)
    except ImportError as error:
        raise ConfigError(
            f"The 8-bit sentence encoder needs {error.name}: pip install onnxruntime onnx. Or use --encoder "
            "sentence-float32, which runs on torch."
        ) from error


def write_onnx_bert(folder: Path, max_tokens: int, cache: VectorCache, into: Path) -> None:
    """Write the 8-bit model of a BERT checkpoint and its tokenizer into an existing folder; they need nothing else.

    Args:
        folder: Holds config.json, model.safetensors and tokenizer.json.
        max_tokens: Longer texts are cut here.
        cache: Where the model may stand already.
        into: The folder.
    """
    key = digest(_RECIPE, digest_file(folder / "model.safetensors"))
    made = cache.folder(f"model-{key[:32]}")
    if made and read_manifest(made):
        shutil.copyfile(made / _FILE, into / _FILE)
    else:
        _make(folder, into / _FILE)
    shutil.copyfile(folder / "tokenizer.json", into / "tokenizer.json")
    (into / "about.json").write_text(json.dumps({"max_tokens": _cut(folder, max_tokens)}), encoding="utf-8")


def read_onnx_bert(folder: Path) -> OnnxBert:
    """Read what `write_onnx_bert` wrote."""
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    return OnnxBert(folder / _FILE, load_tokenizer(folder, about["max_tokens"]))


def _cut(folder: Path, max_tokens: int) -> int:
    """Tokens that are read: at most what the position table holds."""
    return min(max_tokens, int(read_config(folder)["max_position_embeddings"]))


def load_tokenizer(folder: Path, max_tokens: int) -> Tokenizer:
    """Return the tokenizer of a checkpoint: no padding, texts cut at `max_tokens`."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()  # the file ships padding and truncation at 128
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


def read_config(folder: Path) -> dict[str, Any]:
    """Return config.json of a checkpoint."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config


def _make(folder: Path, path: Path) -> None:
    """Write the 8-bit model: weights by channel, activations when they are known."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(
            _graph(folder),
            path,
            weight_type=QuantType.QInt8,
            per_channel=True,
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
    assert path.stat().st_size < 0.3 * (folder / "model.safetensors").stat().st_size  # weights did become 8-bit


def _graph(folder: Path) -> Any:
    """Build the network, from its weights, with the fused operators of ONNX Runtime."""
    from onnx import TensorProto, helper, numpy_helper

    weights, config = load_file(folder / "model.safetensors"), read_config(folder)
    width, epsilon = config["hidden_size"], config["layer_norm_eps"]
    nodes: list[Any] = []
    constants: list[Any] = []

    def constant(value: ndarray) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value), f"constant{len(constants)}"))
        return f"constant{len(constants) - 1}"

    def node(operator: str, *inputs: str, **attributes: Any) -> str:
        out = f"{operator}{len(nodes)}"
        nodes.append(helper.make_node(operator, inputs, [out], name=out, **attributes))
        return out

    def norm(name: str) -> tuple[str, str]:
        return constant(weights[f"{name}.LayerNorm.weight"]), constant(weights[f"{name}.LayerNorm.bias"])

    def times(x: str, name: str) -> str:
        return node("MatMul", x, constant(weights[f"{name}.weight"].T))

    def add_and_norm(x: str, y: str, name: str) -> str:
        bias = constant(weights[f"{name}.dense.bias"])
        return node("SkipLayerNormalization", x, y, *norm(name), bias, domain=_CONTRIB, epsilon=epsilon)

    length = node("Gather", node("Shape", "ids"), constant(np.array([1])))
    position = (
        weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
    )
    here = node("Slice", constant(position), constant(np.array([0])), length)
    word = node("Gather", constant(weights["embeddings.word_embeddings.weight"]), "ids")
    x = node("LayerNormalization", node("Add", word, here), *norm("embeddings"), axis=-1, epsilon=epsilon)
    for layer in range(config["num_hidden_layers"]):
        name = f"encoder.layer.{layer}"
        parts = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
        qkv = constant(np.concatenate([weights[f"{part}.weight"].T for part in parts], axis=1))
        bias = constant(np.concatenate([weights[f"{part}.bias"] for part in parts]))
        mixed = node("Attention", x, qkv, bias, domain=_CONTRIB, num_heads=config["num_attention_heads"])
        x = add_and_norm(x, times(mixed, f"{name}.attention.output.dense"), f"{name}.attention.output")
        inner = node("BiasGelu", times(x, f"{name}.intermediate.dense"),
                     constant(weights[f"{name}.intermediate.dense.bias"]), domain=_CONTRIB)  # fmt: skip
        x = add_and_norm(x, times(inner, f"{name}.output.dense"), f"{name}.output")
    mean = node("ReduceMean", x, constant(np.array([1])), keepdims=0)
    nodes.append(helper.make_node("LpNormalization", [mean], ["vector"], axis=1, p=2))
    return helper.make_model(
        helper.make_graph(
            nodes,
            "bert",
            [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, "length"])],
            [helper.make_tensor_value_info("vector", TensorProto.FLOAT, [1, width])],
            constants,
        ),
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid(_CONTRIB, 1)],
        ir_version=10,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser's advice from the user's screen."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _n_threads() -> int:
    """Processors to use: what the user allows torch, too."""
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    if allowed.isdigit() and int(allowed):
        return int(allowed)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
