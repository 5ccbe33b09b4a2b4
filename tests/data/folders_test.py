import json
import os
import unicodedata
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from artifacts_jax.data import folders, splits
from tests.data.splits_test import options


@pytest.fixture
def make(tmp_path):
    """Writes files into tmp_path/images, where all images are different, and returns the folder."""
    root = tmp_path / 'images'
    root.mkdir()

    def make(*names, content=None):
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                number = int.from_bytes(os.fsencode(name)[-3:], 'big')
                PIL.Image.fromarray(np.full((8, 8, 3), number % 251, np.uint8)).save(path, 'PNG')
            else:
                path.write_bytes(content)
        return root

    return make


def result(root, **changes):
    """Returns {split: {path: class}} of a folder; the class is None for images without a label."""
    data = splits.open_data(options(name=str(root), **changes))
    return {
        split: {p: files.label_names[n] if n >= 0 else None for p, n in zip(files.paths, files.labels)}
        for split, files in data.items()
    }


def names(*folder_names):
    return [f'{folder}/{n}.png' for folder in folder_names for n in range(2)]


def test_splits_and_classes(make):
    root = make(*names('train/cat', 'train/dog', 'test/cat'))
    assert {split: set(files.values()) for split, files in result(root).items()} == {
        'test': {'cat'},
        'train': {'cat', 'dog'},
    }
    assert splits.load(options(name=str(root), size=8), 'test', seed=0).label_names == ('cat', 'dog')


def test_classes_without_splits_are_the_split_train(make):
    assert result(make(*names('cat', 'dog'))) == {
        'train': {'cat/0.png': 'cat', 'cat/1.png': 'cat', 'dog/0.png': 'dog', 'dog/1.png': 'dog'}
    }


def test_splits_without_classes(make):
    root = make(*names('train', 'test'))
    assert result(root) == {'train': dict.fromkeys(names('train')), 'test': dict.fromkeys(names('test'))}
    assert splits.load(options(name=str(root), size=8), 'train', seed=0).num_classes == 0


def test_a_flat_folder(make):
    assert result(make('a.png', 'b b.PNG', 'ü.Jpg')) == {'train': dict.fromkeys(['a.png', 'b b.PNG', 'ü.Jpg'])}


def test_deeper_folders_belong_to_the_first(make):
    root = make('train/animals/dogs/0.png', 'train/animals/1.png', 'train/plants/a/b/c/2.png', 'train/3.png')
    assert result(root) == {
        'train': {
            'train/animals/dogs/0.png': 'animals',
            'train/animals/1.png': 'animals',
            'train/plants/a/b/c/2.png': 'plants',
            'train/3.png': None,
        }
    }


@pytest.mark.parametrize('name', ['Train', 'mine'])
def test_splits_by_other_names(make, name):
    root = make(*names(f'{name}/cat', 'held out/cat'))
    assert set(result(root, train=name.lower(), test='held-out')) == {name.lower(), 'held out'}


def test_images_outside_of_the_splits_are_reported(make, capsys):
    root = make(*names('train/cat'), 'logo.png')
    assert len(result(root)['train']) == 2
    assert '1 images outside of the split folders are not used' in capsys.readouterr().out


RESIDUE = ['.ipynb_checkpoints', '__MACOSX', '@eaDir', '.Trash', '__pycache__', '$RECYCLE.BIN', 'lost+found']


def test_hidden_and_system_files_are_ignored(make, capsys):
    root = make(*names('cat'), *(f'{name}/x.png' for name in RESIDUE), 'cat/._0.png', 'cat/.hidden.png')
    make('.DS_Store', 'cat/.DS_Store', 'Thumbs.db', 'cat/desktop.ini', 'README.md', 'cat/0.txt', 'x', content=b'x')
    (root / 'empty').mkdir()
    assert result(root) == {'train': {'cat/0.png': 'cat', 'cat/1.png': 'cat'}}
    output = capsys.readouterr().out
    assert output.endswith(
        '2 images in train; 1 class; 3 files are not images (1 *.md, 1 *.txt, 1 without extension)\n'
    )


@pytest.mark.parametrize(
    'suffix', ['.jpg', '.JPEG', '.jfif', '.webp', '.tif', '.TIFF', '.bmp', '.ppm', '.gif', '.avif']
)
def test_extensions(make, suffix):
    assert list(result(make(f'cat/0{suffix}'))['train']) == [f'cat/0{suffix}']


def test_two_unicode_forms_of_a_name_are_one_class(make):
    composed = unicodedata.normalize('NFC', 'café')
    root = make(f'train/{composed}/0.png', f'test/{unicodedata.normalize("NFD", composed)}/0.png')
    assert {name for files in result(root).values() for name in files.values()} == {composed}


def test_links(make, tmp_path):
    root = make(*names('train/cat'))
    (tmp_path / 'elsewhere').mkdir()
    (root / 'train/cat/0.png').rename(tmp_path / 'elsewhere/0.png')
    (root / 'train/cat/0.png').symlink_to(tmp_path / 'elsewhere/0.png')
    (root / 'train/dog').symlink_to(tmp_path / 'elsewhere')
    (root / 'test').symlink_to(root / 'train')
    (root / 'train/cat/loop').symlink_to(root)
    (root / 'train/cat/gone.png').symlink_to('/nowhere.png')
    files = result(root)
    assert {path.removeprefix('train/') for path in files['train']} == {
        'cat/0.png', 'cat/1.png', 'cat/gone.png', 'dog/0.png'
    }  # fmt: skip
    assert set(files['test'].values()) == {'cat', 'dog'}
    dataset = splits.load(options(name=str(root), size=8), 'train', seed=0)
    assert dataset.num_examples == 3
    assert len(dataset.skipped) == 1


def test_a_folder_with_the_name_of_an_image(make):
    assert result(make('album.jpg/0.png')) == {'train': {'album.jpg/0.png': 'album.jpg'}}


def test_work_directories_are_never_read(make, tmp_path):
    root = make(*names('cat', 'dog'))
    for folder in ('runs/mine', 'export'):
        make(f'{folder}/figures/mask.png')
        config = options().to_dict()
        saved = {'data': config, 'model': {}} if 'runs' in folder else {'config': {'data': config, 'model': {}}}
        (root / folder / 'config.json').write_text(json.dumps(saved))
    make('study/autoencoder/1a2b/figures/autoencoder.png')
    make('study/autoencoder/1a2b/autoencoder/metrics.jsonl', content=b'')
    assert set(result(root)['train'].values()) == {'cat', 'dog'}
    make('dog/figures/0.png')  # of no run
    (root / 'dog' / 'config.json').write_text('[1, 2]')
    assert len(result(root)['train']) == 5


def test_unreadable_folders_are_reported(make, capsys, monkeypatch):
    root = make(*names('cat', 'dog'))
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith('dog'):
            raise PermissionError(13, 'Permission denied', str(path))
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', refuse)
    assert len(result(root)['train']) == 2
    assert '1 folders cannot be read, such as ' in capsys.readouterr().out


@pytest.mark.parametrize('files', [(), ('notes.txt', 'a.mp4')])
def test_a_folder_without_images(make, files):
    root = make(*files, content=b'x')
    with pytest.raises(
        splits.DataError, match=r'has no images.*' + (r'\(1 \*.mp4, 1 \*.txt\)' if files else 'expected')
    ):
        result(root)


def test_a_new_file_moves_no_image_between_slices(make):
    root = make(*(f'{n}.png' for n in range(200)))

    def paths(split):
        data, config = splits.open_data(options(name=str(root))), options(name=str(root))
        name, rows = splits.sources.select_rows(data, split, config)
        return {data[name].paths[row] for row in rows}

    before = {split: paths(split) for split in ('train[:50%]', 'train[50%:]', 'train', 'test', 'train[-10%:]')}
    assert before['train[:50%]'] | before['train[50%:]'] == before['train']
    assert not before['train'] & before['test']
    assert 5 <= len(before['test']) <= 40
    assert 70 <= len(before['train[:50%]']) <= 130
    make(*(f'more/{n}.png' for n in range(50)))
    for split, files in before.items():
        assert {path for path in paths(split) if '/' not in path} == files, split
    assert len(paths('train[:10]')) == 10


def test_the_order_is_shuffled_and_the_original_order_is_known(make):
    root = make(*(f'{name}/{n:02}.png' for name in 'ab' for n in range(50)))
    files = splits.open_data(options(name=str(root), test='train'))['train']
    assert 15 < sum(path.startswith('a') for path in files.paths[:50]) < 35
    order = splits.compute_original_order(options(name=str(root), test='train'), 'train')
    assert [files.paths[row] for row in np.argsort(order)] == sorted(files.paths)


@pytest.mark.parametrize('count', [2, 3, 10])
def test_each_split_has_at_least_one_of_few_images(make, count):
    config = options(name=str(make(*(f'{n}.png' for n in range(count)))), size=8)
    counts = [splits.load(config, split, seed=0).num_examples for split in ('train', 'test')]
    assert min(counts) > 0
    assert sum(counts) == count


def test_the_hash_is_the_same_everywhere():
    examples = [('cat/1.png', 'cat'), ('dog/ü.png', 'dog')]
    files = folders._make_split(Path(), examples, {'cat': 0, 'dog': 1}, ('cat', 'dog'))
    np.testing.assert_allclose(files.sort_keys, [0.104951693, 0.138041350], rtol=1e-6)


def test_a_path_that_is_not_a_folder_is_an_error(make):
    with pytest.raises(splits.DataError, match='is a file; expected a folder'):
        result(make('0.png') / '0.png')
