"""Memory that is taken again: where a matrix is large, new pages cost as much as a pass over it."""

import weakref

import torch
from jaxtyping import Shaped
from numpy import ndarray
from torch import Tensor


class Spare:
    """Memory of matrices that every step makes anew: taken again as soon as nobody reads the one before.

    Freed, a large matrix goes back to the system, which hands out other pages for the next one and zeroes each of
    them. Memory of other devices is left to torch, whose allocator there keeps it.

    Example:
        >>> spare, x = Spare(), torch.ones(2, 3)
        >>> first = spare.empty_like(x)
        >>> second = spare.empty_like(x)  # the first is still at hand
        >>> place = first.data_ptr()
        >>> place == second.data_ptr()
        False
        >>> del first
        >>> spare.empty_like(x).data_ptr() == place
        True
    """

    def __init__(self) -> None:
        self._rooms: list[tuple[Tensor, weakref.ref[ndarray]]] = []

    def empty_like(
        self, x: Shaped[Tensor, "rows columns"], dtype: torch.dtype | None = None
    ) -> Shaped[Tensor, "rows columns"]:
        """Make a matrix of undefined values.

        Args:
            x: Its shape and device are taken.
            dtype: That of x if left out.

        Returns:
            The matrix; its memory is taken again when neither it nor any view of it is left.
        """
        dtype = dtype or x.dtype
        if x.device.type != "cpu":
            return torch.empty_like(x, dtype=dtype)
        size = x.numel() * dtype.itemsize
        free = [at for at, (room, reader) in enumerate(self._rooms) if reader() is None and len(room) >= size]
        least = min(free, key=lambda at: len(self._rooms[at][0]), default=None)
        room = torch.empty(size, dtype=torch.uint8) if least is None else self._rooms.pop(least)[0]
        reader = room.numpy()  # an object that lives as long as a tensor over it
        self._rooms.append((room, weakref.ref(reader)))
        storage = torch.from_numpy(reader).untyped_storage()
        return torch.empty(0, dtype=dtype).set_(storage, 0, x.shape, (x.shape[1], 1))

    def clear(self) -> None:
        """Give back what nobody reads; the rest goes with its last reader."""
        self._rooms.clear()
