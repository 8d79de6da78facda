"""Atheris' target: every reader on the bytes it is given. Run by tests/test_fuzz.py."""

import contextlib
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Read until an error that is no DataError leaves, or the runs are done."""
    import atheris

    with atheris.instrument_imports(include=["symcere.data"]):
        import symcere as sc
        from symcere.data.items import read_items
        from symcere.data.reviews import read_reviews
    file = Path(tempfile.mkdtemp()) / "file"

    def read(raw: bytes) -> None:
        file.write_bytes(raw)
        for reader in (read_reviews, read_items):
            for skip_bad in (False, True):
                with contextlib.suppress(sc.DataError):
                    reader(file, skip_bad=skip_bad)

    atheris.Setup(sys.argv, read)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
