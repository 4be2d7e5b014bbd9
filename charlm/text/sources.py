"""Sources of text: files, folders, glob patterns, .gz files, standard input and the named corpora.

Text is read in blocks, because it may be larger than memory.
"""

import difflib
import glob
import gzip
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from charlm.errors import CorpusError
from charlm.text.decoder import Decoding, TextDecoder, encoding_of_mark, has_nul_bytes
from charlm.text.named_corpora import NAMED_CORPORA
from charlm.text.paths import access_problem

STDIN = "-"
"""Name of standard input among the texts."""

READ_BYTES = 1 << 16
"""Maximum number of bytes read at a time. A block stays in the processor's cache until its text is processed."""

MAX_NAME_CHARS = 60
"""Maximum length of a short name. The names of files and folders are limited to 255 bytes."""

MAX_NAMED = 3
"""Maximum number of skipped files that a note names."""

Report = Callable[[str], None]
"""Function that receives a sentence for the user."""


def ignore(message: str) -> None:
    """Do nothing with a sentence for the user."""


@dataclass(frozen=True)
class Source:
    """One text that can be read.

    Attributes:
        name: File name, name of a named corpus, or `-`.
        read: Function that returns the text in blocks. Its argument is the maximum number of bytes read at a time.
        rereadable: Whether the text can be read more than once.
    """

    name: str
    read: Callable[[int], Iterator[str]]
    rereadable: bool = True


def open_texts(spec: str, decoding: Decoding, report: Report = ignore) -> Iterator[Source]:
    """Find the texts that a specification names, without reading them.

    Args:
        spec: A file, a folder (all text files below it), a glob pattern, `-` for standard input, or a named corpus.
            A file takes precedence over a corpus of the same name.
        decoding: Rules by which bytes become characters.
        report: Receives a sentence about files of a folder that are skipped.

    Yields:
        At least one source.

    Raises:
        CorpusError: If there is no such text.
    """
    if not spec or "\0" in spec:
        problem = "it contains a NUL character" if spec else "it is empty"
        raise CorpusError(f"{spec or repr(spec)}: not a valid file name ({problem})")
    if spec == STDIN:
        yield _stdin_source(decoding)
    elif os.path.exists(spec):
        yield from _sources_at(spec, decoding, report)
    elif matches := [match for match in sorted(glob.glob(spec, recursive=True)) if os.path.exists(match)]:
        for match in matches:
            yield from _sources_at(match, decoding, report)
    elif spec in NAMED_CORPORA:
        yield Source(spec, lambda block_bytes: iter([NAMED_CORPORA[spec].load()]))
    elif problem := access_problem(spec):
        raise CorpusError(problem)
    else:
        raise CorpusError(f"{spec}: no such file, folder or named corpus; {_suggestion(spec)}")


def _sources_at(path: str, decoding: Decoding, report: Report) -> Iterator[Source]:
    """Yield the sources of a file or folder that exists."""
    if os.path.isdir(path):
        yield from _folder_sources(Path(path), decoding, report)
    else:
        yield _file_source(Path(path), path, decoding)


def join_texts(texts: Iterable[Iterable[str]]) -> Iterator[str]:
    r"""Join texts that arrive in blocks. Each one starts on a new line.

    Yields:
        The blocks that are not empty, and a newline after a text that does not end with one if another text follows.

    Example:
        >>> "".join(join_texts([["one\ntwo"], [], ["three\n"], ["four"]]))
        'one\ntwo\nthree\nfour'
    """
    last = ""
    for text in texts:
        boundary_due = last != "" and not last.endswith("\n")
        for block in text:
            if block and boundary_due:
                yield "\n"
                boundary_due = False
            if block:
                yield block
                last = block


def read_named(name: str) -> str:
    """Return the text of a named corpus.

    Raises:
        CorpusError: If there is no corpus of this name, or its data is not installed.
    """
    if name not in NAMED_CORPORA:
        raise CorpusError(f"{name}: no such named corpus; {_suggestion(name)}")
    return NAMED_CORPORA[name].load()


def read_block(file: BinaryIO, name: str, size: int) -> bytes:
    """Return the bytes that are available, up to `size`, waiting for at least one; no bytes at the end of the file.

    Raises:
        CorpusError: If the file cannot be read or decompressed. The message begins with `name`.
    """
    try:
        return file.read1(size)  # type: ignore[attr-defined,no-any-return]
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CorpusError(f"{name}: not a valid gzip file ({error})") from None
    except OSError as error:
        raise CorpusError(f"{name}: cannot be read ({error.strerror})") from None


def short_name(spec: str) -> str:
    """Return a short name of a text that is valid as a folder name."""
    if spec == STDIN:
        return "stdin"
    name = Path(os.path.abspath(spec)).name.split(".")[0][:MAX_NAME_CHARS]
    return "".join(char if char.isalnum() or char in "-_" else "-" for char in name).strip("-") or "text"


def _stdin_source(decoding: Decoding) -> Source:
    def read(block_bytes: int) -> Iterator[str]:
        return _decode_blocks(sys.stdin.buffer, TextDecoder("standard input", decoding), block_bytes)

    return Source(STDIN, read, rereadable=False)


def _file_source(path: Path, name: str, decoding: Decoding) -> Source:
    def read(block_bytes: int) -> Iterator[str]:
        with _open_bytes(path) as file:
            yield from _decode_blocks(file, TextDecoder(name, decoding), block_bytes)

    return Source(name, read, rereadable=os.path.isfile(path))  # a named pipe is not a regular file


def _folder_sources(folder: Path, decoding: Decoding, report: Report) -> Iterator[Source]:
    """Yield the text files below a folder, except hidden ones, and report what is skipped."""
    found, binary = False, []
    for path in _files_below(folder, report):
        kind = _kind_of_content(path, decoding)
        if kind == "text":
            found = True
            yield _file_source(path, str(path), decoding)
        elif kind == "binary":
            binary.append(str(path.relative_to(folder)))
    if binary:
        more = f" and {len(binary) - MAX_NAMED:,} more" if len(binary) > MAX_NAMED else ""
        report(
            f"{folder}: skipped {len(binary):,} file(s) with NUL bytes, which are binary or in UTF-16 without a byte "
            f"order mark: {', '.join(binary[:MAX_NAMED])}{more}"
        )
    if not found:
        raise CorpusError(f"{folder}: no text file in this folder")


def _files_below(folder: Path, report: Report) -> list[Path]:
    """Return the files below a folder, sorted, except hidden ones and those in hidden folders."""

    def cannot_list(error: OSError) -> None:
        report(f"{error.filename}: skipped, because the folder cannot be read ({error.strerror})")

    paths = []
    for parent, folders, names in os.walk(folder, onerror=cannot_list):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(path for path in paths if os.path.isfile(path))


def _decode_blocks(file: BinaryIO, decoder: TextDecoder, block_bytes: int) -> Iterator[str]:
    more = True
    while more:
        data = read_block(file, decoder.name, block_bytes)
        yield decoder.decode(data)
        more = bool(data)


def _open_bytes(path: Path) -> BinaryIO:
    """Open a file, and decompress it if its name ends with .gz."""
    try:
        return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror})") from None


def _kind_of_content(path: Path, decoding: Decoding) -> Literal["text", "empty", "binary"]:
    """Return whether a file has text. Images and programs have NUL bytes; so has text in UTF-16 and UTF-32."""
    with _open_bytes(path) as file:
        data = block = read_block(file, str(path), READ_BYTES)
        if not has_nul_bytes(encoding_of_mark(data) or decoding.encoding):
            while block and b"\0" not in block:
                block = read_block(file, str(path), READ_BYTES)
            if block:
                return "binary"
    return "text" if data else "empty"


def _suggestion(spec: str) -> str:
    """Return a hint for an error message: existing texts with similar names, or the named corpora."""
    parent = Path(spec).parent
    try:
        siblings = [str(parent / path.name) for path in parent.iterdir()]
    except OSError:
        siblings = []
    candidates = [name for name in (*NAMED_CORPORA, *siblings) if name != spec]  # a link to nothing has the name itself
    similar = difflib.get_close_matches(spec, candidates, n=3)
    return f"did you mean {' or '.join(similar)}?" if similar else f"the named corpora are {', '.join(NAMED_CORPORA)}"
