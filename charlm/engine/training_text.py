"""The training text that is stored beside a model, so that copies of it can be found.

It is the text as it was read: in its own upper and lower case and whitespace, with all words, and with the part or the
text that validates. After fine-tuning, the text of the pretrained model follows. It is compressed to about a third.
"""

import codecs
import gzip
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from charlm.atomic import atomic_write
from charlm.engine.runs import TEXT_FILE, Run
from charlm.errors import NoveltyError
from charlm.text.named_corpora import NAMED_CORPORA
from charlm.text.sources import join_texts

MAX_STORED_CHARS = 2**25
"""Maximum number of characters stored and read. A search for copies takes 8 bytes of memory per character."""

READ_BYTES = 2**16
"""Number of bytes read at a time."""


def store_training_text(run: Run, texts: Iterable[Iterable[str]]) -> None:
    """Store texts beside a model, one after the other, up to `MAX_STORED_CHARS` characters.

    Args:
        run: Run of the model.
        texts: The texts, each in blocks. Each one starts on a new line.

    Raises:
        NoveltyError: If the file cannot be written.
        CorpusError: If a text cannot be read.
    """
    chars_left = MAX_STORED_CHARS
    try:
        with atomic_write(run.text) as raw, gzip.GzipFile("", "wb", compresslevel=3, fileobj=raw, mtime=0) as file:
            for block in join_texts(texts):
                file.write(block[:chars_left].encode("utf-8", "surrogatepass"))
                chars_left -= len(block)
                if chars_left <= 0:
                    break
    except OSError as error:
        raise NoveltyError(
            f"{run.text}: cannot be written ({error.strerror}); check permissions and free space"
        ) from None


def stored_blocks(model: Path) -> Iterator[str]:
    """Read the text that is stored beside a model, up to `MAX_STORED_CHARS` characters.

    Args:
        model: Model file.

    Yields:
        Blocks of the text.

    Raises:
        NoveltyError: If there is no such text, or it is damaged.
    """
    path = model.parent / TEXT_FILE
    chars_left = MAX_STORED_CHARS
    try:
        with gzip.open(path) as file:
            blocks = iter(lambda: file.read(READ_BYTES), b"")
            for block in codecs.iterdecode(blocks, "utf-8", "surrogatepass"):
                yield block[:chars_left]
                chars_left -= len(block)
                if chars_left <= 0:  # a file of another origin can unpack to any size
                    return
    except FileNotFoundError:
        raise NoveltyError(
            f"{path}: the training text is not stored with this model; set corpus to the text to compare with",
            fields=["corpus"],
        ) from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise NoveltyError(
            f"{path}: damaged ({error}); set corpus to the text to compare with", fields=["corpus"]
        ) from None


def training_blocks(model: Path, metadata: Mapping[str, Any]) -> Iterator[str]:
    """Read the training text of a model: the stored text, or else the named corpora that it was trained on.

    Args:
        model: Model file.
        metadata: Metadata of the model.

    Raises:
        NoveltyError: If no text is stored and the model was not trained on named corpora alone, or if the stored text
            is damaged.
        CorpusError: If the data of a named corpus is not installed.
    """
    if not is_stored(model) and (names := named_corpora(metadata)):
        return (NAMED_CORPORA[name].load() for name in names)
    return stored_blocks(model)


def load_training_text(model: Path, metadata: Mapping[str, Any]) -> str:
    """Return the training text of a model. Arguments and errors are those of `training_blocks`."""
    return "".join(training_blocks(model, metadata))


def is_stored(model: Path) -> bool:
    """Return True if a training text is stored beside a model file."""
    return (model.parent / TEXT_FILE).exists()


def named_corpora(metadata: Mapping[str, Any]) -> list[str]:
    """Return the corpora of a model's metadata if all of them are named corpora, otherwise an empty list."""
    match metadata.get("corpus"):
        case {"sources": [*names]} if names and all(name in list(NAMED_CORPORA) for name in names):
            return names
    return []
