"""The error class for missing or invalid data."""

from artifacts_jax.config import UserError


class DataError(UserError):
    """Data is missing or cannot be read; the message names the expected data, its path, and what to do."""


def first_line(error: Exception) -> str:
    """Returns the first line of an error's message, or the name of its class if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
