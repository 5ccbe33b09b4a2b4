import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from artifacts_jax.configs import default
from artifacts_jax.data import skipped, sources, splits
from artifacts_jax.data.reading import CHUNK


def options(**changes):
    """Returns the default `config.data` with changes."""
    config = default.get_config().data
    config.update(changes)
    return config


@pytest.fixture(params=['memory', 'stream'])
def load(request, photograph_folder):
    """Loads the 48 training crops of the folder of photographs, in memory and streamed."""

    def load(split='train', seed=0, **hosts):
        config = options(name=str(photograph_folder), size=16, loading=request.param)
        return splits.load(config, split, seed=seed, **hosts)

    return load


def take(batches, count):
    return list(itertools.islice(batches, count))


def same(a, b):
    return all(all(np.array_equal(x[name], y[name]) for name in x | y) for x, y in zip(a, b, strict=True))


def prints(batches):
    """Returns one number for each valid image of the batches; all crops have different numbers."""
    return [hash(x.tobytes()) for b in batches for x, keep in zip(b['image'], b.get('valid', b['index'] >= 0)) if keep]


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
    examples = [i for host in batches for b in host for i in b['index'][b['valid']]]
    assert sorted(examples) == list(range(limit or 20))
    everything = prints(itertools.chain.from_iterable(batches))
    assert len(everything) == len(set(everything)) == (limit or 20)
    assert all(len(b['image']) == 6 // count and not b['image'][~b['valid']].any() for h in batches for b in h)


@pytest.mark.parametrize('limit', [1, 5, 19, 20, 21])
def test_evaluation_ends_with_the_limit_or_the_data(load, limit):
    dataset, count = load(split='test'), min(limit, 20)
    batches = list(dataset.eval_batches(5, limit=limit))
    assert len(batches) == dataset.eval_steps(5, limit) == -(-count // 5)
    np.testing.assert_array_equal(np.concatenate([b['index'][b['valid']] for b in batches]), np.arange(count))
    assert len(prints(batches)) == count


def test_batches_run_across_the_ends_of_epochs(load):
    seen = prints(take(load().train_batches(5), 20))
    assert len(set(seen[:48])) == len(set(seen[48:96])) == 48


def test_one_example_is_enough():
    one = splits.InMemory(np.full((1, 2, 2, 3), 7, np.uint8), np.zeros(1, np.int32), ('a',), seed=0)
    assert one.num_classes == 1
    for batch in take(one.train_batches(3), 2):
        assert (batch['image'] == 7).all()
        np.testing.assert_array_equal(batch['index'], np.arange(3))
    (batch,) = one.eval_batches(3)
    np.testing.assert_array_equal(batch['valid'], [True, False, False])
    np.testing.assert_array_equal(batch['image'][:, 0, 0, 0], [7, 0, 0])


def test_memory_and_stream_give_the_same_batches(photograph_folder):
    memory, stream = (
        splits.load(options(name=str(photograph_folder), size=16, loading=loading, workers=3), 'train', seed=0)
        for loading in ('memory', 'stream')
    )
    assert same(memory.eval_batches(6), stream.eval_batches(6))
    assert same(take(memory.train_batches(7, start_step=5), 20), take(stream.train_batches(7, start_step=5), 20))


class Counted:
    """A source that makes grey images on demand and records the indices that were read."""

    label_names = ('a',)

    def __init__(self, count):
        self.count, self.read = count, []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.read.append(int(index))
        return sources.Example(np.full((4, 4, 3), index % 251, np.uint8), 0, str(index))


def counted(count, **options):
    source = Counted(count)
    return source, splits.Streamed.create(source, 4, ('a',), workers=1, seed=0, **options)


def test_hosts_read_only_their_slice():
    ahead = 4 * CHUNK
    reads = []
    for host in range(4):
        source, dataset = counted(512, process_index=host, process_count=4)
        batches = dataset.train_batches(16)
        _ = take(batches, 32)  # an epoch
        batches.close()
        assert 128 <= len(source.read) <= 128 + ahead
        assert len(set(source.read[:128])) == 128
        reads.append(source.read[:128])
        source, dataset = counted(512, process_index=host, process_count=4)
        list(dataset.eval_batches(16))
        assert len(source.read) == 128
    assert sorted(itertools.chain(*reads)) == list(range(512))


def test_a_resumed_run_reads_no_earlier_batch():
    source, dataset = counted(1_000_000)
    batches = dataset.train_batches(100, start_step=9000)
    next(batches)
    batches.close()
    assert len(source.read) <= 100 + 16 * CHUNK


def test_every_epoch_is_a_permutation_of_the_whole_split():
    _, dataset = counted(1000)
    epochs = np.array([[dataset._row(1000 * epoch + n) for n in range(1000)] for epoch in range(3)])
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(1000))
        # Far from where they were: within a buffer of a tenth, as of a shuffle of a stream, most would be near.
        assert 250 < np.abs(epoch - np.arange(1000)).mean() < 420
    assert all(abs(np.corrcoef(*epochs[[a, b]])[0, 1]) < 0.15 for a, b in ((0, 1), (1, 2), (0, 2)))


def test_large_splits_are_streamed(photograph_folder):
    size = 48 * 16 * 16 * 3 / 1e9
    for limit, kind in ((size, splits.InMemory), (0.9 * size, splits.Streamed)):
        config = options(name=str(photograph_folder), size=16, memory_limit_gb=limit)
        assert isinstance(splits.load(config, 'train', seed=0), kind)


def test_val_and_validation_are_aliases(photograph_folder, tmp_path, capsys):
    for name, source in (('train', 'train'), ('val', 'test')):
        (tmp_path / name).symlink_to(photograph_folder / source)
    config = options(name=str(tmp_path), size=16, test='validation')
    opened = splits.load(config, 'validation', seed=0)
    assert (opened.num_examples, opened.skipped.split) == (20, f'val of {tmp_path}')
    assert 'is used instead' not in capsys.readouterr().out
    with pytest.raises(splits.DataError, match=r"no split 'test'; it has: train, val"):
        splits.load(config, 'test', seed=0)


def test_positions_beyond_32_bits(load):
    epoch = take(load().train_batches(6, start_step=2**31), 8)  # 48 examples, over the ends of two epochs
    assert np.isin(prints(epoch), prints(load().eval_batches(6))).all()


def test_a_batch_size_that_is_not_a_multiple_of_the_hosts_is_an_error(load):
    with pytest.raises(splits.DataError, match='batch_size=7 is not divisible by the 2 hosts'):
        next(load(process_count=2).train_batches(7))


def test_a_subset_is_a_new_data_set(photograph_folder):
    config = options(name=str(photograph_folder), size=16, loading='memory')
    whole, chosen = splits.load(config, 'train', seed=0), np.array([40, 3, 7])
    part = whole.subset(chosen)
    assert (part.num_examples, part.num_classes) == (3, 2)
    (batch,) = part.eval_batches(4)
    np.testing.assert_array_equal(batch['image'][:3], whole.images[chosen])
    np.testing.assert_array_equal(batch['label'][:3], whole.labels[chosen])
    seen = prints(take(part.train_batches(3), 2))
    assert set(seen[:3]) == set(seen[3:]) == set(prints([batch]))


def test_a_subset_of_streamed_data_is_an_error(photograph_folder):
    stream = splits.load(options(name=str(photograph_folder), size=16, loading='stream'), 'train', seed=0)
    with pytest.raises(splits.DataError, match=r'is streamed: set data\.loading=memory'):
        stream.subset(np.arange(3))


@pytest.mark.parametrize('labels', [[-1, -1], [0, -1]])
def test_labels_that_a_stage_needs(labels):
    config, images = options(name='mine', test='train[90%:]'), np.zeros((2, 16, 16, 3), np.uint8)
    dataset = splits.InMemory(images, np.array(labels, np.int32), ('a',), seed=0)
    with pytest.raises(
        splits.DataError,
        match=r'^data.test=train\[90%:\]: this split of mine has images without labels, .*set data.test',
    ):
        splits.count_classes(config, 'test', dataset, stage='probe')
    labelled = splits.InMemory(images, np.zeros(2, np.int32), ('a',), seed=0)
    assert splits.count_classes(config, 'test', labelled, stage='probe') == 1


@pytest.fixture
def damaged_folder(tmp_path):
    """A folder of damaged images and four usable ones, whose names begin with 'whole'."""
    folder = tmp_path / 'train' / 'ramp'
    folder.mkdir(parents=True)
    ramp = np.resize(np.arange(96, dtype=np.uint8), (16, 16))
    images = {
        'whole grey.png': ramp,
        'whole RGBA.png': np.stack([ramp] * 3 + [ramp // 2], axis=-1),
        'whole 1x1.png': ramp[5:6, 5:6],
        'whole colour.jpg': np.stack([ramp] * 3, axis=-1),
        'cut.png': ramp,
        'cut.jpg': ramp,
    }
    for name, image in images.items():
        PIL.Image.fromarray(np.ascontiguousarray(image)).save(folder / name)
        if name.startswith('cut'):
            (folder / name).write_bytes((folder / name).read_bytes()[:40])
    (folder / 'empty.png').write_bytes(b'')
    (folder / 'text.jpg').write_text('no image')
    return tmp_path


@pytest.mark.parametrize('loading', ['memory', 'stream'])
def test_unusable_images_are_skipped_and_listed_once(damaged_folder, loading, tmp_path, capsys):
    config = options(name=str(damaged_folder), size=16, loading=loading, test='train')
    dataset, file = splits.load(config, 'train', seed=0), tmp_path / 'skipped.tsv'
    for _ in range(2):
        batches = list(dataset.eval_batches(3))
        assert sum(batch['valid'].sum() for batch in batches) == 4
        dataset.skipped.write_to(file)
    assert len(dataset.skipped) == dataset.num_used == 4
    lines = [line.split('\t') for line in file.read_text().splitlines()]
    assert {Path(name).name for _, name, _ in lines} == {'cut.png', 'cut.jpg', 'empty.png', 'text.jpg'}
    assert len(lines) == 4
    assert all(place == f'train of {damaged_folder}' and reason for place, _, reason in lines)
    (warning,) = capsys.readouterr().err.splitlines()
    assert f'skipped {4 if loading == "memory" else 1} of 8 images of train of' in warning
    images = {image.tobytes() for b in batches for image, keep in zip(b['image'], b['valid']) if keep}
    first = take(dataset.train_batches(8), 4)
    assert {image.tobytes() for batch in first for image in batch['image']} == images
    assert same(first[2:], take(dataset.train_batches(8, start_step=2), 2))


def test_an_example_is_listed_once_over_several_runs(tmp_path):
    file = tmp_path / 'skipped.tsv'
    for names in ('ab', 'bc'):
        record = skipped.SkippedExamples('train', 10)
        record.add(names[0], 'a reason')
        record.write_to(file)
        record.add(names[1], 'a reason')
    assert file.read_text() == 'train\ta\ta reason\ntrain\tb\ta reason\ntrain\tc\ta reason\n'


def test_skipped_examples_of_earlier_runs_and_other_processes_are_counted(tmp_path):
    first, second, other = (skipped.SkippedExamples(place, 10) for place in ('train  of', 'train  of', 'test'))
    for record, names in ((first, ('a', 'b')), (second, ('b', 'c  d')), (other, ('e',))):
        record.write_to(tmp_path / 'skipped.tsv')
        for name in names:
            record.add(name, 'a reason')
    assert [record.count_all() for record in (first, second, other)] == [3, 3, 1]
    assert len(first) == 2


def test_streamed_data_report_the_1st_10th_and_100th_skipped_example(capsys):
    record = skipped.SkippedExamples('train', 1000, live=True)
    for n in range(150):
        record.add(f'{n}.png', 'a reason')
    output = [line.split(' of ')[0] for line in capsys.readouterr().err.splitlines()]
    assert output == [f'warning: skipped {n}' for n in (1, 10, 100)]


@pytest.mark.parametrize('loading', ['memory', 'stream'])
def test_a_split_without_a_usable_image_is_an_error(tmp_path, loading):
    for n in range(3):
        (tmp_path / f'{n}.png').write_bytes(b'')
    with pytest.raises(
        splits.DataError, match=r'train of .*: none of the checked images can be used: \d.png \(it is empty\)'
    ):
        splits.load(options(name=str(tmp_path), size=16, loading=loading, test='train'), 'train', seed=0)


def test_a_file_that_is_deleted_during_streaming_is_skipped(tmp_path):
    for n in range(40):
        PIL.Image.fromarray(np.full((8, 8, 3), n, np.uint8)).save(tmp_path / f'{n}.png')
    dataset = splits.load(options(name=str(tmp_path), size=8, loading='stream', test='train'), 'train', seed=0)
    (tmp_path / '7.png').unlink()
    seen = {image[0, 0, 0] for batch in take(dataset.train_batches(8), 10) for image in batch['image']}
    assert seen == set(range(40)) - {7}
    assert len(dataset.skipped) == 1


def test_other_modes_than_rgb_are_reported(tmp_path, capsys):
    for n in range(4):
        PIL.Image.fromarray(np.full((8, 8), n, np.uint8)).save(tmp_path / f'{n}.png')
    splits.load(options(name=str(tmp_path), size=8, test='train'), 'train', seed=0)
    assert 'of 4 checked images, 4 have mode L' in capsys.readouterr().out


@pytest.mark.slow
def test_importing_costs_no_tensorflow():
    imports = 'artifacts_jax.pretraining.artifacts, artifacts_jax.data.splits, artifacts_jax.training.report'
    code = f'import sys, {imports}; sys.exit("tensorflow" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0


def test_several_processes_list_each_skipped_example_once(tmp_path):
    records = [skipped.SkippedExamples('train', 10, live=True) for _ in range(3)]
    for record in records:
        record.write_to(tmp_path / 'skipped.tsv')
    for name in 'aba':
        for record in records:
            record.add(name, 'a reason')
    assert (tmp_path / 'skipped.tsv').read_text() == 'train\ta\ta reason\ntrain\tb\ta reason\n'
