"""Detection of lists, on generated texts of many sorts."""

import base64
import json
import random
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

import charlm
from charlm.text.item_detection import looks_like_list
from charlm.text.named_corpora import NAMED_CORPORA
from tests.conftest import VERSE

random_numbers = random.Random(1)
SYLLABLES = ["ka", "lo", "mi", "ra", "ten", "sol", "vi", "du", "nor", "pel", "qui", "zan"]
FUNCTION_WORDS = ["the", "of", "and", "to", "in", "that", "it", "was", "for", "with"]


def word(syllables: int = 3) -> str:
    return "".join(random_numbers.choices(SYLLABLES, k=random_numbers.randint(1, syllables)))


def lines(make: Callable[[], str], count: int = 400) -> str:
    return "".join(f"{make()}\n" for _ in range(count))


def sentence() -> str:
    words = [random_numbers.choice(FUNCTION_WORDS) if number % 2 else word(2) for number in range(11)]
    words[random_numbers.randrange(5)] += ","
    return " ".join(words).capitalize() + "."


def prose(sentences: int = 600) -> str:
    return " ".join(sentence() for _ in range(sentences))


def title() -> str:
    words = [word().capitalize() for _ in range(random_numbers.randint(5, 9))]
    return f"{' '.join(words)} with {word()} - {random_numbers.randint(1, 99)}GB"


def json_object() -> str:
    return json.dumps(
        {"name": word(), "tags": [word(), word()], "age": random_numbers.randint(1, 99), "text": prose(3)[:90]}
    )


def password() -> str:
    return word() + random_numbers.choice(["", "1", "123", "!", "2009", "_x"]) + word(1).upper()


LISTS = {
    "names": lines(lambda: word().capitalize()),
    "words, sorted": "".join(sorted({f"{word(4)}\n" for _ in range(900)})),
    "words without a last newline": lines(word, 500).rstrip("\n"),
    "one blank line": lines(word) + "\n",
    "full names": lines(lambda: f"{word().capitalize()} {word().capitalize()}"),
    "phrases": lines(lambda: f"{word()} {word()}"),
    "places": lines(lambda: f"Upper {word().capitalize()}-on-{word().capitalize()}"),
    "titles": lines(title),
    "films": lines(lambda: f"The {word().capitalize()} ({random_numbers.randint(1920, 2020)})"),
    "passwords": lines(password),
    "words of five letters": lines(lambda: "".join(random_numbers.choices("abcdefghiklmnoprstuvwy", k=5))),
    "passwords of eight characters": lines(lambda: "".join(random_numbers.choices("abcdefghijklmnopqr2345", k=8))),
    "numbered names": "".join(f"item {number}\n" for number in range(300)),
    "JSON objects": lines(json_object),
    "JSON arrays": lines(lambda: json.dumps([word(), random_numbers.random()])),
    "addresses": lines(lambda: f"https://{word()}.example/{word()}/{word()}"),
    "Chinese names": lines(
        lambda: "".join(random_numbers.choices("王李张刘陈杨赵黄周吴徐孙", k=random_numbers.choice([2, 3, 3, 4]))), 900
    ),
    "Russian words": lines(lambda: "".join(random_numbers.choices("абвгдежиклмно", k=random_numbers.randint(3, 9)))),
}
TEXTS = {
    "verse": VERSE * 30,
    "prose": prose(),
    "wrapped prose": textwrap.fill(prose(), 70),
    "prose wrapped at few characters": textwrap.fill(prose(), 24),
    "prose without punctuation, wrapped": textwrap.fill(prose().lower().replace(".", "").replace(",", ""), 60),
    "one sentence per line": lines(sentence),
    "one sentence per line, without punctuation": lines(lambda: sentence().lower().replace(",", "").rstrip(".")),
    "one paragraph per line": lines(lambda: " ".join(sentence() for _ in range(5))),
    "one word of a text per line": "\n".join(prose().replace(".", "\n.").replace(",", "\n,").split()),
    "speech": lines(lambda: f"{word().upper()}:\n{sentence()}\n"),
    "source code": Path(charlm.__file__).with_name("config.py").read_text(encoding="utf-8"),
    "indented JSON": json.dumps([json.loads(json_object()) for _ in range(50)], indent=2),
    "numbers": lines(lambda: f"{random_numbers.gauss(0, 1):.4f}"),
    "columns of numbers": lines(lambda: f"2020-01-{random_numbers.randint(1, 31)},{random_numbers.random():.3f},7"),
    "log": lines(lambda: f"2020-01-01 12:00:{random_numbers.randint(10, 59)} INFO {word()} started on port {word(1)}"),
    "DNA": textwrap.fill("".join(random_numbers.choices("ACGT", k=20_000)), 60),
    "base64": textwrap.fill(base64.b64encode(random_numbers.randbytes(9000)).decode(), 76),
    "Chinese verse": lines(lambda: "".join(random_numbers.choices("的一是不了在人有我他这", k=7))),
    "Chinese prose": lines(lambda: "".join(random_numbers.choices("的一是不了在人有我他这", k=30)) + "。"),
    "CSV with a comma before a space": lines(lambda: f"{word()}, {word()}, {word()}"),
    "Markdown": lines(lambda: f"# {word()}\n\n- {sentence()}\n"),
    "toy": "hihello",
    "toy lines": "hello\nworld\n" * 300,
    "few names": lines(lambda: word().capitalize(), 60),
    "one line": "abc\n",
    "newlines": "\n" * 300,
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_are_detected(name: str) -> None:
    assert looks_like_list([LISTS[name]])


@pytest.mark.parametrize("name", TEXTS)
def test_texts_are_not_taken_for_lists(name: str) -> None:
    assert not looks_like_list([TEXTS[name]])


@pytest.mark.parametrize("name", NAMED_CORPORA)
def test_no_named_corpus_is_taken_for_a_list(name: str) -> None:
    assert not looks_like_list([NAMED_CORPORA[name].load()])


def test_every_piece_of_a_long_text_is_examined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.text.item_detection.MAX_SAMPLE_CHARS", 1000)
    names, verse = LISTS["names"], TEXTS["verse"]
    assert looks_like_list([names, names, "Ann\n"])
    assert not looks_like_list([names, verse])
