"""The error of data, for files that need TensorFlow and files that do not."""

from artifacts_jax.config import UserError


class DataError(UserError):
    """Data that is missing or cannot be read; the message says what was looked for, where, and what to do."""


def first_line(error: Exception) -> str:
    """Returns the first line of what an error says, the name of its kind if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
