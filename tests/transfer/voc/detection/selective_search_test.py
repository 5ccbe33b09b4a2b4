import builtins
import dataclasses
import multiprocessing
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import PIL.Image
import pytest

from artifacts_jax.data.errors import DataError
from artifacts_jax.data.voc import records
from artifacts_jax.transfer.voc.detection import selective_search

SIZE = (48, 60)


def scene(*colours):
    """Returns an image of rectangles, which selective search finds."""
    pixels = np.full((*SIZE, 3), 200, np.uint8)
    for n, colour in enumerate(colours):
        pixels[10 : 30 + 4 * n, 18 * n + 4 : 18 * n + 16] = colour
    return pixels


SCENES = {'a': scene((255, 0, 0)), 'b': scene((0, 0, 255), (0, 90, 0)), 'c': scene((9, 9, 9), (255, 0, 0), (0, 0, 99))}


@pytest.fixture
def opencv():
    return pytest.importorskip('cv2.ximgproc', reason='no OpenCV with its contributed modules, of [voc]')


@pytest.fixture
def images(tmp_path):
    """Records of three images."""
    made = []
    for name, pixels in SCENES.items():
        PIL.Image.fromarray(pixels).save(tmp_path / f'{name}.png')
        made.append(records.Record(name, tmp_path / f'{name}.png', SIZE))
    return made


@pytest.fixture
def searched(monkeypatch):
    """The pixel sums of the images that are searched during the test."""
    sums, search = [], selective_search.search
    monkeypatch.setattr(selective_search, 'search', lambda image: sums.append(int(image.sum())) or search(image))
    return sums


def wait_for(condition):
    """Calls a function until its result is true, and returns the result."""
    end = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def same(first, second):
    return len(first) == len(second) and all(map(np.array_equal, first, second))


def test_boxes_are_sorted_and_match_the_image(opencv):
    boxes = selective_search.search(SCENES['c'])
    assert boxes.dtype == np.float32
    assert [0, 0, 59, 47] in boxes.tolist()
    assert [4, 10, 15, 29] in np.round(boxes).tolist()  # the black rectangle
    assert boxes.min() == 0
    assert boxes.tolist() == sorted(boxes.tolist())
    np.testing.assert_array_equal(boxes, selective_search.search(SCENES['c']))


def test_a_large_image_is_scaled_down(opencv, monkeypatch):
    monkeypatch.setattr(selective_search, 'MAX_SIDE', 60)
    large = np.asarray(PIL.Image.fromarray(SCENES['b']).resize((180, 144), PIL.Image.Resampling.NEAREST))
    boxes = selective_search.search(large)
    np.testing.assert_allclose(boxes[0], [0, 0, 179, 143])
    assert np.abs(boxes - [12, 30, 47, 89]).max(axis=1).min() <= 3  # the blue rectangle


def test_saved_boxes_are_used_again(opencv, images, searched, tmp_path, capsys):
    folder = tmp_path / 'boxes'
    found, unusable = selective_search.search_records(images, folder, workers=1)
    assert (len(searched), unusable) == (3, {})
    printed = capsys.readouterr().out
    assert 'selective search: 3 of 3 images, 1 processes' in printed
    assert f'boxes are saved in {folder}' in printed
    assert 'selective search: 3/3' in printed
    again, _ = selective_search.search_records(images, folder, workers=1)
    assert same(found, again)
    assert len(searched) == 3
    assert capsys.readouterr().out == ''


def test_after_a_kill_missing_and_truncated_files_are_computed_again(opencv, images, searched, tmp_path):
    folder = tmp_path / 'boxes'
    found, _ = selective_search.search_records(images, folder, workers=1)
    (folder / 'a.npz').unlink()
    (folder / 'b.npz').write_bytes((folder / 'b.npz').read_bytes()[:-30])
    (folder / '.a.npz.killed').write_bytes(b'cut sh')
    assert same(found, selective_search.search_records(images, folder, workers=1)[0])
    assert searched[3:] == searched[:2]
    assert sorted(path.name for path in folder.iterdir()) == ['.a.npz.killed', 'a.npz', 'b.npz', 'c.npz', 'lock']


def test_a_changed_image_or_setting_is_computed_again(opencv, images, searched, tmp_path, monkeypatch):
    folder = tmp_path / 'boxes'
    found, _ = selective_search.search_records(images, folder, workers=1)
    shutil.copy(images[2].file, images[0].file)
    changed, _ = selective_search.search_records(images, folder, workers=1)
    assert len(searched) == 4
    assert same(changed, [found[2], *found[1:]])
    content = dataclasses.replace(images[1], file=images[1].file.read_bytes())
    selective_search.search_records([content], folder, workers=1)  # the same, in memory
    assert len(searched) == 4
    monkeypatch.setitem(selective_search.SETTINGS, 'side', 400)
    selective_search.search_records(images, folder, workers=1)
    assert len(searched) == 7


def test_an_unreadable_image_has_no_boxes_and_no_file(opencv, images, tmp_path):
    images[1].file.write_bytes(b'no image')
    folder = tmp_path / 'boxes'
    found, unusable = selective_search.search_records(images, folder, workers=1)
    assert [len(boxes) > 0 for boxes in found] == [True, False, True]
    assert list(unusable) == ['b']
    assert 'not an image' in unusable['b']
    assert not (folder / 'b.npz').exists()
    PIL.Image.fromarray(SCENES['b']).save(images[1].file)
    assert len(selective_search.search_records(images, folder, workers=1)[0][1])


def test_the_number_of_processes_does_not_change_the_boxes(opencv, images, tmp_path):
    images[2].file.unlink()
    alone, reasons = selective_search.search_records(images, tmp_path / 'alone', workers=1)
    shared, others = selective_search.search_records(images, tmp_path / 'shared', workers=2)
    assert same(alone, shared)
    assert reasons == others == {'c': 'No such file or directory'}


def test_a_killed_process_is_a_one_line_error_and_boxes_are_saved(opencv, images, tmp_path):
    folder, others = tmp_path / 'boxes', {*multiprocessing.active_children()}
    many = [dataclasses.replace(images[n % 3], name=f'{n:04}') for n in range(3000)]

    def kill():
        wait_for(lambda: list(folder.glob('*.npz')))
        ({*multiprocessing.active_children()} - others).pop().kill()

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(DataError, match=r'was killed, .* run the same command again, with a smaller data\.workers$'):
        selective_search.search_records(many, folder, workers=2)
    thread.join()
    assert {*multiprocessing.active_children()} <= others
    assert any(boxes is not None for boxes in selective_search._read_saved(folder, many))


PROGRAM = """
import dataclasses
import sys
from pathlib import Path
from artifacts_jax.data.voc import records
from artifacts_jax.transfer.voc.detection import selective_search

image, folder = map(Path, sys.argv[1:])
record = records.Record('', image, (48, 60))
selective_search.search_records([dataclasses.replace(record, name=f'{n:04}') for n in range(3000)], folder, workers=2)
"""


def test_worker_processes_end_when_the_program_is_killed(opencv, images, tmp_path):
    command = [sys.executable, '-c', PROGRAM, images[0].file, tmp_path / 'boxes']
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as program:
        wait_for(lambda: list((tmp_path / 'boxes').glob('*.npz')) or program.poll())
        program.kill()
        said, _ = program.communicate(timeout=20)  # until no process holds the pipe
    assert program.returncode == -signal.SIGKILL, said
    assert len(list((tmp_path / 'boxes').glob('*.npz'))) < 3000


def test_without_opencv_a_one_line_error_says_how_to_install_it(images, tmp_path, monkeypatch):
    original = builtins.__import__

    def without(name, *arguments, **options):
        if name == 'cv2':
            raise ImportError('no cv2')
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, '__import__', without)
    with pytest.raises(DataError, match=r"^selective search needs OpenCV .* pip install -e '\.\[voc\]'.*$"):
        selective_search.search_records(images, tmp_path / 'boxes')
    assert not (tmp_path / 'boxes').exists()
