"""Tests of `charlm score` as users run it."""

import json
import math
import os
import re
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from charlm.cli import main
from charlm.cli.score_columns import COLUMNS, TOTAL_FIGURES, Mode, describe, parse_columns
from charlm.cli.score_inputs import line_blocks
from charlm.cli.score_views import RowView, ScoreFilter, show_lines
from charlm.engine.checkpoint import save_checkpoint
from charlm.engine.rnn import RecurrentNetwork
from charlm.engine.scorer import ModelScorer, score_text
from charlm.engine.scores import TokenScores
from charlm.text.lines import LONG_LINE, read_lines
from charlm.text.tokenizer import CharTokenizer
from tests.conftest import VERSE, Charlm, make_checkpoint

LINES = VERSE.splitlines()


@pytest.fixture
def other_file(tmp_path: Path) -> Path:
    """File of a model with another vocabulary, in the run `other`."""
    path = tmp_path / "checkpoints" / "other" / "model.safetensors"
    save_checkpoint(path, make_checkpoint("abc" + VERSE.upper(), hidden_size=7)[1])
    os.utime(path, (1, 1))  # an old file, so that the run `tiny` is the newest
    return path


def bits(path: Path, line: str) -> float:
    """Return the bits per character of a line."""
    return score_text(RecurrentNetwork.load(path), line).bits_per_char


def nats(path: Path, text: str) -> float:
    """Return the negative log-likelihood of a text in nats."""
    return score_text(RecurrentNetwork.load(path), text).nll_nats


def test_each_line_is_printed_with_its_bits_per_character_in_input_order(charlm: Charlm, model_file: Path) -> None:
    done = charlm("score", stdin=VERSE + "no newline")
    rows = [row.split("\t") for row in done.stdout.splitlines()]
    assert [row[1] for row in rows] == [*LINES, "no newline"]
    expected = [bits(model_file, line + "\n") for line in LINES] + [bits(model_file, "no newline")]
    assert [float(row[0]) for row in rows] == pytest.approx(expected, abs=1e-3)
    assert done.stderr == ""


def test_only_a_newline_ends_a_line_and_a_carriage_return_before_it_belongs_to_the_line_end(
    charlm: Charlm, model_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "returns").write_bytes(b"a\rb\nc\r\n")
    done = charlm("score", "--format", "text,chars,tokens", tmp_path / "returns")
    assert done.stdout == "a\\rb\t4\t4\nc\t3\t2\n"
    (tmp_path / "unix").write_bytes(VERSE.encode())
    (tmp_path / "dos").write_bytes(VERSE.replace("\n", "\r\n").encode())
    rows = [charlm("score", "--format", "text,nats,tokens", tmp_path / name).stdout for name in ("unix", "dos")]
    assert rows[0] == rows[1]
    totals = [json.loads(charlm("score", "--total", "--json", tmp_path / name).stdout) for name in ("unix", "dos")]
    num_lines = VERSE.count("\n")
    for name in ("characters", "bytes"):
        assert totals[1][name] == totals[0][name] + num_lines == len(VERSE) + num_lines
    for total in totals:
        bits_of_text = total["bits_per_token"] * total["tokens"]
        assert total["bits_per_byte"] * total["bytes"] == pytest.approx(bits_of_text)
    assert totals[0]["nats_per_token"] == totals[1]["nats_per_token"]


def test_format_selects_and_orders_the_columns(charlm: Charlm, model_file: Path) -> None:
    score = score_text(RecurrentNetwork.load(model_file), "To %\n")
    done = charlm("score", "--format", "nats,tokens, unknowns,text,perplexity,chars", stdin="To %\n")
    nats, tokens, unknowns, text, perplexity, chars = done.stdout.rstrip("\n").split("\t")
    assert float(nats) == pytest.approx(score.nll_nats, abs=1e-3)
    assert float(perplexity) == pytest.approx(score.perplexity, abs=1e-2)
    assert (tokens, unknowns, text, chars) == ("5", "1", "To %", "5")
    assert done.stderr == "Note: 1 of 5 tokens were unknown to the model; the most frequent: '%' (1)\n"


def test_json_has_all_columns_of_one_model(charlm: Charlm, model_file: Path) -> None:
    row = json.loads(charlm("score", "--json", stdin='"\\\t\n').stdout)
    assert row["text"] == '"\\\t'
    assert row["bits_per_char"] == pytest.approx(row["nats"] / 4 / math.log(2))
    assert list(row) == [column.json_key for column in COLUMNS.values() if column.mode is None]


def test_json_total_has_all_figures_of_two_models(charlm: Charlm, model_file: Path, other_file: Path) -> None:
    total = json.loads(charlm("score", "--total", "--json", "--vs", "other", stdin=VERSE).stdout)
    assert list(total) == [figure.name for figure in TOTAL_FIGURES]
    plain = charlm("score", "--total", "--vs", "other", stdin=VERSE).stdout
    assert [row.split("\t")[0] for row in plain.splitlines()] == list(total)


def test_help_describes_every_column() -> None:
    text = " ".join(CliRunner().invoke(main, ["score", "--help"]).stdout.split())
    for name, description in describe(list(COLUMNS.values())):
        assert f"{name} {description}" in text


@pytest.mark.parametrize(("flag", "keeps"), [("--above", float.__gt__), ("--below", float.__lt__)])
def test_above_and_below_filter_lines(charlm: Charlm, model_file: Path, flag: str, keeps) -> None:  # noqa: ANN001
    middle = sorted(bits(model_file, line + "\n") for line in LINES)[5] + 1e-6
    done = charlm("score", flag, middle, "--format", "text", stdin=VERSE)
    assert done.stdout.splitlines() == [line for line in LINES if keeps(bits(model_file, line + "\n"), middle)]
    nothing = charlm("score", flag, {"--above": 1e9, "--below": 0}[flag], stdin=VERSE)
    assert (nothing.returncode, nothing.stdout, nothing.stderr) == (1, "", "")


def test_filter_applies_to_the_first_number_of_the_columns(charlm: Charlm, model_file: Path) -> None:
    done = charlm("score", "--format", "text,tokens,nats", "--above", 40, stdin=VERSE)
    assert done.stdout.splitlines() == [
        f"{line}\t{len(line) + 1}" + row[row.rindex("\t") :]
        for line, row in zip([line for line in LINES if len(line) >= 40], done.stdout.splitlines(), strict=True)
    ]


def test_vs_prints_the_log_likelihood_ratio(charlm: Charlm, model_file: Path, other_file: Path) -> None:
    done = charlm("score", "--vs", "other", stdin=VERSE)
    expected = [nats(other_file, f"{line}\n") - nats(model_file, f"{line}\n") for line in LINES]
    assert [float(row.split("\t")[0]) for row in done.stdout.splitlines()] == pytest.approx(expected, abs=1e-3)
    total = json.loads(charlm("score", "--vs", "other", "--total", "--json", stdin=VERSE).stdout)
    assert total["log_ratio"] == pytest.approx(nats(other_file, VERSE) - nats(model_file, VERSE), abs=1e-2)


def test_mix_interpolates_several_models(charlm: Charlm, model_file: Path, other_file: Path) -> None:
    names = [f"m{index}" for index in range(3)]
    for index, name in enumerate(names):
        path = other_file.parent.parent / name / "model.safetensors"
        save_checkpoint(path, make_checkpoint(hidden_size=4 + index)[1])

    def nats_of(*mix: str) -> float:
        return float(charlm("score", "-m", "m0", *mix, "--format", "nats", stdin="T\n").stdout)

    one, two, three = (score_tokens(other_file.parent.parent / name / "model.safetensors", "T\n") for name in names)
    mixed = -np.log(0.5 * np.exp(-one) + 0.3 * np.exp(-two) + 0.2 * np.exp(-three)).sum()
    assert nats_of("--mix", "m1:0.3", "--mix", "m2:0.2") == pytest.approx(mixed, abs=1e-3)
    assert nats_of("--mix", "m1:0") == pytest.approx(one.sum(), abs=1e-3)
    assert nats_of("--mix", "m1:1") == pytest.approx(two.sum(), abs=1e-3)


def score_tokens(path: Path, text: str) -> np.ndarray:
    """Return the negative log-probability of each token in nats, without the spelling of unknown tokens."""
    return ModelScorer(RecurrentNetwork.load(path)).start_stream().feed(text).token_nats.astype(float)


def test_characters_that_one_model_of_a_mixture_lacks_share_its_unknown_token(
    charlm: Charlm, model_file: Path, other_file: Path
) -> None:
    # The mixture knows 1 + n events; each model gives every event that it lacks an equal part of its unknown token.
    tokens = [set(RecurrentNetwork.load(path).tokenizer.tokens[1:]) for path in (model_file, other_file)]
    one, two = (
        score_tokens(path, "r") + math.log(len(tokens[0] | tokens[1]) - len(known) + 1) * ("r" not in known)
        for path, known in zip((model_file, other_file), tokens, strict=True)
    )
    done = charlm("score", "--mix", "other:0.4", "--format", "nats,unknowns", stdin="r")
    assert "r" in tokens[0] - tokens[1]
    assert float(done.stdout.split()[0]) == pytest.approx(
        -math.log(0.6 * np.exp(-one[0]) + 0.4 * np.exp(-two[0])), abs=1e-3
    )
    assert done.stdout.split()[1] == "0"


def test_text_with_tabs_cannot_forge_columns(charlm: Charlm, model_file: Path) -> None:
    forged = "a\tb\\\t9.9999"
    done = charlm("score", "--format", "text,tokens", stdin=forged + "\n")
    assert done.stdout == "a\\tb\\\\\\t9.9999\t12\n"  # escaped before another column
    last = charlm("score", "--format", "tokens,text", stdin=forged + "\n")
    assert last.stdout.split("\t", 1) == ["12", forged + "\n"]


def test_total_scores_the_text_as_one_stream(charlm: Charlm, model_file: Path, tmp_path: Path) -> None:
    text = VERSE + "x" * (LONG_LINE + 10) + "\n" + VERSE
    (tmp_path / "t.txt").write_text(text)
    total = json.loads(charlm("score", "--total", "--json", tmp_path / "t.txt").stdout)
    score = score_text(RecurrentNetwork.load(model_file), text)
    assert total["characters"] == len(text)
    assert total["nats_per_char"] == pytest.approx(score.nats_per_char, abs=1e-5)


def test_long_line_is_scored_and_printed_as_one_line(charlm: Charlm, model_file: Path, tmp_path: Path) -> None:
    long = "To be, \udc80 " * (LONG_LINE // 8)
    path = tmp_path / "t.txt"
    path.write_text(f"first\n{long}\n\nlast", encoding="utf-8", errors="surrogateescape")
    rows = charlm("score", path, "-q", "--format", "nats,text").stdout.split("\n")
    assert [row.partition("\t")[2] for row in rows] == ["first", long, "", "last", ""]
    assert float(rows[1].partition("\t")[0]) == pytest.approx(nats(model_file, long + "\n"), rel=1e-5)
    objects = [json.loads(row) for row in charlm("score", path, "-q", "--json").stdout.splitlines()]
    assert [row["text"] for row in objects] == ["first", long, "", "last"]


def test_lines_of_a_pipe_are_scored_as_they_arrive(model_file: Path) -> None:
    command = [sys.executable, "-m", "charlm", "score"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in ("one\n", "two\n"):
            process.stdin.write(line)
            process.stdin.flush()
            assert process.stdout.readline().endswith(f"\t{line}")
        process.stdin.close()


def test_coloured_heat_map_without_its_colours_is_the_text(charlm: Charlm, model_file: Path) -> None:
    done = charlm("score", "--color=always", stdin=VERSE)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    assert plain.splitlines() == ["bits per character:  below 1   1-2   2-4   4-6   6-9   9 or more ",
                                  *(line + "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}" for line in LINES)]  # fmt: skip
    assert "\x1b[" in done.stdout


def test_heat_map_without_colours_has_a_digit_below_each_character(
    charlm: Charlm, model_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "poem.txt").write_text("To be\x1b[31m, 語 or\n")
    legend, chars, digits = charlm("score", "-q", "--color", tmp_path / "poem.txt").stdout.splitlines()
    assert "\x1b" not in legend + chars + digits
    assert chars == "To be\N{SYMBOL FOR ESCAPE}[31m, 語 or\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}"
    assert len(digits) == len(chars) + 1  # the wide character takes two columns
    assert set(digits) <= set(".123456789 ")


def test_html_page_is_self_contained_and_escapes_the_text(charlm: Charlm, model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "odd").write_bytes(b"<b> & \x07\x80\n")
    done = charlm("score", "--html", tmp_path / "page.html", tmp_path / "odd")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert (done.stdout, done.returncode) == ("", 0)
    assert "http" not in page
    assert page.count(f"{tmp_path / 'odd'}, scored by tiny") == 2  # title and heading
    chars, bits = charlm("score", "-q", "--format", "chars,bits-per-char", tmp_path / "odd").stdout.split()
    assert f"<p>{chars} characters, {bits} bits per character</p>" in page
    assert "<b>" not in page
    text = re.sub(r"<[^>]*>", "", page.split("<pre>")[1].split("</pre>")[0])
    assert text.strip() == "&lt;b&gt; &amp; \N{SYMBOL FOR BELL}\N{REPLACEMENT CHARACTER}↵"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--total", "--color"], 2, "--total and --color cannot be combined"),
        (["--per-token", "--above", "2"], 2, "--per-token and --above"),
        (["--per-token", "--vs", "tiny"], 2, "--per-token and --vs"),
        (["--per-word", "--per-token"], 2, "--per-token and --per-word"),
        (["--unit", "nats"], 2, "--unit needs --per-token or --per-word"),
        (["--no-header"], 2, "--no-header needs --per-token or --per-word"),
        (["--format", "bits"], 2, "--format bits: no column 'bits'; choose from bits-per-char, bits-per-byte"),
        (["--format", "log-ratio"], 2, "log-ratio compares two models; set --vs"),
        (["--mix", "tiny"], 2, "--mix tiny"),
        (["--mix", "tiny:2"], 2, "--mix tiny:2"),
        (["--mix", "tiny:0.6", "--mix", "tiny:0.5"], 2, "--mix: the weights add up to 1.1"),
        (["--vs", "tiny", "--vs", "tiny"], 2, "--vs is given more than once"),
        (["--vs", "nothing"], 1, "nothing: no model file"),
        (["--html", "no/such/folder/x"], 1, "--html no/such/folder/x: cannot be written"),
        (["--total"], 1, "nothing to score"),
        (["nothing.txt"], 1, "nothing.txt"),
    ],
)
def test_errors_are_reported_in_one_line(
    charlm: Charlm, model_file: Path, arguments: list[str], code: int, message: str
) -> None:
    done = charlm("score", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr.splitlines()[-1]


def test_empty_input_has_empty_output(charlm: Charlm, model_file: Path) -> None:
    done = charlm("score")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_invalid_bytes_and_control_characters_pass_unchanged(charlm: Charlm, model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "odd").write_bytes(b"\xef\xbb\xbfTo\r\nbe\0\n\n\xff\xed\xa0\x80\nx")
    command = [sys.executable, "-m", "charlm", "score", "-q", str(tmp_path / "odd"), "--format", "tokens,text"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout == b"3\tTo\n4\tbe\0\n1\t\n5\t\xff\xed\xa0\x80\n1\tx\n"


class FreeScorer:
    """Scorer that assigns 0 nats to every character, without computation."""

    tokenizer = CharTokenizer("a")

    def score_lines(self, lines: Sequence[str]) -> list[TokenScores]:
        return [self.feed(line) for line in lines]

    def start_stream(self) -> "FreeScorer":
        return self

    def feed(self, text: str) -> TokenScores:
        return TokenScores(text, np.zeros(len(text), np.uint8), np.zeros(len(text), np.float32))


def test_memory_use_does_not_grow_with_the_length_of_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 30_000_000
    (tmp_path / "line.txt").write_text("to be " * (size // 6))
    with (tmp_path / "out.txt").open("w") as out:
        monkeypatch.setattr("sys.stdout", out)
        tracemalloc.start()
        view = RowView(parse_columns("tokens,text", Mode.ONE), ScoreFilter(), as_json=False)
        show_lines([FreeScorer()], line_blocks(read_lines([str(tmp_path / "line.txt")])), view)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert (tmp_path / "out.txt").stat().st_size == size + len("30000000\t\n")
    assert peak < size / 2


def test_closed_pipe_ends_the_command_quietly(model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text(VERSE * 500)
    started = time.monotonic()
    script = f"set -o pipefail; {sys.executable} -m charlm score long.txt | head -2"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", 2)
    assert time.monotonic() - started < 30
