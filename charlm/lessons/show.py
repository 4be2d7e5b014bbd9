"""How lessons print numbers: small matrices, side by side where they fit."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt


def matrix(name: str, values: npt.ArrayLike, decimals: int = 3) -> Iterator[str]:
    """The lines of a matrix with its name: `Y0 = [ 0.100 -0.200]`."""
    rows = np.atleast_2d(np.asarray(values))
    shown = [[f"{value:.{decimals}f}" if rows.dtype.kind == "f" else str(value) for value in row] for row in rows]
    width = max((len(text) for row in shown for text in row), default=0)
    for index, row in enumerate(shown):
        head = f"{name} = " if index == 0 else " " * (len(name) + 3)
        yield f"  {head}[{' '.join(text.rjust(width) for text in row)}]"


def greatest_difference(*arrays: npt.ArrayLike) -> float:
    """The greatest difference between numbers at the same place, of all arrays to the first."""
    first = np.asarray(arrays[0], dtype=np.float64)
    return max(float(np.abs(np.asarray(other, dtype=np.float64) - first).max()) for other in arrays[1:])
