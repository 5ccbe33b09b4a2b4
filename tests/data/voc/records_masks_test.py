import dataclasses

import numpy as np
import pytest

from artifacts_jax.data.decoding import UnusableError
from artifacts_jax.data.errors import DataError
from artifacts_jax.data.voc import records as voc_records


@dataclasses.dataclass
class Record:
    classes: tuple[int, ...]
    damaged: bool = False
    name: str = 'a'

    def read_image(self):
        if self.damaged:
            raise UnusableError('it is cut')
        return np.zeros((2, len(self.classes), 3), np.uint8)

    def read_mask(self):
        if self.damaged:
            raise UnusableError('it is cut')
        return np.array([self.classes] * 2, np.uint8)


def test_splits_with_enough_classes_pass():
    records = [Record((0, 255)), Record((), damaged=True), Record((3, 3))]
    voc_records.check_masks(records, 'train', classes=2, images=2, workers=2)
    voc_records.check_masks(records[:1], 'test', classes=1)


@pytest.mark.parametrize(
    ('records', 'message'),
    [
        (
            [Record((0, 255))] * 2,
            'train: the pixels have one class; expected 2 or more; 255 means no class',
        ),
        ([Record((255, 255))], 'train: the pixels have no class; expected 2 or more'),
        ([Record((0, 1)), Record((255,))], 'train: 1 images have pixels with a class; expected 2 or more'),
        ([Record((0, 1), damaged=True)] * 40, r'train: none of the 16 checked images can be used: a \(it is cut\); a'),
    ],
)
def test_too_few_classes_or_images_are_an_error(records, message):
    with pytest.raises(DataError, match=message):
        voc_records.check_masks(records, 'train', classes=2, images=2)


def test_one_usable_checked_image_is_enough():
    voc_records.check_images([Record((), damaged=True)] * 15 + [Record((1,))], 'train')
