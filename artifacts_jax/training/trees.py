"""Compares trees of arrays: differences of structure and shapes, checksums and fingerprints."""

import json
import zlib

import jax
import numpy as np
from jaxtyping import PyTree


def find_differences(saved: PyTree, expected: PyTree) -> list[str]:
    """Returns a line of text for each leaf that two trees of arrays (or of shapes) do not have in common."""
    saved, expected = (
        {jax.tree_util.keystr(path, simple=True, separator='/'): tuple(x.shape) for path, x in leaves}
        for leaves in map(jax.tree_util.tree_leaves_with_path, (saved, expected))
    )
    return [
        f'{name}: {saved.get(name, "nothing")} saved, {expected.get(name, "nothing")} expected'
        for name in sorted(saved | expected)
        if saved.get(name) != expected.get(name)
    ]


def compute_fingerprint(tree: PyTree) -> str:
    """Returns eight hexadecimal digits that depend on the names and values of a tree of arrays."""
    return f'{zlib.crc32(json.dumps(compute_checksums(tree)).encode()):08x}'


def compute_checksums(tree: PyTree) -> dict[str, int]:
    """Returns {'PATH': CRC-32 of the bytes} of all arrays of a tree."""
    return {
        jax.tree_util.keystr(path, simple=True, separator='/'): zlib.crc32(np.ascontiguousarray(x).view(np.uint8).data)
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }
