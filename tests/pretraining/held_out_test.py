import jax
import numpy as np
import pytest

from artifacts_jax.data import splits
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.drawing import grids
from artifacts_jax.models import architecture
from artifacts_jax.pretraining import artifacts, autoencoder, held_out
from artifacts_jax.training import keys, loop


def data_set(labels, *, process_index=0, process_count=1):
    """A data set whose images contain their position; later images have more contrast."""
    images = np.zeros((len(labels), 2, 2, 3), np.uint8)
    images[:, 0, 0] = np.arange(len(labels))[:, None]
    return splits.InMemory(
        images, np.array(labels, np.int32), (), seed=0, process_index=process_index, process_count=process_count
    )


def positions(batch):
    return batch['image'][:, 0, 0, 0].tolist()


def test_plotted_images_cover_all_classes_first_and_have_the_most_contrast():
    dataset = data_set([0] * 26 + [1] * 4 + [2] * 2)
    batch = held_out.choose_images(dataset, 4)
    assert positions(batch) == [31, 29, 25, 30]
    assert batch['label'].tolist() == [2, 1, 0, 2]
    pool = next(dataset.train_batches(32))
    np.testing.assert_array_equal(batch['index'], [positions(pool).index(position) for position in positions(batch)])


def test_plotted_images_without_labels_have_the_most_contrast():
    assert positions(held_out.choose_images(data_set([-1] * 40), 5)) == [39, 38, 37, 36, 35]


def test_copies_are_plotted_only_if_there_are_no_other_images():
    assert positions(held_out.choose_images(data_set([0] * 3 + [1]), 4)) == [3, 2, 1, 0]
    assert sorted(positions(held_out.choose_images(data_set([0, 1]), 3))) in ([0, 0, 1], [0, 1, 1])


def test_another_batch_has_other_plotted_images():
    dataset = data_set([n % 4 for n in range(128)])
    plotted = [positions(held_out.choose_images(dataset, 4, first_batch=n)) for n in range(4)]
    assert len({position for batch in plotted for position in batch}) == 16


def test_hosts_plot_different_images():
    batches = [held_out.choose_images(data_set([0, 1] * 32, process_index=n, process_count=2), 8) for n in (0, 1)]
    assert [len(batch['label']) for batch in batches] == [4, 4]
    assert not set(positions(batches[0])) & set(positions(batches[1]))


@pytest.mark.slow
@pytest.mark.parametrize('mapping', ['jit', pytest.param('pmap', marks=pytest.mark.nightly)])
def test_the_title_of_the_mask_figure_gives_the_auc_over_all_held_out_images(
    mapping, config, stage_states, photograph_folder, tmp_path, monkeypatch
):
    config.data.name = str(photograph_folder)
    devices, datasets = Devices(mapping), splits.Datasets(config)
    state, key = (
        loop.make_initial_state(artifacts, config, devices, stage_states[autoencoder].variables),
        keys.stage_key(0, 'x'),
    )
    titles = []
    monkeypatch.setattr(held_out.grids, 'plot_mask_prediction', lambda *_, title, **options: titles.append(title))
    held_out.make_plotter(config, devices, datasets, examples=2)(state, key, tmp_path)
    auc = held_out.make_evaluator(config, devices, datasets)(state, key)['mask_auc']
    assert f'{auc:.2f} over 16 images' in titles[0]


@pytest.fixture
def many(config):
    """Held-out images, and the config's masks of them for the key 0."""
    images = np.random.default_rng(0).integers(0, 256, (32, 16, 16, 3), dtype=np.uint8)
    return {'image': images, 'index': np.arange(32, dtype=np.int32)}


def test_each_held_out_image_has_its_own_mask_which_is_the_same_at_every_evaluation(config, many):
    _, masks = held_out._preprocess(config, many, jax.random.key(0))
    assert masks.shape == (32, *architecture.mask_grid(config), 1)
    assert len({mask.tobytes() for mask in np.asarray(masks)}) == 32
    assert abs(float(1 - masks.mean()) - config.artifacts.drop_rate) < 0.08
    part = {name: x[[5, 17]] for name, x in many.items()}
    np.testing.assert_array_equal(held_out._preprocess(config, part, jax.random.key(0))[1], masks[np.array([5, 17])])
    assert not np.array_equal(held_out._preprocess(config, many, jax.random.key(1))[1], masks)


@pytest.mark.parametrize(('rate', 'kept'), [(0.0, 1.0), (1.0, 0.0)])
def test_drop_rates_0_and_1_keep_all_and_no_entries(config, many, rate, kept):
    config.artifacts.drop_rate = rate
    assert (np.asarray(held_out._preprocess(config, many, jax.random.key(0))[1]) == kept).all()


def as_split(batch):
    return splits.InMemory(batch['image'], np.full(len(batch['image']), -1, np.int32), (), seed=0)


def test_figures_show_as_many_masks_as_images(config, many, stage_states, tmp_path, monkeypatch):
    plotted = {}
    monkeypatch.setattr(grids, 'plot_image_grid', lambda path, columns, title: plotted.update(columns))
    monkeypatch.setattr(
        grids, 'plot_mask_prediction', lambda path, fake, real, mask, **options: plotted.update(mask=mask)
    )
    monkeypatch.setattr(grids, 'plot_filters', lambda *arguments, **options: None)
    plot = held_out.make_plotter(config, Devices('jit'), {'test': as_split(many)}, examples=8)
    plot(stage_states[artifacts], jax.random.key(0), tmp_path)
    masks = np.asarray(plotted[held_out.COLUMNS[1]])
    assert len(masks) == len({mask.tobytes() for mask in masks}) == 8
    np.testing.assert_array_equal(plotted['mask'], masks)


def test_evaluation_uses_a_mask_for_each_image(config, many, stage_states, monkeypatch):
    masks_of_auc = []
    monkeypatch.setattr(held_out.metrics, 'auc', lambda logits, kept: masks_of_auc.append(kept) or 0.5)
    config.eval_examples = 32
    datasets = {'test': as_split(many), 'probe_train': as_split(many)}
    held_out.make_evaluator(config, Devices('jit'), datasets)(stage_states[artifacts], jax.random.key(0))
    _, masks = held_out._preprocess(config, many, jax.random.key(0))
    np.testing.assert_array_equal(np.asarray(masks_of_auc[0]).reshape(masks.shape), masks > 0)
