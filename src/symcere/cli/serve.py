"""The command that serves a bundle."""

import contextlib
import errno
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from symcere.cli.app import app
from symcere.cli.finished import explainer_to_serve, say_what_is_not_known
from symcere.cli.options import Cache, Refit
from symcere.cli.screen import ScreenWatch, interruptible
from symcere.errors import ConfigError

_DEMO = Path("runs/demo")


@app.command(
    epilog="Examples:\n\n  symcere serve --demo\n\n  symcere serve runs/hotels --refit\n\n"
    "  SYMCERE_TOKEN=secret symcere serve hotels-bundle --port 9000\n\n  kill -HUP PID    # open the bundle anew"
)
def serve(
    folder: Annotated[
        Path | None, typer.Argument(metavar="BUNDLE", help="A bundle, or the folder of a run.", show_default=False)
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Serve the world of symcere demo; made if need be.")] = False,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen at; others than loopback need a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="Port to listen at.")] = 8_000,
    rate: Annotated[float, typer.Option("--rate", min=0, help="Requests a second of one client; 0 for any.")] = 200.0,
    concurrent: Annotated[int, typer.Option("--concurrent", min=1, help="Requests in hand at most.")] = 64,
    feedback: Annotated[
        Path | None,
        typer.Option("--feedback", help="File that keeps what users do (POST /v1/feedback).", show_default="none"),
    ] = None,
    approximate: Annotated[
        bool,
        typer.Option(
            "--approximate",
            help="From 200,000 items on, follow links between items instead of looking at all; a list may miss one.",
        ),
    ] = False,
    refit: Refit = False,
    cache: Cache = Path("runs/cache"),
) -> None:
    """Serve recommendations with their reasons over HTTP, and a page to try them.

    Listens on loopback. With SYMCERE_TOKEN in the environment, /v1 and /metrics want it as a bearer token. SIGHUP
    opens the bundle anew without a dropped request; a bundle that does not open leaves what is served as it is.
    """
    token = os.environ.get("SYMCERE_TOKEN") or None
    if host not in ("127.0.0.1", "::1", "localhost") and token is None:
        raise ConfigError(
            f"Listening at {host} lets others in. Set SYMCERE_TOKEN to what they must send as a bearer token."
        )
    if demo == (folder is not None):
        raise ConfigError("Name a bundle or the folder of a run, or give --demo.")
    import uvicorn

    from symcere.serving.app import Holder, create_app
    from symcere.serving.feedback import Feedback
    from symcere.serving.guard import Limits
    from symcere.serving.service import LARGE

    console = Console(stderr=True, highlight=False)
    with _bound(host, port) as sockets:
        bundle = _bundle_of(_demo(console) if folder is None else folder, cache, console, refit=refit)
        holder = Holder(bundle, Feedback(feedback) if feedback else None, approximate=approximate)
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=holder.reload).start())
        web = create_app(holder, Limits(rate=rate, concurrent=concurrent), token)
        config = uvicorn.Config(
            web, log_config=_LOGGING, access_log=False, server_header=False, timeout_keep_alive=15,
            timeout_graceful_shutdown=20,
        )  # fmt: skip
        about = holder.service.about()
        if approximate and about["index"] == "exact":
            console.print(
                f"All {about['items']:,} items are looked at, also with --approximate, which counts from {LARGE:,} "
                "on.",
                soft_wrap=True,
            )
        with _refusal_said(host, port):
            for sock in sockets:
                sock.listen()  # again by the server, with its own backlog
        port = sockets[0].getsockname()[1]
        console.print(f"Serving {bundle} at http://{host}:{port}/ (Ctrl-C ends it)", soft_wrap=True)
        try:
            uvicorn.Server(config).run(sockets=sockets)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None  # asked for, and already done in good order


@app.command(epilog="Example:\n\n  symcere feedback hotels.db --out data/since.jsonl    # then: symcere run data/")
def feedback(
    store: Annotated[Path, typer.Argument(metavar="FILE", help="What symcere serve --feedback kept.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON lines to write.", show_default=False)],
) -> None:
    """Write feedback as reviews that symcere run reads, for the next training."""
    from symcere.serving.feedback import export

    if not store.is_file():
        raise ConfigError(f"{store} is not there. Name the file that symcere serve --feedback keeps.")
    typer.echo(f"{export(store, out):,} events in {out}")


@contextlib.contextmanager
def _bound(host: str, port: int) -> Iterator[list[socket.socket]]:
    """Sockets of every address of the host, bound before a bundle is opened: who cannot have them waits for none."""
    with contextlib.ExitStack() as to_close:
        sockets = []
        with _refusal_said(host, port):
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, kind, protocol, _, address in dict.fromkeys(found):
                sock = to_close.enter_context(socket.socket(family, kind, protocol))
                if os.name == "posix":
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a new start need not wait
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind(address)
                sockets.append(sock)
        yield sockets


@contextlib.contextmanager
def _refusal_said(host: str, port: int) -> Iterator[None]:
    """Turn an address that the operating system does not give into a sentence."""
    try:
        yield
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        raise ConfigError(
            f"Port {port} of {host} {'is taken' if taken else 'cannot be listened at'} ({error.strerror}). "
            f"Choose another with --port{'' if taken else ' or --host'}."
        ) from error


def _bundle_of(folder: Path, cache: Path, console: Console, *, refit: bool) -> Path:
    """The bundle itself, or that of a run, which is made where it is missing or older than the run."""
    if not (folder / "stages").is_dir():
        if refit:
            raise ConfigError(
                f"{folder} is a bundle, and --refit learns from a run. Name the folder that symcere run printed, or "
                "make the bundle anew: symcere export RUN --format bundle --refit --out BUNDLE."
            )
        return folder
    from symcere.bundle import write_bundle
    from symcere.pipeline.finished import FinishedRun

    bundle = folder / ("bundle-refit" if refit else "bundle")
    run = FinishedRun.open(folder)
    made = bundle / "manifest.json"
    if not made.exists() or made.stat().st_mtime < (folder / "manifest.json").stat().st_mtime:
        console.print(f"Exporting {folder} to {bundle} …", soft_wrap=True)
        with interruptible(), ScreenWatch(quiet=False) as watch:
            explainer = explainer_to_serve(run, cache, watch, refit=refit)
        write_bundle(explainer, run.reviews.items, bundle)
        made.touch()  # one of the same content stays as it is, and is now as new as the run
    if not refit:
        say_what_is_not_known(run, console)
    return bundle


def _demo(console: Console) -> Path:
    """The run of symcere demo, made if it is not there."""
    if not (_DEMO / "manifest.json").exists():
        console.print("Making the demo's world and fitting it …")
        from symcere.cli.run import demo

        demo(out=_DEMO, seed=0, quiet=True, as_json=True)
    return _DEMO


_LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {
        "symcere.serving": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        "uvicorn": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
    },
}
