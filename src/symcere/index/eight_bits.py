"""A first look at items of eight bits an entry, for many tastes at once: which items may be among the best.

A product of eight-bit numbers costs a fraction of one of floats, in time and in bytes read. It is off by at most a
known amount, so none of the best is among the items that fall short of the k-th best by more.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy import ndarray

from symcere.ranking import Hidden, reaching

_TASTE, _ITEM = 63, 127  # greatest numbers of a taste and of an item: sums of two products stay within 16 bits
_DIALS = 4  # columns that the dial is spread over, for it may be larger than a taste's entries
_HIDDEN = np.int32(-(2**30))  # below every product
BLOCK = 32_768
"""Items of one product."""


@dataclass(frozen=True, eq=False)
class EightBits:
    """Items in whole numbers of a unit, and what that leaves out.

    Args:
        blocks: The items, in order.
        unit: What 1 stands for.
        most: Greatest number of an item's entry, in scores.
        longest: Length of the longest item.
        off: Length of the longest difference between an item and its whole numbers.
        an_offset: Offset that stands for `most`.
    """

    blocks: "list[_Block]"
    unit: float
    most: float
    longest: float
    off: float
    an_offset: float

    @classmethod
    def of(cls, emb: ndarray, offset: ndarray) -> "EightBits":
        """Round items to whole numbers."""
        most = float(np.abs(emb).max()) or 1.0
        an_offset = float(np.abs(offset).max()) or 1.0
        unit = most / _ITEM
        n, dim = emb.shape
        blocks, off = [], 0.0
        for part in np.array_split(np.arange(n), -(-n // BLOCK)):
            begin, end = int(part[0]), int(part[-1]) + 1
            whole = np.rint(emb[begin:end] / np.float32(unit))
            off = max(off, _longest(emb[begin:end] - whole * np.float32(unit)))
            numbers = np.empty((dim + _DIALS, end - begin), dtype=np.int8)
            numbers[:dim] = whole.T
            numbers[dim:] = np.rint(offset[begin:end] * np.float32(_ITEM / an_offset))
            blocks.append(_Block(begin, end - begin, _multiplier(numbers)))
        return cls(blocks, unit, most, _longest(emb), off, an_offset)

    def reaching(self, tastes: ndarray, dial: float, k: int, hidden: Hidden) -> tuple[ndarray, ndarray]:
        """Rows and items, both ascending, of all that may be among the k best of a row."""
        weight = dial * self.an_offset / self.most  # of an offset in the unit of the items
        step = max(float(np.abs(tastes).max()), abs(weight) / _DIALS, 1e-30) / _TASTE
        whole = np.rint(tastes / step)
        dials = np.diff(np.rint(np.linspace(0, round(weight / step), _DIALS + 1)))
        numbers = np.empty((len(tastes), tastes.shape[1] + _DIALS), dtype=np.uint8)
        numbers[:, : tastes.shape[1]] = whole + (_TASTE + 1)
        numbers[:, tastes.shape[1] :] = dials + (_TASTE + 1)
        slack = self._slack(tastes, whole * step, weight, step)
        room = np.empty(len(tastes) * max(block.n for block in self.blocks), dtype=np.int32)
        best = np.full((len(tastes), k), _HIDDEN, dtype=np.int32)
        found: list[tuple[ndarray, ndarray, ndarray]] = []
        least = slack  # of no use yet
        for block in self.blocks:
            products = block.products(numbers, room)
            here = (hidden[1] >= block.begin) & (hidden[1] < block.begin + block.n)
            products[hidden[0][here], hidden[1][here] - block.begin] = _HIDDEN
            if found:
                row, item = np.divmod(np.flatnonzero(products >= least[:, None]), block.n)
            else:
                row, item = reaching(products, k, slack)
            found.append((row, item + block.begin, products[row, item]))
            best = _k_greatest(best, row, found[-1][2])
            least = np.maximum(best[:, -1] - slack, _HIDDEN // 2)
        row, item, product = (np.concatenate(part) for part in zip(*found, strict=True))
        stays = product >= least[row]
        order = np.argsort(row[stays], kind="stable")
        return row[stays][order], item[stays][order]

    def _slack(self, tastes: ndarray, rounded: ndarray, weight: float, step: float) -> ndarray:
        """By how much the product of an item may stand below that of another whose score is not above it."""
        length = np.linalg.norm(rounded, axis=1)
        by_taste = np.linalg.norm(tastes - rounded, axis=1) * self.longest + length * self.off
        by_dial = step / 2 * self.most + abs(weight) * self.unit / 2
        by_float = 1e-6 * (tastes.shape[1] * length * self.longest + abs(weight) * self.most)
        slack = 2 * (by_taste + by_dial + by_float) / (step * self.unit) + 1
        return np.asarray(np.minimum(np.ceil(slack), 2**29), dtype=np.int32)


def _k_greatest(best: ndarray, row: ndarray, value: ndarray) -> ndarray:
    """The k greatest of each row, greatest first, with values added."""
    n, k = best.shape
    rows, values = np.concatenate([np.repeat(np.arange(n), k), row]), np.concatenate([best.ravel(), value])
    order = np.lexsort((-values, rows))
    begin = np.searchsorted(rows[order], np.arange(n))
    return np.asarray(values[order[begin[:, None] + np.arange(k)]])


def _longest(rows: ndarray) -> float:
    return math.sqrt(float(np.einsum("rd,rd->r", rows, rows, dtype=np.float64).max()))


@dataclass(frozen=True, eq=False)
class _Block:
    """Some items.

    Args:
        begin: The first.
        n: How many.
        session: Multiplies tastes with them.
    """

    begin: int
    n: int
    session: Any

    def products(self, tastes: ndarray, room: ndarray) -> ndarray:
        """Multiply.

        Args:
            tastes: uint8 (tastes x depth), 64 for 0.
            room: int32, where the products are laid; it is read before the next block writes there.

        Returns:
            int32 (tastes x n).
        """
        products: ndarray = room[: len(tastes) * self.n].reshape(len(tastes), self.n)
        bound = self.session.io_binding()
        bound.bind_cpu_input("tastes", tastes)
        bound.bind_output("products", "cpu", 0, np.int32, products.shape, products.ctypes.data)
        self.session.run_with_iobinding(bound)
        return products


def _multiplier(items: ndarray) -> Any:
    """A session that multiplies by items (int8, a column each): its kernels take instructions for eight bits."""
    import onnxruntime
    from onnx import TensorProto, helper

    depth, n = items.shape
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["tastes", "items", "zero"], ["products"])],
        "products",
        [helper.make_tensor_value_info("tastes", TensorProto.UINT8, [None, depth])],
        [helper.make_tensor_value_info("products", TensorProto.INT32, [None, n])],
        [
            helper.make_tensor("items", TensorProto.INT8, items.shape, items.tobytes(), raw=True),
            helper.make_tensor("zero", TensorProto.UINT8, [], [_TASTE + 1]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    return onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
