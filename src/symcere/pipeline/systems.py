"""The systems that can be run, tuned and compared, each fitted through its own function; and the twins of SymCERE."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from symcere.baselines import (
    alpha_rec,
    bpr_mf,
    direct_au,
    ease,
    item_knn,
    light_gcn,
    light_gcn_ssm,
    narre,
    rgcl,
    rlmrec_con,
    sim_gcl,
    text_only,
    x_sim_gcl,
)
from symcere.baselines.popularity import fit_popularity
from symcere.data.dataset import Dataset, HeldOut
from symcere.recommender import Recommender, Scored
from symcere.text.features import TextFeatures
from symcere.training import config
from symcere.training.config import Settings, SymcereSettings
from symcere.training.loop import fit
from symcere.training.progress import OnEpoch
from symcere.training.space import Space
from symcere.training.tuning import with_unit_rows

Fit: TypeAlias = Callable[[Dataset, HeldOut, TextFeatures, Any, int, OnEpoch], Scored]
"""(train, valid, text, settings, seed, on_epoch) -> fitted system. There is no way to hand it test."""

Reads: TypeAlias = Literal["none", "profiles", "reviews"]
"""What of the text a system reads: nothing, the profiles, or the reviews behind them as well."""

OURS = "symcere"
"""The system that the others are compared with."""


@dataclass(frozen=True)
class System:
    """A system as the pipeline sees it.

    Args:
        name: Short name.
        fit: Fits it under one of its settings.
        candidates: Settings that are fitted; the best on valid is taken.
        space: What a search may move; empty where there is nothing to tune.
        published: Settings that a search tries first.
        text: What it reads.
    """

    name: str
    fit: Fit
    candidates: tuple[Settings, ...]
    space: Space = field(default_factory=dict)
    published: tuple[Settings, ...] = ()
    text: Reads = "none"

    @property
    def uses_text(self) -> bool:
        """Whether text features matter to it."""
        return self.text != "none"

    @property
    def needs_reviews(self) -> bool:
        """Whether features must know their reviews: the system reads them, or leaves its own out."""
        return self.text == "reviews" or any(getattr(each, "leave_one_out", False) for each in self.candidates)

    @property
    def max_epochs(self) -> int:
        """Epochs of one fit at most; 1 where there are none."""
        return max(getattr(each, "max_epochs", 1) for each in self.candidates)

    @property
    def settings(self) -> Mapping[str, Any]:
        """All that decides the fit, as JSON values."""
        candidates = [each.model_dump(mode="json") for each in self.candidates]
        return candidates[0] if len(candidates) == 1 else {"best_of": candidates}

    def under(self, *candidates: Settings) -> "System":
        """The same system with other settings."""
        return replace(self, candidates=candidates)


def ours(settings: SymcereSettings | None = None) -> System:
    """SymCERE under some settings, or its defaults."""
    return _learned(OURS, fit, (settings or SymcereSettings(),), config.SPACE, config.PUBLISHED, "profiles")


def baselines() -> list[System]:
    """Every baseline, weakest families first; untuned, each is offered the settings that its file names."""

    def light_gcn_fit(train: Dataset, *, settings: light_gcn.LightGCNSettings, **more: Any) -> Scored:
        return light_gcn.fit_light_gcn(train, settings=(settings,), **more)

    def learned(module: Any, fit_system: Callable[..., Scored], default: Settings, text: Reads = "none") -> System:
        name = module.__name__.rpartition(".")[2]
        return _learned(name, fit_system, (default,), module.SPACE, module.PUBLISHED, text)

    return [
        System("popularity", lambda train, valid, *_: fit_popularity(train, valid=valid), (Settings(),)),
        System(
            "item_knn",
            lambda train, valid, text, settings, *_: item_knn.fit_item_knn(
                train, valid=valid, neighbours=(settings.neighbours,), shrink=(settings.shrink,)
            ),
            tuple(
                item_knn.ItemKNNSettings(neighbours=n, shrink=s) for s in item_knn.SHRINK for n in item_knn.NEIGHBOURS
            ),
            item_knn.SPACE,
            item_knn.PUBLISHED,
        ),
        System(
            "ease",
            lambda train, valid, text, settings, *_: ease.fit_ease(train, valid=valid, l2=(settings.l2,)),
            tuple(ease.EASESettings(l2=l2) for l2 in ease.L2),
            ease.SPACE,
            ease.PUBLISHED,
        ),
        learned(bpr_mf, bpr_mf.fit_bpr_mf, bpr_mf.BPRMFSettings()),
        _learned("light_gcn", light_gcn_fit, light_gcn.SETTINGS, light_gcn.SPACE, light_gcn.PUBLISHED),
        learned(light_gcn_ssm, light_gcn_ssm.fit_light_gcn_ssm, light_gcn_ssm.LightGCNSSMSettings()),
        learned(sim_gcl, sim_gcl.fit_sim_gcl, sim_gcl.SimGCLSettings()),
        learned(x_sim_gcl, x_sim_gcl.fit_x_sim_gcl, x_sim_gcl.XSimGCLSettings()),
        learned(direct_au, direct_au.fit_direct_au, direct_au.DirectAUSettings()),
        learned(text_only, text_only.fit_text_only, text_only.TextOnlySettings(), "profiles"),
        learned(rlmrec_con, rlmrec_con.fit_rlmrec_con, rlmrec_con.RLMRecConSettings(), "profiles"),
        learned(alpha_rec, alpha_rec.fit_alpha_rec, alpha_rec.AlphaRecSettings(), "profiles"),
        learned(narre, narre.fit_narre, narre.NARRESettings(), "reviews"),
        learned(rgcl, rgcl.fit_rgcl, rgcl.RGCLSettings(), "reviews"),
    ]


def twins(system: System) -> list[System]:
    """SymCERE with one thing changed, under the same settings otherwise: what is each part worth?"""
    (settings,) = system.candidates
    changes: dict[str, dict[str, Any]] = {
        "no_mask": {"mask": "none"},
        "same_item_mask": {"mask": "same_item"},
        "history_mask": {"mask": "history"},
        "sincere": {"positives": "known", "mask": "history"},  # what is known, the mask says
        "no_sphere": {"unit": False},
        "no_dial": {"popularity_weights": (0.0,)},
        "no_text": {
            "text_weight": 0.0,
            "propagated_weight": 0.0,
            "neighbourhood_weight": 0.0,
            "w_cross": 0.0,
            "w_intra_text": 0.0,
            "w_text_in_graph": 0.0,
        },
        "no_cross": {"w_cross": 0.0},
        "no_intra": {"w_intra_graph": 0.0, "w_intra_text": 0.0},
        "no_bpr": {"w_bpr": 0.0},
        "same_entity": {"pairs": "same_entity"},
        "no_neighbourhood": {"neighbourhood_weight": 0.0},
        "no_propagated_text": {"propagated_weight": 0.0},
        "propagated_text": {"propagated_weight": 1.0},
        "text_in_graph": {"w_text_in_graph": 0.5},
        "leave_one_out": {"leave_one_out": True},
        "own_review_in": {"leave_one_out": False},
        "with_ego": {"include_ego": True},
        "without_ego": {"include_ego": False},
    }
    made = {name: settings.model_copy(update=change) for name, change in changes.items()}
    kept = [
        replace(system, name=f"{OURS}:{name}", candidates=(twin,)) for name, twin in made.items() if twin != settings
    ]

    def shuffled(
        train: Dataset, valid: HeldOut, text: TextFeatures, settings: Any, seed: int, on_epoch: OnEpoch
    ) -> Scored:
        return system.fit(train, valid, text.shuffled(seed), settings, seed, on_epoch)

    control = settings.model_copy(update={"leave_one_out": False})
    return [replace(system, name=f"{OURS}:shuffled_text", fit=shuffled, candidates=(control,)), *kept]


def cosine_at_test(system: System) -> System:
    """The control that shows what unit vectors are worth without training on them: the same fit, ranked by cosine."""

    def by_cosine(
        train: Dataset, valid: HeldOut, text: TextFeatures, settings: Any, seed: int, on_epoch: OnEpoch
    ) -> Scored:
        fitted = system.fit(train, valid, text, settings, seed, on_epoch)
        return with_unit_rows(fitted, train, valid) if isinstance(fitted, Recommender) else fitted

    return replace(system, name=f"{system.name}:cosine", fit=by_cosine)


def _learned(
    name: str,
    fit_system: Callable[..., Scored],
    candidates: tuple[Settings, ...],
    space: Space,
    published: tuple[Settings, ...],
    text: Reads = "none",
) -> System:
    """A system that the loop trains; its fit takes the text features where it reads any."""

    def one(
        train: Dataset, valid: HeldOut, features: TextFeatures, settings: Any, seed: int, on_epoch: OnEpoch
    ) -> Scored:
        given = (train,) if text == "none" else (train, features)
        return fit_system(*given, valid=valid, settings=settings, seed=seed, on_epoch=on_epoch)

    return System(name, one, candidates, space, published, text)
