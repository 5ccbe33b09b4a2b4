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
    found = [scales.draw(0, position, 5) for position in range(3000)]
    np.testing.assert_allclose(np.bincount(found) / 3000, 0.2, atol=0.03)
    assert [scales.draw(0, position, 5) for position in range(7, 17)] == found[7:17]
    assert [scales.draw(1, position, 5) for position in range(100)] != found[:100]


def test_no_image_is_scaled_away():
    assert scales.scaled((375, 500), 1.6) == (600, 800)
    assert scales.scaled((1, 500), 0.2) == (1, 100)
