import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from charlm.engine.checkpoint import load_checkpoint
from charlm.errors import ConfigError
from charlm.training.distributed import Workers, find_device
from tests.conftest import VERSE
from tests.training.test_trainer import QUICK, make_trainer

SECONDS = 600
"""Maximum duration of the processes in seconds, on a busy machine."""

ONE_STEP = """
import os
from dataclasses import replace
import numpy as np, torch
from charlm.errors import PeerLostError
from charlm.training.distributed import joined_workers
from tests.training.test_trainer import QUICK, make_trainer
torch.set_num_threads(1)
with joined_workers(torch.device("cpu")) as workers:
    made = make_trainer(f"rank{workers.rank}", replace(QUICK, steps=3, grad_clip=1e9), workers=workers)
    made.update()
    grads = {name: weight.grad.numpy() for name, weight in made.model.named_parameters()}
    np.savez(f"rank{workers.rank}.npz", **grads)
    if not workers.is_first:
        os._exit(0)
    try:
        workers.all_reduce_max([1.0], torch.device("cpu"))
    except PeerLostError as error:
        print(error, flush=True)
        os._exit(0)
"""
"""Makes one update in each process. Then the second process ends, and the first one waits for it."""

LAUNCHED = {"RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
"""Environment variables that torchrun sets besides WORLD_SIZE."""


WAITS_FOREVER = """
from charlm.training.launch import rank_and_count
if rank_and_count()[0] == 1:
    import torch
    from charlm.cli.signals import StopSignals
    from charlm.training.distributed import joined_workers
    with StopSignals():
        print("waits", flush=True)
        with joined_workers(torch.device("cpu")):
            pass
"""


def start_ranks(count: int, command: list[str]) -> list["subprocess.Popen[str]"]:
    """Start processes that find each other, as torchrun does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = Path(__file__).parents[2]
    common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    common |= {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, *command],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


def finish(processes: list["subprocess.Popen[str]"]) -> list[tuple[str, str]]:
    try:
        outputs = [process.communicate(timeout=SECONDS) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert [process.returncode for process in processes] == [0] * len(processes), outputs
    return outputs


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which two processes have written the gradients of `ONE_STEP`, and what the first one printed."""
    with contextlib.chdir(tmp_path_factory.mktemp("pair")):
        (printed, _), _ = finish(start_ranks(2, ["-c", ONE_STEP]))
        return Path.cwd(), printed


def test_a_lost_process_is_an_error_in_the_others(pair: tuple[Path, str]) -> None:
    assert "another process of this training has ended" in pair[1]


def test_two_processes_have_the_gradient_of_one_with_twice_the_batch(pair: tuple[Path, str]) -> None:
    alone = make_trainer("alone", replace(QUICK, steps=3, grad_clip=1e9, batch_size=2 * QUICK.batch_size))
    alone.update()
    ranks = [np.load(pair[0] / f"rank{rank}.npz") for rank in range(2)]
    for name, weight in alone.model.named_parameters():
        assert weight.grad is not None
        for found in ranks:
            np.testing.assert_allclose(found[name], weight.grad.numpy(), atol=1e-5)
    assert max(np.abs(ranks[0][name]).max() for name in ranks[0]) > 1e-3


def test_a_signal_ends_a_process_that_waits_for_others() -> None:
    gone, waiting = start_ranks(2, ["-c", WAITS_FOREVER])
    gone.communicate(timeout=60)
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "waits\n"
    time.sleep(1)
    waiting.terminate()
    try:
        waiting.communicate(timeout=20)
    finally:
        waiting.kill()
        waiting.communicate()
    assert waiting.returncode == -signal.SIGTERM


@pytest.mark.torture
def test_two_processes_train_one_model_and_one_process_resumes_it() -> None:
    Path("verse.txt").write_text(VERSE * 4, encoding="utf-8")
    small = ["--hidden", "8", "--embed", "8", "--seq-len", "16", "--batch-size", "2", "--threads", "1"]
    command = ["-m", "charlm", "train", "verse.txt", "--steps", "30", "--dropout", "0.2", *small]
    (out, err), (other_out, other_err) = finish(start_ranks(2, command))
    assert out == "checkpoints/verse/model.safetensors\n"
    assert "trained" in err
    assert other_out == other_err == ""
    metadata = load_checkpoint(Path("checkpoints/verse/last.safetensors")).metadata
    assert metadata["finished"]
    assert metadata["resume"]["workers"] == 2
    log = Path("checkpoints/verse/log.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in log] == sorted({json.loads(line)["step"] for line in log})

    long = start_ranks(2, [*command[:4], "--name", "long", "--steps", "1000000", *small])
    while not Path("checkpoints/long/log.jsonl").exists():
        assert all(process.poll() is None for process in long), [process.communicate() for process in long]
    for process in long:
        process.terminate()
    for process in long:
        process.communicate(timeout=SECONDS)
        assert process.returncode == 143
    saved = load_checkpoint(Path("checkpoints/long/last.safetensors"), with_resume=True)
    assert saved.tensors["resume/stream.0"].shape == (1, 4, 8)

    alone = start_ranks(1, ["-m", "charlm", "train", "--resume", "long"])[0]
    while (line := alone.stderr.readline() if alone.stderr else "") and "new positions" not in line:
        pass
    alone.terminate()
    alone.communicate(timeout=SECONDS)
    assert "saved by 2 process(es), continued by 1: the streams start at new positions" in line
    again = load_checkpoint(Path("checkpoints/long/last.safetensors"), with_resume=True)
    assert again.metadata["resume"]["step"] >= saved.metadata["resume"]["step"]
    assert again.tensors["resume/stream.0"].shape == (1, 2, 8)


def test_several_processes_cannot_read_standard_input() -> None:
    processes = start_ranks(2, ["-m", "charlm", "train", "-", "--steps", "1"])
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "standard input cannot be shared by several processes: give a file" in err


def test_a_single_process_gets_its_own_values() -> None:
    workers = Workers()
    part = torch.ones(2, 3)
    assert workers.gather(part, dim=1) is part
    assert workers.all_reduce_max([1.5, -2.0], torch.device("cpu")) == [1.5, -2.0]
    assert workers.average_gradients(torch.nn.Linear(2, 2), 3.5) == 3.5


def test_each_process_gets_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert find_device("auto") == torch.device("cuda")
    assert taken == [0, 1]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match=r"this machine has 2 GPU\(s\), fewer than processes"):
        find_device("auto")


def test_several_processes_cannot_use_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert find_device("auto") == torch.device("mps")
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert find_device("auto") == torch.device("cpu")
    with pytest.raises(ConfigError, match="device mps: not available for several processes"):
        find_device("mps")


def test_auto_selects_an_available_device_and_others_are_errors() -> None:
    assert find_device("cpu") == torch.device("cpu")
    found = find_device("auto").type
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    assert found == next((name for name, is_there in there.items() if is_there), "cpu")
    for name in (name for name, is_there in there.items() if not is_there):
        with pytest.raises(ConfigError, match=f"device {name}: not available on this machine"):
            find_device(name)
