"""Reading of prompts. Each is read from the zero state, after one newline, and several are read in parallel.

Shapes: B batch, H hidden.
"""

from collections.abc import Sequence

import numpy as np

from charlm.engine.rnn import START, Array, RecurrentNetwork, State, Stepper
from charlm.text.line_ends import fold_line_ends
from charlm.text.tokenizer import Ids, Tokenizer


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> tuple[Ids, bool]:
    r"""Return the ids of a prompt, and whether they leave out its final space; see `Tokenizer.encode_prompt`.

    The ids begin with those of `START`. A line end `\r\n` is read as `\n`.
    """
    return tokenizer.encode_prompt(START + fold_line_ends(prompt))


def read_prompts(network: RecurrentNetwork, prompts: Sequence[str]) -> tuple[Stepper, Array]:
    """Read prompts. Equal prompts are read once.

    Args:
        network: The model.
        prompts: B prompts, at least one.

    Returns:
        A stepper in the states after the prompts, and the last output of each prompt, (B, H), float32.
    """
    distinct = {prompt: index for index, prompt in enumerate(dict.fromkeys(prompts))}
    encoded = [encode_prompt(network.tokenizer, prompt)[0] for prompt in distinct]
    state, outputs = _read_one(network, encoded[0]) if len(encoded) == 1 else _read_in_parallel(network, encoded)
    stepper = Stepper(network, state)
    rows = np.array([distinct[prompt] for prompt in prompts])
    stepper.select(rows)
    return stepper, outputs[rows]


def _read_one(network: RecurrentNetwork, ids: Ids) -> tuple[State, Array]:
    """Read one sequence; return the state after it and the last output, (1, H)."""
    state = network.zero_state(1)
    return state, network.read(ids[None], state)[:, -1]


def _read_in_parallel(network: RecurrentNetwork, sequences: Sequence[Ids]) -> tuple[State, Array]:
    """Read B sequences of any lengths; return the state after the last token of each, and the last outputs, (B, H)."""
    lengths = np.array([len(ids) for ids in sequences])
    longest_first = np.argsort(-lengths, kind="stable")
    state = network.zero_state(len(sequences))
    outputs: Array = np.empty((len(sequences), network.config.hidden_size), dtype=np.float32)
    steps = network.step_ragged([sequences[index] for index in longest_first])
    for time, (stepper, step_outputs) in enumerate(steps):
        rows = np.flatnonzero(lengths[longest_first[: len(step_outputs)]] == time + 1)
        if len(rows):
            ended = longest_first[rows]
            outputs[ended] = step_outputs[rows]
            for part, step_part in zip(state, stepper.state(), strict=True):
                part[:, ended] = step_part[:, rows]
    return state, outputs
