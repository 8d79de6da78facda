"""The public review corpora that are recognised by their field names: data, one record a corpus."""

from dataclasses import dataclass, field

COLUMNS = ("user_id", "item_id", "rating", "timestamp", "helpful", "title", "text")
REQUIRED = ("user_id", "item_id", "text")


@dataclass(frozen=True)
class Source:
    """Where a corpus keeps what we need.

    Args:
        name: Short name, as shown and as accepted by `--source`.
        columns: Our column -> the corpus' field name. Columns that the corpus lacks are left out.
        marks: Fields whose joint presence identifies the corpus.
    """

    name: str
    columns: dict[str, str]
    marks: frozenset[str] = field(default_factory=frozenset)


_AMAZON = {
    "user_id": "reviewerID",
    "item_id": "asin",
    "rating": "overall",
    "timestamp": "unixReviewTime",
    "title": "summary",
    "text": "reviewText",
}

AMAZON_2014 = Source("amazon-2014", _AMAZON | {"helpful": "helpful"}, frozenset({"reviewerID", "asin", "helpful"}))
AMAZON_2018 = Source("amazon-2018", _AMAZON | {"helpful": "vote"}, frozenset({"reviewerID", "asin"}))
YELP = Source(
    "yelp",
    {"user_id": "user_id", "item_id": "business_id", "rating": "stars", "timestamp": "date", "helpful": "useful",
     "text": "text"},
    frozenset({"user_id", "business_id", "stars"}),
)  # fmt: skip

SOURCES = (AMAZON_2014, AMAZON_2018, YELP)
"""In order of recognition: the first whose marks are all present is taken."""

ALIASES: dict[str, tuple[str, ...]] = {
    "user_id": ("user_id", "userid", "user", "reviewer_id", "reviewerid", "customer_id", "author_id"),
    "item_id": ("item_id", "itemid", "item", "parent_asin", "asin", "product_id", "business_id", "hotel_id",
                "place_id", "restaurant_id", "gmap_id"),
    "rating": ("rating", "stars", "overall", "score", "star_rating"),
    "timestamp": ("timestamp", "time", "date", "unixreviewtime", "review_date", "created_at"),
    "helpful": ("helpful", "helpful_votes", "helpful_vote", "vote", "votes", "useful", "thumbs_up"),
    "title": ("title", "summary", "review_title", "review_headline", "headline"),
    "text": ("text", "review_text", "reviewtext", "review", "review_body", "body", "content", "comment"),
}  # fmt: skip
"""Names understood without a column map, lower case, in order of preference."""
