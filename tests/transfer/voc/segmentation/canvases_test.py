from artifacts_jax.transfer.voc.segmentation import canvases


def test_images_of_voc_have_few_canvases_that_hold_them():
    assert canvases.smallest([(375, 500)]) == (375, 500)
    assert canvases.smallest([(375, 500), (500, 333)]) == (500, 500)
    assert canvases.smallest([(281, 500), (126, 1)]) == (375, 500)
    assert canvases.smallest([(1, 1)]) == (125, 125)
    assert len({canvases.smallest([(height, width)]) for height in (333, 375, 500) for width in (334, 375, 500)}) == 4
