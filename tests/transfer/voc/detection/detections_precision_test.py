import itertools

import numpy as np
import pytest

from artifacts_jax.data.voc.annotations import NAMES
from artifacts_jax.models import boxes as geometry
from artifacts_jax.transfer.voc import average_precision
from artifacts_jax.transfer.voc.detection import detections
from tests.transfer.voc.detection import made

DOG = NAMES.index('dog')
LEVELS = detections.RECALL_LEVELS


def of_dogs(objects, found, **options):
    return detections.compute_average_precisions(objects, found, **options)[DOG]


def slow(label, objects, found, *, area_under_curve):
    """Computes the average precision as the devkit does: one detection at a time, on numbers rounded as text."""
    rows = []
    for image, one in enumerate(found):
        for mine, score, box in zip(one.labels, one.scores, one.boxes):
            if mine == label:
                rows.append((float(f'{float(score):.3f}'), image, [float(f'{float(x) + 1:.1f}') for x in box]))
    matched, true_positives, false_positives, curve = set(), 0, 0, []
    positives = sum(
        mine == label and not hard for truth in objects for mine, hard in zip(truth.labels, truth.is_difficult)
    )
    for _, image, box in sorted(rows, key=lambda row: -row[0]):
        most, chosen = -1.0, None
        for n, (mine, other) in enumerate(zip(objects[image].labels, objects[image].boxes)):
            if mine != label:
                continue
            width = min(box[2], other[2]) - max(box[0], other[0]) + 1
            height = min(box[3], other[3]) - max(box[1], other[1]) + 1
            if width > 0 and height > 0:
                areas = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (box, other)]
                if (overlap := width * height / (sum(areas) - width * height)) > most:
                    most, chosen = overlap, n
        if most >= 0.5 and objects[image].is_difficult[chosen]:
            continue
        if most >= 0.5 and (image, chosen) not in matched:
            matched.add((image, chosen))
            true_positives += 1
        else:
            false_positives += 1
        curve.append(
            (true_positives / positives if positives else 0, true_positives / (true_positives + false_positives))
        )
    if not positives:
        return None
    if not area_under_curve:
        return sum(max([p for recall, p in curve if recall >= level], default=0) for level in LEVELS) / 11
    steps = [0, *sorted({recall for recall, _ in curve})]
    return sum((b - a) * max(p for recall, p in curve if recall >= b) for a, b in itertools.pairwise(steps))


@pytest.mark.parametrize('area_under_curve', [False, True])
@pytest.mark.parametrize('levels', [4, 10_000])
def test_it_equals_a_slow_implementation(area_under_curve, levels):
    random = np.random.default_rng(levels)
    for _ in range(25):
        truth, found = made.random_set(random, levels=levels)
        measured = detections.compute_average_precisions(truth, found, area_under_curve=area_under_curve)
        for label in range(4):
            expected = slow(label, truth, found, area_under_curve=area_under_curve)
            assert measured[label] == (expected if expected is None else pytest.approx(expected, abs=1e-12))


@pytest.mark.parametrize('area_under_curve', [False, True])
def test_without_difficult_objects_it_equals_another_package(area_under_curve):
    package = pytest.importorskip('mean_average_precision', reason='no package mean-average-precision, of [test]')
    random, compared = np.random.default_rng(5), 0
    for _ in range(50):
        truth, found = made.random_set(random, images=4, levels=10**6)
        found = [
            one._replace(scores=random.permutation(len(one.scores)) / 100 + n / 1000) for n, one in enumerate(found)
        ]
        metric = package.MetricBuilder.build_evaluation_metric('map_2d', async_mode=False, num_classes=3)
        for objects, one in zip(truth, found):
            metric.add(*reduced(objects, one))
        theirs = metric.value(iou_thresholds=0.5 - 1e-9, recall_thresholds=None if area_under_curve else LEVELS)[
            0.5 - 1e-9
        ]
        ours = detections.compute_average_precisions(truth, found, area_under_curve=area_under_curve, rounded=False)
        for label in range(3):
            if ours[label] is not None:
                assert theirs[label]['ap'] == pytest.approx(ours[label], abs=1e-6)  # theirs is float32
                compared += 0 < ours[label] < 1
    assert compared > 100


def reduced(objects, found):
    """(rows of detections, rows of objects) of an image as the package takes them, none of them difficult.

    Detections that overlap a difficult object most, by 0.5 or more, are left out with it.
    """
    counted = []
    for label, score, box in zip(found.labels, found.scores, found.boxes):
        mine = np.flatnonzero(objects.labels == label)
        overlap = geometry.iou(box[None] + 1.0, objects.boxes[mine])[0]
        if not (len(mine) and overlap.max() >= 0.5 and objects.is_difficult[mine[overlap.argmax()]]):
            counted.append([*(box + 1.0), label, score])
    easy = ~objects.is_difficult
    flags = np.zeros((easy.sum(), 2))
    rows = np.concatenate([objects.boxes[easy], objects.labels[easy, None], flags], axis=1)
    return np.array(counted).reshape(-1, 6), rows


BOX, FAR = (0, 0, 9, 9), (20, 20, 29, 29)


def test_a_second_detection_of_an_object_is_a_false_positive():
    truth = [made.objects(('dog', BOX), ('dog', FAR))]
    found = [made.detections(('dog', 0.9, BOX), ('dog', 0.8, BOX), ('dog', 0.7, FAR))]
    assert of_dogs(truth, found) == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)
    assert of_dogs(truth, found, area_under_curve=True) == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)


def test_a_detection_matches_the_object_it_overlaps_most_even_if_already_matched():
    near = (0, 1, 9, 10)
    truth = [made.objects(('dog', BOX), ('dog', near))]
    found = [made.detections(('dog', 0.9, BOX), ('dog', 0.8, BOX))]  # the second overlaps `near` by 0.82, too
    assert of_dogs(truth, found, area_under_curve=True) == 0.5
    assert of_dogs(truth, [made.detections(('dog', 0.9, BOX), ('dog', 0.8, near))], area_under_curve=True) == 1.0


def test_difficult_objects_and_their_detections_are_ignored():
    truth = [made.objects(('dog', BOX, True), ('dog', FAR))]
    alone = made.detections(('dog', 0.5, FAR))
    twice = made.detections(('dog', 0.9, BOX), ('dog', 0.8, BOX), ('dog', 0.5, FAR))
    assert of_dogs(truth, [alone]) == of_dogs(truth, [twice]) == 1.0
    apart = made.detections(('dog', 0.9, (0, 0, 3, 3)), ('dog', 0.5, FAR))  # overlaps it by less than 0.5
    assert of_dogs(truth, [apart]) == 0.5
    assert of_dogs([made.objects(('dog', BOX, True))], [made.detections(('dog', 0.9, BOX))]) is None


def test_an_iou_of_exactly_a_half_is_a_match():
    truth = [made.objects(('dog', BOX))]
    assert of_dogs(truth, [made.detections(('dog', 0.9, (0, 0, 9, 4)))]) == 1.0
    assert of_dogs(truth, [made.detections(('dog', 0.9, (0, 0, 9, 3.9)))]) == 0.0


def test_ties_after_rounding_keep_their_order():
    truth = [made.objects(('dog', BOX)), made.objects()]
    hit, miss = made.detections(('dog', 0.7004, BOX)), made.detections(('dog', 0.7001, BOX))
    assert of_dogs(truth, [hit, miss]) == 1.0
    worse = made.detections(('dog', 0.7001, BOX))
    better_miss = made.detections(('dog', 0.7004, BOX))
    assert of_dogs(truth, [worse, better_miss]) == 1.0
    assert of_dogs(truth, [worse, better_miss], rounded=False) == 0.5
    assert of_dogs(truth[::-1], [miss, hit]) == 0.5


def test_a_recall_of_three_tenths_is_below_the_fourth_level_of_the_devkit():
    truth = [made.objects(*(('dog', (20 * n, 0, 20 * n + 9, 9)) for n in range(10)))]
    found = [made.detections(*(('dog', 0.5, (20 * n, 0, 20 * n + 9, 9)) for n in range(3)))]
    assert of_dogs(truth, found) == pytest.approx(3 / 11)
    assert of_dogs(truth, found, area_under_curve=True) == pytest.approx(0.3)


def test_without_objects_it_is_none_and_without_detections_zero():
    truth, found = [made.objects(('dog', BOX)), made.objects()], [made.detections(('cat', 0.9, BOX)), made.detections()]
    measured = detections.compute_average_precisions(truth, found)
    assert measured[DOG] == 0.0
    assert measured.count(None) == 19
    assert average_precision.mean(measured) == 0.0
    assert average_precision.mean(detections.compute_average_precisions([made.objects()], [made.detections()])) is None


def test_it_is_computed_from_the_numbers_in_the_devkit_files(tmp_path):
    truth, found = made.random_set(np.random.default_rng(3), images=10)
    found = [one._replace(boxes=one.boxes + np.float32(0.0321)) for one in found]
    names = [f'{n:06}' for n in range(10)]
    rows = [[] for _ in names]
    for label, path in enumerate(detections.write_devkit_files(tmp_path, 'test', names, found)):
        for line in path.read_text().splitlines():
            name, score, *box = line.split()
            rows[int(name)].append((NAMES[label], float(score), [float(x) - 1 for x in box]))
    read = [made.detections(*each) for each in rows]
    assert detections.compute_average_precisions(truth, read) == detections.compute_average_precisions(truth, found)


def test_different_numbers_of_images_are_an_error():
    with pytest.raises(ValueError, match='objects of 1 images and detections of 2; expected equal numbers'):
        detections.compute_average_precisions([made.objects()], [made.detections(), made.detections()])
