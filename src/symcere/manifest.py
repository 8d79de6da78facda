"""Artefacts on disk: a folder is written whole or not at all, and says where it came from.

A stage writes into a temporary sibling folder that is renamed when complete, so an interrupt, a full disk or
a SIGKILL never leaves a half-written artefact under its final name. `manifest.json` holds the key of the
stage (a digest of its inputs, settings and the package version) and the SHA-256 of every file.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from symcere.errors import OutputError

VERSION = "0.1.0"
NAME = "manifest.json"


def digest(*parts: Any) -> str:
    """SHA-256 of the canonical JSON of `parts`: the same values give the same key on every machine.

    Args:
        *parts: Anything that JSON can hold.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
        True
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an operating-system error while writing `path` into an OutputError that says what to do."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"Cannot write {path}: {reason}. Free space, fix its permissions, or choose another folder "
            "with --out; finished stages are kept."
        ) from error


def write_file(path: Path, data: str | bytes) -> None:
    """Write a file atomically: to a temporary name beside it, flushed to disk, then renamed.

    Args:
        path: Where the file shall stand; its folder is made.
        data: Text (as UTF-8) or bytes.

    Raises:
        OutputError: If the operating system refuses; nothing is left behind.
    """
    raw = data.encode("utf-8", errors="replace") if isinstance(data, str) else data
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def new_folder(path: Path, key: str, fields: Mapping[str, Any]) -> Iterator[Path]:
    """Yield an empty temporary folder that becomes `path`, with a manifest, when the block ends well.

    Args:
        path: The final folder; one that stands there is replaced.
        key: The digest that names inputs and settings of what is written.
        fields: More entries for the manifest (JSON values); read when the block ends.

    Yields:
        The temporary folder to write into.

    Raises:
        OutputError: If the operating system refuses; the temporary folder is removed on any error.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}.", dir=path.parent))
        temporary.chmod(0o755)
    try:
        with writing(path):
            yield temporary
            files = {
                str(file.relative_to(temporary)): digest_file(file)
                for file in sorted(temporary.rglob("*"))
                if file.is_file()
            }
            manifest = {"key": key, "symcere": VERSION, **fields, "files": files}
            write_file(temporary / NAME, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
            if path.exists():
                shutil.rmtree(path)
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of `folder` if it is there, readable and every file has its recorded hash.

    Args:
        folder: A folder made by `new_folder`.

    Returns:
        The manifest, or None where the folder is missing, incomplete or damaged (so it must be made again).
    """
    try:
        manifest = json.loads((folder / NAME).read_text(encoding="utf-8"))
        whole = all(digest_file(folder / name) == sha for name, sha in manifest["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if whole else None
