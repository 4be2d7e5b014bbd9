"""Text that grows token by token compared with the whole text."""

import pytest

from charlm.engine.generation import DECODING_WINDOW, Generation
from charlm.sample_config import SampleConfig
from charlm.text.tokenizer import CharTokenizer, Tokenizer, WordTokenizer
from tests.conftest import VERSE

PROMPT = VERSE[:40]


@pytest.mark.parametrize("tokenizer", [CharTokenizer.from_text(VERSE), WordTokenizer.from_text([VERSE])])
def test_pieces_add_up_to_the_decoded_text(tokenizer: Tokenizer) -> None:
    generation = Generation(tokenizer, SampleConfig(), PROMPT, seed=0)
    ids = tokenizer.encode(VERSE)[len(tokenizer.encode(PROMPT)) :].tolist()
    assert len(ids) > DECODING_WINDOW
    assert PROMPT + "".join(generation.append(token_id) for token_id in ids) == VERSE
    assert generation.num_tokens == len(ids)
    assert generation.tail == VERSE


def test_a_fork_does_not_change_the_original() -> None:
    tokenizer = WordTokenizer.from_text([VERSE])
    ids = tokenizer.encode(VERSE).tolist()
    generation, expected = (Generation(tokenizer, SampleConfig(length=5), "To be", seed=0) for _ in range(2))
    fork = generation.fork()
    for token_id in ids[:5]:
        fork.append(token_id, 1.0)
    assert (fork.ended_by, fork.nll_nats) == ("length", 5.0)
    assert [generation.append(token_id) for token_id in ids[5:8]] == [
        expected.append(token_id) for token_id in ids[5:8]
    ]
    assert (generation.num_tokens, generation.nll_nats, generation.ended_by) == (3, 0.0, "")
    assert generation.recent_ids == expected.recent_ids
