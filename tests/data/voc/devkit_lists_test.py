import pytest

from artifacts_jax.data.errors import DataError
from artifacts_jax.data.voc import devkit


def test_names_are_read_with_any_line_ending(tmp_path):
    path = tmp_path / 'train.txt'
    path.write_bytes('\ufeff2008_000002 \r\n\r\n2008_000001\r\n'.encode())
    assert devkit.read_names(path) == ['2008_000002', '2008_000001']


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'train.txt: lists no image'),
        ('a\nb\na\n', 'train.txt: lists a more than once'),
        ('a\nb 1\n', "train.txt, line 2: is 'b 1'; expected the name of an image"),
    ],
)
def test_invalid_image_lists_are_an_error(text, message, tmp_path):
    (tmp_path / 'train.txt').write_text(text)
    with pytest.raises(DataError, match=message):
        devkit.read_names(tmp_path / 'train.txt')


def test_the_first_suffix_is_used(tmp_path):
    for name in ('a.PNG', 'a.mat', 'b.png', 'c.txt'):
        (tmp_path / name).touch()
    result = {name: path.name for name, path in devkit.list_files(tmp_path, ('.mat', '.png')).items()}
    assert result == {'a': 'a.mat', 'b': 'b.png'}
    assert devkit.list_files(tmp_path / 'nowhere', ('.mat',)) == {}
