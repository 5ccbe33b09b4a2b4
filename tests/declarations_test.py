import math

import pytest

from artifacts_jax import config as configuration
from artifacts_jax.configs import declarations, default


@pytest.mark.parametrize(
    ('interval', 'inside', 'outside'),
    [('[0, 1)', (0.0, 0.5), (-0.1, 1)), ('(0, 1]', (0.1, 1), (0, 1.1)), ('[0, inf)', (0.0, 1e9), (-1e-9,))],
)
def test_brackets_of_an_interval_include_or_exclude_its_ends(interval, inside, outside):
    key = declarations.within(inside[0], interval)
    assert [key.problem(value) for value in inside] == [''] * len(inside)
    assert [key.problem(value) for value in outside] == [f'must lie in {interval}'] * len(outside)
    assert key.values == f'in {interval}'


@pytest.mark.parametrize('value', [(0.5, 0.4), (0.0, 1.0), (0.5, 1.5), (0.5,), (0.5, 0.6, 0.7)])
def test_a_range_must_be_ordered_and_inside_its_interval(value):
    assert (
        declarations.span((0.5, 1.0), '(0, 1]')
        .problem(value)
        .startswith('must be a range (low, high) in (0, 1], low <= high')
    )


def test_defaults_are_accepted_values():
    for path, key in configuration.get_declarations().items():
        assert not key.problem(key.default), path


def test_a_group_of_keys_is_composed_of_groups_and_values():
    config = declarations.build(
        {'seed': 1, 'task': {'steps': declarations.positive(5), 'names': declarations.free(('a',))}}
    )
    assert config.to_dict() == {'seed': 1, 'task': {'steps': 5, 'names': ('a',)}}
    assert config.is_locked
    assert dict(declarations.flatten(default.KEYS))['data.data_dir'].free


@pytest.mark.parametrize(
    ('default', 'right', 'wrong'),
    [
        (3, [0, -5], [0.5, True, '3', None, 2**31, (3,)]),
        (0.5, [1, 2.5], [True, '1', None, math.inf, math.nan]),
        (True, [False], [0, 'True', None]),
        ('a', ['', 'b'], [0, None, ('a',)]),
        ((1, 2), [(3,), (4, 5, 6)], [3, [1, 2], (1.5, 2), ('1', 2)]),
        ((0.5, 1.0), [(0, 1)], [0.5, (0.5, 'x'), (0.5, math.nan)]),
    ],
)
def test_values_must_have_the_type_of_the_default(default, right, wrong):
    key = declarations.Key(default)
    assert [key.problem(value) for value in right] == [''] * len(right)
    assert all(key.problem(value).startswith('must be ') for value in wrong)
