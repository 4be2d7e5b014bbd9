"""Reading of prompts. Each is read from the zero state, after one newline, and several are read in parallel."""

from collections.abc import Sequence

import numpy as np

from charlm.engine.predictor import START, Predictor, Reader
from charlm.text.line_ends import fold_line_ends
from charlm.text.tokenizer import Ids, Tokenizer


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> tuple[Ids, bool]:
    r"""Return the ids of a prompt, and whether they leave out its final space; see `Tokenizer.encode_prompt`.

    The ids begin with those of `START`. A line end `\r\n` is read as `\n`.
    """
    return tokenizer.encode_prompt(START + fold_line_ends(prompt))


def read_prompts(predictor: Predictor, prompts: Sequence[str]) -> Reader:
    """Read prompts. Equal prompts are read once.

    Args:
        predictor: The model.
        prompts: B prompts, at least one.

    Returns:
        A reader of B sequences, after the prompts.
    """
    distinct = {prompt: index for index, prompt in enumerate(dict.fromkeys(prompts))}
    reader = predictor.read([encode_prompt(predictor.tokenizer, prompt)[0] for prompt in distinct])
    reader.select(np.array([distinct[prompt] for prompt in prompts]))
    return reader
