"""How configs/default.py declares a key: by its default alone, or with what else it may be.

A value that may not be is one error of artifacts_jax.config.check, which names the key and what would do.
"""

import difflib
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from artifacts_jax.renamed import Config

FILES = ('default.py', 'tasks.py')  # in which keys are declared


class Key(NamedTuple):
    """A key's default, and which other values it may have."""

    default: Any
    rule: Callable[[Any], str] = lambda value: ''  # what is wrong with a value of the default's type, '' for nothing
    values: str = ''  # what it may be, in words
    # Whether a work directory takes other values: it changes what is shown or kept, not what is learned.
    free: bool = False

    def problem(self, value) -> str:
        """Returns what is wrong with a value, '' for nothing."""
        kind = _kind(self.default)
        return self.rule(value) if _is(value, self.default) else f'must be {kind}'


def positive(default) -> Key:
    """A number greater than 0."""
    return Key(default, lambda value: '' if value > 0 else 'must be greater than 0', 'greater than 0')


def within(default, interval: str) -> Key:
    """A number in an interval, written as '[0, 1)'."""
    return Key(default, lambda value: '' if _inside(value, interval) else f'must lie in {interval}', f'in {interval}')


def each(default: tuple, interval: str) -> Key:
    """One or more numbers in an interval."""

    def rule(values):
        inside = values and all(_inside(value, interval) for value in values)
        return '' if inside else f'must be one or more numbers in {interval}'

    return Key(default, rule, f'each in {interval}')


def span(default: tuple, interval: str) -> Key:
    """A range (low, high) in an interval."""

    def rule(value):
        inside = len(value) == 2 and value[0] <= value[1] and all(_inside(end, interval) for end in value)
        return '' if inside else f'must be a range (low, high) in {interval}, low <= high, such as {default}'

    return Key(default, rule, f'a range in {interval}')


def choice(default: str, *others: str) -> Key:
    """One of some names."""
    names = ', '.join((default, *others))
    return Key(default, lambda value: '' if value in (default, *others) else f'choose one of {names}', names)


def subset(default: tuple, *, of: tuple) -> Key:
    """Some of some names, one at least."""

    def rule(value):
        unknown = [name for name in value if name not in of]
        if not unknown:
            return '' if value else f'name one at least of {", ".join(of)}'
        (nearest,) = difflib.get_close_matches(unknown[0], of, n=1, cutoff=0)
        return f'there is no {unknown[0]!r}, the nearest is {nearest!r}'

    return Key(default, rule, f'of {", ".join(of)}')


def named(default: str) -> Key:
    """Text that is not empty."""
    return Key(default, lambda value: '' if value.strip() else 'must not be empty')


def free(key) -> Key:
    """A key that a work directory takes other values of."""
    return (key if isinstance(key, Key) else Key(key))._replace(free=True)


def flatten(tree: dict, prefix: str = '') -> Iterator[tuple[str, Key]]:
    """Yields (dotted name, key) of nested dictionaries of keys, in which a value alone is a key's default."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f'{prefix}{name}.')
        else:
            yield f'{prefix}{name}', value if isinstance(value, Key) else Key(value)


def build(tree: dict) -> Config:
    """Returns the configuration of the keys' defaults, locked."""

    def defaults(tree):
        return {
            name: defaults(value) if isinstance(value, dict) else value.default if isinstance(value, Key) else value
            for name, value in tree.items()
        }

    return Config(defaults(tree)).lock()


def parse_comments(source: str) -> dict[str, str]:
    """Returns {dotted name: comment} of the keys in the source of FILES, one a line."""
    found, group = {}, ''
    for line in source.splitlines():
        if opened := re.fullmatch(r'([A-Z0-9_]+) = {', line):
            group = '' if opened[1] == 'KEYS' else f'{opened[1].lower()}.'
        elif entry := re.match(r"    '(\w+)': .*,  # (.+)", line):
            found[group + entry[1]] = entry[2]
    return found


def _kind(default):
    """Returns what values of a default's type are, in words."""
    if isinstance(default, tuple):
        of = {str: 'names', int: 'whole numbers below 2^31'}.get(type(default[0]), 'numbers')
        return f'a tuple of {of}, such as {default}'
    return {
        bool: 'True or False',
        str: 'text',
        int: 'a whole number below 2^31',
        float: 'a number',
    }[type(default)]


def _is(value, default):
    """Returns whether a value is of a default's type; a whole number is a number, too."""
    if isinstance(default, tuple):
        return isinstance(value, tuple) and all(_is(entry, default[0]) for entry in value)
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
