"""Where else the epochs of a fit are told: TensorBoard and MLflow, each an extra of its own."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeAlias

from symcere.errors import ConfigError
from symcere.training.progress import Epoch, OnEpoch

Tracker: TypeAlias = Callable[[str, Mapping[str, Any]], AbstractContextManager[OnEpoch]]
"""(name of a fit, its settings) -> a context whose value is told each epoch."""


def scalars(epoch: Epoch) -> dict[str, float]:
    """What a tracker draws of an epoch: every number of it that is there."""
    rest = vars(epoch) | {f"terms/{name}": value for name, value in epoch.terms.items()}
    return {name: float(rest[name]) for name in rest if name not in ("epoch", "terms") and rest[name] is not None}


def tensorboard(folder: Path) -> Tracker:
    """Write event files, one folder a fit: `tensorboard --logdir FOLDER` draws them.

    Args:
        folder: Where to write.

    Returns:
        The tracker.

    Raises:
        ConfigError: If TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise _missing("tensorboard") from None

    @contextlib.contextmanager
    def track(name: str, settings: Mapping[str, Any]) -> Iterator[OnEpoch]:
        with contextlib.closing(SummaryWriter(str(folder / name))) as writer:
            writer.add_text("settings", "".join(f"    {key}: {value}\n" for key, value in settings.items()))

            def on_epoch(epoch: Epoch) -> None:
                for label, value in scalars(epoch).items():
                    writer.add_scalar(label, value, epoch.epoch)
                writer.flush()

            yield on_epoch

    return track


def mlflow(folder: Path) -> Tracker:
    """Write one MLflow run a fit, to the server of MLFLOW_TRACKING_URI, or to FOLDER/mlflow.db where it is not set.

    Args:
        folder: Where to write; its parent's name is the name of the experiment.

    Returns:
        The tracker.

    Raises:
        ConfigError: If MLflow is not installed.
    """
    try:
        from mlflow.entities import Metric, RunTag
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise _missing("mlflow") from None
    folder.mkdir(parents=True, exist_ok=True)
    client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.absolute() / 'mlflow.db'}")
    experiment = folder.parent.name

    @contextlib.contextmanager
    def track(name: str, settings: Mapping[str, Any]) -> Iterator[OnEpoch]:
        found = client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else client.create_experiment(experiment)
        run = client.create_run(number, run_name=name).info.run_id
        client.log_batch(run, tags=[RunTag(f"setting.{key}", str(value)[:5_000]) for key, value in settings.items()])

        def on_epoch(epoch: Epoch) -> None:
            at = int(epoch.seconds * 1_000)
            found = scalars(epoch).items()
            client.log_batch(run, metrics=[Metric(label, value, at, epoch.epoch) for label, value in found])

        try:
            yield on_epoch
        except BaseException:
            client.set_terminated(run, "FAILED")
            raise
        client.set_terminated(run, "FINISHED")

    return track


TRACKERS: dict[str, Callable[[Path], Tracker]] = {"tensorboard": tensorboard, "mlflow": mlflow}
"""Word of the command line -> tracker into a folder."""


@contextlib.contextmanager
def tracked(trackers: tuple[Tracker, ...], name: str, settings: Mapping[str, Any]) -> Iterator[OnEpoch]:
    """Tell each epoch of a fit to all trackers; nobody, where there are none."""
    with contextlib.ExitStack() as stack:
        each = [stack.enter_context(tracker(name, settings)) for tracker in trackers]

        def on_epoch(epoch: Epoch) -> None:
            for tell in each:
                tell(epoch)

        yield on_epoch


def _missing(extra: str) -> ConfigError:
    return ConfigError(f"--log {extra} needs the extra of that name: pip install 'symcere[{extra}]'.")
