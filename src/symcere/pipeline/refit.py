"""What is served should know everything: SymCERE of a finished run, learned once more with nothing held out."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from symcere.analysis.learned import Learned
from symcere.analysis.why import Explainer
from symcere.data.noise import apply_noise
from symcere.data.splits import undivided
from symcere.pipeline.analyse import explainer_of
from symcere.pipeline.finished import FinishedRun
from symcere.pipeline.stages import Encoding, encode, show_epoch, where_it_runs, write_history
from symcere.pipeline.systems import OURS
from symcere.pipeline.verbs import current_verbs
from symcere.pipeline.workspace import Watch, Workspace
from symcere.recommender import Recommender
from symcere.training.checkpoint import checkpointing
from symcere.training.config import SymcereSettings
from symcere.training.progress import Chosen, Epoch


def refit(run: FinishedRun, watch: Watch, how: Encoding, cache: Path) -> Explainer:
    """Learn once more what a run learned, from all of its interactions, as valid chose: what a service wants.

    Settings, number of epochs, dial and weight of the text are those that the run measured; its encoders are of the
    same kinds, fitted to all reviews. Nothing that a user ever chose is recommended to them again. How good it is
    cannot be measured, for nothing is held out; docs/log.md says what it gave where something was.

    Args:
        run: The run; stages are made in its folder, and found there the next time.
        watch: Who is told how it goes on.
        how: How the run encoded its text.
        cache: Root folder of the vector cache.

    Returns:
        The fit, and its encoders ready to read.

    Raises:
        BundleError: If a stage of the run is missing or damaged.
        ConfigError: If an older version made the run, or its profiles are not of words.
    """
    measured: dict[str, Any] = run.manifest(OURS)["settings"]
    settings = SymcereSettings(**measured)
    chosen = Chosen.of(run.model, run.history)
    everything, encoders = undivided(run.reviews), how.encoders(len(run.split.train))
    needed = how.leave_one_out or settings.leave_one_out
    how = replace(how, encoders=lambda _: encoders, leave_one_out=needed)  # those that were measured
    ingested = run.manifest("ingest")["key"]
    workspace = Workspace(run.folder, watch, folders={"ingest": run.about["stages"]["ingest"]})
    text, key = encode(workspace, everything, ingested, how, cache, run.seed, "encode-all")

    def make(folder: Path) -> dict[str, Any]:
        history: list[dict[str, Any]] = []

        def on_epoch(epoch: Epoch) -> None:
            history.append(asdict(epoch))
            show_epoch(workspace, epoch, chosen.epochs, "epochs")

        kept = workspace.checkpoints
        with checkpointing(kept):
            fitted = current_verbs().fit(everything, chosen, text, settings, run.seed, on_epoch, kept)
        fitted.save(folder / "model")
        write_history(folder, history)
        note = f"{len(everything):,} interactions, {chosen.epochs} epochs, as valid chose"
        return {"note": note, "settings": measured, "chosen": asdict(chosen)}

    parts = [key, measured, asdict(chosen), run.seed, *where_it_runs()]
    folder, _ = workspace.stage(f"{OURS}-all-seed{run.seed}", parts, make)
    learned = Learned(apply_noise(everything, how.noise, seed=run.seed), text, Recommender.load(folder / "model"))
    return explainer_of(learned, how, cache)
