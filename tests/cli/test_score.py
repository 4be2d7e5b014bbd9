"""`charlm score` as its user has it."""

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

from charlm.cli.score_columns import RowView, ScoreFilter, show_lines
from charlm.engine.checkpoint import save_checkpoint
from charlm.engine.rnn import RecurrentNetwork
from charlm.engine.scorer import Costs, score_text
from charlm.text.lines import LONG_LINE, read_lines
from charlm.text.tokenizer import CharTokenizer
from tests.conftest import VERSE, Charlm, make_checkpoint

LINES = VERSE.splitlines()


@pytest.fixture
def other_file(tmp_path: Path) -> Path:
    """A model with another vocabulary, as the run `other`."""
    path = tmp_path / "checkpoints" / "other" / "model.safetensors"
    save_checkpoint(path, make_checkpoint("abc" + VERSE.upper(), hidden_size=7)[1])
    os.utime(path, (1, 1))  # long ago: `tiny` is the newest
    return path


def bits(path: Path, line: str) -> float:
    return score_text(RecurrentNetwork.load(path), line).bits_per_char


def test_each_line_has_its_bits_in_input_order(charlm: Charlm, model_file: Path) -> None:
    done = charlm("score", stdin=VERSE + "no newline")
    rows = [row.split("\t") for row in done.stdout.splitlines()]
    assert [row[1] for row in rows] == [*LINES, "no newline"]
    wanted = [bits(model_file, line + "\n") for line in LINES] + [bits(model_file, "no newline")]
    assert [float(row[0]) for row in rows] == pytest.approx(wanted, abs=1e-3)
    assert done.stderr == ""


def test_columns_are_those_asked_for(charlm: Charlm, model_file: Path) -> None:
    score = score_text(RecurrentNetwork.load(model_file), "To %\n")
    done = charlm("score", "--format", "nats,tokens, unknowns,text,perplexity,chars", stdin="To %\n")
    nats, tokens, unknowns, text, perplexity, chars = done.stdout.rstrip("\n").split("\t")
    assert float(nats) == pytest.approx(score.nll_nats, abs=1e-3)
    assert float(perplexity) == pytest.approx(score.perplexity, abs=1e-2)
    assert (tokens, unknowns, text, chars) == ("5", "1", "To %", "5")
    assert done.stderr == "Note: 1 of 5 tokens were unknown to the model\n"


def test_json_has_all_figures(charlm: Charlm, model_file: Path) -> None:
    facts = json.loads(charlm("score", "--json", stdin='"\\\t\n').stdout)
    assert facts["text"] == '"\\\t'
    assert facts["bits_per_char"] == pytest.approx(facts["nats"] / 4 / math.log(2))


@pytest.mark.parametrize(("flag", "keeps"), [("--above", float.__gt__), ("--below", float.__lt__)])
def test_it_filters_as_grep_does(charlm: Charlm, model_file: Path, flag: str, keeps) -> None:  # noqa: ANN001
    middle = sorted(bits(model_file, line + "\n") for line in LINES)[5] + 1e-6
    done = charlm("score", flag, middle, "--format", "text", stdin=VERSE)
    assert done.stdout.splitlines() == [line for line in LINES if keeps(bits(model_file, line + "\n"), middle)]
    nothing = charlm("score", flag, {"--above": 1e9, "--below": 0}[flag], stdin=VERSE)
    assert (nothing.returncode, nothing.stdout, nothing.stderr) == (1, "", "")


def test_the_filter_looks_at_the_first_number(charlm: Charlm, model_file: Path) -> None:
    done = charlm("score", "--format", "text,tokens,nats", "--above", 40, stdin=VERSE)
    assert done.stdout.splitlines() == [
        f"{line}\t{len(line) + 1}" + row[row.rindex("\t") :]
        for line, row in zip([line for line in LINES if len(line) >= 40], done.stdout.splitlines(), strict=True)
    ]


def test_another_model_is_compared_with_by_character(charlm: Charlm, model_file: Path, other_file: Path) -> None:
    one, other = (RecurrentNetwork.load(path) for path in (model_file, other_file))
    done = charlm("score", "--vs", "other", stdin=VERSE)
    wanted = [score_text(other, f"{x}\n").nll_nats - score_text(one, f"{x}\n").nll_nats for x in LINES]
    assert [float(row.split("\t")[0]) for row in done.stdout.splitlines()] == pytest.approx(wanted, abs=1e-3)
    total = json.loads(charlm("score", "--vs", "other", "--total", "--json", stdin=VERSE).stdout)
    assert total["log_ratio"] == pytest.approx(
        score_text(other, VERSE).nll_nats - score_text(one, VERSE).nll_nats, abs=1e-2
    )


def test_a_mixture_lies_between_its_models(charlm: Charlm, model_file: Path, other_file: Path) -> None:
    rows = {
        weight: float(charlm("score", "--mix", f"other:{weight}", "--format", "nats", stdin="To be\n").stdout)
        for weight in (0, 0.5, 1)
    }
    assert rows[0] == pytest.approx(score_text(RecurrentNetwork.load(model_file), "To be\n").nll_nats, abs=1e-3)
    assert rows[1] == pytest.approx(score_text(RecurrentNetwork.load(other_file), "To be\n").nll_nats, abs=1e-3)
    assert min(rows[0], rows[1]) - math.log(2) * 6 < rows[0.5] < max(rows[0], rows[1])


def test_total_is_one_stream_however_long_its_lines(charlm: Charlm, model_file: Path, tmp_path: Path) -> None:
    text = VERSE + "x" * (LONG_LINE + 10) + "\n" + VERSE
    (tmp_path / "t.txt").write_text(text)
    found = json.loads(charlm("score", "--total", "--json", tmp_path / "t.txt").stdout)
    score = score_text(RecurrentNetwork.load(model_file), text)
    assert found["characters"] == len(text)
    assert found["nats_per_char"] == pytest.approx(score.nats_per_char, abs=1e-5)


def test_a_line_in_parts_is_one_line_in_the_output(charlm: Charlm, model_file: Path, tmp_path: Path) -> None:
    long = "To be, \udc80 " * (LONG_LINE // 8)
    path = tmp_path / "t.txt"
    path.write_text(f"first\n{long}\n\nlast", encoding="utf-8", errors="surrogateescape")
    command = [sys.executable, "-m", "charlm", "score", str(path), "-q", "--format", "nats,text"]
    rows = (
        subprocess.run(command, capture_output=True, check=True).stdout.decode("utf-8", "surrogateescape").split("\n")
    )
    assert [row.partition("\t")[2] for row in rows] == ["first", long, "", "last", ""]
    assert float(rows[1].partition("\t")[0]) == pytest.approx(
        score_text(RecurrentNetwork.load(model_file), long + "\n").nll_nats, rel=1e-5
    )
    objects = [json.loads(row) for row in charlm("score", path, "-q", "--json").stdout.splitlines()]
    assert [facts["text"] for facts in objects] == ["first", long, "", "last"]


def test_a_slow_producer_gets_its_answer_at_once(model_file: Path) -> None:
    command = [sys.executable, "-m", "charlm", "score"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in ("one\n", "two\n"):
            process.stdin.write(line)
            process.stdin.flush()
            assert process.stdout.readline().endswith(f"\t{line}")
        process.stdin.close()


def test_tokens_have_rows_of_their_own(charlm: Charlm, model_file: Path) -> None:
    rows = [row.split("\t") for row in charlm("score", "--per-token", stdin="To\tbe\nor\n").stdout.splitlines()]
    assert [(number, token) for number, _, token in rows] == [*(("1", c) for c in ["T", "o", r"\t", "b", "e", r"\n"]),
                                                              ("2", "o"), ("2", "r"), ("2", r"\n")]  # fmt: skip
    assert sum(float(row[1]) for row in rows[:6]) == pytest.approx(
        score_text(RecurrentNetwork.load(model_file), "To\tbe\n").nll_nats, abs=1e-2
    )
    objects = [json.loads(row) for row in charlm("score", "--per-token", "--json", stdin="T%\n").stdout.splitlines()]
    assert [(facts["line"], facts["token"], facts["known"]) for facts in objects] == [
        (1, "T", True),
        (1, "%", False),
        (1, "\n", True),
    ]


def test_painted_text_without_its_paint_is_the_text(charlm: Charlm, model_file: Path) -> None:
    done = charlm("score", "--color=always", stdin=VERSE)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    assert plain.splitlines() == ["bits a character:  below 1   1-2   2-4   4-6   6-9   9 or more ",
                                  *(line + "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}" for line in LINES)]  # fmt: skip
    assert "\x1b[" in done.stdout


def test_without_colours_digits_stand_below(charlm: Charlm, model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "poem.txt").write_text("To be\x1b[31m, 語 or\n")
    legend, above, below = charlm("score", "-q", "--color", tmp_path / "poem.txt").stdout.splitlines()
    assert "\x1b" not in legend + above + below
    assert above == "To be\N{SYMBOL FOR ESCAPE}[31m, 語 or\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}"
    assert len(below) == len(above) + 1  # the wide character has two columns
    assert set(below) <= set(".123456789 ")


def test_a_page_stands_alone(charlm: Charlm, model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "odd").write_bytes(b"<b> & \x07\x80\n")
    done = charlm("score", "--html", tmp_path / "page.html", tmp_path / "odd")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert (done.stdout, done.returncode) == ("", 0)
    assert "http" not in page
    assert "<b>" not in page
    text = re.sub(r"<[^>]*>", "", page.split("<pre>")[1])
    assert text.strip() == "&lt;b&gt; &amp; \N{SYMBOL FOR BELL}\N{REPLACEMENT CHARACTER}↵"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--total", "--color"], 2, "--total and --color"),
        (["--per-token", "--above", "2"], 2, "--per-token and --above"),
        (["--format", "bits"], 2, "no column 'bits'"),
        (["--format", "log-ratio"], 2, "--vs"),
        (["--mix", "tiny"], 2, "--mix tiny"),
        (["--mix", "tiny:2"], 2, "--mix tiny:2"),
        (["--vs", "nothing"], 1, "nothing: no model file"),
        (["--html", "no/such/folder/x"], 2, "cannot be written"),
        (["--total"], 1, "nothing to score"),
        (["nothing.txt"], 1, "nothing.txt"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    charlm: Charlm, model_file: Path, arguments: list[str], code: int, message: str
) -> None:
    done = charlm("score", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr.splitlines()[-1]


def test_no_input_is_no_output(charlm: Charlm, model_file: Path) -> None:
    done = charlm("score")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_odd_lines_are_lines(charlm: Charlm, model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "odd").write_bytes(b"\xef\xbb\xbfTo\r\nbe\0\n\n\xff\xed\xa0\x80\nx")
    command = [sys.executable, "-m", "charlm", "score", "-q", str(tmp_path / "odd"), "--format", "tokens,text"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout == b"3\tTo\n4\tbe\0\n1\t\n5\t\xff\xed\xa0\x80\n1\tx\n"


class IdleScorer:
    """Finds every character free of cost, at once."""

    tokenizer = CharTokenizer("a")

    def score_lines(self, lines: Sequence[str]) -> list[Costs]:
        return [self.feed(line) for line in lines]

    def follow(self) -> "IdleScorer":
        return self

    def feed(self, text: str) -> Costs:
        return Costs(text, np.zeros(len(text), np.uint8), np.zeros(len(text), np.float32))


def test_memory_stays_flat_over_one_huge_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 30_000_000
    (tmp_path / "line.txt").write_text("to be " * (size // 6))
    with (tmp_path / "out.txt").open("w") as out:
        monkeypatch.setattr("sys.stdout", out)
        tracemalloc.start()
        view = RowView(["tokens", "text"], ScoreFilter(above=None, below=None), as_json=False)
        show_lines([IdleScorer()], read_lines([str(tmp_path / "line.txt")]), view)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert (tmp_path / "out.txt").stat().st_size == size + len("30000000\t\n")
    assert peak < size / 2


def test_a_reader_that_leaves_ends_it_quietly(model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text(VERSE * 500)
    started = time.monotonic()
    script = f"set -o pipefail; {sys.executable} -m charlm score long.txt | head -2"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", 2)
    assert time.monotonic() - started < 30
