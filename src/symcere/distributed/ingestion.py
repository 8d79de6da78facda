"""Raw files to a folder of Parquet on Ray: the reviews that one machine would keep, in the same order.

Files are read where there is a processor. Reviews, without their words, are dealt into buckets by user, so that
duplicates and users' counts are a bucket's own affair; items are counted over all buckets, again and again for the
k-core. Then every part of every file is told which of its rows stay, and words are written.

A task that dies with its worker is run again by Ray, and what it had made is made again; nothing is read from a
folder without its manifest, which is written last.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any

import numpy as np
import polars as pl

from symcere.data.arrow import map_arrow, read_own_parquet
from symcere.data.filters import Filter
from symcere.data.formats.recognise import Wanted
from symcere.data.ingest import Ingestion
from symcere.data.intake import nothing_usable
from symcere.data.interactions import Step
from symcere.data.items import Items, items_of, read_items
from symcere.data.kcore import KCore
from symcere.data.reviews import Reviews, wanted
from symcere.data.sources import Source
from symcere.data.typed import SCHEMA
from symcere.distributed import intake
from symcere.distributed.cluster import each, fetch, n_cpus, standing, task, tree
from symcere.distributed.intake import Count, parquet
from symcere.distributed.storage import Storage, fetched, files_of
from symcere.errors import DataError
from symcere.manifest import code_digest, digest

OnProgress = Callable[[float], None]

_PART = "reviews-{:05d}.parquet"
_ITEMS = "items.parquet"
_BUCKET_BYTES = 256 * 2**20  # of raw files, a bucket


def ingest(
    url: str,
    out: str,
    *,
    source: Source | None = None,
    columns: Mapping[str, str] | None = None,
    skip_bad: bool = False,
    filters: Sequence[Filter] = (),
    items: str | None = None,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Read, clean, filter and write the reviews of raw files: `read_reviews`, over many of them.

    Args:
        url: A file, or a folder of files of one kind: a path that all nodes see, or an address.
        out: Folder to write: Parquet files and a manifest.
        source: Take this corpus' field names instead of recognising them.
        columns: Our column -> the file's column.
        skip_bad: Drop and count lines that cannot be parsed.
        filters: Applied in this order.
        items: A file of titles and categories.
        on_progress: Called with the share of files that is read.

    Returns:
        The manifest: source, steps, counts, files. One that stands there under the same inputs is up to date.

    Raises:
        DataError: If a file cannot be read, or nothing is left.
        OutputError: If the folder cannot be written.
    """
    files, asked = files_of(url), wanted(source, columns)
    options = [asked.source and asked.source.name, dict(asked.columns), skip_bad, [repr(each) for each in filters]]
    stamps = [_stamp(file) for file in (*files, *([items] if items else []))]
    key = digest(code_digest(), "distributed ingest", stamps, options, bool(items))
    storage = Storage(out)
    if made := standing(storage, key):
        return made
    fields, hashes = _ingest(files, storage, asked, skip_bad, filters, items, on_progress)
    return storage.finish(key, fields, hashes)


def ingest_into(what: Ingestion, out: str, on_progress: OnProgress | None = None) -> dict[str, Any]:
    """The same into an empty folder, without a manifest: for a stage of a run, which writes its own.

    Args:
        what: Files and filters.
        out: The folder.
        on_progress: Called with the share of files that is read.

    Returns:
        What a manifest says of it.
    """
    asked, items = wanted(what.source, what.columns), str(what.items) if what.items else None
    return _ingest(files_of(str(what.path)), Storage(out), asked, what.skip_bad, what.filters, items, on_progress)[0]


def read_table(url: str, *, words: bool = True) -> Reviews:
    """Read what `ingest` wrote.

    Args:
        url: Its folder.
        words: Whether title and text are read; without, all that splits and fits look at is there.

    Returns:
        The reviews, in the order of the raw files.

    Raises:
        DataError: If the folder is not whole.
    """
    manifest = _manifest(url)
    tables = read_files(files_of_table(url), words=words)
    steps = tuple(Step(**step) for step in manifest["steps"])
    items = next(TableFile(url, *file) for file in manifest["files"].items() if file[0].startswith("items."))
    return Reviews(pl.concat(tables), manifest["source"], steps, Items(items.frame()))


@dataclass(frozen=True)
class TableFile:
    """One file of a table; whoever reads it checks it.

    Args:
        url: Folder.
        name: File.
        sha256: What its content hashes to.
    """

    url: str
    name: str
    sha256: str

    def read(self, *, words: bool = True) -> pl.DataFrame:
        """Read it.

        Args:
            words: Whether title and text are read, or left empty.

        Returns:
            Columns SCHEMA.

        Raises:
            DataError: If it is not there, or damaged.
        """
        columns = [name for name in SCHEMA if words or name not in ("title", "text")]
        empty = [pl.lit("").alias(name) for name in SCHEMA if name not in columns]
        return self.frame(columns).with_columns(empty).select(SCHEMA.names())

    def frame(self, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Its columns as they lie there."""
        storage = Storage(self.url)
        raw = storage.read(self.name, self.sha256)
        if self.name.endswith(".arrow") and storage.local:  # ingested on one machine
            return map_arrow([storage.local / self.name], columns)
        return read_own_parquet(BytesIO(raw), columns)


def files_of_table(url: str) -> list[TableFile]:
    """The files of a table, in the order of their reviews.

    Args:
        url: Its folder.

    Returns:
        The files.

    Raises:
        DataError: If the folder is no table.
    """
    files = _manifest(url)["files"]
    return [TableFile(url, name, files[name]) for name in sorted(files) if name.startswith("reviews-")]


def read_files(files: Sequence[TableFile], *, words: bool) -> list[pl.DataFrame]:
    """Read files of a table: on Ray, where this process is connected to one, so that no machine reads them all.

    Args:
        files: The files.
        words: Whether title and text are read, or left empty.

    Returns:
        A table each.
    """
    import ray

    if not ray.is_initialized():
        return [file.read(words=words) for file in files]
    read = task(TableFile.read)
    tables: list[pl.DataFrame] = fetch([read.remote(file, words=words) for file in files])
    return tables


def _manifest(url: str) -> dict[str, Any]:
    manifest = Storage(url).promised()
    if manifest is None:
        raise DataError(f"{url} is no ingested table, or not a whole one. Ingest it again.")
    return manifest


def _ingest(
    files: Sequence[str],
    storage: Storage,
    asked: Wanted,
    skip_bad: bool,
    filters: Sequence[Filter],
    items_file: str | None,
    on_progress: OnProgress | None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Do it; returns fields of the manifest, and hashes of the files that were written."""
    for name in storage.names():  # what a killed one left
        if name.startswith("raw-"):
            storage.remove(name)
    n_buckets = max(1, min(1_000, sum(_size(file) for file in files) // _BUCKET_BYTES), min(n_cpus(), 64))
    reads = [
        task(intake.read_file, 2 + n_buckets).remote(n, file, asked, skip_bad, storage.url, n_buckets)
        for n, file in enumerate(files)
    ]
    found = dict(each([refs[0] for refs in reads], on_progress))
    read = [found[n] for n in range(len(files))]
    named, kind = next(
        ((file, one) for file, one in zip(files, read, strict=True) if not one.ours), (files[0], read[0])
    )
    for file, one in zip(files, read, strict=True):
        if one.source != kind.source and not one.ours:
            raise DataError(
                f"{file} is {one.source}, and {named} beside it {kind.source}. The files of a folder are read as "
                "one; move away what does not belong to it."
            )
    buckets = _Buckets([task(intake.gather).remote(*(refs[2 + b] for refs in reads)) for b in range(n_buckets)])
    steps = buckets.clean(
        files[0] if len(files) == 1 else files[0].rpartition("/")[0], sum(one.n_bad for one in read)
    )
    for chosen in filters:
        steps.append(buckets.core(chosen) if isinstance(chosen, KCore) else buckets.keep(chosen))
    parts = [part for one in read for part in one.parts]
    hashes, lacking = buckets.write(storage, parts)
    items = _items(items_file, asked.source, [refs[1] for refs in reads]).only(buckets.standing)
    hashes[_ITEMS] = storage.write(_ITEMS, parquet(items.table))
    for part in parts:
        storage.remove(intake.raw_name(part))
    return {
        "source": kind.source,
        "steps": [asdict(step) for step in steps],
        "n_without_text": lacking[0],
        "n_without_time": lacking[1],
        "n_titles": int((items.table["title"] != "").sum()),
    }, hashes


class _Buckets:
    """All buckets, as refs; every method sends tasks, and replaces them by what the tasks made of them."""

    def __init__(self, refs: Sequence[Any]) -> None:
        self.refs = list(refs)
        ids = tree(intake.joined, [task(intake.items_in).remote(ref) for ref in refs])
        self.items: pl.Series = fetch(ids)
        self.n_items = len(self.items)
        self.standing = self.items
        self._read = self._step(intake.numbered, ids)

    def clean(self, path: str, n_bad: int) -> list[Step]:
        """Drop what cannot be used; returns the steps so far."""
        steps = [_said("read", self._read, n_bad)]
        told = self._each(intake.clean, self.n_items)
        for at, (reason, _) in enumerate(told[0]):
            count = _total([counts[at][1] for counts in told])
            if count.dropped:
                steps.append(_said(reason, count))
                self._stand(count)
        if not steps[-1].n_reviews:
            raise nothing_usable(path, steps)
        return steps

    def keep(self, chosen: Filter) -> Step:
        """Apply a filter that looks at each review alone, or at each user."""
        told = self._each(intake.keep, chosen, self.n_items)
        counts = [one for one in told if isinstance(one, Count)]
        if not counts:
            raise DataError(next(one for one in told if isinstance(one, str)))
        count = _total(counts)
        if not count.n_reviews:
            raise DataError(f"The filter {chosen.name!r} left 0 of {count.dropped:,} reviews. Loosen it.")
        self._stand(count)
        return _said(chosen.name, count)

    def core(self, chosen: KCore) -> Step:
        """Take the k-core: drop rare items everywhere, then users, until nothing more falls."""
        before = list(self.refs)
        dropped = self._peel(chosen.k, chosen.k if chosen.item_k is None else chosen.item_k)
        count = _total(fetch([task(intake.counted).remote(ref, 0, self.n_items) for ref in self.refs]))
        if not count.n_reviews:
            raise self._too_high(chosen, before, dropped)
        self._stand(count)
        return _said(chosen.name, count, dropped)

    def write(self, storage: Storage, parts: Sequence[int]) -> tuple[dict[str, str], tuple[int, int]]:
        """Write the reviews that stand; returns hashes, and how many lack text and date."""
        told = [task(intake.places, 1 + len(parts)).remote(ref, list(parts)) for ref in self.refs]
        known = fetch([refs[0] for refs in told])
        n = np.sum([counts for counts, _ in known], axis=0)
        filled = np.flatnonzero(n)
        writes = [
            task(intake.write_part).remote(
                storage.url, parts[part], _PART.format(at), *(refs[1 + part] for refs in told)
            )
            for at, part in enumerate(filled.tolist())
        ]
        hashes = {name: sha for _, (name, sha, _) in each(writes)}
        without_text, without_time = (sum(lacking[which] for _, lacking in known) for which in (0, 1))
        return hashes, (without_text, without_time)

    def _peel(self, k: int, item_k: int) -> int:
        counts = fetch(tree(intake.added, [task(intake.degrees).remote(ref, self.n_items) for ref in self.refs]))
        dropped = 0
        while True:
            rare = np.packbits(counts < item_k)
            triples = [task(intake.peel, 3).remote(ref, rare, k, self.n_items) for ref in self.refs]
            self.refs = [refs[0] for refs in triples]
            counts = fetch(tree(intake.added, [refs[1] for refs in triples]))
            fell = sum(fetch([refs[2] for refs in triples]))
            if not fell:
                return dropped
            dropped += fell

    def _too_high(self, chosen: KCore, before: Sequence[Any], n: int) -> DataError:
        """Find the largest k that leaves something: cores are nested, so halving finds it."""
        low, high, left = 0, max(chosen.k, chosen.item_k or 1) - 1, 0
        while low < high:
            middle = (low + high + 1) // 2
            self.refs = list(before)
            still = n - self._peel(middle, middle)
            low, high, left = (middle, high, still) if still else (low, middle - 1, left)
        both = f"{'' if chosen.item_k is None else f', item_k={chosen.item_k}'}"
        return DataError(
            f"k_core(k={chosen.k}{both}) left 0 of {n:,} reviews. Lower k (--k-core): at k={low}, {left:,} remain."
        )

    def _each(self, work: Callable[..., Any], *more: Any) -> list[Any]:
        """Replace each bucket by what a task makes of it; returns what the tasks told."""
        pairs = [task(work, 2).remote(ref, *more) for ref in self.refs]
        self.refs = [pair[0] for pair in pairs]
        told: list[Any] = fetch([pair[1] for pair in pairs])
        return told

    def _step(self, work: Callable[..., Any], *more: Any) -> Count:
        return _total(self._each(work, *more))

    def _stand(self, count: Count) -> None:
        there = np.unpackbits(count.items, count=self.n_items).astype(bool)
        self.standing = self.items.filter(pl.Series(there))


def _said(name: str, count: Count, dropped: int | None = None) -> Step:
    n = count.dropped if dropped is None else dropped
    return Step(name, count.n_reviews, count.n_users, count.n_items, n)


def _total(counts: Sequence[Count]) -> Count:
    total, *more = counts
    for count in more:
        total += count
    return total


def _items(file: str | None, source: Source | None, refs: Sequence[Any]) -> Items:
    """What files say of their items, the first first; completed by a file of items."""
    tables = [table for table in fetch(list(refs)) if table is not None]
    found = items_of(pl.concat(tables)) if tables else Items()
    if file:
        with fetched(file) as path:
            found = read_items(path, source=source).completed(found)
    return found


def _stamp(url: str) -> list[Any]:
    """Name, size and age of a file: what tells it from another without reading it."""
    import fsspec

    fs, path = fsspec.core.url_to_fs(url)
    try:
        about = fs.info(path)
    except OSError as error:
        raise DataError(f"{url} does not exist or cannot be read ({error}). Check the address.") from error
    age = next((str(about[name]) for name in ("ETag", "etag", "mtime", "LastModified") if name in about), "")
    return [path.rpartition("/")[2], about.get("size"), age]


def _size(url: str) -> int:
    return int(_stamp(url)[1] or 0)
