"""Iterate while a thread makes the next thing."""

import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Generic, TypeVar

Thing = TypeVar("Thing")


class Ahead(Iterator[Thing], Generic[Thing]):
    """Gives what an iterator gives, the next one being made by a thread while the caller works on the one before.

    It may be dropped at any moment, also by the garbage collector in the middle of starting another thread: nothing
    here waits for anybody when it goes. (A ThreadPoolExecutor does, and deadlocked there.)

    Args:
        things: What to iterate; used by the thread alone from now on.
        depth: How many things are made ahead.

    Example:
        >>> list(Ahead(iter("abc")))
        ['a', 'b', 'c']
    """

    def __init__(self, things: Iterator[Thing], depth: int = 1) -> None:
        self._wanted: SimpleQueue[bool] = SimpleQueue()
        self._made: SimpleQueue[tuple[Thing | None, BaseException | None]] = SimpleQueue()
        self._error: BaseException | None = None
        for _ in range(depth):
            self._wanted.put(True)
        threading.Thread(target=_make, args=(things, self._wanted, self._made), daemon=True).start()

    def __next__(self) -> Thing:
        """Return the next thing; raise what the iterator raised."""
        if self._error is None:
            thing, self._error = self._made.get()
        if self._error is not None:
            raise self._error
        self._wanted.put(True)
        return thing  # type: ignore[return-value]

    def __del__(self) -> None:
        self._wanted.put(False)


def _make(
    things: Iterator[Thing],
    wanted: "SimpleQueue[bool]",
    made: "SimpleQueue[tuple[Thing | None, BaseException | None]]",
) -> None:
    while wanted.get():
        try:
            made.put((next(things), None))
        except BaseException as error:  # also StopIteration: whoever iterates gets it
            made.put((None, error))
            break
    if close := getattr(things, "close", None):
        close()  # files are closed by who opened them
