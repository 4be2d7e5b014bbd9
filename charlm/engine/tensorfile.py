"""Reader of untrusted safetensors files, which checks everything before it allocates memory.

Layout of a file: 8 bytes with N, the length of the header, unsigned and little-endian; N bytes of JSON; the tensors,
one after the other and without gaps, to the end of the file. The JSON is an object with one entry per tensor (`dtype`,
`shape`, and `data_offsets` relative to the end of the header) and the entry `__metadata__`, which maps names to
strings.

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

MAX_HEADER_BYTES = 32 * 2**20
"""Maximum length of a header in bytes. A header with a vocabulary of a million words has some tens of megabytes."""

MAX_DIMS = 4
"""Maximum number of dimensions of a tensor. Tensors of charlm have up to 3."""

MAX_JSON_DEPTH = 16
"""Maximum number of nested levels in JSON. Headers of charlm have 4."""

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "|u1", "BOOL": "|b1"}
"""Number formats that a model file may have, with NumPy's names. BF16 is missing, because NumPy does not have it."""


@dataclass(frozen=True)
class _Entry:
    """Header entry of a tensor. Its bytes are those from `begin` to `end`, counted from the end of the header."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int
    end: int


class TensorFile:
    """A safetensors file whose header has been read and checked. Tensors are read on request.

    Args:
        file: The file, open for reading.
        path: Name of the file for messages.

    Attributes:
        metadata: The strings of the header.

    Raises:
        CheckpointError: If the file is not a safetensors file, or damaged.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        header, self._data_begin = self._read_header()
        self.metadata: dict[str, str] = header.pop("__metadata__", {})
        if not isinstance(self.metadata, dict) or not all(isinstance(text, str) for text in self.metadata.values()):
            raise CheckpointError(f"{path}: damaged header (a metadata value is not a string)")
        self._entries = {name: self._check_entry(name, entry) for name, entry in header.items()}
        self._check_layout(os.fstat(file.fileno()).st_size - self._data_begin)

    @property
    def names(self) -> Collection[str]:
        """Names of all tensors."""
        return self._entries.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self._entries[name].shape

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the number format of a tensor."""
        return self._entries[name].dtype

    def read(self, name: str) -> npt.NDArray[Any]:
        """Read a tensor.

        Raises:
            CheckpointError: If the file has become shorter since it was opened.
        """
        entry = self._entries[name]
        self._file.seek(self._data_begin + entry.begin)
        array = np.fromfile(self._file, entry.dtype, math.prod(entry.shape))
        if len(array) * entry.dtype.itemsize != entry.end - entry.begin:
            raise CheckpointError(f"{self._path}: truncated while it was read")
        return array.reshape(entry.shape)

    def _read_header(self) -> tuple[dict[str, Any], int]:
        """Return the header and the position of its end, in bytes."""
        size = os.fstat(self._file.fileno()).st_size
        length = int.from_bytes(self._file.read(8), "little")
        if size < 8 or length > size - 8:
            raise CheckpointError(f"{self._path}: not a model file, or truncated")
        if length > MAX_HEADER_BYTES:
            raise CheckpointError(f"{self._path}: not a model file (a header of {length:,} bytes)")
        header = parse_json(self._file.read(length), self._path)
        if not isinstance(header, dict):
            raise CheckpointError(f"{self._path}: not a model file (the header is not a JSON object)")
        return header, 8 + length

    def _check_entry(self, name: str, entry: Any) -> _Entry:  # noqa: ANN401 - JSON, about to be checked
        """Return a tensor's entry. Its number of bytes must fit its shape and number format."""
        match entry:
            case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(begin), int(end)]} if (
                dtype in DTYPES and len(shape) <= MAX_DIMS and all(type(size) is int and size >= 0 for size in shape)
            ):
                number = np.dtype(DTYPES[dtype])
                if 0 <= begin <= end and end - begin == math.prod(shape) * number.itemsize:
                    return _Entry(number, tuple(shape), begin, end)
        raise CheckpointError(f"{self._path}: damaged header (entry of tensor {name[:80]!r})")

    def _check_layout(self, num_bytes: int) -> None:
        """Check that the tensors cover all bytes after the header, without gaps and without overlap."""
        end = 0
        for entry in sorted(self._entries.values(), key=lambda entry: (entry.begin, entry.end)):
            if entry.begin != end:
                raise CheckpointError(f"{self._path}: damaged header (tensors overlap or leave gaps)")
            end = entry.end
        if end != num_bytes:
            raise CheckpointError(
                f"{self._path}: damaged or truncated ({num_bytes:,} bytes of tensors instead of {end:,})"
            )


def parse_json(data: bytes | str, path: Path) -> Any:  # noqa: ANN401 - JSON
    """Parse JSON of limited depth, without duplicate names.

    Args:
        data: The JSON text.
        path: Name of the file for messages.

    Raises:
        CheckpointError: If the text is not JSON, is nested too deep, or has duplicate names.
    """
    try:
        value = json.loads(data, object_pairs_hook=_dict_without_duplicates)
    except RecursionError:
        raise CheckpointError(f"{path}: damaged header (nested too deep)") from None
    except ValueError as error:  # not JSON, not UTF-8, or a number with thousands of digits
        raise CheckpointError(f"{path}: not a model file, or a damaged header ({str(error)[:80]})") from None
    if _is_deeper_than(value, MAX_JSON_DEPTH):
        raise CheckpointError(f"{path}: damaged header (nested too deep)")
    return value


def _dict_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate name")
    return found


def _is_deeper_than(value: Any, depth: int) -> bool:  # noqa: ANN401 - JSON
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_is_deeper_than(item, depth - 1) for item in inner)
