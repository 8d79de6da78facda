"""Ingestion to disk: the same reviews as in memory, the same bytes every time, and no more memory than promised."""

import gzip
import json
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

import symcere as sc
from symcere.data.arrow import map_arrow, write_arrow
from symcere.data.ingest import Ingestion, ingest_reviews, load_reviews
from symcere.manifest import digest_file


def ingested(what, folder):
    folder.mkdir()
    return load_reviews(folder, ingest_reviews(what, folder))


def files(folder):
    return {path.name: digest_file(path) for path in folder.iterdir()}


@pytest.fixture(scope="module")
def world_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("world") / "world.json.gz"
    sc.write_world(file, 6_000, duplicates=0.05, seed=1)
    return file


def test_what_is_written_equals_what_is_read_in_memory(world_file, tmp_path, monkeypatch):
    monkeypatch.setattr("symcere.data.intake._BATCH", 500)
    monkeypatch.setattr("symcere.data.formats.raw.BLOCK", 100_000)
    filters = [sc.MinRating(2), sc.TextLength(20), sc.Sample(0.8), sc.KCore(3, 2)]
    reviews = sc.read_reviews(world_file, filters=filters)
    written = ingested(Ingestion(world_file, filters=filters), tmp_path / "out")
    assert written.table.equals(reviews.table)
    assert written.steps == reviews.steps
    assert [step.name for step in written.steps] == [
        "read", "the same review again", "rating at least 2", "20 to any number of characters",
        "0.8 of the users, seed 0", "(3, 2)-core",
    ]  # fmt: skip
    assert len(list((tmp_path / "out").glob("reviews-*.arrow"))) > 3
    assert not list((tmp_path / "out").glob("raw-*"))


def test_the_same_input_gives_the_same_bytes_whatever_the_threads(world_file, tmp_path):
    script = (
        "import sys, pathlib; from symcere.data.ingest import Ingestion, ingest_reviews; import symcere as sc; "
        "ingest_reviews(Ingestion(pathlib.Path(sys.argv[1]), filters=[sc.KCore(2)]), pathlib.Path(sys.argv[2]))"
    )
    made = []
    for number, threads in enumerate(("1", "4", "4")):
        (tmp_path / str(number)).mkdir()
        words = [sys.executable, "-c", script, str(world_file), str(tmp_path / str(number))]
        subprocess.run(words, check=True, env={"POLARS_MAX_THREADS": threads, "PATH": ""})
        made.append(files(tmp_path / str(number)))
    assert made[0] == made[1] == made[2]


def test_blocks_may_end_anywhere(tmp_path, monkeypatch):
    """Whatever the size of blocks, also smaller than a line, the same reviews come out."""
    table = pl.DataFrame(
        {
            "user_id": [f"u{n}" for n in range(60)],
            "item_id": ["a\nb", 'c"d', "e,f"] * 20,
            "text": ["wörd\r\n" * (n % 5) for n in range(60)],
        }
    )
    table.write_csv(tmp_path / "t.csv")
    table.write_csv(tmp_path / "t.tsv", separator="\t")
    table.write_ndjson(tmp_path / "t.jsonl")
    (tmp_path / "t.gz").write_bytes(
        b"".join(map(gzip.compress, (tmp_path / "t.jsonl").read_bytes().splitlines(True)))
    )
    for name in ("t.csv", "t.tsv", "t.jsonl", "t.gz"):
        whole = sc.read_reviews(tmp_path / name).table
        assert len(whole) == 60
        for size in (4, 7, 64, 1_000):
            monkeypatch.setattr("symcere.data.formats.raw.BLOCK", size)
            assert sc.read_reviews(tmp_path / name).table.equals(whole)
        monkeypatch.undo()


def test_a_table_maps_as_it_was_written(tmp_path):
    table = pl.DataFrame(
        {"s": ["", None, "long enough to stand outside the view", "é"], "i": [1, None, 3, 4], "f": [0.5, 1, None, 2]}
    )
    write_arrow(table[:2], tmp_path / "a")
    write_arrow(pl.concat([table[2:3], table[3:]], rechunk=False), tmp_path / "b")
    assert map_arrow([tmp_path / "a", tmp_path / "b"]).equals(table)
    assert map_arrow([tmp_path / "b"], ["i"]).equals(table[2:].select("i"))
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:-9])
    with pytest.raises(sc.DataError, match="damaged Arrow file"):
        map_arrow([tmp_path / "a"])
    with pytest.raises(sc.OutputError):
        write_arrow(table, tmp_path / "nowhere" / "a")


def test_words_stay_on_disk_until_they_are_looked_at(tmp_path):
    """A mapped table of 300 MB is filtered, gathered and counted in a tenth of that."""
    script = """
import sys, pathlib, resource, numpy as np, polars as pl
from symcere.data.arrow import map_arrow, write_arrow
path = pathlib.Path(sys.argv[1])
if sys.argv[2] == "write":
    for part in range(6):
        rows = pl.int_range(part * 10_000, (part + 1) * 10_000, eager=True)
        write_arrow(pl.DataFrame({"n": rows, "text": rows.cast(pl.String) + "x" * 5_000}), path / f"{part}")
else:
    np.zeros(1) @ np.zeros(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    table = map_arrow(sorted(path.iterdir()))
    half = table.filter(pl.col("n") % 2 == 0)[np.arange(30_000)[::-1]]
    assert half["text"][0].startswith("59998x"), half["text"][0][:10]
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    for what in ("write", "read"):
        words = [sys.executable, "-c", script, str(tmp_path), what]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
    assert float(done.stdout) < 30


def test_items_come_from_their_own_file_then_from_the_reviews(tmp_path):
    rows = [{"user_id": u, "item_id": i, "text": "x", "item_title": f"review's {i}"} for u in "ab" for i in "xyz"]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "m.csv").write_text("item_id,title,category\nx,Title of x,Hotels\nq,Unknown,Bars\n")
    what = Ingestion(tmp_path / "r.jsonl", items=tmp_path / "m.csv")
    assert sorted(ingested(what, tmp_path / "out").items.table.rows()) == [
        ("x", "Title of x", "Hotels"),
        ("y", "review's y", ""),
        ("z", "review's z", ""),
    ]


def test_a_folder_without_reviews_is_refused(tmp_path):
    with pytest.raises(sc.DataError, match="holds no reviews"):
        load_reviews(tmp_path, {})


def test_rows_of_a_split_are_found_again(reviews):
    from symcere.data.splits import rows_of

    mixed = sc.Reviews(reviews.table.sample(fraction=1.0, shuffle=True, seed=3), "test")
    split = sc.split_random(mixed, seed=0)
    found = mixed.table[rows_of(mixed, split.train.user, split.train.item)]
    np.testing.assert_array_equal([split.train.users.id(u) for u in split.train.user.tolist()], found["user_id"])
    assert found["text"].equals(split.train.review["text"])
