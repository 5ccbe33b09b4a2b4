"""Writing files such that nobody finds half of one."""

import contextlib
import uuid
from pathlib import Path


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Writes a file whole or not at all, and makes the folders that it is in.

    Args:
      path: the file; one that is there is replaced.
      content: text, which is encoded as UTF-8, or bytes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Of other processes, threads and hosts none has this name; a name is at most 255 bytes long.
    temporary = path.with_name(f'.{path.name[:40]}.{uuid.uuid4().hex}')
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
