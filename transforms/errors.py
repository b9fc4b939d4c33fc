"""Every error of the export, by what its reader can do about it.

::

    CallHistoryError
    ├── RetryableError          try again: the next run, or the same one a little later
    │   ├── TransportError          no connection, a time-out, a body cut short or unreadable
    │   ├── RateLimitedError        HTTP 429: the account is blocked until its block of time ends
    │   ├── AccountBlockedError     nothing may be sent for longer than the caller wants to wait
    │   ├── ServerError             5xx, or an envelope whose ``r`` means "busy"
    │   ├── UnsettledWindowError    the API's count and the rows it served do not agree (yet)
    │   ├── ClaimLostError          another run has taken this day over
    │   └── BusyError               the database or its file is held by someone else
    │       └── CollisionError          another process has just written the same new row
    ├── SettingsError           fix a setting: nothing will work until then
    │   ├── AuthenticationError     the API refuses the credentials
    │   └── StorageError            a database, folder or bucket that cannot be used
    └── DataError               look at the data: the source or a table holds what cannot be
        ├── ApiError                the API refuses a request (``r`` is not 0, or a 4xx)
        └── NoAddressError          an id, such as "..", that no address can name

A message names endpoint, window, page, table, column and counts. It never holds a payload, a token, a phone
number or a query string.
"""

from __future__ import annotations


class CallHistoryError(Exception):
    """Root of everything this package raises on purpose; its text is one line for a user."""


class RetryableError(CallHistoryError):
    """Nothing to mend on this side: the same work may succeed later."""


class TransportError(RetryableError):
    """No usable answer arrived: no connection, a time-out, an empty, truncated or unreadable body."""


class RateLimitedError(RetryableError):
    """HTTP 429. ``retry_after_seconds`` says how long the account stays blocked, where that is known."""

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class AccountBlockedError(RetryableError):
    """The account may send nothing for longer than the caller wants to wait; the message says until when, and why."""


class ServerError(RetryableError):
    """The API failed on its side: a 5xx, or an envelope that says it is busy."""


class UnsettledWindowError(RetryableError):
    """The rows read and the API's own count differ; the message holds both numbers."""


class ClaimLostError(RetryableError):
    """The claim on a local day ran out, and another run has it now."""


class BusyError(RetryableError):
    """A database, or the file of one, is held by another process."""


class CollisionError(BusyError):
    """Another process has written the same new row at the same moment: at the next look, it is there."""


class SettingsError(CallHistoryError):
    """A setting is missing or wrong; the message names it and where it was looked for."""


class AuthenticationError(SettingsError):
    """The API refuses the credentials; the message names the settings to look at."""


class StorageError(SettingsError):
    """A database, folder or bucket cannot be used as it is configured."""


class DataError(CallHistoryError):
    """The source, or a table, holds something that cannot be; a human has to look."""


class ApiError(DataError):
    """The API understood the request and refuses it. ``r`` is the envelope's code, where there was one."""

    def __init__(self, message: str, *, status: int, r: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.r = r


class NoAddressError(DataError):
    """An id cannot be a part of an address: whoever reads the address would be led to another one."""
