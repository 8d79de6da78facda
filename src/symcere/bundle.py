"""A bundle: one folder with all that a service needs, versioned, opened by memory map and without torch."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float
from numpy import ndarray
from safetensors import SafetensorError

from symcere.analysis.learned import Learned
from symcere.analysis.why import Explainer
from symcere.data.arrow import map_arrow, write_arrow
from symcere.data.dataset import NO_SUPPORT, REVIEW, Dataset, Support
from symcere.data.items import ITEMS_FILE, Items
from symcere.errors import BundleError, ConfigError, DataError
from symcere.manifest import new_folder, read_manifest
from symcere.recommender import Recommender
from symcere.text.features import TextFeatures
from symcere.text.reader import Reader

FORMAT = "symcere-bundle-1"


@dataclass(frozen=True, eq=False)
class Bundle:
    """What a service needs.

    Args:
        explainer: Says why; it holds the recommender, its train reviews and the encoders.
        items: Titles and categories.
        about: The manifest.
    """

    explainer: Explainer
    items: Items
    about: dict[str, Any]

    @property
    def model(self) -> Recommender:
        """The recommender."""
        return self.explainer.learned.model

    def taste(
        self, item_ids: Sequence[str] = (), text: str | Sequence[str] = "", *, user_id: str | None = None
    ) -> Float[ndarray, " dim"]:
        """Final vector of somebody new, or of a user with what they did since: fold-in, nothing is trained.

        `explainer.taste` says what it is made of.

        Args:
            item_ids: Items they chose.
            text: What they want, or wrote: one text or several.
            user_id: A known user who did this since; None for somebody new.

        Returns:
            A vector as those of users: its inner products with items are scores, over the temperature.

        Raises:
            ConfigError: If there is neither an item nor a word that the encoder knows.
            UnknownIdError: If there is no such item or user.
        """
        texts = [text] if isinstance(text, str) else text
        return self.explainer.taste(item_ids, texts, user_id=user_id).vector

    def recommend_to(
        self, taste: Float[ndarray, " dim"], k: int = 10, *, dial: float | None = None, without: Sequence[str] = ()
    ) -> list[tuple[str, float]]:
        """Recommend items to somebody new.

        Args:
            taste: As of `taste`.
            k: How many.
            dial: Popularity weight; the chosen one if left out.
            without: Items to leave out, such as those they chose; unknown ones are ignored.

        Returns:
            (item id, score) pairs, best first.

        Raises:
            ConfigError: If k is below 1.
        """
        if k < 1:
            raise ConfigError(f"k must be at least 1; found {k}.")
        model = self.model
        weight = model.popularity_weight if dial is None else dial
        left_out = np.array([model.items.index(item_id) for item_id in without if item_id in model.items], dtype=int)
        hidden = np.zeros_like(left_out), left_out
        n = min(k, len(model.items))
        (item,), (score,) = model.index.best(taste[None] / np.float32(model.temperature), weight, n, hidden)
        found = zip(item.tolist(), score.tolist(), strict=True)
        return [(model.items.id(place), value) for place, value in found if place >= 0]


def write_bundle(explainer: Explainer, items: Items, folder: str | Path, *, half: bool = False) -> None:
    """Write a bundle, whole or not at all.

    Args:
        explainer: As `Explainer.of` or an opened run gives it.
        items: Titles and categories.
        folder: Where; a bundle that stands there is replaced.
        half: Whether vectors are written as float16.

    Raises:
        ConfigError: If an encoder is a function, which no file can hold.
        OutputError: If it cannot be written, or other files stand there.
    """
    learned = explainer.learned
    train, text = learned.train, learned.text
    counts = {"users": len(train.users), "items": len(train.items), "reviews": len(train)}
    fields = {"format": FORMAT, "half": half, "encoder": text.encoder, **counts}
    with new_folder(Path(folder), None, fields) as temporary:
        learned.model.save(temporary / "model", half=half)
        (temporary / "text").mkdir()
        text.save(temporary / "text")
        (temporary / "reader").mkdir()
        explainer.reader.save(temporary / "reader")
        for name, part in (("reviews", train), ("support", train.support)):
            sides = pl.DataFrame({"user": part.user.astype(np.int32), "item": part.item.astype(np.int32)})
            write_arrow(pl.concat([sides, part.review], how="horizontal"), temporary / f"{name}.arrow")
        write_arrow(items.table, temporary / ITEMS_FILE)
        (temporary / "support.json").write_text(json.dumps({"side": train.support.side}), encoding="utf-8")


def open_bundle(folder: str | Path) -> Bundle:
    """Open what `write_bundle` wrote.

    Args:
        folder: The bundle.

    Returns:
        The bundle; arrays and texts are mapped, and read when they are used.

    Raises:
        BundleError: If the folder is missing, damaged or of another format.

    Example:
        >>> import tempfile, symcere as sc
        >>> split = sc.split_random(sc.k_core(sc.anchoring_world(60, 30, 5).reviews, 2))
        >>> text = sc.encode_reviews(split.train, sc.tfidf_encoder(8))
        >>> quick = sc.SymcereSettings(dim=8, max_epochs=2)
        >>> model = sc.fit(split.train, text, valid=split.valid, settings=quick)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     explainer = sc.Explainer.of(split.train, text, model, sc.tfidf_encoder(8))
        ...     sc.write_bundle(explainer, sc.Items(), f"{folder}/bundle")
        ...     bundle = sc.open_bundle(f"{folder}/bundle")
        ...     len(bundle.recommend_to(bundle.taste(text="a gasket of steel"), k=3))
        3
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest is None or manifest.get("format") != FORMAT:
        raise BundleError(
            f"{folder} is no bundle (it must hold a manifest.json of format {FORMAT} and files that match its "
            "hashes). Make one: symcere export RUN --format bundle --out BUNDLE."
        )
    try:
        model = Recommender.load(folder / "model")

        def part(name: str) -> tuple[ndarray, ndarray, pl.DataFrame]:
            table = map_arrow([folder / f"{name}.arrow"])
            user, item = (table[side].to_numpy().astype(np.int64) for side in ("user", "item"))
            return user, item, table.select(REVIEW)

        side = json.loads((folder / "support.json").read_text(encoding="utf-8"))["side"]
        support = Support(side, *part("support"))
        train = Dataset(model.users, model.items, *part("reviews"), support if len(support) else NO_SUPPORT)
        learned = Learned(train, TextFeatures.load(folder / "text"), model)
        explainer = Explainer(learned, Reader.load(folder / "reader", train))
        return Bundle(explainer, Items(map_arrow([folder / ITEMS_FILE])), manifest)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, DataError, ConfigError) as error:
        raise BundleError(f"{folder} is damaged ({error}). Export it again.") from error
