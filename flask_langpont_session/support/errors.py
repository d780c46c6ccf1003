"""The base of all errors, without Flask: processes that only read a journal start without it, too."""


class LangPontSessionError(Exception):
    """Base of all errors of this package."""
