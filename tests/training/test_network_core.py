"""Tests of the recurrent core and its models against PyTorch's single cells, run step by step."""

from collections.abc import Iterator
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from charlm.config import CELLS
from charlm.errors import ConfigError
from charlm.training.network import Classifier, CoreOptions, Forecaster, RecurrentCore

B, T, INPUTS, HIDDEN = 4, 6, 3, 5
LENGTHS = torch.tensor([6, 1, 4, 2])
SINGLE: dict[str, Any] = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell}


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def one_by_one(core: RecurrentCore, sequence: Tensor) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
    """Run one sequence, (T, inputs), with single cells; return outputs, and the state of each layer and direction."""
    ends = []
    for layer in core.layers:
        halves = []
        for suffix in ("", "_reverse")[: core.directions]:
            kind = {"nonlinearity": layer.nonlinearity} if isinstance(layer, nn.RNN) else {}
            cell = SINGLE[type(layer).__name__.lower()](sequence.shape[1], HIDDEN, **kind)
            cell.load_state_dict({name: getattr(layer, f"{name}_l0{suffix}") for name in cell.state_dict()})
            state: Any = None
            outputs = []
            for step in sequence.flip(0) if suffix else sequence:
                state = cell(step[None], state)
                outputs.append(state[0] if isinstance(state, tuple) else state)
            ends.append(tuple(part[0] for part in (state if isinstance(state, tuple) else (state,))))
            halves.append(torch.cat(outputs[::-1] if suffix else outputs))
        sequence = torch.cat(halves, dim=1)
    return sequence, ends


def with_random_biases(core: RecurrentCore) -> RecurrentCore:
    for weights in core.parameters():
        weights += 0.1 * torch.randn_like(weights)  # new biases are 0
    return core


@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "bidirectional"])
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize(
    ("cell", "nonlinearity"), [("lstm", "tanh"), ("gru", "tanh"), ("rnn", "tanh"), ("rnn", "relu")]
)
def test_a_batch_with_lengths_equals_its_sequences_one_by_one(
    cell: str, nonlinearity: Literal["tanh", "relu"], num_layers: int, bidirectional: bool
) -> None:
    options = CoreOptions(nonlinearity=nonlinearity, bidirectional=bidirectional)
    core = RecurrentCore(cell, INPUTS, HIDDEN, num_layers, options=options)
    inputs = torch.randn(B, T, INPUTS)
    outputs, state = with_random_biases(core)(inputs, lengths=LENGTHS)
    assert len(state) == (2 if cell == "lstm" else 1)
    assert all(part.shape == (num_layers * core.directions, B, HIDDEN) for part in state)
    assert outputs.shape == (B, T, core.output_size)
    for b, length in enumerate(LENGTHS.tolist()):
        expected, ends = one_by_one(core, inputs[b, :length])
        torch.testing.assert_close(outputs[b, :length], expected)
        assert not outputs[b, length:].any(), "outputs after the end are exactly zero"
        for layer, end in enumerate(ends):
            for part, own in zip(state, end, strict=True):
                torch.testing.assert_close(part[layer, b], own)


@pytest.mark.parametrize("cell", CELLS)
def test_a_core_reads_two_halves_with_carried_state_like_the_whole(cell: str) -> None:
    core = RecurrentCore(cell, INPUTS, HIDDEN, 2)
    inputs = torch.randn(B, T, INPUTS)
    whole, end = core(inputs)
    first, middle = core(inputs[:, :3])
    second, end_of_halves = core(inputs[:, 3:], middle)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
    torch.testing.assert_close(end_of_halves, end)


@pytest.mark.parametrize("cell", CELLS)
def test_the_final_state_equals_the_last_output_before_padding(cell: str) -> None:
    core = RecurrentCore(cell, INPUTS, HIDDEN)
    outputs, state = core(torch.randn(B, T, INPUTS), lengths=LENGTHS)
    assert torch.equal(state[0][0], outputs[torch.arange(B), LENGTHS - 1])
    assert torch.equal(core.last_output(state), state[0][0])


def test_the_last_output_has_the_end_of_each_direction() -> None:
    core = RecurrentCore("gru", INPUTS, HIDDEN, 2, options=CoreOptions(bidirectional=True))
    outputs, state = core(torch.randn(B, T, INPUTS), lengths=LENGTHS)
    forward, backward = core.last_output(state).split(HIDDEN, dim=1)
    assert torch.equal(forward, outputs[torch.arange(B), LENGTHS - 1, :HIDDEN])
    assert torch.equal(backward, outputs[:, 0, HIDDEN:])


def test_the_values_of_padding_have_no_effect() -> None:
    model = Classifier(RecurrentCore("lstm", INPUTS, HIDDEN, options=CoreOptions(bidirectional=True)), 2)
    inputs = torch.randn(B, T, INPUTS)
    other = inputs.clone()
    for b, length in enumerate(LENGTHS.tolist()):
        other[b, length:] = 1e6
    assert torch.equal(model(inputs, lengths=LENGTHS), model(other, lengths=LENGTHS))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_only_an_rnn_can_use_relu(cell: str) -> None:
    with pytest.raises(ConfigError, match="always uses tanh"):
        RecurrentCore(cell, INPUTS, HIDDEN, options=CoreOptions(nonlinearity="relu"))


def test_values_and_token_ids_are_read_side_by_side() -> None:
    embedding = nn.Embedding(7, 4)
    model = Forecaster(RecurrentCore("gru", INPUTS + 4, HIDDEN), 2, embedding)
    values, ids = torch.randn(B, T, INPUTS), torch.randint(7, (B, T))
    answers, state = model(values, ids, lengths=LENGTHS)
    outputs, end = model.core(torch.cat([values, embedding(ids)], dim=-1), lengths=LENGTHS)
    assert torch.equal(answers, model.head(outputs))
    assert torch.equal(state[0], end[0])


def test_a_forecaster_continues_from_a_state() -> None:
    model = Forecaster(RecurrentCore("lstm", INPUTS, HIDDEN), 1)
    values = torch.randn(B, T, INPUTS)
    whole, _ = model(values)
    _, middle = model(values[:, :2])
    torch.testing.assert_close(model(values[:, 2:], state=middle)[0], whole[:, 2:])


def test_a_classifier_uses_the_last_state_only() -> None:
    model = Classifier(RecurrentCore("rnn", 4, HIDDEN, 2), 3, nn.Embedding(7, 4))
    ids = torch.randint(7, (B, T))
    _, state = model.core(model.embedding(ids))
    assert torch.equal(model(ids=ids), model.head(state[0][-1]))


def test_dropout_of_a_core_is_active_in_training_only() -> None:
    core = RecurrentCore("lstm", INPUTS, 50, options=CoreOptions(dropout=0.5))
    inputs = torch.randn(B, T, INPUTS)
    assert (core(inputs)[0] == 0).float().mean() > 0.3
    core.eval()
    assert torch.equal(core(inputs)[0], core(inputs)[0])
