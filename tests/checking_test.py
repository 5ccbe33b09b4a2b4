import ast
import importlib
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

import artifacts_jax
from artifacts_jax.data import augment
from artifacts_jax.features import linear
from artifacts_jax.models import architecture, layers
from artifacts_jax.pretraining import losses
from artifacts_jax.training import keys, metrics

MODULES = sorted(Path(artifacts_jax.__file__).parent.rglob('*.py'))
UNTYPED = ('self', 'cls', 'stage', 'module', 'task')  # modules, or objects with the same names
IMAGES, MASK = jnp.zeros((2, 16, 16, 3)), jnp.ones((2, 4, 4, 1))


@pytest.mark.parametrize(
    ('function', 'arguments'),
    [
        pytest.param(losses.squared_error, (IMAGES, IMAGES[:, :8]), id='sizes'),
        pytest.param(losses.mask_loss, (MASK, MASK[0]), id='axes'),
        pytest.param(losses.class_loss, (jnp.zeros((2, 5)), jnp.zeros(2)), id='types of numbers'),
        pytest.param(layers.spatial_mask, (jax.random.key(0), (4, 4), 0.5), id='keys'),
        pytest.param(augment.resample, (np.zeros((8, 8, 3), np.uint8), jnp.eye(8), jnp.eye(9)), id='matrices'),
        pytest.param(metrics.psnr, (IMAGES, IMAGES[:1]), id='batches'),
        pytest.param(linear.compute_scale, ([1.0, 2.0],), id='lists'),
        pytest.param(keys.stage_key, ('0', 'artifacts'), id='what is no array'),
    ],
)
def test_what_an_annotation_rules_out_is_refused(function, arguments):
    with pytest.raises(TypeCheckError, match=function.__name__):
        function(*arguments)


def test_networks_are_checked_where_they_are_traced(config):
    generator, discriminator = architecture.make_generator(config), architecture.make_discriminator(config)
    for network, method, inputs in (
        (generator, 'reconstruct', (IMAGES[..., :1],)),
        (generator, 'corrupt', (jnp.zeros((2, 4, 4, 8)), MASK[:, :2])),
        (discriminator, '__call__', (IMAGES[0],)),
    ):
        with pytest.raises(TypeCheckError, match=method):
            jax.eval_shape(partial(network.init, method=method), jax.random.key(0), *inputs)


def test_results_are_checked(monkeypatch):
    monkeypatch.setattr(jnp, 'square', lambda x: x[..., None])
    with pytest.raises(TypeCheckError, match=r'return value of .*squared_error'):
        losses.squared_error(IMAGES, IMAGES)


def _overrides(path, scope, function):
    """Whether a method is an inherited one's, whose types it has."""
    if isinstance(scope, ast.Module) or not scope.bases:
        return False
    name = '.'.join(path.relative_to(Path(artifacts_jax.__file__).parents[1]).with_suffix('').parts)
    bases = getattr(importlib.import_module(name), scope.name).__mro__[1:]
    inherited = [vars(base)[function.name] for base in bases if function.name in vars(base)]
    return any(getattr(each, 'fget', each).__annotations__ for each in inherited)


@pytest.mark.parametrize('path', MODULES, ids=lambda path: path.stem)
def test_public_functions_say_the_types_of_their_arguments(path):
    module = ast.parse(path.read_text())
    scopes = [module, *(node for node in module.body if isinstance(node, ast.ClassDef))]
    functions = [(scope, node) for scope in scopes for node in scope.body if isinstance(node, ast.FunctionDef)]
    for scope, function in functions:
        public = function.name == '__call__' or not function.name.startswith('_')
        if public and not _overrides(path, scope, function):
            each = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
            missing = [x.arg for x in each if x.annotation is None and x.arg not in UNTYPED]
            assert not missing, f'{function.name}, line {function.lineno}'
