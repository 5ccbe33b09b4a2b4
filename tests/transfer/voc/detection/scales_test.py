import jax
import numpy as np
import pytest

from artifacts_jax.transfer.voc.detection import scales


@pytest.mark.parametrize(
    ('size', 'shorter', 'longest', 'expected'),
    [
        ((375, 500), 600, 1000, 1.6),
        ((500, 375), 600, 1000, 1.6),
        ((300, 500), 600, 1000, 2.0),  # just as long as it may be
        ((100, 500), 600, 1000, 2.0),
        ((500, 100), 1200, 2000, 4.0),
        ((600, 1000), 600, 1000, 1.0),
        ((3000, 5001), 600, 1000, 0.2),  # 1000.2, which is 1000
    ],
)
def test_a_side_decides(size, shorter, longest, expected):
    assert scales.scale_of(size, shorter, longest) == expected


def test_each_image_has_its_scale_and_all_are_drawn():
    keys = jax.random.split(jax.random.key(0), 3000)
    found = np.asarray(scales.draw(keys, 5))
    np.testing.assert_allclose(np.bincount(found) / 3000, 0.2, atol=0.03)
    np.testing.assert_array_equal(scales.draw(keys[7:8], 5), found[7:8])
