"""`charlm sample` as its user has it."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from charlm.engine.novelty import TEXT_FILE, TrainingText, keep_text
from charlm.text.tokenizer import CharTokenizer
from tests.conftest import VERSE, Charlm

CHARLM = [sys.executable, "-W", "error", "-m", "charlm"]


def test_the_same_seed_gives_the_same_text(charlm: Charlm, model_file: Path) -> None:
    first, again, other = (charlm("sample", "-n", 50, "--seed", seed).stdout for seed in (1, 1, 2))
    assert first == again != other
    assert len(first.removesuffix("\n")) in (49, 50)


def test_prompts_come_one_a_line(charlm: Charlm, model_file: Path) -> None:
    arguments = ["sample", "--prime", "-", "--json", "-n", 20, "--seed", 4, "--count", 2]
    facts = [json.loads(line) for line in charlm(*arguments, stdin="To be\n\nOPHELIA:").stdout.splitlines()]
    assert [fact["prompt"] for fact in facts] == ["To be", "To be", "", "", "OPHELIA:", "OPHELIA:"]
    assert [fact["seed"] for fact in facts] == [4, 5, 6, 7, 8, 9]
    alone = json.loads(charlm("sample", "--prime", "OPHELIA:", "--json", "-n", 20, "--seed", 9).stdout)
    assert alone["text"] == facts[5]["text"]
    assert alone["log_probability_per_token"] == pytest.approx(facts[5]["log_probability_per_token"], abs=1e-5)
    assert alone["ended_by"] == "length"
    assert alone["tokens"] == len(alone["text"]) == 20


def test_a_file_can_be_the_prompt(charlm: Charlm, model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "prompt").write_text("To be\nor\n")
    assert charlm("sample", "--prime-file", tmp_path / "prompt", "-n", 0).stdout == "To be\nor\n"
    assert charlm("sample", "--prime-file", "-", "-n", 0, stdin="To\nbe").stdout == "To\nbe\n"


def test_samples_stand_apart(charlm: Charlm, model_file: Path) -> None:
    alone = [charlm("sample", "--prime", "To ", "-n", 15, "--seed", seed).stdout for seed in (3, 4, 5)]
    together = charlm("sample", "--prime", "To ", "-n", 15, "--seed", 3, "--count", 3).stdout
    assert together == "--------\n".join(alone)


def test_lines_and_stop_strings_end_it(charlm: Charlm, model_file: Path) -> None:
    written = charlm("sample", "--lines", 3, "--seed", 1).stdout
    assert written.count("\n") == 3
    assert charlm("sample", "--stop", r"\n", "--seed", 1).stdout == written[: written.index("\n") + 1]


def test_a_search_needs_no_seed(charlm: Charlm, model_file: Path) -> None:
    first, again = (charlm("sample", "--beam", 4, "-n", 12, "--count", 2).stdout for _ in range(2))
    assert first == again
    facts = json.loads(charlm("sample", "--beam", 4, "-n", 12, "--json").stdout)
    assert facts["text"] == first[:12]
    assert facts["seed"] is None


def test_novel_text_needs_the_training_text(charlm: Charlm, model_file: Path, tmp_path: Path) -> None:
    done = charlm("sample", "--novel", 5)
    assert done.returncode == 1
    assert f"{TEXT_FILE}: the training text is not kept" in done.stderr
    assert "--corpus FILE" in done.stderr
    (tmp_path / "verse.txt").write_text(VERSE)
    by_corpus = charlm("sample", "--novel", 3, "--corpus", tmp_path / "verse.txt", "--seed", 1, "-n", 200).stdout
    tokenizer = CharTokenizer.from_text(VERSE)
    keep_text(model_file.parent, tokenizer, tokenizer.encode(VERSE))
    kept = charlm("sample", "--novel", 3, "--seed", 1, "-n", 200).stdout
    assert kept == by_corpus
    assert not TrainingText(VERSE).copied(kept[:200], 3).any()


def test_a_closed_pipe_ends_it_quietly(model_file: Path, tmp_path: Path) -> None:
    script = f"set -o pipefail; {' '.join(CHARLM)} sample -n -1 | head -c 3000 | wc -c"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "3000", "")


def test_text_comes_as_it_is_made_and_ctrl_c_ends_it(model_file: Path) -> None:
    with subprocess.Popen([*CHARLM, "sample", "-n", "-1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(10)
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.stderr.read() == b""
    assert process.returncode == 130


def test_an_unknown_prompt_is_read_and_noted(charlm: Charlm, model_file: Path) -> None:
    done = charlm("sample", "--prime", "語", "-n", 1)
    assert done.returncode == 0
    assert done.stderr == "Note: the model has read as the unknown token: '語'; it reads its unknown token instead\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-n", "-1", "--json"], "-n -1"),
        (["-n", "-1", "--count", "2"], "-n -1"),
        (["--prime", "a", "--prime-file", "b"], "--prime and --prime-file"),
        (["--prime", "-"], "no prompt came"),
        (["--beam", "2", "--top-k", "3"], "--top-k"),
        (["--novel", "0"], "--novel"),
        (["--typical", "0"], "--typical"),
    ],
)
def test_contradictions_are_refused(charlm: Charlm, model_file: Path, arguments: list[str], message: str) -> None:
    done = charlm("sample", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr.splitlines()[-1]


def test_a_conversation_by_pipe(charlm: Charlm, model_file: Path) -> None:
    script = "To be\n:again\n:seed 7\n:again\n:temp 0\n:n 5\nTo be\n:nonsense\n:temp hot\n:greedy\n:show\n:help\n"
    done = charlm("sample", "-i", "-n", 10, "--seed", 7, stdin=script)
    first, second, third, last = done.stdout.split("To be")[1:]
    assert first == third != second
    assert len(last.rstrip("\n")) == 5
    assert [line for line in done.stderr.splitlines() if line.startswith("[")] == [f"[seed {n}]" for n in (7, 8, 7, 8)]
    assert "Error: :nonsense: no such command; :help lists them" in done.stderr
    assert "Error: :temp hot: not a number" in done.stderr
    assert "  temperature 0.0\n" in done.stderr
    assert done.returncode == 0


def test_a_conversation_at_a_terminal_ends_at_ctrl_d(model_file: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen([*CHARLM, "sample", "-i", "-n", "5"], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    try:
        for place, answer in enumerate((b"To\n", b"\x04")):
            while seen.count(b"> ") <= place:
                seen += os.read(ours, 4096)
            os.write(ours, answer)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        os.close(ours)
    assert b"[seed" in seen


def test_the_unknown_token_is_written_only_if_it_is_allowed(charlm: Charlm, model_file: Path) -> None:
    arguments = ("sample", "--temp", "5", "-n", "400", "--seed", "1")
    assert "\N{REPLACEMENT CHARACTER}" not in charlm(*arguments).stdout
    assert "\N{REPLACEMENT CHARACTER}" in charlm(*arguments, "--allow-unk").stdout
