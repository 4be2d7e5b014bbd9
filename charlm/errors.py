"""Exceptions for every failure that a user can correct.

    CharlmError              exit code 1, one line on stderr
    +-- ConfigError          a setting is out of range, or settings contradict each other; exit code 2
    +-- CorpusError          a text cannot be read, or cannot be learnt from
    +-- VectorsError         a file of word vectors cannot be read, or does not fit the vocabulary
    +-- CheckpointError      a model file is missing, damaged or not a model file
    +-- RunError             a run exists already, or cannot be found or resumed
    +-- TrainingError        training cannot continue
    |   +-- PeerLostError    another process of a distributed training has ended
    +-- PackageError         an optional package is not installed
    +-- NoveltyError         no training text to compare with, or no new text is possible
    +-- SamplingError        no text satisfies the conditions of sampling

A message says what is wrong, where, and what to do. It names settings and arguments as in Python. The attribute
`fields` lists these names, so that a front end can replace them: the command line turns `hidden_size` into `--hidden`.

A `Note` is a sentence for the user that is not an error. It names settings in the same way.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Self

__all__ = [
    "CharlmError",
    "CheckpointError",
    "ConfigError",
    "CorpusError",
    "Note",
    "NoveltyError",
    "PackageError",
    "PeerLostError",
    "RunError",
    "SamplingError",
    "TrainingError",
    "VectorsError",
]


class CharlmError(Exception):
    """Base class of all expected failures.

    Args:
        message: Message that says what is wrong, where, and what to do.
        fields: Settings and arguments that the message names.

    Attributes:
        fields: As given.
        exit_code: Exit code of the command line after this error.

    Example:
        >>> import charlm
        >>> try:
        ...     charlm.load("missing/model.safetensors")
        ... except charlm.CharlmError as error:
        ...     print(type(error).__name__, error.exit_code)
        CheckpointError 1
    """

    exit_code = 1

    def __init__(self, message: str, *, fields: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.fields = tuple(fields)

    def worded(self, names: Mapping[str, str]) -> str:
        """Return the message with the first mention of each field replaced by its name in `names`.

        A field's name inside a path, such as `errors.log`, is no mention of it. In a message that uses the name as an
        ordinary word too, the field is written in backticks, which are replaced with it.

        Example:
            >>> error = ConfigError("hidden_size 0: must be at least 1", fields=["hidden_size"])
            >>> error.worded({"hidden_size": "--hidden"})
            '--hidden 0: must be at least 1'
        """
        return _worded(str(self), self.fields, names)


class Note(str):
    """Sentence for the user that names settings and arguments as the message of a `CharlmError` does.

    Args:
        message: The sentence.
        fields: Settings and arguments that it names.

    Attributes:
        fields: As given.

    Example:
        >>> note = Note("read as a list; set `items` to none to read a text", fields=["items"])
        >>> note.worded({"items": "--items"})
        'read as a list; set --items to none to read a text'
    """

    __slots__ = ("fields",)
    fields: tuple[str, ...]

    def __new__(cls, message: str, *, fields: Sequence[str] = ()) -> Self:
        """Make a note."""
        note = super().__new__(cls, message)
        note.fields = tuple(fields)
        return note

    def worded(self, names: Mapping[str, str]) -> str:
        """Return the sentence with each field replaced by its name in `names`, as `CharlmError.worded` does."""
        return _worded(self, self.fields, names)


def _worded(message: str, fields: Sequence[str], names: Mapping[str, str]) -> str:
    for field in fields:
        name = names.get(field, field)
        if f"`{field}`" in message:
            message = message.replace(f"`{field}`", name)
        else:
            mention = rf"(?<![\w./\\-]){field}(?![\w/\\-]|\.\w)"
            message = re.sub(mention, name.replace("\\", r"\\"), message, count=1)
    return message


class ConfigError(CharlmError):
    """A setting is out of range, or two settings contradict each other."""

    exit_code = 2


class CorpusError(CharlmError):
    """A text cannot be found, read, decoded or learnt from."""


class VectorsError(CharlmError):
    """A file of word vectors cannot be read, or has no word of the vocabulary."""


class CheckpointError(CharlmError):
    """A model file is missing, damaged, or not a model file of charlm."""


class RunError(CharlmError):
    """A run exists already, or cannot be found or resumed."""


class TrainingError(CharlmError):
    """Training cannot continue, for instance because the loss is no longer finite."""


class PeerLostError(TrainingError):
    """Another process of a distributed training has ended. The message of that process gives the reason."""


class PackageError(CharlmError):
    """A package that is not installed with every distribution, such as PyTorch, is needed."""


class NoveltyError(CharlmError):
    """There is no training text to compare with, or every continuation would repeat it."""


class SamplingError(CharlmError):
    """No text, or no more, satisfies the conditions of sampling."""
