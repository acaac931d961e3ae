"""Errors that are the user's to mend: shown as one line, exit code 2, never a traceback."""


class UserError(Exception):
    """Something the user gave is wrong. The message names the key or file and the remedy."""


class ConfigError(UserError):
    """The configuration is wrong. The message names the file, the key and the nearest right spelling."""


class DataError(UserError):
    """A data file is missing or damaged. The message names the file, what is wrong and the remedy."""
