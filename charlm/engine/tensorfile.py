"""Reads safetensors files with suspicion: nothing is believed, or taken into memory, before it is checked.

The layout: 8 bytes, the length N of the header, little-endian; N bytes of JSON; the tensors, one after the other
without gaps, to the file's end. The JSON has an object a tensor (`dtype`, `shape`, `data_offsets` from the end of
the header) and `__metadata__`, texts by name.

Source:
    The format's specification, https://github.com/huggingface/safetensors#format.
"""

import json
import math
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from charlm.errors import CheckpointError

MAX_HEADER = 32 * 2**20
"""Bytes. A header of ours has some kilobytes, with a vocabulary of a million words some tens of megabytes."""

MAX_DIMS = 4
"""Dimensions of a tensor; ours have up to three."""

MAX_DEPTH = 16
"""Levels of nesting in JSON from a file; ours have four."""

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "|u1", "BOOL": "|b1"}
"""The types of numbers that a model file may have; NumPy has no BF16."""


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int
    end: int


class TensorFile:
    """A safetensors file whose header has been read and found consistent.

    Args:
        file: The file, open for reading.
        path: Its name, for messages.

    Attributes:
        metadata: The header's texts.

    Raises:
        CheckpointError: If it is no safetensors file, or a damaged one.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise CheckpointError(f"{path}: not a model file, or cut short")
        if length > MAX_HEADER:
            raise CheckpointError(f"{path}: not a model file (a header of {length:,} bytes)")
        header = parse_json(file.read(length), path)
        if not isinstance(header, dict):
            raise CheckpointError(f"{path}: not a model file (its header is no JSON object)")
        self.metadata: dict[str, str] = header.pop("__metadata__", {})
        if not isinstance(self.metadata, dict) or not all(isinstance(text, str) for text in self.metadata.values()):
            raise CheckpointError(f"{path}: damaged (the header's metadata are no texts)")
        self._begin = 8 + length
        self._places = {name: self._place(name, entry) for name, entry in header.items()}
        self._check_places(size - self._begin)

    @property
    def names(self) -> Collection[str]:
        """The names of all tensors."""
        return self._places.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape."""
        return self._places[name].shape

    def dtype(self, name: str) -> np.dtype[Any]:
        """A tensor's type of numbers."""
        return self._places[name].dtype

    def read(self, name: str) -> npt.NDArray[Any]:
        """Read a tensor."""
        place = self._places[name]
        self._file.seek(self._begin + place.begin)
        array = np.fromfile(self._file, place.dtype, math.prod(place.shape))
        if len(array) * place.dtype.itemsize != place.end - place.begin:
            raise CheckpointError(f"{self._path}: cut short while it was read")
        return array.reshape(place.shape)

    def _place(self, name: str, entry: Any) -> _Place:  # noqa: ANN401 - JSON, about to be checked
        match entry:
            case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(begin), int(end)]} if (
                dtype in DTYPES and len(shape) <= MAX_DIMS and all(type(size) is int and size >= 0 for size in shape)
            ):
                kind = np.dtype(DTYPES[dtype])
                if 0 <= begin <= end and end - begin == math.prod(shape) * kind.itemsize:
                    return _Place(kind, tuple(shape), begin, end)
        raise CheckpointError(f"{self._path}: damaged (the header's entry of tensor {name[:80]!r})")

    def _check_places(self, size: int) -> None:
        end = 0
        for place in sorted(self._places.values(), key=lambda place: (place.begin, place.end)):
            if place.begin != end:
                raise CheckpointError(f"{self._path}: damaged (tensors overlap or leave gaps)")
            end = place.end
        if end != size:
            raise CheckpointError(f"{self._path}: damaged or cut short ({size:,} bytes of tensors, not {end:,})")


def parse_json(data: bytes | str, path: Path) -> Any:  # noqa: ANN401 - JSON
    """Read JSON from a file that may be anybody's: of bounded depth, no name twice.

    Raises:
        CheckpointError: If it is none of that.
    """
    try:
        value = json.loads(data, object_pairs_hook=_distinct)
    except RecursionError:
        raise CheckpointError(f"{path}: damaged header (nested too deep)") from None
    except ValueError as error:  # no JSON, no UTF-8, or a number of thousands of digits
        raise CheckpointError(f"{path}: not a model file, or a damaged header ({str(error)[:80]})") from None
    if _deeper_than(value, MAX_DEPTH):
        raise CheckpointError(f"{path}: damaged header (nested too deep)")
    return value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice")
    return found


def _deeper_than(value: Any, depth: int) -> bool:  # noqa: ANN401 - JSON
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_deeper_than(item, depth - 1) for item in inner)
