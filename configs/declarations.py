"""Functions with which configs/default.py declares keys: a default value, and the accepted values.

For other values, artifacts_jax.config.check raises an error with the key and the accepted values.
"""

import difflib
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from artifacts_jax.old_names import Config

FILES = ('default.py', 'tasks.py')  # the files that declare keys


class Key(NamedTuple):
    """The default of a key, and its accepted values."""

    default: Any
    rule: Callable[[Any], str] = lambda value: ''  # returns the error for a value of the default's type, '' if accepted
    values: str = ''  # the accepted values, in words
    free: bool = False  # can change in an existing work directory, because it does not change what is trained

    def problem(self, value) -> str:
        """Returns what is wrong with a value, '' if it is accepted."""
        kind = _describe_type(self.default)
        return self.rule(value) if _has_type_of(value, self.default) else f'must be {kind}'


def positive(default) -> Key:
    """Declares a number greater than 0."""
    return Key(default, lambda value: '' if value > 0 else 'must be greater than 0', 'greater than 0')


def within(default, interval: str) -> Key:
    """Declares a number in an interval, such as '[0, 1)'."""
    return Key(default, lambda value: '' if _inside(value, interval) else f'must lie in {interval}', f'in {interval}')


def numbers(default: tuple, interval: str) -> Key:
    """Declares a tuple of one or more numbers in an interval."""

    def rule(values):
        inside = values and all(_inside(value, interval) for value in values)
        return '' if inside else f'must be one or more numbers in {interval}'

    return Key(default, rule, f'each in {interval}')


def span(default: tuple, interval: str) -> Key:
    """Declares a range (low, high) in an interval."""

    def rule(value):
        inside = len(value) == 2 and value[0] <= value[1] and all(_inside(end, interval) for end in value)
        return '' if inside else f'must be a range (low, high) in {interval}, low <= high, such as {default}'

    return Key(default, rule, f'a range in {interval}')


def choice(default: str, *others: str) -> Key:
    """Declares one of several names."""
    names = ', '.join((default, *others))
    return Key(default, lambda value: '' if value in (default, *others) else f'choose one of {names}', names)


def subset(default: tuple, *, of: tuple) -> Key:
    """Declares a tuple of at least one of several names."""

    def rule(value):
        unknown = [name for name in value if name not in of]
        if not unknown:
            return '' if value else f'give at least one of {", ".join(of)}'
        (nearest,) = difflib.get_close_matches(unknown[0], of, n=1, cutoff=0)
        return f'there is no {unknown[0]!r}, the nearest is {nearest!r}'

    return Key(default, rule, f'of {", ".join(of)}')


def text(default: str) -> Key:
    """Declares text that is not empty."""
    return Key(default, lambda value: '' if value.strip() else 'must not be empty')


def free(key) -> Key:
    """Declares a key that can change in an existing work directory."""
    return (key if isinstance(key, Key) else Key(key))._replace(free=True)


def flatten(tree: dict, prefix: str = '') -> Iterator[tuple[str, Key]]:
    """Yields (dotted name, key) of nested dictionaries; a value that is not a Key is the default of a key."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f'{prefix}{name}.')
        else:
            yield f'{prefix}{name}', value if isinstance(value, Key) else Key(value)


def build(tree: dict) -> Config:
    """Returns a locked configuration with the default of every key."""

    def defaults(tree):
        return {
            name: defaults(value) if isinstance(value, dict) else value.default if isinstance(value, Key) else value
            for name, value in tree.items()
        }

    return Config(defaults(tree)).lock()


def parse_comments(source: str) -> dict[str, str]:
    """Returns {dotted name: comment} of the keys in the source of FILES, which has one key per line."""
    comments, group = {}, ''
    for line in source.splitlines():
        if section := re.fullmatch(r'([A-Z0-9_]+) = {', line):
            group = '' if section[1] == 'KEYS' else f'{section[1].lower()}.'
        elif entry := re.match(r"    '(\w+)': .*,  # (.+)", line):
            comments[group + entry[1]] = entry[2]
    return comments


def _describe_type(default):
    """Returns the type of a default, in words."""
    if isinstance(default, tuple):
        of = {str: 'names', int: 'whole numbers below 2^31'}.get(type(default[0]), 'numbers')
        return f'a tuple of {of}, such as {default}'
    return {
        bool: 'True or False',
        str: 'text',
        int: 'a whole number below 2^31',
        float: 'a number',
    }[type(default)]


def _has_type_of(value, default):
    """Returns whether a value has the type of a default; whole numbers are also numbers."""
    if isinstance(default, tuple):
        return isinstance(value, tuple) and all(_has_type_of(entry, default[0]) for entry in value)
    if isinstance(default, bool | str):
        return isinstance(value, type(default))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return (
        abs(value) < 2**31
        if isinstance(default, int) and isinstance(value, int)
        else (isinstance(default, float) and math.isfinite(value))
    )


def _inside(value, interval):
    low, high = (math.inf if end == 'inf' else float(end) for end in interval[1:-1].split(', '))
    above = value > low if interval[0] == '(' else value >= low
    return above and (value < high if interval[-1] == ')' else value <= high)
