"""Readers: every format, and every kind of bad input named in the error."""

import gzip
import json

import polars as pl
import pytest

import symcere as sc

AMAZON = {
    "reviewerID": "A1", "asin": "B1", "helpful": [0, 0], "reviewText": "sturdy", "overall": 5.0,
    "summary": "Nice", "unixReviewTime": 1393545600, "reviewTime": "02 28, 2014",
}  # fmt: skip
ROWS = [("ann", "strap", 5.0, 1393545600, "sturdy leather"), ("bob", "pick", 3.0, 1393632000, 'thin, but "ok"')]
NAMES = ("user_id", "item_id", "rating", "timestamp", "text")


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def write(tmp_path, raw, name="reviews"):
    file = tmp_path / name
    file.write_bytes(raw)
    return file


def frame(**changes):
    return pl.DataFrame(ROWS, schema=list(NAMES), orient="row").with_columns(**changes)


def rows(reviews):
    return reviews.table.select(NAMES).rows()


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "csv", "csv.gz", "tsv", "semicolon", "parquet"])
def test_every_format_gives_the_same_table_whatever_the_file_is_called(tmp_path, form):
    file = tmp_path / "file.dat"
    table = frame()
    kind = form.removesuffix(".gz")
    if kind == "jsonl":
        table.write_ndjson(file)
    elif kind == "parquet":
        table.write_parquet(file)
    else:
        table.write_csv(file, separator={"csv": ",", "tsv": "\t", "semicolon": ";"}[kind])
    if form.endswith(".gz"):
        file.write_bytes(gzip.compress(file.read_bytes()))
    assert rows(sc.read_reviews(file)) == ROWS


def test_amazon_2014_is_recognised(tmp_path):
    reviews = sc.read_reviews(write(tmp_path, lines(AMAZON)))
    assert reviews.source == "amazon-2014"
    assert reviews.table.rows() == [("A1", "B1", 5.0, 1393545600, 0.0, "Nice", "sturdy")]


def test_amazon_2018_is_recognised_where_fields_come_and_go(tmp_path):
    record = {key: value for key, value in AMAZON.items() if key != "helpful"} | {"verified": True}
    without_text = {key: value for key, value in record.items() if key != "reviewText"} | {"asin": "B2"}
    reviews = sc.read_reviews(write(tmp_path, lines(without_text, record)))
    assert reviews.source == "amazon-2018"
    assert reviews.table["text"].to_list() == ["", "sturdy"]


def test_yelp_is_recognised(tmp_path):
    record = {"review_id": "r", "user_id": "u", "business_id": "b", "stars": 4, "date": "2013-10-24 16:40:47",
              "text": "clean", "useful": 1}  # fmt: skip
    reviews = sc.read_reviews(write(tmp_path, lines(record)))
    assert reviews.source == "yelp"
    assert reviews.table.rows() == [("u", "b", 4.0, 1382632847, 1.0, "", "clean")]


def test_a_column_map_wins_over_what_is_recognised(tmp_path):
    file = write(tmp_path, b"customer,sku,comment,text\nann,strap,sturdy,wrong\n")
    reviews = sc.read_reviews(file, columns={"user_id": "customer", "item_id": "sku", "text": "comment"})
    assert reviews.table.select("user_id", "item_id", "text").rows() == [("ann", "strap", "sturdy")]


def test_a_source_can_be_named(tmp_path):
    file = write(tmp_path, b"reviewerID,asin,reviewText,text\nann,strap,sturdy,wrong\n")
    assert sc.read_reviews(file, source=sc.AMAZON_2018).table["text"].to_list() == ["sturdy"]


@pytest.mark.parametrize(
    ("stamp", "seconds"),
    [
        ("1393545600", 1393545600), ("1393545600.9", 1393545600), ("1393545600000", 1393545600),
        ("1393545600000000", 1393545600), ("2014-02-28", 1393545600), ("2014-02-28 00:00:01", 1393545601),
        ("2014-02-28T00:00:01Z", 1393545601), ("2014-02-28T00:00:01.5", 1393545601), ("soon", None), ("nan", None),
        ("2014-02-28 00:01", 1393545660), ("2014-02-28T09:00:00+09:00", 1393545600), ("1e25", None),
    ],
)  # fmt: skip
def test_timestamps_become_seconds(tmp_path, stamp, seconds):
    reviews = sc.read_reviews(write(tmp_path, f"user_id,item_id,text,timestamp\na,b,c,{stamp}\n".encode()))
    assert reviews.table["timestamp"].to_list() == [seconds]
    assert reviews.n_without_time == (seconds is None)


def test_parquet_dates_become_seconds(tmp_path):
    file = tmp_path / "f"
    frame(timestamp=pl.from_epoch("timestamp", time_unit="s")).write_parquet(file)
    assert rows(sc.read_reviews(file)) == ROWS


# ------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("raw", [b"", b"\n \n", gzip.compress(b"", mtime=0)])
def test_an_empty_file_is_refused(tmp_path, raw):
    with pytest.raises(sc.DataError, match="is empty"):
        sc.read_reviews(write(tmp_path, raw))


def test_a_truncated_gzip_is_refused(tmp_path):
    whole = gzip.compress(lines(AMAZON) * 500)
    with pytest.raises(sc.DataError, match="damaged gzip"):
        sc.read_reviews(write(tmp_path, whole[: len(whole) // 2]))


def test_a_truncated_parquet_is_refused(tmp_path):
    file = tmp_path / "f"
    frame().write_parquet(file)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(sc.DataError, match="Parquet"):
        sc.read_reviews(file)


@pytest.mark.parametrize(
    "bad", [b'{"reviewerID": \n', b"[1, 2]\n", b"plain\n", b"{},,\n", b'{"a":"\xff"}\n', b"{" * 5000 + b"\n"]
)
def test_a_malformed_json_line_is_named_or_counted(tmp_path, bad):
    file = write(tmp_path, lines(AMAZON) + bad + lines(AMAZON | {"asin": "B2"}))
    with pytest.raises(sc.DataError, match="line 2"):
        sc.read_reviews(file)
    reviews = sc.read_reviews(file, skip_bad=True)
    assert len(reviews) == 2
    assert reviews.steps[0].dropped == 1


def test_a_csv_record_of_the_wrong_length_is_named_or_counted(tmp_path):
    file = write(tmp_path, b"user_id,item_id,text\na,b,c\na,b,c,d,e\nx,y,z\n")
    with pytest.raises(sc.DataError, match="line 3"):
        sc.read_reviews(file)
    assert sc.read_reviews(file, skip_bad=True).steps[0].dropped == 1


@pytest.mark.parametrize("bad", [b"x,y\n", b'a,"b"c,d\n', b'a,b,"never closed\n'])
def test_short_records_and_stray_quotes_of_a_csv_are_named_or_counted(tmp_path, bad):
    file = write(tmp_path, b"user_id,item_id,text\na,b,c\n" + bad)
    with pytest.raises(sc.DataError, match="line 3"):
        sc.read_reviews(file)
    reviews = sc.read_reviews(file, skip_bad=True)
    assert (len(reviews), reviews.steps[0].dropped) == (1, 1)


def test_a_lone_quotation_mark_in_a_tsv_is_a_character(tmp_path):
    reviews = sc.read_reviews(
        write(tmp_path, b'user_id\titem_id\ttext\na\tb\t"Great\nc\td\t12" long\ne\tf\t"q ""x"""\n')
    )
    assert reviews.table["text"].to_list() == ['"Great', '12" long', 'q "x"']


TSV = [b"user_id\titem_id\ttext", *(b"u%d\ti\ttext %d" % (n, n) for n in range(40))]


@pytest.mark.parametrize(("at", "more"), [(41, b""), (5, b""), (5, b"u\ti"), (5, b"u\ti\tx\ty"), (5, b'"u\ti')])
def test_every_tsv_line_is_read_as_ever_whatever_stands_between_them(tmp_path, at, more):
    """A blank line once made a text that begins with a quotation mark swallow what followed."""
    all_lines = list(TSV)
    all_lines[20], all_lines[30] = b'u19\ti\t"Amazing, worth every cent', b'u29\ti\tbigger than my old 27"'
    expected = sc.read_reviews(write(tmp_path, b"\n".join(all_lines) + b"\n")).table
    assert (len(expected), expected["text"][19]) == (40, '"Amazing, worth every cent')
    all_lines.insert(at, more)
    file = write(tmp_path, b"\n".join(all_lines) + b"\n")
    reviews = sc.read_reviews(file, skip_bad=True)
    assert reviews.table.equals(expected)
    assert reviews.steps[0].dropped == bool(more)
    if more:
        with pytest.raises(
            sc.DataError, match=rf"line {at + 1}: cannot be parsed \(\d fields where the header has 3"
        ):
            sc.read_reviews(file)


@pytest.mark.parametrize(
    "columns", [("user_id", "item_id", "text"), ("text", "user_id", "item_id"), ("user_id", "text", "item_id")]
)
def test_a_tsv_that_is_quoted_over_several_lines_is_read_wherever_its_text_stands(tmp_path, columns, monkeypatch):
    texts = ["a\n\nb", '"q"\n', '\tx\n\n12"', "plain", "\n", 'c"d', ""]
    table = pl.DataFrame({"user_id": [f"u{n}" for n in range(7)], "item_id": "i", "text": texts}).select(columns)
    table.write_csv(tmp_path / "f", separator="\t")
    for size in (16 * 2**20, 4, 30):
        monkeypatch.setattr("symcere.data.formats.raw.BLOCK", size)
        assert sc.read_reviews(tmp_path / "f").table.select(columns).equals(table)


def test_all_lines_that_an_unclosed_quotation_mark_of_a_csv_takes_are_counted(tmp_path):
    good = b"u%d,i,5\n"
    raw = b"user_id,item_id,text\n" + b"".join(good % n for n in range(9)) + b'x,i,"open\n' + good % 9 + good % 10
    file = write(tmp_path, raw)
    with pytest.raises(sc.DataError, match=r"line 11: cannot be parsed \(unexpected end of data; 3 lines are one"):
        sc.read_reviews(file)
    reviews = sc.read_reviews(file, skip_bad=True)
    assert (len(reviews), reviews.steps[0].dropped) == (9, 3)


def own(n, **more):
    return {"user_id": f"u{n}", "item_id": "i", "text": "fine"} | more


@pytest.mark.parametrize("block", [16 * 2**20, 50_000])
def test_fields_that_come_after_a_thousand_lines_are_read(tmp_path, block, monkeypatch):
    monkeypatch.setattr("symcere.data.formats.raw.BLOCK", block)
    records = [own(n) | ({"rating": 4.0, "timestamp": 1393545600} if n >= 1_500 else {}) for n in range(3_000)]
    reviews = sc.read_reviews(write(tmp_path, lines(*records)))
    assert reviews.table["rating"].to_list() == [None] * 1_500 + [4.0] * 1_500
    assert reviews.n_without_time == 1_500
    without = {key: value for key, value in AMAZON.items() if key not in ("overall", "unixReviewTime", "summary")}
    amazon = [(AMAZON if n >= 1_500 else without) | {"reviewerID": f"A{n}"} for n in range(1_501)]
    assert sc.read_reviews(write(tmp_path, lines(*amazon))).table.rows()[1_499:] == [
        ("A1499", "B1", None, None, 0.0, "", "sturdy"),
        ("A1500", "B1", 5.0, 1393545600, 0.0, "Nice", "sturdy"),
    ]


@pytest.mark.parametrize("block", [16 * 2**20, 50_000, 100])
@pytest.mark.parametrize("slow", [False, True])
def test_another_name_of_a_column_that_comes_late_counts_where_the_first_is_missing(
    tmp_path, block, slow, monkeypatch
):
    monkeypatch.setattr("symcere.data.formats.raw.BLOCK", block)
    late = [
        own("a", stars=2), own("b", rating=3, stars=1), own("c", score=4), own("d", score=5, stars=1), own("e"),
        own("f", Stars=2), own("g", rating=None, overall=1, item_title="Inn"),
    ]  # fmt: skip
    raw = lines(*(own(n, rating=5) for n in range(1_000)), *late)
    if slow:  # a line that polars refuses and Python does not
        raw = raw.replace(b'"score": 4', b'"score": 4, "x": NaN')
    reviews = sc.read_reviews(write(tmp_path, raw))
    assert reviews.table["rating"].to_list()[1_000:] == [2, 3, 4, 1, None, 2, 1]
    assert reviews.items.title("i") == "Inn"


def test_a_field_that_a_column_map_names_has_no_other_name(tmp_path):
    raw = lines(*(own(n, points=5) for n in range(1_000)), own("late", stars=1))
    reviews = sc.read_reviews(write(tmp_path, raw), columns={"rating": "points"})
    assert reviews.table["rating"].to_list() == [5.0] * 1_000 + [None]


@pytest.mark.parametrize(
    ("escaped", "text"),
    [
        (r"\ud83d", "�"), (r"\ude00", "�"), (r"x\uD83Dy", "x�y"), (r"\ud83d\ude00", "😀"),
        (r"\uD83D\uDE00\ude00", "😀�"), (r"\ud83d\ud83d\ude00", "�😀"), (r"\ud83d\u0041", "�A"),
        (r"\ud83dd83d", "�d83d"), (r"\\ud83d", r"\ud83d"), (r"\\\ud83d", "\\�"), (r"\ud83d\\ude00", r"�\ude00"),
        (r"\\ud83d\ude00", "\\ud83d�"), (r"é\ud83d\n", "é�\n"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("slow", [False, True])
def test_half_of_a_character_is_the_same_on_both_roads(tmp_path, escaped, text, slow):
    record = f'{{"user_id": "a", "item_id": "b", "rating": 5, "text": "{escaped}"}}\n'
    raw = record + ('{"user_id": "c", "item_id": "b", "rating": NaN, "text": ""}\n' if slow else "")
    assert sc.read_reviews(write(tmp_path, raw.encode())).table["text"].to_list() == [text]


@pytest.mark.parametrize("slow", [False, True])
def test_users_whose_ids_have_half_a_character_stay_apart(tmp_path, slow):
    records = [
        f'{{"user_id": "x{half}", "item_id": "b", "text": "c"}}\n' for half in (r"\ud83d", r"\uD83C", r"\ud83c")
    ]
    raw = "".join(records) + ('{"user_id": "", "item_id": "b", "text": "", "x": NaN}\n' if slow else "")
    reviews = sc.read_reviews(write(tmp_path, raw.encode()))
    assert reviews.table["user_id"].to_list() == ["x�d83d", "x�d83c"]


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_blank_lines_and_every_line_ending_are_understood(tmp_path, newline):
    lines_ = [b"", b"", b"user_id,item_id,text", b"a,b,c", b"", b"x,y,z", b""]
    reviews = sc.read_reviews(write(tmp_path, newline.join(lines_)))
    assert reviews.table["user_id"].to_list() == ["a", "x"]
    assert [step.dropped for step in reviews.steps] == [0]


def test_a_csv_that_is_not_utf8_is_refused_before_two_users_become_one(tmp_path):
    file = write(tmp_path, "user_id,item_id,text\ncafé,i,x\ncafè,i,y\n".encode("latin-1"))
    with pytest.raises(sc.DataError, match=r"line 2: not UTF-8.*iconv"):
        sc.read_reviews(file)
    with pytest.raises(sc.DataError, match="is UTF-16"):
        sc.read_reviews(write(tmp_path, "user_id,item_id,text\na,b,c\n".encode("utf-16")))


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    for raw in (b"user_id,item_id,text\na,b,c\n", lines(AMAZON)):
        assert len(sc.read_reviews(write(tmp_path, b"\xef\xbb\xbf" + raw))) == 1


def test_ids_stored_as_numbers_are_whole_and_nan_is_none(tmp_path):
    file = tmp_path / "f"
    pl.DataFrame({"user_id": [7.0, 1e15, float("nan")], "item_id": [1, 2, 3], "text": ["x"] * 3}).write_parquet(file)
    reviews = sc.read_reviews(file)
    assert reviews.table.select("user_id", "item_id").rows() == [("7", "1"), ("1000000000000000", "2")]
    assert reviews.steps[-1].dropped == 1
    pl.DataFrame({"user_id": [{"a": 1}], "item_id": [1], "text": ["x"]}).write_parquet(file)
    with pytest.raises(sc.DataError, match="must be text or a number"):
        sc.read_reviews(file)


def test_json_spread_over_several_lines_is_refused_with_the_first_bad_line(tmp_path):
    with pytest.raises(sc.DataError, match=r"line 1: cannot be parsed .*one JSON object a line"):
        sc.read_reviews(write(tmp_path, json.dumps(AMAZON, indent=2).encode()))


def test_a_missing_column_is_named_with_those_there_are(tmp_path):
    file = write(tmp_path, b"user_id,product,text\na,b,c\n")
    with pytest.raises(sc.DataError, match=r"lacks a column for item_id.*user_id, product, text.*--columns item_id="):
        sc.read_reviews(file)
    with pytest.raises(sc.DataError, match="no column 'sku'"):
        sc.read_reviews(file, columns={"item_id": "sku"})
    with pytest.raises(sc.ConfigError, match="Unknown column 'colour'"):
        sc.read_reviews(file, columns={"colour": "product"})


@pytest.mark.parametrize("rating", ["nan", "inf", "-inf", "many"])
def test_a_rating_that_is_no_finite_number_is_dropped_and_counted(tmp_path, rating):
    file = write(tmp_path, f"user_id,item_id,text,rating\na,b,c,{rating}\nx,y,z,4\nm,n,o,\n".encode())
    reviews = sc.read_reviews(file)
    assert reviews.table["user_id"].to_list() == ["x", "m"]
    assert reviews.table["rating"].to_list() == [4, None]
    assert [(step.name, step.dropped) for step in reviews.steps[1:]] == [("rating not a finite number", 1)]


def test_nan_in_json_is_dropped_and_counted(tmp_path):
    file = write(tmp_path, lines(AMAZON, AMAZON | {"asin": "B2", "overall": float("nan")}))
    assert sc.read_reviews(file).steps[-1].dropped == 1


def test_reviews_without_ids_are_dropped_and_counted(tmp_path):
    reviews = sc.read_reviews(write(tmp_path, lines(AMAZON, AMAZON | {"asin": None}, AMAZON | {"reviewerID": ""})))
    assert [(step.name, step.dropped) for step in reviews.steps[1:]] == [("without user or item id", 2)]


def test_the_first_review_in_time_of_a_pair_stays(tmp_path):
    first = AMAZON | {"unixReviewTime": 5, "reviewText": "first"}
    undated = AMAZON | {"unixReviewTime": None, "reviewText": "undated"}
    reviews = sc.read_reviews(write(tmp_path, lines(undated, AMAZON, first, AMAZON)))
    assert reviews.table["text"].to_list() == ["first"]
    assert [(step.name, step.dropped) for step in reviews.steps[1:]] == [
        ("the same review again", 1),
        ("duplicate (user, item)", 2),
    ]


def test_empty_texts_stay_and_are_counted(tmp_path):
    reviews = sc.read_reviews(
        write(tmp_path, lines(AMAZON, AMAZON | {"asin": "B2", "reviewText": " ", "summary": None}))
    )
    assert len(reviews) == 2
    assert reviews.n_without_text == 1


def test_ids_with_unicode_commas_quotes_and_ten_thousand_characters_survive(tmp_path):
    ids = ['Zoë, "the" 店', "x" * 10_000, "tab\tand\nline", "🎸"]
    table = pl.DataFrame({"user_id": ids, "item_id": ids[::-1], "text": ["fine"] * 4})
    file = tmp_path / "f.csv"
    table.write_csv(file)
    assert sc.read_reviews(file).table.select("user_id", "item_id").rows() == list(zip(ids, ids[::-1], strict=True))


def test_a_folder_a_missing_file_and_other_formats_are_refused(tmp_path):
    with pytest.raises(sc.DataError, match="is a folder"):
        sc.read_reviews(tmp_path)
    with pytest.raises(sc.DataError, match="does not exist"):
        sc.read_reviews(tmp_path / "nowhere")
    with pytest.raises(sc.DataError, match="one object a line"):
        sc.read_reviews(write(tmp_path, b"[1, 2]"))
    with pytest.raises(sc.DataError, match="is binary"):
        sc.read_reviews(write(tmp_path, b"\x89PNG\x00\x00"))
    with pytest.raises(sc.DataError, match="none of JSON lines"):
        sc.read_reviews(write(tmp_path, b"hello\nworld\n"))
    with pytest.raises(sc.DataError, match="no usable review"):
        sc.read_reviews(write(tmp_path, b"user_id,item_id,text\n,,\n"))
