import pytest

from artifacts_jax import config as configuration
from configs import declarations, default


@pytest.mark.parametrize(
    ('interval', 'inside', 'outside'),
    [('[0, 1)', (0, 0.5), (-0.1, 1)), ('(0, 1]', (0.1, 1), (0, 1.1)), ('[0, inf)', (0, 1e9), (-1e-9,))],
)
def test_an_interval_says_which_of_its_ends_belong_to_it(interval, inside, outside):
    key = declarations.within(inside[0], interval)
    assert [key.problem(value) for value in inside] == [''] * len(inside)
    assert [key.problem(value) for value in outside] == [f'must lie in {interval}'] * len(outside)
    assert key.values == f'in {interval}'


@pytest.mark.parametrize('value', [(0.5, 0.4), (0.0, 1.0), (0.5, 1.5)])
def test_a_range_lies_in_its_interval_the_right_way_round(value):
    assert declarations.span((0.5, 1.0), '(0, 1]').problem(value) == 'must be a range in (0, 1], low <= high'


def test_defaults_are_what_they_may_be():
    for path, key in configuration.declared().items():
        assert not key.problem(key.default), path


def test_a_group_of_keys_is_composed_of_groups_and_values():
    config = declarations.build(
        {'seed': 1, 'task': {'steps': declarations.positive(5), 'names': declarations.free(('a',))}}
    )
    assert config.to_dict() == {'seed': 1, 'task': {'steps': 5, 'names': ('a',)}}
    assert config.is_locked
    assert dict(declarations.flatten(default.KEYS))['data.data_dir'].free
