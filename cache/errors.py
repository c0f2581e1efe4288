"""Errors that users can understand and act on."""


class UserError(Exception):
    """Invalid input or an operation that is not possible: one sentence on what was given and what is allowed.

    The command line prints the sentence without a traceback and exits with code 2.
    """


class CacheError(UserError):
    """A cache on disk cannot be used: it is missing, incomplete, corrupt, locked, or has another plan."""


class CacheBusy(CacheError):
    """Another writer is writing the cache."""
