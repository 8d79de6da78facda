"""Feedback that is kept: what users chose and wrote while the service runs, in one SQLite file."""

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from symcere.errors import ConfigError, OutputError
from symcere.manifest import write_file

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY, timestamp INTEGER NOT NULL, user_id TEXT NOT NULL, item_id TEXT NOT NULL,
    rating REAL, title TEXT NOT NULL, text TEXT NOT NULL
)
"""
_EVENTS = "SELECT user_id, item_id, rating, title, text, timestamp FROM events ORDER BY id"


@dataclass(frozen=True)
class Event:
    """What one user did with one item.

    Args:
        user_id: The user, known or not.
        item_id: The item.
        rating: Stars; None for none.
        title: Title of a review; "" for none.
        text: Its text; "" for none.
        timestamp: Seconds since 1970.
    """

    user_id: str
    item_id: str
    rating: float | None = None
    title: str = ""
    text: str = ""
    timestamp: int = 0

    @property
    def words(self) -> str:
        """Title and text as one, as train reviews are read."""
        return f"{self.title}\n{self.text}".strip()


class Feedback:
    """The store. An event that `add` returned from survives a kill of the process, and of the machine.

    Args:
        path: The file; made where it is missing or empty. Several processes may share it.

    Raises:
        OutputError: If it cannot be opened, or is no store of ours; what it holds is then left as it is.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _check_ours(path)
            self._store = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
            self._store.execute("PRAGMA journal_mode=WAL")
            self._store.execute("PRAGMA synchronous=FULL")
            self._store.execute(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise OutputError(f"{path} cannot keep feedback ({error}). Name another file with --feedback.") from error

    def add(self, event: Event) -> int:
        """Keep an event.

        Args:
            event: The event; its time is now where it has none.

        Returns:
            Its number, from 1.

        Raises:
            OutputError: If it could not be kept.
        """
        values = (
            event.timestamp or int(time.time()),
            event.user_id,
            event.item_id,
            event.rating,
            event.title,
            event.text,
        )
        try:
            with self._lock:
                kept = self._store.execute(
                    "INSERT INTO events (timestamp, user_id, item_id, rating, title, text) VALUES (?, ?, ?, ?, ?, ?)",
                    values,
                )
                return int(kept.lastrowid or 0)
        except sqlite3.Error as error:
            raise OutputError(f"The event could not be kept ({error}).") from error

    def __iter__(self) -> Iterator[Event]:
        """All events, oldest first."""
        with self._lock:
            rows = self._store.execute(_EVENTS).fetchall()
        return (Event(*row) for row in rows)

    def close(self) -> None:
        """Let go of the file."""
        self._store.close()


def export(store: Path, path: Path) -> int:
    """Write all events of a store, which is only read, also in use, as JSON lines for `symcere run`.

    Args:
        store: The file of a `Feedback`.
        path: Where; written whole or not at all.

    Returns:
        How many.

    Raises:
        ConfigError: If the file is no store of ours, or `path` is that very file.
        OutputError: If `path` cannot be written.
    """
    try:
        with closing(_read_only(store)) as there:
            events = [Event(*row) for row in there.execute(_EVENTS)]
    except sqlite3.Error as error:
        raise ConfigError(
            f"{store} holds no feedback that can be read ({error}). Name the file of symcere serve --feedback."
        ) from error
    if path.exists() and path.samefile(store):
        raise ConfigError(f"{path} is the store itself. Name another file with --out.")
    write_file(path, "".join(json.dumps(asdict(event), ensure_ascii=False) + "\n" for event in events))
    return len(events)


def _check_ours(path: Path) -> None:
    """Raise sqlite3.Error where a file holds something else than a store: what others keep stays as it is."""
    if not path.exists():
        return
    with closing(_read_only(path)) as there:
        if there.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
            there.execute("SELECT id, timestamp, user_id, item_id, rating, title, text FROM events LIMIT 1")


def _read_only(path: Path) -> sqlite3.Connection:
    """Open a database without a write to it, nor a file beside it that was not there.

    A log beside it (-wal) holds what is not in the database yet, and is read under the locks of its writers. Where
    there is none nobody writes, and SQLite, told so, needs none of the files that it would otherwise leave behind.
    """
    path = path.resolve()  # the log stands beside what a link points to
    has_log = path.with_name(f"{path.name}-wal").exists()
    how = "mode=ro" if has_log else "mode=ro&immutable=1"
    return sqlite3.connect(f"{path.as_uri()}?{how}", uri=True, timeout=10)
