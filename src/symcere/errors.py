"""Every error that symcere raises on purpose.

Each message says what must hold, what was found and what to do next. The command line prints the sentence
and exits with 2; nothing else of ours may leave a public function.
"""


class SymcereError(Exception):
    """Root of all errors raised on purpose."""


class DataError(SymcereError, ValueError):
    """The input data breaks a rule that the stage needs."""


class ConfigError(SymcereError, ValueError):
    """A setting is out of range, unknown, or does not fit the data."""


class DivergedError(ConfigError):
    """A loss is no longer finite: these settings cannot be trained on these data."""


class UnknownIdError(SymcereError, KeyError):
    """An id that the data does not hold."""

    def __str__(self) -> str:
        """The sentence itself: KeyError would print it in quotation marks."""
        return str(self.args[0])


class BundleError(SymcereError, RuntimeError):
    """A folder on disk is damaged, incomplete or of another format."""


class ClusterError(SymcereError, RuntimeError):
    """Ray could not finish what was asked of it."""


class OutputError(SymcereError, OSError):
    """A result cannot be written: disk full, folder read-only, path taken."""
