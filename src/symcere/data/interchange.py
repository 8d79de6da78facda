"""Splits in the formats of other tools: RecBole's atomic files, CSV, and TREC relevance judgements."""

import hashlib
import io
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import numpy as np
import polars as pl
from numpy import ndarray

from symcere.data.dataset import HeldOut, Split
from symcere.errors import ConfigError
from symcere.manifest import digest, new_folder

Format = Literal["recbole", "csv", "trec"]
"""The formats that `export_split` writes."""

_BLOCK = 100_000  # rows turned into text at a time
_AWKWARD = [c for c in map(chr, range(0x3001)) if c in '%"' or c.isspace() or unicodedata.category(c) == "Cc"]
_RECBOLE = """\
# RecBole reads this split as it stands, with data_path set to the folder above this one:
#   run_recbole(dataset="{name}", config_file_list=["{name}/{name}.yaml"], config_dict={{"data_path": "."}})
dataset: {name}
benchmark_filename: [train, valid, test]
load_col: {{inter: [user_id, item_id]}}
USER_ID_FIELD: user_id
ITEM_ID_FIELD: item_id
eval_args: {{group_by: user, order: RO, mode: full}}
"""


def export_split(split: Split, folder: str | Path, format: Format) -> None:
    """Write a split for other tools, whole or not at all.

    - recbole: NAME.train.inter, NAME.valid.inter, NAME.test.inter and NAME.yaml, for a folder called NAME. Train has
      rating and timestamp where the reviews do.
    - csv: train.csv with the columns of reviews (`read_reviews` reads it), valid.csv and test.csv; support.csv with
      the support reviews, where the split has any.
    - trec: valid.qrels and test.qrels, a line `USER 0 ITEM 1` each.

    Held-out parts are pairs: their ratings, times and texts are in no split. RecBole and TREC files end an id at a
    blank, so ids are written there as one word: see `one_word`.

    Args:
        split: The split.
        folder: Where; an export that stands there is replaced. A manifest stands beside the files.
        format: One of the three.

    Raises:
        ConfigError: If the format is unknown, or the folder's name cannot be a RecBole name.
        OutputError: If it cannot be written, or other files stand there.
    """
    folder = Path(folder)
    writers: Mapping[str, Callable[[Split, Path, str], None]] = {
        "recbole": _write_recbole,
        "csv": _write_csv_parts,
        "trec": _write_trec,
    }
    if format not in writers:
        raise ConfigError(f"Unknown format {format!r}. Known: {', '.join(writers)}.")
    name = folder.resolve().name
    if format == "recbole" and not re.fullmatch(r"[\w-]+", name):
        raise ConfigError(
            f"RecBole names a data set like its folder: give one of letters, digits, _ and -; found {name!r}."
        )
    key = digest("export", format, name, _fingerprint(split))
    sizes = {"train": len(split.train), "valid": len(split.valid), "test": len(split.test)}
    fields = {
        "format": format,
        "split": split.name,
        "warnings": split.warnings,
        "interactions": sizes,
        "support": {"side": split.train.support.side, "reviews": len(split.train.support)},
    }
    with new_folder(folder, key, fields) as temporary:
        writers[format](split, temporary, name)


def one_word(ids: Iterable[str]) -> pl.Series:
    """Write ids so that none holds a blank: as in addresses of the web, `%20` for a space.

    Replaced are blanks and control characters of any script, double quotes and the percent sign itself; so distinct
    ids stay distinct, and `urllib.parse.unquote` gives the id back.

    Args:
        ids: Ids as they stand in the raw file.

    Returns:
        The words, in the same order.

    Example:
        >>> one_word(["B000068NW5", "blue note", "50%"]).to_list()
        ['B000068NW5', 'blue%20note', '50%25']
    """
    return pl.Series(list(ids), dtype=pl.String).str.replace_many(_AWKWARD, [quote(c, safe="") for c in _AWKWARD])


def _write_recbole(split: Split, folder: Path, name: str) -> None:
    users, items = one_word(split.train.users), one_word(split.train.items)
    typed = {"user_id": "user_id:token", "item_id": "item_id:token"}
    said = split.train.review.select(
        pl.col("rating").alias("rating:float"), pl.col("timestamp").cast(pl.Float64).alias("timestamp:float")
    )
    known = [column for column in said if column.null_count() < len(column)]
    train = _pairs(split.train.user, split.train.item, users, items).rename(typed).with_columns(known)
    _write(folder / f"{name}.train.inter", train, "\t")
    for part, held_out in (("valid", split.valid), ("test", split.test)):
        pairs = _pairs(held_out.user, held_out.item, users, items).rename(typed)
        _write(folder / f"{name}.{part}.inter", pairs, "\t")
    (folder / f"{name}.yaml").write_text(_RECBOLE.format(name=name), encoding="utf-8")


def _write_csv_parts(split: Split, folder: Path, _: str) -> None:
    users, items = pl.Series(split.train.users.ids), pl.Series(split.train.items.ids)
    support = split.train.support
    for part, known in (("train", split.train), ("support", support)):
        if part == "train" or len(support):
            table = _pairs(known.user, known.item, users, items).hstack(known.review.get_columns())
            _write(folder / f"{part}.csv", table, ",")
    held_outs: dict[str, HeldOut] = {"valid": split.valid, "test": split.test}
    for part, held_out in held_outs.items():
        _write(folder / f"{part}.csv", _pairs(held_out.user, held_out.item, users, items), ",")


def _write_trec(split: Split, folder: Path, _: str) -> None:
    users, items = one_word(split.train.users), one_word(split.train.items)
    for part, held_out in (("valid", split.valid), ("test", split.test)):
        pairs = _pairs(held_out.user, held_out.item, users, items)
        lines = pairs.select("user_id", pl.lit("0").alias("0"), "item_id", pl.lit("1").alias("1"))
        _write(folder / f"{part}.qrels", lines, " ", header=False)


def _pairs(user: ndarray, item: ndarray, users: pl.Series, items: pl.Series) -> pl.DataFrame:
    return pl.DataFrame({"user_id": users.gather(user), "item_id": items.gather(item)})


def _write(path: Path, table: pl.DataFrame, separator: str, *, header: bool = True) -> None:
    """Write rows in blocks. Python writes them: polars reports a full disk as it does a bug of ours."""
    quotes: Literal["necessary", "never"] = "necessary" if separator == "," else "never"
    with path.open("wb") as file:
        for start in range(0, max(len(table), 1), _BLOCK):
            block = io.BytesIO()
            rows = table[start : start + _BLOCK]
            rows.write_csv(block, separator=separator, quote_style=quotes, include_header=header and not start)
            file.write(block.getbuffer())


def _fingerprint(split: Split) -> str:
    """Digest of all that an export holds."""
    known = split.train.known_reviews
    seen = hashlib.sha256()
    for part in (known, split.valid, split.test):
        for index in (part.user, part.item):
            seen.update(index.astype(np.int64).tobytes())
    seen.update(known.review.hash_rows(seed=0).to_numpy().tobytes())
    return digest(
        seen.hexdigest(), split.train.users.ids, split.train.items.ids, len(split.train), len(split.valid),
        split.train.support.side, split.name, split.warnings,
    )  # fmt: skip
