"""Printing and comparing small arrays of numbers."""

import numpy as np
import numpy.typing as npt


def format_row(values: npt.ArrayLike, decimals: int = 3) -> str:
    """Return a vector as text. Numbers above -10 and below 100 are aligned in columns if there are decimals."""
    width = decimals + 3 if decimals else 1
    return " ".join(f"{value:{width}.{decimals}f}" for value in np.asarray(values))


def format_matrix(name: str, values: npt.ArrayLike, decimals: int = 3) -> str:
    """Return a matrix as lines of text after its name: `Y0 = [ 0.100 -0.200]`.

    A vector is printed as a matrix with one row.
    """
    texts = [[f"{value:.{decimals}f}" for value in row] for row in np.atleast_2d(np.asarray(values))]
    width = max((len(text) for row in texts for text in row), default=0)
    lines = [f"[{' '.join(text.rjust(width) for text in row)}]" for row in texts]
    head = f"  {name} = "
    return head + f"\n{' ' * len(head)}".join(lines)


def max_difference(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Return the maximum absolute difference between two arrays of the same shape, computed in float64."""
    return float(np.abs(np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)).max())
