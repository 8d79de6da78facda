"""The benchmark: systems x data sets x splits x seeds, each fit a stage of its own, so that a kill loses one fit."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from symcere.data.dataset import Split
from symcere.data.ingest import Ingestion
from symcere.errors import ConfigError, DataError
from symcere.evaluation.bench import Outcome
from symcere.evaluation.bench_page import BenchPage, paired_to_csv, to_csv, to_html, to_latex, to_markdown
from symcere.evaluation.compare import report_of
from symcere.manifest import write_file
from symcere.pipeline.stages import Encoding, Fitted, Splitting, divide, encode, fit_all, ingest
from symcere.pipeline.systems import OURS, System, baselines, cosine_at_test, ours, twins
from symcere.pipeline.tune import Seeded, read_tuned, tuned_system
from symcere.pipeline.workspace import Watch, Workspace, remove_unfinished


@dataclass(frozen=True)
class BenchData:
    """One data set of a benchmark.

    Args:
        name: As tables show it.
        what: The raw file and the filters.
    """

    name: str
    what: Ingestion

    @property
    def slug(self) -> str:
        """The name as a file name: "Musical Instruments" is musical-instruments."""
        return slug_of(self.name)


def slug_of(name: str) -> str:
    """The name of a data set as a file name."""
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def outcomes_of(
    data: BenchData,
    folder: Path,
    watch: Watch,
    *,
    splittings: Sequence[tuple[Splitting, Sequence[int]]],
    encoding: Encoding,
    cache: Path,
    systems: Sequence[System],
    twin_seeds: int | None = None,
) -> tuple[list[Outcome], list[str]]:
    """Fit and measure all systems on one data set under every split.

    Args:
        data: The data set.
        folder: Root of the benchmark; the data set has a folder in it.
        watch: Who is told.
        splittings: Each with its seeds.
        encoding: How reviews become text features.
        cache: Root folder of the vector cache.
        systems: What to fit, ours among them.
        twin_seeds: Fit twins and controls under the first so many seeds alone; under all of them if left out.

    Returns:
        One outcome a split, and a sentence for each split that these data do not allow.
    """
    workspace = Workspace(folder / data.slug, watch)
    remove_unfinished(workspace.folder)
    reviews, ingested = ingest(workspace, data.what)
    # the same features for both groups below, or SymCERE would be fitted once more beside its twins
    reads_reviews = encoding.leave_one_out or any(system.needs_reviews for system in systems)
    encoding = replace(encoding, leave_one_out=reads_reviews)
    found: list[Outcome] = []
    impossible: list[str] = []
    for splitting, seeds in splittings:
        try:
            divided = [divide(workspace, reviews, ingested["key"], splitting, seed) for seed in seeds]
        except DataError as error:
            impossible.append(f"{data.name}, {splitting.name}: {error}")
            continue
        few = min(twin_seeds or len(seeds), len(seeds))
        groups = [(systems, len(seeds))]
        if few < len(seeds) and any(is_control(system.name) for system in systems):
            groups = [
                ([system for system in systems if not is_control(system.name)], len(seeds)),
                ([system for system in systems if is_control(system.name) or system.name == OURS], few),
            ]
        measured = []
        for chosen, n in groups:
            done = fit_all(workspace, divided[:n], seeds[:n], encoding, cache, chosen)
            measured.append(_outcome(data, splitting, seeds[:n], divided[0][0], done, reviews.steps[-1].n_reviews))
        outcome, *controls = measured
        if controls:
            outcome = replace(outcome, controls=controls[0], skipped={**outcome.skipped, **controls[0].skipped})
        found.append(outcome)
    return found, impossible


def is_control(name: str) -> bool:
    """Whether a system is a twin of SymCERE or another control: such names have a colon."""
    return ":" in name


def _outcome(
    data: BenchData, splitting: Splitting, seeds: Sequence[int], first: Split, done: Fitted, n_reviews: int
) -> Outcome:
    """What was measured on one data set under one split; `first` is the split of the first seed."""
    return Outcome(
        dataset=data.name,
        split=splitting.name,
        seeds=tuple(seeds),
        report=report_of(done.runs),
        settings=done.settings,
        valid=done.means("valid_ndcg@10"),
        seconds=done.means("fit_seconds"),
        dials=done.dials,
        n_users=len(first.train.users),
        n_items=len(first.train.items),
        n_reviews=n_reviews,
        warnings=(*first.warnings, *splitting.warnings(seeds)),
        skipped=done.skipped,
    )


def bench(
    datasets: Sequence[BenchData],
    folder: Path,
    watch: Watch,
    *,
    splittings: Sequence[tuple[Splitting, Sequence[int]]],
    encoding: Encoding,
    cache: Path,
    systems: Sequence[System],
    tuned: Path,
    twins_too: bool,
    command: str,
    twin_seeds: int | None = None,
) -> BenchPage:
    """Run the benchmark and write its pages.

    Args:
        datasets: At least one; slugs differ.
        folder: Where everything is written.
        watch: Who is told.
        splittings: Each with its seeds.
        encoding: How reviews become text features.
        cache: Root folder of the vector cache.
        systems: Baselines and SymCERE.
        tuned: Folder of tuned settings, a file a data set; where there is none, systems stay as they are.
        twins_too: Whether to add the twins of SymCERE and other controls.
        command: The command line, for the page.
        twin_seeds: Fit twins and controls under the first so many seeds alone; under all of them if left out.

    Returns:
        The page; its notes say what the data did not allow.

    Raises:
        ConfigError: If nothing can be measured.
        DataError: If a file of tuned settings is damaged; nothing was fitted then.
    """
    files = {data.slug: tuned / f"{data.slug}.json" for data in datasets}
    chosen = {slug: bench_systems(systems, file, twins_too=twins_too) for slug, file in files.items()}
    outcomes: list[Outcome] = []
    impossible: list[str] = []
    for data in datasets:
        found, refused = outcomes_of(
            data,
            folder,
            watch,
            splittings=splittings,
            encoding=encoding,
            cache=cache,
            systems=chosen[data.slug],
            twin_seeds=twin_seeds,
        )
        outcomes += found
        impossible += refused
    if not outcomes:
        raise ConfigError(f"Nothing could be measured. {' '.join(impossible)}")
    page = replace(bench_page(outcomes, command, list(files.values())), notes=tuple(impossible))
    write_page(page, folder)
    return page


def bench_systems(chosen: Sequence[System], tuned: Path, *, twins_too: bool) -> list[System]:
    """The systems of a benchmark under their tuned settings, with the twins and controls.

    Args:
        chosen: Baselines and SymCERE.
        tuned: File of tuned settings; systems that it does not hold stay as they are.
        twins_too: Whether to add the twins of SymCERE, SymCERE untuned, and light_gcn ranked by cosine.

    Returns:
        All of them, SymCERE before its twins.
    """
    found = read_tuned(tuned) if tuned.exists() else {"systems": {}}
    systems = [tuned_system(system, found) for system in chosen]
    if twins_too:
        systems += [cosine_at_test(system) for system in systems if system.name == "light_gcn"]
        tuned_ours = [system for system in systems if system.name == OURS]
        systems += [twin for system in tuned_ours for twin in twins(system)]
        systems += [
            replace(ours(), name=f"{OURS}:defaults") for each in tuned_ours if each.candidates != ours().candidates
        ]
    return systems


def bench_page(outcomes: Sequence[Outcome], command: str, tuned: Sequence[Path]) -> BenchPage:
    """The page of a benchmark.

    Args:
        outcomes: Its results.
        command: The command line.
        tuned: Files of tuned settings that were there to be taken.

    Returns:
        The page.
    """
    names = list(
        dict.fromkeys(
            name
            for outcome in outcomes
            for name in (*outcome.report.systems, *outcome.with_twins.report.systems, *outcome.skipped)
        )
    )
    controls = [name for name in names if is_control(name)]
    return BenchPage(
        title="SymCERE and its baselines",
        command=command,
        outcomes=tuple(outcomes),
        ours=OURS,
        baselines=tuple(name for name in names if name not in (OURS, *controls)),
        twins=tuple(controls),
        budget=_budget(tuned, [name for name in names if name not in controls], outcomes),
    )


def _budget(tuned: Sequence[Path], systems: Sequence[str], outcomes: Sequence[Outcome]) -> str:
    """What was tuned on what, and what was not, in a sentence each."""
    files = {path.stem: read_tuned(path) for path in tuned if path.exists()}
    tunable = {system.name: system for system in (*baselines(), ours()) if system.space and system.name in systems}
    searched: dict[tuple[str, str], list[str]] = {}  # how, and which systems -> data sets
    missing: dict[str, list[str]] = {}
    for slug in (path.stem for path in tuned):
        whole = files.get(slug, {"systems": {}})
        there: dict[tuple[str, int], list[str]] = {}
        for name in systems:
            if name in tunable and name in whole["systems"]:
                entry, encoder = whole["systems"][name], whole["about"]["encoder"]
                n_trials = len(entry.get("trials", ())) or whole["about"]["trials"]
                if tunable[name].uses_text:
                    encoder = entry.get("encoder", encoder)
                there.setdefault((encoder, n_trials), []).append(name)
        for (encoder, n_trials), names in there.items():
            about = whole["about"]
            seeds = ", ".join(map(str, about["seeds"]))
            how = (
                f"Tuned with {n_trials} trials a system, the published settings and its own first, by mean valid "
                f"NDCG@10 on the {about['split']} split of seeds {seeds} with the encoder {encoder}, and kept "
                "for all splits"
            )
            searched.setdefault((how, ", ".join(names)), []).append(slug)
        if lacking := ", ".join(name for name in systems if name in tunable and name not in whole["systems"]):
            missing.setdefault(lacking, []).append(slug)
    said = [f"{how}: {names} on {', '.join(slugs)}." for (how, names), slugs in searched.items()]
    said += [f"Not tuned, defaults: {names} on {', '.join(slugs)}." for names, slugs in missing.items()]
    sizes = {slug_of(outcome.dataset): (outcome.n_users, outcome.n_items) for outcome in outcomes}
    for slug, whole in files.items():
        n_users, n_items = (whole["about"].get(side) for side in ("users", "items"))
        here = sizes.get(slug)
        if here and None not in (n_users, n_items) and (n_users, n_items) != here:
            said.append(
                f"The settings of {slug} were tuned on other data: {n_users:,} users and {n_items:,} items there, "
                f"{here[0]:,} and {here[1]:,} here."
            )
    if searched:
        said.append(
            "Splits overlap: the valid part of one seed or split holds pairs of another's test part, so tuned "
            "settings have seen a little of it, alike for all systems."
        )
    return " ".join(said)


def write_page(page: BenchPage, folder: Path) -> None:
    """Write a benchmark's page in every form: HTML, Markdown with its figures, LaTeX, CSV."""
    forms: Mapping[str, Callable[[BenchPage], str]] = {
        "bench.html": to_html,
        "bench.md": to_markdown,
        "bench.tex": to_latex,
        "results.csv": to_csv,
        "paired.csv": paired_to_csv,
    }
    for name, form in forms.items():
        write_file(folder / name, form(page))
    for name, svg in page.pictures.items():
        write_file(folder / "figures" / name, svg)


def seeded(
    data: BenchData,
    folder: Path,
    watch: Watch,
    *,
    splitting: Splitting,
    seeds: Sequence[int],
    encoding: Encoding,
    cache: Path,
) -> list[Seeded]:
    """Ingest, split and encode a data set for a search; the stages are those of the benchmark in the same folder."""
    workspace = Workspace(folder / data.slug, watch)
    reviews, ingested = ingest(workspace, data.what)
    made: list[Seeded] = []
    for seed in seeds:
        split, key = divide(workspace, reviews, ingested["key"], splitting, seed)
        text, _ = encode(workspace, split.train, key, encoding, cache, seed)
        made.append(Seeded(seed, split, text))
    return made
