"""A training that is killed at random moments: no file is damaged, and the resumed training has the same result."""

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from charlm.engine.checkpoint import load_checkpoint
from charlm.errors import CheckpointError
from tests.conftest import VERSE
from tests.server import Server

TRAINING = "verse.txt --hidden 16 --embed 8 --layers 2 --dropout 0.2 --seq-len 16 --batch-size 4"

FOLDER = Path("checkpoints/broken")
"""Folder of the run that is killed."""


def modification_time(path: Path | None) -> int:
    """Return the modification time of a file in nanoseconds, or 0 if it does not exist."""
    try:
        return path.stat().st_mtime_ns if path is not None else 0
    except FileNotFoundError:  # for a moment while it is replaced
        return 0


def run(server: Server, arguments: str, kill_after: float | None = None, *, once_changed: Path | None = None) -> int:
    """Run a command line.

    Args:
        server: Process that starts it.
        arguments: The command line without `charlm`.
        kill_after: Seconds after which the process is killed, or None.
        once_changed: File whose next change starts the clock; the start of the process if None.

    Returns:
        The exit code, or minus the number of the signal that ended the process.
    """
    before = modification_time(once_changed)
    with server.start(arguments) as running:
        if kill_after is not None:
            deadline = time.monotonic() + 20  # the process may end without changing the file
            while once_changed and modification_time(once_changed) == before and time.monotonic() < deadline:
                time.sleep(0.002)
            time.sleep(kill_after)
            with contextlib.suppress(ProcessLookupError):
                os.kill(running.pid, signal.SIGKILL)
        done = running.wait()
    assert "Traceback" not in done.stderr
    return done.returncode


def run_and_kill(server: Server, command: str, rng: np.random.Generator) -> int:
    """Run a training, kill it at a random moment, and return its exit code."""
    if rng.random() < 0.2:  # during start-up: reading the text, loading the saved state
        return run(server, command, rng.uniform(0, 0.6))
    return run(server, command, rng.uniform(0, 0.2), once_changed=FOLDER / "last.safetensors")


def saved_step() -> int | None:
    """Return the number of updates in the newest saved training state, or None if there is no such state."""
    for path in (FOLDER / "last.safetensors", FOLDER / "previous.safetensors"):
        if path.exists():
            step: int = load_checkpoint(path).metadata["resume"]["step"]
            return step
    return None


def is_complete() -> bool:
    """Return whether the newest saved training state is the one at the end of a training."""
    last = FOLDER / "last.safetensors"
    return last.exists() and load_checkpoint(last).metadata["finished"] is True


@pytest.mark.parametrize(("kills", "steps"), [(3, 60), pytest.param(100, 1500, marks=pytest.mark.torture)])
def test_training_killed_at_random_moments_equals_an_uninterrupted_one(
    kills: int, steps: int, server: Server, rng: np.random.Generator, tally: Callable[[str], None]
) -> None:
    Path("verse.txt").write_text(VERSE * 2, encoding="utf-8")
    new = f"train {TRAINING} --steps {steps} --threads 1 -q"
    assert run(server, f"{new} --name whole") == 0
    expected = load_checkpoint(Path("checkpoints/whole/model.safetensors")).tensors
    killed = finished = killed_in_save = 0
    last_step: int | None = None  # None if no state has been saved, so that a new training must start
    while killed < kills or not finished:
        command = "train --resume broken -q"
        if last_step is None:
            shutil.rmtree(FOLDER, ignore_errors=True)  # a complete run would pass for the new one until that saves
            command = f"{new} --save-every 0.0001 --name broken"
        code = run(server, command) if killed == kills else run_and_kill(server, command, rng)
        assert code in {0, -signal.SIGKILL}
        for path in FOLDER.glob("*.safetensors"):
            load_checkpoint(path, with_resume=True)  # raises an error if the file is damaged
        killed_in_save += bool(list(FOLDER.glob(".*.safetensors.*")))
        killed += code != 0
        if is_complete():  # a process can also be killed after its last save
            finished += 1
            tensors = load_checkpoint(FOLDER / "model.safetensors").tensors
            assert all(tensors[name].tobytes() == expected[name].tobytes() for name in expected)
            last_step = None
            continue
        assert code != 0
        step = saved_step()
        assert last_step is None or (step is not None and step >= last_step)
        last_step = step
    tally(f"{killed} kills, {killed_in_save} of them during a save; {finished} trainings finished, equal bit for bit")


def test_truncated_model_files_are_errors(tmp_path: Path, model_file: Path) -> None:
    whole = model_file.read_bytes()
    for length in [*range(0, 200, 7), *range(200, len(whole), 997)]:
        model_file.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            load_checkpoint(model_file)
