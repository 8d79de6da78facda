"""Fetching a public file: resumable, checked, and whole under its final name or not there at all.

The body goes to `NAME.part`, and `.NAME.part.json` says which version of the original it is a part of; the same call
goes on from there after a lost connection, an interrupt or a SIGKILL. `.NAME.download.json` keeps the SHA-256 of the
first complete fetch: most publishers state none, so later ones are held against that.
"""

from symcere.data.download.fetching import download, fetch
from symcere.data.download.record import Fetched
from symcere.data.download.transfer import OnProgress

__all__ = ["Fetched", "OnProgress", "download", "fetch"]
