import jax
import numpy as np
import pytest

from artifacts_jax.devices.parallel import Devices
from artifacts_jax.drawing import grids
from artifacts_jax.models import architecture
from artifacts_jax.pretraining import artifacts, held_out


@pytest.fixture
def many(config):
    """Held-out images, and the config's masks of them for the key 0."""
    images = np.random.default_rng(0).integers(0, 256, (32, 16, 16, 3), dtype=np.uint8)
    return {'image': images, 'index': np.arange(32, dtype=np.int32)}


def test_every_held_out_image_has_a_mask_of_its_own_the_same_at_every_evaluation(config, many):
    _, masks = held_out._views(config, many, jax.random.key(0))
    assert masks.shape == (32, *architecture.mask_grid(config), 1)
    assert len({mask.tobytes() for mask in np.asarray(masks)}) == 32
    assert abs(float(1 - masks.mean()) - config.artifacts.drop_rate) < 0.08
    part = {name: x[[5, 17]] for name, x in many.items()}
    np.testing.assert_array_equal(held_out._views(config, part, jax.random.key(0))[1], masks[np.array([5, 17])])
    assert not np.array_equal(held_out._views(config, many, jax.random.key(1))[1], masks)


@pytest.mark.parametrize(('rate', 'kept'), [(0.0, 1.0), (1.0, 0.0)])
def test_at_the_ends_of_the_drop_rate_all_or_nothing_is_kept(config, many, rate, kept):
    config.artifacts.drop_rate = rate
    assert (np.asarray(held_out._views(config, many, jax.random.key(0))[1]) == kept).all()


class Dataset:
    """A test split of these images."""

    num_classes = 0

    def __init__(self, batch):
        self.batch = batch

    def train_batches(self, size, start_step=0):
        yield {**{name: x[:size] for name, x in self.batch.items()}, 'label': np.zeros(size, np.int32)}

    def eval_batches(self, size, limit=0):
        for start in range(0, limit or len(self.batch['index']), size):
            part = {name: x[start : start + size] for name, x in self.batch.items()}
            yield {**part, 'label': np.full(size, -1, np.int32), 'mask': np.ones(size, bool)}


def test_figures_show_as_many_masks_as_images(config, many, stage_states, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(grids, 'image_grid', lambda path, columns, title: drawn.update(columns))
    monkeypatch.setattr(grids, 'mask_prediction', lambda path, fake, real, mask, **options: drawn.update(mask=mask))
    monkeypatch.setattr(grids, 'filters', lambda *given, **options: None)
    draw = held_out.illustrator(config, Devices('jit'), {'test': Dataset(many)}, examples=8)
    draw(stage_states[artifacts], jax.random.key(0), tmp_path)
    masks = np.asarray(drawn[held_out.COLUMNS[1]])
    assert len(masks) == len({mask.tobytes() for mask in masks}) == 8
    np.testing.assert_array_equal(drawn['mask'], masks)


@pytest.mark.parametrize(
    ('labels', 'picked'),
    [
        ([0, 0, 0, 1, 1, 2], [0, 3, 5, 1]),
        ([0, 0, 0, 0, 0, 0], [0, 1, 2, 3]),
        ([-1, -1, -1, -1, -1, -1], [0, 1, 2, 3]),
        ([3, 2, 1, 0, 3, 2], [0, 1, 2, 3]),
    ],
)
def test_figures_show_as_many_labels_as_there_are(labels, picked):
    np.testing.assert_array_equal(held_out._varied(np.array(labels), 4), picked)


def test_evaluation_is_of_a_mask_for_each_image(config, many, stage_states, monkeypatch):
    seen = []
    monkeypatch.setattr(held_out.metrics, 'auc', lambda logits, kept: seen.append(kept) or 0.5)
    config.eval_examples = 32
    datasets = {'test': Dataset(many), 'probe_train': Dataset(many)}
    held_out.evaluator(config, Devices('jit'), datasets)(stage_states[artifacts], jax.random.key(0))
    _, masks = held_out._views(config, many, jax.random.key(0))
    np.testing.assert_array_equal(np.asarray(seen[0]).reshape(masks.shape), masks > 0)
