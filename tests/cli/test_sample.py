"""`charlm sample` run as a process of its own."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from charlm.engine.novelty import TrainingText
from charlm.engine.runs import TEXT_FILE, Run
from charlm.engine.training_text import store_training_text
from tests.conftest import VERSE, Charlm

CHARLM = [sys.executable, "-W", "error", "-m", "charlm"]


def test_the_same_seed_gives_the_same_text(charlm: Charlm, model_file: Path) -> None:
    first, again, other = (charlm("sample", "-n", 50, "--seed", seed).stdout for seed in (1, 1, 2))
    assert first == again != other
    assert len(first.removesuffix("\n")) in (49, 50)


def test_prompts_are_read_one_per_line(charlm: Charlm, model_file: Path) -> None:
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
    arguments = ("-n", 1, "--json", "--seed", 1)
    from_file = json.loads(charlm("sample", "--prime-file", tmp_path / "prompt", *arguments).stdout)
    typed = json.loads(charlm("sample", "--prime", r"To be\nor\n", *arguments).stdout)
    assert from_file["prompt"] == typed["prompt"] == "To be\nor\n"  # the last newline is a part of the prompt
    assert from_file == typed


def test_escape_sequences_mean_the_same_in_every_option(charlm: Charlm, model_file: Path) -> None:
    prompt = r"a\\nb\n\u00e9"
    assert charlm("sample", "--prime", prompt, "-n", 0).stdout == "a\\nb\né\n"
    stopped = json.loads(charlm("sample", "--stop", r"\u006f", "--json", "--temp", 1, "--seed", 3).stdout)
    assert stopped["ended_by"] == "stop"
    assert "o" not in stopped["text"]
    rows = [charlm("next", "--prime", text, "--top", 3).stdout for text in (r"be\n", "be\n")]
    assert rows[0] == rows[1]
    for command in (["sample", "--prime"], ["sample", "--stop"], ["next", "--prime"]):
        done = charlm(*command, r"to \x41")
        assert done.returncode == 2
        assert r"\x is not an escape sequence; write \\ for a backslash" in done.stderr


def test_prompt_lines_are_read_as_they_are(charlm: Charlm, model_file: Path) -> None:
    done = charlm("sample", "--prime", "-", "-n", 0, "--json", stdin="To\\nbe \r\nor\rnot\r\n\r\nbe\r")
    assert [json.loads(line)["prompt"] for line in done.stdout.splitlines()] == ["To\\nbe ", "or\rnot", "", "be\r"]


def test_a_line_of_dashes_separates_samples(charlm: Charlm, model_file: Path) -> None:
    alone = [charlm("sample", "--prime", "To ", "-n", 15, "--seed", seed).stdout for seed in (3, 4, 5)]
    together = charlm("sample", "--prime", "To ", "-n", 15, "--seed", 3, "--count", 3).stdout
    assert together == "--------\n".join(alone)


def test_lines_and_stop_strings_end_the_text(charlm: Charlm, model_file: Path) -> None:
    written = charlm("sample", "--lines", 3, "--seed", 1).stdout
    assert written.count("\n") == 3
    assert charlm("sample", "--stop", r"\n", "--seed", 1).stdout == written[: written.index("\n") + 1]


def test_beam_search_is_deterministic_and_has_no_seed(charlm: Charlm, model_file: Path) -> None:
    first, again = (charlm("sample", "--beam", 4, "-n", 12, "--count", 2).stdout for _ in range(2))
    assert first == again
    facts = json.loads(charlm("sample", "--beam", 4, "-n", 12, "--json").stdout)
    assert facts["text"] == first[:12]
    assert facts["seed"] is None


def test_novel_needs_the_training_text_or_a_corpus(charlm: Charlm, model_file: Path, tmp_path: Path) -> None:
    done = charlm("sample", "--novel", 5)
    assert done.returncode == 1
    assert f"{TEXT_FILE}: the training text is not stored" in done.stderr
    assert "set --corpus to" in done.stderr
    (tmp_path / "verse.txt").write_text(VERSE)
    by_corpus = charlm("sample", "--novel", 3, "--corpus", tmp_path / "verse.txt", "--seed", 1, "-n", 200).stdout
    store_training_text(Run(model_file.parent), [[VERSE]])
    by_training_text = charlm("sample", "--novel", 3, "--seed", 1, "-n", 200).stdout
    assert by_training_text == by_corpus
    assert not TrainingText(VERSE).copied_runs(by_corpus[:200], 3).any()


def test_a_closed_pipe_ends_the_command_without_a_message(model_file: Path, tmp_path: Path) -> None:
    script = f"set -o pipefail; {' '.join(CHARLM)} sample -n -1 | head -c 3000 | wc -c"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "3000", "")


def test_text_is_printed_while_it_is_generated_and_ctrl_c_ends_it(model_file: Path) -> None:
    with subprocess.Popen([*CHARLM, "sample", "-n", "-1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(10)
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.stderr.read() == b""
    assert process.returncode == 130


def test_unknown_characters_of_the_prompt_are_noted(charlm: Charlm, model_file: Path) -> None:
    done = charlm("sample", "--prime", "語", "-n", 1)
    assert done.returncode == 0
    assert done.stderr == "Note: not in the model's vocabulary, read as the unknown token: '語'\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-n", "-1", "--json"], "--length -1: without a limit, only one sample"),
        (["-n", "-1", "--count", "2"], "set a limit, --lines or --stop"),
        (["--prime", "a", "--prime-file", "b"], "--prime and --prime-file"),
        (["--prime", "-"], "stdin is empty"),
        (["--beam", "2", "--top-k", "3"], "--top-k"),
        (["--novel", "0"], "--novel"),
        (["--typical", "0"], "--typical"),
    ],
)
def test_invalid_and_contradictory_options_are_usage_errors(
    charlm: Charlm, model_file: Path, arguments: list[str], message: str
) -> None:
    done = charlm("sample", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr.splitlines()[-1]


def test_interactive_commands_from_a_pipe(charlm: Charlm, model_file: Path) -> None:
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


@pytest.mark.parametrize("command", [":q", ":quit", " :exit "])
def test_interactive_session_ends_by_a_command(charlm: Charlm, model_file: Path, command: str) -> None:
    done = charlm("sample", "-i", "-n", 0, stdin=f"one\n{command}\ntwo\n")
    assert (done.returncode, done.stdout) == (0, "one\n")


def test_interactive_prompt_may_have_several_lines(charlm: Charlm, model_file: Path) -> None:
    script = 'To\n"""To be\n:quit\n\nor not"""\n"""\nfirst\nsecond\n"""\n"""one"""\n"""open\n'
    done = charlm("sample", "-i", "-n", 0, stdin=script)
    assert done.stdout == "To\nTo be\n:quit\n\nor not\nfirst\nsecond\none\n"
    assert done.stderr.splitlines()[-1].startswith("Error: the input ended within a prompt of several lines")


def test_ctrl_d_ends_an_interactive_session_at_a_terminal(model_file: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen([*CHARLM, "sample", "-i", "-n", "5"], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    try:
        for num_answers, answer in enumerate((b"To\n", b"\x04")):
            while seen.count(b"> ") <= num_answers:
                seen += os.read(ours, 4096)
            os.write(ours, answer)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        os.close(ours)
    assert b"[seed" in seen


def test_the_unknown_token_is_generated_only_if_allowed(charlm: Charlm, model_file: Path) -> None:
    arguments = ("sample", "--temp", "5", "-n", "400", "--seed", "1")
    assert "\N{REPLACEMENT CHARACTER}" not in charlm(*arguments).stdout
    assert "\N{REPLACEMENT CHARACTER}" in charlm(*arguments, "--allow-unk").stdout


def test_interactive_errors_name_commands_and_do_not_end_the_session(charlm: Charlm, model_file: Path) -> None:
    done = charlm("sample", "-i", stdin=":temp -1\n:n -1\n:count 2\n:again\n:count\n:n 0\nTo be\n")
    assert (done.returncode, done.stdout) == (0, "To be\n")
    assert "Error: :temp -1.0: must be at least 0\n" in done.stderr
    assert "Error: :length -1: without a limit, only one sample" in done.stderr


def test_on_off_settings_change_with_each_interactive_command(charlm: Charlm, model_file: Path) -> None:
    done = charlm("sample", "-i", stdin=":allow-unk\n:show\n:allow-unk\n:greedy\n:show\n")
    assert done.stderr.count("allow_unknown True") == 1
    assert done.stderr.count("greedy True") == 1
    done = charlm("sample", "-i", stdin=":greedy 0\n:show\n:greedy 1\n:greedy 1\n:show\n:greedy yes\n:greedy 2\n")
    assert done.stderr.count("greedy True") == 1
    assert done.stderr.endswith("Error: :greedy yes: not a number\nError: :greedy 2: must be 1 for on, or 0 for off\n")


def test_threads_are_limited_before_numpy_is_imported_for_a_prompt_file(model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "prompt").write_text("To be")
    code = (
        "import sys, charlm.cli.sample as module\n"
        "def check(*args, **kwargs):\n    assert 'numpy' not in sys.modules\n    print('limited')\n"
        "module.limit_threads = check\n"
        "from charlm.cli import main\nmain()"
    )
    command = [sys.executable, "-c", code, "sample", "-n", "0", "--prime-file", "prompt"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.stdout, done.stderr) == ("limited\nTo be\n", "")
