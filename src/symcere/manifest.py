"""Artefacts on disk: a folder is written whole or not at all, and says where it came from.

A stage writes into a temporary sibling folder that is renamed when complete, so an interrupt, a full disk or
a SIGKILL never leaves a half-written artefact under its final name. `manifest.json` holds the key of the
stage (a digest of its inputs, settings and the package version) and the SHA-256 of every file.
"""

import contextlib
import functools
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


def digest_array(array: Any) -> str:
    """SHA-256 of the bytes of a NumPy array."""
    return hashlib.sha256(array.tobytes()).hexdigest()


@functools.cache
def code_digest(part: str = ".") -> str:
    """SHA-256 of the package's own source, or of a part of it: what other code made is made again."""
    sources = sorted((Path(__file__).parent / part).rglob("*.py"))
    return digest([[str(path.name), digest_file(path)] for path in sources])


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
            "(--out, --cache); finished stages are kept."
        ) from error


def write_file(path: Path, data: str | bytes) -> None:
    """Write a file atomically: to a temporary name beside it, flushed to disk, then renamed.

    Args:
        path: Where the file shall stand; its folder is made. A device or a pipe is written to, not replaced.
        data: Text (as UTF-8) or bytes.

    Raises:
        OutputError: If the operating system refuses; nothing is left behind.
    """
    raw = data.encode("utf-8", errors="replace") if isinstance(data, str) else data
    with writing(path):
        if path.exists() and not (path.is_file() or path.is_dir()):
            path.write_bytes(raw)
            return
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
def new_folder(path: Path, key: str | None, fields: Mapping[str, Any]) -> Iterator[Path]:
    """Yield an empty temporary folder that becomes `path`, with a manifest, when the block ends well.

    Args:
        path: The final folder. One of ours that stands there is replaced, unless it has the same key: then
            somebody else was quicker, and theirs stays.
        key: The digest that names what is written, by its inputs and settings; None to take that of its content.
        fields: More entries for the manifest (JSON values); read when the block ends.

    Yields:
        The temporary folder to write into.

    Raises:
        OutputError: If the operating system refuses, or `path` holds files that are not ours; the temporary
            folder is removed on any error.
    """
    with writing(path):
        if path.exists() and not _is_ours(path):
            raise OutputError(f"{path} stands in the way: it was not written by symcere. Move it, or choose another.")
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
            key = key or digest(dict(fields), files)
            manifest = {"key": key, "symcere": VERSION, **fields, "files": files}
            write_file(temporary / NAME, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
            _swap(temporary, path, key)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_ours(path: Path) -> bool:
    """Whether a folder may be replaced: it is empty, or has a manifest with a key."""
    if not path.is_dir():
        return False
    return not any(path.iterdir()) or _load(path) is not None


def _swap(temporary: Path, path: Path, key: str) -> None:
    """Give a finished folder its final name; an older one of another key is moved aside first, then removed."""
    aside = temporary.with_name(f"{temporary.name}.old")
    if path.exists():
        standing = read_manifest(path)
        if standing is not None and standing["key"] == key:
            return
        path.rename(aside)
    try:
        temporary.rename(path)
    except BaseException:
        if aside.exists():
            aside.rename(path)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of `folder` if it is there, readable and every file has its recorded hash.

    Args:
        folder: A folder made by `new_folder`.

    Returns:
        The manifest, or None where the folder is missing, incomplete or damaged (so it must be made again).
    """
    manifest = _load(folder)
    try:
        whole = manifest and all(digest_file(folder / name) == sha for name, sha in manifest["files"].items())
    except OSError:
        return None
    return manifest if whole else None


def _load(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a folder without looking at its files; None where there is none of ours."""
    try:
        manifest = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    ours = isinstance(manifest, dict) and isinstance(manifest.get("files"), dict) and "key" in manifest
    return manifest if ours else None
