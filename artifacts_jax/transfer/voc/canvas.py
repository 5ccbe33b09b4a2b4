"""Images of any size on canvases of one size, so that they make one array."""

import numpy as np
import PIL.Image
from jaxtyping import Float32, UInt8


def fit(
    image: UInt8[np.ndarray, 'H W 3'], boxes: Float32[np.ndarray, 'N 4'], side: int
) -> tuple[UInt8[np.ndarray, 'h w 3'], Float32[np.ndarray, 'N 4']]:
    """Scales an image down to a canvas, with antialiasing, and the boxes of its objects with it.

    One whose larger side is at most the canvas's is returned as it is: all of VOC's are, on a canvas of 500.

    Args:
      image: in [0, 255].
      boxes: x1 y1 x2 y2 as in annotations.Objects.
      side: of the canvas, pixels.
    """
    height, width = image.shape[:2]
    if max(height, width) <= side:
        return image, boxes
    new_height, new_width = (max(1, round(length * side / max(height, width))) for length in (height, width))
    scaled = PIL.Image.fromarray(image).resize((new_width, new_height), PIL.Image.Resampling.BILINEAR)
    # Pixel 1 begins at 0, and the last one of a box ends at its number.
    ratio = np.array([new_width / width, new_height / height] * 2, np.float32)
    first = np.array([1, 1, 0, 0], np.float32)
    return np.asarray(scaled), (boxes - first) * ratio + first


def place(image: UInt8[np.ndarray, 'H W 3'], side: int) -> UInt8[np.ndarray, '{side} {side} 3']:
    """Returns a canvas with an image in its upper left corner, and zeros elsewhere.

    Args:
      image: no larger than the canvas.
      side: of the canvas, pixels.
    """
    canvas = np.zeros((side, side, 3), np.uint8)
    canvas[: image.shape[0], : image.shape[1]] = image
    return canvas
