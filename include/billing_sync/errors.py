"""What can go wrong, named by what helps.

BillingSyncError
├── PermanentError            running again changes nothing: the task fails at once, a person acts
│   ├── ConfigurationError    a connection, setting or mapping file is wrong
│   ├── AuthenticationError   the service refuses our credentials
│   ├── PausedError           a pause or the deadline forbids writing
│   ├── MarkerLostError       ConnectWise does not keep our marker: nothing more may be created
│   ├── SourceDataError       AppXite answered something that cannot be billed from
│   └── WriteRefusedError     ConnectWise refused a write: it was certainly not applied
├── TemporaryError            the same call may go through later: the task is retried with backoff
│   ├── RateLimitedError      429; carries how long to wait
│   ├── InDoubtError          ConnectWise's answers about one Addition were lost; the others go on
│   └── OvertakenError        another worker has taken over the agreement
├── EditError                 what a person wanted to change stays as it is; the message says why
│   ├── NotFoundError         there is no such line, plan, bulk change …
│   ├── StaleEditError        somebody else was quicker; carries what stands now
│   ├── LockedError           the line is delivered, being delivered, or part of an approved plan
│   ├── RefusedEditError      the value cannot be taken
│   └── BusyError             a run is deciding right now: the same change goes through in a moment
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


class PausedError(PermanentError):
    """Nothing may be written now: delivery is paused, or the plan's deadline is over.

    company_id: the customer that is paused; None: nothing at all may be written.
    """

    def __init__(self, message: str, *, company_id: int | None = None) -> None:
        super().__init__(message)
        self.company_id = company_id


class MarkerLostError(PermanentError):
    """ConnectWise stored an Addition without our marker, by which alone it would be found again."""


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


class InDoubtError(TemporaryError):
    """It is not known what ConnectWise holds of one Addition; a later try finds out."""


class OvertakenError(TemporaryError):
    """Another worker has taken over the agreement: this one has been silent for longer than its lease."""


class EditError(BillingSyncError):
    """What a person wanted to change stays as it is."""


class NotFoundError(EditError):
    """There is no such thing."""


class StaleEditError(EditError):
    """Somebody else changed it after the person had looked. current: what stands now."""

    def __init__(self, message: str, *, current: object = None) -> None:
        super().__init__(message)
        self.current = current


class LockedError(EditError):
    """The line is delivered, being delivered, or part of an approved plan."""


class RefusedEditError(EditError):
    """A value that cannot be taken."""


class BusyError(EditError):
    """A run is deciding right now; the same change goes through in a moment."""


class WriteOutcomeUnknownError(BillingSyncError):
    """A write was sent; whether it was applied is not known (time-out, reset, 5xx, 409)."""


class ProofError(BillingSyncError):
    """The proof failed: source and ConnectWise differ, or a promise is broken."""
