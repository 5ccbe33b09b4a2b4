from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifacts_jax.models import heads
from artifacts_jax.models.discriminator import Trunk


def shapes(module, *inputs):
    """Returns {path: shape} of the parameters of a module."""
    variables = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    leaves = jax.tree_util.tree_leaves_with_path(variables['params'])
    return {jax.tree_util.keystr(path, simple=True, separator='/'): x.shape for path, x in leaves}


def count(shapes):
    return sum(int(np.prod(shape)) for shape in shapes.values())


CONV5 = jnp.zeros((1, 6, 6, 256))


def test_linear_head_at_full_width():
    found = shapes(heads.LinearHead(10), CONV5)
    assert found == {'fc/kernel': (6, 6, 256, 10), 'fc/bias': (10,)}
    assert count(found) == 9216 * 10 + 10


def test_fine_tune_head_at_full_width():
    found = shapes(heads.FineTuneHead(10), CONV5)
    assert found == {
        'fc1/kernel': (6, 6, 256, 4096),
        'norm1/bias': (4096,),
        'fc2/kernel': (4096, 4096),
        'norm2/bias': (4096,),
        'fc3/kernel': (4096, 10),
        'fc3/bias': (10,),
    }
    assert count(found) == 9216 * 4096 + 4096**2 + 2 * 4096 + 4096 * 10 + 10


def test_classifier_has_the_variables_of_trunk_and_head():
    found = shapes(heads.Classifier(Trunk(), heads.LinearHead(10)), jnp.zeros((1, 96, 96, 3)))
    trunk = {name: shape for name, shape in found.items() if name.startswith('trunk/')}
    assert trunk == {f'trunk/{name}': s for name, s in shapes(Trunk(), jnp.zeros((1, 96, 96, 3))).items()}
    assert found.keys() - trunk.keys() == {'head/fc/kernel', 'head/fc/bias'}


def test_initial_weights_are_a_narrow_truncated_normal():
    params = jax.jit(heads.LinearHead(10).init)(jax.random.key(0), jnp.zeros((1, 4, 4, 64)))['params']['fc']
    # Cut at two deviations, a normal of deviation 1 keeps 0.88 of it.
    np.testing.assert_allclose(params['kernel'].std(), 0.88 * 0.005, rtol=0.02)
    assert jnp.abs(params['kernel']).max() <= 0.01
    assert not params['bias'].any()


@pytest.fixture(scope='module')
def small():
    head = heads.FineTuneHead(3, hidden=32)
    conv5 = jnp.abs(jax.random.normal(jax.random.key(0), (16, 2, 2, 4)))
    return head, jax.jit(head.init)(jax.random.key(1), conv5), conv5


def test_linear_head_is_an_affine_function_of_the_whole_grid():
    conv5 = jax.random.normal(jax.random.key(0), (5, 2, 3, 4))
    head = heads.LinearHead(7)
    variables = head.init(jax.random.key(1), conv5)
    kernel = variables['params']['fc']['kernel']
    np.testing.assert_allclose(head.apply(variables, conv5), conv5.reshape(5, -1) @ kernel.reshape(-1, 7), atol=1e-6)


def test_hidden_layers_are_normalised_rectified_and_dropped(small):
    head, variables, conv5 = small
    params = variables['params']
    keys = [jax.random.split(jax.random.key(n), 16) for n in (2, 3)]

    def hidden(x, kernel, keys):
        x = x.reshape(16, -1) @ kernel.reshape(-1, 32)
        x = (x - x.mean(0, keepdims=True)) / jnp.sqrt(x.var(0, keepdims=True) + 1e-3)
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, (32,)))(keys)
        return 2 * keep * jnp.maximum(x, 0)

    x = hidden(conv5, params['fc1']['kernel'], keys[0])
    x = hidden(x, params['fc2']['kernel'], keys[1])
    apply = jax.jit(partial(head.apply, train=True, dropout_keys=keys, mutable=['batch_stats']))
    logits, updates = apply(variables, conv5)
    np.testing.assert_allclose(logits, x @ params['fc3']['kernel'], atol=1e-5)
    assert all((updates['batch_stats'][norm]['mean'] != 0).any() for norm in ('norm1', 'norm2'))


def test_evaluation_is_deterministic_and_changes_nothing(small):
    head, variables, conv5 = small
    apply = jax.jit(partial(head.apply, mutable=['batch_stats']))
    logits, updates = apply(variables, conv5)
    np.testing.assert_allclose(logits[:4], apply(variables, conv5[:4])[0], rtol=1e-5, atol=1e-10)
    jax.tree.map(np.testing.assert_array_equal, updates['batch_stats'], variables['batch_stats'])
