"""What was noted of the first complete fetch of a file, and whether what is there now agrees with it."""

import gzip
import json
import os
import zlib
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from symcere.data.download.part import Origin, Part
from symcere.errors import DataError, OutputError
from symcere.manifest import digest_file, write_file


@dataclass(frozen=True)
class Fetched:
    """A file that is there, whole and checked.

    Args:
        path: Where it stands.
        address: Where it came from; empty where a person put it there.
        sha256: Of its bytes.
        size: In bytes.
        n_fetched: Bytes that this call took over the network.
        up_to_date: Whether it stood there before.
    """

    path: Path
    address: str
    sha256: str
    size: int
    n_fetched: int
    up_to_date: bool


def standing(path: Path, address: str, pin: str | None) -> Fetched | None:
    """Return the file that stands there if it is the one expected; None if it must be fetched."""
    if not path.exists():
        return None
    record = recorded(path)
    if pin is None and record.get("address") != address:
        origin = f"comes from {record['address'] or 'elsewhere'}" if record else "was not fetched by symcere"
        raise OutputError(
            f"{path} stands there already and {origin}, so nothing says whether it is what {address} has. Move it, "
            "choose another folder (--out), or say with --sha256 HEX that it is right."
        )
    digest = digest_file(path)
    if digest != (pin or record["sha256"]):
        return None
    if record.get("sha256") != digest or record.get("address") != address:
        write_record(path, Origin(address, "", "", path.stat().st_size), digest)
    return Fetched(path, address, digest, path.stat().st_size, 0, up_to_date=True)


def verified(part: Part, path: Path, pin: str | None) -> str:
    """Return the SHA-256 of a complete part; move it out of the way and raise DataError where it is no good."""
    bad = path.with_name(f"{path.name}.bad")
    record = recorded(path)
    expected, whose = pin, "was asked for or published"
    if pin is None and record.get("address") == part.address:
        expected, whose = record["sha256"], f"was recorded at the first fetch ({record.get('date', 'no date')})"
    digest = digest_file(part.path)
    damage = _damage(part.path) if path.suffix == ".gz" else ""
    if not damage and digest == (expected or digest):
        return digest
    part.path.replace(bad)
    part.note.unlink(missing_ok=True)
    if damage:
        raise DataError(
            f"{part.address} is not whole: {damage}. It is kept as {bad}. Try again later, or look at what the "
            "server sent."
        )
    raise DataError(
        f"{part.address} has SHA-256 {digest}, but {expected} {whose}. It is kept as {bad}. Fetch again in case it "
        f"was damaged on the way; if the publisher has changed it, accept the new one with --sha256 {digest}"
    )


def _damage(path: Path) -> str:
    """Read a gzip file to its end and return what is wrong with it; empty if nothing is."""
    try:
        with gzip.open(path, "rb") as file:
            while file.read(1 << 20):
                pass
    except EOFError:
        return "the gzip data breaks off"
    except gzip.BadGzipFile:
        with path.open("rb") as raw:
            return f"no gzip data, or damaged; it begins with {raw.read(24)!r}"
    except zlib.error as error:
        return f"the gzip data is damaged ({error})"
    return ""


def install(part: Part, path: Path, digest: str) -> None:
    """Give a verified part its final name; what stood there is kept as NAME.old."""
    assert part.origin is not None
    os.fsync(part.file.fileno())
    write_record(path, part.origin, digest)  # first: a kill between the two leaves a complete part, not a riddle
    if path.exists():
        path.replace(path.with_name(f"{path.name}.old"))
    part.path.replace(path)
    part.note.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def recorded(path: Path) -> dict[str, Any]:
    """Return what was noted of the first complete fetch of a file; empty where nothing was."""
    try:
        record = json.loads(_record_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) and isinstance(record.get("sha256"), str) else {}


def write_record(path: Path, origin: Origin, digest: str) -> None:
    """Note where a file comes from and what its checksum is."""
    fields = {"sha256": digest, **asdict(origin), "date": datetime.now(UTC).isoformat(timespec="seconds")}
    write_file(_record_path(path), json.dumps(fields, indent=2) + "\n")


def _record_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.download.json")
