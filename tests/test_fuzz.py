"""Whatever the bytes, only a DataError leaves a reader; and clean CSV is read as Python's csv module reads it."""

import base64
import csv
import gzip
import io
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import symcere as sc
from checked import CHECKS_ALL
from symcere.data.formats.delimited import _fast, read_delimited
from symcere.text.precomputed import FileVectors
from test_sources import AMAZON_2023, GOODREADS, GOOGLE, HOTELREC, LARA, STEAM, STEAM_USER, line

AMAZON = line({"reviewerID": "A1", "asin": "B1", "helpful": [0, 1], "overall": 5.0, "reviewText": "sturdy",
               "summary": "Nice", "unixReviewTime": 1393545600})  # fmt: skip
YELP = line({"review_id": "r", "user_id": "u", "business_id": "b", "stars": 4, "date": "2013-10-24 16:40:47",
             "text": "clean", "useful": 1})  # fmt: skip
META = "{'asin': 'B', 'title': \"Ann's strap\", 'categories': [['Music', 'Guitars']]}\n"
RECBOLE = "user_id:token\titem_id:token\trating:float\ttimestamp:float\nann\tB\t5.0\t1385164800.0\n"
CSV = 'user_id,item_id,rating,timestamp,title,text\nann,B,5,2014-02-28,"a ""b""","x, y\nz"\nbob,C,4,,,\n'


def _parquet() -> bytes:
    file = io.BytesIO()
    pl.DataFrame({"user_id": ["a", "b"], "item_id": [1.0, 2.0], "text": ["x", "y"], "rating": [1, 2]}).write_parquet(
        file
    )
    return file.getvalue()


_TEXTS = (
    AMAZON, YELP, META, line(AMAZON_2023), line(GOOGLE), line(HOTELREC), line(GOODREADS), STEAM, STEAM_USER, LARA,
    RECBOLE, CSV, CSV.replace(",", ";"), CSV.replace(",", "\t"), f"[{AMAZON},\n {YELP}]",
)  # fmt: skip
SEEDS = [*(text.encode() for text in _TEXTS), _parquet(), gzip.compress(AMAZON.encode() * 3, mtime=0)]
"""One small file of every kind that is read."""

TOKENS = [
    b"\x00", b"\xff", b"\xef\xbb\xbf", b'"', b"'", b"{", b"}", b"[", b"]", b",", b":", b"\\ud800", b"\r", b"\n",
    b"\t", b"nan", b"1e999", b"-1", b"null", b"<Author>", b"PAR1", b"9" * 40, b"{u'", b'{"a":' * 50,
]  # fmt: skip


VECTORS = pl.DataFrame({"item_id": [f"item{n:05}" for n in range(6)], "v": [[1.0, 2.0 * n, 3.0] for n in range(6)]})


def _vectors(kind: str) -> bytes:
    file = io.BytesIO()
    if kind == "npy":
        np.save(file, np.array(VECTORS["v"].to_list()))
    else:
        VECTORS.write_parquet(file)
    return file.getvalue()


@st.composite
def mutated(draw, seeds=SEEDS):
    """A file of some kind with bytes changed, cut, doubled or put in."""
    raw = bytearray(draw(st.sampled_from(seeds)) * draw(st.integers(1, 3)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(len(raw) - 1, 0)))
        match draw(st.integers(0, 4)):
            case 0:
                raw[at : at + 1] = draw(st.binary(min_size=1, max_size=3))
            case 1:
                del raw[at : at + draw(st.integers(1, 20))]
            case 2:
                raw[at:at] = draw(st.sampled_from(TOKENS))
            case 3:
                raw[at:at] = raw[at : at + draw(st.integers(1, 40))]
            case 4:
                del raw[at:]
    return bytes(raw)


def feed(raw: bytes, folder: Path) -> None:
    """Give the bytes to every reader; raise what should not leave them."""
    file = folder / "file"
    file.write_bytes(raw)
    for skip_bad in (False, True):
        try:
            assert len(sc.read_reviews(file, skip_bad=skip_bad))
        except sc.DataError as error:
            assert str(error)  # noqa: PT017
    try:
        assert len(sc.read_items(file))
    except sc.DataError as error:
        assert str(error)  # noqa: PT017


_QUICK = settings(max_examples=250 if CHECKS_ALL else 100, suppress_health_check=list(HealthCheck), deadline=None)
_LONG = settings(max_examples=25_000, suppress_health_check=list(HealthCheck), deadline=None, database=None)


@_QUICK
@given(mutated())
def test_mutated_files_raise_nothing_but_a_data_error(tmp_path, raw):
    feed(raw, tmp_path)


@_QUICK
@given(st.sampled_from(["npy", "parquet"]).flatmap(lambda kind: st.tuples(st.just(kind), mutated([_vectors(kind)]))))
def test_mutated_vectors_raise_nothing_but_a_data_error(tmp_path, file):
    kind, raw = file
    path = tmp_path / f"v.{kind}"
    path.write_bytes(raw)
    VECTORS.select("item_id").write_csv(tmp_path / "v.keys.csv")
    train = sc.split_random(sc.anchoring_world(8, 6, 3).reviews).train
    try:
        for _ in FileVectors(path, train):
            pass
    except sc.DataError as error:
        assert str(error)  # noqa: PT017


def test_vectors_in_a_parquet_file_without_any_part_are_a_data_error(tmp_path, monkeypatch):
    """What a damaged file may say of itself: found above."""
    VECTORS.write_parquet(tmp_path / "v.parquet")
    monkeypatch.setattr("symcere.text.precomputed.parquet_frames", lambda *more: iter(()))
    with pytest.raises(sc.DataError, match="holds no rows"):
        FileVectors(tmp_path / "v.parquet", sc.split_random(sc.anchoring_world(8, 6, 3).reviews).train)


@_QUICK
@given(st.binary(max_size=300), st.sampled_from([b"", b"{", b"PAR1", b"\x1f\x8b", b"<Author>", *SEEDS]))
def test_random_bytes_raise_nothing_but_a_data_error(tmp_path, raw, start):
    feed(start + raw, tmp_path)


@pytest.mark.slow
@_LONG
@given(mutated())
def test_very_many_mutated_files_raise_nothing_but_a_data_error(tmp_path, raw):
    feed(raw, tmp_path)


# A page that claims more values than memory can hold; of it polars ended the process. Found by the fuzzer below.
PAGE_WITHOUT_END = """
    c-oy*&1(}u6rb5_x0{edmCmpWdsxISDJ^ZXT9b%WC$%Q2MUy~HDS~X8-87I7Nz#1uAP6EJr1b2;Q_lqt{sW#o_y>3t51vGN=)sHN%<M;lv{E
    ``=e>EqH^1M!H$w`flt3byM#efd0D#!X#Xowa2mquDi%k^-&{cGOp5jwTLXvh1#9&2%mY*HY10c|a2w_M-QFRGOQ>rq#+qFB->QxlQBJSgN(
    8w9`*j~yykCquL@L6Txj(dvd9pCje@CRRG4B@#bqRs$`>eYL8)7N`}51?@Z@0>?^e#t{Njr@`~#!4P3aQOd{#hyLvoz{CK8oxqgTdA6k%yH4
    Fm#!!qf@ja@w(Mhy>}Q{S5Yan`)UkT?R*fI!J;a}&aVQyIC(h+kuLvr=6#CK2R<Rcd`W3je+ov!b(r+}L?-Nq@v>Fa;IES_{;NA&D2hj76#2
    |bqp+0kwpgzrsop!s2WPqYGLhzDiz`Di~A}r?Jwwu8l@53SucnttpR5f+o_ztxTzf1fjjHdBh8C?U$tB`i7=Y_w8k%Et8v<!^T6WT=|2>u;L
    82{wbKPI(HUnky=P@erTmB(*HEE+O?Ju%I?tVBtv^tgPxyS-yKE#+8PWMeSM5JFbzM^b&d9u|qa=Anm#bjb?0MKV|5`7E9%q~_(Z{1v{a5TD
    7NH(CCOL!5NQg<L~Nn&ENoW;}e2rBa(^>+R-)xK&<iQDlQ1H5+6yeL6}-kIBV3lq)stoEz_Ree$pVeP4f$)jP<OOpWOkNrsh{ZN#_A3CAiIN
    s{m9_3|RJ?*0wVm&voEP`m2!4qVd09^I5$4ft|T_O>?HI3G|R71|A})74|oN4=ePYgX^uoo>C|(#?g$LR^nkcI%C*o^;Z2vr@g`I8`(0I4QH
    5xM?O+Ry=K)=_SW8oup+~)8?$o9)0iw%OL;?^gsPCC7%y=
"""


def test_a_parquet_page_that_claims_the_impossible_is_a_data_error(tmp_path):
    packed = "".join(PAGE_WITHOUT_END.split())
    (tmp_path / "file").write_bytes(zlib.decompress(base64.b85decode(packed)))
    for reader in (sc.read_reviews, sc.read_items):
        with pytest.raises(sc.DataError):
            reader(tmp_path / "file")


def test_a_name_between_two_kinds_of_quotation_marks_is_no_field(tmp_path):
    """It was one, and its name a name with a quotation mark that nothing knows: found above."""
    feed(b"""{"user_id": "ann", "item_id": "b", "'rating": 5.0, "title": "t", "text": "words"}\n""", tmp_path)
    assert sc.read_reviews(tmp_path / "file").table["rating"].to_list() == [None]


@pytest.mark.parametrize("start", [b"\x1f\x8b", b"x^", b"x\x01", b"\x28\xb5\x2f\xfd"])
def test_text_that_begins_like_a_compressed_file_is_text(tmp_path, start):
    """Polars would unpack it: found by the fuzzer below."""
    begun = b"user_id,item_id,rating,timestamp,title,text\n" + start + b"ann,b,4,2014,t,words\n"
    feed(begun, tmp_path)
    feed(AMAZON.encode() + start + b"\n", tmp_path)
    if start == b"x^":
        (tmp_path / "file").write_bytes(begun)
        assert sc.read_reviews(tmp_path / "file").table["user_id"].to_list() == ["x^ann"]


@pytest.mark.slow
def test_a_coverage_guided_fuzzer_finds_nothing_but_data_errors(tmp_path):
    """Atheris follows the branches of our readers instead of chance; with Hypothesis above, over 100,000 inputs."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(SEEDS):
        (corpus / str(number)).write_bytes(seed)
    script = Path(__file__).with_name("fuzz_readers.py")
    words = [sys.executable, str(script), str(corpus), "-runs=80000", "-max_len=2000", "-rss_limit_mb=0", "-seed=1"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=1_500, env=dict(os.environ))
    assert done.returncode == 0, done.stderr[-3_000:]
    assert "Done 80000 runs" in done.stderr


FIELD = st.text(st.sampled_from(list("ab \",;|\t\né店'")), max_size=6)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(FIELD, FIELD, FIELD), min_size=1, max_size=6), st.sampled_from([",", ";", "|"]), st.booleans()
)
@example([("a", "", '"'), ("", "", "")], ",", True)
def test_what_csv_writes_is_read_back_as_csv_reads_it(rows, separator, everything_quoted):
    text = io.StringIO()
    quoting = csv.QUOTE_ALL if everything_quoted else csv.QUOTE_MINIMAL
    csv.writer(text, delimiter=separator, quoting=quoting, lineterminator="\n").writerows([("x", "y", "z"), *rows])
    raw = text.getvalue().encode()
    names = {name: name for name in "xyz"}
    found = pl.concat(
        [r.table for r in read_delimited(Path("f"), iter([raw]), separator, list("xyz"), names, skip_bad=False)]
    )
    assert found.rows() == rows
    assert _fast(raw, separator, 3) is not None  # and at polars' speed


@settings(max_examples=400, deadline=None)
@given(st.text(st.sampled_from(list('ab",\n')), min_size=1, max_size=40))
@example(",\n\n,,")  # a blank line and a field too many once made up for each other
def test_any_csv_is_parsed_fast_as_it_is_slowly_or_not_at_all(body):
    """Wherever the fast road gives an answer, it is that of the strict one."""
    fast = _fast(body.encode(), ",", 2)
    if fast is not None:
        records = [row for row in csv.reader(io.StringIO(body, newline=""), strict=True) if row]
        assert fast.rows() == [tuple(row) for row in records]


@settings(max_examples=400, deadline=None)
@given(st.text(st.sampled_from(list('ab",\n')), min_size=1, max_size=40))
def test_any_csv_is_read_as_python_reads_it_and_no_line_is_lost_unseen(body):
    """What csv refuses, or has not two fields, is counted line by line."""
    found = _read(body, ",", [body])
    records, n_lines = csv.reader(io.StringIO(body), strict=True), 0
    expected, n_bad = [], 0
    while True:
        try:
            record = next(records)
        except StopIteration:
            break
        except csv.Error:
            record = [""]
        taken, n_lines = records.line_num - n_lines, records.line_num
        expected += [tuple(record)] if len(record) == 2 else []
        n_bad += taken if record and len(record) != 2 else 0
    assert found == (expected, n_bad)


_SOME = settings(max_examples=400 if CHECKS_ALL else 50, deadline=None)  # many small blocks take long
_TABBED = st.lists(st.text(st.sampled_from(list('a"\t\t')), max_size=8), min_size=1, max_size=12)


@_SOME
@given(_TABBED, st.randoms())
@example(['"', 'a"\ta\t', '\ta\t"', 'a"'], None)
@example(['"', '"\t"\t', "a", '"""\t"\t"'], None)
def test_no_tsv_line_is_swallowed_for_what_stands_around_it_wherever_blocks_end(lines, random):
    """Of the lines of three fields each is in a row of its own; all others are counted, or part of a row."""
    for number, each in enumerate(lines):
        first, *others = each.split("\t")
        if len(others) == 2:
            others[0] = f"{others[0][:1]}<{number}>{others[0][1:]}"
        lines[number] = "\t".join([first, *others])
    body = "".join(f"{line}\n" for line in lines)
    found, n_bad = _read(body, "\t", [body])
    rows = ["\n".join(row) for row in found]
    for number, each in enumerate(lines):
        if each.count("\t") == 2:
            assert sum(f"<{number}>" in row for row in rows) == 1
    assert all(row.count("<") <= 1 for row in rows)
    taken = sum(1 + sum(field.count("\n") for field in row) for row in found)
    assert taken + n_bad + lines.count("") >= len(lines) >= taken + n_bad
    blocks = re.findall(".*\n", body)
    while random and len(blocks) > 1 and random.random() < 0.7:
        at = random.randrange(len(blocks) - 1)
        blocks[at : at + 2] = ["".join(blocks[at : at + 2])]
    assert _read(body, "\t", blocks) == (found, n_bad)


@_SOME
@given(st.lists(st.tuples(*[st.text(st.sampled_from(list('ab "\n')), max_size=6)] * 3), min_size=1), st.booleans())
def test_what_csv_writes_with_tabs_is_read_back(rows, everything_quoted):
    text = io.StringIO()
    quoting = csv.QUOTE_ALL if everything_quoted else csv.QUOTE_MINIMAL
    csv.writer(text, delimiter="\t", quoting=quoting, lineterminator="\n").writerows(rows)
    assert _read(text.getvalue(), "\t", text.getvalue().splitlines(keepends=True)) == (rows, 0)


def _read(body, separator, blocks):
    """Rows and number of bad lines, with a header before the blocks."""
    names = ["x", "y", "z"] if separator == "\t" else ["x", "y"]
    raw = [separator.join(names).encode() + b"\n", *(block.encode() for block in blocks)]
    mapping = {name: name for name in names}
    found = list(read_delimited(Path("f"), iter(raw), separator, names, mapping, skip_bad=True))
    return [row for rows in found for row in rows.table.rows()], sum(rows.n_bad for rows in found)
