"""A run's folder: each stage is made once, into its own folder, and found again.

A stage's key is the digest of its inputs' keys, its settings and the package's own code. A folder that stands
under the same key is up to date; anything else is made in a temporary folder and renamed when whole.
"""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from symcere.manifest import code_digest, digest, new_folder, read_manifest
from symcere.pipeline.trackers import Tracker


class Watch(Protocol):
    """Who is told how a run goes on; the command line draws it as progress bars."""

    def begin(self, stage: str) -> None:
        """A stage begins."""
        ...

    def progress(self, phase: str, share: float, note: str) -> None:
        """A phase of the stage in hand has done this share of its work."""
        ...

    def end(self, stage: str, note: str, seconds: float, *, up_to_date: bool) -> None:
        """A stage ended; `up_to_date` when it had been made before."""
        ...


class Unwatched:
    """Nobody is told."""

    def begin(self, stage: str) -> None:
        """A stage begins."""

    def progress(self, phase: str, share: float, note: str) -> None:
        """A phase moved on."""

    def end(self, stage: str, note: str, seconds: float, *, up_to_date: bool) -> None:
        """A stage ended."""


@dataclass
class Workspace:
    """A run's folder: makes stages, and remembers what they took.

    Args:
        folder: Where everything is written.
        watch: Who is told.
        seconds: Stage -> seconds it took when it was made, which may have been an earlier run.
        up_to_date: Stages that were found.
        folders: Stage -> name of its folder.
        trackers: Who else is told the epochs of each fit.
    """

    folder: Path
    watch: Watch
    seconds: dict[str, float] = field(default_factory=dict)
    up_to_date: list[str] = field(default_factory=list)
    folders: dict[str, str] = field(default_factory=dict)
    trackers: tuple[Tracker, ...] = ()

    @property
    def checkpoints(self) -> Path:
        """Where its fits keep their state while they run."""
        return self.folder / "checkpoints"

    def stage(
        self, name: str, parts: Sequence[Any], make: Callable[[Path], Mapping[str, Any]]
    ) -> tuple[Path, dict[str, Any]]:
        """Return a stage's folder and manifest, making it unless it stands there under the same key.

        Args:
            name: Of the stage.
            parts: All that decides its content, as JSON values.
            make: Writes the content into an empty folder; returns entries for its manifest, among them
                "note", a few words for the screen.

        Returns:
            The folder, and its manifest as read from disk, so that a stage made now and one found are the same.

        Raises:
            OutputError: If it cannot be written.
        """
        key, folder = self._place(name, parts)
        self.watch.begin(name)
        manifest = self.find(name, parts)
        found = manifest is not None
        if not found:
            began = time.perf_counter()
            fields: dict[str, Any] = {"stage": name}
            with new_folder(folder, key, fields) as temporary:
                fields |= make(temporary)
                fields["seconds"] = round(time.perf_counter() - began, 3)
            manifest = read_manifest(folder)
        assert manifest is not None  # new_folder has just written it
        self.seconds[name] = manifest["seconds"]
        self.folders[name] = folder.name
        if found:
            self.up_to_date.append(name)
        self.watch.end(name, manifest["note"], manifest["seconds"], up_to_date=found)
        return folder, manifest

    def find(self, name: str, parts: Sequence[Any]) -> dict[str, Any] | None:
        """Look for a stage that was made before.

        Args:
            name: Of the stage.
            parts: All that decides its content.

        Returns:
            Its manifest, if it stands here whole; None otherwise.
        """
        key, folder = self._place(name, parts)
        manifest = read_manifest(folder)
        return manifest if manifest and manifest["key"] == key else None

    def _place(self, name: str, parts: Sequence[Any]) -> tuple[str, Path]:
        key = digest(code_digest(), name, parts)
        return key, self.folder / "stages" / f"{name}-{key[:8]}"


def remove_unfinished(folder: Path, older_than: float = 86_400) -> None:
    """Remove temporary folders that a killed run left behind.

    Args:
        folder: A run's folder.
        older_than: Seconds; a younger one may belong to a run that is going on.
    """
    for leftover in (folder / "stages").glob(".*"):
        if time.time() - leftover.stat().st_mtime > older_than:
            shutil.rmtree(leftover, ignore_errors=True)
