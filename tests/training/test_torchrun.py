"""Tests with the program `torchrun`, as a user starts it."""

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
"""Maximum duration in seconds, on a busy machine; torchrun itself imports PyTorch for some seconds."""


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
        running.terminate()  # torchrun passes the signal on
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


def test_two_processes_train_one_model_and_one_of_them_prints() -> None:
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
def test_a_signal_to_torchrun_saves_and_one_process_resumes(number: signal.Signals, charlm: Charlm) -> None:
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
def test_an_error_is_printed_once_and_ends_all_processes(args: list[str]) -> None:
    Path("checkpoints").touch()  # not a folder; only the first process notices
    with torchrun(*args, "--steps", "3") as failing:
        _, err = failing.communicate(timeout=SECONDS)
    assert failing.returncode == 1
    assert err.count("Error: ") == 1 + err.count("ChildFailedError: "), err
    assert "charlm/" not in err  # no traceback from charlm
    assert "Unable to shutdown" not in err, err  # torchrun waited for half a minute


def test_a_killed_process_ends_the_other_with_a_one_line_error() -> None:
    with torchrun("verse.txt", "--name", "long", "--steps", "1000000", *SMALL) as running:
        wait_for(Path("checkpoints/long/log.jsonl"), running)
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
        if not children.exists():
            pytest.skip("no /proc to find the processes in")
        os.kill(int(children.read_text().split()[-1]), signal.SIGKILL)
        _, err = running.communicate(timeout=SECONDS)
    assert running.returncode == 1
    assert "charlm/" not in err, err
