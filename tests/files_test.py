import errno
from pathlib import Path

import pytest

from artifacts_jax.files import write_atomically


def test_text_and_bytes_are_written_and_folders_made(tmp_path):
    path = tmp_path / 'new' / 'folder' / f'{"é" * 120}.txt'  # 244 bytes
    for content in ('ä\n', b'\x00\xff'):
        write_atomically(path, content)
        assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize('failing', ['write_bytes', 'replace'])
@pytest.mark.parametrize('error', [OSError(errno.ENOSPC, 'No space left on device'), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(failing, error, monkeypatch, tmp_path):
    write_atomically(tmp_path / 'file', 'old')
    original = getattr(Path, failing)

    def fail(path, given):
        original(path, given[:1]) if failing == 'write_bytes' else None
        raise error

    monkeypatch.setattr(Path, failing, fail)
    with pytest.raises(type(error)):
        write_atomically(str(tmp_path / 'file'), 'new')
    assert (tmp_path / 'file').read_text() == 'old'
    assert [path.name for path in tmp_path.iterdir()] == ['file']
