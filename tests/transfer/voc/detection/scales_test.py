import numpy as np
import pytest

from artifacts_jax.transfer.voc.detection import scales


@pytest.mark.parametrize(
    ('size', 'shorter', 'longest', 'expected'),
    [
        ((375, 500), 600, 1000, 1.6),
        ((500, 375), 600, 1000, 1.6),
        ((300, 500), 600, 1000, 2.0),  # exactly the maximum
        ((100, 500), 600, 1000, 2.0),
        ((500, 100), 1200, 2000, 4.0),
        ((600, 1000), 600, 1000, 1.0),
        ((3000, 5001), 600, 1000, 0.2),  # 1000.2, rounded to 1000
    ],
)
def test_the_scale_follows_the_shorter_side_up_to_the_limit_of_the_longer(size, shorter, longest, expected):
    assert scales.compute_scale(size, shorter, longest) == expected


def test_scales_are_sampled_uniformly_by_seed_and_position():
    found = [scales.sample_scale(0, position, 5) for position in range(3000)]
    np.testing.assert_allclose(np.bincount(found) / 3000, 0.2, atol=0.03)
    assert [scales.sample_scale(0, position, 5) for position in range(7, 17)] == found[7:17]
    assert [scales.sample_scale(1, position, 5) for position in range(100)] != found[:100]


def test_a_scaled_image_has_at_least_one_pixel():
    assert scales.compute_scaled_size((375, 500), 1.6) == (600, 800)
    assert scales.compute_scaled_size((1, 500), 0.2) == (1, 100)


def test_there_are_few_padded_sizes():
    single, multi = (scales.compute_padded_sizes(preset.scales, preset.longest) for preset in scales.PRESETS.values())
    assert single == ((600, 816), (816, 600), (600, 1000), (1000, 600), (816, 816), (1000, 1000))
    assert len(multi) == 12
    assert multi[0] == (576, 784)
    assert multi[-1] == (2000, 2000)


@pytest.mark.parametrize('preset', scales.PRESETS.values(), ids=scales.PRESETS)
def test_every_image_fits_into_a_padded_size(preset):
    found = scales.compute_padded_sizes(preset.scales, preset.longest)
    for size in ((375, 500), (500, 375), (500, 500), (1, 500), (500, 120), (4000, 3000)):
        for shorter in preset.scales:
            taken = scales.compute_scaled_size(size, scales.compute_scale(size, shorter, preset.longest))
            assert max(taken) <= preset.longest
            padded = scales.choose_padded_size(found, [taken])
            assert padded[0] >= taken[0]
            assert padded[1] >= taken[1]


def test_a_batch_has_the_smallest_padded_size_that_holds_all_images():
    found = scales.compute_padded_sizes((600,), 1000)
    assert scales.choose_padded_size(found, [(600, 800), (600, 600)]) == (600, 816)
    assert scales.choose_padded_size(found, [(600, 800), (800, 600)]) == (816, 816)
    assert scales.choose_padded_size(found, [(600, 800), (600, 817)]) == (600, 1000)
    assert scales.choose_padded_size(found, [(600, 800), (1000, 200)]) == (1000, 1000)


def test_the_log_message_lists_the_padded_sizes():
    assert scales.describe_padded_sizes(((4, 6), (6, 4))) == (
        'images are padded to one of 2 sizes (4x6, 6x4); each size is compiled when it is first used'
    )
