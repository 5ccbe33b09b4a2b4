"""The error that all readers of data share."""


class DataError(Exception):
    """Data that is missing or cannot be read; the message says what was looked for, where, and what to do."""
