import encodings
import pkgutil
import random
import sys
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from charlm.errors import ConfigError, CorpusError
from charlm.text.decoder import Decoding, TextDecoder, encoding_of_mark

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]) | st.sampled_from("\r\n\ufeff"))
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-be"])


def expected_text(data: bytes, encoding: str = "utf-8", errors: str = "strict") -> str:
    """Return the text of a file, decoded in one line, with the encoding of its byte order mark if it has one."""
    return data.decode(encoding_of_mark(data) or encoding, errors).removeprefix("\ufeff")


def decode(data: bytes, size: int, decoding: Decoding) -> str:
    """Decode data in blocks of `size` bytes."""
    decoder = TextDecoder("text.txt", decoding)
    blocks = [data[begin : begin + size] for begin in range(0, len(data), size)]
    return "".join(decoder.decode(block) for block in [*blocks, b""])


@given(TEXT, ENCODINGS, st.integers(1, 9))
def test_blocks_of_any_size_give_the_same_text(text: str, encoding: str, size: int) -> None:
    data = text.encode(encoding)
    assert decode(data, size, Decoding(encoding=encoding)) == expected_text(data, encoding)


@given(st.binary(max_size=40), st.sampled_from(["replace", "ignore", "surrogateescape"]), st.integers(1, 9))
@example(b"\xef\xbb\xbf\xef\xbb\xbf\r", "replace", 1)
def test_invalid_bytes_are_handled_as_python_does(data: bytes, errors: str, size: int) -> None:
    assume(encoding_of_mark(data) in ("", "utf-8"))
    decoding = Decoding(errors=errors, allow_nul=True)
    assert decode(data, size, decoding) == expected_text(data, errors=errors)


@given(TEXT, st.sampled_from(["utf-8-sig", "utf-16", "utf-32"]), st.integers(1, 9))
def test_a_byte_order_mark_decides_the_encoding(text: str, encoding: str, size: int) -> None:
    for given_encoding in ("utf-8", "latin-1", "cp1252", "utf-16-be"):
        assert decode(text.encode(encoding), size, Decoding(encoding=given_encoding)) == text.removeprefix("\ufeff")


def test_both_byte_orders_are_read() -> None:
    for encoding in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
        assert decode("\ufeffcafé\n".encode(encoding), 3, Decoding()) == "café\n"


@pytest.mark.parametrize(
    ("data", "encoding"),
    [(b"smart \x93quotes\x94\n", "cp1252"), (b"caf\xc3\xa9 \xff\xfeh\0i\0", "utf-16")],
)
def test_an_invalid_byte_suggests_the_likely_encoding(data: bytes, encoding: str) -> None:
    with pytest.raises(CorpusError, match=f"set encoding, probably to {encoding}, or errors$"):
        decode(data, 1000, Decoding())


def test_no_accepted_encoding_yields_halves_of_surrogate_pairs() -> None:
    """Python's own codecs, which nobody here wrote, are all tried."""
    codec_names = {module.name for module in pkgutil.iter_modules(encodings.__path__)}
    rng = random.Random(1)
    samples = [rng.randbytes(rng.randrange(1, 12)) for _ in range(300)]
    samples += [rb"\ud800", rb"\U0000dc00", b"+2AA-", b"ib9b", b"a-l75g"]
    tried = 0
    for name in sorted(codec_names - {"aliases", "mbcs", "oem"}):
        try:
            decoding = Decoding(encoding=name)
        except ConfigError:
            continue
        tried += 1
        for sample in samples:
            with suppress(CorpusError):
                text = decode(sample, 1000, replace(decoding, allow_nul=True))
                assert not any("\ud800" <= char <= "\udfff" for char in text), name
    assert tried > 90


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("before", "encoding"),
    [("", "utf-8"), ("größer\n" * 9, "utf-8"), ("\ufeffgrößer\n" * 9, "utf-8"), ("日本語\n" * 9, "shift_jis")],
)
def test_an_invalid_byte_is_reported_with_offset_and_line(before: str, encoding: str, size: int) -> None:
    valid = before.encode(encoding)
    message = (
        rf"^text\.txt: line {before.count(chr(10)) + 1}: not valid {encoding} "
        rf"\(byte 0xfd at offset {len(valid)}\); set encoding or errors$"
    )
    with pytest.raises(CorpusError, match=message) as caught:
        decode(valid + b"\xfd and\nmore", size, Decoding(encoding=encoding))
    assert caught.value.fields == ("encoding", "errors")


def test_an_incomplete_character_at_the_end_is_reported_at_its_first_byte() -> None:
    for size in (1, 2, 1000):
        with pytest.raises(CorpusError, match=r"line 2: not valid utf-8 \(byte 0xe6 at offset 4\)"):
            decode(b"one\n\xe6\x97", size, Decoding())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32", "latin-1"])
def test_a_nul_character_is_refused_unless_it_is_allowed(encoding: str) -> None:
    data = "ab\0cd".encode(encoding)
    for size in (1, 1000):
        with pytest.raises(CorpusError, match=r"text\.txt: looks binary \(NUL character at offset 2\); .* encoding"):
            decode(data, size, Decoding(encoding=encoding))
        assert decode(data, size, Decoding(encoding=encoding, allow_nul=True)) == "ab\0cd"


def test_invalid_bytes_after_a_nul_byte_look_binary_unless_nul_is_allowed() -> None:
    data = b"\x7fELF\0\xd0\xd0"
    with pytest.raises(CorpusError, match=r"looks binary \(NUL character at offset 4\)"):
        decode(data, 1000, Decoding())
    with pytest.raises(CorpusError, match=r"byte 0xd0 at offset 5"):
        decode(data, 1000, Decoding(allow_nul=True))


NOT_WINDOWS = pytest.mark.skipif(sys.platform == "win32", reason="encodings of Windows")


@pytest.mark.parametrize(
    ("encoding", "problem"),
    [
        ("klingon", "unknown encoding"),
        ("", "unknown encoding"),
        ("a\0b", "unknown encoding"),
        ("base64", "not an encoding of text files"),
        ("rot13", "not an encoding of text files"),
        ("undefined", "not an encoding of text files"),
        ("utf-7", "not an encoding of text files"),
        ("U7", "not an encoding of text files"),
        ("idna", "not an encoding of text files"),
        ("raw_unicode_escape", "not an encoding of text files"),
        pytest.param("mbcs", "not available on this system", marks=NOT_WINDOWS),
        pytest.param("oem", "not available on this system", marks=NOT_WINDOWS),
    ],
)
def test_an_unknown_encoding_is_refused(encoding: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=f"^encoding {encoding or repr('')}: {problem}; try utf-8") as caught:
        Decoding(encoding=encoding)
    assert caught.value.fields == ("encoding",)
