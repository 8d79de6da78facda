"""Words of the command line become functions and settings, here and nowhere else."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from symcere.cli.options import ConditioningName, SplitName
from symcere.errors import ConfigError

if TYPE_CHECKING:
    from symcere.data.filters import Filter
    from symcere.data.ingest import Ingestion
    from symcere.data.noise import Noise
    from symcere.data.sources import Source
    from symcere.pipeline.bench import BenchData
    from symcere.pipeline.stages import Encoding, Splitting
    from symcere.pipeline.systems import System
    from symcere.pipeline.trackers import Tracker
    from symcere.text.encoders import Encoder
    from symcere.text.profiles import Weighting


def pairs_of(words: Sequence[str], option: str) -> dict[str, str]:
    """KEY=VALUE words as a mapping."""
    pairs: dict[str, str] = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not (key and sign and value):
            raise ConfigError(f"{option} takes KEY=VALUE; found {word!r}.")
        pairs[key.strip()] = value.strip()
    return pairs


def folder_of(file: Path) -> Path:
    """Where a run of a file is written unless the user says otherwise."""
    return Path("runs") / (file.resolve().name.split(".")[0] or "run")


def ingestion_of(
    file: Path,
    source: str | None,
    columns: Sequence[str],
    filters: "Sequence[Filter]",
    items: Path | None,
    *,
    skip_bad: bool,
) -> "Ingestion":
    """What to take from which file."""
    from symcere.data.ingest import Ingestion

    return Ingestion(file, _source(source), _column_map(columns), skip_bad, filters, items)


def filters_of(
    k: int,
    item_k: int | None = None,
    min_rating: float | None = None,
    since: str | None = None,
    until: str | None = None,
    min_chars: int | None = None,
    max_chars: int | None = None,
    sample: float | None = None,
) -> "list[Filter]":
    """The filters that were asked for, the k-core last."""
    from symcere.data.filters import MinRating, Period, Sample, TextLength
    from symcere.data.kcore import KCore

    asked: list[Filter | None] = [
        MinRating(min_rating) if min_rating is not None else None,
        Period(since, until) if since or until else None,
        TextLength(min_chars or 0, max_chars) if min_chars is not None or max_chars is not None else None,
        Sample(sample) if sample is not None else None,
        KCore(k, item_k),
    ]
    return [chosen for chosen in asked if chosen is not None]


def _column_map(words: Sequence[str]) -> dict[str, str]:
    from symcere.data.sources import COLUMNS

    pairs = pairs_of([part for word in words for part in word.split(",")], "--columns")
    for key in pairs:
        if key not in COLUMNS:
            raise ConfigError(f"--columns maps one of {', '.join(COLUMNS)}; found {key!r}.")
    return pairs


def _source(word: str | None) -> "Source | None":
    from symcere.data.sources import SOURCES

    if word is None:
        return None
    by_name = {source.name: source for source in SOURCES}
    if word not in by_name:
        raise ConfigError(f"Unknown --source {word!r}. Known: {', '.join(by_name)}.")
    return by_name[word]


def splitting_of(
    name: SplitName, folds: int | None, seed: int, n_seeds: int, ask_from: int = 1
) -> tuple["Splitting", Sequence[int]]:
    """How interactions are held out, and under which seeds; the folds of a k-fold split take the place of seeds."""
    from symcere.data.splits import (
        N_FOLDS,
        split_cold_items,
        split_cold_users,
        split_k_fold,
        split_leave_last_out,
        split_random,
        split_temporal,
    )
    from symcere.pipeline.stages import Splitting

    if ask_from > 1 and name not in (SplitName.RANDOM, SplitName.LEAVE_LAST_OUT):
        raise ConfigError(f"--ask-from is for --split random and leave-last-out; found --split {name.value}.")
    asked = {"ask_from": ask_from} if ask_from > 1 else {}
    if name == SplitName.K_FOLD:
        if n_seeds > 1:
            raise ConfigError("--seeds does not go with --split k-fold: every fold is a seed. Use --folds.")
        n_folds = folds or N_FOLDS
        return Splitting(
            name.value,
            lambda reviews, fold: split_k_fold(reviews, n_folds, fold=fold, seed=seed),
            {"n_folds": n_folds, "seed": seed},
        ), range(n_folds)
    if folds is not None:
        raise ConfigError(f"--folds is for --split k-fold; found --split {name.value}.")
    by_name: Mapping[SplitName, Splitting] = {
        SplitName.RANDOM: Splitting(
            name.value, lambda reviews, seed: split_random(reviews, seed=seed, ask_from=ask_from), asked
        ),
        SplitName.LEAVE_LAST_OUT: Splitting(
            name.value, lambda reviews, _: split_leave_last_out(reviews, ask_from=ask_from), asked, seeded=False
        ),
        SplitName.TEMPORAL: Splitting(name.value, lambda reviews, _: split_temporal(reviews), seeded=False),
        SplitName.COLD_ITEMS: Splitting(name.value, lambda reviews, seed: split_cold_items(reviews, seed=seed)),
        SplitName.COLD_USERS: Splitting(name.value, lambda reviews, seed: split_cold_users(reviews, seed=seed)),
    }
    return by_name[name], range(seed, seed + n_seeds)


def split_names_of(words: str) -> list[SplitName]:
    """Names of splits, by comma."""
    names = [word.strip() for word in words.split(",") if word.strip()]
    known = [name.value for name in SplitName if name != SplitName.K_FOLD]
    for name in names:
        if name not in known:
            raise ConfigError(f"Unknown split {name!r} in --splits. Known: {', '.join(known)}.")
    if not names:
        raise ConfigError(f"--splits names at least one split. Known: {', '.join(known)}.")
    return [SplitName(name) for name in dict.fromkeys(names)]


def encoding_of(
    words: str,
    text_dim: int | None = None,
    conditioning: ConditioningName | None = None,
    max_tokens: int = 128,
    profile: str = "mean",
    noise: str = "",
) -> "Encoding":
    """How reviews become features: encoders joined by plus, and words of --profile and --noise by comma."""
    from symcere.pipeline.stages import Encoding
    from symcere.text.choice import default_encoders
    from symcere.text.profiles import Helpfulness, InverseFrequency, Length, Recency

    by_name: Mapping[str, Weighting] = {
        "recency": Recency(),
        "helpfulness": Helpfulness(),
        "length": Length(),
        "inverse-frequency": InverseFrequency(),
    }
    asked = [word.strip() for word in profile.split(",")]
    for word in asked:
        if word not in (*by_name, "mean", "title-body", "leave-one-out"):
            known = ", ".join(("mean", *by_name, "title-body", "leave-one-out"))
            raise ConfigError(f"Unknown --profile {word!r}. Known: {known}.")
    named = None if words == "auto" else [_encoder(word, max_tokens) for word in dict.fromkeys(words.split("+"))]

    def encoders(n_reviews: int) -> "list[Encoder]":
        chosen = default_encoders(n_reviews) if named is None else named
        return [_with_conditioning(encoder, text_dim, conditioning) for encoder in chosen]

    return Encoding(
        encoders,
        parts=("title", "body") if "title-body" in asked else ("review",),
        weightings=[by_name[word] for word in dict.fromkeys(asked) if word in by_name],
        leave_one_out="leave-one-out" in asked,
        noise=_noise(noise),
        words={
            "words": words,
            "text_dim": text_dim,
            "conditioning": conditioning and conditioning.value,
            "max_tokens": max_tokens,
            "profile": profile,
            "noise": noise,
        },
    )


def encoding_again(words: "Mapping[str, Any]") -> "Encoding":
    """The encoding that a run wrote down in its manifest."""
    kind = words["conditioning"]
    return encoding_of(**{**words, "conditioning": ConditioningName(kind) if kind else None})


def _noise(words: str) -> "list[Noise]":
    from symcere.data.noise import KINDS

    by_name = {kind.name: kind for kind in KINDS}
    asked = [word for word in words.split(",") if word.strip()]
    noise: list[Noise] = []
    pairs = pairs_of(asked, "--noise")
    if len(pairs) < len(asked):
        raise ConfigError(f"--noise takes each kind once; found {words!r}.")
    for name, rate in pairs.items():
        if name not in by_name:
            raise ConfigError(f"Unknown --noise {name!r}. Known: {', '.join(by_name)}.")
        try:
            noise.append(by_name[name](float(rate)))
        except ValueError as error:
            raise ConfigError(
                f"The rate of {name} in --noise must be a number from 0 to 1; found {rate!r}."
            ) from error
    return noise


def _encoder(word: str, max_tokens: int) -> "Encoder":
    from symcere.text.distilled import DistilledEncoder
    from symcere.text.precomputed import precomputed
    from symcere.text.sentence import sentence_encoder
    from symcere.text.tfidf import lift_encoder, tfidf_encoder

    by_name: Mapping[str, Callable[[], Encoder]] = {
        "lift": lift_encoder,
        "tfidf": tfidf_encoder,
        "distilled": lambda: DistilledEncoder(teacher=sentence_encoder(max_tokens)),
        "sentence": lambda: sentence_encoder(max_tokens),
        "sentence-float32": lambda: sentence_encoder(max_tokens, runtime="float32"),
    }
    if word.endswith((".npy", ".parquet")):
        return precomputed(word)
    if word not in by_name:
        raise ConfigError(
            f"Unknown --encoder {word!r}. Known: auto, {', '.join(by_name)}, a .npy or .parquet file, or several "
            "joined by '+'."
        )
    return by_name[word]()


def _with_conditioning(encoder: Any, text_dim: int | None, kind: ConditioningName | None) -> "Encoder":
    """The encoder with another conditioning, or width; TF-IDF has its width from its SVD."""
    from symcere.text.conditioning import Conditioning
    from symcere.text.tfidf import TfidfEncoder

    if text_dim and isinstance(encoder, TfidfEncoder):
        encoder = replace(encoder, text_dim=text_dim)
    conditioning = encoder.conditioning
    dim = text_dim or conditioning.dim
    if kind is not None or conditioning.kind != "none":
        conditioning = Conditioning(kind.value if kind else conditioning.kind, dim)
    chosen: Encoder = replace(encoder, conditioning=conditioning)
    return chosen


def bench_data_of(
    words: Sequence[str], k_core: int, columns: Sequence[str], source: str | None, *, skip_bad: bool
) -> "list[BenchData]":
    """Data sets of words [NAME=]FILE[@K]; K is the k-core. What is a file as it stands has no name in it."""
    from symcere.pipeline.bench import BenchData

    data: list[BenchData] = []
    for word in words:
        file, k = _file_and_k(word, k_core)
        name, sign, rest = word.partition("=")
        if sign and not os.path.exists(file):  # noqa: PTH110 - Path.exists raises for a word that is no path
            file, k = _file_and_k(rest, k_core)
        else:
            name = folder_of(file).name
        if k < 1:
            raise ConfigError(f"The k-core of a data set is at least 1; found {word!r}.")
        what = ingestion_of(file, source, columns, filters_of(k), None, skip_bad=skip_bad)
        data.append(BenchData(name.strip(), what))
        if not data[-1].slug:
            raise ConfigError(f"The name of a data set needs a letter or a digit; found {word!r}. Write NAME=FILE.")
    slugs = [each.slug for each in data]
    if len(set(slugs)) < len(slugs):
        raise ConfigError(
            f"Each data set needs a name of its own; found {', '.join(each.name for each in data)}. Write NAME=FILE."
        )
    return data


def _file_and_k(word: str, k_core: int) -> tuple[Path, int]:
    """FILE or FILE@K; a file of that very name comes first."""
    path, at, k = word.rpartition("@")
    if not at or not (k.isascii() and k.isdigit()) or os.path.exists(word):  # noqa: PTH110
        return Path(word), k_core
    return Path(path), int(k)


def settings_of(words: Sequence[str]) -> dict[str, Any]:
    """Values of --set: JSON where they are, text otherwise."""
    values: dict[str, Any] = {}
    for key, value in pairs_of(words, "--set").items():
        try:
            values[key] = json.loads(value)
        except ValueError:
            values[key] = value
    return values


def systems_of(words: str, settings: Mapping[str, Any]) -> list["System"]:
    """SymCERE, last, and the named baselines; "all" names every baseline."""
    from symcere.pipeline.systems import OURS, baselines, ours
    from symcere.training.config import SymcereSettings

    known = [*baselines(), ours(SymcereSettings(**settings))]
    by_name = {system.name: system for system in known}
    asked = {word.strip() for word in words.split(",") if word.strip() not in ("", "none")}
    names = {OURS, *(by_name if "all" in asked else asked)}
    if unknown := sorted(names - set(by_name)):
        raise ConfigError(f"Unknown system {unknown[0]!r} in --systems. Known: {', '.join(by_name)}; all; or none.")
    return [system for system in known if system.name in names]


def trackers_of(words: str, folder: Path) -> "tuple[Tracker, ...]":
    """The named trackers, each into a folder of its own."""
    names = list(dict.fromkeys(word.strip() for word in words.split(",") if word.strip()))
    if not names:
        return ()
    from symcere.pipeline.trackers import TRACKERS

    if unknown := sorted(set(names) - set(TRACKERS)):
        raise ConfigError(f"Unknown tracker {unknown[0]!r} in --log. Known: {', '.join(TRACKERS)}.")
    return tuple(TRACKERS[name](folder / name) for name in names)


def set_threads(threads: int | None) -> None:
    """How many processor threads torch takes; its own choice if left out."""
    if threads:
        import torch

        torch.set_num_threads(threads)
