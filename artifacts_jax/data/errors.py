"""The error of data, for files that need TensorFlow and files that do not."""

from artifacts_jax.config import ForeseenError


class DataError(ForeseenError):
    """Data that is missing or cannot be read; the message says what was looked for, where, and what to do."""
