"""Text from models and files reaches a terminal as printable characters only."""

from pathlib import Path

import pytest

from charlm.cli.heatmap import _num_columns, visible
from charlm.engine.checkpoint import save_checkpoint
from tests.conftest import make_checkpoint
from tests.server import Server

HOSTILE = "ab\x1b[2J\x9b\u202e\x7f\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["sample", "-n", "300", "--seed", "1"],
        ["next", "--top", "9"],
        ["vectors", "export"],
        ["vectors", "nearest", "a"],
        ["novelty", "hostile.txt", "--corpus", "hostile.txt"],
        ["score", "hostile.txt"],
        ["score", "hostile.txt", "--per-token"],
        ["score", "hostile.txt", "--color=never"],
    ],
    ids=" ".join,
)
def test_no_escape_sequence_reaches_a_terminal(arguments: list[str], server: Server) -> None:
    Path("hostile.txt").write_text(HOSTILE * 3, encoding="utf-8")
    save_checkpoint(Path("checkpoints/hostile/model.safetensors"), make_checkpoint(HOSTILE)[1])
    shown = server.run_on_terminal(arguments)
    assert shown
    assert all(char.isprintable() or char in "\r\n\t" for char in shown)


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("e\u0301", 1),  # a combining accent
        ("\u0915\u0941", 1),  # a vowel sign of Hindi, which is a mark of combining class 0
        ("\u0e01\u0e35", 1),  # a vowel of Thai
        ("\u2764\ufe0f", 1),  # a variation selector
        ("a\u200bb\u200dc\ufeff", 3),
        ("\u1112\u1161\u11ab", 2),  # one syllable of Korean in three parts
        ("日本", 4),
        ("\uff41", 2),
        ("a\u20dd", 1),  # an enclosing circle
        ("\u202eab\udc80", 4),  # shown as U+FFFD
        ("\t\n\x00", 3),  # shown as symbols
    ],
)
def test_a_heat_map_counts_the_columns_of_a_terminal(text: str, columns: int) -> None:
    assert sum(_num_columns(visible(char)) for char in text) == columns
