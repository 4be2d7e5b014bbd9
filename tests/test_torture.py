"""Kills a training at random moments, again and again: nothing is ever damaged, and nothing is lost."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from charlm.engine.checkpoint import load_checkpoint
from charlm.errors import CheckpointError
from tests.conftest import VERSE

TRAINING = "verse.txt --hidden 16 --embed 8 --layers 2 --dropout 0.2 --seq-len 16 --batch-size 4"

SERVER = """
import os, shlex, sys
import torch, charlm.training.setup, charlm.cli.progress, charlm.cli.signals, charlm.training.trainer
from charlm.cli import main
for line in sys.stdin.buffer:
    pid = os.fork()
    if pid == 0:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0), os.dup2(null, 1)
        main(shlex.split(line.decode()))
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
"""Starts `charlm` processes without the seconds that importing PyTorch takes."""


class Server:
    """Trains in processes of their own, one at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, arguments: str, kill_after: float | None = None, *, once_changed: Path | None = None) -> int:
        """Run a command line, and kill it after so many seconds, counted from when a file has changed.

        Returns:
            Its exit code.
        """
        before = _changed(once_changed)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(arguments + "\n")
        self._process.stdin.flush()
        pid = int(self._process.stdout.readline())
        if kill_after is not None:
            deadline = time.monotonic() + 20  # it may end without changing anything
            while once_changed and _changed(once_changed) == before and time.monotonic() < deadline:
                time.sleep(0.002)
            time.sleep(kill_after)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return int(self._process.stdout.readline())

    def close(self) -> str:
        """End it; returns what was printed on stderr."""
        return self._process.communicate(timeout=30)[1]


def _changed(path: Path | None) -> int:
    return path.stat().st_mtime_ns if path is not None and path.exists() else 0


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.mark.parametrize(("kills", "steps"), [(3, 60), pytest.param(100, 1500, marks=pytest.mark.torture)])
def test_killed_at_random_moments_it_ends_as_if_it_never_had_been(
    kills: int, steps: int, server: Server, rng: np.random.Generator, tally: Callable[[str], None]
) -> None:
    Path("verse.txt").write_text(VERSE * 2, encoding="utf-8")
    new = f"train {TRAINING} --steps {steps} --threads 1 -q"
    assert server.run(f"{new} --name whole") == 0, server.close()
    whole = load_checkpoint(Path("checkpoints/whole/model.safetensors")).tensors
    folder = Path("checkpoints/broken")
    killed = finished = in_saves = 0
    begin, done = True, 0
    while killed < kills or not finished:
        command = f"{new} --save-every 0.0001 --name broken --force" if begin else "train --resume broken -q"
        if killed == kills:
            code = server.run(command)
        elif rng.random() < 0.2:  # in the start: reading, opening, resuming
            code = server.run(command, rng.uniform(0, 0.6))
        else:  # while it learns and saves
            code = server.run(command, rng.uniform(0, 0.2), once_changed=folder / "last.safetensors")
        assert code in {0, -signal.SIGKILL}
        for path in folder.glob("*.safetensors"):
            load_checkpoint(path, with_resume=True)  # raises if it is damaged
        in_saves += bool(list(folder.glob(".*.safetensors.*")))
        if code == 0:
            finished += 1
            tensors = load_checkpoint(folder / "model.safetensors").tensors
            assert all(tensors[name].tobytes() == whole[name].tobytes() for name in whole)
            begin, done = True, 0
            continue
        killed += 1
        saves = [path for path in (folder / "last.safetensors", folder / "previous.safetensors") if path.exists()]
        if saves:
            now = load_checkpoint(saves[0]).metadata["resume"]["step"]
            assert begin or now >= done
            begin, done = False, now
    tally(f"{killed} kills, {in_saves} of them within a save; {finished} trainings came to their end, bit for bit")
    assert "Traceback" not in server.close()


def test_a_file_cut_by_a_power_cut_is_noticed_not_believed(tmp_path: Path, model_file: Path) -> None:
    whole = model_file.read_bytes()
    for length in [*range(0, 200, 7), *range(200, len(whole), 997)]:
        model_file.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            load_checkpoint(model_file)
