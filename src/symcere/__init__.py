"""SymCERE: graph and review text on one unit sphere, from a raw review file to measured recommendations.

    import symcere as sc
    reviews = sc.k_core(sc.read_reviews("reviews.json.gz"), k=5)
    split = sc.split_random(reviews, seed=0)
    text = sc.encode_reviews(split.train, sc.lift_encoder(), cache="cache/")
    model = sc.fit(split.train, text, valid=split.valid, seed=0)
    print(sc.compare({"symcere": model}, split, [sc.ndcg(10), sc.recall(20)]))
    model.recommend(model.users.id(0), k=10)

Names are resolved on first use, so that loading a saved recommender never loads torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from symcere.manifest import VERSION as __version__

if TYPE_CHECKING:
    from symcere.analysis.why import Explainer, Reason
    from symcere.baselines.alpha_rec import AlphaRecSettings, fit_alpha_rec
    from symcere.baselines.bpr_mf import BPRMFSettings, fit_bpr_mf
    from symcere.baselines.direct_au import DirectAUSettings, fit_direct_au
    from symcere.baselines.ease import EASESettings, fit_ease
    from symcere.baselines.item_knn import ItemKNNSettings, fit_item_knn
    from symcere.baselines.light_gcn import LightGCNSettings, fit_light_gcn
    from symcere.baselines.light_gcn_ssm import LightGCNSSMSettings, fit_light_gcn_ssm
    from symcere.baselines.narre import NARRESettings, fit_narre
    from symcere.baselines.popularity import fit_popularity
    from symcere.baselines.rgcl import RGCLSettings, fit_rgcl
    from symcere.baselines.rlmrec_con import RLMRecConSettings, fit_rlmrec_con
    from symcere.baselines.sim_gcl import SimGCLSettings, fit_sim_gcl
    from symcere.baselines.text_only import TextOnlySettings, fit_text_only
    from symcere.baselines.x_sim_gcl import XSimGCLSettings, fit_x_sim_gcl
    from symcere.bundle import Bundle, open_bundle, write_bundle
    from symcere.data.catalogue import CATALOGUE, PublicDataset
    from symcere.data.dataset import Dataset, HeldOut, Split, Support
    from symcere.data.download import download
    from symcere.data.filters import MinRating, Period, Sample, TextLength
    from symcere.data.interchange import export_split
    from symcere.data.items import Items, read_items
    from symcere.data.kcore import KCore, k_core
    from symcere.data.noise import Missing, Shuffled, Spam, Truncation, Typos, apply_noise
    from symcere.data.reviews import Reviews, read_reviews
    from symcere.data.sources import (
        AMAZON_2014,
        AMAZON_2018,
        AMAZON_2023,
        GOODREADS,
        GOOGLE_LOCAL,
        HOTELREC,
        RECBOLE,
        STEAM,
        STEAM_USERS,
        TRIPADVISOR_LARA,
        YELP,
        Source,
    )
    from symcere.data.splits import (
        split_cold_items,
        split_cold_users,
        split_k_fold,
        split_leave_last_out,
        split_random,
        split_temporal,
        undivided,
    )
    from symcere.data.synthetic import anchoring_world, write_amazon, write_world
    from symcere.errors import (
        BundleError,
        ConfigError,
        DataError,
        DivergedError,
        OutputError,
        SymcereError,
        UnknownIdError,
    )
    from symcere.evaluation.compare import Report, compare
    from symcere.evaluation.measures import (
        Measure,
        arp,
        average_precision,
        coverage,
        gini,
        group_recall,
        hit_rate,
        mrr,
        ndcg,
        pop_reo,
        precision,
        recall,
        standard_measures,
    )
    from symcere.evaluation.runs import ImportedRun, read_run, write_run
    from symcere.evaluation.significance import holm, paired_test
    from symcere.ids import IdMap
    from symcere.losses import symmetric_nce
    from symcere.recommender import Recommender
    from symcere.text.choice import default_encoders
    from symcere.text.conditioning import Conditioning
    from symcere.text.corpus import corpus_of
    from symcere.text.distilled import distilled_encoder
    from symcere.text.features import TextFeatures, encode_reviews
    from symcere.text.function import function_encoder
    from symcere.text.precomputed import precomputed
    from symcere.text.profiles import Helpfulness, InverseFrequency, Length, Recency
    from symcere.text.sentence import sentence_encoder
    from symcere.text.tfidf import lift_encoder, tfidf_encoder
    from symcere.training.checkpoint import checkpointing
    from symcere.training.config import SymcereSettings
    from symcere.training.device import on_device
    from symcere.training.loop import fit
    from symcere.training.progress import Chosen

_HOME = {
    "symcere.analysis.why": ("Explainer", "Reason"),
    "symcere.bundle": ("Bundle", "open_bundle", "write_bundle"),
    "symcere.baselines.alpha_rec": ("AlphaRecSettings", "fit_alpha_rec"),
    "symcere.baselines.bpr_mf": ("BPRMFSettings", "fit_bpr_mf"),
    "symcere.baselines.direct_au": ("DirectAUSettings", "fit_direct_au"),
    "symcere.baselines.ease": ("EASESettings", "fit_ease"),
    "symcere.baselines.item_knn": ("ItemKNNSettings", "fit_item_knn"),
    "symcere.baselines.light_gcn": ("LightGCNSettings", "fit_light_gcn"),
    "symcere.baselines.light_gcn_ssm": ("LightGCNSSMSettings", "fit_light_gcn_ssm"),
    "symcere.baselines.narre": ("NARRESettings", "fit_narre"),
    "symcere.baselines.popularity": ("fit_popularity",),
    "symcere.baselines.rgcl": ("RGCLSettings", "fit_rgcl"),
    "symcere.baselines.rlmrec_con": ("RLMRecConSettings", "fit_rlmrec_con"),
    "symcere.baselines.sim_gcl": ("SimGCLSettings", "fit_sim_gcl"),
    "symcere.baselines.text_only": ("TextOnlySettings", "fit_text_only"),
    "symcere.baselines.x_sim_gcl": ("XSimGCLSettings", "fit_x_sim_gcl"),
    "symcere.data.catalogue": ("CATALOGUE", "PublicDataset"),
    "symcere.data.dataset": ("Dataset", "HeldOut", "Split", "Support"),
    "symcere.data.interchange": ("export_split",),
    "symcere.data.download": ("download",),
    "symcere.data.filters": ("MinRating", "Period", "Sample", "TextLength"),
    "symcere.data.items": ("Items", "read_items"),
    "symcere.data.kcore": ("KCore", "k_core"),
    "symcere.data.noise": ("Missing", "Shuffled", "Spam", "Truncation", "Typos", "apply_noise"),
    "symcere.data.reviews": ("Reviews", "read_reviews"),
    "symcere.data.sources": (
        "AMAZON_2014", "AMAZON_2018", "AMAZON_2023", "GOODREADS", "GOOGLE_LOCAL", "HOTELREC", "RECBOLE", "STEAM",
        "STEAM_USERS", "TRIPADVISOR_LARA", "YELP", "Source",
    ),
    "symcere.data.splits": (
        "split_cold_items", "split_cold_users", "split_k_fold", "split_leave_last_out", "split_random",
        "split_temporal", "undivided",
    ),
    "symcere.data.synthetic": ("anchoring_world", "write_amazon", "write_world"),
    "symcere.errors": (
        "BundleError", "ConfigError", "DataError", "DivergedError", "OutputError", "SymcereError", "UnknownIdError",
    ),
    "symcere.evaluation.compare": ("Report", "compare"),
    "symcere.evaluation.measures": (
        "Measure", "arp", "average_precision", "coverage", "gini", "group_recall", "hit_rate", "mrr", "ndcg",
        "pop_reo", "precision", "recall", "standard_measures",
    ),
    "symcere.evaluation.runs": ("ImportedRun", "read_run", "write_run"),
    "symcere.evaluation.significance": ("holm", "paired_test"),
    "symcere.ids": ("IdMap",),
    "symcere.losses": ("symmetric_nce",),
    "symcere.recommender": ("Recommender",),
    "symcere.text.choice": ("default_encoders",),
    "symcere.text.conditioning": ("Conditioning",),
    "symcere.text.corpus": ("corpus_of",),
    "symcere.text.distilled": ("distilled_encoder",),
    "symcere.text.features": ("TextFeatures", "encode_reviews"),
    "symcere.text.function": ("function_encoder",),
    "symcere.text.precomputed": ("precomputed",),
    "symcere.text.profiles": ("Helpfulness", "InverseFrequency", "Length", "Recency"),
    "symcere.text.sentence": ("sentence_encoder",),
    "symcere.text.tfidf": ("lift_encoder", "tfidf_encoder"),
    "symcere.training.checkpoint": ("checkpointing",),
    "symcere.training.config": ("SymcereSettings",),
    "symcere.training.device": ("on_device",),
    "symcere.training.loop": ("fit",),
    "symcere.training.progress": ("Chosen",),
}  # fmt: skip
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "__version__",
    *sorted(_MODULE),
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use (PEP 562)."""
    if name not in _MODULE:
        raise AttributeError(f"module 'symcere' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """All public names, also those not yet imported."""
    return sorted(__all__)
