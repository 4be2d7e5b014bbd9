"""Images of digits for the lessons: MNIST, read from its four files, or digits drawn at random.

Shapes: N images of R = 28 rows and C = 28 columns.
"""

import gzip
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from charlm.errors import CorpusError
from charlm.lessons import LessonOptions, Say
from charlm.lessons.drawn_digits import SIDE, draw_digits
from charlm.text.paths import access_problem

MNIST_FILES = (
    "train-images-idx3-ubyte",
    "t10k-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-labels-idx1-ubyte",
)

NUM_DRAWN, NUM_QUICK = 10_000, 2_000
"""Number of training images to draw, and number of training images of a quick lesson."""

MAX_IDX_BYTES = 2**26
"""Number of bytes that are read of a file. The largest file of MNIST has 47,040,016 bytes."""

SHADES = "  .:-=+*#%@"
"""Characters for pixels, from no ink to full ink."""


@dataclass(frozen=True, kw_only=True)
class Digits:
    """Images of digits with their labels, for training and for testing.

    Attributes:
        name: Name of the dataset.
        images: Training images, (N, R, C), float32, from 0 (paper) to 1 (ink).
        labels: Digits that they show, (N,), int64.
        test_images: Test images, as `images`.
        test_labels: Digits that they show, as `labels`.
    """

    name: str
    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def load_digits(options: LessonOptions) -> Digits:
    """Read MNIST from the folder `data`, or draw digits if `data` is not set. With `quick`, use a small part.

    Raises:
        CorpusError: If a file of MNIST is missing or damaged.
    """
    if options.data is None:
        name, count = "drawn digits", NUM_QUICK if options.quick else NUM_DRAWN
        images, labels = draw_digits(count + count // 4, options.seed)
        arrays = [part for array in (images, labels) for part in np.split(array, [count])]
    else:
        name, arrays = "MNIST", read_mnist(options.data)
        if options.quick:
            arrays = [array[:NUM_QUICK] for array in arrays]
    train_images, test_images, train_labels, test_labels = map(torch.from_numpy, arrays)
    return Digits(name=name, images=train_images, labels=train_labels, test_images=test_images, test_labels=test_labels)


def read_mnist(folder: Path) -> list[npt.NDArray[Any]]:
    """Read MNIST.

    Args:
        folder: Folder with the four files in idx format, plain or compressed (.gz).

    Returns:
        Training images and test images, (N, R, C), float32 from 0 to 1; then their labels, (N,), int64.

    Raises:
        CorpusError: If a file is missing or damaged, or holds something else.
    """
    arrays = [_read_idx(path) for path in _find_files(folder)]
    for images, labels in zip(arrays[:2], arrays[2:], strict=True):
        if images.shape != (len(labels), SIDE, SIDE) or labels.ndim != 1 or labels.max(initial=0) > 9:
            raise CorpusError(
                f"data {folder}: not MNIST: images of shape {images.shape} with labels of shape {labels.shape}; "
                f"expected (N, {SIDE}, {SIDE}) and (N,) with labels from 0 to 9",
                fields=["data"],
            )
    return [array.astype(np.float32) / 255 if array.ndim == 3 else array.astype(np.int64) for array in arrays]


def _find_files(folder: Path) -> list[Path]:
    """Return the paths of MNIST's four files."""
    found = {
        name: [path for path in (folder / name, folder / f"{name}.gz") if os.path.isfile(path)] for name in MNIST_FILES
    }
    if problem := access_problem(*(folder / name for name in MNIST_FILES)):
        raise CorpusError(f"data {problem}", fields=["data"])
    if missing := [name for name, paths in found.items() if not paths]:
        raise CorpusError(
            f"data {folder}: {', '.join(missing)} not found, neither plain nor .gz; give the folder with MNIST's four "
            "files",
            fields=["data"],
        )
    return [paths[0] for paths in found.values()]


def _read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Return the array of bytes in a file in idx format.

    The format: bytes 0, 0, 8, and the number of dimensions; the size of each dimension as a big-endian 32-bit integer;
    then the data.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(MAX_IDX_BYTES)
        if data[:3] != b"\0\0\x08":
            raise CorpusError(f"{path}: not in idx format; give one of MNIST's four files")
        shape = np.frombuffer(data, ">u4", count=data[3], offset=4)
        return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise CorpusError(f"{path}: cannot be read, or is damaged ({error}); download it again") from None


def print_images(say: Say, images: Tensor) -> None:
    """Print images, (N, R, C), side by side: every second row, one character per column."""
    for row in range(2, SIDE - 2, 2):
        lines = ["".join(SHADES[int(ink * 10.99)] for ink in image[row, 2:-2]) for image in images]
        say(f"  {' '.join(lines)}".rstrip())
