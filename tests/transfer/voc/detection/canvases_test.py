import pytest

from artifacts_jax.transfer.voc.detection import canvases, presets, scales


def test_there_are_few_for_one_scale_and_for_five():
    single, multi = (canvases.sizes(preset.scales, preset.longest) for preset in presets.PRESETS.values())
    assert single == ((600, 816), (816, 600), (600, 1000), (1000, 600), (816, 816), (1000, 1000))
    assert len(multi) == 12
    assert multi[0] == (576, 784)
    assert multi[-1] == (2000, 2000)


@pytest.mark.parametrize('preset', presets.PRESETS.values(), ids=presets.PRESETS)
def test_every_image_fits_into_the_last(preset):
    found = canvases.sizes(preset.scales, preset.longest)
    for size in ((375, 500), (500, 375), (500, 500), (1, 500), (500, 120), (4000, 3000)):
        for shorter in preset.scales:
            taken = scales.scaled(size, scales.scale_of(size, shorter, preset.longest))
            assert max(taken) <= preset.longest
            canvas = canvases.smallest(found, [taken])
            assert canvas[0] >= taken[0]
            assert canvas[1] >= taken[1]


def test_a_batch_has_the_smallest_that_holds_all():
    found = canvases.sizes((600,), 1000)
    assert canvases.smallest(found, [(600, 800), (600, 600)]) == (600, 816)
    assert canvases.smallest(found, [(600, 800), (800, 600)]) == (816, 816)
    assert canvases.smallest(found, [(600, 800), (600, 817)]) == (600, 1000)
    assert canvases.smallest(found, [(600, 800), (1000, 200)]) == (1000, 1000)


def test_they_are_said():
    assert canvases.described(((4, 6), (6, 4))) == (
        'images are padded to one of 2 sizes, 4x6, 6x4, each compiled when it first comes'
    )
