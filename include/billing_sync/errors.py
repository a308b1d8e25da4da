"""What can go wrong, named by what helps.

BillingSyncError
├── PermanentError            running again changes nothing: the task fails at once, a person acts
│   ├── ConfigurationError    a connection, setting or mapping file is wrong
│   ├── AuthenticationError   the service refuses our credentials
│   ├── SourceDataError       AppXite answered something that cannot be billed from
│   └── WriteRefusedError     ConnectWise refused a write: it was certainly not applied
├── TemporaryError            the same call may go through later: the task is retried with backoff
│   └── RateLimitedError      429; carries how long to wait
├── WriteOutcomeUnknownError  a write was sent and its fate is not known: resumed by marker, never guessed
└── ProofError                money is not where it should be: the run turns red
"""

from __future__ import annotations


class BillingSyncError(Exception):
    """Base of all errors of this package. The message says what is wrong, where, and what to do next."""


class PermanentError(BillingSyncError):
    """Running again changes nothing until a person acts."""


class ConfigurationError(PermanentError):
    """A connection, setting, rule or mapping file is wrong."""


class AuthenticationError(PermanentError):
    """A service refuses our credentials."""


class SourceDataError(PermanentError):
    """A service answered something that nothing can be billed from."""


class WriteRefusedError(PermanentError):
    """ConnectWise refused a write; it was certainly not applied.

    status: HTTP status (400, 401, 403, 404, 429), or None if nothing was sent.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class TemporaryError(BillingSyncError):
    """The same call may go through later."""


class RateLimitedError(TemporaryError):
    """429. retry_after: seconds to wait."""

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class WriteOutcomeUnknownError(BillingSyncError):
    """A write was sent; whether it was applied is not known (time-out, reset, 5xx, 409)."""


class ProofError(BillingSyncError):
    """The proof failed: source and ConnectWise differ, or a promise is broken."""
