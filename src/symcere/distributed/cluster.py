"""Ray: reaching it, running on it, and its errors as sentences."""

import contextlib
import functools
import logging
import os
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from symcere import errors
from symcere.distributed.storage import Storage
from symcere.errors import ClusterError, ConfigError, SymcereError
from symcere.manifest import VERSION, code_digest

Result = TypeVar("Result")

LOCAL = "local"
"""The address of a Ray of one's own on this machine, which ends with the command."""

_FAN = 8  # results that one task joins
_TRIES = 5  # to connect, where the head answers
_PAUSE = 2.0  # seconds between them


@dataclass(frozen=True)
class Cluster:
    """A Ray that this process is connected to.

    Args:
        address: Where.
        n_cpus: Processors of all its nodes.
        n_gpus: GPUs of all its nodes.
    """

    address: str
    n_cpus: int
    n_gpus: int

    def run(
        self, stage: str, work: Callable[..., Result], *args: Any, tell: Callable[[Any], None] | None = None
    ) -> Result:
        """Do the work of a stage in a process of the cluster.

        Args:
            stage: Its name, for messages.
            work: What to do.
            *args: Its arguments.
            tell: Called here with what the work tells its last argument, a function, there.

        Returns:
            What it returned.

        Raises:
            SymcereError: What the work raised on purpose.
            ClusterError: If Ray could not do it.
        """
        import ray

        with said(stage), telling(tell) as send:
            more = [send] if tell else []
            sent: Result = ray.get(ray.remote(num_cpus=0, max_retries=2)(work).remote(*args, *more))
            return sent


@dataclass(frozen=True)
class Sender:
    """Tells somebody in another process; what cannot be told is lost, and the work goes on.

    Args:
        queue: How.
    """

    queue: Any

    def __call__(self, value: Any) -> None:
        """Tell."""
        with contextlib.suppress(Exception):
            self.queue.put_nowait(value)


@contextlib.contextmanager
def telling(tell: Callable[[Any], None] | None) -> Iterator[Sender | None]:
    """Let other processes tell this one.

    Args:
        tell: Called here, by a thread, with each value.

    Yields:
        What the others call; None where nobody listens.
    """
    if tell is None:
        yield None
        return
    from ray.util.queue import Queue

    queue, over = Queue(actor_options={"num_cpus": 0}), threading.Event()

    def listen() -> None:
        last = False
        while not last:
            last = over.wait(0.2)
            with contextlib.suppress(Exception):  # the queue may go with its node
                for value in queue.get_nowait_batch(queue.qsize()):
                    tell(value)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield Sender(queue)
    finally:
        over.set()
        thread.join(5)
        with contextlib.suppress(Exception):
            queue.shutdown()


@contextlib.contextmanager
def connected(address: str, n_cpus: int | None = None) -> Iterator[Cluster]:
    """Connect to a Ray, for as long as the block lasts; where this process is connected already, use that one.

    Args:
        address: "ray://HEAD:10001" for a cluster that this machine is not part of, "auto" or "HEAD:6379" on one of
            its nodes, "local" for a Ray of one's own on this machine.
        n_cpus: Processors of a local Ray; all if left out.

    Yields:
        The cluster.

    Raises:
        ConfigError: If the extra is not installed, nobody answers, or the nodes run another version of symcere.
    """
    alone = address == LOCAL
    if not alone:
        _show_token()
    try:
        import ray
    except ImportError:
        raise ConfigError('Running on Ray needs its extra. Install it with: pip install "symcere[ray]"') from None
    _quiet()
    mine = not ray.is_initialized()
    if mine:
        _connect(address, n_cpus)
    try:
        total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        cluster = Cluster(address, int(total.get("CPU", 1)), int(total.get("GPU", 0)))
        if not alone:
            _check_version(cluster)
        yield cluster
    finally:
        if mine:
            ray.shutdown()


def _connect(address: str, n_cpus: int | None) -> None:
    import ray

    alone = address == LOCAL
    options: dict[str, Any] = {"num_cpus": n_cpus, "include_dashboard": False} if alone else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters of them is raised as well
            for tried in range(_TRIES):
                try:
                    ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)
                    break
                except ConnectionAbortedError:  # the head answers, and could not start a process for us
                    if tried == _TRIES - 1:
                        raise
                    time.sleep(_PAUSE)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise ConfigError(
            f"No Ray answers at {address!r} ({str(error).splitlines()[0][:200]}). Start one with `ray start --head`, "
            "check the address (ray://HEAD:10001 from outside, auto on a node) and the token (RAY_AUTH_TOKEN, where "
            "the cluster has one), or take --on local."
        ) from error


@contextlib.contextmanager
def said(stage: str) -> Iterator[None]:
    """Turn what Ray raises into what was raised on purpose behind it, or into a sentence.

    Args:
        stage: What was being done.

    Raises:
        ClusterError: If the error is Ray's own.
    """
    import ray.exceptions

    try:
        yield
    except SymcereError as error:
        raise _on_purpose(error) or error from None
    except (ray.exceptions.RayError, ConnectionError) as error:
        if own := _on_purpose(error):
            raise own from error
        if isinstance(error, ray.exceptions.RayTaskError) and not isinstance(error.cause, ray.exceptions.RayError):
            raise  # a bug of ours or of a library: its stack is what helps
        raise ClusterError(
            f"The stage {stage} did not end: {_reason(error)}. Nothing half-done counts as whole and nothing "
            "finished is lost; the same command goes on from there."
        ) from error


def _on_purpose(error: BaseException | None) -> SymcereError | None:
    """The error of ours behind one of Ray's."""
    told = re.search(r"^symcere\.errors\.(\w+): (.+)$", str(error), re.MULTILINE)  # Ray Data keeps but the words
    kind = getattr(errors, told[1], None) if told else None
    if told and isinstance(kind, type) and issubclass(kind, SymcereError):
        return kind(told[2])
    seen = 0
    while error is not None and seen < 20:
        if isinstance(error, SymcereError) and type(error).__module__ == "symcere.errors":
            return error
        error, seen = getattr(error, "cause", None) or error.__cause__ or error.__context__, seen + 1
    return None


def _reason(error: BaseException) -> str:
    """Ray's message without its stack."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("File ", "Traceback", "ray::", "[36m"))]
    return f"{type(error).__name__}: {(told or lines or ['no reason given'])[-1][:300].rstrip('.')}"


def each(refs: Sequence[Any], on_progress: Callable[[float], None] | None = None) -> Iterator[tuple[int, Any]]:
    """Yield (number, value) of refs as they are done, whichever is first.

    Args:
        refs: What to wait for.
        on_progress: Called with the share that is done.

    Yields:
        Number in `refs`, and the value.
    """
    import ray

    number = {ref: at for at, ref in enumerate(refs)}
    left = list(refs)
    while left:
        done, left = ray.wait(left, num_returns=1)
        for ref in done:
            yield number[ref], ray.get(ref)
        if on_progress:
            on_progress(1 - len(left) / len(refs))


@functools.cache  # to Ray, what is wrapped anew is another task
def task(work: Callable[..., Any], n: int = 1) -> Any:
    """A function as a task of Ray, which is run again when its worker dies.

    Args:
        work: What equal arguments always give the same for.
        n: How many results it has; each is a ref of its own.

    Returns:
        What has `.remote`.
    """
    import ray

    return ray.remote(num_returns=n, max_retries=5)(work)


def fetch(refs: Any) -> Any:
    """Values of refs."""
    import ray

    return ray.get(refs)


def tree(work: Callable[..., Any], refs: Sequence[Any]) -> Any:
    """Join results by tasks that join a few each, so that no process holds all of them.

    Args:
        work: Joins any number of results.
        refs: The results.

    Returns:
        A ref.
    """
    level = list(refs)
    while len(level) > 1:
        level = [task(work).remote(*level[at : at + _FAN]) for at in range(0, len(level), _FAN)]
    return level[0]


def standing(storage: Storage, key: str) -> dict[str, Any] | None:
    """The manifest of a folder that is whole: its files are looked at where there is a processor.

    Args:
        storage: The folder.
        key: What it must have been made under.

    Returns:
        The manifest, or None.
    """
    manifest = storage.promised(key)
    holds = task(Storage.holds)
    whole = manifest and all(fetch([holds.remote(storage, *file) for file in manifest["files"].items()]))
    return manifest if whole else None


def n_cpus() -> int:
    """Processors of the cluster."""
    import ray

    total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return max(1, int(total.get("CPU", 1)))


def _check_version(cluster: Cluster) -> None:
    """Every node would read and write by its own code."""
    import ray

    def version() -> tuple[str, str]:
        return VERSION, code_digest()

    try:
        theirs, code = ray.get(ray.remote(version).remote(), timeout=120)
    except (ray.exceptions.RayError, ImportError) as error:
        raise ConfigError(
            f"The nodes of {cluster.address} cannot run symcere ({_reason(error)}). Install the same version there: "
            'pip install "symcere[ray]"'
        ) from error
    if code != code_digest():
        raise ConfigError(
            f"The nodes of {cluster.address} run symcere {theirs} of another state than the {VERSION} here. Install "
            "the same version on all machines."
        )


def _show_token() -> None:
    """Show a cluster that wants a token the one that this machine has; Ray does so only when told before import."""
    there = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    if there or (Path.home() / ".ray" / "auth_token").exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _quiet() -> None:
    """Ray draws bars and logs of its own; ours say what is done."""
    import ray.data

    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray.data", "ray.train", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
