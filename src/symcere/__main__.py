"""`symcere` and `python -m symcere` begin here, where an interrupt is a sentence while the rest is still imported."""

import contextlib
import os
import signal
from typing import NoReturn


def main() -> None:
    """Run the command line; an interrupt of it is one sentence on standard error and exit code 130."""
    before = signal.getsignal(signal.SIGINT)
    ours = before is signal.default_int_handler  # a shell that runs us behind it has interrupts ignored
    if ours:
        signal.signal(signal.SIGINT, _leave)
    from symcere.cli import main as run

    try:
        signal.signal(signal.SIGINT, before)
        run()
    finally:
        if ours:  # nothing is left but to end, and Python would do that with a traceback
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def _leave(*_: object) -> NoReturn:
    """End at once: nothing has begun, and an exception can get lost in the middle of an import."""
    with contextlib.suppress(OSError):
        os.write(2, b"Error Interrupted.\n")
    os._exit(130)


if __name__ == "__main__":
    main()
