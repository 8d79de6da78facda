"""What is there of a file that is not yet whole, and which version of the original it is a part of."""

import contextlib
import errno
import fcntl
import io
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from symcere.errors import OutputError
from symcere.manifest import write_file

NOTHING_LOST = "What has been fetched is kept: the same command goes on from there."


@dataclass(frozen=True)
class Origin:
    """Which version of which file: what must agree for two requests to be parts of one body."""

    address: str
    etag: str
    modified: str
    size: int | None

    @property
    def validator(self) -> str:
        """What If-Range may hold: a strong ETag, else the date; empty where the server gave neither."""
        return self.etag if self.etag.startswith('"') else self.modified

    def agrees(self, other: "Origin") -> bool:
        """Whether nothing that both sides state differs."""
        pairs = ((self.etag, other.etag), (self.modified, other.modified), (self.size, other.size))
        return self.address == other.address and all(a == b for a, b in pairs if a and b)


class Part:
    """The bytes fetched so far, and whose they are."""

    def __init__(self, path: Path, file: io.FileIO, address: str) -> None:
        self.path, self.file, self.address = path, file, address
        self.note = path.with_name(f".{path.name}.json")
        self.n_fetched = 0
        self.origin = self._read_note()
        if self.origin is None:
            self.clear()

    def _read_note(self) -> Origin | None:
        """Return whose part it is; None where it cannot be gone on with."""
        try:
            origin = Origin(**json.loads(self.note.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return origin if origin.address == self.address and (origin.validator or self._whole(origin)) else None

    def _whole(self, origin: Origin) -> bool:
        return len(self) > 0 and len(self) == origin.size

    def __len__(self) -> int:
        return os.fstat(self.file.fileno()).st_size

    @property
    def complete(self) -> bool:
        """Whether all bytes that were announced are there."""
        return self.origin is not None and self._whole(self.origin)

    def clear(self) -> None:
        """Drop what is there: first the bytes, then the note, so that no note ever describes bytes of another."""
        if len(self):
            self.file.truncate(0)
        self.note.unlink(missing_ok=True)
        self.origin = None

    def begin(self, origin: Origin) -> None:
        """Start from nothing, as a part of that version."""
        self.clear()
        write_file(self.note, json.dumps(asdict(origin)))
        self.origin = origin

    def write(self, chunk: bytes) -> None:
        """Append bytes; what the disk took before it was full stays."""
        rest = memoryview(chunk)
        while rest:
            n = self.file.write(rest)
            self.n_fetched += n
            rest = rest[n:]

    def note_size(self, size: int) -> None:
        """Note the size in all where the first answer did not announce it."""
        assert self.origin is not None
        if self.origin.size is None:
            self.origin = replace(self.origin, size=size)
            write_file(self.note, json.dumps(asdict(self.origin)))


@contextlib.contextmanager
def locked(part: Path) -> Iterator[io.FileIO]:
    """Open a part for appending, alone; wait while another process has it. An empty one is not left behind."""
    while True:
        file = part.open("ab", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_at(file, part):
                try:
                    yield file
                finally:
                    if _is_at(file, part) and not os.fstat(file.fileno()).st_size:
                        part.unlink()
                return
        finally:
            file.close()


def _is_at(file: io.FileIO, path: Path) -> bool:
    """Whether the open file is still the one of that name: another process may have finished and renamed it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def saving(path: Path) -> Iterator[None]:
    """Turn an operating-system error into an OutputError that says what to do."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        advice = "Free space" if error.errno == errno.ENOSPC else "Fix its permissions"
        raise OutputError(
            f"Cannot write {path}: {reason}. {advice}, or choose another folder (--out). {NOTHING_LOST}"
        ) from error
