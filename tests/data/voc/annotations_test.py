import numpy as np
import pytest

from artifacts_jax.data.errors import DataError
from artifacts_jax.data.voc import annotations
from tests.transfer.voc.trees import an_object, annotation


@pytest.mark.parametrize(
    ('xml', 'boxes'),
    [
        ('<name> cat\n</name><pose/><truncated/><difficult/>'
         '<bndbox><xmax>9.5</xmax><ymax> 8 </ymax><ymin>2</ymin><xmin>1.25</xmin></bndbox>', [[1.25, 2, 9.5, 8]]),
        ('<part><name>head</name><bndbox><xmin>7</xmin><ymin>7</ymin><xmax>8</xmax><ymax>8</ymax></bndbox></part>'
         '<name>person</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox>',
         [[1, 2, 9, 8]]),
    ],
)  # fmt: skip
def test_annotations_of_other_tools(tmp_path, xml, boxes):
    path = tmp_path / 'a.xml'
    path.write_text(f'<annotation><object>{xml}</object></annotation>')
    result, size = annotations.read_annotation(path)
    assert size is None
    np.testing.assert_array_equal(result.boxes, np.float32(boxes))
    assert not (result.is_difficult | result.is_truncated).any()


@pytest.mark.parametrize(
    ('node', 'message'),
    [
        (an_object('tv/monitor'), "did you mean 'tvmonitor'"),
        (an_object('Motorcycle'), "did you mean 'motorbike'"),
        (an_object('zebrafish'), 'expected one of: aeroplane, bicycle, '),
        (an_object(''), "object 1: '' is not a class"),
        (an_object('cat', difficult='no'), "<difficult> is 'no'; expected 0 or 1"),
        (an_object('cat', ('x', 1, 2, 3)), "<bndbox/xmin> is 'x'; expected a number"),
        (an_object('cat', ('nan', 1, 2, 3)), "<bndbox/xmin> is 'nan'"),
        (an_object('cat', (5, 1, 2, 3)), r'the box is \[5.0, 1.0, 2.0, 3.0\]; expected xmin <= xmax'),
        ('<object><name>cat</name></object>', "<bndbox/xmin> is ''"),
    ],
)
def test_invalid_annotations_are_an_error(tmp_path, node, message):
    path = tmp_path / 'a.xml'
    path.write_text(annotation(node))
    with pytest.raises(DataError, match=message):
        annotations.read_annotation(path)
