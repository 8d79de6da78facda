"""Two words kept apart: an id is what the raw file says, an index is a row number 0..n-1."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from symcere.errors import DataError, UnknownIdError


@dataclass(frozen=True)
class IdMap:
    """A bijection between ids and the indices 0..n-1: the position in `ids` is the index.

    Args:
        ids: Distinct ids, in index order.
        kind: What they name ("user" or "item"); used in messages.

    Raises:
        DataError: If an id occurs twice.

    Example:
        >>> users = IdMap(("ann", "bob"), kind="user")
        >>> users.index("bob"), users.id(0), len(users)
        (1, 'ann', 2)
    """

    ids: tuple[str, ...]
    kind: str

    def __post_init__(self) -> None:
        """Check that ids are distinct."""
        if len(self._index) != len(self.ids):
            raise DataError(f"{self.kind} ids must be distinct: {len(self.ids)} ids, {len(self._index)} distinct.")

    @cached_property
    def _index(self) -> dict[str, int]:
        return {id_: index for index, id_ in enumerate(self.ids)}

    def __repr__(self) -> str:
        return f"IdMap({len(self.ids)} {self.kind}s)"

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __contains__(self, id_: object) -> bool:
        return id_ in self._index

    def id(self, index: int) -> str:
        """Return the id at `index`."""
        return self.ids[index]

    def index(self, id_: str) -> int:
        """Return the index of `id_`.

        Args:
            id_: An id as it stands in the raw file.

        Returns:
            Its index, 0..n-1.

        Raises:
            UnknownIdError: If no such id exists; the message names the closest ones.
        """
        try:
            return self._index[id_]
        except KeyError:
            near = difflib.get_close_matches(id_[:100], self.ids[:100_000], n=3)
            hint = f"Closest: {', '.join(near)}." if near else f"Known ids look like {self.ids[0]!r}."
            raise UnknownIdError(f"Unknown {self.kind} id {id_[:100]!r} among {len(self):,}. {hint}") from None
