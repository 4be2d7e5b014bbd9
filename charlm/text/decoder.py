"""Incremental decoding of bytes to text, with the positions of errors."""

import codecs
import encodings.aliases
import importlib.util
from dataclasses import dataclass

import numpy as np

from charlm.errors import ConfigError, CorpusError

NEWLINE_BYTE = 0x0A
BYTE_ORDER_MARK = "\ufeff"


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
        try:
            name = encodings.normalize_encoding(self.encoding).lower()
            name = encodings.aliases.aliases.get(name, name)
            # Installed packages can register codecs under any name. Only Python's own are accepted.
            if importlib.util.find_spec(f"encodings.{name}") is None:
                raise LookupError(f"unknown encoding: {self.encoding}")
            codecs.getincrementaldecoder(self.encoding)
            "x".encode(self.encoding)  # fails for codecs that do not encode text, such as base64
        except (LookupError, ValueError, ImportError) as error:
            raise ConfigError(
                f"encoding {self.encoding}: {error}; try utf-8, latin-1 or utf-16", fields=["encoding"]
            ) from None


class TextDecoder:
    r"""Incremental decoder of one text.

    It removes a byte order mark at the beginning of the text. Line ends stay as they are; see `charlm.text.line_ends`.

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
        self._decoder = codecs.getincrementaldecoder(decoding.encoding)(decoding.errors)
        self._at_start = True
        # Numbers of bytes, newlines and characters so far, for error messages.
        self._num_bytes = self._num_newlines = self._num_chars = 0

    def decode(self, data: bytes) -> str:
        """Return the text of the next bytes; empty bytes end the text.

        An incomplete character at the end of `data` is held back until the next call.

        Raises:
            CorpusError: If the bytes are not valid in the encoding, or contain a NUL character that is not allowed.
        """
        self._num_bytes += len(data)
        # This is faster than bytes.count.
        self._num_newlines += int(np.count_nonzero(np.frombuffer(data, dtype=np.uint8) == NEWLINE_BYTE))
        try:
            text = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise self._decoding_error(error) from None
        except UnicodeError as error:  # some codecs raise it without saying which byte is invalid
            raise CorpusError(
                f"{self.name}: not valid {self._decoding.encoding} ({error}); set encoding", fields=["encoding"]
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
        if (b"\0" in data or self._decoding.encoding != "utf-8") and "\0" in text:
            raise self._binary_error(self._num_chars + text.index("\0"))

    def _decoding_error(self, error: UnicodeDecodeError) -> CorpusError:
        """Return the error for bytes that are not valid in the encoding.

        The bytes that the codec was decoding, `error.object`, may begin before the current block. They end where the
        block ends, so that offset and line are counted from the end.
        """
        encoding, data = self._decoding.encoding, error.object
        begin = self._num_bytes - len(data)
        nul = data.find(b"\0", 0, error.start)
        if nul >= 0 and not self._decoding.allow_nul and "16" not in encoding and "32" not in encoding:
            return self._binary_error(begin + nul)  # in UTF-16 and UTF-32, NUL bytes are parts of other characters
        line = self._num_newlines - data.count(b"\n", error.start) + 1
        return CorpusError(
            f"{self.name}: line {line:,}: not valid {encoding} (byte 0x{data[error.start]:02x} at offset "
            f"{begin + error.start:,}); set encoding or errors",
            fields=["encoding", "errors"],
        )

    def _binary_error(self, offset: int) -> CorpusError:
        return CorpusError(
            f"{self.name}: looks binary (NUL character at offset {offset:,}); give a text file, or set encoding",
            fields=["encoding"],
        )
