"""A JSON array of records, turned into lines where it lies, a block at a time; nothing is parsed."""

import re
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from numpy import ndarray

from symcere.errors import DataError

_OPENS = re.compile(rb'(?:\xef\xbb\xbf)?\s*\[\s*(?:\{\s*["}]|\])')
_COMMA, _QUOTE, _BACKSLASH, _BLANK, _LINE_END, _RETURN = b',"\\ \n\r'
_DEEPER = np.zeros(256, dtype=np.int8)
_DEEPER[list(b"[{")], _DEEPER[list(b"]}")] = 1, -1
_MATTERS = bytes(byte in b"[{]},\r\n" for byte in range(256))


def opens_array(start: bytes | bytearray) -> bool:
    """Whether a file that starts like this holds one JSON array of objects."""
    return _OPENS.match(start) is not None


class Records:
    """Cuts an array into its records, block by block.

    Args:
        path: For messages.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._opened, self.closed = path, False, False

    def cut(self, buffer: bytearray, filled: int) -> int:
        """Make a line of each whole record, in place.

        Args:
            buffer: Begins with the array, or after a record.
            filled: Bytes of it that count.

        Returns:
            Where the last of these lines ends.

        Raises:
            DataError: If more than blanks follow the array.
        """
        if not self._opened:
            buffer[buffer.index(b"[")] = _BLANK
            self._opened = True
        text = np.frombuffer(buffer, dtype=np.uint8)[:filled]
        at = np.flatnonzero(np.frombuffer(buffer[:filled].translate(_MATTERS), dtype=bool))
        at = at[np.searchsorted(_quotes(text), at) % 2 == 0]
        depth = np.cumsum(_DEEPER[text[at]], dtype=np.int64)
        ends = at[(text[at] == _COMMA) & (depth == 0)]
        if not self.closed and (depth < 0).any():
            close = at[np.argmax(depth < 0)]
            ends, self.closed = np.append(ends[ends < close], close), True
        stop = int(ends[-1]) + 1 if len(ends) else 0
        if self.closed and buffer[stop:filled].strip():
            raise DataError(
                f"{self._path} goes on after its JSON array. It must hold one array of objects, or one object a line."
            )
        breaks = at[at < stop]
        text[breaks[(text[breaks] == _LINE_END) | (text[breaks] == _RETURN)]] = _BLANK
        text[ends] = _LINE_END
        return stop


def _quotes(text: UInt8[ndarray, " bytes"]) -> Int[ndarray, " quotes"]:
    """Where strings begin and end: quotation marks behind an even number of backslashes."""
    quotes, slashes = np.flatnonzero(text == _QUOTE), np.flatnonzero(text == _BACKSLASH)
    runs = slashes[np.diff(slashes, prepend=-2) != 1]
    behind = np.flatnonzero((quotes > 0) & (text[quotes - 1] == _BACKSLASH))
    first = runs[np.searchsorted(runs, quotes[behind], side="right") - 1]
    return np.delete(quotes, behind[(quotes[behind] - first) % 2 == 1])
