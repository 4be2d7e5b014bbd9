import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from charlm.cli import COMMANDS, main
from charlm.engine.checkpoint import load_checkpoint
from charlm.engine.runs import LOCK_FILE, Run
from tests.conftest import VERSE, Charlm
from tests.server import Done, Running, Server

TINY = ("--hidden", "8", "--embed", "8", "--seq-len", "16", "--batch-size", "4", "--threads", "1")


def invoke(*args: str | Path, stdin: bytes | str | None = None) -> Result:
    """Run the command line in this process; what it did not expect is raised here."""
    return CliRunner().invoke(main, [*map(str, args)], input=stdin, catch_exceptions=False)


def wait_for_log(run: str) -> None:
    """Wait till a run in another process has learnt something."""
    deadline = time.monotonic() + 60
    while not Path("checkpoints", run, "log.jsonl").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ended_by(number: signal.Signals, running: Running) -> Done:
    """Send a signal to a process, and return its result."""
    os.kill(running.pid, number)
    asked = time.monotonic()
    done = running.wait()
    assert time.monotonic() - asked < 10  # 2 s, on a machine that is not busy
    return done


@pytest.fixture
def verse() -> Path:
    path = Path("verse.txt")
    path.write_text(VERSE * 4, encoding="utf-8")
    return path


def test_a_pipe_of_several_files_trains_for_its_time(charlm: Charlm) -> None:
    began = time.monotonic()
    done = charlm("train", "-", "--minutes", "0.05", *TINY, stdin=VERSE * 4)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "checkpoints/stdin/model.safetensors\n"
    assert "trained" in done.stderr
    saved = load_checkpoint(Path(done.stdout.strip()))
    end = load_checkpoint(Path("checkpoints/stdin/last.safetensors")).metadata
    assert end["finished"]
    assert 2.5 < end["metrics"]["seconds"] < 9  # 3 s, on a machine that is not busy
    assert time.monotonic() - began < 30  # the machine may be busy
    log = [json.loads(line) for line in Path("checkpoints/stdin/log.jsonl").read_text(encoding="utf-8").splitlines()]
    validations = [entry["val_nats"] for entry in log if entry["val_nats"] is not None]
    assert saved.metadata["metrics"]["val_nats"] == min(validations)


@pytest.mark.parametrize("length", [("--steps", "2"), ("--minutes", "2", "--plan")], ids=" ".join)
def test_a_processor_without_bf16_learns_all_the_same(length: tuple[str, ...], verse: Path, server: Server) -> None:
    environment = {"ONEDNN_MAX_CPU_ISA": "AVX2"}  # of which PyTorch makes no LSTM in bf16
    command = ["train", str(verse), *length, *TINY]
    done = server.run(command, environment=environment)
    assert done.returncode == 0, done.stderr
    bf16 = server.run([*command, "--precision", "bf16", "--name", "bf16"], environment=environment)
    assert "--precision bf16: not supported by this processor" in bf16.stderr


@pytest.mark.parametrize(("option", "value"), [("--minutes", "1e-05"), ("--time", "0.001s")])
def test_time_that_is_too_short_for_an_update_is_an_error_and_leaves_no_run(
    option: str, value: str, verse: Path
) -> None:
    done = invoke("train", verse, option, value, *TINY)
    assert done.exit_code == 2
    error = done.stderr.splitlines()[-1]
    found = re.fullmatch(
        rf"Error: {option} {value}: too short for 5 updates; set it to at least (.+) minutes \((.+) seconds\)", error
    )
    assert found, error
    assert float(found[1]) * 60 == pytest.approx(float(found[2]))
    assert not Path("checkpoints").exists()


def test_a_training_whose_start_up_takes_its_time_has_few_updates_and_says_so(
    verse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.monotonic
    with monkeypatch.context() as patch:
        patch.setattr("charlm.cli.train.time", SimpleNamespace(monotonic=lambda: real() - 10))
        done = invoke("train", verse, "--time", "2s", *TINY)
    assert (done.exit_code, done.stdout) == (0, "checkpoints/verse/model.safetensors\n")
    assert "Note: --time 2s: the start-up took 10" in done.stderr
    assert load_checkpoint(Path(done.stdout.strip())).metadata["metrics"]["step"] <= 5
    assert load_checkpoint(Path("checkpoints/verse/last.safetensors")).metadata["resume"]["step"] == 5


def test_training_that_is_stopped_before_its_first_update_prints_no_model(
    verse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = contextlib.nullcontext(SimpleNamespace(number=2))
    with monkeypatch.context() as patch:
        patch.setattr("charlm.cli.signals.StopSignals", lambda: stopped)
        done = invoke("train", verse, "--name", "early", "--steps", "3", *TINY)
    assert (done.exit_code, done.stdout) == (130, "")
    assert "Warning: stopped before the first update, so there is no model yet" in done.stderr
    assert invoke("train", "--resume", "early").stdout == "checkpoints/early/model.safetensors\n"


def test_hihello_is_learnt_and_what_was_fitted_is_said(charlm: Charlm) -> None:
    done = charlm("train", "-", "--steps", "200", "--hidden", "32", stdin="hihello")
    assert done.returncode == 0, done.stderr
    assert "only 7 tokens: 1 stream(s) of 7 tokens per update" in done.stderr
    written = charlm("sample", "--prime", "h", "--temp", "0", "-n", "6", "-q")
    assert written.stdout == "hihello\n"


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "message"),
    [
        (["absent.txt"], b"", 1, "absent.txt: no such file, folder or named corpus"),
        (["vers.txt"], b"", 1, "did you mean verse.txt"),
        (["shakespear"], b"", 1, "did you mean shakespeare"),
        (["-"], b"", 1, "-: empty"),
        (["empty.txt"], b"", 1, "empty.txt: empty"),
        (["-"], b"aaaaaaaaaa", 1, "only one distinct character, 'a'"),
        (["-"], b"ab\ncd\xff", 1, "line 2: not valid utf-8 (byte 0xff at offset 5); set --encoding or --errors"),
        (["-", "--encoding", "klingon"], b"ab", 2, "--encoding"),
        (["-"], b"ab\0cd", 1, "looks binary (NUL character at offset 2)"),
        (["-"], b"\x7fELF\0\xd0\xd0", 1, "looks binary (NUL character at offset 4)"),
        (["pictures"], b"", 1, "pictures: no text file in this folder"),
        (["verse.txt", "--name", "tiny"], b"", 1, "this run exists already; set --resume to continue it"),
        (["verse.txt", "--name", "../up"], b"", 1, "--name '../up'"),
        (["verse.txt", "--layers", "0"], b"", 2, "--layers 0: must be at least 1"),
        (["verse.txt", "--val-fraction", "0.999999"], b"", 2, "--val-fraction 0.999999 of"),
        (["verse.txt", "--val-fraction", "1"], b"", 2, "--val-fraction 1.0: must be below 1"),
        (["verse.txt", "--lr", "nan"], b"", 2, "--lr nan: must be a number"),
        (["verse.txt", "--steps", "5", "--minutes", "1"], b"", 2, "--minutes and --steps contradict each other"),
        (["verse.txt", "--hidden", "65536"], b"", 2, "GiB of memory, and this machine has"),
        (["a\x1b[2Jb"], b"", 1, r"a\x1b[2Jb: no such file"),
        (["cut.gz"], b"", 1, "cut.gz: not a valid gzip file"),
        ([], b"", 2, "Missing CORPUS"),
        (["--resume"], b"", 1, "tiny/last.safetensors"),
        (["--resume", "nobody"], b"", 1, "checkpoints/nobody: nothing to resume"),
    ],
)
@pytest.mark.usefixtures("model_file", "verse")
def test_bad_input_gets_one_clear_line_and_earlier_runs_are_untouched(
    arguments: list[str], stdin: bytes, code: int, message: str
) -> None:
    Path("empty.txt").touch()
    Path("cut.gz").write_bytes(bytes.fromhex("1f8b0800000000000003"))
    Path("pictures").mkdir()
    Path("pictures/one.png").write_bytes(b"\x89PNG\0\0")
    Path("checkpoints/tiny/last.safetensors").write_bytes(b"not a save")
    before = {path: path.read_bytes() for path in Path("checkpoints").rglob("*") if path.is_file()}
    done = invoke("train", *arguments, stdin=stdin)
    assert done.exit_code == code
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if not line.startswith(("Usage", "Try", "Note"))]
    assert [line for line in errors if line] == errors[-1:]
    assert message in errors[-1]
    after = {path: path.read_bytes() for path in before}
    assert before == after


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["sample", "-m", "verse.txt"], 1, "verse.txt: not a model file"),
        (["info", "-m", "verse.txt"], 1, "verse.txt: not a model file"),
        (["score", "-m", "nobody"], 1, "nobody: no model file or run found; runs in ./checkpoints: tiny"),
        (["sample", "--temp", "-1"], 2, "--temp -1.0: must be at least 0"),
        (["sample", "--top-p", "1.5"], 2, "--top-p 1.5: must be at most 1"),
        (["sample", "--top-p", "0"], 2, "--top-p 0.0: must be above 0"),
        (["corpus", "shakespear"], 1, "did you mean shakespeare"),
        (["x\x1b]0;title\x07"], 2, r"No such command 'x\x1b]0;title\x07'"),
        (["sample", "--\x1b[31m"], 2, r"--\x1b[31m"),
        (["--\x1b[31m"], 2, r"--\x1b[31m"),
    ],
)
@pytest.mark.usefixtures("model_file", "verse")
def test_other_commands_complain_in_one_clear_line_too(arguments: list[str], code: int, message: str) -> None:
    done = invoke(*arguments)
    assert done.exit_code == code
    assert message in done.stderr.splitlines()[-1]
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_every_help_ends_with_an_example_whose_options_exist(command: str | None) -> None:
    help_text = invoke(*([command] if command else []), "--help").stdout
    example = help_text[help_text.rindex("Example:") :].partition("\n\n")[0]
    title, *lines = example.splitlines()
    assert title == "Example:"
    assert lines
    for line in lines:
        parts = line.split("|")  # a pipe, or a redirection
        words = shlex.split(re.split(" (?:<|>>?) ", parts[-1] if "charlm" in parts[-1] else parts[0])[0])
        assert words[0] == "charlm"
        parser = main.get_command(main.make_context("charlm", ["corpus"]), words[1])
        assert parser is not None
        parser.make_context(words[1], words[2:])  # raises if an option is unknown or a value out of its range


def test_a_resumed_run_needs_no_options_and_is_the_run_that_was_never_stopped(
    charlm: Charlm, verse: Path, server: Server
) -> None:
    settings = ("--steps", "150", "--dropout", "0.2", "--layers", "2", "--save-every", "0.2", *TINY)
    whole = charlm("train", verse, "--name", "whole", *settings)
    assert whole.returncode == 0, whole.stderr
    with server.start(["train", str(verse), "--name", "broken", *settings]) as running:
        wait_for_log("broken")
        broken = ended_by(signal.SIGINT, running)
    assert broken.returncode == 130, broken.stderr
    assert "stopped" in broken.stderr
    assert "charlm train --resume broken" in broken.stderr
    assert broken.stdout == "checkpoints/broken/model.safetensors\n"
    resumed = charlm("train", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    first, second = (load_checkpoint(Path("checkpoints", name, "model.safetensors")) for name in ("whole", "broken"))
    for name, tensor in first.tensors.items():
        assert tensor.tobytes() == second.tensors[name].tobytes()
    again = charlm("train", "--resume", "broken")
    assert again.returncode == 1
    assert "is complete" in again.stderr


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Path:
    """A run that has been stopped on the way, by SIGTERM."""
    folder = tmp_path_factory.mktemp("stopped")
    with contextlib.chdir(folder):
        Path("verse.txt").write_text(VERSE * 4, encoding="utf-8")
        with server.start(["train", "verse.txt", "--name", "stopped", "--steps", "100000", *TINY]) as running:
            wait_for_log("stopped")
            assert ended_by(signal.SIGTERM, running).returncode == 143
    return folder / "checkpoints" / "stopped"


@pytest.fixture
def stopped(stopped_once: Path, verse: Path) -> Path:
    """The same run, in this test's folder."""
    run = Path("checkpoints/stopped")
    shutil.copytree(stopped_once, run)
    return run


def test_what_contradicts_the_first_command_line_is_named_and_a_changed_text_is_noticed(
    stopped: Path, verse: Path
) -> None:
    before = (stopped / "last.safetensors").read_bytes()
    for arguments, message in (
        (["--hidden", "16"], "--hidden 16 contradicts 8, with which the run started: omit it"),
        (["--steps", "7"], "--steps 7 contradicts 100000"),
        (["--minutes", "7"], "--minutes 7.0 contradicts no value"),
        (["--time", "1m30s"], "--time 1m30s contradicts no value"),
        (["--half"], "--half on contradicts off"),
        (["--encoding", "latin-1"], "--encoding latin-1 contradicts utf-8"),
        (["--name", "other"], "--name other contradicts stopped"),
    ):
        done = invoke("train", "--resume", "stopped", *arguments)
        assert done.exit_code == 2
        assert message in done.stderr
    verse.write_text(VERSE * 3, encoding="utf-8")
    done = invoke("train", "--resume", "stopped", "--hidden", "8")
    assert done.exit_code == 1
    assert "verse.txt: differs from the text with which checkpoints/stopped started; set --force" in done.stderr
    assert (stopped / "last.safetensors").read_bytes() == before


def test_two_trainers_on_one_run_are_refused_but_a_dead_one_holds_nothing(server: Server, stopped: Path) -> None:
    with server.start(["train", "--resume", "stopped"]) as running:
        deadline = time.monotonic() + 60
        while (stopped / LOCK_FILE).read_text(encoding="ascii") != str(running.pid):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        for arguments in (["--resume", "stopped"], ["verse.txt", "--name", "stopped", "--force", *TINY]):
            second = invoke("train", *arguments)
            assert second.exit_code == 1
            assert f"process {running.pid} is training this run" in second.stderr
        assert ended_by(signal.SIGKILL, running).returncode == -signal.SIGKILL
    assert invoke("train", "--resume", "stopped", "--hidden", "9").exit_code == 2  # past the lock


def test_a_damaged_save_is_passed_over_for_the_one_before(stopped: Path, verse: Path) -> None:
    last = stopped / "last.safetensors"
    (stopped / "previous.safetensors").write_bytes(last.read_bytes())
    last.write_bytes(last.read_bytes()[:-100])
    done = invoke("train", "--resume", "stopped", "--hidden", "9")
    assert "contradicts" in done.stderr  # it has been read, then
    Run(stopped).previous.write_bytes(b"")
    done = invoke("train", "--resume", "stopped", "--hidden", "9")
    assert "previous.safetensors: not a model file" in done.stderr


def test_a_second_signal_ends_at_once(verse: Path) -> None:
    command = ["train", str(verse), "--name", "two", "--steps", "100000", "--batch-size", "4", "--hidden", "1024"]
    process = subprocess.Popen([sys.executable, "-W", "error", "-m", "charlm", *command])
    wait_for_log("two")
    process.terminate()
    process.terminate()
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    asked = time.monotonic()
    process.wait(timeout=30)
    assert time.monotonic() - asked < 10  # 2 s, on a machine that is not busy
    assert process.returncode in {130, 143, -signal.SIGTERM, -signal.SIGINT}  # 130: it had saved already


def test_a_full_disk_from_the_start_is_one_line(server: Server, verse: Path) -> None:
    command = ["train", str(verse), "--name", "full", "--steps", "50", "--patience", "9", *TINY]
    done = server.run(command, max_file_bytes=4000)
    assert done.returncode == 1
    assert "Warning: checkpoints/full/model.safetensors: cannot be written (File too large)" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: checkpoints/full/model.safetensors: cannot be written")
    assert "Traceback" not in done.stderr
    assert not list(Path("checkpoints/full").glob("*.safetensors"))
    assert not list(Path("checkpoints/full").glob(".*.safetensors.*"))


def test_a_plan_is_printed_and_nothing_is_made(charlm: Charlm, verse: Path) -> None:
    done = charlm("train", verse, "--minutes", "0.5", "--hidden", "24", "--plan")
    assert done.returncode == 0
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.strip()}
    assert rows["--hidden"] == ["24", "given"]
    assert rows["--val-fraction"] == ["0.1"]
    assert float(rows["epochs"][0]) > 1
    assert not Path("checkpoints").exists()


def test_a_training_without_an_end_says_when_it_will_end(charlm: Charlm, verse: Path) -> None:
    done = charlm("train", verse, "--plan")
    assert "no training length given: training for 500 updates" in done.stderr
