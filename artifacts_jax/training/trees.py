"""Trees of arrays, told apart: what one has and the other has not, and checksums of their values."""

import json
import zlib

import jax
import numpy as np
from jaxtyping import PyTree


def differences(saved: PyTree, wanted: PyTree) -> list[str]:
    """Returns a line for each leaf that two trees of arrays (or of their shapes) do not share."""
    saved, wanted = (
        {jax.tree_util.keystr(path, simple=True, separator='/'): tuple(x.shape) for path, x in leaves}
        for leaves in map(jax.tree_util.tree_leaves_with_path, (saved, wanted))
    )
    return [
        f'{name}: {saved.get(name, "nothing")} saved, {wanted.get(name, "nothing")} wanted'
        for name in sorted(saved | wanted)
        if saved.get(name) != wanted.get(name)
    ]


def fingerprint(tree: PyTree) -> str:
    """Returns eight digits that tell trees of arrays with other values, or other names, apart."""
    return f'{zlib.crc32(json.dumps(checksums(tree)).encode()):08x}'


def checksums(tree: PyTree) -> dict[str, int]:
    """Returns {'PATH': checksum of the bytes} of all arrays of a tree."""
    return {
        jax.tree_util.keystr(path, simple=True, separator='/'): zlib.crc32(np.ascontiguousarray(x).view(np.uint8).data)
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }
