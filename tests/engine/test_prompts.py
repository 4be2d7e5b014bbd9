"""Prompts read in parallel compared with each prompt read alone."""

import numpy as np
import pytest

from charlm.engine.predictor import START
from charlm.engine.prompts import read_prompts
from charlm.engine.rnn import NetworkReader, RecurrentNetwork
from tests.conftest import make_checkpoint


@pytest.mark.parametrize("prompts", [["To be"], ["To be", "To be"], ["or", "", "To be, or not", "or", "end them?"]])
def test_states_and_outputs_equal_those_of_each_prompt_read_alone(prompts: list[str]) -> None:
    network = RecurrentNetwork(make_checkpoint(num_layers=2)[1])
    reader = read_prompts(network, prompts)
    assert isinstance(reader, NetworkReader)
    state, logits = reader.state(), reader.logits()
    for row, prompt in enumerate(prompts):
        expected_state = network.zero_state()
        expected = network.outputs(network.tokenizer.encode(START + prompt)[None], expected_state)[0, -1]
        np.testing.assert_allclose(logits[row], network.logits(expected), atol=1e-5)
        for part, expected_part in zip(state, expected_state, strict=True):
            np.testing.assert_allclose(part[:, row], expected_part[:, 0], atol=1e-6)
