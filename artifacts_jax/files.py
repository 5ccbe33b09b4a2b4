"""Writes files atomically."""

import contextlib
import uuid
from pathlib import Path


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Writes a file atomically: no reader ever sees a partial file. Creates missing folders.

    Args:
      path: the file; an existing file is replaced.
      content: bytes, or text, which is encoded as UTF-8.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # No other process, thread or host uses this name. The limit for a name is 255 bytes.
    temporary = path.with_name(f'.{path.name[:40]}.{uuid.uuid4().hex}')
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
