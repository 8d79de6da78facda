"""A folder on any file system that fsspec knows: a path, s3://, gs:// and so on. What is not whole is not there."""

import contextlib
import hashlib
import itertools
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import fsspec

from symcere.errors import ConfigError, DataError, OutputError
from symcere.manifest import NAME, VERSION, write_file


@dataclass(frozen=True)
class Storage:
    """A folder. It is named by its address alone, so it can be handed to another process or machine.

    Args:
        url: A path that all machines see, or the address of an object store.
    """

    url: str

    @cached_property
    def filesystem(self) -> tuple[fsspec.AbstractFileSystem, str]:
        """The file system, and the folder's path in it."""
        try:
            fs, root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"{self.url} cannot be opened: {error}. Install what fsspec needs for it.") from error
        return fs, root.rstrip("/")

    @property
    def local(self) -> Path | None:
        """Its path, where it lies on a file system of this machine."""
        fs, root = self.filesystem
        return Path(root) if "file" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)) else None

    def write(self, name: str, raw: bytes) -> str:
        """Write a file, whole or not at all.

        Args:
            name: Within the folder.
            raw: Its content.

        Returns:
            Its SHA-256.

        Raises:
            OutputError: If it cannot be written.
        """
        if self.local:
            write_file(self.local / name, raw)
        else:
            fs, root = self.filesystem
            with self._writing(name):
                fs.pipe_file(f"{root}/{name}", raw)  # an object is there when all of it is
        return hashlib.sha256(raw).hexdigest()

    def read(self, name: str, sha256: str | None = None) -> bytes:
        """Read a file.

        Args:
            name: Within the folder.
            sha256: What its content must hash to, where that is known.

        Returns:
            Its content.

        Raises:
            DataError: If it is not there, or is another.
        """
        fs, root = self.filesystem
        try:
            raw = cast(bytes, fs.cat_file(f"{root}/{name}"))
        except OSError as error:
            raise DataError(f"{self.url}/{name} cannot be read: {error}.") from error
        if sha256 is not None and hashlib.sha256(raw).hexdigest() != sha256:
            raise DataError(f"{self.url}/{name} is damaged: its hash is not that of the manifest. Make it again.")
        return raw

    def names(self) -> list[str]:
        """Names of the files in it, in order; none where there is no such folder."""
        fs, root = self.filesystem
        fs.invalidate_cache()
        try:
            found = fs.ls(root, detail=True)
        except OSError:
            return []
        return sorted(entry["name"].rpartition("/")[2] for entry in found if entry["type"] == "file")

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        fs, root = self.filesystem
        with contextlib.suppress(FileNotFoundError):
            fs.rm_file(f"{root}/{name}")

    def finish(self, key: str, fields: Mapping[str, Any], files: Mapping[str, str]) -> dict[str, Any]:
        """Write the manifest: from now on the folder counts as whole.

        Args:
            key: Digest of all that decided the content.
            fields: More entries.
            files: Name -> SHA-256.

        Returns:
            The manifest.
        """
        manifest = {"key": key, "symcere": VERSION, **fields, "files": dict(sorted(files.items()))}
        self.write(NAME, (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode())
        return manifest

    def promised(self, key: str | None = None) -> dict[str, Any] | None:
        """The manifest, where there is one: whoever reads a file hands its hash to `read`.

        Args:
            key: What the folder must have been made under; any if left out.

        Returns:
            The manifest, or None.
        """
        try:
            manifest = json.loads(self.read(NAME))
            ours = isinstance(manifest["files"], dict) and key in (None, manifest["key"])
        except (DataError, ValueError, KeyError, TypeError):
            return None
        return manifest if ours else None

    def holds(self, name: str, sha256: str) -> bool:
        """Whether a file is there, with the content that the manifest speaks of."""
        try:
            self.read(name, sha256)
        except DataError:
            return False
        return True

    def manifest(self, key: str | None = None) -> dict[str, Any] | None:
        """The manifest, where the folder is whole: all files there, and each with its hash.

        Args:
            key: What the folder must have been made under; any if left out.

        Returns:
            The manifest, or None.
        """
        manifest = self.promised(key)
        return manifest if manifest and all(itertools.starmap(self.holds, manifest["files"].items())) else None

    @contextlib.contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # every object store has errors of its own
            raise OutputError(f"Cannot write {self.url}/{name}: {error}. Finished stages are kept.") from error


@contextlib.contextmanager
def fetched(url: str) -> Iterator[Path]:
    """A file as a path of this machine: itself where it lies here, a copy for a while where it does not.

    Args:
        url: Path or address.

    Yields:
        The path; its name is that of the file.

    Raises:
        DataError: If it cannot be fetched.
    """
    folder, _, name = url.rpartition("/")
    storage = Storage(folder or ".")
    if storage.local:
        yield storage.local / name
        return
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / name
        fs, root = fsspec.core.url_to_fs(url)
        try:
            fs.get_file(root, str(path))
        except OSError as error:
            raise DataError(f"{url} cannot be read: {error}. Check the address and the credentials.") from error
        yield path


def files_of(url: str) -> list[str]:
    """The files behind a path or address.

    Args:
        url: A file, or a folder of files.

    Returns:
        The file itself, or the files of the folder in the order of their names, without hidden ones.

    Raises:
        DataError: If there is none.
    """
    storage = Storage(url.rstrip("/"))
    found = [name for name in storage.names() if not name.startswith(".")]
    if storage.local and storage.local.is_file():
        return [url]
    if not found:
        fs, root = fsspec.core.url_to_fs(url)
        if fs.exists(root) and not fs.isdir(root):
            return [url]
        raise DataError(f"{url} is no file and no folder with files in it. Check the address.")
    if found == [url.rpartition("/")[2]] and not storage.local:
        return [url]  # an object store lists a file as a folder of itself
    return [f"{url.rstrip('/')}/{name}" for name in found]
