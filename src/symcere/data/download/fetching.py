"""Fetching one file, or the files of a dataset of the catalogue."""

import re
import urllib.parse
from pathlib import Path

from symcere.data.catalogue import PublicDataset, dataset_named
from symcere.data.download.part import Origin, Part, locked, saving
from symcere.data.download.record import Fetched, install, recorded, standing, verified, write_record
from symcere.data.download.transfer import OnProgress, fill
from symcere.errors import ConfigError, DataError
from symcere.manifest import digest_file

ATTEMPTS = 5
"""Attempts in a row that bring nothing new before we give up."""


def download(
    dataset: str | PublicDataset,
    folder: str | Path = "data",
    *,
    items: bool = False,
    sha256: str | None = None,
    on_progress: OnProgress | None = None,
) -> list[Fetched]:
    """Fetch a public dataset into `folder`/NAME, or the file behind any http or https address into `folder`.

    What stands there and has its recorded checksum is not fetched again.

    Args:
        dataset: A name of the catalogue, a record of it, or an address.
        folder: Where to write.
        items: Fetch the file of items (titles, categories) too, where there is one.
        sha256: Checksum that the file of reviews must have; wins over the recorded one.
        on_progress: Called as bytes arrive.

    Returns:
        The files, reviews first.

    Raises:
        UnknownIdError: If the catalogue has no such name.
        ConfigError: If an address or a checksum is none.
        DataError: If a file cannot be fetched, is damaged or another than expected, or must be fetched by hand.
        OutputError: If it cannot be written.
    """
    if isinstance(dataset, str) and "://" in dataset:
        return [fetch(dataset, folder, sha256=sha256, on_progress=on_progress)]
    if isinstance(dataset, str):
        dataset = dataset_named(dataset)
    fetched = []
    for file in [dataset.reviews, *([dataset.file("items")] if items else [])]:
        if file is None:
            continue
        pin = sha256 if file.role == "reviews" and sha256 else file.sha256
        target = Path(folder) / dataset.name
        if file.address is None:
            fetched.append(_by_hand(dataset, target / file.name, pin))
        else:
            fetched.append(fetch(file.address, target, sha256=pin, page=dataset.page, on_progress=on_progress))
    return fetched


def fetch(
    address: str,
    folder: str | Path,
    *,
    sha256: str | None = None,
    page: str = "",
    attempts: int = ATTEMPTS,
    backoff: float = 1.0,
    timeout: float = 30.0,
    on_progress: OnProgress | None = None,
) -> Fetched:
    """Fetch one file; see `download`. Two processes that want the same file wait for each other.

    Args:
        address: Of http or https.
        folder: Where to write it, under the last part of its address.
        sha256: Checksum that it must have.
        page: Where a person can read on when it cannot be fetched.
        attempts: In a row that bring nothing new, before giving up.
        backoff: Seconds before the second attempt; doubles each time.
        timeout: Seconds without a byte before a connection counts as lost.
        on_progress: Called as bytes arrive.

    Returns:
        The file.

    Raises:
        ConfigError: If the address or the checksum is none.
        DataError: If the file cannot be fetched, is damaged, or is another than expected.
        OutputError: If it cannot be written, or a file of unknown origin has its name.
    """
    path = Path(folder) / _file_name(address)
    pin = _checked_pin(sha256)
    part_path = path.with_name(f"{path.name}.part")
    tell = on_progress or (lambda *_: None)
    with saving(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if found := standing(path, address, pin):
            return found
        tell(path.name, 0, None, "connecting")
        with locked(part_path) as file:
            if found := standing(path, address, pin):  # another process was quicker
                return found
            part = Part(part_path, file, address)
            fill(part, path, page, attempts, backoff, timeout, tell)
            tell(path.name, len(part), len(part), "checking")
            digest = verified(part, path, pin)
            install(part, path, digest)
            return Fetched(path, address, digest, len(part), part.n_fetched, up_to_date=False)


def _file_name(address: str) -> str:
    """Return the last part of an address, as a name that stays in its folder."""
    try:
        parts = urllib.parse.urlsplit(address)
        host = parts.hostname
    except ValueError:
        parts, host = urllib.parse.urlsplit(""), None
    name = urllib.parse.unquote(parts.path.rpartition("/")[2])
    if parts.scheme not in ("http", "https") or not host or parts.username or any(ord(c) < 33 for c in address):
        raise ConfigError(f"An address begins with http:// or https://, and holds no password; found {address!r}.")
    if not name or name.startswith(".") or "/" in name or "\\" in name or not name.isprintable() or len(name) > 200:
        raise ConfigError(f"An address must end with the name of a file; found {address!r}.")
    return name


def _checked_pin(sha256: str | None) -> str | None:
    pin = sha256.strip().lower() if sha256 else None
    if pin is not None and not re.fullmatch(r"[0-9a-f]{64}", pin):
        raise ConfigError(f"A SHA-256 has 64 hexadecimal digits; found {sha256!r}.")
    return pin


def _by_hand(dataset: PublicDataset, path: Path, pin: str | None) -> Fetched:
    """Take a file that a person has put there; or say what the person has to do."""
    if not path.exists():
        raise DataError(
            f"{dataset.name} cannot be fetched by a program: {dataset.manual} ({dataset.page}). Put {path.name} into "
            f"{path.parent}, then give the same command again. Terms: {dataset.terms}."
        )
    expected = _checked_pin(pin) or recorded(path).get("sha256")
    with saving(path):
        digest = digest_file(path)
        if digest != (expected or digest):
            raise DataError(
                f"{path} has SHA-256 {digest}; {expected} was expected. If the new file is right, accept it with "
                f"--sha256 {digest}"
            )
        if recorded(path).get("sha256") != digest:
            write_record(path, Origin("", "", "", path.stat().st_size), digest)
        return Fetched(path, "", digest, path.stat().st_size, 0, up_to_date=True)
