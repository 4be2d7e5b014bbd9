"""Small drawn digits, so that the lessons on pictures always have some.

Shapes: N pictures of rows R = 28 and columns C = 28.
"""

import numpy as np
import numpy.typing as npt

SIDE = 28
FONT = (
    "01110 10001 10011 10101 11001 10001 01110|00100 01100 00100 00100 00100 00100 01110|"
    "01110 10001 00001 00010 00100 01000 11111|11111 00010 00100 00010 00001 10001 01110|"
    "00010 00110 01010 10010 11111 00010 00010|11111 10000 11110 00001 00001 10001 01110|"
    "00110 01000 10000 11110 10001 10001 01110|11111 00001 00010 00100 01000 01000 01000|"
    "01110 10001 10001 01110 10001 10001 01110|01110 10001 10001 01111 00001 00010 01100"
)
"""The ten digits, five dots wide and seven high."""

MARGIN = 2
"""Empty dots around each."""

Pictures = npt.NDArray[np.float32]


def draw_digits(count: int, seed: int) -> tuple[Pictures, npt.NDArray[np.int64]]:
    """Draw digits, each turned, slanted, moved and sized a little, with a pen of some thickness, on noise.

    Returns:
        Pictures, (count, R, C), from 0 to 1, and the digits, (count,).
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(10, size=count)

    def each(low: float, high: float) -> Pictures:
        return rng.uniform(low, high, (count, 1, 1)).astype(np.float32)

    # Where in its glyph each pixel lies: its place from the middle, moved, turned and divided by the size.
    pixels = np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2
    y, x = pixels[:, None] - each(-3, 3), pixels[None, :] - each(-3, 3)
    turn, slant, size = each(-0.4, 0.4), each(-0.4, 0.4), each(1.8, 3.0)
    rows, columns = (y - turn * x) / size, (x + (turn + slant) * y) / size

    ink = _between_dots(labels, rows, columns)
    contrast, thickness = 4, each(0.25, 0.6)
    images = ((ink - thickness) * contrast + 0.5).clip(0, 1) + 0.1 * rng.standard_normal(ink.shape, np.float32)
    return images.clip(0, 1), labels


def _between_dots(labels: npt.NDArray[np.int64], rows: Pictures, columns: Pictures) -> Pictures:
    """The ink at places, (N, R, C), counted from the middle of a glyph: a mean of the four dots around."""
    dots = np.array([[[float(dot) for dot in row] for row in glyph.split()] for glyph in FONT.split("|")])
    glyphs = np.pad(dots.astype(np.float32), ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)))
    high, wide = glyphs.shape[1:]
    rows = (rows + (high - 1) / 2).clip(0, high - 1.001)  # whatever is further out is empty, as the margin is
    columns = (columns + (wide - 1) / 2).clip(0, wide - 1.001)
    top, left = rows.astype(int), columns.astype(int)
    below, right = rows - top, columns - left
    which = labels[:, None, None]
    ink = np.zeros_like(rows)
    for down, upper in ((0, 1 - below), (1, below)):
        for across, part in ((0, 1 - right), (1, right)):
            ink += upper * part * glyphs[which, top + down, left + across]
    return ink
