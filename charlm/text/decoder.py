"""Incremental decoding of bytes to text, with the positions of errors."""

import codecs
import encodings.aliases
import importlib
import importlib.util
from dataclasses import dataclass

import numpy as np

from charlm.errors import ConfigError, CorpusError

NEWLINE_BYTE = 0x0A
BYTE_ORDER_MARK = "\ufeff"

MARKS = {
    b"\xef\xbb\xbf": "utf-8",
    b"\xff\xfe\0\0": "utf-32",  # before the mark of UTF-16, which it begins with
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
"""Encodings by the byte order mark at the beginning of a text."""

NOT_TEXT_ENCODINGS = {"idna", "punycode", "raw_unicode_escape", "unicode_escape", "utf_7"}
"""Encodings of names and of source code that are refused. All but one yield halves of surrogate pairs, which no text
has, and which cannot be written."""

WINDOWS_BYTES = range(0x80, 0xA0)
"""Bytes that are quotation marks, dashes and other characters in cp1252, and not used by Latin-1."""


def encoding_of_mark(data: bytes) -> str:
    """Return the encoding that a byte order mark at the beginning of a text names; an empty string if there is none.

    Example:
        >>> encoding_of_mark("h".encode("utf-16")), encoding_of_mark(b"h")
        ('utf-16', '')
    """
    return next((encoding for mark, encoding in MARKS.items() if data.startswith(mark)), "")


def has_nul_bytes(encoding: str) -> bool:
    """Return True if characters other than NUL have NUL bytes in an encoding: in UTF-16 and in UTF-32."""
    return "16" in encoding or "32" in encoding


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """Rules by which bytes become characters.

    Attributes:
        encoding: One of Python's text encodings.
        errors: Treatment of bytes that are not valid in the encoding, one of `charlm.config.DECODING_ERRORS`.
        allow_nul: Whether NUL characters are allowed. If not, text that contains one is refused as binary.

    Raises:
        ConfigError: If the encoding is unknown.
    """

    encoding: str = "utf-8"
    errors: str = "strict"
    allow_nul: bool = False

    def __post_init__(self) -> None:
        if problem := _problem_of(self.encoding):
            raise ConfigError(
                f"encoding {self.encoding or repr('')}: {problem}; try utf-8, latin-1 or utf-16", fields=["encoding"]
            )


def _problem_of(encoding: str) -> str:
    """Return why an encoding cannot be used, or an empty string if it can."""
    name = encodings.normalize_encoding(encoding).lower()
    name = encodings.aliases.aliases.get(name, name)
    # Installed packages can register codecs under any name. Only Python's own are accepted. The modules of some, such
    # as mbcs, exist on every system and can be imported only on Windows.
    try:
        if not name or importlib.util.find_spec(f"encodings.{name}") is None:
            return "unknown encoding"
        importlib.import_module(f"encodings.{name}")
    except ValueError:
        return "unknown encoding"
    except ImportError:
        return "not available on this system"
    if name in NOT_TEXT_ENCODINGS:
        return "not an encoding of text files"
    try:
        codecs.getincrementaldecoder(encoding)
        "x".encode(encoding)  # fails for codecs that do not encode text, such as base64
    except (LookupError, ValueError):
        return "not an encoding of text files"
    return ""


class TextDecoder:
    r"""Incremental decoder of one text.

    A byte order mark at the beginning of the text decides the encoding, and is removed. Line ends stay as they are; see
    `charlm.text.line_ends`.

    Args:
        name: Name of the text, for error messages.
        decoding: Rules by which bytes become characters.

    Attributes:
        name: As given.

    Example:
        >>> decoder = TextDecoder("poem.txt", Decoding())
        >>> decoder.decode(b"caf\xc3"), decoder.decode(b"\xa9\r\n"), decoder.decode(b"")
        ('caf', 'é\r\n', '')
    """

    def __init__(self, name: str, decoding: Decoding) -> None:
        self.name = name
        self._decoding = decoding
        self._encoding = decoding.encoding
        self._decoder: codecs.IncrementalDecoder | None = None  # until the first bytes have decided the encoding
        self._first_bytes = b""
        self._at_start = True
        # Numbers of bytes, newlines and characters so far, for error messages.
        self._num_bytes = self._num_newlines = self._num_chars = 0

    def decode(self, data: bytes) -> str:
        """Return the text of the next bytes; empty bytes end the text.

        An incomplete character at the end of `data` is held back until the next call, and so are first bytes that may
        belong to a byte order mark.

        Raises:
            CorpusError: If the bytes are not valid in the encoding, or contain a NUL character that is not allowed.
        """
        if self._decoder is not None:
            return self._decode(self._decoder, data)
        first = self._first_bytes = self._first_bytes + data
        if data and any(mark.startswith(first) for mark in MARKS):
            return ""
        self._encoding = encoding_of_mark(first) or self._decoding.encoding
        self._decoder = codecs.getincrementaldecoder(self._encoding)(self._decoding.errors)
        text = self._decode(self._decoder, first) if first else ""
        return text if data else text + self._decode(self._decoder, b"")

    def _decode(self, decoder: codecs.IncrementalDecoder, data: bytes) -> str:
        self._num_bytes += len(data)
        # This is faster than bytes.count.
        self._num_newlines += int(np.count_nonzero(np.frombuffer(data, dtype=np.uint8) == NEWLINE_BYTE))
        try:
            text = decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise self._decoding_error(error) from None
        except UnicodeError as error:  # some codecs raise it without saying which byte is invalid
            raise CorpusError(
                f"{self.name}: not valid {self._encoding} ({error}); set encoding", fields=["encoding"]
            ) from None
        if not self._decoding.allow_nul:
            self._refuse_nul(data, text)
        if text and self._at_start:
            text, self._at_start = text.removeprefix(BYTE_ORDER_MARK), False
        self._num_chars += len(text)
        return text

    def _refuse_nul(self, data: bytes, text: str) -> None:
        # Searching bytes is faster than searching characters of two or four bytes. In UTF-8, a text has a NUL character
        # only if it has a NUL byte. In other encodings, the bytes do not decide.
        if (b"\0" in data or self._encoding != "utf-8") and "\0" in text:
            raise self._binary_error(self._num_chars + text.index("\0"))

    def _decoding_error(self, error: UnicodeDecodeError) -> CorpusError:
        """Return the error for bytes that are not valid in the encoding.

        The bytes that the codec was decoding, `error.object`, may begin before the current block. They end where the
        block ends, so that offset and line are counted from the end.
        """
        data, byte = error.object, error.object[error.start]
        begin = self._num_bytes - len(data)
        nul = data.find(b"\0", 0, error.start)
        if nul >= 0 and not self._decoding.allow_nul and not has_nul_bytes(self._encoding):
            return self._binary_error(begin + nul)
        line = self._num_newlines - data.count(b"\n", error.start) + 1
        if encoding_of_mark(data[error.start :]):
            advice = "set encoding, probably to utf-16, or errors"
        elif byte in WINDOWS_BYTES and self._encoding != "cp1252":
            advice = "set encoding, probably to cp1252, or errors"
        else:
            advice = "set encoding or errors"
        return CorpusError(
            f"{self.name}: line {line:,}: not valid {self._encoding} (byte 0x{byte:02x} at offset "
            f"{begin + error.start:,}); {advice}",
            fields=["encoding", "errors"],
        )

    def _binary_error(self, offset: int) -> CorpusError:
        return CorpusError(
            f"{self.name}: looks binary (NUL character at offset {offset:,}); give a text file, or set encoding, for "
            "example to utf-16",
            fields=["encoding"],
        )
