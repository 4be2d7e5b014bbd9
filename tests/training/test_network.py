from itertools import product

import numpy as np
import pytest
import torch
from torch.fx.experimental import _config as fx_config

from charlm.config import CELLS, ModelConfig
from charlm.engine.checkpoint import Checkpoint, tensor_shapes
from charlm.engine.rnn import RecurrentNetwork
from charlm.errors import ConfigError
from charlm.text.tokenizer import WordTokenizer
from charlm.training.dropout import LockedDropout, fast_mask
from charlm.training.loss import sequence_loss
from charlm.training.network import CoreOptions, LanguageModel, RecurrentCore, recurrent_precision, reset_state
from tests.conftest import VERSE

SHAPES = [(cell, layers, tied) for cell, layers, tied in product(CELLS, (1, 2), (False, True))]


def make_model(cell: str = "lstm", **config: object) -> LanguageModel:
    shape = {"vocab_size": 11, "cell": cell, "num_layers": 2, "hidden_size": 6, "embedding_dim": 6, **config}
    return LanguageModel(ModelConfig.pick(shape)).eval()


def some_ids(rows: int = 3, steps: int = 8, vocab_size: int = 11) -> torch.Tensor:
    return torch.randint(0, vocab_size, (rows, steps))


@pytest.mark.parametrize(("cell", "layers", "tied"), SHAPES)
def test_tensors_have_the_names_and_shapes_of_the_model_file(cell: str, layers: int, tied: bool) -> None:
    model = make_model(cell, num_layers=layers, tie_weights=tied)
    logits, state = model(some_ids())
    assert logits.shape == (3, 8, 11)
    assert [part.shape for part in state] == [(layers, 3, 6)] * (2 if cell == "lstm" else 1)
    shapes = {name: array.shape for name, array in model.to_tensors().items()}
    assert shapes == tensor_shapes(model.config)


@pytest.mark.parametrize("cell", CELLS)
def test_a_model_reads_two_halves_with_carried_state_like_the_whole(cell: str) -> None:
    model, ids = make_model(cell), some_ids()
    whole, end = model(ids)
    first, state = model(ids[:, :3])
    second, state = model(ids[:, 3:], state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
    torch.testing.assert_close(state, end)


@pytest.mark.parametrize("cell", CELLS)
def test_padding_after_the_length_of_a_sequence_is_ignored(cell: str) -> None:
    core, inputs = RecurrentCore(cell, 5, 6, num_layers=2), torch.randn(3, 8, 5)
    outputs, state = core(inputs, lengths=torch.tensor([8, 2, 5]))
    assert outputs.shape == (3, 8, 6)
    for row, length in enumerate((8, 2, 5)):
        alone, end = core(inputs[row : row + 1, :length])
        torch.testing.assert_close(outputs[row : row + 1, :length], alone)
        torch.testing.assert_close([part[:, row : row + 1] for part in state], list(end))
        assert not outputs[row, length:].any()


@pytest.mark.parametrize("samples", [0, 4])
@pytest.mark.parametrize("cell", CELLS)
def test_all_tensors_of_an_update_are_on_the_device_of_the_model(cell: str, samples: int) -> None:
    """PyTorch raises an error if tensors of the meta device, used here in place of a GPU, meet tensors of the CPU."""
    dropped = {"dropout": 0.1, "input_dropout": 0.1, "token_dropout": 0.1, "recurrent_dropout": 0.1}
    model = make_model(cell, skip_connections=True, **dropped).to("meta").train()
    model.start_from_frequencies(torch.ones(11))
    state = reset_state(model.core.zero_state(3), np.array([True, False, False]))
    ids = some_ids().to("meta")
    with fx_config.patch(meta_nonzero_assume_all_nonzero=True):  # masks have no values on the meta device
        loss, state = model.loss(ids, ids, state, samples=samples)
    loss.backward()  # type: ignore[no-untyped-call]
    tensors = [loss, *state, *(weight.grad for weight in model.parameters() if weight.grad is not None)]
    assert {tensor.device.type for tensor in tensors} == {"meta"}


@pytest.mark.parametrize(("device", "half"), [("cpu", True), ("cuda", False), ("mps", False)])
def test_recurrent_layers_run_in_float32_on_a_gpu(device: str, *, half: bool) -> None:
    """Autocast would run them in float16, in which most gradients become zero."""
    before = torch.is_autocast_enabled(device)
    try:
        torch.set_autocast_enabled(device, True)
        with recurrent_precision(torch.device(device)):
            assert torch.is_autocast_enabled(device) == half
        assert torch.is_autocast_enabled(device)
    finally:
        torch.set_autocast_enabled(device, before)


def test_skip_connections_sum_the_outputs_of_all_layers() -> None:
    core = RecurrentCore("gru", 5, 6, num_layers=3, options=CoreOptions(skip_connections=True))
    inputs = torch.randn(2, 4, 5)
    first = core.layers[0](inputs)[0]
    second = core.layers[1](first)[0]
    torch.testing.assert_close(core(inputs)[0], first + second + core.layers[2](second)[0])


def test_tied_weights_remain_one_matrix_after_loading() -> None:
    model = make_model(tie_weights=True)
    assert "decoder.weight" not in model.to_tensors()
    other = make_model(tie_weights=True)
    other.load_tensors(model.to_tensors())
    assert other.decoder.weight is other.embedding.weight
    torch.testing.assert_close(other(some_ids().fill_(3))[0], model(some_ids().fill_(3))[0])
    with pytest.raises(ConfigError, match="tie_weights needs"):
        make_model(tie_weights=True, embedding_dim=5)


def test_locked_dropout_uses_one_mask_for_all_time_steps_and_keeps_the_mean() -> None:
    dropout, inputs = LockedDropout(0.4), torch.ones(50, 7, 200)
    outputs = dropout(inputs)
    assert (outputs == outputs[:, :1]).all()
    assert sorted(set(outputs.flatten().tolist())) == pytest.approx([0, 1 / 0.6])
    assert float((outputs == 0).float().mean()) == pytest.approx(0.4, abs=0.03)
    assert dropout.eval()(inputs) is inputs


@pytest.mark.parametrize("name", ["dropout", "input_dropout", "token_dropout", "recurrent_dropout"])
@pytest.mark.parametrize("cell", CELLS)
def test_dropout_is_active_in_training_only(cell: str, name: str) -> None:
    model = make_model(cell, **{name: 0.5})
    without = make_model(cell)
    without.load_tensors(model.to_tensors())
    ids = some_ids()
    torch.testing.assert_close(model(ids)[0], without(ids)[0])
    model.train()
    assert not torch.equal(model(ids)[0], model(ids)[0])
    before = {key: array.copy() for key, array in model.to_tensors().items()}
    loss, _ = model.loss(ids, ids, model.core.zero_state(3))
    loss.backward()
    for key, array in model.to_tensors().items():
        np.testing.assert_array_equal(array, before[key])
    assert all(weight.grad is not None for weight in model.parameters())


def test_a_dropped_token_is_zero_wherever_it_occurs() -> None:
    model = make_model(token_dropout=0.5, vocab_size=400).train()
    ids = torch.arange(400).repeat(2, 1)
    embedded = model._embed(ids)
    assert torch.equal(embedded[0], embedded[1])
    gone = (embedded[0] == 0).all(dim=1)
    assert 120 < int(gone.sum()) < 280
    torch.testing.assert_close(embedded[0][~gone], 2 * model.embedding.weight[~gone])


def test_recurrent_dropout_affects_recurrent_weights_only() -> None:
    core = RecurrentCore("lstm", 5, 6, options=CoreOptions(recurrent_dropout=0.5)).train()
    inputs = torch.randn(2, 1, 5)
    # With a zero state the recurrent weights have no effect, and neither has their dropout.
    torch.testing.assert_close(core(inputs)[0], core(inputs)[0])
    state = tuple(torch.randn(1, 2, 6) for _ in range(2))
    assert not torch.equal(core(inputs, state)[0], core(inputs, state)[0])


def test_the_loss_equals_the_cross_entropy_of_the_logits() -> None:
    model, ids = make_model(), some_ids()
    targets = some_ids()
    state = model.core.zero_state(3)
    loss, end = model.loss(ids, targets, state)
    logits, expected_end = model(ids, state)
    torch.testing.assert_close(loss, sequence_loss(logits, targets))
    torch.testing.assert_close(end, expected_end)
    sampled, _ = model.loss(ids, targets, state, samples=4000)
    torch.testing.assert_close(sampled, loss, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("cell", CELLS)
def test_the_numpy_network_agrees_with_the_trained_word_model(cell: str) -> None:
    tokenizer = WordTokenizer.from_text([VERSE])
    model = make_model(
        cell, vocab_size=tokenizer.vocab_size, tie_weights=True, dropout=0.3, input_dropout=0.3, recurrent_dropout=0.3
    )
    network = RecurrentNetwork(Checkpoint(config=model.config, tokenizer=tokenizer, tensors=model.to_tensors()))
    ids = tokenizer.encode(VERSE)[None, :].astype(np.int64)
    found = network.logits(network.outputs(ids, network.zero_state(1)))
    with torch.no_grad():
        expected = model(torch.from_numpy(ids))[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_fast_masks_have_the_requested_share_of_zeros_and_keep_the_mean() -> None:
    mask = fast_mask(torch.empty(300, 301), 0.25)
    assert sorted(set(mask.flatten().tolist())) == pytest.approx([0, 4 / 3])
    assert float((mask == 0).float().mean()) == pytest.approx(0.25, abs=0.01)
    assert float(mask.mean()) == pytest.approx(1, abs=0.02)
