"""The errors that a user can meet. Each names the boundary that failed and may say what to do.

StepSearchError
├── ConfigError      run file, flags, environment
├── SourceError      files and Hub datasets that questions come from
├── SearchError      search engines and their indexes
├── ProviderError    language models and the servers that they run on
├── BudgetError      the user's own limit on what may be spent
├── StoreError       the folder that a build writes and everything else reads
├── PublishError     releases: written, checked, sent to the Hub and taken from it
├── QueryError       SQL given by the user
└── TrainError       training that cannot go on

A bad row is not an error but a reject (see `RowRejected`). Any other exception is a bug.
"""


class StepSearchError(Exception):
    """Base of all: a message in one line, and what to do about it."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(StepSearchError):
    """The run cannot be described from what was given."""

    exit_code = 2


class SourceError(StepSearchError):
    """A source as a whole cannot be read."""


class SearchError(StepSearchError):
    """A search engine or its index cannot be used."""


class ProviderError(StepSearchError):
    """A model's server cannot be used, or no longer answers; what was paid is kept."""

    exit_code = 5


class BudgetError(StepSearchError):
    """A budget is reached; what was paid is kept."""

    exit_code = 4


class StoreError(StepSearchError):
    """The store cannot be read, written or locked."""


class PublishError(StepSearchError):
    """A release cannot be written, is damaged, or cannot go to the Hub or come from it."""


class QueryError(StepSearchError):
    """The SQL is refused, fails or takes too long."""


class TrainError(StepSearchError):
    """Training or evaluation cannot go on; the last checkpoint is whole."""


class RowRejected(Exception):
    """Raised by a stage for one row: it is written to `rejects` with this reason and the build goes on.

    `raw` is the reply that could not be used, and `attempts` how many were asked for, where a model was asked.
    """

    def __init__(self, reason: str, *, raw: str = "", attempts: int = 0) -> None:
        super().__init__(reason)
        self.raw = raw
        self.attempts = attempts


class GoldMissing(RowRejected):
    """The row is valid, but comes without a gold paragraph. That is not a sign of a broken source."""


def without_traceback(error: Exception) -> str:
    """Return an error's message, without the traceback that DuckDB puts before that of a Python file system."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[-1] if text.startswith("Traceback ") else text
