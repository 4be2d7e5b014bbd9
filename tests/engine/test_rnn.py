"""The NumPy network compared with PyTorch, and with itself when the same tokens are read in other ways."""

import numpy as np
import pytest
import torch

from charlm.config import CELLS
from charlm.engine.checkpoint import Checkpoint
from charlm.engine.rnn import RecurrentNetwork, Stepper
from tests.conftest import make_checkpoint

TINIEST = np.finfo(np.float32).tiny


def random_ids(network: RecurrentNetwork, rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(0, network.config.vocab_size, shape)


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("shape", [{}, {"tie_weights": True}, {"skip_connections": True}])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_logits_and_final_state_equal_those_of_the_torch_model(
    cell: str, num_layers: int, shape: dict[str, bool], batch_size: int, rng: np.random.Generator
) -> None:
    model, checkpoint = make_checkpoint(cell=cell, num_layers=num_layers, **shape)
    network = RecurrentNetwork(checkpoint)
    ids = random_ids(network, rng, batch_size, 40)
    with torch.no_grad():
        expected, expected_state = model(torch.from_numpy(ids))
    state = network.zero_state(batch_size)
    logits = network.logits(network.outputs(ids, state))
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-5)
    for part, expected_part in zip(state, expected_state, strict=True):
        np.testing.assert_allclose(part, expected_part.numpy(), atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("cell", CELLS)
def test_two_halves_with_carried_state_equal_the_whole(cell: str, batch_size: int, rng: np.random.Generator) -> None:
    network = RecurrentNetwork(make_checkpoint(cell=cell, num_layers=2)[1])
    ids = random_ids(network, rng, batch_size, 20)
    whole, state = network.outputs(ids, network.zero_state(batch_size)), network.zero_state(batch_size)
    halves = np.concatenate([network.outputs(ids[:, :7], state), network.outputs(ids[:, 7:], state)], axis=1)
    np.testing.assert_allclose(halves, whole, atol=1e-6)


@pytest.mark.parametrize("skip_connections", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_a_stepper_continues_with_the_selected_sequences(
    cell: str, skip_connections: bool, rng: np.random.Generator
) -> None:
    network = RecurrentNetwork(make_checkpoint(cell=cell, num_layers=3, skip_connections=skip_connections)[1])
    ids = random_ids(network, rng, 5, 12)
    whole = network.outputs(ids, network.zero_state(5))
    stepper = Stepper(network, network.zero_state(5))
    for time in range(6):
        np.testing.assert_allclose(stepper.step(ids[:, time]), whole[:, time], atol=1e-6)
    chosen = np.array([4, 1, 1])
    stepper.select(chosen)
    for time in range(6, 12):
        np.testing.assert_allclose(stepper.step(ids[chosen, time]), whole[chosen, time], atol=1e-6)
    alone = network.zero_state(1)
    network.outputs(ids[4:5], alone)
    for part, expected in zip(stepper.state(), alone, strict=True):
        np.testing.assert_allclose(part[:, :1], expected, atol=1e-6)


def test_sequences_of_different_lengths_give_the_same_outputs_as_each_alone(rng: np.random.Generator) -> None:
    network = RecurrentNetwork(make_checkpoint(num_layers=2)[1])
    sequences = [random_ids(network, rng, length) for length in (30, 29, 11, 11, 3, 2, 1, 1, 1)]
    found: list[list[np.ndarray]] = [[] for _ in sequences]
    for _, outputs in network.step_ragged(sequences):
        for row, output in zip(found, outputs, strict=False):
            row.append(output.copy())
    for ids, outputs in zip(sequences, found, strict=True):
        alone = network.outputs(ids[None], network.zero_state())[0]
        np.testing.assert_allclose(np.array(outputs), alone, atol=1e-6)


def test_a_decaying_memory_never_becomes_denormal() -> None:
    """With a closed input gate and a half-open forget gate, an exact sigmoid would halve the memory at every step."""
    _, checkpoint = make_checkpoint(hidden_size=4, embedding_dim=4)
    tensors = {name: np.zeros_like(array) for name, array in checkpoint.tensors.items()}
    # Input gate closed, forget gate 1/2, candidate tanh(1), output gate 1/2.
    tensors["core.layers.0.bias_ih_l0"] = np.repeat(np.float32([-200, 0, 1, 0]), 4)
    network = RecurrentNetwork(Checkpoint(config=checkpoint.config, tokenizer=checkpoint.tokenizer, tensors=tensors))
    state = network.zero_state()
    state[1][...] = 1
    for _ in range(200):
        network.outputs([[1]], state)
        for part in state:
            assert (np.abs(part) > TINIEST).all()
