"""Bytes of a raw file in blocks of whole lines, decompressed ahead of whoever reads them."""

import codecs
import contextlib
import gzip
import hashlib
import io
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from isal import igzip, isal_zlib  # as gzip and zlib, at twice their speed

from symcere.data.ahead import Ahead
from symcere.data.formats.array import Records, opens_array
from symcere.errors import DataError

BLOCK = 16 * 2**20  # bytes of a block, but for the rest of its last line

_DEPTH = 3  # blocks that may lie ready
_START = 65_536  # bytes that tell what a file holds
_GZIP = b"\x1f\x8b"


@dataclass
class Meter:
    """How much of some files has been read.

    Args:
        read: Bytes as they lie on disk.
        total: Of all files.
        on_progress: Called with the share that has been read.
    """

    read: int = 0
    total: int = 0
    on_progress: Callable[[float], None] | None = None

    def add(self, n_bytes: int) -> None:
        """Count more."""
        self.read += n_bytes
        if self.on_progress:
            self.on_progress(min(self.read / max(self.total, 1), 1.0))


@contextlib.contextmanager
def open_input(path: Path) -> Iterator[io.BufferedReader]:
    """Open a regular file for reading, or raise the DataError that says why it cannot be."""
    try:
        if not path.exists():
            raise DataError(f"{path} does not exist. Check the path (now in {Path.cwd()}).")
        if not path.is_file():
            raise DataError(
                f"{path} is no regular file. Save its content to a file first: it is read more than once."
            )
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Check its name and permissions.") from error


def input_files(path: Path) -> list[Path]:
    """Find the files to read.

    Args:
        path: A file, or a folder.

    Returns:
        The path itself, or the files of a folder in the order of their names, without hidden ones.

    Raises:
        DataError: If a folder holds no file.
    """
    try:
        if not path.is_dir():
            return [path]
        files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Check its name and permissions.") from error
    if not files:
        raise DataError(f"{path} is a folder without a file. Name the review file, or a folder of review files.")
    return files


def digest_input(path: str | Path) -> str:
    """SHA-256 of a raw file, or of the names and digests of a folder's files; DataError where it cannot be read."""
    files = input_files(Path(path))
    digests = []
    for name in files:
        with open_input(name) as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    if files == [Path(path)]:
        return digests[0]
    lines = "".join(f"{digest}  {name.name}\n" for digest, name in zip(digests, files, strict=True))
    return hashlib.sha256(lines.encode("utf-8", errors="surrogateescape")).hexdigest()


def holds_array(path: Path) -> bool:
    """Whether a file is a JSON array, whose records are read as lines."""
    with open_input(path) as file:
        return opens_array(_unpacked(file).read(_START))


def is_parquet(path: Path) -> bool:
    """Whether a file begins as Parquet does; polars reads those itself."""
    with open_input(path) as file:
        return file.read(4) == b"PAR1"


def read_blocks(path: Path, meter: Meter) -> Iterator[bytes]:
    """Yield the content of a file, decompressed, in blocks that end with a line; none of them is empty.

    Of a JSON array, a line is a record.

    The next block is read while the caller works on the one before.

    Args:
        path: Any file but Parquet.
        meter: Told how much is read.

    Returns:
        Blocks, while one iterates.

    Raises:
        DataError: If the file cannot be read, is a damaged gzip file, is empty, or is a JSON array that does not end
            where it should.
    """
    return Ahead(_whole_lines(path, meter), depth=_DEPTH)


def first_and_all(blocks: Iterator[bytes], path: Path) -> tuple[bytes, Iterator[bytes]]:
    """Look at the first block that is not blank.

    Args:
        blocks: All blocks of a file.
        path: For messages.

    Returns:
        It, without a byte order mark, and all blocks from it on.

    Raises:
        DataError: If there is none, or it is of no format that is read as text.
    """
    for block in blocks:
        if block[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise DataError(f"{path} is UTF-16. Convert it, for example with: iconv -f UTF-16 -t UTF-8")
        block = block.removeprefix(codecs.BOM_UTF8)
        if block.strip():
            if b"\x00" in block[:4096]:
                raise DataError(
                    f"{path} is binary, and not Parquet or gzip. Give JSON lines or an array, CSV, TSV or Parquet."
                )
            return block, itertools.chain([block], blocks)
    raise DataError(f"{path} is empty. It must hold reviews: JSON lines or an array, CSV, TSV or Parquet.")


def _whole_lines(path: Path, meter: Meter) -> Iterator[bytes]:
    """Fill a buffer with what the file holds, decompressed, and cut it after its last line ending; and so on."""
    with open_input(path) as file:
        source = _unpacked(file)
        buffer, held, read = bytearray(BLOCK), 0, 0
        records: Records | None = None
        try:
            while filled := _fill(source, buffer, held):
                if not read and opens_array(buffer):
                    records = Records(path)
                meter.add(file.tell() - read)
                read = file.tell()
                end = records.cut(buffer, filled) if records else buffer.rfind(b"\n", held, filled) + 1
                view = memoryview(buffer)
                if end:
                    yield bytes(view[:end])
                    held = filled - end
                    view[:held] = view[end:filled]
                else:  # a line that is longer than the buffer
                    held = filled
                    if held == len(buffer):
                        buffer = bytearray(2 * len(buffer))
                        buffer[:held] = view
        except (EOFError, gzip.BadGzipFile, isal_zlib.error) as error:  # type: ignore[misc]
            raise DataError(
                f"{path} is a damaged gzip file ({error}); it may be half downloaded. Fetch it again."
            ) from error
        if records and not records.closed:
            raise DataError(
                f"{path} ends within its JSON array: a bracket or a quotation mark is missing. It may be half "
                "downloaded; fetch it again."
            )
        if held:
            yield bytes(buffer[:held])


def _unpacked(file: io.BufferedReader) -> io.BufferedIOBase:
    """What a file holds, decompressed."""
    return igzip.open(file, "rb") if file.peek(2)[:2] == _GZIP else file  # type: ignore[no-untyped-call]


def _fill(source: io.BufferedIOBase, buffer: bytearray, held: int) -> int:
    """Read on after the first `held` bytes until the buffer is full or the source ends; 0 if nothing came."""
    filled, view = held, memoryview(buffer)
    while filled < len(buffer) and (n := source.readinto(view[filled:])):
        filled += n
    return filled if filled > held else 0
