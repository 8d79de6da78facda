"""Every public corpus is recognised by its content: one real-looking record each, in the corpus' own form."""

import gzip
import json

import polars as pl
import pytest

import symcere as sc
from symcere.data.sources import SOURCES

DAY = 1_385_164_800  # 2013-11-23

AMAZON_2023 = {
    "rating": 5.0, "title": "Fits", "text": "snug", "images": [], "asin": "B00A", "parent_asin": "B00P",
    "user_id": "AE1", "timestamp": DAY * 1000, "helpful_vote": 2, "verified_purchase": True,
}  # fmt: skip
GOOGLE = {
    "user_id": "1089", "name": "Ann", "time": DAY * 1000, "rating": 5, "text": "snug", "pics": None, "resp": None,
    "gmap_id": "0x89:0x1",
}  # fmt: skip
HOTELREC = {
    "hotel_url": "Hotel_Review-g1-d2-Reviews-Inn-Rome.html", "author": "ann", "date": "2013-11-23T00:00:00",
    "rating": 5.0, "title": "Fits", "text": "snug", "property_dict": {"service": 4.0},
}  # fmt: skip
STEAM = (
    "{u'username': u'ann', u'hours': 9.5, u'products': 92, u'product_id': u'328', u'page_order': 0, "
    "u'date': u'2013-11-23', u'text': u'snug \\u2665', u'early_access': False, u'page': 1}\n"
)
STEAM_USER = (
    "{'user_id': 'ann', 'user_url': 'x', 'reviews': [{'funny': '', 'posted': 'Posted November 23, 2013.', "
    "'last_edited': '', 'item_id': '1250', 'helpful': '1 of 1 people', 'recommend': True, 'review': 'snug'}, "
    "{'funny': '', 'posted': 'Posted July 3.', 'last_edited': '', 'item_id': '22200', 'helpful': 'No ratings yet', "
    "'recommend': False, 'review': 'loose'}]}\n"
)
GOODREADS = {
    "user_id": "8842", "book_id": "24375664", "review_id": "5cd4", "rating": 5, "review_text": "snug",
    "date_added": "Fri Nov 22 16:00:00 -0800 2013", "date_updated": "", "read_at": "", "started_at": "",
    "n_votes": 2, "n_comments": 0,
}  # fmt: skip
LARA = (
    "<Overall Rating>4\n<Avg. Price>$173\n<URL>http\n\n<Author>ann\n<Content>snug\n<Date>Nov 23, 2013\n"
    "<img src=x/>\n<No. Reader>-1\n<No. Helpful>2\n<Overall>5\n<Value>5\n\n<Author>A TripAdvisor Member\n"
    "<Content>nobody\n<Date>Nov 24, 2013\n<Rating>5\t4\t5\n\n<Author>bob\n<Content>loose\n<Date>Nov 25, 2013\n"
    "<Rating>-1\t4\t5\n"
)


def read(folder, raw, name="file", **options):
    file = folder / name
    file.write_bytes(raw.encode() if isinstance(raw, str) else raw)
    return sc.read_reviews(file, **options)


def line(record):
    return json.dumps(record) + "\n"


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("source", "raw", "row"),
    [
        ("amazon-2023", line(AMAZON_2023), ("AE1", "B00P", 5, DAY, 2, "Fits", "snug")),
        ("google-local", line(GOOGLE), ("1089", "0x89:0x1", 5, DAY, None, "", "snug")),
        ("hotelrec", line(HOTELREC), ("ann", HOTELREC["hotel_url"], 5, DAY, None, "Fits", "snug")),
        ("steam", STEAM, ("ann", "328", None, DAY, None, "", "snug ♥")),
        ("steam-users", STEAM_USER, ("ann", "1250", 1, DAY, 1, "", "snug")),
        ("goodreads", line(GOODREADS), ("8842", "24375664", 5, DAY, 2, "", "snug")),
        ("tripadvisor-lara", LARA, ("ann", "file", 5, DAY, 2, "", "snug")),
        ("recbole", "user_id:token\titem_id:token\trating:float\ttimestamp:float\nann\tB\t5.0\t1385164800.0\n",
         ("ann", "B", 5, DAY, None, "", "")),
        ("recbole", "user_id:token\titem_id:token\treview:token_seq\nann\tB\tsnug fit\n",
         ("ann", "B", None, None, None, "", "snug fit")),
    ],
)  # fmt: skip
def test_a_corpus_is_recognised(tmp_path, source, raw, row, zipped):
    reviews = read(tmp_path, gzip.compress(raw.encode()) if zipped else raw)
    assert (reviews.source, reviews.table.row(0)) == (source, row)


def test_a_user_with_a_list_of_reviews_gives_one_row_each(tmp_path):
    reviews = read(tmp_path, STEAM_USER)
    assert reviews.table.select("item_id", "rating", "timestamp").rows() == [("1250", 1, DAY), ("22200", 0, None)]


def test_hotels_of_tripadvisor_leave_out_nobody_and_what_is_not_rated(tmp_path):
    reviews = read(tmp_path, LARA, "hotel_7_parsed.txt")
    assert reviews.table.select("user_id", "item_id", "rating").rows() == [
        ("ann", "hotel_7", 5),
        ("bob", "hotel_7", None),
    ]
    assert [(step.name, step.dropped) for step in reviews.steps[1:]] == [("without user or item id", 1)]


def test_a_rating_of_zero_is_none_in_goodreads_and_a_rating_elsewhere(tmp_path):
    assert read(tmp_path, line(GOODREADS | {"rating": 0})).table["rating"].to_list() == [None]
    assert read(tmp_path, line(GOOGLE | {"rating": 0})).table["rating"].to_list() == [0]


def test_a_python_literal_is_read_and_never_run(tmp_path):
    with pytest.raises(sc.DataError, match="line 2"):
        read(tmp_path, STEAM + "{'username': __import__('os').getcwd()}\n")


def test_a_folder_of_files_is_read_as_one(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(LARA)
    (tmp_path / ".hidden").write_text("nothing")
    reviews = sc.read_reviews(tmp_path)
    assert reviews.table.select("user_id", "item_id").rows() == [
        ("ann", "a"),
        ("bob", "a"),
        ("ann", "b"),
        ("bob", "b"),
    ]
    (tmp_path / "c.json").write_text(line(GOOGLE))
    with pytest.raises(sc.DataError, match=r"c\.json is google-local, and a\.txt beside it tripadvisor-lara"):
        sc.read_reviews(tmp_path)


FEEDBACK = line({"user_id": "eve", "item_id": "B1", "rating": 4.0, "title": "", "text": "tight", "timestamp": DAY})
CSV = "userid,asin,stars,text\nann,B1,5,snug\n"


@pytest.mark.parametrize(("kind", "raw"), [("google-local", line(GOOGLE)), ("tripadvisor-lara", LARA), ("csv", CSV)])
@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_feedback_may_stand_beside_files_of_any_other_kind(tmp_path, kind, raw, names):
    ours, theirs = (tmp_path / name for name in names)
    theirs.write_text(raw)
    alone = sc.read_reviews(theirs).table.rows()
    ours.write_text(FEEDBACK)
    (tmp_path / "c").write_text(FEEDBACK.replace("eve", "joe"))
    reviews = sc.read_reviews(tmp_path)
    assert reviews.source == kind
    eve, joe = ((user, "B1", 4, DAY, None, "", "tight") for user in ("eve", "joe"))
    assert reviews.table.rows() == ([eve, *alone, joe] if names[0] == "a" else [*alone, eve, joe])
    (tmp_path / "d").write_text(line(AMAZON_2023))
    with pytest.raises(
        sc.DataError, match=rf"d is amazon-2023, and {names[1]} beside it {kind}\. The files of a folder"
    ):
        sc.read_reviews(tmp_path)


def test_a_folder_of_feedback_alone_is_json_lines(tmp_path):
    for name in "ab":
        (tmp_path / name).write_text(FEEDBACK.replace("eve", name))
    reviews = sc.read_reviews(tmp_path)
    assert (reviews.source, len(reviews)) == ("jsonl", 2)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(sc.DataError, match="is a folder without a file"):
        sc.read_reviews(tmp_path)


def test_every_source_has_a_name_of_its_own_and_maps_to_our_columns():
    assert len({source.name for source in SOURCES}) == len(SOURCES)
    for source in SOURCES:
        assert set(source.columns) <= {"user_id", "item_id", "rating", "timestamp", "helpful", "title", "text"}
        assert source.marks <= set(source.columns.values()) | {"helpful", "time"}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("{'asin': 'B', 'title': \"Ann's strap\", 'categories': [['Music', 'Guitars']]}\n", "Music > Guitars"),
        (line({"asin": "B", "title": "Ann's strap", "category": ["Music", "Music"], "brand": "x"}), "Music"),
        (line({"parent_asin": "B", "title": "Ann's strap", "main_category": "Music", "categories": []}), ""),
        (line({"business_id": "B", "name": "Ann's strap", "categories": "Gyms, Sports"}), "Gyms, Sports"),
        (line({"gmap_id": "B", "name": "Ann's strap", "category": ["Gym"]}), "Gym"),
        (line({"book_id": "B", "title": "Ann's strap", "isbn": ""}), ""),
        (line({"id": "B", "app_name": "Ann's strap", "genres": ["Action", "Indie"]}), "Action > Indie"),
        ("item_id:token\ttitle:token_seq\tclass:token_seq\nB\tAnn's strap\tMusic\n", "Music"),
        ("sku_id,item_id,name,genre\n1,B,Ann's strap,Music\n", "Music"),
    ],
)
def test_items_of_every_corpus_have_title_and_category(tmp_path, raw, expected):
    (tmp_path / "meta").write_text(raw)
    items = sc.read_items(tmp_path / "meta")
    assert items.table.rows() == [("B", "Ann's strap", expected)]
    assert (items.title("B"), items.title("C")) == ("Ann's strap", "")


def test_items_say_what_is_missing(tmp_path):
    (tmp_path / "meta").write_text("a,b\n1,2\n")
    with pytest.raises(sc.DataError, match="lacks a column for item_id, title"):
        sc.read_items(tmp_path / "meta")
    with pytest.raises(sc.ConfigError, match="Unknown column 'text' of items"):
        sc.read_items(tmp_path / "meta", columns={"text": "a"})
    (tmp_path / "meta").write_text("item_id,title\n,2\n")
    with pytest.raises(sc.DataError, match="holds no item"):
        sc.read_items(tmp_path / "meta")


def test_titles_in_the_review_file_are_carried(tmp_path):
    table = pl.DataFrame(
        {
            "user_id": ["ann", "bob", "ann"],
            "item_id": ["a", "a", "b"],
            "text": ["x", "y", "z"],
            "item_title": [None, "Inn", "Tavern"],
            "item_category": [["Hotel"], [], None],
        }
    )
    table.write_parquet(tmp_path / "f")
    reviews = sc.read_reviews(tmp_path / "f")
    assert reviews.items.table.rows() == [("a", "Inn", "Hotel"), ("b", "Tavern", "")]


def test_what_one_table_of_items_lacks_another_completes():
    first, other = (
        sc.Items(pl.DataFrame(rows, schema=["item_id", "title", "category"], orient="row"))
        for rows in ([("a", "", "Hotel"), ("b", "B", "")], [("a", "Inn", "Bar"), ("c", "C", "")])
    )
    assert first.completed(other).table.rows() == [("a", "Inn", "Hotel"), ("b", "B", ""), ("c", "C", "")]
