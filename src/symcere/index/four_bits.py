"""A first look at items of four bits an entry, for one taste: what may be best, and what no other item exceeds.

Eight numbers lie in four bytes, and sums over them are read from tables in a register: a look at a million items of
64 entries takes less time than it takes to read them as floats. What rounding left out of an item is one more of its
entries, so every sum is a bound on the item's score, and exact scores of some can prove that no other is better.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

_HALF = np.array([0.1284, 0.3881, 0.6568, 0.9424, 1.2562, 1.6181, 2.0690, 2.7326], dtype=np.float32)
_LEVEL = np.concatenate([-_HALF[::-1], _HALF])  # least error for a normal distribution (Max, 1960), in deviations
_LEVELS = len(_LEVEL)
_FINE = 32  # parts of a deviation that are told apart in search of the nearest level
_NEAREST = np.abs(np.arange(-3 * _FINE, 3 * _FINE + 1)[:, None] / _FINE - _LEVEL).argmin(axis=1).astype(np.uint8)
_SPREADS = (0.75, 1.0, 1.35, 1.8)  # what a deviation may be multiplied by where the distribution is another
_DIALS = 4  # columns that the offset is spread over, for the coarsest column decides how finely all are summed
_SUMMED = 256  # columns whose sums of eight-bit numbers stay within sixteen
_GROUP = 64  # items that are summed together: the fastest of 32, 64, 96 and 128
_ROUNDED = 0.51  # of the unit of sums, for each column: half, and what floats add
_BLOCK = 32_768  # items rounded at once
_SAMPLE = 8_192  # items that levels are chosen by
_LONGER = 1.35  # times as long is the next look, after one that was not enough
_SHORTER = 0.994  # and after one that was: 1 of 50 is not
_SPARED = 256  # tastes for which looks are spared, where they have not been enough


@dataclass(eq=False)
class FourBits:
    """Items as codes, and the values that codes stand for.

    Args:
        codes: The items, in faiss' layout.
        span: What the values of each column differ by at most.
        dim: How many of the columns are entries.
        offset_unit: Difference of offsets that is told apart.
        most: Length of the longest item, and the greatest offset, in absolute value.
    """

    codes: Any
    span: Float[ndarray, " columns"]
    dim: int
    offset_unit: float
    most: tuple[float, float]
    _wanted: float = field(default=0.0, init=False)  # at the next look; 0 for what it takes as a rule
    _spared: int = field(default=0, init=False)

    @classmethod
    def of(cls, emb: Float[ndarray, "n_items dim"], offset: Float[ndarray, " n_items"]) -> "FourBits | None":
        """Round items.

        Args:
            emb: float32.
            offset: float32: what the dial weighs.

        Returns:
            The items; None where they have too many entries.
        """
        n, dim = emb.shape
        n_columns = dim + 2 + _DIALS
        n_columns += n_columns % 2
        if n_columns > _SUMMED:
            return None
        mean, spread = _spread(emb[np.linspace(0, n - 1, min(n, _SAMPLE)).astype(np.int64)])
        code, left = np.zeros((n, n_columns), dtype=np.uint8), np.empty(n, dtype=np.float32)
        for begin in range(0, n, _BLOCK):
            block = slice(begin, begin + _BLOCK)
            code[block, :dim], left[block] = _rounded(emb[block], mean, spread)
        left *= np.float32(1.0001)  # what floats lost
        bound = np.quantile(left, 1 - np.append(0.5 ** np.arange(1, _LEVELS), 0), method="higher").astype(np.float32)
        code[:, dim] = np.searchsorted(bound, left)  # the least that is not below
        low, high = float(offset.min()), float(offset.max())
        unit = (high - low) / (_LEVELS**2 - 1) or 1.0
        whole = np.rint((offset - low) / np.float32(unit)).astype(np.int64).clip(0, _LEVELS**2 - 1)
        code[:, dim + 1 : dim + 1 + _DIALS], code[:, dim + 1 + _DIALS] = (whole >> 4)[:, None], whole & 15
        value = np.zeros((n_columns, _LEVELS), dtype=np.float32)
        level = np.arange(_LEVELS)
        value[:dim] = mean[:, None] + _LEVEL * spread[:, None]
        value[dim] = bound
        value[dim + 1 : dim + 1 + _DIALS] = (low + _LEVELS * level * unit) / _DIALS
        value[dim + 1 + _DIALS] = level * unit
        longest = math.sqrt(float(np.einsum("rd,rd->r", emb, emb).max())) + float(bound[-1])
        return cls(_packed(code, value), np.ptp(value, axis=1), dim, unit, (longest, max(abs(low), abs(high))))

    def look(
        self, taste: Float[ndarray, " dim"], dial: float, k: int, n_hidden: int, times: int = 1
    ) -> tuple[Int[ndarray, " some"], float] | None:
        """Find items that may be the best.

        Args:
            taste: float32.
            dial: Weight of the offset.
            k: How many are wanted.
            n_hidden: How many may be found in vain.
            times: How much longer a look than is thought to be enough.

        Returns:
            Items, and what the score of no other item exceeds; None where a look is not worth its time, or says
            nothing of the others.
        """
        n = self.codes.ntotal
        self._wanted = self._wanted or 2 * math.isqrt(n) + 32 * k
        wanted = int(self._wanted) * times + n_hidden
        weights = np.zeros((1, len(self.span)), dtype=np.float32)
        weights[0, : self.dim] = taste
        length = weights[0, self.dim] = np.linalg.norm(taste)
        weights[0, self.dim + 1 : self.dim + 2 + _DIALS] = dial
        coarsest = float((np.abs(weights[0]) * self.span).max())
        if self._spared or wanted > n // _LEVELS or not coarsest:
            self._spared = max(self._spared - 1, 0)
            return None
        import faiss

        faiss.omp_set_num_threads(1)
        (bound,), (item,) = self.codes.search(weights, wanted)
        if item[-1] < 0:  # items whose sum is the least of all are not found, and there is no bound for them
            return None
        by_sum = _ROUNDED * len(self.span) * coarsest / 255
        by_float = 1e-5 * (float(length) * self.most[0] + abs(dial) * self.most[1])
        return item, float(bound[-1]) + by_sum + abs(dial) * self.offset_unit / 2 + by_float

    def learn(self, *, enough: bool) -> None:
        """Take note of whether a look was enough, so that the next is about as long as looks must be here.

        Args:
            enough: Whether exact scores proved that no other item is better.
        """
        self._wanted *= _SHORTER if enough else _LONGER
        if self._wanted > self.codes.ntotal // _LEVELS:
            self._wanted, self._spared = 0.0, _SPARED


def _spread(sample: ndarray) -> tuple[ndarray, ndarray]:
    """Mean and deviation of each column, the deviation by what levels leave out of a sample."""
    mean, spread = sample.mean(axis=0), np.maximum(sample.std(axis=0), np.float32(1e-20))
    tried = (spread * np.float32(times) for times in _SPREADS)
    return mean, min(tried, key=lambda spread: float(_rounded(sample, mean, spread)[1].mean()))


def _rounded(emb: ndarray, mean: ndarray, spread: ndarray) -> tuple[ndarray, ndarray]:
    """Codes of the entries of items, and the length of what they leave out."""
    fine = np.rint((emb - mean) * (_FINE / spread)).clip(-3 * _FINE, 3 * _FINE).astype(np.int16)
    code = _NEAREST.take(fine + 3 * _FINE)
    left = emb - (mean + _LEVEL.take(code) * spread)
    return code, np.sqrt(np.einsum("rd,rd->r", left, left))


def _packed(code: ndarray, value: ndarray) -> Any:
    """A faiss index of codes that stand for given values, a quantizer of sixteen levels for each column."""
    import faiss

    n, n_columns = code.shape
    plain = faiss.IndexPQ(n_columns, n_columns, 4, faiss.METRIC_INNER_PRODUCT)
    faiss.copy_array_to_vector(value.ravel(), plain.pq.centroids)
    faiss.copy_array_to_vector((code[:, 0::2] | (code[:, 1::2] << 4)).ravel(), plain.codes)
    plain.ntotal, plain.is_trained = n, True
    make: Any = faiss.IndexPQFastScan  # whose constructors are not told apart by its types
    return make(plain, _GROUP)
