"""The catalogue is complete, and the page about it names all of it."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest

import symcere as sc
from symcere.data.catalogue import DOMAINS, ROLES, dataset_named
from symcere.data.sources import SOURCES

PAGE = (Path(__file__).parents[1] / "docs" / "datasets.md").read_text(encoding="utf-8")
EACH = pytest.mark.parametrize("dataset", sc.CATALOGUE, ids=lambda dataset: dataset.name)


@EACH
def test_every_record_is_complete(dataset):
    assert dataset.name == dataset.name.lower()
    assert set(dataset.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert dataset.domain in DOMAINS
    assert dataset.corpus in {source.name for source in SOURCES}
    assert dataset.name.startswith(dataset.corpus)
    assert dataset.n_reviews is None or dataset.n_reviews > 0
    assert all((dataset.format, dataset.terms, dataset.citation))
    assert urlsplit(dataset.page).scheme == "https"


@EACH
def test_every_file_has_an_address_or_says_what_to_do_by_hand(dataset):
    assert [file.role for file in dataset.files].count("reviews") == 1
    assert len({file.name for file in dataset.files}) == len(dataset.files)
    for file in dataset.files:
        assert file.role in ROLES
        assert file.size is None or file.size > 0
        assert file.sha256 is None or len(file.sha256) == 64
        if file.address is None:
            assert dataset.manual
        else:
            parts = urlsplit(file.address)
            assert parts.scheme in ("http", "https")
            assert parts.hostname
            assert file.address.endswith(f"/{file.name}")


def test_names_and_addresses_are_unique():
    names = [dataset.name for dataset in sc.CATALOGUE]
    addresses = [file.address for dataset in sc.CATALOGUE for file in dataset.files if file.address]
    assert len(set(names)) == len(names)
    assert len(set(addresses)) == len(addresses)


def test_the_fields_that_the_method_is_for_are_there():
    assert len(sc.CATALOGUE) >= 15
    of = {domain: [dataset.name for dataset in sc.CATALOGUE if dataset.domain == domain] for domain in DOMAINS}
    assert len(of["e-commerce"]) >= 9
    for year in ("2014", "2018", "2023"):
        for category in ("pet-supplies", "automotive"):
            assert any(name.startswith(f"amazon-{year}-{category}") for name in of["e-commerce"])
    assert {"yelp", "google-local-2021-vermont-10"} <= set(of["local"])
    assert {"tripadvisor-lara", "hotelrec"} == set(of["travel"])
    assert of["games"]
    assert of["books"]


@EACH
def test_the_page_has_a_row_for_every_dataset(dataset):
    size = f"{dataset.reviews.size:,}" if dataset.reviews.size else "?"
    count = f"{dataset.n_reviews:,}" if dataset.n_reviews else "?"
    assert f"| `{dataset.name}` | {dataset.domain} | {count} | {size} | {dataset.terms} |" in PAGE
    assert dataset.page in PAGE
    assert dataset.citation in PAGE
    assert dataset.manual in PAGE


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("pet", "amazon-2014-pet-supplies-5"),
        ("amazon-2014-musical-instrument", "amazon-2014-musical-instruments-5"),
        ("Amazon_2018_Gift_Cards", "amazon-2018-gift-cards-5"),
        ("hotelrek", "hotelrec"),
    ],
)
def test_an_unknown_name_brings_the_nearest_ones(word, near):
    with pytest.raises(sc.UnknownIdError, match=near):
        dataset_named(word)


@pytest.mark.parametrize("word", ["", "zzzzzz"])
def test_a_name_near_nothing_points_to_the_list(word):
    with pytest.raises(sc.UnknownIdError, match=r"^Unknown dataset '\w*'\. `symcere download --list` shows all"):
        dataset_named(word)
