"""Run files: the rankings of any system, from anywhere, measured like our own; and ours, for other tools."""

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.sparse import csr_array

from symcere.data.dataset import Split, known_matrix
from symcere.data.formats.rows import POLARS_ERRORS
from symcere.data.interchange import one_word
from symcere.errors import ConfigError, DataError
from symcere.ids import IdMap
from symcere.manifest import write_file
from symcere.ranking import Scorer, rank

_READ = 1 << 26  # bytes of a TREC file turned into rows at a time
_TREC = "USER Q0 ITEM RANK SCORE TAG"
_CSV = "user_id,item_id,score (or rank)"


@dataclass(frozen=True, eq=False)
class ImportedRun:
    """The rankings of a run file; it can be compared like a fitted system.

    Args:
        place: Place of each ranked item (n_users x n_items), from 1.
        n_seen: Items that were left out because their user had seen them.
        n_tested: Users of the test part.
        n_missing: How many of these the file does not rank; each of their values is 0.
    """

    place: csr_array
    n_seen: int
    n_tested: int
    n_missing: int

    def score(self, user: Int[ndarray, " some_users"]) -> Float[ndarray, "some_users n_items"]:
        """The place turned round for ranked items, minus infinity for all others."""
        rows = self.place[user]
        scores = np.full((len(user), self.place.shape[1]), -np.inf, dtype=np.float32)
        scores[np.repeat(np.arange(len(user)), np.diff(rows.indptr)), rows.indices] = -rows.data
        return scores

    @property
    def note(self) -> str:
        """What was left out or is missing, in words; empty where nothing is."""
        parts = []
        if self.n_missing:
            parts.append(f"{self.n_missing:,} of {self.n_tested:,} test users are not in it and count as 0")
        if self.n_seen:
            parts.append(f"items left out because their users had seen them: {self.n_seen:,}")
        return "; ".join(parts)


def read_run(path: str | Path, split: Split) -> ImportedRun:
    """Read the rankings of another system for the users of a split.

    Understood, also gzipped, are TREC run files (`USER Q0 ITEM RANK SCORE TAG`; ordered by score, as trec_eval does,
    ids written as `one_word` does) and CSV with a header that names user_id, item_id and score, or rank. Equal
    scores are ordered by item index. Items that a user has seen in train or valid are left out, as for any system.

    Args:
        path: The file.
        split: The split that the system was fitted and is to be measured on.

    Returns:
        The rankings; `compare({"theirs": read_run(path, split), ...}, split, measures)` measures them.

    Raises:
        DataError: If the file cannot be read, a line is malformed, an id is unknown to the split, a score is not a
            finite number, or an item stands twice in the ranking of a user.
    """
    path = Path(path)
    raw = _read(path)
    head = next((line for line in io.StringIO(raw[:65_536].decode("utf-8", "replace")) if line.strip()), "")
    fields = [field.strip() for field in next(csv.reader([head]), [])]
    if {"user_id", "item_id"} <= set(fields):
        by, blocks = _csv_rows(path, raw)
        users, items = pl.Series(split.train.users.ids), pl.Series(split.train.items.ids)
    elif len(head.split()) == 6:
        by, blocks = "score", _trec_rows(path, raw)
        users, items = one_word(split.train.users), one_word(split.train.items)
    else:
        raise DataError(
            f"{path} must be a TREC run ({_TREC}) or CSV with a header ({_CSV}); its first line is "
            f"{head.strip()[:100]!r}."
        )
    table = pl.concat([_indexed(path, block, by, users, items, split) for block in blocks])
    if table.is_empty():
        raise DataError(f"{path} ranks nothing: it has a header and no line. Give each test user's items.")
    twice = table.filter(~pl.struct("user", "item").is_first_distinct())
    if len(twice):
        line, user, item = twice.select("line", "user", "item").row(0)
        raise DataError(
            f"{path}, line {line:,}: item {split.train.items.id(item)!r} stands twice in the ranking of user "
            f"{split.train.users.id(user)!r}. Keep one of the two."
        )
    n_users, n_items = len(split.train.users), len(split.train.items)
    seen = known_matrix(split.train, split.valid).tocoo()
    seen_pairs = pl.DataFrame({"user": seen.coords[0].astype(np.int64), "item": seen.coords[1].astype(np.int64)})
    ranked = table.join(seen_pairs, on=["user", "item"], how="anti")
    ranked = ranked.sort("user", by, "item", descending=[False, by == "score", False])
    place = ranked.select(pl.int_range(1, pl.len() + 1).over("user").cast(pl.Float32)).to_series()
    tested = np.unique(split.test.user)
    return ImportedRun(
        csr_array(
            (place.to_numpy(), (ranked["user"].to_numpy(), ranked["item"].to_numpy())), shape=(n_users, n_items)
        ),
        n_seen=len(table) - len(ranked),
        n_tested=len(tested),
        n_missing=len(np.setdiff1d(tested, table["user"].to_numpy())),
    )


def write_run(system: Scorer, split: Split, path: str | Path, *, k: int = 100, name: str = "symcere") -> None:
    """Write a system's rankings of the test users as a TREC run file, for trec_eval, ranx and others.

    The score written is k + 1 - rank: tools order ties each in its own way, and so there are none.

    Args:
        system: The system.
        split: The split it was fitted on; what train and valid know of a user is not ranked.
        path: The file; gzipped where its name ends in .gz.
        k: How many items a user.
        name: The tag: one word.

    Raises:
        ConfigError: If k is below 1, or the name is not one word.
        OutputError: If the file cannot be written.
    """
    path = Path(path)
    if k < 1:
        raise ConfigError(f"k must be at least 1; found {k}.")
    if len(name.split()) != 1:
        raise ConfigError(f"The name of a run must be one word; found {name!r}.")
    user = np.unique(split.test.user)
    ranking = rank(system, user, k, known_matrix(split.train, split.valid))
    row, column = np.nonzero(ranking >= 0)
    users, items = one_word(split.train.users), one_word(split.train.items)
    lines = pl.DataFrame(
        {
            "user": users.gather(user[row]),
            "Q0": pl.repeat("Q0", len(row), eager=True),
            "item": items.gather(ranking[row, column]),
            "rank": column + 1,
            "score": k - column,
            "tag": pl.repeat(name, len(row), eager=True),
        }
    )
    text = io.BytesIO()
    lines.write_csv(text, separator=" ", include_header=False, quote_style="never")
    raw = text.getvalue()
    write_file(path, gzip.compress(raw, mtime=0) if path.suffix == ".gz" else raw)


def _read(path: Path) -> bytes:
    """Return the content of a run file, decompressed; refuse what is no text."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Check the path of the run file.") from error
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{path} is a damaged gzip file ({error}). Fetch it again.") from error
    raw = raw.removeprefix(codecs.BOM_UTF8)
    if not raw.strip():
        raise DataError(f"{path} is empty. A run file ranks at least one item: {_TREC}, or CSV: {_CSV}.")
    if b"\x00" in raw[:4096]:
        raise DataError(f"{path} is binary. A run file is text: {_TREC}, or CSV: {_CSV}.")
    return raw


def _trec_rows(path: Path, raw: bytes) -> Iterator[pl.DataFrame]:
    """Rows (line, user_id, item_id, score) of a TREC run, in blocks."""
    text = io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8", errors="replace", newline="\n")
    line = 1
    while lines := text.readlines(_READ):
        fields = pl.DataFrame({"field": pl.Series(lines).str.extract_all(r"\S+")}).with_row_index("line", line)
        line += len(lines)
        fields = fields.with_columns(n=pl.col("field").list.len()).filter(pl.col("n") > 0)
        if len(bad := fields.filter(pl.col("n") != 6)):
            raise DataError(
                f"{path}, line {bad['line'][0]:,}: a TREC run has six words a line, {_TREC}; found {bad['n'][0]}. "
                "Write blanks in ids as %20."
            )
        at = {"user_id": 0, "item_id": 2, "score": 4}
        yield fields.select("line", *(pl.col("field").list.get(n).alias(name) for name, n in at.items()))


def _csv_rows(path: Path, raw: bytes) -> tuple[str, Iterator[pl.DataFrame]]:
    """What a CSV file ranks by, and its rows: in one block, as quoted ids may hold line breaks."""
    try:
        table = pl.read_csv(io.BytesIO(raw), infer_schema=False, encoding="utf8-lossy")
    except POLARS_ERRORS as error:
        raise DataError(f"{path} is no proper CSV: {str(error).splitlines()[0][:200]}") from error
    table = table.rename({name: name.strip() for name in table.columns})
    by = "score" if "score" in table.columns else "rank"
    if by not in table.columns:
        raise DataError(f"{path} needs a column score or rank beside user_id and item_id; found {table.columns}.")
    rows = table.select(pl.col("user_id", "item_id", by).fill_null("")).with_row_index("line", 2)
    return by, iter([rows])


def _indexed(
    path: Path, rows: pl.DataFrame, by: str, users: pl.Series, items: pl.Series, split: Split
) -> pl.DataFrame:
    """Rows as (line, user, item, score or rank), or the DataError that names the first bad line."""
    table = rows.with_columns(number=pl.col(by).str.strip_chars().cast(pl.Float64, strict=False))
    bad = table.filter(~pl.col("number").is_finite().fill_null(False))
    if len(bad):
        raise DataError(f"{path}, line {bad['line'][0]:,}: a {by} must be a finite number; found {bad[by][0]!r}.")
    known: Mapping[str, tuple[pl.Series, IdMap]] = {
        "user": (users, split.train.users),
        "item": (items, split.train.items),
    }
    for node, (words, ids) in known.items():
        index = pl.DataFrame({f"{node}_id": words, node: np.arange(len(words), dtype=np.int64)})
        table = table.join(index, on=f"{node}_id", how="left", maintain_order="left")
        if len(unknown := table.filter(pl.col(node).is_null())):
            found = unknown[f"{node}_id"][0][:100]
            raise DataError(
                f"{path}, line {unknown['line'][0]:,}: unknown {node} id {found!r} among {len(ids):,}, which look "
                f"like {words[0][:100]!r}. Rank the {node}s of the split that is compared: symcere export writes it."
            )
    return table.select(pl.col("line").cast(pl.Int64), "user", "item", pl.col("number").alias(by))
