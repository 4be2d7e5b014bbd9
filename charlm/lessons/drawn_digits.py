"""Drawing of digits at random, so that the lessons on images need no download.

Shapes: N images of R = 28 rows and C = 28 columns.
"""

import numpy as np
import numpy.typing as npt

SIDE = 28
"""Number of rows and of columns of an image, as in MNIST."""

FONT = (
    "01110 10001 10011 10101 11001 10001 01110|00100 01100 00100 00100 00100 00100 01110|"
    "01110 10001 00001 00010 00100 01000 11111|11111 00010 00100 00010 00001 10001 01110|"
    "00010 00110 01010 10010 11111 00010 00010|11111 10000 11110 00001 00001 10001 01110|"
    "00110 01000 10000 11110 10001 10001 01110|11111 00001 00010 00100 01000 01000 01000|"
    "01110 10001 10001 01110 10001 10001 01110|01110 10001 10001 01111 00001 00010 01100"
)
"""Shapes of the ten digits, 7 rows of 5 dots each. Ones are ink."""

MARGIN = 2
"""Number of empty dots around each shape."""

CONTRAST = 4
"""Slope of the edges of a stroke: factor by which interpolated ink is multiplied near the threshold."""

NOISE = 0.1
"""Standard deviation of the noise added to each pixel. Ink is 1, paper is 0."""

Images = npt.NDArray[np.float32]


def draw_digits(count: int, seed: int) -> tuple[Images, npt.NDArray[np.int64]]:
    """Draw digits with random position, rotation, slant, size and stroke thickness, and with noise.

    Args:
        count: N, the number of images.
        seed: Seed of all random choices.

    Returns:
        Images, (N, R, C), from 0 (paper) to 1 (ink), and the digits that they show, (N,).
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(10, size=count)

    def uniform(low: float, high: float) -> Images:
        return rng.uniform(low, high, (count, 1, 1)).astype(np.float32)  # one number per image

    # For each pixel, its position in the shape: moved to the digit's centre, rotated, slanted and divided by the size.
    pixels = np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2
    y, x = pixels[:, None] - uniform(-3, 3), pixels[None, :] - uniform(-3, 3)  # (N, R, 1), (N, 1, C)
    rotation, slant, size = uniform(-0.4, 0.4), uniform(-0.4, 0.4), uniform(1.8, 3.0)
    rows, columns = (y - rotation * x) / size, (x + (rotation + slant) * y) / size  # (N, R, C)

    ink = _ink_at(labels, rows, columns)
    thickness = uniform(0.25, 0.6)
    images = ((ink - thickness) * CONTRAST + 0.5).clip(0, 1) + NOISE * rng.standard_normal(ink.shape, np.float32)
    return images.clip(0, 1), labels


def _ink_at(labels: npt.NDArray[np.int64], rows: Images, columns: Images) -> Images:
    """Return the ink at positions in the shapes, by bilinear interpolation between the four nearest dots.

    Args:
        labels: The digit of each image, (N,).
        rows: Vertical positions in dots, measured from the centre of the shape, (N, R, C).
        columns: Horizontal positions, likewise.
    """
    dots = np.array([[[float(dot) for dot in row] for row in shape.split()] for shape in FONT.split("|")])
    shapes = np.pad(dots.astype(np.float32), ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)))
    height, width = shapes.shape[1:]
    rows = (rows + (height - 1) / 2).clip(0, height - 1.001)  # positions outside are moved to the margin, without ink
    columns = (columns + (width - 1) / 2).clip(0, width - 1.001)
    top, left = rows.astype(int), columns.astype(int)
    down, right = rows - top, columns - left  # distances from the dot above and to the left, 0 to 1
    digit = labels[:, None, None]
    ink = np.zeros_like(rows)
    for row, row_weight in ((0, 1 - down), (1, down)):
        for column, column_weight in ((0, 1 - right), (1, right)):
            ink += row_weight * column_weight * shapes[digit, top + row, left + column]
    return ink
