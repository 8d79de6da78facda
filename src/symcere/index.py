"""The best items by inner product: a first look at eight bits with a bound on its error, then exact scores.

A product of eight-bit numbers costs a fraction of one of floats, in time and in bytes read. It is off by at most a
known amount, so all items within that amount of the k-th best are scored exactly, and the list is the exact one.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from symcere.errors import ConfigError
from symcere.ranking import Hidden, reaching, top_k

_TASTE, _ITEM = 63, 127  # greatest numbers of a taste and of an item: sums of two products stay within 16 bits
_DIALS = 4  # columns that the dial is spread over, for it may be larger than a taste's entries
_HIDDEN = np.int32(-(2**30))  # below every product
_BLOCK = 32_768  # items of one product
_ROOM = 2**21  # products held at once: within the cache
_ROWS = 64, 512  # tastes at least and at most that share a reading of all items
_SHARE = 16  # of them at least for a thread
_LINKS, _EFFORT = 32, 400  # of an item; and how many items are followed up for a taste
_MANY = 32_768  # items, from which on two looks cost less than comparing all scores


@dataclass(frozen=True, eq=False)
class Index:
    """Finds the items with the greatest taste . emb + dial * offset, exactly.

    Args:
        emb: float32 (n_items x dim).
        offset: float32 (n_items): what the dial weighs.
    """

    emb: Float[ndarray, "n_items dim"]
    offset: Float[ndarray, " n_items"]

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs: the rest it makes for itself, for sessions cannot be sent."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def prepare(self, n_threads: int = 1) -> None:  # noqa: ARG002  of use to others
        """Make what the first search would make otherwise: half a second a million items.

        Args:
            n_threads: How many threads may share the work.
        """
        if len(self.emb) >= _MANY:
            _ = self._eight_bits

    def best(
        self, tastes: Float[ndarray, "tastes dim"], dial: float, k: int, hidden: Hidden, n_threads: int = 1
    ) -> tuple[Int[ndarray, "tastes k"], Float[ndarray, "tastes k"]]:
        """Find the best items of each taste; equal scores by item index.

        Args:
            tastes: float32, a row each.
            dial: Weight of the offset.
            k: How many; at most n_items.
            hidden: Row, ascending, and item of what is not ranked.
            n_threads: How many threads share the tastes.

        Returns:
            Items, -1 where fewer than k are left, and their scores.
        """
        item = np.full((len(tastes), k), -1, dtype=np.int64)
        score = np.full((len(tastes), k), -np.inf, dtype=np.float32)
        n = len(self.emb)
        find = self._screened if n >= _MANY and k <= _BLOCK // 4 else self._compared
        step = min(max(_ROOM // min(n, _BLOCK), _ROWS[0]), _ROWS[1], max(-(-len(tastes) // n_threads), _SHARE))

        def fill(begin: int) -> None:
            rows = slice(begin, min(begin + step, len(tastes)))
            of = slice(*np.searchsorted(hidden[0], [rows.start, rows.stop]))
            within = hidden[0][of] - begin, hidden[1][of]
            item[rows], score[rows] = find(tastes[rows], np.float32(dial), k, within)

        self.prepare()  # once, and not in each thread
        begins = range(0, len(tastes), step)
        if n_threads == 1 or len(begins) == 1:
            for begin in begins:
                fill(begin)
        else:
            with ThreadPoolExecutor(n_threads) as pool:
                list(pool.map(fill, begins))
        return item, score

    def best_among(
        self, taste: Float[ndarray, " dim"], dial: float, k: int, among: Int[ndarray, " some"]
    ) -> tuple[Int[ndarray, " found"], Float[ndarray, " found"]]:
        """Find the best of some items.

        Args:
            taste: float32.
            dial: Weight of the offset.
            k: How many.
            among: The items, ascending.

        Returns:
            Items and their scores, best first; all of them where they are fewer than k.
        """
        scores = self.emb[among] @ taste + np.float32(dial) * self.offset[among]
        k = min(k, len(among))
        best = top_k(scores[None], k)[0] if k else np.zeros(0, dtype=np.int64)
        return among[best], scores[best]

    def _compared(self, tastes: ndarray, dial: np.float32, k: int, hidden: Hidden) -> tuple[ndarray, ndarray]:
        """By the exact score of every item."""
        scores = tastes @ self.emb.T
        scores += dial * self.offset
        scores[hidden] = -np.inf
        item = top_k(scores, k)
        score = np.take_along_axis(scores, item, axis=1)
        item[np.isneginf(score)] = -1
        return item, score

    def _screened(self, tastes: ndarray, dial: np.float32, k: int, hidden: Hidden) -> tuple[ndarray, ndarray]:
        """By the exact scores of those that may be best."""
        row, item = self._eight_bits.reaching(tastes, float(dial), k, hidden)
        score = np.einsum("cd,cd->c", self.emb[item], tastes[row]) + dial * self.offset[item]
        order = np.lexsort((-score, row))
        place = np.arange(len(row)) - np.searchsorted(row, row)  # of what is sorted, within its row
        row, item, score = row[order][place < k], item[order][place < k], score[order][place < k]
        place = place[place < k]
        items = np.full((len(tastes), k), -1, dtype=np.int64)
        scores = np.full((len(tastes), k), -np.inf, dtype=np.float32)
        items[row, place], scores[row, place] = item, score
        return items, scores

    @cached_property
    def _eight_bits(self) -> "_EightBits":
        return _EightBits.of(self.emb, self.offset)


@dataclass(frozen=True, eq=False)
class ApproximateIndex(Index):
    """Follows links between near items instead of looking at all: faster on large catalogues, and may miss some.

    Args:
        scale: What an offset of 1 is worth beside the vectors when items are linked: about the dial, in their unit.

    Raises:
        ConfigError: If the extra is not installed.

    Source:
        Malkov and Yashunin, Hierarchical navigable small world graphs, 2016; the implementation is faiss'.
    """

    scale: float

    def prepare(self, n_threads: int = 1) -> None:
        """Link the items, which takes seconds for 100,000 and minutes for a million.

        Args:
            n_threads: How many threads share the work.
        """
        super().prepare()
        if self._links.ntotal:
            return
        faiss = _faiss()
        faiss.omp_set_num_threads(n_threads)
        self._links.add(np.column_stack([self.emb, self.offset * np.float32(self.scale)]))
        faiss.omp_set_num_threads(1)

    def best(
        self, tastes: Float[ndarray, "tastes dim"], dial: float, k: int, hidden: Hidden, n_threads: int = 1
    ) -> tuple[Int[ndarray, "tastes k"], Float[ndarray, "tastes k"]]:
        """The same of one taste, nearly; of several, or where much is hidden, exactly."""
        self.prepare()
        wanted = k + len(hidden[0])
        if len(tastes) > 1 or wanted > _EFFORT // 2:
            return super().best(tastes, dial, k, hidden, n_threads)
        weight = np.float32(dial / self.scale)
        _, (found,) = self._links.search(np.append(tastes[0], weight)[None], wanted)
        among = np.sort(found[(found >= 0) & ~np.isin(found, hidden[1])])
        item, score = np.full((1, k), -1, dtype=np.int64), np.full((1, k), -np.inf, dtype=np.float32)
        n = min(k, len(among))
        item[0, :n], score[0, :n] = self.best_among(tastes[0], dial, k, among)
        return item, score

    @cached_property
    def _links(self) -> Any:
        faiss = _faiss()
        links = faiss.IndexHNSWFlat(self.emb.shape[1] + 1, _LINKS, faiss.METRIC_INNER_PRODUCT)
        links.hnsw.efConstruction, links.hnsw.efSearch = _EFFORT // 2, _EFFORT
        return links


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise ConfigError(
            'An approximate index needs its extra. Install it with: pip install "symcere[ann]"'
        ) from None
    return faiss


@dataclass(frozen=True, eq=False)
class _EightBits:
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
    def of(cls, emb: ndarray, offset: ndarray) -> "_EightBits":
        """Round items to whole numbers."""
        most = float(np.abs(emb).max()) or 1.0
        an_offset = float(np.abs(offset).max()) or 1.0
        unit = most / _ITEM
        n, dim = emb.shape
        blocks, off = [], 0.0
        for part in np.array_split(np.arange(n), -(-n // _BLOCK)):
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
