from artifacts_jax.transfer.voc.segmentation import batches


def test_images_of_voc_are_padded_to_few_sizes():
    assert batches.compute_padded_size([(375, 500)]) == (375, 500)
    assert batches.compute_padded_size([(375, 500), (500, 333)]) == (500, 500)
    assert batches.compute_padded_size([(281, 500), (126, 1)]) == (375, 500)
    assert batches.compute_padded_size([(1, 1)]) == (125, 125)
    sizes = [(height, width) for height in (333, 375, 500) for width in (334, 375, 500)]
    assert len({batches.compute_padded_size([size]) for size in sizes}) == 4
