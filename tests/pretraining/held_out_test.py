import numpy as np
import pytest

from artifacts_jax import pipeline
from artifacts_jax.data import splits
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.pretraining import artifacts, autoencoder, held_out
from artifacts_jax.training import keys, loop


def data_set(labels, *, process_index=0, process_count=1):
    """A data set of images, the later the more contrast, that say where they stand."""
    images = np.zeros((len(labels), 2, 2, 3), np.uint8)
    images[:, 0, 0] = np.arange(len(labels))[:, None]
    return splits.InMemory(images, np.array(labels, np.int32), (), 0, process_index, process_count)


def places(batch):
    return batch['image'][:, 0, 0, 0].tolist()


def test_images_to_draw_are_of_every_class_before_any_is_shown_again_those_of_most_contrast():
    dataset = data_set([0] * 26 + [1] * 4 + [2] * 2)
    batch = held_out.shown(dataset, 4)
    assert places(batch) == [31, 29, 25, 30]
    assert batch['label'].tolist() == [2, 1, 0, 2]
    pool = next(dataset.train_batches(32))
    np.testing.assert_array_equal(batch['index'], [places(pool).index(place) for place in places(batch)])


def test_images_to_draw_without_labels_are_those_of_most_contrast():
    assert places(held_out.shown(data_set([-1] * 40), 5)) == [39, 38, 37, 36, 35]


def test_no_image_is_drawn_twice_while_there_are_others():
    assert places(held_out.shown(data_set([0] * 3 + [1]), 4)) == [3, 2, 1, 0]
    assert sorted(places(held_out.shown(data_set([0, 1]), 3))) in ([0, 0, 1], [0, 1, 1])


def test_another_batch_has_other_images_to_draw():
    dataset = data_set([n % 4 for n in range(128)])
    drawn = [places(held_out.shown(dataset, 4, first_batch=n)) for n in range(4)]
    assert len({place for batch in drawn for place in batch}) == 16


def test_hosts_draw_their_own_images():
    parts = [held_out.shown(data_set([0, 1] * 32, process_index=n, process_count=2), 8) for n in (0, 1)]
    assert [len(part['label']) for part in parts] == [4, 4]
    assert not set(places(parts[0])) & set(places(parts[1]))


@pytest.mark.parametrize('mapping', ['jit', 'pmap'])
def test_the_figure_of_masks_says_how_much_is_found_of_all_held_out_images(
    mapping, config, stage_states, photograph_folder, tmp_path, monkeypatch
):
    config.data.name = str(photograph_folder)
    devices, datasets = Devices(mapping), pipeline.Datasets(config)
    state, key = loop.initial(artifacts, config, devices, stage_states[autoencoder].variables), keys.stage_key(0, 'x')
    titles = []
    monkeypatch.setattr(held_out.grids, 'mask_prediction', lambda *_, title, **options: titles.append(title))
    held_out.illustrator(config, devices, datasets, examples=2)(state, key, tmp_path)
    found = held_out.evaluator(config, devices, datasets)(state, key)['mask_auc']
    assert f'{found:.2f} over 16 images' in titles[0]
