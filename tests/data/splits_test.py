import itertools

import numpy as np
import pytest

from artifacts_jax.configs import default
from artifacts_jax.data import splits


def options(**changes):
    """The default `config.data` with changes."""
    config = default.get_config().data
    config.update(changes)
    return config


@pytest.fixture(params=['memory', 'stream'])
def load(request, photograph_folder):
    """Opens the 48 training crops of the folder of photographs, in memory and streamed."""

    def load(split='train', seed=0, **hosts):
        config = options(name=str(photograph_folder), size=16, loading=request.param, shuffle_buffer=10)
        return splits.load(config, split, seed=seed, **hosts)

    return load


def take(batches, count):
    return list(itertools.islice(batches, count))


def same(a, b):
    return all(all(np.array_equal(x[name], y[name]) for name in x | y) for x, y in zip(a, b, strict=True))


def prints(batches):
    """One number for each image that the batches' masks count: the crops are all different."""
    return [hash(x.tobytes()) for b in batches for x, keep in zip(b['image'], b.get('mask', b['index'] >= 0)) if keep]


def test_training_restarts_bit_for_bit_at_any_step(load):
    whole = take(load().train_batches(5), 25)  # 125 images: into the third epoch of 48
    for step in (1, 7, 10, 19):
        assert same(take(load().train_batches(5, start_step=step), 25 - step), whole[step:])


def test_epochs_hold_every_example_once_and_differ(load):
    seen = prints(take(load().train_batches(6), 16))  # two epochs of 48
    assert len(set(seen)) == 48
    assert set(seen[:48]) == set(seen[48:])
    assert seen[:48] != seen[48:]
    assert seen != prints(take(load(seed=1).train_batches(6), 16))
    batch = next(load().train_batches(6))
    assert batch['image'].shape == (6, 16, 16, 3)
    assert batch['image'].dtype == np.uint8
    assert set(batch['label']) <= {0, 1}
    np.testing.assert_array_equal(batch['index'], np.arange(6))


@pytest.mark.parametrize('start', [0, 7])
def test_hosts_share_every_batch_of_one_host(load, start):
    whole = take(load().train_batches(10, start_step=start), 12)  # across the ends of epochs of 48
    parts = [take(load(process_index=n, process_count=2).train_batches(10, start_step=start), 12) for n in (0, 1)]
    joined = [{name: np.concatenate([a[name], b[name]]) for name in a} for a, b in zip(*parts)]
    assert same(joined, whole)


@pytest.mark.parametrize(('count', 'limit'), [(1, 0), (2, 0), (3, 0), (1, 11), (3, 11)])
def test_evaluation_counts_every_example_once(load, count, limit):
    hosts = [load(split='test', process_index=n, process_count=count) for n in range(count)]
    batches = [list(host.eval_batches(6, limit=limit)) for host in hosts]
    assert {len(b) for b in batches} == {host.eval_steps(6, limit) for host in hosts}
    assert len({len(b) for b in batches}) == 1
    examples = [i for host in batches for b in host for i in b['index'][b['mask']]]
    assert sorted(examples) == list(range(limit or 20))
    everything = prints(itertools.chain.from_iterable(batches))
    assert len(everything) == len(set(everything)) == (limit or 20)
    assert all(len(b['image']) == 6 // count and not b['image'][~b['mask']].any() for h in batches for b in h)


@pytest.mark.parametrize('limit', [1, 5, 19, 20, 21])
def test_evaluation_ends_with_the_limit_or_the_data(load, limit):
    dataset, count = load(split='test'), min(limit, 20)
    batches = list(dataset.eval_batches(5, limit=limit))
    assert len(batches) == dataset.eval_steps(5, limit) == -(-count // 5)
    np.testing.assert_array_equal(np.concatenate([b['index'][b['mask']] for b in batches]), np.arange(count))
    assert len(prints(batches)) == count


def test_batches_run_across_the_ends_of_epochs(load):
    seen = prints(take(load().train_batches(5), 20))
    assert len(set(seen[:48])) == len(set(seen[48:96])) == 48


def test_one_example_is_enough():
    one = splits.InMemory(np.full((1, 2, 2, 3), 7, np.uint8), np.zeros(1, np.int32), ('a',), 0)
    assert one.num_classes == 1
    for batch in take(one.train_batches(3), 2):
        assert (batch['image'] == 7).all()
        np.testing.assert_array_equal(batch['index'], np.arange(3))
    (batch,) = one.eval_batches(3)
    np.testing.assert_array_equal(batch['mask'], [True, False, False])
    np.testing.assert_array_equal(batch['image'][:, 0, 0, 0], [7, 0, 0])


def test_both_ways_read_the_same_examples(photograph_folder):
    memory, stream = (
        splits.load(options(name=str(photograph_folder), size=16, loading=loading), 'test', seed=0)
        for loading in ('memory', 'stream')
    )
    assert same(memory.eval_batches(6), stream.eval_batches(6))


def test_large_splits_are_streamed(photograph_folder):
    size = 48 * 16 * 16 * 3 / 1e9
    for limit, kind in ((size, splits.InMemory), (0.9 * size, splits.Streamed)):
        config = options(name=str(photograph_folder), size=16, memory_limit_gb=limit)
        assert isinstance(splits.load(config, 'train', seed=0), kind)


def test_positions_beyond_32_bits(load):
    epoch = take(load().train_batches(6, start_step=2**31), 8)  # 48 examples, over the ends of two epochs
    assert np.isin(prints(epoch), prints(load().eval_batches(6))).all()


def test_batch_that_does_not_divide_by_the_hosts(load):
    with pytest.raises(splits.DataError, match='batch_size=7 does not divide by the 2 hosts'):
        next(load(process_count=2).train_batches(7))


def test_a_subset_is_a_data_set_of_its_own(photograph_folder):
    config = options(name=str(photograph_folder), size=16, loading='memory')
    whole, chosen = splits.load(config, 'train', seed=0), np.array([40, 3, 7])
    part = whole.subset(chosen)
    assert (part.num_examples, part.num_classes) == (3, 2)
    (batch,) = part.eval_batches(4)
    np.testing.assert_array_equal(batch['image'][:3], whole.images[chosen])
    np.testing.assert_array_equal(batch['label'][:3], whole.labels[chosen])
    seen = prints(take(part.train_batches(3), 2))
    assert set(seen[:3]) == set(seen[3:]) == set(prints([batch]))
    np.testing.assert_array_equal(splits.original_order(config, 'train'), np.arange(48))  # a folder's is the order read


def test_a_subset_of_streamed_data_is_refused(photograph_folder):
    stream = splits.load(options(name=str(photograph_folder), size=16, loading='stream'), 'train', seed=0)
    with pytest.raises(splits.DataError, match=r'which is streamed: set data\.loading=memory'):
        stream.subset(np.arange(3))


@pytest.mark.parametrize('labels', [[-1, -1], [0, -1]])
def test_labels_that_a_stage_needs(labels):
    config, images = options(name='mine', test='train[90%:]'), np.zeros((2, 16, 16, 3), np.uint8)
    dataset = splits.InMemory(images, np.array(labels, np.int32), ('a',), 0)
    with pytest.raises(
        splits.DataError, match=r"'train\[90%:\]' of mine has no labels, .* which probe needs: set data.test"
    ):
        splits.classes(config, 'test', dataset, stage='probe')
    assert splits.classes(config, 'test', splits.InMemory(images, np.zeros(2, np.int32), ('a',), 0), stage='probe') == 1
