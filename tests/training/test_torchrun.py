"""The program `torchrun` itself, as a user starts it: one model, one voice, and an orderly end whatever happens."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from charlm.engine.checkpoint import load_checkpoint
from tests.conftest import VERSE, Charlm

pytestmark = pytest.mark.slow

SMALL = ["--hidden", "8", "--embed", "8", "--seq-len", "16", "--batch-size", "2"]
SECONDS = 120
"""How long the test waits on a machine that others use; torchrun alone imports PyTorch for some seconds."""


@contextlib.contextmanager
def torchrun(*args: str) -> Iterator["subprocess.Popen[str]"]:
    program = Path(sys.executable).with_name("torchrun")
    start = [str(program)] if program.exists() else [sys.executable, "-m", "torch.distributed.run"]
    root = Path(__file__).parents[2]
    running = subprocess.Popen(
        [*start, "--nproc-per-node", "2", "-m", "charlm", "train", *args],
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield running
    finally:
        running.terminate()  # which it passes on
        running.communicate(timeout=SECONDS)


def wait_for(path: Path, running: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + SECONDS
    while not path.exists() and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)


def steps(run: str) -> list[int]:
    log = Path("checkpoints", run, "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["step"] for line in log]


@pytest.fixture(autouse=True)
def _verse() -> None:
    Path("verse.txt").write_text(VERSE * 4, encoding="utf-8")


def test_two_processes_make_one_model_with_one_voice() -> None:
    with torchrun("verse.txt", "--steps", "30", *SMALL) as running:
        out, err = running.communicate(timeout=SECONDS)
    assert running.returncode == 0
    assert out == "checkpoints/verse/model.safetensors\n"
    assert err.count("\ntrained ") == 1, err
    assert "Traceback" not in err
    assert "torch" not in err
    assert steps("verse") == sorted(set(steps("verse")))
    assert load_checkpoint(Path("checkpoints/verse/last.safetensors")).metadata["resume"]["workers"] == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_torchrun_saves_and_one_process_goes_on(number: signal.Signals, charlm: Charlm) -> None:
    with torchrun("verse.txt", "--name", "long", "--steps", "1000000", "--save-every", "3600", *SMALL) as running:
        wait_for(Path("checkpoints/long/log.jsonl"), running)
        running.send_signal(number)
        _, err = running.communicate(timeout=SECONDS)
    assert "Unable to shutdown" not in err, err
    assert err.count("\nstopped ") == 1, err
    saved = load_checkpoint(Path("checkpoints/long/last.safetensors")).metadata["resume"]
    assert saved["workers"] == 2
    assert saved["step"] >= steps("long")[-1] > 0

    again = subprocess.Popen(
        [sys.executable, "-m", "charlm", "train", "--resume", "long"], stderr=subprocess.PIPE, text=True
    )
    assert again.stderr is not None
    while (line := again.stderr.readline()) and "new positions" not in line:
        pass
    again.send_signal(number)
    again.communicate(timeout=SECONDS)
    assert again.returncode == 128 + number
    assert "saved by 2 process(es), continued by 1: the streams start at new positions" in line
    assert load_checkpoint(Path("checkpoints/long/last.safetensors")).metadata["resume"]["workers"] == 1
    done = charlm("sample", "-m", "long", "-n", "5")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("args", [["absent.txt"], ["verse.txt", "--hidden", "0"], ["verse.txt"]])
def test_what_goes_wrong_is_said_once_and_ends_all_at_once(args: list[str]) -> None:
    Path("checkpoints").touch()  # no folder, which the first process alone finds out
    with torchrun(*args, "--steps", "3") as failing:
        _, err = failing.communicate(timeout=SECONDS)
    assert failing.returncode == 1
    assert err.count("Error: ") == 1 + err.count("ChildFailedError: "), err
    assert "charlm/" not in err  # no traceback of charlm's own
    assert "Unable to shutdown" not in err, err  # torchrun waited half a minute in vain


def test_a_process_that_is_killed_ends_the_other_with_one_line() -> None:
    with torchrun("verse.txt", "--name", "long", "--steps", "1000000", *SMALL) as running:
        wait_for(Path("checkpoints/long/log.jsonl"), running)
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
        if not children.exists():
            pytest.skip("no /proc to find the processes in")
        os.kill(int(children.read_text().split()[-1]), signal.SIGKILL)
        _, err = running.communicate(timeout=SECONDS)
    assert running.returncode == 1
    assert "charlm/" not in err, err
