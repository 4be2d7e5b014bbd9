"""Training on a GPU. Where PyTorch finds none, these tests are skipped."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from charlm.engine.checkpoint import load_checkpoint
from charlm.errors import ConfigError
from charlm.training.throughput import Machine
from charlm.training.token_losses import validation_nats
from tests.conftest import VERSE
from tests.training.test_trainer import IDS, QUICK, assert_same_run, make_trainer, stop_after

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU")

GPU = torch.device("cuda")

SHAPES = [
    {"cell": cell, "num_layers": layers, "dropout": dropout, "recurrent_dropout": dropout}
    for cell, layers, dropout in (("lstm", 2, 0.2), ("gru", 1, 0.0), ("rnn", 1, 0.1))
]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(shape: dict[str, Any], precision: str) -> None:
    config = replace(QUICK, precision=precision)
    make_trainer("whole", config, device=GPU, **shape).train()
    make_trainer("cut", config, device=GPU, stop=stop_after(7), **shape).train()
    make_trainer("cut", config, device=GPU, resume=True, **shape).train()
    assert_same_run("cut", "whole")


def test_a_sampled_softmax_resumes_exactly() -> None:
    config = replace(QUICK, softmax_samples=5)
    make_trainer("whole", config, device=GPU).train()
    make_trainer("cut", config, device=GPU, stop=stop_after(7)).train()
    make_trainer("cut", config, device=GPU, resume=True).train()
    assert_same_run("cut", "whole")


@pytest.mark.parametrize("shape", SHAPES)
def test_gpu_and_cpu_compute_the_same_losses(shape: dict[str, Any]) -> None:
    on_cpu, on_gpu = (make_trainer(name, **shape) for name in ("cpu", "gpu"))
    on_gpu.model.to(GPU)
    expected = validation_nats(on_cpu.model, IDS, 3)
    np.testing.assert_allclose(validation_nats(on_gpu.model, IDS, 3), expected, atol=5e-3)  # TF32 has 10 bits


def test_a_training_that_was_begun_on_a_gpu_continues_on_a_cpu() -> None:
    make_trainer("run", device=GPU, stop=stop_after(7)).train()
    make_trainer("run", resume=True).train()
    assert load_checkpoint(Path("run/model.safetensors")).metadata["metrics"]["step"] == QUICK.steps


def test_the_command_line_trains_on_the_gpu_by_default() -> None:
    Path("verse.txt").write_text(VERSE * 200, encoding="utf-8")
    command = [sys.executable, "-W", "error", "-m", "charlm"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}

    def run(*args: str) -> str:
        done = subprocess.run([*command, *args], env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    for name, options in (("a", ()), ("b", ("--device", "cuda"))):
        run("train", "verse.txt", "--steps", "60", "--dropconnect", "0.1", "--name", name, *options)
    assert run("sample", "-m", "a", "-n", "200", "--seed", "1") == run("sample", "-m", "b", "-n", "200", "--seed", "1")


def test_a_model_larger_than_the_memory_of_the_gpu_is_refused_before_it_is_made() -> None:
    """An LSTM of 60,000 units has 28.8 billion weights."""
    made = make_trainer(device=GPU)
    with pytest.raises(ConfigError, match="this GPU has"):
        Machine(device=GPU).measure_throughput(replace(made.model.config, hidden_size=60_000), QUICK)


def test_the_random_state_of_the_gpu_survives_a_measurement_of_speed() -> None:
    torch.cuda.manual_seed(1)
    state = torch.cuda.get_rng_state()
    made = make_trainer(device=GPU)
    torch.cuda.set_rng_state(state)
    Machine(device=GPU).measure_throughput(made.model.config, replace(QUICK, minutes=1.0, steps=None))
    assert torch.equal(torch.cuda.get_rng_state(), state)
