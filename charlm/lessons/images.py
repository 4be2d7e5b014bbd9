"""Pictures of digits and how to learn them: MNIST from its four files, or small ones drawn here.

Shapes: N pictures, B a batch of them, rows R = 28 and columns C = 28.
"""

import gzip
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charlm.errors import CorpusError
from charlm.lessons import LessonOptions, Say
from charlm.lessons.drawn import SIDE, draw_digits

BATCH = 150
MNIST = ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte")
SHADES = "  .:-=+*#%@"


@dataclass(frozen=True, kw_only=True)
class Digits:
    """Pictures, (N, R, C), float32 from 0 to 1, and what they show, (N,), int64: some to learn, some to test on."""

    name: str
    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def load_digits(options: LessonOptions) -> Digits:
    """MNIST from the folder `data`, or drawn digits if there is none; a small part of either if `quick`.

    Raises:
        CorpusError: If one of MNIST's files is missing or damaged.
    """
    if options.data is None:
        name, learning = "drawn digits", 1000 if options.quick else 10_000
        pictures, digits = draw_digits(learning + learning // 4, options.seed)
        arrays = [part for array in (pictures, digits) for part in np.split(array, [learning])]
    else:
        name, arrays = "MNIST", read_mnist(options.data)
        if options.quick:
            arrays = [array[:1000] for array in arrays]
    images, test_images, labels, test_labels = map(torch.from_numpy, arrays)
    return Digits(name=name, images=images, labels=labels, test_images=test_images, test_labels=test_labels)


def read_mnist(folder: Path) -> list[npt.NDArray[Any]]:
    """Pictures to learn and to test on, then their labels, from the four idx files, plain or .gz."""
    found = {name: [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()] for name in MNIST}
    if missing := [name for name, paths in found.items() if not paths]:
        raise CorpusError(
            f"--data {folder}: {', '.join(missing)} not there, neither plain nor .gz; MNIST is four files"
        )
    arrays = [_read_idx(paths[0]) for paths in found.values()]
    for images, labels in zip(arrays[:2], arrays[2:], strict=True):
        if images.shape != (len(labels), SIDE, SIDE) or labels.ndim != 1 or labels.max(initial=0) > 9:
            raise CorpusError(f"--data {folder}: {images.shape} pictures with {labels.shape} labels are not MNIST's")
    return [array.astype(np.float32) / 255 if array.ndim == 3 else array.astype(np.int64) for array in arrays]


def _read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """An array from an idx file: 0, 0, 8 for bytes, the number of dimensions; the size of each; the bytes."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        if data[:3] != b"\0\0\x08":
            raise CorpusError(f"{path}: not an idx file of bytes")
        shape = np.frombuffer(data, ">u4", count=data[3], offset=4)
        return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise CorpusError(f"{path}: cannot be read, or damaged ({error})") from None


def learn(model: nn.Module, digits: Digits, epochs: int) -> Iterator[tuple[float, float]]:
    """Learn the pictures in batches of 150 with Adam, whose rate falls from 1e-3 to 0.

    Args:
        model: Makes logits, (B, 10), of pictures, (B, R, C).
        digits: The pictures.
        epochs: Passes over them.

    Yields:
        After each pass its mean loss in nats, and the share of the test pictures that are read rightly.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    batches = epochs * math.ceil(len(digits.images) / BATCH)
    fall = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1, end_factor=0, total_iters=batches)
    for _ in range(epochs):
        total = 0.0
        for batch in torch.split(torch.randperm(len(digits.images)), BATCH):
            loss = F.cross_entropy(model(digits.images[batch]), digits.labels[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            fall.step()
            total += float(loss.detach()) * len(batch)
        right = predict(model, digits.test_images) == digits.test_labels
        yield total / len(digits.images), float(right.float().mean())


@torch.no_grad()
def predict(model: nn.Module, images: Tensor) -> Tensor:
    """The digits that a model takes pictures for, (N,)."""
    model.eval()
    digits = torch.cat([model(batch).argmax(dim=-1) for batch in torch.split(images, 1000)])
    model.train()
    return digits


def show_pictures(say: Say, images: Tensor) -> None:
    """Print pictures side by side, every second row, a character a column."""
    for row in range(2, SIDE - 2, 2):
        say("  " + " ".join("".join(SHADES[int(ink * 10.99)] for ink in image[row, 2:-2]) for image in images))
