import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from charlm.errors import ConfigError, CorpusError
from charlm.text.decoder import Decoding, TextDecoder

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]) | st.sampled_from("\r\n\ufeff"))
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-7"])


def expected_text(data: bytes, encoding: str = "utf-8", errors: str = "strict") -> str:
    """Return the text of a file, decoded in one line."""
    return data.decode(encoding, errors).removeprefix("\ufeff")


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
    decoding = Decoding(errors=errors, allow_nul=True)
    assert decode(data, size, decoding) == expected_text(data, errors=errors)


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("before", "encoding"),
    [("", "utf-8"), ("größer\n" * 9, "utf-8"), ("größer\n" * 9, "utf-8-sig"), ("日本語\n" * 9, "shift_jis")],
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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-7", "utf-16", "utf-32", "latin-1"])
def test_a_nul_character_is_refused_unless_it_is_allowed(encoding: str) -> None:
    data = "ab\0cd".encode(encoding)  # in UTF-7, none of these bytes is zero
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


@pytest.mark.parametrize("encoding", ["klingon", "base64", "rot13", "", "a\0b"])
def test_an_unknown_encoding_is_refused(encoding: str) -> None:
    with pytest.raises(ConfigError, match=f"^encoding {encoding}: .*; try utf-8") as caught:
        Decoding(encoding=encoding)
    assert caught.value.fields == ("encoding",)


def test_a_codec_error_without_a_position_is_reported() -> None:
    with pytest.raises(CorpusError, match=r"^text\.txt: not valid idna \(.*\); set encoding$"):
        decode(b"xn--a-ecp.ru", 1000, Decoding(encoding="idna"))
