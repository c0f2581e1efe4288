"""Errors that a user can understand and act on."""


class UserError(Exception):
    """What was asked cannot be done: one clear sentence on what was given, what is allowed, where to look.

    The command line prints the sentence without a traceback and exits with code 2.
    """


class CacheError(UserError):
    """A cache on disk cannot be used as asked: missing, half-written, corrupt, of another plan, or locked."""
