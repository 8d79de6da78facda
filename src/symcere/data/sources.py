"""The public review corpora that are recognised by their field names: data, one record a corpus."""

from collections.abc import Mapping
from dataclasses import dataclass, field

COLUMNS = ("user_id", "item_id", "rating", "timestamp", "helpful", "title", "text")
"""What a review has."""

ITEM_COLUMNS = ("item_id", "title", "category")
"""What is known of an item beside its reviews."""

OF_THE_ITEM = {"item_title": "title", "item_category": "category"}
"""Columns that a review file may have of its items -> what they are called there."""

REQUIRED = ("user_id", "item_id", "text")
REQUIRED_OF_ITEMS = ("item_id", "title")


@dataclass(frozen=True)
class Source:
    """Where a corpus keeps what we need.

    Args:
        name: Short name, as shown and as accepted by `--source`.
        columns: Our column -> the corpus' field name. Columns that the corpus lacks are left out. A field inside a
            list of records is named LIST.FIELD.
        marks: Fields whose joint presence identifies a file of reviews.
        items: Our column of items -> the field name in the corpus' file of items.
        item_marks: Fields whose joint presence identifies a file of items.
        unrated: A rating that means that there is none.
        nobody: User ids that name nobody: they are shared by many.
        lacks_text: Whether reviews may come without text.
    """

    name: str
    columns: Mapping[str, str]
    marks: frozenset[str] = field(default_factory=frozenset)
    items: Mapping[str, str] = field(default_factory=dict)
    item_marks: frozenset[str] = field(default_factory=frozenset)
    unrated: str | None = None
    nobody: tuple[str, ...] = ()
    lacks_text: bool = False


_AMAZON = {
    "user_id": "reviewerID",
    "item_id": "asin",
    "rating": "overall",
    "timestamp": "unixReviewTime",
    "title": "summary",
    "text": "reviewText",
}

AMAZON_2014 = Source(
    "amazon-2014",
    _AMAZON | {"helpful": "helpful"},
    frozenset({"reviewerID", "asin", "helpful"}),
    {"item_id": "asin", "title": "title", "category": "categories"},
    frozenset({"asin", "title", "categories"}),
)
AMAZON_2018 = Source(
    "amazon-2018",
    _AMAZON | {"helpful": "vote"},
    frozenset({"reviewerID", "asin"}),
    {"item_id": "asin", "title": "title", "category": "category"},
    frozenset({"asin", "title", "category"}),
)
AMAZON_2023 = Source(
    "amazon-2023",
    {"user_id": "user_id", "item_id": "parent_asin", "rating": "rating", "timestamp": "timestamp",
     "helpful": "helpful_vote", "title": "title", "text": "text"},
    frozenset({"user_id", "parent_asin", "rating"}),
    {"item_id": "parent_asin", "title": "title", "category": "categories"},
    frozenset({"parent_asin", "title", "main_category"}),
)  # fmt: skip
YELP = Source(
    "yelp",
    {"user_id": "user_id", "item_id": "business_id", "rating": "stars", "timestamp": "date", "helpful": "useful",
     "text": "text"},
    frozenset({"user_id", "business_id", "stars"}),
    {"item_id": "business_id", "title": "name", "category": "categories"},
    frozenset({"business_id", "name"}),
)  # fmt: skip
GOOGLE_LOCAL = Source(
    "google-local",
    {"user_id": "user_id", "item_id": "gmap_id", "rating": "rating", "timestamp": "time", "text": "text"},
    frozenset({"user_id", "gmap_id", "time"}),
    {"item_id": "gmap_id", "title": "name", "category": "category"},
    frozenset({"gmap_id", "name", "category"}),
)
HOTELREC = Source(
    "hotelrec",
    {"user_id": "author", "item_id": "hotel_url", "rating": "rating", "timestamp": "date", "title": "title",
     "text": "text"},
    frozenset({"hotel_url", "author"}),
)  # fmt: skip
TRIPADVISOR_LARA = Source(
    "tripadvisor-lara",
    {"user_id": "author", "item_id": "hotel", "rating": "rating", "timestamp": "date", "helpful": "helpful",
     "text": "content"},
    frozenset({"hotel", "author", "content"}),
    unrated="-1",
    nobody=("A TripAdvisor Member",),
)  # fmt: skip
STEAM = Source(
    "steam",
    {"user_id": "username", "item_id": "product_id", "timestamp": "date",
     "text": "text"},
    frozenset({"username", "product_id", "text"}),
    {"item_id": "id", "title": "app_name", "category": "genres"},
    frozenset({"id", "app_name"}),
)  # fmt: skip
STEAM_USERS = Source(
    "steam-users",
    {"user_id": "user_id", "item_id": "reviews.item_id", "rating": "reviews.recommend",
     "timestamp": "reviews.posted", "helpful": "reviews.helpful", "text": "reviews.review"},
    frozenset({"user_id", "reviews.item_id", "reviews.review"}),
)  # fmt: skip
GOODREADS = Source(
    "goodreads",
    {"user_id": "user_id", "item_id": "book_id", "rating": "rating", "timestamp": "date_added",
     "helpful": "n_votes", "text": "review_text"},
    frozenset({"user_id", "book_id", "review_text"}),
    {"item_id": "book_id", "title": "title"},
    frozenset({"book_id", "title"}),
    unrated="0",
)  # fmt: skip
RECBOLE = Source("recbole", {}, lacks_text=True)
"""RecBole's atomic files: tab-separated, every column name with its type, such as user_id:token."""

SOURCES = (
    AMAZON_2014, AMAZON_2018, AMAZON_2023, YELP, GOOGLE_LOCAL, HOTELREC, TRIPADVISOR_LARA, STEAM, STEAM_USERS,
    GOODREADS, RECBOLE,
)  # fmt: skip
"""In order of recognition: the first whose marks are all present is taken."""

ALIASES: dict[str, tuple[str, ...]] = {
    "user_id": ("user_id", "userid", "user", "reviewer_id", "reviewerid", "customer_id", "author_id"),
    "item_id": ("item_id", "itemid", "item", "parent_asin", "asin", "product_id", "business_id", "hotel_id",
                "place_id", "restaurant_id", "gmap_id", "book_id"),
    "rating": ("rating", "stars", "overall", "score", "star_rating"),
    "timestamp": ("timestamp", "time", "date", "unixreviewtime", "review_date", "created_at"),
    "helpful": ("helpful", "helpful_votes", "helpful_vote", "vote", "votes", "useful", "thumbs_up"),
    "title": ("title", "summary", "review_title", "review_headline", "headline"),
    "text": ("text", "review_text", "reviewtext", "review", "review_body", "body", "content", "comment"),
    "item_title": ("item_title", "item_name", "product_title", "product_name", "business_name", "hotel_name",
                   "restaurant_name"),
    "item_category": ("item_category", "product_category", "category"),
}  # fmt: skip
"""Names understood in files of reviews without a column map, lower case, in order of preference."""

ITEM_ALIASES: dict[str, tuple[str, ...]] = {
    "item_id": ALIASES["item_id"],
    "title": ("title", "name", *ALIASES["item_title"], "app_name", "movie_title"),
    "category": ("category", "categories", "genre", "genres", "class", "main_category", *ALIASES["item_category"]),
}
"""The same in files of items."""
