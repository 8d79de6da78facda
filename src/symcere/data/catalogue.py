"""The public datasets of the field, as data: where each lies, how large it is, on what terms, and how to cite it."""

import difflib
from dataclasses import dataclass

from symcere.errors import UnknownIdError

DOMAINS = ("e-commerce", "local", "travel", "games", "books")
ROLES = ("reviews", "items")


@dataclass(frozen=True)
class RawFile:
    """One file of a dataset.

    Args:
        role: "reviews", or "items": titles, categories and the like.
        name: What it is called on disk.
        address: Where it is fetched from; None where a person must fetch it.
        size: Bytes, or None where nobody states it.
        sha256: As published; None where the publisher gives none, which is the rule.
    """

    role: str
    name: str
    address: str | None = None
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class PublicDataset:
    """One public dataset.

    Args:
        name: As `symcere download` takes it; also the folder it is written to.
        domain: One of DOMAINS.
        corpus: Name of the `Source` that reads its reviews.
        files: What there is to fetch.
        format: Of the reviews, in words.
        n_reviews: As the publisher counts them, some rounded; None where unknown.
        terms: Licence or terms of use, in short; the page has them in full.
        citation: The paper to cite.
        page: The publisher's page.
        manual: What to do by hand where a program may not or cannot fetch it; empty otherwise.
    """

    name: str
    domain: str
    corpus: str
    files: tuple[RawFile, ...]
    format: str
    n_reviews: int | None
    terms: str
    citation: str
    page: str
    manual: str = ""

    def file(self, role: str) -> RawFile | None:
        """Return the file of that role, or None where there is none."""
        return next((file for file in self.files if file.role == role), None)

    @property
    def reviews(self) -> RawFile:
        """The file of reviews."""
        return next(file for file in self.files if file.role == "reviews")


_SNAP = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
_UCSD = "https://mcauleylab.ucsd.edu/public_datasets"
_NO_LICENCE = "No licence stated"
_CITE_2014 = (
    "He and McAuley. Ups and Downs: Modeling the Visual Evolution of Fashion Trends with One-Class Collaborative "
    "Filtering. WWW 2016. McAuley, Targett, Shi and van den Hengel. Image-based Recommendations on Styles and "
    "Substitutes. SIGIR 2015."
)
_CITE_2018 = (
    "Ni, Li and McAuley. Justifying Recommendations using Distantly-Labeled Reviews and Fine-Grained Aspects. "
    "EMNLP 2019."
)
_CITE_2023 = (
    "Hou, Li, He, Yan, Chen and McAuley. Bridging Language and Items for Retrieval and Recommendation. "
    "arXiv 2403.03952, 2024."
)
_CITE_GOOGLE = (
    "Li, Shang and McAuley. UCTopic: Unsupervised Contrastive Learning for Phrase Representations and Topic "
    "Mining. ACL 2022. Yan, He, Li, Zhang and McAuley. Personalized Showcases: Generating Multi-Modal Explanations "
    "for Recommendations. SIGIR 2023."
)
_CITE_GOODREADS = (
    "Wan and McAuley. Item Recommendation on Monotonic Behavior Chains. RecSys 2018. Wan, Misra, Nakashole and "
    "McAuley. Fine-Grained Spoiler Detection from Large-Scale Review Corpora. ACL 2019."
)
_CITE_STEAM = (
    "Kang and McAuley. Self-Attentive Sequential Recommendation. ICDM 2018. Wan and McAuley. Item Recommendation on "
    "Monotonic Behavior Chains. RecSys 2018. Pathak, Gupta and McAuley. Generating and Personalizing Bundle "
    "Recommendations on Steam. SIGIR 2017."
)


def _slug(words: str) -> str:
    return words.lower().replace("_", "-")


def _fetched(role: str, folder: str, name: str, size: int | None = None) -> RawFile:
    return RawFile(role, name, f"{folder}/{name}", size)


def _amazon_2014(category: str, n_reviews: int, size: int | None = None) -> PublicDataset:
    return PublicDataset(
        name=f"amazon-2014-{_slug(category)}-5",
        domain="e-commerce",
        corpus="amazon-2014",
        files=(
            _fetched("reviews", _SNAP, f"reviews_{category}_5.json.gz", size),
            _fetched("items", _SNAP, f"meta_{category}.json.gz"),
        ),
        format="JSON lines, gzip; the publisher's 5-core",
        n_reviews=n_reviews,
        terms=_NO_LICENCE,
        citation=_CITE_2014,
        page="https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html",
    )


def _amazon_2018(category: str, n_reviews: int, size: int | None = None) -> PublicDataset:
    return PublicDataset(
        name=f"amazon-2018-{_slug(category)}-5",
        domain="e-commerce",
        corpus="amazon-2018",
        files=(
            _fetched("reviews", f"{_UCSD}/data/amazon_v2/categoryFilesSmall", f"{category}_5.json.gz", size),
            _fetched("items", f"{_UCSD}/data/amazon_v2/metaFiles2", f"meta_{category}.json.gz"),
        ),
        format="JSON lines, gzip; the publisher's 5-core",
        n_reviews=n_reviews,
        terms=_NO_LICENCE,
        citation=_CITE_2018,
        page="https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/",
    )


def _amazon_2023(category: str, n_reviews: int) -> PublicDataset:
    return PublicDataset(
        name=f"amazon-2023-{_slug(category)}",
        domain="e-commerce",
        corpus="amazon-2023",
        files=(
            _fetched("reviews", f"{_UCSD}/data/amazon_2023/raw/review_categories", f"{category}.jsonl.gz"),
            _fetched("items", f"{_UCSD}/data/amazon_2023/raw/meta_categories", f"meta_{category}.jsonl.gz"),
        ),
        format="JSON lines, gzip; all reviews",
        n_reviews=n_reviews,
        terms=_NO_LICENCE,
        citation=_CITE_2023,
        page="https://amazon-reviews-2023.github.io/",
    )


def _google_local(state: str, n_reviews: int) -> PublicDataset:
    return PublicDataset(
        name=f"google-local-2021-{_slug(state)}-10",
        domain="local",
        corpus="google-local",
        files=(
            _fetched("reviews", f"{_UCSD}/gdrive/googlelocal", f"review-{state}_10.json.gz"),
            _fetched("items", f"{_UCSD}/gdrive/googlelocal", f"meta-{state}.json.gz"),
        ),
        format="JSON lines, gzip; the publisher's 10-core",
        n_reviews=n_reviews,
        terms=_NO_LICENCE,
        citation=_CITE_GOOGLE,
        page="https://jiachengli1995.github.io/google/index.html",
    )


def _goodreads(genre: str, n_reviews: int) -> PublicDataset:
    return PublicDataset(
        name=f"goodreads-{_slug(genre)}",
        domain="books",
        corpus="goodreads",
        files=(
            _fetched("reviews", f"{_UCSD}/gdrive/goodreads/byGenre", f"goodreads_reviews_{genre}.json.gz"),
            _fetched("items", f"{_UCSD}/gdrive/goodreads/byGenre", f"goodreads_books_{genre}.json.gz"),
        ),
        format="JSON lines, gzip; all reviews of the genre",
        n_reviews=n_reviews,
        terms="Academic use only, no redistribution",
        citation=_CITE_GOODREADS,
        page="https://cseweb.ucsd.edu/~jmcauley/datasets/goodreads.html",
    )


CATALOGUE = (
    _amazon_2014("Musical_Instruments", 10_261, 2_460_495),
    _amazon_2014("Automotive", 20_473, 4_700_000),
    _amazon_2014("Digital_Music", 64_706),
    _amazon_2014("Pet_Supplies", 157_836),
    _amazon_2014("Toys_and_Games", 167_597),
    _amazon_2014("Video_Games", 231_780),
    _amazon_2018("Gift_Cards", 2_972),
    _amazon_2018("All_Beauty", 5_269),
    _amazon_2018("Luxury_Beauty", 34_278),
    _amazon_2018("Musical_Instruments", 231_392, 39_353_085),
    _amazon_2018("Automotive", 1_711_519),
    _amazon_2018("Pet_Supplies", 2_098_325),
    _amazon_2023("Gift_Cards", 152_400),
    _amazon_2023("All_Beauty", 701_500),
    _amazon_2023("Musical_Instruments", 3_000_000),
    _amazon_2023("Video_Games", 4_600_000),
    _amazon_2023("Pet_Supplies", 16_800_000),
    _amazon_2023("Automotive", 20_000_000),
    PublicDataset(
        name="yelp",
        domain="local",
        corpus="yelp",
        files=(
            RawFile("reviews", "yelp_academic_dataset_review.json"),
            RawFile("items", "yelp_academic_dataset_business.json"),
        ),
        format="JSON lines; a .tar inside a .zip",
        n_reviews=6_990_280,
        terms="Yelp Dataset Terms of Use",
        citation="Yelp. Yelp Open Dataset.",
        page="https://business.yelp.com/data/resources/open-dataset/",
        manual="accept its terms on the page, download the JSON archive there and unpack it, the .tar inside it too",
    ),
    _google_local("Vermont", 324_725),
    _google_local("Alaska", 521_515),
    _google_local("Hawaii", 1_504_347),
    PublicDataset(
        name="tripadvisor-lara",
        domain="travel",
        corpus="tripadvisor-lara",
        files=(_fetched("reviews", "http://times.cs.uiuc.edu/~wang296/Data/LARA/TripAdvisor", "Review_Texts.zip"),),
        format="text files of tagged lines, one a hotel, in a .zip",
        n_reviews=None,
        terms=_NO_LICENCE,
        citation=(
            "Wang, Lu and Zhai. Latent Aspect Rating Analysis on Review Text Data: A Rating Regression Approach. "
            "KDD 2010. Wang, Lu and Zhai. Latent Aspect Rating Analysis without Aspect Keyword Supervision. KDD 2011."
        ),
        page="https://www.cs.virginia.edu/~hw5x/dataset.html",
    ),
    PublicDataset(
        name="hotelrec",
        domain="travel",
        corpus="hotelrec",
        files=(RawFile("reviews", "HotelRec.txt", size=47_000_000_000),),
        format="JSON; one file in a .zip of about 14 GB",
        n_reviews=50_264_531,
        terms="Academic research only",
        citation=(
            "Antognini and Faltings. HotelRec: a Novel Very Large-Scale Hotel Recommendation Dataset. LREC 2020."
        ),
        page="https://github.com/Diego999/HotelRec",
        manual="follow the link on the page to the archive (about 14 GB; the link has moved before) and unpack it",
    ),
    PublicDataset(
        name="steam",
        domain="games",
        corpus="steam",
        files=(
            _fetched("reviews", f"{_UCSD}/data/steam", "steam_reviews.json.gz", 1_300_000_000),
            _fetched("items", f"{_UCSD}/data/steam", "steam_games.json.gz", 2_700_000),
        ),
        format="one Python literal a line, gzip; all reviews",
        n_reviews=7_793_069,
        terms=_NO_LICENCE,
        citation=_CITE_STEAM,
        page="https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data",
    ),
    _goodreads("poetry", 154_555),
    _goodreads("comics_graphic", 542_338),
    _goodreads("children", 734_640),
)
"""Every dataset that `symcere download` knows. Where each number comes from: docs/datasets.md."""


def dataset_named(name: str) -> PublicDataset:
    """Return the dataset of that name.

    Args:
        name: As `symcere download --list` shows it.

    Returns:
        Its record.

    Raises:
        UnknownIdError: If there is none; the message has the closest names.

    Example:
        >>> dataset_named("amazon-2014-musical-instruments-5").reviews.name
        'reviews_Musical_Instruments_5.json.gz'
    """
    by_name = {dataset.name: dataset for dataset in CATALOGUE}
    if name not in by_name:
        word = name.strip().lower().replace("_", "-")
        near = [known for known in by_name if word and word in known][:4] or difflib.get_close_matches(
            word, by_name, 4
        )
        hint = f" Near it: {', '.join(near)}." if near else ""
        raise UnknownIdError(f"Unknown dataset {name!r}.{hint} `symcere download --list` shows all {len(by_name)}.")
    return by_name[name]
